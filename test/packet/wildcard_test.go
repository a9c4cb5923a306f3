package packet

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// gatewayAt lets the record stand for all that the subnet does not know, and leads the
// default routes there by a next hop that is nobody.
func gatewayAt(vsid model.VSID, mac model.MAC, r table.Record) func(*table.Set) {
	r.MAC = mac
	return func(set *table.Set) {
		hop4, hop6 := addr("10.0.0.254"), addr("fd00:0:0:1::fe")
		if vsid == red2 {
			hop4, hop6 = addr("10.0.1.254"), addr("fd00:0:0:2::fe")
		}
		set.Records[table.RecordKey{VSID: vsid, CA: netip.IPv4Unspecified()}] = r
		set.Records[table.RecordKey{VSID: vsid, CA: netip.IPv6Unspecified()}] = r
		set.Routes[table.RouteKey{Network: 1, Prefix: netip.MustParsePrefix("0.0.0.0/0")}] = table.Route{VSID: vsid, NextHop: hop4}
		set.Routes[table.RouteKey{Network: 1, Prefix: netip.MustParsePrefix("::/0")}] = table.Route{VSID: vsid, NextHop: hop6}
	}
}

// wildcardStories tell of GatewayWildcard records: db is the gateway of web's subnet, or mail
// far away is, or log far away in the other subnet.
func wildcardStories(s site) []story {
	outside4, outside6 := addr("203.0.113.9"), addr("2001:db8::9")
	here := gatewayAt(red1, db.mac, table.Record{IfIndex: s.ports[devDB], Port: db.id})
	far := gatewayAt(red1, mail.mac, table.Record{PA: paFar, Port: mail.id})
	beyond := gatewayAt(red2, log.mac, table.Record{PA: paFar, Port: log.id})
	send := func(dst netip.Addr) packetIn {
		src := web.v4
		if dst.Is6() {
			src = web.v6
		}
		return s.fromPort(devWeb, ipFrame(router1, web.mac, dgram(src, dst, 64, 4)))
	}
	sent := func(to, from model.MAC, src, dst netip.Addr, ttl uint8) []byte {
		return ipFrame(to, from, dgram(src, dst, ttl, 4))
	}
	carried := func(vsid model.VSID, inner []byte, src, dst netip.Addr) outcome {
		return outcome{model.VerdictEncapsulated, s.uplinks[0], nvgre(uplinkNextHop, s.macs[s.uplinks[0]], paHere, paFar, vsid, flowOf(src, dst), 0, inner)}
	}
	in := func(vsid model.VSID, pa netip.Addr, inner []byte) packetIn {
		return s.fromUplink(nvgre(s.macs[s.uplinks[0]], uplinkNextHop, pa, paHere, vsid, 7, 0, inner))
	}
	handed := func(inner []byte) outcome { return outcome{model.VerdictDelivered, s.ports[devWeb], inner} }
	from := func(g guest, src netip.Addr) packetIn {
		dev := devDB
		if g == web {
			dev = devWeb
		}
		to := web
		if g == web {
			to = db
		}
		dst := to.v4
		if src.Is6() {
			dst = to.v6
		}
		return s.fromPort(dev, ipFrame(to.mac, g.mac, dgram(src, dst, 64, 4)))
	}
	refused := func(name string, in packetIn, change func(*table.Set), v model.Verdict, port model.PortID) story {
		st := drop(name, in, v, port)
		st.change = change
		return st
	}
	arpOutside := frame(web.mac, mail.mac, wire.TypeARP, arp(wire.ARPRequest, mail.mac, outside4, model.MAC{}, web.v4))
	return []story{
		{name: "to outside policy by a gateway here", in: send(outside4), change: here, port: web.id, to: db.id,
			want: outcome{model.VerdictDelivered, s.ports[devDB], sent(db.mac, web.mac, web.v4, outside4, 64)}},
		{name: "to outside policy by a gateway here, IPv6", in: send(outside6), change: here, port: web.id, to: db.id,
			want: outcome{model.VerdictDelivered, s.ports[devDB], sent(db.mac, web.mac, web.v6, outside6, 64)}},
		{name: "to outside policy by a gateway far away", in: send(outside4), change: far, port: web.id,
			want: carried(red1, sent(mail.mac, web.mac, web.v4, outside4, 64), web.v4, outside4)},
		{name: "to outside policy by a gateway in another subnet", in: send(outside6), change: beyond, port: web.id,
			want: carried(red2, sent(log.mac, router2, web.v6, outside6, 63), web.v6, outside6)},
		{name: "to an address of the subnet that nobody has", in: send(addr("10.0.0.99")), change: here, port: web.id, to: db.id,
			want: outcome{model.VerdictDelivered, s.ports[devDB], sent(db.mac, web.mac, web.v4, addr("10.0.0.99"), 64)}},
		{name: "a record comes before the gateway", in: send(mail.v4), change: here, port: web.id,
			want: carried(red1, sent(mail.mac, web.mac, web.v4, mail.v4, 64), web.v4, mail.v4)},
		refused("the gateway is not plugged", send(outside4), gatewayAt(red1, db.mac, table.Record{Port: db.id}), model.VerdictPortDown, web.id),
		refused("the gateway itself to outside policy", s.fromPort(devDB, ipFrame(router1, db.mac, dgram(db.v4, outside4, 64, 4))), here, model.VerdictRouteToSelf, db.id),
		refused("ARP for an address that only the gateway stands for", s.fromPort(devWeb, frame(everyone, web.mac, wire.TypeARP,
			arp(wire.ARPRequest, web.mac, web.v4, model.MAC{}, addr("10.0.0.99")))), here, model.VerdictArpNoRecord, web.id),
		refused("ARP for no address", s.fromPort(devWeb, frame(everyone, web.mac, wire.TypeARP,
			arp(wire.ARPRequest, web.mac, web.v4, model.MAC{}, addr("0.0.0.0")))), here, model.VerdictArpNoRecord, web.id),
		refused("another tenant has no part in the gateway", s.fromPort(devBlue, ipFrame(db.mac, blue.mac, dgram(blue.v4, addr("10.0.0.99"), 64, 4))), here, model.VerdictNoRecord, blue.id),

		{name: "from outside policy by the gateway here", in: from(db, outside4), change: here, want: handed(sent(web.mac, db.mac, outside4, web.v4, 64)), port: db.id, to: web.id},
		{name: "from outside policy by the gateway here, IPv6", in: from(db, outside6), change: here, want: handed(sent(web.mac, db.mac, outside6, web.v6, 64)), port: db.id, to: web.id},
		refused("from outside policy by another port", from(web, outside4), here, model.VerdictSpoofedCa, web.id),
		refused("the gateway speaks for a neighbour", from(db, mail.v4), here, model.VerdictSpoofedCa, db.id),
		refused("the gateway speaks for somebody of another subnet", from(db, log.v6), here, model.VerdictSpoofedCa, db.id),
		refused("the gateway speaks for the router", from(db, gate2), here, model.VerdictSpoofedCa, db.id),
		refused("the gateway speaks for a group", from(db, addr("224.0.0.9")), here, model.VerdictSpoofedCa, db.id),
		refused("the gateway speaks for loopback", from(db, addr("::1")), here, model.VerdictSpoofedCa, db.id),
		refused("the gateway answers ARP for outside policy", s.fromPort(devDB, frame(web.mac, db.mac, wire.TypeARP,
			arp(wire.ARPReply, db.mac, outside4, web.mac, web.v4))), here, model.VerdictSpoofedArp, db.id),

		{name: "from outside policy by the gateway far away", in: in(red1, paFar, sent(web.mac, mail.mac, outside4, web.v4, 9)), change: far, want: handed(sent(web.mac, mail.mac, outside4, web.v4, 9)), port: web.id, to: web.id},
		{name: "from outside policy by a gateway in another subnet", in: in(red1, paFar, sent(web.mac, router1, outside6, web.v6, 9)), change: beyond, want: handed(sent(web.mac, router1, outside6, web.v6, 9)), port: web.id, to: web.id},
		refused("from outside policy by another host", in(red1, paNarrow, sent(web.mac, mail.mac, outside4, web.v4, 9)), far, model.VerdictSourceNotInPolicy, web.id),
		refused("from outside policy by another host's router", in(red1, paNarrow, sent(web.mac, router1, outside4, web.v4, 9)), beyond, model.VerdictSourceNotInPolicy, web.id),
		refused("from outside policy under another MAC", in(red1, paFar, sent(web.mac, narrow.mac, outside4, web.v4, 9)), far, model.VerdictSourceNotInPolicy, web.id),
		refused("the far gateway speaks for a neighbour", in(red1, paFar, sent(web.mac, mail.mac, db.v4, web.v4, 9)), far, model.VerdictSourceNotInPolicy, web.id),
		refused("the far gateway speaks for somebody of another subnet", in(red1, paFar, sent(web.mac, mail.mac, api.v4, web.v4, 9)), far, model.VerdictSourceNotInPolicy, web.id),
		refused("the far gateway speaks for no address", in(red1, paFar, sent(web.mac, mail.mac, addr("0.0.0.0"), web.v4, 9)), far, model.VerdictSourceNotInPolicy, web.id),
		refused("the far gateway's router speaks for a group", in(red1, paFar, sent(web.mac, router1, addr("224.0.0.9"), web.v4, 9)), beyond, model.VerdictSourceNotInPolicy, web.id),
		refused("the far gateway asks as outside policy", in(red1, paFar, arpOutside), far, model.VerdictSourceNotInPolicy, web.id),
	}
}
