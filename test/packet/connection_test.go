package packet

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// session is program and oracle side by side, with what packets leave for later ones.
type session struct {
	site
	sw    *datapath.Switch
	set   table.Set
	conns *sim.Connections
	now   time.Duration
	short int // packets that took the short way, or the known one
	known int // the known way
}

func newSession(t *testing.T, s site, sw *datapath.Switch) *session {
	t.Helper()
	e := &session{site: s, sw: sw, set: street(s), conns: &sim.Connections{}, now: time.Hour}
	apply(t, sw, e.set)
	return e
}

// judge gives a port of the street other rules; what it remembers stays.
func (e *session) judge(t *testing.T, dev int, inbound bool, sections ...table.Section) {
	t.Helper()
	e.site.judged(dev, inbound, sections...)(&e.set)
	if err := e.sw.Apply(e.set, true); err != nil {
		t.Fatal(err)
	}
}

// send sends one packet after some time, and wants program and oracle to agree.
func (e *session) send(t *testing.T, after time.Duration, in packetIn) model.Verdict {
	t.Helper()
	e.now += after
	if err := e.sw.SetClock(e.now); err != nil {
		t.Fatal(err)
	}
	ran, err := e.sw.RunGSO(in.program, in.ifindex, in.frame, in.gsoSize)
	if err != nil {
		t.Fatal(err)
	}
	got := shown(ran)
	if ran.Short || ran.Known {
		e.short++
	}
	if ran.Known {
		e.known++
	}
	r := oracleAt(e.site, e.set, in, e.conns, e.now)
	if want := outcomeOf(r); !got.equal(want) {
		t.Fatalf("%s\nprogram %s\noracle  %s", in, got, want)
	}
	return r.Verdict
}

// talk is what two guests may say to each other.
type talk struct {
	proto        uint8
	sport, dport uint16 // of ICMP: the identifier, 0
}

func (c talk) packet(src, dst netip.Addr, back bool) []byte {
	sport, dport := c.sport, c.dport
	if back {
		sport, dport = dport, sport
	}
	switch c.proto {
	case wire.ProtoICMP:
		kind, kind6 := uint8(wire.ICMPEchoRequest), uint8(wire.ICMPv6EchoRequest)
		if back {
			kind, kind6 = wire.ICMPEchoReply, wire.ICMPv6EchoReply
		}
		if src.Is6() {
			return icmp6(wire.IPv6{HopLimit: 64, Source: src, Destination: dst}, kind6, 0, uint32(c.sport)<<16|1, zeros(8))
		}
		return v4(wire.IPv4{TTL: 64, Proto: wire.ProtoICMP, Source: src, Destination: dst}, nil, icmp(kind, 0, uint32(c.sport)<<16|1, zeros(8)))
	case wire.ProtoTCP:
		b := zeros(24)
		must(wire.Ports{Source: sport, Destination: dport}.Encode(b))
		b[12] = 5 << 4
		return ipPacket(c.proto, src, dst, b)
	case wire.ProtoUDP:
		return ipPacket(c.proto, src, dst, udp(sport, dport, 8))
	}
	return ipPacket(c.proto, src, dst, zeros(16))
}

func ipPacket(proto uint8, src, dst netip.Addr, payload []byte) []byte {
	if src.Is4() {
		return v4(wire.IPv4{TTL: 64, Proto: proto, Source: src, Destination: dst}, nil, payload)
	}
	return v6(wire.IPv6{HopLimit: 64, Next: proto, Source: src, Destination: dst}, payload)
}

// refusal is an ICMP error about a packet.
func refusal(from, to netip.Addr, about []byte) []byte {
	if from.Is4() {
		return v4(wire.IPv4{TTL: 64, Proto: wire.ProtoICMP, Source: from, Destination: to}, nil, icmp(wire.ICMPUnreachable, 3, 0, about[:min(len(about), 48)]))
	}
	return icmp6(wire.IPv6{HopLimit: 64, Source: from, Destination: to}, 1, 4, 0, about)
}

// pieces are the two fragments of a packet.
func pieces(p []byte, id uint16) (first, later []byte) {
	if p[0]>>4 == 4 {
		payload := p[wire.IPv4Len:]
		first, later = slices.Clone(p[:wire.IPv4Len+8]), append(slices.Clone(p[:wire.IPv4Len]), payload[8:]...)
		for i, b := range [][]byte{first, later} {
			b[2], b[3] = byte(len(b)>>8), byte(len(b))
			b[4], b[5] = byte(id>>8), byte(id)
			b[6], b[7] = 0x20*byte(1-i), byte(i)
			b[10], b[11] = 0, 0
			must(wire.SealIPv4(b[:wire.IPv4Len]))
		}
		return first, later
	}
	payload := p[wire.IPv6Len:]
	piece := func(offset int, data []byte) []byte {
		b := append(slices.Clone(p[:wire.IPv6Len]), p[6], 0, byte(offset>>8), byte(offset), 0, 0, byte(id>>8), byte(id))
		b = append(b, data...)
		b[6] = wire.ProtoFragment
		b[4], b[5] = 0, byte(len(b)-wire.IPv6Len)
		return b
	}
	return piece(1, payload[:8]), piece(8, payload[8:])
}

// web's packets to db, and db's back; and mail's, which is on another host.
func (e *session) toDB(p []byte) packetIn  { return e.fromPort(devWeb, ipFrame(db.mac, web.mac, p)) }
func (e *session) toWeb(p []byte) packetIn { return e.fromPort(devDB, ipFrame(web.mac, db.mac, p)) }
func (e *session) toMail(p []byte) packetIn {
	return e.fromPort(devWeb, ipFrame(mail.mac, web.mac, p))
}
func (e *session) fromMail(p []byte) packetIn {
	return e.fromUplink(nvgre(e.macs[e.uplinks[0]], uplinkNextHop, paFar, paHere, red1, 1, 0, ipFrame(web.mac, mail.mac, p)))
}

func follow(idle time.Duration, r table.Rule) table.Rule {
	r.Stateful, r.Idle = true, idle
	return r
}

func TestConnections(t *testing.T) {
	s, sw := newSite(t), load(t)
	dns, echo, tcp, gre := talk{wire.ProtoUDP, 4000, 53}, talk{wire.ProtoICMP, 7, 0}, talk{wire.ProtoTCP, 4001, 80}, talk{wire.ProtoGRE, 0, 0}
	none := tenant(aclRule("none", table.Deny))
	opens := func(idle time.Duration) table.Section { return tenant(follow(idle, aclRule("out", table.Allow))) }
	const passes, denied = model.VerdictDelivered, model.VerdictAclDenied
	type leg struct {
		after time.Duration
		in    packetIn
		want  model.Verdict
	}
	each := func(name string, prepare func(t *testing.T, e *session), legs func(e *session) []leg) {
		t.Run(name, func(t *testing.T) {
			e := newSession(t, s, sw)
			prepare(t, e)
			for i, l := range legs(e) {
				if got := e.send(t, l.after, l.in); got != l.want {
					t.Fatalf("packet %d: %s, want %s", i, got, l.want)
				}
			}
		})
	}
	guarded := func(t *testing.T, e *session) {
		e.judge(t, devWeb, false, opens(10*time.Second))
		e.judge(t, devWeb, true, none)
	}
	for _, to := range []struct{ web, far, mail netip.Addr }{{web.v4, db.v4, mail.v4}, {web.v6, db.v6, mail.v6}} {
		for _, c := range []talk{dns, echo, tcp, gre} {
			name := fmt.Sprintf("protocol %d to %s: ", c.proto, to.far)
			there, back := c.packet(to.web, to.far, false), c.packet(to.far, to.web, true)
			each(name+"answers come in, and nothing else", guarded, func(e *session) []leg {
				return []leg{
					{0, e.toWeb(back), denied},
					{0, e.toDB(there), passes},
					{time.Second, e.toWeb(back), passes},
					{9 * time.Second, e.toWeb(back), passes},
					{11 * time.Second, e.toWeb(back), denied},
					{0, e.toDB(there), passes},
					{0, e.toWeb(back), passes},
				}
			})
			each(name+"from another host", guarded, func(e *session) []leg {
				out, in := c.packet(to.web, to.mail, false), c.packet(to.mail, to.web, true)
				return []leg{
					{0, e.fromMail(in), denied},
					{0, e.toMail(out), model.VerdictEncapsulated},
					{0, e.fromMail(in), passes},
					{20 * time.Second, e.fromMail(in), denied},
				}
			})
		}
		there, back := dns.packet(to.web, to.far, false), dns.packet(to.far, to.web, true)
		each("an error about it comes in: "+to.far.String(), guarded, func(e *session) []leg {
			about := refusal(to.far, to.web, there)
			return []leg{{0, e.toWeb(about), denied}, {0, e.toDB(there), passes}, {0, e.toWeb(about), passes},
				{0, e.toWeb(refusal(to.far, to.web, dns.packet(to.web, to.mail, false))), denied},
				{20 * time.Second, e.toWeb(about), denied}}
		})
		each("later fragments follow the first: "+to.far.String(), guarded, func(e *session) []leg {
			first, later := pieces(back, 77)
			_, other := pieces(back, 78)
			return []leg{{0, e.toDB(there), passes}, {0, e.toWeb(later), denied}, {0, e.toWeb(first), passes},
				{time.Second, e.toWeb(later), passes}, {0, e.toWeb(other), denied}, {40 * time.Second, e.toWeb(later), denied}}
		})
		each("rules that no longer allow it end it: "+to.far.String(), guarded, func(e *session) []leg {
			if v := e.send(t, 0, e.toDB(there)); v != passes {
				t.Fatal(v)
			}
			e.judge(t, devWeb, false, tenant(udpRule("dns", table.Deny, 53, 53), aclRule("out", table.Allow)))
			return []leg{{0, e.toWeb(back), denied}, {0, e.toDB(there), denied}, {0, e.toWeb(back), denied}}
		})
		each("what is no longer of it is judged for itself: "+to.far.String(), guarded, func(e *session) []leg {
			if v := e.send(t, 0, e.toDB(there)); v != passes {
				t.Fatal(v)
			}
			e.judge(t, devWeb, false, tenant(udpRule("dns", table.Deny, 53, 53), aclRule("out", table.Allow)))
			e.judge(t, devWeb, true, tenant(aclRule("in", table.Allow)))
			return []leg{{0, e.toWeb(back), passes}, {0, e.toDB(there), denied}, {0, e.toWeb(back), passes}}
		})
		each("rules that still allow it keep it: "+to.far.String(), guarded, func(e *session) []leg {
			if v := e.send(t, 0, e.toDB(there)); v != passes {
				t.Fatal(v)
			}
			e.judge(t, devWeb, false, tenant(follow(60*time.Second, udpRule("dns", table.Allow, 53, 53)), aclRule("rest", table.Deny)))
			return []leg{{0, e.toWeb(back), passes}, {50 * time.Second, e.toWeb(back), passes}, {0, e.toDB(there), passes}}
		})
		each("what is allowed for itself opens nothing: "+to.far.String(), func(t *testing.T, e *session) {
			e.judge(t, devWeb, false, tenant(aclRule("out", table.Allow)))
			e.judge(t, devWeb, true, none)
		}, func(e *session) []leg { return []leg{{0, e.toDB(there), passes}, {0, e.toWeb(back), denied}} })
		each("the receiver follows, too: "+to.far.String(), func(t *testing.T, e *session) {
			e.judge(t, devDB, true, opens(10*time.Second))
			e.judge(t, devDB, false, none)
		}, func(e *session) []leg {
			return []leg{{0, e.toWeb(back), denied}, {0, e.toDB(there), passes}, {0, e.toWeb(back), passes}}
		})
	}
}

// TestConnectionsAtRandom plays long sequences of packets, changes of rules and pauses.
func TestConnectionsAtRandom(t *testing.T) {
	s, sw := newSite(t), load(t)
	seed := diffSeed(t)
	t.Logf("seed %d", seed)
	h := histogram{}
	games, short, known := uint64(200), 0, 0
	if emulated() {
		games = 10
	}
	for game := range games {
		rng := rand.New(rand.NewPCG(seed, game))
		e := newSession(t, s, sw)
		g := newGame(rng)
		for step := range 120 {
			if step == 0 || chance(rng, 4) {
				for _, dev := range g.judged {
					if step == 0 || chance(rng, 50) {
						e.judge(t, dev, chance(rng, 50), gameRules(rng))
					}
				}
			}
			pause := time.Duration(0)
			if chance(rng, 25) {
				pause = pick(rng, []time.Duration{10 * time.Millisecond, 200 * time.Millisecond, time.Second, 5 * time.Second, 31 * time.Second})
			}
			in := e.gamePacket(rng, g)
			func() {
				defer func() {
					if t.Failed() {
						t.Logf("seed %d, game %d, step %d", seed, game, step)
					}
				}()
				h[e.send(t, pause, in)]++
				for range pick(rng, []int{0, 0, 1, 3}) { // so that its flow becomes known
					e.send(t, pick(rng, []time.Duration{0, 0, 0, 60 * time.Millisecond}), in)
				}
			}()
		}
		short += e.short
		known += e.known
	}
	t.Logf("%d games, %d packets by the short way, or of these %d by the known one:\n%s", games, short, known, h)
	if known*20 < short && !emulated() { // a flow is known for a time that few packets fit in there
		t.Error("too few packets take the known way")
	}
	if short*50 < h[model.VerdictDelivered] {
		t.Error("too few packets take the short way")
	}
	for _, v := range []model.Verdict{model.VerdictDelivered, model.VerdictEncapsulated, model.VerdictAclDenied} {
		if h[v]*20 < int(games)*120/10 {
			t.Errorf("%s is too rare", v)
		}
	}
}

func gameRules(rng *rand.Rand) table.Section {
	var rules []table.Rule
	for i := range rng.IntN(5) {
		r := aclRule(fmt.Sprint("r", i), pick(rng, []table.RuleAction{table.Allow, table.Allow, table.Deny}))
		if chance(rng, 70) {
			r.AnyProtocol, r.Protocol = false, pick(rng, []uint8{wire.ProtoUDP, wire.ProtoTCP, wire.ProtoICMP, wire.ProtoICMPv6, wire.ProtoGRE})
			if (r.Protocol == wire.ProtoUDP || r.Protocol == wire.ProtoTCP) && chance(rng, 50) {
				r.RemotePorts = []table.PortRange{{First: 53, Last: 80}}
			}
			if r.Protocol == wire.ProtoICMP && chance(rng, 50) {
				r.ICMPType = wire.ICMPEchoRequest
			}
		}
		if chance(rng, 30) {
			r.Remote = []netip.Prefix{netip.PrefixFrom(pick(rng, []netip.Addr{db.v4, mail.v4, db.v6, web.v4}), 32).Masked()}
		}
		if chance(rng, 85) {
			r = follow(pick(rng, []time.Duration{0, time.Second, 6 * time.Second, time.Minute, time.Minute}), r)
		}
		rules = append(rules, r)
	}
	return tenant(append(rules, aclRule("rest", pick(rng, []table.RuleAction{table.Deny, table.Deny, table.Allow})))...)
}

// game is who talks about what, and what was said.
type game struct {
	talks       []talk
	six, remote int // how often, in percent
	said        [][]byte
	judged      []int // devices with rules
}

func newGame(rng *rand.Rand) *game {
	all := []talk{{wire.ProtoUDP, 4000, 53}, {wire.ProtoUDP, 53, 4000}, {wire.ProtoTCP, 4001, 80}, {wire.ProtoICMP, 7, 0}, {wire.ProtoICMP, 0, 0}, {wire.ProtoGRE, 0, 0}}
	g := &game{talks: all, six: pick(rng, []int{0, 50, 100}), remote: pick(rng, []int{0, 50, 100}), judged: []int{devWeb}}
	if chance(rng, 50) {
		g.judged = append(g.judged, devDB)
	}
	if chance(rng, 70) {
		g.talks = []talk{pick(rng, all), pick(rng, all[:3])}
	}
	return g
}

// gamePacket is new, or the answer to, an error about or a fragment of one that was sent before.
func (e *session) gamePacket(rng *rand.Rand, g *game) packetIn {
	c := pick(rng, g.talks)
	six, back, remote := chance(rng, g.six), chance(rng, 50), chance(rng, g.remote)
	local, far := web.v4, db.v4
	if remote {
		far = mail.v4
	}
	if six {
		local, far = web.v6, db.v6
		if remote {
			far = mail.v6
		}
	}
	src, dst := local, far
	if back {
		src, dst = far, local
	}
	p := c.packet(src, dst, back)
	switch rng.IntN(6) {
	case 0:
		if len(g.said) > 0 {
			p = refusal(src, dst, pick(rng, g.said))
			if len(p) > 300 {
				p = c.packet(src, dst, back)
			}
		}
	case 1, 2:
		first, later := pieces(p, uint16(rng.IntN(3)))
		p = pick(rng, [][]byte{first, later})
	default:
		g.said = append(g.said, p)
	}
	if (p[0]>>4 == 6) != six { // an error about the other family
		return e.gamePacket(rng, g)
	}
	switch {
	case remote && back:
		return e.fromMail(p)
	case remote:
		return e.toMail(p)
	case back:
		return e.toWeb(p)
	}
	return e.toDB(p)
}
