package packet

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// floodRed has red's first subnet flooded, to web, db and fw here and to the hosts at the PAs.
func floodRed(s site, f table.Flood, hosts ...netip.Addr) func(*table.Set) {
	return func(set *table.Set) {
		set.Floods[red1] = f
		for _, dev := range []int{devWeb, devDB, devFW} {
			p := set.Ports[s.ports[dev]]
			p.Flood = true
			set.Ports[p.IfIndex] = p
			set.Members[table.Member{VSID: red1, IfIndex: p.IfIndex}] = table.MemberInfo{L2Only: dev == devFW}
		}
		for _, pa := range hosts {
			set.Members[table.Member{VSID: red1, PA: pa}] = table.MemberInfo{L2Only: pa == paNarrow}
		}
	}
}

func floodStories(s site) []story {
	l2 := table.Flood{L2: true, Rate: 1e9}
	l3 := table.Flood{Rate: 1e9}
	flooded := func(name string, in packetIn, change func(*table.Set), port model.PortID, lost []model.Verdict, made ...sim.Copy) story {
		return story{name: name, in: in, change: change, want: outcome{model.VerdictFlooded, 0, copies(made)}, port: port, made: made, lost: lost}
	}
	to := func(dev int, g guest, f []byte) sim.Copy { return sim.Copy{IfIndex: s.ports[dev], Frame: f, To: g.id} }
	far := func(pa netip.Addr, flow uint8, f []byte) sim.Copy {
		up := s.uplinks[0]
		if pa == paNarrow {
			up = s.uplinks[1]
		}
		return sim.Copy{IfIndex: up, Frame: nvgre(uplinkNextHop, s.macs[s.uplinks[0]], paHere, pa, red1, flow, 0, f)}
	}
	mdns := model.MAC{1, 0, 0x5e, 0, 0, 0xfb}
	all6 := model.MAC{0x33, 0x33, 0, 0, 0, 1}
	cast := ipFrame(mdns, web.mac, dgram(web.v4, addr("224.0.0.251"), 1, 20))
	castFlow := flowOf(web.v4, addr("224.0.0.251"))
	directed := ipFrame(everyone, web.mac, dgram(web.v4, addr("10.0.0.255"), 64, 20))
	big := ipFrame(mdns, web.mac, dgram(web.v4, addr("224.0.0.251"), 1, 1000-42-28+1))
	announce := frame(everyone, web.mac, wire.TypeARP, arp(wire.ARPRequest, web.mac, web.v4, model.MAC{}, web.v4))
	advert := ipFrame(all6, web.mac, neighbour(web.v6, addr("ff02::1"), wire.Neighbour{Type: wire.ICMPv6NeighbourAdv, Override: true, Target: web.v6, MAC: web.mac, HasMAC: true}))
	ask := frame(everyone, web.mac, wire.TypeARP, arp(wire.ARPRequest, web.mac, web.v4, model.MAC{}, addr("10.0.0.99")))
	dhcp := ipFrame(everyone, web.mac, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoUDP, Source: addr("0.0.0.0"), Destination: broadcast}, nil, udp(68, 67, 240)))
	vrrp6 := ipFrame(model.MAC{0x33, 0x33, 0, 0, 0, 0x12}, mail.mac, v6(wire.IPv6{Next: 112, HopLimit: 255, Source: addr("fe80::8"), Destination: addr("ff02::12")}, zeros(24)))
	arrives := func(from netip.Addr, f []byte) packetIn {
		return s.fromUplink(nvgre(s.macs[s.uplinks[0]], uplinkNextHop, from, paHere, red1, 0, 0, f))
	}
	group, groupMAC := addr("239.1.2.3"), model.MAC{1, 0, 0x5e, 1, 2, 3}
	listened := func(from netip.Addr, f []byte) packetIn {
		return s.fromUplink(nvgre(groupMAC, uplinkNextHop, from, group, red1, 0, 0, f))
	}
	listens := func(change func(*table.Set)) func(*table.Set) {
		return func(set *table.Set) {
			if change != nil {
				change(set)
			}
			set.LocalPAs[group] = struct{}{}
			set.Peers[group] = table.Peer{PA: group, IfIndex: s.uplinks[0], MTU: 1500, NextHop: groupMAC, Source: s.macs[s.uplinks[0]]}
		}
	}
	videoMAC := model.MAC{1, 0, 0x5e, 1, 2, 3}
	video := ipFrame(videoMAC, web.mac, dgram(web.v4, addr("239.1.2.3"), 8, 20))
	mailVideo := ipFrame(videoMAC, mail.mac, dgram(mail.v4, addr("239.1.2.3"), 8, 20))
	igmp := func(kind byte, dst netip.Addr) []byte {
		return ipFrame(mdns, web.mac, v4(wire.IPv4{TTL: 1, Proto: 2, Source: web.v4, Destination: dst}, []byte{0x94, 4, 0, 0}, append([]byte{kind}, zeros(7)...)))
	}
	report, query := igmp(0x22, addr("224.0.0.22")), igmp(0x11, addr("224.0.0.1"))
	report6 := ipFrame(all6, web.mac, icmp6(wire.IPv6{HopLimit: 1, Source: addr("fe80::5"), Destination: addr("ff02::16")}, 143, 0, 1, zeros(20)))
	joins := func(vsid model.VSID, ifindex uint32, change func(*table.Set)) func(*table.Set) {
		return func(set *table.Set) {
			change(set)
			set.Groups[table.GroupMember{VSID: vsid, IfIndex: ifindex, Group: addr("239.1.2.3")}] = struct{}{}
		}
	}
	mailCast := ipFrame(mdns, mail.mac, dgram(mail.v4, addr("224.0.0.251"), 1, 20))
	mailAsk := frame(everyone, mail.mac, wire.TypeARP, arp(wire.ARPRequest, mail.mac, mail.v4, model.MAC{}, addr("10.0.0.99")))
	mailRA := ipFrame(all6, mail.mac, icmp6(wire.IPv6{HopLimit: 255, Source: mail.v6, Destination: addr("ff02::1")}, 134, 0, 0, zeros(8)))
	refused := func(name string, in packetIn, change func(*table.Set), v model.Verdict, port model.PortID) story {
		st := drop(name, in, v, port)
		st.change = change
		return st
	}
	return []story{
		flooded("multicast reaches every member once, and not its sender", s.fromPort(devWeb, cast), floodRed(s, l2, paFar), web.id, nil,
			to(devDB, db, cast), to(devFW, fw, cast), far(paFar, castFlow, cast)),
		flooded("the outer headers change from host to host", s.fromPort(devWeb, cast), floodRed(s, l2, paFar, paNarrow), web.id, nil,
			to(devDB, db, cast), to(devFW, fw, cast), far(paFar, castFlow, cast), far(paNarrow, castFlow, cast)),
		flooded("hosts that cannot be reached cost their copy alone", s.fromPort(devWeb, cast), floodRed(s, l2, paFar, paSilent, paLost, paUnknown), web.id,
			[]model.Verdict{model.VerdictNeighbourUnresolved, model.VerdictNoUnderlayRoute, model.VerdictNoUnderlayRoute},
			to(devDB, db, cast), to(devFW, fw, cast), far(paFar, castFlow, cast)),
		flooded("too big for one host", s.fromPort(devWeb, big), floodRed(s, l2, paFar, paNarrow), web.id, []model.Verdict{model.VerdictTooBig},
			to(devDB, db, big), to(devFW, fw, big), far(paFar, castFlow, big)),
		flooded("one copy to a multicast PA", s.fromPort(devWeb, cast), floodRed(s, table.Flood{L2: true, Rate: 1e9, Group: paNarrow}, paFar, paSilent), web.id, nil,
			to(devDB, db, cast), to(devFW, fw, cast), far(paNarrow, castFlow, cast)),
		flooded("the broadcast address of the prefix", s.fromPort(devWeb, directed), floodRed(s, l2), web.id, nil,
			to(devDB, db, directed), to(devFW, fw, directed)),
		flooded("multicast to a group that db has joined", s.fromPort(devWeb, video), joins(red1, s.ports[devDB], floodRed(s, l2, paFar)), web.id, nil,
			to(devDB, db, video), far(paFar, flowOf(web.v4, addr("239.1.2.3")), video)),
		flooded("multicast to a group that nobody here has joined", s.fromPort(devWeb, video), joins(blue1, s.ports[devDB], floodRed(s, l2)), web.id, nil),
		flooded("multicast from another host to a group that db has joined", arrives(paFar, mailVideo), joins(red1, s.ports[devDB], floodRed(s, l2, paFar)), 0, nil,
			to(devDB, db, mailVideo)),
		refused("a report of a group", s.fromPort(devWeb, report), floodRed(s, l2, paFar), model.VerdictGroupReport, web.id),
		refused("a report of an IPv6 group", s.fromPort(devWeb, report6), floodRed(s, l2, paFar), model.VerdictGroupReport, web.id),
		flooded("a query is for all", s.fromPort(devWeb, query), floodRed(s, l2), web.id, nil, to(devDB, db, query), to(devFW, fw, query)),
		flooded("gratuitous ARP", s.fromPort(devWeb, announce), floodRed(s, l2, paFar), web.id, nil,
			to(devDB, db, announce), to(devFW, fw, announce), far(paFar, 0, announce)),
		flooded("an unsolicited advertisement", s.fromPort(devWeb, advert), floodRed(s, l2), web.id, nil,
			to(devDB, db, advert), to(devFW, fw, advert)),
		flooded("ARP for an address outside policy", s.fromPort(devWeb, ask), floodRed(s, l2), web.id, nil,
			to(devDB, db, ask), to(devFW, fw, ask)),
		flooded("a DHCP client in an L2 subnet", s.fromPort(devWeb, dhcp), floodRed(s, l2), web.id, nil,
			to(devDB, db, dhcp), to(devFW, fw, dhcp)),
		flooded("a member without a port, and one that is in another subnet", s.fromPort(devWeb, cast), func(set *table.Set) {
			floodRed(s, l2)(set)
			set.Members[table.Member{VSID: red1, IfIndex: s.ports[devAPI]}] = table.MemberInfo{}
			set.Members[table.Member{VSID: red1, IfIndex: s.ports[devNone]}] = table.MemberInfo{}
		}, web.id, []model.Verdict{model.VerdictVsidMismatch, model.VerdictPortDown}, to(devDB, db, cast), to(devFW, fw, cast)),
		flooded("ARP that only L2Only members may answer", s.fromPort(devWeb, ask), floodRed(s, l3, paFar, paNarrow), web.id, nil,
			to(devFW, fw, ask), far(paNarrow, 0, ask)),
		flooded("a DHCP client in an L3 subnet", s.fromPort(devWeb, dhcp), floodRed(s, l3), web.id, nil,
			to(devDB, db, dhcp), to(devFW, fw, dhcp)),
		refused("multicast in an L3 subnet", s.fromPort(devWeb, cast), floodRed(s, l3, paFar), model.VerdictMulticast, web.id),
		refused("gratuitous ARP in an L3 subnet", s.fromPort(devWeb, announce), floodRed(s, l3, paFar), model.VerdictArpQuiet, web.id),
		refused("a storm", s.fromPort(devWeb, cast), floodRed(s, table.Flood{L2: true}, paFar), model.VerdictStormLimited, web.id),
		refused("a flooded frame is still held to its source", s.fromPort(devWeb, ipFrame(mdns, web.mac, dgram(db.v4, addr("224.0.0.251"), 1, 20))), floodRed(s, l2), model.VerdictSpoofedCa, web.id),
		flooded("multicast from another host goes to ports alone", arrives(paFar, mailCast), floodRed(s, l2, paFar, paNarrow), 0, nil,
			to(devWeb, web, mailCast), to(devDB, db, mailCast), to(devFW, fw, mailCast)),
		flooded("a link-local source of a host with members", arrives(paFar, vrrp6), floodRed(s, l2, paFar), 0, nil,
			to(devWeb, web, vrrp6), to(devDB, db, vrrp6), to(devFW, fw, vrrp6)),
		flooded("ARP from another host for L2Only members", arrives(paFar, mailAsk), floodRed(s, l3, paFar), 0, nil, to(devFW, fw, mailAsk)),
		flooded("a copy to a multicast PA that this host listens to", listened(paFar, mailCast), listens(floodRed(s, l2, paFar)), 0, nil,
			to(devWeb, web, mailCast), to(devDB, db, mailCast), to(devFW, fw, mailCast)),
		refused("a subnet of another host that shares the multicast PA", listened(paFar, mailCast), listens(nil), model.VerdictNoMember, 0),
		{name: "a multicast PA that this host does not listen to", in: listened(paFar, mailCast), change: floodRed(s, l2, paFar),
			want: outcome{model.VerdictPass, 0, listened(paFar, mailCast).frame}},
		flooded("one copy to a multicast PA, which stays near", s.fromPort(devWeb, cast), listens(floodRed(s, table.Flood{L2: true, Rate: 1e9, Group: group}, paFar)), web.id, nil,
			to(devDB, db, cast), to(devFW, fw, cast), sim.Copy{IfIndex: s.uplinks[0], Frame: resealed(
				nvgre(groupMAC, s.macs[s.uplinks[0]], paHere, group, red1, castFlow, 0, cast), atTTL, 16)}),
		flooded("multicast in a subnet that rewrites goes by NVGRE", s.fromPort(devWeb, cast), and(rewriting(red1, red2), floodRed(s, l2, paFar)), web.id, nil,
			to(devDB, db, cast), to(devFW, fw, cast), far(paFar, castFlow, cast)),
		flooded("gratuitous ARP in a subnet that rewrites", s.fromPort(devWeb, announce), and(rewriting(red1), floodRed(s, l2, paFar)), web.id, nil,
			to(devDB, db, announce), to(devFW, fw, announce), far(paFar, 0, announce)),
		flooded("an unsolicited advertisement in a subnet that rewrites", s.fromPort(devWeb, advert), and(rewriting(red1), floodRed(s, l2)), web.id, nil,
			to(devDB, db, advert), to(devFW, fw, advert)),
		flooded("multicast from another host in a subnet that rewrites", arrives(paFar, mailCast), and(rewriting(red1), floodRed(s, l2, paFar)), 0, nil,
			to(devWeb, web, mailCast), to(devDB, db, mailCast), to(devFW, fw, mailCast)),
		refused("multicast from a host that its source is not on, in a subnet that rewrites", arrives(paNarrow, mailCast), and(rewriting(red1), floodRed(s, l2, paFar, paNarrow)), model.VerdictSourceNotInPolicy, 0),
		refused("a link-local source of a host without members", arrives(paNarrow, vrrp6), floodRed(s, l2, paFar), model.VerdictSourceNotInPolicy, 0),
		refused("multicast from a host that its source is not on", arrives(paNarrow, mailCast), floodRed(s, l2, paFar, paNarrow), model.VerdictSourceNotInPolicy, 0),
		refused("multicast for a subnet that floods nothing", arrives(paFar, mailCast), nil, model.VerdictNoMember, 0),
		refused("multicast from another host in an L3 subnet", arrives(paFar, mailCast), floodRed(s, l3, paFar), model.VerdictMulticast, 0),
		refused("a router advertisement from another host", arrives(paFar, mailRA), floodRed(s, l2, paFar), model.VerdictRouterMessage, 0),
	}
}
