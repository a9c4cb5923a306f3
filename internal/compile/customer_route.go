package compile

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// routeSpot is a place where a route may stand.
type routeSpot struct {
	network *network
	prefix  netip.Prefix
}

func (c *Compiler) addCustomerRoute(r *model.CustomerRoute) {
	n := c.network(model.Ref{Tenant: r.Metadata.Tenant, Name: r.Spec.Network})
	c.touchDirect(n)
	p := r.Spec.Prefix.Masked()
	n.candidates[p] = append(n.candidates[p], r)
	c.todo.routes[routeSpot{n, p}] = struct{}{}
}

func (c *Compiler) removeCustomerRoute(r *model.CustomerRoute) {
	n := c.network(model.Ref{Tenant: r.Metadata.Tenant, Name: r.Spec.Network})
	p := r.Spec.Prefix.Masked()
	if n.candidates[p] = without(n.candidates[p], r); len(n.candidates[p]) == 0 {
		delete(n.candidates, p)
	}
	c.touchDirect(n)
	c.todo.routes[routeSpot{n, p}] = struct{}{}
}

// touchDirect asks for the on-link routes anew when the network has no customer route:
// they stand among the direct ones only if there is one.
func (c *Compiler) touchDirect(n *network) {
	if len(n.candidates) > 0 {
		return
	}
	for p := range n.onLink {
		c.todo.routes[routeSpot{n, p}] = struct{}{}
	}
}

// retractRoutes takes back all routes of a network; touchRoutes asks for them anew.
func (c *Compiler) retractRoutes(n *network) {
	for k := range n.table {
		c.dropRoute(n, k)
	}
}

func (c *Compiler) touchRoutes(n *network) {
	for p := range n.onLink {
		c.todo.routes[routeSpot{n, p}] = struct{}{}
	}
	for p := range n.candidates {
		c.todo.routes[routeSpot{n, p}] = struct{}{}
	}
}

func (c *Compiler) settleRoute(spot routeSpot) {
	n := spot.network
	if n.index == 0 {
		return
	}
	c.settleRow(n, goal.RouteKey{Network: n.index, Prefix: spot.prefix}, n.route)
	c.settleRow(n, goal.RouteKey{Network: n.index.Direct(), Prefix: spot.prefix}, n.direct)
}

// settleRow writes the route of a key as decide says.
func (c *Compiler) settleRow(n *network, key goal.RouteKey, decide func(netip.Prefix) (goal.Route, bool)) {
	c.dropRoute(n, key)
	route, ok := decide(key.Prefix)
	row := goal.RouteRow{Key: key, Route: route}
	if ok && row.Check() == nil {
		c.setRoute(n, row)
	}
}

// route decides the route of a prefix: a subnet's own prefix is on-link and
// beats any customer route; of those the lowest metric wins, then the first name.
// Where external routers join the subnets, nothing is on-link here.
func (n *network) route(p netip.Prefix) (goal.Route, bool) {
	if s := n.onLink[p]; s != nil && !n.external {
		return goal.Route{VSID: s.vsid}, true
	}
	for _, r := range slices.SortedFunc(slices.Values(n.candidates[p]), better) {
		hop := r.Spec.NextHop.Unmap()
		if s := n.subnetOf(hop); s != nil {
			return goal.Route{VSID: s.vsid, NextHop: hop}, true
		}
	}
	return goal.Route{}, false
}

// direct decides the route of a prefix for those who must not be led through a guest:
// the guest itself, and who asks where a source is at home. Where there are neither
// customer routes nor external routers, nobody needs to be told.
func (n *network) direct(p netip.Prefix) (goal.Route, bool) {
	s := n.onLink[p]
	if s == nil || len(n.candidates) == 0 && !n.external {
		return goal.Route{}, false
	}
	return goal.Route{VSID: s.vsid}, true
}

func better(a, b *model.CustomerRoute) int {
	return cmp.Or(cmp.Compare(a.Spec.Metric, b.Spec.Metric), cmp.Compare(a.Metadata.Name, b.Metadata.Name))
}
