package classify

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
)

const (
	pairs        = 1_000_000
	pairsPerSet  = 2_000
	shortPerSets = 50 // sets of a short run
)

// TestLookupEqualsTheNaiveSearch compares a million random pairs of rule set and packet.
func TestLookupEqualsTheNaiveSearch(t *testing.T) {
	sets := pairs / pairsPerSet
	if testing.Short() {
		sets = shortPerSets
	}
	denied, hits := 0, 0
	for n := range uint64(sets) {
		g := generator{rand.New(rand.NewPCG(7, n))}
		set := g.set()
		tables, err := Compile(set)
		if err != nil {
			t.Fatalf("set %d: %v", n, err)
		}
		for range pairsPerSet {
			q := g.query(set)
			want := sim.Judge(set, q)
			got := tables.Lookup(q)
			if !same(tables, got, want) {
				t.Fatalf("set %d, %+v:\ngot  %+v %v\nwant %+v\n%s", n, q, got, places(tables, got), want, show(set))
			}
			hits += len(want.Hits)
			if want.Denied {
				denied++
			}
		}
	}
	total := sets * pairsPerSet
	t.Logf("%d pairs: %d denied, %d hits", total, denied, hits)
	if denied*20 < total || denied*20 > 19*total || hits < total/2 {
		t.Error("the generator is too tame")
	}
}

func places(t *Tables, o Outcome) []table.RuleAt {
	var out []table.RuleAt
	for _, r := range o.Hits {
		out = append(out, t.Rules[r])
	}
	slices.SortFunc(out, func(a, b table.RuleAt) int {
		if a.Section != b.Section {
			return a.Section - b.Section
		}
		return a.Rule - b.Rule
	})
	return out
}

func same(t *Tables, got Outcome, want sim.Judgement) bool {
	by := want.By == nil && got.By < 0
	if want.By != nil && got.By >= 0 {
		by = t.Rules[got.By] == *want.By
	}
	return by && got.Denied == want.Denied && slices.Equal(places(t, got), want.Hits)
}

func show(set table.RuleSet) string {
	out := ""
	for i, s := range set.Sections {
		out += fmt.Sprintf("section %d: %s, audit %v\n", i, s.Kind, s.Audit)
		for j, r := range s.Rules {
			if j < 40 {
				out += fmt.Sprintf("  %d: %+v\n", j, r)
			}
		}
	}
	return out
}

// generator makes rule sets whose rules meet, and packets that meet them.
type generator struct{ *rand.Rand }

func (g generator) chance(percent int) bool { return g.IntN(100) < percent }

func oneOf[T any](g generator, all []T) T { return all[g.IntN(len(all))] }

func (g generator) set() table.RuleSet {
	var set table.RuleSet
	kinds := []table.SectionKind{table.Administrator, table.Tenant, table.Tenant, table.Tenant, table.BasicMAC, table.BasicIP, table.Default}
	counts := 0
	for _, k := range kinds {
		for _, audit := range []bool{false, true} {
			if audit && !g.chance(15) || !audit && g.chance(50) {
				continue
			}
			s := table.Section{Kind: k, Audit: audit}
			for range oneOf(g, []int{0, 1, 3, 10, 10, 30, 30, 150}) {
				r := g.rule()
				if r.Action == table.Count {
					if counts++; counts > MaxCounts {
						r.Action = table.Allow
					}
				}
				s.Rules = append(s.Rules, r)
			}
			set.Sections = append(set.Sections, s)
		}
	}
	return set
}

var (
	protocols = []uint8{0, 1, 6, 6, 6, 17, 17, 47, 58}
	numbers16 = []uint16{0, 1, 22, 53, 80, 443, 444, 1023, 1024, 8080, 32768, 65534, 65535}
)

func (g generator) rule() table.Rule {
	r := table.Rule{
		ID:       model.RuleID{Rule: fmt.Sprint(g.Uint32())},
		Action:   oneOf(g, []table.RuleAction{table.Allow, table.Allow, table.Deny, table.Deny, table.Pass, table.Count}),
		Protocol: oneOf(g, protocols), AnyProtocol: g.chance(30),
		ICMPType: -1, ICMPCode: -1,
		Log: g.chance(10), Stateful: g.chance(30), Idle: time.Duration(g.IntN(300)) * time.Second,
	}
	for range oneOf(g, []int{0, 0, 1, 1, 1, 2, 5}) {
		r.Remote = append(r.Remote, g.prefix())
	}
	for range oneOf(g, []int{0, 0, 0, 1, 3}) {
		r.Local = append(r.Local, g.prefix())
	}
	for range oneOf(g, []int{0, 0, 0, 0, 1, 3}) {
		r.LocalPorts = append(r.LocalPorts, g.ports())
	}
	for range oneOf(g, []int{0, 0, 0, 1, 1, 3}) {
		r.RemotePorts = append(r.RemotePorts, g.ports())
	}
	if g.chance(15) {
		r.ICMPType = int16(g.IntN(4) - 1)
	}
	if g.chance(8) {
		r.ICMPCode = int16(g.IntN(3))
	}
	if g.chance(7) {
		r.LocalMAC = g.mac()
	}
	if g.chance(7) {
		r.RemoteMAC = g.mac()
	}
	if g.chance(5) { // of MACs alone
		r = table.Rule{ID: r.ID, Action: r.Action, AnyProtocol: true, ICMPType: -1, ICMPCode: -1, RemoteMAC: g.mac()}
	}
	return r
}

func (g generator) mac() model.MAC { return model.MAC{2, 0, 0, 0, 0, byte(g.IntN(6))} }

func (g generator) ports() table.PortRange {
	a, b := oneOf(g, numbers16), oneOf(g, numbers16)
	return table.PortRange{First: min(a, b), Last: max(a, b)}
}

// addr is one of few, or near the ends of everything.
func (g generator) addr() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint32(b[12:], oneOf(g, []uint32{0, 0xffffffff, 0x0a000000, 0x0a000100, 0x0a010200, 0xc0a80000})+uint32(g.IntN(20)-6))
	if g.chance(60) {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	binary.BigEndian.PutUint64(b[:], oneOf(g, []uint64{0, ^uint64(0), 0x20010db800000000, 0x20010db800000001, 0xfd00000000000000}))
	if g.chance(50) {
		copy(b[8:12], []byte{0xff, 0xff, 0xff, 0xff})
	}
	return netip.AddrFrom16(b)
}

func (g generator) prefix() netip.Prefix {
	a := g.addr()
	return netip.PrefixFrom(a, oneOf(g, []int{0, 1, 8, 16, 24, 28, 30, 31, 32, 64, 65, 100, 127, 128, g.IntN(129)})%(a.BitLen()+1)).Masked()
}

// query is a random packet, mostly after the looks of one of the rules.
func (g generator) query(set table.RuleSet) table.Query {
	q := table.Query{LocalMAC: g.mac(), RemoteMAC: g.mac(), IP: g.chance(95), Local: g.addr(), Remote: g.addr(),
		Protocol: oneOf(g, protocols), LocalPort: oneOf(g, numbers16), RemotePort: oneOf(g, numbers16) + uint16(g.IntN(3)), ICMPType: uint8(g.IntN(4)), ICMPCode: uint8(g.IntN(4))}
	if len(set.Sections) > 0 && g.chance(80) {
		if s := oneOf(g, set.Sections); len(s.Rules) > 0 {
			g.aim(&q, oneOf(g, s.Rules))
		}
	}
	for q.Local.Is4() != q.Remote.Is4() {
		q.Local = g.addr()
	}
	hides := g.chance(10)
	switch {
	case q.Protocol == 6 || q.Protocol == 17:
		q.Upper = table.ShowsPorts
	case q.Protocol == 1 && q.Local.Is4(), q.Protocol == 58 && q.Local.Is6():
		q.Upper = table.ShowsType
	default:
		hides = false
	}
	if hides {
		q.Upper = table.HidesUpper
	}
	if !q.IP {
		return table.Query{LocalMAC: q.LocalMAC, RemoteMAC: q.RemoteMAC}
	}
	return q
}

func (g generator) aim(q *table.Query, r table.Rule) {
	if len(r.Remote) > 0 {
		q.Remote = last(oneOf(g, r.Remote), g.chance(50))
	}
	if len(r.Local) > 0 {
		q.Local = last(oneOf(g, r.Local), g.chance(50))
	}
	if !r.AnyProtocol {
		q.Protocol = r.Protocol
	}
	if len(r.LocalPorts) > 0 {
		q.LocalPort = oneOf(g, r.LocalPorts).Last
	}
	if len(r.RemotePorts) > 0 {
		q.RemotePort = oneOf(g, r.RemotePorts).First
	}
	if !r.LocalMAC.IsZero() {
		q.LocalMAC = r.LocalMAC
	}
	if !r.RemoteMAC.IsZero() {
		q.RemoteMAC = r.RemoteMAC
	}
}

// last is the last address of a prefix, or the first.
func last(p netip.Prefix, is bool) netip.Addr {
	if !is {
		return p.Addr()
	}
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
