package compile

import (
	"slices"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// list is one AccessList and the hosts with a port that it judges.
type list struct {
	ref    model.Ref
	row    *goal.List // nil while it is only referred to
	groups []*group   // that its rules name
	hosts  map[*host]int
}

func (c *Compiler) list(ref model.Ref) *list {
	l := c.lists[ref]
	if l == nil {
		l = &list{ref: ref, hosts: map[*host]int{}}
		c.lists[ref] = l
	}
	return l
}

func (c *Compiler) addAccessList(r *model.AccessList) {
	l := c.list(r.Metadata.Ref())
	row := &goal.List{Ref: l.ref, Tier: r.Spec.Tier, Mode: r.Spec.Mode, Default: r.Spec.Default, Rules: append([]model.AccessRule(nil), r.Spec.Rules...)}
	for i := range row.Rules {
		row.Rules[i].Source = "" // the server knows it, and hosts need not
	}
	if row.Check() == nil {
		l.row = row.Seal()
	}
	for _, name := range r.Spec.GroupNames() {
		g := c.group(model.Ref{Tenant: l.ref.Tenant, Name: name})
		g.lists[l] = struct{}{}
		l.groups = append(l.groups, g)
	}
	c.touchList(l)
}

func (c *Compiler) removeAccessList(r *model.AccessList) {
	l := c.list(r.Metadata.Ref())
	for _, g := range l.groups {
		delete(g.lists, l)
		c.mention(g)
	}
	l.row, l.groups = nil, nil
	c.touchList(l)
}

// touchList asks for the lists of every host that has it anew.
func (c *Compiler) touchList(l *list) {
	c.todo.lists[l] = struct{}{}
	for h := range l.hosts {
		c.todo.judged[h] = struct{}{}
	}
}

// use and unuse count the port rows of a host that name a list.
func (c *Compiler) use(h *host, row goal.Port) {
	for _, u := range row.Settings.Lists {
		l := c.list(model.Ref{Tenant: row.Ref.Tenant, Name: u.List})
		l.hosts[h]++
		h.uses[l]++
		c.todo.judged[h] = struct{}{}
	}
}

func (c *Compiler) unuse(h *host, row goal.Port) {
	for _, u := range row.Settings.Lists {
		l := c.list(model.Ref{Tenant: row.Ref.Tenant, Name: u.List})
		if l.hosts[h]--; l.hosts[h] == 0 {
			delete(l.hosts, h)
		}
		if h.uses[l]--; h.uses[l] == 0 {
			delete(h.uses, l)
		}
		c.todo.judged[h] = struct{}{}
		c.todo.lists[l] = struct{}{}
	}
}

// settleJudged gives a host the lists that its ports name, and the groups that these do.
func (c *Compiler) settleJudged(h *host) {
	lists, groups := map[model.Ref]*goal.List{}, map[model.Ref]*goal.Group{}
	for l := range h.uses {
		if l.row == nil {
			continue
		}
		lists[l.ref] = l.row
		for _, g := range l.groups {
			if g.row != nil {
				groups[g.ref] = g.row
			}
		}
	}
	hc := c.change.host(h)
	h.lists = exchange(h, hc.lists, h.lists, lists, (*goal.List).Digest)
	h.groups = exchange(h, hc.groups, h.groups, groups, (*goal.Group).Digest)
}

// exchange takes the digest and the change of a host from old rows to new ones.
func exchange[T comparable](h *host, before map[model.Ref]T, old, new map[model.Ref]T, digest func(T) goal.Digest) map[model.Ref]T {
	var none T
	for ref, row := range old {
		if new[ref] != row {
			h.own = h.own.Sub(digest(row))
			if _, noted := before[ref]; !noted {
				before[ref] = row
			}
		}
	}
	for ref, row := range new {
		if was := old[ref]; was != row {
			h.own = h.own.Add(digest(row))
			if _, noted := before[ref]; !noted && was == none {
				before[ref] = none
			}
		}
	}
	return new
}

func (c *Compiler) forgetList(l *list) {
	if _, there := c.resources[model.Key{Kind: model.KindAccessList, Ref: l.ref}]; !there && len(l.hosts) == 0 {
		delete(c.lists, l.ref)
	}
}

// concern names the hosts that have the list, sorted.
func (l *list) concern() []string {
	if l == nil {
		return nil
	}
	return hostNames(l.hosts)
}

func hostNames[V any](hosts map[*host]V) []string {
	var names []string
	for h := range hosts {
		names = append(names, h.name)
	}
	slices.Sort(names)
	return names
}

// uses lists what judges the packets of a port, the widest level first.
func (p *port) uses() []goal.ListUse {
	var out []goal.ListUse
	take := func(of model.Level, names []string) {
		for _, name := range names {
			out = append(out, goal.ListUse{Level: of, List: name})
		}
	}
	if p.subnet != nil {
		take(model.LevelNetwork, p.subnet.network.accessLists)
		take(model.LevelSubnet, p.subnet.spec.Spec.AccessLists)
	}
	take(model.LevelPort, p.settings.AccessLists)
	return out
}
