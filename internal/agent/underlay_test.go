package agent

import (
	"fmt"
	"strings"
	"testing"
)

// secondLeg gives h another device toward the router, eth1.
func (h *hostMachine) secondLeg(net string) {
	h.t.Helper()
	leg := h.name + "-second"
	h.shell(fmt.Sprintf("ip link add eth1 netns %s type veth peer name %s netns %s", h.ns, leg, h.router))
	h.run(h.router, fmt.Sprintf("ip addr add %s.1/30 dev %s", net, leg), fmt.Sprintf("ip link set %s up", leg))
	h.run(h.ns, fmt.Sprintf("ip addr add %s.2/30 dev eth1", net), "ip link set eth1 up")
	h.t.Cleanup(func() { h.run(h.ns, "ip link del eth1") })
}

// A host with two uplinks follows its routes from one to the other, and hears on both.
func TestTwoUplinks(t *testing.T) {
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
	if got := w.fleet.facts("h1"); len(got.GetProviderAddresses()) != 1 || got.GetProviderAddresses()[0] != h1.pa.String() ||
		!strings.Contains(got.GetDecap(), "eth0=") || !strings.Contains(got.GetDecap(), "eth1=") || got.GetUnderlayMtu() != 1500 {
		t.Errorf("facts of h1: %v", got)
	}
	s := newStream(g1, g2)
	used := func() uint64 { return h1.counter("eth1", "tx_packets") }
	before := used()
	w.run(h1.ns, fmt.Sprintf("ip route add %s/32 via 198.51.100.1 metric 100", h2.pa))
	h1.poll("packets leave by the second uplink", func() bool { return used() > before+100 })
	// And back by the second uplink as well.
	w.run(w.router, fmt.Sprintf("ip route add %s/32 via 198.51.100.2", h1.pa))
	g2.ping(g1.address(true))
	h1.verified()
	// The new way first, then the end of the old: a route that is taken away while
	// it is in use leaves what is sent until the agent knows with no way at all.
	before = h1.counter("eth0", "tx_packets")
	w.run(h1.ns, fmt.Sprintf("ip route add %s/32 via %s metric 50", h2.pa, h1.pa.Prev()))
	h1.poll("packets leave by the first uplink", func() bool { return h1.counter("eth0", "tx_packets") > before+100 })
	w.run(h1.ns, fmt.Sprintf("ip route del %s/32 metric 100", h2.pa))
	h1.verified()
	s.Finish()
}

// Routes and MTUs of the underlay change; peers and guests follow.
func TestUnderlayChanges(t *testing.T) {
	w, g1, g2 := pairOfGuests(t)
	h := w.hosts["h1"]
	g1.ping(g2.address(true))

	w.run(h.ns, "ip route del default")
	// The last way stays for a moment, for those who change it.
	h.poll("the loss of the route shows as drops", func() bool { return !g1.pings(g2) && h.dropped("NO_UNDERLAY_ROUTE") > 0 })
	h.verified()
	w.run(h.ns, fmt.Sprintf("ip route add default via %s", h.pa.Prev()))
	h.poll("the route is found again", func() bool { return g1.pings(g2) })

	w.run(h.ns, "ip link set eth0 mtu 1400")
	w.fleet.until("the server knows of the MTU", func() bool { return w.fleet.sessions["h1"].facts.GetUnderlayMtu() == 1400 })
	h.poll("the port follows", func() bool { return strings.Contains(h.run(h.ns, "ip link show wfp1"), "mtu 1358 ") })
	w.fleet.change(func() { w.fleet.addPort("web-3", 3, "") })
	g3 := h.plug("web-3")
	if g3.got.GetMtu() != 1358 {
		t.Errorf("a new guest is told an MTU of %d, want 1358", g3.got.GetMtu())
	}
	h.verified()
	inside := func(g *guest, mtu string) {
		t.Helper()
		h.poll("the guest has an MTU of "+mtu, func() bool { return strings.Contains(h.run(g.ns, "ip link show eth0"), "mtu "+mtu+" ") })
	}
	inside(g1, "1358")
	w.run(g3.ns, "ip link set eth0 mtu 1300") // it has its reasons
	w.run(h.ns, "ip link set eth0 mtu 1500")
	inside(g1, "1458")
	h.poll("the other port follows", func() bool { return strings.Contains(h.run(h.ns, "ip link show wfp3"), "mtu 1458 ") })
	inside(g3, "1300")
}

// Policy that gives this host an address that it does not have is a condition,
// not a silence; and it is over when policy is right again.
func TestForeignProviderAddress(t *testing.T) {
	w, g1, g2 := pairOfGuests(t)
	right := w.hosts["h1"].pa
	w.fleet.change(func() { w.fleet.pas["h1"] = addr("203.0.113.9") })
	w.fleet.until("h1 says so", func() bool {
		for _, f := range w.fleet.sessions["h1"].ack.GetFailures() {
			if f.GetKind() == "Host" && f.GetReason() == reasonForeignPA && strings.Contains(f.GetMessage(), "203.0.113.9") {
				return true
			}
		}
		return false
	})
	revision := w.fleet.change(func() { w.fleet.pas["h1"] = right })
	w.fleet.programmed("h1", revision)
	w.fleet.programmed("h2", revision)
	g1.ping(g2.address(true))
	g2.ping(g1.address(false))
}
