package packet

import (
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// addRewrite gives a Customer Address a Provider Address of its own, mostly, and not always one that
// the rest of the tables agrees with.
func (w *world) addRewrite(rng *rand.Rand, sub *subnet, k table.RecordKey, r table.Record) {
	pool := ownPools[0]
	other := w.exchanges != chance(rng, 3)
	if k.CA.Is6() != other {
		pool = ownPools[1]
	}
	if r.Exchange = other != chance(rng, 2); r.Exchange {
		w.set.Records[k] = r
	}
	pa := host(pool, uint32(1+len(w.set.RewriteIn)))
	if chance(rng, 95) {
		w.set.RewriteOut[k] = pa
	}
	row := table.RewriteIn{VSID: k.VSID, CA: k.CA, Network: sub.network, MAC: r.MAC, IfIndex: r.IfIndex, Remote: r.PA.IsValid()}
	switch rng.IntN(60) {
	case 0:
		row.Network++
	case 1:
		row.VSID = pick(rng, w.subnets).vsid
	case 2:
		row.IfIndex = pick(rng, w.site.ports[:])
	case 3:
		row.Remote = !row.Remote
	}
	w.set.RewriteIn[pa] = row
}

// rewritten is a packet of the underlay between Provider Addresses of guests, mostly.
func (w writer) rewritten(uplink uint32) []byte {
	var here, far []netip.Addr
	is4 := chance(w.Rand, 50)
	for pa, r := range w.set.RewriteIn {
		if pa.Is4() != is4 {
			continue
		}
		if r.Remote {
			far = append(far, pa)
		} else {
			here = append(here, pa)
		}
	}
	sortAddrs(here)
	sortAddrs(far)
	pool, router := ownPools[0], addr("192.0.2.254")
	if !is4 {
		pool, router = ownPools[1], addr("2001:db8:ff::fe")
	}
	src, dst := host(pool, w.Uint32N(60)), host(pool, w.Uint32N(60))
	if len(here) > 0 && chance(w.Rand, 90) {
		dst = pick(w.Rand, here)
	}
	if len(far) > 0 && chance(w.Rand, 90) {
		src = w.inNetworkOf(dst, far)
	}
	mac := w.macs[uplink]
	if chance(w.Rand, 2) {
		mac = pick(w.Rand, []model.MAC{everyone, newMAC(w.Rand)})
	}
	var f []byte
	switch n := w.IntN(100); {
	case n < 15: // a router of the underlay complains
		f = ipFrame(mac, uplinkNextHop, w.complaint(router, dst, src))
	case n < 22 && is4: // IPv6 that was exchanged keeps its Fragment header
		_, part := w.upper(wire.ProtoICMPv6, 8*w.IntN(20))
		header := []byte{wire.ProtoUDP, 0, byte(w.IntN(2)), byte(w.Uint32()), 0, 0, byte(w.Uint32()), 1}
		f = ipFrame(mac, uplinkNextHop, v4(wire.IPv4{TTL: w.ttl(), Proto: wire.ProtoFragment, DontFrag: true, Source: src, Destination: dst}, nil, join(header, part)))
	case n < 20 && !is4:
		f = ipFrame(mac, uplinkNextHop, w.nd(newMAC(w.Rand), src, dst))
	case is4:
		f = ipFrame(mac, uplinkNextHop, w.v4(src, dst, w.IntN(200)))
	default:
		f = ipFrame(mac, uplinkNextHop, w.v6(src, dst, w.IntN(200)))
	}
	return w.mutate(f, 10)
}

// inNetworkOf picks an address whose guest may mostly speak to that of pa.
func (w writer) inNetworkOf(pa netip.Addr, from []netip.Addr) netip.Addr {
	var same []netip.Addr
	for _, a := range from {
		if w.set.RewriteIn[a].Network == w.set.RewriteIn[pa].Network {
			same = append(same, a)
		}
	}
	if len(same) == 0 || chance(w.Rand, 5) {
		return pick(w.Rand, from)
	}
	return pick(w.Rand, same)
}

// complaint is an ICMP error about a packet from dst to far.
func (w writer) complaint(src, dst, far netip.Addr) []byte {
	quoted := w.quoted(dst, far)
	if src.Is4() {
		kind := pick(w.Rand, []uint8{3, 3, 11, 12, 4, 5})
		return v4(wire.IPv4{TTL: w.ttl(), Proto: wire.ProtoICMP, Source: src, Destination: dst}, nil, icmp(kind, uint8(w.IntN(5)), w.Uint32(), quoted))
	}
	kind := pick(w.Rand, []uint8{1, 2, 3, 4, 127})
	return icmp6(wire.IPv6{HopLimit: w.ttl(), Source: src, Destination: dst}, kind, uint8(w.IntN(5)), w.Uint32(), quoted)
}

// quoted is the beginning of a packet from src to dst, as ICMP errors repeat it.
func (w writer) quoted(src, dst netip.Addr) []byte {
	if chance(w.Rand, 5) {
		src = dst
	}
	if chance(w.Rand, 5) {
		dst = w.anyAddressOf(dst.Is4())
	}
	var b []byte
	if src.Is4() {
		proto, payload := w.upper(wire.ProtoICMP, w.IntN(60))
		h := wire.IPv4{TTL: 60, Proto: proto, Source: src, Destination: dst}
		if chance(w.Rand, 8) {
			h.FragOffset = uint16(w.IntN(0x2000))
		}
		var options []byte
		if chance(w.Rand, 8) {
			options = zeros(4 * (1 + w.IntN(10)))
		}
		b = v4(h, options, payload)
	} else {
		proto, payload := w.upper(wire.ProtoICMPv6, w.IntN(60))
		h := wire.IPv6{HopLimit: 60, Source: src, Destination: dst}
		h.Next, payload = w.extensions(proto, payload)
		b = v6(h, payload)
	}
	if chance(w.Rand, 5) {
		b[0] = byte(w.Uint32())
	}
	return b[:min(len(b), pick(w.Rand, []int{128, 128, 128, 48, 28, 36, 37, 38, 39, 40, 57, 58, 59, 46, 47, 20, 19, 8, 0}))]
}

// sortAddrs makes what came out of a map the same in every run.
func sortAddrs(a []netip.Addr) { slices.SortFunc(a, netip.Addr.Compare) }
