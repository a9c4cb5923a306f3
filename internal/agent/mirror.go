package agent

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// renderMirrors says who gets copies of what ports send and get, and whose copies come here. What such a port gets is
// copied at its device, so nothing may pass that by.
func renderMirrors(set table.Set, g *goal.Goal, devices map[model.PortID]device, u underlay) {
	for id, p := range g.Ports {
		d, plugged := devices[id]
		if !plugged {
			continue
		}
		for n, m := range p.Settings.Mirrors {
			set.Mirrors[table.MirrorKey{IfIndex: d.ifindex, N: uint8(n)}] = renderMirror(p, m, g, devices, u)
			if m.Inbound {
				changePort(set, d.ifindex, func(row *table.Port) { row.Peer = false })
			}
		}
		for _, pa := range p.Settings.Watched {
			for _, source := range u.sourcesAt(pa) {
				set.MirrorSources[table.MirrorSource{Port: id, PA: source}] = d.ifindex
			}
		}
	}
}

func renderMirror(p goal.Port, m goal.Mirror, g *goal.Goal, devices map[model.PortID]device, u underlay) table.Mirror {
	row := table.Mirror{Port: p.ID, Outbound: m.Outbound, Inbound: m.Inbound, Snap: m.Snap, Rate: m.Rate, To: m.To}
	row.Filter = table.MirrorFilter{Prefix: m.Prefix, Port: m.Port}
	if m.Protocol != nil {
		row.Filter.OneProtocol, row.Filter.Protocol = true, *m.Protocol
	}
	if _, here := g.Ports[m.To]; here {
		row.IfIndex = devices[m.To].ifindex
		return row
	}
	if way := u.peer(m.PA); m.PA.IsValid() && way.IfIndex != 0 {
		row.Way = way
		if !way.Local.IsValid() {
			row.Way.Local = u.leavesBy(p, m.PA)
		}
	}
	return row
}

// leavesBy is the address that copies for another host are sent from: the port's, or of a port on a VLAN, which has none,
// this host's first one of the family.
func (u underlay) leavesBy(p goal.Port, to netip.Addr) netip.Addr {
	if p.PA.IsValid() {
		return p.PA
	}
	for _, l := range u.locals {
		if l.address.Is4() == to.Is4() {
			return l.address
		}
	}
	return netip.Addr{}
}

// mirrorPAs are the other hosts that a port's copies go to or come from.
func mirrorPAs(p goal.Port, g *goal.Goal) []netip.Addr {
	out := slices.Clone(p.Settings.Watched)
	for _, m := range p.Settings.Mirrors {
		if _, here := g.Ports[m.To]; !here && m.PA.IsValid() {
			out = append(out, m.PA)
		}
	}
	return out
}

// mirror puts the programs of mirrors where there are mirrored ports, and where copies may come.
func (l *loop) mirror(want table.Set) []failure {
	var m datapath.Mirroring
	for k := range want.Mirrors {
		if !slices.Contains(m.Ports, k.IfIndex) {
			m.Ports = append(m.Ports, k.IfIndex)
		}
	}
	if len(want.MirrorSources) > 0 {
		m.Uplinks = slices.Sorted(maps.Keys(l.under.uplinks))
	}
	var err error
	if len(m.Ports) > 0 {
		m.Device, err = netdev.PrepareMirror()
	}
	if err == nil {
		err = l.sw.Mirror(m)
	}
	if err == nil && m.Device == 0 {
		err = netdev.RemoveMirror()
	}
	if err != nil {
		return []failure{l.hostFailure(reasonMirror, err.Error())}
	}
	return nil
}
