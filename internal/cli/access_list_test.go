package cli

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

func (f *answers) RuleHits(_ context.Context, r *connect.Request[weftv1.RuleHitsRequest]) (*connect.Response[weftv1.RuleHitsResponse], error) {
	return reply(f.hits(r.Msg))
}

func webIn() *weftv1.Resource {
	return &weftv1.Resource{Kind: &weftv1.Resource_AccessList{AccessList: &weftv1.AccessList{
		Metadata: &weftv1.Metadata{Tenant: "red", Name: "web-in"},
		Spec: &weftv1.AccessListSpec{Tier: "tenant", Mode: "enforce", Default: &weftv1.ListDefault{Inbound: "deny"}, Rules: []*weftv1.AccessRule{
			{Name: "https", Direction: "inbound", Action: "allow", Protocol: "tcp", Remote: &weftv1.RuleAddresses{Prefixes: []string{"10.0.0.0/24"}, Groups: []string{"office"}},
				LocalPorts: []string{"443", "8000-8100"}, Source: "policy.yaml:7"},
			{Name: "ping", Direction: "both", Action: "meter", Protocol: "icmp", IcmpType: new(uint32(8))},
		}}}}}
}

func TestWideListsShowEveryRuleWithItsCounters(t *testing.T) {
	f := &answers{
		list: func(*weftv1.ListRequest) []*weftv1.Resource { return []*weftv1.Resource{webIn()} },
		hits: func(r *weftv1.RuleHitsRequest) (*weftv1.RuleHitsResponse, error) {
			if r.GetTenant() != "red" {
				t.Errorf("asked for %v", r)
			}
			return &weftv1.RuleHitsResponse{UnreachableHosts: []string{"h2"}, Hits: []*weftv1.RuleHit{
				{Tenant: "red", List: "web-in", Rule: "https", Packets: 7, Bytes: 700}, {Tenant: "red", List: "web-in", Rule: "default inbound", Packets: 1, Bytes: 60}}}, nil
		},
	}
	serve(t, f)
	weft(t, "", "get", "acl", "-n", "red", "-o", "wide").want(t, ExitDone, `
TENANT   LIST     TIER     MODE      RULE              DIRECTION   ACTION   PROTOCOL      LOCAL               REMOTE                      PACKETS   BYTES   SOURCE
red      web-in   tenant   enforce   https             inbound     allow    tcp           any:443,8000-8100   10.0.0.0/24 groups office   7         700     policy.yaml:7
red      web-in   tenant   enforce   ping              both        meter    icmp type 8   any                 any                         -         -       -
red      web-in   tenant   enforce   default inbound   inbound     deny     any           any                 any                         1         60      -
`, "host h2 does not answer: what it counts is not shown\n")
	weft(t, "", "get", "accesslists", "-n", "red").want(t, ExitDone, `
TENANT   NAME     TIER     MODE      RULES   INBOUND   OUTBOUND   STATE   AGE
red      web-in   tenant   enforce   2       deny      -          -       -
`, "")
	// The rules are policy: they are shown without the hosts, too.
	f.hits = func(*weftv1.RuleHitsRequest) (*weftv1.RuleHitsResponse, error) {
		return nil, connect.NewError(connect.CodePermissionDenied, fmt.Errorf("no"))
	}
	r := weft(t, "", "get", "acl", "-o", "wide")
	if r.code != ExitDone || !strings.Contains(r.out, "policy.yaml:7") || !strings.Contains(r.err, "counters are not shown") {
		t.Errorf("%+v", r)
	}
}

func TestDiffOfLongListsShowsWhatChanges(t *testing.T) {
	lines := func(n int, change int) (out []string) {
		for i := range n {
			if i == change {
				out = append(out, "changed")
				continue
			}
			out = append(out, fmt.Sprint("line ", i))
		}
		return out
	}
	start := time.Now()
	got := strings.Join(diffLines(lines(60000, -1), lines(60000, 30000)), "\n")
	if want := "  … 29997 lines\n  line 29997\n  line 29998\n  line 29999\n- line 30000\n+ changed\n  line 30001\n  line 30002\n  line 30003\n  … 29996 lines"; got != want {
		t.Errorf("%.2000s", got)
	}
	// Nothing in common: still bounded.
	if n := len(diffLines(lines(30000, -1), strings.Split(strings.Repeat("x ", 30000), " "))); n != 60001 {
		t.Errorf("%d lines", n)
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}
