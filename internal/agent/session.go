package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/api/weft/host/v1/hostv1connect"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/hostwire"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/model"
)

// Times of the session with the server.
const (
	firstReconnect = 200 * time.Millisecond
	lastReconnect  = 15 * time.Second
	callTimeout    = 10 * time.Second
	pingAfter      = 5 * time.Second // of silence on the connection
	pingTimeout    = 5 * time.Second
	silentBeats    = 3 // heartbeats missed until the server counts as gone
	defaultBeat    = 10 * time.Second
	longestBeat    = time.Minute
)

var (
	errUnreachable = errors.New("server is unreachable")
	errSilent      = errors.New("server has been silent for too long")
	errNoWelcome   = errors.New("the server's first word was not a welcome")
)

// server is the other end: the session with it, and what is asked of it.
type server struct {
	*Agent
	loop     *loop
	host     *identity.Host
	receiver *hostwire.Receiver
	unbinds  chan struct{} // of one

	mu     sync.Mutex
	client hostv1connect.HostServiceClient // nil while no session stands
	why    error                           // of that
}

func newServer(a *Agent, l *loop) (*server, error) {
	host, err := identity.OpenHost(a.cfg.StateDir)
	if err != nil {
		return nil, err
	}
	if name, joined := host.Name(); joined && name != a.cfg.Host {
		return nil, fmt.Errorf("this host's certificate is of host %q, and the configuration says %q; correct one of them or empty %s", name, a.cfg.Host, a.cfg.StateDir)
	}
	h := a.held.Load()
	return &server{Agent: a, loop: l, host: host, receiver: hostwire.NewReceiver(h.goal, h.revision),
		unbinds: make(chan struct{}, 1), why: errors.New("not connected yet")}, nil
}

func (s *server) connected() bool { return s.trouble() == nil }

// trouble says why there is no session, or nil.
func (s *server) trouble() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.why
}

func (s *server) set(c hostv1connect.HostServiceClient, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.client, s.why = c, why
}

// run keeps a session with the server until ctx ends.
func (s *server) run(ctx context.Context) error {
	// The first word to the server states facts, which the loop finds: also whether
	// somebody else has an address that was well when an earlier process ran.
	if err := s.await(ctx, func(v *view) bool { return v.settled && !v.probing }); err != nil {
		return nil
	}
	delay := firstReconnect
	for ctx.Err() == nil {
		welcomed, err := s.connect(ctx)
		if ctx.Err() != nil {
			return nil
		}
		s.set(nil, err)
		if welcomed {
			delay = firstReconnect
		}
		s.log.Warn("no session with the server; the host keeps forwarding with what it has", "server", s.cfg.Server, "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(delay/2 + rand.N(delay)):
		}
		delay = min(2*delay, lastReconnect)
	}
	return nil
}

// connect joins if need be and holds one session until it ends.
func (s *server) connect(ctx context.Context) (welcomed bool, err error) {
	if err := s.joinIfNeeded(ctx); err != nil {
		return false, err
	}
	transport := &http.Transport{
		TLSClientConfig: s.host.TLS(), ForceAttemptHTTP2: true,
		HTTP2: &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
	defer transport.CloseIdleConnections()
	client := hostv1connect.NewHostServiceClient(&http.Client{Transport: transport}, s.cfg.Server,
		connect.WithReadMaxBytes(hostwire.MaxMessage), connect.WithSendMaxBytes(hostwire.MaxMessage))
	return s.session(ctx, client)
}

// joinIfNeeded uses the token whenever there is one: with a certificate already,
// it is there because the certificate is of no use any more.
func (s *server) joinIfNeeded(ctx context.Context) error {
	_, joined := s.host.Name()
	joined = joined && !s.host.Expired()
	text, err := os.ReadFile(s.cfg.TokenFile)
	switch {
	case err != nil && joined:
		return nil
	case s.cfg.TokenFile == "" || errors.Is(err, fs.ErrNotExist):
		return identity.ErrNotJoined
	case err != nil:
		return fmt.Errorf("join: %w", err)
	}
	err = s.join(ctx, text)
	if err != nil && joined {
		s.log.Warn("the token is of no use; going on with the certificate", "tokenFile", s.cfg.TokenFile, "error", err)
		return nil
	}
	return err
}

// join trades the token for a certificate, and deletes the token.
func (s *server) join(ctx context.Context, text []byte) error {
	token, err := identity.ParseToken(string(text))
	if err != nil {
		return fmt.Errorf("join: %s: %w", s.cfg.TokenFile, err)
	}
	csr, err := s.host.Request()
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	transport := &http.Transport{TLSClientConfig: identity.JoinTLS(token), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := hostv1connect.NewHostServiceClient(&http.Client{Transport: transport}, s.cfg.Server,
		connect.WithReadMaxBytes(hostwire.MaxMessage)).
		Join(ctx, connect.NewRequest(&hostv1.JoinRequest{Token: strings.TrimSpace(string(text)), CsrDer: csr, Host: s.cfg.Host}))
	if err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if err := s.host.Accept(answer.Msg.GetCertificatePem(), answer.Msg.GetCaPem()); err != nil {
		return fmt.Errorf("join: %w", err)
	}
	if name, _ := s.host.Name(); name != s.cfg.Host {
		return errors.Join(fmt.Errorf("join: the server made this host %q, and the configuration says %q", name, s.cfg.Host), s.host.Forget())
	}
	s.log.Info("joined the fleet", "host", s.cfg.Host, "server", s.cfg.Server)
	if err := os.Remove(s.cfg.TokenFile); err != nil {
		s.log.Warn("the used token could not be deleted", "error", err)
	}
	return nil
}

// renew replaces the certificate when its time has come, until ctx ends.
func (s *server) renew(ctx context.Context, client hostv1connect.HostServiceClient) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(time.Until(s.host.RenewAt()), lastReconnect)):
		}
		if err := s.renewOnce(ctx, client); err != nil {
			s.log.Warn("the certificate could not be renewed; it is tried again", "error", err)
		}
	}
}

func (s *server) renewOnce(ctx context.Context, client hostv1connect.HostServiceClient) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	csr, err := s.host.Request()
	if err != nil {
		return err
	}
	answer, err := client.Renew(ctx, connect.NewRequest(&hostv1.RenewRequest{CsrDer: csr}))
	if err != nil {
		return err
	}
	return s.host.Accept(answer.Msg.GetCertificatePem(), answer.Msg.GetCaPem())
}

// conversation is one session that the server has welcomed.
type conversation struct {
	*server
	stream *connect.BidiStreamForClient[hostv1.AgentMessage, hostv1.ServerMessage]
	beat   time.Duration
	said   facts
	out    chan *hostv1.AgentMessage // answers and acks of refused updates
	// since is the serial of the first Goal that this session completed; 0: none
	// yet. Nothing older is acknowledged here.
	since atomic.Uint64
}

func (s *server) session(ctx context.Context, client hostv1connect.HostServiceClient) (welcomed bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	c := &conversation{server: s, stream: client.Session(ctx), said: s.view.Load().facts,
		out: make(chan *hostv1.AgentMessage, 16)}
	defer c.stream.CloseResponse()
	defer c.stream.CloseRequest()
	s.receiver.Restart()

	greeting := time.AfterFunc(callTimeout, func() { cancel(errSilent) })
	// When Send fails the reason is what Receive says.
	_ = c.stream.Send(c.hello())
	m, err := c.stream.Receive()
	greeting.Stop()
	if err != nil {
		return false, causeOf(ctx, err)
	}
	w := m.GetWelcome()
	if w == nil {
		cancel(errNoWelcome)
		return false, errNoWelcome
	}
	c.beat = min(time.Duration(w.GetHeartbeatSeconds())*time.Second, longestBeat)
	if c.beat == 0 {
		c.beat = defaultBeat
	}
	s.set(client, nil)
	s.log.Info("session with the server stands", "server", s.cfg.Server, "version", w.GetVersion(), "revision", s.receiver.Revision())
	s.unbindSoon()

	group, inner := errgroup.WithContext(ctx)
	group.Go(func() error { return c.speak(inner) })
	group.Go(func() error { return c.renew(inner, client) })
	group.Go(func() error { return c.unbindAll(inner, client) })
	group.Go(func() error {
		err := c.listen(ctx, cancel)
		cancel(err)
		return err
	})
	return true, causeOf(ctx, group.Wait())
}

// causeOf prefers the reason why ctx was cancelled over what came of it.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

func (c *conversation) hello() *hostv1.AgentMessage {
	digest := c.receiver.Digest()
	return &hostv1.AgentMessage{Message: &hostv1.AgentMessage_Hello{Hello: &hostv1.Hello{
		Protocol: hostwire.Protocol, Version: Version, Instance: c.instance,
		Revision: c.receiver.Revision(), Digest: digest[:], Facts: c.said.message(),
	}}}
}

func (f facts) message() *hostv1.Facts {
	out := &hostv1.Facts{UnderlayMtu: uint32(f.mtu), Kernel: f.kernel, Decap: f.decap}
	for _, pa := range f.pas {
		out.ProviderAddresses = append(out.ProviderAddresses, pa.String())
	}
	for _, pa := range slices.SortedFunc(maps.Keys(f.states), netip.Addr.Compare) {
		s := f.states[pa]
		w := &hostv1.AddressState{Address: pa.String(), State: string(s.state)}
		if !s.owner.IsZero() {
			w.Owner = s.owner.String()
		}
		out.Addresses = append(out.Addresses, w)
	}
	return out
}

// listen follows what the server says.
func (c *conversation) listen(ctx context.Context, cancel context.CancelCauseFunc) error {
	silence := time.AfterFunc(silentBeats*c.beat, func() { cancel(errSilent) })
	defer silence.Stop()
	for {
		m, err := c.stream.Receive()
		if err != nil {
			return err
		}
		silence.Reset(silentBeats * c.beat)
		switch {
		case m.GetUpdate() != nil:
			if err := c.update(ctx, m.GetUpdate()); err != nil {
				return err
			}
		case m.GetQuery() != nil:
			go c.say(ctx, c.answer(ctx, m.GetQuery()))
		}
	}
}

func (c *conversation) update(ctx context.Context, u *hostv1.Update) error {
	complete, err := c.receiver.Receive(u)
	if errors.Is(err, hostwire.ErrDigest) {
		c.log.Warn("asking the server for everything", "error", err)
		c.say(ctx, ack(u.GetRevision(), c.receiver.Digest(), nil))
		return nil
	}
	if err != nil || !complete {
		return err
	}
	serial := c.Agent.held.Load().serial + 1
	c.since.CompareAndSwap(0, serial)
	c.Agent.held.Store(&held{goal: c.receiver.Goal(), revision: c.receiver.Revision(), digest: c.receiver.Digest(),
		synced: true, serial: serial})
	c.work.post(func() {})
	return nil
}

// speak sends acknowledgements, facts, answers and heartbeats; nobody else sends.
func (c *conversation) speak(ctx context.Context) error {
	// HTTP/2 does not look at ctx while it waits for more to send: without this,
	// Receive would go on after ctx has ended.
	defer c.stream.CloseRequest()
	beat := time.NewTicker(c.beat)
	defer beat.Stop()
	var said words
	var pause <-chan time.Time // not nil: nothing is said unasked until then
	for {
		news := c.news.listen()
		spoke, err := c.sayNews(&said, pause == nil)
		if err != nil {
			return err
		}
		if spoke {
			pause = time.After(unaskedPause)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-news:
		case <-pause:
			pause = nil
		case m := <-c.out:
			err = c.stream.Send(m)
		case <-beat.C:
			err = c.stream.Send(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Heartbeat{Heartbeat: &hostv1.Heartbeat{}}})
		}
		if err != nil {
			return err
		}
	}
}

// words are what this session was told last.
type words struct {
	serial   uint64
	failures string
	devices  []uint32
	mtus     map[model.NetworkIndex]int
	any      bool
	findings []failure
}

// unaskedPause is between two things that the server has not asked for: it cuts off
// who says too much.
const unaskedPause = 100 * time.Millisecond

// sayNews acknowledges a new Update at once; what else has changed it says only if it
// may, and reports whether it did.
func (c *conversation) sayNews(said *words, may bool) (spoke bool, err error) {
	v := c.view.Load()
	if may && !v.facts.equal(c.said) {
		c.said, spoke = v.facts, true
		if err := c.stream.Send(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Facts{Facts: c.said.message()}}); err != nil {
			return spoke, err
		}
	}
	since := c.since.Load()
	if since == 0 || v.serial < since {
		return spoke, nil
	}
	// Every Update is acknowledged, and again when the failures change.
	failures := fmt.Sprint(v.failures)
	update := v.serial != said.serial
	if update || may && failures != said.failures {
		said.serial, said.failures, spoke = v.serial, failures, spoke || !update
		if err := c.stream.Send(ack(v.revision, v.digest, v.failures)); err != nil {
			return spoke, err
		}
	}
	if devices := v.devices(); may && (!said.any || !slices.Equal(devices, said.devices) || !maps.Equal(v.mtus, said.mtus)) {
		said.devices, said.mtus, said.any, spoke = devices, v.mtus, true, true
		m := &hostv1.Devices{Ports: devices, Mtus: make(map[uint32]uint32, len(v.mtus))}
		for network, mtu := range v.mtus {
			m.Mtus[uint32(network)] = uint32(max(0, mtu))
		}
		if err := c.stream.Send(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Devices{Devices: m}}); err != nil {
			return spoke, err
		}
	}
	if findings := *c.guests.said.Load(); may && !slices.Equal(findings, said.findings) {
		said.findings, spoke = findings, true
		m := &hostv1.Findings{}
		for _, f := range findings {
			m.Findings = append(m.Findings, f.wire())
		}
		if err := c.stream.Send(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Findings{Findings: m}}); err != nil {
			return spoke, err
		}
	}
	return spoke, nil
}

// devices are the ports of the Goal that the switch serves on a device, sorted.
func (v *view) devices() []uint32 {
	var out []uint32
	for _, p := range v.want.Ports {
		if s, ok := v.plugs[v.goal.Ports[p.ID].Ref]; ok && s.ready {
			out = append(out, uint32(p.ID))
		}
	}
	for _, p := range v.want.VLANPorts {
		if s, ok := v.plugs[v.goal.Ports[p.ID].Ref]; ok && s.ready {
			out = append(out, uint32(p.ID))
		}
	}
	slices.Sort(out)
	return out
}

func (c *conversation) say(ctx context.Context, m *hostv1.AgentMessage) {
	select {
	case c.out <- m:
	case <-ctx.Done():
	}
}

func (c *conversation) answer(ctx context.Context, q *hostv1.Query) *hostv1.AgentMessage {
	a := &hostv1.Answer{Id: q.GetId()}
	switch {
	case q.GetDrops() != nil:
		rows, err := c.drops(model.PortID(q.GetDrops().GetPort()))
		if err != nil {
			a.Error = err.Error()
			break
		}
		d := &hostv1.DropsAnswer{}
		for _, r := range rows {
			d.Rows = append(d.Rows, r.message())
		}
		a.Answer = &hostv1.Answer_Drops{Drops: d}
	case q.GetHits() != nil:
		hits, err := c.ruleHits(q.GetHits())
		if err != nil {
			a.Error = err.Error()
			break
		}
		a.Answer = &hostv1.Answer_Hits{Hits: hits}
	case q.GetConnections() != nil:
		connections, err := c.connections(q.GetConnections())
		if err != nil {
			a.Error = err.Error()
			break
		}
		a.Answer = &hostv1.Answer_Connections{Connections: connections}
	case q.GetTry() != nil:
		tried, err := c.try(q.GetTry())
		if err != nil {
			a.Error = err.Error()
			break
		}
		a.Answer = &hostv1.Answer_Try{Try: tried}
	case q.GetVerify() != nil:
		revision, differences, err := c.loop.verify(ctx)
		if err != nil {
			a.Error = err.Error()
			break
		}
		a.Answer = &hostv1.Answer_Verify{Verify: &hostv1.VerifyAnswer{Revision: revision, Differences: differences}}
	case q.GetTrace() != nil:
		t, err := c.trace(q.GetTrace())
		if err != nil {
			a.Error = err.Error()
			break
		}
		a.Answer = &hostv1.Answer_Trace{Trace: t}
	case q.GetExamine() != nil:
		e, err := c.loop.examined(ctx, q.GetExamine().GetClock())
		if err != nil {
			a.Error = err.Error()
			break
		}
		a.Answer = &hostv1.Answer_Examine{Examine: e}
	case q.GetCapture() != nil:
		if err := c.upload(ctx, q.GetCapture()); err != nil {
			a.Error = err.Error()
			break
		}
		a.Answer = &hostv1.Answer_Capture{Capture: &hostv1.CaptureAnswer{}}
	default:
		a.Error = "this agent does not know the question; upgrade it"
	}
	return &hostv1.AgentMessage{Message: &hostv1.AgentMessage_Answer{Answer: a}}
}

// bind asks the server to place a port here; the Goal of the revision that it gives
// will have it. 0: nothing had to change for that.
func (s *server) bind(ctx context.Context, ref model.Ref) (revision int64, err error) {
	s.mu.Lock()
	client, why := s.client, s.why
	s.mu.Unlock()
	if client == nil {
		return 0, fmt.Errorf("%w (%w), and the policy that this host remembers has no port %s here", errUnreachable, why, ref)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := client.BindPort(ctx, connect.NewRequest(&hostv1.BindPortRequest{Tenant: ref.Tenant, Name: ref.Name}))
	if err != nil {
		return 0, plain(err)
	}
	return r.Msg.GetRevision(), nil
}

// plain drops the code from the text of a server's error: whoever answers the
// user says it once.
func plain(err error) error {
	var e *connect.Error
	if !errors.As(err, &e) {
		return err
	}
	if !connect.IsWireError(err) || e.Code() == connect.CodeUnavailable {
		return fmt.Errorf("%w: %s", errUnreachable, e.Message())
	}
	return connect.NewError(e.Code(), errors.New(e.Message()))
}

// unbindSoon has the session tell the server which ports are free again.
func (s *server) unbindSoon() {
	select {
	case s.unbinds <- struct{}{}:
	default:
	}
}

// giveBack tells the server now that a port is free. When that fails, the session
// does it, as it does when there is no server.
func (s *server) giveBack(ctx context.Context, ref model.Ref) {
	s.mu.Lock()
	client := s.client
	s.mu.Unlock()
	if client == nil {
		return
	}
	if err := s.unbindOne(ctx, client, ref); err != nil {
		s.log.Warn("the server could not be told of an unplugged port; it will be with the next session", "port", ref, "error", err)
	}
}

func (s *server) unbindAll(ctx context.Context, client hostv1connect.HostServiceClient) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.unbinds:
		}
		if err := s.unbindEach(ctx, client); err != nil && ctx.Err() == nil {
			s.log.Warn("the server could not be told of unplugged ports; it will be with the next session", "error", err)
		}
	}
}

func (s *server) unbindEach(ctx context.Context, client hostv1connect.HostServiceClient) error {
	refs, err := onLoop(ctx, s.Agent, func() []model.Ref {
		var refs []model.Ref
		for ref := range s.loop.unbind {
			refs = append(refs, ref)
		}
		slices.SortFunc(refs, compareRefs)
		return refs
	})
	if err != nil {
		return err
	}
	for _, ref := range refs {
		if err := s.unbindOne(ctx, client, ref); err != nil {
			return fmt.Errorf("port %s: %w", ref, err)
		}
	}
	return nil
}

// unbindOne takes the lock of plugs, so that a port that is being plugged again
// is not pulled away.
func (s *server) unbindOne(ctx context.Context, client hostv1connect.HostServiceClient, ref model.Ref) error {
	s.plugMu.Lock()
	defer s.plugMu.Unlock()
	still, err := onLoop(ctx, s.Agent, func() bool { return s.loop.unbind[ref] })
	if err != nil || !still {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = client.UnbindPort(ctx, connect.NewRequest(&hostv1.BindPortRequest{Tenant: ref.Tenant, Name: ref.Name}))
	// A port that is gone, or on another host by now, is not ours to give back.
	if err != nil && connect.CodeOf(err) != connect.CodeNotFound && connect.CodeOf(err) != connect.CodeFailedPrecondition {
		return err
	}
	wrote, err := onLoop(ctx, s.Agent, func() error {
		delete(s.loop.unbind, ref)
		return s.loop.writePlugs()
	})
	return errors.Join(wrote, err)
}

// perResource joins failures of one resource: the server keeps one of each.
func perResource(failures []failure) []failure {
	var out []failure
	place := map[model.Key]int{}
	for _, f := range failures {
		key := model.Key{Kind: f.kind, Ref: f.ref}
		if i, again := place[key]; again {
			out[i].message += "; " + f.message
			continue
		}
		place[key] = len(out)
		out = append(out, f)
	}
	return out
}

// ack says what the kernel holds.
func ack(revision int64, digest goal.Digest, failures []failure) *hostv1.AgentMessage {
	a := &hostv1.Ack{Revision: revision, Digest: digest[:]}
	for _, f := range perResource(failures) {
		a.Failures = append(a.Failures, f.wire())
	}
	return &hostv1.AgentMessage{Message: &hostv1.AgentMessage_Ack{Ack: a}}
}

func (f failure) wire() *hostv1.Failure {
	return &hostv1.Failure{Kind: string(f.kind), Tenant: f.ref.Tenant, Name: f.ref.Name, Reason: f.reason, Message: f.message}
}
