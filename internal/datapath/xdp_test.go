package datapath

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/weft-sdn/weft/internal/model"
)

// xdpContext is struct xdp_md: offsets of metadata, data and end, and the device.
type xdpContext struct {
	Data, DataEnd, DataMeta, IngressIfindex, RxQueue, EgressIfindex uint32
}

const xdpPass = 2

// stripAtXDP runs uplink_xdp over a frame: what it leaves, and the metadata in front.
func (w *world) stripAtXDP(frame []byte) (meta, left []byte) {
	w.t.Helper()
	in := xdpContext{DataEnd: uint32(len(frame)), IngressIfindex: uint32(w.u.Index)}
	var out xdpContext
	o := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Context: &in, ContextOut: &out}
	ret, err := w.programs[progXDP].Run(&o)
	if err != nil || ret != xdpPass {
		w.t.Fatalf("uplink_xdp returned %d: %v", ret, err)
	}
	return o.DataOut[:out.Data], o.DataOut[out.Data:]
}

// outerFrame is a frame from the remote host, as from_port of that host would send it.
func (w *world) outerFrame(vsid model.VSID, inner []byte) []byte {
	gre := make([]byte, 8)
	binary.BigEndian.PutUint16(gre, 0x2000)
	binary.BigEndian.PutUint16(gre[2:], 0x6558)
	binary.BigEndian.PutUint32(gre[4:], uint32(vsid)<<8|7)
	return eth(model.MAC(w.u.HardwareAddr), model.MAC{2, 9, 9, 9, 9, 2}, 0x0800,
		ip4(paR.String(), paL.String(), 47, 64, append(gre, inner...)))
}

func TestXDPStripsPerfectNVGREAlone(t *testing.T) {
	w := newWorld(t, Options{Decap: DecapXDP})
	if err := w.AttachUplink(uint32(w.u.Index)); err != nil {
		t.Fatal(err)
	}
	inner := eth(macA, macR, 0x0800, ip4("10.0.0.6", "10.0.0.5", 17, 64, udp(1, 2, 30)))
	good := w.outerFrame(web, inner)
	padded := append(bytes.Clone(good), 0, 0, 0, 0, 0)
	for name, frame := range map[string][]byte{"whole": good, "padded": padded} {
		meta, left := w.stripAtXDP(frame)
		want := make([]byte, 32) // magic, VSID, length of what was stripped, outer TOS, outer source
		binary.NativeEndian.PutUint32(want, 0x77656678)
		binary.NativeEndian.PutUint32(want[4:], uint32(web))
		binary.NativeEndian.PutUint32(want[8:], 42)
		paR16 := paR.As16()
		copy(want[16:], paR16[:])
		if !bytes.Equal(meta, want) || !bytes.Equal(left, inner) {
			t.Errorf("%s: metadata % x, frame % x; want % x and % x", name, meta, left, want, inner)
		}
		w.expect(FromUplink, w.u, frame, model.VerdictDelivered, w.a)
	}
	change := func(at int, b byte) []byte {
		f := bytes.Clone(good)
		f[at] ^= b
		return f
	}
	tagged := w.outerFrame(web, eth(macA, macR, 0x8100, []byte{0, 1, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}))
	for name, frame := range map[string][]byte{
		"for another MAC":          change(5, 1),
		"for another address":      change(33, 1),
		"not GRE":                  change(23, 1),
		"a broken checksum":        change(24, 1),
		"a fragment":               change(20, 0x20),
		"GRE with a checksum":      change(34, 0x80),
		"another GRE version":      change(35, 1),
		"a reserved VSID":          w.outerFrame(7, inner),
		"a tag inside":             tagged,
		"longer than the frame":    good[:len(good)-1],
		"cut in the inner headers": good[:50],
	} {
		if meta, left := w.stripAtXDP(frame); len(meta) != 0 || !bytes.Equal(left, frame) {
			t.Errorf("%s: the frame was touched: % x | % x", name, meta, left)
		}
	}
}

// outerBy is a frame from a remote host by any carriage.
func (w *world) outerBy(by carriage, vsid model.VSID, inner []byte) []byte {
	pas, _, _ := by.pas()
	from, to := pas[1], pas[0]
	proto, tunnel := byte(47), []byte{0x20, 0, 0x65, 0x58, byte(vsid >> 16), byte(vsid >> 8), byte(vsid), 7}
	if by.transport == model.VXLAN {
		proto, tunnel = 17, binary.BigEndian.AppendUint16([]byte{0xc0, 1, 4789 >> 8, 4789 & 0xff}, uint16(16+len(inner)))
		tunnel = append(tunnel, 0, 0, 8, 0, 0, 0, byte(vsid>>16), byte(vsid>>8), byte(vsid), 0)
	}
	mac, payload := model.MAC(w.u.HardwareAddr), append(tunnel, inner...)
	if !by.v6 {
		return eth(mac, model.MAC{2, 9, 9, 9, 9, 2}, 0x0800, ip4(from, to, proto, 64, payload))
	}
	header := []byte{0x60, 0, 0, 0, byte(len(payload) >> 8), byte(len(payload)), proto, 64}
	a, b := addr(from).As16(), addr(to).As16()
	return eth(mac, model.MAC{2, 9, 9, 9, 9, 2}, 0x86dd, append(append(append(header, a[:]...), b[:]...), payload...))
}

func TestXDPStripsEveryTransport(t *testing.T) {
	w := newWorld(t, Options{Decap: DecapXDP})
	set := w.policy()
	for _, by := range carriages {
		pas, _, _ := by.pas()
		set.LocalPAs[addr(pas[0])] = struct{}{}
	}
	w.apply(set, true)
	if err := w.AttachUplink(uint32(w.u.Index)); err != nil {
		t.Fatal(err)
	}
	inner := eth(macA, macR, 0x0800, ip4("10.0.0.6", "10.0.0.5", 17, 64, udp(1, 2, 30)))
	for _, by := range carriages { // no subtests: the thread is in the world's namespace
		pas, _, _ := by.pas()
		good := w.outerBy(by, web, inner)
		outer := len(good) - len(inner)
		want := make([]byte, 32) // magic, VSID, length of what was stripped, outer TOS, outer source
		binary.NativeEndian.PutUint32(want, 0x77656678)
		binary.NativeEndian.PutUint32(want[4:], uint32(web))
		binary.NativeEndian.PutUint32(want[8:], uint32(outer))
		from := addr(pas[1]).As16()
		copy(want[16:], from[:])
		for name, frame := range map[string][]byte{"whole": good, "padded": append(bytes.Clone(good), 0, 0, 0)} {
			if meta, left := w.stripAtXDP(frame); !bytes.Equal(meta, want) || !bytes.Equal(left, inner) {
				t.Errorf("%s, %s: metadata % x, frame % x; want % x and % x", by, name, meta, left, want, inner)
			}
		}
		change := func(at int, b byte) []byte {
			f := bytes.Clone(good)
			f[at] ^= b
			return f
		}
		protocol, lastOfDst := 23, 33
		if by.v6 {
			protocol, lastOfDst = 20, 53
		}
		bad := map[string][]byte{
			"for another MAC":          change(5, 1),
			"for another address":      change(lastOfDst, 1),
			"another protocol":         change(protocol, 1),
			"another version":          change(14, 0x20),
			"a reserved VSID":          w.outerBy(by, 7, inner),
			"a tag inside":             w.outerBy(by, web, eth(macA, macR, 0x8100, make([]byte, 40))),
			"longer than the frame":    good[:len(good)-1],
			"cut in the inner headers": good[:outer+8],
		}
		if by.transport == model.VXLAN {
			bad["another port"] = change(outer-13, 1)
			bad["UDP of another length"] = change(outer-11, 1)
			bad["a checksum, which from_uplink judges"] = change(outer-9, 1)
			bad["without a network"] = change(outer-8, 8)
		}
		for name, frame := range bad {
			if meta, left := w.stripAtXDP(frame); len(meta) != 0 || !bytes.Equal(left, frame) {
				t.Errorf("%s, %s: the frame was touched: % x | % x", by, name, meta, left)
			}
		}
	}
}
