package intent

import (
	"math"
	"net/netip"
	"reflect"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
)

type portRules struct{}

func (portRules) clone(r model.Resource) model.Resource {
	c := *r.(*model.Port)
	c.Metadata = cloneMeta(c.Metadata)
	c.Spec.Addresses, c.Learned = orNil(c.Spec.Addresses), orNil(c.Learned)
	c.RewriteAddresses = orNil(c.RewriteAddresses)
	c.Spec.PortSettings, c.Spec.ACL = cloneSettings(c.Spec.PortSettings), orNil(c.Spec.ACL)
	return &c
}

// inherit keeps a port where it is when spec.host is taken away: leaving a field
// out of a manifest must not cut a running guest off.
func (portRules) inherit(r, old model.Resource) {
	p := r.(*model.Port)
	p.ID, p.BoundHost, p.Learned, p.RewriteAddresses = 0, "", nil, nil
	if old == nil {
		return
	}
	o := old.(*model.Port)
	p.ID, p.Learned = o.ID, slices.Clone(o.Learned)
	if p.Spec.Host == "" {
		p.BoundHost = o.Host()
	}
	if p.Spec.MAC.IsZero() {
		p.Spec.MAC = o.Spec.MAC
	}
}

// keepAddresses leaves a port that says no addresses those that it has; on a VLAN nobody has allocated them.
func (a *admission) keepAddresses(p, old *model.Port) {
	if s := a.settings(p); len(p.Spec.Addresses) == 0 && !s.Learns() && s.VLAN == nil {
		p.Spec.Addresses = old.Spec.Addresses
	}
	p.RewriteAddresses = rewritesOf(p.Spec.Addresses, old)
}

func (portRules) check(a *admission, r, old model.Resource) {
	p, k := r.(*model.Port), model.KeyOf(r)
	if old != nil {
		a.keepAddresses(p, old.(*model.Port))
	}
	if p.Spec.Profile != "" {
		a.refer(k, "spec.profile", profileKey(p.Metadata.Tenant, p.Spec.Profile))
	}
	a.checkSettings(k, p.Spec.PortSettings)
	a.checkBasic(k, p.Spec.ACL)
	if p.Spec.Host != "" {
		a.refer(k, "spec.host", hostKey(p.Spec.Host))
	}
	if p.BoundHost != "" {
		a.refer(k, "boundHost", hostKey(p.BoundHost))
	}
	if old != nil && old.(*model.Port).Spec.Subnet != p.Spec.Subnet {
		a.fail(k, "spec.subnet", "cannot change (it is %q); delete the port and create it again", old.(*model.Port).Spec.Subnet)
	}
	if !p.Spec.MAC.IsZero() {
		checkPortMAC(a, k, p.Spec.MAC)
	}
	if n := len(p.Spec.Addresses); n > maxAddresses {
		a.fail(k, "spec.addresses", "has %d entries; at most %d are allowed", n, maxAddresses)
		return
	}
	settings := a.settings(p)
	if settings.VLAN != nil {
		a.checkVLANPort(p, settings)
		return
	}
	checkLearning(a, p, settings)
	a.checkCommunity(p, settings.Isolation)
	subnet, _ := a.refer(k, "spec.subnet", subnetKey(p.Metadata.Tenant, p.Spec.Subnet)).(*model.VirtualSubnet)
	if subnet == nil {
		return
	}
	if subnet.Spec.Transport == model.TransportRewrite && settings.Learns() {
		a.fail(k, "spec.dynamicAddressLimit", "does not go with transport rewrite of %s, where each address must have a Provider Address before its first packet", name(subnet))
	}
	a.keepRewrites(p, subnet)
	for i, ca := range p.Spec.Addresses {
		a.claimCA(subnet, ca, at("spec.addresses", i), r)
	}
	checkLearningCarried(a, k, "spec.dynamicAddressLimit", p, subnet)
	a.claimLearned(subnet, p)
	if network := a.networkOf(subnet); network != nil && !p.Spec.MAC.IsZero() {
		if o := a.claim(macClaim(network.Index, p.Spec.MAC), r); o != nil {
			a.fail(k, "spec.mac", "%s is already that of %s in this virtual network; choose another or leave it out", p.Spec.MAC, name(o))
		}
	}
}

func checkPortMAC(a *admission, k model.Key, m model.MAC) {
	if !m.IsUnicast() {
		a.fail(k, "spec.mac", "%s is a group address; a port needs a unicast MAC", m)
	}
	if m.IsRouter() {
		a.fail(k, "spec.mac", "%s is in the range 02:77:66:… of the distributed routers; choose another or leave it out", m)
	}
}

// claimCA takes ca in subnet for r, or says under field why not.
func (a *admission) claimCA(subnet *model.VirtualSubnet, ca netip.Addr, field string, r model.Resource) {
	k := model.KeyOf(r)
	if problem := caProblem(subnet, ca); problem != "" {
		a.fail(k, field, "%s %s", ca, problem)
		return
	}
	o := a.claimOver(caClaim(subnet.Spec.VSID, ca), ca, r)
	switch {
	case o == nil:
	case o == r:
		a.fail(k, field, "%s is listed twice", ca)
	default:
		a.fail(k, field, "%s is already an address of %s; choose another", ca, name(o))
	}
}

// networkOf gives the network of a subnet, or nil if that is faulty.
func (a *admission) networkOf(s *model.VirtualSubnet) *model.VirtualNetwork {
	k := networkKey(s.Metadata.Tenant, s.Spec.Network)
	if a.bad[k] {
		return nil
	}
	n, _ := a.get(k).(*model.VirtualNetwork)
	return n
}

func (portRules) allocate(a *admission, r model.Resource) {
	p, k := r.(*model.Port), model.KeyOf(r)
	if v := a.settings(p).VLAN; v != nil {
		if p.Spec.MAC.IsZero() && !a.allocateVLANMAC(p, v.Network) {
			a.fail(k, "spec.mac", "no unused MAC was found; write one")
		}
		a.allocatePortID(p)
		return
	}
	subnet, _ := a.get(subnetKey(p.Metadata.Tenant, p.Spec.Subnet)).(*model.VirtualSubnet)
	network := a.networkOf(subnet)
	if network == nil {
		return
	}
	if p.Spec.MAC.IsZero() && !allocateMAC(a, p, network.Index) {
		a.fail(k, "spec.mac", "no unused MAC was found; write one")
	}
	if len(p.Spec.Addresses) == 0 && !a.settings(p).Learns() {
		allocateCAs(a, p, subnet)
	}
	if a.allocatePortID(p) {
		a.allocateRewrites(p, subnet)
	}
}

func (a *admission) allocatePortID(p *model.Port) bool {
	if p.ID == 0 {
		free := func(i uint32) bool { return a.owner(portClaim(model.PortID(i))) == nil }
		i, ok := next(&a.cursors.Port, 1, math.MaxUint32, free)
		if !ok {
			a.fail(model.KeyOf(p), "", "all port ids are in use")
			return false
		}
		p.ID = model.PortID(i)
	}
	a.claim(portClaim(p.ID), p)
	return true
}

func allocateMAC(a *admission, p *model.Port, network model.NetworkIndex) bool {
	for range maxMACAttempts {
		m := a.alloc.MAC()
		if !m.IsUnicast() || m.IsRouter() || a.claim(macClaim(network, m), p) != nil {
			continue
		}
		p.Spec.MAC = m
		return true
	}
	return false
}

// allocateCAs takes the lowest free address of each prefix. Within one set the
// search goes on where it stopped, so that a set of n ports costs n and not n².
func allocateCAs(a *admission, p *model.Port, s *model.VirtualSubnet) {
	for _, prefix := range s.Spec.Prefixes {
		ca, ok := lowestFree(a, s, prefix)
		if !ok {
			a.fail(model.KeyOf(p), "spec.addresses", "no address of %s is free in %s; use another subnet or delete ports", prefix, name(s))
			continue
		}
		a.claim(caClaim(s.Spec.VSID, ca), p)
		p.Spec.Addresses = append(p.Spec.Addresses, ca)
	}
}

func lowestFree(a *admission, s *model.VirtualSubnet, prefix netip.Prefix) (netip.Addr, bool) {
	network := caClaim(s.Spec.VSID, prefix.Addr())
	ca, ok := a.hints[network]
	if !ok {
		ca = prefix.Addr()
	}
	for ca = ca.Next(); prefix.Contains(ca); ca = ca.Next() {
		if a.owner(caClaim(s.Spec.VSID, ca)) == nil && caProblem(s, ca) == "" {
			a.hints[network] = ca
			return ca, true
		}
	}
	return netip.Addr{}, false
}

func (portRules) relate(a *admission, r, _ model.Resource) {
	if p, ok := r.(*model.Port); ok {
		a.checkPortRoom(p)
		a.checkMinimum(p)
	}
}

func (portRules) claims(get func(model.Key) model.Resource, r model.Resource) []claim {
	p := r.(*model.Port)
	out := []claim{portClaim(p.ID)}
	for _, pa := range p.RewriteAddresses {
		if pa.IsValid() {
			out = append(out, paClaim(pa))
		}
	}
	if v := settingsOf(get, p).VLAN; v != nil {
		return append(out, vlanMACClaim(v.Network, p.Spec.MAC))
	}
	s, ok := get(subnetKey(p.Metadata.Tenant, p.Spec.Subnet)).(*model.VirtualSubnet)
	if !ok {
		return out
	}
	for _, ca := range p.CAs() {
		out = append(out, caClaim(s.Spec.VSID, ca))
	}
	if n, ok := get(networkKey(p.Metadata.Tenant, s.Spec.Network)).(*model.VirtualNetwork); ok {
		out = append(out, macClaim(n.Index, p.Spec.MAC))
	}
	return out
}

func (portRules) parents(r model.Resource) []model.Key {
	p := r.(*model.Port)
	out := listKeys(p.Metadata.Tenant, p.Spec.AccessLists)
	if p.Spec.Subnet != "" {
		out = append(out, subnetKey(p.Metadata.Tenant, p.Spec.Subnet))
	}
	if p.Spec.Subnet == "" {
		out = append(out, tenantKey(p.Metadata.Tenant))
	}
	if p.Spec.VLAN != nil {
		out = append(out, externalKey(p.Spec.VLAN.Network))
	}
	out = append(out, mirrorKeys(p.Metadata.Tenant, p.Spec.Mirrors)...)
	if p.Spec.Profile != "" {
		out = append(out, profileKey(p.Metadata.Tenant, p.Spec.Profile))
	}
	if h := p.Host(); h != "" {
		out = append(out, hostKey(h))
	}
	return out
}

func (portRules) sameSpec(x, y model.Resource) bool {
	a, b := x.(*model.Port), y.(*model.Port)
	return a.BoundHost == b.BoundHost && a.Spec.Subnet == b.Spec.Subnet && a.Spec.MAC == b.Spec.MAC &&
		a.Spec.Host == b.Spec.Host && a.Spec.Profile == b.Spec.Profile && reflect.DeepEqual(a.Spec.PortSettings, b.Spec.PortSettings) &&
		reflect.DeepEqual(a.Spec.ACL, b.Spec.ACL) &&
		slices.Equal(a.Learned, b.Learned) &&
		slices.Equal(a.Spec.Addresses, b.Spec.Addresses) && slices.Equal(a.RewriteAddresses, b.RewriteAddresses)
}

// PortByID finds the port that has id.
func (s *State) PortByID(id model.PortID) (*model.Port, bool) {
	p, ok := s.claims[portClaim(id)].(*model.Port)
	return p, ok
}
