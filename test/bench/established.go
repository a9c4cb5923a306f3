package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/test/corpus"
)

// Flows that packets have gone by before, in nanoseconds above a program that does nothing.
const (
	hotFlows  = 1_000
	flowRuns  = 100
	flowTurns = 3
	firstRuns = 60_000
)

// addEstablished times the local path of many flows in turn, of a port without rules and of one whose rules have
// allowed each of them.
func (r *report) addEstablished() error {
	sw, err := datapath.Open(datapath.Options{MaxRecords: allRecords + 2})
	if err != nil {
		return err
	}
	defer sw.Close()
	nothing, err := timeNothing()
	if err != nil {
		return err
	}
	for _, rules := range []int{0, 1_000} {
		set := microRows(allRecords)
		if rules > 0 {
			follow(&set, rules)
		}
		if err := sw.Apply(set, true); err != nil {
			return err
		}
		var took []float64
		for range ruleRounds {
			ns, err := timeFlows(sw)
			if err != nil {
				return err
			}
			took = append(took, ns-nothing)
		}
		first, err := timeFirst(sw)
		if err != nil {
			return err
		}
		r.Micro = append(r.Micro, microResult{fmt.Sprintf("from_port, delivered locally, the first packet of each flow, %d rules; above an empty program", rules), allRecords, first})
		name := fmt.Sprintf("from_port, delivered locally, %d flows, established, %d rules; above an empty program", hotFlows, rules)
		r.Micro = append(r.Micro, microResult{name, allRecords, spreadOf(took).median})
	}
	return nil
}

// follow gives the sender n rules, all of which allow and follow.
func follow(set *table.Set, n int) {
	section := corpus.New(1, n, false, netip.MustParsePrefix("10.255.0.0/24")).Section(table.Tenant, "bench", n)
	for i := range section.Rules {
		section.Rules[i].Action, section.Rules[i].Stateful = table.Allow, true
		section.Rules[i].Idle = 60_000_000_000
	}
	p := set.Ports[loopback]
	p.Outbound = table.RuleSetKey{2, byte(n), byte(n >> 8)}
	set.Ports[loopback], set.RuleSets[p.Outbound] = p, &table.RuleSet{Sections: []table.Section{section}}
}

// timeFlows runs frames of all flows, each many times in a row, and all of that more than once: the mean of one.
func timeFlows(sw *datapath.Switch) (float64, error) {
	frame := microFrame(localCA)
	sum := 0.0
	for turn := range flowTurns + 1 {
		for flow := range hotFlows {
			binary.BigEndian.PutUint16(frame[34:], uint16(20_000+flow))
			d, err := sw.Time(datapath.FromPort, frame, flowRuns)
			if err != nil {
				return 0, err
			}
			if turn > 0 { // the first makes them known
				sum += float64(d.Nanoseconds())
			}
		}
	}
	return sum / hotFlows / flowTurns, nil
}

// timeFirst runs a frame that is the first of another flow each time; of so many that connections of before have given way when they come again.
func timeFirst(sw *datapath.Switch) (float64, error) {
	var took []float64
	for range ruleRounds {
		d, err := sw.TimeFirst(datapath.FromPort, microFrame(localCA), firstRuns)
		if err != nil {
			return 0, err
		}
		took = append(took, float64(d.Nanoseconds()))
	}
	return spreadOf(took).median, nil
}

// timeNothing is what a run costs of a program that does nothing.
func timeNothing() (float64, error) {
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()}})
	if err != nil {
		return 0, err
	}
	defer p.Close()
	var took []float64
	for range ruleRounds {
		_, d, err := p.Benchmark(microFrame(localCA), hotRuns, nil)
		if err != nil {
			return 0, err
		}
		took = append(took, float64(d.Nanoseconds()))
	}
	return spreadOf(took).median, nil
}
