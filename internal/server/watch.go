package server

import (
	"context"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/model"
)

// watch is one client's stream.
type watch struct {
	server *Server
	kind   model.Kind // "": all
	tenant string     // "": all
	out    *connect.ServerStream[weftv1.WatchResponse]
	at     int64 // revision that the client knows; 0: nothing
}

// run sends until ctx ends or the client is gone.
func (w *watch) run(ctx context.Context) error {
	p := w.server.policy
	first := true
	for {
		p.mu.RLock()
		events, whole := p.history.since(w.at)
		revision, moved := p.state.Revision(), p.moved
		p.mu.RUnlock()
		// A client that knows a later revision than ours has seen a store that was
		// since set back; it must start over as well.
		if !whole || w.at > revision || (first && w.at == 0) {
			if err := w.snapshot(); err != nil {
				return err
			}
			first = false
			continue
		}
		if err := w.send(events); err != nil {
			return err
		}
		if first {
			if err := w.out.Send(&weftv1.WatchResponse{Type: weftv1.WatchResponse_SYNCED, Revision: revision}); err != nil {
				return err
			}
			first = false
		}
		w.at = revision
		select {
		case <-moved:
		case <-ctx.Done():
			return nil
		case <-w.server.closing.Done():
			return nil
		}
	}
}

func (w *watch) snapshot() error {
	resources, revision := w.server.policy.list(w.kind, w.tenant)
	if err := w.out.Send(&weftv1.WatchResponse{Type: weftv1.WatchResponse_SNAPSHOT_BEGIN, Revision: revision}); err != nil {
		return err
	}
	for _, r := range resources {
		if err := w.out.Send(w.put(r, revision)); err != nil {
			return err
		}
	}
	w.at = revision
	return w.out.Send(&weftv1.WatchResponse{Type: weftv1.WatchResponse_SYNCED, Revision: revision})
}

func (w *watch) send(events []event) error {
	for _, e := range events {
		if !w.wants(e.key) {
			continue
		}
		m := &weftv1.WatchResponse{Type: weftv1.WatchResponse_DELETED, Key: writeKey(e.key), Revision: e.revision}
		if e.resource != nil {
			m = w.put(e.resource, e.revision)
		}
		if err := w.out.Send(m); err != nil {
			return err
		}
	}
	return nil
}

func (w *watch) put(r model.Resource, revision int64) *weftv1.WatchResponse {
	return &weftv1.WatchResponse{Type: weftv1.WatchResponse_PUT, Key: writeKey(model.KeyOf(r)), Resource: w.server.view(r), Revision: revision}
}

func (w *watch) wants(k model.Key) bool {
	return (w.kind == "" || k.Kind == w.kind) && (w.tenant == "" || k.Tenant == w.tenant || (w.kind != "" && !k.Kind.Tenanted()))
}
