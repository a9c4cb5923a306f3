package packet

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// The ports of the VLAN stories, as indexes into site.ports, all behind the first uplink.
const (
	vlan10 = iota
	vlan10b
	vlan20
	vlanTrunk // 10, 20; native 30
	vlanBare  // no tag
	vlanAlone
	vlanAlone2
	vlanShop
	vlanBank
	vlanAll
)

// The private VLAN of the stories.
const primary, alone, shopVLAN, bankVLAN = 100, 101, 102, 103

// vlanGuest is the MAC of a port.
func vlanGuest(dev int) model.MAC { return model.MAC{2, 0, 0, 1, 0, byte(dev + 1)} }

// vlanFar is a machine somewhere outside.
var vlanFar = model.MAC{2, 0, 0, 1, 1, 1}

// vlanPorts are the ports of the stories.
func vlanPorts(s site) []table.VLANPort {
	in := func(native uint16, receives ...uint16) table.VLANPort {
		return table.VLANPort{Native: native, Sends: table.NewVLANs(native), Receives: table.NewVLANs(receives...)}
	}
	all := []table.VLANPort{in(10, 10), in(10, 10), in(20, 20), {Trunk: true, Native: 30, Sends: table.NewVLANs(10, 20, 30), Receives: table.NewVLANs(10, 20, 30)}, in(0, 0),
		in(alone, primary), in(alone, primary), in(shopVLAN, primary, shopVLAN), in(bankVLAN, primary, bankVLAN), in(primary, primary, alone, shopVLAN, bankVLAN)}
	for i := range all {
		p := &all[i]
		p.IfIndex, p.ID, p.MAC, p.Uplink, p.MTU, p.StormRate = s.ports[i], model.PortID(100+i), vlanGuest(i), s.uplinks[0], 1500, 1e9
	}
	return all
}

// onVLANs takes the street's place.
func onVLANs(s site, change ...func(*table.VLANPort)) func(*table.Set) {
	return func(set *table.Set) {
		*set = table.NewSet()
		for _, p := range vlanPorts(s) {
			for _, c := range change {
				c(&p)
			}
			set.VLANPorts[p.IfIndex] = p
		}
	}
}

func vlanStories(s site) []story {
	payload := letters(40)
	between := func(dst, src model.MAC) []byte { return frame(dst, src, 0x1234, payload) }
	to := func(dst, src int) []byte { return between(vlanGuest(dst), vlanGuest(src)) }
	guest := func(dev int, f []byte) packetIn {
		return packetIn{program: datapath.VLANGuest, ifindex: s.ports[dev], frame: f}
	}
	uplink := func(f []byte) packetIn {
		return packetIn{program: datapath.VLANUplink, ifindex: s.uplinks[0], frame: f}
	}
	vlan := func(vid uint16, f []byte) []byte { return tagged(f, wire.TypeVLAN, vid) }
	id := func(dev int) model.PortID { return model.PortID(100 + dev) }
	drops := func(name string, in packetIn, v model.Verdict, dev int) story {
		st := drop("on VLANs: "+name, in, v, id(dev))
		st.change = onVLANs(s)
		return st
	}
	sent := func(name string, dev int, f, wire []byte) story {
		return story{name: "on VLANs: " + name, in: guest(dev, f), change: onVLANs(s), want: outcome{model.VerdictSwitched, s.uplinks[0], wire}, port: id(dev)}
	}
	delivered := func(name string, in packetIn, from, to int, f []byte) story {
		port := id(to)
		if in.program == datapath.VLANGuest {
			port = id(from)
		}
		return story{name: "on VLANs: " + name, in: in, change: onVLANs(s), want: outcome{model.VerdictDelivered, s.ports[to], f}, port: port, to: id(to)}
	}
	flooded := func(name string, in packetIn, dev int, made ...sim.Copy) story {
		st := story{name: "on VLANs: " + name, in: in, change: onVLANs(s), want: outcome{model.VerdictFlooded, 0, copies(made)}, port: id(dev), made: made}
		if in.program == datapath.VLANUplink {
			st.want, st.port = outcome{model.VerdictPass, 0, join(in.frame, copies(made))}, 0
		}
		return st
	}
	passes := func(name string, f []byte) story { return flooded(name, uplink(f), 0) }
	into := func(dev int, f []byte) sim.Copy { return sim.Copy{IfIndex: s.ports[dev], Frame: f, To: id(dev)} }
	out := func(f []byte) sim.Copy { return sim.Copy{IfIndex: s.uplinks[0], Frame: f} }
	hello := func(dev int) []byte { return between(everyone, vlanGuest(dev)) }
	farHello := between(everyone, vlanFar)
	far := func(dev int) []byte { return between(vlanFar, vlanGuest(dev)) }
	back := func(dev int) []byte { return between(vlanGuest(dev), vlanFar) }
	double := func(f []byte) []byte { return vlan(10, vlan(20, f)) }
	lldp := model.MAC{1, 0x80, 0xc2, 0, 0, 0x0e}
	big := frame(vlanFar, vlanGuest(vlan10), 0x1234, zeros(1501))
	change := func(st story, c ...func(*table.VLANPort)) story {
		st.change = onVLANs(s, c...)
		return st
	}
	priority := func(p *table.VLANPort) { p.PriorityTag = true }
	spoof := func(p *table.VLANPort) { p.Spoof = true }
	noUplink := func(p *table.VLANPort) { p.Uplink = 0 }
	out10 := []story{
		sent("access sends tagged", vlan10, far(vlan10), vlan(10, far(vlan10))),
		sent("untagged sends without", vlanBare, far(vlanBare), far(vlanBare)),
		sent("a trunk sends its tags", vlanTrunk, vlan(20, far(vlanTrunk)), vlan(20, far(vlanTrunk))),
		sent("a trunk sends without a tag, natively", vlanTrunk, far(vlanTrunk), vlan(30, far(vlanTrunk))),
		sent("a priority tag of an access port is taken off", vlan10, tagged(far(vlan10), wire.TypeVLAN, 0xa000), vlan(10, far(vlan10))),
		change(sent("a priority that may pass", vlan10, tagged(far(vlan10), wire.TypeVLAN, 0xa000), vlan(0xa00a, far(vlan10))), priority),
		sent("the priority of a trunk's tag is reset", vlanTrunk, vlan(0xe014, far(vlanTrunk)), vlan(20, far(vlanTrunk))),
		change(sent("a guest that may speak for others", vlan10, between(vlanFar, vlanGuest(77)), vlan(10, between(vlanFar, vlanGuest(77)))), spoof),
		delivered("in one VLAN on one host", guest(vlan10, to(vlan10b, vlan10)), vlan10, vlan10b, to(vlan10b, vlan10)),
		delivered("from access to trunk", guest(vlan10, to(vlanTrunk, vlan10)), vlan10, vlanTrunk, vlan(10, to(vlanTrunk, vlan10))),
		delivered("from trunk to access", guest(vlanTrunk, vlan(20, to(vlan20, vlanTrunk))), vlanTrunk, vlan20, to(vlan20, vlanTrunk)),
		delivered("from outside to access", uplink(vlan(10, back(vlan10))), 0, vlan10, back(vlan10)),
		delivered("from outside to a trunk", uplink(vlan(0x600a, back(vlanTrunk))), 0, vlanTrunk, vlan(0x600a, back(vlanTrunk))),
		delivered("from outside to a trunk, natively", uplink(vlan(30, back(vlanTrunk))), 0, vlanTrunk, back(vlanTrunk)),
		delivered("from outside without a tag", uplink(back(vlanBare)), 0, vlanBare, back(vlanBare)),
		delivered("from outside with a priority tag", uplink(vlan(0xe000, back(vlanBare))), 0, vlanBare, back(vlanBare)),
		drops("a tag of an access port", guest(vlan10, vlan(10, far(vlan10))), model.VerdictVlanTagged, vlan10),
		drops("a tag of an untagged port", guest(vlanBare, vlan(10, far(vlanBare))), model.VerdictVlanTagged, vlanBare),
		drops("a tag that the trunk does not carry", guest(vlanTrunk, vlan(11, far(vlanTrunk))), model.VerdictVlanFiltered, vlanTrunk),
		drops("a second tag of a trunk", guest(vlanTrunk, double(far(vlanTrunk))), model.VerdictVlanDoubleTagged, vlanTrunk),
		drops("a second tag of an access port", guest(vlan10, double(far(vlan10))), model.VerdictVlanDoubleTagged, vlan10),
		drops("a tag behind a priority tag", guest(vlan10, vlan(0, vlan(20, far(vlan10)))), model.VerdictVlanDoubleTagged, vlan10),
		drops("a service provider's tag", guest(vlanTrunk, tagged(far(vlanTrunk), wire.TypeQinQ, 10)), model.VerdictVlanDoubleTagged, vlanTrunk),
		drops("a second tag from outside", uplink(double(back(vlan10))), model.VerdictVlanDoubleTagged, vlan10),
		drops("a second tag behind none, from outside", uplink(vlan(0, vlan(10, back(vlan10)))), model.VerdictVlanDoubleTagged, vlan10),
		drops("another VLAN on one host", guest(vlan10, to(vlan20, vlan10)), model.VerdictVlanApart, vlan10),
		drops("another VLAN from outside", uplink(vlan(20, back(vlan10))), model.VerdictVlanApart, vlan10),
		drops("no tag from outside", uplink(back(vlan10)), model.VerdictVlanApart, vlan10),
		drops("another's MAC", guest(vlan10, between(vlanFar, vlanGuest(vlan10b))), model.VerdictSpoofedMac, vlan10),
		change(drops("a group's MAC", guest(vlan10, between(vlanFar, everyone)), model.VerdictSpoofedMac, vlan10), spoof),
		drops("the MAC of a port, from outside", uplink(vlan(10, to(vlan10, vlan10b))), model.VerdictSpoofedMac, vlan10),
		drops("LLDP", guest(vlan10, between(lldp, vlanGuest(vlan10))), model.VerdictVlanLinkLocal, vlan10),
		drops("to itself", guest(vlan10, to(vlan10, vlan10)), model.VerdictRouteToSelf, vlan10),
		drops("too big to go out", guest(vlan10, big), model.VerdictTooBig, vlan10),
		drops("too big for a port here", guest(vlan10, frame(vlanGuest(vlan10b), vlanGuest(vlan10), 0x1234, zeros(1501))), model.VerdictTooBig, vlan10),
		change(drops("no external interface", guest(vlan10, far(vlan10)), model.VerdictNoUnderlayRoute, vlan10), noUplink),
		drops("a tag cut short", guest(vlan10, vlan(10, far(vlan10))[:16]), model.VerdictFrameTruncated, vlan10),
		change(drops("a storm", guest(vlan10, hello(vlan10)), model.VerdictStormLimited, vlan10), func(p *table.VLANPort) { p.StormRate = 0 }),
		flooded("broadcast", guest(vlan10, hello(vlan10)), vlan10, into(vlan10b, hello(vlan10)), into(vlanTrunk, vlan(10, hello(vlan10))), out(vlan(10, hello(vlan10)))),
		flooded("broadcast of a trunk", guest(vlanTrunk, vlan(20, hello(vlanTrunk))), vlanTrunk, into(vlan20, hello(vlanTrunk)), out(vlan(20, hello(vlanTrunk)))),
		flooded("broadcast without a tag", guest(vlanBare, hello(vlanBare)), vlanBare, out(hello(vlanBare))),
		flooded("broadcast from outside", uplink(vlan(10, farHello)), 0, into(vlan10, farHello), into(vlan10b, farHello), into(vlanTrunk, vlan(10, farHello))),
		flooded("broadcast from outside without a tag", uplink(farHello), 0, into(vlanBare, farHello)),
		flooded("broadcast from outside with a priority tag", uplink(vlan(0xe000, farHello)), 0, into(vlanBare, farHello)),
		passes("broadcast of another VLAN", vlan(77, farHello)),
		passes("broadcast of a port here comes back", vlan(10, hello(vlan10))),
		passes("broadcast with two tags", double(farHello)),
		passes("LLDP of the physical switch", between(lldp, vlanFar)),
		passes("somebody else's frame", between(vlanFar, vlanGuest(78))),
		passes("the host's own frame", vlan(10, between(s.macs[s.uplinks[0]], vlanFar))),
		passes("a tag cut short, from outside", vlan(10, farHello)[:16]),
	}
	unknown := drop("on VLANs: a device without a port", guest(vlan10, far(vlan10)), model.VerdictPortUnknown, 0)
	unknown.change = func(set *table.Set) { *set = table.NewSet() }
	return append(append(append(append(out10, unknown), privateStories(s)...), vlanGuardStories(s)...), vlanACLStories(s)...)
}

// privateStories go through the truth table of RFC 5517, on one host and from another, whose switch sends the
// secondary VLAN as it is.
func privateStories(s site) []story {
	ports := []int{vlanAlone, vlanAlone2, vlanShop, vlanBank, vlanAll}
	names := []string{"isolated", "another isolated", "community", "another community", "promiscuous"}
	sends := []uint16{alone, alone, shopVLAN, bankVLAN, primary}
	var out []story
	for i, a := range ports {
		for j, b := range ports {
			if a == b {
				continue
			}
			reach := names[i] == "promiscuous" || names[j] == "promiscuous"
			f := frame(vlanGuest(b), vlanGuest(a), 0x1234, letters(40))
			from := frame(vlanGuest(b), vlanFar, 0x1234, letters(40))
			here := story{name: fmt.Sprintf("private VLAN: %s to %s", names[i], names[j]), in: packetIn{program: datapath.VLANGuest, ifindex: s.ports[a], frame: f}, change: onVLANs(s),
				want: outcome{model.VerdictDelivered, s.ports[b], f}, port: model.PortID(100 + a), to: model.PortID(100 + b)}
			there := story{name: fmt.Sprintf("private VLAN: %s elsewhere to %s", names[i], names[j]),
				in: packetIn{program: datapath.VLANUplink, ifindex: s.uplinks[0], frame: tagged(from, wire.TypeVLAN, sends[i])}, change: onVLANs(s),
				want: outcome{model.VerdictDelivered, s.ports[b], from}, port: model.PortID(100 + b), to: model.PortID(100 + b)}
			if !reach {
				here.want, here.to = outcome{verdict: model.VerdictVlanApart}, 0
				there.want, there.to = outcome{verdict: model.VerdictVlanApart}, 0
			}
			out = append(out, here, there)
		}
	}
	// The same community elsewhere is reached.
	from := frame(vlanGuest(vlanShop), vlanFar, 0x1234, letters(40))
	return append(out, story{name: "private VLAN: community elsewhere to its own", in: packetIn{program: datapath.VLANUplink, ifindex: s.uplinks[0],
		frame: tagged(from, wire.TypeVLAN, shopVLAN)}, change: onVLANs(s), want: outcome{model.VerdictDelivered, s.ports[vlanShop], from},
		port: model.PortID(100 + vlanShop), to: model.PortID(100 + vlanShop)})
}

// randomVLANs is a random set of ports on VLANs behind two uplinks.
func randomVLANs(rng *rand.Rand, s site) table.Set {
	set := table.NewSet()
	ids := []uint16{0, 1, 10, 20, 63, 64, 4094}
	some := func() table.VLANs {
		var v table.VLANs
		for _, id := range ids {
			if chance(rng, 40) {
				v.Add(id)
			}
		}
		return v
	}
	for i, ifindex := range s.ports {
		if chance(rng, 10) {
			continue
		}
		p := table.VLANPort{Port: table.Port{IfIndex: ifindex, ID: model.PortID(100 + i), MAC: vlanGuest(i), MTU: pick(rng, []uint16{1500, 1500, 1500, 100, 60}),
			Spoof: chance(rng, 25), Peer: chance(rng, 50), PriorityTag: chance(rng, 30), DHCPGuard: chance(rng, 50), RouterGuard: chance(rng, 50)},
			Uplink: s.uplinks[rng.IntN(2)], Trunk: chance(rng, 40), Native: pick(rng, ids), StormRate: 1e9, Sends: some(), Receives: some()}
		if chance(rng, 80) {
			p.Sends.Add(p.Native)
		}
		if chance(rng, 3) {
			p.Uplink = 0
		}
		if chance(rng, 3) {
			p.StormRate = 0
		}
		if chance(rng, 40) {
			p.Allowed, p.Held = true, chance(rng, 80)
			for _, a := range []string{"192.0.2.0/28", "192.0.2.16/28", "2001:db8::/124", "fe80::77/128"} {
				if chance(rng, 50) {
					set.Allowed[table.Allowed{IfIndex: ifindex, Prefix: netip.MustParsePrefix(a)}] = struct{}{}
				}
			}
			if chance(rng, 50) {
				set.Allowed[table.Allowed{IfIndex: ifindex, MAC: vlanFar}] = struct{}{}
			}
		}
		set.VLANPorts[ifindex] = p
	}
	w := &world{set: set, subnets: []subnet{{p4: netip.MustParsePrefix("192.0.2.0/27"), p6: netip.MustParsePrefix("2001:db8::/120")}}}
	for _, p := range set.VLANPorts {
		w.ports = append(w.ports, p.Port)
	}
	slices.SortFunc(w.ports, func(a, b table.Port) int { return cmp.Compare(a.IfIndex, b.IfIndex) })
	w.addRules(rng)
	for _, p := range w.ports { // which are in no subnet
		row := set.VLANPorts[p.IfIndex]
		row.Port = p
		set.VLANPorts[p.IfIndex] = row
	}
	clear(set.Ports)
	return set
}

func randomVLANFrame(rng *rand.Rand, s site) packetIn {
	dev := rng.IntN(portDevices)
	in := packetIn{program: datapath.VLANGuest, ifindex: s.ports[dev]}
	src := vlanGuest(dev)
	if chance(rng, 40) {
		in.program, in.ifindex, src = datapath.VLANUplink, s.uplinks[rng.IntN(2)], vlanFar
	}
	if chance(rng, 8) {
		src = pick(rng, []model.MAC{vlanFar, vlanGuest(rng.IntN(portDevices)), everyone})
	}
	dst := pick(rng, []model.MAC{vlanFar, vlanGuest(rng.IntN(portDevices)), vlanGuest(rng.IntN(portDevices)), everyone, {1, 0, 0x5e, 0, 0, 9}, {1, 0x80, 0xc2, 0, 0, byte(rng.IntN(20))}, s.macs[in.ifindex]})
	in.frame = frame(dst, src, pick(rng, []uint16{0x1234, 0x1234, wire.TypeARP, 0x88cc, 100}), letters(1+rng.IntN(150)))
	if chance(rng, 70) {
		in.frame = randomVLANPayload(rng, dst, src)
	}
	tci := func() uint16 {
		return pick(rng, []uint16{0, 0, 1, 10, 10, 20, 20, 63, 64, 4094, 4095, uint16(rng.IntN(4096))}) | uint16(rng.IntN(16))<<12
	}
	for range pick(rng, []int{0, 0, 0, 0, 1, 1, 1, 1, 2}) {
		in.frame = tagged(in.frame, pick(rng, []uint16{wire.TypeVLAN, wire.TypeVLAN, wire.TypeVLAN, wire.TypeQinQ}), tci())
	}
	if chance(rng, 3) {
		in.frame = in.frame[:14+rng.IntN(len(in.frame)-13)]
	}
	if least := map[uint16]int{wire.TypeIPv4: 34, wire.TypeIPv6: 54}[uint16(in.frame[12])<<8|uint16(in.frame[13])]; len(in.frame) < least {
		in.frame = join(in.frame, zeros(least-len(in.frame))) // test runs of bare frames want whole headers
	}
	return in
}

// inSubnets are the verdicts of admit that there are only there.
var inSubnets = map[model.Verdict]bool{model.VerdictSourceNotInPolicy: true, model.VerdictMulticast: true, model.VerdictOuterCongestion: true}

// TestVLANDifferential sends random frames of random ports on VLANs through the loaded program and through the oracle.
func TestVLANDifferential(t *testing.T) {
	s, sw := newSite(t), load(t)
	seed := diffSeed(t)
	h, packets := histogram{}, 0
	for policy := range policies() / 8 {
		rng := rand.New(rand.NewPCG(seed, policy))
		set := randomVLANs(rng, s)
		apply(t, sw, set)
		if held, err := sw.ReadBack(); err != nil || !reflect.DeepEqual(held, set) {
			t.Fatalf("seed %d, policy %d: the kernel does not hold the policy (%v):\n%s", seed, policy, err, gocmp.Diff(set, held, gocmp.Comparer(sameAddr)))
		}
		counted := count(t, sw)
		conns := &sim.Connections{} // fragments leave something
		for range 1000 {
			in := randomVLANFrame(rng, s)
			result := oracleAt(s, set, in, conns, 0)
			counted.add(in, result)
			got, err := run(sw, in)
			if err != nil {
				t.Fatalf("policy %d: %v\n%s", policy, err, in)
			}
			packets++
			h[result.Verdict]++
			if want := outcomeOf(result); !got.equal(want) {
				t.Fatalf("seed %d, policy %d: program and oracle differ\n%+v\n%s\nprogram %s\noracle  %s", seed, policy, set.VLANPorts[in.ifindex], in, got, want)
			}
		}
		if counted.check(t, count(t, sw)); t.Failed() {
			t.Fatalf("seed %d, policy %d: the counters differ", seed, policy)
		}
	}
	t.Logf("%d frames, seed %d:\n%s", packets, seed, h)
	if emulated() {
		return // too few of them
	}
	for _, v := range model.Verdicts() {
		if (v.Stage == "vlan" || v.Stage == "acl" || v.Stage == "admit" && !inSubnets[v.Verdict]) && h[v.Verdict] == 0 {
			t.Errorf("no frame met %s", v.Name)
		}
	}
}

// onVLAN tells packets of the VLAN switch, which test/vlan sends over real devices.
func onVLAN(in packetIn) bool {
	return in.program == datapath.VLANGuest || in.program == datapath.VLANUplink
}
