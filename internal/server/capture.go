package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/model"
)

// Bounds of captures: what they bring all goes through here.
const (
	maxCaptures       = 64 // hosts and ports, of all clients together
	maxCapturePorts   = 8  // of one client
	captureServerDone = "the server is stopping"
)

// captureTarget is one host, or one port of it.
type captureTarget struct {
	host string
	port model.PortID // 0: all of the host
	name string       // of the port
}

// Capture brings a client the packets of ports or of a host until it leaves. When one
// of several hosts fails, the others go on; when all have, it ends.
func (s operateService) Capture(ctx context.Context, req *connect.Request[weftv1.CaptureRequest], out *connect.ServerStream[weftv1.CaptureResponse]) error {
	targets, err := s.captureTargets(ctx, req.Msg)
	if err != nil {
		return err
	}
	if err := s.captures.take(len(targets)); err != nil {
		return connect.NewError(connect.CodeResourceExhausted, err)
	}
	defer s.captures.give(len(targets))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stopping := context.AfterFunc(s.closing, func() {
		cancel(connect.NewError(connect.CodeUnavailable, errors.New(captureServerDone)))
	})
	defer stopping()

	var mu sync.Mutex // of out
	send := func(m *weftv1.CaptureResponse) error {
		mu.Lock()
		defer mu.Unlock()
		return out.Send(m)
	}
	errs := make([]error, len(targets))
	var wg sync.WaitGroup
	for i, t := range targets {
		wg.Go(func() {
			if errs[i] = s.captureOne(ctx, t, req.Msg.GetFilter(), send); errs[i] != nil && len(targets) > 1 {
				_ = send(&weftv1.CaptureResponse{From: t.message(), Last: true, Error: errs[i].Error()})
			}
		})
	}
	wg.Wait()
	if why := context.Cause(ctx); why != nil && ctx.Err() != nil && !errors.Is(why, context.Canceled) {
		return why
	}
	if err := errors.Join(errs...); err != nil && ctx.Err() == nil {
		return connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return nil
}

// captureOne follows one target; the host speaks for itself alone.
func (s operateService) captureOne(ctx context.Context, t captureTarget, f *weftv1.CaptureFilter, send func(*weftv1.CaptureResponse) error) error {
	return s.dist.Capture(ctx, t.host, &hostv1.CaptureQuery{Port: uint32(t.port), Filter: f}, func(m *weftv1.CaptureResponse) error {
		m.From = t.message()
		return send(m)
	})
}

func (t captureTarget) message() *weftv1.CaptureTarget {
	return &weftv1.CaptureTarget{Host: t.host, Port: t.name}
}

// captureTargets finds who must capture, and checks that the caller may look.
func (s operateService) captureTargets(ctx context.Context, req *weftv1.CaptureRequest) ([]captureTarget, error) {
	switch n := len(req.GetPorts()); {
	case n > maxCapturePorts:
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("ports: %d are too many, at most %d", n, maxCapturePorts))
	case (n == 0) == (req.GetHost() == ""):
		return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("name ports, or a host"))
	case n == 0:
		if err := s.allow(ctx, identity.VerbOperate, hostKey(req.GetHost())); err != nil {
			return nil, err
		}
		_, err := s.hostsAsked(req.GetHost())
		return []captureTarget{{host: req.GetHost()}}, err
	}
	var out []captureTarget
	for _, name := range req.GetPorts() {
		tenant, port, _ := strings.Cut(name, "/")
		if err := s.allow(ctx, identity.VerbOperate, model.Key{Kind: model.KindPort, Ref: model.Ref{Tenant: tenant, Name: port}}); err != nil {
			return nil, err
		}
		p, err := s.portNamed(name)
		if err != nil {
			return nil, err
		}
		if p.Host() == "" {
			return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("Port %s is on no host yet; `weft plug` places it", name))
		}
		out = append(out, captureTarget{p.Host(), p.ID, name})
	}
	return out, nil
}

// room counts what is under way of something that is bounded.
type room struct {
	mu    sync.Mutex
	taken int
}

func (r *room) take(n int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.taken+n > maxCaptures {
		return fmt.Errorf("%d captures are under way, at most %d can be; end one", r.taken, maxCaptures)
	}
	r.taken += n
	return nil
}

func (r *room) give(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.taken -= n
}
