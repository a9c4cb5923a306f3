package goal

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
)

// Digest is the sum modulo 2^128 of a truncated SHA-256 of every row, big
// endian. A sum does not depend on order and can be carried along as rows come
// and go. It finds faults and drift between two ends that trust each other (the
// stream is mutual TLS); it is no defence against someone who chooses rows.
type Digest [16]byte

// Add gives d with the rows of e.
func (d Digest) Add(e Digest) Digest {
	low, carry := bits.Add64(d.low(), e.low(), 0)
	high, _ := bits.Add64(d.high(), e.high(), carry)
	return join(high, low)
}

// Sub gives d without the rows of e.
func (d Digest) Sub(e Digest) Digest {
	low, borrow := bits.Sub64(d.low(), e.low(), 0)
	high, _ := bits.Sub64(d.high(), e.high(), borrow)
	return join(high, low)
}

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

func (d Digest) high() uint64 { return binary.BigEndian.Uint64(d[:8]) }
func (d Digest) low() uint64  { return binary.BigEndian.Uint64(d[8:]) }

func join(high, low uint64) (d Digest) {
	binary.BigEndian.PutUint64(d[:8], high)
	binary.BigEndian.PutUint64(d[8:], low)
	return d
}

// The first byte of what is hashed keeps rows of different types apart.
const (
	kindPA byte = 1 + iota
	kindRecord
	kindRoute
	kindPort
	kindPeer
	kindSettings
	kindProviderRoute
	kindGroup
	kindList
)

func hash(row []byte) Digest {
	sum := sha256.Sum256(row)
	return Digest(sum[:16])
}

// Digest of the row.
func (p Port) Digest() Digest { return hash(appendPort([]byte{kindPort}, p)) }

// Digest of the row.
func (r RecordRow) Digest() Digest {
	var room [64]byte
	return hash(appendRecord(append(room[:0], kindRecord), r))
}

// Digest of the row.
func (r RouteRow) Digest() Digest {
	var room [64]byte
	return hash(appendRoute(append(room[:0], kindRoute), r))
}

// Digest of the row.
func (r PeerRow) Digest() Digest {
	var room [256]byte
	return hash(appendPeer(append(room[:0], kindPeer), r))
}

// DigestPA is the digest of a Provider Address as a row.
func DigestPA(a netip.Addr) Digest {
	var room [64]byte
	return hash(appendAddr(append(room[:0], kindPA), a))
}

// Digest of the row; that of settings that nobody has told is zero.
func (s Settings) Digest() Digest {
	if s == (Settings{}) {
		return Digest{}
	}
	return hash(appendSettings([]byte{kindSettings}, s))
}

// Digest of the whole Goal. The empty Goal has the zero Digest.
func (g *Goal) Digest() Digest {
	sum := g.Settings.Digest()
	for _, p := range g.Ports {
		sum = sum.Add(p.Digest())
	}
	for k, r := range g.Records {
		sum = sum.Add(RecordRow{k, r}.Digest())
	}
	for k, r := range g.Routes {
		sum = sum.Add(RouteRow{k, r}.Digest())
	}
	for k, p := range g.Peers {
		sum = sum.Add(PeerRow{k, p}.Digest())
	}
	for name, r := range g.ProviderRoutes {
		sum = sum.Add(ProviderRouteRow{name, r}.Digest())
	}
	for pa := range g.PAs {
		sum = sum.Add(DigestPA(pa))
	}
	for _, x := range g.Groups {
		sum = sum.Add(x.Digest())
	}
	for _, l := range g.Lists {
		sum = sum.Add(l.Digest())
	}
	return sum
}

// Digest gives the digest that g will have after d.Apply(g), when it has
// before now. It costs as much as d is long, not as g is large.
func (d Delta) Digest(g *Goal, before Digest) Digest {
	sum := before
	if d.PutSettings != nil {
		sum = sum.Sub(g.Settings.Digest()).Add(d.PutSettings.Digest())
	}
	for _, pa := range d.PutPAs {
		if _, ok := g.PAs[pa]; !ok {
			sum = sum.Add(DigestPA(pa))
		}
	}
	for _, r := range d.PutProviderRoutes {
		sum = without(sum, g.ProviderRoutes, r.Name, providerRouteDigest).Add(r.Digest())
	}
	for _, p := range d.PutPeers {
		sum = without(sum, g.Peers, p.Key, peerDigest).Add(p.Digest())
	}
	for _, x := range d.PutGroups {
		sum = without(sum, g.Groups, x.Ref, groupDigest).Add(x.Digest())
	}
	for _, l := range d.PutLists {
		sum = without(sum, g.Lists, l.Ref, listDigest).Add(l.Digest())
	}
	for _, k := range d.DeleteLists {
		sum = without(sum, g.Lists, k, listDigest)
	}
	for _, k := range d.DeleteGroups {
		sum = without(sum, g.Groups, k, groupDigest)
	}
	for _, r := range d.PutRecords {
		sum = without(sum, g.Records, r.Key, recordDigest).Add(r.Digest())
	}
	for _, r := range d.PutRoutes {
		sum = without(sum, g.Routes, r.Key, routeDigest).Add(r.Digest())
	}
	for _, p := range d.PutPorts {
		sum = without(sum, g.Ports, p.ID, portDigest).Add(p.Digest())
	}
	for _, id := range d.DeletePorts {
		sum = without(sum, g.Ports, id, portDigest)
	}
	for _, k := range d.DeleteRoutes {
		sum = without(sum, g.Routes, k, routeDigest)
	}
	for _, k := range d.DeleteRecords {
		sum = without(sum, g.Records, k, recordDigest)
	}
	for _, k := range d.DeletePeers {
		sum = without(sum, g.Peers, k, peerDigest)
	}
	for _, name := range d.DeleteProviderRoutes {
		sum = without(sum, g.ProviderRoutes, name, providerRouteDigest)
	}
	for _, pa := range d.DeletePAs {
		if _, ok := g.PAs[pa]; ok {
			sum = sum.Sub(DigestPA(pa))
		}
	}
	return sum
}

func without[K comparable, V any](sum Digest, rows map[K]V, k K, digest func(K, V) Digest) Digest {
	if old, ok := rows[k]; ok {
		return sum.Sub(digest(k, old))
	}
	return sum
}

func recordDigest(k RecordKey, r Record) Digest { return RecordRow{k, r}.Digest() }
func peerDigest(k PeerKey, p Peer) Digest       { return PeerRow{k, p}.Digest() }
func routeDigest(k RouteKey, r Route) Digest    { return RouteRow{k, r}.Digest() }
func groupDigest(_ model.Ref, x *Group) Digest  { return x.Digest() }
func listDigest(_ model.Ref, l *List) Digest    { return l.Digest() }
func portDigest(_ model.PortID, p Port) Digest  { return p.Digest() }
