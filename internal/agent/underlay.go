package agent

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// What is assumed while no uplink is known, and what a device may have at most.
const (
	ethernetMTU = 1500
	largestMTU  = 65535
)

// underlay is what a host knows of the physical network.
type underlay struct {
	uplinks map[uint32]string // devices by index, with their names
	// addresses of all devices
	addresses []netdev.Address
	speeds    map[uint32]uint64 // bit/s that uplinks say they carry; 0: they do not know
	mtu       int               // smallest IP MTU of the uplinks; 0 if there is none
	pas       []netip.Addr      // this host's, sorted
	states    map[netip.Addr]addressState
	locals    []local // usable ones that policy gives this host, sorted
	ways      map[netip.Addr]ways
	macs      map[netdev.Neighbour]model.MAC // of next hops
	carry     map[ends]uint16                // what the ways carry, for all that this host knows by itself

	// What follows, as rows.
	heard     map[netip.Addr]struct{} // outer destinations that are ours
	peers     map[netip.Addr]table.Peer
	paths     map[table.PathKey]table.Peer
	sources   map[table.Source]struct{}
	externals map[string]external // by name
}

// guestMTU is the largest IP packet of a guest that the underlay carries whole with so much overhead.
func (u underlay) guestMTU(overhead int) int {
	mtu := u.mtu
	if mtu == 0 {
		mtu = ethernetMTU
	}
	return min(mtu, largestMTU) - overhead
}

// guestMTUs gives every routing domain one MTU. A guest's packet may leave by the transport of any
// subnet of its domain, because of a route, so the MTU fits the domain's largest overhead. A subnet
// counts from the day that it is there, not from its first guest: the MTU of guests should change
// as seldom as can be.
func (u underlay) guestMTUs(g *goal.Goal) map[model.NetworkIndex]int {
	here := anyOf(g.PAs)
	subnets := map[model.VSID]int{}
	for k, r := range g.Records {
		subnets[k.VSID] = max(subnets[k.VSID], table.Overhead(r.Transport, r.PA), table.Overhead(r.Transport, here), table.RewriteOverhead(k.CA, r.Rewrite))
	}
	overheads := map[model.NetworkIndex]int{}
	for k, r := range g.Routes {
		network, _ := k.Network.IsDirect()
		overheads[network] = max(overheads[network], subnets[r.VSID])
	}
	for _, p := range g.Ports {
		overheads[p.Network] = max(overheads[p.Network], subnets[p.VSID])
	}
	out := map[model.NetworkIndex]int{}
	for network, overhead := range overheads {
		out[network] = u.guestMTU(overhead)
	}
	return out
}

// anyOf gives an IPv6 address if there is one: it is the one that costs more.
func anyOf(pas map[netip.Addr]struct{}) netip.Addr {
	var out netip.Addr
	for pa := range pas {
		if !out.Is6() {
			out = pa
		}
	}
	return out
}

func (u underlay) equal(v underlay) bool {
	return u.mtu == v.mtu && maps.Equal(u.speeds, v.speeds) && maps.Equal(u.externals, v.externals) && maps.Equal(u.uplinks, v.uplinks) &&
		slices.Equal(u.pas, v.pas) && maps.Equal(u.states, v.states) && maps.Equal(u.heard, v.heard) &&
		maps.Equal(u.peers, v.peers) && maps.Equal(u.paths, v.paths) && maps.Equal(u.sources, v.sources)
}

// findUplinks decides which devices lead to the other hosts and which addresses
// of theirs are this host's Provider Addresses.
func findUplinks(cfg Config, links map[uint32]netdev.Link) (underlay, error) {
	addresses, err := netdev.Addresses()
	if err != nil {
		return underlay{}, err
	}
	chosen, err := chooseUplinks(cfg, links, addresses)
	if err != nil {
		return underlay{}, err
	}
	u := underlay{uplinks: map[uint32]string{}, speeds: map[uint32]uint64{}, addresses: addresses}
	for _, index := range chosen {
		l, ok := links[index]
		if !ok {
			continue
		}
		u.uplinks[index], u.speeds[index] = l.Name, netdev.Speed(l.Name)
		if u.mtu == 0 || l.MTU < u.mtu {
			u.mtu = l.MTU
		}
	}
	u.pas = providerAddresses(cfg, addresses, u.uplinks)
	return u, nil
}

func chooseUplinks(cfg Config, links map[uint32]netdev.Link, addresses []netdev.Address) ([]uint32, error) {
	if cfg.Underlay != nil {
		return linksByName(cfg.Underlay, links), nil
	}
	var carrying []uint32
	for _, a := range addresses {
		if slices.Contains(cfg.ProviderAddresses, a.Prefix.Addr().String()) && !links[a.IfIndex].Loopback {
			carrying = append(carrying, a.IfIndex)
		}
	}
	if len(carrying) > 0 {
		return carrying, nil
	}
	return netdev.DefaultRouteLinks()
}

func linksByName(names []string, links map[uint32]netdev.Link) []uint32 {
	var out []uint32
	for index, l := range links {
		if slices.Contains(names, l.Name) {
			out = append(out, index)
		}
	}
	return out
}

func (u underlay) decap(strategies map[uint32]string) string {
	text := ""
	for _, index := range slices.Sorted(maps.Keys(u.uplinks)) {
		s, ok := strategies[index]
		if !ok {
			continue
		}
		if text != "" {
			text += ","
		}
		text += u.uplinks[index] + "=" + s
	}
	return text
}
