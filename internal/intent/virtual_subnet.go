package intent

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
)

type virtualSubnetRules struct{}

func (virtualSubnetRules) clone(r model.Resource) model.Resource {
	c := *r.(*model.VirtualSubnet)
	c.Metadata = cloneMeta(c.Metadata)
	c.Spec.Prefixes, c.Spec.Gateway, c.Spec.AccessLists = orNil(c.Spec.Prefixes), orNil(c.Spec.Gateway), orNil(c.Spec.AccessLists)
	return &c
}

// inherit keeps the gateways of prefixes that are still there; for the others the
// default is chosen anew.
func (virtualSubnetRules) inherit(r, old model.Resource) {
	s := r.(*model.VirtualSubnet)
	s.Spec.Transport = cmp.Or(s.Spec.Transport, model.TransportNVGRE)
	s.Spec.Flood = cmp.Or(s.Spec.Flood, model.FloodL3)
	if old == nil {
		return
	}
	o := old.(*model.VirtualSubnet)
	s.Spec.VSID = cmp.Or(s.Spec.VSID, o.Spec.VSID)
	if len(s.Spec.Gateway) > 0 {
		return
	}
	for _, g := range o.Spec.Gateway {
		if p, ok := prefixOf(s.Spec.Prefixes, g); ok && slices.Contains(o.Spec.Prefixes, p) {
			s.Spec.Gateway = append(s.Spec.Gateway, g)
		}
	}
}

func (virtualSubnetRules) check(a *admission, r, old model.Resource) {
	s, k := r.(*model.VirtualSubnet), model.KeyOf(r)
	if old != nil {
		checkSubnetImmutable(a, s, old.(*model.VirtualSubnet))
	}
	a.refer(k, "spec.network", networkKey(s.Metadata.Tenant, s.Spec.Network))
	switch s.Spec.Transport {
	case model.TransportNVGRE, model.TransportVXLAN, model.TransportRewrite:
	default:
		a.fail(k, "spec.transport", "%.40q is not a transport; use nvgre, vxlan or rewrite", s.Spec.Transport)
	}
	checkVSID(a, s)
	checkFlood(a, s)
	a.checkLists(k, s.Spec.AccessLists)
	checkPrefixes(a, s)
	if !a.bad[k] {
		checkGateways(a, s)
	}
}

func checkSubnetImmutable(a *admission, s, o *model.VirtualSubnet) {
	k := model.KeyOf(s)
	if s.Spec.Network != o.Spec.Network {
		a.fail(k, "spec.network", "cannot change (it is %q); delete the subnet and create it again", o.Spec.Network)
	}
	if users := a.childrenOf(k); s.Spec.VSID != o.Spec.VSID && len(users) > 0 {
		a.fail(k, "spec.vsid", "cannot change from %s while %s use it; delete them first", o.Spec.VSID, nameKeys(users))
	}
}

func checkVSID(a *admission, s *model.VirtualSubnet) {
	v, k := s.Spec.VSID, model.KeyOf(s)
	if v == 0 {
		return
	}
	if !v.Valid() {
		a.fail(k, "spec.vsid", "%s is outside %s..%s (RFC 7637 reserves the rest); leave it out to have one allocated", v, model.MinVSID, model.MaxVSID)
		return
	}
	if o := a.claim(vsidClaim(v), s); o != nil {
		a.fail(k, "spec.vsid", "%s is already that of %s; VSIDs are unique across all tenants: choose another or leave it out", v, name(o))
	}
}

func checkPrefixes(a *admission, s *model.VirtualSubnet) {
	k := model.KeyOf(s)
	if len(s.Spec.Prefixes) == 0 {
		a.fail(k, "spec.prefixes", "is required: one IPv4 prefix, one IPv6 prefix, or both")
	}
	var four, six bool
	for i, p := range s.Spec.Prefixes {
		if problem := onLinkProblem(p); problem != "" {
			a.fail(k, at("spec.prefixes", i), "%s %s", p, problem)
			continue
		}
		seen := &six
		if isIPv4(p.Addr()) {
			seen = &four
		}
		if *seen {
			a.fail(k, at("spec.prefixes", i), "%s is a second prefix of its family; a subnet has at most one IPv4 and one IPv6 prefix so far: make another subnet", p)
		}
		*seen = true
	}
}

// checkGateways completes the gateways, one per prefix in the order of the
// prefixes, and checks those that people wrote.
func checkGateways(a *admission, s *model.VirtualSubnet) {
	k := model.KeyOf(s)
	byPrefix := map[netip.Prefix]netip.Addr{}
	for i, g := range s.Spec.Gateway {
		field := at("spec.gateway", i)
		p, ok := prefixOf(s.Spec.Prefixes, g)
		if !ok {
			a.fail(k, field, "%s is in none of the subnet's prefixes; leave it out for the first usable address", g)
			continue
		}
		if problem := edgeProblem(p, g); problem != "" {
			a.fail(k, field, "%s %s", g, problem)
			continue
		}
		if _, twice := byPrefix[p]; twice {
			a.fail(k, field, "%s is a second gateway of %s; a prefix has one", g, p)
			continue
		}
		byPrefix[p] = g
	}
	s.Spec.Gateway = nil
	for _, p := range s.Spec.Prefixes {
		g, ok := byPrefix[p]
		if !ok {
			g = p.Addr().Next()
		}
		s.Spec.Gateway = append(s.Spec.Gateway, g)
	}
}

func (virtualSubnetRules) allocate(a *admission, r model.Resource) {
	s, k := r.(*model.VirtualSubnet), model.KeyOf(r)
	if s.Spec.VSID == 0 {
		free := func(v uint32) bool { return a.owner(vsidClaim(model.VSID(v))) == nil }
		v, ok := next(&a.cursors.VSID, uint32(model.MinVSID), uint32(model.MaxVSID), free)
		if !ok {
			a.fail(k, "spec.vsid", "all VSIDs are in use")
			return
		}
		s.Spec.VSID = model.VSID(v)
		a.claim(vsidClaim(s.Spec.VSID), r)
	}
	for i, g := range s.Spec.Gateway {
		if o := a.claimOver(caClaim(s.Spec.VSID, g), g, r); o != nil {
			a.fail(k, at("spec.gateway", i), "%s is already an address of %s; choose another gateway", g, name(o))
		}
	}
}

// relate checks the network's other subnets and routes, and what is in the subnet,
// against what the subnet is now.
func (virtualSubnetRules) relate(a *admission, r, old model.Resource) {
	if r == nil {
		checkRoutesBeside(a, old.(*model.VirtualSubnet))
		return
	}
	s := r.(*model.VirtualSubnet)
	if len(s.Spec.AccessLists) > 0 {
		a.checkRoom(s.Metadata.Tenant)
	}
	if s.Spec.Transport == model.TransportRewrite {
		for _, k := range a.childrenOf(model.KeyOf(s)) {
			if p, ok := a.get(k).(*model.Port); ok {
				checkLearningCarried(a, model.KeyOf(s), "spec.transport", p, s)
			}
		}
	}
	if old != nil && slices.Equal(s.Spec.Prefixes, old.(*model.VirtualSubnet).Spec.Prefixes) &&
		slices.Equal(s.Spec.Gateway, old.(*model.VirtualSubnet).Spec.Gateway) {
		return
	}
	checkOverlaps(a, s)
	checkRoutesBeside(a, s)
	checkInside(a, s)
}

func checkOverlaps(a *admission, s *model.VirtualSubnet) {
	network := networkKey(s.Metadata.Tenant, s.Spec.Network)
	if a.overlapsDone == nil {
		a.overlapsDone = map[model.Key]bool{}
	}
	if a.overlapsDone[network] {
		return
	}
	a.overlapsDone[network] = true
	for _, pair := range overlaps(a.subnetsOf(network)) {
		mine, other := pair[1], pair[0]
		if _, ok := a.puts[model.KeyOf(mine.subnet)]; !ok {
			mine, other = other, mine
		}
		a.fail(model.KeyOf(mine.subnet), mine.field, "%s overlaps %s of %s; prefixes of one virtual network must be disjoint",
			mine.prefix, other.prefix, name(other.subnet))
	}
}

// checkRoutesBeside holds the network's routes that are not in the set against the
// subnets as they are now; those in the set check themselves.
func checkRoutesBeside(a *admission, s *model.VirtualSubnet) {
	network := networkKey(s.Metadata.Tenant, s.Spec.Network)
	of, _ := a.get(network).(*model.VirtualNetwork)
	var subnets []*model.VirtualSubnet
	for _, k := range a.childrenOf(network) {
		route, ok := a.get(k).(*model.CustomerRoute)
		if _, inSet := a.puts[k]; !ok || inSet {
			continue
		}
		if subnets == nil {
			subnets = a.subnetsOf(network)
		}
		for _, problem := range routeProblems(route, of, subnets) {
			a.failFor(Conflict, model.KeyOf(s), "spec.prefixes", "%s would no longer hold: %s %s; change or delete it first or in the same set",
				k, problem.field, problem.message)
		}
	}
}

// checkInside holds the subnet's ports and records that are not in the set against
// its prefixes as they are now.
func checkInside(a *admission, s *model.VirtualSubnet) {
	for _, k := range a.childrenOf(model.KeyOf(s)) {
		if _, inSet := a.puts[k]; inSet {
			continue
		}
		for _, ca := range addressesOf(a.get(k)) {
			if problem := caProblem(s, ca); problem != "" {
				a.failFor(Conflict, model.KeyOf(s), "spec.prefixes", "%s would no longer fit: %s %s; change or delete it first or in the same set", k, ca, problem)
			}
		}
		a.unlearnOutside(s, k)
	}
}

func addressesOf(r model.Resource) []netip.Addr {
	switch r := r.(type) {
	case *model.Port:
		return r.Spec.Addresses
	case *model.LookupRecord:
		if r.Spec.CustomerAddress.IsUnspecified() {
			return nil // stands for a family, not for an address
		}
		return []netip.Addr{r.Spec.CustomerAddress}
	}
	return nil
}

// caProblem says why ca cannot be a Customer Address in s, or "".
func caProblem(s *model.VirtualSubnet, ca netip.Addr) string {
	if problem := addressProblem(ca); problem != "" {
		return problem
	}
	p, ok := prefixOf(s.Spec.Prefixes, ca)
	if !ok {
		return "is in none of the prefixes of " + name(s)
	}
	if slices.Contains(s.Spec.Gateway, ca) {
		return "is the gateway of " + name(s) + "; a guest cannot have it"
	}
	return edgeProblem(p, ca)
}

func (virtualSubnetRules) claims(_ func(model.Key) model.Resource, r model.Resource) []claim {
	s := r.(*model.VirtualSubnet)
	out := []claim{vsidClaim(s.Spec.VSID)}
	for _, g := range s.Spec.Gateway {
		out = append(out, caClaim(s.Spec.VSID, g))
	}
	return out
}

func (virtualSubnetRules) parents(r model.Resource) []model.Key {
	s := r.(*model.VirtualSubnet)
	return append(listKeys(s.Metadata.Tenant, s.Spec.AccessLists), networkKey(s.Metadata.Tenant, s.Spec.Network))
}

func (virtualSubnetRules) sameSpec(x, y model.Resource) bool {
	a, b := x.(*model.VirtualSubnet).Spec, y.(*model.VirtualSubnet).Spec
	return a.Network == b.Network && a.VSID == b.VSID && a.Transport == b.Transport &&
		a.Flood == b.Flood && a.MulticastAddress == b.MulticastAddress && a.StormLimit == b.StormLimit && a.MSSClamp == b.MSSClamp &&
		slices.Equal(a.AccessLists, b.AccessLists) && slices.Equal(a.Prefixes, b.Prefixes) && slices.Equal(a.Gateway, b.Gateway)
}

// SubnetByVSID finds the subnet that has v.
func (s *State) SubnetByVSID(v model.VSID) (*model.VirtualSubnet, bool) {
	n, ok := s.claims[vsidClaim(v)].(*model.VirtualSubnet)
	return n, ok
}
