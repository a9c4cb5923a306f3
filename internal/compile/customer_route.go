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
	c.todo.routes[routeSpot{n, p}] = struct{}{}
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
	key := goal.RouteKey{Network: n.index, Prefix: spot.prefix}
	c.dropRoute(n, key)
	route, ok := n.route(spot.prefix)
	row := goal.RouteRow{Key: key, Route: route}
	if !ok || row.Check() != nil {
		return
	}
	c.setRoute(n, row)
}

// route decides the route of a prefix: a subnet's own prefix is on-link and
// beats any customer route; of those the lowest metric wins, then the first name.
func (n *network) route(p netip.Prefix) (goal.Route, bool) {
	if s := n.onLink[p]; s != nil {
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

func better(a, b *model.CustomerRoute) int {
	return cmp.Or(cmp.Compare(a.Spec.Metric, b.Spec.Metric), cmp.Compare(a.Metadata.Name, b.Metadata.Name))
}
