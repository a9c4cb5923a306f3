package cli

import (
	"context"
	"testing"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

func (f *answers) Connections(_ context.Context, r *connect.Request[weftv1.ConnectionsRequest]) (*connect.Response[weftv1.ConnectionsResponse], error) {
	return reply(f.conns(r.Msg))
}

func TestConnectionsNameTheirRules(t *testing.T) {
	serve(t, &answers{conns: func(r *weftv1.ConnectionsRequest) (*weftv1.ConnectionsResponse, error) {
		if r.GetPort() != "red/web-2" || r.GetLimit() != 3 {
			t.Errorf("asked for %v", r)
		}
		return &weftv1.ConnectionsResponse{UnreachableHosts: []string{"h9"}, LeftOut: 5, Connections: []*weftv1.Connection{
			{Host: "h2", Port: "red/web-2", Direction: "inbound", Protocol: 6, Local: "fd00:a::6", LocalPort: 443, Remote: "fd00:a::5", RemotePort: 40000, Confirmed: true, IdleMs: 900, TimeoutMs: 300_000, List: "red/in", Rule: "https", Source: "a.yaml:7"},
			{Host: "h2", Port: "red/web-2", Direction: "outbound", Protocol: 1, Local: "10.0.0.6", LocalPort: 7, Remote: "10.0.0.5", IdleMs: 61_000, TimeoutMs: 60_000, Stale: true},
			{Host: "h2", Port: "red/web-2", Direction: "outbound", Protocol: 89, Local: "10.0.0.6", Remote: "10.0.0.5", TimeoutMs: 60_000, List: "red/out", Rule: "default outbound"},
		}, Ports: []*weftv1.ConnectionCount{{Host: "h2", Port: "red/web-2", Confirmed: 1, HalfOpen: 7, Limit: 2048, LostHalfOpen: 12}}}, nil
	}})
	weft(t, "", "get", "connections", "-p", "red/web-2", "--limit", "3", "-o", "wide").want(t, ExitDone, `
HOST   PORT        OPENED     PROTOCOL   LOCAL             REMOTE              STATE             IDLE   TIMEOUT   RULE
h2     red/web-2   inbound    tcp        [fd00:a::6]:443   [fd00:a::5]:40000   confirmed         0s     5m        red/in https (a.yaml:7)
h2     red/web-2   outbound   icmp       10.0.0.6 id 7     10.0.0.5            half-open,stale   1m     1m        -
h2     red/web-2   outbound   89         10.0.0.6          10.0.0.5            half-open         0s     1m        red/out default outbound
HOST   PORT        CONFIRMED   LIMIT   HALF-OPEN   LOST   LOST-HALF-OPEN
h2     red/web-2   1           2048    7           0      12
`, "host h9 does not answer: its connections are not shown\n5 more are not shown: ask for one port, or with a larger --limit\n")
	if r := weft(t, "", "get", "connections", "-p", "web-2"); r.code != ExitUsage {
		t.Errorf("%+v", r)
	}
}
