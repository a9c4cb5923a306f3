package datapath

import (
	"testing"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// The programs that flood come with the first subnet that does; before, nobody is there
// to get a copy. A process that takes over a switch that floods has them at once.
func TestFloodingIsLoadedWhenNeeded(t *testing.T) {
	pins := pinDir(t)
	w := newWorld(t, Options{PinDir: pins, Rehearse: true})
	everyone := model.MAC{255, 255, 255, 255, 255, 255}
	frame := w.outerFrame(web, eth(everyone, macR, 0x0800, ip4("10.0.0.6", "10.0.0.255", 17, 64, udp(1, 2, 30))))
	w.expect(FromUplink, w.u, frame, model.VerdictNoMember, nil)
	if w.programs["flood_uplink"] != nil {
		t.Error("programs are loaded that nothing needs")
	}
	w.set.Floods[web] = table.Flood{L2: true, Rate: 1000}
	w.set.Members[table.Member{VSID: web, IfIndex: uint32(w.a.Index)}] = table.MemberInfo{}
	w.apply(w.set, true)
	flooded := func() {
		t.Helper()
		r, err := w.Run(FromUplink, uint32(w.u.Index), frame)
		if err != nil || r.Verdict != model.VerdictFlooded || len(r.Copies) != 1 || r.Copies[0].IfIndex != uint32(w.a.Index) {
			t.Errorf("a frame for all: %s, %d copies, %v", r.Verdict, len(r.Copies), err)
		}
	}
	flooded()
	w.Close()
	w.Switch = open(t, Options{PinDir: pins, Rehearse: true})
	flooded()
	delete(w.set.Floods, web)
	clear(w.set.Members)
	w.apply(w.set, true)
	w.Close()
	w.Switch = open(t, Options{PinDir: pins, Rehearse: true})
	w.expect(FromUplink, w.u, frame, model.VerdictNoMember, nil)
}
