package packet

import (
	"encoding/binary"
	"testing"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/wire"
)

// left is TCP of n bytes whose checksum its sender leaves to the device, and as the device would send it.
func (e ends) left(dst, src model.MAC, n int) (partial, whole []byte) {
	tcp := e.segment(n)
	whole = ipFrame(dst, src, e.atomic(0, 64, wire.ProtoTCP, 0, tcp))
	partial = append([]byte(nil), whole...)
	binary.BigEndian.PutUint16(partial[len(partial)-len(tcp)+16:], ^wire.Checksum(nil, wire.PseudoHeader(e.src, e.dst, wire.ProtoTCP, len(tcp))))
	return partial, whole
}

func (e ends) offload(gsoSize uint16) offload {
	o := offload{Flags: needsChecksum, CsumStart: 34, CsumWant: 16, GSOSize: gsoSize}
	kind := uint8(gsoTCP4)
	if e.src.Is6() {
		o.CsumStart, kind = 54, gsoTCP6
	}
	if gsoSize != 0 {
		o.GSOType, o.HeaderLen = kind, o.CsumStart+20
	}
	return o
}

// TestExchangedOffloads follows packets whose checksums are not finished, and super-packets, through the exchange of their header both
// ways: what the device or the guest then finishes and cuts is of the other family.
func TestExchangedOffloads(t *testing.T) {
	for _, tx := range []string{"on", "off"} {
		w := newWires(t, datapath.DecapTCX)
		set := street(w.site)
		exchanging(red1, red2)(&set)
		apply(t, w.sw, set)
		for _, ifindex := range w.order {
			w.offloads(t, ifindex)
			w.txChecksum(t, ifindex, tx)
		}
		sw := sim.Switch{Set: set, Devices: w.macs}
		for _, e := range []ends{{web.v4, mail.v4}, {web.v6, mail.v6}, {web.v4, log.v4}, {web.v6, log.v6}} {
			for _, gsoSize := range []uint16{0, 1380} {
				if gsoSize != 0 && tx == "off" {
					continue // such a device cuts by itself
				}
				n := 500 + 10*int(gsoSize)
				partial, whole := e.left(router1, web.mac, n)
				want := sw.FromPortGSO(w.ports[devWeb], whole, gsoSize)
				w.sendOffloaded(t, w.ports[devWeb], e.offload(gsoSize), partial)
				still, got := w.receiveOffloaded(t, want.IfIndex)
				w.same(t, got, want)
				x := e.other()
				if expected := x.offload(gsoSize); still.GSOType != expected.GSOType || still.GSOSize != gsoSize {
					t.Errorf("tx %s, to %s: left as %+v, want %+v", tx, e.dst, still, expected)
				}
				if want.Verdict != model.VerdictEncapsulated || len(want.Frame) == len(whole) {
					t.Errorf("tx %s, to %s: %s", tx, e.dst, want.Verdict)
				}

				partial, whole = x.back().left(w.macs[w.uplinks[0]], uplinkNextHop, n)
				want = sw.FromUplinkGSO(w.uplinks[0], whole, gsoSize)
				w.sendOffloaded(t, w.uplinks[0], x.offload(gsoSize), partial)
				still, got = w.receiveOffloaded(t, want.IfIndex)
				w.same(t, got, want)
				if expected := e.offload(gsoSize); still.GSOType != expected.GSOType || still.GSOSize != gsoSize {
					t.Errorf("tx %s, from %s: arrived as %+v, want %+v", tx, e.dst, still, expected)
				}
				if want.Verdict != model.VerdictDelivered {
					t.Errorf("tx %s, from %s: %s", tx, e.dst, want.Verdict)
				}
			}
		}
	}
}
