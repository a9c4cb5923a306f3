package packet

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// other is the Provider Address of the other family that stands for a Customer Address of the street.
func other(ca netip.Addr) netip.Addr {
	if ca.Is4() {
		b := ca.As4()
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 9, 0xff, 0xff, 14: b[2], 15: b[3]})
	}
	b := ca.As16()
	return netip.AddrFrom4([4]byte{172, 31, 128 | b[7], b[15]})
}

// exchanging is rewriting by Provider Addresses of the other family.
func exchanging(vsids ...model.VSID) func(*table.Set) {
	return and(rewriting(vsids...), func(set *table.Set) {
		for k, pa := range set.RewriteOut {
			set.RewriteIn[other(k.CA)] = set.RewriteIn[pa]
			delete(set.RewriteIn, pa)
			set.RewriteOut[k] = other(k.CA)
			r := set.Records[k]
			r.Exchange = true
			set.Records[k] = r
		}
	})
}

func (e ends) other() ends { return ends{other(e.src), other(e.dst)} }

// label is the flow label of what e say over IPv6.
func (e ends) label(proto uint8, ports uint16) uint32 {
	h := uint32(ports) ^ uint32(proto)<<16
	for _, a := range [2]netip.Addr{e.src, e.dst} {
		for i, b := range a.AsSlice() {
			h ^= uint32(b) << (24 - 8*(i%4))
		}
	}
	return h * 0x9e3779b1 >> 12
}

// atomic is a packet that needs no more of its header than the other family's has.
func (e ends) atomic(tos, ttl, proto uint8, label uint32, payload []byte) []byte {
	if e.src.Is4() {
		return v4(wire.IPv4{TOS: tos, DontFrag: true, TTL: ttl, Proto: proto, Source: e.src, Destination: e.dst}, nil, payload)
	}
	return v6(wire.IPv6{Class: tos, Flow: label, HopLimit: ttl, Next: proto, Source: e.src, Destination: e.dst}, payload)
}

// segment is TCP with its checksum.
func (e ends) segment(n int) []byte {
	header := zeros(20)
	must(wire.Ports{Source: 4000, Destination: 443}.Encode(header))
	header[12] = 5 << 4
	return e.sealed(wire.ProtoTCP, 16, join(header, letters(n)))
}

func (e ends) datagram(n int) []byte { return e.sealed(wire.ProtoUDP, 6, udp(4000, 53, n)) }

func fragmentHeader(next uint8, offsetMore uint16, id uint32) []byte {
	b := zeros(8)
	b[0] = next
	binary.BigEndian.PutUint16(b[2:], offsetMore)
	binary.BigEndian.PutUint32(b[4:], id)
	return b
}

// withFlags is an IPv4 packet with that identification, and those flags and offset.
func withFlags(packet []byte, id, flags uint16) []byte {
	out := with(packet, 4, byte(id>>8), byte(id), byte(flags>>8), byte(flags))
	must(wire.SealIPv4(out[:wire.IPv4Len]))
	return out
}

func exchangeStories(s site) []story {
	return append(exchangeOutStories(s), exchangeInStories(s)...)
}

// crossings are packets of guests as they leave, and as the underlay has them: each is a story on both hosts.
type crossing struct {
	name      string
	in, wire  []byte
	label     uint32 // that the wire's has, if it is IPv6
	flowLost  bool   // in has a flow label, which does not come back
	unchecked bool   // in has an identification, which does not come back
}

func crossings(e ends) []crossing {
	x := e.other()
	is4 := e.src.Is4()
	tcp, dns := e.label(wire.ProtoTCP, 4000^443), e.label(wire.ProtoUDP, 4000^53)
	plain := func(name string, proto uint8, label uint32, in, out []byte) crossing {
		return crossing{name: name, in: e.atomic(0, 64, proto, 0, in), wire: x.atomic(0, 64, proto, label, out), label: label}
	}
	echo := icmp(wire.ICMPEchoRequest, 0, 1, letters(20))
	proto := uint8(wire.ProtoICMP)
	if !is4 {
		proto = wire.ProtoICMPv6
		echo = icmp6(wire.IPv6{HopLimit: 64, Source: e.src, Destination: e.dst}, wire.ICMPv6EchoRequest, 0, 1, letters(20))[wire.IPv6Len:]
	}
	unreachable := e.unreachable(e.back().tcp(60, 50), 128)
	said := unreachable[wire.IPv6Len:]
	if is4 {
		said = unreachable[wire.IPv4Len:]
	}
	bare := udp(4000, 53, 9)
	all := []crossing{
		plain("TCP", wire.ProtoTCP, tcp, e.segment(30), x.segment(30)),
		plain("an odd length", wire.ProtoTCP, tcp, e.segment(31), x.segment(31)),
		plain("UDP", wire.ProtoUDP, dns, e.datagram(30), x.datagram(30)),
		plain("UDP without a checksum", wire.ProtoUDP, dns, bare, bare),
		plain("TCP cut before its checksum", wire.ProtoTCP, e.label(wire.ProtoTCP, 0), zeros(17), zeros(17)),
		plain("echo, as it is", proto, e.label(proto, 0), echo, echo),
		plain("an ICMP error, as it is", proto, e.label(proto, 0), said, said),
		plain("a protocol that does not sum up addresses", 132, e.label(132, 0), letters(40), letters(40)),
		plain("an authentication header, which sums up what both ends see", 51, e.label(51, 0), letters(40), letters(40)),
		{name: "a class of traffic", in: e.atomic(0xb9, 9, wire.ProtoUDP, 0, e.datagram(4)), wire: x.atomic(0xb9, 9, wire.ProtoUDP, dns, x.datagram(4)), label: dns},
	}
	whole, other := e.datagram(112), x.datagram(112)
	if is4 {
		noPorts := e.label(wire.ProtoUDP, 0)
		first, later := whole[:64], whole[64:]
		parted := func(name string, flags uint16, label, offsetMore, id uint32, in, out []byte) crossing {
			return crossing{name: name, in: withFlags(e.atomic(0, 64, wire.ProtoUDP, 0, in), 0xbeef, flags), label: label,
				wire: x.atomic(0, 64, wire.ProtoFragment, label, join(fragmentHeader(wire.ProtoUDP, uint16(offsetMore), id<<16|0xbeef), out))}
		}
		atomic := plain("an identification that means nothing", wire.ProtoUDP, dns, e.datagram(30), x.datagram(30))
		atomic.in, atomic.unchecked = withFlags(atomic.in, 0xbeef, 0x4000), true
		return append(all, atomic,
			parted("the first fragment", 0x2000, noPorts, 1, 0, first, other[:64]),
			parted("a later fragment", 8, noPorts, 8<<3, 0, later, later),
			parted("a fragment not to be cut further", 0x6000, noPorts, 1, 0x4000, first, other[:64]),
			parted("a datagram that may be cut", 0, dns, 0, 0, whole, other),
			parted("the reserved bit", 0xc000, dns, 0, 0xc000, whole, other))
	}
	labelled := plain("a flow label, which is lost", wire.ProtoUDP, 0, e.datagram(30), x.datagram(30))
	labelled.in, labelled.flowLost = e.atomic(0, 64, wire.ProtoUDP, 0x12345, e.datagram(30)), true
	kept := func(name string, offsetMore uint16, part []byte) crossing {
		return plain(name, wire.ProtoFragment, 0, join(fragmentHeader(wire.ProtoUDP, offsetMore, 0xdeadbeef), part), join(fragmentHeader(wire.ProtoUDP, offsetMore, 0xdeadbeef), part))
	}
	return append(all, labelled, kept("the first fragment, as it is", 1, whole[:64]), kept("a later fragment, as it is", 8<<3, whole[64:]), kept("an atomic fragment, as it is", 0, whole))
}

func exchangeOutStories(s site) []story {
	both := exchanging(red1, red2)
	fromWeb := func(packet []byte) packetIn { return s.fromPort(devWeb, ipFrame(router1, web.mac, packet)) }
	out := func(name string, in packetIn, want []byte) story {
		return story{name: "exchange: " + name, in: in, change: both, want: outcome{model.VerdictEncapsulated, s.uplinks[0], ipFrame(model.MAC{}, model.MAC{}, want)}, port: web.id}
	}
	dropped := func(name string, in []byte, change func(*table.Set), v model.Verdict) story {
		return story{name: "exchange: " + name, in: fromWeb(in), change: change, want: outcome{verdict: v}, port: web.id}
	}
	exchange := func(is bool, ca netip.Addr) func(*table.Set) {
		return func(set *table.Set) {
			r := set.Records[table.RecordKey{VSID: red1, CA: ca}]
			r.Exchange = is
			set.Records[table.RecordKey{VSID: red1, CA: ca}] = r
		}
	}
	var all []story
	for _, family := range []struct {
		name      string
		mail, log ends
		gate      netip.Addr
		most      int // that the underlay carries
	}{
		{"IPv4 over IPv6", ends{web.v4, mail.v4}, ends{web.v4, log.v4}, gate1, 1472},
		{"IPv6 over IPv4", ends{web.v6, mail.v6}, ends{web.v6, log.v6}, gate1v6, 1500},
	} {
		name := func(what string) string { return family.name + ": " + what }
		e, l := family.mail, family.log
		x, lx := e.other(), l.other()
		tcp := e.label(wire.ProtoTCP, 4000^443)
		headers := len(e.tcp(64, 0))
		for _, c := range crossings(e) {
			if c.flowLost {
				c.wire = x.atomic(0, 64, wire.ProtoUDP, 0, x.datagram(30))
			}
			all = append(all, out(name(c.name), fromWeb(c.in), c.wire))
		}
		big := e.atomic(0, 64, wire.ProtoTCP, 0, e.segment(family.most+1-headers))
		all = append(all,
			out(name("to another subnet"), fromWeb(l.atomic(0, 64, wire.ProtoTCP, 0, l.segment(30))), lx.atomic(0, 63, wire.ProtoTCP, l.label(wire.ProtoTCP, 4000^443), lx.segment(30))),
			out(name("padding"), fromWeb(join(e.atomic(0, 64, wire.ProtoTCP, 0, e.segment(2)), zeros(5))), join(x.atomic(0, 64, wire.ProtoTCP, tcp, x.segment(2)), zeros(5))),
			out(name("to everyone's MAC, which counts for nothing"), s.fromPort(devWeb, ipFrame(everyone, web.mac, e.atomic(0, 64, wire.ProtoTCP, 0, e.segment(2)))), x.atomic(0, 64, wire.ProtoTCP, tcp, x.segment(2))),
			out(name("as large as the underlay carries"), fromWeb(e.atomic(0, 64, wire.ProtoTCP, 0, e.segment(family.most-headers))), x.atomic(0, 64, wire.ProtoTCP, tcp, x.segment(family.most-headers))),
			story{name: "exchange: " + name("too big by one"), in: fromWeb(big), change: both, port: web.id,
				want: outcome{model.VerdictTooBig, s.ports[devWeb], told(web, red1, family.gate, e.src, tooBigType(e), tooBigCode(e), uint32(family.most), big)}},
			out(name("a large packet to be cut"), cut(fromWeb(e.atomic(0, 64, wire.ProtoTCP, 0, e.segment(2800))), 1400), x.atomic(0, 64, wire.ProtoTCP, tcp, x.segment(2800))),
			dropped(name("a Provider Address of its own family, and a record that knows of none"), e.tcp(64, 3), and(both, func(set *table.Set) {
				set.RewriteOut[table.RecordKey{VSID: red1, CA: e.dst}] = own(e.dst)
			}), model.VerdictRewriteNoPa),
			dropped(name("one of the other family, and a record that knows of none"), e.tcp(64, 3), and(both, exchange(false, e.dst)), model.VerdictRewriteNoPa),
			dropped(name("a record that knows of one of the other family, and there is none"), e.tcp(64, 3), and(rewriting(red1, red2), exchange(true, e.dst)), model.VerdictRewriteNoPa),
		)
	}
	over6, over4 := ends{web.v4, mail.v4}, ends{web.v6, mail.v6}
	for _, proto := range []uint8{0, 43, 44, 58, 60, 135, 139, 140} {
		all = append(all, dropped(fmt.Sprint("IPv4 with a protocol that IPv6 would heed, ", proto), over6.ip(proto, 64, letters(40)), both, model.VerdictRewriteNotCarried))
	}
	loose := withFlags(over6.atomic(0, 64, wire.ProtoTCP, 0, over6.segment(2800)), 7, 0)
	return append(all,
		out("a large packet to be cut, and its parts again", cut(fromWeb(loose), 1400), over6.other().atomic(0, 64, wire.ProtoTCP, over6.label(wire.ProtoTCP, 4000^443), over6.other().segment(2800))),
		dropped("IPv6 with ICMP", over4.ip(wire.ProtoICMP, 64, letters(40)), both, model.VerdictRewriteNotCarried),
		dropped("IPv4 options", v4(wire.IPv4{TTL: 64, Proto: wire.ProtoUDP, Source: web.v4, Destination: mail.v4}, []byte{7, 7, 4, 0, 0, 0, 0, 0}, udp(1, 2, 3)), both, model.VerdictRewriteNotCarried),
		dropped("an extension header", v6(wire.IPv6{HopLimit: 64, Next: wire.ProtoRouting, Source: web.v6, Destination: mail.v6}, join([]byte{wire.ProtoUDP, 0, 4, 0, 0, 0, 0, 0}, udp(1, 2, 3))), both, model.VerdictRewriteNotCarried),
	)
}

func exchangeInStories(s site) []story {
	both, up := exchanging(red1, red2), s.macs[s.uplinks[0]]
	arrives := func(packet []byte) packetIn { return s.fromUplink(ipFrame(up, uplinkNextHop, packet)) }
	got := func(name string, in []byte, src model.MAC, want []byte) story {
		return story{name: "exchanged: " + name, in: arrives(in), change: both,
			want: outcome{model.VerdictDelivered, s.ports[devWeb], ipFrame(web.mac, src, want)}, port: web.id, to: web.id}
	}
	dropped := func(name string, in []byte, v model.Verdict, port model.PortID, changes ...func(*table.Set)) story {
		return story{name: "exchanged: " + name, in: arrives(in), change: and(append([]func(*table.Set){both}, changes...)...), want: outcome{verdict: v}, port: port}
	}
	blind := func(set *table.Set) {
		p := set.Ports[s.ports[devWeb]]
		p.Gateway4, p.Gateway6 = netip.Addr{}, netip.Addr{}
		set.Ports[s.ports[devWeb]] = p
	}
	var all []story
	for _, family := range []struct {
		name           string
		mail, log      ends
		db, gate       netip.Addr
		router, asleep netip.Addr
	}{
		{"IPv4 over IPv6", ends{mail.v4, web.v4}, ends{log.v4, web.v4}, db.v4, gate1, addr("2001:db8:ff::1"), asleep.v4},
		{"IPv6 over IPv4", ends{mail.v6, web.v6}, ends{log.v6, web.v6}, db.v6, gate1v6, addr("192.0.2.254"), asleep.v6},
	} {
		name := func(what string) string { return family.name + ": " + what }
		e, l := family.mail, family.log
		x, lx := e.other(), l.other()
		speak, hear := ends{family.router, x.dst}, ends{family.gate, e.dst}
		for _, c := range crossings(e) {
			if c.unchecked || c.flowLost {
				continue // what left is not what comes
			}
			all = append(all, got(name(c.name), c.wire, mail.mac, c.in))
		}
		// sent is a packet of the guest, as the underlay quotes it and as the guest knows it.
		sent := func(to ends, n int) (quoted, known []byte) {
			t := to.back()
			return t.other().atomic(0, 60, wire.ProtoTCP, 77, t.other().segment(n)), t.atomic(0, 60, wire.ProtoTCP, 0, t.segment(n))
		}
		says := func(kind, code uint8, rest uint32, quoted []byte) []byte {
			if speak.src.Is4() {
				return speak.ip(wire.ProtoICMP, 64, icmp(kind, code, rest, quoted))
			}
			return icmp6(wire.IPv6{HopLimit: 64, Source: speak.src, Destination: speak.dst}, kind, code, rest, quoted)
		}
		hears := func(what string, in []byte, kind, code uint8, rest uint32, about []byte) story {
			st := got(name(what), in, router1, about)
			st.want.frame = told(web, red1, hear.src, hear.dst, kind, code, rest, about)
			return st
		}
		quoted, known := sent(e, 50)
		far, farKnown := sent(l, 50)
		long, longKnown := sent(e, 400)
		notMine := ends{other(family.db), x.src}.atomic(0, 60, wire.ProtoTCP, 0, zeros(30))
		toStranger := ends{x.dst, family.router}.atomic(0, 60, wire.ProtoTCP, 0, zeros(30))
		if e.src.Is4() {
			all = append(all,
				hears("the underlay says that a packet is too big", says(2, 0, 1400, quoted), 3, 4, 1372, known),
				hears("about a long packet", says(2, 0, 1400, long), 3, 4, 1372, longKnown),
				hears("padding of the underlay behind it", join(says(2, 0, 1400, quoted), zeros(9)), 3, 4, 1372, known),
				hears("another subnet's guest is not reached", says(1, 0, 0, far), 3, 1, 0, farKnown),
				hears("it is forbidden", says(1, 1, 0, quoted), 3, 10, 0, known),
				hears("a port is not reached", says(1, 4, 0, quoted), 3, 3, 0, known),
				hears("the hop limit is used up", says(3, 0, 0, quoted), 11, 0, 0, known),
				hears("the protocol is not known", says(4, 1, 6, quoted), 3, 2, 0, known),
				dropped(name("the header has an error, of which it knows nothing"), says(4, 0, 0, quoted), model.VerdictSourceNotInPolicy, web.id),
				dropped(name("too big for nothing"), says(2, 0, 28, quoted), model.VerdictSourceNotInPolicy, web.id),
				dropped(name("half a header is quoted"), says(1, 0, 0, quoted[:39]), model.VerdictSourceNotInPolicy, web.id),
				dropped(name("ICMPv6, which no guest sends"), icmp6(wire.IPv6{HopLimit: 64, Source: x.src, Destination: x.dst}, 128, 0, 0, zeros(8)), model.VerdictRewriteNotCarried, web.id),
				dropped(name("a router advertisement"), icmp6(wire.IPv6{HopLimit: 255, Source: x.src, Destination: x.dst}, 134, 0, 0, zeros(8)), model.VerdictRewriteNotCarried, web.id),
				dropped(name("an extension header"), v6(wire.IPv6{HopLimit: 64, Next: wire.ProtoDestOpts, Source: x.src, Destination: x.dst}, join([]byte{wire.ProtoUDP, 0, 1, 4, 0, 0, 0, 0}, udp(1, 2, 3))), model.VerdictRewriteNotCarried, web.id),
			)
		} else {
			all = append(all,
				hears("the underlay says that a packet is too big", says(3, 4, 1400, quoted), 2, 0, 1420, known),
				hears("about a long packet", says(3, 4, 1400, long), 2, 0, 1420, longKnown),
				hears("another subnet's guest is not reached", says(3, 1, 0, far), 1, 0, 0, farKnown),
				hears("it is forbidden", says(3, 13, 0, quoted), 1, 1, 0, known),
				hears("a port is not reached", says(3, 3, 0, quoted), 1, 4, 0, known),
				hears("the TTL is used up", says(11, 0, 0, quoted), 3, 0, 0, known),
				hears("the protocol is not known", says(3, 2, 0, quoted), 4, 1, 6, known),
				dropped(name("the header has an error, of which it knows nothing"), says(12, 0, 0, quoted), model.VerdictSourceNotInPolicy, web.id),
				dropped(name("too big for nothing"), says(3, 4, 0, quoted), model.VerdictSourceNotInPolicy, web.id),
				dropped(name("half a header is quoted"), says(3, 1, 0, quoted[:19]), model.VerdictSourceNotInPolicy, web.id),
				dropped(name("precedence, which IPv6 does not have"), says(3, 14, 0, quoted), model.VerdictSourceNotInPolicy, web.id),
				dropped(name("ICMP, which no guest sends"), x.echo(), model.VerdictRewriteNotCarried, web.id),
				dropped(name("a checksum that is wrong"), with(x.atomic(0, 64, wire.ProtoTCP, 0, x.segment(3)), 10, 1, 1), model.VerdictRewriteNotCarried, web.id),
				dropped(name("a part, which none of ours is in"), x.fragment(true), model.VerdictRewriteNotCarried, web.id),
				dropped(name("options"), v4(wire.IPv4{TTL: 64, Proto: wire.ProtoUDP, Source: x.src, Destination: x.dst}, []byte{1, 1, 1, 1}, udp(1, 2, 3)), model.VerdictRewriteNotCarried, web.id),
				dropped(name("an extension header that IPv4 hides"), x.atomic(0, 64, 60, 0, join([]byte{wire.ProtoUDP, 0, 1, 4, 0, 0, 0, 0}, udp(1, 2, 3))), model.VerdictRewriteNotCarried, web.id),
				dropped(name("a fragment that is none"), x.atomic(0, 64, 44, 0, join(fragmentHeader(wire.ProtoUDP, 1, 1), zeros(7))), model.VerdictIpv6Extensions, web.id),
			)
		}
		all = append(all,
			got(name("padding of the underlay"), join(x.atomic(0, 61, wire.ProtoTCP, 0, x.segment(2)), zeros(9)), mail.mac, e.atomic(0, 61, wire.ProtoTCP, 0, e.segment(2))),
			got(name("from another subnet"), lx.atomic(0, 61, wire.ProtoTCP, 5, lx.segment(2)), router1, l.atomic(0, 61, wire.ProtoTCP, 0, l.segment(2))),
			dropped(name("the underlay speaks of a packet that the guest did not send"), says(1+2*four(speak.src), 0, 0, notMine), model.VerdictSourceNotInPolicy, web.id),
			dropped(name("the underlay speaks of a packet to a stranger"), says(1+2*four(speak.src), 0, 0, toStranger), model.VerdictSourceNotInPolicy, web.id),
			dropped(name("the underlay speaks where the guest has no router"), says(1+2*four(speak.src), 0, 0, quoted), model.VerdictSourceNotInPolicy, web.id, blind),
			dropped(name("a stranger"), speak.tcp(61, 30), model.VerdictSourceNotInPolicy, web.id),
			dropped(name("a neighbour's address from outside"), ends{other(family.db), x.dst}.atomic(0, 64, wire.ProtoTCP, 0, zeros(20)), model.VerdictSourceNotInPolicy, web.id),
			dropped(name("from one whose address is of the other family, too"), x.atomic(0, 64, wire.ProtoTCP, 0, zeros(20)), model.VerdictSourceNotInPolicy, web.id, func(set *table.Set) {
				r := set.RewriteIn[x.src]
				r.CA = own(x.dst) // of the wire's family
				set.RewriteIn[x.src] = r
			}),
			dropped(name("a guest of another tenant"), x.atomic(0, 64, wire.ProtoTCP, 0, zeros(20)), model.VerdictSourceNotInPolicy, web.id, func(set *table.Set) {
				r := set.RewriteIn[x.src]
				r.Network = 2
				set.RewriteIn[x.src] = r
			}),
			dropped(name("for a port that is not plugged"), ends{x.src, other(family.asleep)}.tcp(61, 30), model.VerdictNotLocal, 0),
		)
	}
	x := ends{mail.v4, web.v4}.other()
	asks := ipFrame(up, uplinkNextHop, neighbour(x.src, x.dst, wire.Neighbour{Type: wire.ICMPv6NeighbourSol, Target: x.dst, MAC: uplinkNextHop, HasMAC: true}))
	return append(all,
		story{name: "exchanged: a neighbour on the link asks", in: s.fromUplink(asks), change: both, want: outcome{model.VerdictPass, 0, asks}},
		story{name: "rewritten: from one whose address is of the other family", in: arrives(ends{own(mail.v4), own(web.v4)}.tcp(61, 30)), port: web.id,
			change: and(rewriting(red1, red2), func(set *table.Set) {
				r := set.RewriteIn[own(mail.v4)]
				r.CA = mail.v6
				set.RewriteIn[own(mail.v4)] = r
			}), want: outcome{verdict: model.VerdictSourceNotInPolicy}},
	)
}

func four(a netip.Addr) uint8 {
	if a.Is4() {
		return 1
	}
	return 0
}
