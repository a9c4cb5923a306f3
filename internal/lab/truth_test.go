package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

// carried is a tenant of the generated truth table, alike to the others to the last byte
// but for how its subnets are carried. Flood is "" where a transport has no choice.
type carried struct {
	name, a, b string // transports of the subnets
	flood      string
}

// tenants are all transports with all ways to flood, and networks whose subnets differ.
func (carried) all() (out []carried) {
	for _, transport := range []string{"nvgre", "vxlan"} {
		for _, flood := range []string{"l3", "l2"} {
			out = append(out, carried{transport + "-" + flood, transport, transport, flood})
		}
	}
	return append(out, carried{"mixed", "nvgre", "vxlan", "l3"}, carried{"mixed-l2", "vxlan", "nvgre", "l2"}, carried{"rewrite", "rewrite", "rewrite", "l3"},
		carried{"rewrite-nvgre", "rewrite", "nvgre", "l2"}, carried{"vxlan-rewrite", "vxlan", "rewrite", "l3"})
}

// manifest of the tenant: guests of two subnets on two hosts, so that every pair of same or
// other host and same or other subnet is there.
func (c carried) manifest(w *bytes.Buffer) (ports []GuestSpec) {
	fmt.Fprintf(w, "---\nkind: Tenant\nmetadata: {name: %s}\n---\nkind: VirtualNetwork\nmetadata: {tenant: %s, name: prod}\n", c.name, c.name)
	for i, transport := range []string{c.a, c.b} {
		subnet, flood := string(rune('a'+i)), c.flood
		if transport == "rewrite" {
			flood = "l3" // it has no other
		}
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
	traceRewritten(t, l, "10.0.0.7", "10.0.1.7", "fd00:a::7", "fd00:b::7")
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

// traceRewritten wants packets from a guest on h1 to those on h2 to go without outer headers, there and back.
func traceRewritten(t *testing.T, l Lab, to ...string) {
	t.Helper()
	for _, ca := range to {
		answer, err := l.server().Operate().Trace(patience(t), connect.NewRequest(&weftv1.TraceRequest{Port: "rewrite/a1", To: ca}))
		if err != nil {
			t.Fatalf("trace to %s: %v", ca, err)
		}
		m := answer.Msg
		rewritten := 0
		for _, r := range slices.Concat(m.GetForward(), m.GetReverse()) {
			for _, f := range r.GetFindings() {
				t.Errorf("trace to %s: %s", ca, f)
			}
			if r.GetOuter().GetRewritten() {
				rewritten++
			}
		}
		if !m.GetReturned() || rewritten != 2 {
			t.Errorf("trace to %s: returned %v, %d rewritten: %s", ca, m.GetReturned(), rewritten, m.GetSummary())
		}
	}
}
