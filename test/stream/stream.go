// Package stream sends numbered datagrams from one network namespace to another and
// counts those that do not arrive.
//
// Invariants: what is lost or doubled fails the test that sent it; a stream that could
// not keep its rate fails as well, for it would have proved nothing.
//
// It must never know of weft.
package stream

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Stream is numbered UDP datagrams from one namespace to another, counted where they
// arrive.
type Stream struct {
	Name    string
	t       testing.TB
	rate    int
	in, out *net.UDPConn
	stop    chan struct{}
	sending sync.WaitGroup
	hearing sync.WaitGroup
	began   time.Time
	sent    atomic.Uint64
	arrived atomic.Uint64 // different datagrams
	top     atomic.Uint64 // highest number that arrived, plus one

	// Of receive alone, until it is done.
	seen    []bool
	doubled int
	last    time.Time
	gap     time.Duration

	failed atomic.Pointer[error]
}

// Total of what streams have counted.
type Total struct {
	Streams, Sent, Lost, Doubled int
	Gap                          time.Duration // longest between two arrivals of one stream
}

// Add sums totals up.
func (t Total) Add(u Total) Total {
	return Total{t.Streams + u.Streams, t.Sent + u.Sent, t.Lost + u.Lost, t.Doubled + u.Doubled, max(t.Gap, u.Gap)}
}

// Usual is how many datagrams a second a stream sends when nothing asks for more.
const Usual = 1000

// Bounds of waiting, and of what is sent at once: ticks are late on a busy machine; the
// rate is made good, but in no burst that a queue on the way could not take.
const (
	wait          = 60 * time.Second
	lookAgain     = 5 * time.Millisecond
	smallBurst    = 20
	burstsASecond = 200
)

// In calls f with the thread in a network namespace; sockets that f opens stay there.
func In(space string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		fd, err := os.Open("/run/netns/" + space)
		if err == nil {
			err = unix.Setns(int(fd.Fd()), unix.CLONE_NEWNET)
			fd.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// ports of receivers, so that streams of one guest do not meet.
var nextPort atomic.Uint32

// Start sends rate datagrams a second from one namespace to an address in another.
func Start(t testing.TB, from, to string, address netip.Addr, rate int) *Stream {
	t.Helper()
	s := &Stream{Name: fmt.Sprintf("%s > %s %s", from, to, address), t: t, rate: rate, stop: make(chan struct{}),
		began: time.Now(), last: time.Now()}
	target := net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, uint16(20000+nextPort.Add(1)%10000)))
	err := In(to, func() (err error) {
		if s.in, err = net.ListenUDP("udp", target); err != nil {
			return err
		}
		return roomy(s.in)
	})
	if err == nil {
		err = In(from, func() (err error) {
			s.out, err = net.DialUDP("udp", nil, target)
			return err
		})
	}
	if err != nil {
		t.Fatalf("%s: %v", s.Name, err)
	}
	s.hearing.Go(s.receive)
	s.sending.Go(s.send)
	return s
}

// roomy makes a socket take what arrives while its reader does not run: streams
// judge the switch, not the scheduler.
func roomy(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	err = raw.Control(func(fd uintptr) {
		inner = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	})
	return errors.Join(err, inner)
}

func (s *Stream) send() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	burst := uint64(max(smallBurst, s.rate/burstsASecond))
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		due := uint64(time.Since(s.began).Seconds() * float64(s.rate))
		for range min(due-min(due, s.sent.Load()), burst) {
			if _, err := s.out.Write(binary.BigEndian.AppendUint64(nil, s.sent.Load())); err != nil {
				s.failed.Store(&err)
				return
			}
			s.sent.Add(1)
		}
	}
}

func (s *Stream) receive() {
	b := make([]byte, 64)
	for {
		n, err := s.in.Read(b)
		if err != nil || n != 8 {
			return
		}
		now := time.Now()
		s.gap, s.last = max(s.gap, now.Sub(s.last)), now
		number := binary.BigEndian.Uint64(b)
		for uint64(len(s.seen)) <= number {
			s.seen = append(s.seen, false)
		}
		if s.seen[number] {
			s.doubled++
			continue
		}
		s.seen[number] = true
		s.arrived.Add(1)
		s.top.Store(max(s.top.Load(), number+1))
	}
}

// Sent is how many datagrams were sent so far.
func (s *Stream) Sent() uint64 { return s.sent.Load() }

// More waits until n datagrams that are sent from now on were sent and the last of
// them, or a later one, has arrived.
func (s *Stream) More(n uint64) {
	s.t.Helper()
	s.Reach(s.sent.Load() + n)
}

// Reach waits until datagram n, or a later one, has arrived.
func (s *Stream) Reach(n uint64) {
	s.t.Helper()
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for deadline := time.Now().Add(wait); s.top.Load() < n; <-tick.C {
		if err := s.failed.Load(); err != nil {
			s.t.Fatalf("%s: send: %v", s.Name, *err)
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: waited in vain for datagram %d: at %d of %d sent", s.Name, n, s.top.Load(), s.sent.Load())
		}
	}
}

// quietAfter is how long a stopped stream's last datagrams may take to arrive.
const quietAfter = 2 * time.Second

// Finish stops the stream, waits for what is under way, and fails the test for every
// datagram that was sent and has not arrived, or has arrived twice.
func (s *Stream) Finish() Total {
	s.t.Helper()
	total := s.Stop()
	if total.Lost > 0 || total.Doubled > 0 {
		s.t.Errorf("%s: of %d datagrams %d were lost, first number %d, and %d doubled", s.Name, total.Sent, total.Lost, s.firstLost(), s.doubled)
	}
	return total
}

// Stop stops the stream, waits for what is under way, and leaves it to the test what may be lost.
func (s *Stream) Stop() Total {
	s.t.Helper()
	close(s.stop)
	s.sending.Wait()
	elapsed := time.Since(s.began)
	s.settle()
	s.out.Close()
	s.in.Close()
	s.hearing.Wait()
	sent := int(s.sent.Load())
	total := Total{Streams: 1, Sent: sent, Lost: sent - int(s.arrived.Load()), Doubled: s.doubled, Gap: s.gap}
	if err := s.failed.Load(); err != nil {
		s.t.Errorf("%s: send: %v", s.Name, *err)
	}
	if perSecond := float64(sent) / elapsed.Seconds(); perSecond < float64(s.rate)*0.9 {
		s.t.Errorf("%s: only %.0f datagrams per second: the test is too slow to judge", s.Name, perSecond)
	}
	return total
}

// settle waits until all has arrived, or nothing more comes.
func (s *Stream) settle() {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for arrived, since := s.arrived.Load(), time.Now(); s.arrived.Load() < s.sent.Load(); <-tick.C {
		if now := s.arrived.Load(); now != arrived {
			arrived, since = now, time.Now()
		}
		if time.Since(since) > quietAfter {
			return
		}
	}
}

func (s *Stream) firstLost() int {
	for i, ok := range s.seen {
		if !ok {
			return i
		}
	}
	return len(s.seen)
}
