package server

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
)

// RuleHits adds up what the hosts count of the rules of one list, or of all of a tenant or the fleet.
func (s operateService) RuleHits(ctx context.Context, req *connect.Request[weftv1.RuleHitsRequest]) (*connect.Response[weftv1.RuleHitsResponse], error) {
	if err := s.allow(ctx, identity.VerbOperate, model.Key{}); err != nil {
		return nil, err
	}
	hosts, err := s.hostsAsked("")
	if err != nil {
		return nil, err
	}
	query := &hostv1.Query{Query: &hostv1.Query_Hits{Hits: &hostv1.HitsQuery{Tenant: req.Msg.GetTenant(), List: req.Msg.GetList()}}}
	out := &weftv1.RuleHitsResponse{}
	sums := map[model.RuleID]*weftv1.RuleHit{}
	for _, a := range s.ask(ctx, hosts, func() *hostv1.Query { return &hostv1.Query{Query: query.Query} }) {
		if a.err != nil {
			out.UnreachableHosts = append(out.UnreachableHosts, a.host)
			continue
		}
		for _, h := range a.msg.GetHits().GetHits() {
			id := model.RuleID{List: model.Ref{Tenant: h.GetTenant(), Name: h.GetList()}, Rule: h.GetRule()}
			if sums[id] == nil {
				sums[id] = &weftv1.RuleHit{Tenant: h.GetTenant(), List: h.GetList(), Rule: h.GetRule()}
				out.Hits = append(out.Hits, sums[id])
			}
			sums[id].Packets += h.GetPackets()
			sums[id].Bytes += h.GetBytes()
		}
	}
	slices.SortFunc(out.Hits, func(a, b *weftv1.RuleHit) int {
		return cmp.Or(cmp.Compare(a.GetTenant(), b.GetTenant()), cmp.Compare(a.GetList(), b.GetList()), cmp.Compare(a.GetRule(), b.GetRule()))
	})
	return connect.NewResponse(out), nil
}

// placeRules says where the rules that a trace met were written.
func (s operateService) placeRules(runs []*weftv1.TraceRun) {
	s.policy.read(func(st *intent.State) {
		for _, run := range runs {
			for _, r := range run.GetRules() {
				r.Source = sourceOf(st, r.GetList(), r.GetRule())
			}
		}
	})
}

// sourceOf is where a rule of the list TENANT/NAME was written; empty if that is not known.
func sourceOf(st *intent.State, list, rule string) string {
	tenant, name, _ := strings.Cut(list, "/")
	l, ok := st.Get(model.Key{Kind: model.KindAccessList, Ref: model.Ref{Tenant: tenant, Name: name}})
	if !ok {
		return ""
	}
	return sourceIn(l.(*model.AccessList), rule)
}

func sourceIn(l *model.AccessList, rule string) string {
	for _, r := range l.Spec.Rules {
		if r.Name == rule {
			return r.Source
		}
	}
	return ""
}
