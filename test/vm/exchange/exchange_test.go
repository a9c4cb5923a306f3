package exchange

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
)

// through runs a client against a server whose bytes pass change on the way back.
func through(t *testing.T, n int64, change func(at int64, b []byte)) error {
	t.Helper()
	near, far := net.Pipe()
	relay, server := net.Pipe()
	go func() { _ = answer(server); server.Close() }()
	go func() { _, _ = io.Copy(relay, far) }()
	go func() {
		defer far.Close()
		b, at := make([]byte, 512), int64(0)
		for {
			m, err := relay.Read(b)
			change(at, b[:m])
			at += int64(m)
			if _, werr := far.Write(b[:m]); err != nil || werr != nil {
				return
			}
		}
	}()
	defer near.Close()
	return Client(near, n)
}

func TestGoodPathAgrees(t *testing.T) {
	if err := through(t, 100_000, func(int64, []byte) {}); err != nil {
		t.Fatal(err)
	}
}

func TestOneFlippedBitIsSeen(t *testing.T) {
	for name, at := range map[string]int64{"in the hash": 5, "in the stream": 50_000} {
		t.Run(name, func(t *testing.T) {
			err := through(t, 100_000, func(from int64, b []byte) {
				if i := at - from; i >= 0 && i < int64(len(b)) {
					b[i] ^= 1
				}
			})
			if err == nil || !strings.Contains(err.Error(), "other bytes") {
				t.Fatalf("error %v, want one of other bytes", err)
			}
		})
	}
}

func TestServeAndEcho(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { _ = Serve(l) }()
	if err := Dial(netip.Addr{}, netip.MustParseAddrPort(l.Addr().String()), 1<<20); err != nil {
		t.Fatal(err)
	}
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	go func() { _ = Echo(u) }()
	if err := Datagrams(netip.MustParseAddrPort(u.LocalAddr().String()), 10, 1400, 1); err != nil {
		t.Fatal(err)
	}
}
