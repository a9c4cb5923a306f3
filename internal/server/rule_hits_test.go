package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
)

func listOf(tenant, name string, rules int) *weftv1.Resource {
	spec := &weftv1.AccessListSpec{Default: &weftv1.ListDefault{Inbound: "deny"}}
	for i := range rules {
		spec.Rules = append(spec.Rules, &weftv1.AccessRule{Name: fmt.Sprint("r-", i), Direction: "inbound", Action: "allow", Protocol: "tcp", Weight: uint32(i),
			Remote:     &weftv1.RuleAddresses{Prefixes: []string{fmt.Sprintf("10.%d.%d.0/24", i>>8, i&0xff)}, Groups: []string{"office"}},
			LocalPorts: []string{fmt.Sprint(1 + i)}, Source: fmt.Sprintf("policy.yaml:%d", 10*i)})
	}
	return &weftv1.Resource{Kind: &weftv1.Resource_AccessList{AccessList: &weftv1.AccessList{Metadata: &weftv1.Metadata{Tenant: tenant, Name: name}, Spec: spec}}}
}

func groupOf(tenant, name string, prefixes ...string) *weftv1.Resource {
	return &weftv1.Resource{Kind: &weftv1.Resource_AddressGroup{AddressGroup: &weftv1.AddressGroup{
		Metadata: &weftv1.Metadata{Tenant: tenant, Name: name}, Spec: &weftv1.AddressGroupSpec{Prefixes: prefixes}}}}
}

// The largest list there may be gets through API, store, compiler and wire to the one host that needs it;
// a group in it changes by itself, and what hosts count is added up.
func TestTheLargestListReachesItsHost(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.apply(t, world()...)
	begin := time.Now()
	judged := portOf("red", "web-1", "web", "h1", "10.0.0.5", "fd00:a::5")
	judged.GetPort().Spec.AccessLists = []string{"big"}
	r.apply(t, groupOf("red", "office", "192.0.2.0/24"), listOf("red", "big", 10000), judged)
	stored := time.Since(begin)
	attach(t, r, joined(t, r, "h1"), facts("192.0.2.1"))
	attach(t, r, joined(t, r, "h2"), facts("192.0.2.2"))
	programmed := func(kind, name string) func() bool {
		return func() bool {
			var s *weftv1.Status
			switch got := r.get(t, kind, "red", name); kind {
			case "AccessList":
				s = got.GetAccessList().Status
			default:
				s = got.GetAddressGroup().Status
			}
			return condition(s, "Programmed").Reason == reasonAllHosts && s.Rollout.Desired == 1 && s.Rollout.Current == 1
		}
	}
	eventually(t, "the list is programmed", programmed("AccessList", "big"))
	t.Logf("10,000 rules: admitted and stored in %s, acknowledged by the host after %s", stored, time.Since(begin))
	difference := r.applyDry(t, groupOf("red", "office", "192.0.2.0/24", "198.51.100.0/24"))
	if len(difference.Hosts) != 1 || difference.Hosts[0].Host != "h1" || fmt.Sprint(difference.Hosts[0].Added) != "[+ group red/office 192.0.2.0/24,198.51.100.0/24]" {
		t.Errorf("the change of a group means %v", difference.Hosts)
	}
	r.apply(t, groupOf("red", "office", "198.51.100.0/24"))
	eventually(t, "the group is programmed", programmed("AddressGroup", "office"))

	hits, err := r.operate.RuleHits(t.Context(), connect.NewRequest(&weftv1.RuleHitsRequest{Tenant: "red", List: "big"}))
	if err != nil {
		t.Fatal(err)
	}
	if all := hits.Msg.GetHits(); len(all) != 1 || all[0].GetRule() != "r-7" || all[0].GetPackets() != 6 || all[0].GetBytes() != 600 || len(hits.Msg.GetUnreachableHosts()) != 0 {
		t.Errorf("%v", hits.Msg)
	}
}

func TestTracedRulesAreNamedWithTheirPlace(t *testing.T) {
	state := intent.NewState()
	state.Apply([]model.Resource{&model.AccessList{Metadata: model.Metadata{Tenant: "red", Name: "in"}, Spec: model.AccessListSpec{Rules: []model.AccessRule{
		{Name: "https", Source: "policy.yaml:7"}}}}}, nil, intent.Cursors{}, 1)
	for rule, want := range map[string]string{"red/in https": "policy.yaml:7", "red/in default inbound": "", "red/gone https": "", "red/web-1 acl[0]": ""} {
		list, name, _ := strings.Cut(rule, " ")
		if got := sourceOf(state, list, name); got != want {
			t.Errorf("%s is at %q", rule, got)
		}
	}
}

func (r *running) applyDry(t *testing.T, resources ...*weftv1.Resource) *weftv1.ApplyResponse {
	t.Helper()
	res, err := r.Apply(t.Context(), connect.NewRequest(&weftv1.ApplyRequest{Resources: resources, DryRun: true}))
	if err != nil {
		t.Fatalf("dry run: %v", err)
	}
	return res.Msg
}

// hitsAnswer is what each host of a test counts.
func hitsAnswer(q *hostv1.HitsQuery) *hostv1.HitsAnswer {
	return &hostv1.HitsAnswer{Hits: []*weftv1.RuleHit{{Tenant: q.GetTenant(), List: q.GetList(), Rule: "r-7", Packets: 3, Bytes: 300}}}
}
