package agent

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// external is a device of this host that leads to an external network.
type external struct {
	index uint32
	mtu   int
}

// externals finds the devices that ports on VLANs need, by name; those that are missing are not in it.
func (l *loop) externals(g *goal.Goal) map[string]external {
	var out map[string]external
	for _, p := range g.Ports {
		if p.Interface == "" {
			continue
		}
		for _, link := range l.links {
			if link.Name != p.Interface {
				continue
			}
			if out == nil {
				out = map[string]external{}
			}
			out[link.Name] = external{link.Index, min(link.MTU, largestMTU)}
		}
	}
	return out
}

// renderVLANPorts gives a row to every port on a VLAN whose device is present.
func renderVLANPorts(set table.Set, g *goal.Goal, devices map[model.PortID]device, externals map[string]external) {
	for id, p := range g.Ports {
		if d, ok := devices[id]; ok && p.Settings.VLAN != nil {
			set.VLANPorts[d.ifindex] = renderVLANPort(p, d, externals[p.Interface])
			renderBandwidth(set, p, d)
		}
	}
}

func renderVLANPort(p goal.Port, d device, e external) table.VLANPort {
	row := table.VLANPort{Port: renderPort(p, d, cmp.Or(e.mtu, ethernetMTU)), Uplink: e.index, Held: len(p.CAs)+len(p.Settings.Allowed) > 0,
		StormRate: cmp.Or(p.Settings.StormLimit, model.DefaultStormLimit)}
	row.StormLimit = 0 // of ports in a subnet
	switch v := p.Settings.VLAN; v.Mode {
	case model.VLANUntagged:
		row.Sends, row.Receives = table.NewVLANs(0), table.NewVLANs(0)
	case model.VLANAccess:
		row.Native, row.Sends, row.Receives = v.ID, table.NewVLANs(v.ID), table.NewVLANs(v.ID)
	case model.VLANTrunk:
		row.Trunk, row.Native, row.Sends = true, v.Native, trunked(v)
		row.Receives = row.Sends
	case model.VLANPrivate:
		row.Native, row.Receives = private(v.Private)
		row.Sends = table.NewVLANs(row.Native)
	}
	return row
}

// trunked are the VLANs of a trunk: those allowed but not pruned, and the native one.
func trunked(v *model.VLAN) (out table.VLANs) {
	for _, r := range v.Allowed {
		for id := int(r.First); id <= min(int(r.Last), model.MaxVLAN); id++ {
			out.Add(uint16(id))
		}
	}
	for _, r := range v.Prune {
		for id := int(r.First); id <= min(int(r.Last), model.MaxVLAN); id++ {
			out.Remove(uint16(id))
		}
	}
	if v.Native != 0 {
		out.Add(v.Native)
	}
	return out
}

// private is what a port of a private VLAN sends in and what it receives (RFC 5517 section 3).
func private(v *model.PrivateVLAN) (sends uint16, receives table.VLANs) {
	if v == nil {
		return 0, receives
	}
	receives = table.NewVLANs(v.Primary)
	switch v.Mode {
	case model.IsolationPromiscuous:
		for _, id := range v.Secondaries {
			receives.Add(id)
		}
		return v.Primary, receives
	case model.IsolationCommunity:
		receives.Add(v.Secondary)
	}
	return v.Secondary, receives
}

// attachExternals puts the VLAN switch on the devices of external networks that ports need, and takes it off others.
func (l *loop) attachExternals(want table.Set) []failure {
	var out []failure
	wanted := map[uint32]bool{}
	for _, p := range want.VLANPorts {
		if p.Uplink != 0 {
			wanted[p.Uplink] = true
		}
	}
	for index := range wanted {
		err := l.sw.AttachVLANUplink(index)
		if err == nil {
			err = netdev.SetPromiscuous(index, true)
		}
		if err != nil {
			out = append(out, l.hostFailure(reasonAttach, fmt.Sprintf("external interface %s: %v", l.links[index].Name, err)))
		}
	}
	_, attached := l.sw.AttachedVLANs()
	for _, index := range attached {
		if wanted[index] || !l.last.synced {
			continue
		}
		err := l.sw.DetachVLANUplink(index)
		if _, present := l.links[index]; present && err == nil {
			err = netdev.SetPromiscuous(index, false)
		}
		if err != nil {
			out = append(out, l.hostFailure(reasonAttach, fmt.Sprintf("former external interface %d: %v", index, err)))
		}
	}
	return out
}

// cutOff tells of ports on VLANs whose external network this host does not reach.
func cutOff(g *goal.Goal, devices map[model.PortID]device, externals map[string]external) []failure {
	var out []failure
	for id, p := range g.Ports {
		if _, plugged := devices[id]; !plugged || p.Settings.VLAN == nil {
			continue
		}
		if _, there := externals[p.Interface]; there {
			continue
		}
		message := fmt.Sprintf("external network %s names no interface for this host: the port reaches only others here", p.Settings.VLAN.Network)
		if p.Interface != "" {
			message = fmt.Sprintf("this host has no interface %s to external network %s: the port reaches only others here", p.Interface, p.Settings.VLAN.Network)
		}
		out = append(out, failure{model.KindPort, p.Ref, reasonUnderlay, message})
	}
	slices.SortFunc(out, func(a, b failure) int { return cmp.Compare(a.String(), b.String()) })
	return out
}
