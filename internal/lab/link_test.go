package lab

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// onOneLink joins the wires of the hosts to one link: the router stays the way to everything else, and knows of no pool.
func (l Lab) onOneLink(t *testing.T, ctx context.Context, hosts []string) {
	t.Helper()
	lines := []string{"link add br0 type bridge mcast_snooping 0", "link set br0 up"}
	for i := range hosts {
		pools := poolsOf(i + 1)
		lines = append(lines, fmt.Sprintf("route del %s", pools[0]), fmt.Sprintf("route del %s", pools[1]), fmt.Sprintf("link set n%d master br0", i+1),
			fmt.Sprintf("address del %s/24 dev n%d", gatewayOf(i+1), i+1), fmt.Sprintf("address del %s/64 dev n%d", gateway6Of(i+1), i+1),
			fmt.Sprintf("address add %s/24 dev br0", gatewayOf(i+1)), fmt.Sprintf("address add %s/64 dev br0 nodad", gateway6Of(i+1)))
	}
	if err := batch(ctx, l.space(routerSpace), lines); err != nil {
		t.Fatal(err)
	}
	for i, h := range hosts {
		lines = nil
		for j := range hosts {
			if i != j {
				lines = append(lines, fmt.Sprintf("route add %s/24 dev eth0", address(j+1, 0)), fmt.Sprintf("route add %s/64 dev eth0", address6(j+1, 0)))
			}
		}
		if err := batch(ctx, l.space(h), lines); err != nil {
			t.Fatal(err)
		}
	}
}

// ip runs `ip` with a line of arguments in a namespace of the lab.
func (l Lab) ip(t *testing.T, space, line string) string {
	t.Helper()
	out, code := l.in(space, "", append([]string{"ip"}, strings.Fields(line)...)...)
	if code != 0 {
		t.Fatalf("%s: ip %s: code %d\n%s", space, line, code, out)
	}
	return out
}

// Hosts on one link: what looks for the Provider Address of a guest is answered by the kernel of its host, over IPv4 and IPv6, with or
// without an agent, and by nobody when the guest is gone. What is flooded goes out once, to a multicast address of the link.
func TestHostsOnOneLink(t *testing.T) {
	ctx, hosts := patience(t), HostNames(3)
	c := carried{name: "red", a: "rewrite", b: "rewrite", flood: "l3"}
	d := carried{name: "blue", a: "nvgre", b: "rewrite", flood: "l2"}
	policy := &bytes.Buffer{}
	spec := Spec{Hosts: hosts, ProviderAddresses: []string{"ipv4"}, Manifests: []string{filepath.Join(t.TempDir(), "link.yaml")}}
	for _, x := range []carried{c, d} {
		spec.Guests = append(spec.Guests, x.manifest(policy)...)
		fmt.Fprintf(policy, "---\nkind: Port\nmetadata: {tenant: %s, name: a4}\nspec: {subnet: a, addresses: [10.0.0.8, \"fd00:a::8\"], host: h3}\n", x.name)
		spec.Guests = append(spec.Guests, GuestSpec{Port: x.name + "/a4"})
	}
	if err := os.WriteFile(spec.Manifests[0], policy.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	l := newLab(t, "o")
	if err := l.Up(ctx, options(t, spec)); err != nil {
		t.Fatal(err)
	}
	l.onOneLink(t, ctx, hosts)
	reaches := func(to ...string) {
		t.Helper()
		for _, a := range to {
			err := poll(ctx, func() error {
				if out, code := l.in("red/a1", "", "ping", "-n", "-c1", "-W1", a); code != 0 {
					return fmt.Errorf("ping %s: code %d\n%s", a, code, out)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	}
	reaches("10.0.0.7", "10.0.1.7", "fd00:a::7", "fd00:b::7", "10.0.0.8", "fd00:a::8")
	before := l.standIns(t, "h2")
	if len(before) != 6 { // of red/a3, red/b3 and blue/b3
		t.Errorf("h2 has %v", before)
	}
	l.answersFor(t, ctx, before...)
	l.emptyPool(t, ctx)

	if out, code := l.in("h1", "", "weft", "delete", "port", "red/b3"); code != 0 {
		t.Fatalf("delete: code %d\n%s", code, out)
	}
	if err := poll(ctx, func() error {
		if after := l.standIns(t, "h2"); len(after) != len(before)-2 {
			return fmt.Errorf("h2 answers for %v, did for %v, and a guest with two is gone", after, before)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	l.multicastAddress(t, ctx)

	if err := unix.Kill(l.agentOf(t, "h2"), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	l.ip(t, "router", "neigh flush dev br0")
	l.answersFor(t, ctx, l.standIns(t, "h2")...)
	reaches("10.0.0.7", "fd00:a::7")
}

// standIns are the Provider Addresses of guests that a host answers for.
func (l Lab) standIns(t *testing.T, host string) (out []netip.Addr) {
	t.Helper()
	for _, word := range strings.Fields(l.ip(t, host, "address show dev eth0")) {
		if p, err := netip.ParsePrefix(word); err == nil && p.IsSingleIP() {
			out = append(out, p.Addr())
		}
	}
	return out
}

// answersFor wants the router to find addresses at h2. It is in no policy, so nothing else of it is answered.
func (l Lab) answersFor(t *testing.T, ctx context.Context, addresses ...netip.Addr) {
	t.Helper()
	mac := macOf(t, l.space("h2"), "eth0")
	for _, a := range addresses {
		err := poll(ctx, func() error {
			if out, code := l.in("router", "", "ping", "-n", "-c1", "-W1", a.String()); code == 0 {
				t.Errorf("%s answers the router's ping:\n%s", a, out)
			}
			if out := l.ip(t, "router", "neigh show "+a.String()); !strings.Contains(out, "lladdr "+mac) {
				return fmt.Errorf("the router looks for %s and finds %s", a, out)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// emptyPool has a host that forwards get packets for an address of its pool that nobody has: it says so, and does not send them back.
func (l Lab) emptyPool(t *testing.T, ctx context.Context) {
	t.Helper()
	if err := setting(l.space("h1"), "ipv4/ip_forward", "1"); err != nil {
		t.Fatal(err)
	}
	l.ip(t, "router", fmt.Sprintf("route add 203.0.113.0/24 via %s", nodeOf(1)))
	pools := poolsOf(1)
	l.applied(t, fmt.Sprintf("kind: Host\nmetadata: {name: h1}\nspec: {rewritePrefixes: [%s, \"%s\", 203.0.113.0/24]}\n", pools[0], pools[1]))
	if err := poll(ctx, func() error {
		out, _ := l.in("h3", "", "ping", "-n", "-c1", "-W1", "203.0.113.9")
		if !strings.Contains(out, "From "+nodeOf(1).String()) || !strings.Contains(out, "Destination Host Unreachable") {
			return fmt.Errorf("ping 203.0.113.9: %s", out)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	if routes := l.ip(t, "h1", "route show type unreachable"); strings.Count(routes, "\n") != 1 {
		t.Errorf("unreachable on h1, whose other pools are on a link:\n%s", routes)
	}
	l.applied(t, fmt.Sprintf("kind: Host\nmetadata: {name: h1}\nspec: {rewritePrefixes: [%s, \"%s\"]}\n", pools[0], pools[1]))
	if err := poll(ctx, func() error {
		if routes := l.ip(t, "h1", "route show type unreachable"); routes != "" {
			return fmt.Errorf("still unreachable: %s", routes)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
}

func macOf(t *testing.T, space, device string) (mac string) {
	t.Helper()
	err := within(space, func() error {
		d, err := net.InterfaceByName(device)
		if err == nil {
			mac = d.HardwareAddr.String()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return mac
}

// agentOf is the process of a host's agent.
func (l Lab) agentOf(t *testing.T, host string) (pid int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/run/weft/lab", l.name, "hosts", host, "pid"))
	if err == nil {
		_, err = fmt.Sscan(string(text), &pid)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// multicastAddress has what blue's first subnet floods go to a multicast address of the link: one frame leaves the host, and the guests of
// all others get one each. The third guest is on a host that joins later.
func (l Lab) multicastAddress(t *testing.T, ctx context.Context) {
	t.Helper()
	group := netip.MustParseAddr("239.1.2.3")
	l.applied(t, fmt.Sprintf("kind: VirtualSubnet\nmetadata: {tenant: blue, name: a}\nspec: {network: prod, prefixes: [10.0.0.0/24, \"fd00:a::/64\"], transport: nvgre, flood: l2, multicastAddress: %s}\n", group))
	sender, others := l.tap(t, portRef{"blue", "a1"}), []*wire{l.tap(t, portRef{"blue", "a2"}), l.tap(t, portRef{"blue", "a4"})}
	wire1 := listen(t, l.space(routerSpace), "n1")
	sent := map[string]bool{}
	heard := map[*wire]map[string]int{}
	send := func(mark uint32) {
		for _, f := range floodedKinds(sender, mark) {
			sender.send(t, f)
			sent[string(f)] = true
		}
	}
	for mark := range uint32(5) {
		send(0x1000 * (mark + 1))
	}
	err := poll(ctx, func() error {
		for _, w := range others {
			if heard[w] == nil {
				heard[w] = map[string]int{}
			}
			w.heard(t, heard[w])
			for f := range sent {
				if heard[w][f] == 0 {
					return fmt.Errorf("%s has not heard all", w.name)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	for _, w := range others {
		for f := range sent {
			if heard[w][f] != 1 {
				t.Errorf("%s heard a frame %d times", w.name, heard[w][f])
			}
		}
	}
	copies := 0
	underlay := map[string]int{}
	wire1.heard(t, underlay)
	for f, n := range underlay {
		if strings.HasPrefix(f, "\x01\x00\x5e\x01\x02\x03") {
			copies += n
		} else if len(f) > 34 && f[23] == 47 {
			for s := range sent {
				if strings.HasSuffix(f, s) {
					t.Errorf("a copy of its own for %v", netip.AddrFrom4([4]byte([]byte(f[30:34]))))
				}
			}
		}
	}
	if copies != len(sent) {
		t.Errorf("%d copies left the host for %d frames", copies, len(sent))
	}
}
