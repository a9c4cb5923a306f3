package packet

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// The street is where the stories happen. Two tenants with the same addresses:
//
//	red    network 1   subnet 5001  10.0.0.0/24 fd00:0:0:1::/64   web db fw (here), mail (far), ...
//	                   subnet 5002  10.0.1.0/24 fd00:0:0:2::/64   api (here), log (far)
//	blue   network 2   subnet 6001  10.0.0.0/24 fd00:0:0:1::/64   web (here, the same addresses and MAC as red's)
//
// Everything outside red's subnets is led to fw, which may speak for others.
const (
	red1, red2, blue1 = model.VSID(5001), model.VSID(5002), model.VSID(6001)
)

// Provider Addresses.
var (
	paHere    = addr("192.0.2.1")
	paFar     = addr("198.51.100.2")
	paSilent  = addr("198.51.100.3") // its next hop has not told its MAC
	paLost    = addr("198.51.100.4") // a peer without a route
	paUnknown = addr("198.51.100.5") // no peer at all
	paNarrow  = addr("198.51.100.6") // behind an underlay of 1000 bytes
)

// guest is one VM NIC: what it is and where.
type guest struct {
	id     model.PortID
	mac    model.MAC
	v4, v6 netip.Addr
}

func newGuest(id byte, v4, v6 string) guest {
	return guest{model.PortID(id), model.MAC{2, 0, 0, 0, 0, id}, addr(v4), addr(v6)}
}

var (
	web    = newGuest(1, "10.0.0.5", "fd00:0:0:1::5")
	db     = newGuest(2, "10.0.0.6", "fd00:0:0:1::6")
	fw     = newGuest(3, "10.0.0.7", "fd00:0:0:1::7") // Spoof
	mail   = newGuest(4, "10.0.0.8", "fd00:0:0:1::8") // at paFar
	narrow = newGuest(5, "10.0.0.9", "fd00:0:0:1::9") // at paNarrow
	silent = newGuest(6, "10.0.0.10", "fd00:0:0:1::a")
	lost   = newGuest(7, "10.0.0.11", "fd00:0:0:1::b")
	alien  = newGuest(8, "10.0.0.12", "fd00:0:0:1::c") // at paUnknown
	asleep = newGuest(9, "10.0.0.13", "fd00:0:0:1::d") // here, not plugged
	askew  = newGuest(10, "10.0.0.14", "fd00:0:0:1::e")
	api    = newGuest(11, "10.0.1.5", "fd00:0:0:2::5")
	log    = newGuest(12, "10.0.1.6", "fd00:0:0:2::6") // at paFar
	blue   = guest{13, web.mac, web.v4, web.v6}

	gate1, gate1v6 = addr("10.0.0.1"), addr("fd00:0:0:1::1")
	gate2, gate2v6 = addr("10.0.1.1"), addr("fd00:0:0:2::1")
	router1        = model.RouterMAC(red1)
	router2        = model.RouterMAC(red2)

	uplinkNextHop = model.MAC{2, 0xaa, 0, 0, 0, 1}
)

// The devices of the street's guests, as indexes into site.ports.
const (
	devWeb = iota
	devDB
	devFW
	devAPI
	devBlue
	devNone // a device without a port
)

// street is the policy of the stories.
func street(s site) table.Set {
	set := table.NewSet()
	port := func(dev int, g guest, vsid model.VSID, network model.NetworkIndex, gate4, gate6 netip.Addr) table.Port {
		return table.Port{IfIndex: s.ports[dev], ID: g.id, VSID: vsid, Network: network, MAC: g.mac, PA: paHere,
			Gateway4: gate4, Gateway6: gate6, MTU: 1458, DHCPGuard: true, RouterGuard: true}
	}
	put := func(p table.Port) { set.Ports[p.IfIndex] = p }
	put(port(devWeb, web, red1, 1, gate1, gate1v6))
	put(port(devDB, db, red1, 1, gate1, gate1v6))
	firewall := port(devFW, fw, red1, 1, gate1, gate1v6)
	firewall.Spoof = true
	put(firewall)
	put(port(devAPI, api, red2, 1, gate2, gate2v6))
	put(port(devBlue, blue, blue1, 2, netip.Addr{}, netip.Addr{})) // no gateway, so no ICMP errors

	place := func(vsid model.VSID, g guest, r table.Record) {
		r.MAC, r.Port = g.mac, g.id
		set.Records[table.RecordKey{VSID: vsid, CA: g.v4}] = r
		set.Records[table.RecordKey{VSID: vsid, CA: g.v6}] = r
	}
	place(red1, web, table.Record{IfIndex: s.ports[devWeb]})
	place(red1, db, table.Record{IfIndex: s.ports[devDB]})
	place(red1, fw, table.Record{IfIndex: s.ports[devFW]})
	place(red2, api, table.Record{IfIndex: s.ports[devAPI]})
	place(blue1, blue, table.Record{IfIndex: s.ports[devBlue]})
	place(red1, mail, table.Record{PA: paFar})
	place(red2, log, table.Record{PA: paFar})
	place(red1, narrow, table.Record{PA: paNarrow})
	place(red1, silent, table.Record{PA: paSilent})
	place(red1, lost, table.Record{PA: paLost})
	place(red1, alien, table.Record{PA: paUnknown})
	place(red1, asleep, table.Record{})
	place(red1, askew, table.Record{IfIndex: s.ports[devAPI]}) // tables that contradict each other

	gate := func(vsid model.VSID, a netip.Addr) {
		set.Records[table.RecordKey{VSID: vsid, CA: a}] = table.Record{MAC: model.RouterMAC(vsid), Router: true}
	}
	gate(red1, gate1)
	gate(red1, gate1v6)
	gate(red2, gate2)
	gate(red2, gate2v6)

	route := func(network model.NetworkIndex, prefix string, vsid model.VSID, nextHop netip.Addr) {
		set.Routes[table.RouteKey{Network: network, Prefix: netip.MustParsePrefix(prefix)}] = table.Route{VSID: vsid, NextHop: nextHop}
	}
	route(1, "10.0.0.0/24", red1, netip.Addr{})
	route(1, "10.0.1.0/24", red2, netip.Addr{})
	route(1, "fd00:0:0:1::/64", red1, netip.Addr{})
	route(1, "fd00:0:0:2::/64", red2, netip.Addr{})
	route(1, "0.0.0.0/0", red1, fw.v4)
	route(1, "::/0", red1, fw.v6)
	route(2, "10.0.0.0/24", blue1, netip.Addr{})
	route(2, "fd00:0:0:1::/64", blue1, netip.Addr{})

	peer := func(pa netip.Addr, p table.Peer) {
		p.PA, p.Source = pa, s.macs[s.uplinks[0]]
		set.Peers[pa] = p
	}
	peer(paFar, table.Peer{IfIndex: s.uplinks[0], MTU: 1500, NextHop: uplinkNextHop})
	peer(paNarrow, table.Peer{IfIndex: s.uplinks[1], MTU: 1000, NextHop: uplinkNextHop})
	peer(paSilent, table.Peer{IfIndex: s.uplinks[0], MTU: 1500})
	peer(paLost, table.Peer{})
	set.LocalPAs[paHere] = struct{}{}
	return set
}
