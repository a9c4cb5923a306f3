package datapath

import (
	"context"
	"net/netip"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// What is told of flows, and what of them is not told of yet, is what was judged.
func TestFlowsAreToldOf(t *testing.T) {
	w := newWorld(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	flows, err := w.Flows(ctx)
	if err != nil {
		t.Fatal(err)
	}
	a, b := w.set.Ports[uint32(w.a.Index)], w.set.Ports[uint32(w.b.Index)]
	frame := func(from, to uint16) []byte {
		return eth(macB, macA, 0x0800, ip4("10.0.0.5", "10.0.0.7", 17, 64, udp(from, to, 10)))
	}
	check := func(f Flow, port model.PortID, inbound, denied, sampled bool, local string, localPort uint16, remote string, remotePort uint16) {
		t.Helper()
		q := f.Query
		if f.Port != port || (f.Direction == Inbound) != inbound || f.Denied != denied || f.Sampled != sampled || q.Protocol != 17 || q.Upper != table.ShowsPorts ||
			q.Local != netip.MustParseAddr(local) || q.Remote != netip.MustParseAddr(remote) || q.LocalPort != localPort || q.RemotePort != remotePort {
			t.Errorf("flow %+v", f)
		}
		if q.LocalMAC != w.set.Ports[map[model.PortID]uint32{a.ID: a.IfIndex, b.ID: b.IfIndex}[port]].MAC {
			t.Errorf("flow %+v: not the guest's MAC", f)
		}
	}
	// Nobody judges: the first packet of either side is looked at.
	w.expect(FromPort, w.a, frame(40000, 53), model.VerdictDelivered, w.b)
	check(<-flows, a.ID, false, false, true, "10.0.0.5", 40000, "10.0.0.7", 53)
	check(<-flows, b.ID, true, false, true, "10.0.0.7", 53, "10.0.0.5", 40000)
	// Rules deny: every packet counts, and other ports of a client are the same flow.
	w.judge(a.IfIndex, portRule("dns", table.Deny, 53))
	w.apply(w.set, true)
	for i := range uint16(20) {
		w.expect(FromPort, w.a, frame(40000+i, 53), model.VerdictAclDenied, nil)
	}
	w.expect(FromPort, w.a, frame(40000, 54), model.VerdictDelivered, w.b) // on some CPU after the others
	packets := map[uint64]uint64{}
	for f := range flows {
		if f.Port != a.ID || f.Sampled {
			continue
		}
		check(f, a.ID, false, f.Query.RemotePort == 53, false, "10.0.0.5", f.Query.LocalPort, "10.0.0.7", f.Query.RemotePort)
		packets[f.ID] += f.Packets
		if f.Query.RemotePort == 54 {
			break
		}
	}
	counts, err := w.FlowCounts()
	if err != nil || len(packets) != 2 || len(counts.Missed) != 0 {
		t.Fatalf("%d flows, want 2; missed %v, %v", len(packets), counts.Missed, err)
	}
	sum := uint64(0)
	for id, n := range packets {
		sum += n + counts.Pending[id]
	}
	if sum != 21 {
		t.Errorf("%d packets of %v and %v, want 21", sum, packets, counts.Pending)
	}
	// More flows than a port may tell of: nothing is lost without being counted.
	for i := range 5000 {
		w.expect(FromPort, w.a, eth(macB, macA, 0x0800, ip4("10.0.0.5", "10.0.0.7", 17, 64, udp(uint16(1+i), 53, 10))), model.VerdictAclDenied, nil)
	}
	w.expect(FromPort, w.a, frame(40000, 55), model.VerdictDelivered, w.b)
	if counts, err = w.FlowCounts(); err != nil || counts.Missed[a.ID] == 0 {
		t.Errorf("nothing is missed: %v", err)
	}
	pending := uint64(0)
	for _, n := range counts.Pending {
		pending += n
	}
	cancel()
	told := uint64(0)
	for f := range flows {
		if f.Port == a.ID && f.Query.RemotePort == 53 {
			told += f.Packets
		}
	}
	t.Logf("of 5000 flows %d packets are told of, %d wait, %d are missed", told, pending, counts.Missed[a.ID])
}

// A port that is busy is not looked at all the time.
func TestBusyPortsAreLookedAtSeldom(t *testing.T) {
	w := newWorld(t, Options{})
	lo := w.loopback()
	frame := eth(macB, macA, 0x0800, ip4("10.0.0.5", "10.0.0.7", 17, 64, udp(40000, 53, 10)))
	const packets = 1_000_000
	if _, err := w.Time(WalkPort, frame, packets); err != nil {
		t.Fatal(err)
	}
	var cpus []trafficRow
	if err := w.maps["traffic"].Lookup(w.slots[lo], &cpus); err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	for _, c := range cpus {
		if n += c.OutPackets; c.OutPackets > packets/2 && c.Out.Step < 255 {
			t.Errorf("after a million packets at once, one of %d is looked at", c.Out.Step+1)
		}
	}
	if n != packets {
		t.Errorf("%d packets were counted, want %d", n, packets)
	}
}

// loopback has w.a's port on the loopback device, from which test runs that repeat come.
func (w *world) loopback() uint32 {
	const lo = 1
	a := w.set.Ports[uint32(w.a.Index)]
	a.IfIndex = lo
	delete(w.set.Ports, uint32(w.a.Index))
	w.set.Ports[lo] = a
	for k, r := range w.set.Records {
		if r.IfIndex == uint32(w.a.Index) {
			r.IfIndex = lo
			w.set.Records[k] = r
		}
	}
	w.apply(w.set, true)
	return lo
}
