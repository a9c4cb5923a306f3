package netdev

import (
	"testing"

	"github.com/vishvananda/netlink"
)

func TestShaperKeepsItsClassesAndGoesWhole(t *testing.T) {
	ground(t)
	const major = 0x7766
	entry, exit, err := PrepareShaper(major)
	if err != nil {
		t.Fatal(err)
	}
	if err := ShapeClass(entry, major, 5, Bandwidth{Rate: 100e6, Burst: 64 << 10, Room: 128 << 10}); err != nil {
		t.Fatal(err)
	}
	if err := ShapeClass(entry, major, 6, Bandwidth{Rate: 40e9, Burst: 8 << 20, Room: 128 << 10}); err != nil {
		t.Fatal(err)
	}
	if err := ShapeClass(entry, major, 5, Bandwidth{Rate: 200e6, Burst: 64 << 10, Room: 128 << 10}); err != nil {
		t.Fatal(err)
	}
	again, below, err := PrepareShaper(major)
	if err != nil || again != entry || below != exit {
		t.Fatalf("devices %d, %d became %d, %d: %v", entry, exit, again, below, err)
	}
	have, err := Bandwidths(entry, major)
	if err != nil || len(have) != 2 || have[5] != 200e6 || have[6] != 40e9 {
		t.Fatalf("classes %v, %v", have, err)
	}
	for range 2 {
		if err := UnshapeClass(entry, major, 5); err != nil {
			t.Error(err)
		}
	}
	if have, _ := Bandwidths(entry, major); len(have) != 1 || have[6] != 40e9 {
		t.Errorf("classes %v after one was deleted", have)
	}
	for range 2 {
		if err := RemoveShaper(); err != nil {
			t.Error(err)
		}
	}
	if links, err := netlink.LinkList(); err != nil || len(links) != 1 {
		t.Errorf("%d devices are left, want lo alone (%v)", len(links), err)
	}
}

func TestShapedDeviceGetsItsOwnQueueBack(t *testing.T) {
	ground(t)
	const major = 0x7766
	if _, err := createDX2(); err != nil {
		t.Fatal(err)
	}
	l, err := byName(dx2Device)
	if err != nil {
		t.Fatal(err)
	}
	index := uint32(l.Attrs().Index)
	for _, rate := range []uint64{10e6, 20e6} {
		if err := ShapeDevice(index, major, Bandwidth{Rate: rate, Burst: 32 << 10, Room: 128 << 10}); err != nil {
			t.Fatal(err)
		}
		if have, err := Bandwidths(index, major); err != nil || have[1] != rate {
			t.Errorf("classes %v, %v, want one of %d bit/s", have, err, rate)
		}
	}
	for range 2 {
		if err := UnshapeDevice(index, major); err != nil {
			t.Error(err)
		}
	}
	if have, err := Bandwidths(index, major); err != nil || len(have) != 0 {
		t.Errorf("classes %v, %v are left", have, err)
	}
	if err := UnshapeDevice(index+1000, major); err != nil {
		t.Errorf("a device that is gone: %v", err)
	}
}
