package packet

import (
	"math/rand/v2"
	"testing"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
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
