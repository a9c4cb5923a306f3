package agent

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

var compareRows = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

// web-1 is plugged here, web-3 is here without a device, web-2 is on a host
// that has a route, web-4 on one that has none.
func TestRenderJoinsGoalDevicesAndUnderlay(t *testing.T) {
	g := goal.New()
	mac := func(n byte) model.MAC { return model.MAC{2, 0, 0, 0, 0, n} }
	here := goal.Port{Ref: model.Ref{Tenant: "red", Name: "web-1"}, ID: 1, VSID: 5001, Network: 7, MAC: mac(1),
		CAs: []netip.Addr{addr("10.0.0.5")}, Gateway4: addr("10.0.0.1"), PA: addr("192.0.2.1"),
		Settings: goal.PortSettings{Isolation: model.Isolation{Mode: model.IsolationIsolated}}}
	g.Ports[1] = here
	absent := here
	absent.ID, absent.Ref.Name = 3, "web-3"
	g.Ports[3] = absent
	record := func(ca string, r goal.Record) { g.Records[goal.RecordKey{VSID: 5001, CA: addr(ca)}] = r }
	record("10.0.0.1", goal.Record{MAC: model.RouterMAC(5001), Router: true})
	record("10.0.0.5", goal.Record{MAC: mac(1), PA: addr("192.0.2.1"), Port: 1})
	record("10.0.0.7", goal.Record{MAC: mac(3), PA: addr("192.0.2.1"), Port: 3})
	record("10.0.0.6", goal.Record{MAC: mac(2), PA: addr("192.0.2.2"), Port: 2, Isolation: model.Promiscuous})
	record("10.0.0.8", goal.Record{MAC: mac(4), PA: addr("192.0.2.9"), Port: 4})
	record("10.0.0.9", goal.Record{MAC: mac(5)})
	g.Routes[goal.RouteKey{Network: 7, Prefix: prefix("10.0.0.0/24")}] = goal.Route{VSID: 5001}
	g.PAs[addr("192.0.2.1")] = struct{}{}

	peer := table.Peer{PA: addr("192.0.2.2"), IfIndex: 2, MTU: 1500, NextHop: mac(0xee), Source: mac(0xff)}
	under := underlay{mtu: 1500, heard: g.PAs, peers: map[netip.Addr]table.Peer{peer.PA: peer}}
	got := render(g, map[model.PortID]device{1: {ifindex: 40, veth: true}}, under)

	want := table.NewSet()
	want.Ports[40] = table.Port{IfIndex: 40, ID: 1, VSID: 5001, Network: 7, MAC: mac(1), PA: addr("192.0.2.1"),
		Gateway4: addr("10.0.0.1"), MTU: 1458, Peer: true, DHCPGuard: true, RouterGuard: true, Isolation: model.Isolated}
	row := func(ca string, r table.Record) { want.Records[table.RecordKey{VSID: 5001, CA: addr(ca)}] = r }
	row("10.0.0.1", table.Record{MAC: model.RouterMAC(5001), Router: true})
	row("10.0.0.5", table.Record{MAC: mac(1), IfIndex: 40, Port: 1})
	row("10.0.0.7", table.Record{MAC: mac(3), Port: 3})
	row("10.0.0.6", table.Record{MAC: mac(2), PA: peer.PA, Port: 2, Isolation: model.Promiscuous})
	want.Isolations[table.MACKey{VSID: 5001, MAC: mac(2)}] = model.Promiscuous
	row("10.0.0.8", table.Record{MAC: mac(4), PA: addr("192.0.2.9"), Port: 4})
	row("10.0.0.9", table.Record{MAC: mac(5)})
	want.Routes[table.RouteKey{Network: 7, Prefix: prefix("10.0.0.0/24")}] = table.Route{VSID: 5001}
	want.LocalPAs[addr("192.0.2.1")] = struct{}{}
	want.Peers[peer.PA] = peer
	want.Peers[addr("192.0.2.9")] = table.Peer{PA: addr("192.0.2.9")}
	if diff := cmp.Diff(want, got, compareRows, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("rows (-want +got):\n%s", diff)
	}
}

func TestGuestMTUFollowsTheNarrowestUplink(t *testing.T) {
	for mtu, want := range map[int]int{0: 1458, 1500: 1458, 9000: 8958, 65536: 65493} {
		if got := (underlay{mtu: mtu}).guestMTU(42); got != want {
			t.Errorf("underlay MTU %d: guests get %d, want %d", mtu, got, want)
		}
	}
}
