package agent

import (
	"testing"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

// Two hosts, a guest on each: they join, are bound, plugged, talk, and leave.
func TestTwoHostsTalk(t *testing.T) {
	w := newWorld(t, "h1", "h2")
	h1, h2 := w.hosts["h1"], w.hosts["h2"]
	w.fleet.change(func() {
		w.fleet.addPort("web-1", 1, "h1")
		w.fleet.addPort("web-2", 2, "") // bound by its first plug
		w.fleet.addPort("web-3", 3, "")
	})
	h1.synced()
	h2.synced()
	g1, g2, g3 := h1.plug("web-1"), h2.plug("web-2"), h1.plug("web-3")
	if g1.got.GetMtu() != 1458 || g1.got.GetMac() != "02:00:00:01:00:01" || len(g1.got.GetGateways()) != 2 {
		t.Errorf("web-1 was told %v", g1.got)
	}
	for _, v4 := range []bool{true, false} {
		g1.ping(g2.address(v4))
		g2.ping(g1.address(v4))
		g3.ping(g1.address(v4))
	}
	h1.verified()
	h2.verified()
	s := h1.status()
	if !s.GetConnected() || s.GetPorts() != 2 || len(s.GetFailures()) > 0 || s.GetRevision() != w.fleet.now() {
		t.Errorf("status of h1: %v", s)
	}
	answer := w.fleet.query("h2", &hostv1.Query{Id: 1, Query: &hostv1.Query_Verify{Verify: &hostv1.VerifyQuery{}}})
	if v := answer.GetVerify(); v == nil || len(v.GetDifferences()) > 0 || v.GetRevision() != w.fleet.now() {
		t.Errorf("verify of h2: %v", answer)
	}

	for _, g := range []*guest{g1, g2, g3} {
		g.host.unplug(g.port)
	}
	w.fleet.until("unbound ports are free again", func() bool {
		for _, p := range w.fleet.ports {
			if !p.pinned && p.host != "" {
				return false
			}
		}
		return true
	})
	plugs, err := h1.client.ListPlugs(t.Context(), connect.NewRequest(&weftv1.ListPlugsRequest{}))
	must(t, err)
	if len(plugs.Msg.GetPlugs()) > 0 {
		t.Errorf("plugs left: %v", plugs.Msg)
	}
}
