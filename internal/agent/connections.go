package agent

import (
	"cmp"
	"fmt"
	"slices"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// maxConnections bounds the rows of one answer.
const maxConnections = 10_000

// connections reads what the switch follows of one port, of a tenant's, or of all; the rows are those used last.
func (a *Agent) connections(q *hostv1.ConnectionsQuery) (*hostv1.ConnectionsAnswer, error) {
	out := &hostv1.ConnectionsAnswer{}
	limit, found := int(min(q.GetLimit(), maxConnections)), uint64(0)
	for _, p := range a.view.Load().portsOf(model.PortID(q.GetPort()), q.GetTenant()) {
		all, n, has, err := a.sw.Connections(p.ID)
		if err != nil {
			return nil, fmt.Errorf("read the connections of port %s: %w", p.Ref, err)
		}
		if !has {
			continue
		}
		found += uint64(len(all))
		out.Ports = append(out.Ports, &weftv1.ConnectionCount{Host: a.cfg.Host, Port: p.Ref.String(), HalfOpen: uint32(n.HalfOpen), Confirmed: uint32(n.Confirmed),
			Limit: uint32(n.Limit), LostHalfOpen: n.LostHalfOpen, LostConfirmed: n.LostConfirmed})
		for _, c := range all {
			out.Connections = append(out.Connections, connectionRow(c, a.cfg.Host, p.Ref))
		}
		out.Connections = lastUsed(out.Connections, limit) // never more than one port's beside
	}
	out.LeftOut = found - uint64(len(out.Connections))
	return out, nil
}

// portsOf are the ports of this host in the order of their names: one, a tenant's, or with zeros all.
func (v *view) portsOf(id model.PortID, tenant string) []goal.Port {
	var out []goal.Port
	for _, p := range v.goal.Ports {
		if (id == 0 || p.ID == id) && (tenant == "" || p.Ref.Tenant == tenant) {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(x, y goal.Port) int { return compareRefs(x.Ref, y.Ref) })
	return out
}

func connectionRow(c datapath.Connection, host string, port model.Ref) *weftv1.Connection {
	row := &weftv1.Connection{Host: host, Port: port.String(), Direction: "outbound", Protocol: uint32(c.Protocol), Local: c.Local.String(), Remote: c.Remote.String(),
		LocalPort: uint32(c.LocalPort), RemotePort: uint32(c.RemotePort), Confirmed: c.Confirmed, IdleMs: max(0, c.Quiet.Milliseconds()), TimeoutMs: c.Timeout.Milliseconds(),
		List: listName(c.Rule), Rule: c.Rule.Rule, Stale: c.Stale}
	if c.Inbound {
		row.Direction = "inbound"
	}
	return row
}

// lastUsed keeps no more than limit, in the order of their use.
func lastUsed(all []*weftv1.Connection, limit int) []*weftv1.Connection {
	slices.SortStableFunc(all, func(x, y *weftv1.Connection) int { return cmp.Compare(x.GetIdleMs(), y.GetIdleMs()) })
	return all[:min(limit, len(all))]
}
