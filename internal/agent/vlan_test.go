package agent

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// Guards are on by default on a VLAN, too; a port is held to the addresses that policy names, and its teammate's.
func TestRenderPortsOnVLANs(t *testing.T) {
	g := goal.New()
	add := func(id model.PortID, change func(*goal.Port)) {
		p := goal.Port{Ref: model.Ref{Tenant: "red", Name: "p"}, ID: id, MAC: model.MAC{2, 0, 0, 0, 0, byte(id)}, Interface: "eth1",
			Settings: goal.PortSettings{VLAN: &model.VLAN{Network: "lan", Mode: model.VLANAccess, ID: 10}}}
		change(&p)
		g.Ports[id] = p
	}
	add(1, func(*goal.Port) {})
	add(2, func(p *goal.Port) { p.CAs, p.Settings.Team = []netip.Addr{addr("10.1.0.5")}, "vm" })
	add(3, func(p *goal.Port) {
		p.Settings = goal.PortSettings{VLAN: p.Settings.VLAN, DHCPServer: true, Router: true, Team: "vm", Allowed: []model.AllowedAddress{{Prefix: prefix("10.2.0.0/24")}}}
	})
	got := render(g, map[model.PortID]device{1: {ifindex: 41}, 2: {ifindex: 42, veth: true}, 3: {ifindex: 43}},
		underlay{externals: map[string]external{"eth1": {index: 9, mtu: 1400}}})
	if len(got.Ports) > 0 {
		t.Errorf("ports in subnets: %v", got.Ports)
	}
	row := func(id model.PortID, change func(*table.VLANPort)) table.VLANPort {
		p := table.VLANPort{Port: table.Port{IfIndex: 40 + uint32(id), ID: id, MAC: model.MAC{2, 0, 0, 0, 0, byte(id)}, MTU: 1400, DHCPGuard: true, RouterGuard: true},
			Uplink: 9, Native: 10, StormRate: model.DefaultStormLimit, Sends: table.NewVLANs(10), Receives: table.NewVLANs(10)}
		change(&p)
		return p
	}
	want := map[uint32]table.VLANPort{41: row(1, func(*table.VLANPort) {}), 42: row(2, func(p *table.VLANPort) { p.Peer, p.Held, p.Allowed = true, true, true }),
		43: row(3, func(p *table.VLANPort) { p.Held, p.Allowed, p.DHCPGuard, p.RouterGuard = true, true, false, false })}
	if diff := cmp.Diff(want, got.VLANPorts, compareRows); diff != "" {
		t.Error(diff)
	}
	allowed := map[table.Allowed]struct{}{}
	for _, ifindex := range []uint32{42, 43} {
		allowed[table.Allowed{IfIndex: ifindex, Prefix: prefix("10.1.0.5/32")}] = struct{}{}
		allowed[table.Allowed{IfIndex: ifindex, Prefix: prefix("10.2.0.0/24")}] = struct{}{}
	}
	allowed[table.Allowed{IfIndex: 42, MAC: model.MAC{2, 0, 0, 0, 0, 3}}] = struct{}{}
	allowed[table.Allowed{IfIndex: 43, MAC: model.MAC{2, 0, 0, 0, 0, 2}}] = struct{}{}
	if diff := cmp.Diff(allowed, got.Allowed, compareRows, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}
