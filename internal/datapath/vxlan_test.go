package datapath

import (
	"fmt"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
)

// The kernel's GRO looks into VXLAN only while a socket listens for it. A device whose network nobody has
// is enough, and nothing that it receives reaches the host.
func TestASocketMakesGROMergeVXLAN(t *testing.T) {
	for _, by := range carriages[2:] {
		t.Run(by.String(), func(t *testing.T) {
			f := newFabricBy(t, by, Options{Decap: DecapTCX}, &guest{name: "web0"}, &guest{name: "web1"})
			f.wire()
			to, far := f.guests["web1"], f.hosts[1]
			apart := f.received("web0", "web1")
			f.listen(far)
			merged := f.received("web0", "web1")
			t.Logf("%.0f bytes a frame apart, %.0f merged", apart, merged)
			if apart > 2000 || merged < 2000 {
				t.Errorf("port %d received %.0f bytes a frame without a socket, %.0f with one", to.port.ID, apart, merged)
			}
			f.guarded(by, far, f.hosts[0])
			if n := f.dropped(far, model.VerdictOuterMalformed); n != 0 {
				t.Errorf("%d packets were cut wrong", n)
			}
		})
	}
}

// listen has a socket listen for VXLAN on a host, as an agent does.
func (f *fabric) listen(h *host) {
	t := f.t
	t.Helper()
	device := []string{"-n", h.ns, "link", "add", "name", "vx", "type", "vxlan", "id", "16777215", "dstport", "4789", "nolearning"}
	if f.by.v6 {
		device = append(device, "local", "::", "udp6zerocsumrx")
	}
	ip(t, device...)
	idle := uint32(deviceIn(t, h.ns, "vx").Index)
	inside(t, h.ns, func() {
		for range 2 {
			if err := h.sw.DiscardOn([]uint32{idle}); err != nil {
				t.Error(err)
			}
		}
	})
	ip(t, "-n", h.ns, "link", "set", "dev", "vx", "up")
}

// guarded sends the network of the idle device to an address of the host that is no PA: it passes the
// switch and reaches the socket, and must reach nothing else.
func (f *fabric) guarded(by carriage, far, near *host) {
	t := f.t
	t.Helper()
	pas, _, bits := by.pas()
	other := map[bool]string{false: "198.51.100.7", true: "2001:db8:2::7"}[by.v6]
	ip(t, append([]string{"-n", far.ns, "addr", "add", other + bits, "dev", "u0"}, nodad(by)...)...)
	ip(t, "-n", near.ns, "link", "add", "name", "vx", "type", "vxlan", "id", "16777215", "dstport", "4789", "remote", other, "local", pas[0])
	ip(t, "-n", near.ns, "addr", "add", "172.16.0.1/24", "dev", "vx")
	ip(t, "-n", near.ns, "link", "set", "dev", "vx", "up")
	ip(t, "-n", far.ns, "addr", "add", "172.16.0.2/24", "dev", "vx")
	ip(t, "-n", near.ns, "neigh", "add", "172.16.0.2", "lladdr", deviceIn(t, far.ns, "vx").HardwareAddr.String(), "dev", "vx")
	echoes := func() int {
		_, _ = (&guest{ns: near.ns}).run(t, "ping", "-n", "-c", "2", "-i", "0.1", "-W", "1", "172.16.0.2") // nobody can answer
		out, err := (&guest{ns: far.ns}).run(t, "cat", "/proc/net/snmp")
		if err != nil {
			t.Fatal(err)
		}
		return field(t, out, "Icmp:", "InEchos")
	}
	if n := echoes(); n != 0 {
		t.Errorf("the host's own stack received %d packets by way of the idle device", n)
	}
	inside(t, far.ns, func() {
		if err := far.sw.DiscardOn(nil); err != nil {
			t.Error(err)
		}
	})
	if n := echoes(); n == 0 {
		t.Error("without the guard the host received nothing either: this test proves nothing")
	}
}

// received sends some megabytes and gives the bytes of the average frame that came for the receiver.
func (f *fabric) received(from, to string) float64 {
	f.t.Helper()
	count := func() (uint64, uint64) {
		traffic, err := f.guests[to].host.sw.Traffic()
		if err != nil {
			f.t.Fatal(err)
		}
		c := traffic[f.guests[to].port.ID]
		return c.InPackets, c.InBytes
	}
	packets, bytes := count()
	f.send(from, to, f.guests[to].v4, 8<<20)
	p, b := count()
	if p == packets {
		f.t.Fatal(fmt.Errorf("nothing came for %s", to))
	}
	return float64(b-bytes) / float64(p-packets)
}
