package cli

import (
	"context"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/manifest"
)

func (f *answers) TryRules(_ context.Context, r *connect.Request[weftv1.TryRulesRequest]) (*connect.Response[weftv1.TryRulesResponse], error) {
	if f.try == nil {
		return reply(&weftv1.TryRulesResponse{}, nil)
	}
	return reply(f.try(r.Msg))
}

func TestDiffShowsTheFlowsThatChange(t *testing.T) {
	after := port("web-1", "True")
	f := &answers{
		apply: func(*weftv1.ApplyRequest) (*weftv1.ApplyResponse, error) {
			return &weftv1.ApplyResponse{Changes: []*weftv1.Change{{Action: "created", Key: manifest.Key(after), After: after}}}, nil
		},
		try: func(r *weftv1.TryRulesRequest) (*weftv1.TryRulesResponse, error) {
			if len(r.GetResources()) != 1 || r.GetLimit() != 2 {
				t.Errorf("asked for %v", r)
			}
			return &weftv1.TryRulesResponse{NotAsked: []string{"h3: its agent is not connected"}, Changes: []*weftv1.FlowChange{
				{Host: "h1", Port: "red/web-1", Direction: "inbound", Protocol: 6, Local: "fd00:a::5", LocalPort: 443, Remote: "fd00:a::6", RemotePort: 40000, AnyRemotePort: true, Packets: 12, IdleMs: 3000,
					Before: &weftv1.FlowVerdict{List: "red/in", Rule: "https", Source: "a.yaml:7"}, After: &weftv1.FlowVerdict{Denied: true, List: "red/in", Rule: "default inbound"}},
				{Host: "h2", Port: "red/web-2", Direction: "outbound", Protocol: 1, Local: "10.0.0.6", Remote: "10.0.0.5", IcmpType: 8, Packets: 2, IdleMs: 120_000, Sampled: true,
					Before: &weftv1.FlowVerdict{}, After: &weftv1.FlowVerdict{Denied: true, List: "red/in", Rule: "no-ping", Source: "b.yaml:9"}},
			}, Hosts: []*weftv1.FlowSummary{{Host: "h1", Flows: 30, Changed: 4, LeftOut: 3, Missed: 5, SinceUnixMs: time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()},
				{Host: "h2", Flows: 7, Changed: 1, SinceUnixMs: time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()}}}, nil
		},
	}
	serve(t, f)
	r := weft(t, onePort, "diff", "-f", "-", "--limit", "2")
	_, flows, _ := strings.Cut(r.out, "\nflows")
	if want := ` of the last hour that would be judged otherwise
HOST   PORT        DIRECTION   PROTOCOL   LOCAL             REMOTE          PACKETS   IDLE   BEFORE                               AFTER
h1     red/web-1   inbound     tcp        [fd00:a::5]:443   [fd00:a::6]:*   12        3s     allowed by red/in https (a.yaml:7)   denied by red/in default inbound
h2     red/web-2   outbound    icmp/8/0   10.0.0.6          10.0.0.5        2+        2m     allowed                              denied by red/in no-ping (b.yaml:9)
`; flows != want || r.code != ExitNotConverged {
		t.Errorf("exit %d\n%s", r.code, flows)
	}
	if want := "not tried on the flows of host h3: its agent is not connected\n5 of 37 flows of the last hour, at ports that the change touches, would be judged otherwise\n" +
		"3 of them are not shown: use a larger --limit\n5 packets were seen there of flows that could not be kept\nerror: 1 of 1 resources differ\n"; r.err != want {
		t.Errorf("%s", r.err)
	}
}
