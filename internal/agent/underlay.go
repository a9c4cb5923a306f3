package agent

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

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
	mtu     int               // smallest IP MTU of the uplinks; 0 if there is none
	pas     []netip.Addr      // this host's, sorted
	peers   map[netip.Addr]table.Peer
	hops    map[netip.Addr]netdev.Neighbour // next hop of each peer that has a route
}

// guestMTU is the largest IP packet of a guest that NVGRE carries whole.
func (u underlay) guestMTU() int {
	mtu := u.mtu
	if mtu == 0 {
		mtu = ethernetMTU
	}
	return min(mtu, largestMTU) - table.OverheadNVGRE4
}

func (u underlay) peer(pa netip.Addr) table.Peer {
	if p, ok := u.peers[pa]; ok {
		return p
	}
	return table.Peer{PA: pa}
}

func (u underlay) equal(v underlay) bool {
	return u.mtu == v.mtu && maps.Equal(u.uplinks, v.uplinks) &&
		slices.Equal(u.pas, v.pas) && maps.Equal(u.peers, v.peers)
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
	u := underlay{uplinks: map[uint32]string{}}
	for _, index := range chosen {
		l, ok := links[index]
		if !ok {
			continue
		}
		u.uplinks[index] = l.Name
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

// providerAddresses are those of the configuration that are on this host, or the
// first address of each uplink.
func providerAddresses(cfg Config, addresses []netdev.Address, uplinks map[uint32]string) []netip.Addr {
	var out []netip.Addr
	seen := map[uint32]bool{}
	for _, a := range addresses {
		pa := a.Prefix.Addr()
		if !a.Usable || !pa.Is4() {
			continue
		}
		_, up := uplinks[a.IfIndex]
		configured := slices.Contains(cfg.ProviderAddresses, pa.String())
		if configured || cfg.ProviderAddresses == nil && up && !seen[a.IfIndex] {
			out = append(out, pa)
			seen[a.IfIndex] = true
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// findPeers looks up how each remote PA is reached, taking from old what is
// known already.
func (u *underlay) findPeers(pas map[netip.Addr]struct{}, old underlay) error {
	u.peers = make(map[netip.Addr]table.Peer, len(pas))
	u.hops = make(map[netip.Addr]netdev.Neighbour, len(pas))
	for pa := range pas {
		if p, ok := old.peers[pa]; ok {
			u.peers[pa] = p
			if hop, ok := old.hops[pa]; ok {
				u.hops[pa] = hop
			}
			continue
		}
		r, err := netdev.RouteTo(pa)
		if errors.Is(err, netdev.ErrNoRoute) || errors.Is(err, netdev.ErrNoDevice) {
			u.peers[pa] = table.Peer{PA: pa}
			continue
		}
		if err != nil {
			return fmt.Errorf("provider address %s: %w", pa, err)
		}
		u.peers[pa] = table.Peer{PA: pa, IfIndex: r.IfIndex, MTU: uint16(min(r.MTU, largestMTU)), Via: r.NextHop, Source: r.MAC}
		u.hops[pa] = netdev.Neighbour{IfIndex: r.IfIndex, Addr: r.NextHop}
	}
	return nil
}

// resolve has the kernel keep the next hops resolved, and notes their MACs.
// With sweep, entries of ours that no peer needs any more are removed.
func (u *underlay) resolve(sweep bool) error {
	managed, err := netdev.ManagedNeighbours()
	if err != nil {
		return err
	}
	var problems []error
	wanted := map[netdev.Neighbour]bool{}
	for pa, hop := range u.hops {
		if _, there := managed[hop]; !there && !wanted[hop] {
			problems = append(problems, netdev.Manage(hop))
		}
		wanted[hop] = true
		p := u.peers[pa]
		p.NextHop = managed[hop].MAC
		u.peers[pa] = p
	}
	for hop := range managed {
		if sweep && !wanted[hop] {
			problems = append(problems, netdev.Unmanage(hop))
		}
	}
	return errors.Join(problems...)
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

// missingPAs lists what policy calls this host's PAs and the host does not have.
func missingPAs(want map[netip.Addr]struct{}, links map[uint32]netdev.Link) ([]netip.Addr, error) {
	addresses, err := netdev.Addresses()
	if err != nil {
		return nil, err
	}
	have := map[netip.Addr]bool{}
	for _, a := range addresses {
		if _, present := links[a.IfIndex]; present {
			have[a.Prefix.Addr()] = true
		}
	}
	var out []netip.Addr
	for pa := range want {
		if !have[pa] {
			out = append(out, pa)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out, nil
}
