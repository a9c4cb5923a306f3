package agent

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/wire"
)

// probe is a packet that a guest would send.
type probe struct {
	source, destination netip.Addr
	protocol            uint8 // 1 stands for echo in either family
	sport, dport        uint16
	size                int // of the IP packet, bytes; less than the headers: headers alone
	reply               bool
}

// TTL of what a guest sends, and the port that it says it comes from.
const (
	guestTTL      = 64
	tcpLen        = 20
	udpLen        = 8
	tcpSyn        = 0x02
	tcpRst        = 0x04
	tcpSynAck     = 0x12
	largestWindow = 65535
)

var broadcastMAC = model.MAC{255, 255, 255, 255, 255, 255}

// group is the Ethernet address of what is for many, which no guest asks a neighbour for.
func (p probe) group(port goal.Port) (model.MAC, bool) {
	if p.destination.IsMulticast() {
		return groupMAC(p.destination), true
	}
	if p.destination == netip.AddrFrom4([4]byte{255, 255, 255, 255}) {
		return broadcastMAC, true
	}
	for _, prefix := range port.Prefixes {
		if prefix.Contains(p.destination) && p.destination.Is4() && prefix.Bits() < 31 && !prefix.Contains(p.destination.Next()) {
			return broadcastMAC, true // the last of the prefix
		}
	}
	return model.MAC{}, false
}

// neighbour is whom the guest asks for the way to the destination: itself when it
// is in one of the guest's prefixes, else the gateway.
func (p probe) neighbour(port goal.Port) (netip.Addr, error) {
	for _, prefix := range port.Prefixes {
		if prefix.Contains(p.destination) {
			return p.destination, nil
		}
	}
	gateway := port.Gateway6
	if p.destination.Is4() {
		gateway = port.Gateway4
	}
	if !gateway.IsValid() {
		return gateway, fmt.Errorf("%s is not in the subnet of port %s, and the subnet has no gateway of that family", p.destination, port.Ref)
	}
	return gateway, nil
}

// question is the frame by which a guest asks for a neighbour's MAC: an ARP
// request, or a neighbour solicitation to the solicited-node group (RFC 4861 7.2.2).
func question(port goal.Port, source, target netip.Addr) []byte {
	if target.Is4() {
		out := make([]byte, wire.EthernetLen+wire.ARPLen)
		written(wire.Ethernet{Dst: broadcastMAC, Src: port.MAC, Type: wire.TypeARP}.Encode(out))
		written(wire.ARP{Op: wire.ARPRequest, SenderMAC: port.MAC, Sender: source, TargetAddr: target}.Encode(out[wire.EthernetLen:]))
		return out
	}
	group := solicitedNode(target)
	message := wire.Neighbour{Type: wire.ICMPv6NeighbourSol, Target: target, MAC: port.MAC, HasMAC: true}
	ip := wire.IPv6{PayloadLen: uint16(message.Len()), Next: wire.ProtoICMPv6, HopLimit: 255, Source: source, Destination: group}
	out := make([]byte, wire.EthernetLen+wire.IPv6Len+message.Len())
	g := group.As16()
	written(wire.Ethernet{Dst: model.MAC{0x33, 0x33, g[12], g[13], g[14], g[15]}, Src: port.MAC, Type: wire.TypeIPv6}.Encode(out))
	written(ip.Encode(out[wire.EthernetLen:]))
	written(message.Encode(out[wire.EthernetLen+wire.IPv6Len:]))
	written(wire.SealICMPv6(ip, out[wire.EthernetLen+wire.IPv6Len:]))
	return out
}

// solicitedNode is ff02::1:ffXX:XXXX (RFC 4291 2.7.1).
func solicitedNode(a netip.Addr) netip.Addr {
	b := a.As16()
	return netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
}

// answeredMAC reads the neighbour's MAC from the answer to question. The switch
// answers with the MAC as the Ethernet source, and so did the oracle agree.
func answeredMAC(answer []byte) model.MAC {
	if len(answer) < wire.EthernetLen {
		return model.MAC{}
	}
	return model.MAC(answer[6:12])
}

// frame is the packet itself, on its way to a neighbour's MAC.
func (p probe) frame(src, dst model.MAC) []byte {
	headers, kind, protocol := wire.IPv6Len, uint16(wire.TypeIPv6), p.protocol
	if p.destination.Is4() {
		headers, kind = wire.IPv4Len, wire.TypeIPv4
	} else if protocol == wire.ProtoICMP {
		protocol = wire.ProtoICMPv6
	}
	upper := make([]byte, max(upperLen(protocol), p.size-headers))
	out := make([]byte, wire.EthernetLen+headers, wire.EthernetLen+headers+len(upper))
	written(wire.Ethernet{Dst: dst, Src: src, Type: kind}.Encode(out))
	if p.destination.Is4() {
		ip := wire.IPv4{HeaderLen: wire.IPv4Len, TotalLen: uint16(headers + len(upper)), DontFrag: true, TTL: guestTTL,
			Proto: protocol, Source: p.source, Destination: p.destination}
		written(ip.Encode(out[wire.EthernetLen:]))
		written(wire.SealIPv4(out[wire.EthernetLen:]))
	} else {
		ip := wire.IPv6{PayloadLen: uint16(len(upper)), Next: protocol, HopLimit: guestTTL, Source: p.source, Destination: p.destination}
		written(ip.Encode(out[wire.EthernetLen:]))
	}
	p.fill(upper, protocol)
	return append(out, upper...)
}

func upperLen(protocol uint8) int {
	switch protocol {
	case wire.ProtoTCP:
		return tcpLen
	case wire.ProtoUDP:
		return udpLen
	}
	return wire.ICMPLen
}

// fill writes the L4 header (RFC 9293, RFC 768, RFC 792, RFC 4443), checksum included.
func (p probe) fill(b []byte, protocol uint8) {
	at, partial := 2, uint32(0)
	if protocol != wire.ProtoICMP {
		partial = wire.PseudoHeader(p.source, p.destination, protocol, len(b))
	}
	switch protocol {
	case wire.ProtoTCP:
		at = 16
		written(wire.Ports{Source: p.sport, Destination: p.dport}.Encode(b))
		b[12], b[13] = tcpLen/4<<4, tcpSyn
		if p.reply {
			b[13] = tcpSynAck
		}
		binary.BigEndian.PutUint16(b[14:], largestWindow)
	case wire.ProtoUDP:
		at = 6
		written(wire.Ports{Source: p.sport, Destination: p.dport}.Encode(b))
		binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	case wire.ProtoICMP:
		b[0] = pick(p.reply, wire.ICMPEchoReply, wire.ICMPEchoRequest)
	case wire.ProtoICMPv6:
		b[0] = pick(p.reply, wire.ICMPv6EchoReply, wire.ICMPv6EchoRequest)
	}
	sum := wire.Checksum(b, partial)
	if sum == 0 && protocol == wire.ProtoUDP {
		sum = 0xffff // zero says that there is none
	}
	binary.BigEndian.PutUint16(b[at:], sum)
}

func pick(reply bool, yes, no byte) byte {
	if reply {
		return yes
	}
	return no
}

// written is for encoders, which fail only on a buffer that is too short: a mistake here.
func written(err error) {
	if err != nil {
		panic(err)
	}
}
