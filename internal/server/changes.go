package server

import (
	"context"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
)

// changes remembers since when each condition of each resource has the status that it
// has, as this server has seen it.
type changes struct {
	mu    sync.Mutex
	since map[model.Key][]conditionSince
}

// conditionSince is a condition without its words.
type conditionSince struct {
	status string
	at     time.Time
}

// note writes into conditions, always the same ones of a kind of resource, since when
// they are so.
func (c *changes) note(key model.Key, conditions []*weftv1.Condition, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.since[key]
	if known == nil {
		known = make([]conditionSince, len(conditions))
		if c.since == nil {
			c.since = map[model.Key][]conditionSince{}
		}
		c.since[key] = known
	}
	for i, condition := range conditions {
		if known[i].status != condition.Status {
			known[i] = conditionSince{condition.Status, now}
		}
		condition.ChangedAt = timestamppb.New(known[i].at)
	}
}

// keep forgets the resources that are gone.
func (c *changes) keep(alive func(model.Key) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.since {
		if !alive(key) {
			delete(c.since, key)
		}
	}
}

// conditionShare of its time is what the server spends at most on looking when
// conditions change.
const conditionShare = 20

// watchConditions looks at all conditions when one may have changed, so that they
// carry the time even if nobody asks.
func (s *Server) watchConditions(ctx context.Context) error {
	changed, stop := s.dist.Changed()
	defer stop()
	pause := statusPause
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		began := time.Now()
		s.lookAtConditions()
		pause = max(statusPause, conditionShare*time.Since(began))
	}
}

func (s *Server) lookAtConditions() {
	var all []model.Resource
	s.policy.read(func(st *intent.State) {
		for _, kind := range model.Kinds {
			all = append(all, st.List(kind, "")...)
		}
	})
	alive := make(map[model.Key]struct{}, len(all))
	v := s.viewer()
	for _, r := range all {
		alive[model.KeyOf(r)] = struct{}{}
		v.statusOf(r)
	}
	s.changes.keep(func(k model.Key) bool { _, ok := alive[k]; return ok })
}
