package packet

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/wire"
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// join makes one packet of its parts.
func join(parts ...[]byte) []byte {
	var out []byte
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// zeros is n bytes of payload.
func zeros(n int) []byte { return make([]byte, n) }

var everyone = model.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// frame is an Ethernet frame; the EtherType follows from the version of an IP packet.
func frame(dst, src model.MAC, etherType uint16, payload []byte) []byte {
	b := make([]byte, wire.EthernetLen)
	must(wire.Ethernet{Dst: dst, Src: src, Type: etherType}.Encode(b))
	return append(b, payload...)
}

// tagged is f with a VLAN tag in front of its EtherType.
func tagged(f []byte, etherType, tci uint16) []byte {
	return join(f[:12], []byte{byte(etherType >> 8), byte(etherType), byte(tci >> 8), byte(tci)}, f[12:])
}

func arp(op uint16, senderMAC model.MAC, sender netip.Addr, targetMAC model.MAC, target netip.Addr) []byte {
	b := make([]byte, wire.ARPLen)
	must(wire.ARP{Op: op, SenderMAC: senderMAC, Sender: sender, TargetMAC: targetMAC, TargetAddr: target}.Encode(b))
	return b
}

// v4 seals a packet: h with its lengths and checksum set right, options and payload.
func v4(h wire.IPv4, options, payload []byte) []byte {
	h.HeaderLen = wire.IPv4Len + len(options)
	h.TotalLen = uint16(h.HeaderLen + len(payload))
	b := make([]byte, wire.IPv4Len, int(h.TotalLen))
	must(h.Encode(b))
	b = append(b, options...)
	must(wire.SealIPv4(b))
	return append(b, payload...)
}

// v6 is a packet with its payload length set right.
func v6(h wire.IPv6, payload []byte) []byte {
	h.PayloadLen = uint16(len(payload))
	b := make([]byte, wire.IPv6Len, wire.IPv6Len+len(payload))
	must(h.Encode(b))
	return append(b, payload...)
}

// udp is a datagram without checksum, which the switch never reads.
func udp(sport, dport uint16, data int) []byte {
	b := make([]byte, 8+data)
	must(wire.Ports{Source: sport, Destination: dport}.Encode(b))
	b[4], b[5] = byte(len(b)>>8), byte(len(b))
	for i := range data {
		b[8+i] = byte(i)
	}
	return b
}

// icmp is a sealed ICMP message.
func icmp(kind, code uint8, rest uint32, data []byte) []byte {
	b := make([]byte, wire.ICMPLen, wire.ICMPLen+len(data))
	must(wire.ICMP{Type: kind, Code: code, Rest: rest}.Encode(b))
	b = append(b, data...)
	must(wire.SealICMP(b))
	return b
}

// icmp6 is an IPv6 packet with a sealed ICMPv6 message.
func icmp6(h wire.IPv6, kind, code uint8, rest uint32, data []byte) []byte {
	b := make([]byte, wire.ICMPLen, wire.ICMPLen+len(data))
	must(wire.ICMP{Type: kind, Code: code, Rest: rest}.Encode(b))
	return sealed6(h, append(b, data...))
}

// neighbour is an IPv6 packet with a Neighbour Solicitation or Advertisement.
func neighbour(src, dst netip.Addr, n wire.Neighbour, moreOptions ...byte) []byte {
	b := make([]byte, n.Len())
	must(n.Encode(b))
	return sealed6(wire.IPv6{HopLimit: 255, Source: src, Destination: dst}, append(b, moreOptions...))
}

func sealed6(h wire.IPv6, message []byte) []byte {
	h.Next = wire.ProtoICMPv6
	must(wire.SealICMPv6(h, message))
	return v6(h, message)
}

// nvgre is a frame of the underlay around an inner frame.
func nvgre(dst, src model.MAC, from, to netip.Addr, vsid model.VSID, flow uint8, tos uint8, inner []byte) []byte {
	gre := make([]byte, wire.NVGRELen)
	must(wire.NVGRE{VSID: vsid, FlowID: flow}.Encode(gre))
	return frame(dst, src, wire.TypeIPv4, v4(wire.IPv4{
		TOS: tos, DontFrag: true, TTL: 64, Proto: wire.ProtoGRE, Source: from, Destination: to,
	}, nil, join(gre, inner)))
}
