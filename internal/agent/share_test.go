package agent

import (
	"maps"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// promise gives a port a minimum of an uplink that carries so much.
func (f *fleet) promise(port string, limit model.BandwidthLimit, uplink int64) {
	p := f.ports[model.Ref{Tenant: "red", Name: port}]
	p.port.Settings.Bandwidth, p.port.Settings.Uplink = nil, 0
	if limit != (model.BandwidthLimit{}) {
		p.port.Settings.Bandwidth, p.port.Settings.Uplink = &model.Bandwidth{Outbound: limit}, uplink
	}
}

// A minimum comes, changes and goes under traffic, and lasts while the agent is dead: nothing is lost. The uplink keeps the queue that
// it had, and nothing is left behind.
func TestMinimumFollowsPolicy(t *testing.T) {
	w, g1, g2 := pairOfGuests(t)
	h1 := w.hosts["h1"]
	before := w.run(h1.ns, "tc qdisc show dev eth0")
	s, back := newStream(g1, g2), newStream(g2, g1)
	to := func(limit model.BandwidthLimit) {
		t.Helper()
		w.fleet.programmed("h1", w.fleet.change(func() { w.fleet.promise("web-1", limit, 1e9) }))
		g1.ping(g2.address(false))
		h1.verified()
	}
	classes := func() string {
		return w.run(h1.ns, "for d in $(ls /proc/sys/net/ipv4/conf | grep weft-ul); do tc class show dev $d; done")
	}
	has := func(wants ...string) {
		t.Helper()
		have := classes()
		for _, want := range wants {
			if !strings.Contains(have, want) {
				t.Errorf("no %q in\n%s", want, have)
			}
		}
	}
	to(model.BandwidthLimit{Minimum: 300e6})
	has("rate 1Gbit ceil 1Gbit", "rate 300Mbit ceil 1Gbit", "rate 50Mbit ceil 1Gbit")
	s.More(200)
	h1.end(syscall.SIGKILL)
	g1.ping(g2.address(true))
	h1.synced()
	h1.verified()
	to(model.BandwidthLimit{Weight: 7})
	has("rate 900Mbit ceil 1Gbit")
	// One that has a maximum as well waits twice.
	to(model.BandwidthLimit{Minimum: 200e6, Maximum: 400e6})
	has("rate 200Mbit ceil 1Gbit")
	s.More(200)
	to(model.BandwidthLimit{})
	if c := classes(); c != "" {
		t.Errorf("left:\n%s", c)
	}
	if after := w.run(h1.ns, "tc qdisc show dev eth0"); after != before {
		t.Errorf("the uplink's own queue was\n%s, and is\n%s", before, after)
	}
	s.Finish()
	back.Finish()
	to(model.BandwidthLimit{Minimum: 300e6})
	w.run(h1.ns, "for d in $(ls /proc/sys/net/ipv4/conf | grep weft-um); do ip link del $d; done")
	v, err := h1.client.LocalVerify(t.Context(), connect.NewRequest(&weftv1.LocalVerifyRequest{}))
	must(t, err)
	if problems := strings.Join(v.Msg.GetDifferences(), "\n"); !strings.Contains(problems, "minimum bandwidth: class") {
		t.Errorf("verify does not see that the queue is gone: %q", problems)
	}
}

func TestDivide(t *testing.T) {
	for _, x := range []struct {
		name   string
		shares map[uint32]table.Share
		want   map[uint32]uint64
	}{
		{"weights are parts of all", map[uint32]table.Share{1: {Weight: 1}, 2: {Weight: 3}}, map[uint32]uint64{1: 250, 2: 750}},
		{"minima come first", map[uint32]table.Share{1: {Minimum: 600}, 2: {Weight: 3}, 3: {Weight: 1}}, map[uint32]uint64{1: 600, 2: 300, 3: 100}},
		{"what nobody is promised is shared", map[uint32]table.Share{1: {Minimum: 600}}, map[uint32]uint64{1: 600}},
		{"too much is cut alike", map[uint32]table.Share{1: {Minimum: 1500}, 2: {Minimum: 500}, 3: {Weight: 1}}, map[uint32]uint64{1: 750, 2: 250, 3: 0}},
	} {
		if got := divide(1000, x.shares); !maps.Equal(got, x.want) {
			t.Errorf("%s: %v, want %v", x.name, got, x.want)
		}
	}
}
