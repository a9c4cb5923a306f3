package packet

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// Where Provider Addresses are from that stand for one Customer Address each.
var ownPools = prefixes("172.31.0.0/16", "2001:db8:9::/48")

// isRewritten tells whether a frame that left by an uplink did so without outer headers.
func isRewritten(f []byte) bool {
	switch {
	case len(f) >= 54 && f[14]>>4 == 6:
		return ownPools[1].Contains(netip.AddrFrom16([16]byte(f[38:54])))
	case len(f) >= 34:
		return ownPools[0].Contains(netip.AddrFrom4([4]byte(f[30:34])))
	}
	return false
}

// own is the Provider Address that stands for a Customer Address of the street.
func own(ca netip.Addr) netip.Addr {
	if ca.Is4() {
		b := ca.As4()
		return netip.AddrFrom4([4]byte{172, 31, b[2], b[3]})
	}
	b := ca.As16()
	return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 9, b[6], b[7], 15: b[15]})
}

// rewriting makes subnets of the street's first network rewrite addresses.
func rewriting(vsids ...model.VSID) func(*table.Set) {
	return func(set *table.Set) {
		for _, vsid := range vsids {
			for k, r := range set.Records {
				if k.VSID != vsid {
					continue
				}
				r.Transport = model.Rewrite
				set.Records[k] = r
				if r.Router {
					continue
				}
				set.RewriteOut[table.RecordKey(k)] = own(k.CA)
				set.RewriteIn[own(k.CA)] = table.RewriteIn{VSID: vsid, CA: k.CA, Network: 1, MAC: r.MAC, IfIndex: r.IfIndex, Remote: r.PA.IsValid()}
			}
			for i, p := range set.Ports {
				if p.VSID == vsid {
					p.Transport = model.Rewrite
					set.Ports[i] = p
				}
			}
		}
	}
}

// rewritingOnly has the network of red's subnets rewrite one family; the other goes by NVGRE.
func rewritingOnly(v4 bool) func(*table.Set) {
	return and(rewriting(red1, red2), func(set *table.Set) {
		for k, r := range set.Records {
			if r.Transport != model.Rewrite || k.CA.Is4() == v4 {
				continue
			}
			r.Transport = model.NVGRE
			set.Records[k] = r
			delete(set.RewriteOut, table.RecordKey(k))
			delete(set.RewriteIn, own(k.CA))
		}
	})
}

// and does one change after another.
func and(changes ...func(*table.Set)) func(*table.Set) {
	return func(set *table.Set) {
		for _, c := range changes {
			c(set)
		}
	}
}

// ends is between whom a packet goes; there is what it carries.
type ends struct{ src, dst netip.Addr }

func (e ends) rewritten() ends { return ends{own(e.src), own(e.dst)} }

func (e ends) back() ends { return ends{e.dst, e.src} }

// ip is a packet with any payload.
func (e ends) ip(proto, ttl uint8, payload []byte) []byte {
	if e.src.Is4() {
		return v4(wire.IPv4{TTL: ttl, Proto: proto, Source: e.src, Destination: e.dst}, nil, payload)
	}
	return v6(wire.IPv6{HopLimit: ttl, Next: proto, Source: e.src, Destination: e.dst}, payload)
}

// sealed is the payload with its checksum at an offset made right.
func (e ends) sealed(proto uint8, at int, payload []byte) []byte {
	out := with(payload, at, 0, 0)
	sum := wire.Checksum(out, wire.PseudoHeader(e.src, e.dst, proto, len(out)))
	if sum == 0 && proto == wire.ProtoUDP {
		sum = 0xffff
	}
	return with(out, at, byte(sum>>8), byte(sum))
}

func (e ends) tcp(ttl uint8, n int) []byte {
	header := zeros(20)
	must(wire.Ports{Source: 4000, Destination: 443}.Encode(header))
	header[12] = 5 << 4
	return e.ip(wire.ProtoTCP, ttl, e.sealed(wire.ProtoTCP, 16, join(header, letters(n))))
}

func (e ends) udp(ttl uint8, n int) []byte {
	return e.ip(wire.ProtoUDP, ttl, e.sealed(wire.ProtoUDP, 6, udp(4000, 53, n)))
}

// fragment is one of a datagram of n bytes: its first 64 bytes, or the rest.
func (e ends) fragment(first bool) []byte {
	whole := e.sealed(wire.ProtoUDP, 6, udp(4000, 53, 120))
	part, offset := whole[:64], uint16(0)
	if !first {
		part, offset = whole[64:], 8
	}
	if e.src.Is4() {
		return v4(wire.IPv4{ID: 7, TTL: 64, Proto: wire.ProtoUDP, MoreFrags: first, FragOffset: offset, Source: e.src, Destination: e.dst}, nil, part)
	}
	word := offset << 3
	if first {
		word |= 1
	}
	return e.ip(wire.ProtoFragment, 64, join([]byte{wire.ProtoUDP, 0, byte(word >> 8), byte(word), 0, 0, 0, 7}, part))
}

func (e ends) echo() []byte {
	if e.src.Is4() {
		return e.ip(wire.ProtoICMP, 64, icmp(wire.ICMPEchoRequest, 0, 1, letters(20)))
	}
	return icmp6(wire.IPv6{HopLimit: 64, Source: e.src, Destination: e.dst}, wire.ICMPv6EchoRequest, 0, 1, letters(20))
}

// unreachable quotes at most n bytes of a packet.
func (e ends) unreachable(quoted []byte, n int) []byte {
	quoted = quoted[:min(n, len(quoted))]
	if e.src.Is4() {
		return e.ip(wire.ProtoICMP, 64, icmp(wire.ICMPUnreachable, 1, 0, quoted))
	}
	return icmp6(wire.IPv6{HopLimit: 64, Source: e.src, Destination: e.dst}, 1, 3, 0, quoted)
}

// tooBig says that a packet is.
func (e ends) tooBig(quoted []byte) []byte {
	if e.src.Is4() {
		return e.ip(wire.ProtoICMP, 64, icmp(wire.ICMPUnreachable, wire.ICMPCodeFragNeeded, 1400, quoted))
	}
	return icmp6(wire.IPv6{HopLimit: 64, Source: e.src, Destination: e.dst}, wire.ICMPv6PacketTooBig, 0, 1400, quoted)
}

func letters(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + i%26)
	}
	return b
}

func rewriteStories(s site) []story {
	return append(rewriteOutStories(s), rewriteInStories(s)...)
}

func rewriteOutStories(s site) []story {
	both := rewriting(red1, red2)
	fromWeb := func(packet []byte) packetIn { return s.fromPort(devWeb, ipFrame(router1, web.mac, packet)) }
	sent := func(packet []byte) outcome {
		return outcome{model.VerdictEncapsulated, s.uplinks[0], ipFrame(model.MAC{}, model.MAC{}, packet)}
	}
	out := func(name string, in, want []byte) story {
		return story{name: "rewrite: " + name, in: fromWeb(in), change: both, want: sent(want), port: web.id}
	}
	dropped := func(name string, in packetIn, change func(*table.Set), v model.Verdict, port model.PortID) story {
		return story{name: "rewrite: " + name, in: in, change: change, want: outcome{verdict: v}, port: port}
	}
	var all []story
	for _, family := range []struct {
		name    string
		mail    ends
		log     ends
		gate    netip.Addr
		quoting int // headers of a quoted packet, as far as the checksum of TCP
	}{
		{"IPv4", ends{web.v4, mail.v4}, ends{web.v4, log.v4}, gate1, 38},
		{"IPv6", ends{web.v6, mail.v6}, ends{web.v6, log.v6}, gate1v6, 58},
	} {
		name := func(what string) string { return family.name + ": " + what }
		e, w := family.mail, family.mail.rewritten()
		l, lw := family.log, family.log.rewritten()
		headers := len(e.tcp(64, 0))
		carried := func(inner []byte) []byte {
			return nvgre(uplinkNextHop, s.macs[s.uplinks[0]], paHere, paFar, red1, flowOf(e.src, e.dst), 0, inner)
		}
		big := e.tcp(64, 1501-headers)
		all = append(all,
			out(name("TCP"), e.tcp(64, 30), w.tcp(64, 30)),
			story{name: "rewrite: " + name("is the family that is rewritten"), in: fromWeb(e.udp(64, 30)), change: rewritingOnly(e.src.Is4()), want: sent(w.udp(64, 30)), port: web.id},
			story{name: "rewrite: " + name("is the other family"), in: fromWeb(e.udp(64, 30)), change: rewritingOnly(!e.src.Is4()), port: web.id,
				want: outcome{model.VerdictEncapsulated, s.uplinks[0], carried(ipFrame(mail.mac, web.mac, e.udp(64, 30)))}},
			story{name: "rewrite: " + name("is the other family, from another host"), change: rewritingOnly(!e.src.Is4()), port: web.id, to: web.id,
				in:   s.fromUplink(nvgre(s.macs[s.uplinks[0]], uplinkNextHop, paFar, paHere, red1, 0, 0, ipFrame(web.mac, mail.mac, e.back().udp(64, 30)))),
				want: outcome{model.VerdictDelivered, s.ports[devWeb], ipFrame(web.mac, mail.mac, e.back().udp(64, 30))}},
			out(name("an odd length"), e.tcp(64, 31), w.tcp(64, 31)),
			out(name("UDP"), e.udp(64, 30), w.udp(64, 30)),
			out(name("UDP without a checksum"), dgram(e.src, e.dst, 64, 9), dgram(w.src, w.dst, 64, 9)),
			out(name("echo"), e.echo(), w.echo()),
			out(name("a protocol that does not sum up addresses"), e.ip(132, 64, letters(40)), w.ip(132, 64, letters(40))),
			out(name("an authentication header, which sums up what both ends see"), e.ip(51, 64, letters(40)), w.ip(51, 64, letters(40))),
			out(name("TCP cut before its checksum"), e.ip(wire.ProtoTCP, 64, zeros(17)), w.ip(wire.ProtoTCP, 64, zeros(17))),
			out(name("to another subnet"), l.tcp(64, 30), lw.tcp(63, 30)),
			out(name("the first fragment"), e.fragment(true), w.fragment(true)),
			out(name("a later fragment"), e.fragment(false), w.fragment(false)),
			out(name("as large as the underlay carries"), e.tcp(64, 1500-headers), w.tcp(64, 1500-headers)),
			out(name("an ICMP error"), e.unreachable(e.back().tcp(60, 50), 128), w.unreachable(w.back().tcp(60, 50), 128)),
			out(name("an ICMP error about UDP"), e.unreachable(e.back().udp(60, 50), 128), w.unreachable(w.back().udp(60, 50), 128)),
			out(name("an ICMP error about a later fragment"), e.unreachable(e.back().fragment(false), 128), w.unreachable(w.back().fragment(false), 128)),
			out(name("an ICMP error that quotes no checksum"), e.unreachable(e.back().tcp(60, 50), family.quoting-2), w.unreachable(w.back().tcp(60, 50), family.quoting-2)),
			out(name("an ICMP error that quotes it just so"), e.unreachable(e.back().tcp(60, 50), family.quoting), w.unreachable(w.back().tcp(60, 50), family.quoting)),
			out(name("an ICMP error that quotes half a header"), e.unreachable(e.back().tcp(60, 50), 19), w.unreachable(e.back().tcp(60, 50), 19)),
			out(name("an ICMP error about others"), e.unreachable(l.tcp(60, 50), 128), w.unreachable(l.tcp(60, 50), 128)),
			story{name: "rewrite: " + name("to everyone's MAC, which counts for nothing"), in: s.fromPort(devWeb, ipFrame(everyone, web.mac, e.udp(64, 30))), change: both,
				want: sent(w.udp(64, 30)), port: web.id},
			story{name: "rewrite: " + name("too big by one"), in: fromWeb(big), change: both,
				want: outcome{model.VerdictTooBig, s.ports[devWeb], told(web, red1, family.gate, e.src, tooBigType(e), tooBigCode(e), 1500, big)}, port: web.id},
			story{name: "rewrite: " + name("a large packet to be cut"), in: cut(fromWeb(e.tcp(64, 2800)), 1400), change: both, want: sent(w.tcp(64, 2800)), port: web.id},
		)
	}
	probe := frame(mail.mac, web.mac, wire.TypeARP, arp(wire.ARPRequest, web.mac, web.v4, model.MAC{}, mail.v4))
	solicit := ipFrame(mail.mac, web.mac, neighbour(web.v6, mail.v6, wire.Neighbour{Type: wire.ICMPv6NeighbourSol, Target: mail.v6, MAC: web.mac, HasMAC: true}))
	astray := ipFrame(mail.mac, web.mac, neighbour(web.v6, mail.v6, wire.Neighbour{Type: wire.ICMPv6NeighbourSol, Target: db.v6, MAC: web.mac, HasMAC: true}))
	advert := ipFrame(mail.mac, web.mac, neighbour(web.v6, mail.v6, wire.Neighbour{Type: wire.ICMPv6NeighbourAdv, Solicited: true, Target: web.v6, MAC: web.mac, HasMAC: true}))
	through := func(set *table.Set) {
		set.Routes[table.RouteKey{Network: 1, Prefix: netip.MustParsePrefix("203.0.113.0/24")}] = table.Route{VSID: red1, NextHop: mail.v4}
	}
	passesOn := func(set *table.Set) {
		p := set.Ports[s.ports[devWeb]]
		p.Forward = true
		set.Ports[s.ports[devWeb]] = p
	}
	without := func(ca netip.Addr) func(*table.Set) {
		return func(set *table.Set) { delete(set.RewriteOut, table.RecordKey{VSID: red1, CA: ca}) }
	}
	hello := ends{web.v4, mail.v4}.tcp(64, 4)
	toLog := func(transport model.TransportID, vsid model.VSID, src, dst netip.Addr, inner []byte) outcome {
		t := tunnel{transport: transport, from: paHere, to: paFar, vsid: vsid, hash: hashOf(src, dst)}
		return outcome{model.VerdictEncapsulated, s.uplinks[0], t.around(model.MAC{}, model.MAC{}, inner)}
	}
	vxlan2 := func(set *table.Set) {
		for k, r := range set.Records {
			if k.VSID == red2 {
				r.Transport = model.VXLAN
				set.Records[k] = r
			}
		}
		for i, p := range set.Ports {
			if p.VSID == red2 {
				p.Transport = model.VXLAN
				set.Ports[i] = p
			}
		}
	}
	return append(all,
		story{name: "rewrite: a probe to another host is answered for it", in: s.fromPort(devWeb, probe), change: both,
			want: outcome{model.VerdictAnswered, s.ports[devWeb], frame(web.mac, mail.mac, wire.TypeARP, arp(wire.ARPReply, mail.mac, mail.v4, web.mac, web.v4))}, port: web.id},
		story{name: "rewrite: a solicitation to another host is answered for it", in: s.fromPort(devWeb, solicit), change: both,
			want: outcome{model.VerdictAnswered, s.ports[devWeb], ipFrame(web.mac, mail.mac, neighbour(mail.v6, web.v6,
				wire.Neighbour{Type: wire.ICMPv6NeighbourAdv, Solicited: true, Override: true, Target: mail.v6, MAC: mail.mac, HasMAC: true}))}, port: web.id},
		dropped("a solicitation that goes astray", s.fromPort(devDB, with(astray, 6, db.mac[:]...)), and(both, func(set *table.Set) {
			p := set.Ports[s.ports[devDB]]
			p.Spoof = true
			set.Ports[s.ports[devDB]] = p
			set.Records[table.RecordKey{VSID: red1, CA: db.v6}] = table.Record{MAC: fw.mac, IfIndex: s.ports[devFW], Transport: model.Rewrite}
		}), model.VerdictRewriteNotCarried, db.id),
		dropped("an ARP reply to another host", s.fromPort(devWeb, frame(mail.mac, web.mac, wire.TypeARP, arp(wire.ARPReply, web.mac, web.v4, mail.mac, mail.v4))), both, model.VerdictArpQuiet, web.id),
		dropped("an advertisement to another host", s.fromPort(devWeb, advert), both, model.VerdictNdQuiet, web.id),
		dropped("IPv4 options", fromWeb(v4(wire.IPv4{TTL: 64, Proto: wire.ProtoUDP, Source: web.v4, Destination: mail.v4}, []byte{7, 7, 4, 0, 0, 0, 0, 0}, udp(1, 2, 3))), both, model.VerdictRewriteNotCarried, web.id),
		dropped("an extension header", fromWeb(v6(wire.IPv6{HopLimit: 64, Next: wire.ProtoRouting, Source: web.v6, Destination: mail.v6}, join([]byte{wire.ProtoUDP, 0, 4, 0, 0, 0, 0, 0}, udp(1, 2, 3)))), both, model.VerdictRewriteNotCarried, web.id),
		dropped("a fragment header behind another", fromWeb(v6(wire.IPv6{HopLimit: 64, Next: wire.ProtoDestOpts, Source: web.v6, Destination: mail.v6}, join([]byte{wire.ProtoFragment, 0, 1, 4, 0, 0, 0, 0}, []byte{wire.ProtoUDP, 0, 0, 1, 0, 0, 0, 7}, udp(1, 2, 8)))), both, model.VerdictRewriteNotCarried, web.id),
		dropped("an ICMP redirect by a router", fromWeb(v4(wire.IPv4{TTL: 64, Proto: wire.ProtoICMP, Source: web.v4, Destination: mail.v4}, nil, icmp(5, 0, 0, zeros(28)))), and(both, unguarded(s, devWeb)), model.VerdictRewriteNotCarried, web.id),
		story{name: "rewrite: through a guest elsewhere", in: fromWeb(dgram(web.v4, addr("203.0.113.9"), 64, 4)), change: and(both, through), port: web.id,
			want: toLog(model.NVGRE, red1, web.v4, addr("203.0.113.9"), ipFrame(mail.mac, web.mac, dgram(web.v4, addr("203.0.113.9"), 64, 4)))},
		story{name: "rewrite: too big for a guest elsewhere that leads on", in: fromWeb(dgram(web.v4, addr("203.0.113.9"), 64, 1459-28)), change: and(both, through), port: web.id,
			want: outcome{model.VerdictTooBig, s.ports[devWeb], told(web, red1, gate1, web.v4, 3, 4, 1458, dgram(web.v4, addr("203.0.113.9"), 64, 1459-28))}},
		story{name: "rewrite: what a guest passes on", in: fromWeb(dgram(log.v4, mail.v4, 64, 4)), change: and(both, passesOn), port: web.id,
			want: toLog(model.NVGRE, red1, log.v4, mail.v4, ipFrame(mail.mac, web.mac, dgram(log.v4, mail.v4, 64, 4)))},
		story{name: "rewrite: what it passes on for a neighbour", in: fromWeb(dgram(db.v4, log.v4, 64, 4)), change: and(both, passesOn), port: web.id,
			want: toLog(model.NVGRE, red2, db.v4, log.v4, ipFrame(log.mac, router2, dgram(db.v4, log.v4, 63, 4)))},
		story{name: "rewrite: what it sends itself", in: fromWeb(hello), change: and(both, passesOn), want: sent(ends{web.v4, mail.v4}.rewritten().tcp(64, 4)), port: web.id},
		story{name: "rewrite: from a guest elsewhere that passes on", change: and(both, func(set *table.Set) {
			set.Forwarders[table.Forwarder{Network: 1, MAC: mail.mac, PA: paFar}] = table.Trust{Forward: true}
		}), in: s.fromUplink(nvgre(s.macs[s.uplinks[0]], uplinkNextHop, paFar, paHere, red1, 0, 0, ipFrame(web.mac, mail.mac, dgram(addr("203.0.113.9"), web.v4, 64, 4)))),
			want: outcome{model.VerdictDelivered, s.ports[devWeb], ipFrame(web.mac, mail.mac, dgram(addr("203.0.113.9"), web.v4, 64, 4))}, port: web.id, to: web.id},
		dropped("a source without an address of its own", fromWeb(hello), and(both, without(web.v4)), model.VerdictRewriteNoPa, web.id),
		dropped("a destination without an address of its own", fromWeb(hello), and(both, without(mail.v4)), model.VerdictRewriteNoPa, web.id),
		dropped("a guest that speaks for an address that nobody has", s.fromPort(devFW, ipFrame(mail.mac, fw.mac, dgram(addr("203.0.113.9"), mail.v4, 64, 4))), both, model.VerdictRewriteNoPa, fw.id),
		dropped("a Provider Address is no Customer Address", fromWeb(dgram(web.v4, own(mail.v4), 64, 4)), and(both, func(set *table.Set) {
			delete(set.Routes, table.RouteKey{Network: 1, Prefix: netip.MustParsePrefix("0.0.0.0/0")})
		}), model.VerdictNoRoute, web.id),
		dropped("an underlay without a route", fromWeb(dgram(web.v4, lost.v4, 64, 4)), both, model.VerdictNoUnderlayRoute, web.id),
		story{name: "rewrite: within the host nothing changes", in: fromWeb(ends{web.v4, db.v4}.tcp(64, 4)), change: both,
			want: outcome{model.VerdictDelivered, s.ports[devDB], ipFrame(db.mac, web.mac, ends{web.v4, db.v4}.tcp(64, 4))}, port: web.id, to: db.id},
		story{name: "rewrite: to a subnet with NVGRE", in: fromWeb(dgram(web.v4, log.v4, 64, 9)), change: rewriting(red1),
			want: toLog(model.NVGRE, red2, web.v4, log.v4, ipFrame(log.mac, router2, dgram(web.v4, log.v4, 63, 9))), port: web.id},
		story{name: "rewrite: from a subnet with NVGRE", in: s.fromPort(devAPI, ipFrame(router2, api.mac, dgram(api.v4, mail.v4, 64, 9))), change: rewriting(red1),
			want: toLog(model.NVGRE, red1, api.v4, mail.v4, ipFrame(mail.mac, router1, dgram(api.v4, mail.v4, 63, 9))), port: api.id},
		story{name: "rewrite: to a subnet with VXLAN", in: fromWeb(dgram(web.v4, log.v4, 64, 9)), change: and(rewriting(red1), vxlan2),
			want: toLog(model.VXLAN, red2, web.v4, log.v4, ipFrame(log.mac, router2, dgram(web.v4, log.v4, 63, 9))), port: web.id},
		story{name: "rewrite: from a subnet with VXLAN", in: s.fromPort(devAPI, ipFrame(router2, api.mac, dgram(api.v4, mail.v4, 64, 9))), change: and(rewriting(red1), vxlan2),
			want: toLog(model.VXLAN, red1, api.v4, mail.v4, ipFrame(mail.mac, router1, dgram(api.v4, mail.v4, 63, 9))), port: api.id},
	)
}

func tooBigType(e ends) uint8 {
	if e.src.Is4() {
		return wire.ICMPUnreachable
	}
	return wire.ICMPv6PacketTooBig
}

func tooBigCode(e ends) uint8 {
	if e.src.Is4() {
		return wire.ICMPCodeFragNeeded
	}
	return 0
}

func rewriteInStories(s site) []story {
	both, up := rewriting(red1, red2), s.macs[s.uplinks[0]]
	arrives := func(packet []byte) packetIn { return s.fromUplink(ipFrame(up, uplinkNextHop, packet)) }
	got := func(name string, in []byte, src model.MAC, want []byte) story {
		return story{name: "rewritten: " + name, in: arrives(in), change: both,
			want: outcome{model.VerdictDelivered, s.ports[devWeb], ipFrame(web.mac, src, want)}, port: web.id, to: web.id}
	}
	dropped := func(name string, in []byte, v model.Verdict, port model.PortID, changes ...func(*table.Set)) story {
		return story{name: "rewritten: " + name, in: arrives(in), change: and(append([]func(*table.Set){both}, changes...)...), want: outcome{verdict: v}, port: port}
	}
	pass := func(name string, f []byte, change func(*table.Set)) story {
		return story{name: "rewritten: " + name, in: s.fromUplink(f), change: change, want: outcome{model.VerdictPass, 0, f}}
	}
	blind := func(set *table.Set) {
		p := set.Ports[s.ports[devWeb]]
		p.Gateway4, p.Gateway6 = netip.Addr{}, netip.Addr{}
		set.Ports[s.ports[devWeb]] = p
	}
	var all []story
	for _, family := range []struct {
		name      string
		mail, log ends
		db        netip.Addr
		gate      netip.Addr
		router    netip.Addr // of the underlay
		asleep    netip.Addr
	}{
		{"IPv4", ends{mail.v4, web.v4}, ends{log.v4, web.v4}, db.v4, gate1, addr("192.0.2.254"), asleep.v4},
		{"IPv6", ends{mail.v6, web.v6}, ends{log.v6, web.v6}, db.v6, gate1v6, addr("2001:db8:ff::1"), asleep.v6},
	} {
		name := func(what string) string { return family.name + ": " + what }
		e, w := family.mail, family.mail.rewritten()
		l, lw := family.log, family.log.rewritten()
		speak := ends{family.router, w.dst} // what a router of the underlay sends
		hear := ends{family.gate, e.dst}    // and the guest hears
		stranger := ends{family.router, own(e.dst)}
		all = append(all,
			got(name("TCP"), w.tcp(61, 30), mail.mac, e.tcp(61, 30)),
			got(name("UDP"), w.udp(61, 30), mail.mac, e.udp(61, 30)),
			got(name("UDP without a checksum"), dgram(w.src, w.dst, 61, 9), mail.mac, dgram(e.src, e.dst, 61, 9)),
			got(name("echo"), w.echo(), mail.mac, e.echo()),
			got(name("padding of the underlay"), join(w.tcp(61, 2), zeros(9)), mail.mac, e.tcp(61, 2)),
			got(name("from another subnet"), lw.tcp(61, 30), router1, l.tcp(61, 30)),
			got(name("the first fragment"), w.fragment(true), mail.mac, e.fragment(true)),
			got(name("a later fragment"), w.fragment(false), mail.mac, e.fragment(false)),
			got(name("an ICMP error"), w.unreachable(w.back().tcp(60, 50), 128), mail.mac, e.unreachable(e.back().tcp(60, 50), 128)),
			got(name("an ICMP error about others"), w.unreachable(l.tcp(60, 50), 128), mail.mac, e.unreachable(l.tcp(60, 50), 128)),
			got(name("the underlay says that a packet is too big"), speak.tooBig(w.back().tcp(60, 50)), router1, hear.tooBig(e.back().tcp(60, 50))),
			got(name("the underlay cannot reach another subnet's guest"), speak.unreachable(lw.back().udp(60, 50), 128), router1, hear.unreachable(l.back().udp(60, 50), 128)),
			dropped(name("the underlay speaks of a packet that the guest did not send"), speak.unreachable(ends{own(family.db), w.src}.tcp(60, 50), 128), model.VerdictSourceNotInPolicy, web.id),
			dropped(name("the underlay speaks of a packet to a stranger"), speak.unreachable(ends{w.dst, family.router}.tcp(60, 50), 128), model.VerdictSourceNotInPolicy, web.id),
			dropped(name("the underlay speaks where the guest has no router"), speak.unreachable(w.back().tcp(60, 50), 128), model.VerdictSourceNotInPolicy, web.id, blind),
			dropped(name("a stranger"), stranger.tcp(61, 30), model.VerdictSourceNotInPolicy, web.id),
			dropped(name("a neighbour's address from outside"), ends{own(family.db), w.dst}.tcp(61, 30), model.VerdictSourceNotInPolicy, web.id),
			dropped(name("a guest of another tenant"), w.tcp(61, 30), model.VerdictSourceNotInPolicy, web.id, func(set *table.Set) {
				r := set.RewriteIn[w.src]
				r.Network = 2
				set.RewriteIn[w.src] = r
			}),
			dropped(name("for a port that is not plugged"), ends{w.src, own(family.asleep)}.tcp(61, 30), model.VerdictNotLocal, 0),
			dropped(name("for a port that is of another subnet now"), w.tcp(61, 30), model.VerdictNotLocal, 0, func(set *table.Set) {
				r := set.RewriteIn[w.dst]
				r.VSID = red2
				set.RewriteIn[w.dst] = r
			}),
			pass(name("for an address of another host"), ipFrame(up, uplinkNextHop, w.back().tcp(61, 30)), both),
			pass(name("for an address that stands for nobody"), ipFrame(up, uplinkNextHop, w.tcp(61, 30)), nil),
			pass(name("somebody else's frame"), ipFrame(model.MAC{2, 9, 9, 9, 9, 9}, uplinkNextHop, w.tcp(61, 30)), both),
		)
	}
	return append(all,
		dropped("options", v4(wire.IPv4{TTL: 64, Proto: wire.ProtoUDP, Source: own(mail.v4), Destination: own(web.v4)}, []byte{1, 1, 1, 1}, udp(1, 2, 3)), model.VerdictRewriteNotCarried, web.id),
		dropped("an extension header", v6(wire.IPv6{HopLimit: 64, Next: wire.ProtoDestOpts, Source: own(mail.v6), Destination: own(web.v6)}, join([]byte{wire.ProtoUDP, 0, 1, 4, 0, 0, 0, 0}, udp(1, 2, 3))), model.VerdictRewriteNotCarried, web.id),
		dropped("a router advertisement", icmp6(wire.IPv6{HopLimit: 255, Source: own(mail.v6), Destination: own(web.v6)}, 134, 0, 0, zeros(8)), model.VerdictRewriteNotCarried, web.id),
		pass("a neighbour on the link answers", ipFrame(up, uplinkNextHop, neighbour(own(mail.v6), own(web.v6), wire.Neighbour{Type: wire.ICMPv6NeighbourAdv, Target: own(mail.v6), MAC: mail.mac, HasMAC: true})), both),
		pass("a neighbour on the link asks", ipFrame(up, uplinkNextHop, neighbour(own(mail.v6), own(web.v6), wire.Neighbour{Type: wire.ICMPv6NeighbourSol, Target: own(web.v6), MAC: uplinkNextHop, HasMAC: true})), both),
		dropped("longer than its frame", with(ends{own(mail.v4), own(web.v4)}.udp(61, 30), 2, 1), model.VerdictIpMalformed, 0),
	)
}
