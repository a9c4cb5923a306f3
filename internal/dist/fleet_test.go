package dist

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/api/weft/host/v1/hostv1connect"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/hostwire"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/model"
)

const patience = time.Minute // the machine may be busy

// fleet is a Distributor behind a real HTTP/2 server; the host's name comes from
// a header where the real server takes it from the certificate.
type fleet struct {
	*testing.T
	*Distributor
	url   string
	clock *clock
}

type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(by)
}

func newFleet(t *testing.T, change ...func(*Config)) *fleet {
	c := &clock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	cfg := Config{Logger: slog.New(slog.DiscardHandler), Heartbeat: time.Minute, Now: c.Now, Version: "test",
		Host: func(r *http.Request) (identity.Principal, error) {
			name, uid, _ := strings.Cut(r.Header.Get("X-Host"), "/")
			if name == "" {
				return identity.Principal{}, errors.New("no certificate")
			}
			return identity.Principal{Role: identity.RoleHost, Name: name, UID: uid}, nil
		}}
	for _, f := range change {
		f(&cfg)
	}
	f := &fleet{T: t, Distributor: New(cfg), clock: c}
	mux := http.NewServeMux()
	mux.Handle(f.Handler())
	server := httptest.NewUnstartedServer(mux)
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetUnencryptedHTTP2(true)
	server.Start()
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

// until waits for a condition, which is looked at whenever something changes.
func (f *fleet) until(what string, ok func() bool) {
	f.Helper()
	changes, stop := f.Changed()
	defer stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-changes:
		case <-deadline:
			f.Fatalf("waited in vain until %s", what)
		}
	}
}

// untilTurns waits until n large Updates are under way; nothing tells of that.
func (f *fleet) untilTurns(n int) {
	f.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); len(f.turns) != n; <-tick.C {
		if time.Now().After(deadline) {
			f.Fatalf("%d large updates are under way, not %d", len(f.turns), n)
		}
	}
}

// agent is the other end of one session.
type agent struct {
	f        *fleet
	host     string
	stream   *connect.BidiStreamForClient[hostv1.AgentMessage, hostv1.ServerMessage]
	receiver *hostwire.Receiver
	in       chan *hostv1.ServerMessage
	over     chan error
	stop     context.CancelFunc
}

// dial opens a session and says hello. buffer bounds what the agent takes
// without reading; 0: the usual 4 MB.
func (f *fleet) dial(host, instance string, r *hostwire.Receiver, buffer int) *agent {
	digest := r.Digest()
	return f.open(host, buffer, r, &hostv1.AgentMessage{Message: &hostv1.AgentMessage_Hello{Hello: &hostv1.Hello{Protocol: hostwire.Protocol,
		Version: "0.1", Instance: instance, Revision: r.Revision(), Digest: digest[:], Facts: &hostv1.Facts{Kernel: "6.18"}}}})
}

// open begins a session with a first word.
func (f *fleet) open(host string, buffer int, r *hostwire.Receiver, first *hostv1.AgentMessage) *agent {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	var conn net.Conn
	transport := &http.Transport{Protocols: protocols, HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: buffer},
		DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			c, err = (&net.Dialer{}).DialContext(ctx, network, address)
			conn = c
			return c, err
		}}
	ctx, cancel := context.WithCancel(context.Background())
	// As when the process is killed: the kernel closes the connection.
	stop := func() {
		cancel()
		conn.Close()
	}
	client := hostv1connect.NewHostServiceClient(&http.Client{Transport: transport}, f.url)
	a := &agent{f: f, host: host, stream: client.Session(ctx), receiver: r, in: make(chan *hostv1.ServerMessage), over: make(chan error, 1), stop: stop}
	f.Cleanup(stop)
	a.stream.RequestHeader().Set("X-Host", host)
	a.say(first)
	return a
}

// listen starts reading.
func (a *agent) listen() *agent {
	go func() {
		for {
			m, err := a.stream.Receive()
			if err != nil {
				a.over <- err
				return
			}
			select {
			case a.in <- m:
			case <-a.f.Context().Done():
				return
			}
		}
	}()
	return a
}

// arrive dials, listens and waits for the welcome.
func (f *fleet) arrive(host, instance string, r *hostwire.Receiver) *agent {
	f.Helper()
	a := f.dial(host, instance, r, 0).listen()
	if m := a.next(); m.GetWelcome() == nil {
		f.Fatalf("%s: the first word is %v", host, m)
	}
	return a
}

func fresh() *hostwire.Receiver { return hostwire.NewReceiver(goal.New(), 0) }

func (a *agent) say(m *hostv1.AgentMessage) { _ = a.stream.Send(m) }

func (a *agent) next() *hostv1.ServerMessage {
	a.f.Helper()
	for {
		select {
		case m := <-a.in:
			if m.GetHeartbeat() == nil {
				return m
			}
		case err := <-a.over:
			a.f.Fatalf("%s: session over: %v", a.host, err)
		case <-time.After(patience):
			a.f.Fatalf("%s: nothing comes", a.host)
		}
	}
}

// refused waits for the end of the session and returns its reason.
func (a *agent) refused() error {
	a.f.Helper()
	for {
		select {
		case m := <-a.in:
			if m.GetUpdate() != nil {
				a.f.Fatalf("%s: got an update", a.host)
			}
		case err := <-a.over:
			return err
		case <-time.After(patience):
			a.f.Fatalf("%s: the session goes on", a.host)
		}
	}
}

// update takes all parts of the next revision and returns what they were.
func (a *agent) update() (u *hostv1.Update, rows int) {
	a.f.Helper()
	for {
		u := a.next().GetUpdate()
		if u == nil {
			a.f.Fatalf("%s: not an update", a.host)
		}
		rows += hostwire.Rows(u)
		done, err := a.receiver.Receive(u)
		if err != nil {
			a.f.Fatalf("%s: %v", a.host, err)
		}
		if done {
			return u, rows
		}
	}
}

func (a *agent) ack(failures ...*hostv1.Failure) {
	digest := a.receiver.Digest()
	a.say(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Ack{Ack: &hostv1.Ack{Revision: a.receiver.Revision(), Digest: digest[:], Failures: failures}}})
}

// follow takes and acknowledges updates until the agent holds what its host should.
func (a *agent) follow() *agent {
	a.f.Helper()
	for {
		a.update()
		a.ack()
		if want, _ := a.f.Goal(a.host); a.receiver.Goal().Equal(want) {
			return a
		}
	}
}

func (f *fleet) inStep(host string) bool {
	for _, h := range f.Hosts() {
		if h.Name == host {
			return h.Connected && h.Lag == 0 && h.Acknowledged != 0
		}
	}
	return false
}

// world is a policy: hosts h0…, and one network of tenant red with ports dual
// stack, port i on host i modulo hosts.
func world(hosts, ports int) []model.Resource {
	out := []model.Resource{
		&model.Tenant{Metadata: model.Metadata{Name: "red"}},
		&model.VirtualNetwork{Metadata: model.Metadata{Tenant: "red", Name: "prod"}, Index: 1},
		&model.VirtualSubnet{Metadata: model.Metadata{Tenant: "red", Name: "web"}, Spec: model.VirtualSubnetSpec{Network: "prod", VSID: 5001,
			Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Gateway: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}},
	}
	for i := range hosts {
		out = append(out, hostNamed(i), &model.ProviderAddress{Metadata: model.Metadata{Name: fmt.Sprint("pa", i)},
			Spec: model.ProviderAddressSpec{Host: fmt.Sprint("h", i), Address: netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)})}})
	}
	for i := range ports {
		out = append(out, portOn(i, fmt.Sprint("h", i%hosts)))
	}
	return out
}

func hostNamed(i int) *model.Host {
	return &model.Host{Metadata: model.Metadata{Name: fmt.Sprint("h", i)}}
}

func portOn(i int, host string) *model.Port {
	return &model.Port{Metadata: model.Metadata{Tenant: "red", Name: fmt.Sprint("p", i)}, ID: model.PortID(i + 1), Spec: model.PortSpec{
		Subnet: "web", Host: host, MAC: model.MAC{2, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)},
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(1 + i>>16), byte(i >> 8), byte(i)})}}}
}

func portKey(i int) model.Key { return model.KeyOf(portOn(i, "")) }

func hostKey(i int) model.Key { return model.KeyOf(hostNamed(i)) }

func put(r ...model.Resource) []model.Resource { return r }

// status waits until the status of key reads "desired/current/failing".
func (f *fleet) status(key model.Key, want string) Status {
	f.Helper()
	var s Status
	read := func() string {
		s = f.Status(key)
		return fmt.Sprintf("%d/%d/%d", s.Desired, s.Current, len(s.Failures))
	}
	defer func() {
		if f.Failed() {
			f.Logf("%s is %s, behind %v", key, read(), s.Behind)
		}
	}()
	f.until(fmt.Sprintf("%s is %s", key, want), func() bool { return read() == want })
	return s
}

func lines(d []HostDifference, host string) string {
	for _, h := range d {
		if h.Host == host {
			return strings.Join(slices.Concat(h.Removed, h.Added), "\n")
		}
	}
	return ""
}
