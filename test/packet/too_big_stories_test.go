package packet

import (
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// arrivedTooBigStories are of packets from other hosts that are larger than the port's MTU, 1458.
func arrivedTooBigStories(s site) []story {
	up := s.macs[s.uplinks[0]]
	in := func(transport model.TransportID, vsid model.VSID, inner []byte) packetIn {
		return s.fromUplink(tunnel{transport: transport, from: paFar, to: paHere, vsid: vsid, hash: 0x12345678}.around(up, uplinkNextHop, inner))
	}
	var all []story
	drops := func(name string, in packetIn, change func(*table.Set)) {
		all = append(all, story{name: "arrives too big: " + name, in: in, change: change, want: outcome{verdict: model.VerdictTooBig}, port: web.id})
	}
	takes := func(name string, in packetIn, change func(*table.Set), f []byte) {
		all = append(all, story{name: "arrives as large as the port takes: " + name, in: in, change: change,
			want: outcome{model.VerdictDelivered, s.ports[devWeb], f}, port: web.id, to: web.id})
	}
	both := rewriting(red1, red2)
	for _, family := range []struct {
		name      string
		mail, log ends // to web
	}{
		{"IPv4", ends{mail.v4, web.v4}, ends{log.v4, web.v4}},
		{"IPv6", ends{mail.v6, web.v6}, ends{log.v6, web.v6}},
	} {
		e, l := family.mail, family.log
		headers := len(e.tcp(64, 0))
		fits := ipFrame(web.mac, mail.mac, e.tcp(64, 1458-headers))
		big := ipFrame(web.mac, mail.mac, e.tcp(64, 1459-headers))
		merged := s.fromUplink(ipFrame(up, uplinkNextHop, e.rewritten().tcp(64, 2800)))
		takes(family.name, in(model.NVGRE, red1, fits), nil, fits)
		takes(family.name+" merged", cut(merged, 1458-uint16(headers)), both, ipFrame(web.mac, mail.mac, e.tcp(64, 2800)))
		takes(family.name+" rewritten", s.fromUplink(join(ipFrame(up, uplinkNextHop, e.rewritten().tcp(64, 1458-headers)), zeros(2))), both, fits)
		drops(family.name+" by NVGRE", in(model.NVGRE, red1, big), nil)
		drops(family.name+" by VXLAN", in(model.VXLAN, red1, big), nil)
		drops(family.name+" from another subnet", in(model.NVGRE, red1, ipFrame(web.mac, router1, l.tcp(63, 1459-headers))), nil)
		drops(family.name+" by what the guest padded it", in(model.NVGRE, red1, join(fits, zeros(1))), nil)
		drops(family.name+" merged", cut(merged, 1459-uint16(headers)), both)
		drops(family.name+" rewritten", s.fromUplink(ipFrame(up, uplinkNextHop, e.rewritten().tcp(64, 1459-headers))), both)
	}
	probe := frame(web.mac, mail.mac, wire.TypeARP, arp(wire.ARPRequest, mail.mac, mail.v4, model.MAC{}, web.v4))
	drops("ARP", in(model.NVGRE, red1, join(probe, zeros(1459-28))), nil)
	return all
}
