package truth

import (
	"cmp"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// The oracle reads docs/design/acl.md and the resources, and nothing of what turns them
// into rows: compile, the agent, sim and the switch are what it checks.

// probe is one packet between two places.
type probe struct {
	From, To     int
	Family       int // 0 IPv4, 1 IPv6
	Proto        string
	Sport, Dport uint16
	Reply        bool // of an earlier probe that has arrived
	Tag          int  // VLAN tag; 0: none
	Part         part // of a datagram
}

// part is a piece of a datagram: later ones do not say the ports.
type part int

const (
	whole part = iota
	first
	later  // of the same datagram as the first that was sent before it
	orphan // later, and there was no first
)

// tried is whether the oracle lets a probe arrive, and leaves behind what it opened.
func (p *policy) tried(q probe, open connections) bool {
	return p.together(q) && p.judged("outbound", q.From, q.To, q, open) && p.judged("inbound", q.To, q.From, q, open)
}

// together is hnv 5.2's table, within a subnet; ports without a mode are a community.
func (p *policy) together(q probe) bool {
	from, to := q.From, q.To
	a, b := p.Ports[from].Isolation, p.Ports[to].Isolation
	if places[from].subnet == onVLAN {
		return p.Ports[from].VLAN.carries(p.Ports[to].VLAN, q.Tag)
	}
	return places[from].subnet != places[to].subnet || a == "promiscuous" || b == "promiscuous" || a == b && a != "isolated"
}

// connection as acl.md keys it, or a datagram whose first fragment was let pass: those have a direction.
type connection struct {
	at, other  int
	family     int
	proto      string
	here, afar uint16
	datagram   string
}

type connections map[connection]bool

// judged is whether the place lets the probe pass in the direction.
func (p *policy) judged(direction string, at, other int, q probe, open connections) bool {
	here, afar := q.Sport, q.Dport
	if direction == "inbound" {
		here, afar = afar, here
	}
	datagram := connection{at: at, other: other, family: q.Family, here: q.Sport, datagram: direction}
	if q.Part == later || q.Part == orphan {
		if open[datagram] && q.Part == later {
			return true
		}
		allowed, _ := p.search(direction, at, other, q.Family, q.Proto, nil)
		return allowed
	}
	key := connection{at: at, other: other, family: q.Family, proto: q.Proto, here: here, afar: afar}
	if q.Proto == "icmp" {
		key.here, key.afar = q.Sport, 0
	}
	allowed, remember := open[key], false
	if !allowed {
		allowed, remember = p.search(direction, at, other, q.Family, q.Proto, &ports{here, afar})
	}
	if allowed && remember {
		open[key] = true
	}
	if allowed && q.Part == first {
		open[datagram] = true
	}
	return allowed
}

// ports of a packet that says them, at the place and at the other.
type ports struct{ here, afar uint16 }

// search asks the sections in turn.
func (p *policy) search(direction string, at, other, family int, proto string, says *ports) (allowed, stateful bool) {
	ask := func(tier string, lists ...[]string) (action string, remember bool) {
		type placed struct {
			rule
			list  int // in the order of levels and of attachment
			place int
		}
		var all []placed
		var seen []string
		for _, name := range slices.Concat(lists...) {
			i := slices.IndexFunc(p.Lists, func(l list) bool { return l.Name == name })
			if i < 0 || slices.Contains(seen, name) || p.Lists[i].Tier != tier || p.Lists[i].Mode == "audit" {
				continue
			}
			seen = append(seen, name)
			l := p.Lists[i]
			for n, r := range l.Rules {
				all = append(all, placed{r, len(seen), n})
			}
			if d := map[string]string{"inbound": l.Inbound, "outbound": l.Outbound}[direction]; d != "" {
				all = append(all, placed{rule{Direction: direction, Action: d, Protocol: "any", Weight: -1}, len(seen), len(l.Rules)})
			}
		}
		slices.SortStableFunc(all, func(a, b placed) int {
			return cmp.Or(cmp.Compare(b.Weight, a.Weight), cmp.Compare(a.list, b.list), cmp.Compare(a.place, b.place))
		})
		for _, r := range all {
			if r.Action != "meter" && (r.Direction == "both" || r.Direction == direction) && p.matches(r.rule, at, other, family, proto, says) {
				return r.Action, r.Stateful
			}
		}
		return "", false
	}
	port := p.Ports[at]
	var network, subnet []string // a port on a VLAN has none
	if s := places[at].subnet; s != onVLAN {
		network, subnet = p.Network, p.Subnet[s]
	}
	attached := port.Lists
	if i := slices.IndexFunc(p.Profiles, func(q profile) bool { return q.Name == port.Profile }); i >= 0 {
		attached = slices.Concat(p.Profiles[i].Lists, attached)
	}
	action, remember := ask("administrator", network, subnet, attached)
	switch action {
	case "allow":
		return true, remember
	case "deny":
		return false, false
	}
	decided := false
	for _, level := range [][]string{network, subnet, attached} {
		action, s := ask("tenant", level)
		if action == "deny" {
			return false, false
		}
		decided, stateful = decided || action != "", stateful || s
	}
	for _, isMAC := range []bool{true, false} {
		action := p.basic(direction, at, other, family, isMAC)
		if action == "deny" {
			return false, false
		}
		decided = decided || action != ""
	}
	if decided {
		return true, stateful
	}
	action, remember = ask("default", network, subnet, attached)
	return action != "deny", remember
}

// basic is what the port's own entries say: the longest prefix wins, the first of equals.
func (p *policy) basic(direction string, at, other, family int, isMAC bool) (action string) {
	longest := -1
	for _, e := range p.Ports[at].Basic {
		if e.Action == "meter" || e.Direction != "both" && e.Direction != direction || strings.HasSuffix(e.Field, "MAC") != isMAC {
			continue
		}
		if isMAC {
			// Behind the router every remote MAC is the router's.
			if places[at].subnet == places[other].subnet && e.Value == places[other].mac.String() && longest < 0 {
				action, longest = e.Action, 0
			}
			continue
		}
		of := other
		if e.Field == "localAddress" {
			of = at
		}
		prefix := netip.MustParsePrefix(e.Value)
		if prefix.Contains(places[of].ca[family]) && prefix.Bits() > longest {
			action, longest = e.Action, prefix.Bits()
		}
	}
	return action
}

// matches is whether all that a rule names is so.
func (p *policy) matches(r rule, at, other, family int, proto string, says *ports) bool {
	if proto == "icmp" && family == 1 {
		proto = "icmpv6"
	}
	if r.Protocol != "any" && r.Protocol != proto {
		return false
	}
	if len(r.Local) > 0 && !inside(r.Local, places[at].ca[family]) {
		return false
	}
	if len(r.Remote)+len(r.RemoteGroups) > 0 {
		if !inside(r.Remote, places[other].ca[family]) && !slices.ContainsFunc(r.RemoteGroups, func(g string) bool { return p.member(g, other, family) }) {
			return false
		}
	}
	if says == nil && len(r.LocalPorts)+len(r.RemotePorts) > 0 {
		return r.Action == "deny"
	}
	return says == nil || inRange(r.LocalPorts, says.here) && inRange(r.RemotePorts, says.afar)
}

func inside(prefixes []string, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(s string) bool { return netip.MustParsePrefix(s).Contains(a) })
}

// member is whether a group has a place, by itself or through others.
func (p *policy) member(name string, at, family int) bool {
	i := slices.IndexFunc(p.Groups, func(g group) bool { return g.Name == name })
	g := p.Groups[i]
	return g.Role == places[at].label || inside(g.Prefixes, places[at].ca[family]) ||
		slices.ContainsFunc(g.Groups, func(s string) bool { return p.member(s, at, family) })
}

func inRange(ranges []string, n uint16) bool {
	return len(ranges) == 0 || slices.ContainsFunc(ranges, func(s string) bool {
		first, last, ok := strings.Cut(s, "-")
		if !ok {
			last = first
		}
		a, _ := strconv.Atoi(first)
		b, _ := strconv.Atoi(last)
		return int(n) >= a && int(n) <= b
	})
}
