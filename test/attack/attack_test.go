// Package attack lets a guest, and a host of the underlay, do to two hosts of a real fleet what attackers do, with
// the tools that attackers use.
//
// Invariants: each attack is counted against the port that it comes from, with the reason that says what it is; a
// neighbour's streams of 1,000 packets a second and direction lose nothing meanwhile, and nobody's neighbours,
// routes or addresses change.
//
// It must never wait for a time: an attack goes on until the switch has counted it.
package attack

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/lab"
	"github.com/weft-sdn/weft/test/fleet"
)

func TestMain(m *testing.M) { fleet.Main(m) }

// The victims are alice and bob, on two hosts; evil is alice's neighbour on the same host. Everything in their
// subnet is flooded, which is the worst of cases. On h3 there is nobody.
const policy = `
kind: Tenant
metadata: {name: red}
---
kind: VirtualNetwork
metadata: {tenant: red, name: prod}
---
kind: VirtualSubnet
metadata: {tenant: red, name: web}
spec: {network: prod, vsid: 5001, prefixes: [10.0.0.0/24, "fd00:a::/64"], flood: l2, stormLimit: 300}
---
kind: Port
metadata: {tenant: red, name: alice}
spec: {subnet: web, mac: "02:00:00:00:00:05", addresses: [10.0.0.5, "fd00:a::5"], host: h1}
---
kind: Port
metadata: {tenant: red, name: bob}
spec: {subnet: web, mac: "02:00:00:00:00:06", addresses: [10.0.0.6, "fd00:a::6"], host: h2}
---
kind: Port
metadata: {tenant: red, name: evil}
spec: {subnet: web, mac: "02:00:00:00:00:66", addresses: [10.0.0.66, "fd00:a::66"], host: h1}
`

// lists let in what the victims' streams are, by connections, and nothing else.
const lists = `
kind: AccessList
metadata: {tenant: red, name: victims}
spec:
  default: {inbound: deny}
  rules:
  - {name: streams, direction: inbound, action: allow, protocol: udp, localPorts: ["20000-30000"], stateful: true}
---
kind: Port
metadata: {tenant: red, name: bob}
spec: {subnet: web, mac: "02:00:00:00:00:06", addresses: [10.0.0.6, "fd00:a::6"], host: h2, accessLists: [victims]}
`

const (
	alice, bob, evil = "red/alice", "red/bob", "red/evil"
)

// attack is something done from somewhere, until the switch has counted enough of it.
type attack struct {
	name    string
	from    string                     // a guest, or a host
	tool    []string                   // that goes on until it is killed, or ends by itself; started again then
	frames  [][]byte                   // or these, again and again
	against func(*field) (stop func()) // begins before the attack; or all of it
	reasons []string                   // one of which, at least, counts it
	port    string                     // that it counts for; empty: from's
	count   func(*field) int           // instead of drops
	least   int                        // packets; 0: one
}

func TestAttacks(t *testing.T) {
	f := newField(t)
	if err := f.Apply(lists).Err(); err != nil {
		t.Fatal(err)
	}
	f.Verified()
	f.withstands(t, attacks(f))
	f.Verified()
}

// withstands has the victims stream to each other through all attacks, one by one, lose nothing and believe nothing.
func (f *field) withstands(all *testing.T, attacks []attack) {
	all.Helper()
	streams := f.Traffic(fleet.Pair{A: alice, B: bob, A4: addr("10.0.0.5"), A6: addr("fd00:a::5"), B4: addr("10.0.0.6"), B6: addr("fd00:a::6")})
	before := f.beliefs()
	for _, a := range attacks {
		all.Run(a.name, func(t *testing.T) {
			f.T = t
			defer func() { f.T = all }()
			f.suffer(t, a)
			streams.More(20)
			if now := f.beliefs(); now != before {
				t.Errorf("the victims believe\n%s\nand believed\n%s", now, before)
			}
		})
	}
	total := streams.Finish()
	all.Logf("%d datagrams of the victims, %d lost, the longest gap %s", total.Sent, total.Lost, total.Gap)
}

// TestTheAttacksAreReal takes evil's guards off: the same tools succeed, and policy makes it end.
func TestTheAttacksAreReal(t *testing.T) {
	f := newField(t)
	if err := f.Apply(strings.Replace(policy, `"fd00:a::66"], host: h1`, `"fd00:a::66"], host: h1, dhcpGuard: false, routerGuard: false`, 1)).Err(); err != nil {
		t.Fatal(err)
	}
	f.Verified()
	for _, victim := range []string{alice, bob} { // on the same host, and from another
		defer f.start(evil, dnsmasq("--dhcp-range=10.0.0.100,10.0.0.200,2m", "--dhcp-broadcast"))()
		if out := f.On(victim, words("busybox udhcpc -i eth0 -f -q -B -s /bin/true -t 20 -T 1")...); out.Code != 0 || !strings.Contains(out.Words, "lease of 10.0.0.1") {
			t.Errorf("a DHCP server without the guard gives no lease: %v\n%s", out.Err(), out.Words)
		}
	}
	defer f.start(evil, words("atk6-fake_router26 -A fd00:bad::/64 -i 1 eth0"))()
	for _, victim := range []string{alice, bob} {
		f.Poll(victim+" believes in evil's prefix", func() error {
			if out := f.On(victim, words("ip -6 address show dev eth0")...).Out; !strings.Contains(out, "fd00:bad:") {
				return fmt.Errorf("it has %s", out)
			}
			return nil
		})
	}
}

func attacks(f *field) []attack {
	return slices.Concat(poisoning(), servers(), routers(), floods(), forgeries(f))
}

func poisoning() []attack {
	arp, nd := []string{"SPOOFED_ARP"}, []string{"SPOOFED_CA", "SPOOFED_ND"}
	return []attack{
		{name: "arpspoof: a neighbour's address", from: evil, tool: words("arpspoof -i eth0 -t 10.0.0.5 10.0.0.6"), reasons: arp},
		{name: "arpspoof: the gateway's address, both ways", from: evil, tool: words("arpspoof -i eth0 -r -t 10.0.0.5 10.0.0.1"), reasons: arp, least: 2},
		{name: "ettercap: a man in the middle", from: evil, tool: words("ettercap -T -q -i eth0 -M arp:remote /10.0.0.5// /10.0.0.6//"), reasons: arp, least: 2},
		{name: "fake_advertise6: a neighbour's address, overriding", from: evil, tool: words("atk6-fake_advertise6 -r eth0 fd00:a::6 ff02::1 02:00:00:00:00:66"), reasons: nd},
		{name: "own packets: an advertisement in one's own name", from: evil, frames: [][]byte{advertOf(addr("fd00:a::6"))}, reasons: []string{"SPOOFED_ND"}, least: 10},
		{name: "own packets: the gateway announces itself", from: evil, frames: [][]byte{announce(addr("10.0.0.1"))}, reasons: arp, least: 10},
	}
}

func servers() []attack {
	guard := []string{"DHCP_SERVER_MESSAGE"}
	return []attack{
		{name: "dnsmasq: a DHCP server", from: evil, tool: dnsmasq("--dhcp-range=10.0.0.100,10.0.0.200,2m", "--dhcp-option=option:router,10.0.0.66"),
			against: asksDHCP, reasons: guard},
		{name: "dnsmasq: a DHCPv6 server", from: evil, tool: dnsmasq("--dhcp-range=fd00:a::100,fd00:a::200,64,2m"), against: asksDHCPv6, reasons: guard},
		{name: "fake_dhcps6: a DHCPv6 server", from: evil, tool: words("atk6-fake_dhcps6 eth0 fd00:a::/64 fd00:a::66"), against: asksDHCPv6, reasons: guard},
		{name: "hping3: a server's word in fragments", from: evil, tool: words("hping3 -q -2 -f -d 100 -s 67 -k -p 68 -i u1000 10.0.0.5"), reasons: guard, least: 10},
		{name: "own packets: a server's word behind extension headers", from: evil, frames: [][]byte{dhcp6Behind()}, reasons: guard, least: 10},
		{name: "yersinia: starvation of a DHCP server", from: evil, tool: words("yersinia dhcp -attack 1 -interface eth0"), reasons: []string{"SPOOFED_MAC"}, least: 50},
		{name: "flood_dhcpc6: starvation of a DHCPv6 server", from: evil, tool: words("atk6-flood_dhcpc6 eth0"), reasons: []string{"SPOOFED_MAC"}, least: 50},
	}
}

func routers() []attack {
	guard, hidden := []string{"ROUTER_MESSAGE"}, []string{"ROUTER_MESSAGE", "ND_MALFORMED", "IPV6_EXTENSIONS"}
	ra := func(evasion string) []string {
		return words("atk6-fake_router26 -A fd00:bad::/64 -R fd00:bad::/48 -i 1 " + evasion + " eth0")
	}
	return []attack{
		{name: "dnsmasq: router advertisements", from: evil, tool: dnsmasq("--enable-ra", "--dhcp-range=fd00:a::,ra-only"), reasons: guard},
		{name: "fake_router26", from: evil, tool: ra(""), reasons: guard},
		{name: "fake_router26 behind a hop-by-hop header", from: evil, tool: ra("-E H"), reasons: hidden},
		{name: "fake_router26 behind a fragment header", from: evil, tool: ra("-E H1"), reasons: hidden},
		{name: "fake_router26 behind a large destination header", from: evil, tool: ra("-E D"), reasons: hidden},
		{name: "fake_router26 in fragments that overlap, for who keeps the first", from: evil, tool: ra("-E O"), reasons: hidden},
		{name: "fake_router26 in fragments that overlap, for who keeps the last", from: evil, tool: ra("-E o"), reasons: hidden},
		{name: "fake_router26, full evasion", from: evil, tool: ra("-E F"), reasons: hidden},
		{name: "redir6: a redirect in the gateway's name", from: evil, tool: words("atk6-redir6 eth0 fd00:a::5 fd00:a::6 fd00:a::1 fd00:a::66"),
			reasons: []string{"ROUTER_MESSAGE", "SPOOFED_MAC", "SPOOFED_CA"}},
		{name: "own packets: an ICMP redirect", from: evil, frames: [][]byte{redirect4(5)}, reasons: guard, least: 10},
		{name: "own packets: an ICMP router advertisement to all", from: evil, frames: [][]byte{redirect4(9)}, reasons: guard, least: 10},
	}
}

func floods() []attack {
	return []attack{
		{name: "macof: MAC flooding", from: evil, tool: words("macof -i eth0 -n 2000"), reasons: []string{"SPOOFED_MAC"}, least: 2000},
		{name: "hping3: a broadcast storm", from: evil, tool: words("hping3 -q -2 -i u50 10.0.0.255"), reasons: []string{"STORM_LIMITED"}, least: 1000},
		{name: "hping3: a SYN flood at what rules protect", from: evil, tool: words("hping3 -q -S -p 80 -i u50 10.0.0.6"), reasons: []string{"ACL_DENIED"}, port: bob, least: 5000},
		{name: "hping3: a UDP flood at the connections of bob", from: evil, tool: words("hping3 -q -2 -p 29999 -i u50 10.0.0.6"), count: unwanted, least: 5000},
		{name: "flood_router26", from: evil, tool: words("atk6-flood_router26 eth0"), reasons: []string{"ROUTER_MESSAGE"}, least: 10000},
		{name: "flood_advertise6", from: evil, tool: words("atk6-flood_advertise6 eth0"), reasons: []string{"SPOOFED_MAC", "SPOOFED_ND", "SPOOFED_CA"}, least: 10000},
	}
}

func forgeries(f *field) []attack {
	carried := []string{"NO_ROUTE"}
	h1, h2 := f.address("h1"), f.address("h2")
	stolen := bobSays(5001)
	return []attack{
		{name: "yersinia: two VLAN tags", from: evil, tool: words("yersinia dot1q -attack 1 -interface eth0"), reasons: []string{"VLAN_TAGGED"}},
		{name: "own packets: two VLAN tags, the outer one a priority tag", from: evil, frames: [][]byte{doubleTagged()}, reasons: []string{"VLAN_TAGGED"}, least: 10},
		{name: "a guest speaks NVGRE to a host", from: evil, frames: [][]byte{fromEvil(h2, protoGRE, nvgre(5001, stolen))}, reasons: carried, least: 10},
		{name: "a guest speaks VXLAN to a host", from: evil, frames: [][]byte{fromEvil(h2, protoUDP, vxlan(5001, stolen))}, reasons: carried, least: 10},
		{name: "a guest speaks to a host as if it were rewritten", from: evil, frames: [][]byte{fromEvil(h1, protoUDP, datagram(4000, 53, 8))}, reasons: carried, least: 10},
		{name: "a guest speaks NVGRE in a host's name", from: evil, frames: [][]byte{ipFrame(h2, addr("10.0.0.5"), protoGRE, nvgre(5001, stolen))}, reasons: []string{"SPOOFED_CA"}, least: 10},
		{name: "a host speaks NVGRE with another's VSID", from: "h3", frames: [][]byte{nvgre(5001, stolen)}, reasons: []string{"SOURCE_NOT_IN_POLICY"}, port: alice, least: 10},
		{name: "a host speaks VXLAN with another's VSID", from: "h3/udp", frames: [][]byte{vxlan(5001, stolen)[8:]}, reasons: []string{"SOURCE_NOT_IN_POLICY"}, port: alice, least: 10},
		{name: "a host tries VSIDs that nobody has", from: "h3", frames: [][]byte{nvgre(6001, stolen)}, reasons: []string{"NOT_LOCAL"}, port: "-", least: 10},
		{name: "a host tries VSIDs that nobody can have", from: "h3", frames: [][]byte{nvgre(7, stolen)}, reasons: []string{"VSID_RESERVED"}, port: "-", least: 10},
		{name: "fragments too short for ports", from: evil, frames: [][]byte{part4(0, true, datagram(4000, 53, 0)[:4])}, reasons: []string{"IP_MALFORMED"}, least: 10},
		{name: "fragments that overlap in what follows an extension header", from: evil, frames: overlapping6(), reasons: []string{"IPV6_EXTENSIONS"}, least: 10},
		{name: "seven extension headers", from: evil, frames: [][]byte{chained6(7)}, reasons: []string{"IPV6_EXTENSIONS"}, least: 10},
	}
}

// unwanted is how many datagrams have come to bob that nobody there wants.
func unwanted(f *field) int {
	lines := strings.Split(f.On(bob, "grep", "^Udp:", "/proc/net/snmp").Out, "\n")
	if len(lines) < 2 {
		f.T.Fatalf("no counters: %q", lines)
	}
	n, err := strconv.Atoi(strings.Fields(lines[1])[slices.Index(strings.Fields(lines[0]), "NoPorts")])
	if err != nil {
		f.T.Fatal(err)
	}
	return n
}

func words(line string) []string { return strings.Fields(line) }

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func dnsmasq(options ...string) []string {
	return append(words("dnsmasq --keep-in-foreground --conf-file=/dev/null --port=0 --no-ping --user=root --interface=eth0 --bind-interfaces --log-facility=- --pid-file= --leasefile-ro"), options...)
}

// asksDHCP has alice look for a DHCP server, who must find none.
func asksDHCP(f *field) (stop func()) {
	return f.start(alice, words("busybox udhcpc -i eth0 -f -s /bin/false -t 1000 -T 1"))
}

// asksDHCPv6 has alice ask all servers. Her link-local address cannot be asked for, but evil can guess her MAC.
func asksDHCPv6(f *field) (stop func()) {
	f.T.Helper()
	if err := f.On(evil, words("ip neigh replace fe80::ff:fe00:5 lladdr 02:00:00:00:00:05 dev eth0")...).Err(); err != nil {
		f.T.Fatal(err)
	}
	return f.repeat(alice, [][]byte{solicit6()}, 20*time.Millisecond)
}

// field is a fleet under attack.
type field struct {
	*fleet.Fleet
}

func newField(t *testing.T) *field {
	t.Helper()
	manifest := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(manifest, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	return &field{fleet.New(t, "k", fleet.Options{Spec: lab.Spec{Hosts: []string{"h1", "h2", "h3"}, Manifests: []string{manifest},
		Guests: []lab.GuestSpec{{Port: alice}, {Port: bob}, {Port: evil}}}})}
}

// suffer lets the attack go on until the switch has counted it.
func (f *field) suffer(t *testing.T, a attack) {
	t.Helper()
	was := f.counted(a)
	stop := func() {}
	if a.against != nil {
		stop = a.against(f)
	}
	defer stop()
	halt := f.launch(a)
	defer halt()
	f.Poll(a.name+" is counted", func() error {
		if now := f.counted(a); now-was < max(a.least, 1) {
			return fmt.Errorf("%d packets are counted of %s:\n%s", now-was, a.reasons, f.Must("drops"))
		}
		return nil
	})
}

func (f *field) launch(a attack) (stop func()) {
	switch {
	case a.tool != nil:
		return f.start(a.from, a.tool)
	case a.frames != nil:
		return f.repeat(a.from, a.frames, time.Millisecond)
	}
	return func() {}
}

// counted is how many packets the switch holds for it.
func (f *field) counted(a attack) int {
	if a.count != nil {
		return a.count(f)
	}
	port := a.port
	if port == "" {
		port = a.from
	}
	var answer struct {
		Drops []struct {
			Port       string `json:"port"`
			ReasonName string `json:"reasonName"`
			Packets    int    `json:"packets,string"`
		} `json:"drops"`
	}
	if err := json.Unmarshal([]byte(f.Must("drops", "-o", "json")), &answer); err != nil {
		f.T.Fatal(err)
	}
	n := 0
	for _, d := range answer.Drops {
		if d.Port == strings.TrimPrefix(port, "-") && slices.Contains(a.reasons, d.ReasonName) {
			n += d.Packets
		}
	}
	return n
}

// start runs a tool until it is stopped, again when it ends by itself.
func (f *field) start(where string, argv []string) (stop func()) {
	f.T.Helper()
	done, quit := make(chan struct{}), make(chan struct{})
	begin := func() *exec.Cmd {
		c := exec.Command("ip", append([]string{"netns", "exec", f.Space(where)}, argv...)...)
		c.Dir, c.SysProcAttr = f.Dir, &syscall.SysProcAttr{Setpgid: true}
		if err := c.Start(); err != nil {
			f.T.Fatalf("%s: %v", argv[0], err)
		}
		return c
	}
	c := begin()
	go func() {
		defer close(done)
		for {
			ended := make(chan struct{})
			go func() { c.Wait(); close(ended) }()
			select {
			case <-quit:
				syscall.Kill(-c.Process.Pid, syscall.SIGKILL)
				<-ended
				return
			case <-ended:
				c = begin()
			}
		}
	}()
	return func() { close(quit); <-done }
}

// address is a host's Provider Address.
func (f *field) address(host string) netip.Addr {
	f.T.Helper()
	r := f.On(host, "ip", "-4", "-br", "address", "show", "dev", "eth0")
	fields := strings.Fields(r.Out)
	if len(fields) < 3 {
		f.T.Fatalf("%s: %v", r.Out, r.Err())
	}
	return netip.MustParsePrefix(fields[2]).Addr()
}

// beliefs are what attackers would change: addresses, routes, and who is thought to be at the attacker's MAC.
func (f *field) beliefs() string {
	f.T.Helper()
	var b strings.Builder
	for _, guest := range []string{alice, bob} {
		r := f.On(guest, "sh", "-c", `ip -br address show dev eth0; ip route; ip -6 route; ip neigh | grep 02:00:00:00:00:66 | grep -v 66.dev || true`)
		if err := r.Err(); err != nil {
			f.T.Fatal(err)
		}
		fmt.Fprintf(&b, "%s:\n%s", guest, r.Out)
	}
	return b.String()
}
