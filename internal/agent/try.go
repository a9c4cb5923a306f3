package agent

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/classify"
	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/hostwire"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// maxChanges bounds the rows of one answer.
const maxChanges = 10_000

// try says which of the flows that this host has seen a change of its Goal would judge otherwise.
func (a *Agent) try(q *hostv1.TryQuery) (*hostv1.TryAnswer, error) {
	delta, err := hostwire.Delta(q.GetChange())
	if err != nil {
		return nil, err
	}
	v, now := a.view.Load(), time.Now()
	counts, err := a.sw.FlowCounts()
	if err != nil {
		return nil, err
	}
	a.flows.keepPorts(func(id model.PortID) bool { _, ok := v.goal.Ports[id]; return ok })
	after := v.goal.Clone()
	delta.Apply(after)
	t := trial{agent: a, now: now, pending: counts.Pending, before: newJudges(v.goal), after: newJudges(after), touched: newTouched(v.goal, after, delta)}
	out := &hostv1.TryAnswer{Summary: &weftv1.FlowSummary{Host: a.cfg.Host, SinceUnixMs: a.flows.since.UnixMilli()}}
	for _, p := range v.portsOf(0, "") {
		if _, stays := after.Ports[p.ID]; !stays {
			continue // it moves to another host: nothing is deleted by what is tried
		}
		changes, flows, missed, err := t.port(p)
		if err != nil {
			return nil, fmt.Errorf("port %s: %w", p.Ref, err)
		}
		out.Changes = append(out.Changes, changes...)
		if flows >= 0 {
			out.Summary.Flows += uint64(flows)
			out.Summary.Missed += missed + counts.Missed[p.ID]
		}
	}
	slices.SortStableFunc(out.Changes, func(x, y *weftv1.FlowChange) int { return cmp.Compare(y.GetPackets(), x.GetPackets()) })
	out.Summary.Changed = uint64(len(out.Changes))
	out.Changes = out.Changes[:min(len(out.Changes), int(min(q.GetLimit(), maxChanges)))]
	out.Summary.LeftOut = out.Summary.Changed - uint64(len(out.Changes))
	return out, nil
}

// judges are the rules of a Goal's ports, ready to be asked.
type judges struct {
	goal   *goal.Goal
	sets   ruleSets
	lists  map[model.Ref]*ruleList
	made   table.Set
	tables map[table.RuleSetKey]*classify.Tables
}

func newJudges(g *goal.Goal) *judges {
	return &judges{g, ruleSets{map[model.Ref]*ruleList{}, map[table.RuleSetKey]*table.RuleSet{}}, map[model.Ref]*ruleList{}, table.NewSet(), map[table.RuleSetKey]*classify.Tables{}}
}

// keys of a port's rule sets: outbound, inbound.
func (j *judges) keys(id model.PortID) [2]table.RuleSetKey {
	p := j.goal.Ports[id]
	if len(p.Settings.Lists)+len(p.Settings.ACL) == 0 {
		return [2]table.RuleSetKey{}
	}
	lists, _ := j.sets.listsOf(j.goal, p, j.lists)
	return [2]table.RuleSetKey{j.sets.assemble(&j.made, p, lists, model.Outbound), j.sets.assemble(&j.made, p, lists, model.Inbound)}
}

// ruling is what rules say of the first packet of a flow.
type ruling struct {
	denied, follow bool // follow: the answers will pass
	by             model.RuleID
	reason         model.Verdict // that no rule is to blame for
}

func (j *judges) ask(key table.RuleSetKey, q table.Query) (ruling, error) {
	set := j.made.RuleSets[key]
	if set == nil {
		return ruling{}, nil
	}
	tables := j.tables[key]
	if tables == nil {
		var err error
		if tables, err = classify.Compile(*set); err != nil {
			return ruling{}, err
		}
		j.tables[key] = tables
	}
	said := tables.Lookup(q)
	out := ruling{denied: said.Denied}
	if said.By >= 0 {
		out.by = ruleAt(set, tables.Rules[said.By]).ID
	}
	for _, n := range said.Hits {
		at := tables.Rules[n]
		r := ruleAt(set, at)
		out.follow = out.follow || !said.Denied && r.Action == table.Allow && r.Stateful && !set.Sections[at.Section].Audit
	}
	return out, nil
}

func ruleAt(set *table.RuleSet, at table.RuleAt) *table.Rule {
	return &set.Sections[at.Section].Rules[at.Rule]
}

// trial is one try.
type trial struct {
	agent         *Agent
	now           time.Time
	pending       map[uint64]uint64
	before, after *judges
	touched       touched
	was, is       *course // nil: no port needed them yet
}

// port tries the flows of one port: -1 of them when the change means nothing for it.
func (t *trial) port(p goal.Port) (changes []*weftv1.FlowChange, flows int, missed uint64, err error) {
	before, after := t.before.keys(p.ID), t.after.keys(p.ID)
	if before == after && !t.touched.port(p) {
		return nil, -1, 0, nil
	}
	all, missed := t.agent.flows.of(p.ID, t.now)
	if err := t.agent.addConnections(all, p.ID, t.now); err != nil {
		return nil, 0, 0, err
	}
	for key, f := range all {
		was, err := t.before.flow(before, all, key)
		if err != nil {
			return nil, 0, 0, err
		}
		is, err := t.after.flow(after, all, key)
		if err != nil {
			return nil, 0, 0, err
		}
		if t.touched.port(p) {
			t.stop(p, f, &was, &is)
		}
		if was.denied != is.denied {
			changes = append(changes, t.change(p, f, was, is))
		}
	}
	slices.SortFunc(changes, func(x, y *weftv1.FlowChange) int {
		return cmp.Or(cmp.Compare(x.Direction, y.Direction), cmp.Compare(x.Local, y.Local), cmp.Compare(x.Remote, y.Remote), cmp.Compare(x.Protocol, y.Protocol),
			cmp.Compare(x.LocalPort, y.LocalPort), cmp.Compare(x.RemotePort, y.RemotePort), cmp.Compare(x.IcmpType, y.IcmpType))
	})
	return changes, len(all), missed, nil
}

// stop has what stops packets whatever rules say win over these.
func (t *trial) stop(p goal.Port, f flow, was, is *ruling) {
	if t.was == nil {
		t.was, t.is = newCourse(t.touched.before), newCourse(t.touched.after)
	}
	frame := t.was.frameOf(p, f)
	if frame == nil && !f.key.inbound {
		return
	}
	for _, x := range []struct {
		course *course
		said   *ruling
	}{{t.was, was}, {t.is, is}} {
		if v := x.course.stops(p, f, frame); v != model.VerdictContinue {
			*x.said = ruling{denied: true, reason: v}
		}
	}
}

// flow judges one. What is denied by itself passes if it answers a flow that opens a connection.
func (j *judges) flow(keys [2]table.RuleSetKey, all map[flowKey]flow, key flowKey) (ruling, error) {
	out, err := j.ask(keys[side(key)], all[key].query)
	if err != nil || !out.denied {
		return out, err
	}
	asked, seen := all[key.back()]
	if !seen {
		return out, nil
	}
	opens, err := j.ask(keys[side(asked.key)], asked.query)
	if err != nil || opens.denied || !opens.follow {
		return out, err
	}
	return opens, nil
}

func side(key flowKey) int {
	if key.inbound {
		return 1
	}
	return 0
}

// addConnections adds what the switch follows now: it may have been opened long ago, or before this process began.
func (a *Agent) addConnections(all map[flowKey]flow, port model.PortID, now time.Time) error {
	connections, _, _, err := a.sw.Connections(port)
	if err != nil {
		return err
	}
	for _, c := range connections {
		q := table.Query{IP: true, Local: c.Local, Remote: c.Remote, Protocol: c.Protocol}
		switch c.Protocol {
		case wire.ProtoTCP, wire.ProtoUDP:
			q.Upper, q.LocalPort, q.RemotePort = table.ShowsPorts, c.LocalPort, c.RemotePort
		case wire.ProtoICMP:
			q.Upper, q.ICMPType = table.ShowsType, wire.ICMPEchoRequest
		case wire.ProtoICMPv6:
			q.Upper, q.ICMPType = table.ShowsType, wire.ICMPv6EchoRequest
		}
		key := keyOfFlow(c.Inbound, q)
		f, known := all[key]
		if !known {
			f = flow{key: key, query: q}
		}
		if last := now.Add(-c.Quiet); last.After(f.last) {
			f.last = last
		}
		all[key] = f
	}
	return nil
}

func (t *trial) change(p goal.Port, f flow, was, is ruling) *weftv1.FlowChange {
	direction := datapath.Outbound
	if f.key.inbound {
		direction = datapath.Inbound
	}
	out := &weftv1.FlowChange{Host: t.agent.cfg.Host, Port: p.Ref.String(), Direction: direction.String(), Protocol: uint32(f.key.protocol),
		Local: f.key.local.String(), Remote: f.key.remote.String(), Before: was.message(), After: is.message(),
		Packets: f.packets, IdleMs: max(0, t.now.Sub(f.last).Milliseconds()), Sampled: f.sampled}
	for _, id := range f.ids {
		if id != 0 {
			out.Packets += t.pending[id]
		}
	}
	switch f.key.upper {
	case table.ShowsPorts:
		out.LocalPort, out.RemotePort = uint32(f.query.LocalPort), uint32(f.query.RemotePort)
		out.AnyLocalPort, out.AnyRemotePort = f.key.localPort != f.query.LocalPort, f.key.remotePort != f.query.RemotePort
	case table.ShowsType:
		out.IcmpType, out.IcmpCode = uint32(f.key.icmpType), uint32(f.key.icmpCode)
	}
	return out
}

func (r ruling) message() *weftv1.FlowVerdict {
	out := &weftv1.FlowVerdict{Denied: r.denied, List: listName(r.by), Rule: r.by.Rule}
	if r.reason != model.VerdictContinue {
		out.Reason = r.reason.String()
	}
	return out
}
