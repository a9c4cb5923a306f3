package lab

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// isolated are the guests of one subnet: where they are, and whom they reach.
var isolated = []struct{ name, host, isolation string }{
	{"iso-1", "h1", "{mode: isolated}"}, {"iso-2", "h1", "{mode: isolated}"}, {"iso-3", "h2", "{mode: isolated}"},
	{"shop-1", "h1", "{mode: community, community: shop}"}, {"shop-2", "h2", "{mode: community, community: shop}"},
	{"bank-1", "h2", "{mode: community, community: bank}"}, {"none-1", "h1", "{mode: none}"}, {"none-2", "h2", ""}, {"all-1", "h1", "{mode: promiscuous}"},
}

// TestIsolation proves the truth table of private VLANs by real packets: between all pairs of guests of three
// subnets, one for each transport, on one host and across two, over IPv4 and IPv6. What is routed between
// the subnets is not kept apart. Then two guests change places.
func TestIsolation(t *testing.T) {
	policy := &bytes.Buffer{}
	spec := Spec{Hosts: HostNames(2), ProviderAddresses: []string{"ipv4"}, Manifests: []string{filepath.Join(t.TempDir(), "isolation.yaml")}}
	fmt.Fprintf(policy, "---\nkind: Tenant\nmetadata: {name: red}\n---\nkind: VirtualNetwork\nmetadata: {tenant: red, name: prod}\n"+
		"---\nkind: PortProfile\nmetadata: {tenant: red, name: alone}\nspec: {isolation: {mode: isolated}}\n")
	for s, transport := range []string{"nvgre", "vxlan", "rewrite"} {
		fmt.Fprintf(policy, "---\nkind: VirtualSubnet\nmetadata: {tenant: red, name: %s}\nspec: {network: prod, prefixes: [10.0.%d.0/24, \"fd00:%d::/64\"], transport: %s}\n",
			transport, s, s+1, transport)
		for i, g := range isolated {
			name := transport + "-" + g.name
			says := "isolation: " + g.isolation
			if g.isolation == "" {
				says = "host: " + g.host
			}
			if g.name == "iso-2" {
				says = "profile: alone"
			}
			if !strings.HasPrefix(says, "host") {
				says += "\n  host: " + g.host
			}
			fmt.Fprintf(policy, "---\nkind: Port\nmetadata: {tenant: red, name: %s}\nspec:\n  subnet: %s\n  addresses: [10.0.%d.%d, \"fd00:%d::%d\"]\n  %s\n",
				name, transport, s, i+5, s+1, i+5, says)
			spec.Guests = append(spec.Guests, GuestSpec{Port: "red/" + name})
		}
	}
	if err := os.WriteFile(spec.Manifests[0], policy.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	l, ctx := newLab(t, "iso"), patience(t)
	if err := l.Up(ctx, options(t, spec)); err != nil {
		t.Fatal(err)
	}
	l.wantTable(t, len(spec.Guests)*(len(spec.Guests)-1))

	for _, to := range []string{"10.0.0.6", "10.0.0.7", "fd00:1::7"} { // here, and on another host
		out, code := l.in("h1", "", "weft", "trace", "red/nvgre-iso-1", "--to", to, "--proto", "udp")
		if !strings.Contains(out, "ISOLATED") || !strings.Contains(out, "isolated does not reach one that is isolated") {
			t.Errorf("trace to %s: code %d\n%s", to, code, out)
		}
	}
	if out, code := l.in("h1", "", "weft", "drops"); code != 0 || !strings.Contains(out, "ISOLATED") {
		t.Errorf("drops: code %d\n%s", code, out)
	}
	if out, code := l.in("h1", "", "weft", "verify"); code != 0 {
		t.Errorf("verify: code %d\n%s", code, out)
	}

	// A profile that changes brings its ports together with those of the community.
	l.applied(t, "kind: PortProfile\nmetadata: {tenant: red, name: alone}\nspec: {isolation: {mode: community, community: shop}}\n")
	guests, err := l.openGuests(ctx)
	defer func() {
		for _, g := range guests {
			g.responder.listener.Close()
		}
	}()
	if err != nil {
		t.Fatal(err)
	}
	var moved []*guest
	for _, g := range guests {
		if strings.HasSuffix(g.port, "-iso-2") || strings.HasSuffix(g.port, "-shop-2") || strings.HasSuffix(g.port, "-iso-1") {
			moved = append(moved, g)
		}
	}
	rows, err := probeAll(ctx, moved, moved)
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	if wrong := printRows(&table, "after the change", rows); wrong > 0 || len(rows) != 9*8 {
		t.Errorf("%d of %d rows are wrong\n%s", wrong, len(rows), table.String())
	}
}

// wantTable probes all pairs of guests.
func (l Lab) wantTable(t *testing.T, n int) {
	t.Helper()
	var table bytes.Buffer
	holds, err := l.Demo(patience(t), &table)
	if err != nil {
		t.Fatal(err)
	}
	rows, nobodies := 0, 0
	for line := range strings.Lines(table.String()) {
		if strings.HasSuffix(line, " ok\n") {
			rows++
			nobodies += strings.Count(line, nobody) / 3
		}
		if strings.Contains(line, "WRONG") {
			t.Log(strings.TrimSpace(line))
		}
	}
	t.Logf("%d rows hold, in %d of them nobody answers", rows, nobodies)
	if !holds || rows != n || nobodies == 0 {
		t.Errorf("%d of %d rows hold", rows, n)
	}
}
