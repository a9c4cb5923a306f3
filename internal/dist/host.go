package dist

import (
	"time"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// maxPending is how many keys wait for a slow host one by one; beyond that a
// snapshot is cheaper to keep.
const maxPending = 20_000

// position is a Goal as far as the stream is concerned.
type position struct {
	revision int64
	digest   goal.Digest
}

// debt is what a host has not acknowledged: the revision and time of the oldest
// change in it. Zero: nothing.
type debt struct {
	revision int64
	since    time.Time
}

func (t debt) owed() bool { return t.revision != 0 }

// older gives the debt of both together.
func (t debt) older(u debt) debt {
	switch {
	case !t.owed():
		return u
	case !u.owed():
		return t
	case u.revision < t.revision:
		t.revision = u.revision
	}
	if u.since.Before(t.since) {
		t.since = u.since
	}
	return t
}

// host is what is known of one host, guarded by Distributor.mu.
//
// A change is first waiting, then — with all that came meanwhile, in one Update —
// flying, then acknowledged. While the session is away it waits as a snapshot.
type host struct {
	name    string
	session *session // nil while away

	greeting bool         // the session has had no Update yet
	snapshot bool         // the agent's Goal is unknown: send all of it
	pending  goal.Pending // or this
	waiting  debt
	flying   debt
	flight   *position // that the agent must acknowledge; nil: nothing under way
	sent     int64     // revision of the last Update
	acked    position
	wrong    int // digests in a row that did not fit

	failures map[model.Key]Failure
	leaving  map[model.Key]struct{} // resources whose removal here is not acknowledged yet

	instance string // of the last session's agent
	version  string
	facts    *hostv1.Facts
	findings map[model.Key][]Failure       // of guests, by their port
	mtus     map[model.NetworkIndex]uint32 // of guests
	devices  map[model.PortID]struct{}     // ports that a device is plugged into; nil: never said
}

// newHost owes everything: what the host holds is not known.
func newHost(name string, now time.Time) *host {
	return &host{name: name, waiting: debt{1, now}, failures: map[model.Key]Failure{}, leaving: map[model.Key]struct{}{}}
}

// change takes over what a revision means for the host.
func (h *host) change(d goal.Delta, revision int64, now time.Time) {
	h.waiting = h.waiting.older(debt{revision, now})
	if h.session == nil || h.snapshot {
		return
	}
	h.pending.Add(d)
	if h.pending.Rows() > maxPending {
		h.pending, h.snapshot = goal.Pending{}, true
	}
	h.session.stir()
}

// overtake makes everything unsent and owed: neither the difference is known nor
// since which revision there is one.
func (h *host) overtake(now time.Time) {
	h.waiting = h.waiting.older(debt{1, now})
	h.pending, h.snapshot = goal.Pending{}, true
	if h.session != nil {
		h.session.stir()
	}
}

// arrive begins a session with an agent that holds a Goal of one digest and
// should hold another. What a process acknowledged does not speak for the next
// one, which may have started with an empty kernel.
func (h *host) arrive(s *session, held, want goal.Digest, now time.Time) {
	if held != want || s.instance != h.instance {
		h.waiting = h.waiting.older(debt{1, now})
	}
	if s.instance != h.instance {
		h.devices, h.findings = nil, nil
	}
	h.session, h.instance, h.greeting, h.snapshot, h.pending, h.wrong = s, s.instance, true, held != want, goal.Pending{}, 0
	s.stir()
}

// depart ends the session; what was flying waits again.
func (h *host) depart() {
	h.session, h.pending = nil, goal.Pending{}
	h.waiting, h.flying, h.flight = h.waiting.older(h.flying), debt{}, nil
}

// take gives what to send now, or false. Everything that waits flies then.
func (h *host) take(now position) (whole bool, d goal.Delta, ok bool) {
	if h.flight != nil || !h.greeting && !h.snapshot && h.pending.Rows() == 0 {
		return false, d, false
	}
	// Whoever sent two wrong digests in a row will send a third: wait for a heartbeat.
	if h.wrong > 1 {
		return false, d, false
	}
	whole, d = h.snapshot, h.pending.Take()
	h.greeting, h.snapshot = false, false
	h.flying, h.waiting = h.waiting, debt{}
	h.flight, h.sent = &now, now.revision
	return whole, d, true
}

// acknowledge takes the agent's word for a position. It reports false for a
// digest that does not fit; then everything is sent again.
func (h *host) acknowledge(p position, failures map[model.Key]Failure) bool {
	if p == h.acked {
		h.failures = failures
	}
	if h.flight == nil || p.revision != h.flight.revision {
		return true
	}
	if p.digest != h.flight.digest {
		h.waiting, h.flying, h.flight = h.waiting.older(h.flying), debt{}, nil
		h.pending, h.snapshot = goal.Pending{}, true
		h.wrong++
		return false
	}
	h.acked, h.failures, h.wrong = p, failures, 0
	h.flying, h.flight = debt{}, nil
	return true
}

// owes is the oldest change that the host has not acknowledged.
func (h *host) owes() debt { return h.waiting.older(h.flying) }

// behind reports whether a change of the revision, or an older one, is not acknowledged.
func (h *host) behind(revision int64) bool {
	owed := h.owes()
	return owed.owed() && owed.revision <= revision
}

func (h *host) end(why error) {
	if h.session != nil {
		h.session.end(why)
	}
}
