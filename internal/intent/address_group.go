package intent

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/weft-sdn/weft/internal/model"
)

type addressGroupRules struct{}

// Bounds of groups.
const (
	maxGroupPrefixes = 16384
	maxGroupGroups   = 256
	maxGroupLabels   = 16
)

func groupKey(tenant, name string) model.Key {
	return model.Key{Kind: model.KindAddressGroup, Ref: model.Ref{Tenant: tenant, Name: name}}
}

func (addressGroupRules) clone(r model.Resource) model.Resource {
	c := *r.(*model.AddressGroup)
	c.Metadata = cloneMeta(c.Metadata)
	c.Spec.Prefixes, c.Spec.Groups = orNil(c.Spec.Prefixes), orNil(c.Spec.Groups)
	if len(c.Spec.Ports) == 0 {
		c.Spec.Ports = nil
	}
	return &c
}

func (addressGroupRules) inherit(_, _ model.Resource) {}

func (addressGroupRules) check(a *admission, r, _ model.Resource) {
	g, k := r.(*model.AddressGroup), model.KeyOf(r)
	a.checkPrefixList(k, "spec.prefixes", g.Spec.Prefixes, maxGroupPrefixes)
	if n := len(g.Spec.Ports); n > maxGroupLabels {
		a.fail(k, "spec.ports", "has %d labels; at most %d are allowed", n, maxGroupLabels)
	}
	if n := len(g.Spec.Groups); n > maxGroupGroups {
		a.fail(k, "spec.groups", "has %d entries; at most %d are allowed", n, maxGroupGroups)
		return
	}
	for i, name := range g.Spec.Groups {
		a.refer(k, at("spec.groups", i), groupKey(g.Metadata.Tenant, name))
		if slices.Contains(g.Spec.Groups[:i], name) {
			a.fail(k, at("spec.groups", i), "%s is listed twice", name)
		}
	}
}

func (addressGroupRules) allocate(*admission, model.Resource) {}

func (addressGroupRules) relate(a *admission, r, _ model.Resource) {
	if r == nil {
		return
	}
	g := r.(*model.AddressGroup)
	for i, name := range g.Spec.Groups {
		if way := a.wayTo(g, name, nil); way != nil {
			a.fail(model.KeyOf(g), at("spec.groups", i), "makes a circle: %s", strings.Join(append([]string{g.Metadata.Name}, way...), " is in ")+": a group cannot contain itself")
			return
		}
	}
}

// wayTo finds how the group called name leads back to g; nil: it does not.
func (a *admission) wayTo(g *model.AddressGroup, name string, seen map[string]bool) []string {
	if name == g.Metadata.Name {
		return []string{name}
	}
	if seen == nil {
		seen = map[string]bool{}
	}
	next, ok := a.get(groupKey(g.Metadata.Tenant, name)).(*model.AddressGroup)
	if !ok || seen[name] {
		return nil
	}
	seen[name] = true
	for _, inner := range next.Spec.Groups {
		if way := a.wayTo(g, inner, seen); way != nil {
			return append([]string{name}, way...)
		}
	}
	return nil
}

func (addressGroupRules) claims(func(model.Key) model.Resource, model.Resource) []claim { return nil }

func (addressGroupRules) parents(r model.Resource) []model.Key {
	g := r.(*model.AddressGroup)
	out := []model.Key{tenantKey(g.Metadata.Tenant)}
	for _, name := range g.Spec.Groups {
		out = append(out, groupKey(g.Metadata.Tenant, name))
	}
	return out
}

func (addressGroupRules) sameSpec(a, b model.Resource) bool {
	return reflect.DeepEqual(a.(*model.AddressGroup).Spec, b.(*model.AddressGroup).Spec)
}

// checkPrefixList judges prefixes that packets are compared with.
func (a *admission) checkPrefixList(k model.Key, field string, all []netip.Prefix, limit int) {
	if len(all) > limit {
		a.fail(k, field, "has %d entries; at most %d are allowed", len(all), limit)
		return
	}
	seen := make(map[netip.Prefix]struct{}, len(all))
	for i, p := range all {
		if problem := prefixProblem(p); problem != "" {
			a.fail(k, at(field, i), "%s %s", p, problem)
			continue
		}
		if _, twice := seen[p]; twice {
			a.fail(k, at(field, i), "%s is listed twice", p)
		}
		seen[p] = struct{}{}
	}
}
