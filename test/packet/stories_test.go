package packet

import (
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// stories tells of the street, stage by stage.
func stories(s site) []story {
	return slices.Concat(
		parseStories(s), admitStories(s), guardStories(s), aclStories(s), arpStories(s), ndStories(s), routeStories(s),
		lookupStories(s), encapStories(s), uplinkStories(s), transportStories(s), toPortStories(s),
		wildcardStories(s), leaseStories(s), forwardStories(s), floodStories(s), pathStories(s), rewriteStories(s), exchangeStories(s), isolationStories(s), vlanStories(s), arrivedTooBigStories(s),
	)
}

func drop(name string, in packetIn, v model.Verdict, port model.PortID) story {
	return story{name: name, in: in, want: outcome{verdict: v}, port: port}
}

// dgram is an IP packet with a datagram of n bytes of data.
func dgram(src, dst netip.Addr, ttl uint8, n int) []byte {
	if src.Is4() {
		return v4(wire.IPv4{TTL: ttl, Proto: wire.ProtoUDP, Source: src, Destination: dst}, nil, udp(4000, 53, n))
	}
	return v6(wire.IPv6{HopLimit: ttl, Next: wire.ProtoUDP, Source: src, Destination: dst}, udp(4000, 53, n))
}

func etherTypeOf(packet []byte) uint16 {
	if packet[0]>>4 == 4 {
		return wire.TypeIPv4
	}
	return wire.TypeIPv6
}

// ipFrame is a frame around an IP packet.
func ipFrame(dst, src model.MAC, packet []byte) []byte {
	return frame(dst, src, etherTypeOf(packet), packet)
}

// offsets into a frame with IPv4 or IPv6.
const (
	atEtherType = 12
	atIP        = 14
	atTotalLen  = 16
	atFragment  = 20
	atTTL       = 22
	atPayload6  = 18
)

func parseStories(s site) []story {
	hello4 := ipFrame(db.mac, web.mac, dgram(web.v4, db.v4, 64, 4))
	hello6 := ipFrame(db.mac, web.mac, dgram(web.v6, db.v6, 64, 4))
	ask := frame(everyone, web.mac, wire.TypeARP, arp(wire.ARPRequest, web.mac, web.v4, model.MAC{}, db.v4))
	delivered := outcome{model.VerdictDelivered, s.ports[devDB], hello4}
	long := func(headers int) []byte { // IPv6 with so many extension headers
		chain := []byte{}
		for range headers - 1 {
			chain = append(chain, wire.ProtoDestOpts, 0, 1, 4, 0, 0, 0, 0)
		}
		chain = append(chain, wire.ProtoUDP, 0, 1, 4, 0, 0, 0, 0)
		return ipFrame(db.mac, web.mac, v6(wire.IPv6{HopLimit: 64, Next: wire.ProtoHopByHop, Source: web.v6, Destination: db.v6}, join(chain, udp(1, 2, 0))))
	}
	const mapped = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x00\x00\x05"
	sol := ipFrame(everyone, web.mac, neighbour(web.v6, gate1v6, wire.Neighbour{Type: wire.ICMPv6NeighbourSol, Target: gate1v6, MAC: web.mac, HasMAC: true}))
	advert := func(options ...byte) []byte {
		return ipFrame(db.mac, web.mac, neighbour(web.v6, db.v6, wire.Neighbour{Type: wire.ICMPv6NeighbourAdv, Target: web.v6, MAC: web.mac, HasMAC: true}, options...))
	}
	return []story{
		drop("a device without a port", s.fromPort(devNone, hello4), model.VerdictPortUnknown, 0),
		drop("a frame of nothing but MACs and IPv4's type", s.fromPort(devWeb, tagged(hello4[:14], wire.TypeVLAN, 0)), model.VerdictFrameTruncated, web.id),
		drop("IPv4 cut in its header", s.fromPort(devWeb, tagged(hello4[:33], wire.TypeVLAN, 0)), model.VerdictFrameTruncated, web.id),
		drop("IPv6 cut in its header", s.fromPort(devWeb, tagged(hello6[:53], wire.TypeVLAN, 0)), model.VerdictFrameTruncated, web.id),
		drop("ARP cut short", s.fromPort(devWeb, ask[:41]), model.VerdictFrameTruncated, web.id),
		drop("a tag cut short", s.fromPort(devWeb, tagged(hello4, wire.TypeVLAN, 0)[:17]), model.VerdictFrameTruncated, web.id),
		drop("a VLAN", s.fromPort(devWeb, tagged(hello4, wire.TypeVLAN, 7)), model.VerdictVlanTagged, web.id),
		drop("a service tag", s.fromPort(devWeb, tagged(hello4, wire.TypeQinQ, 0)), model.VerdictVlanTagged, web.id),
		drop("two tags", s.fromPort(devWeb, tagged(tagged(hello4, wire.TypeVLAN, 0), wire.TypeVLAN, 0)), model.VerdictVlanTagged, web.id),
		{name: "a priority tag is taken off", in: s.fromPort(devWeb, tagged(hello4, wire.TypeVLAN, 0xe000)), want: delivered, port: web.id, to: db.id},
		drop("LLDP", s.fromPort(devWeb, frame(everyone, web.mac, 0x88cc, zeros(46))), model.VerdictNonIp, web.id),
		drop("an 802.3 length", s.fromPort(devWeb, frame(everyone, web.mac, 38, zeros(46))), model.VerdictNonIp, web.id),
		drop("ARP for another hardware", s.fromPort(devWeb, with(ask, 14, 0, 6)), model.VerdictArpMalformed, web.id),
		drop("reverse ARP", s.fromPort(devWeb, with(ask, 20, 0, 3)), model.VerdictArpMalformed, web.id),
		drop("IPv4 of version 5", s.fromPort(devWeb, with(hello4, atIP, 0x55)), model.VerdictIpMalformed, web.id),
		drop("IPv4 with a short header", s.fromPort(devWeb, with(hello4, atIP, 0x44)), model.VerdictIpMalformed, web.id),
		drop("IPv4 with options it has no room for", s.fromPort(devWeb, with(hello4, atIP, 0x4f)), model.VerdictIpMalformed, web.id),
		drop("IPv4 longer than its frame", s.fromPort(devWeb, with(hello4, atTotalLen, 0, 33)), model.VerdictIpMalformed, web.id),
		drop("IPv6 of version 4", s.fromPort(devWeb, with(hello6, atIP, 0x40)), model.VerdictIpMalformed, web.id),
		drop("IPv6 longer than its frame", s.fromPort(devWeb, with(hello6, atPayload6, 0, 13)), model.VerdictIpMalformed, web.id),
		drop("IPv6 from a group", s.fromPort(devWeb, with(hello6, atIP+8, 0xff)), model.VerdictIpMalformed, web.id),
		drop("IPv6 from a mapped address", s.fromPort(devWeb, with(hello6, atIP+8, []byte(mapped)...)), model.VerdictIpMalformed, web.id),
		drop("IPv6 to a mapped address", s.fromPort(devWeb, with(hello6, atIP+24, []byte(mapped)...)), model.VerdictIpMalformed, web.id),
		{name: "six extension headers", in: s.fromPort(devWeb, long(6)), want: outcome{model.VerdictDelivered, s.ports[devDB], long(6)}, port: web.id, to: db.id},
		drop("seven extension headers", s.fromPort(devWeb, long(7)), model.VerdictIpv6Extensions, web.id),
		drop("an extension header past the payload", s.fromPort(devWeb, with(long(1), 55, 9)), model.VerdictIpv6Extensions, web.id),
		drop("ND that was routed", s.fromPort(devWeb, with(sol, 21, 254)), model.VerdictNdMalformed, web.id),
		drop("ND with a code", s.fromPort(devWeb, with(sol, 55, 1)), model.VerdictNdMalformed, web.id),
		drop("ND with an empty option", s.fromPort(devWeb, advert(14, 0, 0, 0, 0, 0, 0, 0)), model.VerdictNdMalformed, web.id),
		drop("ND with two addresses", s.fromPort(devWeb, advert(2, 1, 2, 0, 0, 0, 0, 1)), model.VerdictNdMalformed, web.id),
		drop("ND behind an extension header", s.fromPort(devWeb, ipFrame(db.mac, web.mac, v6(wire.IPv6{HopLimit: 255, Next: wire.ProtoDestOpts, Source: web.v6, Destination: db.v6},
			join([]byte{wire.ProtoICMPv6, 0, 1, 4, 0, 0, 0, 0}, sol[54:])))), model.VerdictNdMalformed, web.id),
		drop("ND in a fragment", s.fromPort(devWeb, ipFrame(db.mac, web.mac, v6(wire.IPv6{HopLimit: 255, Next: wire.ProtoFragment, Source: web.v6, Destination: db.v6},
			join([]byte{wire.ProtoICMPv6, 0, 0, 1, 0, 0, 0, 9}, sol[54:])))), model.VerdictNdMalformed, web.id),
		drop("IPv4's first fragment hides half of its ports", s.fromPort(devWeb, part4(web.v4, db.v4, 0, true, []byte{0, 67, 0})), model.VerdictIpMalformed, web.id),
		drop("a first fragment of nothing", s.fromPort(devWeb, part4(web.v4, db.v4, 0, true, nil)), model.VerdictIpMalformed, web.id),
		drop("a middle fragment that ends inside 8 bytes", s.fromPort(devWeb, part4(web.v4, db.v4, 1, true, zeros(12))), model.VerdictIpMalformed, web.id),
		{name: "a last fragment ends where it will", in: s.fromPort(devWeb, part4(web.v4, db.v4, 1, false, zeros(12))), port: web.id, to: db.id,
			want: outcome{model.VerdictDelivered, s.ports[devDB], part4(web.v4, db.v4, 1, false, zeros(12))}},
		drop("options behind IPv6's fragment header, for another fragment to overlap", s.fromPort(devWeb, ipFrame(db.mac, web.mac, v6(wire.IPv6{HopLimit: 64, Next: wire.ProtoFragment, Source: web.v6, Destination: db.v6},
			join([]byte{wire.ProtoDestOpts, 0, 0, 1, 0, 0, 0, 9}, []byte{wire.ProtoUDP, 0, 1, 4, 0, 0, 0, 0}, udp(4000, 53, 8))))), model.VerdictIpv6Extensions, web.id),
		drop("ICMPv6 that hides its type in a fragment", s.fromPort(devWeb, ipFrame(db.mac, web.mac, v6(wire.IPv6{HopLimit: 255, Next: wire.ProtoFragment, Source: web.v6, Destination: db.v6},
			[]byte{wire.ProtoICMPv6, 0, 0, 1, 0, 0, 0, 9, 135, 0, 0}))), model.VerdictIpv6Extensions, web.id),
	}
}

func admitStories(s site) []story {
	dhcp := ipFrame(everyone, web.mac, dgram(addr("0.0.0.0"), addr("255.255.255.255"), 64, 4))
	linkLocal := addr("fe80::5")
	ra := func(kind uint8) []byte {
		return ipFrame(db.mac, web.mac, icmp6(wire.IPv6{HopLimit: 255, Source: web.v6, Destination: db.v6}, kind, 0, 0, zeros(32)))
	}
	other := wire.Neighbour{Type: wire.ICMPv6NeighbourAdv, Target: db.v6, MAC: web.mac, HasMAC: true}
	return []story{
		drop("another's MAC", s.fromPort(devWeb, ipFrame(db.mac, fw.mac, dgram(web.v4, db.v4, 64, 4))), model.VerdictSpoofedMac, web.id),
		drop("another's IPv4 address", s.fromPort(devWeb, ipFrame(db.mac, web.mac, dgram(fw.v4, db.v4, 64, 4))), model.VerdictSpoofedCa, web.id),
		drop("another's IPv6 address", s.fromPort(devWeb, ipFrame(db.mac, web.mac, dgram(fw.v6, db.v6, 64, 4))), model.VerdictSpoofedCa, web.id),
		drop("the router's address", s.fromPort(devWeb, ipFrame(db.mac, web.mac, dgram(gate1, db.v4, 64, 4))), model.VerdictSpoofedCa, web.id),
		drop("an address that nobody has", s.fromPort(devWeb, ipFrame(db.mac, web.mac, dgram(addr("10.0.0.200"), db.v4, 64, 4))), model.VerdictSpoofedCa, web.id),
		drop("link-local unicast source", s.fromPort(devWeb, ipFrame(db.mac, web.mac, dgram(linkLocal, db.v6, 64, 4))), model.VerdictSpoofedCa, web.id),
		drop("unspecified source", s.fromPort(devWeb, ipFrame(db.mac, web.mac, dgram(addr("::"), db.v6, 64, 4))), model.VerdictSpoofedCa, web.id),
		drop("a DHCP client", s.fromPort(devWeb, dhcp), model.VerdictMulticast, web.id),
		{name: "a port that may speak for others", in: s.fromPort(devFW, ipFrame(web.mac, db.mac, dgram(addr("203.0.113.9"), web.v4, 64, 4))),
			want: outcome{model.VerdictDelivered, s.ports[devWeb], ipFrame(web.mac, db.mac, dgram(addr("203.0.113.9"), web.v4, 64, 4))}, port: fw.id, to: web.id},
		drop("ARP with another's MAC inside", s.fromPort(devWeb, frame(everyone, web.mac, wire.TypeARP, arp(wire.ARPRequest, fw.mac, web.v4, model.MAC{}, db.v4))), model.VerdictSpoofedArp, web.id),
		drop("ARP with another's address", s.fromPort(devWeb, frame(everyone, web.mac, wire.TypeARP, arp(wire.ARPRequest, web.mac, fw.v4, model.MAC{}, db.v4))), model.VerdictSpoofedArp, web.id),
		drop("an ARP reply from no address", s.fromPort(devWeb, frame(db.mac, web.mac, wire.TypeARP, arp(wire.ARPReply, web.mac, addr("0.0.0.0"), db.mac, db.v4))), model.VerdictSpoofedArp, web.id),
		drop("an advertisement for another", s.fromPort(devWeb, ipFrame(db.mac, web.mac, neighbour(web.v6, db.v6, other))), model.VerdictSpoofedNd, web.id),
		drop("a solicitation with another's MAC", s.fromPort(devWeb, ipFrame(everyone, web.mac, neighbour(web.v6, db.v6,
			wire.Neighbour{Type: wire.ICMPv6NeighbourSol, Target: db.v6, MAC: fw.mac, HasMAC: true}))), model.VerdictSpoofedNd, web.id),
		drop("duplicate detection that claims a MAC", s.fromPort(devWeb, ipFrame(everyone, web.mac, neighbour(addr("::"), addr("ff02::1:ff00:5"),
			wire.Neighbour{Type: wire.ICMPv6NeighbourSol, Target: web.v6, MAC: web.mac, HasMAC: true}))), model.VerdictSpoofedNd, web.id),
		drop("a router advertisement", s.fromPort(devWeb, ra(134)), model.VerdictRouterMessage, web.id),
		drop("a redirect", s.fromPort(devWeb, ra(137)), model.VerdictRouterMessage, web.id),
		drop("a router advertisement where speaking for others is allowed", s.fromPort(devFW, ipFrame(web.mac, fw.mac,
			icmp6(wire.IPv6{HopLimit: 255, Source: linkLocal, Destination: addr("ff02::1")}, 134, 0, 0, zeros(8)))), model.VerdictRouterMessage, fw.id),
	}
}

func arpStories(s site) []story {
	ask := func(dst model.MAC, sender, target netip.Addr) []byte {
		return frame(dst, web.mac, wire.TypeARP, arp(wire.ARPRequest, web.mac, sender, model.MAC{}, target))
	}
	answer := func(mac model.MAC, target, sender netip.Addr) outcome {
		return outcome{model.VerdictAnswered, s.ports[devWeb], frame(web.mac, mac, wire.TypeARP, arp(wire.ARPReply, mac, target, web.mac, sender))}
	}
	reply := func(dst model.MAC, target netip.Addr) []byte {
		return frame(dst, web.mac, wire.TypeARP, arp(wire.ARPReply, web.mac, web.v4, dst, target))
	}
	none := addr("0.0.0.0")
	outer := func(next model.MAC, tos, flow uint8, inner []byte) []byte {
		return nvgre(next, s.macs[s.uplinks[0]], paHere, paFar, red1, flow, tos, inner)
	}
	return []story{
		{name: "ARP for a neighbour here", in: s.fromPort(devWeb, ask(everyone, web.v4, db.v4)), want: answer(db.mac, db.v4, web.v4), port: web.id},
		{name: "ARP for a neighbour far away", in: s.fromPort(devWeb, ask(everyone, web.v4, mail.v4)), want: answer(mail.mac, mail.v4, web.v4), port: web.id},
		{name: "ARP for the gateway", in: s.fromPort(devWeb, ask(everyone, web.v4, gate1)), want: answer(router1, gate1, web.v4), port: web.id},
		{name: "unicast ARP for the gateway, padded", in: s.fromPort(devWeb, join(ask(router1, web.v4, gate1), zeros(18))), want: answer(router1, gate1, web.v4), port: web.id},
		{name: "an address probe for a neighbour's address", in: s.fromPort(devWeb, ask(everyone, none, db.v4)), want: answer(db.mac, db.v4, none), port: web.id},
		drop("an address probe for its own", s.fromPort(devWeb, ask(everyone, none, web.v4)), model.VerdictArpQuiet, web.id),
		drop("gratuitous ARP", s.fromPort(devWeb, ask(everyone, web.v4, web.v4)), model.VerdictArpQuiet, web.id),
		drop("ARP for nobody", s.fromPort(devWeb, ask(everyone, web.v4, addr("10.0.0.99"))), model.VerdictArpNoRecord, web.id),
		drop("ARP across subnets", s.fromPort(devWeb, ask(everyone, web.v4, api.v4)), model.VerdictArpNoRecord, web.id),
		{name: "an ARP probe to a neighbour here", in: s.fromPort(devWeb, ask(mail.mac, web.v4, db.v4)),
			want: outcome{model.VerdictDelivered, s.ports[devDB], ask(db.mac, web.v4, db.v4)}, port: web.id, to: db.id},
		{name: "an ARP probe to a neighbour far away", in: s.fromPort(devWeb, ask(mail.mac, web.v4, mail.v4)),
			want: outcome{model.VerdictEncapsulated, s.uplinks[0], outer(uplinkNextHop, 0, 0, ask(mail.mac, web.v4, mail.v4))}, port: web.id},
		drop("an ARP probe whose next hop is silent", s.fromPort(devWeb, ask(silent.mac, web.v4, silent.v4)), model.VerdictNeighbourUnresolved, web.id),
		{name: "an ARP reply", in: s.fromPort(devWeb, reply(db.mac, db.v4)), want: outcome{model.VerdictDelivered, s.ports[devDB], reply(db.mac, db.v4)}, port: web.id, to: db.id},
		drop("an ARP reply to everyone", s.fromPort(devWeb, reply(everyone, db.v4)), model.VerdictArpQuiet, web.id),
		drop("an ARP reply to the router", s.fromPort(devWeb, reply(router1, gate1)), model.VerdictArpQuiet, web.id),
		drop("an ARP reply to nobody", s.fromPort(devWeb, reply(db.mac, addr("10.0.0.99"))), model.VerdictArpNoRecord, web.id),
		drop("ARP padded beyond the path", s.fromPort(devWeb, join(ask(mail.mac, web.v4, mail.v4), zeros(1459-28))), model.VerdictTooBig, web.id),
	}
}

func ndStories(s site) []story {
	group := func(a netip.Addr) netip.Addr { // solicited-node, RFC 4291 2.7.1
		b := a.As16()
		return netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 0xff, b[13], b[14], b[15]})
	}
	ask := func(src, dst, target netip.Addr) []byte {
		n := wire.Neighbour{Type: wire.ICMPv6NeighbourSol, Target: target}
		if !src.IsUnspecified() {
			n.MAC, n.HasMAC = web.mac, true
		}
		return ipFrame(model.MAC{0x33, 0x33, 0xff, 0, 0, 6}, web.mac, neighbour(src, dst, n))
	}
	answer := func(mac model.MAC, target, to netip.Addr, router, solicited bool) outcome {
		return outcome{model.VerdictAnswered, s.ports[devWeb], ipFrame(web.mac, mac, neighbour(target, to,
			wire.Neighbour{Type: wire.ICMPv6NeighbourAdv, Router: router, Solicited: solicited, Override: true, Target: target, MAC: mac, HasMAC: true}))}
	}
	advert := func(dst netip.Addr) []byte {
		return ipFrame(db.mac, web.mac, neighbour(web.v6, dst, wire.Neighbour{Type: wire.ICMPv6NeighbourAdv, Solicited: true, Target: web.v6, MAC: web.mac, HasMAC: true}))
	}
	unspecified, linkLocal := addr("::"), addr("fe80::5")
	solicitRouter := ipFrame(everyone, web.mac, icmp6(wire.IPv6{HopLimit: 255, Source: linkLocal, Destination: addr("ff02::2")}, 133, 0, 0, nil))
	return []story{
		{name: "ND for a neighbour", in: s.fromPort(devWeb, ask(web.v6, group(db.v6), db.v6)), want: answer(db.mac, db.v6, web.v6, false, true), port: web.id},
		{name: "ND for the gateway", in: s.fromPort(devWeb, ask(web.v6, group(gate1v6), gate1v6)), want: answer(router1, gate1v6, web.v6, true, true), port: web.id},
		{name: "unicast ND for the gateway", in: s.fromPort(devWeb, ask(web.v6, gate1v6, gate1v6)), want: answer(router1, gate1v6, web.v6, true, true), port: web.id},
		{name: "ND from a link-local address", in: s.fromPort(devWeb, ask(linkLocal, db.v6, db.v6)), want: answer(db.mac, db.v6, linkLocal, false, true), port: web.id},
		{name: "duplicate detection of a neighbour's address", in: s.fromPort(devWeb, ask(unspecified, group(db.v6), db.v6)), want: answer(db.mac, db.v6, addr("ff02::1"), false, false), port: web.id},
		drop("duplicate detection of its own", s.fromPort(devWeb, ask(unspecified, group(web.v6), web.v6)), model.VerdictNdQuiet, web.id),
		drop("duplicate detection of a link-local address", s.fromPort(devWeb, ask(unspecified, group(linkLocal), linkLocal)), model.VerdictNdQuiet, web.id),
		drop("ND for somebody's link-local address", s.fromPort(devWeb, ask(web.v6, group(linkLocal), linkLocal)), model.VerdictNdNoRecord, web.id),
		drop("ND for nobody", s.fromPort(devWeb, ask(web.v6, group(addr("fd00:0:0:1::99")), addr("fd00:0:0:1::99"))), model.VerdictNdNoRecord, web.id),
		{name: "an ND probe to a neighbour", in: s.fromPort(devWeb, ask(web.v6, db.v6, db.v6)),
			want: outcome{model.VerdictDelivered, s.ports[devDB], with(ask(web.v6, db.v6, db.v6), 0, db.mac[:]...)}, port: web.id, to: db.id},
		{name: "an advertisement to a neighbour", in: s.fromPort(devWeb, advert(db.v6)), want: outcome{model.VerdictDelivered, s.ports[devDB], advert(db.v6)}, port: web.id, to: db.id},
		drop("an advertisement to everyone", s.fromPort(devWeb, advert(addr("ff02::1"))), model.VerdictNdQuiet, web.id),
		drop("an advertisement to the router", s.fromPort(devWeb, advert(gate1v6)), model.VerdictNdQuiet, web.id),
		drop("a router solicitation", s.fromPort(devWeb, solicitRouter), model.VerdictNdQuiet, web.id),
		drop("a multicast report", s.fromPort(devWeb, ipFrame(everyone, web.mac, icmp6(wire.IPv6{HopLimit: 1, Source: linkLocal, Destination: addr("ff02::16")}, 143, 0, 0, nil))), model.VerdictMulticast, web.id),
	}
}

func routeStories(s site) []story {
	send := func(dst netip.Addr) packetIn {
		src := web.v4
		if dst.Is6() {
			src = web.v6
		}
		return s.fromPort(devWeb, ipFrame(router1, web.mac, dgram(src, dst, 64, 4)))
	}
	// across is a packet from web to api, as web sends it and as api gets it.
	across := func(src, dst netip.Addr, ttl uint8) []byte { return ipFrame(router1, web.mac, dgram(src, dst, ttl, 4)) }
	arrived := func(src, dst netip.Addr, ttl uint8) []byte {
		return ipFrame(api.mac, router2, dgram(src, dst, ttl-1, 4))
	}
	spent4, spent6 := across(web.v4, api.v4, 1), across(web.v6, api.v6, 1)
	pingSpent := ipFrame(router1, web.mac, v4(wire.IPv4{TTL: 1, Proto: wire.ProtoICMP, Source: web.v4, Destination: gate2}, nil, icmp(8, 0, 0x10001, zeros(8))))
	pong := ipFrame(web.mac, router1, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoICMP, Source: gate2, Destination: web.v4}, nil, icmp(0, 0, 0x10001, zeros(8))))
	unreachable := ipFrame(router1, web.mac, v4(wire.IPv4{TTL: 1, Proto: wire.ProtoICMP, Source: web.v4, Destination: api.v4}, nil, icmp(3, 1, 0, zeros(28))))
	hostRoute := func(network model.NetworkIndex, prefix string, r table.Route) func(*table.Set) {
		return func(set *table.Set) {
			set.Routes[table.RouteKey{Network: network, Prefix: netip.MustParsePrefix(prefix)}] = r
		}
	}
	outside := addr("203.0.113.9")
	return []story{
		drop("IPv4 multicast", send(addr("224.0.0.251")), model.VerdictMulticast, web.id),
		drop("IPv4 broadcast", send(addr("255.255.255.255")), model.VerdictMulticast, web.id),
		drop("IPv6 multicast", send(addr("ff05::1:3")), model.VerdictMulticast, web.id),
		drop("to this network", send(addr("0.0.0.1")), model.VerdictIpMalformed, web.id),
		drop("to loopback", send(addr("127.0.0.1")), model.VerdictIpMalformed, web.id),
		drop("to IPv6 loopback", send(addr("::1")), model.VerdictIpMalformed, web.id),
		drop("to IPv6 nowhere", send(addr("::")), model.VerdictIpMalformed, web.id),
		drop("to a link-local neighbour", send(addr("fe80::6")), model.VerdictLinkLocal, web.id),
		drop("to what no route covers", s.fromPort(devBlue, ipFrame(db.mac, blue.mac, dgram(blue.v4, api.v4, 64, 4))), model.VerdictNoRoute, blue.id),
		{name: "to another subnet here", in: s.fromPort(devWeb, across(web.v4, api.v4, 64)),
			want: outcome{model.VerdictDelivered, s.ports[devAPI], arrived(web.v4, api.v4, 64)}, port: web.id, to: api.id},
		{name: "to another subnet here, IPv6", in: s.fromPort(devWeb, across(web.v6, api.v6, 2)),
			want: outcome{model.VerdictDelivered, s.ports[devAPI], arrived(web.v6, api.v6, 2)}, port: web.id, to: api.id},
		{name: "by the default route to the firewall", in: s.fromPort(devWeb, across(web.v4, outside, 64)),
			want: outcome{model.VerdictDelivered, s.ports[devFW], ipFrame(fw.mac, web.mac, dgram(web.v4, outside, 64, 4))}, port: web.id, to: fw.id},
		{name: "by the longest prefix", in: s.fromPort(devWeb, across(web.v4, outside, 64)), change: hostRoute(1, "203.0.113.9/32", table.Route{VSID: red1, NextHop: db.v4}),
			want: outcome{model.VerdictDelivered, s.ports[devDB], ipFrame(db.mac, web.mac, dgram(web.v4, outside, 64, 4))}, port: web.id, to: db.id},
		{name: "another tenant's route changes nothing", in: s.fromPort(devWeb, across(web.v4, outside, 64)), change: hostRoute(2, "203.0.113.9/32", table.Route{VSID: blue1, NextHop: blue.v4}),
			want: outcome{model.VerdictDelivered, s.ports[devFW], ipFrame(fw.mac, web.mac, dgram(web.v4, outside, 64, 4))}, port: web.id, to: fw.id},
		{name: "a record beats a host route", in: s.fromPort(devWeb, across(web.v4, db.v4, 64)), change: hostRoute(1, "10.0.0.6/32", table.Route{VSID: red2, NextHop: api.v4}),
			want: outcome{model.VerdictDelivered, s.ports[devDB], ipFrame(db.mac, web.mac, dgram(web.v4, db.v4, 64, 4))}, port: web.id, to: db.id},
		{name: "the last hop of a TTL", in: s.fromPort(devWeb, spent4),
			want: outcome{model.VerdictTtlExceeded, s.ports[devWeb], told(web, red1, gate1, web.v4, 11, 0, 0, spent4[14:])}, port: web.id},
		{name: "the last hop of a hop limit", in: s.fromPort(devWeb, spent6),
			want: outcome{model.VerdictTtlExceeded, s.ports[devWeb], told(web, red1, gate1v6, web.v6, 3, 0, 0, spent6[14:])}, port: web.id},
		drop("the last hop of an ICMP error", s.fromPort(devWeb, unreachable), model.VerdictTtlExceeded, web.id),
		{name: "a TTL of 1 inside the subnet", in: s.fromPort(devWeb, ipFrame(db.mac, web.mac, dgram(web.v4, db.v4, 1, 4))),
			want: outcome{model.VerdictDelivered, s.ports[devDB], ipFrame(db.mac, web.mac, dgram(web.v4, db.v4, 1, 4))}, port: web.id, to: db.id},
		{name: "traceroute to the far side of the router", in: s.fromPort(devWeb, pingSpent), want: outcome{model.VerdictAnswered, s.ports[devWeb], pong}, port: web.id},
		drop("nobody there and a spent TTL", s.fromPort(devWeb, across(web.v4, addr("10.0.1.99"), 1)), model.VerdictNoRecord, web.id),
	}
}

func lookupStories(s site) []story {
	send := func(to guest) packetIn {
		return s.fromPort(devWeb, ipFrame(router1, web.mac, dgram(web.v4, to.v4, 64, 4)))
	}
	ping6 := ipFrame(router1, web.mac, icmp6(wire.IPv6{HopLimit: 9, Source: web.v6, Destination: gate1v6}, 128, 0, 0x20003, zeros(5)))
	pong6 := ipFrame(web.mac, router1, icmp6(wire.IPv6{HopLimit: 64, Source: gate1v6, Destination: web.v6}, 129, 0, 0x20003, zeros(5)))
	ping4 := ipFrame(router1, web.mac, v4(wire.IPv4{TTL: 9, TOS: 0x10, ID: 77, Proto: wire.ProtoICMP, Source: web.v4, Destination: gate1}, []byte{1, 1, 1, 0}, icmp(8, 0, 0x20003, zeros(5))))
	pong4 := ipFrame(web.mac, router1, v4(wire.IPv4{TTL: 64, TOS: 0x10, ID: 77, Proto: wire.ProtoICMP, Source: gate1, Destination: web.v4}, []byte{1, 1, 1, 0}, icmp(0, 0, 0x20003, zeros(5))))
	blueToBlue := s.fromPort(devBlue, ipFrame(db.mac, blue.mac, dgram(blue.v4, db.v4, 64, 4)))
	return []story{
		{name: "to a neighbour here", in: s.fromPort(devWeb, ipFrame(everyone, web.mac, dgram(web.v6, db.v6, 64, 4))),
			want: outcome{model.VerdictDelivered, s.ports[devDB], ipFrame(db.mac, web.mac, dgram(web.v6, db.v6, 64, 4))}, port: web.id, to: db.id},
		drop("to nobody in the subnet", s.fromPort(devWeb, ipFrame(router1, web.mac, dgram(web.v4, addr("10.0.0.99"), 64, 4))), model.VerdictNoRecord, web.id),
		drop("another tenant's neighbour of the same address", blueToBlue, model.VerdictNoRecord, blue.id),
		drop("to the gateway's DNS", s.fromPort(devWeb, ipFrame(router1, web.mac, dgram(web.v4, gate1, 64, 4))), model.VerdictRouterNoService, web.id),
		drop("a ping cut in its header", s.fromPort(devWeb, ipFrame(router1, web.mac, v4(wire.IPv4{TTL: 9, Proto: wire.ProtoICMP, Source: web.v4, Destination: gate1}, nil, icmp(8, 0, 0, nil)[:7]))), model.VerdictRouterNoService, web.id),
		drop("a fragment of a ping", s.fromPort(devWeb, ipFrame(router1, web.mac, v4(wire.IPv4{TTL: 9, MoreFrags: true, Proto: wire.ProtoICMP, Source: web.v4, Destination: gate1}, nil, icmp(8, 0, 0, zeros(8))))), model.VerdictRouterNoService, web.id),
		{name: "ping the gateway", in: s.fromPort(devWeb, ping4), want: outcome{model.VerdictAnswered, s.ports[devWeb], pong4}, port: web.id},
		{name: "ping the gateway, IPv6", in: s.fromPort(devWeb, ping6), want: outcome{model.VerdictAnswered, s.ports[devWeb], pong6}, port: web.id},
		drop("to itself", send(web), model.VerdictRouteToSelf, web.id),
		drop("the firewall's own default route", s.fromPort(devFW, ipFrame(router1, fw.mac, dgram(fw.v4, addr("203.0.113.9"), 64, 4))), model.VerdictRouteToSelf, fw.id),
		drop("to a port that is not plugged", send(asleep), model.VerdictPortDown, web.id),
		{name: "to a device without a port", in: send(db), change: func(set *table.Set) { delete(set.Ports, s.ports[devDB]) },
			want: outcome{verdict: model.VerdictPortDown}, port: web.id},
		drop("to a port of another subnet", send(askew), model.VerdictVsidMismatch, web.id),
		drop("to a PA without a route", send(lost), model.VerdictNoUnderlayRoute, web.id),
		drop("to a PA without a peer", send(alien), model.VerdictNoUnderlayRoute, web.id),
	}
}

// cut says of a packet that it is yet to be cut.
func cut(in packetIn, gsoSize uint16) packetIn {
	in.gsoSize = gsoSize
	return in
}

func encapStories(s site) []story {
	// sized is a packet of n bytes of IP from web.
	sized := func(src, dst netip.Addr, n int) []byte {
		overhead := wire.IPv4Len + 8
		if src.Is6() {
			overhead = wire.IPv6Len + 8
		}
		return ipFrame(router1, web.mac, dgram(src, dst, 64, n-overhead))
	}
	carried := func(pa netip.Addr, vsid model.VSID, flow, tos uint8, inner []byte) []byte {
		return nvgre(model.MAC{}, model.MAC{}, paHere, pa, vsid, flow, tos, inner)
	}
	toMail := func(packet []byte) []byte { return ipFrame(mail.mac, web.mac, packet) }
	tcp := func(src, dst netip.Addr, n int) []byte { // 20 bytes of header
		header := zeros(20)
		header[12] = 5 << 4
		return ipFrame(router1, web.mac, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoTCP, Source: src, Destination: dst}, nil, join(header, zeros(n))))
	}
	tos := func(f []byte, v byte) []byte { return resealed(f, 15, v) }
	big4, big6 := sized(web.v4, mail.v4, 1459), sized(web.v6, mail.v6, 1459)
	local := sized(web.v4, db.v4, 1459)
	padded := join(sized(web.v4, mail.v4, 100), zeros(1400))
	later := resealed(big4, atFragment, 0, 9)
	fit4, fit6 := sized(web.v4, mail.v4, 1458), sized(web.v6, mail.v6, 1458)
	return []story{
		{name: "as large as the path carries", in: s.fromPort(devWeb, tos(fit4, 0xb9)),
			want: outcome{model.VerdictEncapsulated, s.uplinks[0], carried(paFar, red1, flowOf(web.v4, mail.v4), 0xb9, toMail(tos(fit4, 0xb9)[14:]))}, port: web.id},
		{name: "as large as the path carries, IPv6", in: s.fromPort(devWeb, fit6),
			want: outcome{model.VerdictEncapsulated, s.uplinks[0], carried(paFar, red1, flowOf(web.v6, mail.v6), 0, toMail(fit6[14:]))}, port: web.id},
		{name: "to another subnet far away", in: s.fromPort(devWeb, sized(web.v4, log.v4, 100)),
			want: outcome{model.VerdictEncapsulated, s.uplinks[0], carried(paFar, red2, flowOf(web.v4, log.v4), 0, ipFrame(log.mac, router2, dgram(web.v4, log.v4, 63, 72)))}, port: web.id},
		{name: "without a neighbour's MAC, which the kernel finds", in: s.fromPort(devWeb, sized(web.v4, silent.v4, 100)),
			want: outcome{model.VerdictEncapsulated, s.uplinks[0], carried(paSilent, red1, flowOf(web.v4, silent.v4), 0, ipFrame(silent.mac, web.mac, dgram(web.v4, silent.v4, 64, 72)))}, port: web.id},
		{name: "a large packet to be cut, for a neighbour here", in: cut(s.fromPort(devWeb, tcp(web.v4, db.v4, 2000)), 1418),
			want: outcome{model.VerdictDelivered, s.ports[devDB], with(tcp(web.v4, db.v4, 2000), 0, db.mac[:]...)}, port: web.id, to: db.id},
		{name: "a large packet to be cut, one byte too coarsely", in: cut(s.fromPort(devWeb, tcp(web.v4, db.v4, 2000)), 1419),
			want: outcome{model.VerdictTooBig, s.ports[devWeb], told(web, red1, gate1, web.v4, 3, 4, 1458, tcp(web.v4, db.v4, 2000)[14:])}, port: web.id},
		drop("a kind of large packet that the kernel makes no room in", cut(s.fromPort(devWeb, tcp(web.v4, mail.v4, 2000)), 1418), model.VerdictEncapFailed, web.id),
		{name: "too big by one", in: s.fromPort(devWeb, big4),
			want: outcome{model.VerdictTooBig, s.ports[devWeb], told(web, red1, gate1, web.v4, 3, 4, 1458, big4[14:])}, port: web.id},
		{name: "too big by one, IPv6", in: s.fromPort(devWeb, big6),
			want: outcome{model.VerdictTooBig, s.ports[devWeb], told(web, red1, gate1v6, web.v6, 2, 0, 1458, big6[14:])}, port: web.id},
		{name: "too big for a neighbour here", in: s.fromPort(devWeb, local),
			want: outcome{model.VerdictTooBig, s.ports[devWeb], told(web, red1, gate1, web.v4, 3, 4, 1458, local[14:])}, port: web.id},
		{name: "too big for a narrow underlay", in: s.fromPort(devWeb, sized(web.v4, narrow.v4, 959)),
			want: outcome{model.VerdictTooBig, s.ports[devWeb], told(web, red1, gate1, web.v4, 3, 4, 958, sized(web.v4, narrow.v4, 959)[14:])}, port: web.id},
		{name: "padded beyond the path", in: s.fromPort(devWeb, padded),
			want: outcome{model.VerdictTooBig, s.ports[devWeb], told(web, red1, gate1, web.v4, 3, 4, 1458, padded[14:114])}, port: web.id},
		drop("a later fragment that is too big", s.fromPort(devWeb, later), model.VerdictTooBig, web.id),
		drop("too big behind extension headers that no error could quote", s.fromPort(devWeb, ipFrame(router1, web.mac, v6(
			wire.IPv6{HopLimit: 64, Next: wire.ProtoDestOpts, Source: web.v6, Destination: mail.v6}, join([]byte{wire.ProtoUDP, 11}, zeros(94), udp(1, 2, 1400))))), model.VerdictTooBig, web.id),
		{name: "too big where there is no gateway to say so", in: s.fromPort(devBlue, sized(blue.v4, db.v4, 1459)), change: func(set *table.Set) {
			set.Records[table.RecordKey{VSID: blue1, CA: db.v4}] = table.Record{MAC: db.mac, PA: paFar}
		}, want: outcome{verdict: model.VerdictTooBig}, port: blue.id},
	}
}

func uplinkStories(s site) []story {
	up := s.macs[s.uplinks[0]]
	in := func(vsid model.VSID, inner []byte) []byte {
		return nvgre(up, uplinkNextHop, paFar, paHere, vsid, 9, 0, inner)
	}
	hello4 := ipFrame(web.mac, mail.mac, dgram(mail.v4, web.v4, 64, 4))
	hello6 := ipFrame(web.mac, mail.mac, dgram(mail.v6, web.v6, 64, 4))
	routed := ipFrame(web.mac, router1, dgram(log.v4, web.v4, 63, 4))
	good := in(red1, hello4)
	toWeb := func(f []byte) outcome { return outcome{model.VerdictDelivered, s.ports[devWeb], f} }
	pass := func(name string, f []byte) story {
		return story{name: name, in: s.fromUplink(f), want: outcome{model.VerdictPass, 0, f}}
	}
	probe := frame(web.mac, mail.mac, wire.TypeARP, arp(wire.ARPRequest, mail.mac, mail.v4, model.MAC{}, web.v4))
	const atGRE = 34
	return []story{
		{name: "from a neighbour far away", in: s.fromUplink(good), want: toWeb(hello4), port: web.id, to: web.id},
		{name: "from a neighbour far away, IPv6", in: s.fromUplink(in(red1, hello6)), want: toWeb(hello6), port: web.id, to: web.id},
		{name: "trailing bytes of the underlay", in: s.fromUplink(join(good, zeros(20))), want: toWeb(hello4), port: web.id, to: web.id},
		{name: "from another subnet", in: s.fromUplink(in(red1, routed)), want: toWeb(routed), port: web.id, to: web.id},
		{name: "an ARP probe from far away", in: s.fromUplink(in(red1, probe)), want: toWeb(probe), port: web.id, to: web.id},
		{name: "reserved GRE bits that a receiver ignores", in: s.fromUplink(with(good, atGRE, 0x23, 0xf8)), want: toWeb(hello4), port: web.id, to: web.id},
		drop("a kind of large packet that the kernel strips nothing from", cut(s.fromUplink(good), 20), model.VerdictDecapFailed, web.id),
		pass("somebody else's frame", with(good, 0, 2, 9, 9, 9, 9, 9)),
		pass("a broadcast of the underlay", with(good, 0, everyone[:]...)),
		pass("for an address of the host that is no PA", resealed(good, 30, 192, 0, 2, 99)),
		pass("TCP to a PA", resealed(good, 23, wire.ProtoTCP)),
		pass("IPv6 of the underlay", ipFrame(up, uplinkNextHop, dgram(web.v6, db.v6, 64, 4))),
		pass("a VLAN of the underlay", tagged(good, wire.TypeVLAN, 5)),
		drop("an outer checksum that is wrong", s.fromUplink(with(good, 24, good[24]^1)), model.VerdictOuterMalformed, 0),
		drop("outer options", s.fromUplink(resealed(good, atIP, 0x46)), model.VerdictOuterMalformed, 0),
		drop("outer version 5", s.fromUplink(resealed(good, atIP, 0x55)), model.VerdictOuterMalformed, 0),
		drop("longer than its frame", s.fromUplink(good[:len(good)-1]), model.VerdictOuterMalformed, 0),
		drop("no room for an inner frame", s.fromUplink(resealed(good, atTotalLen, 0, 41)), model.VerdictOuterMalformed, 0),
		drop("GRE with a checksum", s.fromUplink(with(good, atGRE, 0xa0)), model.VerdictOuterMalformed, 0),
		drop("GRE with reserved bit 5", s.fromUplink(with(good, atGRE, 0x24)), model.VerdictOuterMalformed, 0),
		drop("GRE of IPv4", s.fromUplink(with(good, atGRE+2, 8, 0)), model.VerdictOuterMalformed, 0),
		drop("the first outer fragment", s.fromUplink(resealed(good, atFragment, 0x20, 0)), model.VerdictOuterFragment, 0),
		drop("a later outer fragment", s.fromUplink(resealed(good, atFragment, 0, 6)), model.VerdictOuterFragment, 0),
		drop("VSID 4095", s.fromUplink(in(4095, hello4)), model.VerdictVsidReserved, 0),
		drop("VSID 16777215", s.fromUplink(in(16777215, hello4)), model.VerdictVsidReserved, 0),
		drop("an inner VLAN", s.fromUplink(in(red1, tagged(hello4, wire.TypeVLAN, 0))), model.VerdictInnerVlan, 0),
		drop("an inner service tag", s.fromUplink(in(red1, tagged(hello4, wire.TypeQinQ, 7))), model.VerdictInnerVlan, 0),
		drop("inner LLDP", s.fromUplink(in(red1, frame(web.mac, mail.mac, 0x88cc, zeros(20)))), model.VerdictNonIp, 0),
		drop("an inner packet cut short", s.fromUplink(in(red1, hello4[:33])), model.VerdictFrameTruncated, 0),
		drop("a MAC that is not here", s.fromUplink(in(red1, with(hello4, 0, mail.mac[:]...))), model.VerdictNotLocal, 0),
		drop("a MAC that is in another subnet", s.fromUplink(in(red2, hello4)), model.VerdictNotLocal, 0),
		drop("another tenant's VSID", s.fromUplink(in(blue1, hello4)), model.VerdictSourceNotInPolicy, blue.id),
		drop("from the wrong PA", s.fromUplink(nvgre(up, uplinkNextHop, paSilent, paHere, red1, 9, 0, hello4)), model.VerdictSourceNotInPolicy, web.id),
		drop("from the wrong MAC", s.fromUplink(in(red1, with(hello4, 6, db.mac[:]...))), model.VerdictSourceNotInPolicy, web.id),
		drop("as a neighbour that is here", s.fromUplink(in(red1, ipFrame(web.mac, db.mac, dgram(db.v4, web.v4, 64, 4)))), model.VerdictSourceNotInPolicy, web.id),
		drop("as the router", s.fromUplink(in(red1, ipFrame(web.mac, router1, dgram(gate1, web.v4, 64, 4)))), model.VerdictSourceNotInPolicy, web.id),
		drop("routed, from the wrong PA", s.fromUplink(nvgre(up, uplinkNextHop, paSilent, paHere, red1, 9, 0, routed)), model.VerdictSourceNotInPolicy, web.id),
		drop("routed, from outside", s.fromUplink(in(red1, ipFrame(web.mac, router1, dgram(addr("203.0.113.9"), web.v4, 64, 4)))), model.VerdictSourceNotInPolicy, web.id),
		drop("another subnet, not by the router", s.fromUplink(in(red1, with(routed, 6, log.mac[:]...))), model.VerdictSourceNotInPolicy, web.id),
		drop("ARP from another subnet", s.fromUplink(in(red1, frame(web.mac, router1, wire.TypeARP, arp(wire.ARPRequest, router1, log.v4, model.MAC{}, web.v4)))), model.VerdictSourceNotInPolicy, web.id),
		drop("ARP with another's MAC inside", s.fromUplink(in(red1, with(probe, 22, db.mac[:]...))), model.VerdictSpoofedArp, web.id),
		drop("a router advertisement from far away", s.fromUplink(in(red1, ipFrame(web.mac, mail.mac, icmp6(wire.IPv6{HopLimit: 255, Source: mail.v6, Destination: web.v6}, 134, 0, 0, zeros(8))))), model.VerdictRouterMessage, web.id),
		drop("link-local ND from far away", s.fromUplink(in(red1, ipFrame(web.mac, mail.mac, neighbour(addr("fe80::8"), web.v6,
			wire.Neighbour{Type: wire.ICMPv6NeighbourSol, Target: web.v6})))), model.VerdictSourceNotInPolicy, web.id),
	}
}

func toPortStories(s site) []story {
	f := ipFrame(web.mac, db.mac, dgram(db.v4, web.v4, 64, 4))
	return []story{
		drop("from the host's own stack", packetIn{program: datapath.ToPort, ifindex: s.ports[devWeb], frame: f}, model.VerdictNotFromSwitch, web.id),
		drop("from the host into a device without a port", packetIn{program: datapath.ToPort, ifindex: s.ports[devNone], frame: f}, model.VerdictNotFromSwitch, 0),
	}
}

// flowOf is 70.3 worked out for the datagrams of this page: ports 4000 and 53, protocol 17.
func flowOf(src, dst netip.Addr) uint8 { return uint8(hashOf(src, dst) >> 24) }

func hashOf(src, dst netip.Addr) uint32 { return hashOfPorts(src, dst, 4000, 53) }

func hashOfPorts(src, dst netip.Addr, sport, dport uint16) uint32 {
	h := uint32(sport^dport) ^ 17<<16
	for _, a := range [2]netip.Addr{src, dst} {
		for i, b := range a.AsSlice() {
			h ^= uint32(b) << (24 - 8*(i%4))
		}
	}
	return h * 0x9e3779b1 // none of the street's begins with a byte of 0
}
