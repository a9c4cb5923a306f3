package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/test/corpus"
)

// The cells of rules: two guests, and before each of them a list of N stateful rules. In rules/local they are on one
// host, with no underlay and no tunnel; in rules/overlay each has its own host, as in the other cells.

const (
	rulesLocal   = "rules/local"
	rulesOverlay = "rules/overlay"
)

// What filters. Each contender is one of these and a number of rules: "nft-1000".
const (
	byWeft      = weft
	byNFT       = "nft"        // Linux bridge, and the rules one by one in nftables
	byNFTMap    = "nft-map"    // the same, with those of the rules that a verdict map can hold
	byNFTRouted = "nft-routed" // the rules one by one, with the host as a router and no bridge
)

var ruleNumbers = []int{0, 10, 1_000, 10_000}

// filterNames are contenders by what filters, each with every number of rules.
func filterNames(filters ...string) []string {
	var names []string
	for _, n := range ruleNumbers {
		for _, f := range filters {
			if n > 0 || f != byNFTMap { // without rules it is byNFT
				names = append(names, filterName(f, n))
			}
		}
	}
	return names
}

func filterName(by string, n int) string { return by + "-" + strconv.Itoa(n) }

// filterOf undoes filterName.
func filterOf(name string) (by string, n int) {
	at := max(strings.LastIndexByte(name, '-'), 0)
	n, err := strconv.Atoi(strings.TrimPrefix(name[at:], "-"))
	if err != nil {
		return name, 0
	}
	return name[:at], n
}

// The service that connections go to: port(0). The ports behind it are allowed, too.
const (
	servicePort = 5001
	lastService = 5010
	idle        = 5 * time.Minute
)

// A ruleList is the rules of one guest in one direction.
type ruleList struct {
	guest   int
	inbound bool
	rules   []table.Rule
}

// ruleLists are what judges a connection from the first guest to the second: n rules of the first, outbound, and n of the
// second, inbound. They are lists as people write them, of which the last but one
// is the first that says anything of our connections, and the last denies what is left. Each rule has
// one prefix and one range, so that all that filter have the same number to look at.
func ruleLists(n int) []ruleList {
	if n == 0 {
		return nil
	}
	return []ruleList{makeRules(0, false, n), makeRules(1, true, n)}
}

func makeRules(guest int, inbound bool, n int) ruleList {
	c := corpus.New(uint64(guest), n, inbound, netip.PrefixFrom(netip.MustParseAddr(flatCA[guest]), 32))
	l := ruleList{guest: guest, inbound: inbound}
	list := "list-" + strconv.Itoa(guest)
	for i := 0; len(l.rules) < n-2; i++ {
		if r, ok := plainRule(c.Rule(list, i)); ok {
			l.rules = append(l.rules, r)
		}
	}
	id := func(rule string) model.RuleID {
		return model.RuleID{List: model.Ref{Tenant: "bench", Name: list}, Rule: rule}
	}
	service := table.Rule{ID: id("service"), Protocol: 6, ICMPType: -1, ICMPCode: -1, Stateful: true, Idle: idle, Remote: []netip.Prefix{flatPrefix}}
	ports := []table.PortRange{{First: servicePort, Last: lastService}}
	if inbound {
		service.LocalPorts = ports
	} else {
		service.RemotePorts = ports
	}
	rest := table.Rule{ID: id("rest"), Action: table.Deny, AnyProtocol: true, ICMPType: -1, ICMPCode: -1}
	l.rules = append(l.rules, service, rest)
	return l
}

var flatPrefix = netip.PrefixFrom(netip.MustParseAddr(flatCA[0]), 24).Masked()

// plainRule is a rule of one prefix and one range, about IPv4, that matches no connection of ours.
func plainRule(r table.Rule) (table.Rule, bool) {
	if len(r.Remote) == 0 || !r.Remote[0].Addr().Is4() || r.Remote[0].Overlaps(flatPrefix) {
		return r, false
	}
	r.Remote, r.Local = r.Remote[:1], r.Local[:min(1, len(r.Local))]
	r.LocalPorts, r.RemotePorts = r.LocalPorts[:min(1, len(r.LocalPorts))], r.RemotePorts[:min(1, len(r.RemotePorts))]
	if r.Action == table.Allow {
		r.Stateful, r.Idle = true, idle
	}
	return r, true
}

// buildLocal gives the host what filters between its two guests.
func (s *site) buildLocal(ctx context.Context) error {
	by, n := filterOf(s.name)
	join := s.bridgeGuests
	switch by {
	case byWeft:
		return inside(s.host[0], func() error { return s.filterByWeft(ruleLists(n)) })
	case byNFTRouted:
		join = s.routeGuests
	}
	if err := join(ctx); err != nil {
		return err
	}
	return s.nft(ctx, s.host[0], by, ruleLists(n))
}

// buildOverlay gives each host what filters before its guest, and the tunnel.
func (s *site) buildOverlay(ctx context.Context) error {
	by, n := filterOf(s.name)
	if by == byWeft {
		return s.buildWeft(ctx) // rows asks for the rules
	}
	if err := s.buildVXLAN(ctx, "1"); err != nil {
		return err
	}
	for _, l := range ruleLists(n) {
		if err := s.nft(ctx, s.host[l.guest], by, []ruleList{l}); err != nil {
			return err
		}
	}
	return nil
}

// bridgeGuests joins the ports by a Linux bridge. This kernel's bridge hands IP packets to the hooks of IP
// (br_netfilter), which is where connections are tracked; it has no tracking of its own (nf_conntrack_bridge).
func (s *site) bridgeGuests(ctx context.Context) error {
	err := sh(ctx, fmt.Sprintf(`
		ip -n %[1]s link add br0 type bridge
		ip -n %[1]s link set p0 master br0
		ip -n %[1]s link set p1 master br0
		ip -n %[1]s link set br0 up`, s.host[0]))
	if err != nil {
		return err
	}
	return setSysctl(s.host[0], "net/bridge/bridge-nf-call-iptables", "1")
}

// routeGuests makes the host their router, though both think that they share a link.
func (s *site) routeGuests(ctx context.Context) error {
	for key, value := range map[string]string{
		"net/ipv4/ip_forward": "1", "net/ipv4/conf/all/proxy_arp": "1", "net/ipv4/conf/all/send_redirects": "0",
		"net/ipv4/neigh/p0/proxy_delay": "0", "net/ipv4/neigh/p1/proxy_delay": "0",
	} {
		if err := setSysctl(s.host[0], key, value); err != nil {
			return err
		}
	}
	for i, ca := range flatCA {
		if err := sh(ctx, fmt.Sprintf("ip -n %s route add %s/32 dev %s", s.host[0], ca, s.device(i))); err != nil {
			return err
		}
	}
	return nil
}

// nft loads lists into a host, as people write them: what is of a known connection first, then each guest's own.
func (s *site) nft(ctx context.Context, host, by string, lists []ruleList) error {
	if len(lists) == 0 {
		return nil
	}
	text := "table ip bench {\n"
	forward := " chain forward {\n  type filter hook forward priority filter; policy accept;\n  ct state established,related accept\n"
	for _, l := range lists {
		if by == byNFTMap {
			text += l.nftMap()
		} else {
			text += l.nftChain()
		}
		// By its address: hooks of IP under a bridge see the bridge as the device.
		forward += fmt.Sprintf("  ip %s %s jump %s\n", l.field("saddr"), flatCA[l.guest], l.name())
	}
	cmd := exec.CommandContext(ctx, "ip", "netns", "exec", host, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(text + forward + " }\n}\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w (make bench installs it): %.500s", err, out)
	}
	return nil
}

func (l ruleList) name() string { return fmt.Sprintf("guest%d", l.guest) }

// field turns the name of a field of an outbound packet around where the list is about inbound ones.
func (l ruleList) field(outbound string) string {
	if !l.inbound {
		return outbound
	}
	return map[string]string{"saddr": "daddr", "daddr": "saddr"}[outbound]
}

// ports are of the service, which is the other side outbound, and the guest inbound.
func (l ruleList) ports(r *table.Rule) []table.PortRange {
	if l.inbound {
		return r.LocalPorts
	}
	return r.RemotePorts
}

// verdict of a list that others come behind lets them have their say.
func (l ruleList) verdict(r *table.Rule) string {
	switch {
	case r.Action == table.Deny:
		return "drop"
	case l.inbound:
		return "accept"
	}
	return "return"
}

// nftChain is the list one by one.
func (l ruleList) nftChain() string {
	var b strings.Builder
	fmt.Fprintf(&b, " chain %s {\n", l.name())
	for i := range l.rules {
		fmt.Fprintf(&b, "  %s\n", l.nftRule(&l.rules[i]))
	}
	b.WriteString(" }\n")
	return b.String()
}

func (l ruleList) nftRule(r *table.Rule) string {
	var words []string
	say := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	if len(r.Remote) > 0 {
		say("ip %s %s", l.field("daddr"), r.Remote[0])
	}
	if len(r.Local) > 0 {
		say("ip %s %s", l.field("saddr"), r.Local[0])
	}
	ports := l.ports(r)
	switch {
	case len(ports) > 0:
		say("%s dport %s", map[uint8]string{6: "tcp", 17: "udp"}[r.Protocol], nftRange(ports[0]))
	case r.ICMPType >= 0:
		say("icmp type %d", r.ICMPType)
	case !r.AnyProtocol:
		say("meta l4proto %d", r.Protocol)
	}
	say("%s", l.verdict(r))
	return strings.Join(words, " ")
}

func nftRange(p table.PortRange) string {
	if p.First == p.Last {
		return strconv.Itoa(int(p.First))
	}
	return fmt.Sprintf("%d-%d", p.First, p.Last)
}

// nftMap is a verdict map with those of the rules that it can hold: it knows no order, and takes no element that
// overlaps with another. Our own rule is never one of those that are left out.
func (l ruleList) nftMap() string {
	var elements []string
	for _, r := range l.apart() {
		local := "0.0.0.0/0"
		if len(r.Local) > 0 {
			local = r.Local[0].String()
		}
		elements = append(elements, fmt.Sprintf("%s . %s . %d . %s : %s", r.Remote[0], local, r.Protocol, nftRange(l.ports(r)[0]), l.verdict(r)))
	}
	return fmt.Sprintf(` map %[1]s-rules {
  type ipv4_addr . ipv4_addr . inet_proto . inet_service : verdict
  flags interval
  elements = { %[2]s }
 }
 chain %[1]s {
  ip %[3]s . ip %[4]s . meta l4proto . th dport vmap @%[1]s-rules
  drop
 }
`, l.name(), strings.Join(elements, ",\n"), l.field("daddr"), l.field("saddr"))
}

// apart are the rules about ports of which no two overlap.
func (l ruleList) apart() []*table.Rule {
	var held []*table.Rule
	for i := range l.rules {
		r := &l.rules[i]
		if len(l.ports(r)) > 0 && !slices.ContainsFunc(held, func(o *table.Rule) bool { return l.overlap(r, o) }) {
			held = append(held, r)
		}
	}
	return held
}

func (l ruleList) overlap(r, o *table.Rule) bool {
	a, b := l.ports(r)[0], l.ports(o)[0]
	return r.Protocol == o.Protocol && a.First <= b.Last && b.First <= a.Last && r.Remote[0].Overlaps(o.Remote[0]) &&
		(len(r.Local) == 0 || len(o.Local) == 0 || r.Local[0].Overlaps(o.Local[0]))
}

// filterByWeft runs in the namespace of the host.
func (s *site) filterByWeft(lists []ruleList) error {
	var index [2]uint32
	for i := range index {
		d, err := net.InterfaceByName(s.device(i))
		if err != nil {
			return err
		}
		index[i] = uint32(d.Index)
	}
	sw, err := s.newSwitch(datapath.DecapAuto)
	if err != nil {
		return err
	}
	s.switches = append(s.switches, sw)
	s.undo = append(s.undo, func() {
		s.tellDrops(s.host[0], sw)
		sw.Close()
	})
	return errors.Join(sw.Apply(s.localRows(index, lists), true), sw.AttachPort(index[0]), sw.AttachPort(index[1]))
}

// localRows are the tables of a host that has both guests.
func (s *site) localRows(index [2]uint32, lists []ruleList) table.Set {
	set := table.NewSet()
	pas := addrs(hostPA)
	for i, ifindex := range index {
		set.Ports[ifindex] = table.Port{
			IfIndex: ifindex, ID: model.PortID(i + 1), VSID: subnet, Network: 1, MAC: mac(i),
			PA: pas[0], Gateway4: gateway, MTU: nvgreMTU, Peer: s.ports == "veth",
		}
		set.Records[table.RecordKey{VSID: subnet, CA: s.ca[i]}] = table.Record{MAC: mac(i), IfIndex: ifindex, Port: model.PortID(i + 1)}
	}
	for n := range s.records { // as other contenders have
		set.Records[table.RecordKey{VSID: subnet, CA: recordCA(n)}] = table.Record{MAC: mac(1), PA: pas[1], Port: model.PortID(100 + n)}
	}
	set.Routes[table.RouteKey{Network: 1, Prefix: subnetPrefix}] = table.Route{VSID: subnet}
	set.LocalPAs[pas[0]] = struct{}{}
	for _, l := range lists {
		l.put(set, index[l.guest])
	}
	return set
}

// put gives a port the list. It follows as many connections as a port can, as nftables does.
func (l ruleList) put(set table.Set, ifindex uint32) {
	p := set.Ports[ifindex]
	p.Connections = datapath.MaxConnections
	key := table.RuleSetKey{byte(1 + l.guest)}
	if l.inbound {
		p.Inbound = key
	} else {
		p.Outbound = key
	}
	set.Ports[ifindex] = p
	set.RuleSets[key] = &table.RuleSet{Sections: []table.Section{{Kind: table.Tenant, Rules: l.rules}}}
}

// checkRules proves that the contender lets through what its rules allow, and nothing else.
func (s *site) checkRules(ctx context.Context) error {
	if _, err := s.measured(ctx, connections, 0.05); err != nil {
		return err
	}
	if _, n := filterOf(s.name); n == 0 {
		return nil
	}
	// Nobody waits at either port: what is let through is refused at once, and what is not is not heard of.
	for port, allowed := range map[int]bool{lastService: true, lastService + 1: false} {
		out, err := exec.CommandContext(ctx, "ip", "netns", "exec", s.guest[0], "bash", "-c",
			fmt.Sprintf("timeout 0.3 bash -c 'echo > /dev/tcp/%s/%d'", flatCA[1], port)).CombinedOutput()
		if refused := strings.Contains(string(out), "refused"); refused != allowed || err == nil {
			return fmt.Errorf("port %d of the second guest: refused is %v, wanted %v: %v %s", port, refused, allowed, err, out)
		}
	}
	return nil
}
