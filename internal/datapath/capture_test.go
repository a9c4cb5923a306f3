package datapath

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/model"
)

func startCapture(t *testing.T, h *host, f CaptureFilter) *Capture {
	t.Helper()
	c, err := h.sw.Capture(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// until gathers packets until enough says so.
func (c *Capture) until(t *testing.T, enough func([]Captured) bool) (all []Captured) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for !enough(all) {
		got, err := c.Next(ctx, time.Second)
		if err != nil {
			t.Fatalf("captured only %d packets: %v", len(all), summary(all))
		}
		all = append(all, got...)
	}
	return all
}

// counted is the sum over all points.
func counted(t *testing.T, c *Capture) (sum CaptureCount) {
	t.Helper()
	all, err := c.Count()
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range all {
		sum.Seen += n.Seen
		sum.LostFull += n.LostFull
		sum.LostRate += n.LostRate
		sum.LostQueue += n.LostQueue
	}
	return sum
}

func summary(all []Captured) (out []string) {
	for _, p := range all {
		out = append(out, fmt.Sprintf("%s %s port %d>%d len %d", p.Point, p.Verdict, p.Port, p.ToPort, p.Length))
	}
	return out
}

func at(all []Captured, p CapturePoint) (out []Captured) {
	for _, c := range all {
		if c.Point == p {
			out = append(out, c)
		}
	}
	return out
}

func atLeast(p CapturePoint, n int) func([]Captured) bool {
	return func(all []Captured) bool { return len(at(all, p)) >= n }
}

// A ping between hosts is seen where the guest sent it and where it left, with the
// same walk, and on the other host where it came in and where it was handed over;
// the frames are what they must be, however they cross the underlay.
func TestCaptureSeesAPacketAtEveryPoint(t *testing.T) {
	onEach(t, func(t *testing.T, by carriage) { everyPoint(t, by, DecapTCX) })
	t.Run("stripped by xdp", func(t *testing.T) { everyPoint(t, carriage{}, DecapXDP) })
}

func everyPoint(t *testing.T, by carriage, decap string) {
	a, b := &guest{name: "web-a"}, &guest{name: "web-b"}
	f := newFabricBy(t, by, Options{Decap: decap}, a, b)
	outer := underlayMTU - by.guestMTU()         // of outer headers, with the inner Ethernet header
	icmp := CaptureFilter{Protocols: []uint8{1}} // guests send ICMPv6 of their own accord
	near, far := startCapture(t, f.hosts[0], icmp), startCapture(t, f.hosts[1], icmp)
	f.ping("web-a", b.v4, "-c", "1")

	sent := near.until(t, atLeast(ToGuest, 1))
	out, under, back := at(sent, FromGuest), at(sent, ToUnderlay), at(sent, ToGuest)
	if len(out) != 1 || len(under) != 1 || len(back) != 1 || len(sent) != 4 {
		t.Fatalf("on the sender's host: %q", summary(sent))
	}
	if out[0].Verdict != model.VerdictEncapsulated || out[0].Walk == 0 || out[0].Walk != under[0].Walk || out[0].Port != a.port.ID {
		t.Errorf("from-guest %+v, to-underlay %+v", out[0], under[0])
	}
	if !bytes.Equal(under[0].Frame[outer+14:], out[0].Frame[14:]) || under[0].Length != out[0].Length+outer || !under[0].NoLinkLayer {
		t.Errorf("what left is not what the guest sent, encapsulated")
	}
	got := far.until(t, atLeast(ToUnderlay, 1))
	in, handed := at(got, FromUnderlay), at(got, ToGuest)
	if len(in) != 1 || len(handed) != 1 || handed[0].ToPort != b.port.ID || in[0].Verdict != model.VerdictDelivered || in[0].VSID != web {
		t.Fatalf("on the receiver's host: %q", summary(got))
	}
	if in[0].Stripped != (decap == DecapXDP) {
		t.Errorf("stripped before: %v", in[0].Stripped)
	}
	if inner := in[0].Frame[in[0].Inner:]; !bytes.Equal(inner[14:], out[0].Frame[14:]) {
		t.Errorf("what came in, behind %d bytes, is not what was sent", in[0].Inner)
	}
	if !bytes.Equal(handed[0].Frame[14:], out[0].Frame[14:]) {
		t.Error("what was handed over is not what was sent")
	}
	if d := time.Since(out[0].Time); d < 0 || d > 20*time.Second || handed[0].Time.Before(out[0].Time) {
		t.Errorf("times: sent %v ago, handed over %v later", d, handed[0].Time.Sub(out[0].Time))
	}
}

// What is dropped is shown as it came, with its reason, and the ICMP error that the
// guest got instead.
func TestCaptureSeesDrops(t *testing.T) {
	a, b := &guest{name: "web-a", mtu: 1500}, &guest{name: "web-b"}
	f := newFabric(t, Options{Decap: DecapTCX}, a, b)
	for _, filter := range []CaptureFilter{
		{Points: []CapturePoint{Dropped, ToGuest}, Protocols: []uint8{1}},
		{Protocols: []uint8{1}},
		{Points: []CapturePoint{Dropped}, Reason: model.VerdictTooBig},
	} {
		c := startCapture(t, f.hosts[0], filter)
		f.guests["web-a"].run(t, "ip", "route", "flush", "cache") // and the path MTU of the last round with it
		f.guests["web-a"].run(t, "ping", "-n", "-M", "do", "-s", "1472", "-c", "1", "-W", "1", b.v4.String())
		got := c.until(t, atLeast(Dropped, 1))
		d := at(got, Dropped)[0]
		if d.Verdict != model.VerdictTooBig || d.Port != a.port.ID || d.Length != 1514 && len(filter.Points) == 0 {
			t.Errorf("dropped: %+v", d)
		}
		if len(d.Frame) < 100 || !bytes.Equal(d.Frame[26:30], a.v4.AsSlice()) {
			t.Errorf("the dropped frame: % x", d.Frame)
		}
		want := len(filter.Points) != 1
		if e := at(got, ToGuest); want != (len(e) == 1) || want && (!e[0].Error || e[0].Frame[34] != 3) {
			t.Errorf("the error: %q", summary(got))
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if n := counted(t, c); n.Seen != uint64(len(got)+len(c.take())) || n.Lost() != 0 {
			t.Errorf("counted %+v, %d packets", n, len(got))
		}
	}
}

// A capture of one port is not told of others, and never of another tenant's with
// the same addresses.
func TestCaptureOfAPort(t *testing.T) {
	a, x, b, y := &guest{name: "web-a"}, &guest{name: "web-b"}, &guest{name: "web-c", as: 1, blue: true}, &guest{name: "web-d", as: 2, blue: true}
	f := newFabric(t, Options{Decap: DecapTCX}, a, x, b, y)
	c := startCapture(t, f.hosts[0], CaptureFilter{Port: a.port.ID, Addresses: []netip.Addr{x.v4, a.v4}})
	other := startCapture(t, f.hosts[0], CaptureFilter{Port: b.port.ID, EtherType: 0x0800, L4Port: 9, Protocols: []uint8{17}})
	f.ping("web-c", y.v4)
	f.ping("web-a", x.v4, "-c", "1")
	for _, p := range c.until(t, atLeast(ToGuest, 1)) {
		if p.Port != a.port.ID {
			t.Errorf("%+v", p)
		}
	}
	if n := counted(t, other); n.Seen != 0 {
		t.Errorf("%d packets passed a filter that nothing matches", n.Seen)
	}
}

// Everything is bounded, and what does not fit is counted: all that matched was
// either delivered or is in the count of the lost.
func TestCaptureCountsWhatItLoses(t *testing.T) {
	a, b := &guest{name: "web-a"}, &guest{name: "web-b"}
	f := newFabric(t, Options{Decap: DecapTCX}, a, b)
	for name, filter := range map[string]CaptureFilter{"rate": {Rate: 100}, "reader": {}} {
		c := startCapture(t, f.hosts[0], filter)
		f.send("web-a", "web-b", b.v4, 40<<20)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		n := counted(t, c)
		got := uint64(len(c.take()))
		if n.Lost() == 0 || got+n.Lost() != n.Seen {
			t.Errorf("%s: %d delivered, %+v", name, got, n)
		}
		t.Logf("%s: %d delivered, %+v", name, got, n)
	}
}

// With the last capture the programs of before are back, also on a device that came
// while it was on.
func TestCaptureLeavesNothing(t *testing.T) {
	a, b := &guest{name: "web-a"}, &guest{name: "web-b"}
	f := newFabric(t, Options{Decap: DecapTCX}, a, b)
	h := f.hosts[0]
	before := programsOf(t, h.sw)
	first, second := startCapture(t, h, CaptureFilter{}), startCapture(t, h, CaptureFilter{})
	during := programsOf(t, h.sw)
	for n, id := range during {
		if id == before[n] {
			t.Errorf("%s does not show packets", n)
		}
	}
	h.sw.DetachPort(a.port.IfIndex)
	inside(t, h.ns, func() {
		if err := h.sw.AttachPort(a.port.IfIndex); err != nil {
			t.Error(err)
		}
	})
	f.ping("web-a", b.v4, "-c", "1")
	first.until(t, atLeast(FromGuest, 1))
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	f.ping("web-a", b.v4, "-c", "1")
	second.until(t, atLeast(FromGuest, 2))
	if err := second.Close(); err != nil {
		t.Fatal(err)
	}
	if err := second.Close(); err != nil {
		t.Error(err)
	}
	after := programsOf(t, h.sw)
	for n, id := range before {
		if after[n] != id {
			t.Errorf("%s: program %d, was %d", n, after[n], id)
		}
	}
	f.ping("web-a", b.v4, "-c", "1")
	// A full house is an error, and room again is none.
	var all []*Capture
	for range captureSlots {
		all = append(all, startCapture(t, h, CaptureFilter{}))
	}
	if _, err := h.sw.Capture(CaptureFilter{}); err == nil {
		t.Error("one capture too many was taken")
	}
	all[3].Close()
	startCapture(t, h, CaptureFilter{}).Close()
}

func programsOf(t *testing.T, s *Switch) map[linkName]int {
	t.Helper()
	out := map[linkName]int{}
	for n, l := range s.links {
		info, err := l.Info()
		if err != nil {
			t.Fatal(err)
		}
		out[n] = int(info.Program)
	}
	return out
}

// A process that dies in a capture leaves a switch that forwards, stops showing by
// itself, and has its usual programs back when the next process opens it.
func TestCaptureOfADeadProcess(t *testing.T) {
	a, b := &guest{name: "web-a"}, &guest{name: "web-b"}
	f := newFabric(t, Options{Decap: DecapTCX}, a, b)
	h := f.hosts[0]
	pin := fmt.Sprintf("/sys/fs/bpf/wdp-capture-%d", os.Getpid())
	t.Cleanup(func() { Remove(pin) })
	var old *Switch
	inside(t, h.ns, func() {
		h.sw.Close()
		old = f.openSwitch(h, Options{Decap: DecapTCX, PinDir: pin})
	})
	c, err := old.Capture(CaptureFilter{})
	if err != nil {
		t.Fatal(err)
	}
	captured := programsOf(t, old)
	close(old.capture.stop) // no renewal any more, as if the process were gone
	old.capture.stop = make(chan struct{})
	f.ping("web-a", b.v4)
	c.until(t, atLeast(FromGuest, 3))
	var next *Switch
	inside(t, h.ns, func() {
		var err error
		if next, err = Open(Options{Decap: DecapTCX, PinDir: pin}); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		return
	}
	t.Cleanup(func() { next.Close() })
	for n, id := range programsOf(t, next) {
		if id == captured[n] {
			t.Errorf("%s still is the program of the capture", n)
		}
	}
	f.ping("web-a", b.v4)
	// The lease ends by itself.
	deadline := time.Now().Add(2 * captureLease)
	for {
		var row captureFilterRow
		if err := old.maps["capture_filter"].Lookup(c.slot, &row); err != nil {
			t.Fatal(err)
		}
		if row.Until < monotonic() {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the lease does not end")
		}
		<-time.After(captureTick)
	}
}

func TestJoinerPairsBeginningsWithEnds(t *testing.T) {
	row := func(point CapturePoint, walk uint32, v model.Verdict) captureEventRow {
		return captureEventRow{Point: uint8(point), Walk: walk, Verdict: uint8(v), Slots: 1, Caplen: 4, Length: 4}
	}
	encode := func(r captureEventRow) []byte {
		b, err := binary.Append(nil, binary.NativeEndian, r)
		if err != nil || len(b) != captureEventLen {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
		return append(b, 1, 2, 3, 4, 0, 0, 0, 0)
	}
	j := joiner{begun: map[int]*beginning{}}
	j.record(0, encode(row(FromGuest, 7, 0)))
	j.record(1, encode(row(FromGuest, 7, 0))) // the same number on another CPU is another walk
	j.record(0, encode(row(ToUnderlay, 7, model.VerdictEncapsulated)))
	j.record(0, encode(row(FromGuest, 8, 0))) // its end is lost
	j.record(0, encode(row(FromGuest, 9, 0)))
	j.record(0, []byte("short"))
	j.settle(true)
	var got []model.Verdict
	for _, p := range j.take() {
		got = append(got, p.Verdict)
	}
	slices.Sort(got)
	if want := []model.Verdict{0, 0, 0, model.VerdictEncapsulated, model.VerdictEncapsulated}; !slices.Equal(got, want) {
		t.Errorf("verdicts %v, want %v", got, want)
	}
}
