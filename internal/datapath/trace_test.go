package datapath

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// A trace does what the packet path does and leaves no mark: delivered,
// encapsulated, dropped for the first time and dropped again.
func TestTraceLeavesNoMark(t *testing.T) {
	w := newWorld(t, Options{})
	near := eth(macB, macA, 0x0800, ip4("10.0.0.5", "10.0.0.7", 17, 64, udp(1, 2, 10)))
	far := eth(macR, macA, 0x0800, ip4("10.0.0.5", "10.0.0.6", 17, 64, udp(1, 2, 10)))
	lost := eth(model.RouterMAC(web), macA, 0x0800, ip4("10.0.0.5", "172.16.0.1", 17, 64, udp(1, 2, 10)))
	spoofed := eth(macB, macA, 0x0800, ip4("10.0.0.7", "10.0.0.5", 17, 64, udp(1, 2, 10)))
	home := w.outerFrame(web, eth(macA, macR, 0x0800, ip4("10.0.0.6", "10.0.0.5", 17, 64, udp(1, 2, 30))))
	forged := w.outerFrame(web, eth(macA, macD, 0x0800, ip4("10.0.0.6", "10.0.0.5", 17, 64, udp(1, 2, 30))))
	w.expect(FromPort, w.a, spoofed, model.VerdictSpoofedCa, nil) // a row that a trace could move
	events, err := w.Events(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if e := <-events; e.Reason != model.VerdictSpoofedCa {
		t.Fatalf("event of %s", e.Reason)
	}
	drops, traffic := w.counters()

	for _, in := range []struct {
		program Program
		ifindex int
		frame   []byte
		want    model.Verdict
	}{
		{FromPort, w.a.Index, near, model.VerdictDelivered},
		{FromPort, w.a.Index, far, model.VerdictEncapsulated},
		{FromPort, w.a.Index, lost, model.VerdictNoRoute},
		{FromPort, w.a.Index, spoofed, model.VerdictSpoofedCa},
		{FromUplink, w.u.Index, home, model.VerdictDelivered},
		{FromUplink, w.u.Index, forged, model.VerdictSourceNotInPolicy},
	} {
		got, err := w.Trace(in.program, uint32(in.ifindex), in.frame)
		if err != nil || got.Verdict != in.want {
			t.Errorf("trace: %s (%v), want %s", got.Verdict, err, in.want)
		}
	}
	afterDrops, afterTraffic := w.counters()
	if d := cmp.Diff(drops, afterDrops) + cmp.Diff(traffic, afterTraffic); d != "" {
		t.Errorf("traces moved counters (-before +after):\n%s", d)
	}
	// The next event is of a packet that came after all the traces.
	w.expect(FromPort, w.a, lost, model.VerdictNoRoute, nil)
	if e := <-events; e.Reason != model.VerdictNoRoute || !bytes.Equal(e.Head, lost[:len(e.Head)]) {
		t.Errorf("a trace told an event: %s", e.Reason)
	}
	if e, ok := oneMore(events); ok {
		t.Errorf("a trace told an event: %s", e.Reason)
	}

	// Traces see what the tables hold now.
	less := w.policy()
	delete(less.Records, table.RecordKey{VSID: web, CA: addr("10.0.0.7")})
	w.apply(less, true)
	if got, err := w.Trace(FromPort, uint32(w.a.Index), near); err != nil || got.Verdict != model.VerdictNoRecord {
		t.Errorf("without the record: %s, %v", got.Verdict, err)
	}
	// The counting program counts, so the comparison above can fail.
	w.expect(FromPort, w.a, near, model.VerdictNoRecord, nil)
	if again, _ := w.counters(); len(again) != len(drops)+2 {
		t.Errorf("counters after a run: %v", again)
	}
}

// oneMore takes an event that waits already.
func oneMore(events <-chan Event) (Event, bool) {
	select {
	case e := <-events:
		return e, true
	default:
		return Event{}, false
	}
}

func (w *world) counters() (map[DropCount]bool, map[model.PortID]TrafficCount) {
	w.t.Helper()
	drops, err := w.Drops()
	if err != nil {
		w.t.Fatal(err)
	}
	traffic, err := w.Traffic()
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[DropCount]bool{}
	for _, d := range drops {
		out[d] = true
	}
	return out, traffic
}

func TestTraceOfAClosedSwitch(t *testing.T) {
	w := newWorld(t, Options{})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Trace(FromPort, uint32(w.a.Index), make([]byte, 64)); err == nil {
		t.Error("a closed switch traces")
	}
}
