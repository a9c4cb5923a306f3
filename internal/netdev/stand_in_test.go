package netdev

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
)

// Stand-ins and unreachable prefixes are found again by whoever comes next, can be put twice and removed twice, and are no addresses
// of the host.
func TestStandIns(t *testing.T) {
	ground(t)
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "far"}); err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	own := netip.MustParsePrefix("192.0.2.1/24")
	if err := netlink.AddrAdd(l, &netlink.Addr{IPNet: ipNet(netip.PrefixFrom(own.Addr(), 24))}); err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		t.Fatal(err)
	}
	index := uint32(l.Attrs().Index)
	want := map[StandIn]struct{}{}
	for _, a := range []string{"192.0.2.129", "192.0.2.130", "2001:db8::8000:5"} {
		s := StandIn{index, netip.MustParseAddr(a)}
		want[s] = struct{}{}
		for range 2 {
			if err := PutStandIn(s); err != nil {
				t.Fatal(err)
			}
		}
	}
	nowhere := map[netip.Prefix]struct{}{netip.MustParsePrefix("203.0.113.0/24"): {}, netip.MustParsePrefix("2001:db8:9::/64"): {}}
	for p := range nowhere {
		for range 2 {
			if err := PutUnreachable(p); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, err := StandIns(); err != nil || !maps.Equal(got, want) {
		t.Errorf("stand-ins %v, want %v (%v)", got, want, err)
	}
	if got, err := Unreachables(); err != nil || !maps.Equal(got, nowhere) {
		t.Errorf("unreachable %v, want %v (%v)", got, nowhere, err)
	}
	addresses, err := Addresses()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if _, standsIn := want[StandIn{index, a.Prefix.Addr()}]; standsIn {
			t.Errorf("%s is among the addresses of the host", a.Prefix)
		}
	}
	gone := StandIn{index, netip.MustParseAddr("192.0.2.130")}
	for range 2 {
		if err := DeleteStandIn(gone); err != nil {
			t.Error(err)
		}
		if err := DeleteUnreachable(netip.MustParsePrefix("203.0.113.0/24")); err != nil {
			t.Error(err)
		}
	}
	if err := RemoveStandIns(); err != nil {
		t.Error(err)
	}
	left, err := StandIns()
	routes, err2 := Unreachables()
	if err != nil || err2 != nil || len(left)+len(routes) > 0 {
		t.Errorf("left: %v, %v (%v, %v)", left, routes, err, err2)
	}
	if addresses, err = Addresses(); err != nil {
		t.Fatal(err)
	}
	for _, a := range addresses {
		if a.Prefix == own {
			return
		}
	}
	t.Errorf("the host's own address is gone: %v", addresses)
}
