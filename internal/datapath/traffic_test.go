package datapath

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// web guests at even places are on host 1, at odd ones on host 2.
func vethFabric(t *testing.T, by carriage, o Options) *fabric {
	return newFabricBy(t, by, o, &guest{name: "web0"}, &guest{name: "web1"}, &guest{name: "db2"}, &guest{name: "db3"}, &guest{name: "web4"})
}

// talk lets guests reach each other in every way there is.
func (f *fabric) talk(from, to string) {
	f.t.Helper()
	g := f.guests[to]
	f.ping(from, g.v4)
	f.ping(from, g.v6)
	f.ping(from, g.v4, "-s", "1400")
	f.send(from, to, g.v4, 4<<20)
	f.send(from, to, g.v6, 4<<20)
}

func TestGuestsTalk(t *testing.T) { onEach(t, guestsTalk) }

func guestsTalk(t *testing.T, by carriage) {
	f := vethFabric(t, by, Options{})
	f.talk("web0", "web1") // same subnet, other host
	f.talk("web0", "db3")  // other subnet, other host
	f.talk("web0", "web4") // same subnet, same host
	f.talk("web0", "db2")  // other subnet, same host
	f.talk("db3", "web4")
	f.ping("web0", addr("10.0.0.1"))
	f.ping("web0", addr("fd00:a::1"))
	f.ping("web0", addr("10.0.1.1")) // the router is one, whatever its name
	f.ping("db3", addr("fd00:a::1"))
	for _, h := range f.hosts {
		for _, v := range []model.Verdict{model.VerdictSpoofedCa, model.VerdictSourceNotInPolicy, model.VerdictEncapFailed, model.VerdictDecapFailed, model.VerdictTooBig} {
			if n := f.dropped(h, v); n != 0 {
				t.Errorf("%s: %d packets dropped as %s", h.ns, n, v)
			}
		}
	}
	t.Log("\n" + f.drops())
}

// A packet travels by the transport of the subnet that it goes to, and its answer by that of the other.
func TestSubnetsOfDifferentTransportsRouteToEachOther(t *testing.T) {
	for _, by := range []carriage{{transport: model.NVGRE, mixed: true}, {transport: model.VXLAN, v6: true, mixed: true}} {
		t.Run(by.String(), func(t *testing.T) {
			t.Run("whole", func(t *testing.T) { guestsTalk(t, by) })
			t.Run("wire", func(t *testing.T) { guestsTalkOverWire(t, by) })
		})
	}
}

// What the kernel cuts to the MTU must be whole packets, and what it merges on the
// other side must be what was cut.
func TestGuestsTalkOverWire(t *testing.T) { onEach(t, guestsTalkOverWire) }

func guestsTalkOverWire(t *testing.T, by carriage) {
	f := newFabricBy(t, by, Options{}, &guest{name: "web0"}, &guest{name: "web1", tap: true}, &guest{name: "db2", tap: true}, &guest{name: "db3"})
	f.wire()
	f.talk("web0", "web1")
	f.talk("web1", "db2")
	f.talk("db2", "db3")
	f.talk("db3", "web0")
	for _, h := range f.hosts {
		if n := f.dropped(h, model.VerdictOuterMalformed); n != 0 {
			t.Errorf("%s: %d packets were cut wrong", h.ns, n)
		}
	}
}

func TestGuestHearsThatTTLRanOut(t *testing.T) {
	f := vethFabric(t, carriage{}, Options{})
	for to, from := range map[string]string{"10.0.1.13": "From 10.0.0.1", "fd00:b::13": "From fd00:a::1"} {
		out, err := f.guests["web0"].run(t, "ping", "-n", "-c", "1", "-W", "2", "-t", "1", to)
		if err == nil || !strings.Contains(out, from) {
			t.Errorf("ping with TTL 1 to %s: want an answer %q, have: %s%s", to, from, out, f.drops())
		}
	}
}

// A guest with a standard MTU sends what the path cannot carry, as TCP with its checksum
// left to the device: the error about it must be one that the guest believes.
func TestTCPRecoversFromTooLargeMTU(t *testing.T) {
	for name, like := range map[string]guest{"veth": {}, "tap": {tap: true}, "tap that takes no offloads": {tap: true, plain: true}} {
		t.Run(name, func(t *testing.T) {
			f := newFabric(t, Options{}, &guest{name: "web0", mtu: 1500, tap: like.tap, plain: like.plain}, &guest{name: "web1", mtu: 1500, tap: like.tap}, &guest{name: "db2", mtu: 1500}, &guest{name: "db3", mtu: 1500})
			for _, to := range []string{"web1", "db3"} {
				f.send("web0", to, f.guests[to].v4, 2<<20)
				f.send("web0", to, f.guests[to].v6, 2<<20)
			}
			if f.dropped(f.hosts[0], model.VerdictTooBig) == 0 {
				t.Error("nothing was too big: the test proves nothing")
			}
			out, err := f.guests["web0"].run(t, "ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1472", f.guests["web1"].v4.String())
			if err == nil || !strings.Contains(out, "1458") && !strings.Contains(out, "too long") {
				t.Errorf("ping of 1500 bytes: want the path's MTU told, have: %s", out)
			}
			counters, err := f.guests["web0"].run(t, "cat", "/proc/net/snmp", "/proc/net/snmp6")
			if err != nil {
				t.Error(err)
			}
			if n := field(t, counters, "Icmp:", "InDestUnreachs"); n == 0 {
				t.Error("the guest heard no ICMP error")
			}
			if n := field(t, counters, "Icmp:", "InCsumErrors"); n != 0 {
				t.Errorf("the guest refused %d ICMP messages for their checksum", n)
			}
			if !strings.Contains(strings.Join(strings.Fields(counters), " "), "Icmp6InCsumErrors 0 ") {
				t.Error("the guest refused ICMPv6 messages for their checksum")
			}
		})
	}
}

func TestTapGuestsTalk(t *testing.T) { onEach(t, tapGuestsTalk) }

func tapGuestsTalk(t *testing.T, by carriage) {
	f := newFabricBy(t, by, Options{}, &guest{name: "web0", tap: true}, &guest{name: "web1", tap: true}, &guest{name: "db2", tap: true}, &guest{name: "db3"})
	f.talk("web0", "web1")
	f.talk("web0", "db2")
	f.talk("web0", "db3")
	f.talk("db3", "web0")
}

// field reads one counter of /proc/net/snmp: a line of names, a line of values.
func field(t *testing.T, snmp, group, name string) int {
	t.Helper()
	var names []string
	for line := range strings.Lines(snmp) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] != group {
			continue
		}
		if names == nil {
			names = f
			continue
		}
		for i := range f {
			if names[i] == name {
				n, _ := strconv.Atoi(f[i])
				return n
			}
		}
	}
	t.Fatalf("no counter %s %s", group, name)
	return 0
}

// Two tenants, alike to the last byte, use the same addresses and ports at the same
// time; GRO may merge neither's packets with the other's.
func TestTenantsAreBlindToEachOther(t *testing.T) { onEach(t, tenantsAreBlind) }

func tenantsAreBlind(t *testing.T, by carriage) {
	for _, decap := range waysToStrip(by) {
		t.Run(decap, func(t *testing.T) {
			f := newFabricBy(t, by, Options{Decap: decap},
				&guest{name: "web-red0"}, &guest{name: "web-red1", tap: true},
				&guest{name: "web-blue0", blue: true, as: 1}, &guest{name: "web-blue1", blue: true, as: 2, tap: true},
				&guest{name: "web-red4"})
			f.detour()
			for _, h := range f.hosts {
				if by.transport == model.VXLAN && decap != DecapVXLAN {
					f.listen(h)
				}
			}
			f.wire() // so that there is something to merge
			var wg sync.WaitGroup
			for _, tenant := range []string{"red", "blue"} {
				wg.Go(func() {
					to := "web-" + tenant + "1"
					f.sendPorts("web-"+tenant+"0", to, netip.AddrPortFrom(f.guests[to].v4, 5001), 5000, 8<<20)
					f.sendPorts("web-"+tenant+"0", to, netip.AddrPortFrom(f.guests[to].v6, 6001), 6000, 8<<20)
				})
			}
			wg.Wait()
			f.ping("web-red0", f.guests["web-red4"].v4)
			if out, err := f.guests["web-blue0"].run(t, "ping", "-n", "-c", "1", "-W", "0.3", f.guests["web-red4"].v4.String()); err == nil {
				t.Errorf("blue reaches an address that only red has: %s", out)
			}
		})
	}
}

// A guest may leave a checksum to the device, which writes it after all our checks:
// into the L4 header, and nowhere else.
func TestGuestCannotForgeByOffload(t *testing.T) {
	f := newFabric(t, Options{}, &guest{name: "web0"}, &guest{name: "web1"})
	h := f.hosts[0]
	fd := openTap(t, h.ns, "evil", true)
	t.Cleanup(func() { unix.Close(fd) })
	ip(t, "-n", h.ns, "link", "set", "dev", "evil", "up")
	set := f.rows(h)
	evil := f.guests["web0"].port
	evil.IfIndex, evil.ID, evil.Peer, evil.MAC = uint32(deviceIn(t, h.ns, "evil").Index), 66, false, model.MAC{2, 0, 0, 0, 0, 66}
	set.Ports[evil.IfIndex] = evil
	set.Records[table.RecordKey{VSID: web, CA: addr("10.0.0.66")}] = table.Record{MAC: evil.MAC, IfIndex: evil.IfIndex, Port: 66}
	if err := h.sw.Apply(set, true); err != nil {
		t.Fatal(err)
	}
	inside(t, h.ns, func() {
		if err := h.sw.AttachPort(evil.IfIndex); err != nil {
			t.Error(err)
		}
	})
	write := func(start, offset uint16) {
		t.Helper()
		frame := eth(f.guests["web1"].port.MAC, evil.MAC, 0x0800, ip4("10.0.0.66", f.guests["web1"].v4.String(), 17, 64, udp(1, 2, 64)))
		vnet := make([]byte, 10)
		vnet[0] = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM
		binary.NativeEndian.PutUint16(vnet[6:], start)
		binary.NativeEndian.PutUint16(vnet[8:], offset)
		if _, err := unix.Write(fd, append(vnet, frame...)); err != nil {
			t.Fatal(err)
		}
	}
	sent := func() uint64 {
		traffic, err := h.sw.Traffic()
		if err != nil {
			t.Fatal(err)
		}
		return traffic[66].OutPackets
	}
	write(26, 0) // the source address
	if n := f.dropped(h, model.VerdictIpMalformed); n != 1 || sent() != 0 {
		t.Errorf("a checksum over the source address: %d dropped, %d sent, want 1 and 0\n%s", n, sent(), f.drops())
	}
	write(34, 6) // the UDP checksum
	if n := f.dropped(h, model.VerdictIpMalformed); n != 1 || sent() != 1 {
		t.Errorf("an honest checksum: %d dropped, %d sent, want 1 and 1\n%s", n, sent(), f.drops())
	}
}
