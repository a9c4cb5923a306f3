package agent

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/hostwire"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

var updateWalk = flag.Bool("update", false, "rewrite the agent's blocks of docs/policy-walk.md")

var walkBlock = regexp.MustCompile("(?s)```text ([^\n]+)\n(.*?)```\n")

// The page docs/policy-walk.md says which bytes the server sends to h1 and h2
// (test/walk proves it). Here the two agents take these very bytes to the kernel.
func TestPolicyWalkEndsInTheKernel(t *testing.T) {
	const page = "../../docs/policy-walk.md"
	text, err := os.ReadFile(page)
	must(t, err)
	shown := map[string]string{}
	for _, m := range walkBlock.FindAllSubmatch(text, -1) {
		shown[string(m[1])] = string(m[2])
	}
	var rendered strings.Builder
	want := map[string]string{}
	for _, h := range []struct {
		name    string
		devices map[model.PortID]device
		under   underlay
	}{
		{"h1", map[model.PortID]device{8: {ifindex: 11, veth: true}}, underlay{mtu: 1500}},
		{"h2", nil, underlay{mtu: 1500, peers: map[netip.Addr]table.Peer{addr("192.0.2.1"): {PA: addr("192.0.2.1"), IfIndex: 2, MTU: 1500}}}},
	} {
		d, err := hostwire.Delta(fromPage(t, shown["to "+h.name]))
		must(t, err)
		g := goal.New()
		d.Apply(g)
		set := render(g, h.devices, h.under)
		fmt.Fprintf(&rendered, "%s\n%s", h.name, describeRows(set))
		want["in the maps of "+h.name] = inMaps(t, set)
	}
	want["rendered"] = rendered.String()
	fresh := walkBlock.ReplaceAllFunc(text, func(b []byte) []byte {
		name := string(walkBlock.FindSubmatch(b)[1])
		if want[name] == "" {
			return b
		}
		return []byte("```text " + name + "\n" + want[name] + "```\n")
	})
	if *updateWalk {
		must(t, os.WriteFile(page, fresh, 0o644))
		return
	}
	for name, text := range want {
		if shown[name] != text {
			t.Errorf("%s: the page shows\n%sthe code gives\n%s", name, shown[name], text)
		}
	}
}

// fromPage reads a message out of a block: lines of bytes behind the name of a field.
func fromPage(t *testing.T, block string) *hostv1.Update {
	t.Helper()
	var raw []byte
	for line := range strings.Lines(block) {
		b, err := hex.DecodeString(strings.Join(strings.Fields(line[12:]), ""))
		must(t, err)
		raw = append(raw, b...)
	}
	u := &hostv1.Update{}
	must(t, proto.Unmarshal(raw, u))
	if hostwire.Rows(u) == 0 {
		t.Fatal("the page shows no rows on the wire")
	}
	return u
}

func describeRows(s table.Set) string {
	var lines []string
	for i, p := range s.Ports {
		lines = append(lines, fmt.Sprintf("  port    device %d  id %d  VSID %d  network %d  MAC %s  PA %s  gateway %s,%s  MTU %d",
			i, p.ID, p.VSID, p.Network, p.MAC, p.PA, p.Gateway4, p.Gateway6, p.MTU))
	}
	for k, r := range s.Records {
		place := fmt.Sprintf("device %d", r.IfIndex)
		if r.PA.IsValid() {
			place = "PA " + r.PA.String()
		}
		lines = append(lines, fmt.Sprintf("  record  %d %-10s MAC %s  %s  port %d", k.VSID, k.CA, r.MAC, place, r.Port))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n"
}

// field is a part of a key or value of bpf/maps.
type field struct {
	name string
	size int
}

var layouts = map[string][]field{
	"record": {{"vsid", 4}, {"ca", 16}, {"mac", 6}, {"flags", 2}, {"peer", 4}, {"ifindex", 4}, {"port_id", 4}, {"isolation", 4}},
	"port": {{"ifindex", 4}, {"ifindex", 4}, {"id", 4}, {"vsid", 4}, {"network", 4}, {"slot", 4}, {"mtu", 2}, {"mac", 6}, {"flags", 4},
		{"pa", 16}, {"gateway4", 16}, {"gateway6", 16}, {"isolation", 4}, {"inbound", 4}, {"outbound", 4}, {"version", 4}},
}

// inMaps loads the switch, applies the rows and reads the maps back with bpftool.
func inMaps(t *testing.T, set table.Set) string {
	t.Helper()
	root := t.TempDir()
	must(t, unix.Mount("bpf", root, "bpf", 0, "mode=0700"))
	defer func() { must(t, unix.Unmount(root, unix.MNT_DETACH)) }()
	pins := filepath.Join(root, "walk")
	s, err := datapath.Open(datapath.Options{PinDir: pins, Decap: datapath.DecapTCX})
	must(t, err)
	defer s.Close()
	must(t, s.Apply(set, false))
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(layouts)) {
		for _, row := range dumpMap(t, pins, name) {
			b.WriteString(name + "\n")
			for _, f := range layouts[name] {
				if len(row) < f.size {
					t.Fatalf("map %s is shorter than the page knows", name)
				}
				fmt.Fprintf(&b, "  %-9s % x\n", f.name, row[:f.size])
				row = row[f.size:]
			}
			if len(row) > 0 {
				t.Fatalf("map %s is longer than the page knows", name)
			}
		}
	}
	return b.String()
}

// dumpMap gives key and value of every row, sorted.
func dumpMap(t *testing.T, pins, name string) [][]byte {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(pins, "maps-*", name))
	must(t, err)
	if len(found) != 1 {
		t.Fatalf("map %s is pinned %d times", name, len(found))
	}
	out, err := exec.Command("bpftool", "-j", "map", "dump", "pinned", found[0]).Output()
	must(t, err)
	var dumped []struct{ Key, Value []string }
	must(t, json.Unmarshal(out, &dumped))
	var rows [][]byte
	for _, d := range dumped {
		b, err := hex.DecodeString(strings.ReplaceAll(strings.Join(slices.Concat(d.Key, d.Value), ""), "0x", ""))
		must(t, err)
		rows = append(rows, b)
	}
	slices.SortFunc(rows, bytes.Compare)
	return rows
}
