package agent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// sixOnly gives every host an IPv6 address, which is its Provider Address from here on.
func (w *world) sixOnly() {
	w.t.Helper()
	w.run(w.router, "sysctl -qw net.ipv6.conf.all.forwarding=1")
	for name, h := range w.hosts {
		n := int(h.pa.As4()[3]) / 4
		w.run(w.router, fmt.Sprintf("ip addr add fd99:%d::1/64 dev %s-%d nodad", n, name, n))
		w.run(h.ns, fmt.Sprintf("ip addr add fd99:%d::2/64 dev eth0 nodad", n), fmt.Sprintf("ip route add default via fd99:%d::1", n))
		w.fleet.change(func() { w.fleet.pas[name] = addr(fmt.Sprintf("fd99:%d::2", n)) })
	}
}

// overheads are what each tunnel puts before a guest's packet, in bytes, the inner Ethernet header included.
var overheads = []struct {
	name      string
	transport model.TransportID
	six       bool
	overhead  int
}{
	{"NVGRE over IPv4", model.NVGRE, false, 42},
	{"NVGRE over IPv6", model.NVGRE, true, 62},
	{"VXLAN over IPv4", model.VXLAN, false, 50},
	{"VXLAN over IPv6", model.VXLAN, true, 70},
}

// A link in the middle of the underlay is narrower than the hosts' own: the guest is told what fits by the
// very packet that does not, whatever carries it, and from then on by the switch. Where the underlay leads
// nowhere, it is told that, too.
func TestGuestsAreToldOfErrorsOfTheUnderlay(t *testing.T) {
	for _, c := range overheads {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, "h1", "h2")
			h := w.hosts["h1"]
			other := w.hosts["h2"].pa.String()
			if c.six {
				w.sixOnly()
				other = "fd99:2::2"
			}
			w.fleet.change(func() {
				w.fleet.transport, w.fleet.settings = c.transport, goal.Settings{VXLANPort: 4789}
				w.fleet.addPort("web-1", 1, "h1")
				w.fleet.addPort("web-2", 2, "h2")
			})
			h.synced()
			w.hosts["h2"].synced()
			g1, g2 := h.plug("web-1"), w.hosts["h2"].plug("web-2")
			large := func(to netip.Addr, size int) string {
				return w.run(g1.ns, fmt.Sprintf("ping -n -c1 -W1 -M do -s %d %s 2>&1 || true", size, to))
			}
			for _, v4 := range []bool{true, false} {
				g1.ping(g2.address(v4))
				g2.ping(g1.address(v4))
			}
			w.run(w.router, "ip link set h2-2 mtu 1400")
			fits := 1400 - c.overhead
			for _, v4 := range []bool{true, false} {
				to, headers, says := g2.address(v4), 28, fmt.Sprintf("mtu = %d", fits)
				if !v4 {
					headers, says = 48, fmt.Sprintf("mtu=%d", fits)
				}
				// The first is answered by the underlay's router, and all others by the guest's own,
				// in the same words.
				if out := large(to, 1360); !strings.Contains(strings.ReplaceAll(strings.ToLower(out), " ", ""), strings.ReplaceAll(says, " ", "")) {
					t.Errorf("IPv4 %t: the packet that does not fit is not answered with %q:\n%s", v4, says, out)
				}
				before := h.dropped("TOO_BIG")
				h.poll("the switch knows", func() bool {
					w.run(g1.ns, "ip route flush cache", "ip -6 route flush cache")
					large(to, 1360)
					return h.dropped("TOO_BIG") > before
				})
				if out := large(to, fits-headers); !strings.Contains(out, " 0% packet loss") {
					t.Errorf("IPv4 %t: a packet that just fits:\n%s", v4, out)
				}
			}
			h.verified()

			w.run(w.router, fmt.Sprintf("ip route add unreachable %s", other))
			for _, v4 := range []bool{true, false} {
				h.poll("the guest is told that nothing leads there", func() bool {
					return strings.Contains(strings.ToLower(large(g2.address(v4), 56)), "unreachable")
				})
			}
			text := w.run(h.ns, "curl -sf http://127.0.0.1:9467/metrics")
			for _, kind := range []string{"too_big", "unreachable"} {
				if !strings.Contains(text, fmt.Sprintf("weft_agent_underlay_errors_total{kind=%q} ", kind)) {
					t.Errorf("no figure of what guests were told of: %s", kind)
				}
			}
		})
	}
}

// Nobody is believed who speaks of a path that there is not, says that it is wider, or
// says less than the floor; and all is forgotten after ten minutes.
func TestLearnMTU(t *testing.T) {
	path := ends{addr("192.0.2.1"), addr("198.51.100.2")}
	now := time.Unix(1000, 0)
	fresh := func() *loop {
		l := &loop{Agent: &Agent{log: slog.New(slog.DiscardHandler)}, narrow: map[ends]narrow{}}
		l.under.ways = map[netip.Addr]ways{path.remote: {list: []way{{row: table.Peer{PA: path.remote, Local: path.local, Remote: path.remote, MTU: 1500}}}}}
		return l
	}
	for name, c := range map[string]struct {
		of   ends
		mtu  int
		want uint16
	}{
		"narrower":            {path, 1400, 1400},
		"no narrower":         {path, 1500, 1500},
		"below the floor":     {path, 68, 576},
		"nothing":             {path, 0, 576},
		"another destination": {ends{path.local, addr("198.51.100.3")}, 1400, 1500},
		"another source":      {ends{addr("192.0.2.2"), path.remote}, 1400, 1500},
	} {
		l := fresh()
		l.learnMTU(c.of, c.mtu, now)
		mtu, _ := l.narrowest(now)
		if got := mtu(path, 1500); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	l := fresh()
	l.learnMTU(path, 1400, now)
	l.learnMTU(path, 1450, now) // wider than what is known: not news
	if mtu, until := l.narrowest(now.Add(time.Minute)); mtu(path, 1500) != 1400 || !until.Equal(now.Add(learnedTime)) {
		t.Errorf("after a minute: %d until %s", mtu(path, 1500), until)
	}
	if mtu, until := l.narrowest(now.Add(learnedTime)); mtu(path, 1500) != 1500 || !until.IsZero() || len(l.narrow) != 0 {
		t.Errorf("after ten minutes: %d", mtu(path, 1500))
	}
}
