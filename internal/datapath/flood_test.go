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

// A copy for a device that has gone before its row is lost, and counted; the others are made.
func TestACopyIsLost(t *testing.T) {
	const gone = 9999
	w := newWorld(t, Options{})
	everyone := model.MAC{255, 255, 255, 255, 255, 255}
	a, b := uint32(w.a.Index), uint32(w.b.Index)
	vsid := w.set.Ports[a].VSID
	other := w.set.Ports[a]
	other.IfIndex, other.ID, other.MAC = gone, 99, model.MAC{2, 0, 0, 0, 9, 9}
	w.set.Ports[gone] = other
	w.set.Floods[vsid] = table.Flood{L2: true, Rate: 1000}
	for _, ifindex := range []uint32{a, gone} {
		w.set.Members[table.Member{VSID: vsid, IfIndex: ifindex}] = table.MemberInfo{}
	}
	delete(w.set.Ports, b)
	for ifindex, id := range map[uint32]model.PortID{b: 2, gone + 1: 98} {
		p := table.VLANPort{Port: other, Uplink: uint32(w.u.Index), StormRate: 1000, Sends: table.NewVLANs(0), Receives: table.NewVLANs(0)}
		p.IfIndex, p.ID, p.Spoof, p.MAC[5] = ifindex, id, true, byte(id)
		w.set.VLANPorts[ifindex] = p
	}
	w.apply(w.set, true)
	lost := func(port model.PortID) (packets uint64) {
		drops, err := w.Drops()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range drops {
			if d.Reason == model.VerdictCopyFailed && d.Port == port {
				packets += d.Packets
			}
		}
		return packets
	}
	packet := ip4("10.0.0.6", "255.255.255.255", 17, 64, udp(1, 2, 30))
	for _, c := range []struct {
		program Program
		at      uint32
		frame   []byte
		port    model.PortID
	}{
		{FromUplink, uint32(w.u.Index), w.outerFrame(vsid, eth(everyone, macR, 0x0800, packet)), 0},
		{VLANGuest, b, eth(everyone, macB, 0x0800, packet), 2},
	} {
		r, err := w.Run(c.program, c.at, c.frame)
		if err != nil || r.Verdict != model.VerdictFlooded {
			t.Errorf("%s: %s, %v, want it flooded", c.program, r.Verdict, err)
		}
		if n := lost(c.port); n != 1 {
			t.Errorf("%s: %d copies are COPY_FAILED, want that for the device that is gone", c.program, n)
		}
	}
}
