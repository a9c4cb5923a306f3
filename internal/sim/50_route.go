package sim

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8")
	loopback4   = netip.MustParsePrefix("127.0.0.0/8")
	loopback6   = netip.MustParseAddr("::1")
)

func (w *walk) route50() model.Verdict {
	if w.hop != nil {
		return model.VerdictContinue // ARP, which stays in its subnet
	}
	dst := w.packet.dst
	if v := refuseDestination(dst); v != model.VerdictContinue {
		return w.say(v, "route", "destination %s", dst)
	}
	if v := w.chooseHop(dst); v != model.VerdictContinue {
		return v
	}
	r, ok := w.at(w.hop)
	if !ok {
		return model.VerdictContinue // lookup says so: an unknown neighbour comes before a spent TTL
	}
	addressesRouter := r.Router && w.hop.ca == dst
	w.routed = w.hop.vsid != w.port.VSID
	if !w.routed || w.packet.ttl > 1 || addressesRouter {
		return model.VerdictContinue
	}
	w.tellTimeExceeded()
	return w.say(model.VerdictTtlExceeded, "route", "TTL %d ends at the router", w.packet.ttl)
}

func refuseDestination(dst netip.Addr) model.Verdict {
	switch {
	case dst.IsMulticast() || dst == broadcast:
		return model.VerdictMulticast
	case dst.Is4() && (thisNetwork.Contains(dst) || loopback4.Contains(dst)):
		return model.VerdictIpMalformed
	case dst.Is6() && (dst.IsUnspecified() || dst == loopback6):
		return model.VerdictIpMalformed
	case dst.Is6() && dst.IsLinkLocalUnicast():
		return model.VerdictLinkLocal
	}
	return model.VerdictContinue
}

// wayOut is the route out of the port's subnet, in which external routers may be all
// that leads to others.
func (w *walk) wayOut(dst netip.Addr) (netip.Prefix, table.Route, bool) {
	if prefix, route, ok := w.direct(w.port.Network, dst); ok && w.port.External && route.VSID == w.port.VSID {
		return prefix, route, true
	}
	return w.longestPrefix(w.port.Network, dst)
}

// throughSelf tells whether the port forwards, and is itself what the route leads through.
func (w *walk) throughSelf() bool {
	r, ok := w.at(w.hop)
	return ok && w.port.Forward && r.IfIndex == w.port.IfIndex
}

// chooseHop finds the subnet and the address where the packet goes next.
func (w *walk) chooseHop(dst netip.Addr) model.Verdict {
	if _, ok := w.rec(w.port.VSID, dst); ok {
		w.hop = &hop{vsid: w.port.VSID, ca: dst}
		return w.say(model.VerdictContinue, "route", "a record of the port's own subnet names %s", dst)
	}
	prefix, route, ok := w.wayOut(dst)
	if !ok {
		return w.say(model.VerdictNoRoute, "route", "no route of network %d covers %s", w.port.Network, dst)
	}
	w.hop = w.onLink(route.VSID, dst)
	if route.NextHop.IsValid() {
		w.hop = &hop{vsid: route.VSID, ca: route.NextHop}
	}
	if behind, direct, ok := w.direct(w.port.Network, dst); ok && route.NextHop.IsValid() && w.throughSelf() {
		w.hop = w.onLink(direct.VSID, dst)
		return w.say(model.VerdictContinue, "route", "route %s leads through the sender itself; behind it, %s is in subnet %d (%s)", prefix, dst, direct.VSID, behind)
	}
	return w.say(model.VerdictContinue, "route", "route %s leads to %s in subnet %d", prefix, w.hop.ca, w.hop.vsid)
}

// onLink is the destination as its own next hop. A DHCP server's word to somebody in its
// own subnet may go by the MAC of a client that has no address yet.
func (w *walk) onLink(vsid model.VSID, dst netip.Addr) *hop {
	p := &w.packet
	h := &hop{vsid: vsid, ca: dst}
	if vsid == w.port.VSID && p.isIPv4() && p.proto == wire.ProtoUDP && p.ports == (wire.Ports{Source: 67, Destination: 68}) {
		h.byMAC = model.L2OnlyCA(p.eth.Dst)
	}
	return h
}
