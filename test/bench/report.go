package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// sample is one measurement with its place in the run.
type sample struct {
	Cell      string `json:"cell"`
	Contender string `json:"contender"`
	Round     int    `json:"round"`
	Metric    metric `json:"metric"`
	value
}

// report collects a run.
type report struct {
	Began   time.Time         `json:"began"`
	Kernel  string            `json:"kernel"`
	CPU     string            `json:"cpu"`
	Cores   int               `json:"cores"`
	Load    string            `json:"load_at_start"`
	Rounds  int               `json:"rounds"`
	Seconds float64           `json:"seconds"`
	Chosen  map[string]string `json:"weft_decapsulation"` // by cell
	Samples []sample          `json:"samples"`
	Micro   []microResult     `json:"micro,omitempty"`
	Filled  []fillResult      `json:"load,omitempty"`
}

func newReport(o options) *report {
	r := &report{Began: time.Now().UTC().Truncate(time.Second), Cores: runtime.NumCPU(), Rounds: o.rounds, Seconds: o.seconds, Chosen: map[string]string{}}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		r.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	load, _ := os.ReadFile("/proc/loadavg")
	r.Load = strings.Join(strings.Fields(string(load))[:3], " ")
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			r.CPU = strings.TrimSpace(v)
		}
	}
	return r
}

func (r *report) add(c cell, contender string, round int, m metric, v value) {
	r.Samples = append(r.Samples, sample{c.name(), contender, round, m, v})
}

func (r *report) writeJSON(path string) error {
	b, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// spread is the median of a series and its ends.
type spread struct {
	median, low, high float64
	n                 int
}

func spreadOf(xs []float64) spread {
	if len(xs) == 0 {
		return spread{}
	}
	s := slices.Sorted(slices.Values(xs))
	mid := s[len(s)/2]
	if len(s)%2 == 0 {
		mid = (s[len(s)/2-1] + mid) / 2
	}
	return spread{mid, s[0], s[len(s)-1], len(s)}
}

// of gives a contender's figures by round.
func (r *report) of(cell, contender string, m metric, f func(value) float64) map[int]float64 {
	out := map[int]float64{}
	for _, s := range r.Samples {
		if s.Cell == cell && s.Contender == contender && s.Metric == m {
			out[s.Round] = f(s.value)
		}
	}
	return out
}

func values(m map[int]float64) []float64 {
	var xs []float64
	for _, x := range m {
		xs = append(xs, x)
	}
	return xs
}

// ratio is a's figure over b's within each round.
func (r *report) ratio(cell, a, b string, m metric) spread {
	main := func(v value) float64 { return v.main(m) }
	as, bs := r.of(cell, a, m, main), r.of(cell, b, m, main)
	var xs []float64
	for round, x := range as {
		if y := bs[round]; y > 0 {
			xs = append(xs, x/y)
		}
	}
	return spreadOf(xs)
}

func (r *report) ordered(pick func(sample) string, keep func(sample) bool) []string {
	var out []string
	for _, s := range r.Samples {
		if keep(s) && !slices.Contains(out, pick(s)) {
			out = append(out, pick(s))
		}
	}
	return out
}

func (r *report) cells() []string {
	return r.ordered(func(s sample) string { return s.Cell }, func(sample) bool { return true })
}

func (r *report) contenders(cell string) []string {
	return r.ordered(func(s sample) string { return s.Contender }, func(s sample) bool { return s.Cell == cell })
}

// markdown is the report for people.
func (r *report) markdown() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d cores %s, kernel %s, load before %s; %d rounds of %g s; medians, and in ratios (lowest–highest round).\n",
		r.Began.Format(time.RFC3339), r.Cores, r.CPU, r.Kernel, r.Load, r.Rounds, r.Seconds)
	r.targetTable(&b)
	for _, c := range r.cells() {
		if c == rulesLocal || c == rulesOverlay {
			r.rulesTable(&b, c)
			continue
		}
		r.cellTables(&b, c)
	}
	r.microTable(&b)
	return b.String()
}

// titles say in a table what a metric is.
var titles = map[metric]string{
	tcp1: "TCP 1 stream, 2 cores", tcp1c: "TCP 1 stream, 1 core", tcp4: "TCP 4 streams", rr1c: "RR 1 core", crr1c: "CRR 1 core", udp: "UDP 64 B",
	udpHot: "UDP to 1,000 of them", udpRandom: "UDP to all at random",
	connections: "connections per second",
}

// metrics lists what was measured in a cell.
func (r *report) metrics(c string) []metric {
	var out []metric
	for _, m := range slices.Concat(metrics, recordMetrics, []metric{connections}) {
		if slices.ContainsFunc(r.Samples, func(s sample) bool { return s.Cell == c && s.Metric == m }) {
			out = append(out, m)
		}
	}
	return out
}

// head is the first two lines of a table.
func head(columns ...string) string {
	return "| " + strings.Join(columns, " | ") + " |\n|" + strings.Repeat("---|", len(columns)) + "\n"
}

func (r *report) cellTables(b *strings.Builder, c string) {
	ms := r.metrics(c)
	var columns []string
	for _, m := range ms {
		columns = append(columns, titles[m])
	}
	fmt.Fprintf(b, "\n### %s\n\n", c)
	if c == records {
		b.WriteString(head(append([]string{"kpps; records in the table"}, columns...)...))
		for _, k := range r.contenders(c) {
			r.row(b, c, k, ms)
			b.WriteByte('\n')
		}
		return
	}
	b.WriteString(head(slices.Concat([]string{"Gb/s, p50/p99 µs, kpps"}, columns, []string{
		"CPU ms per Gb, 4 streams", "TCP retransmits", "frames dropped in TCP runs", "bytes per frame: underlay, port"})...))
	for _, k := range r.contenders(c) {
		r.row(b, c, k, ms)
		cpu := spreadOf(values(r.of(c, k, tcp4, func(v value) float64 { return v.CPU })))
		fmt.Fprintf(b, " %.0f | %s |\n", cpu.median, r.losses(c, k))
	}
	fmt.Fprintf(b, "\n%s", head(append([]string{"ratio"}, columns...)...))
	for _, a := range r.contenders(c) {
		if !strings.HasPrefix(a, weft) {
			continue
		}
		for _, base := range []string{bare, routed, vxlan, vxlanPlain, weft} {
			if !slices.Contains(r.contenders(c), base) || a == base {
				continue
			}
			fmt.Fprintf(b, "| %s / %s |", r.label(c, a), base)
			for _, m := range ms {
				fmt.Fprintf(b, " %s |", r.ratio(c, a, base, m))
			}
			b.WriteByte('\n')
		}
	}
}

// rulesTable has one row for each that filters, and one column for each number of rules.
func (r *report) rulesTable(b *strings.Builder, c string) {
	names := r.contenders(c)
	var by []string
	columns := []string{"connections per second, p50/p99 µs; rules of each guest"}
	for _, name := range names {
		if f, _ := filterOf(name); !slices.Contains(by, f) {
			by = append(by, f)
		}
	}
	for _, n := range ruleNumbers {
		columns = append(columns, strconv.Itoa(n))
	}
	fmt.Fprintf(b, "\n### %s\n\n%s", c, head(columns...))
	line := func(title string, cell func(n int) string) {
		fmt.Fprintf(b, "| %s |", title)
		for _, n := range ruleNumbers {
			fmt.Fprintf(b, " %s |", cell(n))
		}
		b.WriteByte('\n')
	}
	for _, f := range by {
		line(f, func(n int) string { return r.absolute(c, filterName(f, n), connections) })
	}
	for _, f := range by {
		if f != byWeft {
			line(byWeft+" / "+f, func(n int) string { return r.ratio(c, filterName(byWeft, n), filterName(f, n), connections).String() })
		}
	}
}

func (r *report) row(b *strings.Builder, c, contender string, ms []metric) {
	fmt.Fprintf(b, "| %s |", r.label(c, contender))
	for _, m := range ms {
		fmt.Fprintf(b, " %s |", r.absolute(c, contender, m))
	}
}

// label names the decapsulation that weft took by itself.
func (r *report) label(c, contender string) string {
	if chosen := r.Chosen[c]; contender == weft && chosen != "" {
		return weft + " (auto: " + chosen + ")"
	}
	return contender
}

func (s spread) String() string {
	if s.n == 0 {
		return "–"
	}
	return fmt.Sprintf("%.2f (%.2f–%.2f)", s.median, s.low, s.high)
}

func (r *report) absolute(c, contender string, m metric) string {
	at := func(f func(value) float64) spread { return spreadOf(values(r.of(c, contender, m, f))) }
	v := at(func(v value) float64 { return v.main(m) })
	if v.n == 0 {
		return "–"
	}
	switch m {
	case rr1c, crr1c:
		return fmt.Sprintf("%.1f/%.1f", v.median, at(func(v value) float64 { return v.P99 }).median)
	case udp, udpHot, udpRandom:
		return fmt.Sprintf("%.0f", v.median)
	case connections:
		return fmt.Sprintf("%.0f, %.1f/%.1f", v.median, at(func(v value) float64 { return v.P50 }).median, at(func(v value) float64 { return v.P99 }).median)
	}
	return fmt.Sprintf("%.1f", v.median)
}

// losses sums over all TCP runs of a contender; frame sizes are of the one-core runs.
func (r *report) losses(c, contender string) string {
	var retrans, dropped uint64
	for _, s := range r.Samples {
		if s.Cell != c || s.Contender != contender || s.Metric == udp {
			continue
		}
		retrans += uint64(s.Retrans)
		dropped += s.Dropped
	}
	frame := spreadOf(values(r.of(c, contender, tcp1c, func(v value) float64 { return v.Frame })))
	handed := spreadOf(values(r.of(c, contender, tcp1c, func(v value) float64 { return v.Handed })))
	return fmt.Sprintf("%d | %d | %.0f, %.0f", retrans, dropped, frame.median, handed.median)
}

// target is what the switch has to reach.
type target struct {
	cell      string
	contender string
	metric    metric
	over      string
	least     float64
	most      float64 // when not 0, the ratio must be at most this
}

// wanted lists the targets.
func wanted() []target {
	var ts []target
	least := func(cell, contender, over string, ratio float64, ms ...metric) {
		for _, m := range ms {
			ts = append(ts, target{cell, contender, m, over, ratio, 0})
		}
	}
	least("veth/pass", weft, routed, 1.0, tcp1, tcp1c, tcp4)
	for _, k := range []string{weft, weftVXLAN, weftRewrite} {
		onWire := 1.1
		if k == weftRewrite {
			onWire = 1.2
		}
		least("veth/pass", k, vxlan, 1.5, tcp1, tcp1c, tcp4)
		least("veth/pass", k, vxlan, 1.8, udp)
		least("veth/wire", k, vxlan, onWire, tcp1c)
		least("tap/wire", k, vxlan, 0.9, tcp1, tcp1c)
	}
	ts = append(ts, target{"veth/pass", weft, rr1c, vxlan, 0, 0.70})
	least("veth/pass", weft, weftVXLAN, 0.9, tcp1, tcp1c, tcp4, udp)
	least("veth/pass", weftRewrite, weft, 1.0, tcp1, tcp1c, tcp4, udp)
	least(records, "1000000", "1", 0.95, udpHot)
	for _, c := range []string{rulesLocal, rulesOverlay} {
		least(c, filterName(byWeft, 1_000), filterName(byNFT, 1_000), 2.0, connections)
	}
	return ts
}

func (r *report) targetTable(b *strings.Builder) {
	fmt.Fprint(b, "\n### What was wanted\n\n", head("cell", "metric", "ratio", "wanted", "measured", ""))
	for _, t := range wanted() {
		got := r.ratio(t.cell, t.contender, t.over, t.metric)
		if got.n == 0 {
			continue
		}
		text, met := fmt.Sprintf("at least %.2f", t.least), got.median >= t.least
		if t.most != 0 {
			text, met = fmt.Sprintf("at most %.2f", t.most), got.median <= t.most
		}
		fmt.Fprintf(b, "| %s | %s | %s / %s | %s | %s | %s |\n", t.cell, t.metric, t.contender, t.over, text, got, verdict(met))
	}
	r.loadTargets(b)
}

func verdict(met bool) string {
	if met {
		return "met"
	}
	return "**missed**"
}

// The tables of a page are between these two lines.
const (
	beforeFigures = "<!-- what make bench prints -->\n"
	afterFigures  = "<!-- end of what make bench prints -->\n"
)

// writeInto puts the report into a page, in the place of the one that is there.
func (r *report) writeInto(page string) error {
	b, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(b), beforeFigures)
	_, tail, ok2 := strings.Cut(rest, afterFigures)
	if !ok || !ok2 {
		return fmt.Errorf("%s has no place for figures: it needs the lines %q and %q", page, strings.TrimSpace(beforeFigures), strings.TrimSpace(afterFigures))
	}
	return os.WriteFile(page, []byte(head+beforeFigures+r.markdown()+afterFigures+tail), 0o644)
}
