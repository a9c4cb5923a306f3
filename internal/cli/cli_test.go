package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/api/weft/v1/weftv1connect"
	"github.com/weft-sdn/weft/internal/manifest"
	"github.com/weft-sdn/weft/internal/model"
)

var noon = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// answers is a daemon whose answers the test writes down: what is under test is
// what the command line asks and how it shows the answer.
type answers struct {
	weftv1connect.UnimplementedPolicyServiceHandler
	weftv1connect.UnimplementedOperateServiceHandler
	weftv1connect.UnimplementedAgentServiceHandler

	apply  func(*weftv1.ApplyRequest) (*weftv1.ApplyResponse, error)
	remove func(*weftv1.DeleteRequest) (*weftv1.DeleteResponse, error)
	get    func(*weftv1.Key) (*weftv1.Resource, error)
	list   func(*weftv1.ListRequest) []*weftv1.Resource
	watch  []*weftv1.WatchResponse
	drops  []*weftv1.Drop
	conns  func(*weftv1.ConnectionsRequest) (*weftv1.ConnectionsResponse, error)
	hits   func(*weftv1.RuleHitsRequest) (*weftv1.RuleHitsResponse, error)
	verify []*weftv1.HostVerification
	try    func(*weftv1.TryRulesRequest) (*weftv1.TryRulesResponse, error)
	plug   func(*weftv1.PlugRequest) (*weftv1.PlugResponse, error)

	captured []*weftv1.CaptureResponse
	asked    *weftv1.CaptureRequest
}

func (f *answers) Apply(_ context.Context, r *connect.Request[weftv1.ApplyRequest]) (*connect.Response[weftv1.ApplyResponse], error) {
	return reply(f.apply(r.Msg))
}

func (f *answers) Delete(_ context.Context, r *connect.Request[weftv1.DeleteRequest]) (*connect.Response[weftv1.DeleteResponse], error) {
	return reply(f.remove(r.Msg))
}

func (f *answers) Get(_ context.Context, r *connect.Request[weftv1.GetRequest]) (*connect.Response[weftv1.GetResponse], error) {
	resource, err := f.get(r.Msg.GetKey())
	return reply(&weftv1.GetResponse{Resource: resource}, err)
}

func (f *answers) List(_ context.Context, r *connect.Request[weftv1.ListRequest]) (*connect.Response[weftv1.ListResponse], error) {
	return reply(&weftv1.ListResponse{Resources: f.list(r.Msg), Revision: 12}, nil)
}

func (f *answers) Watch(_ context.Context, _ *connect.Request[weftv1.WatchRequest], s *connect.ServerStream[weftv1.WatchResponse]) error {
	for _, e := range f.watch {
		if err := s.Send(e); err != nil {
			return err
		}
	}
	return nil
}

func (f *answers) FleetStatus(context.Context, *connect.Request[weftv1.FleetStatusRequest]) (*connect.Response[weftv1.FleetStatusResponse], error) {
	return reply(&weftv1.FleetStatusResponse{Revision: 12, Store: "embedded", Version: "v1", Hosts: []*weftv1.HostStatus{
		{Name: "h1", Connected: true, SentRevision: 12, AcknowledgedRevision: 12, Ports: 2, Records: 9, ProviderAddresses: []string{"192.0.2.1"}, Decap: "eth0=tcx", AgentVersion: "v1"},
		{Name: "h2", SentRevision: 11, AcknowledgedRevision: 10, Lag: "3s", Failures: []string{"Port red/db-1: MapFull: no room"}},
	}}, nil)
}

func (f *answers) Drops(context.Context, *connect.Request[weftv1.DropsRequest]) (*connect.Response[weftv1.DropsResponse], error) {
	return reply(&weftv1.DropsResponse{Drops: f.drops, UnreachableHosts: []string{"h9"}}, nil)
}

func (f *answers) Verify(context.Context, *connect.Request[weftv1.VerifyRequest]) (*connect.Response[weftv1.VerifyResponse], error) {
	return reply(&weftv1.VerifyResponse{Hosts: f.verify}, nil)
}

func (f *answers) Lookup(_ context.Context, r *connect.Request[weftv1.LookupRequest]) (*connect.Response[weftv1.LookupResponse], error) {
	return reply(&weftv1.LookupResponse{Tenant: "red", Network: "prod", Subnet: "web", Kind: "port", Port: "web-1", Mac: "02:00:00:00:00:01", Host: "h1", Pa: fmt.Sprintf("%d@%s", r.Msg.GetVsid(), r.Msg.GetCa())}, nil)
}

func (f *answers) CreateToken(_ context.Context, r *connect.Request[weftv1.CreateTokenRequest]) (*connect.Response[weftv1.CreateTokenResponse], error) {
	return reply(&weftv1.CreateTokenResponse{Token: "token-of-" + r.Msg.GetHost(), Expires: fmt.Sprint(r.Msg.GetTtlSeconds())}, nil)
}

func (f *answers) Plug(_ context.Context, r *connect.Request[weftv1.PlugRequest]) (*connect.Response[weftv1.PlugResponse], error) {
	return reply(f.plug(r.Msg))
}

func reply[T any](m *T, err error) (*connect.Response[T], error) {
	if err != nil {
		return nil, err
	}
	return connect.NewResponse(m), nil
}

// serve opens a Unix socket with f behind it and points the command line there.
func serve(t *testing.T, f *answers) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(weftv1connect.NewPolicyServiceHandler(f))
	mux.Handle(weftv1connect.NewOperateServiceHandler(f))
	mux.Handle(weftv1connect.NewAgentServiceHandler(f))
	server := &http.Server{Handler: mux}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	t.Setenv("WEFT_SERVER", path)
	t.Setenv("WEFT_AGENT", path)
	t.Setenv("WEFT_CONTEXT", "")
	t.Setenv("XDG_CONFIG_HOME", t.TempDir())
}

type result struct {
	code     int
	out, err string
}

// weft runs one command line.
func weft(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var out, words bytes.Buffer
	a := &app{version: "v1", in: strings.NewReader(stdin), out: &out, err: &words, now: func() time.Time { return noon }}
	code := run(ctx, a, args)
	return result{code, out.String(), words.String()}
}

func (r result) want(t *testing.T, code int, out, err string) {
	t.Helper()
	if r.code != code {
		t.Errorf("exit code %d, want %d", r.code, code)
	}
	if diff := cmp.Diff(strings.TrimPrefix(out, "\n"), r.out); diff != "" {
		t.Errorf("stdout -want +got:\n%s", diff)
	}
	if diff := cmp.Diff(strings.TrimPrefix(err, "\n"), r.err); diff != "" {
		t.Errorf("stderr -want +got:\n%s", diff)
	}
}

func port(name string, programmed string) *weftv1.Resource {
	return &weftv1.Resource{Kind: &weftv1.Resource_Port{Port: &weftv1.Port{
		Metadata: &weftv1.Metadata{Tenant: "red", Name: name, Uid: "u-" + name, Generation: 2, Revision: 7, CreatedAt: timestamppb.New(noon.Add(-90 * time.Minute))},
		Spec:     &weftv1.PortSpec{Subnet: "web", Mac: "02:00:00:00:00:01", Addresses: []string{"10.0.0.5", "fd00:a::5"}, Host: "h1"},
		Status: &weftv1.Status{
			Conditions: []*weftv1.Condition{
				{Type: "Accepted", Status: "True", Reason: "Valid", ObservedGeneration: 2},
				{Type: "Programmed", Status: programmed, Reason: "Waiting", Message: "h2 is behind", ObservedGeneration: 2, ChangedAt: timestamppb.New(noon.Add(-time.Minute))},
			},
			Rollout: &weftv1.Rollout{Desired: 2, Current: 1}, Host: "h1", Mtu: 1458, Index: 4,
		},
	}}}
}

func TestUsageIsCode2AndNamesTheMistake(t *testing.T) {
	serve(t, &answers{})
	cases := []struct {
		args string
		want string
	}{
		{"gte ports", `unknown command "gte"`},
		{"get", "requires at least 1 arg"},
		{"get potrs", "did you mean ports?"},
		{"get ports --nope", "unknown flag"},
		{"get ports -o xml", "-o xml: this command has table, wide, json, yaml, name"},
		{"get ports web-1", "write TENANT/web-1 or -n TENANT"},
		{"get ports blue/web-1 -n red", "blue/web-1 is in tenant blue, and -n says red"},
		{"get ports -n red -A", "contradict"},
		{"get hosts -n red", "a Host is in no tenant"},
		{"get host red/h1", "a Host is in no tenant"},
		{"apply", "say which manifest"},
		{"apply extra", "unknown command"},
		{"apply -f - --dry-run --wait", "--dry-run programs nothing"},
		{"delete", "say what to delete"},
		{"delete port", "say what to delete"},
		{"delete -f x port a/b", "leave KIND NAME out"},
		{"plug red/web-1", "say either --device or --netns"},
		{"plug red/web-1 --device a --netns b", "say either --device or --netns"},
		{"plug red/web-1 --device a --ifname b", "--device has its name already"},
		{"plug web-1 --device a", "write TENANT/PORT"},
		{"unplug web-1", "write TENANT/PORT"},
		{"drops --port web-1", "write TENANT/PORT"},
		{"capture", "name ports, as TENANT/PORT, or a host"},
		{"capture red/web-1 --host h1", "name ports, as TENANT/PORT, or a host"},
		{"capture web-1", "write TENANT/PORT"},
		{"capture red/web-1 --point middle", "write one of from-guest"},
		{"capture red/web-1 --ca nowhere", "write an IPv4 or IPv6 address"},
		{"capture red/web-1 --reason BAD_LUCK", "weft explain lists the reasons"},
		{"capture red/web-1 --port 70000", "there is no such port"},
		{"capture red/web-1 -w - -o json", "-w writes pcapng"},
		{"lookup 4095 10.0.0.5", "write a number from 4096 to 16777214"},
		{"lookup 16777215 10.0.0.5", "write a number from 4096 to 16777214"},
		{"lookup 5001 10.0.0", "write an IPv4 or IPv6 address"},
		{"token create", "accepts 1 arg"},
		{"token create h1 --ttl 1ms", "at least one second"},
		{"diff", "say which manifest"},
		{"status --server ftp://x", "write https://HOST:PORT"},
	}
	for _, c := range cases {
		t.Run(c.args, func(t *testing.T) {
			r := weft(t, "", strings.Fields(c.args)...)
			if r.code != ExitUsage {
				t.Errorf("exit code %d, want %d", r.code, ExitUsage)
			}
			if !strings.HasPrefix(r.err, "error: ") || !strings.Contains(r.err, c.want) {
				t.Errorf("stderr %q, want %q", r.err, c.want)
			}
			if r.out != "" {
				t.Errorf("words on stdout: %q", r.out)
			}
		})
	}
}

func TestGetTable(t *testing.T) {
	serve(t, &answers{list: func(r *weftv1.ListRequest) []*weftv1.Resource {
		if r.GetKind() != "Port" || r.GetTenant() != "red" {
			t.Errorf("asked for %v", r)
		}
		return []*weftv1.Resource{port("web-1", "True"), port("long-name-2", "False")}
	}})
	for _, kind := range []string{"port", "Ports", "PORT"} {
		weft(t, "", "get", kind, "-n", "red").want(t, ExitDone, `
TENANT   NAME          SUBNET   ADDRESSES            HOST   STATE          AGE
red      web-1         web      10.0.0.5,fd00:a::5   h1     Programmed     1h
red      long-name-2   web      10.0.0.5,fd00:a::5   h1     Waiting(1/2)   1h
`, "")
	}
	weft(t, "", "get", "ports", "-n", "red", "-o", "wide").want(t, ExitDone, `
TENANT   NAME          SUBNET   ADDRESSES            HOST   REWRITE   LISTS   PROFILE   MAC                 MTU    ID   STATE          UID             REVISION   AGE
red      web-1         web      10.0.0.5,fd00:a::5   h1     -         -       -         02:00:00:00:00:01   1458   4    Programmed     u-web-1         7          1h
red      long-name-2   web      10.0.0.5,fd00:a::5   h1     -         -       -         02:00:00:00:00:01   1458   4    Waiting(1/2)   u-long-name-2   7          1h
`, "")
	weft(t, "", "get", "ports", "-n", "red", "-o", "name").want(t, ExitDone, "Port red/web-1\nPort red/long-name-2\n", "")
}

func TestGetNothing(t *testing.T) {
	serve(t, &answers{list: func(*weftv1.ListRequest) []*weftv1.Resource { return nil }})
	weft(t, "", "get", "pas").want(t, ExitDone, "", "no ProviderAddress\n")
}

func TestGetJSONIsTheMessage(t *testing.T) {
	serve(t, &answers{
		list: func(*weftv1.ListRequest) []*weftv1.Resource { return []*weftv1.Resource{port("web-1", "True")} },
		get:  func(*weftv1.Key) (*weftv1.Resource, error) { return port("web-1", "True"), nil },
	})
	var all weftv1.ListResponse
	if err := protojson.Unmarshal([]byte(weft(t, "", "get", "ports", "-o", "json").out), &all); err != nil || all.GetRevision() != 12 || len(all.GetResources()) != 1 {
		t.Errorf("list: %v %v", &all, err)
	}
	var one weftv1.Resource
	if err := protojson.Unmarshal([]byte(weft(t, "", "get", "port", "red/web-1", "-o", "json").out), &one); err != nil || one.GetPort().GetMetadata().GetName() != "web-1" {
		t.Errorf("one: %v %v", &one, err)
	}
}

func TestGetYAMLCanBeApplied(t *testing.T) {
	serve(t, &answers{get: func(k *weftv1.Key) (*weftv1.Resource, error) {
		if manifest.KeyString(k) != "Port red/web-1" {
			t.Errorf("asked for %v", k)
		}
		return port("web-1", "True"), nil
	}})
	r := weft(t, "", "get", "port", "web-1", "-n", "red", "-o", "yaml")
	back, err := manifest.Parse([]byte(r.out))
	if err != nil || len(back) != 1 || back[0].GetPort().GetSpec().GetAddresses()[1] != "fd00:a::5" {
		t.Errorf("%v %v\n%s", back, err, r.out)
	}
}

func TestGetWatch(t *testing.T) {
	serve(t, &answers{watch: []*weftv1.WatchResponse{
		{Type: weftv1.WatchResponse_SNAPSHOT_BEGIN, Revision: 5},
		{Type: weftv1.WatchResponse_PUT, Resource: port("web-1", "True"), Revision: 5},
		{Type: weftv1.WatchResponse_PUT, Resource: port("web-2", "True"), Revision: 5},
		{Type: weftv1.WatchResponse_SYNCED, Revision: 5},
		{Type: weftv1.WatchResponse_PUT, Resource: port("web-1", "False"), Revision: 6},
		{Type: weftv1.WatchResponse_DELETED, Key: &weftv1.Key{Kind: "Port", Tenant: "red", Name: "web-1"}, Revision: 7},
	}})
	weft(t, "", "get", "port", "red/web-1", "-w").want(t, ExitDone, `
EVENT     TENANT   NAME    SUBNET   ADDRESSES            HOST   STATE        AGE
present   red      web-1   web      10.0.0.5,fd00:a::5   h1     Programmed   1h
changed   red      web-1   web      10.0.0.5,fd00:a::5   h1     Waiting(1/2)   1h
gone      red      web-1   -        -                    -      -              -
`, "")
	if lines := strings.Count(weft(t, "", "get", "ports", "-w", "-o", "json").out, "\n"); lines != 6 {
		t.Errorf("%d JSON lines, want one per event", lines)
	}
}

func TestDescribe(t *testing.T) {
	serve(t, &answers{get: func(*weftv1.Key) (*weftv1.Resource, error) { return port("web-1", "False"), nil }})
	weft(t, "", "describe", "port", "red/web-1").want(t, ExitDone, `
Port red/web-1
metadata
  uid         u-web-1
  generation  2
  revision    7
  createdAt   2026-01-31T10:30:00Z
spec
  subnet     web
  mac        02:00:00:00:00:01
  addresses  10.0.0.5, fd00:a::5
  host       h1
status
  rollout.desired  2
  rollout.current  1
  host             h1
  mtu              1458
  index            4
conditions
  TYPE         STATUS   REASON    GENERATION   SINCE   MESSAGE
  Accepted     True     Valid     2            -       -
  Programmed   False    Waiting   2            1m      h2 is behind
`, "")
}

const onePort = "kind: Port\nmetadata: {tenant: red, name: web-1}\nspec: {subnet: web, addresses: [10.0.0.5]}\n"

func TestApplyAndDryRun(t *testing.T) {
	serve(t, &answers{apply: func(r *weftv1.ApplyRequest) (*weftv1.ApplyResponse, error) {
		after := port("web-1", "False")
		return &weftv1.ApplyResponse{Changes: []*weftv1.Change{{Action: "updated", Key: manifest.Key(after), After: after}},
			Hosts: []*weftv1.HostDifference{{Host: "h1", Added: []string{"+ record 5001 10.0.0.5 -> 192.0.2.1"}, Removed: []string{"record 5001 10.0.0.4 -> 192.0.2.1"}}, {Host: "h2"}}}, nil
	}})
	weft(t, onePort, "apply", "-f", "-").want(t, ExitDone, "Port red/web-1 updated\n", "")
	weft(t, onePort, "apply", "-f", "-", "--dry-run").want(t, ExitDone, `
Port red/web-1 updated (dry run)
host h1
  - record 5001 10.0.0.4 -> 192.0.2.1
  + record 5001 10.0.0.5 -> 192.0.2.1
`, "")
}

func TestApplyWaitsUntilProgrammed(t *testing.T) {
	var asked atomic.Int32
	f := &answers{
		apply: func(*weftv1.ApplyRequest) (*weftv1.ApplyResponse, error) {
			after := port("web-1", "False")
			return &weftv1.ApplyResponse{Changes: []*weftv1.Change{{Action: "created", Key: manifest.Key(after), After: after}}}, nil
		},
		list: func(*weftv1.ListRequest) []*weftv1.Resource {
			programmed := "False"
			if asked.Add(1) == 3 {
				programmed = "True"
			}
			return []*weftv1.Resource{port("web-1", programmed), port("another", "False")}
		},
	}
	serve(t, f)
	weft(t, onePort, "apply", "-f", "-", "--wait").want(t, ExitDone, "Port red/web-1 created\n", "waiting for the hosts to acknowledge\n")
	if asked.Load() != 3 {
		t.Errorf("looked %d times", asked.Load())
	}
	f.list = func(*weftv1.ListRequest) []*weftv1.Resource { return []*weftv1.Resource{port("web-1", "False")} }
	weft(t, onePort, "apply", "-f", "-", "--wait", "--timeout", "300ms").want(t, ExitNotConverged, "Port red/web-1 created\n", `
waiting for the hosts to acknowledge
Port red/web-1: Programmed is False: Waiting: h2 is behind
error: 1 of 1 resources are not programmed after 300ms
`)
	// True of an older generation is not true of this one.
	stale := port("web-1", "True")
	manifest.Condition(stale, "Programmed").ObservedGeneration = 1
	f.list = func(*weftv1.ListRequest) []*weftv1.Resource { return []*weftv1.Resource{stale} }
	if r := weft(t, onePort, "apply", "-f", "-", "--wait", "--timeout", "300ms"); r.code != ExitNotConverged {
		t.Errorf("exit code %d for a stale condition", r.code)
	}
}

func TestViolationsAreOnePerLine(t *testing.T) {
	serve(t, &answers{apply: func(*weftv1.ApplyRequest) (*weftv1.ApplyResponse, error) {
		err := connect.NewError(connect.CodeInvalidArgument, errors.New("2 violations"))
		detail, _ := connect.NewErrorDetail(&weftv1.Violations{Violations: []*weftv1.Violation{
			{Key: &weftv1.Key{Kind: "Port", Tenant: "red", Name: "web-9"}, Field: "spec.addresses[0]", Message: "10.9.9.9 is outside the subnet"},
			{Key: &weftv1.Key{Kind: "Tenant", Name: "red"}, Message: "is being removed"},
		}})
		err.AddDetail(detail)
		return nil, err
	}})
	weft(t, onePort, "apply", "-f", "-").want(t, ExitFailed, "", `
error: Port red/web-9: spec.addresses[0]: 10.9.9.9 is outside the subnet
error: Tenant red: is being removed
`)
}

func TestManifestErrorsAreOnePerLine(t *testing.T) {
	serve(t, &answers{})
	weft(t, "kind: Port\nmetadata: {name: a}\nspec: {hst: h1, subnte: web}\n", "apply", "-f", "-").want(t, ExitFailed, "", `
error: document 1, line 3: spec.hst: unknown field, did you mean "host"?
error: document 1, line 3: spec.subnte: unknown field, did you mean "subnet"?
`)
	weft(t, "", "apply", "-f", "-").want(t, ExitFailed, "", "error: - holds no resource\n")
}

func TestNoServer(t *testing.T) {
	serve(t, &answers{})
	path := filepath.Join(t.TempDir(), "none")
	weft(t, "", "status", "--server", path).want(t, ExitFailed, "",
		"error: nothing answers at "+path+" (no such socket): is weftd running on this host? Otherwise say --server or --agent\n")
	weft(t, "", "status", "--server", "https://192.0.2.1:1").want(t, ExitFailed, "",
		"error: a server over the network needs mutual TLS: name ca, certificate and key in a context file (weft help)\n")
}

func TestContextFileIsStrict(t *testing.T) {
	serve(t, &answers{})
	t.Setenv("WEFT_SERVER", "")
	path := filepath.Join(t.TempDir(), "context.yaml")
	if err := os.WriteFile(path, []byte("server: https://192.0.2.1\nkeys: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := weft(t, "", "status", "--context", path)
	if r.code != ExitFailed || !strings.Contains(r.err, "field keys not found") {
		t.Errorf("%+v", r)
	}
}

func TestDelete(t *testing.T) {
	var asked *weftv1.DeleteRequest
	serve(t, &answers{remove: func(r *weftv1.DeleteRequest) (*weftv1.DeleteResponse, error) {
		asked = r
		return &weftv1.DeleteResponse{Changes: []*weftv1.Change{{Action: "deleted", Key: r.GetItems()[0].GetKey()}}}, nil
	}})
	weft(t, "", "delete", "ports", "web-1", "blue/web-2", "-n", "").want(t, ExitUsage, "", "error: a Port is in a tenant: write TENANT/web-1 or -n TENANT\n")
	weft(t, "", "delete", "ports", "red/web-1", "blue/web-2").want(t, ExitDone, "Port red/web-1 deleted\n", "")
	if len(asked.GetItems()) != 2 || manifest.KeyString(asked.GetItems()[1].GetKey()) != "Port blue/web-2" {
		t.Errorf("asked %v", asked)
	}
	weft(t, strings.Replace(onePort, "name: web-1", "name: web-1, revision: 9", 1), "delete", "-f", "-", "--dry-run").want(t, ExitDone, "Port red/web-1 deleted (dry run)\n", "")
	if asked.GetItems()[0].GetRevision() != 9 || !asked.GetDryRun() {
		t.Errorf("asked %v", asked)
	}
}

func TestDiff(t *testing.T) {
	before, after := port("web-1", "True"), port("web-1", "True")
	after.GetPort().Spec.Addresses = []string{"10.0.0.6"}
	action := "updated"
	serve(t, &answers{
		get: func(*weftv1.Key) (*weftv1.Resource, error) { return before, nil },
		apply: func(r *weftv1.ApplyRequest) (*weftv1.ApplyResponse, error) {
			if !r.GetDryRun() {
				t.Error("diff applied")
			}
			return &weftv1.ApplyResponse{Changes: []*weftv1.Change{{Action: action, Key: manifest.Key(after), After: after}}}, nil
		},
	})
	weft(t, onePort, "diff", "-f", "-").want(t, ExitNotConverged, `
Port red/web-1 updated
    kind: Port
    metadata:
      tenant: red
      name: web-1
    spec:
      subnet: web
      mac: "02:00:00:00:00:01"
  -   addresses: [10.0.0.5, "fd00:a::5"]
  +   addresses: [10.0.0.6]
      host: h1
`, "error: 1 of 1 resources differ\n")
	action = "unchanged"
	weft(t, onePort, "diff", "-f", "-").want(t, ExitDone, "", "")
}

func TestVerifyExitsWith3OnDrift(t *testing.T) {
	f := &answers{verify: []*weftv1.HostVerification{{Host: "h1", Reachable: true, Revision: 12}}}
	serve(t, f)
	weft(t, "", "verify").want(t, ExitDone, "h1 holds revision 12\n", "")
	f.verify = append(f.verify, &weftv1.HostVerification{Host: "h2", Reachable: true, Revision: 12, Differences: []string{"- record 5001 10.0.0.5"}}, &weftv1.HostVerification{Host: "h3"})
	weft(t, "", "verify").want(t, ExitNotConverged, `
h1 holds revision 12
h2 differs from revision 12
  - record 5001 10.0.0.5
h3 does not answer
`, "error: 2 of 3 hosts differ from policy or do not answer\n")
}

func TestDropsStatusLookupTokenPlug(t *testing.T) {
	serve(t, &answers{
		drops: []*weftv1.Drop{{Host: "h1", Port: "red/web-1", Direction: "outbound", Reason: 33, ReasonName: "SPOOFED_CA", Stage: "admit", Class: "security", Packets: 3, Bytes: 180},
			{Host: "h1", Port: "red/web-1", Direction: "inbound", Reason: 40, ReasonName: "ACL_DENIED", Stage: "acl", Class: "policy", Packets: 2, Bytes: 120, List: "red/in", Rule: "no-dns", Source: "a.yaml:7", Last: "10.0.0.9 > 10.0.0.5"}},
		plug: func(r *weftv1.PlugRequest) (*weftv1.PlugResponse, error) {
			return &weftv1.PlugResponse{Device: r.GetNetns() + r.GetIfname(), Mac: "02:00:00:00:00:01", Addresses: []string{"10.0.0.5/24"}, Gateways: []string{"10.0.0.1"}, Mtu: 1458}, nil
		},
	})
	weft(t, "", "drops").want(t, ExitDone, `
HOST   PORT        DIRECTION   REASON       STAGE   CLASS      PACKETS   BYTES   RULE                       LAST
h1     red/web-1   outbound    SPOOFED_CA   admit   security   3         180     -                          -
h1     red/web-1   inbound     ACL_DENIED   acl     policy     2         120     red/in no-dns (a.yaml:7)   10.0.0.9 > 10.0.0.5
`, "host h9 does not answer: its drops are not shown\n")
	weft(t, "", "status").want(t, ExitDone, `
server v1, store embedded, revision 12, 1 of 2 hosts connected
HOST   CONNECTED   SENT   ACKNOWLEDGED   LAG   PORTS   RECORDS   PAS         DECAP      VERSION
h1     yes         12     12             -     2       9         192.0.2.1   eth0=tcx   v1
h2     no          11     10             3s    0       0         -           -          -
h2: Port red/db-1: MapFull: no room
`, "")
	weft(t, "", "lookup", "5001", "FD00:A::5").want(t, ExitDone, `
TENANT   NETWORK   SUBNET   KIND   PORT    MAC                 HOST   PA               REWRITE
red      prod      web      port   web-1   02:00:00:00:00:01   h1     5001@fd00:a::5   -
`, "")
	weft(t, "", "token", "create", "h1", "--ttl", "5m").want(t, ExitDone, "token-of-h1\n", "expires 300\n")
	weft(t, "", "plug", "red/web-1", "--netns", "vm", "--ifname", "0").want(t, ExitDone, `
DEVICE   MAC                 ADDRESSES     GATEWAYS   MTU
vm0      02:00:00:00:00:01   10.0.0.5/24   10.0.0.1   1458
`, "")
}

func TestExplainKnowsEveryReasonAndField(t *testing.T) {
	for _, v := range model.Verdicts() {
		if r := weft(t, "", "explain", strings.ToLower(v.Name)); r.code != ExitDone || !strings.Contains(r.out, v.Sentence) {
			t.Errorf("%s: %+v", v.Name, r)
		}
	}
	known := make(map[string]bool)
	for _, kind := range manifest.Kinds() {
		for _, path := range fieldPaths(kind) {
			known[path] = true
			if fieldDocs[path] == "" {
				t.Errorf("%s is in the API, and nothing explains it", path)
			}
		}
	}
	for path := range fieldDocs {
		if !known[path] {
			t.Errorf("%s is explained, and is not in the API", path)
		}
	}
	weft(t, "", "explain", "port.addresses").want(t, ExitDone, "Port.spec.addresses\n  "+fieldDocs["Port.spec.addresses"]+"\n", "")
	weft(t, "", "explain", "subnet.spec.vsid").want(t, ExitDone, "VirtualSubnet.spec.vsid\n  "+fieldDocs["VirtualSubnet.spec.vsid"]+"\n", "")
	weft(t, "", "explain", "SPOOFD_CA").want(t, ExitFailed, "", "error: nothing is known about \"SPOOFD_CA\", did you mean SPOOFED_CA?\n")
}

func TestCompletion(t *testing.T) {
	serve(t, &answers{list: func(*weftv1.ListRequest) []*weftv1.Resource { return []*weftv1.Resource{port("web-1", "True")} }})
	if r := weft(t, "", "__complete", "get", ""); !strings.Contains(r.out, "ports\n") {
		t.Errorf("kinds: %q", r.out)
	}
	if r := weft(t, "", "__complete", "describe", "port", ""); !strings.Contains(r.out, "red/web-1\n") {
		t.Errorf("names: %q", r.out)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if r := weft(t, "", "completion", shell); r.code != ExitDone || len(r.out) < 1000 {
			t.Errorf("%s: code %d, %d bytes", shell, r.code, len(r.out))
		}
	}
}
