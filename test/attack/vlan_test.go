package attack

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/lab"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/wire"
	"github.com/weft-sdn/weft/test/fleet"
)

// The same people on VLAN 10 of a physical network, where policy knows their addresses; evil has a trunk, too.
const vlanPolicy = `
kind: Tenant
metadata: {name: red}
---
kind: ExternalNetwork
metadata: {name: lan}
spec: {interfaces: [{interface: lan0}], tenants: [red]}
---
kind: Port
metadata: {tenant: red, name: alice}
spec: {vlan: {network: lan, mode: access, id: 10}, mac: "02:00:00:00:00:05", addresses: [10.0.0.5, "fd00:a::5"], host: h1}
---
kind: AccessList
metadata: {tenant: red, name: victims}
spec:
  default: {inbound: deny}
  rules:
  - {name: streams, direction: inbound, action: allow, protocol: udp, localPorts: ["20000-30000"], stateful: true}
  - {name: dhcp, direction: inbound, action: allow, protocol: udp, remotePorts: ["67"]}
---
kind: Port
metadata: {tenant: red, name: bob}
spec: {vlan: {network: lan, mode: access, id: 10}, mac: "02:00:00:00:00:06", addresses: [10.0.0.6, "fd00:a::6"], host: h2, accessLists: [victims]}
---
kind: Port
metadata: {tenant: red, name: evil}
spec: {vlan: {network: lan, mode: access, id: 10}, mac: "02:00:00:00:00:66", addresses: [10.0.0.66, "fd00:a::66"], host: h1, stormLimit: 300}
---
kind: Port
metadata: {tenant: red, name: trunk}
spec: {vlan: {network: lan, mode: trunk, allowed: ["10", "20"], native: 20}, mac: "02:00:00:00:00:67", host: h1}
`

const trunk = "red/trunk"

// newVLANField is a field on a physical network: h1 and h2 are connected by a cable, which carries all VLANs.
func newVLANField(t *testing.T, policy string, guests ...string) *field {
	t.Helper()
	manifest := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(manifest, []byte(policy), 0o600); err != nil {
		t.Fatal(err)
	}
	spec := lab.Spec{Hosts: []string{"h1", "h2"}, Manifests: []string{manifest}}
	for _, name := range guests {
		spec.Guests = append(spec.Guests, lab.GuestSpec{Port: name})
	}
	f := &field{fleet.New(t, "v", fleet.Options{Spec: spec})}
	f.do("h1", "ip link add lan0 type veth peer name lan0 netns "+f.Space("h2"))
	f.do("h1", "ip link set lan0 up")
	f.do("h2", "ip link set lan0 up")
	for name, n := range map[string]string{alice: "5", bob: "6", evil: "66"} { // policy knows of no prefixes here
		f.do(name, "ip address flush dev eth0 scope global")
		f.do(name, "ip address add 10.0.0."+n+"/24 brd + dev eth0")
		f.do(name, "ip address add fd00:a::"+n+"/64 dev eth0 nodad")
	}
	f.Verified()
	return f
}

// do runs a command that must not fail.
func (f *field) do(where, command string) {
	f.T.Helper()
	if err := f.On(where, words(command)...).Err(); err != nil {
		f.T.Fatalf("%s on %s: %v", command, where, err)
	}
}

// TestAttacksOnVLANs has evil do on a VLAN what it does in a subnet.
func TestAttacksOnVLANs(t *testing.T) {
	f := newVLANField(t, vlanPolicy, alice, bob, evil, trunk)
	f.withstands(t, vlanAttacks())
	f.captured()
	f.Verified()
	f.traced()
}

// captured has the victims' packets, and what evil does, seen at every point that there is on a VLAN, with tags where they have them.
func (f *field) captured() {
	f.T.Helper()
	streams := f.Traffic(fleet.Pair{A: alice, B: bob, A4: addr("10.0.0.5"), A6: addr("fd00:a::5"), B4: addr("10.0.0.6"), B6: addr("fd00:a::6")})
	defer streams.Stop()
	for _, c := range []struct {
		port, point string
		says        []string
		not         string
	}{
		{alice, "from-guest", []string{"SWITCHED"}, "VLAN 10"},
		{alice, "to-underlay", []string{"SWITCHED", "VLAN 10"}, "VLAN_"},
		{bob, "from-underlay", []string{"DELIVERED", "VLAN 10"}, "VLAN_"},
		{bob, "to-guest", []string{"DELIVERED"}, "VLAN 10"},
		{evil, "dropped", []string{"SPOOFED_ARP", "admit"}, "VLAN"},
		{trunk, "dropped", []string{"VLAN_FILTERED", "VLAN 30"}, "DELIVERED"},
	} {
		stop := func() {}
		switch c.port {
		case evil:
			stop = f.repeat(evil, [][]byte{announce(addr("10.0.0.1"))}, time.Millisecond)
		case trunk:
			stop = f.repeat(trunk, [][]byte{inTrunk(announce(addr("10.0.0.1")), 30)}, time.Millisecond)
		}
		out := f.Weft("capture", c.port, "--point", c.point, "--count", "3", "--duration", "30s")
		stop()
		for _, says := range c.says {
			if err := out.Err(); err != nil || strings.Count(out.Out, says) < 3 || strings.Contains(out.Out, c.not) {
				f.T.Errorf("a capture of %s, %s: %v\n%s", c.port, c.point, err, out.Out)
				break
			}
		}
	}
}

// traced has weft say what becomes of packets: to a neighbour and back, to another host, and what rules deny there.
func (f *field) traced() {
	f.T.Helper()
	for _, c := range []struct {
		args string
		says []string
		code int
	}{
		{evil + " --to 10.0.0.5", []string{"DELIVERED", "the answer comes back"}, 0},
		{evil + " --to fd00:a::5", []string{"DELIVERED", "the answer comes back"}, 0},
		{alice + " --to 10.0.0.6", []string{"SWITCHED", "external interface of host h1"}, 1},
		{bob + " --to 10.0.0.5 --proto udp --dport 20001", []string{"SWITCHED"}, 1},
		{evil + " --to 255.255.255.255 --proto udp", []string{"FLOODED"}, 0},
	} {
		out := f.Weft(append([]string{"trace"}, words(c.args)...)...)
		for _, says := range c.says {
			if !strings.Contains(out.Out, says) || out.Code != c.code || strings.Contains(out.Out, "BUG") || strings.Contains(out.Out, "DRIFT") {
				f.T.Errorf("trace %s: code %d, %v\n%s", c.args, out.Code, out.Err(), out.Out)
				break
			}
		}
	}
}

// TestTheAttacksOnVLANsAreReal takes evil's guards off, and what policy knows of its addresses: the same succeeds.
func TestTheAttacksOnVLANsAreReal(t *testing.T) {
	open := strings.Replace(vlanPolicy, `addresses: [10.0.0.66, "fd00:a::66"], host: h1,`, `host: h1, dhcpGuard: false, routerGuard: false,`, 1)
	f := newVLANField(t, open, alice, bob, evil)
	for _, victim := range []string{alice, bob} {
		stop := f.start(evil, dnsmasq("--dhcp-range=10.0.0.100,10.0.0.200,2m", "--dhcp-broadcast"))
		if out := f.On(victim, words("busybox udhcpc -i eth0 -f -q -B -s /bin/true -t 20 -T 1")...); out.Code != 0 {
			t.Errorf("a DHCP server without the guard gives no lease: %v\n%s", out.Err(), out.Words)
		}
		stop()
		stop = f.repeat(evil, [][]byte{announce(addr("10.0.0.1"))}, 5*time.Millisecond)
		f.do(victim, "ip neigh replace 10.0.0.1 lladdr 02:00:00:00:00:01 dev eth0 nud stale")
		f.Poll(victim+" believes that evil is the gateway", func() error {
			if out := f.On(victim, words("ip neigh show 10.0.0.1")...).Out; !strings.Contains(out, "02:00:00:00:00:66") {
				return fmt.Errorf("it believes %s", out)
			}
			return nil
		})
		stop()
	}
}

// inTrunk is the same frame, from the trunk.
func inTrunk(b []byte, vid byte) []byte {
	b = slices.Concat(b[:12], []byte{0x81, 0, 0, vid}, b[12:])
	mac := model.MAC{2, 0, 0, 0, 0, 0x67}
	copy(b[6:12], mac[:])
	return b
}

func vlanAttacks() []attack {
	announcers := slices.DeleteFunc(routers(), func(a attack) bool { return strings.HasPrefix(a.name, "redir6") }) // there is no gateway whom it could ask
	return slices.Concat(poisoning(), servers(), announcers, hopping())
}

func hopping() []attack {
	behind := func(tags ...byte) []byte {
		b := frame(aliceMAC, evilMAC, wire.TypeIPv4, v4(wire.IPv4{Proto: protoUDP, Source: evil4, Destination: addr("10.0.0.5")}, datagram(4000, 53, 8)))
		return slices.Concat(b[:12], tags, b[12:])
	}
	offer := frame(everyone, evilMAC, wire.TypeIPv4, v4(wire.IPv4{Proto: protoUDP, Source: addr("10.0.0.67"), Destination: addr("255.255.255.255")}, datagram(67, 68, 240)))
	snap := frame(everyone, evilMAC, 100, append([]byte{0xaa, 0xaa, 3, 0, 0, 0, 0x86, 0xdd}, make([]byte, 92)...))
	message := make([]byte, 40)
	message[0] = wire.ICMPv6Redirect
	h := wire.IPv6{Next: wire.ProtoICMPv6, HopLimit: 255, Source: addr("fe80::1"), Destination: alice6}
	must(wire.SealICMPv6(h, message))
	redirect := frame(aliceMAC, evilMAC, wire.TypeIPv6, v6(h, message))
	return []attack{
		{name: "own packets: a redirect in the gateway's name", from: evil, frames: [][]byte{redirect}, reasons: []string{"ROUTER_MESSAGE"}, least: 10},
		{name: "yersinia: two VLAN tags", from: evil, tool: words("yersinia dot1q -attack 1 -interface eth0"), reasons: []string{"VLAN_DOUBLE_TAGGED", "SPOOFED_MAC"}},
		{name: "own packets: two VLAN tags", from: evil, frames: [][]byte{behind(0x81, 0, 0, 10, 0x81, 0, 0, 20)}, reasons: []string{"VLAN_DOUBLE_TAGGED"}, least: 10},
		{name: "own packets: two VLAN tags, the outer one a priority tag", from: evil, frames: [][]byte{behind(0x81, 0, 0, 0, 0x81, 0, 0, 20)}, reasons: []string{"VLAN_DOUBLE_TAGGED"}, least: 10},
		{name: "own packets: a service provider's tag", from: evil, frames: [][]byte{behind(0x88, 0xa8, 0, 10)}, reasons: []string{"VLAN_DOUBLE_TAGGED"}, least: 10},
		{name: "own packets: another VLAN's tag", from: evil, frames: [][]byte{behind(0x81, 0, 0, 20)}, reasons: []string{"VLAN_TAGGED"}, least: 10},
		{name: "own packets: two VLAN tags of a trunk", from: trunk, frames: [][]byte{inTrunk(inTrunk(behind(), 20), 10)}, reasons: []string{"VLAN_DOUBLE_TAGGED"}, least: 10},
		{name: "own packets: a DHCP server in a trunk's VLAN", from: trunk, frames: [][]byte{inTrunk(offer, 10)}, reasons: []string{"DHCP_SERVER_MESSAGE"}, least: 10},
		{name: "own packets: IPv6 in SNAP", from: evil, frames: [][]byte{snap}, reasons: []string{"NON_IP"}, least: 10},
		{name: "macof: MAC flooding", from: evil, tool: words("macof -i eth0 -n 2000"), reasons: []string{"SPOOFED_MAC"}, least: 2000},
		{name: "hping3: a SYN flood at what rules protect", from: evil, tool: words("hping3 -q -S -p 80 -i u50 10.0.0.6"), reasons: []string{"ACL_DENIED"}, port: bob, least: 5000},
		{name: "hping3: a UDP flood at the connections of bob", from: evil, tool: words("hping3 -q -2 -p 29999 -i u50 10.0.0.6"), count: unwanted, least: 5000},
		{name: "hping3: a broadcast storm", from: evil, tool: words("hping3 -q -2 -i u50 10.0.0.255"), reasons: []string{"STORM_LIMITED"}, least: 1000},
	}
}
