package fleet

import (
	"net/netip"

	"github.com/weft-sdn/weft/test/stream"
)

// Traffic is several streams at once.
type Traffic struct {
	f       *Fleet
	streams []*stream.Stream
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

// Stream sends rate datagrams a second from a guest to an address that another has.
func (f *Fleet) Stream(from, to string, address netip.Addr, rate int) *stream.Stream {
	f.T.Helper()
	return stream.Start(f.T, f.Space(from), f.Space(to), address, rate)
}

func (f *Fleet) stream(from, to string, address netip.Addr) *stream.Stream {
	f.T.Helper()
	return f.Stream(from, to, address, stream.Usual)
}

// More waits until, on every stream, n datagrams that are sent from now on were
// sent and the last of them, or a later one, has arrived.
func (t *Traffic) More(n uint64) {
	t.f.T.Helper()
	wants := make([]uint64, len(t.streams))
	for i, s := range t.streams {
		wants[i] = s.Sent() + n
	}
	for i, s := range t.streams {
		s.Reach(wants[i])
	}
}

// Stop stops the streams and waits for what is under way; the test says what may be lost.
func (t *Traffic) Stop() (total stream.Total) {
	t.f.T.Helper()
	for _, s := range t.streams {
		total = total.Add(s.Stop())
	}
	return total
}

// Finish stops the streams, waits for what is under way, and fails the test for
// every datagram that was sent and has not arrived, or has arrived twice.
func (t *Traffic) Finish() (total stream.Total) {
	t.f.T.Helper()
	for _, s := range t.streams {
		total = total.Add(s.Finish())
	}
	return total
}
