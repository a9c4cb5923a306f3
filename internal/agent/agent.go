// Package agent runs one hypervisor's share of weft: it holds the Goal that the
// server sends, joins it with the devices and the underlay that it finds, and
// keeps the switch equal to that.
//
// Invariants: one goroutine, the loop, owns plugs and what is known of the
// kernel; everything else hands it work and reads the views it publishes. The
// rest of the program sees whole Goals, never deltas. Nothing is swept from the
// kernel before the first complete sync with the server in this process's life.
// Stopping, in whatever way, leaves the data plane running.
// It must never import the store, decide policy, or trust what a guest sends.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// Version of this build, for the server and for status.
var Version = "dev"

// Switch is what the agent needs of datapath.Switch.
type Switch interface {
	Apply(want table.Set, sweep bool) error
	ReadBack() (table.Set, error)
	Relearn() error
	Vouch(while time.Duration) error
	AttachPort(ifindex uint32) error
	DetachPort(ifindex uint32) error
	AttachUplink(ifindex uint32) error
	DetachUplink(ifindex uint32) error
	Attached() (ports, uplinks []uint32, err error)
	AttachVLANPort(ifindex uint32) error
	AttachVLANUplink(ifindex uint32) error
	DetachVLANUplink(ifindex uint32) error
	AttachedVLANs() (ports, uplinks []uint32)
	Drops() ([]datapath.DropCount, error)
	Connections(id model.PortID) ([]datapath.Connection, datapath.ConnectionCount, bool, error)
	Flows(ctx context.Context) (<-chan datapath.Flow, error)
	FlowCounts() (datapath.FlowCounts, error)
	RuleHits() (map[model.RuleID]datapath.RuleHits, error)
	Traffic() (map[model.PortID]datapath.TrafficCount, error)
	Events(ctx context.Context) (<-chan datapath.Event, error)
	RuleLog(ctx context.Context) (<-chan datapath.RuleMatch, error)
	Sightings(ctx context.Context) (<-chan datapath.Sighting, error)
	SetGroups(want map[table.GroupMember]struct{}) error
	Groups() map[table.GroupMember]struct{}
	GroupReports(ctx context.Context) (<-chan datapath.GroupReport, error)
	Strategies() map[uint32]string
	Trace(p datapath.Program, ifindex uint32, frame []byte) (datapath.RunResult, error)
	Capture(f datapath.CaptureFilter) (*datapath.Capture, error)
	Limits() datapath.Limits
	Detour() string
	AttachDX2(ifindex uint32) error
	AttachVeth(out, in uint32) error
	AttachVXLAN(devices []uint32) error
	DetachDetour() error
	DiscardOn(devices []uint32) error
	SetShaper(entry, exit uint32) error
	ShapePorts(keys []table.ShapeKey) error
	Shaped() []table.ShapeKey
	ShaperClass(ifindex uint32) uint16
	Share(ports []uint32, turns []datapath.Turn) error
	Sharing() []uint32
	ShareClass(ifindex uint32) uint16
	Mirror(m datapath.Mirroring) error
	Mirrored() []uint32
}

// held is a Goal with its name.
type held struct {
	goal     *goal.Goal // never changed once it is held
	revision int64
	digest   goal.Digest
	synced   bool   // received from the server in this process's life
	serial   uint64 // counts what was received in this process's life
}

// view is what the loop last saw and did; readers never change it.
type view struct {
	held
	settled  bool // the loop has been through once
	want     table.Set
	plugs    map[model.Ref]plugState
	failures []failure
	facts    facts
	uplinks  map[uint32]string
	ways     map[ends]uint16            // to other hosts, and the MTU of the device and route that each begins with
	mtus     map[model.NetworkIndex]int // of guests
	external map[string]external        // devices of external networks, by name
	probing  bool                       // the states of Provider Addresses may change at once
}

// facts is what only this host knows.
type facts struct {
	pas    []netip.Addr // sorted
	states map[netip.Addr]addressState
	mtu    int    // of the underlay, IP
	decap  string // strategy per uplink: "eth0=tcx"
	kernel string
}

func (f facts) equal(g facts) bool {
	return fmt.Sprint(f) == fmt.Sprint(g)
}

// failure is a resource that the kernel does not hold as policy says.
type failure struct {
	kind    model.Kind
	ref     model.Ref
	reason  string
	message string
}

func (f failure) String() string {
	return fmt.Sprintf("%s %s: %s: %s", f.kind, f.ref, f.reason, f.message)
}

// The reasons of failures, as conditions show them.
const (
	reasonTableFull     = "TableFull"
	reasonNotProgrammed = "NotProgrammed"
	reasonAttach        = "AttachFailed"
	reasonBandwidth     = "BandwidthNotShaped"
	reasonShare         = "MinimumNotKept"
	reasonMirror        = "NotMirrored"
	reasonUnderlay      = "UnderlayUnusable"
	reasonForeignPA     = "ProviderAddressNotOnHost"
	reasonCache         = "CacheUnreadable"
	reasonDuplicate     = "DuplicateAddress"
)

// Agent is one running agent.
type Agent struct {
	cfg      Config
	log      *slog.Logger
	sw       Switch
	server   *server
	instance string // tells this process from an impostor of the same name

	work    mailbox
	held    atomic.Pointer[held]
	view    atomic.Pointer[view]
	news    bell
	samples samples
	flows   *flowBook
	guests  *guests
	teams   teams
	counts  counts
	teller  teller
	plugMu  sync.Mutex // one plug or unplug at a time
}

// Run runs an agent until ctx ends or something that it cannot live without
// fails. The data plane keeps running either way.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	if err := cfg.check(); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	unlock, err := lockState(cfg.StateDir)
	if err != nil {
		return err
	}
	defer unlock()
	sw, err := datapath.Open(datapath.Options{
		PinDir: cfg.PinDir, Decap: cfg.Decap, Logger: log,
		MaxPorts: cfg.Limits.Ports, MaxRecords: cfg.Limits.Records,
		MaxRoutes: cfg.Limits.Routes, MaxPeers: cfg.Limits.Peers,
	})
	if err != nil {
		return fmt.Errorf("open the switch: %w", err)
	}
	a := &Agent{cfg: cfg, log: log, sw: sw, instance: uuid.NewString()}
	a.guests = newGuests(a)
	a.flows = newFlowBook(time.Now())
	a.held.Store(&held{goal: goal.New()})
	a.view.Store(&view{held: held{goal: goal.New()}, want: table.NewSet()})
	return errors.Join(a.run(ctx), sw.Close())
}

func (a *Agent) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	l, err := newLoop(ctx, a)
	if err != nil {
		return err
	}
	if a.server, err = newServer(a, l); err != nil {
		return err
	}
	local, err := listenLocal(a, l)
	if err != nil {
		return err
	}
	metrics, err := listenMetrics(a)
	if err != nil {
		local.close()
		return err
	}
	group.Go(func() error { return l.run(ctx) })
	group.Go(func() error { return a.keepCache(ctx) })
	group.Go(func() error { return a.readEvents(ctx) })
	group.Go(func() error { return a.logRules(ctx) })
	group.Go(func() error { return a.keepFlows(ctx) })
	group.Go(func() error { return a.guests.watch(ctx) })
	group.Go(func() error { return a.guests.tell(ctx) })
	group.Go(func() error { return a.guests.askIdle(ctx) })
	group.Go(func() error { return a.snoop(ctx) })
	group.Go(func() error { return a.server.run(ctx) })
	group.Go(func() error { return local.serve(ctx) })
	group.Go(func() error { return metrics.serve(ctx) })
	err = group.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// mailbox hands work to the loop. Posting never blocks.
type mailbox struct {
	mu    sync.Mutex
	queue []func()
	ready chan struct{} // of one
	once  sync.Once
}

func (m *mailbox) wait() <-chan struct{} {
	m.once.Do(func() { m.ready = make(chan struct{}, 1) })
	return m.ready
}

func (m *mailbox) post(f func()) {
	m.wait()
	m.mu.Lock()
	m.queue = append(m.queue, f)
	m.mu.Unlock()
	select {
	case m.ready <- struct{}{}:
	default:
	}
}

func (m *mailbox) take() []func() {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := m.queue
	m.queue = nil
	return all
}

// onLoop runs f on the loop and waits for its result.
func onLoop[T any](ctx context.Context, a *Agent, f func() T) (T, error) {
	done := make(chan T, 1)
	a.work.post(func() { done <- f() })
	select {
	case v := <-done:
		return v, nil
	case <-ctx.Done():
		var zero T
		return zero, ctx.Err()
	}
}

// bell wakes everyone who waits, each time it rings.
type bell struct {
	mu   sync.Mutex
	next chan struct{}
}

// listen gives a channel that the next ring closes.
func (b *bell) listen() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next == nil {
		b.next = make(chan struct{})
	}
	return b.next
}

func (b *bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.next != nil {
		close(b.next)
		b.next = nil
	}
}

// firstView is the present view, but never from before the loop's first pass.
func (a *Agent) firstView(ctx context.Context) (*view, error) {
	err := a.await(ctx, func(v *view) bool { return v.settled })
	return a.view.Load(), err
}

// await waits until a view satisfies ok.
func (a *Agent) await(ctx context.Context, ok func(*view) bool) error {
	for {
		news := a.news.listen()
		if ok(a.view.Load()) {
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
