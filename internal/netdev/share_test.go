package netdev

import (
	"testing"

	"github.com/vishvananda/netlink"
)

func TestUplinkQueueFollowsItsClasses(t *testing.T) {
	ground(t)
	const major, other = 0x7767, 3
	if _, err := createDX2(); err != nil {
		t.Fatal(err)
	}
	l, err := byName(dx2Device)
	if err != nil {
		t.Fatal(err)
	}
	before, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	own, err := rootOf(l)
	if err != nil {
		t.Fatal(err)
	}
	index := uint32(l.Attrs().Index)
	part := func(rate uint64) Bandwidth { return Bandwidth{Rate: rate, Burst: 32 << 10, Room: 128 << 10} }
	var entry, exit uint32
	for _, classes := range []map[uint16]Bandwidth{
		{other: part(1e6), 16: part(5e6), 17: part(4e6)},
		{other: part(1e6), 17: part(9e6)},
		{other: part(2e6), 17: part(3e6), 18: part(5e6)},
	} {
		in, out, err := PrepareUplink(Uplink{Index: index, Total: part(10e6), Classes: classes, Default: other}, major)
		if err != nil {
			t.Fatal(err)
		}
		if entry != 0 && (in != entry || out != exit) {
			t.Errorf("the devices %d, %d became %d, %d", entry, exit, in, out)
		}
		entry, exit = in, out
		have, err := UplinkClasses(index, major)
		if err != nil || len(have) != len(classes) {
			t.Errorf("classes %v, %v, want %v", have, err, classes)
		}
		for class, b := range classes {
			if have[class] != b.Rate {
				t.Errorf("class %d has %d bit/s, want %d", class, have[class], b.Rate)
			}
		}
	}
	if now, err := rootOf(l); err != nil || (now == nil) != (own == nil) || now != nil && now.Type() != own.Type() {
		t.Errorf("the uplink's own queue was %v, and is %v, %v", own, now, err)
	}
	if err := KeepUplinks(map[uint32]bool{index: true}); err != nil {
		t.Error(err)
	}
	if have, err := UplinkClasses(index, major); err != nil || len(have) != 3 {
		t.Errorf("classes %v, %v after others were removed", have, err)
	}
	for range 2 {
		if err := KeepUplinks(nil); err != nil {
			t.Error(err)
		}
	}
	if after, err := netlink.LinkList(); err != nil || len(after) != len(before) {
		t.Errorf("%d devices are left of %d (%v)", len(after), len(before), err)
	}
}

func TestSpeed(t *testing.T) {
	ground(t)
	if got := Speed("lo"); got != 0 {
		t.Errorf("lo says %d", got)
	}
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "wts1"}
	veth.Name = "wts0"
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	if got := Speed("wts0"); got != 10e9 {
		t.Errorf("a veth says %d, and not 10 Gb/s", got)
	}
}
