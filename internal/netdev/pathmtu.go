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

// TooBig is a router's word that a packet from this host did not fit (RFC 1191 section
// 4, RFC 4443 section 3.2). Anybody can forge one: whoever uses it must know that the
// packet it quotes can have been sent.
type TooBig struct {
	Source, Destination netip.Addr // of the packet that it quotes
	Proto               uint8
	MTU                 int // what fits
}

// WatchTooBig calls heard, from one goroutine per family, for every such message until
// ctx ends. heard must be quick. It needs CAP_NET_RAW; IPv6 may be missing.
func WatchTooBig(ctx context.Context, heard func(TooBig)) error {
	v4, err := (&net.ListenConfig{Control: onlyTooBig4}).ListenPacket(ctx, "ip4:icmp", "0.0.0.0")
	if err != nil {
		return fmt.Errorf("listen for path MTUs: %w", err)
	}
	go hear(ctx, v4, parseTooBig4, heard)
	v6, err := (&net.ListenConfig{Control: onlyTooBig6}).ListenPacket(ctx, "ip6:ipv6-icmp", "::")
	if err == nil {
		go hear(ctx, v6, parseTooBig6, heard)
	}
	return nil
}

func hear(ctx context.Context, c net.PacketConn, parse func([]byte) (TooBig, bool), heard func(TooBig)) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	b := make([]byte, 1<<16)
	for {
		n, _, err := c.ReadFrom(b)
		if errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) {
			return
		}
		if err != nil {
			continue // an error that somebody else's packet left on the socket
		}
		if t, ok := parse(b[:n]); ok {
			heard(t)
		}
	}
}

// The filters of raw sockets: a set bit of ICMP_FILTER holds a type back.
func onlyTooBig4(_, _ string, c syscall.RawConn) error {
	const icmpFilter = 1 // ICMP_FILTER of linux/icmp.h
	return control(c, func(fd int) error {
		return unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, ^(1 << wire.ICMPUnreachable))
	})
}

func onlyTooBig6(_, _ string, c syscall.RawConn) error {
	var f unix.ICMPv6Filter
	for i := range f.Data {
		f.Data[i] = ^uint32(0)
	}
	f.Data[wire.ICMPv6PacketTooBig>>5] &^= 1 << (wire.ICMPv6PacketTooBig & 31)
	return control(c, func(fd int) error {
		return unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &f)
	})
}

func control(c syscall.RawConn, set func(fd int) error) error {
	var failed error
	return errors.Join(c.Control(func(fd uintptr) { failed = set(int(fd)) }), failed)
}

// plateaus are what is tried where a router does not say what fits (RFC 1191 section 7).
var plateaus = []int{32000, 17914, 8166, 4352, 2002, 1492, 1006, 508}

func parseTooBig4(b []byte) (TooBig, bool) {
	const head = 8 + wire.IPv4Len
	if len(b) < head || b[0] != wire.ICMPUnreachable || b[1] != wire.ICMPCodeFragNeeded || wire.Checksum(b, 0) != 0 {
		return TooBig{}, false
	}
	q := b[8:]
	if q[0]>>4 != 4 {
		return TooBig{}, false
	}
	t := TooBig{Source: netip.AddrFrom4([4]byte(q[12:16])), Destination: netip.AddrFrom4([4]byte(q[16:20])), Proto: q[9],
		MTU: int(binary.BigEndian.Uint16(b[6:]))}
	for i := 0; t.MTU == 0 && i < len(plateaus); i++ {
		if plateaus[i] < int(binary.BigEndian.Uint16(q[2:])) {
			t.MTU = plateaus[i]
		}
	}
	return t, t.MTU > 0
}

func parseTooBig6(b []byte) (TooBig, bool) {
	const head = 8 + wire.IPv6Len
	if len(b) < head || b[0] != wire.ICMPv6PacketTooBig || b[8]>>4 != 6 {
		return TooBig{}, false
	}
	q := b[8:]
	return TooBig{Source: netip.AddrFrom16([16]byte(q[8:24])), Destination: netip.AddrFrom16([16]byte(q[24:40])), Proto: q[6],
		MTU: int(min(binary.BigEndian.Uint32(b[4:]), 1<<16))}, true
}
