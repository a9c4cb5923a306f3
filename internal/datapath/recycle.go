package datapath

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/ringbuf"
)

// loaded is what the verifier took a second for: programs, and the maps that they are bound to.
type loaded struct {
	programs map[string]*ebpf.Program
	maps     map[string]*ebpf.Map
	showing  map[string]*ebpf.Program // for captures, once there were any
}

// recycled is what Switches with Options.Recycle have left behind, by what tells programs
// and maps of one Switch from another's.
var recycled struct {
	sync.Mutex
	free map[Options][]loaded
}

// kind tells what may take whose place.
func (s *Switch) kind() Options {
	o := s.opts
	o.Logger, o.Decap = nil, "" // are not told to the programs
	return o
}

// takeRecycled finds programs and maps of another Switch, and empties the maps.
func (s *Switch) takeRecycled() (found bool, err error) {
	if !s.opts.Recycle {
		return false, nil
	}
	recycled.Lock()
	defer recycled.Unlock()
	free := recycled.free[s.kind()]
	if len(free) == 0 {
		return false, nil
	}
	l := free[len(free)-1]
	recycled.free[s.kind()] = free[:len(free)-1]
	rules, err := anyRule(l.maps["rule_name"])
	if err != nil {
		return false, err
	}
	for name, m := range l.maps {
		if !rules && ofRules[name] {
			continue
		}
		if err := blank(name, m); err != nil {
			return false, fmt.Errorf("empty map %s: %w", name, err)
		}
	}
	s.programs, s.maps, s.capture.showing = l.programs, l.maps, l.showing
	return true, nil
}

// ofRules are maps that nobody writes into before a rule has a number, and hence a name. They are large.
var ofRules = map[string]bool{"rule": true, "rule_hit": true, "rule_name": true, "rule_pace": true}

func anyRule(names *ebpf.Map) (any bool, err error) {
	err = readAll(names, func(_ uint32, hash [ruleHashSize]byte) error {
		any = any || hash != [ruleHashSize]byte{}
		return nil
	})
	return any, err
}

// leave keeps what is loaded for the next Open.
func (s *Switch) leave() {
	if s.maps == nil { // closed before
		return
	}
	recycled.Lock()
	defer recycled.Unlock()
	if recycled.free == nil {
		recycled.free = map[Options][]loaded{}
	}
	recycled.free[s.kind()] = append(recycled.free[s.kind()], loaded{s.programs, s.maps, s.capture.showing})
	s.programs, s.maps, s.capture.showing = nil, nil, nil
}

// blank makes a map what it was when it was made.
func blank(name string, m *ebpf.Map) error {
	if strings.HasPrefix(name, ".rodata") || name == "policy_turn" || ofFlows(name) { // the next turn forgets all flows
		return nil
	}
	switch m.Type() {
	case ebpf.ProgramArray, ebpf.PerfEventArray: // Open and captures fill them
		return nil
	case ebpf.Array:
		zero := array(m.ValueSize(), m.MaxEntries())
		_, err := m.BatchUpdate(indices(m.MaxEntries()), zero, nil)
		return err
	case ebpf.PerCPUArray:
		return zeroCounters(m)
	case ebpf.RingBuf:
		return drain(m)
	case ebpf.ArrayOfMaps:
		var err error
		for i := range m.MaxEntries() {
			err = errors.Join(err, ignoreMissing(m.Delete(i)))
		}
		return err
	case ebpf.Hash, ebpf.LRUHash, ebpf.PerCPUHash, ebpf.LRUCPUHash, ebpf.LPMTrie:
		return empty(m)
	}
	return fmt.Errorf("nobody has said how to empty one of type %s", m.Type())
}

// zeroCounters writes all rows of a PerCPUArray in few calls: that of rules has 131,072.
func zeroCounters(m *ebpf.Map) error {
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return err
	}
	keys, zero := indices(m.MaxEntries()), array(m.ValueSize(), uint32(min(batchRows, m.MaxEntries())*uint32(cpus)))
	for len(keys) > 0 {
		n := min(batchRows, len(keys))
		values := reflect.ValueOf(zero).Slice(0, n*cpus).Interface()
		if _, err := m.BatchUpdate(keys[:n], values, nil); err != nil {
			return err
		}
		keys = keys[n:]
	}
	return nil
}

// array is n zero values of size bytes.
func array(size, n uint32) any {
	one := reflect.ArrayOf(int(size), reflect.TypeFor[byte]())
	return reflect.MakeSlice(reflect.SliceOf(one), int(n), int(n)).Interface()
}

func indices(n uint32) []uint32 {
	out := make([]uint32, n)
	for i := range out {
		out[i] = uint32(i)
	}
	return out
}

// empty deletes every row; a map without rows is no error.
func empty(m *ebpf.Map) error {
	var keys [][]byte
	err := walk(m, func(k, _ []byte) error {
		keys = append(keys, bytes.Clone(k))
		return nil
	})
	for _, k := range keys {
		err = errors.Join(err, ignoreMissing(m.Delete(k)))
	}
	return err
}

func drain(m *ebpf.Map) error {
	rd, err := ringbuf.NewReader(m)
	if err != nil {
		return err
	}
	defer rd.Close()
	rd.SetDeadline(time.Now()) // what is there is read all the same
	for err == nil {
		_, err = rd.Read()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return nil
	}
	return err
}
