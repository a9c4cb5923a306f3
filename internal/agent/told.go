package agent

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// How many errors of the underlay are passed on: so many at once and in the long run,
// for all guests together and for each (RFC 1812 section 4.3.2.8).
const (
	tellBurst     = 100
	tellPace      = 5 * time.Millisecond
	tellBurstPort = 10
	tellPacePort  = 50 * time.Millisecond
	maxTold       = 4096 // ports that are remembered
)

// maxQuote is how much of the packet an ICMP error repeats, in bytes, as the switch's own do.
const maxQuote = 128

// teller passes errors of the underlay on to guests. Two goroutines use it, one per family.
type teller struct {
	mu    sync.Mutex
	all   pace
	ports map[model.PortID]*pace // of ports that were told something
}

func (t *teller) may(id model.PortID, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ports == nil || len(t.ports) >= maxTold {
		t.ports = map[model.PortID]*pace{}
	}
	p := t.ports[id]
	if p == nil {
		p = &pace{}
		t.ports[id] = p
	}
	return p.may(tellBurstPort, tellPacePort, now) && t.all.may(tellBurst, tellPace, now)
}

// listenForErrors acts on what routers and hosts of the underlay say of the switch's packets: the loop
// learns what a path carries, and the guest is told.
func (l *loop) listenForErrors(ctx context.Context) error {
	narrow := l.collectNarrow()
	return netdev.WatchICMPErrors(ctx, func(e netdev.ICMPError) {
		v := l.view.Load()
		s, ok := parseSent(e.Quote, v.want.Settings.VXLANPort)
		if !ok {
			return
		}
		most, known := v.ways[s.ends]
		if !known {
			return
		}
		what, ok := meaningOf(e, s, most)
		if !ok {
			return
		}
		if what.mtu != 0 {
			narrow(s.ends, what.mtu)
		}
		l.tellGuest(v.want, s, what)
	})
}

func (l *loop) tellGuest(set table.Set, s sent, what meaning) {
	port, p, ok := senderOf(set, s)
	if !ok {
		l.counts.told("untold_sender_unknown")
		return
	}
	if !p.mayBeToldOf() {
		l.counts.told("untold_quote_too_short")
		return
	}
	frame, ok := errorFrame(port, p, what)
	if !ok || !l.teller.may(port.ID, time.Now()) {
		return
	}
	if err := netdev.Send(port.IfIndex, datapath.SwitchMark, frame); err != nil {
		l.log.Debug("a guest could not be told of an error of the underlay", "port", port.ID, "error", err)
		return
	}
	l.counts.told(what.name())
}

// meaning is what an error says, in the words of either family.
type meaning struct {
	mtu       int // of the outer packet that fits; 0: unreachable
	limit     int // of the guest's packet that fits
	forbidden bool
}

func (m meaning) name() string {
	if m.mtu != 0 {
		return "too_big"
	}
	return "unreachable"
}

// meaningOf reads an error about s, on a way that carries most by itself. Whatever keeps a packet from
// the other host makes the guests behind it unreachable: between these, the underlay is one link
// (RFC 2003 section 4).
func meaningOf(e netdev.ICMPError, s sent, most uint16) (meaning, bool) {
	if s.local.Is4() != e.From.Is4() {
		return meaning{}, false
	}
	const prohibited4Net, prohibited4Host, prohibited4, prohibited6, failedPolicy6, rejected6 = 9, 10, 13, 1, 5, 6
	floor := leastMTU4
	var forbidden, tooBig bool
	if e.From.Is4() {
		tooBig = e.Type == wire.ICMPUnreachable && e.Code == wire.ICMPCodeFragNeeded
		forbidden = e.Type == wire.ICMPUnreachable && (e.Code == prohibited4Net || e.Code == prohibited4Host || e.Code == prohibited4)
	} else {
		floor = leastMTU6
		tooBig = e.Type == wire.ICMPv6PacketTooBig
		forbidden = e.Type == wire.ICMPv6Unreachable && (e.Code == prohibited6 || e.Code == failedPolicy6 || e.Code == rejected6)
	}
	if !tooBig {
		return meaning{forbidden: forbidden}, true
	}
	mtu := max(e.TooBig(), floor)
	return meaning{mtu: mtu, limit: mtu - table.Overhead(s.transport, s.remote)}, mtu < int(most)
}

// senderOf finds the guest that sent what is quoted: where nothing was routed by the guest's MAC, and else
// by its address, in the routing domain that the subnet of the next hop is of. A routed packet of somebody
// else came by a guest that forwards, and back to its source it goes by that one.
func senderOf(set table.Set, s sent) (table.Port, quotedPacket, bool) {
	eth, err := wire.ParseEthernet(s.frame)
	if err != nil {
		return table.Port{}, quotedPacket{}, false
	}
	p, ok := parseQuoted(eth.Type, s.frame[wire.EthernetLen:])
	if !ok {
		return table.Port{}, p, false
	}
	routed := eth.Src == model.RouterMAC(s.vsid)
	for index, port := range set.Ports {
		r, known := set.Records[table.RecordKey{VSID: port.VSID, CA: p.src}]
		own := known && r.IfIndex == index
		if !routed && port.VSID == s.vsid && port.MAC == eth.Src && (own || port.Forward || port.Spoof) {
			return port, p, true
		}
		if routed && own && leadsTo(set, port.Network, s.vsid) {
			return port, p, true
		}
	}
	if routed {
		port, ok := forwarderOf(set, s.vsid, p.src)
		return port, p, ok
	}
	return table.Port{}, p, false
}

// forwarderOf finds the guest here that has forwarded a routed packet from src: the one that forwards in the routing domain of
// the subnet, and of several the one that the way back to src leads to. Where that does not say, nobody is it:
// the error would go astray.
func forwarderOf(set table.Set, vsid model.VSID, src netip.Addr) (table.Port, bool) {
	var all []table.Port
	for _, port := range set.Ports {
		if port.Forward && leadsTo(set, port.Network, vsid) {
			all = append(all, port)
		}
	}
	if len(all) == 1 {
		return all[0], true
	}
	for _, port := range all {
		if back, ok := routeTo(set, port.Network, src); ok && set.Records[table.RecordKey{VSID: back.VSID, CA: back.NextHop}].IfIndex == port.IfIndex {
			return port, true
		}
	}
	return table.Port{}, false
}

// routeTo is where the longest prefix of a in a routing domain leads.
func routeTo(set table.Set, network model.NetworkIndex, a netip.Addr) (table.Route, bool) {
	for bits := a.BitLen(); bits >= 0; bits-- {
		p, err := a.Prefix(bits)
		if err != nil {
			return table.Route{}, false
		}
		if r, ok := set.Routes[table.RouteKey{Network: network, Prefix: p}]; ok {
			return r, true
		}
	}
	return table.Route{}, false
}

// leadsTo tells whether a subnet is of the routing domain.
func leadsTo(set table.Set, network model.NetworkIndex, vsid model.VSID) bool {
	for k, r := range set.Routes {
		if r.VSID == vsid && (k.Network == network || k.Network == network.Direct()) {
			return true
		}
	}
	return false
}

// quotedPacket is a guest's IP packet, as far as an error of the underlay quotes it.
type quotedPacket struct {
	bytes    []byte // what there is
	length   int    // of the packet
	src, dst netip.Addr
	proto    uint8
	l4       int // where it starts
	later    bool
}

// parseQuoted reads a packet that may be cut behind its headers.
func parseQuoted(kind uint16, b []byte) (quotedPacket, bool) {
	whole := make([]byte, wire.IPv6Len+1<<16) // what is missing is of no interest
	copy(whole, b)
	switch kind {
	case wire.TypeIPv4:
		h, err := wire.ParseIPv4(whole)
		if err != nil {
			return quotedPacket{}, false
		}
		return quotedPacket{b, int(h.TotalLen), h.Source, h.Destination, h.Proto, h.HeaderLen, h.FragOffset != 0}, true
	case wire.TypeIPv6:
		h, err := wire.ParseIPv6(whole)
		if err != nil {
			return quotedPacket{}, false
		}
		u, err := h.Walk(whole)
		if err != nil {
			return quotedPacket{}, false
		}
		return quotedPacket{b, wire.IPv6Len + int(h.PayloadLen), h.Source, h.Destination, u.Proto, u.Offset, u.LaterFragment}, true
	}
	return quotedPacket{}, false
}

// mayBeToldOf holds back errors about errors, and such as the guest could not tell what they are about
// (RFC 1122 section 3.2.2, RFC 4443 section 2.4): eight bytes of the upper layer are wanted, or all.
func (p quotedPacket) mayBeToldOf() bool {
	if p.later || p.l4 > maxQuote || len(p.bytes) < min(p.l4+8, p.length) {
		return false
	}
	kind := byte(0)
	if p.length > p.l4 {
		kind = p.bytes[p.l4]
	}
	switch {
	case p.src.Is4() && p.proto == wire.ProtoICMP:
		return slices.Contains([]byte{wire.ICMPEchoReply, wire.ICMPEchoRequest, wire.ICMPTimestamp, wire.ICMPTimestampReply}, kind)
	case p.src.Is6() && p.proto == wire.ProtoICMPv6:
		return kind >= wire.ICMPv6FirstNotAnErr && !wire.IsND(kind)
	}
	return true
}

// errorFrame is what the guest's router says to it: the same that it says of packets that it drops itself.
func errorFrame(port table.Port, p quotedPacket, what meaning) ([]byte, bool) {
	gateway, kind := port.Gateway4, uint16(wire.TypeIPv4)
	if p.src.Is6() {
		gateway, kind = port.Gateway6, wire.TypeIPv6
	}
	if !gateway.IsValid() {
		return nil, false
	}
	frame := make([]byte, wire.EthernetLen)
	written(wire.Ethernet{Dst: port.MAC, Src: model.RouterMAC(port.VSID), Type: kind}.Encode(frame))
	return append(frame, errorFrom(gateway, p, what)...), true
}

// errorFrom is the IP packet with what is said to the sender of p.
func errorFrom(by netip.Addr, p quotedPacket, what meaning) []byte {
	quote := p.bytes[:min(len(p.bytes), p.length, maxQuote)&^3]
	ipLen := wire.IPv4Len
	if p.src.Is6() {
		ipLen = wire.IPv6Len
	}
	packet := make([]byte, ipLen+wire.ICMPLen+len(quote))
	message := packet[ipLen:]
	written(what.head(p.src.Is6()).Encode(message))
	copy(message[wire.ICMPLen:], quote)
	if p.src.Is6() {
		ip := wire.IPv6{Next: wire.ProtoICMPv6, HopLimit: 64, PayloadLen: uint16(len(message)), Source: by, Destination: p.src}
		written(ip.Encode(packet))
		written(wire.SealICMPv6(ip, message))
		return packet
	}
	ip := wire.IPv4{HeaderLen: wire.IPv4Len, TTL: 64, Proto: wire.ProtoICMP, TotalLen: uint16(len(packet)), Source: by, Destination: p.src}
	written(ip.Encode(packet))
	written(wire.SealIPv4(packet[:wire.IPv4Len]))
	written(wire.SealICMP(message))
	return packet
}

func (m meaning) head(six bool) wire.ICMP {
	const host4, prohibited4, address6, prohibited6 = 1, 13, 3, 1
	switch {
	case six && m.mtu != 0:
		return wire.ICMP{Type: wire.ICMPv6PacketTooBig, Rest: uint32(m.limit)}
	case six && m.forbidden:
		return wire.ICMP{Type: wire.ICMPv6Unreachable, Code: prohibited6}
	case six:
		return wire.ICMP{Type: wire.ICMPv6Unreachable, Code: address6}
	case m.mtu != 0:
		return wire.ICMP{Type: wire.ICMPUnreachable, Code: wire.ICMPCodeFragNeeded, Rest: uint32(m.limit)}
	case m.forbidden:
		return wire.ICMP{Type: wire.ICMPUnreachable, Code: prohibited4}
	}
	return wire.ICMP{Type: wire.ICMPUnreachable, Code: host4}
}
