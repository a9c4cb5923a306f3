package agent

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// How long what is gone stays good. Packets are under way, and whoever changes the
// underlay may be about to put something in its place.
const (
	lingerTime = 500 * time.Millisecond // a last way to a host, while its link is there
	graceTime  = 10 * time.Second       // a Provider Address that packets may still come from or go to
	// How long an address that has become usable is only listened to, where there is
	// another one: the other hosts must know it before they get packets from it.
	settleTime = 5 * time.Second
)

// local is a usable Provider Address of this host.
type local struct {
	address netip.Addr
	ifindex uint32
	roams   bool // it is on a device that leads nowhere, such as lo: any uplink will do
}

// way is one way to a remote host: a Peer without link-layer next hop, and the
// neighbour that it begins with.
type way struct {
	row table.Peer
	hop netdev.Neighbour
}

// ways are all ways to one remote host, and what they follow from.
type ways struct {
	remotes []netip.Addr // usable addresses of the host, sorted
	list    []way
	since   time.Time // the list is of the past since then; zero: it is not
}

// findLocals lists the Provider Addresses that policy gives this host and that packets
// may be sent from. since is when each became usable; zero: before this process. It
// gives the time when the next one may be used; zero: never.
func (u *underlay) findLocals(want map[netip.Addr]struct{}, since map[netip.Addr]time.Time, links map[uint32]netdev.Link, now time.Time) (settled []local, until time.Time) {
	var fresh []local
	for pa := range want {
		if u.states[pa].state != model.AddressPreferred {
			delete(since, pa)
			continue
		}
		if _, known := since[pa]; !known {
			since[pa] = now
		}
		at, _ := u.placeOf(pa, links)
		_, uplink := u.uplinks[at.ifindex]
		l := local{pa, at.ifindex, !uplink}
		if end := since[pa].Add(settleTime); end.After(now) {
			fresh, until = append(fresh, l), earlier(until, end)
			continue
		}
		settled = append(settled, l)
	}
	if len(settled) == 0 { // those that others may know best: the first
		var first time.Time
		for _, l := range fresh {
			first = earlier(first, since[l.address])
		}
		settled = slices.DeleteFunc(fresh, func(l local) bool { return since[l.address].After(first) })
	}
	slices.SortFunc(settled, func(a, b local) int { return a.address.Compare(b.address) })
	return settled, until
}

// findWays finds how to reach each remote host, taking from old what is known already.
// It gives the time when some of it will be of the past; zero: never.
func (u *underlay) findWays(hosts map[netip.Addr][]netip.Addr, old underlay, fresh bool, links map[uint32]netdev.Link, now time.Time) (time.Time, error) {
	var until time.Time
	u.ways = make(map[netip.Addr]ways, len(hosts))
	same := !fresh && slices.Equal(u.locals, old.locals)
	for primary, remotes := range hosts {
		before := old.ways[primary]
		if same && before.list != nil && before.since.IsZero() && slices.Equal(before.remotes, remotes) {
			u.ways[primary] = before
			continue
		}
		list, err := u.waysTo(primary, remotes, links)
		if err != nil {
			return until, err
		}
		w := ways{remotes: remotes, list: list}
		if len(list) == 0 {
			w = u.linger(w, before, links, now)
		}
		if !w.since.IsZero() {
			until = earlier(until, w.since.Add(lingerTime))
		}
		u.ways[primary] = w
	}
	return until, nil
}

// linger keeps the last ways to a host for a moment when they are gone, if their links
// are not.
func (u *underlay) linger(w, before ways, links map[uint32]netdev.Link, now time.Time) ways {
	since := before.since
	if since.IsZero() {
		since = now
	}
	if now.Sub(since) >= lingerTime {
		return w
	}
	for _, old := range before.list {
		if links[old.row.IfIndex].Running && u.states[old.row.Local].state != model.AddressDuplicate && slices.Contains(w.remotes, old.row.Remote) {
			w.list = append(w.list, old)
			w.since = since
		}
	}
	return w
}

// earlier of two times, of which zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// waysTo lists the ways from every usable address of this host to every usable one of
// another, of the same family, by every next hop of the route between them: at most
// table.MaxPaths, of as many pairs as can be.
func (u *underlay) waysTo(primary netip.Addr, remotes []netip.Addr, links map[uint32]netdev.Link) ([]way, error) {
	var pairs, own [][]way
	devices := map[uint32]bool{}
	for _, from := range u.locals {
		devices[from.ifindex] = devices[from.ifindex] || !from.roams
	}
	for _, remote := range remotes {
		for _, from := range u.locals {
			if from.address.Is4() != remote.Is4() {
				continue
			}
			all, err := u.waysBetween(primary, from, remote)
			if err != nil {
				return nil, err
			}
			// The kernel's route still leads there when a link has died.
			all = slices.DeleteFunc(all, func(w way) bool { return !links[w.row.IfIndex].Running })
			pairs = append(pairs, all)
			// With several uplinks, an address leaves by its own: others may filter it.
			own = append(own, slices.DeleteFunc(slices.Clone(all), func(w way) bool {
				return !from.roams && len(devices) > 1 && w.row.IfIndex != from.ifindex
			}))
		}
	}
	if list := interleave(own); len(list) > 0 {
		return list, nil
	}
	return interleave(pairs), nil
}

// interleave takes the first way of every pair, then the second of every pair.
func interleave(pairs [][]way) []way {
	list := []way{}
	for i, more := 0, true; more && len(list) < table.MaxPaths; i++ {
		more = false
		for _, p := range pairs {
			if i < len(p) && len(list) < table.MaxPaths {
				list, more = append(list, p[i]), true
			}
		}
	}
	return list
}

func (u *underlay) waysBetween(primary netip.Addr, from local, remote netip.Addr) ([]way, error) {
	routes, err := netdev.RoutesTo(remote, from.address)
	if errors.Is(err, netdev.ErrNoRoute) || errors.Is(err, netdev.ErrNoDevice) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("from %s to provider address %s: %w", from.address, remote, err)
	}
	var out []way
	for _, r := range routes {
		out = append(out, way{
			row: table.Peer{PA: primary, Local: from.address, Remote: remote, IfIndex: r.IfIndex,
				MTU: uint16(min(r.MTU, largestMTU)), Via: r.NextHop, Source: r.MAC},
			hop: netdev.Neighbour{IfIndex: r.IfIndex, Addr: r.NextHop},
		})
	}
	return out, nil
}

// resolve has the kernel keep the next hops resolved, and gives their MACs. With
// sweep, entries of ours that no way needs any more are removed.
func (u *underlay) resolve(sweep bool) error {
	managed, err := netdev.ManagedNeighbours()
	if err != nil {
		return err
	}
	var problems []error
	wanted := map[netdev.Neighbour]bool{}
	for _, all := range u.ways {
		for _, w := range all.list {
			if _, there := managed[w.hop]; !there && !wanted[w.hop] {
				problems = append(problems, netdev.Manage(w.hop))
			}
			wanted[w.hop] = true
		}
	}
	// A neighbour that is asked again keeps the MAC that it had: frames that carry
	// their addresses are better sent there than not at all.
	macs := maps.Clone(u.macs)
	u.macs = make(map[netdev.Neighbour]model.MAC, len(wanted))
	for hop := range wanted {
		u.macs[hop] = macs[hop]
		if m := managed[hop].MAC; !m.IsZero() {
			u.macs[hop] = m
		}
	}
	for hop := range managed {
		if sweep && !wanted[hop] {
			problems = append(problems, netdev.Unmanage(hop))
		}
	}
	return errors.Join(problems...)
}

// tell makes rows of what was found: the first way of each host is its Peer, the
// others are Paths.
func (u *underlay) tell(mtu func(ends, uint16) uint16) {
	u.peers = make(map[netip.Addr]table.Peer, len(u.ways))
	u.paths = map[table.PathKey]table.Peer{}
	u.carry = map[ends]uint16{}
	for primary, all := range u.ways {
		u.peers[primary] = table.Peer{PA: primary}
		for i, w := range all.list {
			row := w.row
			row.NextHop = u.macs[w.hop]
			e := ends{row.Local, row.Remote}
			u.carry[e] = max(u.carry[e], row.MTU)
			row.MTU = mtu(e, row.MTU)
			if row.Remote == primary {
				row.Remote = netip.Addr{} // the row says so already
			}
			if i == 0 {
				u.peers[primary] = row
				continue
			}
			u.paths[table.PathKey{PA: primary, N: uint8(i)}] = row
		}
	}
}

// recent remembers what is not wanted any more for a while: since when, zero for what
// is still wanted.
type recent[K comparable] map[K]time.Time

// with gives what is wanted and what was lately, and the time when the first of
// the latter is forgotten; zero: never.
func (r recent[K]) with(wanted map[K]struct{}, now time.Time) (all map[K]struct{}, until time.Time) {
	all = map[K]struct{}{}
	for k := range wanted {
		r[k] = time.Time{}
		all[k] = struct{}{}
	}
	for k, since := range r {
		if _, still := wanted[k]; still {
			continue
		}
		if since.IsZero() {
			since = now
			r[k] = now
		}
		if end := since.Add(graceTime); end.After(now) {
			all[k] = struct{}{}
			until = earlier(until, end)
			continue
		}
		delete(r, k)
	}
	return all, until
}
