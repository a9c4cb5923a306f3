package fleet

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
	"time"

	"golang.org/x/sys/unix"
)

// Stream is numbered datagrams from one guest to another, 1,000 a second,
// counted where they arrive.
type Stream struct {
	Name    string
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
	gap     time.Duration // longest between two arrivals

	failed atomic.Pointer[error]
}

// rate and burst of a stream, in datagrams per second and at once. Ticks are late
// on a busy machine: the rate is made good, but in no burst that a queue on the
// way could not take.
const (
	rate  = 1000
	burst = 20
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

// stream starts one from a guest to an address of another.
func (f *Fleet) stream(from, to string, address netip.Addr) *Stream {
	f.T.Helper()
	s := &Stream{Name: fmt.Sprintf("%s > %s %s", from, to, address), stop: make(chan struct{}), began: time.Now(), last: time.Now()}
	target := net.UDPAddrFromAddrPort(netip.AddrPortFrom(address, uint16(20000+nextPort.Add(1)%10000)))
	f.must(In(f.Space(to), func() (err error) {
		if s.in, err = net.ListenUDP("udp", target); err != nil {
			return err
		}
		return roomy(s.in)
	}))
	f.must(In(f.Space(from), func() (err error) {
		s.out, err = net.DialUDP("udp", nil, target)
		return err
	}))
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
	tick := time.NewTicker(time.Second / rate)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		due := uint64(time.Since(s.began).Seconds() * rate)
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

// Traffic is several streams at once.
type Traffic struct {
	f       *Fleet
	streams []*Stream
}

// Total of what streams have counted.
type Total struct {
	Streams, Sent, Lost, Doubled int
	Gap                          time.Duration // longest between two arrivals of one stream
}

// Pair is two guests, TENANT/PORT, with the addresses that they have, IPv4 and IPv6.
type Pair struct {
	A, B string
	A4   netip.Addr
	A6   netip.Addr
	B4   netip.Addr
	B6   netip.Addr
}

// Traffic starts streams between pairs, both directions, IPv4 and IPv6, and
// returns when all of them flow.
func (f *Fleet) Traffic(pairs ...Pair) *Traffic {
	f.T.Helper()
	t := &Traffic{f: f}
	for _, p := range pairs {
		t.streams = append(t.streams, f.stream(p.A, p.B, p.B4), f.stream(p.B, p.A, p.A4),
			f.stream(p.A, p.B, p.B6), f.stream(p.B, p.A, p.A6))
	}
	t.More(200)
	return t
}

// More waits until, on every stream, n datagrams that are sent from now on were
// sent and the last of them, or a later one, has arrived.
func (t *Traffic) More(n uint64) {
	t.f.T.Helper()
	wants := make([]uint64, len(t.streams))
	for i, s := range t.streams {
		wants[i] = s.sent.Load() + n
	}
	for i, s := range t.streams {
		want := wants[i]
		t.f.Poll(fmt.Sprintf("%s: datagram %d", s.Name, want), func() error {
			if err := s.failed.Load(); err != nil {
				t.f.T.Fatalf("%s: send: %v", s.Name, *err)
			}
			if s.top.Load() < want {
				return fmt.Errorf("at %d of %d sent", s.top.Load(), s.sent.Load())
			}
			return nil
		})
	}
}

// quietAfter is how long a stopped stream's last datagrams may take to arrive.
const quietAfter = 2 * time.Second

// Finish stops the streams, waits for what is under way, and fails the test for
// every datagram that was sent and has not arrived, or has arrived twice.
func (t *Traffic) Finish() (total Total) {
	t.f.T.Helper()
	for _, s := range t.streams {
		total.Streams++
		close(s.stop)
		s.sending.Wait()
		elapsed := time.Since(s.began)
		s.settle()
		s.out.Close()
		s.in.Close()
		s.hearing.Wait()
		sent := int(s.sent.Load())
		lost := sent - int(s.arrived.Load())
		total.Sent, total.Lost, total.Doubled = total.Sent+sent, total.Lost+lost, total.Doubled+s.doubled
		total.Gap = max(total.Gap, s.gap)
		if lost > 0 || s.doubled > 0 {
			t.f.T.Errorf("%s: of %d datagrams %d were lost, first number %d, and %d doubled", s.Name, sent, lost, s.firstLost(), s.doubled)
		}
		if err := s.failed.Load(); err != nil {
			t.f.T.Errorf("%s: send: %v", s.Name, *err)
		}
		if perSecond := float64(sent) / elapsed.Seconds(); perSecond < rate*0.9 {
			t.f.T.Errorf("%s: only %.0f datagrams per second: the test is too slow to judge", s.Name, perSecond)
		}
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
