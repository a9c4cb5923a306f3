package agent

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// renderFloods says who gets a copy of what the subnets of this host's ports flood. A subnet
// with more members than a row holds floods nothing here, and crowded says so.
func renderFloods(set table.Set, g *goal.Goal, devices map[model.PortID]device) {
	searched := l2OnlySubnets(g)
	for id, p := range g.Ports {
		if d, plugged := devices[id]; plugged && floods(p, searched) {
			set.Floods[p.VSID] = table.Flood{L2: p.Flood.L2, Rate: cmp.Or(p.Flood.Rate, model.DefaultStormLimit), Group: p.Flood.Group}
			set.Members[table.Member{VSID: p.VSID, IfIndex: d.ifindex}] = table.MemberInfo{}
		}
	}
	for k, r := range g.Records {
		m := table.Member{VSID: k.VSID}
		if _, local := g.Ports[r.Port]; local {
			m.IfIndex = devices[r.Port].ifindex
		} else if _, ours := g.PAs[r.PA]; !ours {
			m.PA = r.PA
		}
		f, flooded := set.Floods[k.VSID]
		if flooded && r.Transport == model.VXLAN {
			f.Transport = r.Transport // that of the subnet: all its records have it. Copies of what is rewritten go by NVGRE
			set.Floods[k.VSID] = f
		}
		if flooded && (m.PA.IsValid() || m.IfIndex != 0) {
			set.Members[m] = table.MemberInfo{L2Only: set.Members[m].L2Only || model.IsL2OnlyCA(k.CA)}
		}
	}
	for vsid, n := range countMembers(set) {
		if n.full() {
			forgetFlood(set, vsid)
		}
	}
	for index, p := range set.Ports {
		_, p.Flood = set.Floods[p.VSID]
		set.Ports[index] = p
	}
}

// l2OnlySubnets are those with a port whose addresses are yet to be learned.
func l2OnlySubnets(g *goal.Goal) map[model.VSID]bool {
	out := map[model.VSID]bool{}
	for k := range g.Records {
		if model.IsL2OnlyCA(k.CA) {
			out[k.VSID] = true
		}
	}
	return out
}

// floods tells whether anything is flooded in a port's subnet.
func floods(p goal.Port, searched map[model.VSID]bool) bool { return p.Flood.L2 || searched[p.VSID] }

// memberCount counts the members of a subnet.
type memberCount struct{ ports, hosts int }

func (n memberCount) full() bool {
	return n.ports > table.MaxFloodPorts || n.hosts > table.MaxFloodHosts
}

func countMembers(set table.Set) map[model.VSID]memberCount {
	out := map[model.VSID]memberCount{}
	for m := range set.Members {
		n := out[m.VSID]
		if m.PA.IsValid() {
			n.hosts++
		} else {
			n.ports++
		}
		out[m.VSID] = n
	}
	return out
}

func forgetFlood(set table.Set, vsid model.VSID) {
	delete(set.Floods, vsid)
	maps.DeleteFunc(set.Members, func(m table.Member, _ table.MemberInfo) bool { return m.VSID == vsid })
}

// crowded tells of ports whose subnet should be flooded and has too many members for it.
func crowded(set table.Set, g *goal.Goal, devices map[model.PortID]device) []failure {
	var out []failure
	searched := l2OnlySubnets(g)
	for id, p := range g.Ports {
		_, plugged := devices[id]
		_, flooded := set.Floods[p.VSID]
		if plugged && floods(p, searched) && !flooded {
			out = append(out, failure{model.KindPort, p.Ref, reasonTableFull, fmt.Sprintf(
				"subnet %s has ports on more than %d other hosts, or more than %d here: nothing is flooded in it; make several subnets of it, or set flood: l3",
				p.VSID, table.MaxFloodHosts, table.MaxFloodPorts)})
		}
	}
	return out
}

// groupsOf lists the multicast PAs that this host sends to and listens to.
func groupsOf(g *goal.Goal) map[netip.Addr]struct{} {
	out := map[netip.Addr]struct{}{}
	for _, p := range g.Ports {
		if p.Flood.L2 && p.Flood.Group.IsValid() {
			out[p.Flood.Group] = struct{}{}
		}
	}
	return out
}

// renderGroups has frames to the multicast PAs taken as ours, and leads to them.
func renderGroups(set table.Set, u underlay) {
	for _, f := range set.Floods {
		if f.Group.IsValid() {
			set.LocalPAs[f.Group] = struct{}{}
			set.Peers[f.Group] = u.peer(f.Group)
		}
	}
}

// findGroups leads each multicast PA out of the first uplink: no route says more.
func (u *underlay) findGroups(groups map[netip.Addr]struct{}, links map[uint32]netdev.Link) {
	for pa := range groups {
		p := table.Peer{PA: pa}
		for _, index := range slices.Sorted(maps.Keys(u.uplinks)) {
			if l, ok := links[index]; ok {
				p = table.Peer{PA: pa, IfIndex: index, MTU: uint16(min(l.MTU, largestMTU)), NextHop: groupMAC(pa), Source: l.MAC}
				break
			}
		}
		u.peers[pa] = p
	}
}

// groupMAC is the Ethernet address of a multicast group (RFC 1112 section 6.4, RFC 2464 section 7).
func groupMAC(a netip.Addr) model.MAC {
	b := a.As16()
	if a.Is4() {
		return model.MAC{0x01, 0x00, 0x5e, b[13] & 0x7f, b[14], b[15]}
	}
	return model.MAC{0x33, 0x33, b[12], b[13], b[14], b[15]}
}

// membership is a multicast PA that this host has joined on its uplinks.
type membership struct {
	uplinks []uint32
	socket  io.Closer
}

// join listens to the multicast PAs on all uplinks, and no more to others.
func (l *loop) join(groups map[netip.Addr]struct{}) []failure {
	uplinks := slices.Sorted(maps.Keys(l.under.uplinks))
	for pa, m := range l.joined {
		if _, wanted := groups[pa]; !wanted || !slices.Equal(m.uplinks, uplinks) {
			m.socket.Close()
			delete(l.joined, pa)
		}
	}
	var out []failure
	for pa := range groups {
		if _, done := l.joined[pa]; done {
			continue
		}
		s, err := netdev.JoinGroup(pa, uplinks)
		if err != nil {
			out = append(out, l.hostFailure(reasonUnderlay, err.Error()))
			continue
		}
		l.joined[pa] = membership{uplinks, s}
	}
	return out
}
