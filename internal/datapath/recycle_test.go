package datapath

import (
	"bytes"
	"maps"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
)

// What a test leaves behind must be nothing that the next one sees.
func TestRecycledIsAsNew(t *testing.T) {
	enterNetns(t)
	o := Options{MaxPorts: 77, MaxRecords: 500, Recycle: true} // nobody else's
	fresh, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	programs, want := programIDs(t, fresh), contents(t, fresh)
	for name, m := range fresh.maps {
		soil(t, name, m)
	}
	soiled := contents(t, fresh)
	for name, m := range fresh.maps {
		if soilable(name, m) && slices.Equal(soiled[name], want[name]) {
			t.Errorf("%s: nothing could be left in it: the test proves nothing", name)
		}
	}
	if err := fresh.Close(); err != nil {
		t.Fatal(err)
	}
	again := open(t, o)
	if got := programIDs(t, again); !maps.Equal(got, programs) {
		t.Errorf("the programs are others: %v, were %v", got, programs)
	}
	got := contents(t, again)
	for name := range want {
		if name == "conn_secret" || name == "policy_turn" || ofFlows(name) { // each Open makes one; no flow is known in the next turn
			continue
		}
		if !slices.Equal(got[name], want[name]) {
			t.Errorf("%s: %d rows, of a new switch %d, or others", name, len(got[name]), len(want[name]))
		}
	}
}

func programIDs(t *testing.T, s *Switch) map[string]ebpf.ProgramID {
	t.Helper()
	out := map[string]ebpf.ProgramID{}
	for name, p := range s.programs {
		info, err := p.Info()
		if err != nil {
			t.Fatal(err)
		}
		out[name], _ = info.ID()
	}
	return out
}

// contents are the rows of all maps, as text, sorted.
func contents(t *testing.T, s *Switch) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for name, m := range s.maps {
		switch m.Type() {
		case ebpf.RingBuf, ebpf.ProgramArray, ebpf.PerfEventArray:
			continue
		}
		out[name] = []string{}
		it := m.Iterate()
		var k []byte
		var v []byte
		var cpus [][]byte
		for m.Type() == ebpf.PerCPUArray && it.Next(&k, &cpus) {
			out[name] = append(out[name], string(k)+" "+string(bytes.Join(cpus, nil)))
		}
		for m.Type() != ebpf.PerCPUArray && it.Next(&k, &v) {
			out[name] = append(out[name], string(k)+" "+string(v))
		}
		if err := it.Err(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		slices.Sort(out[name])
	}
	return out
}

func soilable(name string, m *ebpf.Map) bool {
	switch m.Type() {
	case ebpf.RingBuf, ebpf.ProgramArray, ebpf.PerfEventArray, ebpf.ArrayOfMaps: // hold what is no bytes of ours
		return false
	}
	return name[0] != '.'
}

// soil writes something other than zero into the first rows.
func soil(t *testing.T, name string, m *ebpf.Map) {
	t.Helper()
	if !soilable(name, m) {
		return
	}
	k, v := make([]byte, m.KeySize()), any(bytes.Repeat([]byte{0xa5}, int(m.ValueSize())))
	if m.Type() == ebpf.PerCPUArray {
		var all [][]byte
		for range ebpf.MustPossibleCPU() {
			all = append(all, v.([]byte))
		}
		v = all
	}
	for i := range byte(min(3, m.MaxEntries())) {
		k[0] = i
		if err := m.Put(k, v); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
}
