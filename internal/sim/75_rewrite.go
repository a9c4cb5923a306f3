package sim

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// rewrite75 puts Provider Addresses in the place of Customer Addresses.
func (w *walk) rewrite75() model.Verdict {
	if !w.rewriting {
		return model.VerdictContinue
	}
	p := &w.packet
	if !p.rewritable(w.frame) {
		return w.say(model.VerdictRewriteNotCarried, "rewrite", "the subnet rewrites addresses, and this cannot go without an outer header")
	}
	src, ok := w.Set.RewriteOut[table.RecordKey{VSID: w.port.VSID, CA: p.src}]
	if !ok {
		return w.say(model.VerdictRewriteNoPa, "rewrite", "%s of subnet %d has no Provider Address of its own", p.src, w.port.VSID)
	}
	dst, ok := w.Set.RewriteOut[table.RecordKey{VSID: w.hop.vsid, CA: p.dst}]
	if !ok {
		return w.say(model.VerdictRewriteNoPa, "rewrite", "%s of subnet %d has no Provider Address of its own", p.dst, w.hop.vsid)
	}
	if w.exchanges {
		return w.exchange75(src, dst)
	}
	if src.Is4() != p.isIPv4() || dst.Is4() != p.isIPv4() {
		return w.say(model.VerdictRewriteNoPa, "rewrite", "%s and %s are not of the packet's family, and the record does not say so", src, dst)
	}
	w.replaceAddresses(pair{src, dst}, pair{p.src, src})
	return w.say(model.VerdictContinue, "rewrite", "%s becomes %s, %s becomes %s", p.src, src, p.dst, dst)
}

// rewritable tells whether the packet has nothing but addresses that the underlay acts on.
func (p *packet) rewritable(frame []byte) bool {
	switch {
	case p.nd:
		return false
	case p.isIPv4():
		return p.l4 == l3+wire.IPv4Len && !p.isRouterMessage()
	case p.isIPv6() && p.l4 == l3+wire.IPv6Len+8:
		return frame[l3+6] == wire.ProtoFragment
	case p.isIPv6():
		return p.l4 == l3+wire.IPv6Len
	}
	return false
}

// pair is two addresses: source and destination, or what is and what it becomes.
type pair [2]netip.Addr

// replaceAddresses makes the packet one from to[0] to to[1]. What an ICMP error quotes changes with
// it if the error speaks of a packet from its own destination to far[0], which becomes far[1].
func (w *walk) replaceAddresses(to, far pair) {
	p := &w.packet
	if p.isICMPError() {
		w.replaceQuoted(to[1], far)
	}
	sum := w.putAddresses(w.frame[l3:], to)
	if at := p.checksumAt(p.proto); at >= 0 && !p.later && p.l4Len() >= at+2 {
		sum.update(w.frame[p.l4+at:], p.proto)
	}
}

// change is the words of 16 bits that became others, as bytes before and after.
type change struct{ was, is []byte }

func (c *change) add(was, is []byte) {
	c.was, c.is = append(c.was, was...), append(c.is, is...)
}

// update carries a checksum along, at the start of b; UDP's 0 is none, and it never becomes 0.
func (c *change) update(b []byte, proto uint8) {
	sum := word(b)
	if sum == 0 && proto == wire.ProtoUDP {
		return
	}
	for i := 0; i < len(c.was); i += 2 {
		sum = wire.UpdateChecksum(sum, word(c.was[i:]), word(c.is[i:]))
	}
	if sum == 0 && proto == wire.ProtoUDP {
		sum = 0xffff
	}
	putWord(b, sum)
}

// putAddresses writes the addresses of an IP header, and IPv4's checksum with them.
func (w *walk) putAddresses(ip []byte, to pair) *change {
	at, n := 12, 4
	if w.packet.isIPv6() {
		at, n = 8, 16
	}
	c := &change{}
	for i, a := range to {
		field := ip[at+i*n : at+(i+1)*n]
		c.add(field, a.AsSlice())
		copy(field, a.AsSlice())
	}
	if w.packet.isIPv4() {
		c.update(ip[10:], 0)
	}
	return c
}

// checksumAt is where in its header a protocol has the checksum that covers the IP addresses; -1: it has none.
func (p *packet) checksumAt(proto uint8) int {
	switch {
	case proto == wire.ProtoTCP:
		return 16
	case proto == wire.ProtoUDP:
		return 6
	case proto == wire.ProtoICMPv6 && p.isIPv6():
		return 2
	}
	return -1
}

func (p *packet) isICMPError() bool {
	if p.fragment || p.l4Len() < wire.ICMPLen {
		return false
	}
	if p.isICMP() {
		return p.icmpType == wire.ICMPUnreachable || p.icmpType == wire.ICMPTimeExceeded || p.icmpType == wire.ICMPParameter
	}
	return p.isICMPv6() && p.icmpType < wire.ICMPv6FirstNotAnErr
}

// replaceQuoted changes the packet that an ICMP error quotes, and the error's checksum. It tells whether there was
// one from the error's destination, which becomes source, to far[0].
func (w *walk) replaceQuoted(source netip.Addr, far pair) bool {
	p := &w.packet
	quoted := w.frame[p.l4+wire.ICMPLen : l3+p.length]
	var from pair
	var proto uint8
	upper := wire.IPv6Len // where L4 is; -1: not here
	switch {
	case p.isIPv4():
		if len(quoted) < wire.IPv4Len || quoted[0]>>4 != 4 || quoted[0]&15 < 5 {
			return false
		}
		from = pair{netip.AddrFrom4([4]byte(quoted[12:16])), netip.AddrFrom4([4]byte(quoted[16:20]))}
		upper, proto = int(quoted[0]&15)*4, quoted[9]
		if word(quoted[6:])&0x1fff != 0 {
			upper = -1
		}
	default:
		if len(quoted) < wire.IPv6Len || quoted[0]>>4 != 6 {
			return false
		}
		from = pair{netip.AddrFrom16([16]byte(quoted[8:24])), netip.AddrFrom16([16]byte(quoted[24:40]))}
		proto = quoted[6]
	}
	if from != (pair{p.dst, far[0]}) {
		return false
	}
	before := append([]byte(nil), quoted...)
	addresses := w.putAddresses(quoted, pair{source, far[1]})
	changed := &change{}
	if p.isIPv4() {
		changed.add(before[:wire.IPv4Len], quoted[:wire.IPv4Len])
	} else {
		*changed = *addresses
	}
	if at := p.checksumAt(proto); upper >= 0 && at >= 0 && len(quoted) >= upper+at+2 {
		field := quoted[upper+at:][:2]
		was := append([]byte(nil), field...)
		addresses.update(field, proto)
		changed.add(was, field)
	}
	changed.update(w.frame[p.l4+2:], 0)
	return true
}

// uplinkRewrite75 gives a packet between Provider Addresses its Customer Addresses back.
func (w *walk) uplinkRewrite75() model.Verdict {
	if !w.rewriting {
		return model.VerdictContinue
	}
	p, to := &w.packet, w.Set.RewriteIn[w.packet.dst]
	if p.isND(wire.ICMPv6NeighbourSol) || p.isND(wire.ICMPv6NeighbourAdv) {
		return w.say(model.VerdictPass, "rewrite", "the host's own stack speaks of its addresses with neighbours in the underlay")
	}
	port, ok := w.Set.Ports[to.IfIndex]
	if to.IfIndex == 0 || !ok || port.VSID != to.VSID {
		return w.say(model.VerdictNotLocal, "rewrite", "%s stands for %s of subnet %d, which no port here has", p.dst, to.CA, to.VSID)
	}
	w.port, w.to, w.result.Port = port, &port, port.ID
	w.say(model.VerdictContinue, "rewrite", "%s stands for %s of port %d", p.dst, to.CA, port.ID)
	if to.CA.Is4() != p.isIPv4() {
		return w.uplinkExchange75(port, to)
	}
	if !p.rewritable(w.frame) {
		return w.say(model.VerdictRewriteNotCarried, "rewrite", "no weft host rewrites such a packet")
	}
	w.frame = w.frame[:l3+p.length]
	eth := wire.Ethernet{Dst: port.MAC, Src: model.RouterMAC(to.VSID), Type: p.eth.Type}
	from, known := w.Set.RewriteIn[p.src]
	switch {
	case !known:
		if !w.told(port, to) {
			return w.say(model.VerdictSourceNotInPolicy, "rewrite", "%s stands for nobody", p.src)
		}
	case !from.Remote || from.Network != to.Network || from.CA.Is4() != to.CA.Is4():
		return w.say(model.VerdictSourceNotInPolicy, "rewrite", "%s stands for %s of network %d, not for a remote port of network %d", p.src, from.CA, from.Network, to.Network)
	case from.VSID == to.VSID && from.Isolation.Apart(port.Isolation):
		return w.apart(from.Isolation, port.Isolation)
	default:
		if from.VSID == to.VSID {
			eth.Src = from.MAC
		}
		w.replaceAddresses(pair{from.CA, to.CA}, pair{p.src, from.CA})
		w.say(model.VerdictContinue, "rewrite", "%s stands for %s of subnet %d", p.src, from.CA, from.VSID)
	}
	must(eth.Encode(w.frame))
	return model.VerdictContinue
}

// told makes an ICMP error of the underlay about a packet of the guest one of the guest's router.
func (w *walk) told(port table.Port, to table.RewriteIn) bool {
	p, gateway := &w.packet, port.Gateway4
	if p.isIPv6() {
		gateway = port.Gateway6
	}
	if !p.isICMPError() || !gateway.IsValid() {
		return false
	}
	quoted := w.frame[p.l4+wire.ICMPLen:]
	var at netip.Addr
	switch {
	case p.isIPv4() && len(quoted) >= wire.IPv4Len:
		at = netip.AddrFrom4([4]byte(quoted[16:20]))
	case p.isIPv6() && len(quoted) >= wire.IPv6Len:
		at = netip.AddrFrom16([16]byte(quoted[24:40]))
	}
	far, known := w.Set.RewriteIn[at]
	if !known || far.Network != to.Network || far.CA.Is4() != to.CA.Is4() || !w.replaceQuoted(to.CA, pair{at, far.CA}) {
		return false
	}
	sum := w.putAddresses(w.frame[l3:], pair{gateway, to.CA})
	if p.isIPv6() {
		sum.update(w.frame[p.l4+2:], 0)
	}
	w.say(model.VerdictContinue, "rewrite", "%s of the underlay speaks of a packet to %s; the guest hears it from %s", p.src, far.CA, gateway)
	return true
}
