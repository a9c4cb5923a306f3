package netdev

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Provider routes stand in a table of their own, in which only the switch's way to other hosts is looked up, and
// what probes it, by a mark: they cannot cut the host off, and no route of others is ever touched.
// Where the table has no answer the host's own has.
const (
	providerTable    = 0x77656674 // "weft"
	providerMark     = 0x77656675 // not the switch's own, which opens ports
	providerPriority = 11900      // of the rules; the main table's is 32766
	providerProtocol = 119        // of routes and rules
)

// ipv6Metric is what the kernel makes of the metric 0 of an IPv6 route.
const ipv6Metric = 1024

// ProviderRoute names a route of that table.
type ProviderRoute struct {
	Prefix netip.Prefix
	Metric uint32
}

// Canonical is r as the kernel has it.
func (r ProviderRoute) Canonical() ProviderRoute {
	if r.Prefix.Addr().Is6() && r.Metric == 0 {
		r.Metric = ipv6Metric
	}
	return r
}

// Hop is one next hop of a route. An invalid Via is on-link; without a device it is the one that
// the host has Via on-link on.
type Hop struct {
	Via     netip.Addr
	IfIndex uint32
}

// Matches reports whether h is what the kernel made of want.
func (h Hop) Matches(want Hop) bool {
	return h.Via == want.Via && (want.IfIndex == 0 || want.IfIndex == h.IfIndex)
}

// ProviderRoutes lists what is in the table, without routes whose devices are all gone.
func ProviderRoutes() (map[ProviderRoute][]Hop, error) {
	out := map[ProviderRoute][]Hop{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := retryDump(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{Table: providerTable}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list provider routes: %w", err)
		}
		for _, r := range routes {
			id := ProviderRoute{prefixOf(r, family), uint32(r.Priority)}
			if len(r.MultiPath) == 0 {
				out[id] = append(out[id], hopOf(uint32(r.LinkIndex), r.Gw))
			}
			for _, m := range r.MultiPath {
				out[id] = append(out[id], hopOf(uint32(m.LinkIndex), m.Gw))
			}
		}
	}
	return out, nil
}

func prefixOf(r netlink.Route, family int) netip.Prefix {
	if r.Dst != nil {
		a, _ := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		return netip.PrefixFrom(a.Unmap(), bits)
	}
	if family == netlink.FAMILY_V4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

func hopOf(index uint32, gw []byte) Hop {
	a, _ := netip.AddrFromSlice(gw)
	return Hop{Via: a.Unmap(), IfIndex: index}
}

// PutProviderRoute makes a route have exactly these next hops, without a moment in between.
func PutProviderRoute(id ProviderRoute, hops []Hop) error {
	r := tableRoute(id)
	if len(hops) == 1 {
		info := nextHop(hops[0])
		r.LinkIndex, r.Gw, r.Flags = info.LinkIndex, info.Gw, info.Flags
		if info.Gw == nil {
			r.Scope = netlink.SCOPE_LINK
		}
	} else {
		for _, h := range hops {
			info := nextHop(h)
			r.MultiPath = append(r.MultiPath, &info)
		}
	}
	if err := netlink.RouteReplace(r); err != nil {
		return fmt.Errorf("provider route %s: %w", id.Prefix, err)
	}
	return nil
}

// nextHop of a device that was named is on-link there, whatever the host's addresses say.
func nextHop(h Hop) netlink.NexthopInfo {
	info := netlink.NexthopInfo{LinkIndex: int(h.IfIndex)}
	if h.Via.IsValid() {
		info.Gw = h.Via.AsSlice()
	}
	if h.Via.IsValid() && h.IfIndex != 0 {
		info.Flags = int(netlink.FLAG_ONLINK)
	}
	return info
}

func tableRoute(id ProviderRoute) *netlink.Route {
	return &netlink.Route{Table: providerTable, Protocol: providerProtocol, Priority: int(id.Metric), Dst: ipNet(id.Prefix)}
}

// DeleteProviderRoute removes a route. One that is gone is no error.
func DeleteProviderRoute(id ProviderRoute) error {
	err := netlink.RouteDel(tableRoute(id))
	if err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove provider route %s: %w", id.Prefix, err)
	}
	return nil
}

// UseProviderRoutes makes the rules that lead to the table, or removes them.
func UseProviderRoutes(use bool) error {
	var problems []error
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		rules, err := retryDump(func() ([]netlink.Rule, error) {
			return netlink.RuleListFiltered(family, &netlink.Rule{Table: providerTable}, netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return fmt.Errorf("list rules: %w", err)
		}
		there := false
		for _, r := range rules {
			if use && !there && r.Mark == providerMark && r.Priority == providerPriority {
				there = true
				continue
			}
			problems = append(problems, netlink.RuleDel(&r))
		}
		if use && !there {
			problems = append(problems, netlink.RuleAdd(providerRule(family)))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("rules for provider routes: %w", err)
	}
	return nil
}

func providerRule(family int) *netlink.Rule {
	r := netlink.NewRule()
	r.Family, r.Mark, r.Table, r.Priority, r.Protocol = family, providerMark, providerTable, providerPriority, providerProtocol
	return r
}

// RemoveProviderRoutes removes the table and its rules.
func RemoveProviderRoutes() error {
	problems := []error{UseProviderRoutes(false)}
	routes, err := ProviderRoutes()
	problems = append(problems, err)
	for id := range routes {
		problems = append(problems, DeleteProviderRoute(id))
	}
	return errors.Join(problems...)
}
