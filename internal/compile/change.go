package compile

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// change remembers how everything was that a transaction has touched, so that
// rows that come back to what they were are no change.
type change struct {
	networks map[*network]*networkChange
	hosts    map[*host]*hostChange
}

type networkChange struct {
	digest  goal.Digest
	records map[goal.RecordKey]*goal.Record // as before; nil: absent
	routes  map[goal.RouteKey]*goal.Route
	peers   map[goal.PeerKey]*goal.Peer
	member  map[*host]bool // hosts that joined or left: were they members before?
}

type hostChange struct {
	own   goal.Digest
	ports map[model.PortID]*goal.Port
	pas   map[netip.Addr]bool

	routes map[string]*goal.ProviderRoute
	lists  map[model.Ref]*goal.List // as before; nil: absent
	groups map[model.Ref]*goal.Group
}

func newChange() *change {
	return &change{map[*network]*networkChange{}, map[*host]*hostChange{}}
}

func (c *change) network(n *network) *networkChange {
	nc := c.networks[n]
	if nc == nil {
		nc = &networkChange{n.digest, map[goal.RecordKey]*goal.Record{}, map[goal.RouteKey]*goal.Route{}, map[goal.PeerKey]*goal.Peer{}, map[*host]bool{}}
		c.networks[n] = nc
	}
	return nc
}

func (c *change) host(h *host) *hostChange {
	hc := c.hosts[h]
	if hc == nil {
		hc = &hostChange{h.own, map[model.PortID]*goal.Port{}, map[netip.Addr]bool{}, map[string]*goal.ProviderRoute{},
			map[model.Ref]*goal.List{}, map[model.Ref]*goal.Group{}}
		c.hosts[h] = hc
	}
	return hc
}

// note keeps the first, which is the oldest, state of a key.
func note[K comparable, V any](before map[K]*V, rows map[K]V, k K) {
	if _, ok := before[k]; ok {
		return
	}
	before[k] = nil
	if v, ok := rows[k]; ok {
		before[k] = &v
	}
}

// settleDigests carries the digests of hosts along with those of their parts.
func (c *change) settleDigests() {
	for h, hc := range c.hosts {
		h.digest = h.digest.Sub(hc.own).Add(h.own)
	}
	for n, nc := range c.networks {
		for h := range n.hosts {
			if nc.joined(h) {
				h.digest = h.digest.Add(n.digest)
				continue
			}
			h.digest = h.digest.Sub(nc.digest).Add(n.digest)
		}
		for h := range nc.member {
			if nc.left(n, h) {
				h.digest = h.digest.Sub(nc.digest)
			}
		}
	}
}

func (nc *networkChange) joined(h *host) bool {
	before, touched := nc.member[h]
	return touched && !before
}

func (nc *networkChange) left(n *network, h *host) bool { return nc.member[h] && n.hosts[h] == 0 }

// deltas gives each host what changed for it.
func (c *change) deltas() map[string]goal.Delta {
	pieces := map[*host][]goal.Delta{}
	give := func(h *host, d goal.Delta) {
		if !d.Empty() {
			pieces[h] = append(pieces[h], d)
		}
	}
	for h, hc := range c.hosts {
		give(h, hc.delta(h))
	}
	for n, nc := range c.networks {
		shared := nc.delta(n)
		for h := range n.hosts {
			if nc.joined(h) {
				give(h, n.everything())
				continue
			}
			give(h, shared)
		}
		for h := range nc.member {
			if nc.left(n, h) {
				give(h, nc.nothing(n))
			}
		}
	}
	out := make(map[string]goal.Delta, len(pieces))
	for h, ds := range pieces {
		if d := merge(ds); !d.Empty() {
			out[h.name] = d
		}
	}
	return out
}

// merge makes one Delta of the parts of one host. A key may have changed hands
// between two networks: what one puts stays, whatever another deletes.
func merge(ds []goal.Delta) goal.Delta {
	if len(ds) == 1 {
		return ds[0]
	}
	var p goal.Pending
	for _, d := range ds {
		p.Add(goal.Delta{DeletePorts: d.DeletePorts, DeleteRoutes: d.DeleteRoutes, DeleteRecords: d.DeleteRecords, DeletePeers: d.DeletePeers, DeletePAs: d.DeletePAs,
			DeleteProviderRoutes: d.DeleteProviderRoutes, DeleteLists: d.DeleteLists, DeleteGroups: d.DeleteGroups})
	}
	for _, d := range ds {
		p.Add(goal.Delta{PutPorts: d.PutPorts, PutRoutes: d.PutRoutes, PutRecords: d.PutRecords, PutPeers: d.PutPeers, PutPAs: d.PutPAs,
			PutProviderRoutes: d.PutProviderRoutes, PutGroups: d.PutGroups, PutLists: d.PutLists})
	}
	return p.Take()
}

func (hc *hostChange) delta(h *host) goal.Delta {
	var d goal.Delta
	for id, before := range hc.ports {
		now, ok := h.rows[id]
		switch {
		case ok && (before == nil || !before.Equal(now)):
			d.PutPorts = append(d.PutPorts, now)
		case !ok && before != nil:
			d.DeletePorts = append(d.DeletePorts, id)
		}
	}
	for name, before := range hc.routes {
		now, ok := h.routes[name]
		switch {
		case ok && (before == nil || *before != now):
			d.PutProviderRoutes = append(d.PutProviderRoutes, goal.ProviderRouteRow{Name: name, Route: now})
		case !ok && before != nil:
			d.DeleteProviderRoutes = append(d.DeleteProviderRoutes, name)
		}
	}
	for pa, before := range hc.pas {
		switch now := h.has(pa); {
		case now && !before:
			d.PutPAs = append(d.PutPAs, pa)
		case !now && before:
			d.DeletePAs = append(d.DeletePAs, pa)
		}
	}
	for ref, before := range hc.lists {
		now := h.lists[ref]
		switch {
		case now != nil && (before == nil || !before.Equal(now)):
			d.PutLists = append(d.PutLists, now)
		case now == nil && before != nil:
			d.DeleteLists = append(d.DeleteLists, ref)
		}
	}
	for ref, before := range hc.groups {
		now := h.groups[ref]
		switch {
		case now != nil && (before == nil || !before.Equal(now)):
			d.PutGroups = append(d.PutGroups, now)
		case now == nil && before != nil:
			d.DeleteGroups = append(d.DeleteGroups, ref)
		}
	}
	d.Sort()
	return d
}

// delta for the hosts that were and are members.
func (nc *networkChange) delta(n *network) goal.Delta {
	var d goal.Delta
	for k, before := range nc.records {
		now, ok := n.records[k]
		switch {
		case ok && (before == nil || *before != now):
			d.PutRecords = append(d.PutRecords, goal.RecordRow{Key: k, Record: now})
		case !ok && before != nil:
			d.DeleteRecords = append(d.DeleteRecords, k)
		}
	}
	for k, before := range nc.routes {
		now, ok := n.table[k]
		switch {
		case ok && (before == nil || *before != now):
			d.PutRoutes = append(d.PutRoutes, goal.RouteRow{Key: k, Route: now})
		case !ok && before != nil:
			d.DeleteRoutes = append(d.DeleteRoutes, k)
		}
	}
	for k, before := range nc.peers {
		now, ok := n.peers[k]
		switch {
		case ok && (before == nil || *before != now):
			d.PutPeers = append(d.PutPeers, goal.PeerRow{Key: k, Peer: now})
		case !ok && before != nil:
			d.DeletePeers = append(d.DeletePeers, k)
		}
	}
	d.Sort()
	return d
}

// nothing deletes all that a host had as a member.
func (nc *networkChange) nothing(n *network) goal.Delta {
	var d goal.Delta
	for k := range n.records {
		if before, touched := nc.records[k]; !touched || before != nil {
			d.DeleteRecords = append(d.DeleteRecords, k)
		}
	}
	for k := range n.table {
		if before, touched := nc.routes[k]; !touched || before != nil {
			d.DeleteRoutes = append(d.DeleteRoutes, k)
		}
	}
	for k := range n.peers {
		if before, touched := nc.peers[k]; !touched || before != nil {
			d.DeletePeers = append(d.DeletePeers, k)
		}
	}
	gone := nc.delta(n)
	d.DeletePeers = append(d.DeletePeers, gone.DeletePeers...)
	d.DeleteRecords = append(d.DeleteRecords, gone.DeleteRecords...)
	d.DeleteRoutes = append(d.DeleteRoutes, gone.DeleteRoutes...)
	d.Sort()
	return d
}
