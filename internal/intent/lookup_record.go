package intent

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"github.com/weft-sdn/weft/internal/model"
)

type lookupRecordRules struct{}

func (lookupRecordRules) clone(r model.Resource) model.Resource {
	c := *r.(*model.LookupRecord)
	c.Metadata = cloneMeta(c.Metadata)
	return &c
}

func (lookupRecordRules) inherit(r, _ model.Resource) {
	l := r.(*model.LookupRecord)
	l.Spec.Type = cmp.Or(l.Spec.Type, model.RecordStatic)
}

func (lookupRecordRules) check(a *admission, r, old model.Resource) {
	l, k := r.(*model.LookupRecord), model.KeyOf(r)
	if old != nil && old.(*model.LookupRecord).Spec.Subnet != l.Spec.Subnet {
		a.fail(k, "spec.subnet", "cannot change (it is %q); delete the record and create it again", old.(*model.LookupRecord).Spec.Subnet)
	}
	switch l.Spec.Type {
	case model.RecordStatic, model.RecordGatewayWildcard:
	case model.RecordDynamic, model.RecordL2Only:
		a.fail(k, "spec.type", "%s records follow from ports; set spec.dynamicAddressLimit on the port", l.Spec.Type)
	default:
		a.fail(k, "spec.type", "%.40q is not a type of record; use %s or %s", l.Spec.Type, model.RecordStatic, model.RecordGatewayWildcard)
	}
	if l.Spec.Port != "" && l.Spec.Type == model.RecordGatewayWildcard {
		checkRecordPort(a, l)
	} else {
		checkRecordPlace(a, l)
	}
	subnet, _ := a.refer(k, "spec.subnet", subnetKey(l.Metadata.Tenant, l.Spec.Subnet)).(*model.VirtualSubnet)
	switch {
	case subnet == nil:
	case l.Spec.Type == model.RecordGatewayWildcard:
		l.Rewrite = false
		claimFamily(a, subnet, l)
	default:
		a.claimCA(subnet, l.Spec.CustomerAddress, "spec.customerAddress", r)
		a.claimRewrite(subnet, l)
	}
}

// checkRecordPlace checks the MAC and PA of a record that names no port.
func checkRecordPlace(a *admission, l *model.LookupRecord) {
	k := model.KeyOf(l)
	if l.Spec.Port != "" {
		a.fail(k, "spec.port", "is for %s records only; to give a port one more address, write it in the port's spec.addresses", model.RecordGatewayWildcard)
	}
	if l.Spec.MAC.IsZero() {
		a.fail(k, "spec.mac", "is required")
	} else {
		checkPortMAC(a, k, l.Spec.MAC)
	}
	if problem := addressProblem(l.Spec.ProviderAddress); problem != "" {
		a.fail(k, "spec.providerAddress", "%s %s", l.Spec.ProviderAddress, problem)
	}
}

// checkRecordPort checks the port of a record that names one.
func checkRecordPort(a *admission, l *model.LookupRecord) {
	k := model.KeyOf(l)
	if !l.Spec.MAC.IsZero() {
		a.fail(k, "spec.mac", "is that of the port; leave it out, or leave spec.port out")
	}
	if l.Spec.ProviderAddress.IsValid() {
		a.fail(k, "spec.providerAddress", "is that of the port's host; leave it out, or leave spec.port out")
	}
	p, _ := a.refer(k, "spec.port", portKey(l.Metadata.Tenant, l.Spec.Port)).(*model.Port)
	if p != nil && p.Spec.Subnet != l.Spec.Subnet {
		a.fail(k, "spec.port", "%s is in subnet %q; a gateway stands in the subnet of its record", name(p), p.Spec.Subnet)
	}
}

// claimFamily takes all unknown addresses of a family in subnet for the wildcard l.
func claimFamily(a *admission, subnet *model.VirtualSubnet, l *model.LookupRecord) {
	k, ca := model.KeyOf(l), l.Spec.CustomerAddress
	if !ca.IsUnspecified() || ca.Zone() != "" {
		a.fail(k, "spec.customerAddress", "must be 0.0.0.0 (all of IPv4) or :: (all of IPv6) in a %s record", l.Spec.Type)
		return
	}
	if o := a.claim(caClaim(subnet.Spec.VSID, ca), l); o != nil {
		a.fail(k, "spec.customerAddress", "%s is already the gateway of %s for this family; a subnet has one", name(o), name(subnet))
	}
}

func (lookupRecordRules) allocate(*admission, model.Resource) {}

func (lookupRecordRules) relate(*admission, model.Resource, model.Resource) {}

func (lookupRecordRules) claims(get func(model.Key) model.Resource, r model.Resource) []claim {
	l := r.(*model.LookupRecord)
	s, ok := get(subnetKey(l.Metadata.Tenant, l.Spec.Subnet)).(*model.VirtualSubnet)
	if !ok {
		return nil
	}
	out := []claim{caClaim(s.Spec.VSID, l.Spec.CustomerAddress)}
	if l.Rewrite {
		out = append(out, paClaim(l.Spec.ProviderAddress))
	}
	return out
}

func (lookupRecordRules) parents(r model.Resource) []model.Key {
	l := r.(*model.LookupRecord)
	out := []model.Key{subnetKey(l.Metadata.Tenant, l.Spec.Subnet)}
	if l.Spec.Port != "" {
		out = append(out, portKey(l.Metadata.Tenant, l.Spec.Port))
	}
	return out
}

func (lookupRecordRules) sameSpec(a, b model.Resource) bool {
	return a.(*model.LookupRecord).Spec == b.(*model.LookupRecord).Spec && a.(*model.LookupRecord).Rewrite == b.(*model.LookupRecord).Rewrite
}

// Derived records are named after what they follow from, with colons, which no
// name that people write may contain: "port:web-1:10.0.0.5", "gateway:web:10.0.0.1".
const (
	derivedPort    = "port:"
	derivedGateway = "gateway:"
)

func isDerivedName(name string) bool { return strings.Contains(name, ":") }

// Derived gives the read-only records that follow from r, a Port or a
// VirtualSubnet; the PA of a port is that of its host, invalid while it has none.
func (s *State) Derived(r model.Resource) []*model.LookupRecord {
	switch r := r.(type) {
	case *model.Port:
		return s.derivedOfPort(r)
	case *model.VirtualSubnet:
		return derive(r, derivedGateway, r.Metadata.Name, r.Spec.Gateway, model.RouterMAC(r.Spec.VSID), netip.Addr{})
	}
	return nil
}

// l2Only is the place of the address in the name of a record that has none.
const l2Only = "l2only"

func (s *State) derivedOfPort(p *model.Port) []*model.LookupRecord {
	pa := s.PAOf(p.Host())
	out := derive(p, derivedPort, p.Spec.Subnet, p.Spec.Addresses, p.Spec.MAC, pa)
	for i, own := range p.RewriteAddresses {
		if own.IsValid() {
			out[i].Spec.ProviderAddress, out[i].Rewrite = own, true
		}
	}
	learned := derive(p, derivedPort, p.Spec.Subnet, p.Learned, p.Spec.MAC, pa)
	for _, l := range learned {
		l.Spec.Type = model.RecordDynamic
	}
	out = append(out, learned...)
	if !s.settings(p).Learns() {
		return out
	}
	l := derive(p, derivedPort, p.Spec.Subnet, []netip.Addr{netip.IPv6Unspecified()}, p.Spec.MAC, pa)[0]
	l.Metadata.Name, l.Spec.Type = derivedPort+p.Metadata.Name+":"+l2Only, model.RecordL2Only
	return append(out, l)
}

func derive(from model.Resource, kind, subnet string, cas []netip.Addr, mac model.MAC, pa netip.Addr) []*model.LookupRecord {
	out := make([]*model.LookupRecord, 0, len(cas))
	for _, ca := range cas {
		m := *from.Meta()
		m.Name, m.UID, m.Labels = kind+m.Name+":"+ca.String(), "", nil
		out = append(out, &model.LookupRecord{Metadata: m, Derived: true,
			Spec: model.LookupRecordSpec{Type: model.RecordStatic, Subnet: subnet, CustomerAddress: ca, MAC: mac, ProviderAddress: pa}})
	}
	return out
}

// AllDerived gives every derived record, of one tenant or (tenant "") of all, sorted.
func (s *State) AllDerived(tenant string) []*model.LookupRecord {
	var out []*model.LookupRecord
	for _, kind := range []model.Kind{model.KindVirtualSubnet, model.KindPort} {
		for ref, r := range s.resources[kind] {
			if tenant == "" || ref.Tenant == tenant {
				out = append(out, s.Derived(r)...)
			}
		}
	}
	slices.SortFunc(out, func(a, b *model.LookupRecord) int { return compareRefs(a.Metadata.Ref(), b.Metadata.Ref()) })
	return out
}

// DerivedByName finds one derived record.
func (s *State) DerivedByName(ref model.Ref) (*model.LookupRecord, bool) {
	kind, rest := model.KindPort, strings.TrimPrefix(ref.Name, derivedPort)
	if rest == ref.Name {
		kind, rest = model.KindVirtualSubnet, strings.TrimPrefix(ref.Name, derivedGateway)
	}
	source, _, _ := strings.Cut(rest, ":")
	r, ok := s.Get(model.Key{Kind: kind, Ref: model.Ref{Tenant: ref.Tenant, Name: source}})
	if !ok {
		return nil, false
	}
	for _, l := range s.Derived(r) {
		if l.Metadata.Name == ref.Name {
			return l, true
		}
	}
	return nil, false
}

// Lookup finds who holds ca in the subnet with v: a Port, a LookupRecord, or the
// VirtualSubnet itself when ca is its gateway; when nobody does, the GatewayWildcard
// record of the subnet and family.
func (s *State) Lookup(v model.VSID, ca netip.Addr) (model.Resource, bool) {
	if r, ok := s.claims[caClaim(v, ca)]; ok {
		return r, true
	}
	any := netip.IPv4Unspecified()
	if ca.Is6() {
		any = netip.IPv6Unspecified()
	}
	r, ok := s.claims[caClaim(v, any)]
	return r, ok
}

// PlaceOf gives the MAC and PA of a written record: its own, or those of its port;
// the PA is invalid while the port has none.
func (s *State) PlaceOf(l *model.LookupRecord) (model.MAC, netip.Addr) {
	p, ok := s.get(portKey(l.Metadata.Tenant, l.Spec.Port)).(*model.Port)
	if l.Spec.Port == "" || !ok {
		return l.Spec.MAC, l.Spec.ProviderAddress
	}
	return p.Spec.MAC, s.PAOf(p.Host())
}
