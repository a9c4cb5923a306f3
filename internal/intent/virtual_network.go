package intent

import (
	"cmp"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/weft-sdn/weft/internal/model"
)

type virtualNetworkRules struct{}

var guidPattern = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

func (virtualNetworkRules) clone(r model.Resource) model.Resource {
	c := *r.(*model.VirtualNetwork)
	c.Metadata = cloneMeta(c.Metadata)
	c.Spec.AccessLists, c.Spec.RewriteFamilies = orNil(c.Spec.AccessLists), orNil(c.Spec.RewriteFamilies)
	return &c
}

func (virtualNetworkRules) inherit(r, old model.Resource) {
	n := r.(*model.VirtualNetwork)
	n.Index = 0
	n.Spec.RDID = strings.ToLower(n.Spec.RDID)
	if old == nil {
		return
	}
	o := old.(*model.VirtualNetwork)
	n.Index = o.Index
	n.Spec.RDID = cmp.Or(n.Spec.RDID, o.Spec.RDID)
}

func (virtualNetworkRules) check(a *admission, r, old model.Resource) {
	n, k := r.(*model.VirtualNetwork), model.KeyOf(r)
	a.checkLists(k, n.Spec.AccessLists)
	checkFamilies(a, n)
	if n.Spec.RDID == "" {
		return
	}
	if !guidPattern.MatchString(n.Spec.RDID) {
		a.fail(k, "spec.rdid", "%.40q is not a GUID like 7d3c1f9e-2b64-4c0a-9f57-0a1b2c3d4e5f; leave it out to have one allocated", n.Spec.RDID)
		return
	}
	if old != nil && old.(*model.VirtualNetwork).Spec.RDID != n.Spec.RDID {
		a.fail(k, "spec.rdid", "cannot change (it is %s); delete the network and create it again", old.(*model.VirtualNetwork).Spec.RDID)
	}
	if o := a.claim(rdidClaim(n.Spec.RDID), r); o != nil {
		a.fail(k, "spec.rdid", "%s is already that of %s; choose another or leave it out", n.Spec.RDID, name(o))
	}
}

func (virtualNetworkRules) allocate(a *admission, r model.Resource) {
	n := r.(*model.VirtualNetwork)
	if n.Spec.RDID == "" {
		n.Spec.RDID = a.alloc.GUID()
		if o := a.claim(rdidClaim(n.Spec.RDID), r); o != nil {
			a.fail(model.KeyOf(r), "spec.rdid", "no unused GUID was found; try again")
		}
	}
	if n.Index == 0 {
		free := func(i uint32) bool { return a.owner(networkClaim(model.NetworkIndex(i))) == nil }
		i, ok := next(&a.cursors.Network, 1, uint32(model.MaxNetworkIndex), free)
		if !ok {
			a.fail(model.KeyOf(r), "", "all network indexes are in use")
			return
		}
		n.Index = model.NetworkIndex(i)
	}
	a.claim(networkClaim(n.Index), r)
}

// relate checks the routes again when what they may say changes; otherwise subnets and
// routes, the neighbours, check themselves against the network.
func (virtualNetworkRules) relate(a *admission, r, old model.Resource) {
	n, _ := r.(*model.VirtualNetwork)
	o, _ := old.(*model.VirtualNetwork)
	if n != nil && len(n.Spec.AccessLists) > 0 {
		a.checkRoom(n.Metadata.Tenant)
	}
	if n == nil || o == nil || n.Spec.UseExternalRouter || !o.Spec.UseExternalRouter {
		return
	}
	subnets := a.subnetsOf(model.KeyOf(n))
	for _, k := range a.childrenOf(model.KeyOf(n)) {
		c, ok := a.get(k).(*model.CustomerRoute)
		if !ok || a.puts[k] != nil {
			continue // one of the set checks itself
		}
		for _, problem := range routeProblems(c, n, subnets) {
			a.failFor(Conflict, model.KeyOf(n), "spec.useExternalRouter", "cannot be taken away while there is %s: %s", k, problem.message)
		}
	}
}

func (virtualNetworkRules) claims(_ func(model.Key) model.Resource, r model.Resource) []claim {
	n := r.(*model.VirtualNetwork)
	return []claim{rdidClaim(n.Spec.RDID), networkClaim(n.Index)}
}

func (virtualNetworkRules) parents(r model.Resource) []model.Key {
	return append(listKeys(r.Meta().Tenant, r.(*model.VirtualNetwork).Spec.AccessLists), tenantKey(r.Meta().Tenant))
}

func (virtualNetworkRules) sameSpec(a, b model.Resource) bool {
	return reflect.DeepEqual(a.(*model.VirtualNetwork).Spec, b.(*model.VirtualNetwork).Spec)
}

// subnetsOf gives the subnets of a network once the set is in place, faultless ones only.
func (a *admission) subnetsOf(network model.Key) []*model.VirtualSubnet {
	var out []*model.VirtualSubnet
	for _, k := range a.childrenOf(network) {
		if s, ok := a.get(k).(*model.VirtualSubnet); ok && !a.bad[k] {
			out = append(out, s)
		}
	}
	return out
}

// onLink is a prefix of a network and the subnet that it is on.
type onLink struct {
	prefix netip.Prefix
	field  string
	subnet *model.VirtualSubnet
}

// overlaps finds pairs of overlapping prefixes of a network. Prefixes overlap only by
// nesting, so in sorted order each needs comparing with the open ones around it alone.
func overlaps(subnets []*model.VirtualSubnet) [][2]onLink {
	var all []onLink
	for _, s := range subnets {
		for i, p := range s.Spec.Prefixes {
			all = append(all, onLink{p, at("spec.prefixes", i), s})
		}
	}
	slices.SortStableFunc(all, func(x, y onLink) int {
		return cmp.Or(x.prefix.Addr().Compare(y.prefix.Addr()), cmp.Compare(x.prefix.Bits(), y.prefix.Bits()))
	})
	var pairs [][2]onLink
	var around *onLink
	for i := range all {
		if around != nil && around.prefix.Overlaps(all[i].prefix) {
			pairs = append(pairs, [2]onLink{*around, all[i]})
			continue
		}
		around = &all[i]
	}
	return pairs
}
