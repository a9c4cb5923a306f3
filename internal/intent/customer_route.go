package intent

import (
	"fmt"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
)

type customerRouteRules struct{}

func (customerRouteRules) clone(r model.Resource) model.Resource {
	c := *r.(*model.CustomerRoute)
	c.Metadata = cloneMeta(c.Metadata)
	return &c
}

func (customerRouteRules) inherit(_, _ model.Resource) {}

func (customerRouteRules) check(a *admission, r, old model.Resource) {
	c, k := r.(*model.CustomerRoute), model.KeyOf(r)
	if old != nil && old.(*model.CustomerRoute).Spec.Network != c.Spec.Network {
		a.fail(k, "spec.network", "cannot change (it is %q); delete the route and create it again", old.(*model.CustomerRoute).Spec.Network)
	}
	if problem := routePrefixProblem(c); problem != "" {
		a.fail(k, "spec.prefix", "%s %s", c.Spec.Prefix, problem)
	}
	if problem := addressProblem(c.Spec.NextHop); problem != "" {
		a.fail(k, "spec.nextHop", "%s %s", c.Spec.NextHop, problem)
	}
	network, _ := a.refer(k, "spec.network", networkKey(c.Metadata.Tenant, c.Spec.Network)).(*model.VirtualNetwork)
	if network == nil || a.bad[k] {
		return
	}
	if isIPv4(c.Spec.Prefix.Addr()) != isIPv4(c.Spec.NextHop) {
		a.fail(k, "spec.nextHop", "%s is not of the family of %s", c.Spec.NextHop, c.Spec.Prefix)
	}
	if o := a.claim(routeClaim(network.Index, c.Spec.Prefix, c.Spec.Metric), r); o != nil {
		a.fail(k, "spec.prefix", "%s has the same prefix and metric %d; give this one another metric", name(o), c.Spec.Metric)
	}
}

func routePrefixProblem(c *model.CustomerRoute) string {
	p := c.Spec.Prefix
	if problem := prefixProblem(p); problem != "" {
		return problem
	}
	for _, u := range unusable {
		// A default route covers these as well; the switch never routes to them.
		if u.Contains(p.Addr()) && u.Bits() <= p.Bits() {
			return "is inside " + u.String() + ", which is never routed"
		}
	}
	return ""
}

func (customerRouteRules) allocate(*admission, model.Resource) {}

func (customerRouteRules) relate(a *admission, r, _ model.Resource) {
	if r == nil {
		return
	}
	c, k := r.(*model.CustomerRoute), model.KeyOf(r)
	network, _ := a.get(networkKey(c.Metadata.Tenant, c.Spec.Network)).(*model.VirtualNetwork)
	for _, problem := range routeProblems(c, network, a.subnetsOf(networkKey(c.Metadata.Tenant, c.Spec.Network))) {
		a.fail(k, problem.field, "%s", problem.message)
	}
}

type problem struct{ field, message string }

// routeProblems holds a route against the subnets of its network. Only where external
// routers join the subnets may it say how a whole subnet is reached.
func routeProblems(c *model.CustomerRoute, network *model.VirtualNetwork, subnets []*model.VirtualSubnet) []problem {
	var out []problem
	var on *model.VirtualSubnet
	external := network != nil && network.Spec.UseExternalRouter
	for _, s := range subnets {
		if !external && slices.Contains(s.Spec.Prefixes, c.Spec.Prefix) {
			out = append(out, problem{"spec.prefix", fmt.Sprintf("%s is on-link in %s; a route may cover it or a part of it, but not equal it (in a network with useExternalRouter it may)", c.Spec.Prefix, name(s))})
		}
		if _, ok := prefixOf(s.Spec.Prefixes, c.Spec.NextHop); ok {
			on = s
		}
	}
	if on == nil {
		return append(out, problem{"spec.nextHop", fmt.Sprintf("%s is in no subnet of network %q; a next hop is a Customer Address of the network", c.Spec.NextHop, c.Spec.Network)})
	}
	if slices.Contains(on.Spec.Gateway, c.Spec.NextHop) {
		return append(out, problem{"spec.nextHop", fmt.Sprintf("%s is the router of %s itself; name a guest that forwards", c.Spec.NextHop, name(on))})
	}
	if why := caProblem(on, c.Spec.NextHop); why != "" {
		return append(out, problem{"spec.nextHop", fmt.Sprintf("%s %s", c.Spec.NextHop, why)})
	}
	return out
}

func (customerRouteRules) claims(get func(model.Key) model.Resource, r model.Resource) []claim {
	c := r.(*model.CustomerRoute)
	n, ok := get(networkKey(c.Metadata.Tenant, c.Spec.Network)).(*model.VirtualNetwork)
	if !ok {
		return nil
	}
	return []claim{routeClaim(n.Index, c.Spec.Prefix, c.Spec.Metric)}
}

func (customerRouteRules) parents(r model.Resource) []model.Key {
	return []model.Key{networkKey(r.Meta().Tenant, r.(*model.CustomerRoute).Spec.Network)}
}

func (customerRouteRules) sameSpec(a, b model.Resource) bool {
	return a.(*model.CustomerRoute).Spec == b.(*model.CustomerRoute).Spec
}
