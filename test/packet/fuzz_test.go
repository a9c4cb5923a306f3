package packet

import (
	"testing"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// FuzzProgram runs any bytes through the loaded program and the oracle on the street, whose stories are the
// seeds. resealed puts the outer IPv4 checksum right, which no mutation would find.
func FuzzProgram(f *testing.F) {
	site := newSite(f)
	set := street(site)
	sw := load(f)
	apply(f, sw, set)
	devices := append(append(site.ports[:], site.uplinks[:]...), site.unknown)
	for _, st := range stories(site) {
		if st.change == nil && st.in.gsoSize == 0 {
			f.Add(byte(st.in.program), byte(indexOf(devices, st.in.ifindex)), true, st.in.frame)
		}
	}
	f.Fuzz(func(t *testing.T, program, device byte, reseal bool, frame []byte) {
		if len(frame) < wire.EthernetLen || len(frame) > maxFrame {
			return
		}
		in := packetIn{program: datapath.Program(1 + program%3), ifindex: devices[int(device)%len(devices)], frame: frame}
		if reseal && in.program == datapath.FromUplink && len(frame) >= 34 {
			in.frame = resealed(frame, 0)
		}
		if refusedByTestRun(in.frame) {
			in.frame = tagged(in.frame, wire.TypeVLAN, 0)
		}
		compare(t, site, sw, set, in)
	})
}

func indexOf(devices []uint32, ifindex uint32) int {
	for i, d := range devices {
		if d == ifindex {
			return i
		}
	}
	return 0
}

// compare fails unless program and oracle agree.
func compare(t *testing.T, s site, sw *datapath.Switch, set table.Set, in packetIn) {
	t.Helper()
	got, err := run(sw, in)
	if err != nil {
		t.Fatalf("%v\n%s", err, in)
	}
	if want := outcomeOf(oracle(s, set, in)); !got.equal(want) {
		t.Fatalf("%s\nprogram %s\noracle  %s", in, got, want)
	}
}
