package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The test binary is its own traffic generator, as the program is.
func TestMain(m *testing.M) {
	if spec := os.Getenv(workerEnv); spec != "" {
		workerMain(spec)
		return
	}
	os.Exit(m.Run())
}

func TestRatiosAreTakenWithinARound(t *testing.T) {
	c := cell{ports: "veth", underlay: "pass"}
	r := newReport(options{})
	// The machine gets slower from round to round; the ratio does not.
	for round, pace := range []float64{8, 4, 1} {
		r.add(c, weft, round, tcp1, value{Gbps: 3 * pace})
		r.add(c, vxlan, round, tcp1, value{Gbps: 2 * pace})
	}
	r.add(c, weft, 3, tcp1, value{Gbps: 1}) // vxlan has no such round
	if got := r.ratio("veth/pass", weft, vxlan, tcp1); got != (spread{1.5, 1.5, 1.5, 3}) {
		t.Fatalf("ratio %+v", got)
	}
}

func TestSpread(t *testing.T) {
	if got := spreadOf([]float64{5, 1, 3, 100}); got != (spread{4, 1, 100, 4}) {
		t.Fatalf("spread of an even number %+v", got)
	}
	if got := spreadOf(nil).String(); got != "–" {
		t.Fatalf("nothing measured prints as %q", got)
	}
}

// standing are the contenders that a short run builds: each way to build one and to carry its traffic once, since
// what takes time is the kernel's verifier, twice for each of weft's.
var standing = map[string][]string{
	"veth/pass":  {bare, routed, vxlan, vxlanPlain, ovsGRE, ovsVXLAN, weft, weftVXLAN, weftRewrite},
	"veth/wire":  {bare, vxlan, weftXDP},
	"tap/pass":   {weft},
	"tap/wire":   {routed, weft, weftTCX, weftVeth, weftDevice},
	records:      {"1000"},
	rulesLocal:   {filterName(byWeft, 10), filterName(byNFT, 0), filterName(byNFT, 1_000), filterName(byNFTMap, 1_000), filterName(byNFTRouted, 10)},
	rulesOverlay: {filterName(byWeft, 10), filterName(byNFT, 10), filterName(byNFTMap, 1_000)},
}

// A short run: contenders carry every kind of load, rules let through what they should and nothing else, and the underlay
// of each cell is what its name says (site.check).
func TestEveryContenderCarriesTraffic(t *testing.T) {
	recycle, warm = true, 0.1
	unlock, err := exclusive()
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	sweep()
	o := options{rounds: 1, seconds: 0.05, cells: cellNames(), metrics: "crr1c,udp,udp-hot,cps"}
	cells, err := selectCells(o)
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range cells {
		for _, k := range standing[c.name()] {
			if !slices.Contains(c.contenders, k) {
				t.Fatalf("%s has no contender %s", c.name(), k)
			}
		}
		if c.ports == "tap" {
			cells[i].metrics = []metric{tcp1c, crr1c, udp}
		}
	}
	r := newReport(o)
	for _, c := range cells {
		for _, k := range standing[c.name()] { // one at a time, so that the next takes over its programs
			c.contenders = []string{k}
			if err := measureCell(context.Background(), c, o, r); err != nil {
				t.Fatalf("%s: %v", c.name(), err)
			}
		}
		for _, k := range r.contenders(c.name()) {
			for _, m := range c.metrics {
				if got := r.of(c.name(), k, m, func(v value) float64 { return v.main(m) }); !(got[0] > 0) {
					t.Errorf("%s: %s of %s is %v", c.name(), m, k, got)
				}
			}
		}
	}
	// Taps get super-packets whole, however they crossed the underlay.
	for _, c := range []string{"tap/pass", "tap/wire"} {
		if got := r.of(c, weft, tcp1c, func(v value) float64 { return v.Handed }); !(got[0] > 8*underlayMTU) {
			t.Errorf("%s: frames of %v bytes on average reach the tap", c, got)
		}
	}
	left, err := filepath.Glob(filepath.Join(netnsDir, prefix+"*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestFiguresGoIntoAPage(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	r := newReport(options{})
	if err := os.WriteFile(page, []byte("figures\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := r.writeInto(page); err == nil {
		t.Error("figures go into a page that has no place for them")
	}
	if err := os.WriteFile(page, []byte("before\n"+beforeFigures+"old\n"+afterFigures+"after\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the place stays
		if err := r.writeInto(page); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(page); err != nil || string(got) != "before\n"+beforeFigures+r.markdown()+afterFigures+"after\n" {
		t.Errorf("the page is %q, %v", got, err)
	}
}
