package packet

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// unguarded takes both guards off a port.
func unguarded(s site, dev int) func(*table.Set) {
	return func(set *table.Set) {
		p := set.Ports[s.ports[dev]]
		p.DHCPGuard, p.RouterGuard = false, false
		set.Ports[p.IfIndex] = p
	}
}

// trustFar is policy's trust in a guest of red at paFar, and in what its host routes for it.
func trustFar(g guest, trust table.Trust) func(*table.Set) {
	return func(set *table.Set) {
		set.Forwarders[table.Forwarder{Network: 1, MAC: g.mac, PA: paFar}] = trust
		set.Forwarders[table.Forwarder{Network: 1, PA: paFar}] = trust
	}
}

// part4 is a fragment of UDP, by web to db; its offset is in units of 8 bytes.
func part4(src, dst netip.Addr, offset uint16, more bool, payload []byte) []byte {
	return ipFrame(db.mac, web.mac, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoUDP, Source: src, Destination: dst, FragOffset: offset, MoreFrags: more, ID: 7}, nil, payload))
}

// dhcp is a message of either family, which its first byte tells.
func dhcp(dst, src model.MAC, from, to netip.Addr, sport, dport uint16, kind byte) []byte {
	d := udp(sport, dport, 240)
	d[8] = kind
	if from.Is4() {
		return ipFrame(dst, src, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoUDP, Source: from, Destination: to}, nil, d))
	}
	return ipFrame(dst, src, v6(wire.IPv6{HopLimit: 64, Next: wire.ProtoUDP, Source: from, Destination: to}, d))
}

// guardStories tell of guests that act as servers and routers, and of those that poison neighbours.
func guardStories(s site) []story {
	none4, linkLocal := addr("0.0.0.0"), addr("fe80::5")
	changed := func(st story, changes ...func(*table.Set)) story {
		st.change = func(set *table.Set) {
			for _, c := range changes {
				c(set)
			}
		}
		return st
	}
	refused := func(name string, in packetIn, v model.Verdict, port model.PortID, changes ...func(*table.Set)) story {
		return changed(drop(name, in, v, port), changes...)
	}
	goes := func(name string, f []byte, changes ...func(*table.Set)) story {
		return changed(story{name: name, in: s.fromPort(devWeb, f), port: web.id, to: db.id, want: outcome{model.VerdictDelivered, s.ports[devDB], f}}, changes...)
	}
	up := func(inner []byte) packetIn {
		return s.fromUplink(nvgre(s.macs[s.uplinks[0]], uplinkNextHop, paFar, paHere, red1, 7, 0, inner))
	}
	comes := func(name string, f []byte, changes ...func(*table.Set)) story {
		return changed(story{name: name, in: up(f), port: db.id, to: db.id, want: outcome{model.VerdictDelivered, s.ports[devDB], f}}, changes...)
	}
	off, flood := unguarded(s, devWeb), floodRed(s, table.Flood{L2: true, Rate: 1e9}, paFar)
	spoof := func(set *table.Set) {
		p := set.Ports[s.ports[devWeb]]
		p.Spoof = true
		set.Ports[p.IfIndex] = p
	}
	say := func(to netip.Addr, sport, dport uint16, kind byte) []byte {
		from := web.v4
		if to.Is6() {
			from = web.v6
		}
		return dhcp(db.mac, web.mac, from, to, sport, dport, kind)
	}
	toAll := dhcp(everyone, web.mac, none4, broadcast, 67, 68, 2)
	chain := func(f []byte) []byte { // an extension header in front of UDP
		return ipFrame(db.mac, web.mac, v6(wire.IPv6{HopLimit: 64, Next: wire.ProtoDestOpts, Source: web.v6, Destination: db.v6},
			join([]byte{wire.ProtoUDP, 0, 1, 4, 0, 0, 0, 0}, f[54:])))
	}
	part6 := func(f []byte) []byte {
		return ipFrame(db.mac, web.mac, v6(wire.IPv6{HopLimit: 64, Next: wire.ProtoFragment, Source: web.v6, Destination: db.v6},
			join([]byte{wire.ProtoUDP, 0, 0, 1, 0, 0, 0, 9}, f[54:54+16])))
	}
	stories := []story{
		refused("a DHCP offer", s.fromPort(devWeb, say(db.v4, 67, 68, 2)), model.VerdictDhcpServerMessage, web.id),
		refused("a DHCP offer from a port that servers do not use", s.fromPort(devWeb, say(db.v4, 4000, 68, 2)), model.VerdictDhcpServerMessage, web.id),
		refused("a DHCP offer to all, by nobody, in an L2 subnet", s.fromPort(devWeb, toAll), model.VerdictDhcpServerMessage, web.id, flood),
		refused("a DHCP offer where speaking for others is allowed", s.fromPort(devWeb, say(db.v4, 67, 68, 2)), model.VerdictDhcpServerMessage, web.id, spoof),
		refused("a DHCP server's word to a relay", s.fromPort(devWeb, say(db.v4, 67, 67, 2)), model.VerdictDhcpServerMessage, web.id),
		refused("a DHCP server's word to a relay elsewhere", s.fromPort(devWeb, say(db.v4, 67, 1067, 2)), model.VerdictDhcpServerMessage, web.id),
		refused("a DHCP offer in fragments", s.fromPort(devWeb, part4(web.v4, db.v4, 0, true, udp(67, 68, 0))), model.VerdictDhcpServerMessage, web.id),
		refused("a fragment that may become a server's word to a relay", s.fromPort(devWeb, part4(web.v4, db.v4, 0, true, udp(67, 67, 0))), model.VerdictDhcpServerMessage, web.id),
		refused("DHCPv6's advertise", s.fromPort(devWeb, say(db.v6, 547, 546, 2)), model.VerdictDhcpServerMessage, web.id),
		refused("DHCPv6 to a client, whatever it says", s.fromPort(devWeb, say(db.v6, 4000, 546, 1)), model.VerdictDhcpServerMessage, web.id),
		refused("DHCPv6's reply behind an extension header", s.fromPort(devWeb, chain(say(db.v6, 547, 546, 7))), model.VerdictDhcpServerMessage, web.id),
		refused("DHCPv6's reply in fragments", s.fromPort(devWeb, part6(say(db.v6, 547, 547, 1))), model.VerdictDhcpServerMessage, web.id),
		refused("DHCPv6's relay-reply", s.fromPort(devWeb, say(db.v6, 547, 547, 13)), model.VerdictDhcpServerMessage, web.id),
		refused("DHCPv6's reconfigure", s.fromPort(devWeb, say(db.v6, 547, 4000, 10)), model.VerdictDhcpServerMessage, web.id),
		refused("DHCPv6's reply to all, in an L2 subnet", s.fromPort(devWeb, dhcp(everyone, web.mac, linkLocal, addr("ff02::1"), 547, 546, 7)), model.VerdictDhcpServerMessage, web.id, flood),
		goes("a relay's question", say(db.v4, 67, 67, 1)),
		goes("a client's question", say(db.v4, 68, 67, 1)),
		goes("DHCPv6's request", say(db.v6, 546, 547, 3)),
		goes("a relay's forward of DHCPv6", say(db.v6, 547, 547, 12)),
		goes("UDP of nothing from a server's port", ipFrame(db.mac, web.mac, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoUDP, Source: web.v4, Destination: db.v4}, nil, udp(67, 4000, 0)))),
		goes("DHCP's ports of the other family", say(db.v6, 67, 68, 2)),
		goes("a DHCP offer by a server", say(db.v4, 67, 68, 2), off),
		goes("DHCPv6's advertise by a server", say(db.v6, 547, 546, 2), off),
		refused("a DHCP offer from far away, by a guest that is no server", up(dhcp(db.mac, mail.mac, mail.v4, db.v4, 67, 68, 2)), model.VerdictDhcpServerMessage, db.id),
		refused("DHCPv6's reply from far away", up(dhcp(db.mac, mail.mac, mail.v6, db.v6, 547, 546, 7)), model.VerdictDhcpServerMessage, db.id, trustFar(mail, table.Trust{Router: true, Forward: true})),
		comes("a DHCP offer by a server far away", dhcp(db.mac, mail.mac, mail.v4, db.v4, 67, 68, 2), trustFar(mail, table.Trust{DHCP: true})),
		refused("a DHCP offer to all, from far away", up(dhcp(everyone, mail.mac, mail.v4, broadcast, 67, 68, 2)), model.VerdictDhcpServerMessage, 0, flood),
	}

	ra := func(src, dst netip.Addr, kind uint8) []byte {
		return ipFrame(db.mac, web.mac, icmp6(wire.IPv6{HopLimit: 255, Source: src, Destination: dst}, kind, 0, 0, zeros(32)))
	}
	message4 := func(src model.MAC, from, to netip.Addr, kind uint8) []byte {
		return ipFrame(db.mac, src, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoICMP, Source: from, Destination: to}, nil, icmp(kind, 0, 0, zeros(28))))
	}
	advert4 := ipFrame(everyone, web.mac, v4(wire.IPv4{TTL: 1, Proto: wire.ProtoICMP, Source: none4, Destination: broadcast}, nil, icmp(9, 0, 0x01020708, zeros(8))))
	part := ipFrame(db.mac, web.mac, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoICMP, MoreFrags: true, Source: web.v4, Destination: db.v4}, nil, icmp(5, 0, 0, zeros(24))))
	advert := ipFrame(everyone, web.mac, icmp6(wire.IPv6{HopLimit: 255, Source: linkLocal, Destination: addr("ff02::1")}, 134, 0, 0, zeros(8)))
	farAdvert := ipFrame(everyone, mail.mac, icmp6(wire.IPv6{HopLimit: 255, Source: linkLocal, Destination: addr("ff02::1")}, 134, 0, 0, zeros(8)))
	redirect := ipFrame(db.mac, mail.mac, icmp6(wire.IPv6{HopLimit: 255, Source: linkLocal, Destination: db.v6}, 137, 0, 0, zeros(32)))
	copiesOf := func(f []byte, devs ...int) (made []sim.Copy) {
		for _, dev := range devs {
			made = append(made, sim.Copy{IfIndex: s.ports[dev], Frame: f, To: []model.PortID{web.id, db.id, fw.id}[dev]})
		}
		return made
	}
	here, fromFar := copiesOf(advert, devDB, devFW), copiesOf(farAdvert, devWeb, devDB, devFW)
	stories = append(stories,
		refused("an ICMP redirect", s.fromPort(devWeb, message4(web.mac, web.v4, db.v4, 5)), model.VerdictRouterMessage, web.id),
		refused("an ICMP redirect in fragments", s.fromPort(devWeb, part), model.VerdictRouterMessage, web.id),
		refused("an ICMP redirect where speaking for others is allowed", s.fromPort(devWeb, message4(web.mac, gate1, db.v4, 5)), model.VerdictRouterMessage, web.id, spoof),
		refused("an ICMP router advertisement", s.fromPort(devWeb, message4(web.mac, web.v4, db.v4, 9)), model.VerdictRouterMessage, web.id),
		refused("an ICMP router advertisement to all, by nobody, in an L2 subnet", s.fromPort(devWeb, advert4), model.VerdictRouterMessage, web.id, flood),
		refused("a router advertisement to all, in an L2 subnet", s.fromPort(devWeb, advert), model.VerdictRouterMessage, web.id, flood),
		goes("an ICMP redirect by a router", message4(web.mac, web.v4, db.v4, 5), off),
		goes("a router advertisement by a router", ra(web.v6, db.v6, 134), off),
		goes("a redirect by a router, from its link-local address", ra(linkLocal, db.v6, 137), off),
		changed(story{name: "a router advertisement to all by a router, in an L2 subnet", in: s.fromPort(devWeb, advert), port: web.id, want: outcome{model.VerdictFlooded, 0, copies(here)},
			made: here}, off, floodRed(s, table.Flood{L2: true, Rate: 1e9})),
		refused("an ICMP redirect from far away", up(message4(mail.mac, mail.v4, db.v4, 5)), model.VerdictRouterMessage, db.id),
		comes("an ICMP redirect by a router far away", message4(mail.mac, mail.v4, db.v4, 5), trustFar(mail, table.Trust{Router: true})),
		refused("a router advertisement to all, from far away", up(farAdvert), model.VerdictRouterMessage, 0, flood),
		changed(story{name: "a router advertisement to all, by a router far away", in: up(farAdvert), want: outcome{model.VerdictFlooded, 0, copies(fromFar)},
			made: fromFar}, flood, trustFar(mail, table.Trust{Router: true})),
		refused("a redirect from far away, from a link-local address", up(redirect), model.VerdictRouterMessage, db.id),
		comes("a redirect by a router far away, from its link-local address", redirect, trustFar(mail, table.Trust{Router: true})),
	)
	stories = append(stories, poisonStories(s, refused, up)...)
	return append(stories, allowedStories(s, refused, goes, comes, up)...)
}

// poisonStories tell of ARP and ND that put the sender's MAC, or another, in a third's place.
func poisonStories(s site, refused func(string, packetIn, model.Verdict, model.PortID, ...func(*table.Set)) story, up func([]byte) packetIn) []story {
	say := func(op uint16, dst model.MAC, sender netip.Addr, target guest) packetIn {
		return s.fromPort(devWeb, frame(dst, web.mac, wire.TypeARP, arp(op, web.mac, sender, target.mac, target.v4)))
	}
	announce := func(sender netip.Addr) packetIn {
		return s.fromPort(devWeb, frame(everyone, web.mac, wire.TypeARP, arp(wire.ARPReply, web.mac, sender, everyone, sender)))
	}
	claim := func(kind uint8, src, dst, target netip.Addr, from, mac model.MAC) []byte {
		return ipFrame(db.mac, from, neighbour(src, dst, wire.Neighbour{Type: kind, Override: kind == wire.ICMPv6NeighbourAdv, Target: target, MAC: mac, HasMAC: true}))
	}
	ask := func(src netip.Addr, mac model.MAC) packetIn {
		return s.fromPort(devWeb, ipFrame(everyone, web.mac, icmp6(wire.IPv6{HopLimit: 255, Source: src, Destination: addr("ff02::2")}, 133, 0, 0, join([]byte{1, 1}, mac[:]))))
	}
	const na, ns = wire.ICMPv6NeighbourAdv, wire.ICMPv6NeighbourSol
	linkLocal, none := addr("fe80::5"), addr("::")
	return []story{
		refused("an ARP reply in the gateway's name", say(wire.ARPReply, db.mac, gate1, db), model.VerdictSpoofedArp, web.id),
		refused("an ARP reply in a neighbour's name", say(wire.ARPReply, db.mac, fw.v4, db), model.VerdictSpoofedArp, web.id),
		refused("an ARP request in the gateway's name", say(wire.ARPRequest, db.mac, gate1, db), model.VerdictSpoofedArp, web.id),
		refused("the gateway's address is announced", announce(gate1), model.VerdictSpoofedArp, web.id, floodRed(s, table.Flood{L2: true, Rate: 1e9})),
		refused("a neighbour's address is announced", announce(db.v4), model.VerdictSpoofedArp, web.id, floodRed(s, table.Flood{L2: true, Rate: 1e9})),
		refused("an overriding advertisement of the gateway", s.fromPort(devWeb, claim(na, web.v6, db.v6, gate1v6, web.mac, web.mac)), model.VerdictSpoofedNd, web.id),
		refused("an advertisement of its own address at another's MAC", s.fromPort(devWeb, claim(na, web.v6, db.v6, web.v6, web.mac, fw.mac)), model.VerdictSpoofedNd, web.id),
		refused("an overriding advertisement of the gateway, from a link-local address", s.fromPort(devWeb, claim(na, linkLocal, addr("ff02::1"), gate1v6, web.mac, web.mac)), model.VerdictSpoofedNd, web.id),
		refused("a unicast solicitation with another's MAC", s.fromPort(devWeb, claim(ns, web.v6, db.v6, db.v6, web.mac, fw.mac)), model.VerdictSpoofedNd, web.id),
		refused("a solicitation in a neighbour's name", s.fromPort(devWeb, claim(ns, fw.v6, db.v6, db.v6, web.mac, web.mac)), model.VerdictSpoofedCa, web.id),
		refused("a router solicitation with another's MAC", ask(linkLocal, fw.mac), model.VerdictSpoofedNd, web.id),
		refused("a router solicitation from no address, with a MAC", ask(none, web.mac), model.VerdictSpoofedNd, web.id),
		refused("a router solicitation with its own", ask(linkLocal, web.mac), model.VerdictNdQuiet, web.id),
		refused("a router solicitation with half an option", s.fromPort(devWeb, ipFrame(everyone, web.mac, icmp6(wire.IPv6{HopLimit: 255, Source: linkLocal, Destination: addr("ff02::2")}, 133, 0, 0, []byte{1, 1, 2}))), model.VerdictNdMalformed, web.id),
		refused("from far away, an advertisement of a third", up(claim(na, mail.v6, db.v6, fw.v6, mail.mac, mail.mac)), model.VerdictSpoofedNd, db.id),
		refused("from far away, an advertisement of the gateway", up(claim(na, mail.v6, db.v6, gate1v6, mail.mac, mail.mac)), model.VerdictSpoofedNd, db.id),
		refused("from far away, an advertisement at another's MAC", up(claim(na, mail.v6, db.v6, mail.v6, mail.mac, fw.mac)), model.VerdictSpoofedNd, db.id),
		refused("from far away, a solicitation with another's MAC", up(claim(ns, mail.v6, db.v6, db.v6, mail.mac, fw.mac)), model.VerdictSpoofedNd, db.id),
		refused("from far away, a MAC of another's in ARP", up(frame(db.mac, mail.mac, wire.TypeARP, arp(wire.ARPReply, fw.mac, mail.v4, db.mac, db.v4))), model.VerdictSpoofedArp, db.id),
		refused("from far away, the gateway's address in ARP", up(frame(db.mac, mail.mac, wire.TypeARP, arp(wire.ARPReply, mail.mac, gate1, db.mac, db.v4))), model.VerdictSourceNotInPolicy, db.id),
		refused("from far away, a flooded announcement of the gateway", up(frame(everyone, mail.mac, wire.TypeARP, arp(wire.ARPRequest, mail.mac, gate1, everyone, gate1))), model.VerdictSourceNotInPolicy, 0, floodRed(s, table.Flood{L2: true, Rate: 1e9})),
		refused("from far away, a flooded advertisement of a third", up(with(claim(na, mail.v6, addr("ff02::1"), fw.v6, mail.mac, mail.mac), 0, everyone[:]...)), model.VerdictSpoofedNd, 0, floodRed(s, table.Flood{L2: true, Rate: 1e9})),
	}
}

// allowedStories tell of sources that a guest may use beside its own, and of a port's own storm limit.
func allowedStories(s site, refused func(string, packetIn, model.Verdict, model.PortID, ...func(*table.Set)) story,
	goes, comes func(string, []byte, ...func(*table.Set)) story, up func([]byte) packetIn) []story {
	virtual := model.MAC{0, 0, 0x5e, 0, 1, 7}
	vip4, vip6, outside := addr("10.0.0.77"), addr("fd00:0:0:1::77"), addr("172.16.5.9")
	may := func(set *table.Set) {
		p := set.Ports[s.ports[devWeb]]
		p.Allowed = true
		set.Ports[p.IfIndex] = p
		for _, a := range []string{"10.0.0.77/32", "fd00:0:0:1::70/124", "172.16.0.0/16"} {
			set.Allowed[table.Allowed{IfIndex: p.IfIndex, Prefix: netip.MustParsePrefix(a)}] = struct{}{}
		}
		set.Allowed[table.Allowed{IfIndex: p.IfIndex, MAC: virtual}] = struct{}{}
	}
	flood := floodRed(s, table.Flood{L2: true, Rate: 1e9})
	far := trustFar(mail, table.Trust{Allowed: true})
	say := func(src netip.Addr, from model.MAC) []byte { return ipFrame(db.mac, from, dgram(src, db.v4, 64, 4)) }
	say6 := func(src netip.Addr) []byte { return ipFrame(db.mac, web.mac, dgram(src, db.v6, 64, 4)) }
	announce := func(mac, inside model.MAC, a netip.Addr) []byte {
		return frame(everyone, mac, wire.TypeARP, arp(wire.ARPRequest, inside, a, model.MAC{}, a))
	}
	advert := func(from, mac model.MAC, src, target netip.Addr) []byte {
		return ipFrame(db.mac, from, neighbour(src, db.v6, wire.Neighbour{Type: wire.ICMPv6NeighbourAdv, Override: true, Target: target, MAC: mac, HasMAC: true}))
	}
	flooded := func(name string, in packetIn, port model.PortID, made []sim.Copy, changes ...func(*table.Set)) story {
		st := refused(name, in, model.VerdictFlooded, port, changes...)
		st.want, st.made = outcome{model.VerdictFlooded, 0, copies(made)}, made
		return st
	}
	copied := func(f []byte, devs ...int) (made []sim.Copy) {
		for _, dev := range devs {
			made = append(made, sim.Copy{IfIndex: s.ports[dev], Frame: f, To: []model.PortID{web.id, db.id, fw.id}[dev]})
		}
		return made
	}
	limited := func(dev int, limit uint32) func(*table.Set) {
		return func(set *table.Set) {
			p := set.Ports[s.ports[dev]]
			p.StormLimit = limit
			set.Ports[p.IfIndex] = p
		}
	}
	hello := ipFrame(everyone, web.mac, dgram(web.v4, broadcast, 64, 4))
	return []story{
		goes("an address that the guest may use", say(vip4, web.mac), may),
		goes("an address of a prefix that the guest may use", say6(vip6), may),
		goes("an address outside the subnet that the guest may use", say(outside, web.mac), may),
		goes("a MAC that the guest may use", say(web.v4, virtual), may),
		goes("a MAC and an address that the guest may use", say(vip4, virtual), may),
		goes("an advertisement of an address that the guest may use", advert(web.mac, web.mac, web.v6, vip6), may),
		goes("an advertisement of it at a MAC that the guest may use", advert(virtual, virtual, web.v6, vip6), may),
		refused("an address next to what the guest may use", s.fromPort(devWeb, say(addr("10.0.0.78"), web.mac)), model.VerdictSpoofedCa, web.id, may),
		refused("a MAC next to what the guest may use", s.fromPort(devWeb, say(vip4, fw.mac)), model.VerdictSpoofedMac, web.id, may),
		refused("what a neighbour may use", s.fromPort(devDB, ipFrame(web.mac, db.mac, dgram(vip4, web.v4, 64, 4))), model.VerdictSpoofedCa, db.id, may),
		refused("what the guest might use, were it still allowed", s.fromPort(devWeb, say(vip4, web.mac)), model.VerdictSpoofedCa, web.id, may, func(set *table.Set) {
			p := set.Ports[s.ports[devWeb]]
			p.Allowed = false
			set.Ports[p.IfIndex] = p
		}),
		refused("ARP with another MAC inside than the frame's", s.fromPort(devWeb, announce(web.mac, virtual, vip4)), model.VerdictSpoofedArp, web.id, may),
		refused("an advertisement at another MAC than the frame's", s.fromPort(devWeb, advert(web.mac, virtual, web.v6, vip6)), model.VerdictSpoofedNd, web.id, may),
		flooded("an address that the guest may use is announced", s.fromPort(devWeb, announce(virtual, virtual, vip4)), web.id, copied(announce(virtual, virtual, vip4), devDB, devFW), may, flood),
		comes("from far away, an address that a guest there may use", ipFrame(db.mac, mail.mac, dgram(vip4, db.v4, 64, 4)), far),
		comes("from far away, an advertisement of it", ipFrame(db.mac, mail.mac, neighbour(mail.v6, db.v6, wire.Neighbour{Type: wire.ICMPv6NeighbourAdv, Target: vip6, MAC: mail.mac, HasMAC: true})), far),
		comes("from far away, ARP from it", frame(db.mac, mail.mac, wire.TypeARP, arp(wire.ARPReply, mail.mac, vip4, db.mac, db.v4)), far),
		flooded("from far away, its announcement", up(announce(mail.mac, mail.mac, vip4)), 0, copied(announce(mail.mac, mail.mac, vip4), devWeb, devDB, devFW), flood, far),
		refused("from far away, an address that no guest there may use", up(ipFrame(db.mac, mail.mac, dgram(vip4, db.v4, 64, 4))), model.VerdictSourceNotInPolicy, db.id),
		refused("from far away, a source that nobody can have", up(ipFrame(db.mac, mail.mac, dgram(addr("127.0.0.1"), db.v4, 64, 4))), model.VerdictSourceNotInPolicy, db.id, far),
		flooded("the port's own storm limit", s.fromPort(devWeb, hello), web.id, copied(hello, devDB, devFW), floodRed(s, table.Flood{L2: true}), limited(devWeb, 1e9)),
		refused("the port's own storm limit is another's", s.fromPort(devWeb, hello), model.VerdictStormLimited, web.id, floodRed(s, table.Flood{L2: true}), limited(devDB, 1e9)),
	}
}
