package main

import (
	"fmt"
	"net/netip"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/test/corpus"
)

// ruleCounts are how many rules the port of the local path has, one set after the other and around again.
var ruleCounts = []int{0, 10, 1_000, 10_000}

const ruleRounds = 5

// addRuleCost times the local path with rules that let its packet through.
func (r *report) addRuleCost() error {
	sw, err := datapath.Open(datapath.Options{})
	if err != nil {
		return err
	}
	defer sw.Close()
	took := map[int][]float64{}
	for range ruleRounds {
		for _, n := range ruleCounts {
			if err := sw.Apply(ruledRows(n), true); err != nil {
				return fmt.Errorf("with %d rules: %w", n, err)
			}
			d, err := sw.Time(datapath.WalkPort, microFrame(localCA), hotRuns)
			if err != nil {
				return err
			}
			took[n] = append(took[n], float64(d.Nanoseconds()))
		}
	}
	for _, n := range ruleCounts {
		r.Micro = append(r.Micro, microResult{fmt.Sprintf("from_port by all stages, delivered locally, %d rules", n), fewRecords, spreadOf(took[n]).median})
	}
	return nil
}

// ruledRows are microRows whose sender has n rules, all of which allow.
func ruledRows(n int) table.Set {
	set := microRows(fewRecords)
	if n == 0 {
		return set
	}
	c := corpus.New(1, n, false, netip.MustParsePrefix("10.255.0.0/24"))
	section := c.Section(table.Tenant, "bench", n)
	for i := range section.Rules {
		section.Rules[i].Action = table.Allow
	}
	p := set.Ports[loopback]
	p.Outbound = table.RuleSetKey{1, byte(n), byte(n >> 8)}
	set.Ports[loopback], set.RuleSets[p.Outbound] = p, &table.RuleSet{Sections: []table.Section{section}}
	return set
}
