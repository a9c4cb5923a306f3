package netdev

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/vishvananda/netlink"
)

// Provider routes decide for those who ask for them alone; they are replaced whole, put back and
// removed, and nobody else's route is touched.
func TestProviderRoutesStandApart(t *testing.T) {
	ground(t)
	index := func(name string) uint32 {
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(l.Attrs().Index)
	}
	for i, name := range []string{"eth0", "eth1"} {
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: name + "-far"}); err != nil {
			t.Fatal(err)
		}
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		address := &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(1 + i)}), 32))}
		if err := netlink.AddrAdd(l, address); err != nil {
			t.Fatal(err)
		}
		for _, end := range []string{name, name + "-far"} {
			l, _ := netlink.LinkByName(end)
			if err := netlink.LinkSetUp(l); err != nil {
				t.Fatal(err)
			}
		}
	}
	eth0, eth1 := index("eth0"), index("eth1")
	ip, prefix := netip.MustParseAddr, netip.MustParsePrefix
	own := &netlink.Route{LinkIndex: int(eth0), Dst: ipNet(prefix("198.51.100.0/24")), Scope: netlink.SCOPE_LINK, Table: 254}
	if err := netlink.RouteAdd(own); err != nil {
		t.Fatal(err)
	}
	if err := UseProviderRoutes(true); err != nil {
		t.Fatal(err)
	}
	dst := ip("198.51.100.7")
	ways := func() (out []Hop) {
		t.Helper()
		routes, err := RoutesTo(dst, netip.Addr{})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range routes {
			out = append(out, Hop{r.NextHop, r.IfIndex})
		}
		return out
	}
	want := func(what string, hops ...Hop) {
		t.Helper()
		if got := ways(); !slices.Equal(got, hops) {
			t.Errorf("%s: %v, want %v", what, got, hops)
		}
		got, err := netlink.RouteGet(dst.AsSlice())
		if err != nil || len(got) != 1 || got[0].LinkIndex != int(eth0) {
			t.Errorf("%s: the host itself goes by %v, %v", what, got, err)
		}
	}
	put := func(id ProviderRoute, hops ...Hop) {
		t.Helper()
		if err := PutProviderRoute(id, hops); err != nil {
			t.Fatal(err)
		}
		have, err := ProviderRoutes()
		if err != nil || len(have[id.Canonical()]) != len(hops) {
			t.Fatalf("%v: %v, %v", id, have, err)
		}
		for i, h := range have[id.Canonical()] {
			if !h.Matches(hops[i]) {
				t.Errorf("%v: next hop %d is %v, want %v", id, i, h, hops[i])
			}
		}
	}
	want("without any", Hop{dst, eth0})
	id := ProviderRoute{prefix("198.51.100.0/25"), 7}
	put(id, Hop{ip("203.0.113.1"), eth1})
	want("one", Hop{ip("203.0.113.1"), eth1})
	put(id, Hop{ip("203.0.113.1"), eth1}, Hop{ip("203.0.113.2"), eth0})
	want("two", Hop{ip("203.0.113.1"), eth1}, Hop{ip("203.0.113.2"), eth0})
	put(id, Hop{netip.Addr{}, eth1})
	want("on-link", Hop{dst, eth1})
	put(ProviderRoute{id.Prefix, 3}, Hop{ip("203.0.113.3"), eth0})
	want("a lower metric", Hop{ip("203.0.113.3"), eth0})
	if err := DeleteProviderRoute(ProviderRoute{id.Prefix, 3}); err != nil {
		t.Fatal(err)
	}
	want("the lower metric is gone", Hop{dst, eth1})
	for _, six := range []ProviderRoute{{prefix("2001:db8::/32"), 0}, {prefix("2001:db8::/32"), 5}, {prefix("::/0"), 0}, {prefix("0.0.0.0/0"), 0}} {
		hops := []Hop{{ip("fd00::1"), eth0}, {ip("fd00::2"), eth1}}
		if six.Prefix.Addr().Is4() {
			hops = []Hop{{ip("203.0.113.1"), eth0}, {ip("203.0.113.2"), eth1}}
		}
		put(six.Canonical(), hops...)
		put(six.Canonical(), hops[1])
		put(six.Canonical(), hops...)
		if err := DeleteProviderRoute(six.Canonical()); err != nil {
			t.Fatal(err)
		}
	}
	if err := DeleteProviderRoute(ProviderRoute{prefix("192.0.2.128/25"), 0}); err != nil {
		t.Errorf("to delete what is not there: %v", err)
	}
	if err := PutProviderRoute(id, []Hop{{ip("203.0.113.9"), 9999}}); err == nil {
		t.Error("a route over no device is made")
	}
	for range 2 {
		if err := RemoveProviderRoutes(); err != nil {
			t.Fatal(err)
		}
	}
	want("at the end", Hop{dst, eth0})
	if rules, err := netlink.RuleListFiltered(netlink.FAMILY_ALL, &netlink.Rule{Table: providerTable}, netlink.RT_FILTER_TABLE); err != nil || len(rules) != 0 {
		t.Errorf("rules are left: %v, %v", rules, err)
	}
}
