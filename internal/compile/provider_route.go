package compile

import (
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

func (c *Compiler) addProviderRoute(r *model.ProviderRoute) {
	h := c.host(r.Spec.Host)
	c.todo.hosts[h] = struct{}{}
	row := goal.ProviderRouteRow{Name: r.Metadata.Name, Route: goal.ProviderRoute{Prefix: r.Spec.Prefix, NextHop: r.Spec.NextHop,
		Interface: r.Spec.Interface, Metric: r.Spec.Metric}}
	if row.Check() != nil {
		return
	}
	note(c.change.host(h).routes, h.routes, row.Name)
	h.routes[row.Name] = row.Route
	h.own = h.own.Add(row.Digest())
}

func (c *Compiler) removeProviderRoute(r *model.ProviderRoute) {
	h := c.host(r.Spec.Host)
	c.todo.hosts[h] = struct{}{}
	old, ok := h.routes[r.Metadata.Name]
	if !ok {
		return
	}
	note(c.change.host(h).routes, h.routes, r.Metadata.Name)
	delete(h.routes, r.Metadata.Name)
	h.own = h.own.Sub(goal.ProviderRouteRow{Name: r.Metadata.Name, Route: old}.Digest())
}
