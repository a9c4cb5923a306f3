package agent

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
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

// fleet is a server that speaks HostService over mutual TLS and computes Goals
// from a list of ports in the plainest way.
type fleet struct {
	hostv1connect.UnimplementedHostServiceHandler
	t         *testing.T
	authority *identity.Authority
	tls       *tls.Config

	mu       sync.Mutex
	http     *http.Server
	revision int64
	ports    map[model.Ref]*placed
	pas      map[string]netip.Addr
	routes   map[string]map[string]goal.ProviderRoute // of hosts, by name
	sessions map[string]*agentSession
	tokens   map[string]identity.TokenRecord
	changed  bell
	held     bool // updates are not sent for now

	transport model.TransportID // of the subnet
	settings  goal.Settings
}

// placed is a port and where it is; pinned ports are placed by policy.
type placed struct {
	port   goal.Port
	host   string
	pinned bool
}

// agentSession is what the server knows of a connected agent.
type agentSession struct {
	instance string
	hello    *hostv1.Hello
	facts    *hostv1.Facts
	told     []*hostv1.Facts // all of them
	ack      *hostv1.Ack
	snapshot int // how many were sent
	ask      chan *hostv1.Query
	answers  map[uint64]*hostv1.Answer
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	authority, err := identity.OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	config, err := authority.HostsTLS([]string{"weft"})
	if err != nil {
		t.Fatal(err)
	}
	return &fleet{t: t, authority: authority, tls: config, revision: 1, ports: map[model.Ref]*placed{},
		pas: map[string]netip.Addr{}, sessions: map[string]*agentSession{}, tokens: map[string]identity.TokenRecord{}}
}

// start serves on l, which stop closes.
func (f *fleet) start(l net.Listener) {
	mux := http.NewServeMux()
	mux.Handle(hostv1connect.NewHostServiceHandler(f))
	server := &http.Server{Handler: identity.Authenticate(mux), TLSConfig: f.tls}
	f.mu.Lock()
	f.http = server
	f.mu.Unlock()
	go server.ServeTLS(l, "", "")
}

// stop cuts every session, as a dying server does.
func (f *fleet) stop() {
	f.mu.Lock()
	server := f.http
	f.mu.Unlock()
	server.Close()
	f.until("all sessions are gone", func() bool { return len(f.sessions) == 0 })
}

// change edits what is placed where, and tells every host.
func (f *fleet) change(edit func()) int64 {
	f.mu.Lock()
	edit()
	f.revision++
	revision := f.revision
	f.mu.Unlock()
	f.changed.ring()
	return revision
}

// hold keeps updates back, or sends them on.
func (f *fleet) hold(on bool) {
	f.mu.Lock()
	f.held = on
	f.mu.Unlock()
	f.changed.ring()
}

// until waits for a state of the server.
func (f *fleet) until(what string, ok func() bool) {
	f.t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		news := f.changed.listen()
		f.mu.Lock()
		done := ok()
		f.mu.Unlock()
		if done {
			return
		}
		select {
		case <-news:
		case <-deadline:
			f.mu.Lock()
			defer f.mu.Unlock()
			for name, s := range f.sessions {
				f.t.Logf("host %s: revision %d, ack %v", name, f.revision, s.ack)
			}
			f.t.Fatalf("timed out waiting until %s", what)
		}
	}
}

// programmed waits until host has acknowledged revision without a failure.
func (f *fleet) programmed(host string, revision int64) {
	f.t.Helper()
	f.until(fmt.Sprintf("%s holds revision %d", host, revision), func() bool {
		s := f.sessions[host]
		return s != nil && s.ack.GetRevision() >= revision && len(s.ack.GetFailures()) == 0
	})
}

// facts are the last that a host said of itself.
func (f *fleet) facts(host string) *hostv1.Facts {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sessions[host].facts
}

// query asks an agent and waits for its answer.
func (f *fleet) query(host string, q *hostv1.Query) *hostv1.Answer {
	f.t.Helper()
	f.mu.Lock()
	s := f.sessions[host]
	f.mu.Unlock()
	if s == nil {
		f.t.Fatalf("host %s is not connected", host)
	}
	s.ask <- q
	var answer *hostv1.Answer
	f.until("the answer has come", func() bool { answer = s.answers[q.Id]; return answer != nil })
	return answer
}

const (
	webVSID   = model.VSID(5001)
	network   = model.NetworkIndex(7)
	gatewayV4 = "10.0.0.1"
	gatewayV6 = "fd00:a::1"
)

var webPrefixes = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("fd00:a::/64")}

// addPort puts a port of network prod, subnet web into policy.
func (f *fleet) addPort(name string, id int, host string) {
	hi, lo := byte(id>>8), byte(id)
	f.ports[model.Ref{Tenant: "red", Name: name}] = &placed{host: host, pinned: host != "", port: goal.Port{
		Ref: model.Ref{Tenant: "red", Name: name}, ID: model.PortID(id), VSID: webVSID, Network: network,
		MAC:      model.MAC{2, 0, 0, 1, hi, lo},
		CAs:      []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 1 + hi, lo}), netip.MustParseAddr(fmt.Sprintf("fd00:a::1:%x", id))},
		Prefixes: webPrefixes, Gateway4: netip.MustParseAddr(gatewayV4), Gateway6: netip.MustParseAddr(gatewayV6),
	}}
}

// goal of one host: its ports, every record of the network, its PA.
func (f *fleet) goal(host string) *goal.Goal {
	g := goal.New()
	g.Settings = f.settings
	maps.Copy(g.ProviderRoutes, f.routes[host])
	if pa, ok := f.pas[host]; ok {
		g.PAs[pa] = struct{}{}
	}
	for _, p := range f.ports {
		if p.host == host {
			port := p.port
			port.PA = f.pas[host]
			g.Ports[port.ID] = port
		}
		for _, ca := range p.port.CAs {
			g.Records[goal.RecordKey{VSID: webVSID, CA: ca}] = goal.Record{MAC: p.port.MAC, PA: f.pas[p.host], Port: p.port.ID, Transport: f.transport}
		}
	}
	for _, gw := range []string{gatewayV4, gatewayV6} {
		g.Records[goal.RecordKey{VSID: webVSID, CA: netip.MustParseAddr(gw)}] = goal.Record{MAC: model.RouterMAC(webVSID), Router: true, Transport: f.transport}
	}
	for _, p := range webPrefixes {
		g.Routes[goal.RouteKey{Network: network, Prefix: p}] = goal.Route{VSID: webVSID}
	}
	return g
}

// Session implements HostService.
func (f *fleet) Session(ctx context.Context, stream *connect.BidiStream[hostv1.AgentMessage, hostv1.ServerMessage]) error {
	from, ok := identity.HostFromContext(ctx)
	host := from.Name
	if !ok {
		return connect.NewError(connect.CodeUnauthenticated, identity.ErrNoHost)
	}
	m, err := stream.Receive()
	if err != nil {
		return err
	}
	s := &agentSession{instance: m.GetHello().GetInstance(), hello: m.GetHello(), facts: m.GetHello().GetFacts(), told: []*hostv1.Facts{m.GetHello().GetFacts()},
		ask: make(chan *hostv1.Query), answers: map[uint64]*hostv1.Answer{}}
	f.mu.Lock()
	if f.sessions[host] != nil {
		f.mu.Unlock()
		return connect.NewError(connect.CodeAlreadyExists, fmt.Errorf("an agent of host %s is connected already", host))
	}
	f.sessions[host] = s
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.sessions, host)
		f.mu.Unlock()
		f.changed.ring()
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		defer cancel()
		f.hear(host, s, stream)
	}()
	return f.tell(ctx, host, s, stream)
}

func (f *fleet) hear(host string, s *agentSession, stream *connect.BidiStream[hostv1.AgentMessage, hostv1.ServerMessage]) {
	for {
		m, err := stream.Receive()
		if err != nil {
			return
		}
		f.mu.Lock()
		switch {
		case m.GetAck() != nil:
			s.ack = m.GetAck()
		case m.GetFacts() != nil:
			s.facts = m.GetFacts()
			s.told = append(s.told, s.facts)
		case m.GetAnswer() != nil:
			s.answers[m.GetAnswer().GetId()] = m.GetAnswer()
		}
		f.mu.Unlock()
		f.changed.ring()
	}
}

func (f *fleet) tell(ctx context.Context, host string, s *agentSession, stream *connect.BidiStream[hostv1.AgentMessage, hostv1.ServerMessage]) error {
	err := stream.Send(&hostv1.ServerMessage{Message: &hostv1.ServerMessage_Welcome{Welcome: &hostv1.Welcome{Version: "test", HeartbeatSeconds: 5}}})
	if err != nil {
		return err
	}
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	var sent *goal.Goal
	sentRevision := int64(0)
	for {
		news := f.changed.listen()
		f.mu.Lock()
		revision, now, held := f.revision, f.goal(host), f.held
		f.mu.Unlock()
		if revision != sentRevision && !held {
			from, snapshot := sent, false
			if sent == nil {
				from = goal.New()
				snapshot = true
				if digest := now.Digest(); slices.Equal(s.hello.GetDigest(), digest[:]) {
					from, snapshot = now, false
				}
			}
			for _, u := range hostwire.Updates(goal.Diff(from, now), revision, now.Digest(), snapshot) {
				if err := stream.Send(&hostv1.ServerMessage{Message: &hostv1.ServerMessage_Update{Update: u}}); err != nil {
					return err
				}
			}
			if snapshot {
				f.mu.Lock()
				s.snapshot++
				f.mu.Unlock()
			}
			sent, sentRevision = now, revision
		}
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		case q := <-s.ask:
			err = stream.Send(&hostv1.ServerMessage{Message: &hostv1.ServerMessage_Query{Query: q}})
		case <-beat.C:
			err = stream.Send(&hostv1.ServerMessage{Message: &hostv1.ServerMessage_Heartbeat{Heartbeat: &hostv1.Heartbeat{}}})
		}
		if err != nil {
			return err
		}
	}
}

// token lets host join.
func (f *fleet) token(host string) string {
	token, record := identity.NewToken(host, "uid-of-"+host, f.authority.Fingerprint(), time.Now().Add(time.Hour))
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tokens[token.ID] = record
	return token.Text()
}

// Join implements HostService.
func (f *fleet) Join(_ context.Context, r *connect.Request[hostv1.JoinRequest]) (*connect.Response[hostv1.JoinResponse], error) {
	token, err := identity.ParseToken(r.Msg.GetToken())
	f.mu.Lock()
	record := f.tokens[token.ID]
	delete(f.tokens, token.ID)
	f.mu.Unlock()
	if err = errors.Join(err, record.Check(token, time.Now())); err != nil {
		return nil, connect.NewError(connect.CodePermissionDenied, err)
	}
	if r.Msg.GetHost() != record.Host {
		return nil, connect.NewError(connect.CodePermissionDenied, fmt.Errorf("the token is for host %q", record.Host))
	}
	return f.sign(record.Host, r.Msg.GetCsrDer())
}

// Renew implements HostService.
func (f *fleet) Renew(ctx context.Context, r *connect.Request[hostv1.RenewRequest]) (*connect.Response[hostv1.JoinResponse], error) {
	from, ok := identity.HostFromContext(ctx)
	if !ok {
		return nil, connect.NewError(connect.CodeUnauthenticated, identity.ErrNoHost)
	}
	return f.sign(from.Name, r.Msg.GetCsrDer())
}

func (f *fleet) sign(host string, csr []byte) (*connect.Response[hostv1.JoinResponse], error) {
	cert, err := f.authority.SignHost(csr, host, "uid-of-"+host)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	return connect.NewResponse(&hostv1.JoinResponse{CertificatePem: cert, CaPem: f.authority.PEM()}), nil
}

// BindPort implements HostService.
func (f *fleet) BindPort(ctx context.Context, r *connect.Request[hostv1.BindPortRequest]) (*connect.Response[hostv1.BindPortResponse], error) {
	from, _ := identity.HostFromContext(ctx)
	host := from.Name
	ref := model.Ref{Tenant: r.Msg.GetTenant(), Name: r.Msg.GetName()}
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.ports[ref]
	switch {
	case p == nil:
		return nil, connect.NewError(connect.CodeNotFound, fmt.Errorf("there is no port %s", ref))
	case p.host != "" && p.host != host:
		return nil, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("port %s is on host %s", ref, p.host))
	case p.host == "":
		p.host = host
		f.revision++
		defer f.changed.ring()
	}
	return connect.NewResponse(&hostv1.BindPortResponse{Revision: f.revision}), nil
}

// UnbindPort implements HostService.
func (f *fleet) UnbindPort(ctx context.Context, r *connect.Request[hostv1.BindPortRequest]) (*connect.Response[hostv1.BindPortResponse], error) {
	from, _ := identity.HostFromContext(ctx)
	host := from.Name
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.ports[model.Ref{Tenant: r.Msg.GetTenant(), Name: r.Msg.GetName()}]
	if p != nil && p.host == host && !p.pinned {
		p.host = ""
		f.revision++
		defer f.changed.ring()
	}
	return connect.NewResponse(&hostv1.BindPortResponse{Revision: f.revision}), nil
}
