package sim

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

func (w *walk) respond30() model.Verdict {
	p := &w.packet
	switch {
	case p.isARP() && p.arp.Op == wire.ARPRequest:
		return w.respondARPRequest()
	case p.isARP():
		return w.respondARPReply()
	case p.isND(wire.ICMPv6RouterSolicit):
		return w.say(model.VerdictNdQuiet, "respond", "router solicitations get no answer")
	case p.isND(wire.ICMPv6NeighbourSol):
		return w.respondSolicitation()
	case p.isND(wire.ICMPv6NeighbourAdv):
		return w.respondAdvertisement()
	}
	return model.VerdictContinue
}

// beyondProbes: no probe gets to r, because rewriting cannot carry it to another host. Policy answers in its place.
func beyondProbes(r table.Record) bool { return r.Transport == model.Rewrite && r.PA.IsValid() }

func isGroup(m model.MAC) bool { return m[0]&1 != 0 }

func (w *walk) respondARPRequest() model.Verdict {
	arp := &w.packet.arp
	target := arp.TargetAddr
	if w.own(target) || arp.Sender == target {
		return w.say(model.VerdictArpQuiet, "respond", "asks for its own address %s", target)
	}
	r, ok := w.rec(w.port.VSID, target)
	if !ok {
		return w.say(model.VerdictArpNoRecord, "respond", "no record of %s in subnet %d", target, w.port.VSID)
	}
	if w.hides(r) {
		return w.apart(w.port.Isolation, r.Isolation)
	}
	if r.Router || isGroup(w.packet.eth.Dst) || arp.Sender.IsUnspecified() || beyondProbes(r) {
		w.answerARP(r)
		return w.say(model.VerdictAnswered, "respond", "%s is at %s", target, r.MAC)
	}
	w.hop = &hop{vsid: w.port.VSID, ca: target}
	return w.say(model.VerdictContinue, "respond", "a probe, which %s answers itself", target)
}

func (w *walk) respondARPReply() model.Verdict {
	arp := &w.packet.arp
	target := arp.TargetAddr
	if arp.Sender == target || isGroup(w.packet.eth.Dst) || w.own(target) || arp.Sender.IsUnspecified() {
		return w.say(model.VerdictArpQuiet, "respond", "a reply that answers nobody")
	}
	r, ok := w.rec(w.port.VSID, target)
	if !ok {
		return w.say(model.VerdictArpNoRecord, "respond", "no record of %s in subnet %d", target, w.port.VSID)
	}
	if r.Router {
		return w.say(model.VerdictArpQuiet, "respond", "the router asked nothing")
	}
	if beyondProbes(r) {
		return w.say(model.VerdictArpQuiet, "respond", "nobody on another host asked: no probe gets there by rewriting")
	}
	w.hop = &hop{vsid: w.port.VSID, ca: target}
	return w.say(model.VerdictContinue, "respond", "an answer for %s", target)
}

// answerARP answers for the record r of the address asked for.
func (w *walk) answerARP(r table.Record) {
	ask := w.packet.arp
	out := make([]byte, wire.EthernetLen+wire.ARPLen)
	must(wire.Ethernet{Dst: ask.SenderMAC, Src: r.MAC, Type: wire.TypeARP}.Encode(out))
	must(wire.ARP{
		Op:        wire.ARPReply,
		SenderMAC: r.MAC, Sender: ask.TargetAddr,
		TargetMAC: ask.SenderMAC, TargetAddr: ask.Sender,
	}.Encode(out[l3:]))
	w.send(w.port.IfIndex, out)
}

func (w *walk) respondSolicitation() model.Verdict {
	p := &w.packet
	target := p.ndp.Target
	if w.own(target) {
		return w.say(model.VerdictNdQuiet, "respond", "asks for its own address %s", target)
	}
	r, ok := w.rec(w.port.VSID, target)
	if !ok && p.src.IsUnspecified() && target.IsLinkLocalUnicast() {
		return w.say(model.VerdictNdQuiet, "respond", "nobody else has the link-local address %s", target)
	}
	if !ok {
		return w.say(model.VerdictNdNoRecord, "respond", "no record of %s in subnet %d", target, w.port.VSID)
	}
	if w.hides(r) {
		return w.apart(w.port.Isolation, r.Isolation)
	}
	if r.Router || p.dst.IsMulticast() || p.src.IsUnspecified() || p.src.IsLinkLocalUnicast() || beyondProbes(r) {
		w.answerSolicitation(r)
		return w.say(model.VerdictAnswered, "respond", "%s is at %s", target, r.MAC)
	}
	return w.say(model.VerdictContinue, "respond", "a probe, which %s answers itself", target)
}

func (w *walk) respondAdvertisement() model.Verdict {
	p := &w.packet
	if p.dst.IsMulticast() || p.dst.IsLinkLocalUnicast() {
		return w.say(model.VerdictNdQuiet, "respond", "an advertisement that answers nobody")
	}
	if r, ok := w.rec(w.port.VSID, p.dst); ok && (r.Router || beyondProbes(r)) {
		return w.say(model.VerdictNdQuiet, "respond", "neither the router nor, by rewriting, another host asked anything")
	}
	return w.say(model.VerdictContinue, "respond", "an answer for %s", p.dst)
}

var allNodes = netip.MustParseAddr("ff02::1")

// answerSolicitation answers for the record r of the address asked for.
func (w *walk) answerSolicitation(r table.Record) {
	p := &w.packet
	advert := wire.Neighbour{
		Type:   wire.ICMPv6NeighbourAdv,
		Router: r.Router, Solicited: !p.src.IsUnspecified(), Override: true,
		Target: p.ndp.Target, MAC: r.MAC, HasMAC: true,
	}
	ip := wire.IPv6{
		PayloadLen: uint16(advert.Len()), Next: wire.ProtoICMPv6, HopLimit: 255,
		Source: p.ndp.Target, Destination: p.src,
	}
	if p.src.IsUnspecified() {
		ip.Destination = allNodes
	}
	out := make([]byte, wire.EthernetLen+wire.IPv6Len+advert.Len())
	must(wire.Ethernet{Dst: p.eth.Src, Src: r.MAC, Type: wire.TypeIPv6}.Encode(out))
	must(ip.Encode(out[l3:]))
	must(advert.Encode(out[l3+wire.IPv6Len:]))
	must(wire.SealICMPv6(ip, out[l3+wire.IPv6Len:]))
	w.send(w.port.IfIndex, out)
}

// must stops at a mistake of this package: a buffer it made too short, or an address of
// a family that the headers before have already settled.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
