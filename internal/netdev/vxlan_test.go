package netdev

import (
	"net"
	"net/netip"
	"slices"
	"testing"
)

func TestVXLANDevicesListen(t *testing.T) {
	ground(t)
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	taken := func(network, at string) bool {
		c, err := net.ListenPacket(network, at)
		if err == nil {
			c.Close()
		}
		return err != nil
	}
	prepare := func(port uint16, addresses ...netip.Addr) []uint32 {
		t.Helper()
		devices, err := PrepareVXLAN(port, addresses, false)
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(devices)
		return devices
	}
	both := prepare(4789, v4, v6, v4)
	if len(both) != 2 || taken("udp4", "0.0.0.0:4789") || taken("udp6", "[::]:4789") {
		t.Fatalf("devices %v; they shall not listen yet", both)
	}
	for _, index := range both {
		if err := SetUp(index); err != nil {
			t.Fatal(err)
		}
	}
	if !taken("udp4", "0.0.0.0:4789") || !taken("udp6", "[::]:4789") {
		t.Error("nothing listens")
	}
	if again := prepare(4789, v6, v4); !slices.Equal(again, both) {
		t.Errorf("devices %v became %v", both, again)
	}
	if one := prepare(8472, v6); len(one) != 1 || slices.Contains(both, one[0]) || taken("udp4", "0.0.0.0:4789") {
		t.Errorf("devices %v after another port and one family, %v before", one, both)
	}
	if none := prepare(8472); len(none) != 0 {
		t.Errorf("devices %v for no address", none)
	}
	for range 2 {
		if err := RemoveVXLAN(); err != nil {
			t.Error(err)
		}
	}
}
