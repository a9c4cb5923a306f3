package chaos

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/lab"
	"github.com/weft-sdn/weft/test/fleet"
	"github.com/weft-sdn/weft/test/stream"
)

// servicePolicy is a client on h1, a port of four addresses on h3, a service that has three NICs — a in web on h2, b in db
// and c in web, both on h3 — and a firewall on h2 that forwards.
const servicePolicy = `
{kind: Tenant, metadata: {name: red}}
---
{kind: VirtualNetwork, metadata: {tenant: red, name: prod}}
---
{kind: VirtualSubnet, metadata: {tenant: red, name: web}, spec: {network: prod, prefixes: [10.0.0.0/24, "fd00:a::/64"]}}
---
{kind: VirtualSubnet, metadata: {tenant: red, name: db}, spec: {network: prod, prefixes: [10.0.1.0/24, "fd00:b::/64"]}}
---
{kind: Port, metadata: {tenant: red, name: client}, spec: {subnet: web, host: h1, addresses: [10.0.0.5, "fd00:a::5"]}}
---
{kind: Port, metadata: {tenant: red, name: fw}, spec: {subnet: web, host: h2, forwarding: true, addresses: [10.0.0.9, "fd00:a::9"]}}
---
{kind: Port, metadata: {tenant: red, name: many}, spec: {subnet: db, host: h3, addresses: [10.0.1.20, 10.0.1.21, "fd00:b::20", "fd00:b::21"]}}
---
` + portA + portB + portC

const (
	portA = `{kind: Port, metadata: {tenant: red, name: a}, spec: {subnet: web, host: h2, mac: "02:00:00:00:00:0a", addresses: [10.0.0.11, "fd00:a::11"]}}
---
`
	portB = `{kind: Port, metadata: {tenant: red, name: b}, spec: {subnet: db, host: h3, mac: "02:00:00:00:00:0b", addresses: [10.0.1.11, "fd00:b::11"]}}
---
`
	portC = `{kind: Port, metadata: {tenant: red, name: c}, spec: {subnet: web, host: h3, mac: "02:00:00:00:00:0c", addresses: [10.0.0.12, "fd00:a::12"]}}
---
`
)

// update is a change of policy, to and fro, during which packets to an address flow.
type update struct {
	name     string
	to       []string // addresses of the service, one of each family
	before   []string // manifests
	change   []string // applied in turn; one that begins with "delete " is a command
	delivers []string // ports that must have got packets in the end
}

// record places an address of the service beside ports.
func record(name, ca, mac, pa string) string {
	return fmt.Sprintf("{kind: LookupRecord, metadata: {tenant: red, name: %s}, spec: {subnet: web, customerAddress: %q, mac: %q, providerAddress: %s}}\n---\n", name, ca, mac, pa)
}

func route(name, prefix, hop string, metric int) string {
	return fmt.Sprintf("{kind: CustomerRoute, metadata: {tenant: red, name: %s}, spec: {network: prod, prefix: %q, nextHop: %q, metric: %d}}\n---\n", name, prefix, hop, metric)
}

func moved(port string, more ...string) string {
	for _, a := range more {
		port = strings.Replace(port, "addresses: [", fmt.Sprintf("addresses: [%q, ", a), 1)
	}
	return port
}

const (
	macA, macC = "02:00:00:00:00:0a", "02:00:00:00:00:0c"
	paA, paC   = "198.18.2.2", "198.18.3.2"
)

var updates = []update{
	{"static record", []string{"10.0.0.60", "fd00:a::60"},
		[]string{record("four", "10.0.0.60", macA, paA) + record("six", "fd00:a::60", macA, paA)},
		[]string{
			record("four", "10.0.0.60", macC, paC) + record("six", "fd00:a::60", macC, paC),
			record("four", "10.0.0.60", macA, paA) + record("six", "fd00:a::60", macA, paA),
			record("four", "10.0.0.60", macC, paC) + record("six", "fd00:a::60", macC, paC),
		}, []string{"a", "c"}},
	{"address between ports", []string{"10.0.0.61", "fd00:a::61"},
		[]string{moved(portA, "10.0.0.61", "fd00:a::61")},
		[]string{
			portA + moved(portC, "10.0.0.61", "fd00:a::61"),
			portC + moved(portA, "10.0.0.61", "fd00:a::61"),
			portA + moved(portC, "10.0.0.61", "fd00:a::61"),
		}, []string{"a", "c"}},
	{"customer route", []string{"203.0.113.5", "2001:db8::5"},
		[]string{route("far4", "203.0.113.0/24", "10.0.1.11", 20) + route("far6", "2001:db8::/32", "fd00:b::11", 20)},
		[]string{
			// A better one comes, in the client's own subnet, and is withdrawn.
			route("near4", "203.0.113.0/24", "10.0.0.11", 10) + route("near6", "2001:db8::/32", "fd00:a::11", 10),
			"delete customerroute red/near4", "delete customerroute red/near6",
			// A longer prefix comes, its next hop changes, its metric changes.
			route("long4", "203.0.113.5/32", "10.0.0.12", 5) + route("long6", "2001:db8::5/128", "fd00:a::12", 5),
			route("long4", "203.0.113.5/32", "10.0.0.11", 5) + route("long6", "2001:db8::5/128", "fd00:a::11", 5),
			route("long4", "203.0.113.5/32", "10.0.0.11", 50) + route("long6", "2001:db8::5/128", "fd00:a::11", 50),
			"delete customerroute red/long4", "delete customerroute red/long6",
		}, []string{"a", "b", "c"}},
	{"firewall between subnets", []string{"10.0.1.11", "fd00:b::11"}, nil,
		[]string{
			route("fw4", "10.0.1.0/25", "10.0.0.9", 1) + route("fw6", "fd00:b::/65", "fd00:a::9", 1),
			"delete customerroute red/fw4", "delete customerroute red/fw6",
			`{kind: VirtualNetwork, metadata: {tenant: red, name: prod}, spec: {useExternalRouter: true}}
---
` + route("router4", "10.0.1.0/24", "10.0.0.9", 1) + route("router6", "fd00:b::/64", "fd00:a::9", 1) +
				route("back4", "10.0.0.0/24", "10.0.0.9", 1) + route("back6", "fd00:a::/64", "fd00:a::9", 1),
		}, []string{"fw", "b"}},
}

// fast is the rate, in datagrams per second, at which updates must not be felt.
const fast = 10_000

// Policy changes where a Customer Address is, or by what route, and none of 10,000 packets a
// second is lost: whoever is led to before a change and after it, all get there.
func TestUpdatesLoseNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "service.yaml")
	if err := os.WriteFile(path, []byte(servicePolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	f := fleet.New(t, "u", fleet.Options{Spec: lab.Spec{Hosts: []string{"h1", "h2", "h3"}, Manifests: []string{path},
		Guests: []lab.GuestSpec{{Port: "red/client"}, {Port: "red/a"}, {Port: "red/fw"}, {Port: "red/many"}}}})
	service := f.Space("red/a")
	for port, device := range map[string]string{"b": "eth1", "c": "eth2"} {
		if err := f.On("h3", "weft", "plug", "red/"+port, "--netns", service, "--ifname", device).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.On("red/fw", "sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.send_redirects=0",
		"net.ipv4.conf.eth0.send_redirects=0").Err(); err != nil {
		t.Fatal(err)
	}
	setUp := []string{"for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 0 > $f; done"}
	for _, u := range updates {
		for _, a := range u.to {
			if strings.HasSuffix(a, ".1.11") || strings.HasSuffix(a, "b::11") {
				continue // b has it
			}
			setUp = append(setUp, "ip addr add "+a+" dev lo")
		}
	}
	if err := f.On("red/a", "sh", "-ec", strings.Join(setUp, "\n")).Err(); err != nil {
		t.Fatal(err)
	}
	t.Run("every address of a port", func(t *testing.T) {
		for _, a := range []string{"10.0.1.20", "10.0.1.21", "fd00:b::20", "fd00:b::21"} {
			client := "10.0.0.5"
			if strings.Contains(a, ":") {
				client = "fd00:a::5"
			}
			for _, r := range []fleet.Result{f.On("red/client", "ping", "-n", "-c1", "-W2", a), f.On("red/many", "ping", "-n", "-c1", "-W2", "-I", a, client)} {
				if err := r.Err(); err != nil {
					t.Error(err)
				}
			}
		}
		// A neighbour, that asks for each by ARP or ND.
		for _, a := range []string{"10.0.1.20", "10.0.1.21", "fd00:b::20", "fd00:b::21"} {
			if err := f.On("red/a", "ping", "-n", "-c1", "-W2", "-I", "eth1", a).Err(); err != nil {
				t.Error(err)
			}
		}
	})
	for _, u := range updates {
		t.Run(u.name, func(t *testing.T) {
			f.T = t
			apply := func(change string) {
				t.Helper()
				if command, ok := strings.CutPrefix(change, "delete "); ok {
					f.Must(append([]string{"delete"}, strings.Fields(command)...)...)
					return
				}
				if err := f.Apply(change, "--wait").Err(); err != nil {
					t.Fatal(err)
				}
			}
			for _, b := range u.before {
				apply(b)
			}
			got := received(f)
			var streams []*stream.Stream
			for i, a := range u.to {
				rate := fast
				if i > 0 {
					rate = fast / 10
				}
				s := f.Stream("red/client", "red/a", netip.MustParseAddr(a), rate)
				defer func() {
					total := s.Finish()
					t.Logf("%s: %d datagrams, %d lost, %d doubled, longest gap %s", a, total.Sent, total.Lost, total.Doubled, total.Gap)
				}()
				streams = append(streams, s)
			}
			for _, c := range append([]string{""}, u.change...) {
				if c != "" {
					apply(c)
				}
				streams[0].More(fast / 5)
				streams[1].More(fast / 50)
			}
			for _, port := range u.delivers {
				now := received(f)
				if now[port] < got[port]+100 {
					t.Errorf("port %s has got %d datagrams: nothing was led there", port, now[port]-got[port])
				}
			}
		})
	}
	f.T = t
	f.Verified()
}

// received counts what the NICs of the service and of the firewall have got.
func received(f *fleet.Fleet) map[string]int {
	out := map[string]int{}
	for port, at := range map[string][2]string{"a": {"a", "eth0"}, "b": {"a", "eth1"}, "c": {"a", "eth2"}, "fw": {"fw", "eth0"}} {
		r := f.On("red/"+at[0], "cat", "/proc/net/dev")
		for line := range strings.Lines(r.Out) {
			name, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
			if name != at[1] {
				continue
			}
			var bytes, packets int
			fmt.Sscan(rest, &bytes, &packets)
			out[port] = packets
		}
	}
	return out
}
