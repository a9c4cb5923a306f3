package packet

import (
	"encoding/hex"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
)

const (
	diffPolicies         = 1000 // of a normal run
	diffPacketsPerPolicy = 1000
	diffMismatches       = 5 // told before giving up
)

// TestDifferential sends random packets under random policies through the loaded program and
// through the oracle. WEFT_DIFF_TIME ("1h") makes it go on for that long;
// WEFT_DIFF_SEED repeats a run.
func TestDifferential(t *testing.T) {
	d := duel{site: newSite(t), sw: load(t)}
	seed, until := diffSeed(t), diffTime(t)
	t.Logf("seed %d", seed)
	h, started := histogram{}, time.Now()
	packets, told, known, rewritten := 0, 0, 0, 0 // known, and rewritten of these
	for policy := uint64(0); told < diffMismatches && (policy < policies() || time.Since(started) < until); policy++ {
		rng := rand.New(rand.NewPCG(seed, policy))
		w := writer{rng, randomWorld(rng, d.site), false}
		if policy%4 == 0 {
			plain(w.set)
		}
		apply(t, d.sw, w.set)
		if err := d.sw.Vouch(time.Duration(policy%8&4) * time.Hour); err != nil {
			t.Fatal(err)
		}
		again := repeater{rng: rng}
		if held, err := d.sw.ReadBack(); err != nil || !reflect.DeepEqual(held, w.set) {
			t.Fatalf("seed %d, policy %d: the kernel does not hold the policy (%v):\n%s", seed, policy, err, cmp.Diff(w.set, held, cmp.Comparer(sameAddr), cmp.Comparer(samePrefix)))
		}
		counted := count(t, d.sw)
		conns := &sim.Connections{} // fragments leave something, too
		for range diffPacketsPerPolicy {
			in := again.next(w.packet)
			result := oracleAt(d.site, w.set, in, conns, 0)
			want := outcomeOf(result)
			again.went(want.verdict)
			counted.add(in, result)
			ran, err := d.sw.RunGSO(in.program, in.ifindex, in.frame, in.gsoSize)
			if err != nil {
				t.Fatalf("policy %d: %v\n%s", policy, err, in)
			}
			got := shown(ran)
			if packets++; ran.Known {
				known++
				if isRewritten(got.frame) || in.inbound() && isRewritten(in.frame) {
					rewritten++
				}
			}
			h[want.verdict]++
			if got.equal(want) {
				continue
			}
			set, in := d.shrink(t, w.set, in)
			t.Errorf("seed %d, policy %d: program and oracle differ\n%s", seed, policy, d.report(t, set, in))
			apply(t, d.sw, w.set)
			if told++; told == diffMismatches {
				break
			}
		}
		if told > 0 {
			continue // shrinking has run packets of its own
		}
		if counted.check(t, count(t, d.sw)); t.Failed() {
			t.Fatalf("seed %d, policy %d: the counters differ", seed, policy)
		}
	}
	if known*200 < packets {
		t.Errorf("only %d of %d packets took the known way", known, packets)
	}
	if rewritten*2000 < packets {
		t.Errorf("only %d of %d packets took the known way and were rewritten", rewritten, packets)
	}
	t.Logf("%d packets in %s, %d by the known way, %d of these rewritten, %d mismatches, seed %d:\n%s", packets, time.Since(started).Round(time.Millisecond), known, rewritten, told, seed, h)
	fmt.Printf("differential: %d packets, %d mismatches, seed %d\n", packets, told, seed)
	h.check(t)
}

// policies of a normal run; an emulated machine, where test/kernels runs the package, is
// slow, and what it does another one has done before.
func policies() uint64 {
	if emulated() {
		return diffPolicies / 20
	}
	return diffPolicies
}

func emulated() bool { return os.Getenv("WEFT_EMULATED") != "" }

func diffSeed(t *testing.T) uint64 {
	t.Helper()
	s := os.Getenv("WEFT_DIFF_SEED")
	if s == "" {
		return uint64(time.Now().UnixNano())
	}
	seed, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatalf("WEFT_DIFF_SEED: %v", err)
	}
	return seed
}

func diffTime(t *testing.T) time.Duration {
	t.Helper()
	s := os.Getenv("WEFT_DIFF_TIME")
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatalf("WEFT_DIFF_TIME: %v", err)
	}
	return d
}

func sameAddr(a, b netip.Addr) bool { return a == b }

func samePrefix(a, b netip.Prefix) bool { return a == b }

// duel is the program and the oracle, side by side.
type duel struct {
	site
	sw *datapath.Switch
}

// differ runs one packet under one policy through both.
func (d duel) differ(tb testing.TB, set table.Set, in packetIn) bool {
	tb.Helper()
	apply(tb, d.sw, set)
	got, err := run(d.sw, in)
	return err == nil && !got.equal(outcomeOf(oracle(d.site, set, in)))
}

// shrink makes policy and packet as small as they can be and still differ.
func (d duel) shrink(tb testing.TB, set table.Set, in packetIn) (table.Set, packetIn) {
	tb.Helper()
	set = table.Set{Ports: maps.Clone(set.Ports), Records: maps.Clone(set.Records), Routes: maps.Clone(set.Routes),
		Peers: maps.Clone(set.Peers), LocalPAs: maps.Clone(set.LocalPAs), Settings: set.Settings,
		RewriteOut: maps.Clone(set.RewriteOut), RewriteIn: maps.Clone(set.RewriteIn),
		Allowed: maps.Clone(set.Allowed), Forwarders: maps.Clone(set.Forwarders),
		Floods: maps.Clone(set.Floods), Members: maps.Clone(set.Members), Groups: maps.Clone(set.Groups), Isolations: maps.Clone(set.Isolations), RuleSets: set.RuleSets}
	if !d.differ(tb, set, in) {
		tb.Log("does not differ when run again: the program remembers something")
		return set, in
	}
	shrinkMap(set.Groups, func() bool { return d.differ(tb, set, in) })
	shrinkMap(set.Members, func() bool { return d.differ(tb, set, in) })
	shrinkMap(set.Routes, func() bool { return d.differ(tb, set, in) })
	shrinkMap(set.Records, func() bool { return d.differ(tb, set, in) })
	shrinkMap(set.Peers, func() bool { return d.differ(tb, set, in) })
	shrinkMap(set.Ports, func() bool { return d.differ(tb, set, in) })
	shrinkMap(set.RewriteOut, func() bool { return d.differ(tb, set, in) })
	shrinkMap(set.RewriteIn, func() bool { return d.differ(tb, set, in) })
	shrinkMap(set.LocalPAs, func() bool { return d.differ(tb, set, in) })
	try := func(f []byte) bool {
		if refusedByTestRun(f) {
			return false
		}
		smaller := in
		smaller.frame = f
		if !d.differ(tb, set, smaller) {
			return false
		}
		in = smaller
		return true
	}
	for step := len(in.frame) / 2; step > 0; step /= 2 {
		for len(in.frame)-step >= 14 && try(slices.Clone(in.frame[:len(in.frame)-step])) {
		}
	}
	for i := range in.frame {
		if in.frame[i] != 0 {
			f := slices.Clone(in.frame)
			f[i] = 0
			try(f)
		}
	}
	return set, in
}

// shrinkMap deletes what can go.
func shrinkMap[K comparable, V any](m map[K]V, differs func() bool) {
	for k, v := range m {
		delete(m, k)
		if !differs() {
			m[k] = v
		}
	}
}

// report tells everything about one mismatch.
func (d duel) report(tb testing.TB, set table.Set, in packetIn) string {
	tb.Helper()
	apply(tb, d.sw, set)
	got, err := run(d.sw, in)
	var b strings.Builder
	for _, p := range set.Ports {
		fmt.Fprintf(&b, "port   %+v\n", p)
	}
	for k, r := range set.Records {
		fmt.Fprintf(&b, "record %d %s: %+v\n", k.VSID, k.CA, r)
	}
	for k, r := range set.Routes {
		fmt.Fprintf(&b, "route  %d %s: %+v\n", k.Network, k.Prefix, r)
	}
	for _, p := range set.Peers {
		fmt.Fprintf(&b, "peer   %+v\n", p)
	}
	for pa := range set.LocalPAs {
		fmt.Fprintf(&b, "local  %s\n", pa)
	}
	for vsid, f := range set.Floods {
		fmt.Fprintf(&b, "flood  %d: %+v\n", vsid, f)
	}
	for m, info := range set.Members {
		fmt.Fprintf(&b, "member %+v: %+v\n", m, info)
	}
	for m := range set.Groups {
		fmt.Fprintf(&b, "group  %+v\n", m)
	}
	for k, pa := range set.RewriteOut {
		fmt.Fprintf(&b, "out    %d %s: %s\n", k.VSID, k.CA, pa)
	}
	for pa, r := range set.RewriteIn {
		fmt.Fprintf(&b, "in     %s: %+v\n", pa, r)
	}
	for k, i := range set.Isolations {
		fmt.Fprintf(&b, "isolation %d %s: %s\n", k.VSID, k.MAC, i)
	}
	fmt.Fprintf(&b, "packet  %s\n%s", in, hex.Dump(in.frame))
	fmt.Fprintf(&b, "program %s, error %v\noracle  %s\n", got, err, outcomeOf(oracle(d.site, set, in)))
	return b.String()
}
