package server

import (
	"context"
	"errors"
	"fmt"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/server/convert"
)

// policyService answers PolicyService.
type policyService struct{ *Server }

// Get answers with one resource and its status.
func (s policyService) Get(ctx context.Context, req *connect.Request[weftv1.GetRequest]) (*connect.Response[weftv1.GetResponse], error) {
	k := convert.ReadKey(req.Msg.GetKey())
	if err := s.allow(ctx, identity.VerbRead, k); err != nil {
		return nil, err
	}
	if err := checkKind(k.Kind, false); err != nil {
		return nil, err
	}
	r, ok := s.policy.get(k)
	if !ok {
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("%s does not exist", k))
	}
	return connect.NewResponse(&weftv1.GetResponse{Resource: s.viewer().view(r)}), nil
}

// List answers with all resources of a kind (all kinds if empty) and tenant.
func (s policyService) List(ctx context.Context, req *connect.Request[weftv1.ListRequest]) (*connect.Response[weftv1.ListResponse], error) {
	kind, tenant := model.Kind(req.Msg.GetKind()), req.Msg.GetTenant()
	if err := s.allow(ctx, identity.VerbRead, model.Key{Kind: kind, Ref: model.Ref{Tenant: tenant}}); err != nil {
		return nil, err
	}
	if err := checkKind(kind, true); err != nil {
		return nil, err
	}
	resources, revision := s.policy.list(kind, tenant)
	out := &weftv1.ListResponse{Revision: revision}
	v := s.viewer()
	for _, r := range resources {
		out.Resources = append(out.Resources, v.view(r))
	}
	return connect.NewResponse(out), nil
}

// Apply creates or changes a set of resources as one transaction.
func (s policyService) Apply(ctx context.Context, req *connect.Request[weftv1.ApplyRequest]) (*connect.Response[weftv1.ApplyResponse], error) {
	if n := len(req.Msg.GetResources()); n > intent.MaxSet {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("the set has %d resources; at most %d are allowed: split it", n, intent.MaxSet))
	}
	puts, violations := convert.ReadResources(req.Msg.GetResources())
	for _, r := range puts {
		if err := s.allow(ctx, identity.VerbWrite, model.KeyOf(r)); err != nil {
			return nil, err
		}
	}
	if len(violations) > 0 {
		return nil, violationError(s.alsoJudge(puts, violations))
	}
	decide := func(st *intent.State) (*intent.Result, []intent.Violation) {
		return intent.Admit(st, puts, nil, allocator())
	}
	if req.Msg.GetDryRun() {
		res, err := s.policy.preview(decide)
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(&weftv1.ApplyResponse{Changes: s.changes(res), Hosts: s.differences(res)}), nil
	}
	res, revision, err := s.policy.write(ctx, decide)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&weftv1.ApplyResponse{Changes: s.changes(res), Revision: revision}), nil
}

// alsoJudge adds what admission finds in the resources of a set that could be read
// in full, so that people see all that is wrong at once. A rule about a field that
// could not be read is not named twice.
func (s policyService) alsoJudge(puts []model.Resource, violations []intent.Violation) []intent.Violation {
	unread := map[model.Key]bool{}
	for _, v := range violations {
		unread[v.Key] = true
	}
	var more []intent.Violation
	s.policy.read(func(st *intent.State) { _, more = intent.Admit(st, puts, nil, allocator()) })
	for _, v := range more {
		if !unread[v.Key] {
			violations = append(violations, v)
		}
	}
	return violations
}

// Delete removes a set of resources as one transaction.
func (s policyService) Delete(ctx context.Context, req *connect.Request[weftv1.DeleteRequest]) (*connect.Response[weftv1.DeleteResponse], error) {
	var deletes []intent.Deletion
	for _, i := range req.Msg.GetItems() {
		d := intent.Deletion{Key: convert.ReadKey(i.GetKey()), Revision: i.GetRevision()}
		if err := s.allow(ctx, identity.VerbDelete, d.Key); err != nil {
			return nil, err
		}
		deletes = append(deletes, d)
	}
	decide := func(st *intent.State) (*intent.Result, []intent.Violation) {
		return intent.Admit(st, nil, deletes, allocator())
	}
	if req.Msg.GetDryRun() {
		res, err := s.policy.preview(decide)
		if err != nil {
			return nil, err
		}
		return connect.NewResponse(&weftv1.DeleteResponse{Changes: s.changes(res), Hosts: s.differences(res)}), nil
	}
	res, revision, err := s.policy.write(ctx, decide)
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(&weftv1.DeleteResponse{Changes: s.changes(res), Revision: revision}), nil
}

func (s policyService) changes(res *intent.Result) []*weftv1.Change {
	out := make([]*weftv1.Change, 0, len(res.Changes))
	v := s.viewer()
	for _, c := range res.Changes {
		p := &weftv1.Change{Action: string(c.Action), Key: convert.WriteKey(c.Key)}
		if c.After != nil {
			p.After = v.view(c.After)
		}
		out = append(out, p)
	}
	return out
}

func (s policyService) differences(res *intent.Result) []*weftv1.HostDifference {
	var out []*weftv1.HostDifference
	for _, d := range s.dist.Preview(res.Puts, res.Deletes) {
		out = append(out, &weftv1.HostDifference{Host: d.Host, Added: d.Added, Removed: d.Removed})
	}
	return out
}

func checkKind(k model.Kind, orAll bool) error {
	if isKind(k) || (k == "" && orAll) {
		return nil
	}
	return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%q is not a kind; the kinds are %v", k, model.Kinds))
}

// Watch streams what changes after from_revision, or everything first when the
// server does not remember that far back.
func (s policyService) Watch(ctx context.Context, req *connect.Request[weftv1.WatchRequest], out *connect.ServerStream[weftv1.WatchResponse]) error {
	kind, tenant := model.Kind(req.Msg.GetKind()), req.Msg.GetTenant()
	if err := s.allow(ctx, identity.VerbRead, model.Key{Kind: kind, Ref: model.Ref{Tenant: tenant}}); err != nil {
		return err
	}
	if err := checkKind(kind, true); err != nil {
		return err
	}
	s.metrics.watches.Inc()
	defer s.metrics.watches.Dec()
	w := &watch{server: s.Server, kind: kind, tenant: tenant, out: out, at: req.Msg.GetFromRevision()}
	if err := w.run(ctx); err != nil {
		return err
	}
	if s.closing.Err() != nil {
		return connect.NewError(connect.CodeUnavailable, errors.New("the server is shutting down; watch again from the last revision"))
	}
	return nil
}
