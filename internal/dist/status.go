package dist

import (
	"cmp"
	"maps"
	"slices"
	"time"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/model"
)

// Failure is what a host could not do for a resource.
type Failure struct {
	Host    string
	Key     model.Key
	Reason  string // CamelCase
	Message string // for people
}

// Status is how far a resource has got to the hosts it concerns.
type Status struct {
	Revision  int64 // of the resource's last change; 0: not known, or removed
	Removing  bool  // the resource is gone and some host has not let go of it yet
	Desired   int   // hosts that must have it, or must let go of it
	Current   int   // of those, hosts that acknowledged it without failure
	Failures  []Failure
	Behind    []string      // hosts that have not acknowledged it, sorted
	OldestLag time.Duration // of the host that is furthest behind
}

// Programmed reports whether every host that must has acknowledged.
func (s Status) Programmed() bool { return s.Current == s.Desired }

// Status of a resource. A host that failed for the resource, or as a whole
// (a Failure of its Host), is not current.
func (d *Distributor) Status(key model.Key) Status {
	d.mu.Lock()
	defer d.mu.Unlock()
	revision, exists := d.changed[key]
	s := Status{Revision: revision, Removing: !exists && len(d.leaving[key]) > 0}
	now := d.cfg.Now()
	concern := d.compiled.Concern(key)
	for _, name := range concern {
		h := d.hosts[name]
		s.Desired++
		switch {
		case h == nil || h.behind(revision):
			s.behind(name, h, key, now)
		case h.failure(key) != nil:
			s.Failures = append(s.Failures, *h.failure(key))
		default:
			s.Current++
		}
	}
	for h := range d.leaving[key] {
		if _, also := slices.BinarySearch(concern, h.name); !also {
			s.Desired++
			s.behind(h.name, h, key, now)
		}
	}
	slices.Sort(s.Behind)
	slices.SortFunc(s.Failures, func(a, b Failure) int { return cmp.Compare(a.Host, b.Host) })
	return s
}

func (s *Status) behind(name string, h *host, key model.Key, now time.Time) {
	s.Behind = append(s.Behind, name)
	if h == nil {
		return
	}
	s.OldestLag = max(s.OldestLag, now.Sub(h.owes().since))
	if f := h.failure(key); f != nil {
		s.Failures = append(s.Failures, *f)
	}
}

// failure of a resource on the host, or of the host as a whole.
func (h *host) failure(key model.Key) *Failure {
	for _, k := range []model.Key{key, {Kind: model.KindHost, Ref: model.Ref{Name: h.name}}} {
		if f, ok := h.failures[k]; ok {
			return &f
		}
	}
	return nil
}

// noteLeaving remembers which hosts must let go of a resource: those it
// concerned before and does not now.
func (d *Distributor) noteLeaving(key model.Key, before []string, revision int64) {
	now := d.compiled.Concern(key)
	for _, name := range before {
		h := d.hosts[name]
		if _, still := slices.BinarySearch(now, name); still || h == nil || !h.behind(revision) {
			continue
		}
		if d.leaving[key] == nil {
			d.leaving[key] = map[*host]int64{}
		}
		d.leaving[key][h] = revision
		h.leaving[key] = struct{}{}
	}
}

// settleLeaving forgets the removals that the host has acknowledged.
func (d *Distributor) settleLeaving(h *host) {
	for key := range h.leaving {
		if !h.behind(d.leaving[key][h]) {
			d.left(key, h)
		}
	}
}

func (d *Distributor) left(key model.Key, h *host) {
	delete(h.leaving, key)
	delete(d.leaving[key], h)
	if len(d.leaving[key]) == 0 {
		delete(d.leaving, key)
	}
}

// HostState is what is known of one host.
type HostState struct {
	Name         string
	Connected    bool
	Sent         int64 // revision of the last Update; 0: none since the server started
	Acknowledged int64 // everything up to this revision is acknowledged; 0: nothing
	Ports        int   // that the Goal has
	Records      int
	Owes         bool          // it has not acknowledged all that concerns it
	Lag          time.Duration // since the oldest change that is not acknowledged; 0: none
	Failures     []Failure
	Version      string        // of the agent
	Facts        *hostv1.Facts // as last said; nil: never
}

// Hosts lists all hosts in policy, sorted by name.
func (d *Distributor) Hosts() []HostState {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]HostState, 0, len(d.hosts))
	for _, name := range slices.Sorted(maps.Keys(d.hosts)) {
		out = append(out, d.state(d.hosts[name]))
	}
	return out
}

// MTU of guests of a network on a host, as that has said; 0: not known.
func (d *Distributor) MTU(host string, network model.NetworkIndex) uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if h := d.hosts[host]; h != nil {
		return h.mtus[network]
	}
	return 0
}

// HasDevice reports whether host said that a device is plugged into the port, and
// whether it has said anything of devices.
func (d *Distributor) HasDevice(host string, port model.PortID) (plugged, known bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hosts[host]
	if h == nil || h.devices == nil {
		return false, false
	}
	_, plugged = h.devices[port]
	return plugged, true
}

func (d *Distributor) state(h *host) HostState {
	s := HostState{Name: h.name, Connected: h.session != nil, Sent: h.sent, Acknowledged: d.revision, Version: h.version, Facts: h.facts}
	s.Ports, s.Records = d.compiled.Rows(h.name)
	if owed := h.owes(); owed.owed() {
		s.Owes, s.Acknowledged, s.Lag = true, h.acked.revision, d.cfg.Now().Sub(owed.since)
	}
	s.Failures = slices.SortedFunc(maps.Values(h.failures), func(a, b Failure) int { return cmp.Compare(a.Key.String(), b.Key.String()) })
	return s
}

// Findings is what the host says of the guest of a port of its own.
func (d *Distributor) Findings(host string, port model.Ref) []Failure {
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hosts[host]
	if h == nil {
		return nil
	}
	return h.findings[model.Key{Kind: model.KindPort, Ref: port}]
}
