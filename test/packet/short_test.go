package packet

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// TestTheShortWayIsTheWalk sends packets of guests through from_port and through all stages. The
// short way must take most that goes through, or this proves nothing.
func TestTheShortWayIsTheWalk(t *testing.T) {
	s, sw := newSite(t), load(t)
	short, through := 0, 0
	for policy := range uint64(100) {
		rng := rand.New(rand.NewPCG(7, policy))
		w := writer{rng, randomWorld(rng, s), false}
		for i, p := range w.set.Ports { // of a port that wants more everything is walked
			p.Learn, p.Forward, p.External, p.ClampMSS = false, false, false, policy%4 == 0
			w.set.Ports[i] = p
		}
		apply(t, sw, w.set)
		for range 300 {
			in := w.packet()
			if in.program != datapath.FromPort {
				continue
			}
			r, err := sw.RunGSO(datapath.FromPort, in.ifindex, in.frame, in.gsoSize)
			if err != nil {
				t.Fatal(err)
			}
			if r.Verdict == model.VerdictDelivered || r.Verdict == model.VerdictEncapsulated {
				through++
			}
			if !r.Short {
				continue
			}
			short++
			counted := count(t, sw)
			got, err := run(sw, in)
			if err != nil {
				t.Fatal(err)
			}
			one := count(t, sw).since(counted)
			counted = count(t, sw)
			in.program = datapath.WalkPort
			want, err := run(sw, in)
			if err != nil {
				t.Fatal(err)
			}
			if !got.equal(want) {
				t.Fatalf("policy %d: %s\nshort %s\nwalk  %s", policy, in, got, want)
			}
			if all := count(t, sw).since(counted); len(one.differences(all)) > 0 {
				t.Fatalf("policy %d: %s\ncounters: %v", policy, in, one.differences(all))
			}
		}
	}
	t.Logf("%d of %d packets that went through took the short way", short, through)
	if short*8 < through {
		t.Error("too few packets take the short way")
	}
}

// TestFirstPacketsTakeTheShortWay: that of a connection like one which has been judged before, by sender and receiver, is allowed,
// counted and noted as the one that was searched for; and where it goes no further, nothing of that is done twice.
func TestFirstPacketsTakeTheShortWay(t *testing.T) {
	s, sw := newSite(t), load(t)
	e := newSession(t, s, sw)
	none, all := tenant(aclRule("none", table.Deny)), follow(time.Minute, aclRule("all", table.Allow))
	e.judge(t, devWeb, false, tenant(all))
	e.judge(t, devWeb, true, none)
	e.judge(t, devDB, false, none)
	dns := udpRule("dns", table.Deny, 53, 53)
	dns.LocalPorts, dns.RemotePorts = dns.RemotePorts, nil
	e.judge(t, devDB, true, tenant(dns, all))
	noted := func() int {
		n := 0
		for _, id := range []model.PortID{web.id, db.id} {
			_, c, ok, err := sw.Connections(id)
			if err != nil || !ok {
				t.Fatal(ok, err)
			}
			n += c.HalfOpen + c.Confirmed
		}
		return n
	}
	for name, legs := range map[string]struct {
		talk talk
		want []model.Verdict
	}{
		"to a port of this host":   {talk{wire.ProtoTCP, 4100, 80}, []model.Verdict{model.VerdictDelivered, model.VerdictDelivered, model.VerdictDelivered, model.VerdictDelivered}},
		"what the receiver denies": {talk{wire.ProtoUDP, 4200, 53}, []model.Verdict{model.VerdictAclDenied, model.VerdictAclDenied}},
	} {
		t.Run(name, func(t *testing.T) {
			var first counters
			var began int
			short := 0 // talks whose packets all took the short way
			const talks = 20
			for i := range talks {
				before, had, took := count(t, sw), noted(), e.short
				c := legs.talk
				c.sport += uint16(i)
				for j, want := range legs.want {
					in := e.toDB(c.packet(web.v4, db.v4, false))
					if j%2 == 1 {
						in = e.toWeb(c.packet(db.v4, web.v4, true))
					}
					if got := e.send(t, 0, in); got != want {
						t.Fatalf("packet %d: %s, want %s", j, got, want)
					}
				}
				counted, began1 := count(t, sw).since(before), noted()-had
				if i == 0 {
					first, began = counted, began1
					continue
				}
				if d := first.differences(counted); len(d) > 0 || began1 != began {
					t.Errorf("talk %d: %v; %d connections, want %d", i, d, began1, began)
				}
				if e.short-took == len(legs.want) {
					short++
				}
			}
			if allowed := legs.want[0] == model.VerdictDelivered; allowed != (short >= talks/2) { // each CPU has to have judged one
				t.Errorf("%d of %d talks took the short way", short, talks)
			}
		})
	}
}

// since is what was counted after before.
func (c counters) since(before counters) counters {
	d := counters{map[dropKey]tally{}, map[model.PortID]datapath.TrafficCount{}, map[model.RuleID]datapath.RuleHits{}}
	for k, n := range c.drops {
		was := before.drops[k]
		d.drops[k] = tally{n.packets - was.packets, n.bytes - was.bytes}
	}
	for id, n := range c.traffic {
		was := before.traffic[id]
		d.traffic[id] = datapath.TrafficCount{OutPackets: n.OutPackets - was.OutPackets, OutBytes: n.OutBytes - was.OutBytes,
			InPackets: n.InPackets - was.InPackets, InBytes: n.InBytes - was.InBytes}
	}
	for id, n := range c.hits {
		was := before.hits[id]
		d.hits[id] = datapath.RuleHits{Packets: n.Packets - was.Packets, Bytes: n.Bytes - was.Bytes}
	}
	return d
}
