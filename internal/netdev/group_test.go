package netdev

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// The kernel lists memberships of this namespace in /proc: 239.1.2.3 as its bytes
// reversed, IPv6 groups as they are.
func joined(t *testing.T, file, group string) bool {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/" + file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Contains(string(b), group)
}

func TestJoinGroupListensUntilClosed(t *testing.T) {
	ground(t)
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "up0"}, PeerName: "up1"}); err != nil {
		t.Fatal(err)
	}
	var index uint32
	for _, name := range []string{"up0", "up1"} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
		index = uint32(l.Attrs().Index)
	}
	for _, c := range []struct{ group, file, entry string }{
		{"239.1.2.3", "igmp", "030201EF"},
		{"ff05::1:2", "igmp6", "ff050000000000000000000000010002"},
	} {
		s, err := JoinGroup(netip.MustParseAddr(c.group), []uint32{index})
		if err != nil {
			t.Fatal(err)
		}
		if !joined(t, c.file, c.entry) {
			t.Errorf("%s is not joined", c.group)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		until(t, c.group+" is left", func() bool { return !joined(t, c.file, c.entry) })
	}
	if s, err := JoinGroup(netip.MustParseAddr("239.1.2.3"), []uint32{9999}); err == nil {
		s.Close()
		t.Error("joined on a device that there is not")
	}
}
