package fleet

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
)

// Kernel is all that a fleet has in the kernel, one line for each thing: pins,
// rows of every map of every host, and the devices of every namespace. Counters
// are left out: they count.
func (f *Fleet) Kernel() []string {
	f.T.Helper()
	var lines []string
	for _, h := range f.hosts {
		for _, pattern := range []string{"links/*", "maps-*/*"} {
			pins, err := filepath.Glob(filepath.Join(f.Pins(h), pattern))
			f.must(err)
			if len(pins) == 0 {
				f.T.Fatalf("%s has no pins %s", h, pattern)
			}
			for _, p := range pins {
				lines = append(lines, h+" pin "+p)
			}
			if pattern != "links/*" {
				for _, p := range pins {
					lines = append(lines, f.rows(h, p)...)
				}
			}
		}
	}
	spaces, err := filepath.Glob("/run/netns/weft-" + f.Name + "-*")
	f.must(err)
	for _, path := range spaces {
		space := filepath.Base(path)
		r := Run("", "ip", "-n", space, "-br", "link")
		f.must(r.Err())
		for _, l := range strings.Split(strings.TrimSpace(r.Out), "\n") {
			lines = append(lines, space+" device "+strings.Fields(l)[0])
		}
	}
	slices.Sort(lines)
	return lines
}

// mapsOfPackets hold what changes with packets and time and not with policy: counters, paces, reports.
var mapsOfPackets = map[string]bool{"drop": true, "denied": true, "flow": true, "flow_seen": true, "flow_pace": true, "traffic": true, "event": true, "storm": true, "copy": true, "scratch": true, "detour": true,
	"query": true, "judged": true, "rule_hit": true, "rule_log": true, "rule_pace": true, "connection": true, "conn_port": true, "conn_secret": true, "vouch": true, "policy_turn": true,
	"learn": true, "learn_pace": true, "group_report": true, "capture": true, "capture_count": true, "capture_rate": true, "capture_view": true,
	"flood_prog": true, "walk": true, // programs, whose ids are new with each agent
	"rule": true, "rule_name": true, // tens of MiB, which weft verify reads and compares; as text they take seconds
}

// rows of a pinned map; of an array, those that are not zero.
func (f *Fleet) rows(host, pin string) []string {
	f.T.Helper()
	name := filepath.Base(pin)
	if mapsOfPackets[name] {
		return nil
	}
	m, err := ebpf.LoadPinnedMap(pin, &ebpf.LoadPinOptions{ReadOnly: true})
	f.must(err)
	defer m.Close()
	var lines []string
	add := func(key, value []byte) {
		if slices.ContainsFunc(value, func(b byte) bool { return b != 0 }) {
			lines = append(lines, fmt.Sprintf("%s row %s %x = %x", host, name, key, value))
		}
	}
	if m.Type() == ebpf.Array { // some have a hundred thousand rows: many at once
		f.must(readArray(m, add))
		return lines
	}
	var key, value []byte
	it := m.Iterate()
	for it.Next(&key, &value) {
		add(key, value)
	}
	f.must(it.Err())
	return lines
}

// readArray gives every row of an array.
func readArray(m *ebpf.Map, row func(key, value []byte)) error {
	const batch = 4096
	keys := make([]uint32, batch)
	one := reflect.ArrayOf(int(m.ValueSize()), reflect.TypeFor[byte]())
	values := reflect.MakeSlice(reflect.SliceOf(one), batch, batch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := m.BatchLookup(&cursor, keys, values.Interface(), nil)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		for i := range n {
			row(binary.NativeEndian.AppendUint32(nil, keys[i]), values.Index(i).Slice(0, one.Len()).Bytes())
		}
		if err != nil {
			return nil
		}
	}
}

// Kinds that policy has.
var Kinds = []string{"tenants", "hosts", "pas", "networks", "subnets", "ports", "routes", "records"}

// changedAt says when, and not what: an agent that comes back sets it anew.
var changedAt = regexp.MustCompile(`(?m)^ *changedAt: .*\n?`)

// Policy is every resource as weft shows it, status included, but for the times of changes.
func (f *Fleet) Policy() []string {
	f.T.Helper()
	var all []string
	for _, k := range Kinds {
		for _, doc := range strings.Split(f.Must("get", k, "-A", "-o", "yaml"), "\n---\n") {
			all = append(all, changedAt.ReplaceAllString(strings.TrimSpace(doc), ""))
		}
	}
	return all
}

// Same fails the test for every line that only one of two lists has.
func (f *Fleet) Same(what string, before, after []string) {
	f.T.Helper()
	count := map[string]int{}
	for _, l := range before {
		count[l]--
	}
	for _, l := range after {
		count[l]++
	}
	var differ []string
	for l, n := range count {
		if n < 0 {
			differ = append(differ, "- "+l)
		}
		if n > 0 {
			differ = append(differ, "+ "+l)
		}
	}
	slices.Sort(differ)
	if n := len(differ); n > 0 {
		f.T.Errorf("%s: %d lines differ:\n%s", what, n, strings.Join(differ[:min(n, 20)], "\n"))
	}
}
