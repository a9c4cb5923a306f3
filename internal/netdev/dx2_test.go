package netdev

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
)

func TestPrepareDX2IsMadeOnceAndMended(t *testing.T) {
	ground(t)
	segment := netip.MustParseAddr("fd77:6566:7400::1")
	first, err := PrepareDX2(segment)
	if err != nil {
		t.Fatal(err)
	}
	routes := func() (out []netlink.Route) {
		all, err := netlink.RouteList(nil, netlink.FAMILY_V6)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			e, ok := r.Encap.(*netlink.SEG6LocalEncap)
			if ok && e.Action == nl.SEG6_LOCAL_ACTION_END_DX2 && e.Oif == int(first) && r.Dst.IP.Equal(segment.AsSlice()) {
				out = append(out, r)
			}
		}
		return out
	}
	if got := routes(); len(got) != 1 {
		t.Fatalf("routes of the segment: %v", got)
	}
	if err := netlink.RouteDel(&routes()[0]); err != nil {
		t.Fatal(err)
	}
	again, err := PrepareDX2(segment)
	if err != nil || again != first || len(routes()) != 1 {
		t.Fatalf("device %d then %d, routes %v, %v", first, again, routes(), err)
	}
	if err := DeleteLink(dx2Device); err != nil {
		t.Fatal(err)
	}
	if _, err := ByName(dx2Peer); !errors.Is(err, ErrNoDevice) {
		t.Fatalf("the other end stayed: %v", err)
	}
}
