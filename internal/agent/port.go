package agent

import (
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// renderPorts gives a row to every port of this host whose device is present.
func renderPorts(set table.Set, g *goal.Goal, devices map[model.PortID]device, mtus map[model.NetworkIndex]int) {
	for id, p := range g.Ports {
		if d, ok := devices[id]; ok && p.Settings.VLAN == nil {
			set.Ports[d.ifindex] = renderPort(p, d, mtus[p.Network])
			renderBandwidth(set, p, d)
			renderShare(set, p, d)
		}
	}
}

func renderPort(p goal.Port, d device, mtu int) table.Port {
	return table.Port{
		IfIndex: d.ifindex, ID: p.ID, VSID: p.VSID, Network: p.Network, MAC: p.MAC, PA: p.PA,
		Gateway4: p.Gateway4, Gateway6: p.Gateway6, MTU: uint16(mtu), Spoof: p.Spoof, Learn: p.Learn > 0, Peer: d.veth,
		Forward: p.Forward, External: p.External, ClampMSS: p.ClampMSS,
		DHCPGuard: !p.Settings.DHCPServer, RouterGuard: !p.Settings.Router, Teaming: p.Settings.Teaming, Allowed: len(p.Settings.Allowed) > 0, PriorityTag: p.Settings.PriorityTag,
		StormLimit: p.Settings.StormLimit, Isolation: p.Settings.Isolation.ID(),
		Connections: p.Settings.Connections,
	}
}

// changePort changes the row of a device's port, on a VLAN or in a subnet.
func changePort(set table.Set, ifindex uint32, change func(*table.Port)) {
	if row, ok := set.VLANPorts[ifindex]; ok {
		change(&row.Port)
		set.VLANPorts[ifindex] = row
		return
	}
	row := set.Ports[ifindex]
	change(&row)
	set.Ports[ifindex] = row
}
