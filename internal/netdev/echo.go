package netdev

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/wire"
)

// How long an echo is waited for, and how often it is tried.
const (
	echoWait   = 400 * time.Millisecond
	echoRounds = 3
	echoLeast  = 84 // bytes of the IP packet that tells whether anybody is there

	// The exact size is looked for on so many narrow paths, by so many sizes at a time:
	// three times divide what is between two rungs of the ladder to one byte.
	echoSearched = 64
	echoSplit    = 16
	echoSearches = 4
)

// echoLadder are the sizes that are tried where the full one is lost: the MTUs that
// underlays commonly have.
var echoLadder = []int{576, 1280, 1400, 1420, 1440, 1450, 1460, 1472, 1480, 1492, 1500, 1542, 2000, 4000, 8000, 9000}

// Echo sends ICMP echo requests with DF from an address of this host to each target of
// its family: a small one, and one of the given size (bytes of the IP packet), past
// what the kernel believes of the path. It says how large a packet each one answered;
// 0: none. Where the full size is lost it is the largest that passes, to the byte on the
// first 64 such paths and by the usual MTUs on others. Answers may come in fragments: only the
// way there is probed. It needs CAP_NET_RAW and takes up to ten seconds, two when all is well.
func Echo(ctx context.Context, from netip.Addr, targets map[netip.Addr]int) (map[netip.Addr]int, error) {
	e, err := newEcho(ctx, from)
	if err != nil {
		return nil, fmt.Errorf("probe from %s: %w", from, err)
	}
	defer e.conn.Close()
	for to, size := range targets {
		if to.Is4() == from.Is4() {
			e.want(to, echoLeast, max(size, echoLeast))
		}
	}
	if err := e.rounds(ctx); err != nil {
		return nil, err
	}
	lost := map[netip.Addr]int{} // the smallest size that is known not to pass
	for to, size := range targets {
		if got := e.largest[to]; got != 0 && got < size {
			lost[to] = size
			e.want(to, slices.DeleteFunc(slices.Clone(echoLadder), func(n int) bool { return n >= size })...)
		}
	}
	if err := e.rounds(ctx); err != nil {
		return nil, err
	}
	return e.largest, e.search(ctx, lost)
}

// search narrows down what passes on the first paths where something is lost.
func (e *echo) search(ctx context.Context, lost map[netip.Addr]int) error {
	chosen := slices.SortedFunc(maps.Keys(lost), netip.Addr.Compare)
	chosen = chosen[:min(len(chosen), echoSearched)]
	for _, to := range chosen {
		for _, n := range echoLadder {
			if n > e.largest[to] {
				lost[to] = min(lost[to], n)
			}
		}
	}
	for range echoSearches {
		for _, to := range chosen {
			e.want(to, between(e.largest[to], lost[to])...)
		}
		if len(e.open) == 0 {
			return nil
		}
		asked := maps.Clone(e.open)
		if err := e.rounds(ctx); err != nil {
			return err
		}
		for _, r := range asked {
			if r.size > e.largest[r.to] {
				lost[r.to] = min(lost[r.to], r.size)
			}
		}
	}
	return nil
}

// between are sizes above one that passes and below one that is lost.
func between(passes, lost int) (sizes []int) {
	gap := lost - passes
	for i := 1; i < echoSplit; i++ {
		if n := passes + gap*i/echoSplit; n > passes && n < lost && !slices.Contains(sizes, n) {
			sizes = append(sizes, n)
		}
	}
	return sizes
}

// echo is the requests under way.
type echo struct {
	conn    net.PacketConn
	header  int    // of IP, in bytes
	nonce   uint32 // id and sequence of the first
	open    map[uint32]request
	largest map[netip.Addr]int
}

type request struct {
	to   netip.Addr
	size int
}

func newEcho(ctx context.Context, from netip.Addr) (*echo, error) {
	network, header := "ip4:icmp", wire.IPv4Len
	if from.Is6() {
		network, header = "ip6:ipv6-icmp", wire.IPv6Len
	}
	conn, err := (&net.ListenConfig{Control: probing(from.Is6())}).ListenPacket(ctx, network, from.String())
	if err != nil {
		return nil, err
	}
	return &echo{conn: conn, header: header, nonce: rand.Uint32(), open: map[uint32]request{}, largest: map[netip.Addr]int{}}, nil
}

// probing makes a socket send with DF and past the path MTU that the kernel believes in.
func probing(v6 bool) func(_, _ string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			// Along provider routes, as the switch's packets go.
			failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, providerMark)
			if v6 {
				failed = errors.Join(failed, unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE),
					unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG, 1))
				return
			}
			failed = errors.Join(failed, unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE))
		})
		return errors.Join(err, failed)
	}
}

// want adds requests.
func (e *echo) want(to netip.Addr, sizes ...int) {
	for _, size := range sizes {
		e.open[e.nonce] = request{to, size}
		e.nonce++
	}
}

// rounds sends what is unanswered, and again, and gives up.
func (e *echo) rounds(ctx context.Context) error {
	for range echoRounds {
		for id, r := range e.open {
			// What the kernel refuses to send (no route, larger than the device
			// takes) stays unanswered, which is the answer.
			_, _ = e.conn.WriteTo(echoRequest(id, r.size-e.header, r.to.Is6()), &net.IPAddr{IP: r.to.AsSlice()})
		}
		if err := e.collect(ctx); err != nil {
			return err
		}
	}
	clear(e.open)
	return nil
}

// collect reads answers until all have come or it is time to send again.
func (e *echo) collect(ctx context.Context) error {
	if err := e.conn.SetReadDeadline(time.Now().Add(echoWait)); err != nil {
		return err
	}
	buffer := make([]byte, 1<<16)
	for len(e.open) > 0 && ctx.Err() == nil {
		n, peer, err := e.conn.ReadFrom(buffer)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		var refused *net.OpError
		if errors.As(err, &refused) {
			continue // an ICMP error about an earlier request
		}
		if err != nil {
			return err
		}
		e.answered(buffer[:n], peer)
	}
	return ctx.Err()
}

func (e *echo) answered(b []byte, peer net.Addr) {
	m, err := wire.ParseICMP(b)
	r, ok := e.open[m.Rest]
	answer := m.Type == wire.ICMPEchoReply || r.to.Is6() && m.Type == wire.ICMPv6EchoReply
	if err != nil || !ok || !answer || peer.String() != r.to.String() || len(b)+e.header != r.size {
		return
	}
	delete(e.open, m.Rest)
	e.largest[r.to] = max(e.largest[r.to], r.size)
}

// echoRequest is an ICMP message of size bytes; id goes into identifier and sequence
// number. The checksum of ICMPv6 is the kernel's to make (RFC 3542 section 3.1).
func echoRequest(id uint32, size int, v6 bool) []byte {
	b := make([]byte, size)
	binary.BigEndian.PutUint32(b[4:], id)
	if b[0] = wire.ICMPv6EchoRequest; v6 {
		return b
	}
	b[0] = wire.ICMPEchoRequest
	binary.BigEndian.PutUint16(b[2:], wire.Checksum(b, 0))
	return b
}
