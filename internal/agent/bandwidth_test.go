package agent

import (
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/model"
)

// limit is what the port may send and get, in bit/s.
func (f *fleet) limit(port string, outbound, inbound int64) {
	p := f.ports[model.Ref{Tenant: "red", Name: port}]
	p.port.Settings.Bandwidth = &model.Bandwidth{Outbound: model.BandwidthLimit{Maximum: outbound}, Inbound: model.BandwidthLimit{Maximum: inbound}}
}

// A limit comes, changes and goes under traffic, and lasts while the agent is dead: nothing of what keeps to it is
// lost. It leaves nothing behind.
func TestBandwidthFollowsPolicy(t *testing.T) {
	w, g1, g2 := pairOfGuests(t)
	h1 := w.hosts["h1"]
	s := newStream(g1, g2)
	back := newStream(g2, g1)
	to := func(outbound, inbound int64) {
		t.Helper()
		w.fleet.programmed("h1", w.fleet.change(func() { w.fleet.limit("web-1", outbound, inbound) }))
		g1.ping(g2.address(false))
		h1.verified()
	}
	queues := func() string {
		return w.run(h1.ns, "for d in weft-sh0 wfp1; do test -d /proc/sys/net/ipv4/conf/$d && tc class show dev $d; done; true")
	}
	to(50e6, 100e6)
	if q := queues(); !strings.Contains(q, "rate 50Mbit") || !strings.Contains(q, "rate 100Mbit") {
		t.Errorf("the queues are\n%s", q)
	}
	h1.end(syscall.SIGKILL)
	g1.ping(g2.address(true))
	h1.synced()
	h1.verified()
	to(80e6, 100e6)
	if q := queues(); !strings.Contains(q, "rate 80Mbit") {
		t.Errorf("after a change the queues are\n%s", q)
	}
	to(0, 100e6)
	if q := queues(); strings.Contains(q, "weft-sh0") || strings.Contains(q, "rate 80Mbit") {
		t.Errorf("one way is not limited any more, and the queues are\n%s", q)
	}
	to(0, 0)
	if q := queues(); strings.Contains(q, "htb") {
		t.Errorf("queues are left:\n%s", q)
	}
	s.Finish()
	back.Finish()
	to(50e6, 100e6)
	w.run(h1.ns, "tc qdisc del dev wfp1 root")
	v, err := h1.client.LocalVerify(t.Context(), connect.NewRequest(&weftv1.LocalVerifyRequest{}))
	must(t, err)
	if problems := strings.Join(v.Msg.GetDifferences(), "\n"); strings.Count(problems, "no queue delays") != 1 {
		t.Errorf("verify does not see that one queue is gone: %q", problems)
	}
}
