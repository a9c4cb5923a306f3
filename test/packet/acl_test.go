package packet

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// ruleSet puts sections together and has the set's key follow from what they say.
func ruleSet(sections ...table.Section) (table.RuleSetKey, *table.RuleSet) {
	set := &table.RuleSet{Sections: sections}
	sum := sha256.Sum256(fmt.Append(nil, *set))
	return table.RuleSetKey(sum[:16]), set
}

// addRules gives the ports of some worlds rules in either direction, or none.
func (w *world) addRules(rng *rand.Rand) {
	if chance(rng, 70) {
		return
	}
	for i, p := range w.ports {
		for _, key := range []*table.RuleSetKey{&p.Inbound, &p.Outbound} {
			if !chance(rng, 35) {
				continue
			}
			var sections []table.Section
			for _, kind := range []table.SectionKind{table.Administrator, table.Tenant, table.Tenant, table.BasicMAC, table.BasicIP, table.Default} {
				if chance(rng, 40) {
					sections = append(sections, w.section(rng, kind))
				}
			}
			var set *table.RuleSet
			*key, set = ruleSet(sections...)
			w.set.RuleSets[*key] = set
		}
		w.ports[i], w.set.Ports[p.IfIndex] = p, p
	}
}

func (w *world) section(rng *rand.Rand, kind table.SectionKind) table.Section {
	s := table.Section{Kind: kind, Audit: chance(rng, 15)}
	for range pick(rng, []int{1, 2, 5, 20, 80}) {
		r := table.Rule{
			ID:     model.RuleID{List: model.Ref{Tenant: "t", Name: kind.String()}, Rule: fmt.Sprint(rng.IntN(1000))},
			Action: pick(rng, []table.RuleAction{table.Allow, table.Allow, table.Allow, table.Allow, table.Deny, table.Pass, table.Count}),
			Log:    chance(rng, 10), AnyProtocol: chance(rng, 50), Protocol: pick(rng, []uint8{1, 6, 6, 17, 17, 58, 47}), ICMPType: -1, ICMPCode: -1,
		}
		if r.Action == table.Count && len(s.Rules) > 8 {
			r.Action = table.Allow
		}
		for range rng.IntN(3) {
			r.Remote = append(r.Remote, w.rulePrefix(rng))
		}
		for range pick(rng, []int{0, 0, 0, 1, 2}) {
			r.Local = append(r.Local, w.rulePrefix(rng))
		}
		if chance(rng, 25) {
			r.LocalPorts = append(r.LocalPorts, rulePorts(rng))
		}
		if chance(rng, 30) {
			r.RemotePorts = append(r.RemotePorts, rulePorts(rng))
		}
		if chance(rng, 10) {
			r.ICMPType = int16(pick(rng, []uint8{0, 3, 8, 11, 1, 2, 3, 128, 129}))
		}
		if chance(rng, 10) {
			r.RemoteMAC = newMAC(rng)
		}
		if chance(rng, 5) {
			r.LocalMAC = newMAC(rng)
		}
		if kind == table.BasicMAC && chance(rng, 70) {
			r = table.Rule{ID: r.ID, Action: r.Action, AnyProtocol: true, ICMPType: -1, ICMPCode: -1, RemoteMAC: newMAC(rng)}
		}
		s.Rules = append(s.Rules, r)
	}
	return s
}

func (w *world) rulePrefix(rng *rand.Rand) netip.Prefix {
	sub := pick(rng, w.subnets)
	pool := []netip.Prefix{pick(rng, pool4), pick(rng, pool6)}
	for _, p := range []netip.Prefix{sub.p4, sub.p6} {
		if p.IsValid() {
			pool = append(pool, p, p)
		}
	}
	a := host(pick(rng, pool), uint32(rng.IntN(44)))
	return netip.PrefixFrom(a, a.BitLen()-pick(rng, []int{0, 0, 1, 2, 4, 8, 16, 31, rng.IntN(a.BitLen() + 1)})).Masked()
}

func rulePorts(rng *rand.Rand) table.PortRange {
	a, b := uint16(rng.Uint32()), uint16(rng.Uint32())
	if chance(rng, 30) {
		a, b = pick(rng, []uint16{0, 53, 67, 68, 4000}), pick(rng, []uint16{53, 68, 4000, 65535})
	}
	return table.PortRange{First: min(a, b), Last: max(a, b)}
}

// any4 and the like are rules of the street.
func aclRule(name string, action table.RuleAction) table.Rule {
	return table.Rule{ID: model.RuleID{List: model.Ref{Tenant: "red", Name: "acl"}, Rule: name}, Action: action, AnyProtocol: true, ICMPType: -1, ICMPCode: -1}
}

func udpRule(name string, action table.RuleAction, first, last uint16) table.Rule {
	r := aclRule(name, action)
	r.AnyProtocol, r.Protocol, r.RemotePorts = false, wire.ProtoUDP, []table.PortRange{{First: first, Last: last}}
	return r
}

// judged has a port of the street judged.
func (s site) judged(dev int, inbound bool, sections ...table.Section) func(*table.Set) {
	return func(set *table.Set) {
		key, rules := ruleSet(sections...)
		p := set.Ports[s.ports[dev]]
		if inbound {
			p.Inbound = key
		} else {
			p.Outbound = key
		}
		set.Ports[p.IfIndex], set.RuleSets[key] = p, rules
	}
}

func tenant(rules ...table.Rule) table.Section {
	return table.Section{Kind: table.Tenant, Rules: rules}
}

func aclStories(s site) []story {
	hello4 := ipFrame(db.mac, web.mac, dgram(web.v4, db.v4, 64, 4))
	hello6 := ipFrame(db.mac, web.mac, dgram(web.v6, db.v6, 64, 4))
	delivered := func(f []byte) outcome { return outcome{model.VerdictDelivered, s.ports[devDB], f} }
	denied := outcome{verdict: model.VerdictAclDenied}
	out := func(name string, f []byte, want outcome, sections ...table.Section) story {
		st := story{name: "acl: outbound: " + name, in: s.fromPort(devWeb, f), want: want, port: web.id, change: s.judged(devWeb, false, sections...)}
		if want.verdict == model.VerdictDelivered {
			st.to = db.id
		}
		return st
	}
	in := func(name string, f []byte, want outcome, sections ...table.Section) story {
		st := story{name: "acl: inbound: " + name, in: s.fromPort(devWeb, f), want: want, port: db.id, inbound: true, change: s.judged(devDB, true, sections...)}
		if want.verdict == model.VerdictDelivered {
			st.port, st.inbound, st.to = web.id, false, db.id
		}
		return st
	}
	from := aclRule("from web", table.Deny)
	from.Remote = []netip.Prefix{netip.PrefixFrom(web.v4, 32), netip.MustParsePrefix("fd00::/16")}
	to := aclRule("dns here", table.Deny)
	to.AnyProtocol, to.Protocol, to.LocalPorts = false, wire.ProtoUDP, []table.PortRange{{First: 53, Last: 53}}
	mac := aclRule("mac", table.Deny)
	mac.RemoteMAC = everyone
	audit := tenant(aclRule("all", table.Deny))
	audit.Audit = true
	later := with(hello4, atFragment, 0, 8)
	must(wire.SealIPv4(later[14:34]))
	ask := frame(everyone, web.mac, wire.TypeARP, arp(wire.ARPRequest, web.mac, web.v4, model.MAC{}, db.v4))
	answer := frame(web.mac, db.mac, wire.TypeARP, arp(wire.ARPReply, db.mac, db.v4, web.mac, web.v4))
	return []story{
		out("no rule decides", hello4, delivered(hello4), tenant()),
		out("a port is denied", hello4, denied, tenant(udpRule("dns", table.Deny, 53, 53))),
		out("another port is denied", hello4, delivered(hello4), tenant(udpRule("more", table.Deny, 54, 65535))),
		out("the first that matches counts", hello6, delivered(hello6), tenant(udpRule("dns", table.Allow, 53, 53), aclRule("rest", table.Deny))),
		out("every level must allow", hello4, denied, tenant(aclRule("all", table.Allow)), tenant(aclRule("none", table.Deny))),
		out("an administrator allows for all", hello4, delivered(hello4), table.Section{Rules: []table.Rule{aclRule("all", table.Allow)}}, tenant(aclRule("none", table.Deny))),
		out("an administrator passes", hello4, denied, table.Section{Rules: []table.Rule{aclRule("all", table.Pass)}}, tenant(aclRule("none", table.Deny))),
		out("the default is not asked", hello4, delivered(hello4), tenant(aclRule("all", table.Allow)), table.Section{Kind: table.Default, Rules: []table.Rule{aclRule("none", table.Deny)}}),
		out("the default is asked", hello4, denied, tenant(aclRule("all", table.Pass)), table.Section{Kind: table.Default, Rules: []table.Rule{aclRule("none", table.Deny)}}),
		out("audit decides nothing", hello4, delivered(hello4), audit),
		out("a later fragment hides its port", later, denied, tenant(udpRule("dns", table.Deny, 53, 53))),
		out("and is allowed by no port", later, denied, tenant(udpRule("dns", table.Allow, 53, 53), aclRule("rest", table.Deny))),
		out("ARP is no IP", ask, outcome{model.VerdictAnswered, s.ports[devWeb], answer}, tenant(aclRule("none", table.Deny))),
		out("a MAC is denied to ARP too", ask, denied, table.Section{Kind: table.BasicMAC, Rules: []table.Rule{mac}}),
		in("a source is denied", hello4, denied, tenant(from)),
		in("a source is denied by IPv6", hello6, denied, tenant(from)),
		in("a port is denied", hello4, denied, tenant(to)),
		in("the sender's port is another", hello4, delivered(hello4), tenant(udpRule("dns", table.Deny, 53, 53))),
	}
}
