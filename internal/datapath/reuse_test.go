package datapath

import (
	"encoding/binary"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// The kernel writes the next row of a hash map where a replaced one was, while a program may
// still be reading it. Rows of two tenants' ports are replaced as fast as can be; no packet
// of one may leave, or arrive, as the other's.
func TestReplacedRowsMixNoTenants(t *testing.T) {
	w := newWorld(t, Options{})
	const other, blue = model.VSID(9001), model.NetworkIndex(8)
	twin := w.set.Ports[uint32(w.a.Index)]
	twin.IfIndex, twin.ID, twin.VSID, twin.Network = uint32(w.b.Index), 99, other, blue
	w.set.Ports[twin.IfIndex] = twin
	for _, ca := range []string{"10.0.0.5", "10.0.0.6"} {
		r := w.set.Records[table.RecordKey{VSID: web, CA: addr(ca)}]
		if r.IfIndex != 0 {
			r.IfIndex = twin.IfIndex
		}
		w.set.Records[table.RecordKey{VSID: other, CA: addr(ca)}] = r
	}
	w.apply(w.set, true)

	stop, stopped := make(chan struct{}), make(chan struct{})
	defer func() { close(stop); <-stopped }()
	go func() {
		defer close(stopped)
		for {
			for _, ifindex := range []uint32{uint32(w.a.Index), twin.IfIndex} {
				p := w.set.Ports[ifindex]
				row := w.rules.encodePort(p, w.slots[ifindex])
				w.maps["port"].Put(ifindex, row)
				w.maps["local_mac"].Put(localMACKey{VSID: uint32(p.VSID), MAC: p.MAC}, row)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	out := eth(macR, macA, 0x0800, ip4("10.0.0.5", "10.0.0.6", 17, 64, udp(1, 2, 10)))
	in := w.outerFrame(web, eth(macA, macR, 0x0800, ip4("10.0.0.6", "10.0.0.5", 17, 64, udp(1, 2, 10))))
	right := 0
	for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); {
		got, err := w.Run(FromPort, uint32(w.a.Index), out)
		if err != nil {
			t.Fatal(err)
		}
		if got.Verdict == model.VerdictEncapsulated {
			if vsid := model.VSID(binary.BigEndian.Uint32(got.Frame[38:]) >> 8); vsid != web {
				t.Fatalf("a packet of subnet %s left in subnet %s", web, vsid)
			}
			right++
		}
		if got, err = w.Run(FromUplink, uint32(w.u.Index), in); err != nil {
			t.Fatal(err)
		}
		if got.Verdict == model.VerdictDelivered {
			if got.IfIndex != uint32(w.a.Index) {
				t.Fatalf("a packet for device %d went into device %d", w.a.Index, got.IfIndex)
			}
			right++
		}
	}
	if right == 0 {
		t.Error("no packet came through")
	}
	t.Logf("%d packets went right", right)
}

// Whoever deletes a port row may die before it deletes the row of local_mac: the next
// switch must not go on delivering to a device that is not the port's any more.
func TestHalfADeletionIsFinished(t *testing.T) {
	pins := pinDir(t)
	w := newWorld(t, Options{PinDir: pins})
	in := w.outerFrame(web, eth(macA, macR, 0x0800, ip4("10.0.0.6", "10.0.0.5", 17, 64, udp(1, 2, 10))))
	w.expect(FromUplink, w.u, in, model.VerdictDelivered, w.a)
	if err := w.maps["port"].Delete(uint32(w.a.Index)); err != nil {
		t.Fatal(err)
	}
	w.Close()
	w.Switch = open(t, Options{PinDir: pins})
	w.expect(FromUplink, w.u, in, model.VerdictNotLocal, nil)
	delete(w.set.Ports, uint32(w.a.Index))
	w.same(w.set)
}

// Rows that make no sense are no reason to stay away: the next Apply puts them right.
func TestRowsThatMakeNoSense(t *testing.T) {
	pins := pinDir(t)
	w := newWorld(t, Options{PinDir: pins})
	k := encodeRecordKey(table.RecordKey{VSID: web, CA: addr("10.0.0.6")})
	if err := w.maps["record"].Put(k, recordRow{MAC: macR, Peer: 77}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ReadBack(); err == nil {
		t.Error("nobody says that the record's host is unknown")
	}
	w.Close()
	w.Switch = open(t, Options{PinDir: pins})
	w.apply(w.set, true)
	w.same(w.set)
}
