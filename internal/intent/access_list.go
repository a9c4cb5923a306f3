package intent

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/weft-sdn/weft/internal/model"
)

type accessListRules struct{}

// Bounds of access lists.
const (
	MaxRules        = 10000          // of one list
	MaxRuleSet      = 16383          // rules that judge one port in one direction
	maxMeters       = 64             // of these, with action meter
	maxAudits       = 9              // lists in mode audit for one port
	maxBasicRules   = 1024           // of one port
	maxAccessLists  = 32             // at one level
	maxRulePrefixes = 4096           // of one side of a rule
	maxRulePorts    = 64             // ranges of one side of a rule
	maxListPrefixes = 65536          // of all rules of a list
	maxIdleTimeout  = 18 * time.Hour // the switch counts seconds in 16 bits
	maxSource       = 512
)

func listKey(tenant, name string) model.Key {
	return model.Key{Kind: model.KindAccessList, Ref: model.Ref{Tenant: tenant, Name: name}}
}

func (accessListRules) clone(r model.Resource) model.Resource {
	c := *r.(*model.AccessList)
	c.Metadata = cloneMeta(c.Metadata)
	c.Spec.Rules = orNil(c.Spec.Rules) // what is inside a rule, nobody changes
	return &c
}

// inherit fills in what people leave out; nothing comes from old.
func (accessListRules) inherit(r, _ model.Resource) {
	s := &r.(*model.AccessList).Spec
	s.Tier, s.Mode = cmp.Or(s.Tier, model.TierTenant), cmp.Or(s.Mode, model.ModeEnforce)
	for i := range s.Rules {
		rule := &s.Rules[i]
		rule.Name = cmp.Or(rule.Name, fmt.Sprintf("rule-%d", i+1))
		rule.Protocol = cmp.Or(rule.Protocol, model.AnyProtocol)
		if rule.Stateful {
			rule.IdleTimeout = cmp.Or(rule.IdleTimeout, model.DefaultIdleTimeout)
		}
	}
}

func (accessListRules) check(a *admission, r, _ model.Resource) {
	l, k := r.(*model.AccessList), model.KeyOf(r)
	switch l.Spec.Tier {
	case model.TierAdministrator, model.TierTenant, model.TierDefault:
	default:
		a.fail(k, "spec.tier", "%.40q is not a tier; use administrator, tenant or default", l.Spec.Tier)
	}
	switch l.Spec.Mode {
	case model.ModeEnforce, model.ModeAudit:
	default:
		a.fail(k, "spec.mode", "%.40q is not a mode; use enforce or audit", l.Spec.Mode)
	}
	a.checkDefault(k, "spec.default.inbound", l.Spec.Default.Inbound)
	a.checkDefault(k, "spec.default.outbound", l.Spec.Default.Outbound)
	if n := len(l.Spec.Rules); n > MaxRules {
		a.fail(k, "spec.rules", "has %d entries; at most %d are allowed: make several lists", n, MaxRules)
		return
	}
	names, prefixes := map[string]int{}, 0
	for i, rule := range l.Spec.Rules {
		field := at("spec.rules", i)
		if first, twice := names[rule.Name]; twice {
			a.fail(k, field+".name", "%q is the name of rules[%d] as well; counters and traces know a rule by its name", rule.Name, first)
		} else {
			names[rule.Name] = i
		}
		a.checkRule(l, field, rule)
		prefixes += len(rule.Local.Prefixes) + len(rule.Remote.Prefixes)
	}
	if prefixes > maxListPrefixes {
		a.fail(k, "spec.rules", "name %d prefixes; at most %d are allowed: put them into an AddressGroup", prefixes, maxListPrefixes)
	}
	for _, name := range l.Spec.GroupNames() { // once each, where it is named first
		field, _ := groupField(l.Spec, name)
		a.refer(k, field, groupKey(l.Metadata.Tenant, name))
	}
}

// groupField says where a group is named first.
func groupField(s model.AccessListSpec, name string) (field string, ok bool) {
	for i, r := range s.Rules {
		if j := slices.Index(r.Remote.Groups, name); j >= 0 {
			return at(at("spec.rules", i)+".remote.groups", j), true
		}
		if j := slices.Index(r.Local.Groups, name); j >= 0 {
			return at(at("spec.rules", i)+".local.groups", j), true
		}
	}
	return "", false
}

func (a *admission) checkDefault(k model.Key, field string, action model.RuleAction) {
	switch action {
	case "", model.ActionAllow, model.ActionDeny:
	default:
		a.fail(k, field, "%.40q is not a default; use allow or deny, or leave it out", action)
	}
}

func (a *admission) checkRule(l *model.AccessList, field string, r model.AccessRule) {
	k := model.KeyOf(l)
	if !ValidName(r.Name) {
		a.fail(k, field+".name", "%.70q is not a name: %s", r.Name, nameRule)
	}
	a.checkDirection(k, field+".direction", r.Direction)
	switch r.Action {
	case model.ActionAllow, model.ActionDeny, model.ActionMeter:
	case model.ActionPass:
		if l.Spec.Tier != model.TierAdministrator {
			a.fail(k, field+".action", "pass hands on to the next tier, and only lists of tier administrator can")
		}
	default:
		a.fail(k, field+".action", "%.40q is not an action; use allow, deny, pass or meter", r.Action)
	}
	if r.Stateful && r.Action != model.ActionAllow {
		a.fail(k, field+".stateful", "goes with action allow alone: what is not allowed makes no connection")
	}
	if r.IdleTimeout != 0 && !r.Stateful {
		a.fail(k, field+".idleTimeout", "goes with stateful: true alone")
	} else if r.Stateful && (r.IdleTimeout < time.Second || r.IdleTimeout > maxIdleTimeout || r.IdleTimeout%time.Second != 0) {
		a.fail(k, field+".idleTimeout", "is %s; use whole seconds from 1s to %s", r.IdleTimeout, maxIdleTimeout)
	}
	if len(r.Source) > maxSource {
		a.fail(k, field+".source", "has %d bytes; at most %d are allowed", len(r.Source), maxSource)
	}
	a.checkProtocol(k, field, r)
	a.checkRuleAddresses(k, field, r)
}

func (a *admission) checkDirection(k model.Key, field string, d model.Direction) {
	switch d {
	case model.Inbound, model.Outbound, model.Both:
	case "":
		a.fail(k, field, "is required: inbound, outbound or both, as the guest sees it")
	default:
		a.fail(k, field, "%.40q is not a direction; use inbound, outbound or both", d)
	}
}

func (a *admission) checkProtocol(k model.Key, field string, r model.AccessRule) {
	number, anyProtocol, ok := model.ProtocolNumber(r.Protocol)
	if !ok {
		a.fail(k, field+".protocol", "%.40q is not a protocol; use any, tcp, udp, icmp, icmpv6 or a number from 0 to 255", r.Protocol)
		return
	}
	hasPorts := !anyProtocol && (number == model.ProtocolTCP || number == model.ProtocolUDP)
	for _, side := range []struct {
		name  string
		ports []model.Range
	}{{".localPorts", r.LocalPorts}, {".remotePorts", r.RemotePorts}} {
		if len(side.ports) > 0 && !hasPorts {
			a.fail(k, field+side.name, "go with protocol tcp or udp alone; %s has no ports", r.Protocol)
			continue
		}
		if len(side.ports) > maxRulePorts {
			a.fail(k, field+side.name, "has %d entries; at most %d are allowed", len(side.ports), maxRulePorts)
			continue
		}
		for i, p := range side.ports {
			if p.First > p.Last {
				a.fail(k, at(field+side.name, i), "%s is upside down; write %d-%d", p, p.Last, p.First)
			}
		}
	}
	isICMP := !anyProtocol && (number == model.ProtocolICMP || number == model.ProtocolICMPv6)
	if r.ICMPType != nil && !isICMP {
		a.fail(k, field+".icmpType", "goes with protocol icmp or icmpv6 alone")
	}
	if r.ICMPCode != nil && r.ICMPType == nil {
		a.fail(k, field+".icmpCode", "goes with an icmpType alone")
	}
}

// checkRuleAddresses refuses what can never match: addresses of two families, or of another
// than the protocol's.
func (a *admission) checkRuleAddresses(k model.Key, field string, r model.AccessRule) {
	a.checkPrefixList(k, field+".remote.prefixes", r.Remote.Prefixes, maxRulePrefixes)
	a.checkPrefixList(k, field+".local.prefixes", r.Local.Prefixes, maxRulePrefixes)
	if len(r.Remote.Groups) > maxGroupGroups || len(r.Local.Groups) > maxGroupGroups {
		a.fail(k, field, "names more than %d groups; make a group of groups", maxGroupGroups)
	}
	remote, local := familyOf(r.Remote), familyOf(r.Local)
	if remote != 0 && local != 0 && remote != local {
		a.fail(k, field+".remote.prefixes", "are IPv%d and local.prefixes IPv%d: no packet has both", remote, local)
	}
	number, anyProtocol, _ := model.ProtocolNumber(r.Protocol)
	for _, side := range []struct {
		name   string
		family int
	}{{".remote.prefixes", remote}, {".local.prefixes", local}} {
		if !anyProtocol && (side.family == 6 && number == model.ProtocolICMP || side.family == 4 && number == model.ProtocolICMPv6) {
			a.fail(k, field+side.name, "are IPv%d, which carries no %s", side.family, r.Protocol)
		}
	}
}

// familyOf is 4 or 6 where all addresses are of that family; 0: both, none, or not known.
func familyOf(of model.RuleAddresses) int {
	family := 0
	for i, p := range of.Prefixes {
		f := 6
		if isIPv4(p.Addr()) {
			f = 4
		}
		if i > 0 && f != family {
			return 0
		}
		family = f
	}
	if len(of.Groups) > 0 {
		return 0
	}
	return family
}

func (accessListRules) allocate(*admission, model.Resource) {}

func (accessListRules) relate(a *admission, r, _ model.Resource) {
	if r != nil {
		a.checkRoom(r.Meta().Tenant)
	}
}

func (accessListRules) claims(func(model.Key) model.Resource, model.Resource) []claim { return nil }

func (accessListRules) parents(r model.Resource) []model.Key {
	l := r.(*model.AccessList)
	out := []model.Key{tenantKey(l.Metadata.Tenant)}
	for _, name := range l.Spec.GroupNames() {
		out = append(out, groupKey(l.Metadata.Tenant, name))
	}
	return out
}

// sameSpec leaves out where rules were written: it means nothing for packets.
func (accessListRules) sameSpec(x, y model.Resource) bool {
	a, b := x.(*model.AccessList).Spec, y.(*model.AccessList).Spec
	same := func(r, s model.AccessRule) bool {
		r.Source, s.Source = "", ""
		return reflect.DeepEqual(r, s)
	}
	return a.Tier == b.Tier && a.Mode == b.Mode && a.Default == b.Default && slices.EqualFunc(a.Rules, b.Rules, same)
}

// sameSources reports whether the rules of two lists were written at the same places; traces show it.
func sameSources(x, y model.Resource) bool {
	a, ok := x.(*model.AccessList)
	b, both := y.(*model.AccessList)
	return !ok || !both || slices.EqualFunc(a.Spec.Rules, b.Spec.Rules, func(r, s model.AccessRule) bool { return r.Source == s.Source })
}

// checkLists judges the access lists that k names under spec.accessLists.
func (a *admission) checkLists(k model.Key, names []string) {
	if len(names) > maxAccessLists {
		a.fail(k, "spec.accessLists", "has %d entries; at most %d are allowed", len(names), maxAccessLists)
		return
	}
	for i, name := range names {
		a.refer(k, at("spec.accessLists", i), listKey(k.Tenant, name))
		if slices.Contains(names[:i], name) {
			a.fail(k, at("spec.accessLists", i), "%s is listed twice", name)
		}
	}
}

func listKeys(tenant string, names []string) []model.Key {
	var out []model.Key
	for _, name := range names {
		out = append(out, listKey(tenant, name))
	}
	return out
}

// checkBasic judges the basic access list of a port (hnv 5.3).
func (a *admission) checkBasic(k model.Key, all []model.BasicRule) {
	if len(all) > maxBasicRules {
		a.fail(k, "spec.acl", "has %d entries; at most %d are allowed: make an AccessList", len(all), maxBasicRules)
		return
	}
	type subject struct {
		direction model.Direction
		remote    bool
		prefix    netip.Prefix
		mac       model.MAC
		meter     bool
	}
	seen := map[subject]int{}
	for i, r := range all {
		field := at("spec.acl", i)
		a.checkDirection(k, field+".direction", r.Direction)
		switch r.Action {
		case model.ActionAllow, model.ActionDeny:
		case model.ActionMeter:
			if len(r.Remote)+len(r.Local) == 0 {
				a.fail(k, field+".action", "meter goes with an address, not with a MAC")
			}
		default:
			a.fail(k, field+".action", "%.40q is not an action; use allow, deny or meter", r.Action)
		}
		said := 0
		for _, is := range []bool{len(r.Remote) > 0, len(r.Local) > 0, !r.RemoteMAC.IsZero(), !r.LocalMAC.IsZero()} {
			if is {
				said++
			}
		}
		if said != 1 {
			a.fail(k, field, "names %d of remoteAddress, localAddress, remoteMAC and localMAC; name one", said)
			continue
		}
		subjects := []subject{{remote: !r.RemoteMAC.IsZero(), mac: cmp.Or(r.RemoteMAC, r.LocalMAC)}}
		if len(r.Remote)+len(r.Local) > 0 {
			subjects = nil
			for _, p := range append(slices.Clone(r.Remote), r.Local...) {
				if problem := prefixProblem(p); problem != "" {
					a.fail(k, field, "%s %s", p, problem)
				}
				subjects = append(subjects, subject{remote: len(r.Remote) > 0, prefix: p})
			}
		}
		for _, s := range subjects {
			for _, d := range []model.Direction{model.Inbound, model.Outbound} {
				if s.direction, s.meter = d, r.Action == model.ActionMeter; r.Direction != d && r.Direction != model.Both {
					continue
				}
				if first, twice := seen[s]; twice {
					a.fail(k, field, "says something of what acl[%d] already speaks of, in the same direction", first)
					break
				}
				seen[s] = i
			}
		}
	}
}

// burden is what lists put on the rule sets of a port: docs/design/acl.md says how much there may be.
type burden struct {
	inbound, outbound cost
	audits            int // lists, each a section of its own
}

// cost of one direction.
type cost struct{ rules, meters int }

func (c cost) plus(d cost) cost { return cost{c.rules + d.rules, c.meters + d.meters} }

func (b burden) plus(c burden) burden {
	return burden{b.inbound.plus(c.inbound), b.outbound.plus(c.outbound), b.audits + c.audits}
}

func burdenOf(s model.AccessListSpec) (b burden) {
	for _, d := range []struct {
		of   model.Direction
		cost *cost
	}{{model.Inbound, &b.inbound}, {model.Outbound, &b.outbound}} {
		if s.Default.Of(d.of) != "" {
			d.cost.rules++
		}
		for _, r := range s.Rules {
			if !r.Judges(d.of) {
				continue
			}
			d.cost.rules++
			if r.Action == model.ActionMeter {
				d.cost.meters++
			}
		}
	}
	if s.Mode == model.ModeAudit {
		b.audits = 1
	}
	return b
}

// basicBurden is what a port's basic list adds.
func basicBurden(all []model.BasicRule) (b burden) {
	for _, r := range all {
		n := cost{rules: max(1, len(r.Remote)+len(r.Local))}
		if r.Action == model.ActionMeter {
			n.meters = n.rules
		}
		if r.Direction != model.Outbound {
			b.inbound = b.inbound.plus(n)
		}
		if r.Direction != model.Inbound {
			b.outbound = b.outbound.plus(n)
		}
	}
	return b
}

// problem says what does not fit, or "".
func (b burden) problem() string {
	for _, d := range []struct {
		of   model.Direction
		cost cost
	}{{model.Inbound, b.inbound}, {model.Outbound, b.outbound}} {
		if d.cost.rules > MaxRuleSet {
			return fmt.Sprintf("would judge the port by %d %s rules; at most %d fit into the switch: attach fewer or shorter lists", d.cost.rules, d.of, MaxRuleSet)
		}
		if d.cost.meters > maxMeters {
			return fmt.Sprintf("have %d %s rules with action meter for the port; each costs every packet time of its own, and at most %d are allowed", d.cost.meters, d.of, maxMeters)
		}
	}
	if b.audits > maxAudits {
		return fmt.Sprintf("have %d lists in mode audit for the port; at most %d are allowed", b.audits, maxAudits)
	}
	return ""
}

// room knows the lists of a tenant.
type room struct {
	lists map[string]burden
	free  bool // however lists are attached, they fit
	done  bool // every port was looked at
}

func (a *admission) room(tenant string) *room {
	if r := a.rooms[tenant]; r != nil {
		return r
	}
	r, all := &room{lists: map[string]burden{}}, burden{}
	for _, x := range a.everyOf(model.KindAccessList) {
		if l := x.(*model.AccessList); l.Metadata.Tenant == tenant {
			b := burdenOf(l.Spec)
			r.lists[l.Metadata.Name] = b
			all = all.plus(b)
		}
	}
	most := cost{2 * maxBasicRules, maxMeters} // of a basic list
	everywhere := all.plus(all).plus(all)      // on all three levels
	everywhere = everywhere.plus(burden{inbound: most, outbound: most})
	r.free = everywhere.problem() == ""
	if a.rooms == nil {
		a.rooms = map[string]*room{}
	}
	a.rooms[tenant] = r
	return r
}

// checkRoom holds every port of a tenant against what a switch can judge it by.
func (a *admission) checkRoom(tenant string) {
	r := a.room(tenant)
	if r.free || r.done {
		return
	}
	r.done = true
	for _, x := range a.everyOf(model.KindPort) {
		if p := x.(*model.Port); p.Metadata.Tenant == tenant && !a.checkPortRoom(p) {
			return // one is enough to say it
		}
	}
}

func (a *admission) checkPortRoom(p *model.Port) bool {
	r, b := a.room(p.Metadata.Tenant), basicBurden(p.Spec.ACL)
	add := func(names []string) {
		for _, name := range names {
			b = b.plus(r.lists[name])
		}
	}
	if !r.free {
		add(a.settings(p).AccessLists)
		if s, ok := a.get(subnetKey(p.Metadata.Tenant, p.Spec.Subnet)).(*model.VirtualSubnet); ok {
			add(s.Spec.AccessLists)
			if network, ok := a.get(networkKey(p.Metadata.Tenant, s.Spec.Network)).(*model.VirtualNetwork); ok {
				add(network.Spec.AccessLists)
			}
		}
	}
	problem := b.problem()
	if problem != "" {
		a.fail(model.KeyOf(p), "spec.accessLists", "and spec.acl, and the lists of its profile, subnet and network %s", problem)
	}
	return problem == ""
}
