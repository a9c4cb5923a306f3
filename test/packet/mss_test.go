package packet

import (
	"encoding/binary"
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// clamps has the ports of a guest lower the MSS of their connections.
func clamps(ids ...model.PortID) func(*table.Set) {
	return func(set *table.Set) {
		for i, p := range set.Ports {
			for _, id := range ids {
				p.ClampMSS = p.ClampMSS || p.ID == id
			}
			set.Ports[i] = p
		}
	}
}

// handshake is a sealed TCP packet with options.
func handshake(src, dst netip.Addr, flags byte, options ...byte) []byte {
	options = append(options, zeros(-len(options)&3)...)
	b := make([]byte, 20, 20+len(options))
	must(wire.Ports{Source: 4000, Destination: 80}.Encode(b))
	b[12], b[13] = byte(20+len(options))/4<<4, flags
	b = append(b, options...)
	binary.BigEndian.PutUint16(b[16:], wire.Checksum(b, wire.PseudoHeader(src, dst, wire.ProtoTCP, len(b))))
	if src.Is4() {
		return v4(wire.IPv4{TTL: 64, Proto: wire.ProtoTCP, Source: src, Destination: dst}, nil, b)
	}
	return v6(wire.IPv6{HopLimit: 64, Next: wire.ProtoTCP, Source: src, Destination: dst}, b)
}

// mssStories are about the MSS that TCP connections begin with. The path between ports here
// carries 1458 bytes, that to narrow 1000-42.
func mssStories(s site) []story {
	const syn, ack = 2, 16
	mss := func(n uint16, before ...byte) []byte { return append(before, 2, 4, byte(n>>8), byte(n)) }
	to := func(name string, change func(*table.Set), dst guest, in, out []byte) story {
		return story{name: name, in: s.fromPort(devWeb, ipFrame(dst.mac, web.mac, in)), change: change, port: web.id, to: db.id,
			want: outcome{model.VerdictDelivered, s.ports[devDB], ipFrame(dst.mac, web.mac, out)}}
	}
	hello := func(flags byte, options ...byte) []byte { return handshake(web.v4, db.v4, flags, options...) }
	hello6 := func(flags byte, options ...byte) []byte { return handshake(web.v6, db.v6, flags, options...) }
	far := func(options ...byte) []byte {
		return ipFrame(narrow.mac, web.mac, handshake(web.v4, narrow.v4, syn, options...))
	}
	answer := func(n uint16) []byte {
		return ipFrame(web.mac, mail.mac, handshake(mail.v6, web.v6, syn|ack, mss(n)...))
	}
	on := clamps(web.id)
	carried := outcome{model.VerdictEncapsulated, s.uplinks[1], nvgre(uplinkNextHop, s.macs[s.uplinks[1]], paHere, paNarrow, red1,
		flowOfTCP(web.v4, narrow.v4), 0, far(mss(1000-42-40)...))}
	return []story{
		to("a connection begins, its MSS too large", on, db, hello(syn, mss(1460)...), hello(syn, mss(1418)...)),
		to("the same, IPv6", on, db, hello6(syn, mss(1440)...), hello6(syn, mss(1398)...)),
		to("the same, answered", on, db, hello(syn|ack, mss(8960)...), hello(syn|ack, mss(1418)...)),
		to("an MSS at an odd place", on, db, hello(syn, mss(1460, 1)...), hello(syn, mss(1418, 1)...)),
		to("an MSS behind other options", on, db, hello(syn, mss(1460, 4, 2, 3, 3, 7)...), hello(syn, mss(1418, 4, 2, 3, 3, 7)...)),
		to("an MSS that fits", on, db, hello(syn, mss(1418)...), hello(syn, mss(1418)...)),
		to("an MSS that is small", on, db, hello(syn, mss(536)...), hello(syn, mss(536)...)),
		to("no MSS", on, db, hello(syn, 3, 3, 7), hello(syn, 3, 3, 7)),
		to("an MSS behind more options than are looked at", on, db, hello(syn, mss(1460, 1, 1, 1, 1, 1, 1, 1, 1)...), hello(syn, mss(1460, 1, 1, 1, 1, 1, 1, 1, 1)...)),
		to("an MSS behind the end", on, db, hello(syn, mss(1460, 0)...), hello(syn, mss(1460, 0)...)),
		to("an option longer than the header", on, db, hello(syn, 9, 40), hello(syn, 9, 40)),
		to("an established connection", on, db, hello(ack, mss(1460)...), hello(ack, mss(1460)...)),
		to("a subnet that does not lower it", nil, db, hello(syn, mss(1460)...), hello(syn, mss(1460)...)),
		to("only the other end's subnet lowers it", clamps(db.id), db, hello(syn, mss(1460)...), hello(syn, mss(1418)...)),
		{name: "a path that is narrow", in: s.fromPort(devWeb, far(mss(1460)...)), change: on, want: carried, port: web.id},
		{name: "a connection answered from afar", in: s.fromUplink(nvgre(s.macs[s.uplinks[0]], uplinkNextHop, paFar, paHere, red1, 7, 0, answer(8000))), change: on,
			want: outcome{model.VerdictDelivered, s.ports[devWeb], answer(1398)}, port: web.id, to: web.id},
	}
}

// flowOfTCP is the FlowID of a handshake.
func flowOfTCP(src, dst netip.Addr) uint8 {
	h := uint32(4000^80) ^ 6<<16
	for _, a := range [2]netip.Addr{src, dst} {
		h ^= binary.BigEndian.Uint32(a.AsSlice())
	}
	return uint8(h * 0x9e3779b1 >> 24)
}
