package agent

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// ruleSets makes the rule sets of ports (docs/design/acl.md) and keeps what it made: rows of a Goal
// never change, so that of a list whose row and whose groups' rows are the same nothing is made anew,
// and a set whose parts are the same is the same set.
type ruleSets struct {
	lists map[model.Ref]*ruleList
	sets  map[table.RuleSetKey]*table.RuleSet
}

// ruleList is an access list with its groups filled in, by direction.
type ruleList struct {
	list   *goal.List
	groups []*goal.Group // in the order of names; nil: the Goal has none
	names  []string
	digest goal.Digest // of all this

	inbound, outbound []weighted // in the order in which they are asked; a default is the last
}

// weighted is a rule and its place among those of other lists.
type weighted struct {
	weight int // noWeight: a default
	rule   table.Rule
}

const noWeight = -1

// render gives every port of set its rule sets, and set those that ports have. It tells of ports with
// rules that name groups which are not there.
func (r *ruleSets) render(set *table.Set, g *goal.Goal, devices map[model.PortID]device) []failure {
	if r.lists == nil {
		*r = ruleSets{map[model.Ref]*ruleList{}, map[table.RuleSetKey]*table.RuleSet{}}
	}
	var out []failure
	used := map[model.Ref]*ruleList{}
	for id, p := range g.Ports {
		d, plugged := devices[id]
		if !plugged || len(p.Settings.Lists)+len(p.Settings.ACL) == 0 {
			continue
		}
		lists, missing := r.listsOf(g, p, used)
		if missing != "" {
			out = append(out, failure{model.KindPort, p.Ref, reasonNotProgrammed, missing})
		}
		changePort(*set, d.ifindex, func(row *table.Port) {
			row.Inbound = r.assemble(set, p, lists, model.Inbound)
			row.Outbound = r.assemble(set, p, lists, model.Outbound)
		})
	}
	r.lists = used
	r.sets = set.RuleSets
	return out
}

// ruleHits reads what the rules of a list have counted on this host, or those of all lists.
func (a *Agent) ruleHits(q *hostv1.HitsQuery) (*hostv1.HitsAnswer, error) {
	hits, err := a.sw.RuleHits()
	if err != nil {
		return nil, fmt.Errorf("read the counters of rules: %w", err)
	}
	out := &hostv1.HitsAnswer{}
	for id, h := range hits {
		if (q.GetTenant() == "" || q.GetTenant() == id.List.Tenant) && (q.GetList() == "" || q.GetList() == id.List.Name) {
			out.Hits = append(out.Hits, &weftv1.RuleHit{Tenant: id.List.Tenant, List: id.List.Name, Rule: id.Rule, Packets: h.Packets, Bytes: h.Bytes})
		}
	}
	return out, nil
}

// usedList is a list at a level.
type usedList struct {
	level model.Level
	*ruleList
}

// listsOf finds what judges a port, and says which group or list of it is missing.
func (r *ruleSets) listsOf(g *goal.Goal, p goal.Port, used map[model.Ref]*ruleList) (lists []usedList, missing string) {
	for _, u := range p.Settings.Lists {
		ref := model.Ref{Tenant: p.Ref.Tenant, Name: u.List}
		l := used[ref]
		if l == nil {
			row := g.Lists[ref]
			if row == nil {
				missing = fmt.Sprintf("access list %s is not here", ref)
				continue
			}
			l = r.list(g, row)
			used[ref] = l
		}
		if i := slices.Index(l.groups, nil); i >= 0 {
			missing = fmt.Sprintf("access list %s names the group %s, which is not here: rules with it match nothing", ref, l.names[i])
		}
		lists = append(lists, usedList{u.Level, l})
	}
	return lists, missing
}

// list fills in a list, or finds that it has not changed.
func (r *ruleSets) list(g *goal.Goal, row *goal.List) *ruleList {
	old := r.lists[row.Ref]
	l := &ruleList{list: row}
	if old != nil && old.list == row {
		l.names = old.names
	} else {
		l.names = model.AccessListSpec{Rules: row.Rules}.GroupNames()
	}
	for _, name := range l.names {
		l.groups = append(l.groups, g.Groups[model.Ref{Tenant: row.Ref.Tenant, Name: name}])
	}
	if old != nil && old.list == row && slices.Equal(old.groups, l.groups) {
		return old
	}
	l.digest = row.Digest()
	for _, x := range l.groups {
		if x != nil {
			l.digest = l.digest.Add(x.Digest())
		}
	}
	if old != nil && old.digest == l.digest { // the same rows have come again
		l.inbound, l.outbound = old.inbound, old.outbound
		return l
	}
	for _, rule := range row.Rules {
		w, matches := l.rule(rule)
		if !matches {
			continue
		}
		if rule.Judges(model.Inbound) {
			l.inbound = append(l.inbound, w)
		}
		if rule.Judges(model.Outbound) {
			l.outbound = append(l.outbound, w)
		}
	}
	slices.SortStableFunc(l.inbound, byWeight)
	slices.SortStableFunc(l.outbound, byWeight)
	l.inbound = append(l.inbound, l.byDefault(model.Inbound)...)
	l.outbound = append(l.outbound, l.byDefault(model.Outbound)...)
	return l
}

func byWeight(a, b weighted) int { return cmp.Compare(b.weight, a.weight) }

func (l *ruleList) byDefault(d model.Direction) []weighted {
	action := l.list.Default.Of(d)
	if action == "" {
		return nil
	}
	return []weighted{{noWeight, table.Rule{ID: model.RuleID{List: l.list.Ref, Rule: "default " + string(d)}, Action: ruleAction(action),
		AnyProtocol: true, ICMPType: -1, ICMPCode: -1}}}
}

// rule turns one rule into the switch's. One that names groups without an address matches nothing,
// and would match everything.
func (l *ruleList) rule(r model.AccessRule) (w weighted, matches bool) {
	protocol, anyProtocol, _ := model.ProtocolNumber(r.Protocol)
	t := table.Rule{ID: model.RuleID{List: l.list.Ref, Rule: r.Name}, Action: ruleAction(r.Action), Log: r.Log,
		Protocol: protocol, AnyProtocol: anyProtocol, LocalPorts: portRanges(r.LocalPorts), RemotePorts: portRanges(r.RemotePorts),
		ICMPType: -1, ICMPCode: -1, LocalMAC: r.LocalMAC, RemoteMAC: r.RemoteMAC, Stateful: r.Stateful, Idle: r.IdleTimeout}
	if r.ICMPType != nil {
		t.ICMPType = int16(*r.ICMPType)
	}
	if r.ICMPCode != nil {
		t.ICMPCode = int16(*r.ICMPCode)
	}
	var some bool
	if t.Local, some = l.addresses(r.Local); !some {
		return w, false
	}
	if t.Remote, some = l.addresses(r.Remote); !some {
		return w, false
	}
	return weighted{int(r.Weight), t}, true
}

// addresses of one side; some is false when they are none at all.
func (l *ruleList) addresses(a model.RuleAddresses) (out []netip.Prefix, some bool) {
	if len(a.Groups) == 0 {
		return a.Prefixes, true
	}
	if len(a.Groups) == 1 && len(a.Prefixes) == 0 { // shared, not copied
		if x := l.group(a.Groups[0]); x != nil {
			out = x.Prefixes
		}
		return out, len(out) > 0
	}
	out = slices.Clone(a.Prefixes)
	for _, name := range a.Groups {
		if x := l.group(name); x != nil {
			out = append(out, x.Prefixes...)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	out = slices.Compact(out)
	return out, len(out) > 0
}

func (l *ruleList) group(name string) *goal.Group {
	i, ok := slices.BinarySearch(l.names, name)
	if !ok {
		return nil
	}
	return l.groups[i]
}

func ruleAction(a model.RuleAction) table.RuleAction {
	switch a {
	case model.ActionAllow:
		return table.Allow
	case model.ActionPass:
		return table.Pass
	case model.ActionMeter:
		return table.Count
	}
	return table.Deny
}

func portRanges(all []model.Range) []table.PortRange {
	var out []table.PortRange
	for _, r := range all {
		out = append(out, table.PortRange(r))
	}
	return out
}

// part is a section before its rules are put together.
type part struct {
	kind  table.SectionKind
	audit bool
	lists []*ruleList
	rules []table.Rule // instead of lists: the port's own
}

// assemble puts the rule set of a port in one direction together; zero: it has none.
func (r *ruleSets) assemble(set *table.Set, p goal.Port, lists []usedList, d model.Direction) table.RuleSetKey {
	var parts []part
	parts = append(parts, partsOf(table.Administrator, once(tier(lists, model.TierAdministrator, "")), d)...)
	for _, level := range []model.Level{model.LevelNetwork, model.LevelSubnet, model.LevelPort} {
		parts = append(parts, partsOf(table.Tenant, tier(lists, model.TierTenant, level), d)...)
	}
	parts = append(parts, basicParts(p, d)...)
	parts = append(parts, partsOf(table.Default, once(tier(lists, model.TierDefault, "")), d)...)
	if len(parts) == 0 {
		return table.RuleSetKey{}
	}
	key := keyOf(parts, p, d)
	if set.RuleSets[key] != nil {
		return key
	}
	if kept := r.sets[key]; kept != nil {
		set.RuleSets[key] = kept
		return key
	}
	made := &table.RuleSet{}
	for _, x := range parts {
		made.Sections = append(made.Sections, table.Section{Kind: x.kind, Audit: x.audit, Rules: x.all(d)})
	}
	set.RuleSets[key] = made
	return key
}

// tier picks the lists of a tier, and of a level unless that is empty.
func tier(lists []usedList, t model.Tier, level model.Level) []*ruleList {
	var out []*ruleList
	for _, l := range lists {
		if l.list.Tier == t && (level == "" || l.level == level) {
			out = append(out, l.ruleList)
		}
	}
	return out
}

// once drops what reaches the port by a second level.
func once(lists []*ruleList) []*ruleList {
	var out []*ruleList
	for _, l := range lists {
		if !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

// partsOf makes one section of the lists that are enforced, and one of each that is in audit.
func partsOf(kind table.SectionKind, lists []*ruleList, d model.Direction) []part {
	enforced := part{kind: kind}
	var audits []part
	for _, l := range lists {
		switch {
		case len(l.of(d)) == 0:
		case l.list.Mode == model.ModeAudit:
			audits = append(audits, part{kind: kind, audit: true, lists: []*ruleList{l}})
		default:
			enforced.lists = append(enforced.lists, l)
		}
	}
	if len(enforced.lists) == 0 {
		return audits
	}
	return append([]part{enforced}, audits...)
}

func (l *ruleList) of(d model.Direction) []weighted {
	if d == model.Inbound {
		return l.inbound
	}
	return l.outbound
}

// all rules of the section, in their order.
func (x part) all(d model.Direction) []table.Rule {
	if x.lists == nil {
		return x.rules
	}
	var rules []weighted
	for _, l := range x.lists {
		rules = append(rules, l.of(d)...)
	}
	if len(x.lists) > 1 {
		slices.SortStableFunc(rules, byWeight)
	}
	out := make([]table.Rule, len(rules))
	for i, w := range rules {
		out[i] = w.rule
	}
	return out
}

// basicParts are the sections of a port's basic access list: of addresses, the longest prefix first.
func basicParts(p goal.Port, d model.Direction) []part {
	var macs, addresses []table.Rule
	for i, b := range p.Settings.ACL {
		if b.Direction != d && b.Direction != model.Both {
			continue
		}
		rule := table.Rule{ID: model.RuleID{List: p.Ref, Rule: fmt.Sprintf("acl[%d]", i)}, Action: ruleAction(b.Action), AnyProtocol: true, ICMPType: -1, ICMPCode: -1}
		if rule.LocalMAC, rule.RemoteMAC = b.LocalMAC, b.RemoteMAC; !b.LocalMAC.IsZero() || !b.RemoteMAC.IsZero() {
			macs = append(macs, rule)
			continue
		}
		for _, prefix := range b.Local {
			rule.Local = []netip.Prefix{prefix}
			addresses = append(addresses, rule)
		}
		for _, prefix := range b.Remote {
			rule.Remote = []netip.Prefix{prefix}
			addresses = append(addresses, rule)
		}
	}
	bits := func(r table.Rule) int { return append(slices.Clone(r.Local), r.Remote...)[0].Bits() }
	slices.SortStableFunc(addresses, func(a, b table.Rule) int { return cmp.Compare(bits(b), bits(a)) })
	var out []part
	if len(macs) > 0 {
		out = append(out, part{kind: table.BasicMAC, rules: macs})
	}
	if len(addresses) > 0 {
		out = append(out, part{kind: table.BasicIP, rules: addresses})
	}
	return out
}

// keyOf is a digest of everything that the set is made of.
func keyOf(parts []part, p goal.Port, d model.Direction) table.RuleSetKey {
	h := sha256.New()
	fmt.Fprintf(h, "%s\n", d)
	for _, x := range parts {
		fmt.Fprintf(h, "%d %t %d\n", x.kind, x.audit, len(x.lists))
		for _, l := range x.lists {
			h.Write(l.digest[:])
		}
		if x.lists == nil {
			b, _ := json.Marshal(p.Settings.ACL) // plain values: cannot fail
			fmt.Fprintf(h, "%s %d\n", p.Ref, len(b))
			h.Write(b)
		}
	}
	return table.RuleSetKey(h.Sum(nil)[:16])
}
