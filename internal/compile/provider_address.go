package compile

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

func (c *Compiler) addProviderAddress(r *model.ProviderAddress) {
	h := c.host(r.Spec.Host)
	h.addresses[r.Metadata.Name] = r
	c.todo.hosts[h] = struct{}{}
}

func (c *Compiler) removeProviderAddress(r *model.ProviderAddress) {
	h := c.host(r.Spec.Host)
	delete(h.addresses, r.Metadata.Name)
	c.todo.hosts[h] = struct{}{}
}

// concernProviderAddress names the hosts whose Goal mentions the address: its
// own, and those of networks whose records name its host.
func (c *Compiler) concernProviderAddress(r *model.ProviderAddress) []string {
	h := c.hosts[r.Spec.Host]
	names := []string{h.name}
	for _, a := range []netip.Addr{h.primary, r.Spec.Address.Unmap()} {
		for n := range c.named[a] {
			names = append(names, n.members()...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// peerSpot is a place where a Peer may stand.
type peerSpot struct {
	network *network
	pa      netip.Addr
}

// nameHost counts the records of a network that name a host.
func (c *Compiler) nameHost(n *network, pa netip.Addr, by int) {
	if !pa.IsValid() {
		return
	}
	c.todo.peers[peerSpot{n, pa}] = struct{}{}
	n.behind[pa] += by
	if n.behind[pa] == 0 {
		delete(n.behind, pa)
		delete(c.named[pa], n)
		if len(c.named[pa]) == 0 {
			delete(c.named, pa)
		}
		return
	}
	if c.named[pa] == nil {
		c.named[pa] = map[*network]struct{}{}
	}
	c.named[pa][n] = struct{}{}
}

// touchPeers asks for the Peer of a host in every network that names it.
func (c *Compiler) touchPeers(primary netip.Addr) {
	for n := range c.named[primary] {
		c.todo.peers[peerSpot{n, primary}] = struct{}{}
	}
}

func (c *Compiler) settlePeer(spot peerSpot) {
	n := spot.network
	row := goal.PeerRow{Key: goal.PeerKey{Network: n.index, PA: spot.pa}}
	c.dropPeer(n, row.Key)
	h := c.hostOf(spot.pa)
	if n.behind[spot.pa] == 0 || h == nil || slices.Equal(h.usable, []netip.Addr{h.primary}) {
		return
	}
	copy(row.Peer.PAs[:], h.usable)
	if row.Check() != nil {
		return
	}
	note(c.change.network(n).peers, n.peers, row.Key)
	n.peers[row.Key] = row.Peer
	n.digest = n.digest.Add(row.Digest())
}

func (c *Compiler) dropPeer(n *network, k goal.PeerKey) {
	old, ok := n.peers[k]
	if !ok {
		return
	}
	note(c.change.network(n).peers, n.peers, k)
	delete(n.peers, k)
	n.digest = n.digest.Sub(goal.PeerRow{Key: k, Peer: old}.Digest())
}

// hostOf finds the host that has a primary address; admission lets only one have it.
func (c *Compiler) hostOf(primary netip.Addr) *host {
	all := c.primaries[primary]
	if len(all) == 0 {
		return nil
	}
	return slices.MinFunc(slices.Collect(maps.Keys(all)), func(a, b *host) int { return cmp.Compare(a.name, b.name) })
}
