package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/weft-sdn/weft/internal/model"
)

// Change is one revision of policy. A Snapshot is all of it: what is not in Puts
// does not exist.
type Change struct {
	Snapshot bool
	Puts     []model.Resource
	Deletes  []model.Key
	Extra    json.RawMessage // nil: not said by this change
	Revision int64
}

// Pauses between attempts to reach a store that is away, and between looks at it.
const (
	firstPause  = 50 * time.Millisecond
	lastPause   = 2 * time.Second
	beatEvery   = time.Second
	beatTimeout = 3 * time.Second
)

// Follow calls apply with policy as it is, and then with every change in order,
// until ctx ends. It never gives up: after an interruption it goes on where it
// stopped, and where that is compacted away, or where the store was restored to
// an older state, it starts over with a snapshot. state, if not nil, hears when
// the store goes (error) and comes back (nil).
func (s *Store) Follow(ctx context.Context, apply func(Change), state func(error)) error {
	f := &follower{store: s, apply: apply}
	pause := firstPause
	for {
		began := time.Now()
		err := f.run(ctx, state)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if errors.Is(err, errStartOver) {
			f.started = false
			s.log.Info("store: reading policy anew", "why", err)
		} else if state != nil {
			state(err)
		}
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

var errStartOver = errors.New("the history is gone")

// follower is where a Follow stands.
type follower struct {
	store   *Store
	apply   func(Change)
	started bool
	seen    atomic.Int64 // revision of etcd up to which everything was applied
	policy  int64        // revision of the serial key, as applied
}

func (f *follower) run(ctx context.Context, state func(error)) error {
	if !f.started {
		if err := f.snapshot(ctx); err != nil {
			return err
		}
	} else if err := f.checkHistory(ctx); err != nil {
		return err
	}
	if state != nil {
		state(nil)
	}
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	over := f.beat(ctx, state)
	// The serial key and policy share the prefix /weft/ with tokens, which are skipped.
	watch := f.store.client.Watch(ctx, "/weft/", clientv3.WithPrefix(), clientv3.WithRev(f.seen.Load()+1))
	for {
		select {
		case err := <-over:
			return err
		case res, ok := <-watch:
			if !ok {
				return fmt.Errorf("%w: the watch ended", ErrUnavailable)
			}
			if res.CompactRevision > 0 {
				return fmt.Errorf("%w: compacted up to %d, seen up to %d", errStartOver, res.CompactRevision, f.seen.Load())
			}
			if err := res.Err(); err != nil {
				return explain(err)
			}
			if err := f.take(res.Events); err != nil {
				return err
			}
		}
	}
}

// beat asks the store again and again whether it is there and still has the history
// that was seen: a watch waits in silence for a store that is gone, and for the
// future of one that was set back. The channel gets at most one error, of the latter.
func (f *follower) beat(ctx context.Context, state func(error)) <-chan error {
	over := make(chan error, 1)
	go func() {
		tick := time.NewTicker(beatEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			call, cancel := context.WithTimeout(ctx, beatTimeout)
			err := f.checkHistory(call)
			cancel()
			switch {
			case ctx.Err() != nil:
				return
			case errors.Is(err, errStartOver):
				over <- err
				return
			case state != nil:
				state(err)
			}
		}
	}()
	return over
}

func (f *follower) snapshot(ctx context.Context) error {
	snap, err := f.store.Load(ctx)
	if err != nil {
		return err
	}
	f.apply(Change{Snapshot: true, Puts: snap.Resources, Extra: snap.Extra, Revision: snap.Revision})
	f.seen.Store(snap.etcd)
	f.policy, f.started = snap.Revision, true
	return nil
}

// checkHistory notices a store that was restored from a backup while nobody watched.
func (f *follower) checkHistory(ctx context.Context) error {
	seen := f.seen.Load() // before asking: what is seen meanwhile is later than the answer
	res, err := f.store.get(ctx, serialKey)
	if err != nil {
		return err
	}
	if res.Header.Revision < seen {
		return fmt.Errorf("%w: the store went back from revision %d to %d", errStartOver, seen, res.Header.Revision)
	}
	return nil
}

// take applies events, one Change per revision: etcd never splits a revision.
func (f *follower) take(events []*clientv3.Event) error {
	for len(events) > 0 {
		revision := events[0].Kv.ModRevision
		n := 1
		for n < len(events) && events[n].Kv.ModRevision == revision {
			n++
		}
		c, err := changeOf(events[:n], revision)
		if err != nil {
			return fmt.Errorf("revision %d: %w", revision, err)
		}
		if c != nil {
			f.applyChange(*c)
		}
		f.seen.Store(revision)
		events = events[n:]
	}
	return nil
}

// applyChange keeps the revision of policy where it was for a change that somebody
// made in etcd by hand: it has no revision of policy, and ours must stay that of
// the serial key for the next Commit to succeed.
func (f *follower) applyChange(c Change) {
	if c.Extra == nil {
		f.store.log.Warn("store: policy was changed behind the server's back", "revision", c.Revision)
		c.Revision = f.policy
	}
	f.policy = c.Revision
	f.apply(c)
}

// changeOf gives nil for a revision that does not concern policy.
func changeOf(events []*clientv3.Event, revision int64) (*Change, error) {
	c := &Change{Revision: revision}
	for _, e := range events {
		key := string(e.Kv.Key)
		if key == serialKey {
			c.Extra = e.Kv.Value
			continue
		}
		if len(key) < len(prefix) || key[:len(prefix)] != prefix {
			continue
		}
		if e.Type == mvccpb.DELETE {
			k, err := parseKey(key)
			if err != nil {
				return nil, err
			}
			c.Deletes = append(c.Deletes, k)
			continue
		}
		r, err := decode(key, e.Kv.Value, revision)
		if err != nil {
			return nil, err
		}
		c.Puts = append(c.Puts, r)
	}
	if c.Extra == nil && len(c.Puts)+len(c.Deletes) == 0 {
		return nil, nil
	}
	return c, nil
}
