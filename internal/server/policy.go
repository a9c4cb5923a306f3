package server

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"

	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/store"
)

// listener is who must hear of every change of policy, in order.
type listener interface {
	Sync(resources []model.Resource, revision int64)
	Apply(puts []model.Resource, deletes []model.Key, revision int64)
}

// policy is the server's copy of what is stored. The store's changes are the only
// thing that moves it: a write of our own comes back the same way as another server's.
type policy struct {
	store    *store.Store
	listener listener
	log      *slog.Logger
	metrics  *metrics

	writing sync.Mutex // our writes go one by one, so that they do not conflict with each other

	mu       sync.RWMutex
	state    *intent.State
	history  history
	synced   bool
	applied  int // changes taken from the store
	storeErr error
	moved    chan struct{} // closed and replaced when anything above changes
}

// Limits of a write.
const (
	maxAttempts = 20
	settleTime  = 10 * time.Second // for a change to come back from the store
)

func newPolicy(s *store.Store, l listener, log *slog.Logger, m *metrics) *policy {
	return &policy{store: s, listener: l, log: log, metrics: m, state: intent.NewState(), moved: make(chan struct{}),
		storeErr: errors.New("policy was not read yet")}
}

// follow keeps the copy true until ctx ends.
func (p *policy) follow(ctx context.Context) error {
	return p.store.Follow(ctx, p.apply, p.setStoreState)
}

func (p *policy) setStoreState(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if (err == nil) != (p.storeErr == nil) {
		if err != nil {
			p.log.Warn("store lost; hosts are served from memory", "error", err)
		} else {
			p.log.Info("store reached", "store", p.store.Where())
		}
	}
	p.storeErr = err
	p.wake()
}

// wake tells everyone who waits; p.mu is held.
func (p *policy) wake() {
	close(p.moved)
	p.moved = make(chan struct{})
}

// apply takes a change from the store. The listener hears first and readers see
// the revision after, so that a status read at a revision speaks of that revision.
func (p *policy) apply(c store.Change) {
	p.mu.RLock()
	cursors := p.state.Cursors()
	p.mu.RUnlock()
	if len(c.Extra) > 0 {
		if err := json.Unmarshal(c.Extra, &cursors); err != nil {
			p.log.Error("store: the serial key is damaged; allocation starts over", "error", err)
		}
	}
	if c.Snapshot {
		p.listener.Sync(c.Puts, c.Revision)
	} else {
		p.listener.Apply(c.Puts, c.Deletes, c.Revision)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.Snapshot {
		p.state.Replace(c.Puts, cursors, c.Revision)
		p.history.reset(c.Revision)
		p.synced = true
	} else {
		p.history.add(p.change(c, cursors)...)
	}
	p.applied++
	p.metrics.policy(p.state)
	p.wake()
}

// change moves the state and gives the events that watchers see, those of derived
// records among them. p.mu is held.
func (p *policy) change(c store.Change, cursors intent.Cursors) []event {
	sources := p.derivedSources(c)
	before := p.derived(sources)
	p.state.Apply(c.Puts, c.Deletes, cursors, c.Revision)
	after := p.derived(sources)
	var out []event
	for _, r := range c.Puts {
		out = append(out, event{model.KeyOf(r), r, c.Revision})
	}
	for _, k := range c.Deletes {
		out = append(out, event{k, nil, c.Revision})
	}
	for ref, l := range after {
		if old, ok := before[ref]; !ok || old.Spec != l.Spec {
			out = append(out, event{model.KeyOf(l), l, c.Revision})
		}
	}
	for ref, l := range before {
		if _, ok := after[ref]; !ok {
			out = append(out, event{model.Key{Kind: model.KindLookupRecord, Ref: l.Metadata.Ref()}, nil, c.Revision})
		}
	}
	return out
}

// derivedSources are the ports and subnets whose derived records a change may touch:
// themselves, and the ports of hosts whose addresses change.
func (p *policy) derivedSources(c store.Change) map[model.Key]struct{} {
	out := map[model.Key]struct{}{}
	hosts := map[string]struct{}{}
	touch := func(k model.Key) {
		switch k.Kind {
		case model.KindPort, model.KindVirtualSubnet:
			out[k] = struct{}{}
		case model.KindProviderAddress:
			if r, ok := p.state.Get(k); ok {
				hosts[r.(*model.ProviderAddress).Spec.Host] = struct{}{}
			}
		case model.KindPortProfile: // its ports may learn, or not any more
			for _, port := range p.state.Children(k) {
				out[port] = struct{}{}
			}
		}
	}
	for _, r := range c.Puts {
		touch(model.KeyOf(r))
		if pa, ok := r.(*model.ProviderAddress); ok {
			hosts[pa.Spec.Host] = struct{}{}
		}
	}
	for _, k := range c.Deletes {
		touch(k)
	}
	for h := range hosts {
		for _, k := range p.state.Children(model.Key{Kind: model.KindHost, Ref: model.Ref{Name: h}}) {
			if k.Kind == model.KindPort {
				out[k] = struct{}{}
			}
		}
	}
	return out
}

func (p *policy) derived(sources map[model.Key]struct{}) map[model.Ref]*model.LookupRecord {
	out := map[model.Ref]*model.LookupRecord{}
	for k := range sources {
		r, ok := p.state.Get(k)
		if !ok {
			continue
		}
		for _, l := range p.state.Derived(r) {
			out[l.Metadata.Ref()] = l
		}
	}
	return out
}

// decision judges the state; it may be called again when somebody else was faster.
type decision func(s *intent.State) (*intent.Result, []intent.Violation)

// preview decides without storing.
func (p *policy) preview(d decision) (*intent.Result, error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	res, violations := d(p.state)
	if len(violations) > 0 {
		return nil, violationError(violations)
	}
	return res, nil
}

// write decides and stores, and returns when this server's own copy has the change.
// The revision is that of the change, or the current one if nothing changes.
func (p *policy) write(ctx context.Context, d decision) (*intent.Result, int64, error) {
	p.writing.Lock()
	defer p.writing.Unlock()
	for range maxAttempts {
		p.mu.RLock()
		base, applied, storeErr := p.state.Revision(), p.applied, p.storeErr
		res, violations := d(p.state)
		p.mu.RUnlock()
		if storeErr != nil {
			return nil, 0, storeError(away(storeErr))
		}
		if len(violations) > 0 {
			return nil, 0, violationError(violations)
		}
		if len(res.Puts)+len(res.Deletes) == 0 {
			return res, base, nil
		}
		revision, err := p.commit(ctx, base, res)
		if err == nil {
			p.settle(context.WithoutCancel(ctx), func() bool { return p.state.Revision() >= revision })
			p.metrics.commits.WithLabelValues("stored").Inc()
			return p.stored(res, revision), revision, nil
		}
		if !errors.Is(err, store.ErrConflict) {
			p.metrics.commits.WithLabelValues("failed").Inc()
			return nil, 0, storeError(err)
		}
		p.metrics.commits.WithLabelValues("conflict").Inc()
		p.settle(ctx, func() bool { return p.applied != applied })
		if err := ctx.Err(); err != nil {
			return nil, 0, storeError(err)
		}
	}
	return nil, 0, storeError(store.ErrConflict)
}

// writeWhenPossible is write for what nobody waits for: while the store is away, it waits.
func (p *policy) writeWhenPossible(ctx context.Context, d decision) error {
	for {
		_, _, err := p.write(ctx, d)
		if connect.CodeOf(err) != connect.CodeUnavailable || ctx.Err() != nil {
			return err
		}
		p.settle(ctx, func() bool { return p.storeErr == nil })
	}
}

func (p *policy) commit(ctx context.Context, base int64, res *intent.Result) (int64, error) {
	extra, err := json.Marshal(res.Cursors)
	if err != nil {
		return 0, err
	}
	var deletes []store.Deletion
	for _, c := range res.Changes {
		if c.Action == intent.Deleted {
			deletes = append(deletes, store.Deletion{Key: c.Key, Revision: c.Before.Meta().Revision})
		}
	}
	return p.store.Commit(ctx, base, res.Puts, deletes, extra)
}

// stored gives the changes the revision that they were stored at.
func (p *policy) stored(res *intent.Result, revision int64) *intent.Result {
	for _, c := range res.Changes {
		if c.Action == intent.Created || c.Action == intent.Updated {
			c.After.Meta().Revision = revision
		}
	}
	return res
}

// settle waits, for a while, until is holds. is is called with p.mu read-locked.
func (p *policy) settle(ctx context.Context, is func() bool) bool {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	for {
		p.mu.RLock()
		ok, moved := is(), p.moved
		p.mu.RUnlock()
		if ok {
			return true
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return false
		}
	}
}

// ready says whether policy was read at all, and the store's state.
func (p *policy) ready() (synced bool, storeErr error) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.synced, p.storeErr
}

// read calls f with the state, which f must not keep.
func (p *policy) read(f func(s *intent.State)) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	f(p.state)
}

// get finds a stored or derived resource.
func (p *policy) get(k model.Key) (r model.Resource, ok bool) {
	p.read(func(s *intent.State) {
		if r, ok = s.Get(k); ok || k.Kind != model.KindLookupRecord {
			return
		}
		if l, found := s.DerivedByName(k.Ref); found {
			r, ok = l, true
		}
	})
	return r, ok
}

// list gives the stored and derived resources of a kind ("": all kinds) and tenant
// ("": all), and the revision that they are from.
func (p *policy) list(kind model.Kind, tenant string) ([]model.Resource, int64) {
	p.mu.RLock()
	defer p.mu.RUnlock()
	kinds := model.Kinds
	if kind != "" {
		kinds = []model.Kind{kind}
	}
	var out []model.Resource
	for _, k := range kinds {
		if tenant != "" && !k.Tenanted() && kind == "" {
			continue
		}
		if k.Tenanted() {
			out = append(out, p.state.List(k, tenant)...)
		} else {
			out = append(out, p.state.List(k, "")...)
		}
		if k == model.KindLookupRecord {
			for _, l := range p.state.AllDerived(tenant) {
				out = append(out, l)
			}
		}
	}
	return out, p.state.Revision()
}

// allocator draws from the real clock and real randomness.
func allocator() intent.Allocator {
	return intent.Allocator{Now: time.Now().UTC().Truncate(time.Millisecond), GUID: uuid.NewString, MAC: randomMAC}
}

// randomMAC is locally administered, 02:…
func randomMAC() model.MAC {
	var m model.MAC
	rand.Read(m[:]) // never fails since Go 1.24
	m[0] = 0x02
	return m
}

func isKind(k model.Kind) bool { return slices.Contains(model.Kinds, k) }
