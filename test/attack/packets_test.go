package attack

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/wire"
	"github.com/weft-sdn/weft/test/stream"
)

// The packets that no tool sends. They are written once, and sent as they are.

const (
	protoGRE = wire.ProtoGRE
	protoUDP = wire.ProtoUDP
)

var (
	aliceMAC = model.MAC{2, 0, 0, 0, 0, 5}
	bobMAC   = model.MAC{2, 0, 0, 0, 0, 6}
	evilMAC  = model.MAC{2, 0, 0, 0, 0, 0x66}
	everyone = model.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

	alice6, evil6, bob6 = addr("fd00:a::5"), addr("fd00:a::66"), addr("fd00:a::6")
	evil4               = addr("10.0.0.66")
)

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func frame(dst, src model.MAC, etherType uint16, payload []byte) []byte {
	b := make([]byte, wire.EthernetLen)
	must(wire.Ethernet{Dst: dst, Src: src, Type: etherType}.Encode(b))
	return append(b, payload...)
}

func v4(h wire.IPv4, payload []byte) []byte {
	h.HeaderLen, h.TotalLen, h.TTL = wire.IPv4Len, uint16(wire.IPv4Len+len(payload)), 64
	b := make([]byte, wire.IPv4Len)
	must(h.Encode(b))
	must(wire.SealIPv4(b))
	return append(b, payload...)
}

func v6(h wire.IPv6, payload []byte) []byte {
	h.PayloadLen = uint16(len(payload))
	b := make([]byte, wire.IPv6Len)
	must(h.Encode(b))
	return append(b, payload...)
}

func datagram(from, to uint16, data int) []byte {
	b := make([]byte, 8+data)
	must(wire.Ports{Source: from, Destination: to}.Encode(b))
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	return b
}

// ipFrame is a frame of evil's to the router.
func ipFrame(src, dst netip.Addr, proto uint8, payload []byte) []byte {
	return frame(model.RouterMAC(5001), evilMAC, wire.TypeIPv4, v4(wire.IPv4{Proto: proto, Source: src, Destination: dst}, payload))
}

func fromEvil(dst netip.Addr, proto uint8, payload []byte) []byte {
	return ipFrame(evil4, dst, proto, payload)
}

func advertOf(target netip.Addr) []byte {
	n := wire.Neighbour{Type: wire.ICMPv6NeighbourAdv, Override: true, Target: target, MAC: evilMAC, HasMAC: true}
	h := wire.IPv6{Next: wire.ProtoICMPv6, HopLimit: 255, Source: evil6, Destination: alice6}
	b := make([]byte, n.Len())
	must(n.Encode(b))
	must(wire.SealICMPv6(h, b))
	return frame(aliceMAC, evilMAC, wire.TypeIPv6, v6(h, b))
}

// announce is gratuitous ARP.
func announce(a netip.Addr) []byte {
	b := make([]byte, wire.ARPLen)
	must(wire.ARP{Op: wire.ARPReply, SenderMAC: evilMAC, Sender: a, TargetMAC: everyone, TargetAddr: a}.Encode(b))
	return frame(everyone, evilMAC, wire.TypeARP, b)
}

// redirect4 is an ICMP message of a router to alice, or to all when nobody in particular sends it.
func redirect4(kind uint8) []byte {
	b := make([]byte, 36)
	must(wire.ICMP{Type: kind}.Encode(b))
	must(wire.SealICMP(b))
	src, dst, mac := evil4, addr("10.0.0.5"), aliceMAC
	if kind == 9 {
		src, dst, mac = addr("0.0.0.0"), addr("255.255.255.255"), everyone
	}
	return frame(mac, evilMAC, wire.TypeIPv4, v4(wire.IPv4{Proto: wire.ProtoICMP, Source: src, Destination: dst}, b))
}

// dhcp6Behind is DHCPv6's reply behind two extension headers.
func dhcp6Behind() []byte {
	d := datagram(547, 546, 40)
	d[8] = 7
	chain := append([]byte{wire.ProtoDestOpts, 0, 1, 4, 0, 0, 0, 0, wire.ProtoUDP, 0, 1, 4, 0, 0, 0, 0}, d...)
	return frame(aliceMAC, evilMAC, wire.TypeIPv6, v6(wire.IPv6{Next: wire.ProtoHopByHop, HopLimit: 64, Source: evil6, Destination: alice6}, chain))
}

// solicit6 is what a DHCPv6 client asks all servers (RFC 8415 sections 16.2, 21.2, 21.4, 21.9).
func solicit6() []byte {
	options := []byte{0, 1, 0, 10, 0, 3, 0, 1, 2, 0, 0, 0, 0, 5, 0, 8, 0, 2, 0, 0, 0, 3, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0}
	d := append(datagram(546, 547, 4), options...)
	copy(d[8:], []byte{1, 0xab, 0xcd, 0xef})
	binary.BigEndian.PutUint16(d[4:], uint16(len(d)))
	h := wire.IPv6{Next: wire.ProtoUDP, HopLimit: 1, Source: addr("fe80::ff:fe00:5"), Destination: addr("ff02::1:2")}
	binary.BigEndian.PutUint16(d[6:], wire.Checksum(d, wire.PseudoHeader(h.Source, h.Destination, wire.ProtoUDP, len(d))))
	return frame(model.MAC{0x33, 0x33, 0, 1, 0, 2}, aliceMAC, wire.TypeIPv6, v6(h, d))
}

func doubleTagged() []byte {
	inner := fromEvil(addr("10.0.0.5"), protoUDP, datagram(4000, 53, 8))
	tags := []byte{0x81, 0, 0, 0, 0x81, 0, 0, 7}
	return append(append(append([]byte{}, inner[:12]...), tags...), inner[12:]...)
}

// bobSays is a frame of bob's to alice.
func bobSays(model.VSID) []byte {
	return frame(aliceMAC, bobMAC, wire.TypeIPv4, v4(wire.IPv4{Proto: protoUDP, Source: addr("10.0.0.6"), Destination: addr("10.0.0.5")}, datagram(4000, 53, 8)))
}

func nvgre(vsid model.VSID, inner []byte) []byte {
	b := make([]byte, wire.NVGRELen)
	must(wire.NVGRE{VSID: vsid, FlowID: 1}.Encode(b))
	return append(b, inner...)
}

// vxlan is a whole datagram.
func vxlan(vsid model.VSID, inner []byte) []byte {
	b := make([]byte, wire.VXLANLen)
	must(wire.VXLAN{VSID: vsid}.Encode(b))
	d := append(datagram(50000, 4789, 0), append(b, inner...)...)
	binary.BigEndian.PutUint16(d[4:], uint16(len(d)))
	return d
}

// part4 is a fragment to alice; its offset is in units of 8 bytes.
func part4(offset uint16, more bool, payload []byte) []byte {
	return frame(aliceMAC, evilMAC, wire.TypeIPv4, v4(wire.IPv4{ID: 7, FragOffset: offset, MoreFrags: more, Proto: protoUDP, Source: evil4, Destination: addr("10.0.0.5")}, payload))
}

func part6(next uint8, word uint16, payload []byte) []byte {
	b := append([]byte{next, 0, byte(word >> 8), byte(word), 0, 0, 0, 9}, payload...)
	return frame(aliceMAC, evilMAC, wire.TypeIPv6, v6(wire.IPv6{Next: wire.ProtoFragment, HopLimit: 64, Source: evil6, Destination: alice6}, b))
}

// overlapping6 shows harmless ports behind options, and overwrites them.
func overlapping6() [][]byte {
	options := []byte{protoUDP, 0, 1, 4, 0, 0, 0, 0}
	return [][]byte{
		part6(wire.ProtoDestOpts, 1, append(options, datagram(4000, 53, 8)...)),
		part6(wire.ProtoDestOpts, 8, datagram(547, 546, 8)),
	}
}

func chained6(n int) []byte {
	var chain []byte
	for range n - 1 {
		chain = append(chain, wire.ProtoDestOpts, 0, 1, 4, 0, 0, 0, 0)
	}
	chain = append(append(chain, protoUDP, 0, 1, 4, 0, 0, 0, 0), datagram(4000, 53, 8)...)
	return frame(aliceMAC, evilMAC, wire.TypeIPv6, v6(wire.IPv6{Next: wire.ProtoDestOpts, HopLimit: 64, Source: evil6, Destination: bob6}, chain))
}

// repeat sends frames from a guest again and again until it is stopped; from a host, what GRE carries to h1, or "/udp" what
// UDP carries to the port of VXLAN.
func (f *field) repeat(where string, frames [][]byte, pace time.Duration) (stop func()) {
	f.T.Helper()
	host, how, _ := strings.Cut(where, "/")
	guest := how != "" && how != "udp"
	space, send := f.Space(where), (func([]byte) error)(nil)
	if !guest {
		space = f.Space(host)
	}
	var fd int
	err := stream.In(space, func() (err error) {
		switch {
		case guest:
			fd, send, err = packetSocket()
		case how == "udp":
			fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			send = sendTo(fd, f.address("h1"), 4789)
		default:
			fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protoGRE)
			send = sendTo(fd, f.address("h1"), 0)
		}
		return err
	})
	if err != nil {
		f.T.Fatalf("%s: %v", where, err)
	}
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for {
			for _, b := range frames {
				select {
				case <-quit:
					return
				case <-tick.C:
				}
				if err := send(b); err != nil && err != unix.ENOBUFS {
					f.T.Errorf("%s: %v", where, err)
					return
				}
			}
		}
	}()
	return func() { close(quit); <-done; unix.Close(fd) }
}

func sendTo(fd int, a netip.Addr, port int) func([]byte) error {
	return func(b []byte) error { return unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: a.As4(), Port: port}) }
}

func packetSocket() (int, func([]byte) error, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, err
	}
	dev, err := net.InterfaceByName("eth0")
	if err != nil {
		return 0, nil, err
	}
	return fd, func(b []byte) error { return unix.Sendto(fd, b, 0, &unix.SockaddrLinklayer{Ifindex: dev.Index}) }, nil
}
