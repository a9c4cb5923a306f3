package agent

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// tap hears every frame of a guest's device.
type tap struct {
	t  *testing.T
	fd int
}

func (g *guest) tap() *tap {
	g.t.Helper()
	x := &tap{t: g.t}
	g.inside(g.ns, func() error {
		ifc, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
		if x.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		if err := unix.SetsockoptTimeval(x.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 300_000}); err != nil {
			return err
		}
		return unix.Bind(x.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifc.Index})
	})
	g.t.Cleanup(func() { unix.Close(x.fd) })
	return x
}

// heard gives the frames with IPv4 ICMP echo in them, until none comes any more.
func (x *tap) heard() (frames [][]byte) {
	b := make([]byte, 1<<16)
	for began := time.Now(); time.Since(began) < 5*time.Second; {
		n, _, err := unix.Recvfrom(x.fd, b, 0)
		if err != nil {
			return frames
		}
		if n > 34 && binary.BigEndian.Uint16(b[12:]) == 0x0800 && b[23] == 1 {
			frames = append(frames, bytes.Clone(b[:n]))
		}
	}
	return frames
}

// mirror has one port mirrored to others.
func (f *fleet) mirror(port string, mirrors ...goal.Mirror) {
	f.ports[model.Ref{Tenant: "red", Name: port}].port.Settings.Mirrors = mirrors
}

func (f *fleet) watched(port string, by ...netip.Addr) {
	f.ports[model.Ref{Tenant: "red", Name: port}].port.Settings.Watched = by
}

// What a guest sends and gets is copied to a port of another host and to one of the same, byte for byte, in both
// directions, once; the guests see nothing of it, and copies are not copied: each of the two is mirrored to the other.
func TestMirrorsCopyToAnyHost(t *testing.T) {
	w, g1, g2 := pairOfGuests(t)
	h1, h2 := w.hosts["h1"], w.hosts["h2"]
	w.fleet.change(func() {
		w.fleet.addPort("far", 3, "h2")
		w.fleet.addPort("near", 4, "h1")
	})
	far, near := h2.plug("far"), h1.plug("near")
	pa := func(h *hostMachine) netip.Addr { return w.fleet.pas[h.name] }
	revision := w.fleet.change(func() {
		w.fleet.mirror("web-1", goal.Mirror{To: 3, PA: pa(h2), Outbound: true, Inbound: true}, goal.Mirror{To: 4, PA: pa(h1), Outbound: true, Snap: 60,
			Protocol: new(uint8(1)), Prefix: netip.PrefixFrom(g2.address(true), 31).Masked()}, goal.Mirror{To: 4, PA: pa(h1), Outbound: true, Inbound: true, Protocol: new(uint8(6))},
			goal.Mirror{To: 4, PA: pa(h1), Outbound: true, Inbound: true, Port: 53})
		w.fleet.mirror("near", goal.Mirror{To: 3, PA: pa(h2), Outbound: true, Inbound: true})
		w.fleet.mirror("far", goal.Mirror{To: 4, PA: pa(h1), Outbound: true, Inbound: true})
		w.fleet.watched("far", pa(h1))
		w.fleet.watched("near", pa(h2))
	})
	for _, h := range []*hostMachine{h1, h2} {
		w.fleet.programmed(h.name, revision)
		h.verified()
	}
	g1.ping(g2.address(true)) // who knows whom
	first, second, remote, local := g1.tap(), g2.tap(), far.tap(), near.tap()
	w.run(g1.ns, "ping -n -c5 -i0.05 -s1000 "+g2.address(true).String(), "ping -n -c5 -i0.05 -s1430 "+g2.address(true).String())
	sent := first.heard()
	if len(sent) != 20 {
		t.Fatalf("the guest sent and got %d packets, want 20", len(sent))
	}
	if n := len(second.heard()); n != 20 {
		t.Errorf("its peer sent and got %d packets, want 20", n)
	}
	same(t, "another host", remote.heard(), sent, 0)
	same(t, "the same host", local.heard(), slices.DeleteFunc(sent, func(f []byte) bool { return f[34] != 8 }), 60)
	revision = w.fleet.change(func() {
		w.fleet.mirror("web-1", goal.Mirror{To: 3, PA: pa(h2), Inbound: true, Rate: 10})
		w.fleet.watched("far", netip.MustParseAddr("192.0.2.99"))
	})
	for _, h := range []*hostMachine{h1, h2} {
		w.fleet.programmed(h.name, revision)
		h.verified()
	}
	w.run(g1.ns, "ping -n -c50 -i0.002 "+g2.address(true).String())
	if n := len(remote.heard()); n != 0 {
		t.Errorf("%d copies came from a host that policy does not name", n)
	}
	if h2.dropped("MIRROR_NOT_IN_POLICY") == 0 || h1.dropped("MIRROR_LIMITED") == 0 {
		t.Errorf("dropped: %d copies not in policy, %d beyond the rate, want some of both", h2.dropped("MIRROR_NOT_IN_POLICY"), h1.dropped("MIRROR_LIMITED"))
	}
	revision = w.fleet.change(func() {
		for _, name := range []string{"web-1", "near", "far"} {
			w.fleet.mirror(name)
		}
		w.fleet.watched("near")
		w.fleet.watched("far")
	})
	for _, h := range []*hostMachine{h1, h2} {
		w.fleet.programmed(h.name, revision)
		h.verified()
		if links := w.run(h.ns, "ip link show"); bytes.Contains([]byte(links), []byte("weft-mi0")) {
			t.Errorf("the device for copies is left:\n%s", links)
		}
	}
	g1.ping(g2.address(true))
}

// same compares copies with what was copied, as far as snap.
func same(t *testing.T, where string, got, want [][]byte, snap int) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%s: %d copies of %d frames", where, len(got), len(want))
		return
	}
	for i := range want {
		w := want[i]
		if snap != 0 {
			w = w[:min(snap, len(w))]
		}
		if !bytes.Equal(got[i], w) {
			t.Errorf("%s: copy %d of %d bytes is not the frame of %d bytes\n%x\n%x", where, i, len(got[i]), len(w), got[i][:min(80, len(got[i]))], w[:min(80, len(w))])
		}
	}
}
