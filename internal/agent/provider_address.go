package agent

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// renderPAs says which outer destinations are ours and how the remote ones of
// the records are reached.
func renderPAs(set table.Set, g *goal.Goal, u underlay) {
	for pa := range g.PAs {
		set.LocalPAs[pa] = struct{}{}
	}
	for pa := range remotePAs(g) {
		set.Peers[pa] = u.peer(pa)
	}
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

func (u underlay) peer(pa netip.Addr) table.Peer {
	if p, ok := u.peers[pa]; ok {
		return p
	}
	return table.Peer{PA: pa}
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
		u.peers[pa] = table.Peer{PA: pa, IfIndex: r.IfIndex, MTU: uint16(min(r.MTU, largestMTU)), Via: onLink(r.NextHop, pa), Source: r.MAC}
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

// providerAddresses are those of the configuration that are on this host, or the
// first address of each uplink.
func providerAddresses(cfg Config, addresses []netdev.Address, uplinks map[uint32]string) []netip.Addr {
	var out []netip.Addr
	seen := map[uint32]bool{}
	// IPv4 first: an uplink that has both families gives its IPv4 address.
	byFamily := slices.SortedStableFunc(slices.Values(addresses), func(a, b netdev.Address) int {
		return cmp.Compare(a.Prefix.Addr().BitLen(), b.Prefix.Addr().BitLen())
	})
	for _, a := range byFamily {
		pa := a.Prefix.Addr()
		if !a.Lasting {
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

// onLink is the next hop if it is the destination itself, which no change of a
// gateway can make wrong; any other the kernel looks up.
func onLink(hop, dst netip.Addr) netip.Addr {
	if hop != dst {
		return netip.Addr{}
	}
	return hop
}
