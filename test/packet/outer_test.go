package packet

import (
	"encoding/binary"
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// tunnel is what carries a frame over the underlay: either transport, over either family.
type tunnel struct {
	transport model.TransportID
	from, to  netip.Addr
	vsid      model.VSID
	hash      uint32 // of the flow: 70.3 says what each header shows of it
	tos       uint8
	sum       bool // VXLAN: with a UDP checksum
}

// around is the frame of the underlay around an inner frame.
func (t tunnel) around(dst, src model.MAC, inner []byte) []byte {
	proto, payload := uint8(wire.ProtoGRE), t.nvgre(inner)
	if t.transport == model.VXLAN {
		proto, payload = wire.ProtoUDP, t.vxlan(inner)
	}
	if t.from.Is6() {
		return frame(dst, src, wire.TypeIPv6, v6(wire.IPv6{
			Class: t.tos, Flow: t.hash >> 12, HopLimit: 64, Next: proto, Source: t.from, Destination: t.to}, payload))
	}
	return frame(dst, src, wire.TypeIPv4, v4(wire.IPv4{
		TOS: t.tos, DontFrag: true, TTL: 64, Proto: proto, Source: t.from, Destination: t.to}, nil, payload))
}

func (t tunnel) nvgre(inner []byte) []byte {
	gre := make([]byte, wire.NVGRELen)
	must(wire.NVGRE{VSID: t.vsid, FlowID: uint8(t.hash >> 24)}.Encode(gre))
	return join(gre, inner)
}

func (t tunnel) vxlan(inner []byte) []byte {
	b := make([]byte, wire.UDPLen+wire.VXLANLen)
	must(wire.UDP{Source: uint16(0xc000 | t.hash>>18), Destination: 4789, Length: uint16(len(b) + len(inner))}.Encode(b))
	must(wire.VXLAN{VSID: t.vsid}.Encode(b[wire.UDPLen:]))
	b = append(b, inner...)
	if t.sum {
		sealUDP(b, t.from, t.to)
	}
	return b
}

// sealUDP computes the checksum of a datagram, which is never sent as 0.
func sealUDP(b []byte, from, to netip.Addr) {
	b[6], b[7] = 0, 0
	sum := wire.Checksum(b, wire.PseudoHeader(from, to, wire.ProtoUDP, len(b)))
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], sum)
}

// ipLen is the length of the tunnel's IP header.
func (t tunnel) ipLen() int {
	if t.from.Is6() {
		return wire.IPv6Len
	}
	return wire.IPv4Len
}

// overhead is what precedes the inner frame, and what the path has less for guests.
func (t tunnel) overhead() int { return table.Overhead(t.transport, t.from) }

// innerType is the EtherType of the frame inside one of the underlay; 0 if that is too short.
func innerType(f []byte) uint16 {
	if len(f) < 54 {
		return 0
	}
	from, proto := paHere, f[23]
	if f[14]>>4 == 6 {
		from, proto = paHere6, f[20]
	}
	t := tunnel{from: from}
	if proto == wire.ProtoUDP {
		t.transport = model.VXLAN
	}
	at := t.overhead() + 12
	if len(f) < at+2 {
		return 0
	}
	return binary.BigEndian.Uint16(f[at:])
}

// summed tells whether an outer UDP packet has a checksum: for one that GRO made, GRO has vouched, which
// the oracle knows nothing of.
func summed(f []byte) bool {
	at, proto := 40, 23
	if len(f) > 14 && f[12] == 0x86 {
		at, proto = 60, 20
	}
	return len(f) >= at+2 && f[proto] == wire.ProtoUDP && f[at]|f[at+1] != 0
}
