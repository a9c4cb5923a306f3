package sim

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

func (w *walk) encap70() model.Verdict {
	if v := w.checkSize(); v != model.VerdictContinue {
		return v
	}
	w.rewriteInner()
	if w.peer != nil {
		w.encapsulate()
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
	if w.gsoSize == 0 {
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
	return max(0, int(w.peer.MTU)-table.OverheadNVGRE4)
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

// encapsulate puts NVGRE around the frame and leaves room for the outer Ethernet header.
func (w *walk) encapsulate() {
	const room = wire.EthernetLen + wire.IPv4Len + wire.NVGRELen
	out := make([]byte, room+len(w.frame))
	copy(out[room:], w.frame)
	must(wire.IPv4{
		HeaderLen: wire.IPv4Len, TOS: w.packet.dscp() << 2, TotalLen: uint16(len(out) - wire.EthernetLen),
		DontFrag: true, TTL: 64, Proto: wire.ProtoGRE, Source: w.port.PA, Destination: w.peer.PA,
	}.Encode(out[l3:]))
	must(wire.SealIPv4(out[l3 : l3+wire.IPv4Len]))
	must(wire.NVGRE{VSID: w.hop.vsid, FlowID: w.packet.flowID()}.Encode(out[l3+wire.IPv4Len:]))
	w.frame = out
	w.say(model.VerdictContinue, "encap", "NVGRE %s to %s, VSID %d, FlowID %d", w.port.PA, w.peer.PA, w.hop.vsid, w.packet.flowID())
}

// dscp is the six bits of the packet's differentiated services field; ARP has 0.
func (p *packet) dscp() uint8 {
	switch {
	case p.isIPv4():
		return p.v4.TOS >> 2
	case p.isIPv6():
		return p.v6.Class >> 2
	}
	return 0
}

// flowID spreads flows over the underlay's paths; never 0 for IP.
func (p *packet) flowID() uint8 {
	if p.isARP() {
		return 0
	}
	h := fold32(p.src) ^ fold32(p.dst) ^ uint32(p.ports.Source^p.ports.Destination) ^ uint32(p.proto)<<16
	id := uint8(h * 0x9e3779b1 >> 24)
	if id == 0 {
		return 1
	}
	return id
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
