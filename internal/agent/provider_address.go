package agent

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// renderPAs says which outer destinations are ours, how the remote hosts of the
// records are reached, and what their packets may come from.
func renderPAs(set table.Set, g *goal.Goal, u underlay) {
	for pa := range u.heard {
		set.LocalPAs[pa] = struct{}{}
	}
	for pa := range remotePAs(g) {
		set.Peers[pa] = u.peer(pa)
	}
	maps.Copy(set.Paths, u.paths)
	maps.Copy(set.Sources, u.sources)
}

// remotePAs lists the Provider Addresses by which g names other hosts, each with those
// by which that host can be reached now.
func remotePAs(g *goal.Goal) map[netip.Addr][]netip.Addr {
	out := map[netip.Addr][]netip.Addr{}
	for _, r := range g.Records {
		if _, local := g.Ports[r.Port]; r.PA.IsValid() && !local {
			out[r.PA] = nil
		}
	}
	for _, p := range g.Ports {
		for _, pa := range mirrorPAs(p, g) {
			out[pa] = nil
		}
	}
	for pa := range out {
		out[pa] = []netip.Addr{pa}
	}
	for k, p := range g.Peers {
		if _, remote := out[k.PA]; remote {
			out[k.PA] = p.List()
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

// sourcesAt lists what packets of the host that records name by primary may come from.
func (u underlay) sourcesAt(primary netip.Addr) []netip.Addr {
	var out []netip.Addr
	for s := range u.sources {
		if s.Peer == primary {
			out = append(out, s.PA)
		}
	}
	if len(out) == 0 {
		return []netip.Addr{primary}
	}
	return out
}

// sourcesOf lists what packets of other hosts may come from, of hosts where that is not
// just the address that records name them by.
func sourcesOf(hosts map[netip.Addr][]netip.Addr, lately recent[table.Source], now time.Time) (map[table.Source]struct{}, time.Time) {
	wanted, owner := map[table.Source]struct{}{}, map[netip.Addr]netip.Addr{}
	for primary, all := range hosts {
		for _, a := range all {
			wanted[table.Source{Peer: primary, PA: a}] = struct{}{}
			owner[a] = primary
		}
	}
	sources, until := lately.with(wanted, now)
	count := map[netip.Addr]int{}
	for s := range sources {
		_, known := hosts[s.Peer]
		if o, taken := owner[s.PA]; !known || taken && o != s.Peer {
			delete(sources, s) // it is another host's now
			continue
		}
		count[s.Peer]++
	}
	for s := range sources {
		if count[s.Peer] == 1 && s.PA == s.Peer {
			delete(sources, s)
		}
	}
	return sources, until
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
