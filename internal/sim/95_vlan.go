package sim

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// FromVLANGuest is a frame from the guest behind the device ifindex of a port on a VLAN.
func (s Switch) FromVLANGuest(ifindex uint32, frame []byte) Result {
	w := newWalk(s, ifindex, frame)
	return w.finish(w.vlanGuest95())
}

// FromVLANUplink is a frame that the external interface ifindex receives. What is not for a port
// of this host is the host's own: PASS, with copies where it is for a group.
func (s Switch) FromVLANUplink(ifindex uint32, frame []byte) Result {
	w := newWalk(s, ifindex, frame)
	w.result.Inbound = true
	return w.finish(w.vlanUplink95())
}

// tagged is a frame without its tag, and what the tag said.
type tagged struct {
	frame          []byte
	dst, src       model.MAC
	has, double    bool
	vid, tci, size uint16
	read           model.Verdict // what is wrong with what is behind the tag, for ports that look
}

func isTag(etherType uint16) bool { return etherType == wire.TypeVLAN || etherType == wire.TypeQinQ }

func readTag(frame []byte) (t tagged, whole bool) {
	if len(frame) < wire.EthernetLen {
		return t, false
	}
	t.frame, t.dst, t.src = frame, model.MAC(frame[:6]), model.MAC(frame[6:12])
	if outer := word(frame[12:]); isTag(outer) {
		if len(frame) < wire.EthernetLen+4 {
			return t, false
		}
		t.has, t.tci = true, word(frame[14:])
		t.double = outer != wire.TypeVLAN || isTag(word(frame[16:]))
		t.frame = slices.Concat(frame[:12], frame[16:])
	}
	t.vid, t.size = t.tci&0xfff, uint16(len(t.frame)-wire.EthernetLen)
	return t, true
}

// with gives the frame the tag tci.
func (t tagged) with(tci uint16) []byte {
	return slices.Concat(t.frame[:12], []byte{0x81, 0, byte(tci >> 8), byte(tci)}, t.frame[12:])
}

// out gives the frame as it is on the wire in its VLAN.
func (t tagged) out() []byte {
	if t.vid == 0 {
		return t.frame
	}
	return t.with(t.tci)
}

// keeps tells whether a port gets its frames of the VLAN with a tag.
func keeps(p table.VLANPort, vid uint16) bool { return p.Trunk && vid != 0 && vid != p.Native }

func (t tagged) into(p table.VLANPort) []byte {
	if keeps(p, t.vid) {
		return t.with(t.tci)
	}
	return t.frame
}

func isReserved(m model.MAC) bool {
	return [5]byte(m[:5]) == [5]byte{1, 0x80, 0xc2, 0, 0} && m[5] < 16
}

// behind finds the port behind an external interface that has a MAC.
func (w *walk) behind(uplink uint32, mac model.MAC) (table.VLANPort, bool) {
	for _, p := range w.membersOf(uplink) {
		if p.MAC == mac {
			return p, true
		}
	}
	return table.VLANPort{}, false
}

// membersOf are the ports behind an external interface, by device.
func (w *walk) membersOf(uplink uint32) []table.VLANPort {
	var out []table.VLANPort
	for _, p := range w.Set.VLANPorts {
		if p.Uplink == uplink {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b table.VLANPort) int { return cmp.Compare(a.IfIndex, b.IfIndex) })
	return out
}

func (w *walk) vlanGuest95() model.Verdict {
	from, ok := w.Set.VLANPorts[w.ifindex]
	if !ok {
		return w.say(model.VerdictPortUnknown, "vlan", "no port is on device %d", w.ifindex)
	}
	w.result.Port = from.ID
	t, whole := readTag(w.frame)
	if !whole {
		return w.say(model.VerdictFrameTruncated, "vlan", "%d bytes", len(w.frame))
	}
	if v := w.vlanAdmit(&t, from); v != model.VerdictContinue {
		return v
	}
	w.vlanParse(&t)
	if v := w.vlanJudge(t, from); v != model.VerdictContinue {
		return v
	}
	if v := w.vlanACL(t, from.Port, false); v != model.VerdictContinue {
		return v
	}
	if isGroup(t.dst) {
		if from.StormRate == 0 {
			return w.say(model.VerdictStormLimited, "vlan", "the port may have nothing flooded")
		}
		w.vlanFlood(t, from.Uplink, &from)
		return w.say(model.VerdictFlooded, "vlan", "%d copies in VLAN %d; up to %d packets a second of this port", len(w.result.Copies), t.vid, from.StormRate)
	}
	to, here := w.behind(from.Uplink, t.dst)
	switch {
	case here && to.IfIndex == from.IfIndex:
		return w.say(model.VerdictRouteToSelf, "vlan", "%s is the sender", t.dst)
	case here:
		return w.vlanDeliver(t, to)
	case from.Uplink == 0:
		return w.say(model.VerdictNoUnderlayRoute, "vlan", "this host has no interface to the external network")
	case t.size > from.MTU:
		return w.say(model.VerdictTooBig, "vlan", "%d bytes, the external interface takes %d", t.size, from.MTU)
	}
	w.send(from.Uplink, t.out())
	return w.say(model.VerdictSwitched, "vlan", "%s is not here: out of device %d in VLAN %d", t.dst, from.Uplink, t.vid)
}

// vlanAdmit says in which VLAN the frame is, and what its tag is to be.
func (w *walk) vlanAdmit(t *tagged, from table.VLANPort) model.Verdict {
	if t.double {
		return w.say(model.VerdictVlanDoubleTagged, "vlan", "a second tag")
	}
	if t.vid != 0 && !from.Trunk {
		return w.say(model.VerdictVlanTagged, "vlan", "VLAN %d, and the port sends without tags", t.vid)
	}
	if t.vid == 0 {
		t.vid = from.Native
	}
	if !from.Sends.Has(t.vid) {
		return w.say(model.VerdictVlanFiltered, "vlan", "the port does not send in VLAN %d", t.vid)
	}
	if isGroup(t.src) || !from.Spoof && !w.portUsesMAC(from.Port, t.src) {
		return w.say(model.VerdictSpoofedMac, "vlan", "source MAC %s is not the port's %s", t.src, from.MAC)
	}
	if isReserved(t.dst) {
		return w.say(model.VerdictVlanLinkLocal, "vlan", "%s stays on its wire", t.dst)
	}
	priority := t.tci & 0xe000
	if !from.PriorityTag {
		priority = 0
	}
	t.tci = t.vid | priority
	return model.VerdictContinue
}

// vlanParse reads what is behind the tag. There is more than IP on a VLAN, which nobody here looks into.
func (w *walk) vlanParse(t *tagged) {
	w.frame = t.frame
	w.packet, t.read = parseFrame(t.frame)
	if t.read == model.VerdictNonIp && !isSNAP(t.frame) {
		t.read = model.VerdictContinue
	}
}

// isSNAP tells 802.2 with SNAP, which can carry all that an Ethernet type can.
func isSNAP(frame []byte) bool {
	return word(frame[12:]) < 0x600 && len(frame) >= wire.EthernetLen+2 && word(frame[wire.EthernetLen:]) == 0xaaaa
}

// vlanJudge looks at what a guest sends behind the tag, as far as its port asks for that.
func (w *walk) vlanJudge(t tagged, from table.VLANPort) model.Verdict {
	if from.Spoof && !from.DHCPGuard && !from.RouterGuard && !hasRules(from.Port) {
		return model.VerdictContinue
	}
	p := &w.packet
	switch {
	case t.read != model.VerdictContinue:
		return w.say(t.read, "vlan", "the headers are refused")
	case from.DHCPGuard && p.isServerMessage(w.frame):
		return w.say(model.VerdictDhcpServerMessage, "vlan", "the guest is no DHCP server")
	case from.RouterGuard && p.isRouterMessage():
		return w.say(model.VerdictRouterMessage, "vlan", "the guest is no router")
	case from.Spoof:
		return model.VerdictContinue
	case p.isARP():
		return w.vlanARP(from)
	case p.isIPv4():
		nobody := p.src.IsUnspecified() && (p.dst.IsMulticast() || p.dst.As4()[0] >= 240)
		return w.vlanSource(from, nobody)
	case p.isIPv6():
		nobody := p.src.IsUnspecified() && (p.dst.IsMulticast() || p.isND(wire.ICMPv6NeighbourSol))
		if v := w.vlanSource(from, nobody); v != model.VerdictContinue {
			return v
		}
		return w.vlanND(from)
	}
	return model.VerdictContinue
}

func hasRules(p table.Port) bool {
	return p.Inbound != table.RuleSetKey{} || p.Outbound != table.RuleSetKey{}
}

// vlanACL asks the rules of a port. Of what is neither ARP nor IP they see MACs.
func (w *walk) vlanACL(t tagged, p table.Port, inbound bool) model.Verdict {
	switch {
	case !hasRules(p):
		return model.VerdictContinue
	case t.read != model.VerdictContinue:
		return w.say(t.read, "vlan", "the headers are refused")
	case inbound:
		return w.judgeInbound(p, w.packet, t.src, t.dst)
	}
	return w.judge(p, false, w.packet, w.query(w.packet, t.src, t.dst))
}

// vlanRefusesCopy is vlanACL for a copy; the frame itself goes on.
func (w *walk) vlanRefusesCopy(t tagged, to table.Port) bool {
	port, inbound := w.result.Port, w.result.Inbound
	v := w.vlanACL(t, to, true)
	w.result.Port, w.result.Inbound = port, inbound
	switch v {
	case model.VerdictContinue:
		return false
	case model.VerdictAclDenied:
		w.result.Denied, w.result.DeniedBy = append(w.result.Denied, to.ID), append(w.result.DeniedBy, w.result.Rule)
	default:
		w.lose(v, "port %d has rules, and the headers are refused", to.ID)
	}
	return true
}

// vlanUses tells whether a is a source that the guest may have: any that somebody can have, unless policy
// names its own.
func (w *walk) vlanUses(from table.VLANPort, a netip.Addr) bool {
	link := a.Is6() && a.IsLinkLocalUnicast()
	switch {
	case !link && !usable(a):
		return false
	case !from.Held, link && a == from.MAC.LinkLocal():
		return true
	}
	return w.allowedPrefix(from.IfIndex, a).IsValid()
}

func (w *walk) vlanSource(from table.VLANPort, nobody bool) model.Verdict {
	if nobody || w.vlanUses(from, w.packet.src) {
		return model.VerdictContinue
	}
	return w.say(model.VerdictSpoofedCa, "vlan", "source %s is none that the port may use", w.packet.src)
}

func (w *walk) vlanARP(from table.VLANPort) model.Verdict {
	arp, src := &w.packet.arp, w.packet.eth.Src
	switch {
	case arp.SenderMAC != src:
		return w.say(model.VerdictSpoofedArp, "vlan", "ARP sender MAC %s is not the frame's source %s", arp.SenderMAC, src)
	case arp.Op == wire.ARPRequest && arp.Sender.IsUnspecified() || w.vlanUses(from, arp.Sender):
		return model.VerdictContinue
	}
	return w.say(model.VerdictSpoofedArp, "vlan", "ARP sender %s is none that the port may use", arp.Sender)
}

func (w *walk) vlanND(from table.VLANPort) model.Verdict {
	p := &w.packet
	n, advert := &p.ndp, p.isND(wire.ICMPv6NeighbourAdv)
	switch {
	case advert && !w.vlanUses(from, n.Target):
		return w.say(model.VerdictSpoofedNd, "vlan", "advertises %s, which the port may not use", n.Target)
	case n.HasMAC && n.MAC != p.eth.Src:
		return w.say(model.VerdictSpoofedNd, "vlan", "claims MAC %s, the frame's source is %s", n.MAC, p.eth.Src)
	case !advert && n.HasMAC && p.src.IsUnspecified():
		return w.say(model.VerdictSpoofedNd, "vlan", "claims a MAC while it has no address yet")
	}
	return model.VerdictContinue
}

func (w *walk) vlanDeliver(t tagged, to table.VLANPort) model.Verdict {
	if !to.Receives.Has(t.vid) {
		return w.say(model.VerdictVlanApart, "vlan", "port %d receives nothing of VLAN %d", to.ID, t.vid)
	}
	if t.size > to.MTU {
		return w.say(model.VerdictTooBig, "vlan", "%d bytes, port %d takes %d", t.size, to.ID, to.MTU)
	}
	if v := w.vlanACL(t, to.Port, true); v != model.VerdictContinue {
		return v
	}
	w.result.To = to.ID
	w.send(to.IfIndex, t.into(to))
	return w.say(model.VerdictDelivered, "vlan", "into device %d of port %d, from VLAN %d", to.IfIndex, to.ID, t.vid)
}

// vlanFlood copies to the ports behind the external interface that receive the VLAN, and of what a guest sent out of that:
// first what has no tag, then what has one.
func (w *walk) vlanFlood(t tagged, uplink uint32, from *table.VLANPort) {
	for _, withTag := range []bool{false, true} {
		for _, to := range w.membersOf(uplink) {
			if !to.Receives.Has(t.vid) || keeps(to, t.vid) != withTag || from != nil && from.IfIndex == to.IfIndex {
				continue
			}
			if t.size > to.MTU {
				w.lose(model.VerdictTooBig, "%d bytes, port %d takes %d", t.size, to.ID, to.MTU)
				continue
			}
			if w.vlanRefusesCopy(t, to.Port) {
				continue
			}
			w.result.Copies = append(w.result.Copies, Copy{to.IfIndex, t.into(to), to.ID})
			w.say(model.VerdictContinue, "vlan", "a copy into device %d of port %d", to.IfIndex, to.ID)
		}
		if from == nil || uplink == 0 || (t.vid != 0) != withTag {
			continue
		}
		if t.size > from.MTU {
			w.lose(model.VerdictTooBig, "%d bytes, the external interface takes %d", t.size, from.MTU)
			continue
		}
		w.result.Copies = append(w.result.Copies, Copy{IfIndex: uplink, Frame: t.out()})
		w.say(model.VerdictContinue, "vlan", "a copy out of device %d in VLAN %d", uplink, t.vid)
	}
}

func (w *walk) vlanUplink95() model.Verdict {
	t, whole := readTag(w.frame)
	if !whole {
		return w.say(model.VerdictPass, "vlan", "not a whole frame")
	}
	_, own := w.behind(w.ifindex, t.src)
	if isGroup(t.dst) {
		if !t.double && !isReserved(t.dst) && !own {
			came := w.frame
			w.vlanParse(&t)
			w.vlanFlood(t, w.ifindex, nil)
			w.frame = came
		}
		return w.say(model.VerdictPass, "vlan", "%d copies of VLAN %d; the host gets it, too", len(w.result.Copies), t.vid)
	}
	to, here := w.behind(w.ifindex, t.dst)
	if !here {
		return w.say(model.VerdictPass, "vlan", "%s is no port here", t.dst)
	}
	w.result.Port = to.ID
	switch {
	case t.double:
		return w.say(model.VerdictVlanDoubleTagged, "vlan", "a second tag")
	case own || isGroup(t.src):
		return w.say(model.VerdictSpoofedMac, "vlan", "source MAC %s is that of a port here, or a group's", t.src)
	}
	w.vlanParse(&t)
	return w.vlanDeliver(t, to)
}
