package fleet

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
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
var mapsOfPackets = map[string]bool{"drop": true, "traffic": true, "event": true, "storm": true, "copy": true, "scratch": true, "dx2": true,
	"query": true, "judged": true, "rule_hit": true, "rule_log": true, "rule_pace": true, "connection": true, "conn_port": true, "conn_secret": true, "vouch": true,
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
	r := Run("", "bpftool", "-j", "map", "dump", "pinned", pin)
	f.must(r.Err())
	var rows []struct {
		Key   []string `json:"key"`
		Value []string `json:"value"`
	}
	f.must(json.Unmarshal([]byte(r.Out), &rows))
	var lines []string
	for _, row := range rows {
		if slices.ContainsFunc(row.Value, func(b string) bool { return b != "0x00" }) {
			lines = append(lines, fmt.Sprintf("%s row %s %s = %s", host, name, bytesOf(row.Key), bytesOf(row.Value)))
		}
	}
	return lines
}

func bytesOf(hex []string) string { return strings.ReplaceAll(strings.Join(hex, ""), "0x", "") }

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
