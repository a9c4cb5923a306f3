package dist

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/hostwire"
	"github.com/weft-sdn/weft/internal/model"
)

// Bounds of what an agent may say.
const (
	maxFailures = 1000
	maxFindings = 16   // of one guest
	maxText     = 1000 // bytes of one reason, message or name
	maxQueries  = 16   // under way on one session

	maxDevices   = 1 << 20          // ports with a device
	maxUnasked   = 200              // words at once that answer nothing of ours
	unaskedPause = time.Second / 20 // and between them, in the long run

	maxAddresses = 64          // Provider Addresses of one host
	factsPause   = time.Second // between two reports of facts, which may be written down
)

// Large Updates, of more than one part, exist in memory until they are sent. So only
// some do at a time, however many hosts come back at once, and not for ever.
const (
	maxLarge = 8
	partTime = time.Second // to take a part, beside the patience that every message has
)

type stream = connect.BidiStream[hostv1.AgentMessage, hostv1.ServerMessage]

// session is one live stream with an agent.
type session struct {
	d        *Distributor
	host     string
	uid      string // of the Host, as the certificate says
	instance string
	stream   *stream
	ctx      context.Context
	cancel   context.CancelCauseFunc

	wake    chan struct{}            // of 1: there may be something to send
	facts   chan *hostv1.Facts       // of 1: the latest
	queries chan *hostv1.Query       // to be sent
	answers map[uint64]chan<- answer // by query; guarded by Distributor.mu
	unasked allowance                // of receive alone

	mu      sync.Mutex
	control *http.ResponseController // nil once the handler has returned
}

func errNotInPolicy(host string) error {
	return connect.NewError(connect.CodePermissionDenied, fmt.Errorf("host %q is not in policy, or is another than the one that joined: make a token (`weft token create %s`) and join again", host, host))
}

// stir has the session look for something to send.
func (s *session) stir() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// end ends the session for a reason that the agent is told, if it still reads.
func (s *session) end(why error) {
	s.cancel(why)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.control != nil {
		// A Receive from an agent that is silent, and a Send to one that does not
		// read, would block for ever.
		_ = s.control.SetReadDeadline(time.Now())
		_ = s.control.SetWriteDeadline(time.Now().Add(s.d.cfg.Heartbeat))
	}
}

func (s *session) close() {
	s.cancel(nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.control = nil
}

// Session implements hostv1connect.HostServiceHandler.
func (d *service) Session(ctx context.Context, stream *stream) error {
	from := caller(ctx)
	if from.err != nil {
		return from.err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	s := &session{d: d.Distributor, host: from.host.Name, uid: from.host.UID, stream: stream, ctx: ctx, cancel: cancel, control: from.control,
		wake: make(chan struct{}, 1), facts: make(chan *hostv1.Facts, 1), queries: make(chan *hostv1.Query, maxQueries),
		answers: map[uint64]chan<- answer{}}
	defer s.close()
	patience := s.patience()
	silence := time.AfterFunc(patience, func() {
		s.end(connect.NewError(connect.CodeDeadlineExceeded, fmt.Errorf("nothing heard from the agent for %s", patience)))
	})
	defer silence.Stop()
	first, err := stream.Receive()
	if err != nil {
		return cmp.Or(context.Cause(ctx), err)
	}
	if err := s.open(first.GetHello()); err != nil {
		return err
	}
	defer s.leave()
	go s.receive(func() { silence.Reset(patience) })
	go s.reportFacts()
	return s.serve()
}

// open admits the agent to be the one of its host.
func (s *session) open(hello *hostv1.Hello) error {
	if hello == nil {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("the first word was not a hello"))
	}
	if hello.GetProtocol() != hostwire.Protocol {
		return connect.NewError(connect.CodeFailedPrecondition,
			fmt.Errorf("the agent speaks protocol %d and the server %d: upgrade the older one", hello.GetProtocol(), hostwire.Protocol))
	}
	digest, err := hostwire.Digest(hello.GetDigest())
	if err != nil {
		return connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("hello: %w", err))
	}
	if hello.GetInstance() == "" {
		return connect.NewError(connect.CodeInvalidArgument, errors.New("hello: the instance is missing"))
	}
	d := s.d
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ready {
		return connect.NewError(connect.CodeUnavailable, errors.New("the server has not read its policy yet; try again"))
	}
	h := d.hosts[s.host]
	// The hello may come long after the request was let in.
	if h == nil || s.uid != d.uidOf(s.host) {
		return errNotInPolicy(s.host)
	}
	s.instance = clip(hello.GetInstance())
	if old := h.session; old != nil {
		if old.instance != s.instance {
			return connect.NewError(connect.CodeAlreadyExists, fmt.Errorf(
				"host %q already has a live agent (instance %s): stop that one, or give this host another name", s.host, old.instance))
		}
		old.end(connect.NewError(connect.CodeAborted, errors.New("the same agent opened another session")))
		h.depart()
	}
	facts := bounded(hello.GetFacts())
	h.version, h.facts = clip(hello.GetVersion()), facts
	h.arrive(s, digest, d.compiled.Digest(s.host), d.cfg.Now())
	s.tellFacts(facts)
	d.cfg.Logger.Info("agent arrived", "host", s.host, "version", h.version, "revision", hello.GetRevision(), "snapshot", h.snapshot)
	d.notify()
	return nil
}

func (s *session) leave() {
	d := s.d
	d.mu.Lock()
	defer d.mu.Unlock()
	for id, to := range s.answers {
		to <- answer{err: errAway(s.host)}
		delete(s.answers, id)
	}
	s.answers = nil
	if h := d.hosts[s.host]; h != nil && h.session == s {
		h.depart()
		d.notify()
	}
	d.cfg.Logger.Info("agent left", "host", s.host, "reason", context.Cause(s.ctx))
}

func (s *session) patience() time.Duration { return missedHeartbeats * s.d.cfg.Heartbeat }

// send gives the agent some time to take the messages.
func (s *session) send(within time.Duration, messages ...*hostv1.ServerMessage) error {
	s.mu.Lock()
	if s.ctx.Err() == nil && s.control != nil { // else end has set a nearer deadline
		_ = s.control.SetWriteDeadline(time.Now().Add(within))
	}
	s.mu.Unlock()
	for _, m := range messages {
		if err := s.stream.Send(m); err != nil {
			return fmt.Errorf("the agent did not take what was sent, %d messages within %s: %w", len(messages), within, err)
		}
	}
	return nil
}

// serve sends until the session ends; nobody else sends.
func (s *session) serve() error {
	err := s.send(s.patience(), &hostv1.ServerMessage{Message: &hostv1.ServerMessage_Welcome{Welcome: &hostv1.Welcome{
		Version: s.d.cfg.Version, HeartbeatSeconds: uint32(max(1, s.d.cfg.Heartbeat/time.Second))}}})
	beat := time.NewTicker(s.d.cfg.Heartbeat)
	defer beat.Stop()
	var turn chan<- struct{} // not nil while a large Update waits for its turn
	for err == nil {
		select {
		case <-s.ctx.Done():
			return context.Cause(s.ctx)
		case <-s.wake:
			if s.large() {
				turn = s.d.turns
				continue
			}
			err = s.sendUpdates()
		case turn <- struct{}{}:
			err = s.sendUpdates()
			<-s.d.turns
			turn = nil
		case q := <-s.queries:
			err = s.send(s.patience(), &hostv1.ServerMessage{Message: &hostv1.ServerMessage_Query{Query: q}})
		case <-beat.C:
			s.forgive()
			err = s.send(s.patience(), &hostv1.ServerMessage{Message: &hostv1.ServerMessage_Heartbeat{Heartbeat: &hostv1.Heartbeat{}}})
		}
	}
	return cmp.Or(context.Cause(s.ctx), err)
}

// sendUpdates sends what has gathered, if the last Update is acknowledged.
func (s *session) sendUpdates() error {
	var parts []*hostv1.ServerMessage
	for _, u := range s.next() {
		parts = append(parts, &hostv1.ServerMessage{Message: &hostv1.ServerMessage_Update{Update: u}})
	}
	return s.send(s.patience()+time.Duration(len(parts))*partTime, parts...)
}

// large reports whether what is to be sent now must wait for its turn.
func (s *session) large() bool {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	h := s.d.hosts[s.host]
	return h != nil && h.session == s && h.flight == nil && (h.snapshot || h.pending.Rows() > hostwire.PartWeight)
}

func (s *session) next() []*hostv1.Update {
	d := s.d
	d.mu.Lock()
	h := d.hosts[s.host]
	if h == nil || h.session != s {
		d.mu.Unlock()
		return nil
	}
	now := position{d.revision, d.compiled.Digest(s.host)}
	whole, delta, ok := h.take(now)
	var all *goal.Goal
	if ok && whole {
		all = d.compiled.Goal(s.host)
	}
	d.mu.Unlock()
	if !ok {
		return nil
	}
	if whole {
		delta = goal.Diff(goal.New(), all)
	}
	return hostwire.Updates(delta, now.revision, now.digest, whole)
}

// forgive lets an agent that sent wrong digests try again.
func (s *session) forgive() {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if h := s.d.hosts[s.host]; h != nil && h.session == s && h.wrong > 1 {
		h.wrong = 1
		s.stir()
	}
}

// receive reads until the stream ends, and ends the session then.
func (s *session) receive(heard func()) {
	for {
		m, err := s.stream.Receive()
		if err != nil {
			s.end(fmt.Errorf("stream ended: %w", err))
			return
		}
		heard()
		asked := false
		switch {
		case m.GetAck() != nil:
			asked = s.acknowledged(m.GetAck())
		case m.GetAnswer() != nil:
			asked = s.answered(m.GetAnswer())
		case m.GetFacts() != nil:
			s.newFacts(m.GetFacts())
		case m.GetDevices() != nil:
			s.newDevices(m.GetDevices())
		case m.GetFindings() != nil:
			s.newFindings(m.GetFindings())
		}
		if !asked && !s.unasked.take(time.Now()) {
			s.end(connect.NewError(connect.CodeResourceExhausted,
				fmt.Errorf("the agent says more than %d things a second that nobody asked for; upgrade it", time.Second/unaskedPause)))
			return
		}
	}
}

// allowance lets maxUnasked things happen at once and one each unaskedPause in the
// long run.
type allowance struct{ paid time.Time }

func (a *allowance) take(now time.Time) bool {
	if oldest := now.Add(-maxUnasked * unaskedPause); a.paid.Before(oldest) {
		a.paid = oldest
	}
	a.paid = a.paid.Add(unaskedPause)
	return !a.paid.After(now)
}

// acknowledged reports whether an Update was waiting for that.
func (s *session) acknowledged(a *hostv1.Ack) (asked bool) {
	digest, err := hostwire.Digest(a.GetDigest())
	if err != nil {
		s.end(connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("ack: %w", err)))
		return false
	}
	d := s.d
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hosts[s.host]
	if h == nil || h.session != s {
		return false
	}
	asked = h.flight != nil && h.flight.revision == a.GetRevision()
	if !h.acknowledge(position{a.GetRevision(), digest}, failures(s.host, a.GetFailures())) {
		d.cfg.Logger.Warn("the agent's goal is not what was sent; sending all of it again", "host", s.host, "revision", a.GetRevision())
	}
	d.settleLeaving(h)
	s.stir()
	d.notify()
	return asked
}

// newDevices keeps which ports have a device, and the MTUs of guests.
func (s *session) newDevices(m *hostv1.Devices) {
	devices := make(map[model.PortID]struct{}, min(len(m.GetPorts()), maxDevices))
	for _, id := range m.GetPorts()[:min(len(m.GetPorts()), maxDevices)] {
		devices[model.PortID(id)] = struct{}{}
	}
	mtus := map[model.NetworkIndex]uint32{}
	for network, mtu := range m.GetMtus() {
		if len(mtus) < maxDevices {
			mtus[model.NetworkIndex(network)] = mtu
		}
	}
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if h := s.d.hosts[s.host]; h != nil && h.session == s {
		h.devices, h.mtus = devices, mtus
		s.d.notify()
	}
}

// newFindings keeps what the host says of its guests.
func (s *session) newFindings(m *hostv1.Findings) {
	findings := map[model.Key][]Failure{}
	for _, said := range m.GetFindings()[:min(len(m.GetFindings()), maxFailures)] {
		f := failureOf(s.host, said)
		if len(findings[f.Key]) < maxFindings {
			findings[f.Key] = append(findings[f.Key], f)
		}
	}
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	if h := s.d.hosts[s.host]; h != nil && h.session == s {
		h.findings = findings
		s.d.notify()
	}
}

func failureOf(host string, f *hostv1.Failure) Failure {
	key := model.Key{Kind: model.Kind(clip(f.GetKind())), Ref: model.Ref{Tenant: clip(f.GetTenant()), Name: clip(f.GetName())}}
	return Failure{Host: host, Key: key, Reason: clip(f.GetReason()), Message: clip(f.GetMessage())}
}

func failures(host string, said []*hostv1.Failure) map[model.Key]Failure {
	out := make(map[model.Key]Failure, min(len(said), maxFailures))
	for _, f := range said[:min(len(said), maxFailures)] {
		one := failureOf(host, f)
		out[one.Key] = one
	}
	return out
}

// clip makes a host's words fit to be kept and shown: short, valid UTF-8, and without
// what a terminal would obey.
func clip(text string) string {
	text = strings.ToValidUTF8(text[:min(len(text), maxText)], "")
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, text)
}

// bounded cuts facts down, in place, to what a sound host may have.
func bounded(f *hostv1.Facts) *hostv1.Facts {
	if f == nil {
		return nil
	}
	f.Kernel, f.Decap = clip(f.GetKernel()), clip(f.GetDecap())
	f.ProviderAddresses = slices.Clone(f.ProviderAddresses[:min(len(f.ProviderAddresses), maxAddresses)])
	for i, a := range f.ProviderAddresses {
		f.ProviderAddresses[i] = clip(a)
	}
	f.Addresses = slices.Clone(f.Addresses[:min(len(f.Addresses), maxAddresses)])
	for i, a := range f.Addresses {
		f.Addresses[i] = &hostv1.AddressState{Address: clip(a.GetAddress()), State: clip(a.GetState()), Owner: clip(a.GetOwner())}
	}
	return f
}

func (s *session) newFacts(f *hostv1.Facts) {
	f = bounded(f)
	s.d.mu.Lock()
	h := s.d.hosts[s.host]
	live := h != nil && h.session == s
	if live {
		h.facts = f
		s.d.notify()
	}
	s.d.mu.Unlock()
	if live {
		s.tellFacts(f)
	}
}

// tellFacts leaves the latest facts for reportFacts. One goroutine at a time
// calls it: open, then receive.
func (s *session) tellFacts(f *hostv1.Facts) {
	if f == nil {
		return
	}
	select {
	case <-s.facts:
	default:
	}
	s.facts <- f
}

// reportFacts runs beside receive, because the server may have to write them down; an
// agent that cannot make up its mind does not make it write all the time.
func (s *session) reportFacts() {
	for s.d.cfg.Facts != nil {
		select {
		case <-s.ctx.Done():
			return
		case f := <-s.facts:
			s.d.cfg.Facts(s.ctx, s.host, f)
		}
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(factsPause):
		}
	}
}
