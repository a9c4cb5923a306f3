package datapath

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

func (w *world) same(want table.Set) {
	w.t.Helper()
	got, err := w.ReadBack()
	if err != nil {
		w.t.Error(err)
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		w.t.Errorf("the kernel holds something else (-want +got):\n%s", d)
	}
}

func (w *world) apply(s table.Set, sweep bool) {
	w.t.Helper()
	if err := w.Apply(s, sweep); err != nil {
		w.t.Error(err)
	}
}

func TestApplyIsWhatTheKernelHolds(t *testing.T) {
	w := newWorld(t, Options{})
	w.same(w.set)

	less := w.policy()
	a := uint32(w.a.Index)
	delete(less.Ports, a)
	delete(less.Records, table.RecordKey{VSID: web, CA: addr("10.0.0.6")})
	delete(less.Routes, table.RouteKey{Network: red, Prefix: prefix("10.0.1.0/24")})
	w.apply(less, false)
	w.same(w.set) // nothing is deleted before the first complete sync
	w.apply(less, true)
	w.same(less)

	moved := w.policy()
	p := moved.Ports[a]
	p.MAC, p.VSID = model.MAC{2, 0, 0, 0, 9, 9}, db
	p.StormLimit, p.Connections = 7, 300
	moved.Ports[a] = p
	moved.Routes[table.RouteKey{Network: red, Prefix: prefix("0.0.0.0/0")}] = table.Route{VSID: web, NextHop: addr("10.0.0.7")}
	moved.Routes[table.RouteKey{Network: red, Prefix: prefix("::/0")}] = table.Route{VSID: db, NextHop: addr("fd00:b::7")}
	delete(moved.Peers, paR)
	delete(moved.LocalPAs, paL)
	moved.LocalPAs[addr("192.0.2.77")] = struct{}{}
	w.apply(moved, true)
	w.same(moved)

	w.apply(table.NewSet(), true)
	w.same(table.NewSet())
	w.apply(w.set, true)
	w.same(w.set)
}

func TestApplyRefusesWhatDoesNotFit(t *testing.T) {
	w := newWorld(t, Options{MaxRecords: 16, MaxPeers: 2})
	big := w.policy()
	for i := range 10 {
		big.Records[table.RecordKey{VSID: web, CA: netip.AddrFrom4([4]byte{10, 0, 0, byte(100 + i)})}] = table.Record{MAC: macR, PA: paR}
	}
	var full *ErrFull
	if err := w.Apply(big, true); !errors.As(err, &full) || full.Table != "records" || full.Need != 24 || full.Limit != 16 {
		t.Errorf("want 24 records to be refused, have %v", err)
	}
	w.same(w.set)

	// Exactly as many as there is room for, all of them new: the old must go first.
	other := w.policy()
	clear(other.Records)
	for i := range 16 {
		other.Records[table.RecordKey{VSID: db, CA: netip.AddrFrom4([4]byte{10, 0, 1, byte(100 + i)})}] = table.Record{MAC: macR, PA: addr("192.0.2.3")}
	}
	w.apply(other, true)
	w.same(other)

	hosts := w.policy()
	for i := range 3 {
		hosts.Peers[netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)})] = table.Peer{PA: netip.AddrFrom4([4]byte{192, 0, 2, byte(10 + i)})}
	}
	if err := w.Apply(hosts, true); !errors.As(err, &full) || full.Table != "peers" {
		t.Errorf("want the peers to be refused, have %v", err)
	}
	w.same(other)
}

func TestOneBadRowCostsOnlyItself(t *testing.T) {
	w := newWorld(t, Options{})
	bad := w.policy()
	k := table.RecordKey{VSID: web, CA: addr("10.0.0.99")}
	bad.Records[k] = table.Record{MAC: macR, PA: addr("::ffff:192.0.2.9")}
	good := table.RecordKey{VSID: web, CA: addr("10.0.0.98")}
	bad.Records[good] = table.Record{MAC: macR, PA: paR}
	err := w.Apply(bad, true)
	if err == nil || !strings.Contains(err.Error(), "10.0.0.99") {
		t.Errorf("want an error that names the record, have %v", err)
	}
	delete(bad.Records, k)
	w.same(bad)
}

func TestReopenKeepsIndicesAndCounters(t *testing.T) {
	pins := pinDir(t)
	w := newWorld(t, Options{PinDir: pins})
	third := addr("192.0.2.3")
	w.set.Peers[third] = table.Peer{PA: third, IfIndex: uint32(w.u.Index), MTU: 1500}
	w.set.Records[table.RecordKey{VSID: web, CA: addr("10.0.0.33")}] = table.Record{MAC: macR, PA: third}
	w.apply(w.set, true)
	frame := eth(macB, macA, 0x0800, ip4("10.0.0.5", "10.0.0.7", 17, 64, udp(1, 2, 10)))
	w.expect(FromPort, w.a, frame, model.VerdictDelivered, w.b)
	peers, slots := w.peers.of, w.slots
	w.Close()

	w.Switch = open(t, Options{PinDir: pins})
	w.same(w.set)
	if d := cmp.Diff(fmt.Sprint(peers, slots), fmt.Sprint(w.peers.of, w.slots)); d != "" {
		t.Error("indices changed:", d)
	}
	traffic, err := w.Traffic()
	n := uint64(len(frame))
	if want := (TrafficCount{OutPackets: 1, OutBytes: n}); err != nil || traffic[1] != want {
		t.Errorf("port 1: %+v (%v), want %+v", traffic[1], err, want)
	}
	if want := (TrafficCount{InPackets: 1, InBytes: n}); traffic[3] != want {
		t.Errorf("port 3: %+v, want %+v", traffic[3], want)
	}
	delete(w.set.Records, table.RecordKey{VSID: web, CA: addr("10.0.0.33")})
	delete(w.set.Peers, third)
	w.apply(w.set, true)
	w.same(w.set)
	if _, ok := w.peers.of[third]; ok {
		t.Error("an index that nobody uses is still taken")
	}
	w.Close()

	w.Switch = open(t, Options{PinDir: pins, MaxRecords: 1000, MaxPorts: 100, MaxPeers: 9, MaxRoutes: 50}) // other sizes: rows move
	w.same(w.set)
	w.expect(FromPort, w.a, frame, model.VerdictDelivered, w.b)
	if traffic, _ := w.Traffic(); traffic[1].OutPackets != 2 {
		t.Errorf("port 1 has counted %d packets, want 2", traffic[1].OutPackets)
	}
}

// A map of another layout means: the running switch goes on with its own until the
// new one knows policy.
func TestNewLayoutTakesOverAfterApply(t *testing.T) {
	pins := pinDir(t)
	w := newWorld(t, Options{PinDir: pins})
	if err := w.AttachPort(uint32(w.a.Index)); err != nil {
		t.Fatal(err)
	}
	rule := portRule("dns", table.Allow, 53)
	rule.Stateful, rule.Idle = true, time.Minute
	w.judge(uint32(w.a.Index), rule)
	w.apply(w.set, true)
	follows := func(when string) {
		t.Helper()
		if all, _, _, err := w.Connections(w.set.Ports[uint32(w.a.Index)].ID); err != nil || len(all) != 1 {
			t.Errorf("%s %d connections are followed (%v), want 1", when, len(all), err)
		}
	}
	w.expect(FromPort, w.a, dns(), model.VerdictEncapsulated, w.u)
	follows("first")
	before := w.programOf(linkName{progFromPort, uint32(w.a.Index)})
	w.Close()
	old := filepath.Join(pins, "maps-0")
	if err := os.Rename(filepath.Join(pins, fmt.Sprintf("maps-%d", layout)), old); err != nil {
		t.Fatal(err)
	}
	w.Switch = open(t, Options{PinDir: pins})
	if now := w.programOf(linkName{progFromPort, uint32(w.a.Index)}); now != before {
		t.Error("the program was replaced while its maps were empty")
	}
	w.apply(w.set, true)
	if now := w.programOf(linkName{progFromPort, uint32(w.a.Index)}); now == before {
		t.Error("the program was not replaced although policy is there")
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Error("the old maps are still pinned:", err)
	}
	w.same(w.set)
	follows("under the new layout")
	w.expect(FromPort, w.a, dns(), model.VerdictEncapsulated, w.u)
	follows("after another packet of it")
}

func (w *world) programOf(n linkName) ebpf.ProgramID {
	w.t.Helper()
	info, err := w.links[n].Info()
	if err != nil {
		w.t.Fatal(err)
	}
	return info.Program
}

func TestAttachIsIdempotentAndForgetsTheDead(t *testing.T) {
	pins := pinDir(t)
	w := newWorld(t, Options{PinDir: pins})
	a, b, u := uint32(w.a.Index), uint32(w.b.Index), uint32(w.u.Index)
	for range 2 {
		if err := errors.Join(w.AttachPort(a), w.AttachPort(b), w.AttachUplink(u)); err != nil {
			t.Fatal(err)
		}
	}
	attached := func(want string) {
		t.Helper()
		ports, uplinks, err := w.Attached()
		if got := fmt.Sprint(ports, uplinks); err != nil || got != want {
			t.Errorf("attached to %s (%v), want %s", got, err, want)
		}
	}
	attached(fmt.Sprintf("[%d %d] [%d]", a, b, u))
	w.Close()
	ip(t, "link", "delete", "dev", "b")
	w.Switch = open(t, Options{PinDir: pins})
	attached(fmt.Sprintf("[%d] [%d]", a, u))
	if files, _ := os.ReadDir(filepath.Join(pins, "links")); len(files) != 3 {
		t.Errorf("%d links are pinned, want 3", len(files))
	}
	ip(t, "link", "delete", "dev", "a")
	attached(fmt.Sprintf("[] [%d]", u))
	if err := errors.Join(w.DetachPort(a), w.DetachUplink(u), w.DetachUplink(u)); err != nil {
		t.Error(err)
	}
	attached("[] []")
	if err := w.AttachPort(99999); err == nil {
		t.Error("attached to a device that does not exist")
	}
	w.Close()
	if err := Remove(pins); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(pins); !errors.Is(err, os.ErrNotExist) {
		t.Error("something is left of the pins:", err)
	}
	if err := Remove(pins); err != nil {
		t.Error("removing twice:", err)
	}
}

// isHead tells whether an event shows the frame, as much as there is room for.
func isHead(head, frame []byte) bool {
	return len(head) >= 64 && bytes.HasPrefix(frame, head)
}

func TestDropsAreCountedAndTold(t *testing.T) {
	w := newWorld(t, Options{})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	events, err := w.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	frame := eth(macB, macA, 0x0800, ip4("10.0.0.77", "10.0.0.7", 17, 64, udp(1, 2, 100)))
	for range 5 {
		w.expect(FromPort, w.a, frame, model.VerdictSpoofedCa, nil)
	}
	e := <-events
	if e.Reason != model.VerdictSpoofedCa || e.Direction != Outbound || e.Port != 1 || e.IfIndex != uint32(w.a.Index) ||
		int(e.Length) != len(frame) || !isHead(e.Head, frame) || time.Since(e.Time).Abs() > time.Minute {
		t.Errorf("event %+v", e)
	}
	tooOld := eth(macR, macA, 0x0800, ip4("10.0.0.5", "10.0.1.5", 17, 1, udp(1, 2, 100)))
	w.expect(FromPort, w.a, tooOld, model.VerdictTtlExceeded, w.a)
	if e := <-events; e.Reason != model.VerdictTtlExceeded || !isHead(e.Head, tooOld) || int(e.Length) != len(tooOld) {
		t.Errorf("event %+v: want the packet itself, not the error about it", e)
	}
	drops, err := w.Drops()
	want := []DropCount{{model.VerdictSpoofedCa, Outbound, 1, 5, uint64(5 * len(frame)), model.RuleID{}}, {model.VerdictTtlExceeded, Outbound, 1, 1, uint64(len(tooOld)), model.RuleID{}}}
	if err != nil || len(drops) != 2 || drops[0] != want[0] && drops[1] != want[0] || drops[0] != want[1] && drops[1] != want[1] {
		t.Errorf("drops %+v (%v), want %+v", drops, err, want)
	}
	delete(w.set.Ports, uint32(w.a.Index))
	w.apply(w.set, true)
	if drops, _ := w.Drops(); len(drops) != 0 {
		t.Errorf("drops of a port that is gone: %+v", drops)
	}
	cancel()
	for range events {
	}
}

// No count is lost when the map of the counters is full: port 0 takes it.
func TestFullDropMapCounts(t *testing.T) {
	w := newWorld(t, Options{MaxPorts: 8})
	drop := w.maps["drop"]
	for i := range drop.MaxEntries() {
		drop.Put(dropKey{Reason: 255, Port: 1000 + i}, dropRow{}) // until it is full
	}
	w.expect(FromPort, w.a, eth(macB, macB, 0x0800, ip4("10.0.0.5", "10.0.0.7", 17, 64, nil)), model.VerdictSpoofedMac, nil)
	drops, err := w.Drops()
	if err != nil || len(drops) != 1 || drops[0].Port != 0 || drops[0].Reason != model.VerdictSpoofedMac {
		t.Errorf("drops %+v (%v), want one of port 0", drops, err)
	}
}

// The figures belong into bpf/README.md; the limit catches a stage that explodes.
func TestVerifierBudget(t *testing.T) {
	enterNetns(t)
	for name, n := range processed(t, false) {
		t.Logf("%-12s %6d instructions processed", name, n)
		if n == 0 || n > 120_000 {
			t.Errorf("%s: the verifier walks %d instructions, of a million that it may", name, n)
		}
	}
	for name, n := range processed(t, true) {
		t.Logf("while a capture is on: %d instructions for %s", n, name)
		if n == 0 || n > 140_000 {
			t.Errorf("%s, while a capture is on: the verifier walks %d instructions, of a million that it may", name, n)
		}
	}
}

// processed are the instructions that the verifier walks, by program.
func processed(t *testing.T, capturing bool) map[string]int {
	t.Helper()
	spec, err := loadVswitch()
	if err == nil && capturing {
		err = spec.Variables["capture_on"].Set(uint32(1))
	}
	if err != nil {
		t.Fatal(err)
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	out := map[string]int{}
	for name, p := range c.Programs {
		at := strings.Index(p.VerifierLog, "processed ")
		if at < 0 {
			t.Fatalf("%s: no figures in %q", name, p.VerifierLog)
		}
		var n int
		fmt.Sscanf(p.VerifierLog[at:], "processed %d insns", &n)
		out[name] = n
	}
	return out
}

func TestXDPIsDetachedFirst(t *testing.T) {
	names := []linkName{{progFromUplink, 3}, {progToPort, 4}, {progXDP, 3}, {progFromPort, 4}}
	slices.SortFunc(names, detachOrder)
	if names[0].program != progXDP {
		t.Error("stripped frames would reach the host's stack:", names)
	}
}

// A limit below what the running switch holds is refused with what to do about it;
// what runs goes on, and the limit that is named is enough.
func TestLimitsBelowWhatRunsAreRefused(t *testing.T) {
	pins := pinDir(t)
	w := newWorld(t, Options{PinDir: pins})
	if err := w.AttachPort(uint32(w.a.Index)); err != nil {
		t.Fatal(err)
	}
	third := addr("192.0.2.3")
	w.set.Peers[third] = table.Peer{PA: third, IfIndex: uint32(w.u.Index), MTU: 1500}
	w.apply(w.set, true)
	w.Close()
	for _, c := range []struct {
		name string
		o    Options
		set  func(*Options, uint32)
	}{
		{"ports", Options{MaxPorts: 1}, func(o *Options, n uint32) { o.MaxPorts = n }},
		{"records", Options{MaxRecords: 3}, func(o *Options, n uint32) { o.MaxRecords = n }},
		{"routes", Options{MaxRoutes: 1}, func(o *Options, n uint32) { o.MaxRoutes = n }},
		{"peers", Options{MaxPeers: 1}, func(o *Options, n uint32) { o.MaxPeers = n }},
	} {
		c.o.PinDir = pins
		s, err := Open(c.o)
		if err == nil {
			s.Close()
			t.Errorf("%s: opened with limits %+v", c.name, c.o)
			continue
		}
		var full *ErrFull
		if !errors.As(err, &full) || full.Table != c.name || full.Map == "" || full.Need <= full.Limit {
			t.Errorf("%s: refused with %v", c.name, err)
			continue
		}
		if want := fmt.Sprintf("set limits.%s of the agent to %d", c.name, full.Need); !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q does not say %q", c.name, err, want)
		}
		o := Options{PinDir: pins}
		c.set(&o, uint32(full.Need))
		w.Switch = open(t, o)
		w.same(w.set)
		if _, err := w.Traffic(); err != nil {
			t.Errorf("%s: traffic at the limit that was asked for: %v", c.name, err)
		}
		w.Close()
	}
	w.Switch = open(t, Options{PinDir: pins})
	w.same(w.set)
}

// A port keeps the number of its counters: it must be one that the new limit has.
func TestLimitBelowACountersNumberIsRefused(t *testing.T) {
	pins := pinDir(t)
	w := newWorld(t, Options{PinDir: pins})
	for i, slot := range w.slots {
		if slot == 0 {
			delete(w.set.Ports, i) // the others keep theirs, and there are fewer ports than the highest number
		}
	}
	w.apply(w.set, true)
	n := uint32(len(w.set.Ports))
	w.Close()
	s, err := Open(Options{PinDir: pins, MaxPorts: n})
	var full *ErrFull
	if !errors.As(err, &full) || full.Table != "ports" || full.Need != int(n)+1 {
		if err == nil {
			_, err = s.Traffic()
			s.Close()
		}
		t.Errorf("want %d ports to be asked for, have %v", n+1, err)
	}
}

// A row of local_mac that could not be written is written by the next Apply, though
// the ports are the same then.
func TestLocalMACIsMendedByTheNextApply(t *testing.T) {
	w := newWorld(t, Options{MaxPorts: 4})
	p := w.set.Ports[uint32(w.a.Index)]
	full := w.maps["local_mac"]
	junk := func(i byte) localMACKey { return localMACKey{VSID: 9000, MAC: model.MAC{2, 9, 9, 9, 9, i}} }
	n := byte(0)
	for full.Put(junk(n), portRow{}) == nil {
		n++
	}
	moved := w.policy()
	p.MAC = model.MAC{2, 0, 0, 0, 9, 9}
	moved.Ports[p.IfIndex] = p
	if err := w.Apply(moved, true); err == nil {
		t.Fatal("the row found room in a full map")
	}
	for i := range n {
		if err := full.Delete(junk(i)); err != nil {
			t.Fatal(err)
		}
	}
	w.apply(moved, true)
	w.same(moved)
}

// A device without native XDP is tried once, and that is said once, until the switch
// has been off it.
func TestNoNativeXDPIsSaidOnce(t *testing.T) {
	var log bytes.Buffer
	w := newWorld(t, Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	ip(t, "link", "add", "plain", "type", "bridge")
	plain := uint32(device(t, "plain").Index)
	for range 3 {
		if err := w.AttachUplink(plain); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(log.String(), "no native xdp"); n != 1 {
		t.Errorf("said %d times:\n%s", n, log.String())
	}
	if err := errors.Join(w.DetachUplink(plain), w.AttachUplink(plain)); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), "no native xdp"); n != 2 {
		t.Errorf("said %d times after the switch was off the device:\n%s", n, log.String())
	}
}
