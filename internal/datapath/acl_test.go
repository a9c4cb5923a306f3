package datapath

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/classify"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/test/corpus"
)

func ruleID(name string) model.RuleID {
	return model.RuleID{List: model.Ref{Tenant: "t", Name: "list"}, Rule: name}
}

func portRule(name string, action table.RuleAction, port uint16) table.Rule {
	return table.Rule{ID: ruleID(name), Action: action, Protocol: 17, RemotePorts: []table.PortRange{{First: port, Last: port}}, ICMPType: -1, ICMPCode: -1}
}

// judge has a device's port judged by rules on its way out.
func (w *world) judge(ifindex uint32, rules ...table.Rule) {
	set := &table.RuleSet{Sections: []table.Section{{Kind: table.Tenant, Rules: rules}}}
	sum := sha256.Sum256(fmt.Append(nil, *set))
	p := w.set.Ports[ifindex]
	p.Outbound = table.RuleSetKey(sum[:16])
	w.set.Ports[ifindex] = p
	clear(w.set.RuleSets)
	w.set.RuleSets[p.Outbound] = set
}

func (w *world) hits(rule string) uint64 {
	w.t.Helper()
	all, err := w.RuleHits()
	if err != nil {
		w.t.Fatal(err)
	}
	return all[ruleID(rule)].Packets
}

func dns() []byte {
	return eth(macR, macA, 0x0800, ip4("10.0.0.5", "10.0.0.6", 17, 64, udp(1, 53, 10)))
}

// A restart forgets no count, and neither does a change that leaves a rule in place.
func TestRulesKeepTheirCounts(t *testing.T) {
	pins := pinDir(t)
	w := newWorld(t, Options{PinDir: pins})
	w.judge(uint32(w.a.Index), portRule("web", table.Allow, 80), portRule("dns", table.Deny, 53))
	w.apply(w.set, true)
	w.expect(FromPort, w.a, dns(), model.VerdictAclDenied, nil)
	w.judge(uint32(w.a.Index), portRule("more", table.Allow, 81), portRule("dns", table.Deny, 53))
	w.apply(w.set, true)
	w.expect(FromPort, w.a, dns(), model.VerdictAclDenied, nil)
	w.Close()
	w.Switch = open(t, Options{PinDir: pins})
	w.expect(FromPort, w.a, dns(), model.VerdictAclDenied, nil)
	w.apply(w.set, true)
	w.same(w.set)
	w.expect(FromPort, w.a, dns(), model.VerdictAclDenied, nil)
	if n := w.hits("dns"); n != 4 {
		t.Errorf("the rule has matched %d times, want 4", n)
	}
	w.judge(uint32(w.a.Index), portRule("more", table.Allow, 81))
	w.apply(w.set, true)
	w.judge(uint32(w.a.Index), portRule("dns", table.Deny, 53))
	w.apply(w.set, true)
	if n := w.hits("dns"); n != 0 {
		t.Errorf("a rule that is new has matched %d times", n)
	}
}

// What is changed in the kernel is found, and written anew.
func TestRulesThatAreNotTheirs(t *testing.T) {
	w := newWorld(t, Options{})
	w.judge(uint32(w.a.Index), portRule("dns", table.Deny, 53))
	w.apply(w.set, true)
	r := w.rules.regions[w.set.Ports[uint32(w.a.Index)].Outbound]
	memory, err := w.maps["rule"].Memory()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := memory.WriteAt([]byte{0xff}, int64(r.at)*blockBytes+int64(r.n)*blockBytes/2); err != nil {
		t.Fatal(err)
	}
	if _, err := w.ReadBack(); err == nil {
		t.Error("nobody says that the tables are others")
	}
	if err := w.Relearn(); err != nil {
		t.Fatal(err)
	}
	w.apply(w.set, true)
	w.same(w.set)
	w.expect(FromPort, w.a, dns(), model.VerdictAclDenied, nil)
}

// Rules that do not fit are refused before anything is written: the port keeps those it has, and a
// port that has none yet stays down.
func TestRulesThatDoNotFit(t *testing.T) {
	w := newWorld(t, Options{})
	w.judge(uint32(w.a.Index), portRule("dns", table.Deny, 53))
	w.apply(w.set, true)
	var counts []table.Rule
	for i := range classify.MaxCounts + 1 {
		r := portRule(fmt.Sprint(i), table.Count, 53)
		counts = append(counts, r)
	}
	w.judge(uint32(w.a.Index), counts...)
	b := w.set.Ports[uint32(w.b.Index)]
	b.ID, b.Inbound = 77, w.set.Ports[uint32(w.a.Index)].Outbound
	w.set.Ports[uint32(w.b.Index)] = b
	err := w.Apply(w.set, true)
	var refused *ErrRules
	if !errors.As(err, &refused) || len(refused.Ports) != 2 {
		t.Fatalf("the rules are taken, or refused as %v", err)
	}
	t.Log(err)
	w.expect(FromPort, w.a, dns(), model.VerdictAclDenied, nil)
	if n := w.hits("dns"); n != 1 {
		t.Errorf("the rule has matched %d times, want 1", n)
	}
	held, err := w.ReadBack()
	if err != nil {
		t.Fatal(err)
	}
	if p := held.Ports[b.IfIndex]; p.ID == b.ID {
		t.Error("a port is up without its rules")
	}
}

// A hundred thousand rules load in less than 5 seconds: on ten ports, and on one, whose list can be replaced by another as large.
func TestManyRulesLoad(t *testing.T) {
	for _, ports := range []int{10, 1} {
		w := newWorld(t, Options{})
		for version := range 3 - min(ports, 2) {
			manyRules(w, ports, 100_000/ports, byte(version))
			began, worked := time.Now(), processorTime(t)
			w.apply(w.set, true)
			took := time.Since(began)
			worked = processorTime(t) - worked
			used := uint32(0)
			for _, r := range w.rules.regions {
				used += r.n
			}
			t.Logf("100000 rules of %d ports loaded in %s, %s of them computing; their tables take %d KiB", ports, took, worked, used*blockBytes>>10)
			if limit := 5 * time.Second; took > limit && worked > limit || took > 4*limit { // others may have had the processor
				t.Error("that is too long")
			}
		}
		w.Close()
	}
}

// manyRules gives ports lists of their own.
func manyRules(w *world, ports, each int, version byte) {
	p := w.set.Ports[uint32(w.a.Index)]
	clear(w.set.RuleSets)
	for n := range uint32(ports) {
		c := corpus.New(uint64(n)+uint64(version), each, n%2 == 1, prefix("10.0.0.0/24"), prefix("fd00:a::/64"))
		p.IfIndex, p.ID, p.MAC[5] = 1000+n, model.PortID(1000+n), byte(100+n)
		set := &table.RuleSet{Sections: []table.Section{c.Section(table.Tenant, fmt.Sprint("list", n), each)}}
		p.Outbound = table.RuleSetKey{1, byte(n), version}
		w.set.Ports[p.IfIndex], w.set.RuleSets[p.Outbound] = p, set
	}
}

// processorTime is what this process has used so far.
func processorTime(t *testing.T) time.Duration {
	t.Helper()
	var used unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &used); err != nil {
		t.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

// What a rule logs is told at its pace, and all else of it is counted.
func TestRulesLog(t *testing.T) {
	w := newWorld(t, Options{})
	r := portRule("dns", table.Deny, 53)
	r.Log = true
	w.judge(uint32(w.a.Index), r)
	w.apply(w.set, true)
	ctx, done := context.WithTimeout(t.Context(), 30*time.Second)
	defer done()
	matches, err := w.RuleLog(ctx)
	if err != nil {
		t.Fatal(err)
	}
	told := func() RuleMatch {
		t.Helper()
		m, ok := <-matches
		if !ok {
			t.Fatal("nothing is told")
		}
		return m
	}
	const most = 11 // at once
	sent := uint64(0)
	send := func() {
		w.expect(FromPort, w.a, dns(), model.VerdictAclDenied, nil)
		sent++
	}
	for range 50 {
		send()
	}
	lines, suppressed := uint64(0), uint64(0)
	for range most {
		m := told()
		lines, suppressed = lines+1, suppressed+m.Suppressed
		want := table.Query{LocalMAC: macA, RemoteMAC: macR, IP: true, Local: addr("10.0.0.5"), Remote: addr("10.0.0.6"), Protocol: 17,
			Upper: table.ShowsPorts, LocalPort: 1, RemotePort: 53}
		if m.Rule != ruleID("dns") || m.Port != 1 || m.Direction != Outbound || m.Query != want || m.Length != uint32(len(dns())) {
			t.Fatalf("told %+v", m)
		}
	}
	for suppressed == 0 { // until the pace lets another through, which tells of all before
		send()
		select {
		case m := <-matches:
			lines, suppressed = lines+1, suppressed+m.Suppressed
		default:
		}
	}
	if lines+suppressed > sent || lines < most || suppressed < 50-most {
		t.Errorf("%d packets: %d are told, and %d suppressed", sent, lines, suppressed)
	}
}

// Whatever way the packets of a connection take, its rule counts each: through a restart, under other rules that still allow
// it, and under the first again, when its number has been another's.
func TestConnectionsCountForTheirRule(t *testing.T) {
	pins := pinDir(t)
	w := newWorld(t, Options{PinDir: pins})
	allow := func(name string) table.Rule {
		r := portRule(name, table.Allow, 53)
		r.Stateful, r.Idle = true, time.Minute
		return r
	}
	numbers, known := map[uint32]bool{}, 0
	run := func(times int) {
		t.Helper()
		if err := w.Vouch(time.Hour); err != nil {
			t.Fatal(err)
		}
		for range times {
			r, err := w.Run(FromPort, uint32(w.a.Index), dns())
			if err != nil || r.Verdict != model.VerdictEncapsulated {
				t.Fatalf("%s (%v)", r.Verdict, err)
			}
			if r.Known {
				known++
			}
		}
	}
	counts := func(rule string, want uint64) {
		t.Helper()
		numbers[w.rules.number[ruleHash(ruleID(rule))]] = true
		if n := w.hits(rule); n != want {
			t.Errorf("rule %s counts %d packets, want %d", rule, n, want)
		}
	}
	w.judge(uint32(w.a.Index), allow("first"))
	w.apply(w.set, true)
	run(7)
	counts("first", 7)
	w.Close()
	w.Switch = open(t, Options{PinDir: pins})
	run(7) // under the rules that it finds
	w.apply(w.set, true)
	run(7)
	counts("first", 21)
	w.judge(uint32(w.a.Index), allow("second"), allow("third"))
	w.apply(w.set, true)
	run(7)
	counts("second", 7)
	w.judge(uint32(w.a.Index), allow("first"))
	w.apply(w.set, true)
	run(7)
	counts("first", 7)
	if known < 10 {
		t.Errorf("%d packets took the known way", known)
	}
	if len(numbers) != 3 {
		t.Errorf("the rules had %d numbers; a rule that comes back is to have another", len(numbers))
	}
	if n := w.hits("second") + w.hits("third"); n != 0 {
		t.Errorf("rules that are gone count %d packets", n)
	}
}
