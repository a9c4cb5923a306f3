package packet

import (
	"fmt"
	"testing"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
)

func TestStoriesInTheProgram(t *testing.T) {
	site, sw := newSite(t), load(t)
	for _, st := range stories(site) {
		t.Run(st.name, func(t *testing.T) {
			apply(t, sw, st.policy(site))
			want := count(t, sw)
			got, err := run(sw, st.in)
			if err != nil {
				t.Fatal(err)
			}
			if !got.equal(st.want) {
				t.Fatalf("%s\ngot  %s\nwant %s", st.in, got, st.want)
			}
			said := oracle(site, st.policy(site), st.in)
			want.add(st.in, sim.Result{Verdict: st.want.verdict, Frame: st.want.frame, Port: st.port, To: st.to, Copies: st.made, Lost: st.lost, Inbound: st.inbound || st.in.inbound(), Hits: said.Hits, Rule: said.Rule, Denied: st.denied, DeniedBy: said.DeniedBy})
			want.check(t, count(t, sw))
		})
	}
}

// counters is everything that the switch counts.
type counters struct {
	drops   map[dropKey]tally
	traffic map[model.PortID]datapath.TrafficCount
	hits    map[model.RuleID]datapath.RuleHits
}

type dropKey struct {
	reason    model.Verdict
	direction datapath.Direction
	port      model.PortID
	rule      model.RuleID
}

type tally struct{ packets, bytes uint64 }

func count(t *testing.T, sw *datapath.Switch) counters {
	t.Helper()
	drops, err := sw.Drops()
	if err != nil {
		t.Fatal(err)
	}
	traffic, err := sw.Traffic()
	if err != nil {
		t.Fatal(err)
	}
	hits, err := sw.RuleHits()
	if err != nil {
		t.Fatal(err)
	}
	c := counters{map[dropKey]tally{}, traffic, hits}
	for _, d := range drops {
		c.drops[dropKey{d.Reason, d.Direction, d.Port, d.Rule}] = tally{d.Packets, d.Bytes}
	}
	return c
}

// add counts what r says of a frame, as docs/design/pipeline.md has it under Counters.
func (c counters) add(in packetIn, r sim.Result) {
	length := uint64(len(in.frame))
	direction := datapath.Outbound
	if r.Inbound {
		direction = datapath.Inbound
	}
	drop := func(reason model.Verdict) {
		key := dropKey{reason, direction, r.Port, model.RuleID{}}
		if reason == model.VerdictAclDenied {
			key.rule = r.Rule
		}
		c.drops[key] = tally{c.drops[key].packets + 1, c.drops[key].bytes + length}
	}
	for _, reason := range r.Lost {
		drop(reason)
	}
	for i, port := range r.Denied {
		key := dropKey{model.VerdictAclDenied, datapath.Inbound, port, r.DeniedBy[i]}
		c.drops[key] = tally{c.drops[key].packets + 1, c.drops[key].bytes + length}
	}
	for _, id := range r.Hits {
		n := c.hits[id]
		c.hits[id] = datapath.RuleHits{Packets: n.Packets + 1, Bytes: n.Bytes + length}
	}
	for _, to := range r.Copies {
		if to.To != 0 {
			n := c.traffic[to.To]
			n.InPackets, n.InBytes = n.InPackets+1, n.InBytes+untaggedLen(to.Frame)
			c.traffic[to.To] = n
		}
	}
	switch {
	case r.Verdict == model.VerdictPass:
		return
	case r.Verdict.IsDrop():
		drop(r.Verdict)
		return
	}
	if !r.Inbound {
		n := c.traffic[r.Port]
		n.OutPackets, n.OutBytes = n.OutPackets+1, n.OutBytes+length
		c.traffic[r.Port] = n
	}
	if r.To != 0 {
		n := c.traffic[r.To]
		n.InPackets, n.InBytes = n.InPackets+1, n.InBytes+untaggedLen(r.Frame)
		c.traffic[r.To] = n
	}
}

// untaggedLen is the length of a frame without the tag that the kernel keeps beside it.
func untaggedLen(f []byte) uint64 {
	if len(f) > 14 && f[12] == 0x81 && f[13] == 0 {
		return uint64(len(f) - 4)
	}
	return uint64(len(f))
}

// differences compares every counter, those of zero too.
func (c counters) differences(got counters) []string {
	var out []string
	for key, want := range c.drops {
		if got.drops[key] != want {
			out = append(out, fmt.Sprintf("drops of %v: %+v, want %+v", key, got.drops[key], want))
		}
	}
	for key, n := range got.drops {
		if _, ok := c.drops[key]; !ok && n != (tally{}) {
			out = append(out, fmt.Sprintf("drops of %v: %+v, want none", key, n))
		}
	}
	for id, want := range c.traffic {
		if got.traffic[id] != want {
			out = append(out, fmt.Sprintf("traffic of port %d: %+v, want %+v", id, got.traffic[id], want))
		}
	}
	for id, n := range got.traffic {
		if _, ok := c.traffic[id]; !ok && n != (datapath.TrafficCount{}) {
			out = append(out, fmt.Sprintf("traffic of port %d: %+v, want none", id, n))
		}
	}
	for id, want := range c.hits {
		if got.hits[id] != want {
			out = append(out, fmt.Sprintf("hits of rule %s: %+v, want %+v", id, got.hits[id], want))
		}
	}
	return out
}

func (c counters) check(t *testing.T, got counters) {
	t.Helper()
	for _, d := range c.differences(got) {
		t.Error(d)
	}
}

// load loads the program.
func load(tb testing.TB) *datapath.Switch {
	tb.Helper()
	return loadSwitch(tb, datapath.DecapTCX, true)
}

// loadWith loads a program that really sends.
func loadWith(tb testing.TB, decap string) *datapath.Switch {
	tb.Helper()
	return loadSwitch(tb, decap, false)
}

func loadSwitch(tb testing.TB, decap string, rehearse bool) *datapath.Switch {
	tb.Helper()
	sw, err := datapath.Open(datapath.Options{Decap: decap, MaxRecords: 4096, MaxRoutes: 4096, MaxPeers: 256, Rehearse: rehearse, Recycle: true})
	if err != nil {
		tb.Fatalf("loading the switch: %v", err)
	}
	tb.Cleanup(func() {
		if err := sw.Close(); err != nil {
			tb.Errorf("closing the switch: %v", err)
		}
	})
	return sw
}

// apply makes the program's maps hold exactly set, and what earlier packets left is forgotten.
func apply(tb testing.TB, sw *datapath.Switch, set table.Set) {
	tb.Helper()
	if err := sw.Apply(set, true); err != nil {
		tb.Fatalf("applying the policy: %v", err)
	}
	if err := sw.SetGroups(set.Groups); err != nil {
		tb.Fatalf("writing the groups: %v", err)
	}
	if err := sw.ForgetConnections(); err != nil {
		tb.Fatalf("forgetting connections: %v", err)
	}
}

// run is one run of the loaded program.
func run(sw *datapath.Switch, in packetIn) (outcome, error) {
	r, err := sw.RunGSO(in.program, in.ifindex, in.frame, in.gsoSize)
	if err != nil {
		return outcome{}, err
	}
	return shown(r), nil
}

func shown(r datapath.RunResult) outcome {
	o := outcome{verdict: r.Verdict, ifindex: r.IfIndex}
	if r.IfIndex != 0 || r.Verdict == model.VerdictPass {
		o.frame = r.Frame
	}
	if r.Verdict == model.VerdictPass {
		o.frame = append(o.frame, copies(made(r.Copies))...)
	}
	if r.Verdict == model.VerdictFlooded {
		o.frame = copies(made(r.Copies))
	}
	return o
}

// made are the copies that a run of the program has recorded.
func made(all []datapath.Copy) []sim.Copy {
	var out []sim.Copy
	for _, c := range all {
		out = append(out, sim.Copy{IfIndex: c.IfIndex, Frame: c.Frame})
	}
	return out
}
