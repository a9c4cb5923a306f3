package server

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/server/convert"
)

// TryRules has the hosts try a change on the flows that they have seen. Each host compares what it holds with what
// it would hold; nothing is stored.
func (s operateService) TryRules(ctx context.Context, req *connect.Request[weftv1.TryRulesRequest]) (*connect.Response[weftv1.TryRulesResponse], error) {
	if err := s.allow(ctx, identity.VerbOperate, model.Key{}); err != nil {
		return nil, err
	}
	if n := len(req.Msg.GetResources()); n > intent.MaxSet {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("the set has %d resources; at most %d are allowed: split it", n, intent.MaxSet))
	}
	if req.Msg.GetLimit() > maxConnections {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("limit: %d; at most %d rows of each host can be shown", req.Msg.GetLimit(), maxConnections))
	}
	puts, violations := convert.ReadResources(req.Msg.GetResources())
	for _, r := range puts {
		if err := s.allow(ctx, identity.VerbWrite, model.KeyOf(r)); err != nil {
			return nil, err
		}
	}
	if len(violations) > 0 {
		return nil, violationError(violations)
	}
	res, err := s.policy.preview(func(st *intent.State) (*intent.Result, []intent.Violation) {
		return intent.Admit(st, puts, nil, allocator())
	})
	if err != nil {
		return nil, err
	}
	changes := s.dist.PreviewRules(res.Puts, res.Deletes)
	out := &weftv1.TryRulesResponse{}
	var hosts []string
	for _, host := range slices.Sorted(maps.Keys(changes)) {
		if changes[host] == nil {
			out.NotAsked = append(out.NotAsked, host+": the change is too large to be tried at once")
			continue
		}
		hosts = append(hosts, host)
	}
	limit := cmp.Or(req.Msg.GetLimit(), defaultConnections)
	for _, a := range s.askEach(ctx, hosts, func(host string) *hostv1.Query {
		return &hostv1.Query{Query: &hostv1.Query_Try{Try: &hostv1.TryQuery{Change: changes[host], Limit: limit}}}
	}) {
		if a.err != nil {
			out.NotAsked = append(out.NotAsked, a.host+": "+a.err.Error())
			continue
		}
		out.Changes = append(out.Changes, a.msg.GetTry().GetChanges()...)
		out.Hosts = append(out.Hosts, a.msg.GetTry().GetSummary())
	}
	s.placeVerdicts(out.Changes, res.Puts)
	return connect.NewResponse(out), nil
}

// placeVerdicts says where the rules of verdicts are written, and are to be written.
func (s operateService) placeVerdicts(changes []*weftv1.FlowChange, puts []model.Resource) {
	written := map[string]*model.AccessList{}
	for _, r := range puts {
		if l, ok := r.(*model.AccessList); ok {
			written[l.Metadata.Ref().String()] = l
		}
	}
	s.policy.read(func(st *intent.State) {
		for _, c := range changes {
			c.Before.Source = sourceOf(st, c.Before.GetList(), c.Before.GetRule())
			if l := written[c.After.GetList()]; l != nil {
				c.After.Source = sourceIn(l, c.After.GetRule())
				continue
			}
			c.After.Source = sourceOf(st, c.After.GetList(), c.After.GetRule())
		}
	})
}
