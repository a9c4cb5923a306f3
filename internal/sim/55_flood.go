package sim

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// Copy is one copy of a flooded frame.
type Copy struct {
	IfIndex uint32
	Frame   []byte
	To      model.PortID // 0: another host
}

// scope is who gets a copy.
type scope uint8

const (
	nobody scope = iota
	l2Only       // members with a port whose addresses are yet to be learned
	everybody
)

const (
	dhcpServer = 67
	dhcpClient = 68
)

var everyone = model.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// flood55 has a second look at what the stages so far would drop with was.
func (w *walk) flood55(was model.Verdict) model.Verdict {
	if !w.port.Flood || !isGroup(w.packet.eth.Dst) {
		return was
	}
	row, ok := w.Set.Floods[w.port.VSID]
	if !ok {
		return was
	}
	to := w.outScope(row, was)
	if to == nobody {
		return was
	}
	if row.Rate == 0 && w.port.StormLimit == 0 {
		return w.say(model.VerdictStormLimited, "flood", "the port may have nothing flooded")
	}
	if row.L2 && w.isGroupReport() {
		return w.say(model.VerdictGroupReport, "flood", "the switch notes which groups the guest listens to")
	}
	size := w.size()
	for _, m := range w.listeners(w.ports(w.port.VSID, to), row) {
		if m.IfIndex != w.port.IfIndex {
			w.copyToPort(m, w.port.Isolation, size)
		}
	}
	for _, pa := range w.hosts(w.port.VSID, row, to) {
		w.copyToHost(pa, size)
	}
	return w.say(model.VerdictFlooded, "flood", "%d copies; up to %d packets a second of this port", len(w.result.Copies), row.Rate)
}

// outScope is who gets a copy of what a guest sent.
func (w *walk) outScope(row table.Flood, was model.Verdict) scope {
	p := &w.packet
	all := l2Only
	if row.L2 {
		all = everybody
	}
	switch was {
	case model.VerdictArpQuiet:
		if row.L2 && p.arp.Sender == p.arp.TargetAddr && !p.arp.Sender.IsUnspecified() {
			return everybody
		}
	case model.VerdictNdQuiet:
		if row.L2 && p.isND(wire.ICMPv6NeighbourAdv) && p.dst.IsMulticast() {
			return everybody
		}
	case model.VerdictArpNoRecord:
		if p.arp.Op == wire.ARPRequest {
			return all
		}
	case model.VerdictNdNoRecord:
		if p.dst.IsMulticast() && !p.ndp.Target.IsLinkLocalUnicast() {
			return all
		}
	case model.VerdictMulticast:
		if row.L2 {
			return everybody
		}
		return p.scopeForL2Only()
	case model.VerdictNoRecord, model.VerdictNoRoute:
		if row.L2 && p.isIPv4() && p.eth.Dst == everyone {
			return everybody
		}
	}
	return nobody
}

// scopeForL2Only is who gets a copy where the subnet is not flooded as such.
func (p *packet) scopeForL2Only() scope {
	switch {
	case p.isARP() && p.arp.Op == wire.ARPRequest, p.isND(wire.ICMPv6NeighbourSol), p.isDHCP(dhcpClient):
		return l2Only
	case p.isDHCP(dhcpServer):
		return everybody
	}
	return nobody
}

func (p *packet) isDHCP(to uint16) bool {
	return p.isIPv4() && p.proto == wire.ProtoUDP && p.dst == broadcast && p.ports.Destination == to
}

// ports are the members on this host, by device.
func (w *walk) ports(vsid model.VSID, to scope) []table.Member {
	var out []table.Member
	for m, info := range w.Set.Members {
		if m.VSID == vsid && !m.PA.IsValid() && (to == everybody || info.L2Only) {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b table.Member) int { return cmp.Compare(a.IfIndex, b.IfIndex) })
	return out
}

// hosts are the PAs that copies for other hosts go to.
func (w *walk) hosts(vsid model.VSID, row table.Flood, to scope) []netip.Addr {
	var out []netip.Addr
	for m, info := range w.Set.Members {
		if m.VSID == vsid && m.PA.IsValid() && (to == everybody || info.L2Only || row.Group.IsValid()) {
			out = append(out, m.PA)
		}
	}
	if row.Group.IsValid() && len(out) > 0 {
		return []netip.Addr{row.Group}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return out
}

// isGroupReport tells whether a guest says which groups it listens to (IGMP, MLD).
func (w *walk) isGroupReport() bool {
	p := &w.packet
	switch {
	case p.isICMPv6():
		return p.icmpType == 131 || p.icmpType == 132 || p.icmpType == 143
	case p.isIPv4() && p.proto == 2 && !p.fragment && p.l4Len() >= 8:
		t := w.frame[p.l4]
		return t == 0x12 || t == 0x16 || t == 0x17 || t == 0x22
	}
	return false
}

var linkLocalGroups = []netip.Prefix{netip.MustParsePrefix("224.0.0.0/24"), netip.MustParsePrefix("ff00::/16"),
	netip.MustParsePrefix("ff01::/16"), netip.MustParsePrefix("ff02::/16")}

// listeners are those of the ports that have joined the group; of an L3 subnet, of broadcast and of a link-local group
// they are all. The flags of an IPv6 group do not matter, its scope does.
func (w *walk) listeners(ports []table.Member, row table.Flood) []table.Member {
	dst := w.packet.dst
	if !row.L2 || !dst.IsMulticast() {
		return ports
	}
	scope := dst
	if dst.Is6() {
		b := dst.As16()
		b[1] &= 15
		scope = netip.AddrFrom16(b)
	}
	for _, p := range linkLocalGroups {
		if p.Contains(scope) {
			return ports
		}
	}
	var out []table.Member
	for _, m := range ports {
		if _, joined := w.Set.Groups[table.GroupMember{VSID: m.VSID, IfIndex: m.IfIndex, Group: dst}]; joined {
			out = append(out, m)
		}
	}
	return out
}

// lose counts a copy that cannot be made.
func (w *walk) lose(v model.Verdict, format string, args ...any) {
	w.result.Lost = append(w.result.Lost, v)
	w.say(v, "flood", "no copy: "+format, args...)
}

func (w *walk) copyToPort(m table.Member, from model.IsolationID, size int) {
	to, ok := w.Set.Ports[m.IfIndex]
	switch {
	case !ok:
		w.lose(model.VerdictPortDown, "device %d has no port", m.IfIndex)
		return
	case to.VSID != m.VSID:
		w.lose(model.VerdictVsidMismatch, "port %d is in subnet %d", to.ID, to.VSID)
		return
	case from.Apart(to.Isolation):
		w.say(model.VerdictContinue, "flood", "no copy for port %d, which is %s and the sender %s", to.ID, to.Isolation, from)
		return
	case !w.result.Inbound && size > int(to.MTU):
		w.lose(model.VerdictTooBig, "%d bytes, port %d takes %d", size, to.ID, to.MTU)
		return
	}
	if w.deniesCopy(to) {
		w.result.Denied, w.result.DeniedBy = append(w.result.Denied, to.ID), append(w.result.DeniedBy, w.result.Rule)
		return
	}
	w.result.Copies = append(w.result.Copies, Copy{to.IfIndex, slices.Clone(w.frame), to.ID})
	w.say(model.VerdictContinue, "flood", "a copy into device %d of port %d", to.IfIndex, to.ID)
}

func (w *walk) copyToHost(pa netip.Addr, size int) {
	peer, ok := w.Set.Peers[pa]
	transport := w.Set.Floods[w.port.VSID].Transport
	to := outerDestination(peer)
	overhead := table.Overhead(transport, to)
	switch {
	case !ok || !w.reaches(peer) || to.Is6() != w.port.PA.Is6():
		w.lose(model.VerdictNoUnderlayRoute, "no way to Provider Address %s", pa)
		return
	case size > int(peer.MTU)-overhead:
		w.lose(model.VerdictTooBig, "%d bytes, the path to %s carries %d", size, pa, max(0, int(peer.MTU)-overhead))
		return
	case peer.NextHop.IsZero():
		w.lose(model.VerdictNeighbourUnresolved, "no link-layer address toward %s", pa)
		return
	}
	inner := w.frame
	w.peer, w.hop = &peer, &hop{vsid: w.port.VSID}
	w.encapsulate(transport)
	must(wire.Ethernet{Dst: peer.NextHop, Src: peer.Source, Type: etherTypeOf(to)}.Encode(w.frame))
	w.result.Copies = append(w.result.Copies, Copy{IfIndex: peer.IfIndex, Frame: w.frame})
	w.say(model.VerdictContinue, "flood", "a copy out of device %d to Provider Address %s", peer.IfIndex, pa)
	w.frame = inner
}

// uplinkFlood55 copies what another host flooded to the members on this one, and to nobody else.
func (w *walk) uplinkFlood55() model.Verdict {
	p, vsid := &w.packet, w.outer.vsid
	if !isGroup(p.eth.Dst) {
		return model.VerdictContinue
	}
	row, ok := w.Set.Floods[vsid]
	if !ok || len(w.ports(vsid, everybody)) == 0 {
		return w.say(model.VerdictNoMember, "flood", "subnet %d floods nothing here", vsid)
	}
	to := everybody
	if !row.L2 {
		to = p.scopeForL2Only()
	}
	if to == nobody {
		return w.say(model.VerdictMulticast, "flood", "subnet %d floods only what finds its L2Only members", vsid)
	}
	if v := w.admitFlooded(); v != model.VerdictContinue {
		return v
	}
	if v := w.arriveTOS(); v != model.VerdictContinue {
		return v
	}
	source := p.src
	if p.isARP() {
		source = p.arp.Sender
	}
	from := w.isolationOf(vsid, source, p.eth.Src)
	for _, m := range w.listeners(w.ports(vsid, to), row) {
		w.copyToPort(m, from, 0)
	}
	return w.say(model.VerdictFlooded, "flood", "%d copies", len(w.result.Copies))
}

// admitFlooded holds the outer source to what policy says is behind it. A source that has no address yet, or a
// link-local one, may be behind any host with members.
func (w *walk) admitFlooded() model.Verdict {
	p, vsid := &w.packet, w.outer.vsid
	source := p.src
	if p.isARP() {
		source = p.arp.Sender
	}
	r, known := w.rec(vsid, source)
	network := w.Set.Ports[w.ports(vsid, everybody)[0].IfIndex].Network // the first port's is the subnet's
	member := false
	for m := range w.Set.Members {
		member = member || m.VSID == vsid && w.sends(m.PA)
	}
	nameless := source.IsUnspecified() || source.Is6() && source.IsLinkLocalUnicast()
	switch {
	case known && w.sends(r.PA) && r.MAC == p.eth.Src:
	case !known && nameless && member:
	case w.allowed(source, network):
	default:
		return w.say(model.VerdictSourceNotInPolicy, "flood", "%s of subnet %d is not at %s", source, vsid, w.outer.src)
	}
	if v := w.admitClaims(network); v != model.VerdictContinue {
		return v
	}
	return w.admitSaid(network)
}
