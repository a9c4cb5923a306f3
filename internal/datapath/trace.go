package datapath

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/cilium/ebpf"
)

// tracer is the switch's programs once more, over the same tables but with
// counters and events of their own: what it runs leaves no mark, and the packet
// path does not know that it exists.
type tracer struct {
	mu         sync.Mutex
	closed     bool
	floods     bool // the programs that flood are among them
	collection *ebpf.Collection
}

// counting are the maps that programs write into, and those that are the programs' own.
var counting = map[string]bool{"drop": true, "denied": true, "flow": true, "flow_seen": true, "flow_pace": true, "traffic": true, "event": true, "storm": true, "group_report": true, "learn": true, "learn_pace": true, "copy": true, "flood_prog": true, "walk": true, "rule_hit": true, "query": true, "judged": true, "rule_log": true, "rule_pace": true}

// Trace is Run without a mark: no counter moves and no event is told. The first
// call loads the programs a second time.
func (s *Switch) Trace(p Program, ifindex uint32, frame []byte) (RunResult, error) {
	s.mu.Lock()
	floods := s.programs[floodPrograms[0]] != nil
	s.mu.Unlock()
	t := &s.trace
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := s.readyToTrace(floods); err != nil {
		return RunResult{}, fmt.Errorf("load the programs for traces: %w", err)
	}
	prog, ok := t.collection.Programs[p.String()]
	if !ok {
		return RunResult{}, fmt.Errorf("trace: no such program: %s", p)
	}
	return runOnce(prog, t.collection.Maps["copy"], p, skb{IfIndex: ifindex}, frame)
}

// readyToTrace has the programs loaded, those that flood only where the switch has them.
func (s *Switch) readyToTrace(floods bool) error {
	t := &s.trace
	if t.closed {
		return errors.New("the switch is closed")
	}
	if t.collection != nil && (t.floods || !floods) {
		return nil
	}
	c, err := s.loadTracer(floods)
	if err != nil {
		return err
	}
	if t.collection != nil {
		t.collection.Close()
	}
	t.collection, t.floods = c, floods
	return nil
}

func (s *Switch) loadTracer(floods bool) (*ebpf.Collection, error) {
	spec, err := s.spec()
	if err != nil {
		return nil, err
	}
	for name := range spec.Programs {
		if name != progFromPort && name != progFromUplink && name != progVLANGuest && !isTail(name) || !floods && slices.Contains(floodPrograms, name) {
			delete(spec.Programs, name)
		}
	}
	tables := map[string]*ebpf.Map{}
	for name, m := range s.maps {
		if (pinnable(name) || ofFlows(name)) && !counting[name] { // it knows no flows, but has the code
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
	only := spec.Copy()
	clear(only.Programs)
	c, err := ebpf.NewCollectionWithOptions(only, ebpf.CollectionOptions{MapReplacements: tables})
	if err != nil {
		return nil, err
	}
	if c.Programs, err = loadPrograms(spec, c.Maps); err != nil {
		c.Close()
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
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	if t.collection != nil {
		t.collection.Close()
	}
}
