package packet

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/wire"
)

// offload is struct virtio_net_hdr: what a guest leaves its device to do.
type offload struct {
	Flags, GSOType                          uint8
	HeaderLen, GSOSize, CsumStart, CsumWant uint16 // CsumWant: offset of the checksum from CsumStart
}

const (
	needsChecksum = 1 // offload.Flags
	gsoTCP4       = 1 // offload.GSOType
	gsoTCP6       = 4
)

// segment is a frame with TCP from src to dst whose checksum the device is to finish, and
// the same frame with its checksum as it will be.
func segment(dstMAC, srcMAC model.MAC, src, dst netip.Addr, n int) (partial, whole []byte) {
	tcp := zeros(20 + n)
	tcp[12] = 5 << 4
	for i := range n {
		tcp[20+i] = byte(i)
	}
	pseudo := wire.PseudoHeader(src, dst, wire.ProtoTCP, len(tcp))
	packet := func(checksum uint16) []byte {
		binary.BigEndian.PutUint16(tcp[16:], checksum)
		return ipFrame(dstMAC, srcMAC, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoTCP, Source: src, Destination: dst}, nil, tcp))
	}
	whole = packet(wire.Checksum(tcp, pseudo))
	return packet(^wire.Checksum(nil, pseudo)), whole
}

// offloads turns the packet sockets at the other end of a device to frames with an offload header.
func (w *wires) offloads(t *testing.T, ifindex uint32) {
	t.Helper()
	w.header = binary.Size(offload{})
	if err := unix.SetsockoptInt(w.far[ifindex], unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
		t.Fatal(err)
	}
}

func (w *wires) sendOffloaded(t *testing.T, ifindex uint32, o offload, f []byte) {
	t.Helper()
	b, err := binary.Append(nil, binary.LittleEndian, o)
	must(err)
	if _, err := unix.Write(w.far[ifindex], append(b, f...)); err != nil {
		t.Fatal(err)
	}
}

// receiveOffloaded reads a frame and does what its sender left to be done.
func (w *wires) receiveOffloaded(t *testing.T, ifindex uint32) (offload, []byte) {
	t.Helper()
	b := w.receive(t, ifindex, patience)
	if b == nil {
		t.Fatal("nothing arrived")
	}
	var o offload
	n, err := binary.Decode(b, binary.LittleEndian, &o)
	must(err)
	f := b[n:]
	if o.Flags&needsChecksum != 0 {
		rest := f[o.CsumStart:]
		binary.BigEndian.PutUint16(rest[o.CsumWant:], wire.Checksum(rest, 0))
	}
	return o, f
}

// TestChecksumsLeftToTheDevice follows a packet whose checksum the guest has not finished down every way through
// the switch, also out of devices that finish none themselves.
func TestChecksumsLeftToTheDevice(t *testing.T) {
	for _, tx := range []string{"on", "off"} {
		t.Run("tx "+tx, func(t *testing.T) {
			w := newWires(t, datapath.DecapTCX)
			set := street(w.site)
			apply(t, w.sw, set)
			for _, ifindex := range w.order {
				w.offloads(t, ifindex)
				w.txChecksum(t, ifindex, tx)
			}
			left := offload{Flags: needsChecksum, CsumStart: 34, CsumWant: 16}
			sw := sim.Switch{Set: set, Devices: w.macs}
			cases := []struct {
				name    string
				dst     guest
				n       int
				verdict model.Verdict
			}{
				{"delivered here", db, 500, model.VerdictDelivered},
				{"delivered to another subnet", api, 500, model.VerdictDelivered},
				{"encapsulated", mail, 500, model.VerdictEncapsulated},
				{"encapsulated to another subnet", log, 500, model.VerdictEncapsulated},
				{"too big", mail, 1430, model.VerdictTooBig},
			}
			for _, c := range cases {
				t.Run(c.name, func(t *testing.T) {
					partial, whole := segment(router1, web.mac, web.v4, c.dst.v4, c.n)
					want := sw.FromPort(w.ports[devWeb], whole)
					if c.verdict == model.VerdictTooBig { // quotes what the guest sent
						want = sw.FromPort(w.ports[devWeb], partial)
					}
					if want.Verdict != c.verdict {
						t.Fatalf("the oracle says %s", want.Verdict)
					}
					w.sendOffloaded(t, w.ports[devWeb], left, partial)
					_, got := w.receiveOffloaded(t, want.IfIndex)
					w.same(t, got, want)
				})
			}
			t.Run("from the underlay", func(t *testing.T) {
				partial, whole := segment(web.mac, mail.mac, mail.v4, web.v4, 500)
				outer := func(inner []byte) []byte {
					return nvgre(w.macs[w.uplinks[0]], uplinkNextHop, paFar, paHere, red1, 9, 0, inner)
				}
				left := offload{Flags: needsChecksum, CsumStart: 42 + 34, CsumWant: 16}
				w.sendOffloaded(t, w.uplinks[0], left, outer(partial))
				want := sw.FromUplink(w.uplinks[0], outer(whole))
				_, got := w.receiveOffloaded(t, want.IfIndex)
				w.same(t, got, want)
			})
		})
	}
}

// TestAChecksumInTheWrongPlace lets a guest ask its device to write a checksum over what the switch has checked by then.
func TestAChecksumInTheWrongPlace(t *testing.T) {
	w := newWires(t, datapath.DecapTCX)
	apply(t, w.sw, street(w.site))
	web6 := ipFrame(router1, web.mac, v6(wire.IPv6{HopLimit: 64, Next: wire.ProtoDestOpts, Source: web.v6, Destination: db.v6},
		join([]byte{wire.ProtoUDP, 0, 1, 4, 0, 0, 0, 0}, udp(1, 2, 100))))
	web4, _ := segment(router1, web.mac, web.v4, db.v4, 100)
	probe := frame(db.mac, web.mac, wire.TypeARP, arp(wire.ARPRequest, web.mac, web.v4, db.mac, db.v4))
	advert := ipFrame(mail.mac, web.mac, neighbour(web.v6, mail.v6,
		wire.Neighbour{Type: wire.ICMPv6NeighbourAdv, Override: true, Target: web.v6, MAC: web.mac, HasMAC: true}))
	harmless := with(advert, 54, 200) // an ICMPv6 type that nobody looks into
	cases := []struct {
		name        string
		frame       []byte
		start, want uint16
		verdict     model.Verdict
	}{
		{"over the IPv4 source", web4, 20, 6, model.VerdictIpMalformed},
		{"over the last bytes of the IPv4 header", web4, 32, 0, model.VerdictIpMalformed},
		{"over the IPv6 source", web6, 20, 2, model.VerdictIpMalformed},
		{"over an IPv6 extension header", web6, 54, 2, model.VerdictIpMalformed},
		{"over ARP's sender", probe, 20, 8, model.VerdictArpMalformed},
		{"over the target of an advertisement", advert, 54, 22, model.VerdictNdMalformed},
		{"over the MAC in an advertisement", advert, 54, 30, model.VerdictNdMalformed},
		{"over the type of an ICMPv6 message", harmless, 54, 0, model.VerdictIpMalformed},
		{"over the ports", web4, 34, 2, model.VerdictIpMalformed},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w.offloads(t, w.ports[devWeb])
			want := count(t, w.sw)
			want.add(packetIn{frame: c.frame}, sim.Result{Verdict: c.verdict, Port: web.id})
			w.sendOffloaded(t, w.ports[devWeb], offload{Flags: needsChecksum, CsumStart: c.start, CsumWant: c.want}, c.frame)
			for _, d := range w.settle(t, want) {
				t.Error(d)
			}
		})
	}
}

// TestSuperPackets follows packets that the guest leaves to be cut into segments.
func TestSuperPackets(t *testing.T) {
	w := newWires(t, datapath.DecapTCX)
	set := street(w.site)
	apply(t, w.sw, set)
	for _, ifindex := range w.order {
		w.offloads(t, ifindex)
	}
	sw := sim.Switch{Set: set, Devices: w.macs}
	cases := []struct {
		name    string
		dst     guest
		gsoSize uint16
		verdict model.Verdict
	}{
		{"delivered here", db, 1418, model.VerdictDelivered},
		{"encapsulated", mail, 1418, model.VerdictEncapsulated},
		{"encapsulated to another subnet", log, 1418, model.VerdictEncapsulated},
		{"too coarse for a neighbour here", db, 1419, model.VerdictTooBig},
		{"too coarse for the underlay", mail, 1419, model.VerdictTooBig},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			partial, whole := segment(router1, web.mac, web.v4, c.dst.v4, 9000)
			if c.verdict == model.VerdictTooBig {
				whole = partial
			}
			want := sw.FromPortGSO(w.ports[devWeb], whole, c.gsoSize)
			if want.Verdict != c.verdict {
				t.Fatalf("the oracle says %s", want.Verdict)
			}
			left := offload{Flags: needsChecksum, GSOType: gsoTCP4, HeaderLen: 54, GSOSize: c.gsoSize, CsumStart: 34, CsumWant: 16}
			w.sendOffloaded(t, w.ports[devWeb], left, partial)
			still, got := w.receiveOffloaded(t, want.IfIndex)
			w.same(t, got, want)
			if c.verdict != model.VerdictTooBig && (still.GSOType != gsoTCP4 || still.GSOSize != c.gsoSize) {
				t.Errorf("arrived with %+v: it was cut on the way", still)
			}
			if c.verdict == model.VerdictTooBig && still.GSOType != 0 {
				t.Errorf("the ICMP error is to be cut: %+v", still)
			}
		})
	}
}

// same compares a frame that arrived with what the oracle says.
func (w *wires) same(t *testing.T, got []byte, want sim.Result) {
	t.Helper()
	if want.Verdict == model.VerdictEncapsulated {
		must(wire.Ethernet{Dst: uplinkNextHop, Src: w.macs[want.IfIndex], Type: etherTypeOf(want.Frame[14:])}.Encode(want.Frame))
	}
	if want.Verdict == model.VerdictTooBig {
		// The checksum in the quote is finished over the quote, by whoever finishes checksums; what must be right then
		// is that of the ICMP message.
		const quoted = 34 + wire.ICMPLen + wire.IPv4Len + 16
		copy(want.Frame[quoted:], got[quoted:quoted+2])
		must(wire.SealICMP(want.Frame[34:]))
	}
	if !bytes.Equal(got, want.Frame) {
		t.Errorf("%s\ngot  %x\nwant %x", want.Verdict, got, want.Frame)
	}
}

// txChecksum turns the checksum offload of the device itself on or off.
func (w *wires) txChecksum(t *testing.T, ifindex uint32, to string) {
	t.Helper()
	out, err := exec.Command("ethtool", "-K", w.names[ifindex], "tx", to).CombinedOutput()
	if err != nil {
		t.Fatalf("ethtool -K %s tx %s: %v: %s", w.names[ifindex], to, err, out)
	}
}
