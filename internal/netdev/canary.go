package netdev

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/weft-sdn/weft/internal/wire"
)

// Canary is how a host answers datagrams to a port of UDP on which nobody listens: by an
// ICMP error (RFC 1122 section 3.2.2.1), but never when the checksum is wrong, because then
// nobody knows whom the datagram was for.
type Canary struct {
	Software bool // the checksum was made by us: answered
	Device   bool // the checksum was left to the device that sends: answered
	Corrupt  bool // the checksum was wrong on purpose: answered, which nobody may
}

const (
	canaryPort = 33433 // the port before traceroute's, which firewalls know
	canaryLen  = 64    // bytes of payload
)

// canaryWaits are how long answers are waited for, round by round. Hosts tell of a few unreachable ports
// at once, and then of one a second: the last rounds, of what is still without an answer, keep to that.
var canaryWaits = [...]time.Duration{300 * time.Millisecond, 1100 * time.Millisecond, 1100 * time.Millisecond}

// Canaries sends each target of the family of from one datagram of every kind, and again
// where nothing comes back. It needs CAP_NET_RAW and takes 2.5 seconds. A host may be
// silent for reasons of its own (a firewall, a limit on errors): then all three are false.
func Canaries(ctx context.Context, from netip.Addr, targets []netip.Addr) (map[netip.Addr]Canary, error) {
	c := canaries{got: map[netip.Addr]Canary{}}
	if err := c.open(ctx, from); err != nil {
		return nil, fmt.Errorf("canary from %s: %w", from, err)
	}
	defer c.close()
	for _, wait := range canaryWaits {
		for _, to := range targets {
			if to.Is4() == from.Is4() {
				c.send(from, to)
			}
		}
		if err := c.collect(ctx, wait); err != nil {
			return nil, err
		}
	}
	return c.got, nil
}

// canaries are told apart by their source ports: the first is the plain socket's own, the
// others are ours alone.
type canaries struct {
	plain          *net.UDPConn   // checksums by the device
	raw            net.PacketConn // by us
	errors         net.PacketConn // ICMP
	device         uint16         // source ports
	software, none uint16
	got            map[netip.Addr]Canary
}

func (c *canaries) open(ctx context.Context, from netip.Addr) error {
	udp, raw, icmp := "udp4", "ip4:udp", "ip4:icmp"
	if from.Is6() {
		udp, raw, icmp = "udp6", "ip6:udp", "ip6:ipv6-icmp"
	}
	var l net.ListenConfig
	plain, err := l.ListenPacket(ctx, udp, netip.AddrPortFrom(from, 0).String())
	if err != nil {
		return err
	}
	c.plain = plain.(*net.UDPConn)
	c.device = uint16(c.plain.LocalAddr().(*net.UDPAddr).Port)
	c.software = 1024 + uint16(rand.N(30000))
	c.none = c.software + 1
	if c.raw, err = l.ListenPacket(ctx, raw, from.String()); err == nil {
		c.errors, err = l.ListenPacket(ctx, icmp, from.String())
	}
	if err != nil {
		c.close()
	}
	return err
}

func (c *canaries) close() {
	c.plain.Close()
	for _, s := range []net.PacketConn{c.raw, c.errors} {
		if s != nil {
			s.Close()
		}
	}
}

// send sends what has not been answered. The corrupt one is sent after each other, for
// silence proves nothing but where the others are answered.
func (c *canaries) send(from, to netip.Addr) {
	got := c.got[to]
	if !got.Software {
		_, _ = c.raw.WriteTo(canaryDatagram(from, to, c.software, 0), &net.IPAddr{IP: to.AsSlice()})
	}
	if !got.Device {
		_, _ = c.plain.WriteToUDPAddrPort(make([]byte, canaryLen), netip.AddrPortFrom(to, canaryPort))
	}
	if !got.Corrupt {
		_, _ = c.raw.WriteTo(canaryDatagram(from, to, c.none, 0x5a5a), &net.IPAddr{IP: to.AsSlice()})
	}
}

// canaryDatagram is UDP with the checksum off by wrong.
func canaryDatagram(from, to netip.Addr, port, wrong uint16) []byte {
	b := make([]byte, 8+canaryLen)
	binary.BigEndian.PutUint16(b, port)
	binary.BigEndian.PutUint16(b[2:], canaryPort)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	sum := wire.Checksum(b, wire.PseudoHeader(from, to, wire.ProtoUDP, len(b))) ^ wrong
	if sum == 0 { // that would say that there is none
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(b[6:], sum)
	return b
}

func (c *canaries) collect(ctx context.Context, wait time.Duration) error {
	if err := c.errors.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	buffer := make([]byte, 1<<16)
	for ctx.Err() == nil {
		n, _, err := c.errors.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			continue
		}
		c.answered(buffer[:n])
	}
	return ctx.Err()
}

// answered reads "port unreachable" (RFC 792, RFC 4443 section 3.1) and the datagram that it
// quotes. Who answers does not matter: a firewall on the way may.
func (c *canaries) answered(b []byte) {
	m, err := wire.ParseICMP(b)
	if err != nil || m.Type != 3 && m.Type != 1 {
		return
	}
	to, udp, ok := quotedUDP(b[wire.ICMPLen:])
	if !ok || binary.BigEndian.Uint16(udp[2:]) != canaryPort {
		return
	}
	got := c.got[to]
	switch binary.BigEndian.Uint16(udp) {
	case c.software:
		got.Software = true
	case c.device:
		got.Device = true
	case c.none:
		got.Corrupt = true
	}
	c.got[to] = got
}

// quotedUDP finds the destination and the ports in a quoted packet.
func quotedUDP(b []byte) (to netip.Addr, udp []byte, ok bool) {
	switch {
	case len(b) >= wire.IPv4Len && b[0]>>4 == 4:
		header := int(b[0]&0xf) * 4
		if header < wire.IPv4Len || len(b) < header+4 || b[9] != wire.ProtoUDP {
			return to, nil, false
		}
		return netip.AddrFrom4([4]byte(b[16:20])), b[header:], true
	case len(b) >= wire.IPv6Len+4 && b[0]>>4 == 6 && b[6] == wire.ProtoUDP:
		return netip.AddrFrom16([16]byte(b[24:40])), b[wire.IPv6Len:], true
	}
	return to, nil, false
}
