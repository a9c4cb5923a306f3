package packet

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// forwards makes db, here, a guest that forwards, to which routes lead: to red2's api and log,
// and back to red1's mail and web. The direct routes tell where these are at home.
func forwards(set *table.Set) {
	for i, p := range set.Ports {
		p.Forward = p.ID == db.id
		set.Ports[i] = p
	}
	led(set, db)
}

// led leads the subnets of red's network through a guest, each by its halves.
func led(set *table.Set, through guest) {
	for k, r := range set.Routes {
		if k.Network != 1 || r.NextHop.IsValid() {
			continue
		}
		set.Routes[table.RouteKey{Network: k.Network.Direct(), Prefix: k.Prefix}] = r
	}
	for _, half := range []string{"10.0.0.0/25", "10.0.1.0/25", "fd00:0:0:1::/65", "fd00:0:0:2::/65"} {
		p := netip.MustParsePrefix(half)
		hop := through.v6
		if p.Addr().Is4() {
			hop = through.v4
		}
		set.Routes[table.RouteKey{Network: 1, Prefix: p}] = table.Route{VSID: red1, NextHop: hop}
	}
}

// forwardsFar lets mail, at paFar, forward for red's network.
func forwardsFar(set *table.Set) {
	led(set, mail)
	set.Forwarders[table.Forwarder{Network: 1, PA: paFar}] = table.Trust{Forward: true}
	set.Forwarders[table.Forwarder{Network: 1, MAC: mail.mac, PA: paFar}] = table.Trust{Forward: true}
}

// external leaves red's subnets to external routers: db in red1, of which a route tells.
func external(set *table.Set) {
	for i, p := range set.Ports {
		if p.Network == 1 {
			p.External = true
			set.Ports[i] = p
		}
	}
	for k, r := range set.Routes {
		if k.Network == 1 && !r.NextHop.IsValid() {
			delete(set.Routes, k)
			set.Routes[table.RouteKey{Network: k.Network.Direct(), Prefix: k.Prefix}] = r
		}
	}
	set.Routes[table.RouteKey{Network: 1, Prefix: netip.MustParsePrefix("10.0.1.0/24")}] = table.Route{VSID: red1, NextHop: db.v4}
	delete(set.Routes, table.RouteKey{Network: 1, Prefix: netip.MustParsePrefix("::/0")})
}

// forwardStories are about packets that go, or have gone, through a guest.
func forwardStories(s site) []story {
	// Of api, in the other subnet, to db, in the port's own: so it comes to the guest that forwards.
	sent := func(dst, src model.MAC, from, to netip.Addr, ttl uint8) []byte {
		return ipFrame(dst, src, dgram(from, to, ttl, 4))
	}
	out := func(dev int, from guest, src, dst netip.Addr) packetIn {
		return s.fromPort(dev, sent(router1, from.mac, src, dst, 64))
	}
	carried := func(vsid model.VSID, inner []byte, src, dst netip.Addr) outcome {
		return outcome{model.VerdictEncapsulated, s.uplinks[0], nvgre(uplinkNextHop, s.macs[s.uplinks[0]], paHere, paFar, vsid, flowOf(src, dst), 0, inner)}
	}
	in := func(vsid model.VSID, pa netip.Addr, inner []byte) packetIn {
		return s.fromUplink(nvgre(s.macs[s.uplinks[0]], uplinkNextHop, pa, paHere, vsid, 7, 0, inner))
	}
	handed := func(dev int, inner []byte) outcome {
		return outcome{model.VerdictDelivered, s.ports[dev], inner}
	}
	refused := func(name string, in packetIn, change func(*table.Set), v model.Verdict, port model.PortID) story {
		st := drop(name, in, v, port)
		st.change = change
		return st
	}
	outside := addr("203.0.113.9")
	fromAPI := sent(web.mac, router1, api.v4, web.v4, 63)    // of a subnet here, so never from afar but forwarded
	fromLog := sent(web.mac, router1, log.v4, web.v4, 63)    // of the other subnet, at paFar
	beside := sent(web.mac, mail.mac, api.v6, web.v6, 63)    // from mail in web's subnet, of somebody else
	lonely := sent(web.mac, narrow.mac, api.v4, web.v4, 63)  // from who does not forward
	fromMail := sent(web.mac, mail.mac, mail.v4, web.v4, 64) // its own
	return []story{
		{name: "to another subnet, by the guest that a route leads through", in: out(devWeb, web, web.v4, api.v4), change: forwards, port: web.id, to: db.id,
			want: handed(devDB, sent(db.mac, web.mac, web.v4, api.v4, 64))},
		{name: "the same, IPv6", in: out(devWeb, web, web.v6, api.v6), change: forwards, port: web.id, to: db.id,
			want: handed(devDB, sent(db.mac, web.mac, web.v6, api.v6, 64))},
		{name: "on from the guest to the subnet behind it", in: out(devDB, db, web.v4, api.v4), change: forwards, port: db.id, to: api.id,
			want: handed(devAPI, sent(api.mac, router2, web.v4, api.v4, 63))},
		{name: "on from the guest to afar", in: out(devDB, db, mail.v6, log.v6), change: forwards, port: db.id,
			want: carried(red2, sent(log.mac, router2, mail.v6, log.v6, 63), mail.v6, log.v6)},
		{name: "on from the guest to its own subnet", in: s.fromPort(devDB, sent(web.mac, db.mac, api.v4, web.v4, 63)), change: forwards, port: db.id, to: web.id,
			want: handed(devWeb, sent(web.mac, db.mac, api.v4, web.v4, 63))},
		{name: "on from the guest, of somebody outside policy", in: s.fromPort(devDB, sent(web.mac, db.mac, outside, web.v4, 63)), change: forwards, port: db.id, to: web.id,
			want: handed(devWeb, sent(web.mac, db.mac, outside, web.v4, 63))},
		refused("a guest that does not forward sends what is another's", out(devWeb, web, api.v4, db.v4), forwards, model.VerdictSpoofedCa, web.id),
		refused("a guest that forwards, from a group", out(devDB, db, addr("224.0.0.9"), web.v4), forwards, model.VerdictSpoofedCa, db.id),
		refused("a guest that forwards, from loopback", out(devDB, db, addr("127.0.0.1"), web.v4), forwards, model.VerdictSpoofedCa, db.id),
		refused("a guest that forwards, with another's MAC", s.fromPort(devDB, sent(web.mac, mail.mac, api.v4, web.v4, 63)), forwards, model.VerdictSpoofedMac, db.id),
		refused("a guest that forwards has no route for what no subnet has", out(devDB, db, web.v4, outside), func(set *table.Set) {
			forwards(set)
			set.Routes[table.RouteKey{Network: 1, Prefix: netip.MustParsePrefix("0.0.0.0/0")}] = table.Route{VSID: red1, NextHop: db.v4}
		}, model.VerdictRouteToSelf, db.id),

		{name: "from a subnet to which a route leads through a guest", in: in(red1, paFar, fromLog), change: forwards, want: handed(devWeb, fromLog), port: web.id, to: web.id},
		{name: "routed by the host of a guest that forwards", in: in(red1, paFar, fromAPI), change: forwardsFar, want: handed(devWeb, fromAPI), port: web.id, to: web.id},
		{name: "from a guest that forwards, in the same subnet", in: in(red1, paFar, beside), change: forwardsFar, want: handed(devWeb, beside), port: web.id, to: web.id},
		{name: "from the same guest, its own", in: in(red1, paFar, fromMail), change: forwardsFar, want: handed(devWeb, fromMail), port: web.id, to: web.id},
		refused("routed by a host without a guest that forwards", in(red1, paFar, fromAPI), forwards, model.VerdictSourceNotInPolicy, web.id),
		refused("from a guest that does not forward", in(red1, paFar, lonely), forwardsFar, model.VerdictSourceNotInPolicy, web.id),
		refused("from a guest that forwards, by another host", in(red1, paNarrow, beside), forwardsFar, model.VerdictSourceNotInPolicy, web.id),
		refused("forwarded, for another tenant", in(blue1, paFar, sent(blue.mac, mail.mac, api.v4, blue.v4, 63)), forwardsFar, model.VerdictSourceNotInPolicy, blue.id),
		refused("forwarded, from a group", in(red1, paFar, sent(web.mac, mail.mac, addr("224.0.0.9"), web.v4, 63)), forwardsFar, model.VerdictSourceNotInPolicy, web.id),

		{name: "an external router joins the subnets", in: out(devWeb, web, web.v4, api.v4), change: external, port: web.id, to: db.id,
			want: handed(devDB, sent(db.mac, web.mac, web.v4, api.v4, 64))},
		{name: "an external router is not asked within a subnet", in: out(devWeb, web, web.v4, mail.v4), change: external, port: web.id,
			want: carried(red1, sent(mail.mac, web.mac, web.v4, mail.v4, 64), web.v4, mail.v4)},
		refused("an external router is not asked for who is not in the subnet", out(devWeb, web, web.v4, addr("10.0.0.99")), external, model.VerdictNoRecord, web.id),
		refused("without a route to an external router, no subnet reaches another", out(devWeb, web, web.v6, api.v6), external, model.VerdictNoRoute, web.id),
		{name: "from another subnet, though routers join them", in: in(red1, paFar, fromLog), change: external, want: handed(devWeb, fromLog), port: web.id, to: web.id},
	}
}
