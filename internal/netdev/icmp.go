package netdev

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/wire"
)

// ICMPError is a router's or a host's word that a packet from this host did not arrive: destination
// unreachable, too big, or time exceeded (RFC 792, RFC 1191 section 4, RFC 4443 section 3). Anybody can
// forge one: whoever uses it must know that the packet it quotes can have been sent.
type ICMPError struct {
	From       netip.Addr // who says so; its family is that of ICMP
	Type, Code uint8
	Rest       uint32 // the last four bytes of the header
	Quote      []byte // the packet that it is about from its IP header on, as far as it is quoted
}

// plateaus are what is tried where a router does not say what fits (RFC 1191 section 7).
var plateaus = []int{32000, 17914, 8166, 4352, 2002, 1492, 1006, 508}

// TooBig is the MTU that a packet exceeded, in bytes; 0: the error is another one.
func (e ICMPError) TooBig() int {
	if e.From.Is6() {
		if e.Type != wire.ICMPv6PacketTooBig {
			return 0
		}
		return int(min(e.Rest, 1<<16))
	}
	if e.Type != wire.ICMPUnreachable || e.Code != wire.ICMPCodeFragNeeded || len(e.Quote) < wire.IPv4Len {
		return 0
	}
	if mtu := int(e.Rest & 0xffff); mtu != 0 {
		return mtu
	}
	for _, mtu := range plateaus {
		if mtu < int(binary.BigEndian.Uint16(e.Quote[2:])) {
			return mtu
		}
	}
	return 0
}

// WatchICMPErrors calls heard, from one goroutine per family, for every such message until
// ctx ends. heard must be quick, and not keep the quote. It needs CAP_NET_RAW; IPv6 may be missing.
func WatchICMPErrors(ctx context.Context, heard func(ICMPError)) error {
	v4, err := (&net.ListenConfig{Control: onlyErrors4}).ListenPacket(ctx, "ip4:icmp", "0.0.0.0")
	if err != nil {
		return fmt.Errorf("listen for ICMP errors: %w", err)
	}
	go hear(ctx, v4, heard)
	v6, err := (&net.ListenConfig{Control: onlyErrors6}).ListenPacket(ctx, "ip6:ipv6-icmp", "::")
	if err == nil {
		go hear(ctx, v6, heard)
	}
	return nil
}

func hear(ctx context.Context, c net.PacketConn, heard func(ICMPError)) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	b := make([]byte, 1<<16)
	for {
		n, peer, err := c.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			continue // an error that somebody else's packet left on the socket
		}
		from, ok := peer.(*net.IPAddr)
		if !ok {
			continue
		}
		if a, ok := netip.AddrFromSlice(from.IP); ok {
			if e, ok := parseICMPError(a.Unmap(), b[:n]); ok {
				heard(e)
			}
		}
	}
}

// The filters of raw sockets: a set bit of ICMP_FILTER holds a type back.
func onlyErrors4(_, _ string, c syscall.RawConn) error {
	const icmpFilter = 1 // ICMP_FILTER of linux/icmp.h
	return control(c, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1<<wire.ICMPUnreachable | 1<<wire.ICMPTimeExceeded))
	})
}

func onlyErrors6(_, _ string, c syscall.RawConn) error {
	var f unix.ICMPv6Filter
	for i := range f.Data {
		f.Data[i] = ^uint32(0)
	}
	f.Data[0] &^= 1<<wire.ICMPv6Unreachable | 1<<wire.ICMPv6PacketTooBig | 1<<wire.ICMPv6TimeExceeded
	return control(c, func(fd int) error {
		return unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &f)
	})
}

func control(c syscall.RawConn, set func(fd int) error) error {
	var failed error
	return errors.Join(c.Control(func(fd uintptr) { failed = set(int(fd)) }), failed)
}

// parseICMPError reads a message without its IP header. The kernel has checked the checksum of
// ICMPv6 (RFC 3542 section 3.1), and not that of ICMP.
func parseICMPError(from netip.Addr, b []byte) (ICMPError, bool) {
	head, err := wire.ParseICMP(b)
	if err != nil || from.Is4() && wire.Checksum(b, 0) != 0 {
		return ICMPError{}, false
	}
	e := ICMPError{From: from, Type: head.Type, Code: head.Code, Rest: head.Rest, Quote: b[wire.ICMPLen:]}
	if quoted := e.quoted(); quoted != 0 && quoted < len(e.Quote) {
		e.Quote = e.Quote[:quoted]
	}
	return e, true
}

// quoted is how much of the message is the packet that it quotes, where it says so because something
// else follows (RFC 4884 section 4): in units of 4 bytes, and of 8 in ICMPv6; 0: it does not say so.
func (e ICMPError) quoted() int {
	switch {
	case e.From.Is4():
		return int(e.Rest>>16&0xff) * 4
	case e.Type == wire.ICMPv6PacketTooBig: // has no room for it
		return 0
	}
	return int(e.Rest>>24) * 8
}
