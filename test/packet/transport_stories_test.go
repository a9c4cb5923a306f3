package packet

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// The same hosts on an IPv6 underlay.
var (
	paHere6 = addr("2001:db8:1::1")
	paFar6  = addr("2001:db8:2::2")
)

// by makes the street's subnet red1 use a transport, over the family of pa.
func by(transport model.TransportID, here, far netip.Addr) func(*table.Set) {
	return func(set *table.Set) {
		for k, r := range set.Records {
			if k.VSID == red1 {
				r.Transport = transport
			}
			if r.PA == paFar {
				r.PA = far
			}
			set.Records[k] = r
		}
		for i, p := range set.Ports {
			p.PA = here
			set.Ports[i] = p
		}
		peer := set.Peers[paFar]
		peer.PA = far
		set.Peers[far] = peer
		set.LocalPAs[here] = struct{}{}
	}
}

// transportStories tells of every transport over every family, and of what is only theirs.
func transportStories(s site) []story {
	var out []story
	for _, transport := range []model.TransportID{model.NVGRE, model.VXLAN} {
		out = append(out, carrierStories(s, transport, paHere, paFar)...)
		out = append(out, carrierStories(s, transport, paHere6, paFar6)...)
	}
	return slices.Concat(out, vxlanStories(s), outer6Stories(s), tosStories(s))
}

// carrierStories are true of each of them.
func carrierStories(s site, transport model.TransportID, here, far netip.Addr) []story {
	change := by(transport, here, far)
	family := "IPv4"
	if here.Is6() {
		family = "IPv6"
	}
	name := func(what string) string { return fmt.Sprintf("%s over %s: %s", transport, family, what) }
	out := tunnel{transport: transport, from: here, to: far, vsid: red1}
	in := tunnel{transport: transport, from: far, to: here, vsid: red1, hash: 0x12345678}
	limit := 1500 - out.overhead()
	sent := func(t tunnel, src, dst netip.Addr, inner []byte) outcome {
		t.hash = hashOf(src, dst)
		return outcome{model.VerdictEncapsulated, s.uplinks[0], t.around(model.MAC{}, model.MAC{}, inner)}
	}
	fit4 := resealed(ipFrame(router1, web.mac, dgram(web.v4, mail.v4, 64, limit-28)), 15, 0xb9)
	fit6 := ipFrame(router1, web.mac, dgram(web.v6, mail.v6, 64, limit-48))
	big4 := ipFrame(router1, web.mac, dgram(web.v4, mail.v4, 64, limit-27))
	big6 := ipFrame(router1, web.mac, dgram(web.v6, mail.v6, 64, limit-47))
	probe := frame(mail.mac, web.mac, wire.TypeARP, arp(wire.ARPRequest, web.mac, web.v4, model.MAC{}, mail.v4))
	probed := out.around(uplinkNextHop, s.macs[s.uplinks[0]], probe)
	marked, other := out, out
	marked.tos = 0xb9
	other.vsid, other.transport = red2, model.NVGRE // of which log's subnet is
	up := s.macs[s.uplinks[0]]
	got := func(what string, inner []byte) story {
		return story{name: name(what), in: s.fromUplink(in.around(up, uplinkNextHop, inner)), change: change,
			want: outcome{model.VerdictDelivered, s.ports[devWeb], inner}, port: web.id, to: web.id}
	}
	hello4 := ipFrame(web.mac, mail.mac, dgram(mail.v4, web.v4, 64, 4))
	padded := got("trailing bytes of the underlay", hello4)
	padded.in.frame = join(padded.in.frame, zeros(20))
	from := in
	from.from = addr("198.51.100.99")
	if here.Is6() {
		from.from = addr("2001:db8:2::99")
	}
	all := []story{
		{name: name("as large as the path carries"), in: s.fromPort(devWeb, fit4),
			want: sent(marked, web.v4, mail.v4, with(fit4, 0, mail.mac[:]...)), port: web.id},
		{name: name("as large as the path carries, IPv6 inside"), in: s.fromPort(devWeb, fit6),
			want: sent(out, web.v6, mail.v6, with(fit6, 0, mail.mac[:]...)), port: web.id},
		{name: name("too big by one"), in: s.fromPort(devWeb, big4),
			want: outcome{model.VerdictTooBig, s.ports[devWeb], told(web, red1, gate1, web.v4, 3, 4, uint32(limit), big4[14:])}, port: web.id},
		{name: name("too big by one, IPv6 inside"), in: s.fromPort(devWeb, big6),
			want: outcome{model.VerdictTooBig, s.ports[devWeb], told(web, red1, gate1v6, web.v6, 2, 0, uint32(limit), big6[14:])}, port: web.id},
		{name: name("an ARP probe"), in: s.fromPort(devWeb, probe), want: outcome{model.VerdictEncapsulated, s.uplinks[0], probed}, port: web.id},
		{name: name("to a subnet of NVGRE"), in: s.fromPort(devWeb, ipFrame(router1, web.mac, dgram(web.v4, log.v4, 64, 4))),
			want: sent(other, web.v4, log.v4, ipFrame(log.mac, router2, dgram(web.v4, log.v4, 63, 4))), port: web.id},
		got("from a neighbour far away", hello4),
		got("from a neighbour far away, IPv6 inside", ipFrame(web.mac, mail.mac, dgram(mail.v6, web.v6, 64, 4))),
		got("from another subnet", ipFrame(web.mac, router1, dgram(log.v4, web.v4, 63, 4))),
		got("an ARP probe from far away", frame(web.mac, mail.mac, wire.TypeARP, arp(wire.ARPRequest, mail.mac, mail.v4, model.MAC{}, web.v4))),
		padded,
		drop(name("cut short"), s.fromUplink(padded.in.frame[:len(padded.in.frame)-21]), model.VerdictOuterMalformed, 0),
		drop(name("no room for an inner frame"), s.fromUplink(in.around(up, uplinkNextHop, hello4[:13])), model.VerdictOuterMalformed, 0),
		drop(name("an inner packet cut short"), s.fromUplink(in.around(up, uplinkNextHop, hello4[:33])), model.VerdictFrameTruncated, 0),
		drop(name("an inner VLAN"), s.fromUplink(in.around(up, uplinkNextHop, tagged(hello4, wire.TypeVLAN, 0))), model.VerdictInnerVlan, 0),
		drop(name("from the wrong PA"), s.fromUplink(from.around(up, uplinkNextHop, hello4)), model.VerdictSourceNotInPolicy, web.id),
	}
	for i := range all {
		all[i].change = change
	}
	return all
}

func vxlanStories(s site) []story {
	up := s.macs[s.uplinks[0]]
	change := by(model.VXLAN, paHere, paFar)
	in := tunnel{transport: model.VXLAN, from: paFar, to: paHere, vsid: red1, hash: 0xffffffff}
	hello := ipFrame(web.mac, mail.mac, dgram(mail.v4, web.v4, 64, 5)) // an odd length
	good := in.around(up, uplinkNextHop, hello)
	summed := func(from, to netip.Addr, inner []byte) []byte {
		return tunnel{transport: model.VXLAN, from: from, to: to, vsid: red1, sum: true}.around(up, uplinkNextHop, inner)
	}
	long := ipFrame(web.mac, mail.mac, dgram(mail.v4, web.v4, 64, 1400))
	wrong := func(f []byte) []byte { return with(f, len(f)-1, f[len(f)-1]^1) }
	reserved := in
	reserved.vsid = 4095
	own := ipFrame(mail.mac, web.mac, dgram(web.v4, mail.v4, 64, 4))
	elsewhere := tunnel{transport: model.VXLAN, from: paHere, to: paFar, vsid: red1, hash: hashOf(web.v4, mail.v4)}.around(model.MAC{}, model.MAC{}, own)
	const atUDP, atVXLAN = 34, 42
	pass := func(name string, f []byte) story {
		return story{name: name, in: s.fromUplink(f), want: outcome{model.VerdictPass, 0, f}}
	}
	all := []story{
		{name: "VXLAN: reserved bits that a receiver ignores", in: s.fromUplink(with(with(good, atVXLAN, 0xff, 1, 2, 3), atVXLAN+7, 9))},
		{name: "VXLAN: a checksum that is right", in: s.fromUplink(summed(paFar, paHere, hello))},
		{name: "VXLAN: a checksum that is right, over many bytes", in: s.fromUplink(summed(paFar, paHere, long))},
		{name: "VXLAN: a checksum that is right, and trailing bytes", in: s.fromUplink(join(summed(paFar, paHere, hello), []byte("trailing")))},
	}
	for i := range all {
		inner := hello
		if len(all[i].in.frame) > 1000 {
			inner = long
		}
		all[i].want, all[i].port, all[i].to = outcome{model.VerdictDelivered, s.ports[devWeb], inner}, web.id, web.id
	}
	all = append(all,
		drop("VXLAN: a checksum that is wrong", s.fromUplink(wrong(summed(paFar, paHere, hello))), model.VerdictOuterChecksum, 0),
		drop("VXLAN: a checksum that is wrong, over many bytes", s.fromUplink(wrong(summed(paFar, paHere, long))), model.VerdictOuterChecksum, 0),
		drop("VXLAN: without a network", s.fromUplink(with(good, atVXLAN, 0xf7)), model.VerdictOuterMalformed, 0),
		drop("VXLAN: UDP shorter than IP", s.fromUplink(with(good, atUDP+5, good[atUDP+5]-1)), model.VerdictOuterMalformed, 0),
		drop("VXLAN: UDP longer than IP", s.fromUplink(with(good, atUDP+5, good[atUDP+5]+1)), model.VerdictOuterMalformed, 0),
		drop("VXLAN: VNI 4095", s.fromUplink(reserved.around(up, uplinkNextHop, hello)), model.VerdictVsidReserved, 0),
		drop("VXLAN: an outer checksum that is wrong", s.fromUplink(with(good, 24, good[24]^1)), model.VerdictOuterMalformed, 0),
		drop("VXLAN: the first outer fragment", s.fromUplink(resealed(good, atFragment, 0x20, 0)), model.VerdictOuterFragment, 0),
		pass("VXLAN: a later outer fragment, which shows no port", resealed(good, atFragment, 0, 6)),
		pass("VXLAN: behind outer options, where no port is looked for", resealed(good, atIP, 0x46)),
		pass("UDP to another port of a PA", with(good, atUDP+2, 0, 53)),
		pass("UDP to an address of the host that is no PA", resealed(good, 30, 192, 0, 2, 99)),
	)
	for i := range all {
		all[i].change = change
	}
	port := func(set *table.Set) {
		change(set)
		set.Settings.VXLANPort = 8472
	}
	return append(all,
		story{name: "VXLAN to the port that the fleet uses", in: s.fromPort(devWeb, own), change: port,
			want: outcome{model.VerdictEncapsulated, s.uplinks[0], with(elsewhere, atUDP+2, 8472>>8, 8472&0xff)}, port: web.id},
		story{name: "VXLAN from the port that the fleet uses", in: s.fromUplink(with(good, atUDP+2, 8472>>8, 8472&0xff)), change: port,
			want: outcome{model.VerdictDelivered, s.ports[devWeb], hello}, port: web.id, to: web.id},
		story{name: "VXLAN to a port that the fleet does not use", in: s.fromUplink(good), change: port, want: outcome{model.VerdictPass, 0, good}},
		story{name: "NVGRE to a subnet that uses VXLAN", in: s.fromUplink(tunnel{from: paFar, to: paHere, vsid: red1}.around(up, uplinkNextHop, hello)), change: change,
			want: outcome{model.VerdictDelivered, s.ports[devWeb], hello}, port: web.id, to: web.id},
	)
}

func outer6Stories(s site) []story {
	up := s.macs[s.uplinks[0]]
	hello := ipFrame(web.mac, mail.mac, dgram(mail.v4, web.v4, 64, 4))
	in := func(transport model.TransportID, sum bool) []byte {
		return tunnel{transport: transport, from: paFar6, to: paHere6, vsid: red1, sum: sum}.around(up, uplinkNextHop, hello)
	}
	good := in(model.NVGRE, false)
	behind := join(good[:54], []byte{wire.ProtoGRE, 0, 1, 4, 0, 0, 0, 0}, good[54:])
	behind = with(with(behind, 20, wire.ProtoDestOpts), 18, byte((len(behind)-54)>>8), byte(len(behind)-54))
	mapped := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 198, 51, 100, 2} // paFar
	toMapped := []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1}  // paHere
	summed := in(model.VXLAN, true)
	pass := func(name string, f []byte) story {
		return story{name: name, in: s.fromUplink(f), want: outcome{model.VerdictPass, 0, f}}
	}
	all := []story{
		{name: "VXLAN over IPv6: a checksum that is right", in: s.fromUplink(summed),
			want: outcome{model.VerdictDelivered, s.ports[devWeb], hello}, port: web.id, to: web.id},
		drop("VXLAN over IPv6: a checksum that is wrong", s.fromUplink(with(summed, 80, summed[80]^4)), model.VerdictOuterChecksum, 0),
		drop("outer IPv6 of version 4", s.fromUplink(with(good, 14, 0x40)), model.VerdictOuterMalformed, 0),
		drop("outer IPv6 from a mapped address", s.fromUplink(with(good, 22, mapped...)), model.VerdictOuterMalformed, 0),
		drop("outer IPv6 from a group", s.fromUplink(with(good, 22, 0xff)), model.VerdictOuterMalformed, 0),
		drop("GRE with a checksum over IPv6", s.fromUplink(with(good, 54, 0xa0)), model.VerdictOuterMalformed, 0),
		pass("outer IPv6 to a mapped PA", with(good, 38, toMapped...)),
		pass("GRE behind an extension header, which nobody sends", behind),
		pass("IPv6 to an address of the host that is no PA", with(good, 53, 99)),
		pass("TCP to a PA over IPv6", with(good, 20, wire.ProtoTCP)),
	}
	for i := range all {
		all[i].change = by(model.VXLAN, paHere6, paFar6)
	}
	return append(all, story{name: "to a PA of another family than the port's", in: s.fromPort(devWeb, ipFrame(mail.mac, web.mac, dgram(web.v4, mail.v4, 64, 4))),
		change: by(model.NVGRE, paHere, paFar6), want: outcome{verdict: model.VerdictNoUnderlayRoute}, port: web.id})
}
