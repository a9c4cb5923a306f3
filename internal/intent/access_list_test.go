package intent

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/model"
)

func group(t, name string, prefixes ...string) *model.AddressGroup {
	g := &model.AddressGroup{Metadata: meta(t, name)}
	for _, p := range prefixes {
		g.Spec.Prefixes = append(g.Spec.Prefixes, netip.MustParsePrefix(p))
	}
	return g
}

func contains(groups ...string) func(*model.AddressGroup) {
	return func(g *model.AddressGroup) { g.Spec.Groups = groups }
}

func list(t, name string, rules ...model.AccessRule) *model.AccessList {
	return &model.AccessList{Metadata: meta(t, name), Spec: model.AccessListSpec{Rules: rules}}
}

func rule(action model.RuleAction, change ...func(*model.AccessRule)) model.AccessRule {
	r := model.AccessRule{Direction: model.Inbound, Action: action}
	for _, f := range change {
		f(&r)
	}
	return r
}

func judgedBy(names ...string) func(*model.Port) {
	return func(p *model.Port) { p.Spec.AccessLists = names }
}

func TestListsAreCompletedAndKeptAsWritten(t *testing.T) {
	w := newWorld(t, append(base(), list("red", "in", rule(model.ActionAllow, func(r *model.AccessRule) { r.Stateful = true }), rule(model.ActionDeny)))...)
	got, _ := w.state.Get(listKey("red", "in"))
	l := got.(*model.AccessList).Spec
	if l.Tier != model.TierTenant || l.Mode != model.ModeEnforce || l.Rules[0].Name != "rule-1" || l.Rules[1].Name != "rule-2" ||
		l.Rules[0].IdleTimeout != 255*time.Second || l.Rules[1].IdleTimeout != 0 || l.Rules[0].Protocol != "any" {
		t.Errorf("%+v", l)
	}
	again := func(source string) *Result {
		return w.apply(list("red", "in", rule(model.ActionAllow, func(r *model.AccessRule) { r.Stateful, r.Source = true, source }), rule(model.ActionDeny)))
	}
	if c := again("").Changes[0]; c.Action != Unchanged {
		t.Errorf("the same list again is %s", c.Action)
	}
	c := again("policy.yaml:7").Changes[0]
	if c.Action != Updated || c.After.Meta().Generation != 1 {
		t.Errorf("a rule that is written elsewhere: %s, generation %d", c.Action, c.After.Meta().Generation)
	}
}

func TestWhatIsReferredToStays(t *testing.T) {
	w := newWorld(t, append(base(),
		group("red", "office", "10.9.0.0/16"), with(group("red", "all"), contains("office")),
		list("red", "in", rule(model.ActionDeny, func(r *model.AccessRule) { r.Remote.Groups = []string{"all"} })),
		list("red", "net", rule(model.ActionAllow)), list("red", "sub", rule(model.ActionAllow)), list("red", "prof", rule(model.ActionAllow)),
		profile("red", "vm", model.PortSettings{AccessLists: []string{"prof"}}),
		with(network("red", "n2"), func(n *model.VirtualNetwork) { n.Spec.AccessLists = []string{"net"} }),
		with(subnet("red", "s2", 0, "10.9.0.0/24"), func(s *model.VirtualSubnet) { s.Spec.Network, s.Spec.AccessLists = "n2", []string{"sub"} }),
		with(port("red", "p", "web"), judgedBy("in")))...)
	for name, user := range map[string]string{"in": "Port red/p", "net": "VirtualNetwork red/n2", "sub": "VirtualSubnet red/s2", "prof": "PortProfile red/vm"} {
		w.refused("AccessList red/"+name+": is still used by "+user, nil, listKey("red", name))
	}
	w.refused("AddressGroup red/office: is still used by AddressGroup red/all", nil, groupKey("red", "office"))
	w.refused("AddressGroup red/all: is still used by AccessList red/in", nil, groupKey("red", "all"))
	w.change([]model.Resource{port("red", "p", "web")}, listKey("red", "in"), groupKey("red", "all"), groupKey("red", "office"))
}

func TestGroupsAreNoCircle(t *testing.T) {
	w := newWorld(t, append(base(), group("red", "a"), with(group("red", "b"), contains("a")), with(group("red", "c"), contains("b")))...)
	w.refused("AddressGroup red/a: spec.groups[0]: makes a circle: a is in c is in b is in a", []model.Resource{with(group("red", "a"), contains("c"))})
	w.refused("spec.groups[0]: makes a circle: d is in d", []model.Resource{with(group("red", "d"), contains("d"))})
	w.refused("spec.groups[1]: c is listed twice", []model.Resource{with(group("red", "d"), contains("c", "c"))})
	w.refused("spec.groups[0]: AddressGroup red/e does not exist", []model.Resource{with(group("red", "d"), contains("e"))})
	w.apply(with(group("red", "d"), contains("c", "a")))
}

func TestListsThatMakeNoSense(t *testing.T) {
	w := newWorld(t, append(base(), group("red", "office", "10.9.0.0/16"))...)
	one := func(change func(*model.AccessRule)) *model.AccessList {
		return list("red", "l", rule(model.ActionAllow, change))
	}
	prefixes := func(all ...string) (out []netip.Prefix) {
		for _, p := range all {
			out = append(out, netip.MustParsePrefix(p))
		}
		return out
	}
	tcp := func(local ...model.Range) func(*model.AccessRule) {
		return func(r *model.AccessRule) { r.Protocol, r.LocalPorts = "tcp", local }
	}
	cases := map[string]*model.AccessList{
		`spec.tier: "boss" is not a tier`:                                          with(list("red", "l"), func(l *model.AccessList) { l.Spec.Tier = "boss" }),
		`spec.mode: "try" is not a mode`:                                           with(list("red", "l"), func(l *model.AccessList) { l.Spec.Mode = "try" }),
		`spec.default.inbound: "meter" is not a default; use allow or deny`:        with(list("red", "l"), func(l *model.AccessList) { l.Spec.Default.Inbound = model.ActionMeter }),
		`spec.rules: has 10001 entries; at most 10000`:                             list("red", "l", make([]model.AccessRule, MaxRules+1)...),
		`spec.rules[1].name: "a" is the name of rules[0]`:                          list("red", "l", rule(model.ActionAllow, named("a")), rule(model.ActionDeny, named("a"))),
		`spec.rules[0].name: "default inbound" is not a name`:                      one(named("default inbound")),
		`spec.rules[0].direction: is required`:                                     one(func(r *model.AccessRule) { r.Direction = "" }),
		`spec.rules[0].direction: "in" is not a direction`:                         one(func(r *model.AccessRule) { r.Direction = "in" }),
		`spec.rules[0].action: "" is not an action`:                                one(func(r *model.AccessRule) { r.Action = "" }),
		`spec.rules[0].action: pass hands on to the next tier`:                     one(func(r *model.AccessRule) { r.Action = model.ActionPass }),
		`spec.rules[0].protocol: "ipx" is not a protocol`:                          one(func(r *model.AccessRule) { r.Protocol = "ipx" }),
		`spec.rules[0].protocol: "256" is not a protocol`:                          one(func(r *model.AccessRule) { r.Protocol = "256" }),
		`spec.rules[0].localPorts[0]: 90-80 is upside down; write 80-90`:           one(tcp(model.Range{First: 90, Last: 80})),
		`spec.rules[0].localPorts: go with protocol tcp or udp alone; icmp has no`: one(func(r *model.AccessRule) { r.Protocol, r.LocalPorts = "icmp", []model.Range{{First: 1, Last: 1}} }),
		`spec.rules[0].remotePorts: go with protocol tcp or udp alone; any has no`: one(func(r *model.AccessRule) { r.RemotePorts = []model.Range{{First: 1, Last: 1}} }),
		`spec.rules[0].localPorts: has 65 entries`:                                 one(tcp(make([]model.Range, 65)...)),
		`spec.rules[0].icmpType: goes with protocol icmp or icmpv6`:                one(func(r *model.AccessRule) { r.Protocol, r.ICMPType = "udp", new(uint8(8)) }),
		`spec.rules[0].icmpCode: goes with an icmpType`:                            one(func(r *model.AccessRule) { r.Protocol, r.ICMPCode = "icmp", new(uint8(8)) }),
		`spec.rules[0].stateful: goes with action allow`:                           one(func(r *model.AccessRule) { r.Action, r.Stateful = model.ActionDeny, true }),
		`spec.rules[0].idleTimeout: goes with stateful`:                            one(func(r *model.AccessRule) { r.IdleTimeout = time.Minute }),
		`spec.rules[0].idleTimeout: is 10ms; use whole seconds from 1s`:            one(func(r *model.AccessRule) { r.Stateful, r.IdleTimeout = true, 10*time.Millisecond }),
		`spec.rules[0].idleTimeout: is 48h0m0s; use whole seconds`:                 one(func(r *model.AccessRule) { r.Stateful, r.IdleTimeout = true, 48*time.Hour }),
		`spec.rules[0].remote.prefixes[0]: 10.0.0.1/8 has bits set`:                one(func(r *model.AccessRule) { r.Remote.Prefixes = prefixes("10.0.0.1/8") }),
		`spec.rules[0].remote.prefixes[1]: 10.0.0.0/8 is listed twice`:             one(func(r *model.AccessRule) { r.Remote.Prefixes = prefixes("10.0.0.0/8", "10.0.0.0/8") }),
		`spec.rules[0].remote.prefixes: are IPv4 and local.prefixes IPv6`: one(func(r *model.AccessRule) {
			r.Remote.Prefixes, r.Local.Prefixes = prefixes("10.0.0.0/8"), prefixes("fd00::/8")
		}),
		`spec.rules[0].local.prefixes: are IPv4, which carries no icmpv6`:             one(func(r *model.AccessRule) { r.Protocol, r.Local.Prefixes = "icmpv6", prefixes("10.0.0.0/8") }),
		`spec.rules[0].remote.groups[1]: AddressGroup red/gone does not exist; apply`: one(func(r *model.AccessRule) { r.Remote.Groups = []string{"office", "gone"} }),
		`spec.rules[0].local.groups[0]: AddressGroup red/gone does not exist; apply`:  one(func(r *model.AccessRule) { r.Local.Groups = []string{"gone"} }),
	}
	for want, l := range cases {
		_, v := w.try([]model.Resource{l})
		if len(v) == 0 || !strings.HasPrefix(v[0].String(), "AccessList red/l: "+want) {
			t.Errorf("%s: %v", want, v)
		}
		if len(v) > 1 && len(l.Spec.Rules) == 1 {
			t.Errorf("%s: more than one finding: %v", want, v)
		}
	}
	w.apply(with(one(func(r *model.AccessRule) { r.Action = model.ActionPass }), func(l *model.AccessList) { l.Spec.Tier = model.TierAdministrator }))
	// The tenant's own alone: a group of the same name elsewhere is another.
	w.refused("AddressGroup blue/office does not exist", []model.Resource{
		list("blue", "l", rule(model.ActionAllow, func(r *model.AccessRule) { r.Remote.Groups = []string{"office"} }))})
	for _, r := range []model.Resource{
		with(port("red", "p", "web"), judgedBy("gone")), profile("red", "vm", model.PortSettings{AccessLists: []string{"gone"}}),
		with(subnet("red", "s", 0, "10.8.0.0/24"), func(s *model.VirtualSubnet) { s.Spec.AccessLists = []string{"gone"} }),
		with(network("red", "n"), func(n *model.VirtualNetwork) { n.Spec.AccessLists = []string{"gone"} }),
	} {
		w.refused("spec.accessLists[0]: AccessList red/gone does not exist; apply it first or in the same set", []model.Resource{r})
	}
	w.refused("spec.accessLists[1]: l is listed twice", []model.Resource{with(port("red", "p", "web"), judgedBy("l", "l"))})
}

func named(name string) func(*model.AccessRule) {
	return func(r *model.AccessRule) { r.Name = name }
}

func TestBasicListsThatMakeNoSense(t *testing.T) {
	w := newWorld(t, base()...)
	ten := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	deny := func(r model.BasicRule) model.BasicRule {
		if r.Action == "" {
			r.Action = model.ActionDeny
		}
		if r.Direction == "" {
			r.Direction = model.Both
		}
		return r
	}
	for want, rules := range map[string][]model.BasicRule{
		"spec.acl[0]: names 0 of remoteAddress":          {{}},
		"spec.acl[0]: names 2 of remoteAddress":          {{Remote: ten, RemoteMAC: model.MAC{2}}},
		"spec.acl[0].action: \"pass\" is not an action":  {{Action: model.ActionPass, Remote: ten}},
		"spec.acl[0].action: meter goes with an address": {{Action: model.ActionMeter, LocalMAC: model.MAC{2}}},
		"spec.acl[0].direction: \"up\" is not":           {{Direction: "up", Remote: ten}},
		"spec.acl[1]: says something of what acl[0]":     {{Remote: ten, Direction: model.Inbound}, {Action: model.ActionAllow, Remote: ten}},
		"spec.acl[0]: 10.0.0.1/8 has bits set":           {{Remote: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8")}}},
		"spec.acl: has 1025 entries; at most 1024":       make([]model.BasicRule, 1025),
	} {
		p := port("red", "p", "web")
		for _, r := range rules {
			p.Spec.ACL = append(p.Spec.ACL, deny(r))
		}
		_, v := w.try([]model.Resource{p})
		if len(v) != 1 || !strings.HasPrefix(v[0].String(), "Port red/p: "+want) {
			t.Errorf("%s: %v", want, v)
		}
	}
	w.apply(with(port("red", "p", "web"), func(p *model.Port) {
		p.Spec.ACL = []model.BasicRule{deny(model.BasicRule{Remote: ten, Direction: model.Inbound}), deny(model.BasicRule{Remote: ten, Direction: model.Outbound}),
			deny(model.BasicRule{Local: ten}), deny(model.BasicRule{Remote: ten, Action: model.ActionMeter}), deny(model.BasicRule{Remote: model.AnyAddress})}
	}))
}

func TestASetOfRulesThatDoesNotFitIsRefused(t *testing.T) {
	long := func(name string, n int) *model.AccessList {
		l := list("red", name)
		for i := range n {
			l.Spec.Rules = append(l.Spec.Rules, rule(model.ActionAllow, named(fmt.Sprint("r", i))))
		}
		return l
	}
	w := newWorld(t, append(base(), long("a", 9000), long("b", 7000), long("c", 9000))...)
	w.apply(with(port("red", "p", "web"), judgedBy("a", "b")))
	w.refused("Port red/p: spec.accessLists: and spec.acl, and the lists of its profile, subnet and network would judge the port by 18000 inbound rules", []model.Resource{long("b", 9000)})
	w.refused("Port red/q: spec.accessLists", []model.Resource{with(port("red", "q", "web"), judgedBy("a", "c"))})
	w.refused("Port red/p: spec.accessLists", []model.Resource{with(network("red", "prod"), func(n *model.VirtualNetwork) { n.Spec.AccessLists = []string{"c"} })})
	w.apply(profile("red", "vm", model.PortSettings{}), with(port("red", "q", "web"), func(p *model.Port) { p.Spec.Profile, p.Spec.AccessLists = "vm", []string{"a"} }))
	w.refused("Port red/q: spec.accessLists", []model.Resource{profile("red", "vm", model.PortSettings{AccessLists: []string{"c"}})})
}

func TestRulesThatCostEveryPacketAreBounded(t *testing.T) {
	w := newWorld(t, base()...)
	meters := func(name string, n int, d model.Direction) *model.AccessList {
		l := list("red", name)
		for range n {
			l.Spec.Rules = append(l.Spec.Rules, rule(model.ActionMeter, func(r *model.AccessRule) { r.Direction = d }))
		}
		return l
	}
	w.apply(meters("in", 40, model.Inbound), meters("out", 40, model.Outbound), with(port("red", "p", "web"), judgedBy("in", "out")))
	w.refused("have 80 inbound rules with action meter", []model.Resource{meters("out", 40, model.Both)})
	w.refused("have 65 inbound rules with action meter", []model.Resource{with(port("red", "q", "web"), func(p *model.Port) {
		for i := range 65 {
			p.Spec.ACL = append(p.Spec.ACL, model.BasicRule{Action: model.ActionMeter, Direction: model.Inbound, Local: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 32)}})
		}
	})})
	var set []model.Resource
	var names []string
	for i := range 10 {
		l := list("red", fmt.Sprint("audit-", i), rule(model.ActionDeny))
		l.Spec.Mode = model.ModeAudit
		set, names = append(set, l), append(names, l.Metadata.Name)
	}
	w.refused("have 10 lists in mode audit for the port; at most 9", append(set, with(port("red", "q", "web"), judgedBy(names...))))
	w.apply(append(set, with(port("red", "q", "web"), judgedBy(names[1:]...)))...)
}
