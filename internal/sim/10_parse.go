package sim

import (
	"errors"
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/wire"
)

const l3 = wire.EthernetLen // where the packet starts in a frame without tag

// packet is what the headers of a frame say.
type packet struct {
	eth      wire.Ethernet
	arp      wire.ARP // if eth.Type is ARP
	v4       wire.IPv4
	v6       wire.IPv6
	src, dst netip.Addr // of IP
	length   int        // of the IP packet, in bytes
	ttl      uint8      // or hop limit
	proto    uint8      // above IP
	l4       int        // where that starts in the frame
	fragment bool       // any part of a larger packet
	later    bool       // a part other than the first
	ports    wire.Ports // of TCP and UDP; else zero
	icmpType uint8      // of ICMP and ICMPv6; else zero
	icmpCode uint8
	nd       bool
	ndp      wire.Neighbour // if it is a solicitation or an advertisement
}

func (p *packet) isARP() bool    { return p.eth.Type == wire.TypeARP }
func (p *packet) isIPv4() bool   { return p.eth.Type == wire.TypeIPv4 }
func (p *packet) isIPv6() bool   { return p.eth.Type == wire.TypeIPv6 }
func (p *packet) isICMP() bool   { return p.isIPv4() && p.proto == wire.ProtoICMP }
func (p *packet) isICMPv6() bool { return p.isIPv6() && p.proto == wire.ProtoICMPv6 }
func (p *packet) isND(icmpType uint8) bool {
	return p.nd && p.icmpType == icmpType
}

// l4Len is how many bytes of the packet follow the IP headers.
func (p *packet) l4Len() int { return l3 + p.length - p.l4 }

func (w *walk) parse10() model.Verdict {
	port, ok := w.Set.Ports[w.ifindex]
	if !ok {
		return w.say(model.VerdictPortUnknown, "parse", "no port on device %d", w.ifindex)
	}
	w.port, w.result.Port = port, port.ID
	w.say(model.VerdictContinue, "parse", "port %d of subnet %d", port.ID, port.VSID)
	if v := w.untag(); v != model.VerdictContinue {
		return w.say(v, "parse", "the Ethernet header or its tag is refused")
	}
	return w.parseFrame()
}

// untag takes a priority tag out of the frame.
func (w *walk) untag() model.Verdict {
	eth, err := wire.ParseEthernet(w.frame)
	if err != nil {
		return model.VerdictFrameTruncated
	}
	if !wire.IsTag(eth.Type) {
		return model.VerdictContinue
	}
	tag, err := wire.ParseVLAN(w.frame[wire.EthernetLen:])
	if err != nil {
		return model.VerdictFrameTruncated
	}
	if eth.Type != wire.TypeVLAN || tag.VID != 0 || wire.IsTag(tag.Type) {
		return model.VerdictVlanTagged
	}
	w.frame = append(w.frame[:12], w.frame[16:]...)
	return model.VerdictContinue
}

// parseFrame reads the headers of an untagged frame.
func (w *walk) parseFrame() model.Verdict {
	p, v := parseFrame(w.frame)
	w.packet = p
	switch {
	case v != model.VerdictContinue:
		return w.say(v, "parse", "the headers are refused")
	case p.isARP():
		return w.say(v, "parse", "ARP operation %d: %s (%s) asks or tells %s (%s)", p.arp.Op, p.arp.Sender, p.arp.SenderMAC, p.arp.TargetAddr, p.arp.TargetMAC)
	}
	return w.say(v, "parse", "IP %s to %s, protocol %d, %d bytes", p.src, p.dst, p.proto, p.length)
}

func parseFrame(frame []byte) (packet, model.Verdict) {
	p := packet{}
	eth, err := wire.ParseEthernet(frame)
	if err != nil {
		return p, model.VerdictFrameTruncated
	}
	p.eth = eth
	switch eth.Type {
	case wire.TypeARP:
		p.arp, err = wire.ParseARP(frame[l3:])
		return p, malformed(err, model.VerdictArpMalformed)
	case wire.TypeIPv4:
		return p, p.parseIPv4(frame)
	case wire.TypeIPv6:
		return p, p.parseIPv6(frame)
	}
	return p, model.VerdictNonIp
}

// malformed is the verdict for what a codec said: header is for anything but missing bytes.
func malformed(err error, header model.Verdict) model.Verdict {
	if err == nil {
		return model.VerdictContinue
	}
	if errors.Is(err, wire.ErrTruncated) {
		return model.VerdictFrameTruncated
	}
	return header
}

func (p *packet) parseIPv4(frame []byte) model.Verdict {
	h, err := wire.ParseIPv4(frame[l3:])
	if err != nil {
		return malformed(err, model.VerdictIpMalformed)
	}
	p.v4, p.src, p.dst, p.ttl = h, h.Source, h.Destination, h.TTL
	p.length, p.proto, p.l4 = int(h.TotalLen), h.Proto, l3+h.HeaderLen
	p.later = h.FragOffset != 0
	p.fragment = h.MoreFrags || p.later
	p.parseUpper(frame)
	return model.VerdictContinue
}

func (p *packet) parseIPv6(frame []byte) model.Verdict {
	h, err := wire.ParseIPv6(frame[l3:])
	if err != nil {
		return malformed(err, model.VerdictIpMalformed)
	}
	p.v6, p.src, p.dst, p.ttl = h, h.Source, h.Destination, h.HopLimit
	p.length = wire.IPv6Len + int(h.PayloadLen)
	upper, err := h.Walk(frame[l3:])
	if err != nil {
		return model.VerdictIpv6Extensions
	}
	p.proto, p.l4, p.fragment, p.later = upper.Proto, l3+upper.Offset, upper.Fragment, upper.LaterFragment
	p.parseUpper(frame)
	return p.parseND(frame)
}

// parseUpper reads the ports, or the ICMP type and code, where they are.
func (p *packet) parseUpper(frame []byte) {
	if p.l4Len() < 4 {
		return
	}
	b := frame[p.l4:]
	switch {
	case (p.proto == wire.ProtoTCP || p.proto == wire.ProtoUDP) && !p.fragment:
		p.ports, _ = wire.ParsePorts(b)
	case (p.isICMP() || p.isICMPv6()) && !p.later:
		p.icmpType, p.icmpCode = b[0], b[1]
	}
}

// parseND holds Neighbour Discovery to its rules.
func (p *packet) parseND(frame []byte) model.Verdict {
	if !p.isICMPv6() || p.later {
		return model.VerdictContinue
	}
	if p.fragment && p.l4Len() < 4 {
		return model.VerdictNdMalformed // it could be hiding its type
	}
	if !wire.IsND(p.icmpType) {
		return model.VerdictContinue
	}
	p.nd = true
	if p.l4 != l3+wire.IPv6Len || p.ttl != 255 || p.icmpCode != 0 || p.l4Len() < wire.MinND(p.icmpType) {
		return model.VerdictNdMalformed
	}
	if p.icmpType != wire.ICMPv6NeighbourSol && p.icmpType != wire.ICMPv6NeighbourAdv {
		return model.VerdictContinue
	}
	n, err := wire.ParseNeighbour(frame[p.l4 : l3+p.length])
	if err != nil {
		return model.VerdictNdMalformed
	}
	p.ndp = n
	return model.VerdictContinue
}

// outer is what carried a frame over the underlay.
type outer struct {
	src  netip.Addr // Provider Address of the sender
	vsid model.VSID
}

// uplinkParse10 takes the outer headers off and reads the inner ones.
func (w *walk) uplinkParse10() model.Verdict {
	if !w.isForUs() {
		return w.say(model.VerdictPass, "parse", "not NVGRE for a Provider Address of this host")
	}
	ip, err := wire.ParseIPv4(w.frame[l3:])
	if err != nil || ip.HeaderLen != wire.IPv4Len ||
		int(ip.TotalLen) < wire.IPv4Len+wire.NVGRELen+wire.EthernetLen ||
		wire.Checksum(w.frame[l3:l3+wire.IPv4Len], 0) != 0 {
		return w.say(model.VerdictOuterMalformed, "parse", "the outer IPv4 header is refused")
	}
	if ip.MoreFrags || ip.FragOffset != 0 {
		return w.say(model.VerdictOuterFragment, "parse", "the outer packet is a fragment")
	}
	w.outer.src = ip.Source
	gre, err := wire.ParseNVGRE(w.frame[l3+wire.IPv4Len:])
	if err != nil {
		return w.say(model.VerdictOuterMalformed, "parse", "the GRE header is refused: %v", err)
	}
	w.outer.vsid = gre.VSID
	if !gre.VSID.Valid() {
		return w.say(model.VerdictVsidReserved, "parse", "VSID %d is reserved", gre.VSID)
	}
	w.frame = w.frame[l3+wire.IPv4Len+wire.NVGRELen : l3+int(ip.TotalLen)]
	w.say(model.VerdictContinue, "parse", "NVGRE from %s, VSID %d", ip.Source, gre.VSID)
	if eth, _ := wire.ParseEthernet(w.frame); wire.IsTag(eth.Type) {
		return w.say(model.VerdictInnerVlan, "parse", "the inner frame carries a VLAN tag")
	}
	return w.parseFrame()
}

// isForUs tells whether the frame is addressed to this host and says that it is GRE
// for one of its Provider Addresses.
func (w *walk) isForUs() bool {
	eth, err := wire.ParseEthernet(w.frame)
	if err != nil || eth.Type != wire.TypeIPv4 || len(w.frame) < l3+wire.IPv4Len {
		return false
	}
	if mac, known := w.Devices[w.ifindex]; known && eth.Dst != mac {
		return false
	}
	// By hand: a header that ParseIPv4 refuses may still be ours, and is a drop then.
	if w.frame[l3+9] != wire.ProtoGRE {
		return false
	}
	_, ours := w.Set.LocalPAs[netip.AddrFrom4([4]byte(w.frame[l3+16:l3+20]))]
	return ours
}
