package sim

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

func (w *walk) lookup60() model.Verdict {
	r, ok := w.at(w.hop)
	if !ok {
		return w.say(model.VerdictNoRecord, "lookup", "no record of %s in subnet %d", w.hop.ca, w.hop.vsid)
	}
	w.record = r
	if _, known := w.rec(w.hop.vsid, w.hop.ca); !known {
		w.say(model.VerdictContinue, "lookup", "no record of %s in subnet %d: %s stands for it", w.hop.ca, w.hop.vsid, w.record.MAC)
	}
	if r.Router {
		return w.router()
	}
	if r.IfIndex == w.port.IfIndex {
		return w.say(model.VerdictRouteToSelf, "lookup", "%s is the sender", w.hop.ca)
	}
	if r.PA.IsValid() {
		return w.lookupPeer()
	}
	return w.lookupPort()
}

func (w *walk) lookupPeer() model.Verdict {
	peer, ok := w.Set.Peers[w.record.PA]
	peer = w.way(peer)
	if !ok || !w.reaches(peer) {
		return w.say(model.VerdictNoUnderlayRoute, "lookup", "no way to Provider Address %s", w.record.PA)
	}
	w.peer = &peer
	w.chooseTransport()
	return w.say(model.VerdictContinue, "lookup", "%s is %s at %s", w.hop.ca, w.record.MAC, w.record.PA)
}

// way is the one of the flow, of all ways to the host of a peer.
func (w *walk) way(first table.Peer) table.Peer {
	ways := []table.Peer{first}
	for n := uint8(1); n < table.MaxPaths; n++ {
		further, ok := w.Set.Paths[table.PathKey{PA: first.PA, N: n}]
		if !ok {
			break
		}
		ways = append(ways, further)
	}
	return ways[w.packet.flowHash()>>8%uint32(len(ways))]
}

// outerSource is what a packet to a peer comes from.
func (w *walk) outerSource(to table.Peer) netip.Addr {
	if to.Local.IsValid() {
		return to.Local
	}
	return w.port.PA
}

// outerDestination is what a packet to a peer goes to.
func outerDestination(to table.Peer) netip.Addr {
	if to.Remote.IsValid() {
		return to.Remote
	}
	return to.PA
}

// chooseTransport takes that of the hop's subnet; but rewriting needs both ends in subnets that do, and the
// transport of the other end does without. Nobody between the ends can be named: that goes by NVGRE.
func (w *walk) chooseTransport() {
	w.transport = w.record.Transport
	if w.transport == model.Rewrite {
		w.transport = w.port.Transport
	}
	if w.transport == model.Rewrite && (w.hop.ca != w.packet.dst || w.passesOn()) {
		w.transport = model.NVGRE
		w.say(model.VerdictContinue, "lookup", "a rewritten packet names its two ends alone: this goes by NVGRE")
	}
	w.rewriting = w.transport == model.Rewrite
	w.exchanges = w.rewriting && w.record.Exchange
}

// passesOn tells whether the guest sends for another.
func (w *walk) passesOn() bool {
	r, known := w.rec(w.port.VSID, w.packet.src)
	return w.port.Forward && (!known || r.IfIndex != w.port.IfIndex)
}

func (w *walk) lookupPort() model.Verdict {
	to, ok := w.Set.Ports[w.record.IfIndex]
	if w.record.IfIndex == 0 || !ok {
		return w.say(model.VerdictPortDown, "lookup", "%s is on this host and not plugged", w.hop.ca)
	}
	if to.VSID != w.hop.vsid {
		return w.say(model.VerdictVsidMismatch, "lookup", "port %d is in subnet %d, not %d", to.ID, to.VSID, w.hop.vsid)
	}
	w.to = &to
	return w.say(model.VerdictContinue, "lookup", "%s is %s at port %d", w.hop.ca, w.record.MAC, to.ID)
}

// router answers what is addressed to the distributed router itself.
func (w *walk) router() model.Verdict {
	if !w.isEchoRequest() || w.hop.ca != w.packet.dst {
		return w.say(model.VerdictRouterNoService, "lookup", "%s is the router, which only answers ping", w.hop.ca)
	}
	w.answerEcho()
	return w.say(model.VerdictAnswered, "lookup", "%s is the router and answers", w.hop.ca)
}

func (w *walk) isEchoRequest() bool {
	p := &w.packet
	if p.fragment || p.l4Len() < wire.ICMPLen || p.icmpCode != 0 {
		return false
	}
	return p.isICMP() && p.icmpType == wire.ICMPEchoRequest || p.isICMPv6() && p.icmpType == wire.ICMPv6EchoRequest
}

// answerEcho turns the echo request into its reply, in place. Checksums are updated, not
// computed: one that was wrong stays wrong, so that the guest sees its own mistake.
func (w *walk) answerEcho() {
	p, out := &w.packet, w.frame
	must(wire.Ethernet{Dst: p.eth.Src, Src: model.RouterMAC(w.port.VSID), Type: p.eth.Type}.Encode(out))
	reply := byte(wire.ICMPEchoReply)
	if p.isIPv4() {
		swap(out[l3+12:l3+16], out[l3+16:l3+20])
		w.setTTL(64)
	} else {
		reply = wire.ICMPv6EchoReply
		swap(out[l3+8:l3+24], out[l3+24:l3+40])
		w.setTTL(64)
	}
	message := out[p.l4:]
	old := word(message)
	message[0] = reply
	putWord(message[2:], wire.UpdateChecksum(word(message[2:]), old, word(message)))
	w.send(w.port.IfIndex, out)
}

func swap(a, b []byte) {
	for i := range a {
		a[i], b[i] = b[i], a[i]
	}
}

func word(b []byte) uint16 { return uint16(b[0])<<8 | uint16(b[1]) }

func putWord(b []byte, v uint16) { b[0], b[1] = byte(v>>8), byte(v) }

// uplinkLookup60 finds the port that a frame from the underlay is for.
func (w *walk) uplinkLookup60() model.Verdict {
	if w.rewriting {
		return model.VerdictContinue // its address says it, not a MAC
	}
	for _, port := range w.Set.Ports {
		if port.VSID == w.outer.vsid && port.MAC == w.packet.eth.Dst {
			w.port, w.to, w.result.Port = port, &port, port.ID
			return w.say(model.VerdictContinue, "lookup", "%s is port %d", port.MAC, port.ID)
		}
	}
	return w.say(model.VerdictNotLocal, "lookup", "no port of subnet %d here has MAC %s", w.outer.vsid, w.packet.eth.Dst)
}

// reaches tells whether there is a device toward a peer, and an address of its family to send from.
func (w *walk) reaches(peer table.Peer) bool {
	local := w.outerSource(peer)
	return peer.IfIndex != 0 && local.IsValid() && local.Is6() == outerDestination(peer).Is6()
}
