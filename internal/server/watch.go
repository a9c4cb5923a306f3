package server

import (
	"context"
	"errors"
	"hash/maphash"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/server/convert"
)

// watch is one client's stream. Besides changes of policy it carries changes of
// status: a resource is put again when what the hosts say of it is another.
type watch struct {
	server *Server
	kind   model.Kind // "": all
	tenant string     // "": all
	out    *connect.ServerStream[weftv1.WatchResponse]
	at     int64                // revision that the client knows; 0: nothing
	sent   map[model.Key]uint64 // essence of the status that the client knows
}

// Looking through all statuses takes time; a watch spends a tenth of it at most.
const (
	statusPause = 250 * time.Millisecond
	statusShare = 10
)

// run sends until ctx ends or the client is gone.
func (w *watch) run(ctx context.Context) error {
	changed, stop := w.server.dist.Changed()
	defer stop()
	if err := w.begin(); err != nil {
		return err
	}
	// Statuses are looked through some time after the first sign that one changed.
	var look <-chan time.Time
	pause := statusPause
	for {
		moved, err := w.catchUp()
		if err != nil {
			return err
		}
		select {
		case <-moved:
		case <-changed:
			if look == nil {
				look = time.After(pause)
			}
		case <-look:
			began := time.Now()
			if err := w.statuses(); err != nil {
				return err
			}
			look, pause = nil, max(statusPause, statusShare*time.Since(began))
		case <-ctx.Done():
			return nil
		case <-w.server.closing.Done():
			return connect.NewError(connect.CodeUnavailable, errors.New("the server is stopping"))
		}
	}
}

// begin brings the client to the present: by what it missed, or by everything.
func (w *watch) begin() error {
	if w.at == 0 {
		return w.snapshot()
	}
	if _, err := w.catchUp(); err != nil || w.sent != nil {
		return err
	}
	// What the client knows of statuses is unknown; the first look puts them all.
	w.sent = map[model.Key]uint64{}
	return w.out.Send(&weftv1.WatchResponse{Type: weftv1.WatchResponse_SYNCED, Revision: w.at})
}

// catchUp sends the changes after w.at, and gives what to wait on for more.
func (w *watch) catchUp() (<-chan struct{}, error) {
	p := w.server.policy
	p.mu.RLock()
	events, whole := p.history.since(w.at)
	revision, moved := p.state.Revision(), p.moved
	p.mu.RUnlock()
	// A client that knows a later revision than ours has seen a store that was
	// since set back; it must start over as well.
	if !whole || w.at > revision {
		return moved, w.snapshot()
	}
	v := w.server.viewer()
	for _, e := range events {
		if !w.wants(e.key) {
			continue
		}
		m := &weftv1.WatchResponse{Type: weftv1.WatchResponse_DELETED, Key: convert.WriteKey(e.key), Revision: e.revision}
		if e.resource != nil {
			m = w.put(v, e.resource, e.revision)
		} else {
			delete(w.sent, e.key)
		}
		if err := w.out.Send(m); err != nil {
			return nil, err
		}
	}
	w.at = revision
	return moved, nil
}

func (w *watch) snapshot() error {
	resources, revision := w.server.policy.list(w.kind, w.tenant)
	if err := w.out.Send(&weftv1.WatchResponse{Type: weftv1.WatchResponse_SNAPSHOT_BEGIN, Revision: revision}); err != nil {
		return err
	}
	w.sent = map[model.Key]uint64{}
	v := w.server.viewer()
	for _, r := range resources {
		if err := w.out.Send(w.put(v, r, revision)); err != nil {
			return err
		}
	}
	w.at = revision
	return w.out.Send(&weftv1.WatchResponse{Type: weftv1.WatchResponse_SYNCED, Revision: revision})
}

// statuses puts the resources again whose status is not what the client knows.
func (w *watch) statuses() error {
	resources, revision := w.server.policy.list(w.kind, w.tenant)
	if revision != w.at {
		return nil // catching up comes first, and another look after it
	}
	v := w.server.viewer()
	for _, r := range resources {
		k := model.KeyOf(r)
		if known, ok := w.sent[k]; ok && known == essence(v.statusOf(r)) {
			continue
		}
		if err := w.out.Send(w.put(v, r, r.Meta().Revision)); err != nil {
			return err
		}
	}
	return nil
}

func (w *watch) put(v *viewer, r model.Resource, revision int64) *weftv1.WatchResponse {
	status := v.statusOf(r)
	if w.sent != nil {
		w.sent[model.KeyOf(r)] = essence(status)
	}
	return &weftv1.WatchResponse{Type: weftv1.WatchResponse_PUT, Key: convert.WriteKey(model.KeyOf(r)), Resource: convert.WriteResource(r, status), Revision: revision}
}

var essenceSeed = maphash.MakeSeed()

// essence tells statuses apart, without what changes with every second and every revision.
func essence(s *weftv1.Status) uint64 {
	if s.GetRollout() != nil {
		s = proto.CloneOf(s)
		s.Rollout.OldestLag = ""
	}
	acknowledged := s.AcknowledgedRevision
	s.AcknowledgedRevision = 0
	b, _ := proto.MarshalOptions{Deterministic: true}.Marshal(s)
	s.AcknowledgedRevision = acknowledged
	return maphash.Bytes(essenceSeed, b)
}

func (w *watch) wants(k model.Key) bool {
	return (w.kind == "" || k.Kind == w.kind) && (w.tenant == "" || k.Tenant == w.tenant || (w.kind != "" && !k.Kind.Tenanted()))
}
