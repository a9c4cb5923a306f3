package agent

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// judged is a Goal with plugged ports, to which lists and groups are added.
type judged struct {
	*goal.Goal
	devices map[model.PortID]device
	sets    ruleSets
}

func newJudged() *judged {
	return &judged{Goal: goal.New(), devices: map[model.PortID]device{}}
}

func (j *judged) port(id model.PortID, uses ...string) {
	p := goal.Port{Ref: model.Ref{Tenant: "red", Name: fmt.Sprint("p", id)}, ID: id, VSID: 5001, Network: 1, MAC: model.MAC{2, 0, 0, 0, 0, byte(id)}}
	for _, u := range uses {
		level, list, _ := strings.Cut(u, " ")
		p.Settings.Lists = append(p.Settings.Lists, goal.ListUse{Level: model.Level(level), List: list})
	}
	j.Ports[id], j.devices[id] = p, device{ifindex: uint32(100 + id)}
}

func (j *judged) list(name string, tier model.Tier, change func(*goal.List), rules ...model.AccessRule) {
	l := &goal.List{Ref: model.Ref{Tenant: "red", Name: name}, Tier: tier, Mode: model.ModeEnforce, Rules: rules}
	if change != nil {
		change(l)
	}
	j.Lists[l.Ref] = l
}

func (j *judged) group(name string, prefixes ...string) {
	x := &goal.Group{Ref: model.Ref{Tenant: "red", Name: name}}
	for _, p := range prefixes {
		x.Prefixes = append(x.Prefixes, prefix(p))
	}
	j.Groups[x.Ref] = x
}

func (j *judged) render() (table.Set, []failure) {
	set := render(j.Goal, j.devices, underlay{mtu: 1500})
	failures := j.sets.render(&set, j.Goal, j.devices)
	return set, failures
}

// reads is a rule set as lines: "tenant: red/in https Allow".
func reads(set table.Set, key table.RuleSetKey) []string {
	var out []string
	if key == (table.RuleSetKey{}) {
		return nil
	}
	kinds := []string{"administrator", "tenant", "basic MAC", "basic IP", "default"}
	for _, s := range set.RuleSets[key].Sections {
		for _, r := range s.Rules {
			audit := ""
			if s.Audit {
				audit = " audit"
			}
			out = append(out, fmt.Sprintf("%s%s: %s %s", kinds[s.Kind], audit, r.ID, []string{"Allow", "Deny", "Pass", "Count"}[r.Action]))
		}
	}
	return out
}

func allow(name string, d model.Direction, weight uint16) model.AccessRule {
	return model.AccessRule{Name: name, Direction: d, Action: model.ActionAllow, Weight: weight}
}

func TestSectionsStandInTheOrderOfTheirTiers(t *testing.T) {
	j := newJudged()
	j.list("admin", model.TierAdministrator, nil, allow("a", model.Both, 0))
	j.list("net", model.TierTenant, nil, allow("n", model.Inbound, 0))
	j.list("light", model.TierTenant, func(l *goal.List) { l.Default.Inbound = model.ActionDeny }, allow("l", model.Inbound, 1), allow("l2", model.Inbound, 3))
	j.list("heavy", model.TierTenant, func(l *goal.List) { l.Default.Inbound = model.ActionAllow }, allow("h", model.Inbound, 2))
	j.list("watch", model.TierTenant, func(l *goal.List) { l.Mode = model.ModeAudit }, allow("w", model.Inbound, 9))
	j.list("last", model.TierDefault, func(l *goal.List) {
		l.Default = model.ListDefault{Inbound: model.ActionDeny, Outbound: model.ActionDeny}
	})
	j.port(1, "network admin", "network net", "network last", "subnet net", "port light", "port heavy", "port watch", "port admin")
	p := j.Ports[1]
	p.Settings.ACL = []model.BasicRule{
		{Action: model.ActionAllow, Direction: model.Both, Remote: []netip.Prefix{prefix("10.0.0.0/8")}},
		{Action: model.ActionDeny, Direction: model.Inbound, Remote: []netip.Prefix{prefix("10.1.0.0/16")}},
		{Action: model.ActionDeny, Direction: model.Inbound, RemoteMAC: model.MAC{2, 9}},
		{Action: model.ActionMeter, Direction: model.Inbound, Local: model.AnyAddress},
	}
	j.Ports[1] = p
	set, failures := j.render()
	if len(failures) > 0 {
		t.Fatal(failures)
	}
	want := []string{
		"administrator: red/admin a Allow",
		"tenant: red/net n Allow",
		"tenant: red/net n Allow",
		"tenant: red/light l2 Allow", "tenant: red/heavy h Allow", "tenant: red/light l Allow",
		"tenant: red/light default inbound Deny", "tenant: red/heavy default inbound Allow",
		"tenant audit: red/watch w Allow",
		"basic MAC: red/p1 acl[2] Deny",
		"basic IP: red/p1 acl[1] Deny", "basic IP: red/p1 acl[0] Allow", "basic IP: red/p1 acl[3] Count", "basic IP: red/p1 acl[3] Count",
		"default: red/last default inbound Deny",
	}
	if diff := cmp.Diff(want, reads(set, set.Ports[101].Inbound)); diff != "" {
		t.Errorf("inbound -want +got:\n%s", diff)
	}
	want = []string{"administrator: red/admin a Allow", "basic IP: red/p1 acl[0] Allow", "default: red/last default outbound Deny"}
	if diff := cmp.Diff(want, reads(set, set.Ports[101].Outbound)); diff != "" {
		t.Errorf("outbound -want +got:\n%s", diff)
	}
}

func TestARuleWhoseGroupsAreEmptyMatchesNothing(t *testing.T) {
	j := newJudged()
	rule := func(name string, groups ...string) model.AccessRule {
		return model.AccessRule{Name: name, Direction: model.Inbound, Action: model.ActionAllow, Protocol: "tcp", LocalPorts: []model.Range{{First: 443, Last: 443}},
			Remote: model.RuleAddresses{Groups: groups}, Stateful: true, IdleTimeout: time.Minute}
	}
	mixed := rule("mixed", "office", "empty")
	mixed.Remote.Prefixes = []netip.Prefix{prefix("192.168.0.0/16"), prefix("10.0.0.0/24")}
	j.list("in", model.TierTenant, nil, rule("none", "empty"), rule("one", "office"), mixed, rule("gone", "gone"))
	j.group("office", "10.0.0.0/24", "10.9.0.1/32")
	j.group("empty")
	j.port(1, "port in")
	set, failures := j.render()
	if len(failures) != 1 || !strings.Contains(failures[0].message, "names the group gone") {
		t.Errorf("%v", failures)
	}
	ruleOf := func(name string, prefixes ...string) table.Rule {
		r := table.Rule{ID: model.RuleID{List: model.Ref{Tenant: "red", Name: "in"}, Rule: name}, Protocol: 6, LocalPorts: []table.PortRange{{First: 443, Last: 443}},
			ICMPType: -1, ICMPCode: -1, Stateful: true, Idle: time.Minute}
		for _, p := range prefixes {
			r.Remote = append(r.Remote, prefix(p))
		}
		return r
	}
	want := []table.Rule{ruleOf("one", "10.0.0.0/24", "10.9.0.1/32"), ruleOf("mixed", "10.0.0.0/24", "10.9.0.1/32", "192.168.0.0/16")}
	got := set.RuleSets[set.Ports[101].Inbound].Sections[0].Rules
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestPortsWithEqualRulesShareASet(t *testing.T) {
	j := newJudged()
	j.list("in", model.TierTenant, nil, model.AccessRule{Name: "a", Direction: model.Inbound, Action: model.ActionDeny, Remote: model.RuleAddresses{Groups: []string{"office"}}})
	j.list("other", model.TierTenant, nil, allow("b", model.Inbound, 0))
	j.group("office", "10.0.0.0/24")
	j.port(1, "port in")
	j.port(2, "port in")
	j.port(3, "port other")
	first, _ := j.render()
	a, b, c := first.Ports[101], first.Ports[102], first.Ports[103]
	if a.Inbound != b.Inbound || a.Inbound == c.Inbound || a.Outbound != (table.RuleSetKey{}) || len(first.RuleSets) != 2 {
		t.Fatalf("%d sets: %x %x %x", len(first.RuleSets), a.Inbound, b.Inbound, c.Inbound)
	}
	// The same rows decoded again: nothing is made anew.
	for ref, l := range j.Lists {
		back, err := goal.DecodeList(l.Encode())
		if err != nil {
			t.Fatal(err)
		}
		j.Lists[ref] = back
	}
	again, _ := j.render()
	for key, s := range first.RuleSets {
		if again.RuleSets[key] != s {
			t.Error("a set was made anew though nothing has changed")
		}
	}
	// A group changes the sets that name it, and no other.
	j.group("office", "10.0.0.0/24", "10.1.0.0/24")
	changed, _ := j.render()
	if changed.Ports[101].Inbound == a.Inbound || changed.Ports[101].Inbound != changed.Ports[102].Inbound {
		t.Error("the change of the group did not reach the set")
	}
	if changed.Ports[103].Inbound != c.Inbound || changed.RuleSets[c.Inbound] != first.RuleSets[c.Inbound] {
		t.Error("a set that does not name the group was made anew")
	}
	if len(changed.RuleSets) != 2 {
		t.Errorf("%d sets are kept", len(changed.RuleSets))
	}
}

// hundredThousand is a host whose ten ports have ten lists of 10,000 rules each.
func hundredThousand() *judged {
	j := newJudged()
	j.group("office", "10.0.0.0/24", "10.9.0.1/32")
	for n := range 10 {
		rules := make([]model.AccessRule, 10000)
		for i := range rules {
			rules[i] = model.AccessRule{Name: fmt.Sprint("rule-", i), Direction: model.Inbound, Action: model.ActionAllow, Protocol: "tcp", Weight: uint16(i * 7),
				Remote:     model.RuleAddresses{Prefixes: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(n), byte(i >> 8), byte(i)}), 32)}},
				LocalPorts: []model.Range{{First: uint16(i), Last: uint16(i) + 10}}}
			if i%10 == 0 {
				rules[i].Remote.Groups = []string{"office"}
			}
		}
		name := fmt.Sprint("list-", n)
		j.list(name, model.TierTenant, nil, rules...)
		j.port(model.PortID(n+1), "port "+name)
	}
	return j
}

func BenchmarkRuleSetsOf100kRules(b *testing.B) {
	j := hundredThousand()
	for b.Loop() {
		j.sets = ruleSets{}
		j.render()
	}
}

func BenchmarkRuleSetsAfterAChangeOfOneListOfTen(b *testing.B) {
	j := hundredThousand()
	j.render()
	ref := model.Ref{Tenant: "red", Name: "list-3"}
	for i := 0; b.Loop(); i++ {
		next := &goal.List{Ref: ref, Tier: model.TierTenant, Mode: model.ModeEnforce, Rules: j.Lists[ref].Rules}
		next.Default.Inbound = []model.RuleAction{model.ActionAllow, model.ActionDeny}[i%2]
		j.Lists[ref] = next
		j.render()
	}
}

func BenchmarkRuleSetsWithoutAChange(b *testing.B) {
	j := hundredThousand()
	j.render()
	for b.Loop() {
		j.render()
	}
}
