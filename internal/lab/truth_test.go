package lab

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/model"
)

// carried is a tenant of the generated truth table, alike to the others to the last byte
// but for how its subnets are carried. Flood is "" where a transport has no choice.
type carried struct {
	name, a, b string // transports of the subnets
	flood      string
	rewrites   string // families that the network rewrites; "": both
	over       string // family of the Provider Addresses that stand for both; "": each over its own
}

// tenants are all transports with all ways to flood, and networks whose subnets differ.
func (carried) all() (out []carried) {
	for _, transport := range []string{"nvgre", "vxlan"} {
		for _, flood := range []string{"l3", "l2"} {
			out = append(out, carried{name: transport + "-" + flood, a: transport, b: transport, flood: flood})
		}
	}
	return append(out, carried{"mixed", "nvgre", "vxlan", "l3", "", ""}, carried{"mixed-l2", "vxlan", "nvgre", "l2", "", ""},
		carried{"rewrite", "rewrite", "rewrite", "l3", "", ""}, carried{"rewrite-l2", "rewrite", "rewrite", "l2", "", ""},
		carried{"rewrite-ipv4", "rewrite", "rewrite", "l3", "ipv4", ""}, carried{"rewrite-ipv6", "rewrite", "rewrite", "l2", "ipv6", ""},
		carried{"over-ipv4", "rewrite", "rewrite", "l3", "", "ipv4"}, carried{"over-ipv6", "rewrite", "rewrite", "l2", "", "ipv6"},
		carried{"ipv4-over-ipv6", "rewrite", "rewrite", "l2", "ipv4", "ipv6"}, carried{"ipv6-over-ipv4", "rewrite", "rewrite", "l3", "ipv6", "ipv4"},
		carried{"rewrite-nvgre", "rewrite", "nvgre", "l2", "", "ipv6"}, carried{"vxlan-rewrite", "vxlan", "rewrite", "l2", "ipv6", ""})
}

// manifest of the tenant: guests of two subnets on two hosts, so that every pair of same or
// other host and same or other subnet is there.
func (c carried) manifest(w *bytes.Buffer) (ports []GuestSpec) {
	fmt.Fprintf(w, "---\nkind: Tenant\nmetadata: {name: %s}\n---\nkind: VirtualNetwork\nmetadata: {tenant: %s, name: prod}\nspec: {rewriteFamilies: [%s], rewriteOver: \"%s\"}\n", c.name, c.name, c.rewrites, c.over)
	for i, transport := range []string{c.a, c.b} {
		subnet, flood := string(rune('a'+i)), c.flood
		fmt.Fprintf(w, "---\nkind: VirtualSubnet\nmetadata: {tenant: %s, name: %s}\nspec:\n  network: prod\n  prefixes: [10.0.%d.0/24, \"fd00:%s::/64\"]\n  transport: %s\n  flood: %s\n",
			c.name, subnet, i, subnet, transport, flood)
		for n, host := range []string{"h1", "h1", "h2"} {
			port := fmt.Sprintf("%s%d", subnet, n+1)
			fmt.Fprintf(w, "---\nkind: Port\nmetadata: {tenant: %s, name: %s}\nspec:\n  subnet: %s\n  mac: \"02:00:00:00:%02d:%02d\"\n  addresses: [10.0.%d.%d, \"fd00:%s::%d\"]\n  host: %s\n",
				c.name, port, subnet, i, n+1, i, n+5, subnet, n+5, host)
			ports = append(ports, GuestSpec{Port: c.name + "/" + port})
		}
	}
	return ports
}

// TestTruth brings up a lab for each family of Provider Addresses, with tenants for every way
// of carrying, and probes all pairs of guests, over IPv4 and IPv6.
func TestTruth(t *testing.T) {
	for _, family := range []string{"ipv4", "ipv6"} {
		t.Run("provider addresses "+family, func(t *testing.T) { truth(t, family) })
	}
}

func truth(t *testing.T, family string) {
	policy := &bytes.Buffer{}
	spec := Spec{Hosts: HostNames(2), ProviderAddresses: []string{family}, Manifests: []string{filepath.Join(t.TempDir(), "truth.yaml")}}
	for _, c := range (carried{}).all() {
		spec.Guests = append(spec.Guests, c.manifest(policy)...)
	}
	if err := os.WriteFile(spec.Manifests[0], policy.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	l, ctx := newLab(t, family[3:]), patience(t)
	if err := l.Up(ctx, options(t, spec)); err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	holds, err := l.Demo(ctx, &table)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range (carried{}).all() {
		if c.a == "rewrite" && c.b == "rewrite" {
			traceRewritten(t, l, c)
		}
	}
	hearsFlooded(t, l)
	streamsExchanged(t, l)
	rows := 0
	for line := range strings.Lines(table.String()) {
		if strings.HasSuffix(line, " ok\n") {
			rows++
		}
		if strings.Contains(line, "WRONG") || strings.Contains(line, "rows are as expected") {
			t.Log(strings.TrimSpace(line))
		}
	}
	if !holds {
		t.Error("the table does not hold")
	}
	if n := len(spec.Guests); rows < n*(n-1) {
		t.Errorf("%d rows hold, of %d guests' %d pairs", rows, n, n*(n-1))
	}
}

// traceRewritten wants packets from a guest on h1 to those on h2 to go without outer headers, there and back; those of a
// family that the network does not rewrite, by NVGRE.
func traceRewritten(t *testing.T, l Lab, c carried) {
	t.Helper()
	for to, family := range map[string]string{"10.0.0.7": "ipv4", "10.0.1.7": "ipv4", "fd00:a::7": "ipv6", "fd00:b::7": "ipv6"} {
		answer, err := l.server().Operate().Trace(patience(t), connect.NewRequest(&weftv1.TraceRequest{Port: c.name + "/a1", To: to}))
		if err != nil {
			t.Fatalf("%s: trace to %s: %v", c.name, to, err)
		}
		m := answer.Msg
		want := map[bool]int{c.rewrites == "" || c.rewrites == family: 2}
		got := map[bool]int{}
		for _, r := range slices.Concat(m.GetForward(), m.GetReverse()) {
			for _, f := range r.GetFindings() {
				t.Errorf("%s: trace to %s: %s", c.name, to, f)
			}
			if r.GetOuter() == nil {
				continue
			}
			got[r.GetOuter().GetRewritten()]++
			if over := familyOf(r.GetOuter().GetDestination()); r.GetOuter().GetRewritten() && over != cmp.Or(c.over, family) {
				t.Errorf("%s: trace to %s: rewritten over %s", c.name, to, over)
			}
		}
		if !m.GetReturned() || got[true] != want[true] || got[true]+got[false] < 2 {
			t.Errorf("%s: trace to %s: returned %v, rewritten or not: %v: %s", c.name, to, m.GetReturned(), got, m.GetSummary())
		}
	}
}

func familyOf(a string) string { return string(model.FamilyOf(netip.MustParseAddr(a))) }

// hearsFlooded has a guest of each tenant say something to everybody, by IPv4, IPv6 and ARP, and wants its neighbours
// in a subnet that floods to hear it once, and nobody else. All tenants are alike to the last byte.
func hearsFlooded(t *testing.T, l Lab) {
	t.Helper()
	ctx, all := patience(t), (carried{}).all()
	wires, sent := map[string]*wire{}, map[string][][]byte{}
	for _, c := range all {
		for _, port := range []string{"a1", "a2", "a3", "b1", "b3"} {
			wires[c.name+"/"+port] = l.tap(t, portRef{c.name, port})
		}
	}
	for n, c := range all {
		sender := wires[c.name+"/a1"]
		sent[c.name] = floodedKinds(sender, uint32(n+1)<<8)
		for _, f := range sent[c.name] {
			sender.send(t, f)
		}
	}
	got := map[string]map[string]int{}
	err := poll(ctx, func() error {
		for name, w := range wires {
			if got[name] == nil {
				got[name] = map[string]int{}
			}
			w.heard(t, got[name])
		}
		for _, c := range all {
			for i, f := range sent[c.name] {
				for _, to := range []string{"/a2", "/a3"} {
					if c.flood == "l2" && got[c.name+to][string(f)] == 0 {
						return fmt.Errorf("%s%s has not heard frame %d", c.name, to, i)
					}
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for name := range wires {
		for _, c := range all {
			want := 0
			if c.flood == "l2" && (name == c.name+"/a2" || name == c.name+"/a3") {
				want = 1
			}
			for i, f := range sent[c.name] {
				if heard := got[name][string(f)]; heard != want {
					t.Errorf("%s heard frame %d of %s %d times, want %d", name, i, c.name, heard, want)
				}
			}
		}
	}
}

// floodedKinds are frames of a1 to everybody, none like another.
func floodedKinds(w *wire, mark uint32) [][]byte {
	web1 := [4]byte{10, 0, 0, 5}
	gratuitous := append([]byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1}, w.mac[:]...)
	gratuitous = append(append(append(gratuitous, web1[:]...), make([]byte, 6)...), web1[:]...)
	hello := []byte{0x86, 0xdd, 0x60, 0, 0, 0, 0, 4, 59, 255, 0xfd, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5,
		0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfb}
	return [][]byte{
		w.frame([6]byte{255, 255, 255, 255, 255, 255}, udp4(web1, [4]byte{10, 0, 0, 255}), mark),
		w.frame([6]byte{1, 0, 0x5e, 0, 0, 0xfb}, udp4(web1, [4]byte{224, 0, 0, 251}), mark+1),
		w.frame([6]byte{255, 255, 255, 255, 255, 255}, gratuitous, mark+2),
		w.frame([6]byte{0x33, 0x33, 0, 0, 0, 0xfb}, hello, mark+3),
	}
}
