package agent

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/weft-sdn/weft/internal/goal"
)

// Provider routes lead packets to other hosts, and nothing else of the host; they come, change, share the load and
// go without a lost packet, outlive the agent, and say what keeps them from being there.
func TestProviderRoutes(t *testing.T) {
	w := newWorld(t, "h1", "h2")
	h1, h2 := w.hosts["h1"], w.hosts["h2"]
	h1.secondLeg("198.51.100")
	h1.extra = fmt.Sprintf("underlay: [eth0, eth1]\nproviderAddresses: [%s]\n", h1.pa)
	w.fleet.change(func() {
		w.fleet.addPort("web-1", 1, "h1")
		w.fleet.addPort("web-2", 2, "h2")
	})
	h1.synced()
	h2.synced()
	g1, g2 := h1.plug("web-1"), h2.plug("web-2")
	g1.ping(g2.address(true))
	main := w.run(h1.ns, "ip route show", "ip -6 route show")
	s := newStream(g1, g2)

	first, second := h1.pa.Prev(), netip.MustParseAddr("198.51.100.1")
	to := netip.PrefixFrom(h2.pa, 30).Masked()
	set := func(routes map[string]goal.ProviderRoute) {
		t.Helper()
		revision := w.fleet.change(func() { w.fleet.routes = map[string]map[string]goal.ProviderRoute{"h1": routes} })
		w.fleet.programmed("h1", revision)
	}
	used := func(device string) {
		t.Helper()
		before := h1.counter(device, "tx_packets")
		h1.poll("packets leave by "+device, func() bool { return h1.counter(device, "tx_packets") > before+100 })
		h1.verified()
	}
	set(map[string]goal.ProviderRoute{"east": {Prefix: to, NextHop: second, Interface: "eth1", Metric: 5}})
	used("eth1")
	set(map[string]goal.ProviderRoute{"east": {Prefix: to, NextHop: second, Metric: 5}, "west": {Prefix: to, NextHop: first, Interface: "eth0", Metric: 1}})
	used("eth0")
	set(map[string]goal.ProviderRoute{"east": {Prefix: to, NextHop: second, Metric: 1}, "west": {Prefix: to, NextHop: first, Metric: 1}})
	if routes := w.run(h1.ns, "ip route show table 2003134068"); strings.Count(routes, "nexthop") != 2 {
		t.Errorf("two next hops are:\n%s", routes)
	}
	h1.verified()
	set(map[string]goal.ProviderRoute{"east": {Prefix: to, NextHop: second, Interface: "eth1"}})
	used("eth1")

	// What somebody takes away comes back, and an agent that starts finds it as it was.
	w.run(h1.ns, "ip route flush table 2003134068")
	h1.poll("the route is put back", func() bool {
		return strings.Contains(w.run(h1.ns, "ip route show table 2003134068"), "via 198.51.100.1")
	})
	w.run(h1.ns, "ip rule del pref 11900")
	h1.poll("the rule is put back", func() bool { return strings.Contains(w.run(h1.ns, "ip rule"), "11900") })
	h1.end(syscall.SIGKILL)
	used1 := h1.counter("eth1", "tx_packets")
	h1.poll("packets go on", func() bool { return h1.counter("eth1", "tx_packets") > used1+100 })
	h1.synced()
	used("eth1")
	if now := w.run(h1.ns, "ip route show", "ip -6 route show"); now != main {
		t.Errorf("the host's own routes were\n%s\nand are\n%s", main, now)
	}

	// One over a device that is not there is said to be wrong, and others do what they can.
	revision := w.fleet.change(func() {
		w.fleet.routes["h1"] = map[string]goal.ProviderRoute{"east": {Prefix: to, NextHop: second, Interface: "eth9"}, "west": {Prefix: to, NextHop: first, Interface: "eth0"}}
	})
	w.fleet.until("h1 says so", func() bool {
		ack := w.fleet.sessions["h1"].ack
		for _, f := range ack.GetFailures() {
			if ack.GetRevision() == revision && f.GetKind() == "ProviderRoute" && f.GetName() == "east" && strings.Contains(f.GetMessage(), "no device eth9") {
				return true
			}
		}
		return false
	})
	used("eth0")

	set(nil)
	used("eth0")
	if left := w.run(h1.ns, "ip route show table 2003134068; ip rule | grep 11900 || true"); left != "" {
		t.Errorf("left:\n%s", left)
	}
	s.Finish()
}
