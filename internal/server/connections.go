package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
)

// Rows of connections that a host is asked for.
const (
	defaultConnections = 1000
	maxConnections     = 10_000
)

// Connections asks hosts which connections they follow. Of a port, only its host is asked.
func (s operateService) Connections(ctx context.Context, req *connect.Request[weftv1.ConnectionsRequest]) (*connect.Response[weftv1.ConnectionsResponse], error) {
	if err := s.allow(ctx, identity.VerbOperate, model.Key{}); err != nil {
		return nil, err
	}
	if req.Msg.GetLimit() > maxConnections {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("limit: %d; at most %d rows of each host can be shown: ask for one port", req.Msg.GetLimit(), maxConnections))
	}
	port, hosts, err := s.portAsked(req.Msg.GetPort(), req.Msg.GetHost())
	if err != nil {
		return nil, err
	}
	query := &hostv1.ConnectionsQuery{Port: port, Tenant: req.Msg.GetTenant(), Limit: cmp.Or(req.Msg.GetLimit(), defaultConnections)}
	out := &weftv1.ConnectionsResponse{}
	for _, a := range s.ask(ctx, hosts, func() *hostv1.Query { return &hostv1.Query{Query: &hostv1.Query_Connections{Connections: query}} }) {
		if a.err != nil {
			out.UnreachableHosts = append(out.UnreachableHosts, a.host)
			continue
		}
		said := a.msg.GetConnections()
		out.Connections, out.Ports, out.LeftOut = append(out.Connections, said.GetConnections()...), append(out.Ports, said.GetPorts()...), out.LeftOut+said.GetLeftOut()
	}
	s.policy.read(func(st *intent.State) {
		for _, c := range out.Connections {
			c.Source = sourceOf(st, c.GetList(), c.GetRule())
		}
	})
	slices.SortStableFunc(out.Connections, func(a, b *weftv1.Connection) int {
		return cmp.Or(cmp.Compare(a.GetHost(), b.GetHost()), cmp.Compare(a.GetPort(), b.GetPort()), cmp.Compare(a.GetIdleMs(), b.GetIdleMs()))
	})
	return connect.NewResponse(out), nil
}
