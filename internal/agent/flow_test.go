package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

func udpFlow(inbound bool, remote string, localPort, remotePort uint16) datapath.Flow {
	f := datapath.Flow{ID: uint64(localPort)<<16 | uint64(remotePort) | 1<<40, Port: 1, Packets: 1, Query: table.Query{IP: true, Local: netip.MustParseAddr("10.0.0.5"),
		Remote: netip.MustParseAddr(remote), Protocol: 17, Upper: table.ShowsPorts, LocalPort: localPort, RemotePort: remotePort}}
	if inbound {
		f.Direction = datapath.Inbound
	}
	return f
}

func TestFlowsOfOneClientAreOne(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newFlowBook(now)
	for i := range uint16(50) {
		b.note(udpFlow(true, "10.0.0.9", 53, 40000+i), now)
		b.note(udpFlow(false, "10.0.0.9", 53, 40000+i), now) // the answers
		b.note(udpFlow(false, "10.0.0.9", 50000+i, 123), now)
	}
	b.note(udpFlow(true, "10.0.0.9", 53, 123), now)
	b.note(udpFlow(true, "10.0.0.9", 50000, 60000), now)
	b.note(udpFlow(true, "10.0.0.9", 50000, 60001), now)
	all, forgotten := b.of(1, now)
	if len(all) != 6 || forgotten != 0 {
		t.Errorf("%d flows, %d packets forgotten, want 6 and none", len(all), forgotten)
	}
	asked := keyOfFlow(true, udpFlow(true, "10.0.0.9", 53, 40001).Query)
	f, ok := all[asked]
	if !ok || f.packets != 50 || f.query.RemotePort != 40049 {
		t.Errorf("%+v", f)
	}
	if back, ok := all[asked.back()]; !ok || back.packets != 50 {
		t.Errorf("the answers are not found: %+v", back)
	}
}

func TestFlowsAreBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	b := newFlowBook(now)
	for i := range 3 * mostOfOne {
		b.note(udpFlow(true, netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)}).String(), 53, 40000), now)
	}
	all, forgotten := b.of(1, now)
	if len(all) != mostOfOne || forgotten != 2*mostOfOne {
		t.Errorf("%d flows, %d packets forgotten", len(all), forgotten)
	}
	if all, forgotten = b.of(1, now.Add(flowMemory+time.Second)); len(all) != 0 || forgotten != 2*mostOfOne {
		t.Errorf("after an hour: %d flows, %d packets forgotten", len(all), forgotten)
	}
	for id := range model.PortID(mostFlows / fewestOfOne * 2) { // many ports have less each
		f := udpFlow(true, "10.0.0.9", 53, 40000)
		f.Port = id + 1
		b.note(f, now)
	}
	if n := b.share(); n != fewestOfOne {
		t.Errorf("a port's share is %d", n)
	}
	b.keepPorts(func(id model.PortID) bool { return id == 1 })
	if n := b.share(); n != mostOfOne {
		t.Errorf("alone, a port's share is %d", n)
	}
}

// Rules are asked as they would be programmed; answers of what a stateful rule lets in pass.
func TestFlowsAreJudgedByWhatWouldBeProgrammed(t *testing.T) {
	ref := model.Ref{Tenant: "red", Name: "in"}
	g := goal.New()
	port := goal.Port{ID: 1, Ref: model.Ref{Tenant: "red", Name: "web-1"}}
	port.Settings.Lists = []goal.ListUse{{Level: model.LevelPort, List: "in"}}
	g.Ports[1] = port
	rules := []model.AccessRule{{Name: "dns", Direction: model.Inbound, Action: model.ActionAllow, Protocol: "udp", LocalPorts: []model.Range{{First: 53, Last: 53}}, Stateful: true, IdleTimeout: time.Minute}}
	list := &goal.List{Ref: ref, Tier: model.TierTenant, Mode: model.ModeEnforce, Default: model.ListDefault{Inbound: model.ActionDeny, Outbound: model.ActionDeny}, Rules: rules}
	g.Lists[ref] = list
	now := time.Unix(1000, 0)
	b := newFlowBook(now)
	b.note(udpFlow(true, "10.0.0.9", 53, 40000), now)
	b.note(udpFlow(false, "10.0.0.9", 53, 40000), now)
	b.note(udpFlow(true, "10.0.0.9", 54, 40000), now)
	b.note(udpFlow(false, "10.0.0.8", 53, 40000), now) // answers nothing that was seen
	all, _ := b.of(1, now)
	j := newJudges(g)
	keys := j.keys(1)
	for _, c := range []struct {
		flow   datapath.Flow
		denied bool
		rule   string
	}{
		{udpFlow(true, "10.0.0.9", 53, 40000), false, "dns"},
		{udpFlow(false, "10.0.0.9", 53, 40000), false, "dns"},
		{udpFlow(true, "10.0.0.9", 54, 40000), true, "default inbound"},
		{udpFlow(false, "10.0.0.8", 53, 40000), true, "default outbound"},
	} {
		got, err := j.flow(keys, all, keyOfFlow(c.flow.Direction == datapath.Inbound, c.flow.Query))
		if err != nil || got.denied != c.denied || got.by != (model.RuleID{List: ref, Rule: c.rule}) {
			t.Errorf("%v %+v: %+v %v", c.flow.Direction, c.flow.Query, got, err)
		}
	}
	none := newJudges(goal.New())
	if got, err := none.flow(none.keys(1), all, keyOfFlow(true, udpFlow(true, "10.0.0.9", 54, 40000).Query)); err != nil || got.denied {
		t.Errorf("without rules: %+v %v", got, err)
	}
}
