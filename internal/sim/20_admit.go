package sim

import (
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

func (w *walk) admit20() model.Verdict {
	p := &w.packet
	switch {
	case w.port.DHCPGuard && p.isServerMessage(w.frame):
		return w.say(model.VerdictDhcpServerMessage, "admit", "the guest is no DHCP server")
	case w.port.RouterGuard && p.isRouterMessage():
		return w.say(model.VerdictRouterMessage, "admit", "the guest is no router")
	case w.port.Spoof:
		return w.say(model.VerdictContinue, "admit", "the port may speak for others")
	}
	if v := w.admitSelf(); v != model.VerdictContinue {
		return v
	}
	return w.say(model.VerdictContinue, "admit", "admitted")
}

// admitSelf holds a guest to its own MAC and Customer Addresses.
func (w *walk) admitSelf() model.Verdict {
	p := &w.packet
	if !w.usesMAC(p.eth.Src) {
		return w.say(model.VerdictSpoofedMac, "admit", "source MAC %s is not the port's %s", p.eth.Src, w.port.MAC)
	}
	switch {
	case p.isARP():
		return w.guardARP()
	case p.isIPv4():
		return w.guardIPv4()
	}
	if v := w.guardIPv6(); v != model.VerdictContinue {
		return v
	}
	return w.guardND()
}

func (w *walk) guardARP() model.Verdict {
	arp := &w.packet.arp
	if src := w.packet.eth.Src; arp.SenderMAC != src {
		return w.say(model.VerdictSpoofedArp, "admit", "ARP sender MAC %s is not the frame's source %s", arp.SenderMAC, src)
	}
	if arp.Op == wire.ARPRequest && arp.Sender.IsUnspecified() {
		return model.VerdictContinue
	}
	if !w.uses(arp.Sender) {
		return w.say(model.VerdictSpoofedArp, "admit", "ARP sender %s is not an address of the port", arp.Sender)
	}
	return model.VerdictContinue
}

// uses tells whether the guest may have a as its source: its own, or one that policy allows it.
func (w *walk) uses(a netip.Addr) bool {
	if w.own(a) {
		return true
	}
	if !w.port.Allowed {
		return false
	}
	by := w.allowedPrefix(w.port.IfIndex, a)
	if by.IsValid() {
		w.say(model.VerdictContinue, "admit", "the port may use %s", by)
	}
	return by.IsValid()
}

// allowedPrefix finds a prefix with a that the guest behind a device may use.
func (w *walk) allowedPrefix(ifindex uint32, a netip.Addr) netip.Prefix {
	for s := range w.Set.Allowed {
		if s.IfIndex == ifindex && s.Prefix.IsValid() && s.Prefix.Contains(a) {
			return s.Prefix
		}
	}
	return netip.Prefix{}
}

// usesMAC is uses for MACs.
func (w *walk) usesMAC(m model.MAC) bool { return w.portUsesMAC(w.port, m) }

func (w *walk) portUsesMAC(p table.Port, m model.MAC) bool {
	_, allowed := w.Set.Allowed[table.Allowed{IfIndex: p.IfIndex, MAC: m}]
	return m == p.MAC || p.Allowed && allowed
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

func (w *walk) guardIPv4() model.Verdict {
	p := &w.packet
	if p.src.IsUnspecified() && p.dst == broadcast {
		return w.say(model.VerdictMulticast, "admit", "a DHCP client; nothing here answers")
	}
	return w.guardSource()
}

func (w *walk) guardIPv6() model.Verdict {
	p := &w.packet
	toGroup := p.dst.IsMulticast()
	switch {
	case p.src.IsUnspecified():
		if toGroup || p.isND(wire.ICMPv6NeighbourSol) {
			return model.VerdictContinue
		}
	case p.src.IsLinkLocalUnicast():
		if toGroup || p.nd {
			return model.VerdictContinue
		}
	default:
		return w.guardSource()
	}
	return w.say(model.VerdictSpoofedCa, "admit", "source %s cannot send this", p.src)
}

func (w *walk) guardSource() model.Verdict {
	src := w.packet.src
	if w.uses(src) {
		return model.VerdictContinue
	}
	if w.port.Forward && usable(src) {
		return w.say(model.VerdictContinue, "admit", "the port forwards for %s", src)
	}
	if w.port.Forward {
		return w.say(model.VerdictSpoofedCa, "admit", "nobody can send from %s", src)
	}
	g, ok := w.wild(w.port.VSID, src.Is4())
	if !ok || g.IfIndex != w.port.IfIndex || !w.outside(w.port.Network, w.port.VSID, src) {
		return w.say(model.VerdictSpoofedCa, "admit", "source %s is not an address of the port", src)
	}
	return w.say(model.VerdictContinue, "admit", "source %s is outside policy, which the port is the gateway to", src)
}

func (w *walk) guardND() model.Verdict {
	p := &w.packet
	n := &p.ndp
	foreignMAC := n.HasMAC && n.MAC != p.eth.Src
	switch {
	case foreignMAC:
		return w.say(model.VerdictSpoofedNd, "admit", "claims MAC %s, the frame's source is %s", n.MAC, p.eth.Src)
	case !p.isND(wire.ICMPv6NeighbourAdv) && p.src.IsUnspecified() && n.HasMAC:
		return w.say(model.VerdictSpoofedNd, "admit", "claims a MAC while it has no address yet")
	case p.isND(wire.ICMPv6NeighbourAdv) && !w.uses(n.Target) && !n.Target.IsLinkLocalUnicast():
		return w.say(model.VerdictSpoofedNd, "admit", "advertises %s, which is not an address of the port", n.Target)
	}
	return model.VerdictContinue
}

// isRouterMessage tells whether a router says this: advertisements and redirects of both families.
func (p *packet) isRouterMessage() bool {
	if p.isICMP() {
		return p.icmpType == 5 || p.icmpType == 9
	}
	return p.isND(wire.ICMPv6RouterAdvert) || p.isND(wire.ICMPv6Redirect)
}

// isServerMessage tells whether a DHCP server of either family says this, or may turn out to: a fragment's first byte
// may be another when it is put together.
func (p *packet) isServerMessage(frame []byte) bool {
	if p.proto != wire.ProtoUDP || p.later || p.isARP() || p.l4Len() < 4 {
		return false
	}
	server, client, says := uint16(67), uint16(68), []byte{2}
	if p.isIPv6() {
		server, client, says = 547, 546, []byte{2, 7, 10, 13} // advertise, reply, reconfigure, relay-reply
	}
	ports, _ := wire.ParsePorts(frame[p.l4:])
	switch {
	case ports.Destination == client:
		return true
	case ports.Source != server && ports.Destination != server:
		return false
	}
	return p.fragment || p.l4Len() > 8 && slices.Contains(says, frame[p.l4+8])
}

// uplinkAdmit20 holds the outer source to what policy says is behind it.
func (w *walk) uplinkAdmit20() model.Verdict {
	if w.rewriting {
		return model.VerdictContinue // its source is a Provider Address: rewrite judges it
	}
	p := &w.packet
	source := p.src
	if p.isARP() {
		source = p.arp.Sender
	}
	routerSpeaks := p.isIPv6() && p.isRouterMessage() && source.IsLinkLocalUnicast() // of which policy knows no address
	if v := w.admitSource(source); v != model.VerdictContinue && !w.forwarded(source) && !routerSpeaks {
		return v
	}
	if v := w.admitClaims(w.port.Network); v != model.VerdictContinue {
		return v
	}
	return w.admitSaid(w.port.Network)
}

// admitClaims holds ARP and ND of a guest elsewhere to its own MAC and addresses.
func (w *walk) admitClaims(network model.NetworkIndex) model.Verdict {
	p := &w.packet
	if p.isARP() && p.arp.SenderMAC != p.eth.Src {
		return w.say(model.VerdictSpoofedArp, "admit", "ARP sender MAC %s is not the frame's source %s", p.arp.SenderMAC, p.eth.Src)
	}
	if p.ndp.HasMAC && p.ndp.MAC != p.eth.Src {
		return w.say(model.VerdictSpoofedNd, "admit", "claims MAC %s, the frame's source is %s", p.ndp.MAC, p.eth.Src)
	}
	if !p.isND(wire.ICMPv6NeighbourAdv) || p.ndp.Target.IsLinkLocalUnicast() {
		return model.VerdictContinue
	}
	r, ok := w.rec(w.outer.vsid, p.ndp.Target)
	if (!ok || !w.sends(r.PA) || r.MAC != p.eth.Src) && !w.Set.Forwarders[w.sender(network)].Allowed {
		return w.say(model.VerdictSpoofedNd, "admit", "advertises %s, which is not %s at %s", p.ndp.Target, p.eth.Src, w.outer.src)
	}
	return model.VerdictContinue
}

// admitSaid asks policy whether the guest elsewhere may say what guards look for.
func (w *walk) admitSaid(network model.NetworkIndex) model.Verdict {
	p := &w.packet
	trust := w.Set.Forwarders[w.sender(network)]
	switch {
	case p.isRouterMessage() && !trust.Router:
		return w.say(model.VerdictRouterMessage, "admit", "%s at %s is no router", p.eth.Src, w.outer.src)
	case p.isServerMessage(w.frame) && !trust.DHCP:
		return w.say(model.VerdictDhcpServerMessage, "admit", "%s at %s is no DHCP server", p.eth.Src, w.outer.src)
	}
	return w.say(model.VerdictContinue, "admit", "admitted")
}

// sender is who may have sent a frame from the underlay: a guest, or one whose packet its host has routed.
func (w *walk) sender(network model.NetworkIndex) table.Forwarder {
	f := table.Forwarder{Network: network, PA: w.outer.src}
	if w.packet.eth.Src != model.RouterMAC(w.outer.vsid) {
		f.MAC = w.packet.eth.Src
	}
	return f
}

func (w *walk) admitSource(source netip.Addr) model.Verdict {
	p := &w.packet
	vsid := w.outer.vsid
	if s, ok := w.rec(vsid, source); ok {
		if !w.sends(s.PA) || s.MAC != p.eth.Src {
			return w.say(model.VerdictSourceNotInPolicy, "admit", "%s in subnet %d is %s at %q, not %s at %s", source, vsid, s.MAC, s.PA, p.eth.Src, w.outer.src)
		}
		return model.VerdictContinue
	}
	switch {
	case p.isARP():
		return w.say(model.VerdictSourceNotInPolicy, "admit", "no record of %s in subnet %d", source, vsid)
	case p.eth.Src == model.RouterMAC(vsid):
		if w.led(source) {
			return model.VerdictContinue
		}
		return w.admitRouted(source)
	}
	g, ok := w.wild(vsid, source.Is4())
	if !ok || !w.sends(g.PA) || g.MAC != p.eth.Src || !w.outside(w.port.Network, vsid, source) {
		return w.say(model.VerdictSourceNotInPolicy, "admit", "no record of %s in subnet %d, it was not routed, and no gateway may stand for it", source, vsid)
	}
	return w.say(model.VerdictContinue, "admit", "source %s is outside policy, which %s is the gateway to", source, g.MAC)
}

// led tells whether a source to which customer routes lead through a guest is at home at
// the outer source.
func (w *walk) led(source netip.Addr) bool {
	_, route, ok := w.direct(w.port.Network, source)
	if !ok {
		return false
	}
	r, known := w.rec(route.VSID, source)
	return known && w.sends(r.PA)
}

// allowed tells whether a guest elsewhere may use sources beside its own. Which, its own host knows.
func (w *walk) allowed(source netip.Addr, network model.NetworkIndex) bool {
	return usable(source) && w.Set.Forwarders[w.sender(network)].Allowed
}

// forwarded tells whether a guest that forwards, or may use other sources, may have sent what is the source's.
func (w *walk) forwarded(source netip.Addr) bool {
	if w.allowed(source, w.port.Network) {
		return w.say(model.VerdictContinue, "admit", "a guest at %s may use other sources", w.outer.src) == model.VerdictContinue
	}
	if w.packet.isARP() || !usable(source) {
		return false
	}
	if !w.Set.Forwarders[w.sender(w.port.Network)].Forward {
		return false
	}
	w.say(model.VerdictContinue, "admit", "a guest at %s forwards for %s", w.outer.src, source)
	return true
}

// admitRouted is for a source in another subnet, whose packet the sender's host routed: the
// way back to it must lead to a record at the outer source.
func (w *walk) admitRouted(source netip.Addr) model.Verdict {
	prefix, route, ok := w.longestPrefix(w.port.Network, source)
	if !ok {
		return w.say(model.VerdictSourceNotInPolicy, "admit", "no route of network %d leads back to %s", w.port.Network, source)
	}
	s, known := w.rec(route.VSID, source)
	if known && route.NextHop.IsValid() {
		return w.say(model.VerdictSourceNotInPolicy, "admit", "%s is in no subnet of network %d", source, w.port.Network)
	}
	if !known && usable(source) {
		s, _ = w.wild(route.VSID, source.Is4())
	}
	if !w.sends(s.PA) {
		return w.say(model.VerdictSourceNotInPolicy, "admit", "%s in subnet %d (%s) is not at %s", source, route.VSID, prefix, w.outer.src)
	}
	return model.VerdictContinue
}

// sends tells whether the outer source is one of the host that records name by pa.
func (w *walk) sends(pa netip.Addr) bool {
	if !pa.IsValid() {
		return false
	}
	listed := false
	for s := range w.Set.Sources {
		listed = listed || s.Peer == pa
	}
	if !listed {
		return w.outer.src == pa
	}
	_, known := w.Set.Sources[table.Source{Peer: pa, PA: w.outer.src}]
	return known
}
