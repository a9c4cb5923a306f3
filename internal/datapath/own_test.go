package datapath

import (
	"testing"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// A guest's own address is told without its record; but as soon as policy gives the
// address to another port, or to another host, nobody else may use it.
func TestOwnAddressesFollowTheRecords(t *testing.T) {
	pins := pinDir(t)
	w := newWorld(t, Options{PinDir: pins})
	from := func(ca string) []byte { return eth(macR, macA, 0x0800, ip4(ca, "10.0.0.6", 17, 64, udp(1, 2, 10))) }
	out := from("10.0.0.5")
	k := table.RecordKey{VSID: web, CA: addr("10.0.0.5")}
	was := w.set.Records[k]

	if err := w.maps["record"].Delete(encodeRecordKey(k)); err != nil {
		t.Fatal(err)
	}
	w.expect(FromPort, w.a, out, model.VerdictEncapsulated, w.u)
	if err := w.Relearn(); err != nil {
		t.Fatal(err)
	}
	w.expect(FromPort, w.a, out, model.VerdictSpoofedCa, nil)
	w.apply(w.set, true)

	// A second address takes the place of the first.
	second := table.RecordKey{VSID: web, CA: addr("10.0.0.50")}
	w.set.Records[second] = was
	away := was
	away.IfIndex = uint32(w.b.Index)
	w.set.Records[k] = away
	w.apply(w.set, true)
	w.expect(FromPort, w.a, out, model.VerdictSpoofedCa, nil)
	w.expect(FromPort, w.a, from("10.0.0.50"), model.VerdictEncapsulated, w.u)
	if got := w.own[uint32(w.a.Index)].CA[0]; got != model.As16(second.CA) {
		t.Errorf("the port's own address is %v, want %s", got, second.CA)
	}

	// What goes away in the same step is not taken instead.
	delete(w.set.Records, second)
	third := table.RecordKey{VSID: web, CA: addr("10.0.0.51")}
	w.set.Records[third] = was
	w.apply(w.set, true)
	w.expect(FromPort, w.a, from("10.0.0.50"), model.VerdictSpoofedCa, nil)
	w.expect(FromPort, w.a, from("10.0.0.51"), model.VerdictEncapsulated, w.u)

	// A row that says too much, as a killed process may leave it, is not believed.
	if err := w.maps["own"].Put(w.slots[uint32(w.a.Index)], ownRow{uint32(w.a.Index), uint32(web), [2][16]byte{model.As16(k.CA)}}); err != nil {
		t.Fatal(err)
	}
	w.Close()
	w.Switch = open(t, Options{PinDir: pins})
	w.expect(FromPort, w.a, out, model.VerdictSpoofedCa, nil)
	w.expect(FromPort, w.a, from("10.0.0.51"), model.VerdictEncapsulated, w.u)

	// Nor does a row stay behind in the slot of a port that is gone.
	delete(w.set.Ports, uint32(w.a.Index))
	w.apply(w.set, true)
	if err := readAll(w.maps["own"], func(slot uint32, row ownRow) error {
		if row.IfIndex == uint32(w.a.Index) {
			t.Errorf("slot %d still holds %+v", slot, row)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
