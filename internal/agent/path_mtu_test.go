package agent

import (
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/table"
)

// A link in the middle of the underlay is narrower than the hosts' own: the first packet
// that is too large is lost, and from then on the guest is told what fits.
func TestPathMTUIsLearned(t *testing.T) {
	w, g1, g2 := pairOfGuests(t)
	h := w.hosts["h1"]
	g1.ping(g2.address(true))
	w.run(w.router, "ip link set h2-2 mtu 1400")
	large := func(to netip.Addr, size int) string {
		return w.run(g1.ns, fmt.Sprintf("ping -n -c1 -W1 -M do -s %d %s 2>&1 || true", size, to))
	}
	h.poll("the guest is told what fits", func() bool {
		return strings.Contains(large(g2.address(true), 1400), "1358")
	})
	if out := large(g2.address(true), 1358-28); !strings.Contains(out, " 0% packet loss") {
		t.Errorf("a packet that just fits:\n%s", out)
	}
	h.verified()
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
