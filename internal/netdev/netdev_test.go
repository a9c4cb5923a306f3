package netdev

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/weft-sdn/weft/internal/model"
)

// ground moves the test into a fresh network namespace, and returns the path
// of another one for a guest. Both die with the test.
func ground(t *testing.T) (guest string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root")
	}
	// Never unlocked: the thread, and with it the namespace, ends with the test.
	runtime.LockOSThread()
	far, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	near, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	return fmt.Sprintf("/proc/self/fd/%d", int(far))
}

func inside(t *testing.T, path string) *netlink.Handle {
	t.Helper()
	ns, err := netns.GetFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting until %s", what)
		}
		runtime.Gosched()
	}
}

func webOne(ns string) Guest {
	return Guest{
		Namespace: ns, Name: "eth0", MAC: model.MAC{2, 0, 0, 0, 0, 1}, MTU: 1458,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24"), netip.MustParsePrefix("fd00:a::5/64")},
		Gateways:  []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00:a::1")},
	}
}

func TestCreateVethConfiguresTheGuestAndSilencesTheHost(t *testing.T) {
	ns := ground(t)
	link, err := CreateVeth("wfp1", "red/web-1", webOne(ns))
	if err != nil {
		t.Fatal(err)
	}
	if link.Kind != "veth" || !link.PeerElsewhere || link.Owner != "red/web-1" || link.MTU != 1458 || link.Up {
		t.Errorf("host end is %+v", link)
	}
	if b, _ := os.ReadFile("/proc/thread-self/net/if_inet6"); string(b) != "" {
		t.Errorf("the host end has IPv6 addresses:\n%s", b)
	}

	h := inside(t, ns)
	eth0, err := h.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	if a := eth0.Attrs(); a.MTU != 1458 || a.HardwareAddr.String() != "02:00:00:00:00:01" {
		t.Errorf("guest end is %+v", a)
	}
	if out, err := exec.Command("nsenter", fmt.Sprintf("--net=/proc/%d/fd/%s", os.Getpid(), filepath.Base(ns)), "ethtool", "-k", "eth0").Output(); err != nil ||
		!strings.Contains(string(out), "tx-gre-segmentation: off") || !strings.Contains(string(out), "tx-tcp-segmentation: on") {
		t.Errorf("offloads of the guest's end (%v):\n%s", err, out)
	}
	got := map[string]bool{}
	addrs, err := h.AddrList(eth0, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		got[a.IPNet.String()] = true
		if a.Flags&tentative != 0 {
			t.Errorf("%s is tentative", a.IPNet)
		}
	}
	for _, want := range []string{"10.0.0.5/24", "fd00:a::5/64", "fe80::ff:fe00:1/64"} {
		if !got[want] {
			t.Errorf("guest has %v, wants %s", got, want)
		}
	}
	for _, dst := range []string{"10.9.9.9", "fd00:9::9"} {
		r, err := h.RouteGet(netip.MustParseAddr(dst).AsSlice())
		if err != nil || len(r) != 1 || r[0].Gw == nil {
			t.Errorf("route to %s: %v %v", dst, r, err)
		}
	}

	if err := DeleteLink("wfp1"); err != nil {
		t.Fatal(err)
	}
	if err := DeleteLink("wfp1"); err != nil {
		t.Errorf("deleting twice: %v", err)
	}
	if _, err := ByName("wfp1"); !errors.Is(err, ErrNoDevice) {
		t.Errorf("after deletion: %v", err)
	}
}

func TestCreateVethLeavesNothingWhenItFails(t *testing.T) {
	ns := ground(t)
	cases := map[string]struct {
		change func(*Guest)
		want   error
	}{
		"no namespace":      {func(g *Guest) { g.Namespace = "wa-there-is-none" }, ErrNoNamespace},
		"unusable gateway":  {func(g *Guest) { g.Gateways = []netip.Addr{netip.MustParseAddr("ff02::1")} }, nil},
		"duplicate address": {func(g *Guest) { g.Addresses = append(g.Addresses, g.Addresses[0]) }, nil},
		"name too long":     {func(g *Guest) { g.Name = "sixteen-and-more" }, nil},
	}
	for name, c := range cases {
		g := webOne(ns)
		c.change(&g)
		_, err := CreateVeth("wfp1", "red/web-1", g)
		if err == nil || (c.want != nil && !errors.Is(err, c.want)) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
		links, err := Links()
		if err != nil || len(links) != 1 {
			t.Errorf("%s: left %v (%v)", name, links, err)
		}
	}
	if _, err := CreateVeth("wfp1", "red/web-1", webOne(ns)); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateVeth("wfp2", "red/web-2", webOne(ns)); !errors.Is(err, ErrExists) {
		t.Errorf("eth0 twice: %v", err)
	}
	if _, err := ByName("wfp2"); !errors.Is(err, ErrNoDevice) {
		t.Errorf("wfp2 was left: %v", err)
	}
}

func TestSecondNICOfAGuest(t *testing.T) {
	ns := ground(t)
	first, second := webOne(ns), webOne(ns)
	second.Name, second.MAC[5] = "eth1", 2
	second.Addresses = []netip.Prefix{netip.MustParsePrefix("10.0.9.5/24"), netip.MustParsePrefix("fd00:9::5/64")}
	second.Gateways = []netip.Addr{netip.MustParseAddr("10.0.9.1"), netip.MustParseAddr("fd00:9::1")}
	for i, g := range []Guest{first, second} {
		if _, err := CreateVeth(fmt.Sprintf("wfp%d", i), "red/x", g); err != nil {
			t.Fatal(err)
		}
	}
	h := inside(t, ns)
	for dst, want := range map[string]string{"198.51.100.1": "10.0.0.1", "2001:db8::1": "fd00:a::1"} {
		r, err := h.RouteGet(netip.MustParseAddr(dst).AsSlice())
		if err != nil || r[0].Gw.String() != want {
			t.Errorf("route to %s: %v %v; the first NIC must keep the default", dst, r, err)
		}
	}
}

func TestPreparePortSetsTheMTU(t *testing.T) {
	ns := ground(t)
	link, err := CreateVeth("wfp1", "x", webOne(ns))
	if err != nil {
		t.Fatal(err)
	}
	if err := PreparePort(link.Index, 8000); err != nil {
		t.Fatal(err)
	}
	if l, _ := ByName("wfp1"); l.MTU != 8000 || !l.Up {
		t.Errorf("%+v", l)
	}
	if err := PreparePort(9999, 1458); !errors.Is(err, ErrNoDevice) {
		t.Errorf("no device: %v", err)
	}
}

// An underlay of two hosts on one segment, and a PA behind the second.
func TestRoutesAndManagedNeighbours(t *testing.T) {
	ns := ground(t)
	g := Guest{Namespace: ns, Name: "eth0", MAC: model.MAC{2, 0, 0, 0, 0, 9}, MTU: 1500,
		Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24")}}
	link, err := CreateVeth("up0", "underlay", g)
	if err != nil {
		t.Fatal(err)
	}
	up, err := netlink.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(up); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetARPOn(up); err != nil {
		t.Fatal(err)
	}
	own := netip.MustParsePrefix("192.0.2.1/24")
	if err := netlink.AddrAdd(up, &netlink.Addr{IPNet: ipNet(own)}); err != nil {
		t.Fatal(err)
	}
	far := netip.MustParsePrefix("198.51.100.0/24")
	route := &netlink.Route{LinkIndex: up.Attrs().Index, Dst: ipNet(far), Gw: netip.MustParseAddr("192.0.2.2").AsSlice(), MTU: 1400}
	if err := netlink.RouteAdd(route); err != nil {
		t.Fatal(err)
	}

	gateway := netip.MustParseAddr("192.0.2.2")
	r, err := routeTo("198.51.100.7")
	want := Route{IfIndex: link.Index, NextHop: gateway, Source: own.Addr(), MTU: 1400, MAC: link.MAC}
	if err != nil || r != want {
		t.Errorf("RouteTo = %+v, %v; want %+v", r, err, want)
	}
	if r, err := routeTo(gateway.String()); err != nil || r.NextHop != gateway || r.MTU != 1500 {
		t.Errorf("on-link: %+v %v", r, err)
	}
	for _, dst := range []string{"203.0.113.1", "192.0.2.1", "127.0.0.1"} {
		if _, err := routeTo(dst); !errors.Is(err, ErrNoRoute) {
			t.Errorf("route to %s: %v", dst, err)
		}
	}

	hop := Neighbour{link.Index, gateway}
	for range 2 { // the second changes nothing
		if err := Manage(hop); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "the next hop is resolved", func() bool {
		all, err := ManagedNeighbours()
		return err == nil && len(all) == 1 && all[hop].MAC == g.MAC
	})
	if err := Unmanage(hop); err != nil {
		t.Fatal(err)
	}
	if all, err := ManagedNeighbours(); err != nil || len(all) != 0 {
		t.Errorf("left: %v %v", all, err)
	}
	if err := Unmanage(hop); err != nil {
		t.Errorf("twice: %v", err)
	}

	addrs, err := Addresses()
	found := false
	for _, a := range addrs {
		found = found || a == Address{link.Index, own, true, model.AddressPreferred}
	}
	if err != nil || !found {
		t.Errorf("addresses %v, %v", addrs, err)
	}
}

func TestWatchTellsWhatChanged(t *testing.T) {
	ns := ground(t)
	changes := make(chan Change, 1000)
	if err := Watch(t.Context(), func(c Change) { changes <- c }); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateVeth("wfp1", "x", webOne(ns)); err != nil {
		t.Fatal(err)
	}
	up, err := netlink.LinkByName("wfp1")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetARPOn(up); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(up); err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(up, &netlink.Addr{IPNet: ipNet(netip.MustParsePrefix("192.0.2.1/24"))}); err != nil {
		t.Fatal(err)
	}
	if err := Manage(Neighbour{uint32(up.Attrs().Index), netip.MustParseAddr("192.0.2.2")}); err != nil {
		t.Fatal(err)
	}
	var seen Change
	deadline := time.After(5 * time.Second)
	for seen != ChangeAll {
		select {
		case c := <-changes:
			seen |= c
		case <-deadline:
			t.Fatalf("saw only %04b", seen)
		}
	}
}

// When the kernel has more to say than the socket takes, everything may have changed.
func TestWatchResyncsAfterOverflow(t *testing.T) {
	ns := ground(t)
	if _, err := CreateVeth("wfp1", "x", webOne(ns)); err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName("wfp1")
	if err != nil {
		t.Fatal(err)
	}
	busy, seen := make(chan struct{}), make(chan Change, 100000)
	if err := Watch(t.Context(), func(c Change) { <-busy; seen <- c }); err != nil {
		t.Fatal(err)
	}
	for i := range 3000 { // of more than a kilobyte each, into a socket of 208
		if err := netlink.LinkSetMTU(l, 1400+i%2); err != nil {
			t.Fatal(err)
		}
	}
	close(busy)
	deadline := time.After(5 * time.Second)
	for {
		select {
		case c := <-seen:
			if c == ChangeAll {
				return
			}
		case <-deadline:
			t.Fatal("lost messages were not told of")
		}
	}
}

// routeTo is the only route to a destination.
func routeTo(dst string) (Route, error) {
	all, err := RoutesTo(netip.MustParseAddr(dst), netip.Addr{})
	if len(all) != 1 {
		return Route{}, err
	}
	return all[0], err
}
