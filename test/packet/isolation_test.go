package packet

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// Isolations of the stories; those of communities only have to differ.
const (
	shop    model.IsolationID = 0x100
	archive model.IsolationID = 0x101
)

var isolations = []model.IsolationID{model.NoIsolation, model.Isolated, model.Promiscuous, shop, archive}

// reaches is the truth table of docs/design/pipeline.md, written out: rows and columns are isolations.
var reaches = [5][5]bool{
	//           none, isolated, promiscuous, shop, archive
	{true, false, true, false, false},
	{false, false, true, false, false},
	{true, true, true, true, true},
	{false, false, true, true, false},
	{false, false, true, false, true},
}

// isolate gives guests of a subnet an isolation, wherever the street speaks of them.
func isolate(set *table.Set, vsid model.VSID, id model.PortID, i model.IsolationID) {
	for k, p := range set.Ports {
		if p.ID == id && p.VSID == vsid {
			p.Isolation = i
			set.Ports[k] = p
		}
	}
	for k, r := range set.Records {
		if r.Port != id || k.VSID != vsid || r.Router {
			continue
		}
		r.Isolation = i
		set.Records[k] = r
		if r.PA.IsValid() {
			set.Isolations[table.MACKey{VSID: vsid, MAC: r.MAC}] = i
		}
		if pa, ok := set.RewriteOut[k]; ok {
			in := set.RewriteIn[pa]
			in.Isolation = i
			set.RewriteIn[pa] = in
		}
	}
}

// between makes web what a says and the others what b says.
func between(a, b model.IsolationID, others ...guest) func(*table.Set) {
	return func(set *table.Set) {
		isolate(set, red1, web.id, a)
		for _, g := range others {
			isolate(set, red1, g.id, b)
		}
	}
}

// isolationStories go through the whole truth table, for every way from one port to another.
func isolationStories(s site) []story {
	var out []story
	for i, a := range isolations {
		for j, b := range isolations {
			for _, st := range isolationPair(s, a, b, reaches[i][j]) {
				st.name = fmt.Sprintf("%s: %s to %s", st.name, a, b)
				out = append(out, st)
			}
		}
	}
	return append(out, isolationElsewhere(s)...)
}

// isolationPair is web, which is a, and db (here) and mail (far), which are b.
func isolationPair(s site, a, b model.IsolationID, reach bool) []story {
	up := s.macs[s.uplinks[0]]
	var out []story
	tell := func(name string, in packetIn, want outcome, port, to model.PortID) {
		st := story{name: name, in: in, change: between(a, b, db, mail), want: want, port: port, to: to}
		if !reach {
			st.want, st.to = outcome{verdict: model.VerdictIsolated}, 0
		}
		out = append(out, st)
	}
	for _, transport := range []model.TransportID{model.NVGRE, model.VXLAN} {
		for _, f := range []func(guest) netip.Addr{func(g guest) netip.Addr { return g.v4 }, func(g guest) netip.Addr { return g.v6 }} {
			here := ipFrame(db.mac, web.mac, dgram(f(web), f(db), 64, 4))
			there := ipFrame(mail.mac, web.mac, dgram(f(web), f(mail), 64, 4))
			back := ipFrame(web.mac, mail.mac, dgram(f(mail), f(web), 64, 4))
			if transport == model.VXLAN {
				tell("to another host by vxlan", s.fromPort(devWeb, there), outcome{model.VerdictEncapsulated, s.uplinks[0],
					tunnel{transport: model.VXLAN, from: paHere, to: paFar, vsid: red1, hash: hashOf(f(web), f(mail))}.around(model.MAC{}, model.MAC{}, there)}, web.id, 0)
				st := &out[len(out)-1]
				st.change = and(st.change, by(model.VXLAN, paHere, paFar))
				tell("from another host by vxlan", s.fromUplink(tunnel{transport: model.VXLAN, from: paFar, to: paHere, vsid: red1, hash: 7}.around(up, uplinkNextHop, back)),
					outcome{model.VerdictDelivered, s.ports[devWeb], back}, web.id, web.id)
				continue
			}
			tell("to a port here", s.fromPort(devWeb, here), outcome{model.VerdictDelivered, s.ports[devDB], here}, web.id, db.id)
			tell("to a port here, by the router's MAC", s.fromPort(devWeb, with(here, 0, router1[:]...)),
				outcome{model.VerdictDelivered, s.ports[devDB], here}, web.id, db.id)
			tell("to another host", s.fromPort(devWeb, there), outcome{model.VerdictEncapsulated, s.uplinks[0],
				nvgre(uplinkNextHop, up, paHere, paFar, red1, flowOf(f(web), f(mail)), 0, there)}, web.id, 0)
			tell("from another host", s.fromUplink(nvgre(up, uplinkNextHop, paFar, paHere, red1, 0, 0, back)),
				outcome{model.VerdictDelivered, s.ports[devWeb], back}, web.id, web.id)
		}
	}
	ask := func(to guest, dst model.MAC) []byte {
		return frame(dst, web.mac, wire.TypeARP, arp(wire.ARPRequest, web.mac, web.v4, model.MAC{}, to.v4))
	}
	answer := func(to guest) []byte {
		return frame(web.mac, to.mac, wire.TypeARP, arp(wire.ARPReply, to.mac, to.v4, web.mac, web.v4))
	}
	tell("ARP", s.fromPort(devWeb, ask(mail, everyone)), outcome{model.VerdictAnswered, s.ports[devWeb], answer(mail)}, web.id, 0)
	tell("an ARP probe", s.fromPort(devWeb, ask(db, db.mac)), outcome{model.VerdictDelivered, s.ports[devDB], ask(db, db.mac)}, web.id, db.id)
	reply := frame(db.mac, web.mac, wire.TypeARP, arp(wire.ARPReply, web.mac, web.v4, db.mac, db.v4))
	tell("an ARP reply", s.fromPort(devWeb, reply), outcome{model.VerdictDelivered, s.ports[devDB], reply}, web.id, db.id)
	farProbe := frame(web.mac, mail.mac, wire.TypeARP, arp(wire.ARPRequest, mail.mac, mail.v4, model.MAC{}, web.v4))
	tell("an ARP probe from another host", s.fromUplink(nvgre(up, uplinkNextHop, paFar, paHere, red1, 0, 0, farProbe)),
		outcome{model.VerdictDelivered, s.ports[devWeb], farProbe}, web.id, web.id)
	solicit := ipFrame(db.mac, web.mac, neighbour(web.v6, db.v6, wire.Neighbour{Type: wire.ICMPv6NeighbourSol, Target: db.v6, MAC: web.mac, HasMAC: true}))
	tell("an ND probe", s.fromPort(devWeb, solicit), outcome{model.VerdictDelivered, s.ports[devDB], solicit}, web.id, db.id)
	advert := ipFrame(db.mac, web.mac, neighbour(web.v6, db.v6, wire.Neighbour{Type: wire.ICMPv6NeighbourAdv, Solicited: true, Target: web.v6, MAC: web.mac, HasMAC: true}))
	tell("an ND answer", s.fromPort(devWeb, advert), outcome{model.VerdictDelivered, s.ports[devDB], advert}, web.id, db.id)
	return append(append(out, isolationFlood(s, a, b, reach)...), isolationRewrite(s, a, b, reach)...)
}

// isolationFlood is a copy for db, and one of what mail sent; the firewall is promiscuous and gets all.
func isolationFlood(s site, a, b model.IsolationID, reach bool) []story {
	mdns, all6 := model.MAC{1, 0, 0x5e, 0, 0, 0xfb}, model.MAC{0x33, 0x33, 0, 0, 0, 0x12}
	to := func(dev int, g guest, f []byte) sim.Copy { return sim.Copy{IfIndex: s.ports[dev], Frame: f, To: g.id} }
	change := and(floodRed(s, table.Flood{L2: true, Rate: 1e9}, paFar), between(a, b, db, mail), func(set *table.Set) {
		isolate(set, red1, fw.id, model.Promiscuous)
	})
	tell := func(name string, in packetIn, port model.PortID, made ...sim.Copy) story {
		return story{name: name, in: in, change: change, want: outcome{model.VerdictFlooded, 0, copies(made)}, port: port, made: made}
	}
	arrives := func(f []byte) packetIn {
		return s.fromUplink(nvgre(s.macs[s.uplinks[0]], uplinkNextHop, paFar, paHere, red1, 0, 0, f))
	}
	cast := ipFrame(mdns, web.mac, dgram(web.v4, addr("224.0.0.251"), 1, 20))
	far := sim.Copy{IfIndex: s.uplinks[0], Frame: nvgre(uplinkNextHop, s.macs[s.uplinks[0]], paHere, paFar, red1, flowOf(web.v4, addr("224.0.0.251")), 0, cast)}
	mailCast := ipFrame(mdns, mail.mac, dgram(mail.v4, addr("224.0.0.251"), 1, 20))
	nameless := ipFrame(all6, mail.mac, v6(wire.IPv6{Next: 112, HopLimit: 255, Source: addr("fe80::8"), Destination: addr("ff02::12")}, zeros(24)))
	sent, come, linkLocal := []sim.Copy{}, []sim.Copy{}, []sim.Copy{}
	if reach {
		sent = append(sent, to(devDB, db, cast))
		come = append(come, to(devWeb, web, mailCast))
		linkLocal = append(linkLocal, to(devWeb, web, nameless))
	}
	if b != model.Isolated { // mail's own kind, which db is of
		come, linkLocal = append(come, to(devDB, db, mailCast)), append(linkLocal, to(devDB, db, nameless))
	}
	return []story{
		tell("a flooded frame", s.fromPort(devWeb, cast), web.id, append(sent, to(devFW, fw, cast), far)...),
		tell("a flooded frame from another host", arrives(mailCast), 0, append(come, to(devFW, fw, mailCast))...),
		tell("a flooded frame of a link-local source on another host", arrives(nameless), 0, append(linkLocal, to(devFW, fw, nameless))...),
	}
}

// isolationRewrite is the same where addresses are rewritten.
func isolationRewrite(s site, a, b model.IsolationID, reach bool) []story {
	var out []story
	change := and(rewriting(red1), between(a, b, db, mail))
	for _, e := range []ends{{web.v4, mail.v4}, {web.v6, mail.v6}} {
		sent := story{name: "to another host by rewriting", in: s.fromPort(devWeb, ipFrame(mail.mac, web.mac, e.udp(64, 20))), change: change,
			want: outcome{model.VerdictEncapsulated, s.uplinks[0], ipFrame(model.MAC{}, model.MAC{}, e.rewritten().udp(64, 20))}, port: web.id}
		come := story{name: "from another host by rewriting", in: s.fromUplink(ipFrame(s.macs[s.uplinks[0]], uplinkNextHop, e.back().rewritten().udp(64, 20))), change: change,
			want: outcome{model.VerdictDelivered, s.ports[devWeb], ipFrame(web.mac, mail.mac, e.back().udp(64, 20))}, port: web.id, to: web.id}
		if !reach {
			sent.want, come.want, come.to = outcome{verdict: model.VerdictIsolated}, outcome{verdict: model.VerdictIsolated}, 0
		}
		out = append(out, sent, come)
	}
	return out
}

// isolationElsewhere is what is not between two ports of a subnet.
func isolationElsewhere(s site) []story {
	up := s.macs[s.uplinks[0]]
	alone := between(model.Isolated, model.Isolated, db, mail)
	apart := func(name string, in packetIn, change func(*table.Set), port model.PortID) story {
		st := drop(name, in, model.VerdictIsolated, port)
		st.change = change
		return st
	}
	ping := ipFrame(router1, web.mac, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoICMP, Source: web.v4, Destination: gate1}, nil, icmp(8, 0, 0x00070001, letters(8))))
	pong := ipFrame(web.mac, router1, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoICMP, Source: gate1, Destination: web.v4}, nil, icmp(0, 0, 0x00070001, letters(8))))
	askGate := frame(everyone, web.mac, wire.TypeARP, arp(wire.ARPRequest, web.mac, web.v4, model.MAC{}, gate1))
	gateIs := frame(web.mac, router1, wire.TypeARP, arp(wire.ARPReply, router1, gate1, web.mac, web.v4))
	out := ipFrame(router1, web.mac, dgram(web.v4, api.v4, 64, 4))
	outSent := ipFrame(api.mac, router2, dgram(web.v4, api.v4, 63, 4))
	in := ipFrame(web.mac, router1, dgram(log.v4, web.v4, 63, 4))
	outside := addr("203.0.113.9")
	toOutside := ipFrame(router1, web.mac, dgram(web.v4, outside, 64, 4))
	toFW := ipFrame(fw.mac, web.mac, dgram(web.v4, outside, 64, 4))
	// fw brings what web sends to db: from fw's own subnet, and routed from another.
	hairpin := ipFrame(db.mac, fw.mac, dgram(web.v4, db.v4, 63, 4))
	promiscuous := and(alone, func(set *table.Set) { isolate(set, red1, fw.id, model.Promiscuous) })
	spoof := func(set *table.Set) {
		p := set.Ports[s.ports[devAPI]]
		p.Spoof = true
		set.Ports[p.IfIndex] = p
	}
	throughMail := func(set *table.Set) {
		set.Forwarders[table.Forwarder{Network: 1, MAC: mail.mac, PA: paFar}] = table.Trust{Forward: true}
		isolate(set, red1, mail.id, model.Promiscuous)
	}
	gateway := func(i model.IsolationID) func(*table.Set) {
		return and(alone, func(set *table.Set) {
			set.Records[table.RecordKey{VSID: red1, CA: netip.IPv4Unspecified()}] = table.Record{MAC: mail.mac, PA: paFar, Isolation: i}
			set.Isolations[table.MACKey{VSID: red1, MAC: mail.mac}] = i
		})
	}
	fromOutside := ipFrame(web.mac, mail.mac, dgram(outside, web.v4, 60, 4))
	return []story{
		{name: "an isolated port asks for the router", in: s.fromPort(devWeb, askGate), change: alone,
			want: outcome{model.VerdictAnswered, s.ports[devWeb], gateIs}, port: web.id},
		{name: "an isolated port pings the router", in: s.fromPort(devWeb, ping), change: alone,
			want: outcome{model.VerdictAnswered, s.ports[devWeb], pong}, port: web.id},
		{name: "an isolated port reaches another subnet", in: s.fromPort(devWeb, out), change: and(alone, func(set *table.Set) { isolate(set, red2, api.id, model.Isolated) }),
			want: outcome{model.VerdictDelivered, s.ports[devAPI], outSent}, port: web.id, to: api.id},
		{name: "another subnet reaches an isolated port", in: s.fromUplink(nvgre(up, uplinkNextHop, paFar, paHere, red1, 0, 0, in)), change: alone,
			want: outcome{model.VerdictDelivered, s.ports[devWeb], in}, port: web.id, to: web.id},
		apart("an isolated port is led through a guest that is not promiscuous", s.fromPort(devWeb, toOutside), alone, web.id),
		{name: "an isolated port is led through a promiscuous guest", in: s.fromPort(devWeb, toOutside), change: promiscuous,
			want: outcome{model.VerdictDelivered, s.ports[devFW], toFW}, port: web.id, to: fw.id},
		apart("a promiscuous guest brings isolated ports together", s.fromPort(devFW, hairpin), promiscuous, fw.id),
		apart("a guest of another subnet brings isolated ports together", s.fromPort(devAPI, ipFrame(router2, api.mac, dgram(web.v4, db.v4, 63, 4))),
			and(alone, spoof), api.id),
		apart("a guest of another host brings isolated ports together", s.fromUplink(nvgre(up, uplinkNextHop, paFar, paHere, red1, 0, 0,
			ipFrame(web.mac, mail.mac, dgram(db.v4, web.v4, 63, 4)))), and(alone, throughMail), web.id),
		{name: "a guest of another host forwards from outside, to an isolated port", in: s.fromUplink(nvgre(up, uplinkNextHop, paFar, paHere, red1, 0, 0, fromOutside)),
			change: and(alone, throughMail), want: outcome{model.VerdictDelivered, s.ports[devWeb], fromOutside}, port: web.id, to: web.id},
		apart("from outside, by a gateway that is not promiscuous", s.fromUplink(nvgre(up, uplinkNextHop, paFar, paHere, red1, 0, 0, fromOutside)), gateway(model.NoIsolation), web.id),
		{name: "from outside, by a promiscuous gateway", in: s.fromUplink(nvgre(up, uplinkNextHop, paFar, paHere, red1, 0, 0, fromOutside)), change: gateway(model.Promiscuous),
			want: outcome{model.VerdictDelivered, s.ports[devWeb], fromOutside}, port: web.id, to: web.id},
		apart("an isolated port looks whether a neighbour's address is free", s.fromPort(devWeb, frame(everyone, web.mac, wire.TypeARP,
			arp(wire.ARPRequest, web.mac, addr("0.0.0.0"), model.MAC{}, db.v4))), alone, web.id),
	}
}

// addIsolation makes a subnet of a random world private.
func (w *world) addIsolation(rng *rand.Rand, sub *subnet) {
	of := map[model.MAC]model.IsolationID{}
	draw := func(mac model.MAC) model.IsolationID {
		if _, ok := of[mac]; !ok {
			of[mac] = pick(rng, isolations)
		}
		if chance(rng, 3) { // tables that contradict each other
			return pick(rng, isolations)
		}
		return of[mac]
	}
	for i, p := range w.ports {
		if p.VSID == sub.vsid {
			p.Isolation = draw(p.MAC)
			w.ports[i], w.set.Ports[p.IfIndex] = p, p
		}
	}
	for k, r := range w.set.Records {
		if k.VSID != sub.vsid || r.Router {
			continue
		}
		r.Isolation = draw(r.MAC)
		w.set.Records[k] = r
		if r.Isolation != model.NoIsolation && chance(rng, 90) {
			w.set.Isolations[table.MACKey{VSID: sub.vsid, MAC: r.MAC}] = r.Isolation
		}
	}
	for pa, in := range w.set.RewriteIn {
		if in.VSID == sub.vsid {
			in.Isolation = draw(in.MAC)
			w.set.RewriteIn[pa] = in
		}
	}
}
