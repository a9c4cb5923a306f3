package agent

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
)

const reasonRoute = "ProviderRouteFailed"

// wantedRoute is one route of the kernel, and the resources that it follows from.
type wantedRoute struct {
	hops []netdev.Hop
	of   []string
}

// settleRoutes makes the provider routes of the kernel those of policy, and tells whether anything
// about the ways to other hosts may have changed by that. With sweep, routes that policy
// does not have are removed; new ones come before.
func (l *loop) settleRoutes(g *goal.Goal, sweep bool) (changed bool) {
	none := !hasRoutes(g)
	if none && l.unrouted {
		l.routes = nil
		return false
	}
	want, failures := wantedRoutes(g.ProviderRoutes, l.links)
	have, err := netdev.ProviderRoutes()
	if err == nil && len(want) > 0 {
		err = netdev.UseProviderRoutes(true)
	}
	if err != nil {
		l.routes = append(failures, l.hostFailure(reasonRoute, err.Error()))
		return false
	}
	for id, w := range want {
		if sameHops(have[id], w.hops) {
			continue
		}
		changed = true
		if err := netdev.PutProviderRoute(id, w.hops); err != nil {
			failures = append(failures, routeFailures(w.of, err.Error())...)
		}
	}
	for id := range have {
		if _, wanted := want[id]; wanted || !sweep {
			continue
		}
		changed = true
		if err := netdev.DeleteProviderRoute(id); err != nil {
			failures = append(failures, l.hostFailure(reasonRoute, err.Error()))
		}
	}
	if none && sweep {
		if err := netdev.UseProviderRoutes(false); err != nil {
			failures = append(failures, l.hostFailure(reasonRoute, err.Error()))
		}
		l.unrouted = len(failures) == 0
	}
	l.routes = failures
	l.unrouted = l.unrouted && none
	return changed
}

// hasRoutes tells whether g has provider routes that lead somewhere.
func hasRoutes(g *goal.Goal) bool {
	for _, r := range g.ProviderRoutes {
		if !r.Unreachable() {
			return true
		}
	}
	return false
}

// wantedRoutes makes routes of what policy says, with all their next hops. What names a device that is not
// there, or has no link, is left out: the other next hops carry its packets.
func wantedRoutes(routes map[string]goal.ProviderRoute, links map[uint32]netdev.Link) (map[netdev.ProviderRoute]wantedRoute, []failure) {
	out := map[netdev.ProviderRoute]wantedRoute{}
	var failures []failure
	for _, name := range slices.Sorted(maps.Keys(routes)) {
		r := routes[name]
		if r.Unreachable() {
			continue // is the main table's: stand_in.go
		}
		hop := netdev.Hop{Via: r.NextHop}
		if r.Interface != "" {
			index, up := linkNamed(links, r.Interface)
			if index == 0 {
				failures = append(failures, routeFailures([]string{name}, fmt.Sprintf("the host has no device %s", r.Interface))...)
				continue
			}
			if !up {
				failures = append(failures, routeFailures([]string{name}, fmt.Sprintf("device %s has no link", r.Interface))...)
				continue
			}
			hop.IfIndex = index
		}
		id := netdev.ProviderRoute{Prefix: r.Prefix, Metric: r.Metric}.Canonical()
		w := out[id]
		if !slices.Contains(w.hops, hop) {
			w.hops = append(w.hops, hop)
		}
		w.of = append(w.of, name)
		out[id] = w
	}
	for _, w := range out {
		slices.SortFunc(w.hops, func(a, b netdev.Hop) int {
			return cmp.Or(a.Via.Compare(b.Via), cmp.Compare(a.IfIndex, b.IfIndex))
		})
	}
	return out, failures
}

func linkNamed(links map[uint32]netdev.Link, name string) (index uint32, up bool) {
	for index, l := range links {
		if l.Name == name {
			return index, l.Up && l.Running
		}
	}
	return 0, false
}

// sameHops tells whether the kernel has what is wanted, in any order.
func sameHops(have, want []netdev.Hop) bool {
	if len(have) != len(want) {
		return false
	}
	left := slices.Clone(have)
	for _, w := range want {
		i := slices.IndexFunc(left, func(h netdev.Hop) bool { return h.Matches(w) })
		if i < 0 {
			return false
		}
		left = slices.Delete(left, i, i+1)
	}
	return true
}

func routeFailures(names []string, message string) []failure {
	var out []failure
	for _, name := range names {
		out = append(out, failure{model.KindProviderRoute, model.Ref{Name: name}, reasonRoute, message})
	}
	return out
}
