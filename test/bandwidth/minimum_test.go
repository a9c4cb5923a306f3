package bandwidth

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/test/twohosts"
)

// What NVGRE adds to a guest's frame on the uplink.
const outer = 42

// crowd is four guests of one host, of which three have a minimum, and one of another that all send to.
func crowd(t *testing.T) (w *twohosts.World, from []*twohosts.Guest, to *twohosts.Guest) {
	t.Helper()
	s := twohosts.Subnet{VSID: 5001, Network: 1, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}}
	guest := func(name string, host, n int) *twohosts.Guest {
		return &twohosts.Guest{Name: name, Host: host, Subnet: s, MAC: model.MAC{2, 0, 0, 0, 0, byte(n)}, CAs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(10 + n)})}}
	}
	from = []*twohosts.Guest{guest("a", 0, 1), guest("b", 0, 2), guest("c", 0, 3), guest("d", 0, 4)}
	to = guest("z", 1, 9)
	return twohosts.New(t, "wtmin", datapath.DecapAuto, append(from, to)), from, to
}

// sender is how one of the crowd sends.
type sender struct {
	guest       *twohosts.Guest // nil: the host itself
	connections int             // of TCP, or
	rate        uint64          // of UDP, bit/s of frames

	got atomic.Uint64 // payload
}

func (s *sender) onWire() float64 {
	if s.rate > 0 {
		return float64(frame+outer) / udpPayload
	}
	return float64(frame+outer) / tcpPayload
}

var lastPort uint16 = port

// compete has all send at once, and measures what of each crosses the uplink, in bit/s of outer frames.
func compete(t *testing.T, w *twohosts.World, to *twohosts.Guest, all ...*sender) []float64 {
	t.Helper()
	for _, s := range all {
		lastPort++ // what is still on its way is for nobody
		way := wayOf(w, s.guest, to)
		if s.rate > 0 {
			defer pour(t, w, s, way)()
			continue
		}
		defer stream(t, w, s, way)()
	}
	<-time.After(settle)
	began, first := time.Now(), make([]uint64, len(all))
	for i, s := range all {
		first[i] = s.got.Load()
	}
	<-time.After(span)
	seconds := time.Since(began).Seconds()
	out := make([]float64, len(all))
	for i, s := range all {
		out[i] = 8 * float64(s.got.Load()-first[i]) * s.onWire() / seconds
	}
	return out
}

// way leads from one namespace to an address of another.
type way struct {
	from, to string
	at       netip.AddrPort
}

func wayOf(w *twohosts.World, from, to *twohosts.Guest) way {
	if from == nil {
		return way{w.Hosts[0].NS, w.Hosts[1].NS, netip.AddrPortFrom(w.Hosts[1].PA, lastPort)}
	}
	return way{w.GuestNS(from), w.GuestNS(to), netip.AddrPortFrom(to.CAs[0], lastPort)}
}

func stream(t *testing.T, w *twohosts.World, s *sender, way way) (stop func()) {
	t.Helper()
	var l net.Listener
	w.In(way.to, func() (err error) {
		l, err = net.Listen("tcp", way.at.String())
		return err
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(counter{&s.got}, c)
			}()
		}
	}()
	var all []net.Conn
	for range s.connections {
		var c net.Conn
		w.In(way.from, func() (err error) {
			c, err = (&net.Dialer{Timeout: 5 * time.Second, Control: cubic}).Dial("tcp", way.at.String())
			return err
		})
		all = append(all, c)
		go func() {
			for b := make([]byte, 1<<16); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}()
	}
	return func() {
		for _, c := range all {
			_ = c.Close()
		}
		_ = l.Close()
	}
}

func pour(t *testing.T, w *twohosts.World, s *sender, way way) (stop func()) {
	t.Helper()
	var in *net.UDPConn
	var out net.Conn
	w.In(way.to, func() (err error) {
		if in, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(way.at)); err == nil {
			err = in.SetReadBuffer(8 << 20)
		}
		return err
	})
	w.In(way.from, func() (err error) {
		out, err = (&net.Dialer{Control: segmented}).Dial("udp", way.at.String())
		return err
	})
	done, sent, heard := make(chan struct{}), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(heard)
		hear(t, in, &s.got)
	}()
	go func() {
		defer close(sent)
		send(out, s.rate, done)
	}()
	return func() {
		close(done)
		<-sent
		_, _ = in.Close(), out.Close()
		<-heard
	}
}

// On an uplink that all together want more of than there is, each port has its minimum within 5 %, whether others are TCP that
// yields or UDP that does not; what nobody takes is shared, and the uplink stays full. UDP stays in order.
func TestMinimumHolds(t *testing.T) {
	w, g, to := crowd(t)
	tcp := func(i, connections int) *sender { return &sender{guest: g[i], connections: connections} }
	udp := func(i int, rate uint64) *sender { return &sender{guest: g[i], rate: rate} }
	for _, total := range rates(t) {
		percent := map[*twohosts.Guest]uint64{g[0]: 45, g[1]: 30, g[2]: 15}
		minima := map[*twohosts.Guest]uint64{}
		for guest, n := range percent {
			minima[guest] = total * n / 100
		}
		w.Share(0, total, minima)
		for _, x := range []struct {
			name string
			all  []*sender
		}{
			{"TCP", []*sender{tcp(0, 1), tcp(1, 4), tcp(2, 2)}},
			{"UDP", []*sender{udp(0, total), udp(1, total), udp(2, total)}},
			{"TCP and UDP", []*sender{tcp(0, 1), udp(1, total), tcp(2, 1)}},
			{"one that has none beside them", []*sender{tcp(0, 1), udp(1, total), tcp(2, 1), udp(3, total)}},
			{"two of them", []*sender{tcp(0, 1), udp(2, total)}},
			{"one alone", []*sender{tcp(2, 2)}},
			{"one that has none, alone", []*sender{tcp(3, 2)}},
		} {
			t.Run(fmt.Sprintf("%s %d", x.name, total), func(t *testing.T) {
				var problems []string
				for range tries { // a sender that gets no processor sends less than it is promised
					if problems = misses(t, compete(t, w, to, x.all...), x.all, minima, total); problems == nil {
						return
					}
				}
				t.Error(strings.Join(problems, "\n"))
			})
		}
	}
}

const tries = 3

// misses lists who has less than its minimum, and whether all together do not fill the uplink.
func misses(t *testing.T, got []float64, all []*sender, minima map[*twohosts.Guest]uint64, total uint64) (out []string) {
	t.Helper()
	sum := 0.0
	for i, s := range all {
		sum += got[i]
		least := float64(minima[s.guest])
		t.Logf("%s: %.1f %% of the uplink, promised %.0f", s.guest.Name, 100*got[i]/float64(total), 100*least/float64(total))
		if got[i] < (1-tolerance)*least {
			out = append(out, fmt.Sprintf("%s: %.0f bit/s, less than its minimum of %.0f by more than %.0f %%", s.guest.Name, got[i], least, 100*tolerance))
		}
	}
	if sum < (1-tolerance)*float64(total) || sum > (1+tolerance)*float64(total) {
		out = append(out, fmt.Sprintf("together %.0f bit/s, of %d", sum, total))
	}
	return out
}

// However much guests send, the host is heard: a twentieth of its uplink is its own.
func TestHostKeepsItsShare(t *testing.T) {
	w, g, to := crowd(t)
	const total = 100e6
	w.Share(0, total, map[*twohosts.Guest]uint64{g[0]: total * 9 / 10})
	flood := func(i int) *sender { return &sender{guest: g[i], rate: total} }
	got := compete(t, w, to, &sender{connections: 1}, flood(0), flood(1), flood(2))
	t.Logf("the host: %.2f Mb/s, guests %.1f", got[0]/1e6, got[1:])
	if got[0] < (1-tolerance)*total/20 {
		t.Errorf("the host has %.0f bit/s of %.0f", got[0], total)
	}
}
