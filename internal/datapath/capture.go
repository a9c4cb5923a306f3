package datapath

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/perf"
	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/model"
)

// CapturePoint is where a packet is seen on its way.
type CapturePoint uint8

// The points, as in bpf/maps/capture.h.
const (
	FromGuest    CapturePoint = iota // as the guest sent it
	FromUnderlay                     // before decapsulation
	ToGuest                          // as handed over, or the switch's own word to the guest
	ToUnderlay                       // after encapsulation
	Dropped                          // as it came
	capturePoints
)

var pointNames = [capturePoints]string{"from-guest", "from-underlay", "to-guest", "to-underlay", "dropped"}

func (p CapturePoint) String() string {
	if p < capturePoints {
		return pointNames[p]
	}
	return fmt.Sprintf("point %d", uint8(p))
}

// ParseCapturePoint reads the name of a point.
func ParseCapturePoint(name string) (CapturePoint, bool) {
	i := slices.Index(pointNames[:], name)
	return CapturePoint(max(i, 0)), i >= 0
}

// Bounds of captures. What does not fit is counted, never waited for.
const (
	captureSlots    = 8 // as in bpf/maps/capture.h
	MaxSnaplen      = 60 << 10
	MaxCaptureRate  = 200_000   // packets per second
	captureByteRate = 128 << 20 // per second
	captureQueue    = 16 << 20  // bytes that wait for one reader
	captureRings    = 32 << 20  // bytes of all CPUs' rings
	packetCost      = 256       // bytes that a packet takes beside its frame

	captureWindow = 100 * time.Millisecond // as in bpf/lib/capture.h
	captureLease  = 5 * time.Second        // how long programs capture for a process that died
	captureTick   = 50 * time.Millisecond  // how long a captured packet waits at most
	captureBatch  = 4096                   // records
	dx2Outer      = 14 + 40                // bytes that bpf/lib/dx2.h puts before a frame
)

// CaptureFilter says what to capture. A zero field lets everything pass. Only what
// the pipeline has parsed can be compared: a packet that it dropped before has no
// addresses and ports.
type CaptureFilter struct {
	Points    []CapturePoint
	Port      model.PortID
	EtherType uint16
	Protocols []uint8      // at most 2, any of them
	Addresses []netip.Addr // at most 2, each source or destination (of ARP: sender or target)
	L4Port    uint16       // source or destination
	Reason    model.Verdict
	Snaplen   int // bytes of each frame; default and at most MaxSnaplen
	Rate      int // packets per second; default and at most MaxCaptureRate
}

// Captured is one packet at one point.
type Captured struct {
	Time      time.Time
	Point     CapturePoint
	Verdict   model.Verdict // that the walk ended with; 0 when that was lost
	Direction Direction
	Port      model.PortID // that the packet counts for; 0 when none was known
	ToPort    model.PortID // of this host, that it was delivered to
	VSID      model.VSID   // of the next hop, or the wire's; 0 when not known
	IfIndex   uint32       // where the walk began
	Out       uint32       // device it leaves by; 0: none
	Walk      uint64       // the same for all that was seen of one packet on one walk; 0: seen once
	Length    int          // of the frame
	Frame     []byte       // its first bytes
	Inner     int          // where the guest's frame begins in it; 0 at ToUnderlay, too
	GSOSize   int          // payload bytes per segment of a packet yet to be cut; else 0
	GSOSegs   int
	Error     bool // ICMP error by the switch, about a packet that it dropped

	ChecksumPending bool // left to the device, so what is in the frame is not one
	VLANAside       bool // there is a VLAN tag, which is not in the frame, but is
	Tag             uint16
	Stripped        bool // outer headers were removed before GRO, by XDP
	NoLinkLayer     bool // the kernel will write the first 14 bytes
}

// CaptureCount says what became of the packets at one point, exactly.
type CaptureCount struct {
	Point     CapturePoint
	Seen      uint64 // matched the filter
	LostFull  uint64 // not taken: the ring was full
	LostRate  uint64 // not taken: over the rate
	LostQueue uint64 // not taken: the reader of the Capture was too slow
}

// Lost is all that matched and was not delivered.
func (c CaptureCount) Lost() uint64 { return c.LostFull + c.LostRate + c.LostQueue }

type captureFilterRow struct {
	Until       uint64
	RateBytes   uint64
	Host        [2][16]byte
	RatePackets uint32
	Points      uint32
	Port        uint32
	Snaplen     uint32
	EtherType   uint16
	L4Port      uint16
	Protocol    [2]uint8
	Reason      uint8
	Zero        uint8
}

type captureCountRow struct{ Seen, LostFull, LostRate uint64 }

// Flags of captureEventRow.
const (
	captureCsum = 1 << iota
	captureVLAN
	captureXDP
	captureDetour
	captureBare
	captureCopy
)

type captureEventRow struct {
	Time                                                          uint64
	Walk, Slots, Port, ToPort, VSID, IfIndex, Out, Length, Caplen uint32
	Quote, Tag, GSOSize, GSOSegs                                  uint16
	Point, Verdict, Direction, Flags                              uint8
	Eth                                                           [14]byte
	Base                                                          uint16
}

const captureEventLen = 72

// capturer holds the programs that show packets while at least one Capture is open.
type capturer struct {
	mu      sync.Mutex // taken before Switch.mu; guards the start and end of captures
	open    [captureSlots]atomic.Pointer[Capture]
	showing map[string]*ebpf.Program // loaded; of a Switch that recycles also before and after captures
	on      bool                     // they are in place; guarded by Switch.mu, too
	reader  *perf.Reader
	stop    chan struct{}
	flushed chan struct{} // of one
	done    sync.WaitGroup
}

// Capture is one capture under way.
type Capture struct {
	s       *Switch
	slot    uint32
	started uint64 // monotonic ns; what is older was for another capture

	mu     sync.Mutex
	filter captureFilterRow
	closed bool
	queue  []Captured
	bytes  int
	extra  uint64                // packets to the guest that came out of a record of a drop
	lost   [capturePoints]uint64 // the queue was full
	final  []CaptureCount        // once closed
	ready  chan struct{}         // of one
}

// Capture starts one. While any is open, the programs on all devices are ones that
// show packets; each is replaced atomically, and again after the last Close.
func (s *Switch) Capture(f CaptureFilter) (*Capture, error) {
	row, err := f.row()
	if err != nil {
		return nil, err
	}
	t := &s.capture
	t.mu.Lock()
	defer t.mu.Unlock()
	slot := 0
	for slot < captureSlots && t.open[slot].Load() != nil {
		slot++
	}
	if slot == captureSlots {
		return nil, fmt.Errorf("capture: %d captures are under way on this host, and more would slow it down; end one", captureSlots)
	}
	if !t.on {
		if err := s.startCaptures(); err != nil {
			return nil, errors.Join(fmt.Errorf("capture: %w", err), s.stopCaptures())
		}
	}
	c := &Capture{s: s, slot: uint32(slot), started: monotonic(), filter: row, ready: make(chan struct{}, 1)}
	t.open[slot].Store(c)
	for p := range capturePoints {
		err = errors.Join(err, s.maps["capture_count"].Put(c.countKey(p), captureCountRow{}))
	}
	if err == nil {
		err = c.renew()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("capture: %w", err), s.endCapture(c))
	}
	return c, nil
}

func (f CaptureFilter) row() (captureFilterRow, error) {
	r := captureFilterRow{Port: uint32(f.Port), EtherType: f.EtherType, L4Port: f.L4Port, Reason: uint8(f.Reason),
		Snaplen: uint32(cmp.Or(f.Snaplen, MaxSnaplen)), Points: 1<<capturePoints - 1}
	rate := cmp.Or(f.Rate, MaxCaptureRate)
	switch {
	case len(f.Protocols) > 2 || len(f.Addresses) > 2:
		return r, errors.New("capture: at most two protocols and two addresses can be compared")
	case f.Snaplen < 0 || f.Snaplen > MaxSnaplen:
		return r, fmt.Errorf("capture: snaplen %d, must be 1 to %d bytes", f.Snaplen, MaxSnaplen)
	case rate < 0 || rate > MaxCaptureRate:
		return r, fmt.Errorf("capture: rate %d, must be 1 to %d packets per second", rate, MaxCaptureRate)
	}
	const perSecond = uint64(time.Second / captureWindow)
	r.RatePackets, r.RateBytes = uint32(max(uint64(rate)/perSecond, 1)), captureByteRate/perSecond
	if len(f.Points) > 0 {
		r.Points = 0
	}
	for _, p := range f.Points {
		r.Points |= 1 << p
	}
	for i, a := range f.Addresses {
		r.Host[i] = a.As16()
	}
	for i := range r.Protocol {
		if len(f.Protocols) > 0 {
			r.Protocol[i] = f.Protocols[min(i, len(f.Protocols)-1)]
		}
	}
	return r, nil
}

// renew lets the programs capture for some more time.
func (c *Capture) renew() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	c.filter.Until = monotonic() + uint64(captureLease)
	return c.s.maps["capture_filter"].Put(c.slot, c.filter)
}

func monotonic() uint64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0
	}
	return uint64(now.Nano())
}

// startCaptures puts the showing programs in the place of the others.
func (s *Switch) startCaptures() error {
	t := &s.capture
	s.mu.Lock()
	names := slices.Collect(maps.Keys(s.programs))
	s.mu.Unlock()
	if err := s.loadShowing(names); err != nil {
		return err
	}
	perCPU := min(max(captureRings/runtime.NumCPU(), 256<<10), 4<<20)
	reader, err := perf.NewReaderWithOptions(s.maps["capture"], perCPU, perf.ReaderOptions{Watermark: perCPU / 4})
	if err != nil {
		return err
	}
	stop := make(chan struct{})
	t.reader, t.stop, t.flushed = reader, stop, make(chan struct{}, 1)
	t.done.Go(func() { t.read(reader) })
	t.done.Go(func() { t.keepAlive(stop, s) })
	s.mu.Lock()
	defer s.mu.Unlock()
	t.on = true
	if s.behind {
		return errors.New("the switch still runs programs of another version, until policy has been applied; try again")
	}
	if err := s.loadShowing(slices.Collect(maps.Keys(s.programs))); err != nil { // there may be more by now
		return err
	}
	return s.swapPrograms()
}

// loadShowing loads the programs that show packets, those that are in use without captures:
// flooding takes the verifier long, and few hosts need it.
func (s *Switch) loadShowing(names []string) error {
	t := &s.capture
	names = slices.DeleteFunc(names, func(name string) bool { return name == progXDP || t.showing[name] != nil })
	if len(names) == 0 {
		return nil
	}
	spec, err := s.spec()
	if err != nil {
		return err
	}
	if err := spec.Variables["capture_on"].Set(uint32(1)); err != nil {
		return err
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return !slices.Contains(names, name) })
	programs, err := loadPrograms(spec, tablesOf(s.maps))
	if err != nil {
		return err
	}
	if t.showing == nil {
		t.showing = map[string]*ebpf.Program{}
	}
	maps.Copy(t.showing, programs)
	return nil
}

// tablesOf are the maps but those that each set of programs has its own of.
func tablesOf(all map[string]*ebpf.Map) map[string]*ebpf.Map {
	tables := maps.Clone(all)
	maps.DeleteFunc(tables, func(name string, _ *ebpf.Map) bool { return ofPrograms(name) })
	return tables
}

// stopCaptures undoes startCaptures.
func (s *Switch) stopCaptures() error {
	t := &s.capture
	s.mu.Lock()
	wasOn := t.on
	t.on = false
	var err error
	if wasOn && !s.behind {
		err = s.swapPrograms()
	}
	s.mu.Unlock()
	if t.reader != nil {
		close(t.stop)
		err = errors.Join(err, t.reader.Close())
		t.done.Wait()
		t.reader = nil
	}
	if s.opts.Recycle {
		return err
	}
	for _, p := range t.showing {
		err = errors.Join(err, p.Close())
	}
	t.showing = nil
	return err
}

// program is the one that belongs on a device now.
func (s *Switch) program(name string) *ebpf.Program {
	if s.capture.on && name != progXDP {
		return s.capture.showing[name]
	}
	return s.programs[name]
}

// fillTails does so with the programs that belong on devices now.
func (s *Switch) fillTails() error {
	if s.capture.on {
		return fillTails(s.capture.showing, s.maps)
	}
	return fillTails(s.programs, s.maps)
}

// swapPrograms brings every device's programs up to date, each atomically.
func (s *Switch) swapPrograms() error {
	err := s.fillTails()
	for n, l := range s.links {
		if n.program == progXDP {
			continue
		}
		if e := l.Update(s.program(n.program)); e != nil && !errors.Is(e, unix.ENOLINK) {
			err = errors.Join(err, fmt.Errorf("replace program of %s: %w", n, e))
		}
	}
	return err
}

// endCapture frees the slot; with the last one all is as before.
func (s *Switch) endCapture(c *Capture) error {
	t := &s.capture
	if t.open[c.slot].Load() != c {
		return nil
	}
	err := c.finish()
	t.drain()
	final, e := c.Count()
	t.open[c.slot].Store(nil)
	c.mu.Lock()
	c.final = final
	c.mu.Unlock()
	err = errors.Join(err, e)
	for i := range t.open {
		if t.open[i].Load() != nil {
			return err
		}
	}
	return errors.Join(err, s.stopCaptures())
}

// finish has the programs show no more.
func (c *Capture) finish() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return c.s.maps["capture_filter"].Put(c.slot, captureFilterRow{})
}

// drain waits until all that was shown so far has reached its captures.
func (t *capturer) drain() {
	if t.reader == nil || t.reader.Flush() != nil {
		return
	}
	select {
	case <-t.flushed:
	case <-time.After(time.Second): // the reader has failed
	}
}

// Close ends the capture. What is queued can still be read, and counted.
func (c *Capture) Close() error {
	c.s.capture.mu.Lock()
	defer c.s.capture.mu.Unlock()
	return c.s.endCapture(c)
}

func (s *Switch) closeCaptures() error {
	s.capture.mu.Lock()
	defer s.capture.mu.Unlock()
	var err error
	for i := range s.capture.open {
		if c := s.capture.open[i].Load(); c != nil {
			err = errors.Join(err, s.endCapture(c))
		}
	}
	return err
}

func (c *Capture) countKey(p CapturePoint) uint32 { return c.slot*8 + uint32(p) }

// Count says for each point how many packets matched and what became of those that
// were not taken. After Close the sum of these and of the packets that Next gave or
// still gives is what was seen.
func (c *Capture) Count() ([]CaptureCount, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.final != nil {
		return c.final, nil
	}
	out := make([]CaptureCount, capturePoints)
	for p := range out {
		var r captureCountRow
		if err := c.s.maps["capture_count"].Lookup(c.countKey(CapturePoint(p)), &r); err != nil {
			return nil, fmt.Errorf("read the capture's counters: %w", err)
		}
		out[p] = CaptureCount{CapturePoint(p), r.Seen, r.LostFull, r.LostRate, 0}
	}
	for p := range out {
		out[p].LostQueue = c.lost[p]
	}
	out[ToGuest].Seen += c.extra
	return out, nil
}

// Next waits for packets and takes all there are, in the order of time but for
// neighbours of different CPUs. nil, nil: none came within wait.
func (c *Capture) Next(ctx context.Context, wait time.Duration) ([]Captured, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
	case <-c.ready:
	}
	return c.take(), nil
}

func (c *Capture) take() []Captured {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.queue
	c.queue, c.bytes = nil, 0
	return all
}

// offer queues a packet if the capture wants it.
func (c *Capture) offer(p shown) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.mono < c.started || !c.wants(p.Point, p.Verdict) {
		return
	}
	if p.Error && c.wants(Dropped, p.Verdict) {
		c.extra++
	}
	if c.bytes += len(p.Frame) + packetCost; c.bytes > captureQueue {
		c.bytes -= len(p.Frame) + packetCost
		c.lost[p.Point]++
		return
	}
	c.queue = append(c.queue, p.Captured)
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

// wants is what the programs asked already, but for records that hold two packets.
func (c *Capture) wants(p CapturePoint, v model.Verdict) bool {
	if c.filter.Points&(1<<p) == 0 {
		return false
	}
	return p != Dropped || c.filter.Reason == 0 || c.filter.Reason == uint8(v)
}

// keepAlive renews the leases of open captures.
func (t *capturer) keepAlive(stop <-chan struct{}, s *Switch) {
	tick := time.NewTicker(captureLease / 5)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		for i := range t.open {
			c := t.open[i].Load()
			if c == nil {
				continue
			}
			if err := c.renew(); err != nil {
				s.log.Warn("a capture could not be renewed and will end", "error", err)
			}
		}
	}
}

// read hands packets to captures until the reader is closed.
func (t *capturer) read(rd *perf.Reader) {
	j := joiner{begun: map[int]*beginning{}}
	var rec perf.Record
	for {
		rd.SetDeadline(time.Now().Add(captureTick))
		err := rd.ReadInto(&rec)
		for n := 0; err == nil && n < captureBatch; n++ {
			if rec.LostSamples == 0 { // those are counted where they are lost
				j.record(rec.CPU, rec.RawSample)
			}
			err = rd.ReadInto(&rec)
		}
		flushed := errors.Is(err, perf.ErrFlushed)
		idle := errors.Is(err, os.ErrDeadlineExceeded)
		if err != nil {
			j.settle(!idle)
		}
		t.hand(j.take())
		if flushed {
			t.flushed <- struct{}{}
		}
		if err != nil && !idle && !flushed {
			return
		}
	}
}

func (t *capturer) hand(batch []shown) {
	for _, p := range batch {
		for slot := range t.open {
			if c := t.open[slot].Load(); c != nil && p.slots&(1<<slot) != 0 {
				c.offer(p)
			}
		}
	}
}

// shown is a packet for the captures of the slots.
type shown struct {
	Captured
	slots uint32
	mono  uint64
}

// joiner makes packets out of records. A walk is told in two: the packet as it came,
// and then, on the same CPU and without another in between, how it ended.
type joiner struct {
	begun map[int]*beginning // by CPU
	out   []shown
}

type beginning struct {
	shown
	idle bool // the reader found nothing more once already
}

// take gives what is complete, in order of time.
func (j *joiner) take() []shown {
	out := j.out
	j.out = nil
	slices.SortStableFunc(out, func(a, b shown) int { return cmp.Compare(a.mono, b.mono) })
	return out
}

// settle gives up waiting for the ends of walks: they were lost.
func (j *joiner) settle(all bool) {
	for cpu, b := range j.begun {
		if all || b.idle {
			j.out = append(j.out, b.shown)
			delete(j.begun, cpu)
			continue
		}
		b.idle = true
	}
}

// record takes one record of a CPU.
func (j *joiner) record(cpu int, raw []byte) {
	r, frame, ok := decodeCaptured(raw)
	if !ok {
		return
	}
	p := r.captured(cpu, frame)
	if r.Flags&captureCopy != 0 {
		j.out = append(j.out, p)
		return
	}
	b := j.begun[cpu]
	delete(j.begun, cpu)
	if p.Point == FromGuest || p.Point == FromUnderlay {
		if b != nil {
			j.out = append(j.out, b.shown)
		}
		j.begun[cpu] = &beginning{shown: p}
		return
	}
	if b != nil {
		if b.Walk == p.Walk {
			b.Verdict, b.ToPort, b.Out = p.Verdict, p.ToPort, p.Out
		}
		j.out = append(j.out, b.shown)
	}
	if r.Slots == 0 {
		return
	}
	if r.Quote == 0 {
		j.out = append(j.out, p)
		return
	}
	refused, answer := p, p
	answer.Point, answer.Error = ToGuest, true
	refused.Out = 0
	if b != nil && b.Walk == p.Walk {
		refused.Frame, refused.Length = b.Frame, b.Length
	} else {
		refused.Frame = append(bytes.Clone(r.Eth[:]), beyond(p.Frame, int(r.Quote))...)
	}
	j.out = append(j.out, refused, answer)
}

func beyond(b []byte, n int) []byte { return b[min(n, len(b)):] }

func decodeCaptured(raw []byte) (r captureEventRow, frame []byte, ok bool) {
	if _, err := binary.Decode(raw, binary.NativeEndian, &r); err != nil || r.Point > uint8(capturePoints) {
		return r, nil, false
	}
	if len(raw) < captureEventLen+int(r.Caplen) {
		return r, nil, false
	}
	return r, bytes.Clone(raw[captureEventLen : captureEventLen+int(r.Caplen)]), true
}

func (r captureEventRow) captured(cpu int, frame []byte) shown {
	p := Captured{Time: fromMonotonic(r.Time), Point: CapturePoint(r.Point), Verdict: model.Verdict(r.Verdict),
		Direction: Direction(r.Direction), Port: model.PortID(r.Port), ToPort: model.PortID(r.ToPort), VSID: model.VSID(r.VSID),
		IfIndex: r.IfIndex, Out: r.Out, Length: int(r.Length), Frame: frame, GSOSize: int(r.GSOSize), GSOSegs: int(r.GSOSegs),
		ChecksumPending: r.Flags&captureCsum != 0, VLANAside: r.Flags&captureVLAN != 0, Tag: r.Tag}
	if r.Walk != 0 {
		p.Walk = uint64(cpu)<<32 | uint64(r.Walk)
	}
	if r.Flags&captureDetour != 0 {
		p.Frame, p.Length = beyond(frame, dx2Outer), max(p.Length-dx2Outer, 0)
		if len(p.Frame) > 14 && p.Frame[14]>>4 == 4 { // the detour calls all of them IPv6
			binary.BigEndian.PutUint16(p.Frame[12:], 0x0800)
		}
	}
	if p.Point == FromUnderlay || p.Point == Dropped {
		p.Inner = int(r.Base)
	}
	p.Stripped = p.Point == FromUnderlay && r.Flags&captureXDP != 0
	p.NoLinkLayer = p.Point == ToUnderlay && r.Flags&captureBare == 0
	return shown{p, r.Slots, r.Time}
}
