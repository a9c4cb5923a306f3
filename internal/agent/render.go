package agent

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// device is a plugged device that is present.
type device struct {
	ifindex uint32
	veth    bool // with its other end in another namespace
}

// render joins the Goal with the devices that its ports are plugged into and
// with the underlay. It is pure: the same input gives the same Set.
func render(g *goal.Goal, devices map[model.PortID]device, u underlay) table.Set {
	set := table.NewSet()
	for id, p := range g.Ports {
		if d, ok := devices[id]; ok {
			set.Ports[d.ifindex] = renderPort(p, d, u.guestMTU())
		}
	}
	for k, r := range g.Records {
		row := renderRecord(g, devices, r)
		set.Records[table.RecordKey(k)] = row
		if row.PA.IsValid() {
			set.Peers[row.PA] = u.peer(row.PA)
		}
	}
	for k, r := range g.Routes {
		set.Routes[table.RouteKey(k)] = table.Route(r)
	}
	for pa := range g.PAs {
		set.LocalPAs[pa] = struct{}{}
	}
	return set
}

func renderPort(p goal.Port, d device, mtu int) table.Port {
	return table.Port{
		IfIndex: d.ifindex, ID: p.ID, VSID: p.VSID, Network: p.Network, MAC: p.MAC, PA: p.PA,
		Gateway4: p.Gateway4, Gateway6: p.Gateway6, MTU: uint16(mtu), Spoof: p.Spoof, Peer: d.veth,
	}
}

func renderRecord(g *goal.Goal, devices map[model.PortID]device, r goal.Record) table.Record {
	row := table.Record{MAC: r.MAC, Router: r.Router, Port: r.Port}
	if r.Router {
		return row
	}
	if _, local := g.Ports[r.Port]; local {
		row.IfIndex = devices[r.Port].ifindex
		return row
	}
	row.PA = r.PA
	return row
}

// remotePAs lists the Provider Addresses that g sends to.
func remotePAs(g *goal.Goal) map[netip.Addr]struct{} {
	out := map[netip.Addr]struct{}{}
	for _, r := range g.Records {
		if _, local := g.Ports[r.Port]; r.PA.IsValid() && !local {
			out[r.PA] = struct{}{}
		}
	}
	return out
}
