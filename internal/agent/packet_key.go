package agent

import (
	"encoding/binary"
	"hash/fnv"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/wire"
)

// packetKey tells packets of guests apart by what no transport changes on the way:
// not addresses, which rewriting replaces, nor TTL, checksums and, of a packet that is
// cut on the way, its length. 0: the frame does not tell.
func packetKey(p datapath.Captured) uint64 {
	if p.Point == datapath.ToUnderlay || p.Error {
		return 0
	}
	frame := from(p.Frame, p.Inner)
	eth, err := wire.ParseEthernet(frame)
	if err != nil {
		return 0
	}
	body := frame[wire.EthernetLen:]
	switch {
	case eth.Type == wire.TypeARP && len(body) >= wire.ARPLen:
		return hashed(wire.TypeARP, body[6:wire.ARPLen])
	case eth.Type == wire.TypeIPv4 && len(body) >= wire.IPv4Len:
		header := max(int(body[0]&0xf)*4, wire.IPv4Len)
		id, fragment := body[4:6], body[6:8]
		if binary.BigEndian.Uint16(fragment) == 0x4000 {
			id = nil // of an atomic datagram it means nothing (RFC 6864), and rewriting to IPv6 loses it
		}
		if binary.BigEndian.Uint16(fragment)&0x1fff != 0 { // a later fragment has no L4 header
			return hashed(uint16(body[9]), id, fragment)
		}
		return hashed(uint16(body[9]), append(upperKey(body[9], from(body, header)), id...))
	case eth.Type == wire.TypeIPv6 && len(body) >= wire.IPv6Len:
		next, upper := body[6], body[wire.IPv6Len:]
		for (next == 0 || next == 43 || next == 60) && len(upper) >= 2 {
			next, upper = upper[0], from(upper, 8*(int(upper[1])+1))
		}
		if next == 44 && len(upper) >= 8 {
			return hashed(44, upper[:8])
		}
		return hashed(uint16(next), upperKey(next, upper))
	}
	return 0
}

// upperKey is what tells packets of one flow apart: TCP's sequence number, UDP's
// payload, ICMP's identifier and sequence number.
func upperKey(proto uint8, b []byte) []byte {
	const payload = 32
	switch {
	case proto == wire.ProtoTCP && len(b) >= tcpLen:
		return append(append([]byte{}, b[:12]...), b[13]&(tcpSyn|tcpRst)) // ports, sequence, acknowledgement
	case proto == wire.ProtoUDP && len(b) >= udpLen:
		return append(append([]byte{}, b[:4]...), b[udpLen:min(udpLen+payload, len(b))]...)
	case (proto == wire.ProtoICMP || proto == wire.ProtoICMPv6) && len(b) >= wire.ICMPLen:
		return append(append([]byte{}, b[:2]...), b[4:wire.ICMPLen]...)
	}
	return append([]byte{}, b[:min(payload, len(b))]...)
}

func hashed(kind uint16, parts ...[]byte) uint64 {
	h := fnv.New64a()
	h.Write([]byte{byte(kind >> 8), byte(kind)})
	for _, p := range parts {
		h.Write(p)
	}
	return max(h.Sum64(), 1)
}
