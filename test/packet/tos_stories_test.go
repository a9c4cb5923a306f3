package packet

import (
	"fmt"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// tosStories tells what DSCP and ECN become on the way out and on the way in: RFC 6040 section 4.2 as it stands there,
// and the two models of RFC 2983, over either family, around either.
func tosStories(s site) []story {
	const notECT, ect1, ect0, ce, lost = 0, 1, 2, 3, 255
	// Rows: arriving inner; columns: arriving outer Not-ECT, ECT(0), ECT(1), CE.
	figure4 := map[byte][4]byte{
		notECT: {notECT, notECT, notECT, lost},
		ect0:   {ect0, ect0, ect1, ce},
		ect1:   {ect1, ect1, ect1, ce},
		ce:     {ce, ce, ce, ce},
	}
	columns := [4]byte{notECT, ect0, ect1, ce}
	up := s.macs[s.uplinks[0]]
	hello := func(six bool, tos byte) []byte { // from mail to web
		if six {
			return ipFrame(web.mac, mail.mac, v6(wire.IPv6{Class: tos, Flow: 0xabcde, HopLimit: 64, Next: wire.ProtoUDP, Source: mail.v6, Destination: web.v6}, udp(4000, 53, 4)))
		}
		return ipFrame(web.mac, mail.mac, v4(wire.IPv4{TOS: tos, TTL: 64, Proto: wire.ProtoUDP, Source: mail.v4, Destination: web.v4}, nil, udp(4000, 53, 4)))
	}
	pipe := func(set *table.Set) { set.Settings.Pipe, set.Settings.DSCP = true, 10 }
	var out []story
	for _, six := range []bool{false, true} {
		here, far := paHere, paFar
		if six {
			here, far = paHere6, paFar6
		}
		arrive := func(name string, inner, outer byte, innerSix bool, want byte, more func(*table.Set)) {
			t := tunnel{transport: model.VXLAN, from: far, to: here, vsid: red1, tos: outer}
			st := story{name: name, in: s.fromUplink(t.around(up, uplinkNextHop, hello(innerSix, inner))), port: web.id,
				change: func(set *table.Set) {
					by(model.VXLAN, here, far)(set)
					more(set)
				}}
			st.want, st.to = outcome{model.VerdictDelivered, s.ports[devWeb], hello(innerSix, want)}, web.id
			if want == lost {
				st.want, st.to = outcome{verdict: model.VerdictOuterCongestion}, 0
			}
			out = append(out, st)
		}
		uniform := func(*table.Set) {}
		for inner, row := range figure4 {
			for i, want := range row {
				name := fmt.Sprintf("RFC 6040: inner %d, outer %d, outer IPv6 %t", inner, columns[i], six)
				if want == lost {
					arrive(name, inner, columns[i], six, lost, uniform)
					arrive(name+", the fleet's DSCP", inner, 40|columns[i], six, lost, pipe)
					continue
				}
				arrive(name, inner, columns[i], !six, want, uniform)
				arrive(name+", the fleet's DSCP", 0x88|inner, 40|columns[i], six, 0x88|want, pipe)
			}
		}
		arrive(fmt.Sprintf("the underlay's DSCP, outer IPv6 %t", six), 0x88|ect0, 0x20|ce, six, 0x20|ce, uniform)
		own := func(tos byte) []byte {
			return resealed(ipFrame(mail.mac, web.mac, dgram(web.v4, mail.v4, 64, 4)), 15, tos)
		}
		for _, c := range []struct {
			inner, outer byte
			name         string
			more         func(*table.Set)
		}{{0x8b, 0x8b, "the guest's DSCP and ECN", uniform}, {0x8a, 40 | ect0, "the fleet's DSCP and the guest's ECN", pipe}} {
			t := tunnel{from: here, to: far, vsid: red1, hash: hashOf(web.v4, mail.v4), tos: c.outer}
			out = append(out, story{name: fmt.Sprintf("%s, outer IPv6 %t", c.name, six), in: s.fromPort(devWeb, own(c.inner)),
				change: func(set *table.Set) {
					by(model.NVGRE, here, far)(set)
					c.more(set)
				},
				want: outcome{model.VerdictEncapsulated, s.uplinks[0], t.around(model.MAC{}, model.MAC{}, own(c.inner))}, port: web.id})
		}
	}
	return out
}
