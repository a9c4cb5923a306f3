package datapath

import (
	"encoding/binary"
	"errors"
	"net/netip"
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

// A host that loses its first Provider Address is named by its second from then on, and sends by that one
// before, after, and while the tables say so: no packet comes between the rows.
func TestAHostIsNamedOtherwise(t *testing.T) {
	w := newWorld(t, Options{})
	first := addr("192.0.2.99")
	named := func(pa netip.Addr) table.Set {
		s := w.policy()
		for k, r := range s.Records {
			if r.PA.IsValid() {
				r.PA = pa
				s.Records[k] = r
			}
		}
		s.Peers[pa] = s.Peers[paR]
		return s
	}
	both, second := named(first), named(paR)
	delete(both.Peers, paR)
	both.Sources[table.Source{Peer: first, PA: first}] = struct{}{}
	both.Sources[table.Source{Peer: first, PA: paR}] = struct{}{}
	done := make(chan error, 1)
	go func() {
		var err error
		for range 300 {
			err = errors.Join(err, w.Apply(both, true), w.Apply(second, true))
		}
		done <- err
	}()
	in := w.outerFrame(web, eth(macA, macR, 0x0800, ip4("10.0.0.6", "10.0.0.5", 17, 64, udp(1, 2, 10))))
	for n := 1; ; n++ {
		got, err := w.Run(FromUplink, uint32(w.u.Index), in)
		if err != nil || got.Verdict != model.VerdictDelivered {
			t.Errorf("packet %d: %s, %v", n, got.Verdict, err)
		}
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			t.Logf("%d packets", n)
			return
		default:
		}
	}
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
