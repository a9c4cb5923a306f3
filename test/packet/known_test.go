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

// TestRewrittenFlowsBecomeKnown: in both directions, as far as all packets of a flow change by the same.
func TestRewrittenFlowsBecomeKnown(t *testing.T) {
	s, sw := newSite(t), load(t)
	e := newSession(t, s, sw)
	up := s.macs[s.uplinks[0]]
	for _, family := range []struct {
		name          string
		far           table.Peer // the way to mail's host
		to, back, log ends
		other         ends // of the family that does not lead there
	}{
		{"IPv4", table.Peer{Via: paFar}, ends{web.v4, mail.v4}, ends{mail.v4, web.v4}, ends{web.v4, log.v4}, ends{web.v6, mail.v6}},
		{"IPv6", table.Peer{Via: paFar6, Local: paHere6, Remote: paFar6}, ends{web.v6, mail.v6}, ends{mail.v6, web.v6}, ends{web.v6, log.v6}, ends{web.v4, mail.v4}},
	} {
		e.set = street(s)
		rewriting(red1, red2)(&e.set)
		far := e.set.Peers[paFar]
		far.Via, far.Local, far.Remote = family.far.Via, family.far.Local, family.far.Remote
		e.set.Peers[paFar] = far
		apply(t, sw, e.set)
		out := func(packet []byte) packetIn { return s.fromPort(devWeb, ipFrame(mail.mac, web.mac, packet)) }
		in := func(packet []byte) packetIn { return s.fromUplink(ipFrame(up, uplinkNextHop, packet)) }
		to, back := family.to, family.back.rewritten()
		short := to.ip(wire.ProtoTCP, 64, zeros(17))
		check := func(name string, p packetIn, want bool) {
			t.Helper()
			e.send(t, 0, p)
			e.send(t, 0, p)
			known := e.known
			if e.send(t, 0, p); e.known > known != want {
				t.Errorf("%s: %s: known: %v", family.name, name, !want)
			}
		}
		all := func(known bool) {
			t.Helper()
			check("TCP", out(to.tcp(64, 31)), known)
			check("UDP", out(to.udp(64, 30)), known)
			check("UDP without a checksum", out(dgram(to.src, to.dst, 64, 9)), known)
			check("echo", out(to.echo()), known)
			check("to another subnet", s.fromPort(devWeb, ipFrame(router1, web.mac, family.log.tcp(64, 30))), known)
			check("as large as the underlay carries", out(to.tcp(64, 1500-len(to.tcp(64, 0)))), known)
			check("a large packet to be cut", cut(out(to.tcp(63, 2800)), 1400), known)
		}
		if err := sw.Vouch(time.Hour); err != nil {
			t.Fatal(err)
		}
		all(true)
		check("padding", out(join(to.tcp(64, 1), zeros(7))), true)
		check("too large", out(to.tcp(64, 1501-len(to.tcp(64, 0)))), false)
		check("TCP cut before its checksum", out(short), false)
		check("the first fragment", out(to.fragment(true)), false)
		check("a later fragment", out(to.fragment(false)), false)
		check("an ICMP error", out(to.unreachable(family.back.tcp(60, 50), 128)), false)
		check("a protocol without ports", out(to.ip(132, 64, letters(40))), false)
		check("the last hop", s.fromPort(devWeb, ipFrame(router1, web.mac, family.log.tcp(1, 30))), false)
		check("of the family that does not lead there", out(family.other.tcp(64, 30)), false)
		check("TCP comes", in(back.tcp(61, 31)), true)
		check("UDP comes", in(back.udp(61, 30)), true)
		check("UDP without a checksum comes", in(dgram(back.src, back.dst, 61, 9)), true)
		check("echo comes", in(back.echo()), true)
		check("TCP comes from another subnet", in(family.log.back().rewritten().tcp(61, 31)), true)
		check("padding of the underlay", in(join(back.tcp(61, 1), zeros(7))), false)
		check("a fragment comes", in(back.fragment(true)), false)
		check("an ICMP error comes", in(back.unreachable(to.rewritten().tcp(60, 50), 128)), false)
		check("from a stranger", in(ends{own(db.v4), own(web.v4)}.tcp(61, 31)), false)
		if err := sw.Vouch(0); err != nil {
			t.Fatal(err)
		}
		if err := sw.Apply(e.set, true); err != nil { // all is forgotten
			t.Fatal(err)
		}
		all(false)
	}
}

// TestRewrittenFlowsAreForgotten: what policy says of a known flow's addresses, ports and connections holds for its next packet.
func TestRewrittenFlowsAreForgotten(t *testing.T) {
	s, sw := newSite(t), load(t)
	if err := sw.Vouch(time.Hour); err != nil {
		t.Fatal(err)
	}
	to := ends{web.v4, mail.v4}
	out := s.fromPort(devWeb, ipFrame(mail.mac, web.mac, to.udp(64, 30)))
	back := to.back().rewritten()
	in := s.fromUplink(ipFrame(s.macs[s.uplinks[0]], uplinkNextHop, back.ip(wire.ProtoUDP, 61, back.sealed(wire.ProtoUDP, 6, udp(53, 4000, 30)))))
	opens := func(set *table.Set) {
		s.judged(devWeb, false, tenant(follow(10*time.Second, aclRule("out", table.Allow))))(set)
		s.judged(devWeb, true, tenant(aclRule("none", table.Deny)))(set)
	}
	moved := func(set *table.Set) {
		delete(set.RewriteIn, own(mail.v4))
		other := addr("172.31.200.1")
		set.RewriteOut[table.RecordKey{VSID: red1, CA: mail.v4}] = other
		set.RewriteIn[other] = table.RewriteIn{VSID: red1, CA: mail.v4, Network: 1, MAC: mail.mac, Remote: true}
	}
	for _, c := range []struct {
		name      string
		has       func(*table.Set) // of the policy it is known by
		change    func(*table.Set)
		after     time.Duration
		out, back model.Verdict
	}{
		{"nothing", nil, nil, 0, model.VerdictEncapsulated, model.VerdictDelivered},
		{"a connection goes on", opens, nil, 0, model.VerdictEncapsulated, model.VerdictDelivered},
		{"a connection is idle for too long", opens, nil, 11 * time.Second, model.VerdictEncapsulated, model.VerdictDelivered}, // the guest's packet opens another
		{"another Provider Address", nil, moved, 0, model.VerdictEncapsulated, model.VerdictSourceNotInPolicy},
		{"none at all", nil, func(set *table.Set) { delete(set.RewriteOut, table.RecordKey{VSID: red1, CA: mail.v4}) }, 0, model.VerdictRewriteNoPa, model.VerdictDelivered},
		{"another way", nil, func(set *table.Set) {
			p := set.Peers[paFar]
			p.IfIndex, p.Source = s.uplinks[1], s.macs[s.uplinks[1]]
			set.Peers[paFar] = p
		}, 0, model.VerdictEncapsulated, model.VerdictDelivered},
		{"no record", nil, func(set *table.Set) { delete(set.Records, table.RecordKey{VSID: red1, CA: mail.v4}) }, 0, model.VerdictNoRecord, model.VerdictDelivered},
		{"another transport", nil, func(set *table.Set) {
			k := table.RecordKey{VSID: red1, CA: mail.v4}
			r := set.Records[k]
			r.Transport = model.NVGRE
			set.Records[k] = r
		}, 0, model.VerdictEncapsulated, model.VerdictDelivered},
		{"rules", nil, func(set *table.Set) {
			s.judged(devWeb, false, tenant(aclRule("none", table.Deny)))(set)
			s.judged(devWeb, true, tenant(aclRule("none", table.Deny)))(set)
		}, 0, model.VerdictAclDenied, model.VerdictAclDenied},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := newSession(t, s, sw)
			and(rewriting(red1, red2), func(set *table.Set) {
				p := set.Peers[paFar]
				p.Via = paFar
				set.Peers[paFar] = p
				if c.has != nil {
					c.has(set)
				}
			})(&e.set)
			apply(t, sw, e.set)
			for range 3 {
				e.send(t, 0, out)
				e.send(t, 0, in)
			}
			known := e.known
			e.send(t, 0, out)
			if e.send(t, 0, in); e.known != known+2 {
				t.Fatalf("only %d packets are known", e.known-known)
			}
			if c.change != nil {
				c.change(&e.set)
				if err := sw.Apply(e.set, true); err != nil {
					t.Fatal(err)
				}
			}
			if v := e.send(t, c.after, out); v != c.out {
				t.Errorf("the guest's packet: %s, want %s", v, c.out)
			}
			if v := e.send(t, 0, in); v != c.back {
				t.Errorf("the answer: %s, want %s", v, c.back)
			}
		})
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
