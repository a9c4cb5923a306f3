package packet

import (
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// Addresses of the stories on VLANs: of the first port, of the machine outside, and of the router there.
var (
	vlanOwn4, vlanFar4, vlanGate4 = addr("192.0.2.10"), addr("192.0.2.20"), addr("192.0.2.1")
	vlanOwn6, vlanFar6, vlanGate6 = addr("2001:db8::a"), addr("2001:db8::20"), addr("2001:db8::1")
)

// held names the addresses of a port on a VLAN, and a MAC that it may use, too.
func held(s site, dev int) func(*table.Set) {
	return func(set *table.Set) {
		p := set.VLANPorts[s.ports[dev]]
		p.Allowed, p.Held = true, true
		set.VLANPorts[p.IfIndex] = p
		for _, a := range []string{"192.0.2.10/32", "2001:db8::a/128", "fe80::77/128"} {
			set.Allowed[table.Allowed{IfIndex: p.IfIndex, Prefix: netip.MustParsePrefix(a)}] = struct{}{}
		}
		set.Allowed[table.Allowed{IfIndex: p.IfIndex, MAC: model.MAC{0, 0, 0x5e, 0, 1, 7}}] = struct{}{}
	}
}

// vlanGuardStories tell of guests on VLANs that act as servers and routers, and of those that speak for others.
func vlanGuardStories(s site) []story {
	me, id := vlanGuest(vlan10), model.PortID(100+vlan10)
	in := func(f []byte) packetIn {
		return packetIn{program: datapath.VLANGuest, ifindex: s.ports[vlan10], frame: f}
	}
	guarded := func(p *table.VLANPort) { p.DHCPGuard, p.RouterGuard = true, true }
	spoof := func(p *table.VLANPort) { p.Spoof = true }
	policy := func(changes []any) func(*table.Set) {
		return func(set *table.Set) {
			ports := []func(*table.VLANPort){guarded}
			for _, c := range changes {
				if f, ok := c.(func(*table.VLANPort)); ok {
					ports = append(ports, f)
				}
			}
			onVLANs(s, ports...)(set)
			for _, c := range changes {
				if f, ok := c.(func(*table.Set)); ok {
					f(set)
				}
			}
		}
	}
	refused := func(name string, f []byte, v model.Verdict, changes ...any) story {
		st := drop("on VLANs: "+name, in(f), v, id)
		st.change = policy(changes)
		return st
	}
	goes := func(name string, f []byte, changes ...any) story {
		return story{name: "on VLANs: " + name, in: in(f), change: policy(changes), port: id,
			want: outcome{model.VerdictSwitched, s.uplinks[0], tagged(f, wire.TypeVLAN, 10)}}
	}
	careless := func(name string, f []byte, change func(*table.VLANPort)) story { // test runs of bare frames want whole headers
		st := goes(name, f, change)
		st.in.frame = tagged(f, wire.TypeVLAN, 0)
		return st
	}
	trunk := func(st story, vid uint16) story { // the same from a trunk, in one of its VLANs
		from := vlanGuest(vlanTrunk)
		f := with(st.in.frame, 6, from[:]...)
		st.name += ", in a trunk"
		st.in, st.port = packetIn{program: datapath.VLANGuest, ifindex: s.ports[vlanTrunk], frame: tagged(f, wire.TypeVLAN, vid)}, model.PortID(100+vlanTrunk)
		return st
	}
	none4, none6 := addr("0.0.0.0"), addr("::")
	offer := dhcp(everyone, me, vlanOwn4, broadcast, 67, 68, 2)
	advertise := dhcp(vlanFar, me, vlanOwn6, vlanFar6, 547, 546, 2)
	ra := ipFrame(vlanFar, me, icmp6(wire.IPv6{HopLimit: 255, Source: me.LinkLocal(), Destination: addr("ff02::1")}, 134, 0, 0, zeros(8)))
	redirect := ipFrame(vlanFar, me, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoICMP, Source: vlanOwn4, Destination: vlanFar4}, nil, icmp(5, 0, 0, zeros(28))))
	part := ipFrame(vlanFar, me, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoUDP, Source: vlanOwn4, Destination: vlanFar4, MoreFrags: true, ID: 7}, nil, udp(67, 68, 0)))
	chain := ipFrame(vlanFar, me, v6(wire.IPv6{HopLimit: 64, Next: wire.ProtoDestOpts, Source: vlanOwn6, Destination: vlanFar6},
		join([]byte{wire.ProtoUDP, 0, 1, 4, 0, 0, 0, 0}, advertise[54:])))
	hidden := ipFrame(vlanFar, me, v6(wire.IPv6{HopLimit: 255, Next: wire.ProtoDestOpts, Source: me.LinkLocal(), Destination: addr("ff02::1")},
		join([]byte{wire.ProtoICMPv6, 0, 1, 4, 0, 0, 0, 0}, ra[54:])))
	says := func(op uint16, inside model.MAC, sender netip.Addr) []byte {
		return frame(vlanFar, me, wire.TypeARP, arp(op, inside, sender, vlanFar, vlanFar4))
	}
	from := func(src netip.Addr) []byte {
		dst := vlanFar4
		if src.Is6() {
			dst = vlanFar6
		}
		return ipFrame(vlanFar, me, dgram(src, dst, 64, 4))
	}
	claim := func(kind uint8, src, target netip.Addr, mac model.MAC) []byte {
		return ipFrame(vlanFar, me, neighbour(src, vlanFar6, wire.Neighbour{Type: kind, Override: kind == wire.ICMPv6NeighbourAdv, Target: target, MAC: mac, HasMAC: true}))
	}
	virtual := with(from(vlanOwn4), 6, 0, 0, 0x5e, 0, 1, 7)
	snap := frame(vlanFar, me, 48, join([]byte{0xaa, 0xaa, 3, 0, 0, 0, 8, 0}, zeros(40)))
	discover := ipFrame(vlanFar, me, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoUDP, Source: none4, Destination: broadcast}, nil, udp(68, 67, 240)))
	cut := from(vlanOwn4)[:30]
	const na, ns = wire.ICMPv6NeighbourAdv, wire.ICMPv6NeighbourSol
	all := []story{
		refused("a DHCP offer", offer, model.VerdictDhcpServerMessage),
		refused("a DHCP offer in fragments", part, model.VerdictDhcpServerMessage),
		refused("a DHCP offer where speaking for others is allowed", offer, model.VerdictDhcpServerMessage, spoof),
		refused("DHCPv6's advertise", advertise, model.VerdictDhcpServerMessage),
		refused("DHCPv6's advertise behind an extension header", chain, model.VerdictDhcpServerMessage),
		refused("a router advertisement", ra, model.VerdictRouterMessage),
		refused("a router advertisement behind an extension header", hidden, model.VerdictNdMalformed),
		refused("an ICMP redirect", redirect, model.VerdictRouterMessage),
		refused("IP in SNAP", snap, model.VerdictNonIp),
		refused("IPv4 cut in its header", tagged(cut, wire.TypeVLAN, 0), model.VerdictFrameTruncated),
		careless("IPv4 cut in its header, where nobody looks", cut, func(p *table.VLANPort) { p.Spoof, p.DHCPGuard, p.RouterGuard = true, false, false }),
		goes("IP in SNAP, where nobody looks", snap, func(p *table.VLANPort) { p.Spoof, p.DHCPGuard, p.RouterGuard = true, false, false }),
		goes("DHCPv6's advertise by a server", advertise, func(p *table.VLANPort) { p.DHCPGuard = false }),
		goes("a router advertisement by a router", ra, func(p *table.VLANPort) { p.RouterGuard = false }),
		goes("a DHCP client's search", discover),
		goes("a DHCP client's search, of a guest whose addresses are known", discover, held(s, vlan10)),
		goes("a protocol that is not IP", frame(vlanFar, me, 0x88cc, letters(40))),
		goes("a frame with a length", frame(vlanFar, me, 40, join([]byte{0x42, 0x42, 3}, letters(37)))),
		goes("any address of its own", from(vlanOwn4)),
		goes("any IPv6 address of its own", from(vlanOwn6)),
		goes("from the link's address to a neighbour's", from(addr("fe80::99"))),
		goes("any address in ARP", says(wire.ARPReply, me, vlanGate4)),
		goes("a probe for an address", says(wire.ARPRequest, me, none4)),
		goes("any address, advertised", claim(na, vlanOwn6, vlanGate6, me)),
		refused("an ARP reply for another's MAC", says(wire.ARPReply, vlanFar, vlanOwn4), model.VerdictSpoofedArp),
		refused("ARP from a group's address", says(wire.ARPReply, me, addr("224.0.0.5")), model.VerdictSpoofedArp),
		refused("an advertisement of another's MAC", claim(na, vlanOwn6, vlanOwn6, vlanFar), model.VerdictSpoofedNd),
		refused("a solicitation from nobody, with a MAC", claim(ns, none6, vlanFar6, me), model.VerdictSpoofedNd),
		refused("a loopback address", from(addr("127.0.0.1")), model.VerdictSpoofedCa),
		refused("nobody's address to somebody", from(none4), model.VerdictSpoofedCa),
		refused("nobody's IPv6 address to somebody", from(none6), model.VerdictSpoofedCa),
		goes("its own address", from(vlanOwn4), held(s, vlan10)),
		goes("its own IPv6 address", from(vlanOwn6), held(s, vlan10)),
		goes("the link's address of its MAC", from(me.LinkLocal()), held(s, vlan10)),
		goes("the link's address that policy names", from(addr("fe80::77")), held(s, vlan10)),
		goes("its own address in ARP", says(wire.ARPReply, me, vlanOwn4), held(s, vlan10)),
		goes("its own address, advertised", claim(na, vlanOwn6, vlanOwn6, me), held(s, vlan10)),
		goes("a MAC that it may use", virtual, held(s, vlan10)),
		goes("another's address where speaking for others is allowed", from(vlanGate4), held(s, vlan10), spoof),
		refused("a MAC that another may use", virtual, model.VerdictSpoofedMac, held(s, vlan20)),
		refused("another's address", from(vlanGate4), model.VerdictSpoofedCa, held(s, vlan10)),
		refused("another's IPv6 address", from(vlanGate6), model.VerdictSpoofedCa, held(s, vlan10)),
		refused("another's address of the link", from(addr("fe80::1")), model.VerdictSpoofedCa, held(s, vlan10)),
		refused("the router's address in an ARP reply", says(wire.ARPReply, me, vlanGate4), model.VerdictSpoofedArp, held(s, vlan10)),
		refused("the router's address in an ARP request", says(wire.ARPRequest, me, vlanGate4), model.VerdictSpoofedArp, held(s, vlan10)),
		refused("the router's address, advertised", claim(na, vlanOwn6, vlanGate6, me), model.VerdictSpoofedNd, held(s, vlan10)),
		refused("the router's address of the link, advertised", claim(na, vlanOwn6, addr("fe80::1"), me), model.VerdictSpoofedNd, held(s, vlan10)),
	}
	return append(all, trunk(refused("DHCPv6's advertise", advertise, model.VerdictDhcpServerMessage), 20),
		trunk(refused("a router advertisement", ra, model.VerdictRouterMessage), 20), trunk(refused("an ICMP redirect", redirect, model.VerdictRouterMessage), 0))
}

// randomVLANPayload is a frame with something in it that guards look for, or nearly.
func randomVLANPayload(rng *rand.Rand, dst, src model.MAC) []byte {
	a4 := func() netip.Addr {
		return pick(rng, []netip.Addr{vlanOwn4, vlanFar4, vlanGate4, addr("0.0.0.0"), broadcast, addr("224.0.0.1"), addr("127.0.0.1"), addr("240.0.0.1")})
	}
	a6 := func() netip.Addr {
		return pick(rng, []netip.Addr{vlanOwn6, vlanFar6, vlanGate6, src.LinkLocal(), addr("::"), addr("ff02::1"), addr("fe80::77"), addr("fe80::1"), addr("::1")})
	}
	mac := func() model.MAC { return pick(rng, []model.MAC{src, src, src, vlanFar}) }
	port := func() uint16 {
		return pick(rng, []uint16{67, 68, 546, 547, uint16(rng.IntN(1 << 16))})
	}
	d := udp(port(), port(), pick(rng, []int{0, 1, 8, 120}))
	if len(d) > 8 {
		d[8] = byte(rng.IntN(15))
	}
	if chance(rng, 10) {
		d = d[:rng.IntN(8)]
	}
	var f []byte
	switch rng.IntN(7) {
	case 0:
		f = frame(dst, src, wire.TypeARP, arp(uint16(1+rng.IntN(2)), mac(), a4(), mac(), a4()))
	case 1:
		h := wire.IPv4{TTL: 64, Proto: pick(rng, []uint8{17, 17, 17, 6}), Source: a4(), Destination: a4(), ID: uint16(rng.IntN(3))}
		if chance(rng, 20) {
			h.MoreFrags, h.FragOffset = chance(rng, 50), uint16(rng.IntN(2))
		}
		f = ipFrame(dst, src, v4(h, nil, d))
	case 2:
		f = ipFrame(dst, src, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoICMP, Source: a4(), Destination: a4()}, nil, icmp(pick(rng, []uint8{0, 3, 5, 8, 9, 10}), 0, 0, zeros(8))))
	case 3:
		f = ipFrame(dst, src, v6(wire.IPv6{HopLimit: 64, Next: wire.ProtoUDP, Source: a6(), Destination: a6()}, d))
	case 4:
		next := pick(rng, []uint8{wire.ProtoDestOpts, wire.ProtoFragment, 0, 43})
		f = ipFrame(dst, src, v6(wire.IPv6{HopLimit: 64, Next: next, Source: a6(), Destination: a6()}, join([]byte{wire.ProtoUDP, 0, 0, byte(rng.IntN(2)), 0, 0, 0, 9}, d)))
	case 5:
		f = ipFrame(dst, src, neighbour(a6(), a6(), wire.Neighbour{Type: pick(rng, []uint8{wire.ICMPv6NeighbourAdv, wire.ICMPv6NeighbourSol}), Target: a6(), MAC: mac(), HasMAC: chance(rng, 70)}))
	default:
		f = ipFrame(dst, src, icmp6(wire.IPv6{HopLimit: pick(rng, []uint8{255, 255, 64}), Source: a6(), Destination: a6()}, pick(rng, []uint8{128, 129, 133, 134, 137}), 0, 0, zeros(32)))
	}
	switch rng.IntN(20) {
	case 0: // cut
		return f[:wire.EthernetLen+rng.IntN(len(f)-wire.EthernetLen+1)]
	case 1: // in SNAP
		return join(f[:12], []byte{0, byte(rng.IntN(256)), 0xaa, 0xaa, 3, 0, 0, 0}, f[12:])
	case 2, 3: // changed
		f[wire.EthernetLen+rng.IntN(max(1, min(60, len(f)-wire.EthernetLen)))] ^= 1 << rng.IntN(8)
	}
	return f
}

// vlanACLStories tell of rules of ports on VLANs, in both directions.
func vlanACLStories(s site) []story {
	f := ipFrame(vlanGuest(vlan10b), vlanGuest(vlan10), dgram(vlanOwn4, vlanFar4, 64, 4))
	ruled := func(dev int, inbound bool, sections ...table.Section) func(*table.Set) {
		return func(set *table.Set) {
			if len(set.VLANPorts) == 0 {
				onVLANs(s)(set)
			}
			key, rules := ruleSet(sections...)
			p := set.VLANPorts[s.ports[dev]]
			if inbound {
				p.Inbound = key
			} else {
				p.Outbound = key
			}
			set.VLANPorts[p.IfIndex], set.RuleSets[key] = p, rules
		}
	}
	id := func(dev int) model.PortID { return model.PortID(100 + dev) }
	guest := func(f []byte) packetIn {
		return packetIn{program: datapath.VLANGuest, ifindex: s.ports[vlan10], frame: f}
	}
	uplink := func(f []byte) packetIn {
		return packetIn{program: datapath.VLANUplink, ifindex: s.uplinks[0], frame: tagged(f, wire.TypeVLAN, 10)}
	}
	denied := func(name string, in packetIn, dev int, inbound bool, change ...func(*table.Set)) story {
		return story{name: "acl on VLANs: " + name, in: in, want: outcome{verdict: model.VerdictAclDenied}, port: id(dev), inbound: inbound, change: together(change...)}
	}
	delivered := func(name string, in packetIn, f []byte, change ...func(*table.Set)) story {
		st := story{name: "acl on VLANs: " + name, in: in, want: outcome{model.VerdictDelivered, s.ports[vlan10b], f}, port: id(vlan10), to: id(vlan10b), change: together(change...)}
		if in.program == datapath.VLANUplink {
			st.port = st.to
		}
		return st
	}
	none := tenant(aclRule("none", table.Deny))
	from := aclRule("from", table.Deny)
	from.Remote = []netip.Prefix{netip.PrefixFrom(vlanOwn4, 32)}
	mac := aclRule("mac", table.Deny)
	mac.RemoteMAC = vlanFar
	macs := table.Section{Kind: table.BasicMAC, Rules: []table.Rule{mac}}
	other := frame(vlanGuest(vlan10b), vlanGuest(vlan10), 0x88cc, letters(40))
	cut := tagged(f[:30], wire.TypeVLAN, 0)
	far := ipFrame(vlanGuest(vlan10b), vlanFar, dgram(vlanFar4, vlanOwn4, 64, 4))
	hello := ipFrame(everyone, vlanGuest(vlan10), dgram(vlanOwn4, broadcast, 64, 4))
	made := []sim.Copy{{IfIndex: s.ports[vlanTrunk], Frame: tagged(hello, wire.TypeVLAN, 10), To: id(vlanTrunk)}, {IfIndex: s.uplinks[0], Frame: tagged(hello, wire.TypeVLAN, 10)}}
	flood := story{name: "acl on VLANs: a copy is denied", in: guest(hello), want: outcome{model.VerdictFlooded, 0, copies(made)}, port: id(vlan10), made: made,
		denied: []model.PortID{id(vlan10b)}, change: ruled(vlan10b, true, none)}
	farHello := ipFrame(everyone, vlanFar, dgram(vlanFar4, broadcast, 64, 4))
	farMade := []sim.Copy{{IfIndex: s.ports[vlan10], Frame: farHello, To: id(vlan10)}, {IfIndex: s.ports[vlanTrunk], Frame: tagged(farHello, wire.TypeVLAN, 10), To: id(vlanTrunk)}}
	comes := story{name: "acl on VLANs: a copy from outside is denied", in: uplink(farHello), want: outcome{model.VerdictPass, 0, join(uplink(farHello).frame, copies(farMade))}, made: farMade,
		denied: []model.PortID{id(vlan10b)}, change: ruled(vlan10b, true, none)}
	return []story{
		delivered("no rule decides", guest(f), f, ruled(vlan10, false, tenant())),
		delivered("another port's rules", guest(f), f, ruled(vlan20, false, none), ruled(vlan20, true, none)),
		delivered("another direction", guest(f), f, ruled(vlan10, true, none), ruled(vlan10b, false, none)),
		delivered("neither ARP nor IP", guest(other), other, ruled(vlan10, false, none), ruled(vlan10b, true, none)),
		delivered("the first that matches counts", guest(f), f, ruled(vlan10b, true, tenant(aclRule("all", table.Allow), aclRule("rest", table.Deny)))),
		denied("outbound", guest(f), vlan10, false, ruled(vlan10, false, none)),
		denied("inbound", guest(f), vlan10b, true, ruled(vlan10b, true, tenant(from))),
		denied("inbound, from outside", uplink(far), vlan10b, true, ruled(vlan10b, true, none)),
		denied("a MAC of what is neither ARP nor IP", guest(frame(vlanFar, vlanGuest(vlan10), 0x88cc, letters(40))), vlan10, false, ruled(vlan10, false, macs)),
		{name: "acl on VLANs: what rules cannot read", in: guest(cut), want: outcome{verdict: model.VerdictFrameTruncated}, port: id(vlan10),
			change: together(onVLANs(s, func(p *table.VLANPort) { p.Spoof = true }), ruled(vlan10b, true, tenant()))},
		flood, comes,
	}
}

func together(changes ...func(*table.Set)) func(*table.Set) {
	return func(set *table.Set) {
		for _, c := range changes {
			c(set)
		}
	}
}

// TestConnectionsOnVLANs has a guest open connections that its rules follow, to a port here and to the world outside:
// what belongs to them comes back, and nothing else.
func TestConnectionsOnVLANs(t *testing.T) {
	s, sw := newSite(t), load(t)
	e := newSession(t, s, sw)
	onVLANs(s)(&e.set)
	p := e.set.VLANPorts[s.ports[vlan10]]
	out, outbound := ruleSet(tenant(follow(60*time.Second, aclRule("out", table.Allow))))
	in, inbound := ruleSet(tenant(aclRule("none", table.Deny)))
	p.Outbound, p.Inbound = out, in
	e.set.VLANPorts[p.IfIndex], e.set.RuleSets[out], e.set.RuleSets[in] = p, outbound, inbound
	if err := sw.Apply(e.set, true); err != nil {
		t.Fatal(err)
	}
	const passes, switched, denied = model.VerdictDelivered, model.VerdictSwitched, model.VerdictAclDenied
	guest := func(dev int, dst model.MAC, payload []byte) packetIn {
		return packetIn{program: datapath.VLANGuest, ifindex: s.ports[dev], frame: ipFrame(dst, vlanGuest(dev), payload)}
	}
	outside := func(payload []byte) packetIn {
		return packetIn{program: datapath.VLANUplink, ifindex: s.uplinks[0], frame: tagged(ipFrame(vlanGuest(vlan10), vlanFar, payload), wire.TypeVLAN, 10)}
	}
	for _, c := range []talk{{wire.ProtoUDP, 4000, 53}, {wire.ProtoTCP, 4001, 80}, {wire.ProtoICMP, 7, 0}} {
		for _, a := range [][2]netip.Addr{{vlanOwn4, vlanFar4}, {vlanOwn6, vlanFar6}} {
			there, back := c.packet(a[0], a[1], false), c.packet(a[1], a[0], true)
			_, later := pieces(there, 77)
			for i, leg := range []struct {
				after time.Duration
				in    packetIn
				want  model.Verdict
			}{
				{0, outside(back), denied},
				{0, guest(vlan10, vlanFar, there), switched},
				{time.Second, outside(back), passes},
				{0, outside(c.packet(vlanGate4, vlanOwn4, true)), denied},
				{0, outside(refusal(a[1], a[0], there)), passes},
				{0, outside(later), denied},
				{59 * time.Second, guest(vlan10, vlanFar, there), switched},
				{80 * time.Second, outside(back), denied},
				{0, guest(vlan10, vlanGuest(vlan10b), there), passes},
				{0, guest(vlan10b, vlanGuest(vlan10), back), passes},
				{80 * time.Second, guest(vlan10b, vlanGuest(vlan10), back), denied},
			} {
				if got := e.send(t, leg.after, leg.in); got != leg.want {
					t.Errorf("protocol %d from %s, leg %d: %s, want %s", c.proto, a[0], i, got, leg.want)
				}
			}
		}
	}
}
