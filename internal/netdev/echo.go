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
)

// echoLadder are the sizes that are tried where the full one is lost: the MTUs that
// underlays commonly have.
var echoLadder = []int{576, 1280, 1400, 1420, 1440, 1450, 1460, 1472, 1480, 1492, 1500, 1542, 2000, 4000, 8000, 9000}

// Echo sends ICMP echo requests with DF from an address of this host to each target:
// a small one, and one of the given size (bytes of the IP packet), past what the
// kernel believes of the path. It says how large a packet each one answered; 0:
// none. Answers may come in fragments: only the way there is probed. It needs
// CAP_NET_RAW and takes up to two seconds.
func Echo(ctx context.Context, from netip.Addr, targets map[netip.Addr]int) (map[netip.Addr]int, error) {
	e, err := newEcho(ctx, from)
	if err != nil {
		return nil, fmt.Errorf("probe from %s: %w", from, err)
	}
	defer e.conn.Close()
	for to, size := range targets {
		e.want(to, echoLeast, max(size, echoLeast))
	}
	if err := e.rounds(ctx); err != nil {
		return nil, err
	}
	for to, size := range targets {
		if got := e.largest[to]; got != 0 && got < size {
			e.want(to, slices.DeleteFunc(slices.Clone(echoLadder), func(n int) bool { return n >= size })...)
		}
	}
	return e.largest, e.rounds(ctx)
}

// echo is the requests under way.
type echo struct {
	conn    net.PacketConn
	nonce   uint32 // id and sequence of the first
	open    map[uint32]request
	largest map[netip.Addr]int
}

type request struct {
	to   netip.Addr
	size int
}

func newEcho(ctx context.Context, from netip.Addr) (*echo, error) {
	probe := func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE)
		})
		return errors.Join(err, failed)
	}
	conn, err := (&net.ListenConfig{Control: probe}).ListenPacket(ctx, "ip4:icmp", from.String())
	if err != nil {
		return nil, err
	}
	return &echo{conn: conn, nonce: rand.Uint32(), open: map[uint32]request{}, largest: map[netip.Addr]int{}}, nil
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
			_, _ = e.conn.WriteTo(echoRequest(id, r.size), &net.IPAddr{IP: r.to.AsSlice()})
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
	if err != nil || !ok || m.Type != wire.ICMPEchoReply || peer.String() != r.to.String() || len(b)+wire.IPv4Len != r.size {
		return
	}
	delete(e.open, m.Rest)
	e.largest[r.to] = max(e.largest[r.to], r.size)
}

// echoRequest is the ICMP message that makes an IP packet of size bytes; id goes into
// identifier and sequence number.
func echoRequest(id uint32, size int) []byte {
	b := make([]byte, size-wire.IPv4Len)
	b[0] = wire.ICMPEchoRequest
	binary.BigEndian.PutUint32(b[4:], id)
	binary.BigEndian.PutUint16(b[2:], wire.Checksum(b, 0))
	return b
}
