package compile

import (
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// group is one AddressGroup and who has to do with it.
type group struct {
	ref   model.Ref
	spec  *model.AddressGroup // nil while it is only referred to
	row   *goal.Group
	inner []*group
	outer map[*group]struct{} // groups that it is in
	ports map[*port]struct{}  // that it selects
	lists map[*list]struct{}  // that name it
}

func (c *Compiler) group(ref model.Ref) *group {
	g := c.groups[ref]
	if g == nil {
		g = &group{ref: ref, outer: map[*group]struct{}{}, ports: map[*port]struct{}{}, lists: map[*list]struct{}{}}
		c.groups[ref] = g
	}
	return g
}

// tenant is the ports of one, which groups select by their labels, and the groups that do.
type tenant struct {
	ports     map[*port]struct{}
	selecting map[*group]struct{}
}

func (c *Compiler) tenant(name string) *tenant {
	t := c.tenants[name]
	if t == nil {
		t = &tenant{map[*port]struct{}{}, map[*group]struct{}{}}
		c.tenants[name] = t
	}
	return t
}

func (c *Compiler) addAddressGroup(r *model.AddressGroup) {
	g := c.group(r.Metadata.Ref())
	g.spec = r
	for _, name := range r.Spec.Groups {
		inner := c.group(model.Ref{Tenant: g.ref.Tenant, Name: name})
		inner.outer[g] = struct{}{}
		g.inner = append(g.inner, inner)
	}
	if len(r.Spec.Ports) > 0 {
		t := c.tenant(g.ref.Tenant)
		t.selecting[g] = struct{}{}
		for p := range t.ports {
			if r.Spec.Selects(p.spec.Metadata.Labels) {
				g.ports[p] = struct{}{}
			}
		}
	}
	c.touchGroup(g)
}

func (c *Compiler) removeAddressGroup(r *model.AddressGroup) {
	g := c.group(r.Metadata.Ref())
	c.touchGroup(g)
	for _, inner := range g.inner {
		delete(inner.outer, g)
		c.mention(inner)
	}
	delete(c.tenant(g.ref.Tenant).selecting, g)
	c.forgetTenant(g.ref.Tenant)
	clear(g.ports)
	g.spec, g.inner = nil, nil
}

// touchGroup asks for the row of the group, and of every group that it is in.
func (c *Compiler) touchGroup(g *group) {
	if c.todo.groups[g] {
		return
	}
	c.todo.groups[g] = true
	for outer := range g.outer {
		c.touchGroup(outer)
	}
}

// mention asks whether anybody speaks of the group still.
func (c *Compiler) mention(g *group) { c.todo.groups[g] = c.todo.groups[g] }

// joinGroups and partGroups follow a port into the groups that select it.
func (c *Compiler) joinGroups(p *port) {
	t := c.tenant(p.ref.Tenant)
	t.ports[p] = struct{}{}
	for g := range t.selecting {
		if g.spec.Spec.Selects(p.spec.Metadata.Labels) {
			g.ports[p] = struct{}{}
			c.touchGroup(g)
		}
	}
}

func (c *Compiler) partGroups(p *port) {
	t := c.tenant(p.ref.Tenant)
	delete(t.ports, p)
	for g := range t.selecting {
		if _, in := g.ports[p]; in {
			delete(g.ports, p)
			c.touchGroup(g)
		}
	}
	c.forgetTenant(p.ref.Tenant)
}

func (c *Compiler) forgetTenant(name string) {
	if t := c.tenants[name]; t != nil && len(t.ports)+len(t.selecting) == 0 {
		delete(c.tenants, name)
	}
}

// settleGroup makes the row anew. Where it comes out as it was, it stays the same one.
func (c *Compiler) settleGroup(g *group) {
	var row *goal.Group
	if g.spec != nil {
		row = &goal.Group{Ref: g.ref, Prefixes: g.members()}
	}
	if row != nil && row.Check() != nil {
		row = nil
	}
	if row != nil && g.row != nil && row.Equal(g.row) {
		return
	}
	if g.row = row; row != nil {
		row.Seal()
	}
	for l := range g.lists {
		for h := range l.hosts {
			c.todo.judged[h] = struct{}{}
		}
	}
}

// members are all prefixes that are in the group by any way.
func (g *group) members() []netip.Prefix {
	var out []netip.Prefix
	seen := map[*group]bool{}
	var walk func(*group)
	walk = func(g *group) {
		if seen[g] || g.spec == nil {
			return
		}
		seen[g] = true
		for _, p := range g.spec.Spec.Prefixes {
			out = append(out, p.Masked())
		}
		for p := range g.ports {
			for _, ca := range plain(p.spec.CAs()) {
				out = append(out, netip.PrefixFrom(ca, ca.BitLen()))
			}
		}
		for _, inner := range g.inner {
			walk(inner)
		}
	}
	walk(g)
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

func (c *Compiler) forgetGroup(g *group) {
	if g.spec == nil && len(g.outer)+len(g.lists) == 0 {
		delete(c.groups, g.ref)
	}
}

// concern names the hosts with a list that names the group, or one that it is in, sorted.
func (g *group) concern() []string {
	if g == nil {
		return nil
	}
	hosts := map[*host]struct{}{}
	seen := map[*group]bool{}
	var walk func(*group)
	walk = func(g *group) {
		if seen[g] {
			return
		}
		seen[g] = true
		for l := range g.lists {
			for h := range l.hosts {
				hosts[h] = struct{}{}
			}
		}
		for outer := range g.outer {
			walk(outer)
		}
	}
	walk(g)
	return hostNames(hosts)
}
