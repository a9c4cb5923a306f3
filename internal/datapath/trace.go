package datapath

import (
	"fmt"
	"math"
	"sync"

	"github.com/cilium/ebpf"
)

// tracer is the switch's programs once more, over the same tables but with
// counters and events of their own: what it runs leaves no mark, and the packet
// path does not know that it exists.
type tracer struct {
	once       sync.Once
	err        error
	collection *ebpf.Collection
}

// counting are the maps that programs write into, and those that are the programs' own.
var counting = map[string]bool{"drop": true, "traffic": true, "event": true, "storm": true, "group_report": true, "learn": true, "learn_pace": true, "copy": true, "flood_prog": true, "walk": true, "rule_hit": true, "query": true, "judged": true, "rule_log": true, "rule_pace": true}

// Trace is Run without a mark: no counter moves and no event is told. The first
// call loads the programs a second time.
func (s *Switch) Trace(p Program, ifindex uint32, frame []byte) (RunResult, error) {
	s.trace.once.Do(func() { s.trace.collection, s.trace.err = s.loadTracer() })
	if s.trace.err != nil {
		return RunResult{}, fmt.Errorf("load the programs for traces: %w", s.trace.err)
	}
	prog, ok := s.trace.collection.Programs[p.String()]
	if !ok {
		return RunResult{}, fmt.Errorf("trace: no such program: %s", p)
	}
	return runOnce(prog, s.trace.collection.Maps["copy"], p, skb{IfIndex: ifindex}, frame)
}

func (s *Switch) loadTracer() (*ebpf.Collection, error) {
	spec, err := s.spec()
	if err != nil {
		return nil, err
	}
	for name := range spec.Programs {
		if name != progFromPort && name != progFromUplink && !isTail(name) {
			delete(spec.Programs, name)
		}
	}
	tables := map[string]*ebpf.Map{}
	for name, m := range s.maps {
		if pinnable(name) && !counting[name] {
			tables[name] = m
		}
	}
	// Nobody reads these: one row is as good as many, and no event is due.
	spec.Maps["drop"].MaxEntries, spec.Maps["traffic"].MaxEntries = 1, 1
	if err := rehearse(spec); err != nil {
		return nil, err
	}
	if err := spec.Variables["connections_on"].Set(uint8(0)); err != nil { // a trace neither has a past nor leaves one
		return nil, err
	}
	if err := spec.Variables["event_interval"].Set(uint64(math.MaxUint64)); err != nil {
		return nil, err
	}
	for name := range spec.Maps {
		if !usedBy(spec, name) {
			delete(spec.Maps, name)
			delete(tables, name)
		}
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: tables})
	if err != nil {
		return nil, err
	}
	if err := fillTails(c.Programs, c.Maps); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// usedBy tells whether a program of spec refers to a map.
func usedBy(spec *ebpf.CollectionSpec, name string) bool {
	for _, p := range spec.Programs {
		if _, ok := p.Instructions.ReferenceOffsets()[name]; ok {
			return true
		}
	}
	return false
}

func (t *tracer) close() {
	t.once.Do(func() { t.err = fmt.Errorf("the switch is closed") })
	if t.collection != nil {
		t.collection.Close()
	}
}
