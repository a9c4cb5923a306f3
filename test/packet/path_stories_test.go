package packet

import (
	"fmt"
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// More addresses of this host and of the one that mail lives on.
var (
	paHere2 = addr("192.0.2.129")
	paFar2  = addr("198.51.100.130")
	paFar9  = addr("198.51.100.139") // that it had before
)

// severalWays gives the host at paFar a second address and four ways to it.
func severalWays(s site) func(*table.Set) {
	return func(set *table.Set) {
		way := func(local, remote netip.Addr, uplink int, mtu uint16) table.Peer {
			return table.Peer{PA: paFar, Local: local, Remote: remote, IfIndex: s.uplinks[uplink], MTU: mtu,
				NextHop: uplinkNextHop, Source: s.macs[s.uplinks[uplink]]}
		}
		set.Peers[paFar] = way(paHere, netip.Addr{}, 0, 1500)
		for i, p := range []table.Peer{way(paHere2, paFar2, 1, 1000), way(paHere6, paFar6, 1, 1500), way(paHere2, paFar, 1, 1400)} {
			set.Paths[table.PathKey{PA: paFar, N: uint8(i + 1)}] = p
		}
		for _, pa := range []netip.Addr{paFar2, paFar6} {
			set.Sources[table.Source{Peer: paFar, PA: pa}] = struct{}{}
		}
		set.LocalPAs[paHere2], set.LocalPAs[paHere6] = struct{}{}, struct{}{}
	}
}

// pathStories tell of hosts with several addresses.
func pathStories(s site) []story {
	change := severalWays(s)
	ways := []struct {
		out tunnel
		dev uint32
	}{
		{tunnel{from: paHere, to: paFar}, s.uplinks[0]},
		{tunnel{from: paHere2, to: paFar2}, s.uplinks[1]},
		{tunnel{from: paHere6, to: paFar6}, s.uplinks[1]},
		{tunnel{from: paHere2, to: paFar}, s.uplinks[1]},
	}
	var all []story
	// The way follows from the flow, and every way is somebody's.
	taken := map[int]bool{}
	for sport := uint16(1000); sport < 1040 && len(taken) < len(ways); sport++ {
		n := int(hashOfPorts(web.v4, mail.v4, sport, 53) >> 8 % 4)
		if taken[n] {
			continue
		}
		taken[n] = true
		inner := ipFrame(mail.mac, web.mac, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoUDP, Source: web.v4, Destination: mail.v4}, nil, udp(sport, 53, 4)))
		t := ways[n].out
		t.vsid, t.hash = red1, hashOfPorts(web.v4, mail.v4, sport, 53)
		all = append(all, story{name: fmt.Sprintf("several ways: port %d takes way %d", sport, n), in: s.fromPort(devWeb, inner), change: change,
			want: outcome{model.VerdictEncapsulated, ways[n].dev, t.around(model.MAC{}, model.MAC{}, inner)}, port: web.id})
		if n == 1 {
			big := ipFrame(mail.mac, web.mac, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoUDP, Source: web.v4, Destination: mail.v4}, nil, udp(sport, 53, 958-28+1)))
			all = append(all, story{name: "several ways: each has an MTU of its own", in: s.fromPort(devWeb, big), change: change,
				want: outcome{model.VerdictTooBig, s.ports[devWeb], told(web, red1, gate1, web.v4, 3, 4, 958, big[14:])}, port: web.id})
		}
	}
	if len(taken) != len(ways) {
		panic("some way is nobody's")
	}
	hello := ipFrame(web.mac, mail.mac, dgram(mail.v4, web.v4, 64, 4))
	from := func(to, pa netip.Addr, inner []byte) packetIn {
		return s.fromUplink(tunnel{from: pa, to: to, vsid: red1}.around(s.macs[s.uplinks[0]], uplinkNextHop, inner))
	}
	probe := frame(mail.mac, web.mac, wire.TypeARP, arp(wire.ARPRequest, web.mac, web.v4, model.MAC{}, mail.v4))
	all = append(all,
		story{name: "several ways: ARP takes the first", in: s.fromPort(devWeb, probe), change: change,
			want: outcome{model.VerdictEncapsulated, s.uplinks[0], tunnel{from: paHere, to: paFar, vsid: red1}.around(uplinkNextHop, s.macs[s.uplinks[0]], probe)}, port: web.id},
		story{name: "several addresses: from the second", in: from(paHere2, paFar2, hello), change: change,
			want: outcome{model.VerdictDelivered, s.ports[devWeb], hello}, port: web.id, to: web.id},
		story{name: "several addresses: from one of another family", in: from(paHere6, paFar6, hello), change: change,
			want: outcome{model.VerdictDelivered, s.ports[devWeb], hello}, port: web.id, to: web.id},
		drop("several addresses: from the one that names it, which is not usable", from(paHere, paFar, hello), model.VerdictSourceNotInPolicy, web.id),
		drop("several addresses: from one that it has not any more", from(paHere, paFar9, hello), model.VerdictSourceNotInPolicy, web.id),
	)
	for i := range all {
		all[i].change = change
	}
	return all
}
