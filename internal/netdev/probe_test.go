package netdev

import (
	"net/netip"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// neighbours are two hosts on one wire: this test's namespace and another, whose device
// takes no more than mtu bytes and drops the rest without a word.
func neighbours(t *testing.T, mtu int) (here, there [2]netip.Addr) {
	t.Helper()
	path := ground(t)
	far := inside(t, path)
	ns, err := netns.GetFromPath(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	near, err := netlink.NewHandle()
	check(err)
	t.Cleanup(near.Close)
	check(near.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "u0", MTU: 1500}, PeerName: "u1", PeerNamespace: netlink.NsFd(ns)}))
	for i, h := range []*netlink.Handle{near, far} {
		for _, name := range []string{"lo", []string{"u0", "u1"}[i]} {
			l, err := h.LinkByName(name)
			check(err)
			if name == "u1" {
				check(h.LinkSetMTU(l, mtu))
			}
			check(h.LinkSetUp(l))
			if name == "lo" {
				continue
			}
			for _, text := range []string{[]string{"192.0.2.1/24", "192.0.2.2/24"}[i], []string{"fd00:9::1/64", "fd00:9::2/64"}[i]} {
				a, err := netlink.ParseAddr(text)
				check(err)
				a.Flags = 2 // no duplicate detection: usable at once
				check(h.AddrAdd(l, a))
			}
		}
	}
	return [2]netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("fd00:9::1")},
		[2]netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("fd00:9::2")}
}

// The size that a path carries is found to the byte, in both families, and a whole
// path and an absent host are told as such.
func TestEchoMeasuresThePath(t *testing.T) {
	for _, mtu := range []int{1391, 1500} {
		here, there := neighbours(t, mtu)
		nobody := [2]netip.Addr{netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("fd00:9::9")}
		for i, from := range here {
			got, err := Echo(t.Context(), from, map[netip.Addr]int{there[i]: 1500, nobody[i]: 1500, there[1-i]: 1500})
			if err != nil {
				t.Fatal(err)
			}
			passes := min(mtu+4, 1500) // a veth leaves room for a VLAN tag
			if got[there[i]] != passes || got[nobody[i]] != 0 || got[there[1-i]] != 0 {
				t.Errorf("%s, %d bytes pass: measured %v", from, passes, got)
			}
		}
	}
}

func TestBetweenNarrowsDown(t *testing.T) {
	for _, c := range []struct{ passes, lost int }{{84, 85}, {84, 86}, {1280, 1400}, {1500, 9000}} {
		lo, hi := c.passes, c.lost
		for range echoSearches {
			for _, n := range between(lo, hi) {
				if n <= lo || n >= hi {
					t.Fatalf("%d is not between %d and %d", n, lo, hi)
				}
			}
			// The truth is just below what is lost: the worst case.
			if s := between(lo, hi); len(s) > 0 {
				lo = slices.Max(s)
			}
		}
		if lo != c.lost-1 {
			t.Errorf("between %d and %d: %d is found", c.passes, c.lost, lo)
		}
	}
}

// A datagram with a wrong checksum is answered by nobody. Where something on the way
// makes it good, or nobody looks at it, the canary sings.
func TestCanaries(t *testing.T) {
	here, there := neighbours(t, 1500)
	for i, from := range here {
		want := Canary{Software: true, Device: true}
		if got := sing(t, from, []netip.Addr{there[i], there[1-i]}, func(c Canary) bool { return c == want }); got[there[i]] != want || len(got) != 1 {
			t.Errorf("%s: %+v", from, got)
		}
	}
	// Checksum 0 says that there is none: as if the receiver did not look.
	nft := exec.Command("nft", "-f", "-")
	nft.Stdin = strings.NewReader("table ip t { chain o { type filter hook output priority 0; udp dport 33433 udp checksum set 0; }; }")
	if out, err := nft.CombinedOutput(); err != nil {
		t.Fatalf("nft: %v: %s", err, out)
	}
	if got := sing(t, here[0], there[:1], func(c Canary) bool { return c.Corrupt }); !got[there[0]].Corrupt {
		t.Errorf("repaired on the way: %+v", got)
	}
}

// sing asks again when answers stay away: a kernel tells of few unreachable ports a second.
func sing(t *testing.T, from netip.Addr, to []netip.Addr, enough func(Canary) bool) (got map[netip.Addr]Canary) {
	t.Helper()
	for range 10 {
		var err error
		if got, err = Canaries(t.Context(), from, to); err != nil {
			t.Fatal(err)
		}
		for _, c := range got {
			if enough(c) {
				return got
			}
		}
	}
	return got
}

func TestQuotesOfStrangers(t *testing.T) {
	for _, b := range [][]byte{nil, {0x45}, append([]byte{0x45}, make([]byte, 30)...), append([]byte{0x4f, 9: 17}, make([]byte, 12)...), append([]byte{0x60, 6: 17}, make([]byte, 34)...), append([]byte{0x41, 9: 17}, make([]byte, 40)...)} {
		if _, _, ok := quotedUDP(b); ok {
			t.Errorf("% x is a quote", b)
		}
	}
}
