package agent

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// renderAllowed lists what guests of this host may use as sources beside their own: what policy allows
// them, and what is their teammates'.
func renderAllowed(set table.Set, g *goal.Goal, devices map[model.PortID]device) {
	for id, p := range g.Ports {
		d, plugged := devices[id]
		if !plugged {
			continue
		}
		allowAddresses(set, d, p)
		for _, a := range p.Settings.Allowed {
			if !a.MAC.IsZero() {
				allowSource(set, table.Allowed{IfIndex: d.ifindex, MAC: a.MAC})
			}
		}
		for _, mate := range g.Ports {
			if teammates(p, mate) {
				allowSource(set, table.Allowed{IfIndex: d.ifindex, MAC: mate.MAC})
				allowHosts(set, d, mate.CAs)
				if p.Settings.VLAN != nil {
					allowAddresses(set, d, mate)
				}
			}
		}
	}
}

// allowAddresses is what policy allows a port; in a subnet its own addresses have records.
func allowAddresses(set table.Set, d device, p goal.Port) {
	for _, a := range p.Settings.Allowed {
		allowSource(set, table.Allowed{IfIndex: d.ifindex, Prefix: a.Prefix})
	}
	if p.Settings.VLAN != nil {
		allowHosts(set, d, p.CAs)
	}
}

func allowHosts(set table.Set, d device, addresses []netip.Addr) {
	for _, a := range addresses {
		allowSource(set, table.Allowed{IfIndex: d.ifindex, Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
}

func allowSource(set table.Set, a table.Allowed) {
	set.Allowed[a] = struct{}{}
	changePort(set, a.IfIndex, func(p *table.Port) { p.Allowed = true })
}

// teammates are ports of one VM in one subnet, or on VLANs of one external network, that may send as each other.
func teammates(p, q goal.Port) bool {
	return p.ID != q.ID && p.Settings.Team != "" && p.Settings.Team == q.Settings.Team && p.Ref.Tenant == q.Ref.Tenant && p.VSID == q.VSID && externalOf(p) == externalOf(q)
}

// externalOf names the external network of a port on a VLAN; "" of others.
func externalOf(p goal.Port) string {
	if p.Settings.VLAN == nil {
		return ""
	}
	return p.Settings.VLAN.Network
}
