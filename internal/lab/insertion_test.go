package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// insertion is two subnets that rewrite, and a firewall between them, on a host that neither its clients nor what it guards need be on.
const insertion = `kind: Tenant
metadata: {name: red}
---
kind: VirtualNetwork
metadata: {tenant: red, name: prod}
---
kind: VirtualSubnet
metadata: {tenant: red, name: web}
spec: {network: prod, vsid: 5001, prefixes: [10.0.0.0/24, "fd00:a::/64"], transport: rewrite}
---
kind: VirtualSubnet
metadata: {tenant: red, name: db}
spec: {network: prod, vsid: 5002, prefixes: [10.0.1.0/24, "fd00:b::/64"], transport: rewrite}
---
kind: Port
metadata: {tenant: red, name: web-1}
spec: {subnet: web, addresses: [10.0.0.5, "fd00:a::5"], host: h1}
---
kind: Port
metadata: {tenant: red, name: db-1}
spec: {subnet: db, addresses: [10.0.1.5, "fd00:b::5"], host: h1}
---
kind: Port
metadata: {tenant: red, name: db-2}
spec: {subnet: db, addresses: [10.0.1.6, "fd00:b::6"], host: h2}
---
kind: Port
metadata: {tenant: red, name: fw}
spec: {subnet: web, addresses: [10.0.0.7, "fd00:a::7"], host: h2, forwarding: true}
`

const throughFirewall = `kind: CustomerRoute
metadata: {tenant: red, name: to-db}
spec: {network: prod, prefix: 10.0.1.0/25, nextHop: 10.0.0.7}
---
kind: CustomerRoute
metadata: {tenant: red, name: to-db-v6}
spec: {network: prod, prefix: "fd00:b::/65", nextHop: "fd00:a::7"}
---
kind: CustomerRoute
metadata: {tenant: red, name: to-web}
spec: {network: prod, prefix: 10.0.0.0/25, nextHop: 10.0.0.7}
---
kind: CustomerRoute
metadata: {tenant: red, name: to-web-v6}
spec: {network: prod, prefix: "fd00:a::/65", nextHop: "fd00:a::7"}
`

// A service is inserted between subnets that rewrite: both ways lead through a guest on another host, to guests of the sender's
// host and of the firewall's. What goes through it is NVGRE; before and after, nothing but addresses changes.
func TestServiceInsertionBetweenRewrittenSubnets(t *testing.T) {
	ctx := patience(t)
	manifest := filepath.Join(t.TempDir(), "insertion.yaml")
	if err := os.WriteFile(manifest, []byte(insertion), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := Spec{Hosts: HostNames(2), ProviderAddresses: []string{"ipv4"}, Manifests: []string{manifest}}
	for _, g := range []string{"red/web-1", "red/db-1", "red/db-2", "red/fw"} {
		spec.Guests = append(spec.Guests, GuestSpec{Port: g})
	}
	l := newLab(t, "s")
	if err := l.Up(ctx, options(t, spec)); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := setting(l.guestSpace(portRef{"red", "fw"}), key, "1"); err != nil {
			t.Fatal(err)
		}
	}
	reaches := func(size int, to string) error {
		if out, code := l.in("red/web-1", "", "ping", "-n", "-c1", "-W1", "-s", fmt.Sprint(size), to); code != 0 {
			return fmt.Errorf("ping %s with %d bytes: code %d\n%s", to, size, code, out)
		}
		return nil
	}
	all := []string{"10.0.1.5", "10.0.1.6", "fd00:b::5", "fd00:b::6"}
	each := func(what string, check func(string) error) {
		t.Helper()
		for _, to := range all {
			if err := poll(ctx, func() error { return check(to) }); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	rewritten := func(want bool) func(string) error {
		return func(to string) error {
			m, _ := l.trace(t, "red/web-1", "--to", to)
			for _, r := range m.GetForward() {
				if o := r.GetOuter(); o != nil && o.GetRewritten() != want {
					return fmt.Errorf("%s: rewritten %t: %s", to, o.GetRewritten(), way(m.GetForward()))
				}
			}
			return nil
		}
	}
	each("before", func(to string) error { return reaches(1400, to) })
	each("before", rewritten(true))
	was := l.forwarded(t)
	l.applied(t, throughFirewall)
	each("through the firewall", func(to string) error { return reaches(56, to) })
	each("through the firewall, as much as the guest's device takes", func(to string) error { return reaches(1440, to) }) // more than NVGRE carries: the guest is told
	each("through the firewall", rewritten(false))
	if n := l.forwarded(t) - was; n < 2*2*len(all) {
		t.Errorf("the firewall has forwarded %d packets", n)
	}
	for _, g := range []string{"to-db", "to-db-v6", "to-web", "to-web-v6"} {
		if out, code := l.in("h1", "", "weft", "delete", "customerroute", "red/"+g); code != 0 {
			t.Fatalf("delete: code %d\n%s", code, out)
		}
	}
	each("after", rewritten(true))
	each("after", func(to string) error { return reaches(1400, to) })
}

// forwarded is how many packets the firewall has passed on.
func (l Lab) forwarded(t *testing.T) (n int) {
	t.Helper()
	out, _ := l.in("red/fw", "", "sh", "-c", "awk '/^Ip: [0-9]/ {print $7} ' /proc/net/snmp; awk '/^Ip6OutForwDatagrams/ {print $2}' /proc/net/snmp6")
	for _, word := range strings.Fields(out) {
		var one int
		fmt.Sscan(word, &one)
		n += one
	}
	return n
}
