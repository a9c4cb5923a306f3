package compile

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

func (c *Compiler) addProviderRoute(r *model.ProviderRoute) {
	h := c.host(r.Spec.Host)
	c.todo.hosts[h] = struct{}{}
	row := goal.ProviderRouteRow{Name: r.Metadata.Name, Route: goal.ProviderRoute{Prefix: r.Spec.Prefix, NextHop: r.Spec.NextHop,
		Interface: r.Spec.Interface, Metric: r.Spec.Metric}}
	if row.Check() != nil || row.Route.Unreachable() {
		return
	}
	c.putProviderRoute(h, row)
}

func (c *Compiler) putProviderRoute(h *host, row goal.ProviderRouteRow) {
	note(c.change.host(h).routes, h.routes, row.Name)
	h.routes[row.Name] = row.Route
	h.own = h.own.Add(row.Digest())
}

func (c *Compiler) removeProviderRoute(r *model.ProviderRoute) {
	h := c.host(r.Spec.Host)
	c.todo.hosts[h] = struct{}{}
	c.dropProviderRoute(h, r.Metadata.Name)
}

func (c *Compiler) dropProviderRoute(h *host, name string) {
	old, ok := h.routes[name]
	if !ok {
		return
	}
	note(c.change.host(h).routes, h.routes, name)
	delete(h.routes, name)
	h.own = h.own.Sub(goal.ProviderRouteRow{Name: name, Route: old}.Digest())
}

// poolRow leads a host's pool of Provider Addresses nowhere; those that are in use are taken before the host's table is
// asked. No ProviderRoute can have such a name.
func poolRow(p netip.Prefix) goal.ProviderRouteRow {
	return goal.ProviderRouteRow{Name: "rewrite:" + p.String(), Route: goal.ProviderRoute{Prefix: p}}
}

func (c *Compiler) addPools(r *model.Host) {
	for _, p := range r.Spec.RewritePrefixes {
		if row := poolRow(p); row.Check() == nil {
			h := c.host(r.Metadata.Name)
			c.todo.hosts[h] = struct{}{}
			c.putProviderRoute(h, row)
		}
	}
}

func (c *Compiler) removePools(r *model.Host) {
	for _, p := range r.Spec.RewritePrefixes {
		h := c.host(r.Metadata.Name)
		c.todo.hosts[h] = struct{}{}
		c.dropProviderRoute(h, poolRow(p).Name)
	}
}
