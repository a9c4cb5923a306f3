package sim

import (
	"encoding/binary"

	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

func (w *walk) encap70() model.Verdict {
	if v := w.checkSize(); v != model.VerdictContinue {
		return v
	}
	w.clampOutbound()
	w.rewriteInner()
	if w.peer != nil && !w.rewriting {
		w.encapsulate(w.transport)
	}
	return model.VerdictContinue
}

// checkSize holds the packet, and what the guest padded it by, to what the path carries.
func (w *walk) checkSize() model.Verdict {
	size := w.size()
	limit := w.pathMTU()
	if size <= limit {
		return model.VerdictContinue
	}
	w.tellTooBig(limit)
	return w.say(model.VerdictTooBig, "encap", "%d bytes, the path carries %d", size, limit)
}

// size of what the path is to carry in one piece.
func (w *walk) size() int {
	if w.gsoSize == 0 || w.packet.isARP() {
		return len(w.frame) - wire.EthernetLen
	}
	p := &w.packet
	headers := p.l4 - l3
	switch {
	case p.proto == wire.ProtoUDP:
		headers += 8
	case p.proto == wire.ProtoTCP && len(w.frame) > p.l4+12:
		headers += int(w.frame[p.l4+12]>>4) * 4
	}
	return headers + w.gsoSize
}

// pathMTU is the largest packet of the guest that the path carries.
func (w *walk) pathMTU() int {
	if w.peer == nil {
		return int(w.to.MTU)
	}
	overhead := table.Overhead(w.transport, outerDestination(*w.peer))
	if w.exchanges && w.packet.isIPv4() {
		overhead = table.ExchangeOverhead
	}
	return max(0, int(w.peer.MTU)-overhead)
}

// rewriteInner is what the guest at the other end sees of the forwarding.
func (w *walk) rewriteInner() {
	eth := w.packet.eth
	eth.Dst = w.record.MAC
	if w.routed {
		eth.Src = model.RouterMAC(w.hop.vsid)
		w.setTTL(w.packet.ttl - 1)
	}
	must(eth.Encode(w.frame))
}

// setTTL changes the TTL or hop limit in the frame and keeps an IPv4 checksum right.
func (w *walk) setTTL(ttl uint8) {
	ip := w.frame[l3:]
	if w.packet.isIPv6() {
		ip[7] = ttl
		return
	}
	old := word(ip[8:])
	ip[8] = ttl
	putWord(ip[10:], wire.UpdateChecksum(word(ip[10:]), old, word(ip[8:])))
}

// encapsulate puts the transport's headers around the frame and leaves room for the outer Ethernet header.
func (w *walk) encapsulate(transport model.TransportID) {
	hash := w.packet.flowHash()
	if transport == model.VXLAN {
		w.encapsulateVXLAN(hash)
		return
	}
	gre := make([]byte, wire.NVGRELen)
	id := w.packet.flowID(hash)
	must(wire.NVGRE{VSID: w.hop.vsid, FlowID: id}.Encode(gre))
	w.frame = w.outerIP(wire.ProtoGRE, hash, gre)
	w.say(model.VerdictContinue, "encap", "NVGRE %s to %s, VSID %d, FlowID %d", w.outerSource(*w.peer), outerDestination(*w.peer), w.hop.vsid, id)
}

func (w *walk) encapsulateVXLAN(hash uint32) {
	header := make([]byte, wire.UDPLen+wire.VXLANLen)
	port := uint16(wire.VXLANFirstPort + hash>>18)
	must(wire.UDP{Source: port, Destination: w.Set.Settings.VXLANPort, Length: uint16(len(header) + len(w.frame))}.Encode(header))
	must(wire.VXLAN{VSID: w.hop.vsid}.Encode(header[wire.UDPLen:]))
	w.frame = w.outerIP(wire.ProtoUDP, hash, header)
	w.say(model.VerdictContinue, "encap", "VXLAN %s to %s, VSID %d, source port %d", w.outerSource(*w.peer), outerDestination(*w.peer), w.hop.vsid, port)
}

// outerIP is the frame behind room for Ethernet, the outer IP header and the tunnel's.
func (w *walk) outerIP(proto uint8, hash uint32, tunnel []byte) []byte {
	if outerDestination(*w.peer).Is6() {
		out := make([]byte, l3+wire.IPv6Len, l3+wire.IPv6Len+len(tunnel)+len(w.frame))
		out = append(append(out, tunnel...), w.frame...)
		must(wire.IPv6{
			Class: w.outerTOS(), Flow: hash >> 12, PayloadLen: uint16(len(out) - l3 - wire.IPv6Len),
			Next: proto, HopLimit: w.outerTTL(), Source: w.outerSource(*w.peer), Destination: outerDestination(*w.peer),
		}.Encode(out[l3:]))
		return out
	}
	out := make([]byte, l3+wire.IPv4Len, l3+wire.IPv4Len+len(tunnel)+len(w.frame))
	out = append(append(out, tunnel...), w.frame...)
	must(wire.IPv4{
		HeaderLen: wire.IPv4Len, TOS: w.outerTOS(), TotalLen: uint16(len(out) - l3), ID: w.outerID(),
		DontFrag: true, TTL: w.outerTTL(), Proto: proto, Source: w.outerSource(*w.peer), Destination: outerDestination(*w.peer),
	}.Encode(out[l3:]))
	must(wire.SealIPv4(out[l3 : l3+wire.IPv4Len]))
	return out
}

// outerID is the identification of the guest's packet; 0 of others than IPv4.
func (w *walk) outerID() uint16 {
	if binary.BigEndian.Uint16(w.frame[l3-2:]) != wire.TypeIPv4 {
		return 0
	}
	return binary.BigEndian.Uint16(w.frame[l3+4:])
}

// flowHash is what spreads flows over the underlay's paths; 0 for ARP.
func (p *packet) flowHash() uint32 {
	if p.isARP() {
		return 0
	}
	h := fold32(p.src) ^ fold32(p.dst) ^ uint32(p.ports.Source^p.ports.Destination) ^ uint32(p.proto)<<16
	return h * 0x9e3779b1
}

// flowID is what NVGRE shows of the hash; never 0 for IP.
func (p *packet) flowID(hash uint32) uint8 {
	if hash>>24 == 0 && !p.isARP() {
		return 1
	}
	return uint8(hash >> 24)
}

// fold32 is the exclusive or of the 32-bit words of an address. (IPv4 in its
// 16-byte form brings 0x0000ffff along, which cancels out between two addresses.)
func fold32(a netip.Addr) uint32 {
	b := a.As16()
	h := uint32(0)
	for i := 0; i < 16; i += 4 {
		h ^= uint32(word(b[i:]))<<16 | uint32(word(b[i+2:]))
	}
	return h
}

// outerTTL keeps what goes to a multicast PA near.
func (w *walk) outerTTL() uint8 {
	if w.peer.PA.IsMulticast() {
		return 16
	}
	return 64
}
