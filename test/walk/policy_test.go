package walk

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/api/weft/host/v1/hostv1connect"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/api/weft/v1/weftv1connect"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/hostwire"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/manifest"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/server"
	"github.com/weft-sdn/weft/internal/store"
)

const patience = 30 * time.Second

// fleet is a real server with its real store, and the two hosts of the demo.
type fleet struct {
	*testing.T
	dir     string
	addrs   server.Addresses
	policy  weftv1connect.PolicyServiceClient
	operate weftv1connect.OperateServiceClient
	end     func()
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	cfg, err := server.ParseConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{T: t, dir: t.TempDir()}
	ready := make(chan server.Addresses, 1)
	cfg.DataDir, cfg.Socket, cfg.Metrics = f.dir, filepath.Join(f.dir, "s.sock"), "127.0.0.1:0"
	cfg.Listen = server.ListenConfig{API: "127.0.0.1:0", Hosts: "127.0.0.1:0"}
	cfg.Ready = func(a server.Addresses) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, cfg, slog.New(slog.DiscardHandler)) }()
	ended := false
	f.end = func() {
		if cancel(); !ended {
			ended = true
			<-done
		}
	}
	t.Cleanup(f.end)
	select {
	case f.addrs = <-ready:
	case err := <-done:
		ended = true
		t.Fatal(err)
	case <-time.After(patience):
		t.Fatal("the server is not ready")
	}
	local := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", cfg.Socket)
	}}}
	f.policy = weftv1connect.NewPolicyServiceClient(local, "http://weft")
	f.operate = weftv1connect.NewOperateServiceClient(local, "http://weft")
	return f
}

// apply is `weft apply`.
func (f *fleet) apply(dry bool, resources ...*weftv1.Resource) *weftv1.ApplyResponse {
	f.Helper()
	res, err := f.policy.Apply(f.Context(), connect.NewRequest(&weftv1.ApplyRequest{Resources: resources, DryRun: dry}))
	if err != nil {
		f.Fatal(err)
	}
	return res.Msg
}

func (f *fleet) get(key *weftv1.Key) *weftv1.Resource {
	f.Helper()
	res, err := f.policy.Get(f.Context(), connect.NewRequest(&weftv1.GetRequest{Key: key}))
	if err != nil {
		f.Fatal(err)
	}
	return res.Msg.Resource
}

// until polls: the store tells the server what it took a moment later.
func (f *fleet) until(what string, ok func() bool) {
	f.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			f.Fatalf("waited in vain until %s", what)
		}
	}
}

// member is an agent as far as the stream goes.
type member struct {
	*fleet
	stream   *connect.BidiStreamForClient[hostv1.AgentMessage, hostv1.ServerMessage]
	receiver *hostwire.Receiver
}

// join makes host a member: token, certificate, session, Provider Address.
func (f *fleet) join(host string, pa netip.Addr) *member {
	f.Helper()
	token, err := f.operate.CreateToken(f.Context(), connect.NewRequest(&weftv1.CreateTokenRequest{Host: host}))
	must(f.T, err)
	parsed, err := identity.ParseToken(token.Msg.Token)
	must(f.T, err)
	h, err := identity.OpenHost(f.TempDir())
	must(f.T, err)
	csr, err := h.Request()
	must(f.T, err)
	client := func(t *http.Transport) hostv1connect.HostServiceClient {
		t.ForceAttemptHTTP2 = true
		f.Cleanup(t.CloseIdleConnections)
		return hostv1connect.NewHostServiceClient(&http.Client{Transport: t}, "https://"+f.addrs.Hosts)
	}
	joined, err := client(&http.Transport{TLSClientConfig: identity.JoinTLS(parsed)}).
		Join(f.Context(), connect.NewRequest(&hostv1.JoinRequest{Token: token.Msg.Token, CsrDer: csr, Host: host}))
	must(f.T, err)
	must(f.T, h.Accept(joined.Msg.CertificatePem, joined.Msg.CaPem))

	m := &member{fleet: f, stream: client(&http.Transport{TLSClientConfig: h.TLS()}).Session(f.Context()), receiver: hostwire.NewReceiver(goal.New(), 0)}
	digest := m.receiver.Digest()
	must(f.T, m.stream.Send(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Hello{Hello: &hostv1.Hello{Protocol: hostwire.Protocol,
		Instance: host, Digest: digest[:], Facts: &hostv1.Facts{ProviderAddresses: []string{pa.String()}, UnderlayMtu: 1500}}}}))
	return m
}

// update takes the next whole revision.
func (m *member) update() *hostv1.Update {
	m.Helper()
	for {
		msg, err := m.stream.Receive()
		must(m.T, err)
		if u := msg.GetUpdate(); u != nil {
			done, err := m.receiver.Receive(u)
			must(m.T, err)
			if done {
				return u
			}
		}
	}
}

func (m *member) ack() {
	// First, so that who reads that all is programmed reads this too.
	devices := &hostv1.Devices{Mtus: map[uint32]uint32{}}
	for id, p := range m.receiver.Goal().Ports {
		devices.Ports, devices.Mtus[uint32(p.Network)] = append(devices.Ports, uint32(id)), 1458
	}
	must(m.T, m.stream.Send(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Devices{Devices: devices}}))
	digest := m.receiver.Digest()
	must(m.T, m.stream.Send(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Ack{
		Ack: &hostv1.Ack{Revision: m.receiver.Revision(), Digest: digest[:]}}}))
}

// settle follows until the Goal has so many Provider Addresses and records.
func (m *member) settle(pas, records int) {
	for len(m.receiver.Goal().PAs) != pas || known(m.receiver.Goal()) != records {
		m.update()
		m.ack()
	}
}

// known counts the records whose place is known.
func known(g *goal.Goal) (n int) {
	for _, r := range g.Records {
		if r.Router || r.PA.IsValid() {
			n++
		}
	}
	return n
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// What differs from run to run is masked.
var (
	guid = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)
	date = regexp.MustCompile(`2\d\d\d-\d\d-\d\dT[0-9:.]+Z`)
	now  = regexp.MustCompile(`(revision"?: )\d+`)

	changed = regexp.MustCompile(`(changedAt"?: )"?2[0-9T:.Z-]+"?`)
)

func mask(text string) string {
	text = guid.ReplaceAllString(text, "(a random GUID)")
	text = changed.ReplaceAllString(text, "$1(when it became so)")
	text = date.ReplaceAllString(text, "(when it was made)")
	return now.ReplaceAllString(text, "$1(of the store)")
}

func joinLines(lines []string) string { return strings.Join(lines, "\n") + "\n" }

// wireLines writes a message of the stream in hexadecimal, a line per field.
func wireLines(t *testing.T, m proto.Message) string {
	t.Helper()
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	must(t, err)
	fields := m.ProtoReflect().Descriptor().Fields()
	var b strings.Builder
	for len(raw) > 0 {
		number, _, n := protowire.ConsumeField(raw)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		for i, part := range slices.Collect(slices.Chunk(raw[:n], 40)) {
			name := string(fields.ByNumber(number).Name())
			if i > 0 {
				name = ""
			}
			fmt.Fprintf(&b, "%-12s% x\n", name, part)
		}
		raw = raw[n:]
	}
	return b.String()
}

// TestPolicyWalk applies the demo's world but for red/web-1, lets its two hosts
// join, and then follows red/web-1.
func TestPolicyWalk(t *testing.T) {
	text, err := os.ReadFile("../../examples/demo.yaml")
	must(t, err)
	resources, err := manifest.Parse(text)
	must(t, err)
	key := &weftv1.Key{Kind: "Port", Tenant: "red", Name: "web-1"}
	at := slices.IndexFunc(resources, func(r *weftv1.Resource) bool { return manifest.KeyString(manifest.Key(r)) == manifest.KeyString(key) })
	written := resources[at]
	out := map[string]string{"written": document(t, string(text), "name: web-1}")}

	f := newFleet(t)
	f.apply(false, slices.Delete(slices.Clone(resources), at, at+1)...)
	h1 := f.join("h1", netip.MustParseAddr("192.0.2.1"))
	h1.settle(1, 14)
	h2 := f.join("h2", netip.MustParseAddr("198.51.100.1"))
	h1.settle(1, 22)
	h2.settle(1, 22)

	var would []string
	for _, h := range f.apply(true, written).Hosts {
		would = append(would, h.Host)
		for _, line := range slices.Concat(h.Removed, h.Added) {
			would = append(would, "  "+line)
		}
	}
	out["what it would mean"] = joinLines(would)

	before := map[*member]*goal.Goal{h1: h1.receiver.Goal(), h2: h2.receiver.Goal()}
	stored := f.apply(false, written)
	if len(stored.Changes) != 1 || stored.Changes[0].Action != "created" {
		t.Fatalf("apply said %v", stored.Changes)
	}
	var got []string
	for _, h := range []struct {
		name string
		*member
	}{{"h1", h1}, {"h2", h2}} {
		u := h.update()
		if u.Revision != stored.Revision {
			t.Errorf("%s got revision %d for %d", h.name, u.Revision, stored.Revision)
		}
		added, removed := goal.Difference(before[h.member], h.receiver.Goal())
		got = append(got, h.name)
		for _, line := range slices.Concat(removed, added) {
			got = append(got, "  "+line)
		}
		u.Revision, u.Digest = 0, nil // other ones in every run
		out["to "+h.name] = wireLines(t, u)
	}
	if diff := joinLines(got); diff != out["what it would mean"] {
		t.Errorf("the dry run said\n%sand the hosts got\n%s", out["what it would mean"], diff)
	}

	rollout := func(current int32) {
		f.until(fmt.Sprintf("%d hosts have it", current), func() bool {
			return f.get(key).GetPort().GetStatus().GetRollout().GetCurrent() == current
		})
	}
	rollout(0)
	out["before any host has it"] = conditions(f.get(key))
	h1.ack()
	rollout(1)
	out["when one has it"] = conditions(f.get(key))
	h2.ack()
	rollout(2)
	out["when both have it"] = conditions(f.get(key))
	yaml, err := manifest.Format(f.get(key))
	must(t, err)
	out["read back"] = mask(string(yaml))
	f.end()
	out["stored"] = storedForm(t, f.dir)
	checkPage(t, "../../docs/policy-walk.md", out, "rendered", "in the maps of h1", "in the maps of h2")
}

// document is the part of a manifest that has mark in it.
func document(t *testing.T, text, mark string) string {
	t.Helper()
	for _, d := range strings.Split(text, "---\n") {
		if strings.Contains(d, mark) {
			return d
		}
	}
	t.Fatalf("no document with %s", mark)
	return ""
}

func conditions(r *weftv1.Resource) string {
	s := r.GetPort().GetStatus()
	var b strings.Builder
	for _, c := range s.GetConditions() {
		line := fmt.Sprintf("%-11s %-6s %-16s %s", c.GetType(), c.GetStatus(), c.GetReason(), c.GetMessage())
		b.WriteString(strings.TrimSpace(line) + "\n")
	}
	fmt.Fprintf(&b, "%-11s %d of %d\n", "rollout", s.GetRollout().GetCurrent(), s.GetRollout().GetDesired())
	return b.String()
}

// storedForm is what the etcd of the ended server holds.
func storedForm(t *testing.T, dir string) string {
	t.Helper()
	s, err := store.Open(t.Context(), store.Config{DataDir: dir})
	must(t, err)
	defer s.Close()
	snapshot, err := s.Load(t.Context())
	must(t, err)
	for _, r := range snapshot.Resources {
		if p, ok := r.(*model.Port); ok && p.Metadata.Ref() == (model.Ref{Tenant: "red", Name: "web-1"}) {
			text, err := json.MarshalIndent(p, "", "  ")
			must(t, err)
			return mask(string(text)) + "\n"
		}
	}
	t.Fatalf("not among the %d resources stored", len(snapshot.Resources))
	return ""
}
