package lab

import (
	"bytes"
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
)

// onVLAN is one machine of the test: a guest, or (host "") a machine of the physical network.
type onVLAN struct {
	name, host, vlan string
	sends            int   // the VLAN that it sends in; 0: none
	receives         []int // and those that it receives
}

// The physical switch knows nothing of private VLANs. The port of router is as that of a promiscuous one: untagged, into the primary,
// out of all.
var vlanMachines = []onVLAN{
	{"ten-1", "h1", "{network: lan, mode: access, id: 10}", 10, []int{10}},
	{"ten-2", "h2", "{network: lan, mode: access, id: 10}", 10, []int{10}},
	{"twenty-1", "h1", "{network: lan, mode: access, id: 20}", 20, []int{20}},
	{"twenty-2", "h2", "{network: lan, mode: access, id: 20}", 20, []int{20}},
	{"trunk-1", "h1", "{network: lan, mode: trunk, allowed: [\"1-50\"], prune: [\"30\"], native: 10}", 10, []int{10}}, // without a tag
	{"native-1", "h2", "{network: lan, mode: trunk, allowed: [\"10\"], native: 20}", 20, []int{20}},                   // the same
	{"bare-1", "h1", "{network: lan, mode: untagged}", 1, []int{1}},                                                   // which is 1 on the switch
	{"bare-2", "h2", "{network: lan, mode: untagged}", 1, []int{1}},
	{"iso-1", "h1", "{network: lan, mode: private, private: {mode: isolated, primary: 100, secondary: 101}}", 101, []int{100}},
	{"iso-2", "h1", "{network: lan, mode: private, private: {mode: isolated, primary: 100, secondary: 101}}", 101, []int{100}},
	{"iso-3", "h2", "{network: lan, mode: private, private: {mode: isolated, primary: 100, secondary: 101}}", 101, []int{100}},
	{"shop-1", "h1", "{network: lan, mode: private, private: {mode: community, primary: 100, secondary: 102}}", 102, []int{100, 102}},
	{"shop-2", "h2", "{network: lan, mode: private, private: {mode: community, primary: 100, secondary: 102}}", 102, []int{100, 102}},
	{"bank-1", "h2", "{network: lan, mode: private, private: {mode: community, primary: 100, secondary: 103}}", 103, []int{100, 103}},
	{"all-1", "h1", "{network: lan, mode: private, private: {mode: promiscuous, primary: 100, secondaries: [101, 102, 103]}}", 100, []int{100, 101, 102, 103}},
	{"all-2", "h2", "{network: lan, mode: private, private: {mode: promiscuous, primary: 100, secondaries: [101, 102, 103]}}", 100, []int{100, 101, 102, 103}},
	{"phys-10", "", "", 10, []int{10}},
	{"router", "", "", 100, []int{100, 101, 102, 103}},
}

func (m onVLAN) hears(from onVLAN) bool {
	for _, v := range m.receives {
		if v == from.sends {
			return true
		}
	}
	return false
}

func vlanAddress(i int) [2]netip.Addr {
	return [2]netip.Addr{netip.AddrFrom4([4]byte{10, 1, 0, byte(i + 10)}), netip.MustParseAddr(fmt.Sprintf("fd00:1::%d", i+10))}
}

// run runs a command in a namespace.
func run(t *testing.T, space, command string) {
	t.Helper()
	if err := batch(context.Background(), space, []string{command}); err != nil {
		t.Fatal(err)
	}
}

// TestVLANs proves the truth table of VLANs and private VLANs by real packets, between all pairs of guests of two hosts and of
// machines of a physical network, over IPv4 and IPv6; that nobody hops; and that the hosts' own traffic on the same
// interface is not harmed.
func TestVLANs(t *testing.T) {
	ctx := patience(t)
	l := newLab(t, "vlan")
	spec := Spec{Hosts: HostNames(2), ProviderAddresses: []string{"ipv4"}, Manifests: []string{filepath.Join(t.TempDir(), "tenant.yaml")}}
	if err := os.WriteFile(spec.Manifests[0], []byte("kind: Tenant\nmetadata: {name: red}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Up(ctx, options(t, spec)); err != nil {
		t.Fatal(err)
	}
	l.physicalNetwork(t)
	policy := &bytes.Buffer{}
	fmt.Fprintf(policy, "kind: ExternalNetwork\nmetadata: {name: lan}\nspec: {interfaces: [{hosts: [h1, h2], interface: lan0}], tenants: [red]}\n")
	for _, m := range vlanMachines {
		if m.host != "" {
			fmt.Fprintf(policy, "---\nkind: Port\nmetadata: {tenant: red, name: %s}\nspec: {host: %s, vlan: %s}\n", m.name, m.host, m.vlan)
		}
	}
	l.applied(t, policy.String())
	for i, m := range vlanMachines {
		l.plugVLAN(t, ctx, i, m)
	}

	l.vlanTable(t, ctx)
	l.hopping(t, ctx)
	for _, to := range []string{"10.1.9.2", "fd00:9::2"} {
		if out, code := l.in("h1", "", "ping", "-q", "-c", "20", "-i", "0.02", "-W", "2", to); code != 0 || !strings.Contains(out, " 0% packet loss") {
			t.Errorf("the hosts' own traffic on the external interface: code %d\n%s", code, out)
		}
	}
	for _, command := range [][]string{{"weft", "verify"}, {"weft", "get", "ports", "-A"}, {"weft", "get", "externals"}} {
		out, code := l.in("h1", "", command...)
		if code != 0 || command[1] == "get" && !strings.Contains(out, "lan") {
			t.Errorf("%s: code %d\n%s", strings.Join(command, " "), code, out)
		}
	}
}

// physicalNetwork connects the hosts and the machines that are no guests by a switch, and gives the hosts addresses of their own there.
func (l Lab) physicalNetwork(t *testing.T) {
	t.Helper()
	sw := l.space("lan")
	run(t, "", "netns add "+sw)
	var physical physicalSwitch
	for i, h := range []string{"h1", "h2"} {
		n := fmt.Sprint("p", i+1)
		run(t, sw, "link add "+n+" type veth peer name lan0 netns "+l.space(h))
		run(t, sw, "link set "+n+" up")
		run(t, l.space(h), "link set lan0 up")
		run(t, l.space(h), fmt.Sprintf("addr add 10.1.9.%d/24 dev lan0", i+1))
		run(t, l.space(h), fmt.Sprintf("addr add fd00:9::%d/64 dev lan0 nodad", i+1))
		physical.ports = append(physical.ports, newPhysicalPort(t, sw, n, 1, []uint16{10, 20, 100, 101, 102, 103}, []uint16{1}))
	}
	for _, m := range vlanMachines {
		if m.host != "" {
			continue
		}
		space := l.guestSpace(portRef{"red", m.name})
		run(t, "", "netns add "+space)
		run(t, sw, "link add "+m.name+" type veth peer name eth0 netns "+space)
		run(t, sw, "link set "+m.name+" up")
		run(t, space, "link set eth0 up")
		var untagged []uint16
		for _, vid := range m.receives {
			untagged = append(untagged, uint16(vid))
		}
		physical.ports = append(physical.ports, newPhysicalPort(t, sw, m.name, uint16(m.sends), nil, untagged))
	}
	physical.start(t)
}

// plugVLAN brings up a machine.
func (l Lab) plugVLAN(t *testing.T, ctx context.Context, i int, m onVLAN) {
	t.Helper()
	ref := portRef{"red", m.name}
	space := l.guestSpace(ref)
	if m.host != "" {
		if err := l.plug(ctx, m.host, ref); err != nil {
			t.Fatal(err)
		}
	}
	run(t, space, "link set lo up")
	for j, a := range vlanAddress(i) {
		run(t, space, fmt.Sprintf("addr add %s/%d dev eth0%s", a, []int{24, 64}[j], []string{"", " nodad"}[j]))
	}
}

// vlanTable pings between all pairs.
func (l Lab) vlanTable(t *testing.T, ctx context.Context) {
	t.Helper()
	var group errgroup.Group
	group.SetLimit(64)
	rows := 0
	for i, from := range vlanMachines {
		for j, to := range vlanMachines {
			if i == j {
				continue
			}
			rows += 2
			want := to.hears(from) && from.hears(to)
			for _, a := range vlanAddress(j) {
				group.Go(func() error {
					got, err := ping(ctx, l.guestSpace(portRef{"red", from.name}), a)
					if err == nil && got != want {
						t.Errorf("%s to %s (%s): answered %v, want %v", from.name, to.name, a, got, want)
					}
					return err
				})
			}
		}
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d rows", rows)
}

// hopping sends frames with two tags, the outer one of the guest's own VLAN: behind the next switch they would be in another.
func (l Lab) hopping(t *testing.T, ctx context.Context) {
	t.Helper()
	victim := l.tap(t, portRef{"red", "twenty-2"})
	heard := map[string]int{}
	victim.heard(t, heard)
	clear(heard)
	var sent []string
	double := [][]byte{{0x81, 0, 0, 10, 0x81, 0, 0, 20}, {0x81, 0, 0, 0, 0x81, 0, 0, 20}, {0x81, 0, 0, 30}, {0x88, 0xa8, 0, 10, 0x81, 0, 0, 20}}
	for _, from := range []string{"ten-1", "trunk-1", "phys-10"} {
		w := l.tap(t, portRef{"red", from})
		for _, tags := range double {
			for n, dst := range [][6]byte{victim.mac, {255, 255, 255, 255, 255, 255}} {
				payload := append(bytes.Clone(tags), udp4([4]byte{10, 1, 0, 10}, [4]byte{10, 1, 0, 13})...)
				f := w.frame(dst, payload, uint32(0xbad00000+len(sent)+n))
				w.send(t, f)
				sent = append(sent, string(f[len(f)-4:]))
			}
		}
	}
	// A frame that may arrive comes behind them: of a trunk, with a tag that it carries; the victim's port takes it off.
	last := l.tap(t, portRef{"red", "trunk-1"})
	packet := udp4([4]byte{10, 1, 0, 12}, [4]byte{10, 1, 0, 13})
	tagged := last.frame(victim.mac, append([]byte{0x81, 0, 0, 20}, packet...), 0x600d)
	good := last.frame(victim.mac, packet, 0x600d)
	err := poll(ctx, func() error {
		last.send(t, tagged)
		victim.heard(t, heard)
		if heard[string(good)] == 0 {
			return fmt.Errorf("%s has not heard its neighbour", victim.name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for f := range heard {
		for _, mark := range sent {
			if strings.HasSuffix(f, mark) {
				t.Errorf("the victim heard % x", f)
			}
		}
	}
	out, _ := l.in("h1", "", "weft", "drops")
	for _, reason := range []string{"VLAN_DOUBLE_TAGGED", "VLAN_TAGGED", "VLAN_FILTERED"} {
		if !strings.Contains(out, reason) {
			t.Errorf("drops do not tell of %s:\n%s", reason, out)
		}
	}
}
