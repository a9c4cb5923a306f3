// Package vm boots a real virtual machine (QEMU in emulation, a distribution's
// kernel, a real virtio NIC) on a tap port of the switch.
package vm

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/test/twohosts"
	"github.com/weft-sdn/weft/test/vm/console"
	"github.com/weft-sdn/weft/test/vm/exchange"
)

// each is what one exchange moves, each way: some dozens of super-packets.
const each = 2 << 20

var (
	web = twohosts.Subnet{VSID: 5001, Network: 1, Prefixes: prefixes("10.0.0.0/24", "fd00:a::/64")}
	db  = twohosts.Subnet{VSID: 5002, Network: 1, Prefixes: prefixes("10.0.1.0/24", "fd00:b::/64")}

	// The machine is web-1; the others are namespaces.
	web1 = &twohosts.Guest{Name: "web-1", Host: 0, Subnet: web, MAC: model.MAC{2, 0, 0, 0, 0, 1}, CAs: addresses("10.0.0.5", "fd00:a::5"), Tap: true}
	web2 = &twohosts.Guest{Name: "web-2", Host: 1, Subnet: web, MAC: model.MAC{2, 0, 0, 0, 0, 2}, CAs: addresses("10.0.0.6", "fd00:a::6")}
	web3 = &twohosts.Guest{Name: "web-3", Host: 0, Subnet: web, MAC: model.MAC{2, 0, 0, 0, 0, 3}, CAs: addresses("10.0.0.7", "fd00:a::7")}
	db1  = &twohosts.Guest{Name: "db-1", Host: 1, Subnet: db, MAC: model.MAC{2, 0, 0, 0, 0, 4}, CAs: addresses("10.0.1.5", "fd00:b::5")}
)

// others are the guests that the machine talks with, and where they are seen from it.
var others = []struct {
	where string
	*twohosts.Guest
}{
	{"across hosts, same subnet", web2},
	{"same host, same subnet", web3},
	{"across hosts and subnets", db1},
}

func prefixes(ss ...string) (ps []netip.Prefix) {
	for _, s := range ss {
		ps = append(ps, netip.MustParsePrefix(s))
	}
	return ps
}

func addresses(ss ...string) (as []netip.Addr) {
	for _, s := range ss {
		as = append(as, netip.MustParseAddr(s))
	}
	return as
}

// underlays are states of the underlay device in which both hosts must reach each
// other: ethtool's words.
var (
	whole = underlay{"super-packets on the underlay", "tso on gso on tx on gro on"}
	cut   = underlay{"wire-size frames on the underlay", "tso off gso off tx off gro on"}
)

type underlay struct{ name, knobs string }

// A machine moves TCP and UDP both ways with guests of its network, however the
// outer headers are stripped. XDP on a veth loses pending checksums, so there the
// underlay computes them, as a wire's sender does.
func TestRealGuest(t *testing.T) {
	t.Run("stripped at tcx", func(t *testing.T) { realGuest(t, datapath.DecapTCX, cut) })
	t.Run("stripped by End.DX2", func(t *testing.T) { realGuest(t, datapath.DecapDX2, whole, cut) })
	t.Run("stripped at xdp", func(t *testing.T) { realGuest(t, datapath.DecapXDP, cut) })
}

func realGuest(t *testing.T, decap string, underlays ...underlay) {
	w := twohosts.New(t, "wv-", decap, []*twohosts.Guest{web1, web2, web3, db1})
	m := start(t, w.Hosts[0].NS, twohosts.Device(web1), web1.MAC, twohosts.GuestMTU)
	if err := configure(m); err != nil {
		t.Fatal(err)
	}
	for _, o := range others {
		serve(t, w, o.Guest)
	}
	t.Run("offloads are on", func(t *testing.T) { offloads(t, m) })
	t.Run("gateway answers ping", func(t *testing.T) {
		for i := range web.Prefixes {
			if _, err := m.do(console.Command{Do: "ping", To: web.Gateway(i)}); err != nil {
				t.Error(err)
			}
		}
	})
	for _, u := range underlays {
		t.Run(u.name, func(t *testing.T) {
			for _, h := range w.Hosts {
				setOffloads(t, h.NS, u.knobs)
			}
			for _, o := range others {
				t.Run(o.where, func(t *testing.T) { talk(t, w, m, o.Guest) })
			}
		})
	}
	t.Run("nothing was lost on the way", func(t *testing.T) { aftermath(t, w, m, decap) })
}

// A machine whose NIC says 1500 learns from the switch that the path carries less:
// its stack believes fragmentation-needed and packet-too-big, although the checksum
// of the packet that they quote was still pending.
func TestRealGuestLearnsThePathMTU(t *testing.T) {
	const mtu = 1500
	w := twohosts.New(t, "wv-", datapath.DecapAuto, []*twohosts.Guest{web1, web2, web3})
	m := start(t, w.Hosts[0].NS, twohosts.Device(web1), web1.MAC, mtu)
	if err := configure(m); err != nil {
		t.Fatal(err)
	}
	for _, g := range []*twohosts.Guest{web2, web3} {
		serve(t, w, g)
		for _, ca := range g.CAs {
			// The first datagram fills the NIC's MTU, is refused, and comes again in fragments.
			fill := int64(mtu - 20 - 8)
			if ca.Is6() {
				fill = mtu - 40 - 8
			}
			before := tooBig(t, w)
			if _, err := m.do(console.Command{Do: "datagrams", To: ca, Bytes: fill, Count: 5}); err != nil {
				t.Errorf("%v\n%s", err, drops(w))
			}
			if refused := tooBig(t, w) - before; refused != 1 {
				t.Errorf("%s: %d datagrams were too big; one should have been enough to learn from", ca, refused)
			}
		}
	}
	text, err := m.do(console.Command{Do: "counters"})
	if err != nil || !strings.Contains(text, "mtu=1500") || !strings.Contains(text, "checksum_errors=0") {
		t.Errorf("the machine counts %q, %v", text, err)
	}
}

// tooBig is how many packets of the machine its host refused as TOO_BIG.
func tooBig(t *testing.T, w *twohosts.World) (packets uint64) {
	t.Helper()
	counts, err := w.Hosts[0].Switch.Drops()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range counts {
		if d.Reason == model.VerdictTooBig && d.Port == web1.ID {
			packets += d.Packets
		}
	}
	return packets
}

func configure(m *machine) error {
	c := console.Command{Do: "configure"}
	for i, p := range web.Prefixes {
		c.Addresses = append(c.Addresses, netip.PrefixFrom(web1.CAs[i], p.Bits()))
		c.Gateways = append(c.Gateways, web.Gateway(i))
	}
	_, err := m.do(c)
	return err
}

// offloads reads the features that the machine's driver and QEMU agreed on
// (virtio 1.2, section 5.1.3): without them the rest would prove little.
func offloads(t *testing.T, m *machine) {
	bits, err := m.do(console.Command{Do: "features"})
	if err != nil {
		t.Fatal(err)
	}
	for bit, name := range map[int]string{0: "CSUM", 1: "GUEST_CSUM", 7: "GUEST_TSO4", 8: "GUEST_TSO6", 11: "HOST_TSO4", 12: "HOST_TSO6"} {
		if bit >= len(bits) || bits[bit] != '1' {
			t.Errorf("%s was not negotiated: %s", name, bits)
		}
	}
}

// setOffloads sets the features of the underlay device.
func setOffloads(t *testing.T, ns, knobs string) {
	t.Helper()
	args := append([]string{"--net=/run/netns/" + ns, "ethtool", "-K", twohosts.Underlay}, strings.Fields(knobs)...)
	if out, err := exec.Command("nsenter", args...).CombinedOutput(); err != nil {
		t.Fatalf("ethtool -K %s: %v: %s", knobs, err, out)
	}
}

// serve answers exchanges and echoes on every address of a guest.
func serve(t *testing.T, w *twohosts.World, g *twohosts.Guest) {
	t.Helper()
	for _, ca := range g.CAs {
		at := netip.AddrPortFrom(ca, console.Port).String()
		w.In(w.GuestNS(g), func() error {
			l, err := net.Listen("tcp", at)
			if err != nil {
				return err
			}
			u, err := net.ListenPacket("udp", at)
			if err != nil {
				return err
			}
			t.Cleanup(func() { l.Close(); u.Close() })
			go func() { _ = exchange.Serve(l) }()
			go func() { _ = exchange.Echo(u) }()
			return nil
		})
	}
}

// talk lets the machine and a guest talk, each asking once, in both families.
func talk(t *testing.T, w *twohosts.World, m *machine, g *twohosts.Guest) {
	for i, ca := range g.CAs {
		family := map[bool]string{true: "v4", false: "v6"}[ca.Is4()]
		own := netip.AddrPortFrom(web1.CAs[i], console.Port)
		steps := []struct {
			name string
			run  func() error
		}{
			{"ping", func() error { _, err := m.do(console.Command{Do: "ping", To: ca}); return err }},
			{"machine asks by TCP", func() error { _, err := m.do(console.Command{Do: "exchange", To: ca, Bytes: each}); return err }},
			{"machine asks by UDP", func() error {
				_, err := m.do(console.Command{Do: "datagrams", To: ca, Bytes: 1400, Count: 20})
				return err
			}},
			{"guest asks by TCP", func() error {
				return twohosts.In(w.GuestNS(g), func() error { return exchange.Dial(netip.Addr{}, own, each) })
			}},
			{"guest asks by UDP", func() error {
				return twohosts.In(w.GuestNS(g), func() error { return exchange.Datagrams(own, 20, 1400, 3) })
			}},
		}
		for _, s := range steps {
			t.Run(family+" "+s.name, func(t *testing.T) {
				if err := s.run(); err != nil {
					t.Errorf("%v\n%s", err, drops(w))
				}
			})
		}
	}
}

// aftermath checks what both ends counted: no bad checksum, super-packets whole
// at the switch, and no drop but of what guests say on their own.
func aftermath(t *testing.T, w *twohosts.World, m *machine, decap string) {
	text, err := m.do(console.Command{Do: "counters"})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("machine: %s; uplink: %v", text, w.Hosts[0].Switch.Strategies())
	for _, want := range []string{"checksum_errors=0", "mtu=" + strconv.Itoa(twohosts.GuestMTU)} {
		if !strings.Contains(" "+text+" ", " "+want+" ") {
			t.Errorf("the machine counts %q, want %s", text, want)
		}
	}
	if mean := meanSize(t, text); decap != datapath.DecapTCX && mean < 2*twohosts.GuestMTU {
		t.Errorf("the machine received frames of %d bytes on average: super-packets were cut on the way to the tap", mean)
	}
	traffic, err := w.Hosts[0].Switch.Traffic()
	if err != nil {
		t.Fatal(err)
	}
	c := traffic[web1.ID]
	t.Logf("switch: %+v", c)
	if c.OutPackets == 0 || c.OutBytes/c.OutPackets < 2*twohosts.GuestMTU {
		t.Errorf("the machine's packets are %d bytes in %d: no super-packets reached the switch", c.OutBytes, c.OutPackets)
	}
	for _, h := range w.Hosts {
		counts, err := h.Switch.Drops()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range counts {
			if !spontaneous(d) {
				t.Errorf("%s dropped %d packets: %s, port %d %s", h.NS, d.Packets, d.Reason, d.Port, d.Direction)
			}
		}
	}
}

// meanSize of the frames that the machine received, in bytes.
func meanSize(t *testing.T, counters string) int {
	t.Helper()
	var packets, bytes int
	if _, err := fmt.Sscanf(counters, "rx_packets=%d rx_bytes=%d", &packets, &bytes); err != nil || packets == 0 {
		t.Fatalf("counters %q: %v", counters, err)
	}
	return bytes / packets
}

// spontaneous are drops of what an untouched guest says: MLD reports, router
// solicitations, and the question whether its addresses are taken.
func spontaneous(d datapath.DropCount) bool {
	return d.Reason.Info().Class == "quiet"
}

// drops lists what was dropped, for the message of a failure.
func drops(w *twohosts.World) string {
	var b strings.Builder
	for _, h := range w.Hosts {
		counts, err := h.Switch.Drops()
		if err != nil {
			return err.Error()
		}
		for _, d := range counts {
			fmt.Fprintf(&b, "%s: %d × %s, port %d %s\n", h.NS, d.Packets, d.Reason, d.Port, d.Direction)
		}
	}
	return b.String()
}
