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
	ndp      wire.Neighbour // if it is a solicitation, or a neighbour's advertisement
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
	if n := p.l4Len(); h.MoreFrags && (n == 0 || n%8 != 0) {
		return model.VerdictIpMalformed // no part but the last is like that: it could be hiding ports
	}
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
	if !wire.IsND(p.icmpType) {
		return model.VerdictContinue
	}
	p.nd = true
	if p.l4 != l3+wire.IPv6Len || p.ttl != 255 || p.icmpCode != 0 || p.l4Len() < wire.MinND(p.icmpType) {
		return model.VerdictNdMalformed
	}
	if p.icmpType == wire.ICMPv6RouterAdvert || p.icmpType == wire.ICMPv6Redirect {
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
	src, dst netip.Addr // Provider Addresses
	vsid     model.VSID
	vxlan    bool // else NVGRE
	at       int  // where the tunnel's header starts, behind IP
	end      int  // where the outer packet ends
	tos      uint8
}

// uplinkParse10 takes the outer headers off and reads the inner ones.
func (w *walk) uplinkParse10() model.Verdict {
	if !w.isForUs() {
		if w.isRewritten() {
			w.rewriting = true
			w.say(model.VerdictContinue, "parse", "%s stands for a Customer Address of this host", w.outer.dst)
			return w.parseFrame()
		}
		return w.say(model.VerdictPass, "parse", "neither NVGRE nor VXLAN for a Provider Address of this host")
	}
	if v := w.outerIPHeader(); v != model.VerdictContinue {
		return v
	}
	room := wire.NVGRELen
	parse := w.outerNVGRE
	if w.outer.vxlan {
		room, parse = wire.UDPLen+wire.VXLANLen, w.outerVXLAN
	}
	if v := parse(w.frame[w.outer.at:w.outer.end]); v != model.VerdictContinue {
		return v
	}
	if !w.outer.vsid.Valid() {
		return w.say(model.VerdictVsidReserved, "parse", "VSID %d is reserved", w.outer.vsid)
	}
	w.frame = w.frame[w.outer.at+room : w.outer.end]
	w.say(model.VerdictContinue, "parse", "%s from %s, VSID %d", w.outer.transport(), w.outer.src, w.outer.vsid)
	if eth, _ := wire.ParseEthernet(w.frame); wire.IsTag(eth.Type) {
		return w.say(model.VerdictInnerVlan, "parse", "the inner frame carries a VLAN tag")
	}
	return w.parseFrame()
}

func (o outer) transport() string {
	if o.vxlan {
		return "VXLAN"
	}
	return "NVGRE"
}

// least is the shortest outer packet behind its IP header: the tunnel's headers and an inner Ethernet header.
func (o outer) least() int {
	if o.vxlan {
		return wire.UDPLen + wire.VXLANLen + wire.EthernetLen
	}
	return wire.NVGRELen + wire.EthernetLen
}

// outerIPHeader checks the outer IP header, of which isForUs has read the addresses.
func (w *walk) outerIPHeader() model.Verdict {
	o := &w.outer
	refused := func(family string) model.Verdict {
		return w.say(model.VerdictOuterMalformed, "parse", "the outer %s header is refused", family)
	}
	if o.dst.Is6() {
		ip, err := wire.ParseIPv6(w.frame[l3:])
		if err != nil || int(ip.PayloadLen) < o.least() {
			return refused("IPv6")
		}
		o.end, o.tos = o.at+int(ip.PayloadLen), ip.Class
		return model.VerdictContinue
	}
	ip, err := wire.ParseIPv4(w.frame[l3:])
	if err != nil || ip.HeaderLen != wire.IPv4Len || int(ip.TotalLen) < wire.IPv4Len+o.least() ||
		wire.Checksum(w.frame[l3:l3+wire.IPv4Len], 0) != 0 {
		return refused("IPv4")
	}
	if ip.MoreFrags || ip.FragOffset != 0 {
		return w.say(model.VerdictOuterFragment, "parse", "the outer packet is a fragment")
	}
	o.end, o.tos = l3+int(ip.TotalLen), ip.TOS
	return model.VerdictContinue
}

func (w *walk) outerNVGRE(b []byte) model.Verdict {
	gre, err := wire.ParseNVGRE(b)
	if err != nil {
		return w.say(model.VerdictOuterMalformed, "parse", "the GRE header is refused: %v", err)
	}
	w.outer.vsid = gre.VSID
	return model.VerdictContinue
}

func (w *walk) outerVXLAN(b []byte) model.Verdict {
	udp, _ := wire.ParseUDP(b)
	if int(udp.Length) != len(b) {
		return w.say(model.VerdictOuterMalformed, "parse", "UDP says %d bytes, IP %d", udp.Length, len(b))
	}
	if udp.Checksum != 0 && wire.Checksum(b, wire.PseudoHeader(w.outer.src, w.outer.dst, wire.ProtoUDP, len(b))) != 0 {
		return w.say(model.VerdictOuterChecksum, "parse", "the outer UDP checksum is wrong")
	}
	vxlan, err := wire.ParseVXLAN(b[wire.UDPLen:])
	if err != nil {
		return w.say(model.VerdictOuterMalformed, "parse", "the VXLAN header is refused: %v", err)
	}
	w.outer.vsid = vxlan.VSID
	return model.VerdictContinue
}

// isRewritten tells whether the frame is addressed to this host and to a Provider Address that
// stands for a Customer Address here.
func (w *walk) isRewritten() bool {
	eth, err := wire.ParseEthernet(w.frame)
	if err != nil || !w.isToThisDevice(eth) {
		return false
	}
	ip := w.frame[l3:]
	switch {
	case eth.Type == wire.TypeIPv4 && len(ip) >= wire.IPv4Len:
		w.outer.dst = netip.AddrFrom4([4]byte(ip[16:20]))
	case eth.Type == wire.TypeIPv6 && len(ip) >= wire.IPv6Len:
		w.outer.dst = netip.AddrFrom16([16]byte(ip[24:40]))
	default:
		return false
	}
	to, ok := w.Set.RewriteIn[w.outer.dst]
	return ok && !to.Remote
}

func (w *walk) isToThisDevice(eth wire.Ethernet) bool {
	mac, known := w.Devices[w.ifindex]
	return !known || eth.Dst == mac
}

// isForUs tells whether the frame is addressed to this host and says that it is GRE, or UDP
// to the port of VXLAN, for one of its Provider Addresses. By hand: a header that is
// refused later may still be ours, and is a drop then.
func (w *walk) isForUs() bool {
	eth, err := wire.ParseEthernet(w.frame)
	if err != nil {
		return false
	}
	toUs := w.isToThisDevice(eth)
	if !toUs && (!isGroup(eth.Dst) || eth.Dst == everyone) {
		return false
	}
	o, ip := &w.outer, w.frame[l3:]
	var proto uint8
	switch {
	case eth.Type == wire.TypeIPv4 && len(ip) >= wire.IPv4Len:
		o.src, o.dst = netip.AddrFrom4([4]byte(ip[12:16])), netip.AddrFrom4([4]byte(ip[16:20]))
		o.at, proto = l3+wire.IPv4Len, ip[9]
		if proto == wire.ProtoUDP && (ip[0] != 0x45 || word(ip[6:])&0x1fff != 0) {
			return false // the port is elsewhere
		}
	case eth.Type == wire.TypeIPv6 && len(ip) >= wire.IPv6Len:
		o.src, o.dst = netip.AddrFrom16([16]byte(ip[8:24])), netip.AddrFrom16([16]byte(ip[24:40]))
		o.at, proto = l3+wire.IPv6Len, ip[6]
	default:
		return false
	}
	if _, ours := w.Set.LocalPAs[o.dst]; !ours || !toUs && !o.dst.IsMulticast() {
		return false
	}
	if proto == wire.ProtoUDP {
		udp, err := wire.ParseUDP(w.frame[o.at:])
		o.vxlan = err == nil && w.Set.Settings.VXLANPort != 0 && udp.Destination == w.Set.Settings.VXLANPort
		return o.vxlan
	}
	return proto == wire.ProtoGRE
}
