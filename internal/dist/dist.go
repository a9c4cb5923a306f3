// Package dist brings every host its Goal and knows the truth about it: one
// session per host, a snapshot when the agent's Goal is unknown, deltas after
// that, and what each host has acknowledged.
//
// Invariants: a host has at most one Update under way; what changes meanwhile is
// merged key by key, so a slow host costs a bounded amount of memory and no other
// host any time. Large Updates take turns, and who does not read loses its own. Nothing is sent before the first Sync: an empty Goal would take
// running guests off the network. A resource counts as programmed on a host only
// when the host has said so.
// It must never read or write the store; what it must ask the server comes
// through Config.
package dist

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/compile"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/model"
)

// Config is what a Distributor needs from the server around it. Callbacks may
// block; they are called without any lock held.
type Config struct {
	Logger    *slog.Logger     // default: slog.Default()
	Heartbeat time.Duration    // between heartbeats, both ways; default 10 s; three missed end a session
	Now       func() time.Time // default: time.Now
	Version   string           // of the server, for the agents' logs
	Settings  goal.Settings    // of the fleet

	// Host names the host that a request comes from, out of its verified client
	// certificate. An error refuses the request.
	Host func(*http.Request) (identity.Principal, error)

	Join  func(context.Context, *hostv1.JoinRequest) (*hostv1.JoinResponse, error)
	Renew func(ctx context.Context, host identity.Principal, r *hostv1.RenewRequest) (*hostv1.JoinResponse, error)
	// Bind and Unbind give the revision of the change, 0 if nothing had to change.
	Bind   func(ctx context.Context, host identity.Principal, port model.Ref) (revision int64, err error)
	Unbind func(ctx context.Context, host identity.Principal, port model.Ref) (revision int64, err error)
	// Learn takes what host saw of the guest of one of its ports.
	Learn func(ctx context.Context, host identity.Principal, r *hostv1.ReportAddressesRequest) (*hostv1.ReportAddressesResponse, error)
	// Facts is told what a host says of itself, at the start of a session and
	// when it changes. Optional.
	Facts func(ctx context.Context, host string, facts *hostv1.Facts)
}

// Distributor holds the compiled policy and the sessions. Its methods may be
// called from any goroutine.
type Distributor struct {
	cfg Config

	mu       sync.Mutex
	ready    bool // Sync has been called
	revision int64
	compiled *compile.Compiler
	changed  map[model.Key]int64 // revision of the last change of each resource
	hosts    map[string]*host    // by name of the Host resource
	leaving  map[model.Key]map[*host]int64
	watchers map[chan struct{}]struct{}
	query    uint64
	captures map[string]*capture // by id

	turns chan struct{} // holds one for each large Update that is made and sent
}

const (
	defaultHeartbeat = 10 * time.Second
	missedHeartbeats = 3
)

// New returns a Distributor that refuses sessions until Sync.
func New(cfg Config) *Distributor {
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.Heartbeat <= 0 {
		cfg.Heartbeat = defaultHeartbeat
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Distributor{
		cfg:      cfg,
		compiled: compile.New().With(cfg.Settings),
		changed:  map[model.Key]int64{},
		hosts:    map[string]*host{},
		leaving:  map[model.Key]map[*host]int64{},
		watchers: map[chan struct{}]struct{}{},
		captures: map[string]*capture{},
		turns:    make(chan struct{}, maxLarge),
	}
}

// Sync replaces all resources by those of a revision: at the start, and when
// the store cannot say what has changed since. Hosts whose Goal comes out as it
// was notice nothing. The resources must not change afterwards.
func (d *Distributor) Sync(resources []model.Resource, revision int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := d.compiled
	after := compile.Full(resources).With(d.cfg.Settings)
	d.ready, d.revision, d.compiled = true, revision, after

	keys := differing(before, after)
	for _, key := range keys {
		if madeAnew(before, after, key) {
			d.partHost(key.Name)
		}
		d.noteChange(key, revisionOf(after, key, revision))
	}
	for name, h := range d.hosts {
		if before.Digest(name) != after.Digest(name) {
			h.overtake(d.cfg.Now())
		}
	}
	for _, key := range keys {
		d.noteLeaving(key, before.Concern(key), revision)
	}
	d.notify()
}

// Apply takes one transaction: deletes, then puts. The resources must not
// change afterwards.
func (d *Distributor) Apply(puts []model.Resource, deletes []model.Key, revision int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	keys := slices.Clone(deletes)
	for _, r := range puts {
		keys = append(keys, model.KeyOf(r))
	}
	before := make([][]string, len(keys))
	for i, key := range keys {
		before[i] = d.compiled.Concern(key)
	}
	deltas := d.compiled.Apply(puts, deletes)
	d.revision = revision
	for _, key := range keys {
		d.noteChange(key, revision)
	}
	for name, delta := range deltas {
		if h := d.hosts[name]; h != nil {
			h.change(delta, revision, d.cfg.Now())
		}
	}
	for i, key := range keys {
		d.noteLeaving(key, before[i], revision)
	}
	d.notify()
}

// differing lists the resources that two compilations do not have alike.
func differing(before, after *compile.Compiler) []model.Key {
	var keys []model.Key
	for _, r := range before.Resources() {
		if _, ok := after.Resource(model.KeyOf(r)); !ok {
			keys = append(keys, model.KeyOf(r))
		}
	}
	for _, r := range after.Resources() {
		old, ok := before.Resource(model.KeyOf(r))
		if !ok || r.Meta().Revision == 0 || old.Meta().Revision != r.Meta().Revision {
			keys = append(keys, model.KeyOf(r))
		}
	}
	return keys
}

// madeAnew reports whether a Host was deleted and created again between two
// compilations: it is another one, whatever its name.
func madeAnew(before, after *compile.Compiler, key model.Key) bool {
	if key.Kind != model.KindHost {
		return false
	}
	was, ok := before.Resource(key)
	is, still := after.Resource(key)
	return ok && still && was.Meta().UID != is.Meta().UID
}

// uidOf the Host resource of a name; "" if there is none.
func (d *Distributor) uidOf(host string) string {
	r, ok := d.compiled.Resource(model.Key{Kind: model.KindHost, Ref: model.Ref{Name: host}})
	if !ok {
		return ""
	}
	return r.Meta().UID
}

// revisionOf is when a resource last changed: as the store says, if it does.
func revisionOf(c *compile.Compiler, key model.Key, otherwise int64) int64 {
	if r, ok := c.Resource(key); ok && r.Meta().Revision != 0 {
		return r.Meta().Revision
	}
	return otherwise
}

// noteChange remembers when a resource changed; hosts come and go with theirs.
func (d *Distributor) noteChange(key model.Key, revision int64) {
	if _, ok := d.compiled.Resource(key); !ok {
		delete(d.changed, key)
		if key.Kind == model.KindHost {
			d.partHost(key.Name)
		}
		return
	}
	d.changed[key] = revision
	if key.Kind == model.KindHost && d.hosts[key.Name] == nil {
		d.hosts[key.Name] = newHost(key.Name, d.cfg.Now())
	}
}

// partHost ends everything with a host that is no longer in policy.
func (d *Distributor) partHost(name string) {
	h := d.hosts[name]
	if h == nil {
		return
	}
	delete(d.hosts, name)
	h.end(errNotInPolicy(name))
	for key := range h.leaving {
		d.left(key, h)
	}
}

// Changed gives a channel that carries a value after the truth about some
// resource or host may have changed; changes close together count once. Call
// stop when done.
func (d *Distributor) Changed() (changes <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.watchers[c] = struct{}{}
	return c, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.watchers, c)
	}
}

func (d *Distributor) notify() {
	for c := range d.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// HostDifference is what a change means for one host, in lines for people.
type HostDifference struct {
	Host           string
	Added, Removed []string
}

// Preview says what Apply would mean for the hosts, sorted by name, and changes nothing.
func (d *Distributor) Preview(puts []model.Resource, deletes []model.Key) []HostDifference {
	d.mu.Lock()
	defer d.mu.Unlock()
	oldPuts, oldDeletes := d.undo(puts, deletes)
	forth := d.compiled.Apply(puts, deletes)
	// Leading back, a Delta puts the rows as they were: just what is removed.
	back := d.compiled.Apply(oldPuts, oldDeletes)
	out := make([]HostDifference, 0, len(forth))
	for name, delta := range forth {
		out = append(out, HostDifference{name, delta.Lines("+"), back[name].Lines("-")})
	}
	slices.SortFunc(out, func(a, b HostDifference) int {
		if a.Host < b.Host {
			return -1
		}
		return 1
	})
	return out
}

// undo gives the transaction that takes another one back.
func (d *Distributor) undo(puts []model.Resource, deletes []model.Key) (oldPuts []model.Resource, oldDeletes []model.Key) {
	keep := func(key model.Key) bool {
		old, ok := d.compiled.Resource(key)
		if ok {
			oldPuts = append(oldPuts, old)
		}
		return ok
	}
	for _, key := range deletes {
		keep(key)
	}
	for _, r := range puts {
		if key := model.KeyOf(r); !keep(key) {
			oldDeletes = append(oldDeletes, key)
		}
	}
	return oldPuts, oldDeletes
}

// Goal is what a host should contain now, and of which revision.
func (d *Distributor) Goal(name string) (*goal.Goal, int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.compiled.Goal(name), d.revision
}
