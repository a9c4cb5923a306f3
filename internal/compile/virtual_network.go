package compile

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// network is one routing domain: the rows that all its hosts share.
type network struct {
	ref         model.Ref
	index       model.NetworkIndex // 0 while there is no resource
	accessLists []string
	external    bool // its subnets are joined by customer routes alone

	rewriteFamilies []model.Family // none: both
	subnets         map[*subnet]struct{}
	candidates      map[netip.Prefix][]*model.CustomerRoute
	onLink          map[netip.Prefix]*subnet

	records map[goal.RecordKey]goal.Record
	table   map[goal.RouteKey]goal.Route
	behind  map[netip.Addr]int // how many records name each Provider Address
	peers   map[goal.PeerKey]goal.Peer
	digest  goal.Digest   // of records, table and peers
	hosts   map[*host]int // how many ports each member has
	names   []string      // of hosts, sorted; nil: to be made
}

func (c *Compiler) network(ref model.Ref) *network {
	n := c.networks[ref]
	if n == nil {
		n = &network{ref: ref, subnets: map[*subnet]struct{}{}, candidates: map[netip.Prefix][]*model.CustomerRoute{},
			onLink: map[netip.Prefix]*subnet{}, records: map[goal.RecordKey]goal.Record{},
			table:  map[goal.RouteKey]goal.Route{},
			behind: map[netip.Addr]int{}, peers: map[goal.PeerKey]goal.Peer{}, hosts: map[*host]int{}}
		c.networks[ref] = n
	}
	return n
}

func (c *Compiler) forgetNetwork(n *network) {
	if n.index == 0 && len(n.subnets) == 0 && len(n.candidates) == 0 {
		delete(c.networks, n.ref)
	}
}

func (c *Compiler) addVirtualNetwork(r *model.VirtualNetwork) {
	n := c.network(r.Metadata.Ref())
	n.external, n.accessLists, n.rewriteFamilies = r.Spec.UseExternalRouter, r.Spec.AccessLists, r.Spec.RewriteFamilies
	c.setIndex(n, r.Index)
}

func (c *Compiler) removeVirtualNetwork(r *model.VirtualNetwork) {
	n := c.network(r.Metadata.Ref())
	n.external, n.accessLists, n.rewriteFamilies = false, nil, nil
	c.setIndex(n, 0)
}

func (c *Compiler) setIndex(n *network, index model.NetworkIndex) {
	for k := range n.peers { // they carry the index
		c.dropPeer(n, k)
	}
	for pa := range n.behind {
		c.todo.peers[peerSpot{n, pa}] = struct{}{}
	}
	n.index = index
	c.todo.networks[n] = struct{}{}
	for s := range n.subnets {
		c.todo.subnets[s] = struct{}{}
	}
}

// indexPrefixes finds out anew which subnet owns which prefix.
func (n *network) indexPrefixes() {
	clear(n.onLink)
	for _, s := range slices.SortedFunc(maps.Keys(n.subnets), func(a, b *subnet) int { return cmp.Compare(a.ref.Name, b.ref.Name) }) {
		if s.network != n {
			continue
		}
		for _, p := range s.spec.Spec.Prefixes {
			if _, taken := n.onLink[p.Masked()]; !taken {
				n.onLink[p.Masked()] = s
			}
		}
	}
}

// subnetOf finds the subnet of the longest prefix that contains a; nil: none.
func (n *network) subnetOf(a netip.Addr) *subnet {
	for bits := a.BitLen(); bits >= 0; bits-- {
		p, err := a.Prefix(bits)
		if err != nil {
			return nil
		}
		if s := n.onLink[p]; s != nil {
			return s
		}
	}
	return nil
}

func (c *Compiler) setRecord(n *network, row goal.RecordRow) {
	c.dropRecord(n, row.Key)
	note(c.change.network(n).records, n.records, row.Key)
	n.records[row.Key] = row.Record
	c.nameHost(n, row.Record.PA, 1)
	n.digest = n.digest.Add(row.Digest())
}

func (c *Compiler) dropRecord(n *network, k goal.RecordKey) {
	old, ok := n.records[k]
	if !ok {
		return
	}
	note(c.change.network(n).records, n.records, k)
	delete(n.records, k)
	c.nameHost(n, old.PA, -1)
	n.digest = n.digest.Sub(goal.RecordRow{Key: k, Record: old}.Digest())
}

func (c *Compiler) setRoute(n *network, row goal.RouteRow) {
	c.dropRoute(n, row.Key)
	note(c.change.network(n).routes, n.table, row.Key)
	n.table[row.Key] = row.Route
	n.digest = n.digest.Add(row.Digest())
}

func (c *Compiler) dropRoute(n *network, k goal.RouteKey) {
	old, ok := n.table[k]
	if !ok {
		return
	}
	note(c.change.network(n).routes, n.table, k)
	delete(n.table, k)
	n.digest = n.digest.Sub(goal.RouteRow{Key: k, Route: old}.Digest())
}

// join and leave count the ports of a network on a host; the first makes the
// host a member, the last one ends it.
func (c *Compiler) join(n *network, h *host) {
	if n.hosts[h] == 0 {
		c.noteMember(n, h)
		h.networks[n] = struct{}{}
	}
	n.hosts[h]++
}

func (c *Compiler) leave(n *network, h *host) {
	if n.hosts[h] > 1 {
		n.hosts[h]--
		return
	}
	c.noteMember(n, h)
	delete(n.hosts, h)
	delete(h.networks, n)
}

func (c *Compiler) noteMember(n *network, h *host) {
	n.names = nil
	member := c.change.network(n).member
	if _, noted := member[h]; !noted {
		member[h] = n.hosts[h] > 0
	}
}

// everything that a new member must get.
func (n *network) everything() goal.Delta {
	var d goal.Delta
	for k, r := range n.records {
		d.PutRecords = append(d.PutRecords, goal.RecordRow{Key: k, Record: r})
	}
	for k, p := range n.peers {
		d.PutPeers = append(d.PutPeers, goal.PeerRow{Key: k, Peer: p})
	}
	for k, r := range n.table {
		d.PutRoutes = append(d.PutRoutes, goal.RouteRow{Key: k, Route: r})
	}
	d.Sort()
	return d
}

// members names the hosts of the network, sorted.
func (n *network) members() []string {
	if n == nil {
		return nil
	}
	if n.names == nil {
		for h := range n.hosts {
			n.names = append(n.names, h.name)
		}
		slices.Sort(n.names)
	}
	return n.names
}
