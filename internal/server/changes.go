package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
)

// changes remembers since when each condition of each resource has the status that it has. It outlives the server in a file. Until
// the hosts are back a new server cannot know how things are: what differs in its first moments and comes back to what it was has not
// changed.
type changes struct {
	mu    sync.Mutex
	since map[model.Key][]conditionSince

	began   time.Time // of this server; zero: nothing is from an earlier one
	unsaved bool
}

// returnTime is how long a server waits for hosts to be back before what they do not say has changed.
const returnTime = 30 * time.Second

// conditionSince is a condition without its words.
type conditionSince struct {
	Status string    `json:"status"`
	At     time.Time `json:"at"`
	Old    bool      `json:"-"` // from an earlier server, and not seen to be otherwise
}

// note writes into conditions, always the same ones of a kind of resource, since when
// they are so.
func (c *changes) note(key model.Key, conditions []*weftv1.Condition, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.since[key]
	if len(known) != len(conditions) {
		known = make([]conditionSince, len(conditions))
		if c.since == nil {
			c.since = map[model.Key][]conditionSince{}
		}
		c.since[key] = known
	}
	for i, condition := range conditions {
		k := &known[i]
		switch {
		case k.Status == condition.Status:
			k.Old = k.Old && now.Sub(c.began) < returnTime
		case k.Old && now.Sub(c.began) < returnTime:
			condition.ChangedAt = timestamppb.New(c.began)
			continue
		case k.Old:
			*k, c.unsaved = conditionSince{Status: condition.Status, At: c.began}, true
		default:
			*k, c.unsaved = conditionSince{Status: condition.Status, At: now}, true
		}
		condition.ChangedAt = timestamppb.New(k.At)
	}
}

// changesOf is one resource in the file.
type changesOf struct {
	Key   model.Key        `json:"key"`
	Since []conditionSince `json:"since"`
}

// load takes over what an earlier server has saved. Without a file there was none.
func (c *changes) load(path string, now time.Time) error {
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	var all []changesOf
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil {
		return fmt.Errorf("times of conditions: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.began, c.since = now, make(map[model.Key][]conditionSince, len(all))
	for _, r := range all {
		for i := range r.Since {
			r.Since[i].Old = true
		}
		c.since[r.Key] = r.Since
	}
	return nil
}

// save writes down what has changed since it was last called.
func (c *changes) save(path string) error {
	c.mu.Lock()
	all := make([]changesOf, 0, len(c.since))
	for key, since := range c.since {
		if c.unsaved {
			all = append(all, changesOf{key, slices.Clone(since)})
		}
	}
	due := c.unsaved
	c.unsaved = false
	c.mu.Unlock()
	if !due {
		return nil
	}
	err := replaceFile(path, all)
	if err != nil {
		c.mu.Lock()
		c.unsaved = true
		c.mu.Unlock()
		return fmt.Errorf("times of conditions: %w", err)
	}
	return nil
}

// replaceFile writes a value as JSON, all of it or nothing. Of a machine that crashes the newest may be lost: these are
// times, not policy.
func replaceFile(path string, value any) error {
	text, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", text, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// keep forgets the resources that are gone.
func (c *changes) keep(alive func(model.Key) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key := range c.since {
		if !alive(key) {
			delete(c.since, key)
			c.unsaved = true
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
	defer s.saveChanges()
	pause := statusPause
	save := time.NewTicker(savePace)
	defer save.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-save.C:
			s.saveChanges()
			continue
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

// savePace is how often times of conditions are written down, at most.
const savePace = 5 * time.Second

func (s *Server) saveChanges() {
	if s.changesFile == "" {
		return
	}
	if err := s.changes.save(s.changesFile); err != nil {
		s.log.Warn("since when conditions are as they are will not be known after a restart", "error", err)
	}
}

func (s *Server) lookAtConditions() {
	if synced, _ := s.policy.ready(); !synced {
		return // all would be gone
	}
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
