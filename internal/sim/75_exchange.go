package sim

import (
	"encoding/binary"
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// Flags and offset of an IPv4 header.
const (
	dontFragment  = 0x4000
	moreFragments = 0x2000
	offsetMask    = 0x1fff
	fragmentLen   = 8 // of IPv6's header
)

func otherType(etherType uint16) uint16 {
	if etherType == wire.TypeIPv4 {
		return wire.TypeIPv6
	}
	return wire.TypeIPv4
}

// exchange75 puts the other family's IP header, with Provider Addresses, in the place of the guest's.
func (w *walk) exchange75(src, dst netip.Addr) model.Verdict {
	p := &w.packet
	if !exchangeable(p.isIPv4(), p.proto) {
		return w.say(model.VerdictRewriteNotCarried, "rewrite", "protocol %d would be another thing in the other family's header", p.proto)
	}
	if src.Is4() == p.isIPv4() || dst.Is4() == p.isIPv4() {
		return w.say(model.VerdictRewriteNoPa, "rewrite", "%s and %s are not of the other family, and the record says so", src, dst)
	}
	if p.isIPv4() {
		w.frame = ipv6For(w.frame, p, pair{src, dst}, p.flowHash()>>12, w.gsoSize == 0)
	} else if w.frame = ipv4For(w.frame, p, pair{src, dst}, false); w.frame == nil {
		return w.say(model.VerdictRewriteNotCarried, "rewrite", "IPv4 has no packet of that length")
	}
	return w.say(model.VerdictContinue, "rewrite", "the IP header is exchanged: %s becomes %s, %s becomes %s", p.src, src, p.dst, dst)
}

// exchangeable tells whether a packet of a guest may carry a protocol in the other family's header: none that is there an
// extension header, or a word to hosts and routers.
func exchangeable(is4 bool, proto uint8) bool {
	if !is4 {
		return proto != wire.ProtoICMP
	}
	switch proto {
	case 0, 43, 44, 60, wire.ProtoICMPv6, 135, 139, 140:
		return false
	}
	return true
}

// ipv6For is the frame of an IPv4 packet without options with the header of IPv6, and with a Fragment header if its own says more than an
// atomic datagram's and whole asks for all.
func ipv6For(frame []byte, p *packet, to pair, label uint32, whole bool) []byte {
	h := frame[l3 : l3+wire.IPv4Len]
	flags := word(h[6:])
	body := append([]byte(nil), frame[l3+wire.IPv4Len:]...)
	followL4(body, p, to)
	n, next := int(word(h[2:]))-wire.IPv4Len, h[9]
	if whole && flags != dontFragment {
		id := uint32(flags&^(moreFragments|offsetMask))<<16 | uint32(word(h[4:]))
		fragment := make([]byte, fragmentLen)
		fragment[0] = next
		putWord(fragment[2:], flags&offsetMask<<3|flags&moreFragments/moreFragments)
		binary.BigEndian.PutUint32(fragment[4:], id)
		body, n, next = append(fragment, body...), n+fragmentLen, wire.ProtoFragment
	}
	out := append([]byte(nil), frame[:l3]...)
	putWord(out[12:], wire.TypeIPv6)
	header := make([]byte, wire.IPv6Len)
	must(wire.IPv6{Class: h[1], Flow: label, PayloadLen: uint16(n), Next: next, HopLimit: h[8], Source: to[0], Destination: to[1]}.Encode(header))
	return append(append(out, header...), body...)
}

// ipv4For is the other way around; the Fragment header goes into IPv4's if it was made of one. nil: it is too long.
func ipv4For(frame []byte, p *packet, to pair, wasIPv4 bool) []byte {
	h := frame[l3 : l3+wire.IPv6Len]
	body := append([]byte(nil), frame[l3+wire.IPv6Len:]...)
	n, next, flags, id := int(word(h[4:]))+wire.IPv4Len, h[6], uint16(dontFragment), uint16(0)
	if wasIPv4 && next == wire.ProtoFragment {
		fragment := body[:fragmentLen]
		body, n, next = body[fragmentLen:], n-fragmentLen, fragment[0]
		at, ident := word(fragment[2:]), binary.BigEndian.Uint32(fragment[4:])
		flags, id = at>>3|at&1*moreFragments|uint16(ident>>16)&^(moreFragments|offsetMask), uint16(ident)
	}
	if n > 0xffff {
		return nil
	}
	if wasIPv4 || next != wire.ProtoFragment {
		followL4(body, p, to)
	}
	out := append([]byte(nil), frame[:l3]...)
	putWord(out[12:], wire.TypeIPv4)
	header := make([]byte, wire.IPv4Len)
	header[0], header[1], header[8], header[9] = 0x45, h[0]<<4|h[1]>>4, h[7], next
	putWord(header[2:], uint16(n))
	putWord(header[4:], id)
	putWord(header[6:], flags)
	copy(header[12:], to[0].AsSlice())
	copy(header[16:], to[1].AsSlice())
	putWord(header[10:], wire.Checksum(header, 0))
	return append(append(out, header...), body...)
}

// followL4 carries the checksum of TCP and UDP along, at the start of body.
func followL4(body []byte, p *packet, to pair) {
	at := p.checksumAt(p.proto)
	if p.proto == wire.ProtoICMPv6 || at < 0 || p.later || p.l4Len() < at+2 {
		return
	}
	c := &change{}
	for i, a := range [2]netip.Addr{p.src, p.dst} {
		was, is := a.As16(), to[i].As16()
		c.add(was[:], is[:])
	}
	c.update(body[at:], p.proto)
}

// uplinkExchange75 gives the port's guest the packet of its own family that was exchanged.
func (w *walk) uplinkExchange75(port table.Port, to table.RewriteIn) model.Verdict {
	p := &w.packet
	if !p.rewritable(w.frame) || p.isIPv4() && (p.fragment || wire.Checksum(w.frame[l3:l3+wire.IPv4Len], 0) != 0) {
		return w.say(model.VerdictRewriteNotCarried, "rewrite", "no weft host rewrites such a packet")
	}
	from, known := w.Set.RewriteIn[p.src]
	if !known {
		if !w.exchangeTold(port, to) {
			return w.say(model.VerdictSourceNotInPolicy, "rewrite", "%s stands for nobody", p.src)
		}
		return w.exchanged()
	}
	switch {
	case !exchangeable(to.CA.Is4(), p.proto):
		return w.say(model.VerdictRewriteNotCarried, "rewrite", "no weft host exchanges the header of such a packet")
	case !from.Remote || from.Network != to.Network || from.CA.Is4() != to.CA.Is4():
		return w.say(model.VerdictSourceNotInPolicy, "rewrite", "%s stands for %s of network %d, not for a remote port of network %d", p.src, from.CA, from.Network, to.Network)
	case from.VSID == to.VSID && from.Isolation.Apart(port.Isolation):
		return w.apart(from.Isolation, port.Isolation)
	}
	eth := wire.Ethernet{Dst: port.MAC, Src: model.RouterMAC(to.VSID), Type: otherType(p.eth.Type)}
	if from.VSID == to.VSID {
		eth.Src = from.MAC
	}
	frame := w.frame[:l3+p.length]
	if to.CA.Is4() {
		w.frame = ipv4For(frame, p, pair{from.CA, to.CA}, true)
	} else {
		w.frame = ipv6For(frame, p, pair{from.CA, to.CA}, 0, false)
	}
	if w.frame == nil {
		return w.say(model.VerdictDecapFailed, "rewrite", "IPv4 has no packet of that length")
	}
	must(eth.Encode(w.frame))
	w.say(model.VerdictContinue, "rewrite", "%s stands for %s of subnet %d; the IP header is exchanged", p.src, from.CA, from.VSID)
	return w.exchanged()
}

// exchanged reads the packet that the guest is to get.
func (w *walk) exchanged() model.Verdict {
	if v := w.parseFrame(); v != model.VerdictContinue {
		return v
	}
	if !w.packet.rewritable(w.frame) {
		return w.say(model.VerdictRewriteNotCarried, "rewrite", "no weft host exchanges the header of such a packet")
	}
	return model.VerdictContinue
}

// exchangeTold makes an ICMP error of the underlay about a packet of the guest one of the guest's router.
func (w *walk) exchangeTold(port table.Port, to table.RewriteIn) bool {
	p := w.packet
	if !p.isICMPError() {
		return false
	}
	message := w.frame[p.l4 : l3+p.length]
	head, ok := p.exchangedError(message)
	quoted := message[wire.ICMPLen:]
	about, complete := p.quotedPacket(quoted)
	if !ok || !complete || about.src != p.dst {
		return false
	}
	far, known := w.Set.RewriteIn[about.dst]
	if !known || far.Network != to.Network || far.CA.Is4() != to.CA.Is4() {
		return false
	}
	router := p.src
	frame := append(make([]byte, l3), quoted...)
	if to.CA.Is4() {
		frame = ipv4For(frame, &about, pair{to.CA, far.CA}, true)
	} else {
		frame = ipv6For(frame, &about, pair{to.CA, far.CA}, 0, false)
	}
	if frame == nil || !w.tellOf(frame, about.proto, port, to.CA, head) {
		return false
	}
	w.say(model.VerdictContinue, "rewrite", "%s of the underlay speaks of a packet to %s; the guest hears it from its router", router, far.CA)
	return true
}

// tellOf makes the walk's frame an error about the packet in frame, which the port's guest sent from ca.
func (w *walk) tellOf(frame []byte, proto uint8, port table.Port, ca netip.Addr, head wire.ICMP) bool {
	about := packet{eth: wire.Ethernet{Src: port.MAC, Type: word(frame[12:])}, src: ca, proto: proto, length: len(frame) - l3, l4: l3 + wire.IPv4Len}
	tell := w.tell4
	if ca.Is6() {
		about.l4, tell = l3+wire.IPv6Len, w.tell6
	}
	if about.isICMP() || about.isICMPv6() {
		if about.l4Len() < 1 {
			return false
		}
		about.icmpType = frame[about.l4]
	}
	w.packet, w.frame, w.gsoSize = about, frame, 0
	tell(head)
	w.frame, w.result.IfIndex, w.result.Frame = w.result.Frame, 0, nil
	return w.frame != nil
}

// quotedPacket reads what an ICMP error quotes of a packet of the underlay; false: too little, or nothing that was exchanged.
func (p *packet) quotedPacket(quoted []byte) (packet, bool) {
	q := packet{length: len(quoted)}
	switch {
	case p.isIPv4():
		if len(quoted) < wire.IPv4Len || quoted[0] != 0x45 || word(quoted[6:])&offsetMask != 0 {
			return q, false
		}
		q.src, q.dst = netip.AddrFrom4([4]byte(quoted[12:16])), netip.AddrFrom4([4]byte(quoted[16:20]))
		q.proto, q.l4 = quoted[9], l3+wire.IPv4Len
	default:
		if len(quoted) < wire.IPv6Len || quoted[0]>>4 != 6 {
			return q, false
		}
		q.src, q.dst = netip.AddrFrom16([16]byte(quoted[8:24])), netip.AddrFrom16([16]byte(quoted[24:40]))
		q.proto, q.l4 = quoted[6], l3+wire.IPv6Len
		if q.proto != wire.ProtoFragment {
			break
		}
		if len(quoted) < wire.IPv6Len+fragmentLen || word(quoted[wire.IPv6Len+2:])>>3 != 0 {
			return q, false
		}
		q.proto, q.l4 = quoted[wire.IPv6Len], q.l4+fragmentLen
	}
	return q, true
}

// exchangedError is what an ICMP error of the underlay says in the guest's family (RFC 7915 sections 4.2 and 5.2); false:
// nothing that concerns the guest.
func (p *packet) exchangedError(message []byte) (wire.ICMP, bool) {
	rest := binary.BigEndian.Uint32(message[4:])
	if p.isIPv6() {
		return icmpFor(p.icmpType, p.icmpCode, rest)
	}
	return icmpv6For(p.icmpType, p.icmpCode, int(rest&0xffff))
}

func icmpFor(icmpType, code uint8, mtu uint32) (wire.ICMP, bool) {
	unreachable := func(code uint8) (wire.ICMP, bool) {
		return wire.ICMP{Type: wire.ICMPUnreachable, Code: code}, true
	}
	switch {
	case icmpType == wire.ICMPv6Unreachable && code == 1: // prohibited
		return unreachable(10)
	case icmpType == wire.ICMPv6Unreachable && code == 4: // port
		return unreachable(3)
	case icmpType == wire.ICMPv6Unreachable && code < 4:
		return unreachable(1)
	case icmpType == wire.ICMPv6PacketTooBig && mtu > table.ExchangeOverhead && mtu <= 0xffff:
		return wire.ICMP{Type: wire.ICMPUnreachable, Code: wire.ICMPCodeFragNeeded, Rest: mtu - table.ExchangeOverhead}, true
	case icmpType == wire.ICMPv6TimeExceeded && code <= 1:
		return wire.ICMP{Type: wire.ICMPTimeExceeded, Code: code}, true
	case icmpType == 4 && code == 1: // next header unknown
		return unreachable(2)
	}
	return wire.ICMP{}, false
}

func icmpv6For(icmpType, code uint8, mtu int) (wire.ICMP, bool) {
	switch {
	case icmpType == wire.ICMPTimeExceeded && code <= 1:
		return wire.ICMP{Type: wire.ICMPv6TimeExceeded, Code: code}, true
	case icmpType != wire.ICMPUnreachable || code > 15 || code == 14:
		return wire.ICMP{}, false
	}
	switch code {
	case 2: // protocol: the Next Header field, at 6, is not known
		return wire.ICMP{Type: 4, Code: 1, Rest: 6}, true
	case 3:
		return wire.ICMP{Type: wire.ICMPv6Unreachable, Code: 4}, true
	case wire.ICMPCodeFragNeeded:
		return wire.ICMP{Type: wire.ICMPv6PacketTooBig, Rest: uint32(mtu + wire.IPv6Len - wire.IPv4Len)}, mtu > 0
	case 9, 10, 13, 15:
		return wire.ICMP{Type: wire.ICMPv6Unreachable, Code: 1}, true
	}
	return wire.ICMP{Type: wire.ICMPv6Unreachable}, true
}
