package sim

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/wire"
)

// maxQuote is how much of the packet an ICMP error repeats, in bytes.
const maxQuote = 128

func (w *walk) tellTimeExceeded() {
	if w.packet.isIPv4() {
		w.tell4(wire.ICMP{Type: wire.ICMPTimeExceeded})
		return
	}
	w.tell6(wire.ICMP{Type: wire.ICMPv6TimeExceeded})
}

func (w *walk) tellTooBig(mtu int) {
	switch {
	case w.packet.isIPv4():
		w.tell4(wire.ICMP{Type: wire.ICMPUnreachable, Code: wire.ICMPCodeFragNeeded, Rest: uint32(mtu)})
	case w.packet.isIPv6():
		w.tell6(wire.ICMP{Type: wire.ICMPv6PacketTooBig, Rest: uint32(mtu)})
	}
}

// mayTell keeps errors from answering errors, and from answering what shows no upper header.
func (p *packet) mayTell() bool {
	switch {
	case p.later || p.nd || p.l4 > l3+maxQuote:
		return false
	case p.isICMPv6():
		return p.icmpType >= wire.ICMPv6FirstNotAnErr
	case p.isICMP():
		return p.icmpType == wire.ICMPEchoReply || p.icmpType == wire.ICMPEchoRequest ||
			p.icmpType == wire.ICMPTimestamp || p.icmpType == wire.ICMPTimestampReply
	}
	return true
}

// quote is the packet as it came, as much of it as an error repeats.
func (w *walk) quote() []byte {
	n := min(w.packet.length, maxQuote) &^ 3
	return w.frame[l3 : l3+n]
}

func (w *walk) tell4(head wire.ICMP) {
	if !w.packet.mayTell() || !w.port.Gateway4.IsValid() {
		return
	}
	ip := wire.IPv4{
		HeaderLen: wire.IPv4Len, TTL: 64, Proto: wire.ProtoICMP,
		TotalLen: uint16(wire.IPv4Len + wire.ICMPLen + len(w.quote())),
		Source:   w.port.Gateway4, Destination: w.packet.src,
	}
	out, message := w.errorFrame(wire.IPv4Len, head)
	must(ip.Encode(out[l3:]))
	must(wire.SealIPv4(out[l3 : l3+wire.IPv4Len]))
	must(wire.SealICMP(message))
	w.sendError(w.port.Gateway4, out)
}

func (w *walk) tell6(head wire.ICMP) {
	if !w.packet.mayTell() || !w.port.Gateway6.IsValid() {
		return
	}
	ip := wire.IPv6{
		Next: wire.ProtoICMPv6, HopLimit: 64, PayloadLen: uint16(wire.ICMPLen + len(w.quote())),
		Source: w.port.Gateway6, Destination: w.packet.src,
	}
	out, message := w.errorFrame(wire.IPv6Len, head)
	must(ip.Encode(out[l3:]))
	must(wire.SealICMPv6(ip, message))
	w.sendError(w.port.Gateway6, out)
}

// errorFrame makes the frame with everything but its IP header and checksum, and shows where the
// ICMP message is in it.
func (w *walk) errorFrame(ipLen int, head wire.ICMP) (frame, message []byte) {
	quote := w.quote()
	frame = make([]byte, l3+ipLen+wire.ICMPLen+len(quote))
	eth := wire.Ethernet{Dst: w.packet.eth.Src, Src: model.RouterMAC(w.port.VSID), Type: w.packet.eth.Type}
	must(eth.Encode(frame))
	message = frame[l3+ipLen:]
	must(head.Encode(message))
	copy(message[wire.ICMPLen:], quote)
	return frame, message
}

func (w *walk) sendError(gateway netip.Addr, frame []byte) {
	w.send(w.port.IfIndex, frame)
	w.say(model.VerdictContinue, "respond", "the guest is told by %s", gateway)
}
