package intent

import (
	"hash/fnv"
	"maps"
	"reflect"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
)

type externalNetworkRules struct{}

func (externalNetworkRules) clone(r model.Resource) model.Resource {
	c := *r.(*model.ExternalNetwork)
	c.Metadata = cloneMeta(c.Metadata)
	c.Spec.Interfaces, c.Spec.Tenants = slices.Clone(c.Spec.Interfaces), orNil(c.Spec.Tenants)
	for i := range c.Spec.Interfaces {
		x := &c.Spec.Interfaces[i]
		x.Hosts, x.Labels = orNil(x.Hosts), maps.Clone(x.Labels)
		if len(x.Labels) == 0 {
			x.Labels = nil
		}
	}
	return &c
}

func (externalNetworkRules) inherit(_, _ model.Resource) {}

// maxInterfaces bounds what one external network may list.
const maxInterfaces = 1024

func (externalNetworkRules) check(a *admission, r, _ model.Resource) {
	n, k := r.(*model.ExternalNetwork), model.KeyOf(r)
	a.checkTenants(k, n.Spec)
	if len(n.Spec.Interfaces) == 0 || len(n.Spec.Interfaces) > maxInterfaces {
		a.fail(k, "spec.interfaces", "has %d entries; 1 to %d say by which device hosts are connected", len(n.Spec.Interfaces), maxInterfaces)
		return
	}
	for i, x := range n.Spec.Interfaces {
		field := at("spec.interfaces", i)
		if x.Interface == "" {
			a.fail(k, field+".interface", "is required: the name of a device of the host")
		} else if problem := interfaceProblem(x.Interface); problem != "" {
			a.fail(k, field+".interface", "%q %s", x.Interface, problem)
		}
		for j, h := range x.Hosts {
			if !ValidName(h) {
				a.fail(k, at(field+".hosts", j), "%.40q is not the name of a host: %s", h, nameRule)
			}
		}
		if len(x.Labels) > maxLabels {
			a.fail(k, field+".labels", "has %d entries; at most %d are allowed", len(x.Labels), maxLabels)
		}
	}
}

// maxTenants bounds the tenants that one external network may list.
const maxTenants = 1024

func (a *admission) checkTenants(k model.Key, s model.ExternalNetworkSpec) {
	if len(s.Tenants) > maxTenants {
		a.fail(k, "spec.tenants", "has %d entries; at most %d are allowed, or %q for every tenant", len(s.Tenants), maxTenants, model.AnyTenant)
		return
	}
	for i, t := range s.Tenants {
		switch {
		case slices.Contains(s.Tenants[:i], t):
			a.fail(k, at("spec.tenants", i), "%.40q is listed twice", t)
		case t == model.AnyTenant:
		case !ValidName(t):
			a.fail(k, at("spec.tenants", i), "%.40q is not the name of a tenant: %s", t, nameRule)
		default:
			a.refer(k, at("spec.tenants", i), tenantKey(t))
		}
	}
}

func (externalNetworkRules) allocate(*admission, model.Resource) {}

// relate refuses to shut out who is there.
func (externalNetworkRules) relate(a *admission, r, old model.Resource) {
	n, ok := r.(*model.ExternalNetwork)
	if !ok || old == nil {
		return
	}
	for _, c := range a.childrenOf(model.KeyOf(n)) {
		if !n.Spec.Lets(c.Ref.Tenant) {
			a.fail(model.KeyOf(n), "spec.tenants", "leaves out %q, of whom %s is on the network; delete that first", c.Ref.Tenant, c)
			return
		}
	}
}

// mayUse refuses a VLAN of an external network that is not for the tenant. It gives whether the network is there.
func (a *admission) mayUse(k model.Key, network string) bool {
	n, _ := a.refer(k, "spec.vlan.network", externalKey(network)).(*model.ExternalNetwork)
	if n == nil {
		return false
	}
	if !n.Spec.Lets(k.Ref.Tenant) {
		a.fail(k, "spec.vlan.network", "%s is not for tenant %s; have an administrator add it to spec.tenants of the ExternalNetwork", network, k.Ref.Tenant)
		return false
	}
	return true
}

func (externalNetworkRules) claims(func(model.Key) model.Resource, model.Resource) []claim {
	return nil
}

func (externalNetworkRules) parents(r model.Resource) []model.Key {
	var out []model.Key
	for _, t := range r.(*model.ExternalNetwork).Spec.Tenants {
		if t != model.AnyTenant {
			out = append(out, tenantKey(t))
		}
	}
	return out
}

func (externalNetworkRules) sameSpec(a, b model.Resource) bool {
	return reflect.DeepEqual(a.(*model.ExternalNetwork).Spec, b.(*model.ExternalNetwork).Spec)
}

func externalKey(name string) model.Key {
	return model.Key{Kind: model.KindExternalNetwork, Ref: model.Ref{Name: name}}
}

// vlanMACClaim makes a MAC unique in an external network.
func vlanMACClaim(network string, m model.MAC) claim {
	h := fnv.New64a()
	h.Write([]byte(network))
	c := claim{what: claimVLANMAC, num: h.Sum64()}
	copy(c.value[:], m[:])
	return c
}

// checkVLANPort judges a port on a VLAN, which is in no subnet.
func (a *admission) checkVLANPort(p *model.Port, s model.Settings) {
	k := model.KeyOf(p)
	if a.bad[k] {
		return
	}
	var sends model.BandwidthLimit
	if s.Bandwidth != nil {
		sends = s.Bandwidth.Outbound
	}
	for _, x := range []struct {
		field string
		set   bool
	}{{"subnet", p.Spec.Subnet != ""}, {"dynamicAddressLimit", s.Learns()}, {"forwarding", s.Forwarding},
		{"isolation", s.Isolation != model.Isolation{}},
		{"bandwidth.outbound.minimum", sends.Minimum > 0}, {"bandwidth.outbound.weight", sends.Weight > 0}} { // shares of uplinks
		if x.set {
			a.fail(k, "spec."+x.field, "does not go with spec.vlan: it is for ports in a virtual subnet")
		}
	}
	for i, ca := range p.Spec.Addresses {
		if problem := addressProblem(ca); problem != "" {
			a.fail(k, at("spec.addresses", i), "%s %s", ca, problem)
		} else if slices.Contains(p.Spec.Addresses[:i], ca) {
			a.fail(k, at("spec.addresses", i), "%s is listed twice", ca)
		}
	}
	if !a.mayUse(k, s.VLAN.Network) || a.bad[k] {
		return
	}
	a.planVLAN(p, s.VLAN)
	if p.Spec.MAC.IsZero() {
		return
	}
	if o := a.claim(vlanMACClaim(s.VLAN.Network, p.Spec.MAC), p); o != nil {
		a.fail(k, "spec.mac", "%s is already that of %s in this external network; choose another or leave it out", p.Spec.MAC, name(o))
	}
}

func (a *admission) allocateVLANMAC(p *model.Port, network string) bool {
	for range maxMACAttempts {
		m := a.alloc.MAC()
		if m.IsUnicast() && !m.IsRouter() && a.claim(vlanMACClaim(network, m), p) == nil {
			p.Spec.MAC = m
			return true
		}
	}
	return false
}

// vlanRole is what a VLAN of an external network is used for.
type vlanRole struct {
	what    string // "access", "primary", "isolated", "community", or "secondary" where nobody says which
	primary uint16 // of a secondary VLAN
}

// vlanPlan are the roles of the VLANs of an external network, and the isolated VLAN of each primary (RFC 5517).
type vlanPlan struct {
	roles    map[uint16]vlanRole
	isolated map[uint16]uint16
}

// planVLAN refuses a port that uses a VLAN otherwise than the other ports of the network do.
func (a *admission) planVLAN(p *model.Port, v *model.VLAN) {
	plan, ok := a.vlans[v.Network]
	if !ok {
		plan = &vlanPlan{map[uint16]vlanRole{}, map[uint16]uint16{}}
		a.vlans[v.Network] = plan
		a.eachVLANPort(v.Network, func(other *model.VLAN) { plan.take(other, func(string, string, ...any) {}) })
	}
	plan.take(v, func(field, format string, args ...any) { a.fail(model.KeyOf(p), "spec.vlan."+field, format, args...) })
}

// eachVLANPort visits the ports of an external network that the set does not change.
func (a *admission) eachVLANPort(network string, visit func(*model.VLAN)) {
	var ports []model.Key
	for _, k := range a.childrenOf(externalKey(network)) {
		if k.Kind == model.KindPortProfile {
			ports = append(ports, a.childrenOf(k)...)
			continue
		}
		ports = append(ports, k)
	}
	for _, k := range ports {
		if _, inSet := a.puts[k]; inSet {
			continue
		}
		if p, ok := a.base.get(k).(*model.Port); ok {
			if v := a.settings(p).VLAN; v != nil && v.Network == network {
				visit(v)
			}
		}
	}
}

func (p *vlanPlan) take(v *model.VLAN, fail func(field, format string, args ...any)) {
	switch {
	case v.Mode == model.VLANAccess:
		p.use("id", v.ID, vlanRole{what: "access"}, fail)
	case v.Mode == model.VLANPrivate && v.Private != nil:
		p.takePrivate(v.Private, fail)
	}
}

func (p *vlanPlan) takePrivate(v *model.PrivateVLAN, fail func(field, format string, args ...any)) {
	p.use("private.primary", v.Primary, vlanRole{what: "primary"}, fail)
	for i, id := range v.Secondaries {
		p.use(at("private.secondaries", i), id, vlanRole{"secondary", v.Primary}, fail)
	}
	if v.Mode == model.IsolationPromiscuous {
		return
	}
	p.use("private.secondary", v.Secondary, vlanRole{string(v.Mode), v.Primary}, fail)
	if v.Mode != model.IsolationIsolated {
		return
	}
	if other, ok := p.isolated[v.Primary]; ok && other != v.Secondary {
		fail("private.secondary", "VLAN %d is the isolated VLAN of primary %d already, and there is one of each; use it", other, v.Primary)
		return
	}
	p.isolated[v.Primary] = v.Secondary
}

// use gives an id its role, or says what other role it has.
func (p *vlanPlan) use(field string, id uint16, role vlanRole, fail func(field, format string, args ...any)) {
	old, ok := p.roles[id]
	switch {
	case !ok || old == role:
	case old.primary != 0 && old.primary == role.primary && old.what == "secondary":
	case old.primary != 0 && old.primary == role.primary && role.what == "secondary":
		return
	case old.primary != 0:
		fail(field, "VLAN %d is the %s VLAN of primary %d on this network; use another", id, old.what, old.primary)
		return
	default:
		fail(field, "VLAN %d is a VLAN of kind %s on this network; use another", id, old.what)
		return
	}
	p.roles[id] = role
}
