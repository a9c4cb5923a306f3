package packet

import (
	"bytes"
	"math/rand/v2"
	"net/netip"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// writer writes random packets for a world: flows that mostly go through, and then
// everything that can be done to them.
type writer struct {
	*rand.Rand
	*world
	live bool // for devices, which take frames that a test run does not, and give them no gso_size
}

// maxFrame keeps frames within what a test run of a program takes, in bytes.
const maxFrame = 3000

func (w writer) packet() packetIn {
	var in packetIn
	switch n := w.IntN(100); {
	case len(w.world.ports) == 0 || n < 1:
		in = packetIn{program: datapath.FromPort, ifindex: w.unknown, frame: w.garbage()}
	case n < 2:
		in = packetIn{program: datapath.ToPort, ifindex: pick(w.Rand, w.site.ports[:]), frame: w.garbage()}
	case n < 60:
		p := pick(w.Rand, w.world.ports)
		in = packetIn{program: datapath.FromPort, ifindex: p.IfIndex, frame: w.outbound(p)}
		if chance(w.Rand, 2) {
			in.ifindex = pick(w.Rand, w.site.ports[:])
		}
		if !w.live && canBeCut(in.frame) && chance(w.Rand, 30) {
			in.gsoSize = pick(w.Rand, []uint16{1, 100, 500, 1200, 1398, 1410, 1418, 1426, 1430, 1438, 1460, 8000, 65535})
		}
	default:
		in = packetIn{program: datapath.FromUplink, ifindex: pick(w.Rand, w.uplinks[:])}
		in.frame = w.inbound(in.ifindex)
		if !w.live && !summed(in.frame) && !fragment6(in.frame) && chance(w.Rand, 2) {
			in.frame, in.gsoSize = untrailed(in.frame), 1+uint16(w.IntN(1500)) // nothing trails what GRO made
		}
	}
	if len(in.frame) > maxFrame {
		in.frame = in.frame[:maxFrame]
	}
	switch {
	case w.live || !refusedByTestRun(in.frame):
	case in.program == datapath.FromPort:
		in.frame = tagged(in.frame, wire.TypeVLAN, 0)
	default:
		in.frame = append(in.frame, zeros(wire.IPv6Len)...)
	}
	return in
}

// canBeCut tells whether the kernel could ever hand the frame over as one to be cut: TCP or
// UDP with a whole header, and not a fragment.
func canBeCut(f []byte) bool {
	if len(f) < 14+40+20 {
		return false
	}
	proto := f[14+9]
	if f[12] == 0x86 {
		proto = f[14+6]
	} else if f[14] != 0x45 || f[20]&0x3f != 0 || f[21] != 0 {
		return false
	}
	return proto == wire.ProtoTCP || proto == wire.ProtoUDP
}

// refusedByTestRun tells whether a test run refuses the frame before the program sees it: the
// kernel (bpf_prog_test_run_skb) wants a whole IP header behind an IP EtherType. A
// priority tag in front gets a cut packet past that; TestCutFramesOnADevice sends them as they are.
func refusedByTestRun(f []byte) bool {
	switch etherType := uint16(f[12])<<8 | uint16(f[13]); etherType {
	case wire.TypeIPv4:
		return len(f) < wire.EthernetLen+wire.IPv4Len
	case wire.TypeIPv6:
		return len(f) < wire.EthernetLen+wire.IPv6Len
	}
	return false
}

// garbage is bytes that look like a frame for as long as they like.
func (w writer) garbage() []byte {
	b := make([]byte, wire.EthernetLen+w.IntN(120))
	for i := range b {
		b[i] = byte(w.Uint32())
	}
	t := pick(w.Rand, []uint16{wire.TypeIPv4, wire.TypeIPv6, wire.TypeARP, wire.TypeVLAN, 0x1234})
	b[12], b[13] = byte(t>>8), byte(t)
	return b
}

// outbound is a frame of the guest behind p.
func (w writer) outbound(p table.Port) []byte {
	if chance(w.Rand, 1) {
		return w.garbage()
	}
	src := w.source(p)
	dst := w.destination(p, src.Is4())
	mac := p.MAC
	if chance(w.Rand, 3) {
		mac = newMAC(w.Rand)
	}
	if chance(w.Rand, 1) { // a DHCP client
		src, dst = special4[0], broadcast
	}
	f := w.frame(w.anyMAC(p.VSID), mac, p.VSID, src, dst, w.size())
	if src.Is4() && chance(w.Rand, 4) {
		f = w.lease(p.VSID, mac, src, dst)
	}
	if p.Flood && chance(w.Rand, 25) {
		f = w.toMany(mac, src)
	}
	switch n := w.IntN(100); {
	case n < 3:
		f = tagged(f, wire.TypeVLAN, uint16(w.IntN(8))<<13)
	case n < 4:
		f = tagged(f, pick(w.Rand, []uint16{wire.TypeVLAN, wire.TypeQinQ}), uint16(w.IntN(3)))
	case n < 5:
		f = tagged(tagged(f, wire.TypeVLAN, 0), pick(w.Rand, []uint16{wire.TypeVLAN, wire.TypeQinQ}), 0)
	}
	return w.mutate(f, 25)
}

// lease is what a DHCP server says to a client, or a client to its server.
func (w writer) lease(vsid model.VSID, mac model.MAC, src, dst netip.Addr) []byte {
	to := w.anyMAC(vsid)
	for _, s := range w.subnets {
		if s.vsid == vsid && len(s.l2only) > 0 && chance(w.Rand, 90) {
			to = pick(w.Rand, s.l2only)
		}
	}
	if chance(w.Rand, 60) {
		dst = addr("10.0.0.99")
	}
	ports := pick(w.Rand, [][2]uint16{{67, 68}, {67, 68}, {67, 68}, {68, 67}, {67, 67}, {68, 68}})
	return ipFrame(to, mac, v4(wire.IPv4{TTL: w.ttl(), Proto: wire.ProtoUDP, Source: src, Destination: dst}, nil, udp(ports[0], ports[1], w.IntN(400))))
}

// inbound is a frame of the underlay, received by the uplink.
func (w writer) inbound(uplink uint32) []byte {
	if chance(w.Rand, 2) {
		return w.mutate(frame(w.macs[uplink], everyone, wire.TypeIPv4, w.garbage()), 50)
	}
	if len(w.set.RewriteIn) > 0 && chance(w.Rand, 40) {
		return w.rewritten(uplink)
	}
	p := pick(w.Rand, w.world.ports)
	from, pa := w.sender(p)
	mac, vsid := from.mac, p.VSID
	if chance(w.Rand, 3) {
		mac = model.RouterMAC(vsid)
	}
	if chance(w.Rand, 2) {
		vsid = pick(w.Rand, w.subnets).vsid
	}
	if chance(w.Rand, 1) {
		vsid = pick(w.Rand, []model.VSID{0, 4095, 0xffffff})
	}
	dstMAC := p.MAC
	if chance(w.Rand, 3) {
		dstMAC = newMAC(w.Rand)
	}
	dst := w.addressOf(p, from.ca.Is4())
	inner := w.frame(dstMAC, mac, vsid, from.ca, dst, w.IntN(200))
	if p.Flood && chance(w.Rand, 30) {
		inner = w.toMany(mac, from.ca)
	}
	switch n := w.IntN(100); {
	case n < 15:
		inner = w.mutate(inner, 100)
	case n < 16:
		inner = tagged(inner, pick(w.Rand, []uint16{wire.TypeVLAN, wire.TypeQinQ}), uint16(w.IntN(3)))
	}
	t := tunnel{transport: w.transportOf(vsid), from: pa, to: w.localOf(pa), vsid: vsid, hash: w.Uint32(), tos: byte(w.Uint32()), sum: chance(w.Rand, 25)}
	outerDst := w.macs[uplink]
	if chance(w.Rand, 2) {
		outerDst = pick(w.Rand, []model.MAC{everyone, newMAC(w.Rand)})
	}
	if chance(w.Rand, 6) {
		t.to = groupPAs[0]
		if t.from.Is6() {
			t.to = groupPAs[1]
		}
		if chance(w.Rand, 80) {
			outerDst = pick(w.Rand, []model.MAC{{1, 0, 0x5e, 1, 2, 3}, {0x33, 0x33, 0, 1, 0, 2}, everyone})
		}
	}
	f := t.around(outerDst, uplinkNextHop, inner)
	if t.transport == model.VXLAN {
		w.toFleetPort(t, f)
	}
	if chance(w.Rand, 10) {
		f = append(f, zeros(w.IntN(30))...)
	}
	return w.mutateOuter(t, f)
}

// transportOf is mostly that of the subnet; to one that rewrites, others tunnel.
func (w writer) transportOf(vsid model.VSID) model.TransportID {
	for _, s := range w.subnets {
		if s.vsid == vsid && s.transport != model.Rewrite && !chance(w.Rand, 5) {
			return s.transport
		}
	}
	return model.TransportID(w.IntN(2))
}

// localOf is a PA of this host, mostly, of the family of pa.
func (w writer) localOf(pa netip.Addr) netip.Addr {
	of := localPAs4
	if pa.Is6() {
		of = localPAs6
	}
	if chance(w.Rand, 10) {
		return of[1]
	}
	return of[0]
}

// toFleetPort sends the datagram in f to the fleet's port, and seals it again.
func (w writer) toFleetPort(t tunnel, f []byte) {
	datagram := f[14+t.ipLen():]
	port := w.set.Settings.VXLANPort
	if chance(w.Rand, 2) {
		port = uint16(w.Uint32())
	}
	datagram[2], datagram[3] = byte(port>>8), byte(port)
	if t.sum && !chance(w.Rand, 10) {
		sealUDP(datagram, t.from, t.to)
	}
}

// sender is a member that may send to p from the underlay, and the PA that it uses.
func (w writer) sender(p table.Port) (member, netip.Addr) {
	var near, far []member
	for _, s := range w.subnets {
		for _, m := range s.members {
			switch {
			case !m.pa.IsValid():
			case s.vsid == p.VSID:
				near = append(near, m)
			case s.network == p.Network:
				m.mac = model.RouterMAC(p.VSID)
				far = append(far, m)
			}
		}
		for _, g := range s.gateways {
			g.ca = w.outsider()
			switch {
			case !g.pa.IsValid():
			case s.vsid == p.VSID:
				near = append(near, g)
			case s.network == p.Network:
				g.mac = model.RouterMAC(p.VSID)
				far = append(far, g)
			}
		}
	}
	m := member{ca: w.anyAddress(), mac: newMAC(w.Rand), pa: pick(w.Rand, w.remotePAs)}
	if len(w.forwarders) > 0 && chance(w.Rand, 15) {
		f := pick(w.Rand, w.forwarders)
		f.ca = w.anyAddress()
		if chance(w.Rand, 40) {
			f.mac = model.RouterMAC(p.VSID)
		}
		return f, f.pa
	}
	n := w.IntN(100)
	switch {
	case n < 65 && len(near) > 0:
		m = pick(w.Rand, near)
	case n < 92 && len(far) > 0:
		m = pick(w.Rand, far)
	}
	if chance(w.Rand, 3) {
		return m, pick(w.Rand, w.remotePAs)
	}
	return m, m.pa
}

// own lists the port's addresses, of one family.
func (w writer) own(p table.Port, is4 bool) []netip.Addr {
	var own []netip.Addr
	for _, s := range w.subnets {
		for _, m := range s.members {
			if m.dev == p.IfIndex && s.vsid == p.VSID && m.ca.Is4() == is4 {
				own = append(own, m.ca)
			}
		}
	}
	return own
}

// addressOf is an address of the port, or any.
func (w writer) addressOf(p table.Port, is4 bool) netip.Addr {
	own := w.own(p, is4)
	if len(own) == 0 {
		return w.anyAddressOf(is4)
	}
	return pick(w.Rand, own)
}

// source is an address that the port may mostly use.
func (w writer) source(p table.Port) netip.Addr {
	own := append(w.own(p, true), w.own(p, false)...)
	for _, s := range w.subnets {
		for _, g := range s.gateways {
			if g.dev == p.IfIndex && s.vsid == p.VSID && chance(w.Rand, 40) {
				return w.outsider()
			}
		}
	}
	if len(own) == 0 || chance(w.Rand, 4) || p.Forward && chance(w.Rand, 50) {
		return w.anyAddress()
	}
	return pick(w.Rand, own)
}

var broadcast = addr("255.255.255.255")

var special4 = []netip.Addr{addr("0.0.0.0"), broadcast, addr("224.0.0.1"), addr("239.255.255.255"), addr("127.0.0.1"),
	addr("0.0.0.9"), addr("240.0.0.3"), addr("223.255.255.255"), addr("1.0.0.0"), addr("128.0.0.0"), addr("169.254.1.1")}

var special6 = []netip.Addr{addr("::"), addr("::1"), addr("ff02::1"), addr("ff02::1:ff00:5"), addr("ff0e::1"), addr("fe80::1"), addr("febf::1"),
	addr("fec0::1"), addr("::2"), addr("::fffe:a00:5"), addr("::ffff:10.0.0.5"), addr("::10.0.0.5"), addr("64:ff9b::a00:5")}

// anyAddressOf is a member's, a gateway's, a stranger's or a special address.
func (w writer) anyAddressOf(is4 bool) netip.Addr {
	sub := pick(w.Rand, w.subnets)
	pool, special, gw := pool4, special4, sub.gw4
	if !is4 {
		pool, special, gw = pool6, special6, sub.gw6
	}
	switch n := w.IntN(100); {
	case n < 40 && len(sub.members) > 0:
		if m := pick(w.Rand, sub.members); m.ca.Is4() == is4 {
			return m.ca
		}
	case n < 55 && gw.IsValid():
		return gw
	case n < 80:
		return pick(w.Rand, special)
	}
	return host(pick(w.Rand, pool), w.Uint32N(64))
}

// outsider is mostly an address that no record has.
func (w writer) outsider() netip.Addr {
	if chance(w.Rand, 40) {
		return w.anyAddress()
	}
	return pick(w.Rand, []netip.Addr{addr("203.0.113.9"), addr("10.0.0.250"), addr("2001:db8:ffff::9"), addr("fd00:0:0:1::fa")})
}

func (w writer) anyAddress() netip.Addr { return w.anyAddressOf(chance(w.Rand, 50)) }

// destination is a neighbour, the same network, a gateway or anything.
func (w writer) destination(p table.Port, is4 bool) netip.Addr {
	var near, net []netip.Addr
	for _, s := range w.subnets {
		if s.network != p.Network {
			continue
		}
		for _, m := range s.members {
			if m.ca.Is4() != is4 || m.dev == p.IfIndex && chance(w.Rand, 95) {
				continue
			}
			if s.vsid == p.VSID {
				near = append(near, m.ca)
			}
			net = append(net, m.ca)
		}
		for _, gw := range []netip.Addr{s.gw4, s.gw6} {
			if gw.IsValid() && gw.Is4() == is4 && chance(w.Rand, 30) {
				net = append(net, gw)
			}
		}
	}
	switch n := w.IntN(100); {
	case n < 50 && len(near) > 0:
		return pick(w.Rand, near)
	case n < 85 && len(net) > 0:
		return pick(w.Rand, net)
	}
	return w.anyAddressOf(is4)
}

// toMany is a frame that a subnet may flood.
func (w writer) toMany(mac model.MAC, src netip.Addr) []byte {
	if chance(w.Rand, 15) { // no address yet, or a link-local one
		src = pick(w.Rand, []netip.Addr{special4[0], special6[0], addr("fe80::7"), addr("169.254.0.7")})
	}
	group := pick(w.Rand, []model.MAC{everyone, everyone, {1, 0, 0x5e, 0, 0, 1}, {0x33, 0x33, 0, 0, 0, 1}})
	if src.Is4() {
		switch w.IntN(5) {
		case 0:
			return frame(group, mac, wire.TypeARP, arp(uint16(1+w.IntN(2)), mac, src, model.MAC{}, src))
		case 1:
			return frame(group, mac, wire.TypeARP, arp(uint16(1+w.IntN(2)), mac, src, model.MAC{}, w.anyAddressOf(true)))
		case 2:
			return ipFrame(group, mac, v4(wire.IPv4{TTL: w.ttl(), Proto: wire.ProtoUDP, Source: src, Destination: broadcast}, nil,
				udp(uint16(67+w.IntN(2)), uint16(66+w.IntN(3)), w.size())))
		}
		if chance(w.Rand, 20) {
			report := append([]byte{pick(w.Rand, []byte{0x11, 0x12, 0x16, 0x17, 0x22, 0x23})}, zeros(pick(w.Rand, []int{6, 7, 15}))...)
			return ipFrame(group, mac, v4(wire.IPv4{TTL: 1, Proto: 2, Source: src, Destination: addr("224.0.0.22"), MoreFrags: chance(w.Rand, 10)}, []byte{0x94, 4, 0, 0}, report))
		}
		dst := pick(w.Rand, append([]netip.Addr{broadcast, addr("224.0.0.1"), w.anyAddressOf(true)}, customerGroups[:3]...))
		return frame(group, mac, wire.TypeIPv4, w.v4(src, dst, w.size()))
	}
	switch w.IntN(4) {
	case 0:
		n := wire.Neighbour{Type: wire.ICMPv6NeighbourAdv, Override: true, Target: src, MAC: mac, HasMAC: true}
		return ipFrame(group, mac, neighbour(src, addr("ff02::1"), n))
	case 1:
		target := w.anyAddressOf(false)
		return ipFrame(group, mac, neighbour(src, addr("ff02::1:ff00:5"), wire.Neighbour{Type: wire.ICMPv6NeighbourSol, Target: target, MAC: mac, HasMAC: !src.IsUnspecified()}))
	}
	if chance(w.Rand, 20) {
		kind := pick(w.Rand, []uint8{130, 131, 132, 143})
		return ipFrame(group, mac, icmp6(wire.IPv6{HopLimit: 1, Source: src, Destination: addr("ff02::16")}, kind, 0, 0, zeros(w.IntN(40))))
	}
	dst := pick(w.Rand, append([]netip.Addr{addr("ff02::1"), addr("ff02::12"), addr("ff05::2")}, customerGroups[3:]...))
	return frame(group, mac, wire.TypeIPv6, w.v6(src, dst, w.size()))
}

func (w writer) anyMAC(vsid model.VSID) model.MAC {
	switch n := w.IntN(100); {
	case n < 50:
		return newMAC(w.Rand)
	case n < 75:
		return model.RouterMAC(vsid)
	case n < 90:
		return everyone
	}
	return model.MAC{0x33, 0x33, 0xff, 0, 0, byte(w.Uint32())}
}

// size of a payload: mostly small, sometimes around a limit.
func (w writer) size() int {
	if chance(w.Rand, 85) {
		return w.IntN(160)
	}
	limit := int(pick(w.Rand, []uint16{1458, 1500, 1280, 576, 558, 108, 100, 20}))
	return max(0, limit-28-20*w.IntN(2)+w.IntN(5)-2)
}

func (w writer) ttl() uint8 {
	if chance(w.Rand, 80) {
		return 64
	}
	return pick(w.Rand, []uint8{0, 1, 2, 255})
}

// frame is a frame from src to dst, of any protocol.
func (w writer) frame(dstMAC, srcMAC model.MAC, vsid model.VSID, src, dst netip.Addr, n int) []byte {
	if src.Is4() != dst.Is4() {
		dst = src
	}
	switch {
	case src.Is4() && chance(w.Rand, 20):
		f := frame(dstMAC, srcMAC, wire.TypeARP, w.arp(srcMAC, src, dst))
		if chance(w.Rand, 30) {
			f = append(f, zeros(min(n, 1600))...)
		}
		return f
	case chance(w.Rand, 6):
		return ipFrame(dstMAC, srcMAC, w.complaint(src, dst, src))
	case src.Is4():
		return frame(dstMAC, srcMAC, wire.TypeIPv4, w.v4(src, dst, n))
	case chance(w.Rand, 30):
		return frame(dstMAC, srcMAC, wire.TypeIPv6, w.nd(srcMAC, src, dst))
	}
	return frame(dstMAC, srcMAC, wire.TypeIPv6, w.v6(src, dst, n))
}

func (w writer) arp(srcMAC model.MAC, src, dst netip.Addr) []byte {
	op := uint16(wire.ARPRequest)
	if chance(w.Rand, 30) {
		op = wire.ARPReply
	}
	senderMAC := srcMAC
	if chance(w.Rand, 3) {
		senderMAC = newMAC(w.Rand)
	}
	if chance(w.Rand, 5) {
		src = pick(w.Rand, []netip.Addr{addr("0.0.0.0"), dst})
	}
	return arp(op, senderMAC, src, newMAC(w.Rand), dst)
}

func (w writer) v4(src, dst netip.Addr, n int) []byte {
	h := wire.IPv4{TOS: byte(w.Uint32()), ID: uint16(w.Uint32()), DontFrag: chance(w.Rand, 50), TTL: w.ttl(), Source: src, Destination: dst}
	switch w.IntN(12) {
	case 0:
		h.MoreFrags = true
	case 1:
		h.FragOffset = uint16(w.IntN(0x2000))
	}
	var options []byte
	if chance(w.Rand, 8) {
		options = bytes.Repeat([]byte{1}, 4*(1+w.IntN(10)))
	}
	var payload []byte
	h.Proto, payload = w.upper(wire.ProtoICMP, n)
	if h.MoreFrags {
		payload = w.part(payload)
	}
	return v4(h, options, payload)
}

// part makes a payload one of whole 8 bytes, as all parts of a packet but the last are; mostly.
func (w writer) part(payload []byte) []byte {
	if chance(w.Rand, 10) {
		return payload
	}
	return join(payload, zeros(8-len(payload)%8))
}

// datagram is UDP; some of it is DHCP, of either family and kind.
func (w writer) datagram(n int) []byte {
	if !chance(w.Rand, 10) {
		return udp(uint16(w.Uint32()), uint16(w.Uint32()), n)
	}
	port := func() uint16 { return pick(w.Rand, []uint16{67, 67, 68, 546, 547, 547, uint16(w.Uint32())}) }
	d := udp(port(), port(), 1+n)
	d[8] = byte(w.IntN(14))
	return d
}

// upper is what IP carries; icmpProto is the family's ICMP.
func (w writer) upper(icmpProto uint8, n int) (uint8, []byte) {
	var payload []byte
	proto := icmpProto
	switch k := w.IntN(100); {
	case k < 35:
		proto, payload = wire.ProtoUDP, w.datagram(n)
	case k < 60:
		header := zeros(4 * (5 + w.IntN(11)))
		must(wire.Ports{Source: uint16(w.Uint32()), Destination: uint16(w.Uint32())}.Encode(header))
		header[12] = byte(len(header)/4)<<4 | byte(w.IntN(16))
		header[16], header[17] = byte(w.Uint32()), byte(w.Uint32())
		w.tcpOptions(header[20:])
		proto, payload = wire.ProtoTCP, join(header, zeros(n))
	case k < 80:
		kind := uint8(wire.ICMPEchoRequest)
		if proto == wire.ProtoICMPv6 {
			kind = wire.ICMPv6EchoRequest
		}
		payload = icmp(kind, 0, w.Uint32(), zeros(n))
		if chance(w.Rand, 10) {
			payload = payload[:4+w.IntN(5)]
		}
	case k < 92:
		kind := pick(w.Rand, []uint8{0, 3, 5, 5, 8, 9, 9, 11, 12, 13, 14, 1, 2, 4, 127, 128, 129, 130, 132, 138, 143})
		payload = icmp(kind, uint8(w.IntN(3)), w.Uint32(), zeros(n))
	default:
		proto, payload = pick(w.Rand, []uint8{wire.ProtoICMP, wire.ProtoICMPv6, wire.ProtoGRE, wire.ProtoESP, wire.ProtoNoNext, 132, 253, 255}), zeros(n)
	}
	if chance(w.Rand, 6) {
		payload = payload[:w.IntN(min(len(payload), 12)+1)] // ends in or just after a header
	}
	return proto, payload
}

// tcpOptions fills what is behind a TCP header, mostly with what stacks send.
func (w writer) tcpOptions(b []byte) {
	if chance(w.Rand, 20) {
		return
	}
	for len(b) > 0 {
		mss := byte(w.Uint32())
		option := pick(w.Rand, [][]byte{{1}, {1}, {2, 4, mss % 6 << 2, mss}, {2, 4, 0x23, 0x28}, {3, 3, 7}, {4, 2}, {8, 10, 1, 2, 3, 4, 5, 6, 7, 8}, {mss, byte(w.IntN(12))}, {0}})
		b = b[copy(b, option):]
	}
}

func (w writer) v6(src, dst netip.Addr, n int) []byte {
	h := wire.IPv6{Class: byte(w.Uint32()), Flow: w.Uint32() & 0xfffff, HopLimit: w.ttl(), Source: src, Destination: dst}
	proto, payload := w.upper(wire.ProtoICMPv6, n)
	h.Next, payload = w.extensions(proto, payload)
	return v6(h, payload)
}

// extensions puts none, or a few extension headers in front of a payload.
func (w writer) extensions(proto uint8, payload []byte) (uint8, []byte) {
	if chance(w.Rand, 70) {
		return proto, payload
	}
	next := proto
	for range 1 + w.IntN(8)*w.IntN(2) {
		kind := pick(w.Rand, []uint8{wire.ProtoHopByHop, wire.ProtoRouting, wire.ProtoDestOpts, wire.ProtoDestOpts, wire.ProtoFragment})
		header := zeros(8)
		if kind == wire.ProtoFragment {
			if chance(w.Rand, 40) {
				header[3] = byte(w.Uint32()) // more, and a small offset
			} else if chance(w.Rand, 50) {
				header[3] = 1
			}
			if header[3]&1 != 0 {
				payload = w.part(payload)
			}
		} else if chance(w.Rand, 20) {
			header = zeros(8 * (1 + w.IntN(pick(w.Rand, []int{4, 4, 30}))))
			header[1] = byte(len(header)/8 - 1)
		}
		header[0] = next
		next, payload = kind, join(header, payload)
	}
	return next, payload
}

// nd is Neighbour Discovery, mostly as it should be.
func (w writer) nd(srcMAC model.MAC, src, dst netip.Addr) []byte {
	target := dst
	if dst.IsMulticast() {
		target = w.anyAddressOf(false)
	}
	if chance(w.Rand, 20) {
		src = pick(w.Rand, []netip.Addr{addr("::"), addr("fe80::7")})
	}
	if chance(w.Rand, 40) {
		dst = pick(w.Rand, []netip.Addr{addr("ff02::1"), addr("ff02::1:ff00:5"), addr("fe80::8"), dst})
	}
	kind := pick(w.Rand, []uint8{133, 134, 135, 135, 135, 135, 136, 136, 136, 137})
	if kind == 136 && chance(w.Rand, 70) {
		target = src
	}
	h := wire.IPv6{HopLimit: 255, Source: src, Destination: dst}
	if chance(w.Rand, 3) {
		h.HopLimit = w.ttl()
	}
	b := make([]byte, 24)
	switch kind {
	case 133:
		b = make([]byte, 8)
	case 137:
		b = make([]byte, 40)
	}
	a := target.As16()
	b[0] = kind
	b[4] = byte(w.Uint32())
	copy(b[8:], a[:])
	if chance(w.Rand, 2) {
		b[1] = 1
	}
	b = append(b, w.ndOptions(srcMAC)...)
	if chance(w.Rand, 4) {
		b = b[:8+w.IntN(len(b)-7)]
	}
	must(wire.SealICMPv6(h, b))
	h.Next = wire.ProtoICMPv6
	if chance(w.Rand, 5) {
		var payload []byte
		h.Next, payload = w.extensions(wire.ProtoICMPv6, b)
		return v6(h, payload)
	}
	return v6(h, b)
}

func (w writer) ndOptions(srcMAC model.MAC) []byte {
	var out []byte
	for range pick(w.Rand, []int{0, 1, 1, 1, 1, 2, 3, 4, 5}) {
		kind := pick(w.Rand, []byte{1, 2, 14, 1, 2, 5})
		mac := srcMAC
		if chance(w.Rand, 5) {
			mac = newMAC(w.Rand)
		}
		option := join([]byte{kind, 1}, mac[:])
		switch n := w.IntN(100); {
		case n < 3:
			option[1] = byte(w.IntN(5))
		case n < 6:
			option = join([]byte{kind, 2}, mac[:], zeros(8))
		}
		out = append(out, option...)
	}
	return out
}

// mutate does something unkind to the frame, in percent of all cases.
func (w writer) mutate(f []byte, percent int) []byte {
	if !chance(w.Rand, percent) {
		return f
	}
	for range 1 + w.IntN(2) {
		f = w.mutateOnce(f)
	}
	return f
}

func (w writer) mutateOnce(f []byte) []byte {
	if len(f) < wire.EthernetLen+4 {
		return f
	}
	head := min(len(f), 100)
	switch w.IntN(8) {
	case 0: // cut
		return f[:wire.EthernetLen+w.IntN(len(f)-wire.EthernetLen)]
	case 1: // cut close to where headers end
		return f[:min(len(f), pick(w.Rand, []int{14, 15, 17, 18, 33, 34, 41, 42, 53, 54, 57, 58, 61, 62, 77, 78, 93, 94}))]
	case 2: // pad
		return append(f, zeros(w.IntN(50))...)
	case 3: // one bit
		f[w.IntN(head)] ^= 1 << w.IntN(8)
	case 4: // one byte
		f[w.IntN(head)] = byte(w.Uint32())
	case 5: // one edge of a byte
		f[w.IntN(head)] = pick(w.Rand, []byte{0, 1, 0x7f, 0x80, 0xff})
	case 6: // a field of IP: version and length, lengths, flags, TTL, protocol
		f[14+pick(w.Rand, []int{0, 2, 3, 4, 5, 6, 7, 8, 9})%(len(f)-14)] += byte(w.IntN(5) - 2)
	case 7: // the type
		t := pick(w.Rand, []uint16{wire.TypeIPv4, wire.TypeIPv6, wire.TypeARP, wire.TypeVLAN, wire.TypeQinQ, 0x88cc, 100})
		f[12], f[13] = byte(t>>8), byte(t)
	}
	return f
}

// mutateOuter is mutate for the outer headers; the checksums are mostly made right again.
func (w writer) mutateOuter(t tunnel, f []byte) []byte {
	ip, all := t.ipLen(), t.overhead()
	if !chance(w.Rand, 25) || len(f) < all {
		return f
	}
	at := wire.EthernetLen + ip
	switch w.IntN(6) {
	case 0:
		f = f[:wire.EthernetLen+w.IntN(len(f)-wire.EthernetLen)]
	case 1:
		f[12+w.IntN(all-12)] ^= 1 << w.IntN(8)
	case 2:
		f[14+w.IntN(ip)] += byte(w.IntN(5) - 2)
	case 3:
		f[at+w.IntN(all-at)] ^= 1 << w.IntN(8)
	case 4: // flags and fragment offset
		f[20+w.IntN(2)] = byte(w.Uint32())
	case 5: // lengths
		at := 16
		if t.from.Is6() {
			at = 18
		}
		f[at], f[at+1] = byte(w.IntN(2)), byte(w.Uint32())
	}
	if !t.from.Is6() && chance(w.Rand, 75) && len(f) >= 34 {
		must(wire.SealIPv4(f[14:34]))
	}
	return f
}
