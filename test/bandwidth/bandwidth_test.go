// Package bandwidth measures what ports with a maximum send and get, between guests of two hosts.
package bandwidth

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/test/twohosts"
)

const (
	port      = 5201
	tolerance = 0.05
	settle    = time.Second     // slow start, and what may pass at once
	span      = 2 * time.Second // that is measured

	frame      = twohosts.GuestMTU + 14
	tcpPayload = twohosts.GuestMTU - 20 - 32
	udpPayload = twohosts.GuestMTU - 20 - 8
)

func world(t *testing.T) (w *twohosts.World, from, to *twohosts.Guest) {
	t.Helper()
	s := twohosts.Subnet{VSID: 5001, Network: 1, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}}
	from = &twohosts.Guest{Name: "a", Host: 0, Subnet: s, MAC: model.MAC{2, 0, 0, 0, 0, 1}, CAs: []netip.Addr{netip.MustParseAddr("10.1.0.11")}}
	to = &twohosts.Guest{Name: "b", Host: 1, Subnet: s, MAC: model.MAC{2, 0, 0, 0, 0, 2}, CAs: []netip.Addr{netip.MustParseAddr("10.1.0.12")}}
	return twohosts.New(t, "wtbw", datapath.DecapAuto, []*twohosts.Guest{from, to}), from, to
}

// A maximum holds within 5 %, both ways, for TCP and for UDP that wants half as much again, whose datagrams stay in
// their order; what UDP loses is counted, as the port's.
func TestMaximumHolds(t *testing.T) {
	w, from, to := world(t)
	for _, rate := range rates(t) {
		limit := table.Shape{Rate: rate, Burst: rate / 8 / 100}
		for _, way := range []struct {
			name       string
			limited    *twohosts.Guest
			out, in    table.Shape
			directions datapath.Direction
		}{
			{"outbound", from, limit, table.Shape{}, datapath.Outbound},
			{"inbound", to, table.Shape{}, limit, datapath.Inbound},
		} {
			t.Run(fmt.Sprintf("%s %d", way.name, rate), func(t *testing.T) {
				w.Limit(way.limited, way.out, way.in)
				within(t, "TCP", tcp(t, w, from, to, 1)*frame/tcpPayload, rate)
				within(t, "four of TCP", tcp(t, w, from, to, 4)*frame/tcpPayload, rate)
				before := dropped(t, w, way.limited, way.directions)
				within(t, "UDP", udp(t, w, from, to, rate*3/2)*frame/udpPayload, rate)
				if dropped(t, w, way.limited, way.directions) == before {
					t.Error("nothing of what was too much was counted")
				}
				w.Limit(way.limited, table.Shape{}, table.Shape{})
			})
		}
	}
}

// rates that are measured: 100 Mb/s, or those that WEFT_BANDWIDTHS lists, in bit/s.
func rates(t *testing.T) (out []uint64) {
	for _, s := range strings.Fields(cmp.Or(os.Getenv("WEFT_BANDWIDTHS"), "100e6")) {
		f, err := strconv.ParseFloat(s, 64)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, uint64(f))
	}
	return out
}

func within(t *testing.T, what string, got float64, rate uint64) {
	t.Helper()
	t.Logf("%s: %.2f %% of %d bit/s", what, 100*got/float64(rate), rate)
	if got < (1-tolerance)*float64(rate) || got > (1+tolerance)*float64(rate) {
		t.Errorf("%s: %.0f bit/s of frames, want %d within %.0f %%", what, got, rate, 100*tolerance)
	}
}

func dropped(t *testing.T, w *twohosts.World, g *twohosts.Guest, d datapath.Direction) (packets uint64) {
	t.Helper()
	drops, err := w.Hosts[g.Host].Switch.Drops()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range drops {
		if c.Port == g.ID && c.Direction == d && c.Reason == model.VerdictBandwidthLimited {
			packets += c.Packets
		}
	}
	return packets
}

// tcp sends over some connections at once, and measures what arrives after a while, in bit/s.
func tcp(t *testing.T, w *twohosts.World, from, to *twohosts.Guest, connections int) float64 {
	t.Helper()
	at := netip.AddrPortFrom(to.CAs[0], port)
	var l net.Listener
	w.In(w.GuestNS(to), func() (err error) {
		l, err = net.Listen("tcp", at.String())
		return err
	})
	defer l.Close()
	var got atomic.Uint64
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(counter{&got}, c)
			}()
		}
	}()
	for range connections {
		var c net.Conn
		w.In(w.GuestNS(from), func() (err error) {
			c, err = (&net.Dialer{Timeout: 5 * time.Second, Control: cubic}).Dial("tcp", at.String())
			return err
		})
		defer c.Close()
		go func() {
			for b := make([]byte, 1<<16); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}()
	}
	return rateOf(&got)
}

// cubic: other algorithms measure the rate, and find it as well, but slower.
func cubic(_, _ string, c syscall.RawConn) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) {
		err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic")
	}), err)
}

type counter struct{ n *atomic.Uint64 }

func (c counter) Write(b []byte) (int, error) {
	c.n.Add(uint64(len(b)))
	return len(b), nil
}

// rateOf measures over span, settle from now, in bit/s.
func rateOf(n *atomic.Uint64) float64 {
	<-time.After(settle)
	first, began := n.Load(), time.Now()
	<-time.After(span)
	return 8 * float64(n.Load()-first) / time.Since(began).Seconds()
}

// udp sends numbered datagrams at a rate, in bit/s of frames, and measures likewise.
func udp(t *testing.T, w *twohosts.World, from, to *twohosts.Guest, rate uint64) float64 {
	t.Helper()
	at := netip.AddrPortFrom(to.CAs[0], port)
	var in *net.UDPConn
	var out net.Conn
	w.In(w.GuestNS(to), func() (err error) {
		in, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		return errors.Join(err, in.SetReadBuffer(8<<20))
	})
	w.In(w.GuestNS(from), func() (err error) {
		out, err = (&net.Dialer{Control: segmented}).Dial("udp", at.String())
		return err
	})
	var got atomic.Uint64
	received := make(chan struct{})
	go func() {
		defer close(received)
		hear(t, in, &got)
	}()
	stop := make(chan struct{})
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		send(out, rate, stop)
	}()
	bits := rateOf(&got)
	close(stop)
	<-sent
	_ = in.Close()
	_ = out.Close()
	<-received
	return bits
}

func hear(t *testing.T, in *net.UDPConn, got *atomic.Uint64) {
	var last uint64
	for b := make([]byte, 2048); ; {
		n, err := in.Read(b)
		if err != nil {
			return
		}
		number := binary.BigEndian.Uint64(b)
		if number <= last {
			t.Errorf("datagram %d came after %d", number, last)
		}
		last = number
		got.Add(uint64(n))
	}
}

// batch is how many datagrams go to the kernel at once, which cuts them.
const batch = 16

func send(out net.Conn, rate uint64, stop <-chan struct{}) {
	b := make([]byte, batch*udpPayload)
	perSecond := float64(rate) / 8 / frame
	for began, n := time.Now(), uint64(0); ; {
		select {
		case <-stop:
			return
		case <-time.After(time.Millisecond):
		}
		for due := uint64(time.Since(began).Seconds() * perSecond); n+batch <= due; {
			for i := range batch {
				n++
				binary.BigEndian.PutUint64(b[i*udpPayload:], n)
			}
			if _, err := out.Write(b); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
		}
	}
}

func segmented(_, _ string, c syscall.RawConn) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) {
		// A guest that is another machine has its own memory to send from.
		err = errors.Join(unix.SetsockoptInt(int(fd), unix.IPPROTO_UDP, unix.UDP_SEGMENT, udpPayload),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 64<<20))
	}), err)
}
