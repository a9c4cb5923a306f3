package packet

import (
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// TestConnectionFloods wants floods of what is never answered, and of what is, to cost established
// connections of the same guest and of another nothing.
func TestConnectionFloods(t *testing.T) {
	s, sw := newSite(t), load(t)
	e := newSession(t, s, sw)
	open := tenant(follow(time.Minute, aclRule("all", table.Allow)))
	none := tenant(aclRule("none", table.Deny))
	e.judge(t, devWeb, false, open)
	e.judge(t, devWeb, true, none)
	e.judge(t, devAPI, true, open)
	e.judge(t, devAPI, false, none)
	if err := sw.SetClock(e.now); err != nil {
		t.Fatal(err)
	}
	send := func(in packetIn, want model.Verdict) {
		t.Helper()
		got, err := run(sw, in)
		if err != nil {
			t.Fatal(err)
		}
		if got.verdict != want {
			t.Fatalf("%s: %s, want %s", in, got.verdict, want)
		}
	}
	const established, flood = 500, 20_000
	// web talks to db, and log, on another host, to api.
	mine := func(i int) talk { return talk{wire.ProtoTCP, uint16(1000 + i), 80} }
	toAPI := func(p []byte) packetIn {
		return e.fromUplink(nvgre(e.macs[e.uplinks[0]], uplinkNextHop, paFar, paHere, red2, 1, 0, ipFrame(api.mac, log.mac, p)))
	}
	fromAPI := func(p []byte) packetIn { return e.fromPort(devAPI, ipFrame(log.mac, api.mac, p)) }
	for i := range established {
		send(e.toDB(mine(i).packet(web.v4, db.v4, false)), model.VerdictDelivered)
		send(e.toWeb(mine(i).packet(db.v4, web.v4, true)), model.VerdictDelivered)
		send(e.toDB(mine(i).packet(web.v4, db.v4, false)), model.VerdictDelivered)
		send(toAPI(mine(i).packet(log.v4, api.v4, false)), model.VerdictDelivered)
		send(fromAPI(mine(i).packet(api.v4, log.v4, true)), model.VerdictEncapsulated)
		send(toAPI(mine(i).packet(log.v4, api.v4, false)), model.VerdictDelivered)
	}
	count := func(id model.PortID) datapath.ConnectionCount {
		t.Helper()
		_, n, ok, err := sw.Connections(id)
		if err != nil || !ok {
			t.Fatalf("connections of port %d: %v, %v", id, ok, err)
		}
		return n
	}
	before := count(api.id)
	for i := range flood {
		// Of what log sends to api and web sends to mail nothing is ever answered.
		send(toAPI(talk{wire.ProtoTCP, uint16(10_000 + i), 22}.packet(log.v4, api.v4, false)), model.VerdictDelivered)
		send(e.toMail(talk{wire.ProtoUDP, uint16(10_000 + i), 53}.packet(web.v4, mail.v4, false)), model.VerdictEncapsulated)
	}
	for _, g := range []guest{web, api} {
		n := count(g.id)
		t.Logf("port %d after %d half-open connections: %+v", g.id, flood, n)
		if n.Confirmed < established || n.LostConfirmed != before.LostConfirmed || n.LostHalfOpen == 0 {
			t.Errorf("port %d: %+v; before %+v", g.id, n, before)
		}
	}
	for i := range established {
		send(e.toWeb(mine(i).packet(db.v4, web.v4, true)), model.VerdictDelivered)
		send(fromAPI(mine(i).packet(api.v4, log.v4, true)), model.VerdictEncapsulated)
	}
	// A flood that is answered, as SYNs from addresses that nobody has: whoever opened it never sends again.
	for i := range flood {
		c := talk{wire.ProtoTCP, uint16(30_000 + i), 22}
		send(toAPI(c.packet(log.v4, api.v4, false)), model.VerdictDelivered)
		send(fromAPI(c.packet(api.v4, log.v4, true)), model.VerdictEncapsulated)
	}
	if n := count(api.id); n.Confirmed < established || n.LostConfirmed != before.LostConfirmed {
		t.Errorf("answers cost confirmed connections: %+v; before %+v", n, before)
	}
	for i := range established {
		send(fromAPI(mine(i).packet(api.v4, log.v4, true)), model.VerdictEncapsulated)
	}
	// One of whole handshakes may cost the guest its own, but nobody else's.
	for i := range flood {
		c := talk{wire.ProtoUDP, uint16(30_000 + i), 53}
		send(e.toDB(c.packet(web.v4, db.v4, false)), model.VerdictDelivered)
		send(e.toWeb(c.packet(db.v4, web.v4, true)), model.VerdictDelivered)
		send(e.toDB(c.packet(web.v4, db.v4, false)), model.VerdictDelivered)
	}
	if n := count(web.id); n.LostConfirmed == 0 || n.Confirmed > 2*n.Limit {
		t.Errorf("web is never full: %+v", n)
	}
	if n := count(api.id); n.Confirmed < established || n.LostConfirmed != before.LostConfirmed {
		t.Errorf("api lost to web: %+v", n)
	}
	for i := range established {
		send(fromAPI(mine(i).packet(api.v4, log.v4, true)), model.VerdictEncapsulated)
	}
}
