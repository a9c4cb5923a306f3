package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/api/weft/host/v1/hostv1connect"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/api/weft/v1/weftv1connect"
	"github.com/weft-sdn/weft/internal/identity"
)

// running is a server in this process, with clients on its local socket.
type running struct {
	weftv1connect.PolicyServiceClient
	operate weftv1connect.OperateServiceClient
	http    *http.Client
	addrs   Addresses
	dir     string
	cancel  context.CancelFunc
	done    chan error
}

// start runs a server in dir; change may alter its settings.
func start(t *testing.T, dir string, change func(*Config)) *running {
	t.Helper()
	cfg, err := ParseConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	ready := make(chan Addresses, 1)
	cfg.DataDir, cfg.Socket, cfg.Metrics = dir, filepath.Join(dir, "s.sock"), "127.0.0.1:0"
	cfg.Listen = ListenConfig{API: "127.0.0.1:0", Hosts: "127.0.0.1:0"}
	cfg.Version, cfg.Ready = "test", func(a Addresses) { ready <- a }
	if change != nil {
		change(&cfg)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{dir: dir, cancel: cancel, done: make(chan error, 1)}
	go func() { r.done <- Run(ctx, cfg, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() { r.stop(t) })
	select {
	case r.addrs = <-ready:
	case err := <-r.done:
		t.Fatalf("server: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("the server did not become ready")
	}
	r.http = unixClient(cfg.Socket)
	r.PolicyServiceClient = weftv1connect.NewPolicyServiceClient(r.http, "http://weft")
	r.operate = weftv1connect.NewOperateServiceClient(r.http, "http://weft")
	return r
}

func (r *running) stop(t *testing.T) {
	if r.cancel == nil {
		return
	}
	r.cancel()
	r.cancel = nil
	select {
	case err := <-r.done:
		if err != nil {
			t.Errorf("server ended with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("the server did not end")
	}
}

func unixClient(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}}}
}

// A world of one tenant, as people would write it.
func tenant(name string) *weftv1.Resource {
	return &weftv1.Resource{Kind: &weftv1.Resource_Tenant{Tenant: &weftv1.Tenant{Metadata: &weftv1.Metadata{Name: name}}}}
}

func network(tenant, name string) *weftv1.Resource {
	return &weftv1.Resource{Kind: &weftv1.Resource_VirtualNetwork{VirtualNetwork: &weftv1.VirtualNetwork{Metadata: &weftv1.Metadata{Tenant: tenant, Name: name}}}}
}

func subnet(tenant, name string, prefixes ...string) *weftv1.Resource {
	return &weftv1.Resource{Kind: &weftv1.Resource_VirtualSubnet{VirtualSubnet: &weftv1.VirtualSubnet{Metadata: &weftv1.Metadata{Tenant: tenant, Name: name},
		Spec: &weftv1.VirtualSubnetSpec{Network: "prod", Prefixes: prefixes}}}}
}

func portOf(tenant, name, subnet, host string, cas ...string) *weftv1.Resource {
	return &weftv1.Resource{Kind: &weftv1.Resource_Port{Port: &weftv1.Port{Metadata: &weftv1.Metadata{Tenant: tenant, Name: name},
		Spec: &weftv1.PortSpec{Subnet: subnet, Host: host, Addresses: cas}}}}
}

func hostNamed(name string) *weftv1.Resource {
	return &weftv1.Resource{Kind: &weftv1.Resource_Host{Host: &weftv1.Host{Metadata: &weftv1.Metadata{Name: name}}}}
}

func paOf(name, host, addr string) *weftv1.Resource {
	return &weftv1.Resource{Kind: &weftv1.Resource_ProviderAddress{ProviderAddress: &weftv1.ProviderAddress{Metadata: &weftv1.Metadata{Name: name},
		Spec: &weftv1.ProviderAddressSpec{Host: host, Address: addr}}}}
}

func world() []*weftv1.Resource {
	// In no helpful order: references may point anywhere inside a set.
	return []*weftv1.Resource{
		portOf("red", "web-1", "web", "h1", "10.0.0.5", "fd00:a::5"),
		subnet("red", "web", "10.0.0.0/24", "fd00:a::/64"),
		portOf("red", "web-2", "web", ""),
		network("red", "prod"), tenant("red"), paOf("pa1", "h1", "192.0.2.1"), hostNamed("h1"), hostNamed("h2"), paOf("pa2", "h2", "192.0.2.2"),
	}
}

func (r *running) apply(t *testing.T, resources ...*weftv1.Resource) *weftv1.ApplyResponse {
	t.Helper()
	res, err := r.Apply(t.Context(), connect.NewRequest(&weftv1.ApplyRequest{Resources: resources}))
	if err != nil {
		t.Fatalf("apply: %v", err)
	}
	return res.Msg
}

func (r *running) get(t *testing.T, kind, tenant, name string) *weftv1.Resource {
	t.Helper()
	res, err := r.Get(t.Context(), connect.NewRequest(&weftv1.GetRequest{Key: &weftv1.Key{Kind: kind, Tenant: tenant, Name: name}}))
	if err != nil {
		t.Fatalf("get %s %s/%s: %v", kind, tenant, name, err)
	}
	return res.Msg.Resource
}

func (r *running) list(t *testing.T, kind, tenant string) []*weftv1.Resource {
	t.Helper()
	res, err := r.List(t.Context(), connect.NewRequest(&weftv1.ListRequest{Kind: kind, Tenant: tenant}))
	if err != nil {
		t.Fatalf("list %s: %v", kind, err)
	}
	return res.Msg.Resources
}

// violationsOf reads the details of an error.
func violationsOf(err error) []*weftv1.Violation {
	var e *connect.Error
	if !errors.As(err, &e) {
		return nil
	}
	for _, d := range e.Details() {
		if v, err := d.Value(); err == nil {
			if vs, ok := v.(*weftv1.Violations); ok {
				return vs.Violations
			}
		}
	}
	return nil
}

func TestASetIsStoredWithWhatWasLeftOut(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	res := r.apply(t, world()...)
	if len(res.Changes) != len(world()) || res.Revision == 0 {
		t.Fatalf("%d changes at revision %d", len(res.Changes), res.Revision)
	}
	for _, c := range res.Changes {
		if c.Action != "created" {
			t.Errorf("%v: %s", c.Key, c.Action)
		}
	}
	s := r.get(t, "VirtualSubnet", "red", "web").GetVirtualSubnet()
	if s.Spec.Vsid != 4096 || fmt.Sprint(s.Spec.Gateway) != "[10.0.0.1 fd00:a::1]" || s.Spec.Transport != "nvgre" {
		t.Errorf("subnet %v", s.Spec)
	}
	p := r.get(t, "Port", "red", "web-2").GetPort()
	if fmt.Sprint(p.Spec.Addresses) != "[10.0.0.2 fd00:a::2]" || !strings.HasPrefix(p.Spec.Mac, "02:") || p.Status.Index == 0 || p.Metadata.Uid == "" || p.Metadata.Revision != res.Revision {
		t.Errorf("port %v", p)
	}
	if n := r.get(t, "VirtualNetwork", "red", "prod").GetVirtualNetwork(); n.Status.Index != 1 || len(n.Spec.Rdid) != 36 {
		t.Errorf("network %v", n)
	}
	again := r.apply(t, world()...)
	for _, c := range again.Changes {
		if c.Action != "unchanged" {
			t.Errorf("again: %v: %s", c.Key, c.Action)
		}
	}
	if again.Revision != res.Revision {
		t.Errorf("a set that changes nothing moved the revision from %d to %d", res.Revision, again.Revision)
	}
}

func TestDerivedRecordsAreListedAndReadOnly(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.apply(t, world()...)
	records := r.list(t, "LookupRecord", "red")
	if len(records) != 6 { // two gateways, two addresses of two ports
		t.Fatalf("%d records", len(records))
	}
	l := r.get(t, "LookupRecord", "red", "port:web-1:10.0.0.5").GetLookupRecord()
	if !l.Status.Derived || l.Spec.ProviderAddress != "192.0.2.1" {
		t.Fatalf("record %v", l)
	}
	_, err := r.Apply(t.Context(), connect.NewRequest(&weftv1.ApplyRequest{Resources: []*weftv1.Resource{{Kind: &weftv1.Resource_LookupRecord{LookupRecord: l}}}}))
	if connect.CodeOf(err) != connect.CodeInvalidArgument || !strings.Contains(err.Error(), "derived") {
		t.Fatalf("write: %v", err)
	}
	_, err = r.Delete(t.Context(), connect.NewRequest(&weftv1.DeleteRequest{Items: []*weftv1.DeleteRequest_Item{{Key: &weftv1.Key{Kind: "LookupRecord", Tenant: "red", Name: "port:web-1:10.0.0.5"}}}}))
	if err == nil || !strings.Contains(err.Error(), "derived") {
		t.Fatalf("delete: %v", err)
	}
}

func TestABadSetIsRefusedWholeAndEveryFaultNamed(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	bad := []*weftv1.Resource{
		tenant("red"), network("red", "prod"),
		subnet("red", "web", "10.0.0.0/24", "10.0.0.1/24"),
		subnet("red", "mail", "nonsense"),
		portOf("red", "p", "nowhere", "h9", "10.0.0.300"),
		tenant("Not_A_Name"),
	}
	_, err := r.Apply(t.Context(), connect.NewRequest(&weftv1.ApplyRequest{Resources: bad}))
	if connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Fatalf("%v", err)
	}
	var fields []string
	for _, v := range violationsOf(err) {
		fields = append(fields, v.GetKey().GetName()+" "+v.Field)
	}
	text := strings.Join(fields, "\n")
	for _, want := range []string{"web spec.prefixes[1]", "mail spec.prefixes[0]", "p spec.addresses[0]", "Not_A_Name metadata.name"} {
		if !strings.Contains(text, want) {
			t.Errorf("no violation for %q among\n%s", want, text)
		}
	}
	if left := r.list(t, "", ""); len(left) != 0 {
		t.Errorf("%d resources of a refused set are there", len(left))
	}
}

func TestDryRunStoresNothingAndSaysWhatHostsWouldGet(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	res, err := r.Apply(t.Context(), connect.NewRequest(&weftv1.ApplyRequest{Resources: world(), DryRun: true}))
	if err != nil {
		t.Fatal(err)
	}
	if res.Msg.Revision != 0 || len(res.Msg.Changes) != len(world()) {
		t.Errorf("%v", res.Msg)
	}
	var lines []string
	for _, h := range res.Msg.Hosts {
		lines = append(lines, h.Added...)
	}
	if !strings.Contains(strings.Join(lines, "\n"), "10.0.0.5") {
		t.Errorf("no host difference mentions 10.0.0.5: %v", res.Msg.Hosts)
	}
	if left := r.list(t, "", ""); len(left) != 0 {
		t.Errorf("%d resources after a dry run", len(left))
	}
}

func TestDependantsAreNamedAndStaleRevisionsRefused(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.apply(t, world()...)
	del := func(items ...*weftv1.DeleteRequest_Item) error {
		_, err := r.Delete(t.Context(), connect.NewRequest(&weftv1.DeleteRequest{Items: items}))
		return err
	}
	item := func(kind, tenant, name string, revision int64) *weftv1.DeleteRequest_Item {
		return &weftv1.DeleteRequest_Item{Key: &weftv1.Key{Kind: kind, Tenant: tenant, Name: name}, Revision: revision}
	}
	err := del(item("VirtualSubnet", "red", "web", 0))
	if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "Port red/web-1") {
		t.Fatalf("with dependants: %v", err)
	}
	if err := del(item("Port", "red", "web-1", 1)); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		t.Fatalf("stale: %v", err)
	}
	if err := del(item("Port", "red", "none", 0)); connect.CodeOf(err) != connect.CodeNotFound {
		t.Fatalf("missing: %v", err)
	}
	if err := del(item("VirtualSubnet", "red", "web", 0), item("Port", "red", "web-1", 0), item("Port", "red", "web-2", 0)); err != nil {
		t.Fatalf("with its dependants: %v", err)
	}
}

func TestConcurrentAppliesDoNotInterleave(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.apply(t, world()...)
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			r.apply(t, portOf("red", fmt.Sprintf("auto-%d", i), "web", ""))
		})
	}
	wg.Wait()
	seen := map[string]string{}
	for _, p := range r.list(t, "Port", "red") {
		for _, ca := range p.GetPort().Spec.Addresses {
			if other, ok := seen[ca]; ok {
				t.Errorf("%s is of %s and %s", ca, other, p.GetPort().Metadata.Name)
			}
			seen[ca] = p.GetPort().Metadata.Name
		}
	}
	if len(seen) != 44 {
		t.Errorf("%d addresses", len(seen))
	}
	// Of two changes on one revision, one is refused.
	p := r.get(t, "Port", "red", "web-1")
	errs := make(chan error, 2)
	for i := range 2 {
		changed := portOf("red", "web-1", "web", "h1", "10.0.0.5", "fd00:a::5")
		changed.GetPort().Metadata.Revision = p.GetPort().Metadata.Revision
		changed.GetPort().Metadata.Labels = map[string]string{"i": fmt.Sprint(i)}
		go func() {
			_, err := r.Apply(context.Background(), connect.NewRequest(&weftv1.ApplyRequest{Resources: []*weftv1.Resource{changed}}))
			errs <- err
		}()
	}
	first, second := <-errs, <-errs
	if (first == nil) == (second == nil) {
		t.Errorf("%v, %v: one of them should be refused", first, second)
	}
}

func TestARestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	r := start(t, dir, nil)
	rev := r.apply(t, world()...).Revision
	before := r.get(t, "Port", "red", "web-2").GetPort()
	ca, _ := os.ReadFile(filepath.Join(dir, "ca", "ca.crt"))
	r.stop(t)
	r = start(t, dir, nil)
	after := r.get(t, "Port", "red", "web-2").GetPort()
	if after.Spec.String() != before.Spec.String() || after.Metadata.Uid != before.Metadata.Uid || after.Metadata.Revision != rev || after.Status.Index != before.Status.Index {
		t.Errorf("before %v\nafter %v", before, after)
	}
	again, _ := os.ReadFile(filepath.Join(dir, "ca", "ca.crt"))
	if string(ca) != string(again) || len(ca) == 0 {
		t.Error("the authority is another")
	}
	// An identity that was freed is not given out at once, not even after a restart.
	r.Delete(t.Context(), connect.NewRequest(&weftv1.DeleteRequest{Items: []*weftv1.DeleteRequest_Item{{Key: &weftv1.Key{Kind: "Port", Tenant: "red", Name: "web-2"}}}}))
	r.stop(t)
	r = start(t, dir, nil)
	r.apply(t, portOf("red", "web-3", "web", ""))
	if id := r.get(t, "Port", "red", "web-3").GetPort().Status.Index; id <= before.Status.Index {
		t.Errorf("port id %d was used before", id)
	}
}

func TestUnknownFieldsInJSONAreRefused(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	res, err := r.http.Post("http://weft"+weftv1connect.PolicyServiceApplyProcedure, "application/json",
		strings.NewReader(`{"resources":[{"tenant":{"metadata":{"name":"red"},"specc":{}}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	if res.StatusCode == http.StatusOK || !strings.Contains(string(body), "specc") {
		t.Fatalf("%s: %s", res.Status, body)
	}
}

func TestMetricsSayWhatIsThere(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.apply(t, world()...)
	res, err := http.Get("http://" + r.addrs.Metrics + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, _ := io.ReadAll(res.Body)
	for _, want := range []string{`weft_server_resources{kind="Port"} 2`, `weft_server_store_up 1`, `weft_server_commits_total{outcome="stored"} 1`} {
		if !strings.Contains(string(body), want) {
			t.Errorf("no %s in\n%s", want, body)
		}
	}
}

// adminClient uses what the server left for its first administrator.
func adminClient(t *testing.T, dir string) *http.Client {
	t.Helper()
	var pem [3][]byte
	for i, f := range []string{"ca.crt", "admin.crt", "admin.key"} {
		var err error
		if pem[i], err = os.ReadFile(filepath.Join(dir, "admin", f)); err != nil {
			t.Fatal(err)
		}
	}
	cfg, err := identity.ClientTLS(pem[0], pem[1], pem[2])
	if err != nil {
		t.Fatal(err)
	}
	return tlsClient(cfg)
}

func tlsClient(cfg *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{TLSClientConfig: cfg, ForceAttemptHTTP2: true}}
}

// joined makes a host that joined with a token.
func joined(t *testing.T, r *running, host string) *identity.Host {
	t.Helper()
	token := r.token(t, host)
	h, err := identity.OpenHost(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := join(t, r, h, token); err != nil {
		t.Fatal(err)
	}
	return h
}

func (r *running) token(t *testing.T, host string) string {
	t.Helper()
	res, err := r.operate.CreateToken(t.Context(), connect.NewRequest(&weftv1.CreateTokenRequest{Host: host}))
	if err != nil {
		t.Fatal(err)
	}
	return res.Msg.Token
}

func join(t *testing.T, r *running, h *identity.Host, text string) error {
	t.Helper()
	token, err := identity.ParseToken(text)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := h.Request()
	if err != nil {
		t.Fatal(err)
	}
	c := hostv1connect.NewHostServiceClient(tlsClient(identity.JoinTLS(token)), "https://"+r.addrs.Hosts)
	res, err := c.Join(t.Context(), connect.NewRequest(&hostv1.JoinRequest{Token: text, CsrDer: csr}))
	if err != nil {
		return err
	}
	return h.Accept(res.Msg.CertificatePem, res.Msg.CaPem)
}

func hostClient(r *running, h *identity.Host) hostv1connect.HostServiceClient {
	return hostv1connect.NewHostServiceClient(tlsClient(h.TLS()), "https://"+r.addrs.Hosts)
}

func TestWhoMayEnterWhere(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.apply(t, world()...)
	admin := adminClient(t, r.dir)
	get := &weftv1.GetRequest{Key: &weftv1.Key{Kind: "Tenant", Name: "red"}}
	if _, err := weftv1connect.NewPolicyServiceClient(admin, "https://"+r.addrs.API).Get(t.Context(), connect.NewRequest(get)); err != nil {
		t.Errorf("an administrator on the API: %v", err)
	}
	h := joined(t, r, "h1")
	if _, err := hostClient(r, h).BindPort(t.Context(), connect.NewRequest(&hostv1.BindPortRequest{Tenant: "red", Name: "web-1"})); err != nil {
		t.Errorf("a host on its own face: %v", err)
	}
	if _, err := weftv1connect.NewPolicyServiceClient(tlsClient(h.TLS()), "https://"+r.addrs.API).Get(t.Context(), connect.NewRequest(get)); err == nil {
		t.Error("a host's certificate got into the API")
	}
	bind := connect.NewRequest(&hostv1.BindPortRequest{Tenant: "red", Name: "web-1"})
	if _, err := hostv1connect.NewHostServiceClient(admin, "https://"+r.addrs.Hosts).BindPort(t.Context(), bind); err == nil {
		t.Error("an administrator's certificate passed for a host")
	}
	nobody := admin.Transport.(*http.Transport).TLSClientConfig.Clone()
	nobody.Certificates = nil
	if _, err := weftv1connect.NewPolicyServiceClient(tlsClient(nobody), "https://"+r.addrs.API).Get(t.Context(), connect.NewRequest(get)); err == nil {
		t.Error("nobody got into the API")
	}
	if _, err := hostv1connect.NewHostServiceClient(tlsClient(nobody), "https://"+r.addrs.Hosts).BindPort(t.Context(), bind); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("nobody among the hosts: %v", err)
	}
	if info, err := os.Stat(filepath.Join(r.dir, "admin", "admin.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("admin.key: %v %v", info, err)
	}
}

func TestATokenLetsOneHostInOnce(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	text := r.token(t, "h7")
	r.get(t, "Host", "", "h7") // made with the token
	h, _ := identity.OpenHost(t.TempDir())
	forged := []byte(text)
	i := strings.Index(text, ".") + 15 // inside the secret
	forged[i] ^= 1
	if err := join(t, r, h, string(forged)); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("forged token: %v", err)
	}
	if err := join(t, r, h, text); err != nil {
		t.Fatal(err)
	}
	if name, _ := h.Name(); name != "h7" {
		t.Errorf("the certificate is for %q", name)
	}
	if err := join(t, r, h, text); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("second use: %v", err)
	}
	// Renewal keeps the name, whatever is asked for.
	csr, _ := h.Request()
	res, err := hostClient(r, h).Renew(t.Context(), connect.NewRequest(&hostv1.RenewRequest{CsrDer: csr}))
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Accept(res.Msg.CertificatePem, res.Msg.CaPem); err != nil {
		t.Fatal(err)
	}
	if name, _ := h.Name(); name != "h7" {
		t.Errorf("renewed for %q", name)
	}
	// A host that policy does not know any more is not served.
	r.Delete(t.Context(), connect.NewRequest(&weftv1.DeleteRequest{Items: []*weftv1.DeleteRequest_Item{{Key: &weftv1.Key{Kind: "Host", Name: "h7"}}}}))
	csr, _ = h.Request()
	if _, err := hostClient(r, h).Renew(t.Context(), connect.NewRequest(&hostv1.RenewRequest{CsrDer: csr})); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("a deleted host renews: %v", err)
	}
}

func (r *running) deleteHost(t *testing.T, name string) {
	t.Helper()
	items := []*weftv1.DeleteRequest_Item{{Key: &weftv1.Key{Kind: "Host", Name: name}}}
	if _, err := r.Delete(t.Context(), connect.NewRequest(&weftv1.DeleteRequest{Items: items})); err != nil {
		t.Fatal(err)
	}
}

func TestAHostThatIsCreatedAgainMustJoinAgain(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	h, unused := joined(t, r, "h7"), r.token(t, "h7")
	r.deleteHost(t, "h7")
	stranger, _ := identity.OpenHost(t.TempDir())
	if err := join(t, r, stranger, unused); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("the token of a deleted host: %v", err)
	}
	if n := len(r.list(t, "Host", "")); n != 0 {
		t.Errorf("an old token made %d hosts", n)
	}
	r.apply(t, hostNamed("h7"))
	csr, _ := h.Request()
	_, err := hostClient(r, h).Renew(t.Context(), connect.NewRequest(&hostv1.RenewRequest{CsrDer: csr}))
	if connect.CodeOf(err) != connect.CodePermissionDenied || !strings.Contains(err.Error(), "created again") || !strings.Contains(err.Error(), "weft token create h7") {
		t.Errorf("the certificate of a host that was deleted and created again: %v", err)
	}
	if err := join(t, r, stranger, unused); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("the token of the host before: %v", err)
	}
	if err := join(t, r, h, r.token(t, "h7")); err != nil {
		t.Fatal(err)
	}
	csr, _ = h.Request()
	if _, err := hostClient(r, h).Renew(t.Context(), connect.NewRequest(&hostv1.RenewRequest{CsrDer: csr})); err != nil {
		t.Errorf("after joining again: %v", err)
	}
}

// A request is let in by its head; what it asks for is judged by who the caller is
// when the body has come.
func TestARequestOfAHostThatWasCreatedAgainMeanwhileIsRefused(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.apply(t, world()...)
	h := joined(t, r, "h3")
	call := func(procedure string, m proto.Message) (status int, body string) {
		reader, writer := io.Pipe()
		// The server asks for the body when it reads it: then the head was let in.
		headed := make(chan struct{})
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got100Continue: func() { close(headed) }})
		req, _ := http.NewRequestWithContext(ctx, "POST", "https://"+r.addrs.Hosts+procedure, reader)
		req.Header.Set("Content-Type", "application/proto")
		req.Header.Set("Expect", "100-continue")
		go func() {
			<-headed
			before := r.get(t, "Host", "", "h3").GetHost().Metadata.Uid
			r.deleteHost(t, "h3")
			r.apply(t, hostNamed("h3"))
			if r.get(t, "Host", "", "h3").GetHost().Metadata.Uid == before {
				t.Error("the UID did not change")
			}
			b, _ := proto.Marshal(m)
			writer.Write(b)
			writer.Close()
		}()
		client := tlsClient(h.TLS())
		client.Transport.(*http.Transport).ExpectContinueTimeout = patience
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, _ := io.ReadAll(res.Body)
		return res.StatusCode, string(b)
	}
	if status, body := call(hostv1connect.HostServiceBindPortProcedure, &hostv1.BindPortRequest{Tenant: "red", Name: "web-2"}); status == http.StatusOK || !strings.Contains(body, "created again") {
		t.Errorf("bound: %d %s", status, body)
	}
	if host := r.get(t, "Port", "red", "web-2").GetPort().Status.Host; host != "" {
		t.Errorf("web-2 is on %q", host)
	}
}

func TestTheFirstPlugPlacesAPort(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.apply(t, world()...)
	h1, h2 := hostClient(r, joined(t, r, "h1")), hostClient(r, joined(t, r, "h2"))
	req := func(name string) *connect.Request[hostv1.BindPortRequest] {
		return connect.NewRequest(&hostv1.BindPortRequest{Tenant: "red", Name: name})
	}
	if _, err := h2.BindPort(t.Context(), req("web-1")); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "change spec.host") {
		t.Errorf("spec.host says h1: %v", err)
	}
	bound, err := h2.BindPort(t.Context(), req("web-2"))
	if err != nil {
		t.Fatal(err)
	}
	// The agent waits for this revision: it must be that of the binding, and none
	// when nothing had to change.
	if got, want := bound.Msg.Revision, r.get(t, "Port", "red", "web-2").GetPort().Metadata.Revision; got != want || want == 0 {
		t.Errorf("bound at revision %d, and the port is of %d", got, want)
	}
	r.apply(t, tenant("later"))
	if again, err := h2.BindPort(t.Context(), req("web-2")); err != nil || again.Msg.Revision != 0 {
		t.Errorf("bound again: %v, %v", again, err)
	}
	if p := r.get(t, "Port", "red", "web-2").GetPort(); p.Status.Host != "h2" || p.Spec.Host != "" {
		t.Errorf("port %v", p)
	}
	if _, err := h1.BindPort(t.Context(), req("web-2")); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), `"h2"`) {
		t.Errorf("bound elsewhere: %v", err)
	}
	if _, err := h1.UnbindPort(t.Context(), req("web-2")); connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), `"h2"`) {
		t.Errorf("one host unbinding what is on another is told %v", err)
	}
	if p := r.get(t, "Port", "red", "web-2").GetPort(); p.Status.Host != "h2" {
		t.Error("one host unbound what is on another")
	}
	if _, err := h2.UnbindPort(t.Context(), req("web-2")); err != nil {
		t.Fatal(err)
	}
	if _, err := h1.BindPort(t.Context(), req("web-2")); err != nil {
		t.Fatal(err)
	}
	// A manifest without spec.host leaves the port where it is.
	r.apply(t, portOf("red", "web-2", "web", ""))
	if p := r.get(t, "Port", "red", "web-2").GetPort(); p.Status.Host != "h1" {
		t.Errorf("apply moved the port to %q", p.Status.Host)
	}
	if _, err := h1.BindPort(t.Context(), req("none")); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("unknown port: %v", err)
	}
}
