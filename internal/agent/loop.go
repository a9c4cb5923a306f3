package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// Bounds of the backoff after a failed reconcile.
const (
	firstRetry = 500 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// For how long the loop answers for the next hops that it has written, and how often it says so again.
const (
	vouchTime = 3 * time.Second
	vouchPace = time.Second
)

// loop owns the plugs and all knowledge of the kernel. Only its goroutine
// touches these fields.
type loop struct {
	*Agent
	plugs  map[model.Ref]*plug
	unbind map[model.Ref]bool // the server is still to be told
	// orphans are devices that a former process attached and that no plugs file
	// explains, with their port; they are kept until the Goal names them.
	orphans map[uint32]model.PortID
	cache   error // why the cached Goal was not usable; nil once synced

	stale   netdev.Change // what must be read from the kernel again
	links   map[uint32]netdev.Link
	under   underlay
	foreign []netip.Addr // PAs of policy that this host does not have

	routes   []failure // of provider routes
	unrouted bool      // the kernel has no provider routes, for sure

	claims    map[place]*claim         // what address conflict detection knows of this host's PAs
	ears      map[uint32]*ear          // by device
	addresses recent[netip.Addr]       // outer destinations that were ours
	usable    map[netip.Addr]time.Time // since when this host\'s PAs are usable
	narrow    map[ends]narrow          // what routers have said of paths
	sources   recent[table.Source]     // outer sources that were others'
	due       time.Time                // when some of what was found is of the past; zero: never
	alarm     *time.Timer              // for due, and the next step of a claim

	last    pass // what the last pass worked from
	trouble bool // the last pass left what a retry may mend: do not skip the next
	retry   *time.Timer
	delay   time.Duration
	rowsErr error // of the last Apply
	behind  map[model.PortID]bool

	rules   ruleSets
	crowded []failure // ports whose subnet has too many members to be flooded
	joined  map[netip.Addr]membership

	queues map[table.ShapeKey]netdev.Bandwidth // that wait in the kernel; nil: not known
	shares map[uint32]netdev.Uplink            // queues of uplinks, likewise

	standsIn bool // the kernel may have stand-ins or unreachable pools of ours; true until it is known to have none

	noDetour   bool // it could not be made, and that was said
	byVeth     bool // it is not the best one, and that was said
	noListener bool // no socket of ours listens for VXLAN, and the log says so
}

// pass is the input of one reconcile; when nothing in it changed and the last
// one succeeded there is nothing to do.
type pass struct {
	goal    *goal.Goal
	synced  bool
	devices map[model.PortID]device
	ours    map[uint32]bool // devices that the switch must stay on, in policy or not
	under   underlay
}

func (p pass) equal(q pass) bool {
	return p.goal == q.goal && p.synced == q.synced && maps.Equal(p.devices, q.devices) &&
		maps.Equal(p.ours, q.ours) && p.under.equal(q.under)
}

// newLoop reads what earlier processes left: the cached Goal and the plugs.
func newLoop(ctx context.Context, a *Agent) (*loop, error) {
	l := &loop{
		Agent: a, plugs: map[model.Ref]*plug{}, unbind: map[model.Ref]bool{}, orphans: map[uint32]model.PortID{},
		stale: netdev.ChangeAll, retry: time.NewTimer(0), delay: firstRetry,
		ears: map[uint32]*ear{}, addresses: recent[netip.Addr]{}, usable: map[netip.Addr]time.Time{}, narrow: map[ends]narrow{}, sources: recent[table.Source]{}, alarm: time.NewTimer(0),
		joined: map[netip.Addr]membership{}, standsIn: true,
	}
	cached, err := readGoal(a.cfg.StateDir)
	if err != nil {
		l.cache = err
		a.log.Error("the cached goal is not usable; what the kernel holds stays as it is until the server has sent it", "error", err)
	}
	a.held.Store(&cached)
	if err := l.restorePlugs(); err != nil {
		return nil, err
	}
	var mu sync.Mutex
	var pending netdev.Change
	err = netdev.Watch(ctx, func(c netdev.Change) {
		mu.Lock()
		defer mu.Unlock()
		if pending == 0 {
			a.work.post(func() {
				mu.Lock()
				defer mu.Unlock()
				l.stale |= pending
				pending = 0
			})
		}
		pending |= c
	})
	if err != nil {
		return nil, err
	}
	if err := l.listenForErrors(ctx); err != nil {
		a.log.Warn("what routers say of packets that did not arrive is not heard", "error", err)
	}
	return l, nil
}

func (l *loop) run(ctx context.Context) error {
	audit := time.NewTicker(l.cfg.Audit)
	defer audit.Stop()
	vouch := time.NewTicker(vouchPace)
	defer vouch.Stop()
	defer l.stopListening()
	for {
		for _, f := range l.work.take() {
			f()
		}
		l.reconcile()
		l.vouch()
		select {
		case <-ctx.Done():
			return nil
		case <-l.work.wait():
		case <-l.retry.C:
		case <-l.alarm.C:
		case <-vouch.C:
		case <-audit.C:
			l.audit()
		}
	}
}

// vouch answers for the next hops in the rows, if they are what was last seen of the kernel.
func (l *loop) vouch() {
	if l.stale != 0 || l.rowsErr != nil {
		return
	}
	if err := l.sw.Vouch(vouchTime); err != nil {
		l.log.Warn("the kernel finds the next hops", "error", err)
	}
}

// reconcile makes the kernel equal to the Goal, as far as it can, and publishes
// what came of it.
func (l *loop) reconcile() {
	start := time.Now()
	h := *l.held.Load()
	if h.synced {
		l.cache = nil
	}
	standing, seen := l.look(h, start)
	l.nameOrphans(h)
	l.under.externals = l.externals(h.goal)
	now := pass{goal: h.goal, synced: h.synced, devices: l.devices(h.goal), ours: l.ours(), under: l.under}
	defer func() { l.teams.placed(time.Now()) }()
	if seen && now.equal(l.last) && !l.trouble && l.view.Load().settled {
		l.publish(h, l.view.Load().want, append(standing, l.crowded...))
		return
	}
	want := render(h.goal, now.devices, l.under)
	unjudged := l.rules.render(&want, h.goal, now.devices)
	l.last = now
	l.crowded = append(crowded(want, h.goal, now.devices), cutOff(h.goal, now.devices, l.under.externals)...)
	standing = append(standing, l.crowded...)
	l.program(h, want)
	l.detour(want)
	l.hear(want)
	failures := append(l.rowFailures(h), l.attach(want)...)
	failures = append(failures, unjudged...)
	failures = append(failures, l.shape(want)...)
	failures = append(failures, l.share(want)...)
	failures = append(failures, l.mirror(want)...)
	failures = append(failures, l.join(groupsOf(h.goal))...)
	failures = append(failures, l.standIn(want, h)...)
	l.trouble = !seen || len(failures) > 0
	l.counts.reconciled(time.Since(start), l.trouble)
	l.schedule()
	l.publish(h, want, append(standing, failures...))
}

// look reads again what changed in the kernel since the last pass. It gives the
// failures that follow from what is known, which no retry would mend, and
// whether it could see at all.
func (l *loop) look(h held, now time.Time) (standing []failure, seen bool) {
	stale := l.stale
	l.stale = 0
	conflicts, err := l.lookAgain(stale, h, now)
	l.setAlarm(now)
	standing = append(l.standing(), conflicts...)
	if err == nil {
		return standing, true
	}
	l.stale |= stale
	l.log.Warn("devices and routes of the host could not be read; the last known stay", "error", err)
	return append(standing, l.hostFailure(reasonUnderlay, err.Error())), false
}

func (l *loop) setAlarm(now time.Time) {
	l.alarm.Stop()
	if next := earlier(l.due, l.nextStep()); !next.IsZero() {
		l.alarm.Reset(next.Sub(now))
	}
}

func (l *loop) lookAgain(stale netdev.Change, h held, now time.Time) (conflicts []failure, err error) {
	if l.links == nil {
		stale = netdev.ChangeAll
	}
	next, fresh := l.under, stale&^netdev.ChangeNeighbours != 0
	if fresh {
		if next, err = l.lookAtDevices(); err != nil {
			return nil, err
		}
	}
	conflicts = l.checkAddresses(&next, h.goal.PAs, now)
	if l.last.goal == nil { // what an earlier process used, the others know
		for pa := range h.goal.PAs {
			l.usable[pa] = time.Time{}
		}
	}
	var settling time.Time
	next.locals, settling = next.findLocals(h.goal.PAs, l.usable, l.links, now)
	known := stale == 0 && h.goal == l.last.goal && slices.Equal(next.locals, l.under.locals)
	if known && (l.due.IsZero() || now.Before(l.due)) {
		l.under, l.due = next, earlier(l.due, settling)
		return conflicts, nil
	}
	if l.foreign, err = missingPAs(h.goal.PAs, l.links); err != nil {
		return conflicts, err
	}
	if (fresh || h.goal != l.last.goal) && l.settleRoutes(h.goal, h.synced) {
		fresh = true
	}
	hosts := remotePAs(h.goal)
	gone, err := next.findWays(hosts, l.under, fresh, l.links, now)
	if err != nil {
		return conflicts, err
	}
	next.macs = l.under.macs
	if err := next.resolve(h.synced); err != nil {
		// ARP between guests needs the next hop's MAC; all else does without.
		l.log.Warn("neighbours of the underlay", "error", err)
	}
	mtu, old := l.narrowest(now)
	next.tell(mtu)
	next.findGroups(groupsOf(h.goal), l.links)
	var deaf, strange time.Time
	// What this host says it has, others may use before policy says so to this host.
	ours := maps.Clone(h.goal.PAs)
	for _, pa := range next.pas {
		ours[pa] = struct{}{}
	}
	next.heard, deaf = l.addresses.with(ours, now)
	next.sources, strange = sourcesOf(hosts, l.sources, now)
	l.under, l.due = next, earlier(earlier(earlier(gone, settling), old), earlier(deaf, strange))
	return conflicts, nil
}

// lookAtDevices reads links and addresses.
func (l *loop) lookAtDevices() (next underlay, err error) {
	if l.links, err = netdev.Links(); err != nil {
		return next, err
	}
	if next, err = findUplinks(l.cfg, l.links); err != nil {
		return next, err
	}
	if len(next.uplinks) == 0 {
		// A host that is between two addresses keeps its uplinks.
		next.uplinks, next.speeds, next.mtu = presentUplinks(l.under, l.links), l.under.speeds, l.under.mtu
	}
	return next, nil
}

func presentUplinks(u underlay, links map[uint32]netdev.Link) map[uint32]string {
	out := map[uint32]string{}
	for index, name := range u.uplinks {
		if _, ok := links[index]; ok {
			out[index] = name
		}
	}
	return out
}

func (l *loop) standing() []failure {
	var out []failure
	if l.cache != nil {
		out = append(out, l.hostFailure(reasonCache, l.cache.Error()))
	}
	out = append(out, l.routes...)
	for _, pa := range l.foreign {
		out = append(out, l.hostFailure(reasonForeignPA, fmt.Sprintf("policy says that %s is an address of this host, and it is not", pa)))
	}
	return out
}

func (l *loop) hostFailure(reason, message string) failure {
	return failure{model.KindHost, model.Ref{Name: l.cfg.Host}, reason, message}
}

// program writes the rows. Until the first sync nothing is swept, except the
// rows of devices that are not ports any more: those are this host's own truth.
func (l *loop) program(h held, want table.Set) {
	l.rowsErr, l.behind = l.sw.Apply(want, h.synced), nil
	if l.rowsErr == nil && !h.synced {
		l.rowsErr = l.forgetDevices()
	}
	if l.rowsErr == nil {
		return
	}
	l.log.Error("the switch does not hold all of policy", "revision", h.revision, "error", l.rowsErr)
	have, err := l.sw.ReadBack()
	if err != nil {
		l.rowsErr = errors.Join(l.rowsErr, err)
		have = table.NewSet()
	}
	l.behind = portsBehind(want, have)
}

// forgetDevices deletes the port rows of devices that are gone or unplugged.
func (l *loop) forgetDevices() error {
	have, err := l.sw.ReadBack()
	if err != nil {
		return err
	}
	gone := false
	for index := range have.VLANPorts {
		if !l.last.ours[index] {
			delete(have.VLANPorts, index)
			gone = true
		}
	}
	for index := range have.Ports {
		if !l.last.ours[index] {
			delete(have.Ports, index)
			maps.DeleteFunc(have.Members, func(m table.Member, _ table.MemberInfo) bool { return m.IfIndex == index })
			gone = true
		}
	}
	if !gone {
		return nil
	}
	return l.sw.Apply(have, true)
}

// portsBehind lists the ports of which want and have differ.
func portsBehind(want, have table.Set) map[model.PortID]bool {
	out := map[model.PortID]bool{}
	for index, p := range want.Ports {
		if have.Ports[index] != p {
			out[p.ID] = true
		}
	}
	for index, p := range want.VLANPorts {
		if have.VLANPorts[index] != p {
			out[p.ID] = true
		}
	}
	for k, r := range want.Records {
		if held, ok := have.Records[k]; !ok || held != r {
			out[r.Port] = true
		}
	}
	return out
}

// rowFailures names the resources that the last Apply left behind.
func (l *loop) rowFailures(h held) []failure {
	if l.rowsErr == nil {
		return nil
	}
	reason := reasonNotProgrammed
	var full *datapath.ErrFull
	if errors.As(l.rowsErr, &full) {
		reason = reasonTableFull
	}
	out := []failure{l.hostFailure(reason, l.rowsErr.Error())}
	for _, id := range slices.Sorted(maps.Keys(l.behind)) {
		if p, ok := h.goal.Ports[id]; ok {
			out = append(out, failure{model.KindPort, p.Ref, reason, l.rowsErr.Error()})
		}
	}
	return out
}

// attach puts the switch on uplinks and plugged devices and takes it off what
// is neither. It comes after the rows, so that a guest's first frame finds its
// port; a device that is attached and has no row only drops.
func (l *loop) attach(want table.Set) []failure {
	ports, uplinks, err := l.sw.Attached()
	if err != nil {
		return []failure{l.hostFailure(reasonAttach, err.Error())}
	}
	var out []failure
	for _, index := range slices.Sorted(maps.Keys(l.under.uplinks)) {
		if err := l.sw.AttachUplink(index); err != nil {
			out = append(out, l.hostFailure(reasonAttach, fmt.Sprintf("uplink %s: %v", l.under.uplinks[index], err)))
		}
	}
	if len(out) == 0 && len(l.under.uplinks) > 0 {
		out = append(out, l.detachUplinks(uplinks)...)
	}
	out = append(out, l.attachExternals(want)...)
	vlans, _ := l.sw.AttachedVLANs()
	for ref, p := range l.plugs {
		row, onVLAN := want.VLANPorts[p.ifindex]
		attached := slices.Contains(ports, p.ifindex) && slices.Contains(vlans, p.ifindex) == onVLAN
		if err := l.attachPlug(p, attached, onVLAN, int(max(row.MTU, want.Ports[p.ifindex].MTU))); err != nil {
			p.problem = err
			out = append(out, failure{model.KindPort, ref, reasonAttach, err.Error()})
		}
	}
	for _, index := range ports {
		if l.last.ours[index] {
			continue
		}
		if err := l.release(index); err != nil {
			out = append(out, l.hostFailure(reasonAttach, fmt.Sprintf("device %d: %v", index, err)))
		}
	}
	return out
}

func (l *loop) detachUplinks(attached []uint32) []failure {
	var out []failure
	for _, index := range attached {
		if _, wanted := l.under.uplinks[index]; wanted {
			continue
		}
		if err := l.sw.DetachUplink(index); err != nil {
			out = append(out, l.hostFailure(reasonAttach, fmt.Sprintf("former uplink %d: %v", index, err)))
		}
	}
	return out
}

func (l *loop) attachPlug(p *plug, attached, onVLAN bool, mtu int) error {
	if p.ifindex == 0 {
		return nil
	}
	link, ok := l.links[p.ifindex]
	if !ok {
		return nil
	}
	if !attached {
		put := l.sw.AttachPort
		if onVLAN {
			put = l.sw.AttachVLANPort
		}
		if err := put(p.ifindex); err != nil {
			return fmt.Errorf("device %s: %w", p.Device, err)
		}
	}
	if mtu == 0 { // policy knows no such port: nothing passes
		mtu = cmp.Or(p.prepared, l.under.guestMTU(table.Overhead(model.NVGRE, netip.IPv4Unspecified())))
	}
	if !attached || !link.Up || p.prepared != mtu {
		if p.Netns != "" && link.MTU != mtu {
			if err := netdev.ResizeVeth(p.Device, p.Netns, mtu); err != nil {
				// The port works; larger packets of the guest are answered with the right size.
				l.log.Warn("the guest's MTU could not be changed", "device", p.Device, "mtu", mtu, "error", err)
			}
		}
		if err := netdev.PreparePort(p.ifindex, mtu); err != nil {
			return err
		}
		p.prepared = mtu
	}
	p.problem, p.attached = nil, true
	return nil
}

// release takes the switch off a device that is no port any more. The device
// goes down first: what the guest sends must not reach the host's own stack.
func (l *loop) release(index uint32) error {
	if _, present := l.links[index]; present {
		if err := netdev.SetDown(index); err != nil && !errors.Is(err, netdev.ErrNoDevice) {
			return err
		}
	}
	return l.sw.DetachPort(index)
}

func (l *loop) schedule() {
	l.retry.Stop()
	if !l.trouble {
		l.delay = firstRetry
		return
	}
	// Full jitter would retry at once; half keeps a floor.
	l.retry.Reset(l.delay/2 + rand.N(l.delay))
	l.delay = min(2*l.delay, lastRetry)
}

func (l *loop) publish(h held, want table.Set, failures []failure) {
	plugs := make(map[model.Ref]plugState, len(l.plugs))
	for ref, p := range l.plugs {
		plugs[ref] = l.stateOf(p, h, want)
	}
	slices.SortFunc(failures, func(a, b failure) int { return cmp.Compare(a.String(), b.String()) })
	v := &view{held: h, settled: true, want: want, plugs: plugs, failures: failures, facts: l.facts(),
		uplinks: l.under.uplinks, ways: l.under.carry, mtus: l.under.guestMTUs(h.goal), external: l.under.externals, probing: l.probing()}
	l.view.Store(v)
	l.news.ring()
}

func (l *loop) facts() facts {
	return facts{
		pas: l.under.pas, states: l.under.states, mtu: l.under.mtu, decap: l.under.decap(l.sw.Strategies()), kernel: kernelRelease(),
	}
}

var kernelRelease = sync.OnceValue(func() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
})
