package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/model"
)

// liveOptions are the flags of trace --live.
type liveOptions struct {
	on, anyProto bool
	count        int
	duration     time.Duration
}

// liveSilence is how long nothing more must be seen of a packet until it is told of:
// messages of two hosts take their time.
const liveSilence = time.Second

// traceLive follows what the guest of a port and an address say to each other.
func (a *app) traceLive(ctx context.Context, r *weftv1.TraceRequest, live liveOptions, o output) error {
	switch {
	case o.format != "text" && o.format != "wide" && o.format != "json":
		return usagef("-o %s: with --live there are text, wide and json", o.format)
	case live.count <= 0 || live.duration < 0:
		return usagef("--count and --duration must be positive")
	case r.GetSize() != 0:
		return usagef("--size: with --live the guests' packets have the sizes that they have")
	}
	request, err := a.liveRequest(ctx, r, live)
	if err != nil {
		return err
	}
	ctx, cancel := endAfter(ctx, live.duration)
	defer cancel()
	f := newFollower(request)
	told := 0
	tell := func(now time.Time) error {
		for _, j := range f.settled(now) {
			if _, arrived := f.outcome(j); !arrived {
				f.lost++
			}
			if told++; o.format == "json" {
				for _, s := range j.seen {
					if err := writeJSONLine(a.out, &weftv1.CaptureResponse{From: s.from, Packets: []*weftv1.CapturedPacket{s.packet}}); err != nil {
						return err
					}
				}
			} else if err := a.printJourney(f, told, j, o.format == "wide" || told == 1); err != nil {
				return err
			}
			if told >= live.count {
				return errEnough
			}
		}
		return nil
	}
	err = a.captured(ctx, request, func(m *weftv1.CaptureResponse) error {
		if m.GetError() != "" {
			a.say("host %s: %s", m.GetFrom().GetHost(), m.GetError())
		}
		f.hear(m, time.Now())
		return tell(time.Now()) // agents speak every second
	})
	if told < live.count {
		err = errors.Join(err, ignoreEnough(tell(time.Now().Add(2*liveSilence))))
	}
	switch {
	case err != nil:
		return err
	case told == 0:
		return fmt.Errorf("the guest and %s said nothing to each other meanwhile that matches", r.GetTo())
	case f.lost > 0:
		return fmt.Errorf("%d of %d packets did not arrive", f.lost, told)
	}
	return nil
}

func ignoreEnough(err error) error {
	if errors.Is(err, errEnough) {
		return nil
	}
	return err
}

// liveRequest finds out where to look: at the port, and at the one that policy brings
// the packet to.
func (a *app) liveRequest(ctx context.Context, r *weftv1.TraceRequest, live liveOptions) (*weftv1.CaptureRequest, error) {
	operate, err := a.dial.operate()
	if err != nil {
		return nil, err
	}
	short, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	planned, err := operate.Trace(short, connect.NewRequest(r))
	if err != nil {
		return nil, err
	}
	out := &weftv1.CaptureRequest{Ports: []string{r.GetPort()}, Filter: &weftv1.CaptureFilter{Addresses: []string{r.GetTo()}, L4Port: r.GetDport(), Explain: true}}
	if !live.anyProto || r.GetDport() != 0 {
		out.Filter.Proto = r.GetProto()
	}
	source, err := a.sourceOf(short, r)
	if err != nil {
		return nil, err
	}
	if source != "" {
		out.Filter.Addresses = append(out.Filter.Addresses, source)
	}
	a.say("policy says: %s", planned.Msg.GetSummary())
	forward := planned.Msg.GetForward()
	if to := forward[len(forward)-1].GetToPort(); to != "" && to != r.GetPort() {
		out.Ports = append(out.Ports, to)
	}
	return out, nil
}

// sourceOf is the port's address of the destination's family, if it has just one.
func (a *app) sourceOf(ctx context.Context, r *weftv1.TraceRequest) (string, error) {
	policy, err := a.dial.policy()
	if err != nil {
		return "", err
	}
	tenant, name, err := parsePort(r.GetPort())
	if err != nil {
		return "", err
	}
	got, err := policy.Get(ctx, connect.NewRequest(&weftv1.GetRequest{Key: &weftv1.Key{Kind: string(model.KindPort), Tenant: tenant, Name: name}}))
	if err != nil {
		return "", err
	}
	to, err := netip.ParseAddr(r.GetTo())
	if err != nil {
		return "", err
	}
	var found []string
	for _, text := range got.Msg.GetResource().GetPort().GetSpec().GetAddresses() {
		if ca, err := netip.ParseAddr(text); err == nil && ca.Is4() == to.Unmap().Is4() {
			found = append(found, text)
		}
	}
	if len(found) != 1 {
		return "", nil
	}
	return found[0], nil
}

// sight is a packet at one point.
type sight struct {
	from   *weftv1.CaptureTarget
	packet *weftv1.CapturedPacket
}

// journey is one packet at all points where it was seen.
type journey struct {
	seen         []sight
	first, heard time.Time // of it, here
}

// title describes the packet as a guest sees it.
func (j *journey) title() string {
	for _, s := range j.seen {
		if p := s.packet.GetPoint(); p == "from-guest" || p == "to-guest" {
			return s.packet.GetSummary()
		}
	}
	return j.seen[0].packet.GetSummary()
}

func (j *journey) has(s sight) bool {
	return slices.ContainsFunc(j.seen, func(o sight) bool {
		return o.from.GetHost() == s.from.GetHost() && o.packet.GetPoint() == s.packet.GetPoint() && o.from.GetPort() == s.from.GetPort()
	})
}

type walkKey struct {
	host string
	walk uint64
}

// follower joins sights to journeys: on one host by the walk, between hosts by what
// tells packets apart.
type follower struct {
	watched map[string]bool // ports
	open    []*journey
	byWalk  map[walkKey]*journey
	byKey   map[uint64]*journey
	lost    int

	silent map[string]bool // targets that have said nothing yet
	ready  time.Time       // when the last of them did
}

func newFollower(r *weftv1.CaptureRequest) *follower {
	f := &follower{watched: map[string]bool{}, byWalk: map[walkKey]*journey{}, byKey: map[uint64]*journey{}, silent: map[string]bool{}}
	for _, p := range r.GetPorts() {
		f.watched[p], f.silent[p] = true, true
	}
	return f
}

// hear takes one message. Hosts do not begin at the same moment: what is first heard
// of before all have begun may be the half of something.
func (f *follower) hear(m *weftv1.CaptureResponse, now time.Time) {
	for _, p := range m.GetPackets() {
		f.add(m.GetFrom(), p, now)
	}
	if f.silent[m.GetFrom().GetPort()] {
		delete(f.silent, m.GetFrom().GetPort())
		f.ready = now.Add(liveSilence / 4)
	}
}

func (f *follower) whole(j *journey) bool { return len(f.silent) == 0 && j.first.After(f.ready) }

func (f *follower) add(from *weftv1.CaptureTarget, p *weftv1.CapturedPacket, now time.Time) {
	s := sight{from, p}
	w := walkKey{from.GetHost(), p.GetWalk()}
	j := f.byWalk[w]
	if j == nil || p.GetWalk() == 0 {
		j = f.byKey[p.GetPacketKey()]
	}
	if j == nil || j.has(s) {
		j = &journey{first: now}
		f.open = append(f.open, j)
	}
	j.seen, j.heard = append(j.seen, s), now
	if p.GetWalk() != 0 {
		f.byWalk[w] = j
	}
	if p.GetPacketKey() != 0 {
		f.byKey[p.GetPacketKey()] = j
	}
}

// settled gives the journeys of which nothing more is to be expected.
func (f *follower) settled(now time.Time) (done []*journey) {
	f.open = slices.DeleteFunc(f.open, func(j *journey) bool {
		if now.Sub(j.heard) < liveSilence {
			return false
		}
		done = append(done, j)
		return true
	})
	for _, j := range done {
		slices.SortStableFunc(j.seen, compareSights)
		for _, s := range j.seen {
			delete(f.byWalk, walkKey{s.from.GetHost(), s.packet.GetWalk()})
			if f.byKey[s.packet.GetPacketKey()] == j {
				delete(f.byKey, s.packet.GetPacketKey())
			}
		}
	}
	done = slices.DeleteFunc(done, func(j *journey) bool { return !f.whole(j) })
	slices.SortStableFunc(done, func(a, b *journey) int {
		return cmp.Compare(a.seen[0].packet.GetTimeUnixNano(), b.seen[0].packet.GetTimeUnixNano())
	})
	return done
}

// compareSights orders them as a packet comes by; clocks of hosts do not tell.
func compareSights(a, b sight) int {
	rank := func(s sight) int {
		switch s.packet.GetPoint() {
		case "from-guest":
			return 0
		case "to-underlay":
			return 2
		case "from-underlay":
			return 3
		case "dropped":
			if s.packet.GetDirection() == "inbound" {
				return 4
			}
			return 1
		}
		return 5
	}
	return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a.packet.GetTimeUnixNano(), b.packet.GetTimeUnixNano()))
}

// outcome says how the journey ended, and whether that is well.
func (f *follower) outcome(j *journey) (text string, arrived bool) {
	last := j.seen[len(j.seen)-1]
	for _, s := range j.seen {
		if v := model.Verdict(s.packet.GetVerdict()); s.packet.GetPoint() == "dropped" {
			return fmt.Sprintf("dropped on %s in stage %s: %s: %s\n     what to do: %s", s.from.GetHost(), s.packet.GetStage(),
				s.packet.GetVerdictName(), v.Info().Sentence, v.Info().Action), false
		}
	}
	switch p := last.packet; {
	case p.GetVerdictName() == "ANSWERED":
		return "answered by the switch of " + last.from.GetHost(), true
	case p.GetPoint() == "to-guest":
		return fmt.Sprintf("handed to %s on %s", cmp.Or(p.GetToPort(), p.GetPort()), last.from.GetHost()), true
	case p.GetPoint() == "from-guest" && p.GetToPort() != "" || p.GetVerdictName() == "FLOODED":
		return "delivered on " + last.from.GetHost(), true
	case p.GetPoint() == "to-underlay" && len(f.watched) > 1:
		return fmt.Sprintf("left %s and did not come in at the other host: lost in the underlay (weft doctor), or refused there before its port was known (weft drops)", last.from.GetHost()), false
	case p.GetPoint() == "to-underlay":
		return fmt.Sprintf("left %s for a place that is not watched", last.from.GetHost()), true
	case p.GetPoint() == "from-underlay":
		return fmt.Sprintf("came in on %s, and what became of it there was not captured", last.from.GetHost()), false
	}
	return fmt.Sprintf("was not seen any more after %s on %s", last.packet.GetPoint(), last.from.GetHost()), false
}

func (a *app) printJourney(f *follower, n int, j *journey, wide bool) error {
	first := j.seen[0]
	start := time.Unix(0, first.packet.GetTimeUnixNano())
	fmt.Fprintf(a.out, "#%d %s %s\n", n, start.Format("15:04:05.000000"), j.title())
	outcome, arrived := f.outcome(j)
	for _, s := range j.seen {
		a.printSight(s, start, wide || !arrived)
	}
	_, err := fmt.Fprintf(a.out, "  => %s\n", outcome)
	return err
}

func (a *app) printSight(s sight, start time.Time, wide bool) {
	p := s.packet
	since := time.Unix(0, p.GetTimeUnixNano()).Sub(start)
	fmt.Fprintf(a.out, "  %10s  %-8s %-13s %s, %d bytes", "+"+since.Round(time.Microsecond).String(), s.from.GetHost(), p.GetPoint(), captureVerdict(p), p.GetLength())
	if p.GetVsid() != 0 && (p.GetPoint() == "to-underlay" || p.GetPoint() == "from-underlay") {
		fmt.Fprintf(a.out, ", VSID %d", p.GetVsid())
	}
	fmt.Fprintln(a.out)
	if !wide {
		return
	}
	for _, note := range p.GetNotes() {
		fmt.Fprintf(a.out, "              - %s\n", note)
	}
	for _, step := range p.GetSteps() {
		fmt.Fprintf(a.out, "              %-10s %s\n", step.GetStage(), step.GetText())
	}
}
