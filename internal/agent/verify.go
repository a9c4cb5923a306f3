package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// maxDifferences bounds one answer; the last line then says how many are left.
const maxDifferences = 1000

// verify compares what the kernel holds with what the Goal, the devices and the
// underlay of this moment ask for.
func (l *loop) verify(ctx context.Context) (revision int64, differences []string, err error) {
	type answer struct {
		revision    int64
		differences []string
		err         error
	}
	got, err := onLoop(ctx, l.Agent, func() answer {
		l.reconcile() // judge by the present, not by what the last event left
		v := l.view.Load()
		have, err := l.sw.ReadBack()
		if err != nil {
			return answer{err: fmt.Errorf("read the switch: %w", err)}
		}
		return answer{v.revision, append(differ(v.want, have, v.synced), l.missing(v.want)...), nil}
	})
	if err != nil {
		return 0, nil, err
	}
	if n := len(got.differences); n > maxDifferences {
		got.differences = append(got.differences[:maxDifferences], fmt.Sprintf("and %d more", n-maxDifferences))
	}
	return got.revision, got.differences, got.err
}

// audit repairs rows and attachments that somebody else changed, and counts them.
func (l *loop) audit() {
	l.stale = netdev.ChangeAll // nobody tells of a new path MTU, for one
	l.reconcile()
	if l.trouble {
		return // the retries see to it
	}
	v := l.view.Load()
	have, err := l.sw.ReadBack()
	drift := append(differ(v.want, have, v.synced), l.missing(v.want)...)
	if err != nil {
		drift = append(drift, err.Error())
	}
	if len(drift) == 0 {
		return
	}
	l.log.Error("the kernel differs from policy; repairing", "differences", len(drift), "first", drift[0])
	l.counts.drifted(len(drift))
	// The switch writes what changed since it last wrote: it must know of the drift.
	if err := l.sw.Relearn(); err != nil {
		l.log.Error("the switch could not be read for the audit", "error", err)
	}
	l.trouble, l.queues, l.shares = true, nil, nil // the last pass does not count any more
	l.reconcile()
}

// missing lists what belongs to the switch beside its rows.
func (l *loop) missing(want table.Set) []string {
	return slices.Concat(l.unattached(), l.unshaped(want), l.unshared(want))
}

// unattached lists plugged and present devices that the switch is not on.
func (l *loop) unattached() []string {
	ports, uplinks, err := l.sw.Attached()
	if err != nil {
		return []string{"attachments: " + err.Error()}
	}
	var out []string
	for ref, p := range l.plugs {
		if p.ifindex != 0 && !slices.Contains(ports, p.ifindex) {
			out = append(out, fmt.Sprintf("port %s: the switch is not on %s", ref, p.Device))
		}
	}
	for index, name := range l.under.uplinks {
		if !slices.Contains(uplinks, index) {
			out = append(out, fmt.Sprintf("uplink %s: the switch is not on it", name))
		}
	}
	slices.Sort(out)
	return out
}

// differ describes every row that want and have disagree about, sorted by
// table. Rows that are only in have count when extra is set.
func differ(want, have table.Set, extra bool) []string {
	var out []string
	if want.Settings != have.Settings {
		out = append(out, fmt.Sprintf("settings: the kernel holds %+v, should be %+v", have.Settings, want.Settings))
	}
	out = append(out, differences("port", want.Ports, have.Ports, extra)...)
	out = append(out, differences("port on a VLAN", want.VLANPorts, have.VLANPorts, extra)...)
	out = append(out, differences("record", want.Records, have.Records, extra)...)
	out = append(out, differences("route", want.Routes, have.Routes, extra)...)
	out = append(out, differences("peer", want.Peers, have.Peers, extra)...)
	out = append(out, differences("path", want.Paths, have.Paths, extra)...)
	out = append(out, differences("outer source", want.Sources, have.Sources, extra)...)
	out = append(out, differences("allowed source", want.Allowed, have.Allowed, extra)...)
	out = append(out, differences("forwarder", want.Forwarders, have.Forwarders, extra)...)
	out = append(out, differences("isolation", want.Isolations, have.Isolations, extra)...)
	out = append(out, differences("local PA", want.LocalPAs, have.LocalPAs, extra)...)
	out = append(out, differences("rewrite of", want.RewriteOut, have.RewriteOut, extra)...)
	out = append(out, differences("rewritten PA", want.RewriteIn, have.RewriteIn, extra)...)
	out = append(out, differences("flood", want.Floods, have.Floods, extra)...)
	out = append(out, differences("mirror", want.Mirrors, have.Mirrors, extra)...)
	out = append(out, differences("source of copies", want.MirrorSources, have.MirrorSources, extra)...)
	out = append(out, differences("bandwidth", want.Shapes, have.Shapes, extra)...)
	out = append(out, differences("share", want.Shares, have.Shares, extra)...)
	out = append(out, differences("member", want.Members, have.Members, extra)...)
	out = append(out, differences("rule set", named(want.RuleSets), named(have.RuleSets), extra)...)
	return out
}

// named are the keys of rule sets, which say what is in them.
func named(sets map[table.RuleSetKey]*table.RuleSet) map[table.RuleSetKey]struct{} {
	out := make(map[table.RuleSetKey]struct{}, len(sets))
	for k := range sets {
		out[k] = struct{}{}
	}
	return out
}

func differences[K comparable, V comparable](name string, want, have map[K]V, extra bool) []string {
	var out []string
	for k, w := range want {
		h, ok := have[k]
		switch {
		case !ok:
			out = append(out, fmt.Sprintf("%s %v: missing in the kernel, should be %+v", name, k, w))
		case h != w:
			out = append(out, fmt.Sprintf("%s %v: the kernel holds %+v, should be %+v", name, k, h, w))
		}
	}
	if extra {
		for k := range maps.Keys(have) {
			if _, ok := want[k]; !ok {
				out = append(out, fmt.Sprintf("%s %v: in the kernel, not in policy", name, k))
			}
		}
	}
	slices.Sort(out)
	return out
}
