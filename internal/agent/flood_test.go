package agent

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// floodedGoal has web-1 and web-2 here in subnet 5001, which is flooded, and db-1 in 5002, which is not; and
// as many hosts elsewhere as told, each with a port in both.
func floodedGoal(hosts int) (*goal.Goal, map[model.PortID]device) {
	g, devices := goal.New(), map[model.PortID]device{}
	for i, name := range []string{"web-1", "web-2", "db-1"} {
		id, vsid := model.PortID(i+1), model.VSID(5001)
		if name == "db-1" {
			vsid++
		}
		g.Ports[id] = goal.Port{Ref: model.Ref{Tenant: "red", Name: name}, ID: id, VSID: vsid, Network: 1, MAC: model.MAC{2, 5: byte(id)},
			PA: addr("192.0.2.1"), Flood: goal.Flood{L2: vsid == 5001, Group: addr("239.1.1.1")}}
		devices[id] = device{ifindex: uint32(40 + i)}
		g.Records[goal.RecordKey{VSID: vsid, CA: addr(fmt.Sprintf("10.0.0.%d", i+5))}] = goal.Record{MAC: model.MAC{2, 5: byte(id)}, PA: addr("192.0.2.1"), Port: id}
	}
	g.PAs[addr("192.0.2.1")] = struct{}{}
	for i := range hosts {
		pa := netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)})
		for vsid := model.VSID(5001); vsid <= 5002; vsid++ {
			id := model.PortID(100 + 2*i + int(vsid&1))
			g.Records[goal.RecordKey{VSID: vsid, CA: netip.AddrFrom4([4]byte{10, 0, 1 + byte(i>>8), byte(i)})}] = goal.Record{MAC: model.MAC{2, 4: 1, 5: byte(i)}, PA: pa, Port: id}
		}
	}
	return g, devices
}

func TestRenderFloodsToPortsHereAndHostsElsewhere(t *testing.T) {
	g, devices := floodedGoal(2)
	delete(devices, 2) // not plugged: nothing can be copied to it
	got := render(g, devices, underlay{mtu: 1500})
	floods := map[model.VSID]table.Flood{5001: {L2: true, Rate: model.DefaultStormLimit, Group: addr("239.1.1.1")}}
	members := map[table.Member]table.MemberInfo{
		{VSID: 5001, IfIndex: 40}:            {},
		{VSID: 5001, PA: addr("198.51.0.0")}: {},
		{VSID: 5001, PA: addr("198.51.0.1")}: {},
	}
	if diff := cmp.Diff(floods, got.Floods, compareRows); diff != "" {
		t.Errorf("floods (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(members, got.Members, compareRows); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	if !got.Ports[40].Flood || got.Ports[42].Flood {
		t.Errorf("ports of a flooded subnet and of another: %t and %t", got.Ports[40].Flood, got.Ports[42].Flood)
	}
	if _, ours := got.LocalPAs[addr("239.1.1.1")]; !ours {
		t.Error("the multicast PA is not taken as ours")
	}
	if failures := crowded(got, g, devices); len(failures) != 0 {
		t.Errorf("failures: %v", failures)
	}
}

func TestASubnetWithTooManyHostsIsNotFloodedAndSaysSo(t *testing.T) {
	for hosts, want := range map[int]bool{table.MaxFloodHosts: true, table.MaxFloodHosts + 1: false} {
		g, devices := floodedGoal(hosts)
		got := render(g, devices, underlay{mtu: 1500})
		if _, flooded := got.Floods[5001]; flooded != want || got.Ports[40].Flood != want {
			t.Errorf("%d hosts: flooded %t, want %t", hosts, flooded, want)
		}
		failures := crowded(got, g, devices)
		if want != (len(failures) == 0) {
			t.Errorf("%d hosts: failures %v", hosts, failures)
		}
		for _, f := range failures {
			if f.kind != model.KindPort || f.reason != reasonTableFull || !strings.Contains(f.message, "more than 128 other hosts") {
				t.Errorf("failure %+v", f)
			}
		}
		if !want && len(got.Members) != 0 {
			t.Errorf("%d members of a subnet that is not flooded", len(got.Members))
		}
	}
}

func TestGroupsHaveTheMACsOfTheirFamily(t *testing.T) {
	for group, want := range map[string]model.MAC{
		"239.129.2.3": {0x01, 0x00, 0x5e, 0x01, 2, 3},
		"ff05::1:2:3": {0x33, 0x33, 0, 2, 0, 3},
	} {
		if got := groupMAC(addr(group)); got != want {
			t.Errorf("%s: %s, want %s", group, got, want)
		}
	}
}

func TestRenderFindsL2OnlyMembers(t *testing.T) {
	g, devices := floodedGoal(2)
	for id, p := range g.Ports {
		p.Flood = goal.Flood{}
		g.Ports[id] = p
	}
	g.Records[goal.RecordKey{VSID: 5001, CA: model.L2OnlyCA(model.MAC{2, 5: 2})}] = goal.Record{MAC: model.MAC{2, 5: 2}, PA: addr("192.0.2.1"), Port: 2}
	g.Records[goal.RecordKey{VSID: 5001, CA: model.L2OnlyCA(model.MAC{2, 5: 9})}] = goal.Record{MAC: model.MAC{2, 5: 9}, PA: addr("198.51.0.1"), Port: 900}
	got := render(g, devices, underlay{mtu: 1500})
	want := map[table.Member]table.MemberInfo{
		{VSID: 5001, IfIndex: 40}:            {},
		{VSID: 5001, IfIndex: 41}:            {L2Only: true},
		{VSID: 5001, PA: addr("198.51.0.0")}: {},
		{VSID: 5001, PA: addr("198.51.0.1")}: {L2Only: true},
	}
	if diff := cmp.Diff(want, got.Members, compareRows); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	if f, ok := got.Floods[5001]; !ok || f.L2 || len(got.Floods) != 1 {
		t.Errorf("floods %v", got.Floods)
	}
}
