// Package learning tries what docs/design/learning.md says on two real hosts: guests that
// configure themselves, and guests that ask a DHCP server in another guest.
package learning

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/lab"
	"github.com/weft-sdn/weft/test/fleet"
)

func TestMain(m *testing.M) { fleet.Main(m) }

const policy = `
kind: Tenant
metadata: {name: red}
---
kind: VirtualNetwork
metadata: {tenant: red, name: prod}
---
kind: VirtualSubnet
metadata: {tenant: red, name: web}
spec: {network: prod, vsid: 5001, prefixes: [10.0.0.0/24, "fd00:a::/64"]}
---
kind: Port
metadata: {tenant: red, name: fixed}
spec: {subnet: web, mac: "02:00:00:00:00:01", addresses: [10.0.0.5, "fd00:a::5"], host: h1, dhcpGuard: false} # it serves DHCP
---
kind: Port
metadata: {tenant: red, name: new-1}
spec: {subnet: web, mac: "02:00:00:00:00:11", dynamicAddressLimit: 2, host: h1}
---
kind: Port
metadata: {tenant: red, name: new-2}
spec: {subnet: web, mac: "02:00:00:00:00:12", dynamicAddressLimit: 2, host: h2}
`

func newFleet(t *testing.T, suffix string) *fleet.Fleet {
	t.Helper()
	return newFleetWith(t, suffix, nil)
}

// newFleetWith has agents with settings of their own.
func newFleetWith(t *testing.T, suffix string, agent map[string]any) *fleet.Fleet {
	t.Helper()
	manifest := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(manifest, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	return fleet.New(t, suffix, fleet.Options{Agent: agent, Spec: lab.Spec{Hosts: []string{"h1", "h2"}, Manifests: []string{manifest},
		Guests: []lab.GuestSpec{{Port: "red/fixed"}, {Port: "red/new-1"}, {Port: "red/new-2"}}}})
}

// in runs a shell line in a guest that must succeed.
func in(f *fleet.Fleet, guest, line string) string {
	f.T.Helper()
	r := f.On("red/"+guest, "sh", "-ec", line)
	if err := r.Err(); err != nil {
		f.T.Fatal(err)
	}
	return r.Out
}

// learned waits until the port has learned exactly that.
func learned(f *fleet.Fleet, port, want string) {
	f.T.Helper()
	f.Poll(fmt.Sprintf("%s has learned %q", port, want), func() error {
		var got []string
		out := f.Must("get", "records", "-n", "red")
		for _, line := range strings.Split(out, "\n") {
			_, rest, ok := strings.Cut(line, "port:"+port+":")
			if ok && strings.Contains(line, "Dynamic") {
				got = append(got, strings.Fields(rest)[0])
			}
		}
		if s := strings.Join(got, " "); s != want {
			return fmt.Errorf("it has learned %q:\n%s", s, out)
		}
		return nil
	})
}

// condition waits until the port's GuestConfigured has the status and reason, and says words.
func condition(f *fleet.Fleet, port, status, reason string, words ...string) {
	f.T.Helper()
	f.Poll(fmt.Sprintf("GuestConfigured of %s is %s, %s", port, status, reason), func() error {
		out := f.Must("describe", "port", "red/"+port)
		for _, line := range strings.Split(out, "\n") {
			if !strings.Contains(line, "GuestConfigured") {
				continue
			}
			for _, w := range append(words, " "+status+" ", reason) {
				if !strings.Contains(line, w) {
					return fmt.Errorf("no %q in %s", w, line)
				}
			}
			return nil
		}
		return fmt.Errorf("no such condition:\n%s", out)
	})
}

// ping tries until it goes through: the first packets of a guest are what it is learned by.
func ping(f *fleet.Fleet, from, to string) {
	f.T.Helper()
	f.Poll("red/"+from+" reaches "+to, func() error { return f.On("red/"+from, "ping", "-n", "-c1", "-W1", to).Err() })
}

func TestGuestsThatConfigureThemselves(t *testing.T) {
	f := newFleet(t, "a")
	f.Verified()
	learned(f, "new-1", "")

	in(f, "new-1", "ip addr add 10.0.0.21/24 dev eth0; ip link set eth0 up")
	ping(f, "new-1", "10.0.0.5")
	learned(f, "new-1", "10.0.0.21")
	in(f, "new-2", "ip addr add 10.0.0.22/24 dev eth0; ip link set eth0 up")
	ping(f, "new-2", "10.0.0.21") // both learned, across hosts
	learned(f, "new-2", "10.0.0.22")
	in(f, "new-2", "ip addr add fd00:a::22/64 dev eth0") // duplicate address detection tells
	learned(f, "new-2", "10.0.0.22 fd00:a::22")
	ping(f, "fixed", "fd00:a::22")
	condition(f, "new-2", "True", "AsPolicySays")

	// The first one stays: the second hears at once that the address is taken, and people do.
	in(f, "new-1", "arping -q -D -c1 -w1 -I eth0 10.0.0.22 && exit 1 || true")
	condition(f, "new-1", "False", "DuplicateAddress", "10.0.0.22")
	in(f, "new-1", "ip addr add 10.0.0.22/24 dev eth0; arping -q -U -c2 -w2 -I eth0 10.0.0.22 || true")
	learned(f, "new-1", "10.0.0.21")
	learned(f, "new-2", "10.0.0.22 fd00:a::22")
	in(f, "new-1", "ip addr del 10.0.0.22/24 dev eth0")
	ping(f, "fixed", "10.0.0.22")

	// As many as the limit says.
	in(f, "new-2", "ip addr add 10.0.0.23/24 dev eth0; arping -q -U -c2 -w2 -I eth0 10.0.0.23 || true")
	condition(f, "new-2", "False", "AddressLimit", "10.0.0.23", "dynamicAddressLimit")
	learned(f, "new-2", "10.0.0.22 fd00:a::22")

	// Where everything is flooded, an announcement moves an address.
	f.Apply("kind: VirtualSubnet\nmetadata: {tenant: red, name: web}\nspec: {network: prod, vsid: 5001, prefixes: [10.0.0.0/24, \"fd00:a::/64\"], flood: l2}\n")
	in(f, "new-1", "ip addr add 10.0.0.22/24 dev eth0; arping -q -U -c2 -w2 -I eth0 10.0.0.22 || true")
	learned(f, "new-1", "10.0.0.21 10.0.0.22")
	learned(f, "new-2", "fd00:a::22")
	ping(f, "fixed", "10.0.0.22")
	in(f, "new-2", "arping -q -c2 -w2 -I eth0 -s 10.0.0.22 10.0.0.5 || true") // it still has it configured
	condition(f, "new-2", "False", "", "The guest uses 10.0.0.22")

	// What is written wins.
	f.Apply("kind: Port\nmetadata: {tenant: red, name: owner}\nspec: {subnet: web, addresses: [10.0.0.21], host: h2}\n")
	learned(f, "new-1", "10.0.0.22")
	if out := f.Must("lookup", "5001", "10.0.0.21"); !strings.Contains(out, "red/owner") {
		t.Errorf("10.0.0.21 is at\n%s", out)
	}

	// A guest that is gone leaves nothing.
	if err := f.On("h2", fleet.Program("weft"), "unplug", "red/new-2").Err(); err != nil {
		t.Fatal(err)
	}
	learned(f, "new-2", "")
	f.Verified()
}

// A guest that stops using an address without a word is asked for it, over IPv4 and IPv6, and loses it; what it still has it keeps,
// however silent it is.
func TestSilentAddressesAreForgotten(t *testing.T) {
	f := newFleetWith(t, "i", map[string]any{"learnedTimeout": "3s"})
	in(f, "new-1", "ip addr add 10.0.0.21/24 dev eth0; ip addr add fd00:a::21/64 dev eth0; ip link set eth0 up")
	ping(f, "new-1", "10.0.0.5")
	learned(f, "new-1", "10.0.0.21 fd00:a::21")
	in(f, "new-2", "ip addr add 10.0.0.22/24 dev eth0; ip addr add fd00:a::22/64 dev eth0; ip link set eth0 up")
	ping(f, "new-2", "10.0.0.5")
	learned(f, "new-2", "10.0.0.22 fd00:a::22")
	in(f, "new-1", "ip addr del fd00:a::21/64 dev eth0")
	in(f, "new-2", "ip addr del 10.0.0.22/24 dev eth0")
	learned(f, "new-1", "10.0.0.21")
	learned(f, "new-2", "fd00:a::22")
	in(f, "new-2", "ip link set eth0 down")
	learned(f, "new-2", "")
	learned(f, "new-1", "10.0.0.21")
	f.Verified()
}

func TestGuestsThatAreConfiguredWrongly(t *testing.T) {
	f := newFleet(t, "b")
	condition(f, "fixed", "True", "AsPolicySays")
	// Another address, another gateway, another prefix, another MAC; each for more than a moment.
	in(f, "fixed", "ip addr add 10.0.0.77/24 dev eth0; ping -n -c3 -W1 -I 10.0.0.77 10.0.0.1 >/dev/null || true")
	condition(f, "fixed", "False", "ForeignAddress", "10.0.0.77", "its port has 10.0.0.5", "spec.addresses")
	in(f, "fixed", "ip addr del 10.0.0.77/24 dev eth0; ping -n -c3 -W1 10.0.0.254 >/dev/null || true")
	condition(f, "fixed", "False", "", "10.0.0.254", "the gateway of its subnet is 10.0.0.1")
	in(f, "fixed", "ip route add 192.168.0.0/16 dev eth0; ping -n -c3 -W1 192.168.3.4 >/dev/null || true")
	condition(f, "fixed", "False", "", "192.168.3.4", "outside its subnet (10.0.0.0/24")
	in(f, "fixed", "ip link set eth0 address 02:00:00:00:00:66; ping -n -c3 -W1 10.0.0.1 >/dev/null || true")
	condition(f, "fixed", "False", "", "02:00:00:00:00:66", "02:00:00:00:00:01")
	if r := f.Weft("explain", "ForeignMAC"); !strings.Contains(r.Out, "spec.mac") {
		t.Errorf("explain: %s%s", r.Out, r.Words)
	}
}

// serveDHCP runs a DHCP server in a guest; it goes with the test.
func serveDHCP(f *fleet.Fleet, guest string, options ...string) {
	f.T.Helper()
	dir := f.T.TempDir()
	args := append([]string{"netns", "exec", f.Space("red/" + guest), "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0", "--no-ping",
		"--user=root", "--interface=eth0", "--bind-interfaces", "--log-dhcp", "--log-facility=-", "--pid-file=" + filepath.Join(dir, "pid"),
		"--dhcp-leasefile=" + filepath.Join(dir, "leases"), "--dhcp-range=10.0.0.100,10.0.0.200,255.255.255.0,2m",
		"--dhcp-option=option:router,10.0.0.1"}, options...)
	c := exec.Command("ip", args...)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		f.T.Fatal(err)
	}
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		f.T.Fatal(err)
	}
	f.T.Cleanup(func() {
		c.Process.Kill()
		c.Wait()
		if text, err := os.ReadFile(log.Name()); err == nil && f.T.Failed() {
			f.T.Logf("dnsmasq:\n%s", text)
		}
	})
}

// lease has a guest ask a DHCP server for its address, and configures that.
const lease = `cat >/tmp/udhcpc-$$ <<'EOF'
#!/bin/sh
case $1 in
bound|renew) ip addr flush dev eth0 scope global; ip addr add $ip/$mask dev eth0; ip route replace default via $router; echo $ip ;;
esac
EOF
chmod +x /tmp/udhcpc-$$
busybox udhcpc -i eth0 -s /tmp/udhcpc-$$ -n -f -t 10 -T 1 %s 2>/dev/null
rm /tmp/udhcpc-$$`

func TestGuestsThatAskADHCPServer(t *testing.T) {
	f := newFleet(t, "c")
	serveDHCP(f, "fixed")
	for _, c := range []struct{ guest, flags, want string }{
		{"new-1", "-q -r 10.0.0.110", "10.0.0.110"},                      // on the server's host; it answers by unicast
		{"new-2", "-q -r 10.0.0.120", "10.0.0.120"},                      // on the other one
		{"new-1", "-q -B -C -x 0x3d:6e6577 -r 10.0.0.111", "10.0.0.111"}, // by broadcast, and another address: the first is given up
		{"new-2", "-q -B -C -x 0x3d:6e6578 -r 10.0.0.121", "10.0.0.121"},
	} {
		out := in(f, c.guest, fmt.Sprintf(lease, c.flags))
		if got := strings.TrimSpace(out); got != c.want {
			t.Fatalf("%s asked for %s and got %q", c.guest, c.want, got)
		}
		learned(f, c.guest, c.want)
	}
	ping(f, "new-1", "10.0.0.121")
	ping(f, "new-2", "10.0.0.5")
	condition(f, "new-1", "True", "AsPolicySays")
	condition(f, "new-2", "True", "AsPolicySays")
	f.Verified()

	// A guest that goes gives its address back, and the next one may have it.
	in(f, "new-2", fmt.Sprintf(strings.Replace(lease, "echo $ip", "kill -TERM $PPID", 1), "-R -C -x 0x3d:6e6578 -r 10.0.0.121"))
	learned(f, "new-2", "")
	f.Verified()
}

func TestAGatewayStandsForAllThatPolicyDoesNotKnow(t *testing.T) {
	f := newFleet(t, "d")
	const outside4, outside6 = "203.0.113.9", "2001:db8::9"
	in(f, "fixed", "ip addr add "+outside4+"/32 dev lo; ip addr add "+outside6+"/128 dev lo")
	in(f, "new-2", `ip addr add 10.0.0.22/24 dev eth0; ip addr add fd00:a::22/64 dev eth0
		ip route add default via 10.0.0.1; ip -6 route add default via fd00:a::1`)
	ping(f, "new-2", "10.0.0.5")
	ping(f, "new-2", "fd00:a::5")
	f.Apply(`
kind: CustomerRoute
metadata: {tenant: red, name: default4}
spec: {network: prod, prefix: 0.0.0.0/0, nextHop: 10.0.0.254}
---
kind: CustomerRoute
metadata: {tenant: red, name: default6}
spec: {network: prod, prefix: "::/0", nextHop: "fd00:a::fe"}
`, "--wait")
	if r := f.On("red/new-2", "ping", "-n", "-c1", "-W1", outside4); r.Code == 0 {
		t.Fatal("somebody answers before there is a gateway")
	}
	f.Apply(`
kind: LookupRecord
metadata: {tenant: red, name: gateway4}
spec: {type: GatewayWildcard, subnet: web, customerAddress: 0.0.0.0, port: fixed}
---
kind: LookupRecord
metadata: {tenant: red, name: gateway6}
spec: {type: GatewayWildcard, subnet: web, customerAddress: "::", port: fixed}
`, "--wait")
	ping(f, "new-2", outside4)
	ping(f, "new-2", outside6)
	if out := f.Must("lookup", "5001", outside4); !strings.Contains(out, "gateway wildcard") || !strings.Contains(out, "red/fixed") {
		t.Errorf("lookup:\n%s", out)
	}
	if out := f.Must("get", "records", "-n", "red"); !strings.Contains(out, "GatewayWildcard") {
		t.Errorf("records:\n%s", out)
	}
	// It is no other port's to speak for outside policy.
	in(f, "new-2", "ip addr add 203.0.113.66/32 dev lo")
	if r := f.On("red/new-2", "ping", "-n", "-c1", "-W1", "-I", "203.0.113.66", "10.0.0.5"); r.Code == 0 {
		t.Error("another port speaks for outside policy")
	}
	if r := f.Weft("delete", "port", "red/fixed"); r.Code == 0 || !strings.Contains(r.Words, "LookupRecord red/gateway4") {
		t.Errorf("the gateway's port can be deleted: %s%s", r.Out, r.Words)
	}
	f.Verified()
}
