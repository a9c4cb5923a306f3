package packet

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// TestTheKnownWayIsAnyOther sends each packet until its flow is known, and once more after policy has turned: nothing of
// what comes out may differ, frame, verdict or counters.
func TestTheKnownWayIsAnyOther(t *testing.T) {
	s, sw := newSite(t), load(t)
	if err := sw.Vouch(1 << 40); err != nil {
		t.Fatal(err)
	}
	known, through := map[datapath.Program]int{}, map[datapath.Program]int{}
	for policy := range uint64(60) {
		rng := rand.New(rand.NewPCG(11, policy))
		w := writer{rng, randomWorld(rng, s), false}
		plain(w.set)
		apply(t, sw, w.set)
		for range 300 {
			in := w.packet()
			if in.program != datapath.FromPort && in.program != datapath.FromUplink {
				continue
			}
			run := func() datapath.RunResult {
				r, err := sw.RunGSO(in.program, in.ifindex, in.frame, in.gsoSize)
				if err != nil {
					t.Fatal(err)
				}
				return r
			}
			run()
			run()
			r := run()
			if r.Verdict == model.VerdictDelivered || r.Verdict == model.VerdictEncapsulated {
				through[in.program]++
			}
			if !r.Known {
				continue
			}
			known[in.program]++
			if known[in.program] > 250 { // what is counted takes long to read
				continue
			}
			counted := count(t, sw)
			ran := run()
			once := count(t, sw).since(counted)
			if err := sw.Relearn(); err != nil {
				t.Fatal(err)
			}
			counted = count(t, sw)
			anew := run()
			if anew.Known {
				t.Fatalf("policy %d: %s\nits flow is still known", policy, in)
			}
			if got, want := shown(ran), shown(anew); !got.equal(want) {
				t.Fatalf("policy %d: %s\nknown %s\nanew  %s", policy, in, got, want)
			}
			if all := count(t, sw).since(counted); len(once.differences(all)) > 0 {
				t.Fatalf("policy %d: %s\ncounters: %v", policy, in, once.differences(all))
			}
		}
	}
	for p, n := range through { // of those from the underlay few are plain: see TestFlowsBecomeKnown
		t.Logf("%s: %d of %d packets that went through took the known way", p, known[p], n)
		if p == datapath.FromPort && known[p]*8 < n {
			t.Errorf("%s: too few packets take the known way", p)
		}
	}
}

// TestFlowsBecomeKnown: the third packet of a flow, in each direction, until policy turns.
func TestFlowsBecomeKnown(t *testing.T) {
	s, sw := newSite(t), load(t)
	if err := sw.Vouch(time.Hour); err != nil {
		t.Fatal(err)
	}
	e := newSession(t, s, sw)
	c := talk{wire.ProtoUDP, 4000, 53}
	for _, in := range []packetIn{
		e.fromMail(c.packet(mail.v4, web.v4, true)), e.fromMail(c.packet(mail.v6, web.v6, true)),
		e.toMail(c.packet(web.v4, mail.v4, false)), e.toMail(c.packet(web.v6, mail.v6, false)),
		e.toDB(c.packet(web.v4, db.v4, false)), e.toDB(c.packet(web.v6, db.v6, false)),
	} {
		for i, want := range []bool{false, false, true, true, false, true} {
			if i == 4 {
				if err := sw.Apply(e.set, true); err != nil {
					t.Fatal(err)
				}
			}
			if r, err := sw.Run(in.program, in.ifindex, in.frame); err != nil || i != 1 && r.Known != want { // the second may be, where an earlier test had such a flow
				t.Errorf("packet %d: %s, known: %v (%v)\n%s", i, r.Verdict, r.Known, err, in)
			}
		}
	}
}

// plain leaves ports nothing for which every packet is walked.
func plain(set table.Set) {
	for i, p := range set.Ports {
		p.Learn, p.Forward, p.External, p.ClampMSS = false, false, false, false
		set.Ports[i] = p
	}
}

// repeater sends some of the packets that go through again, until their flows are known, and then ones that differ a little.
type repeater struct {
	rng  *rand.Rand
	last packetIn
	left int
}

// went tells what became of the packet that next gave.
func (r *repeater) went(v model.Verdict) {
	if r.left == 0 && (v == model.VerdictDelivered || v == model.VerdictEncapsulated) && chance(r.rng, 40) {
		r.left = 6
	}
}

func (r *repeater) next(fresh func() packetIn) packetIn {
	if r.left == 0 {
		r.last = fresh()
		return r.last
	}
	r.left--
	if r.left > 3 || r.last.inbound() && r.last.gsoSize != 0 { // of these the program trusts outer checksums
		return r.last
	}
	in := r.last
	in.frame = slices.Clone(in.frame)
	in.frame[r.rng.IntN(min(len(in.frame), 110))] ^= byte(1 << r.rng.IntN(8))
	if refusedByTestRun(in.frame) {
		return r.last
	}
	return in
}
