package datapath

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"

	"github.com/weft-sdn/weft/internal/table"
)

// layout numbers the meaning of the maps' bytes. A map of another layout is
// never taken over: raise it with every change of a key or a value in bpf/maps.
const layout = 8

const (
	maxUplinks  = 256
	maxLocalPAs = 256

	maxForwarders = 1 << 14
)

// Switch is a loaded switch. Its methods may be called from several goroutines.
type Switch struct {
	opts     Options
	log      *slog.Logger
	programs map[string]*ebpf.Program
	maps     map[string]*ebpf.Map
	gre      bool // the kernel has adjRoomDecapL4GRE and adjRoomDecapL4UDP
	trace    tracer
	capture  capturer

	mu    sync.Mutex
	have  table.Set         // what the maps hold
	slots map[uint32]uint32 // of ports, by ifindex
	free  []uint32          // slots
	own   map[uint32]ownRow // what the map own holds, by ifindex
	peers peerIndex
	paths pathBlocks
	rules ruleStore
	// connections are the buckets of the tables that slots have.
	connections map[uint32]uint32
	inherited   map[uint32]inherited // by ifindex, until the first Apply after a change of layout
	listed      map[netip.Addr]int   // how many rows of `source` each peer has
	links       map[linkName]link.Link
	stale       map[localMACKey]struct{} // rows of local_mac that could not be written
	noXDP       map[uint32]bool          // uplinks whose device has none, as was said once
	whole       bool                     // the maps hold all that those of before did
	behind      bool                     // pinned links still run older programs over older maps
	made        []string                 // maps that are not pinned yet
}

// Open loads the switch. With a PinDir it takes over the pinned maps and links of
// an earlier process: programs in use are replaced atomically, and where a map's
// layout has changed only after the first Apply has filled the new one.
func Open(o Options) (*Switch, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, fmt.Errorf("open switch: %w", err)
	}
	s := &Switch{opts: o, log: o.Logger, links: map[linkName]link.Link{},
		stale: map[localMACKey]struct{}{}, noXDP: map[uint32]bool{}}
	if s.gre, err = probeDecapL4(); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		closeAll(s.maps)
		return nil, fmt.Errorf("load switch: %w", err)
	}
	if err := s.takeOver(); err != nil {
		s.Close()
		return nil, fmt.Errorf("take over the running switch: %w", err)
	}
	return s, nil
}

func (o Options) withDefaults() (Options, error) {
	for _, d := range []struct {
		name           string
		v              *uint32
		standard, most uint32
	}{
		{"MaxPorts", &o.MaxPorts, 4096, 1 << 20},
		{"MaxRecords", &o.MaxRecords, 1 << 18, 1 << 22},
		{"MaxRoutes", &o.MaxRoutes, 1 << 16, 1 << 22},
		{"MaxPeers", &o.MaxPeers, 1 << 14, 1 << 20},
	} {
		if *d.v == 0 {
			*d.v = d.standard
		}
		if *d.v > d.most {
			return o, fmt.Errorf("datapath: %s is %d, at most %d can be", d.name, *d.v, d.most)
		}
	}
	switch o.Decap {
	case "":
		o.Decap = DecapAuto
	case DecapAuto, DecapTCX, DecapDX2, DecapXDP, DecapVeth, DecapVXLAN:
	default:
		return o, fmt.Errorf("datapath: Decap is %q, must be auto, tcx, dx2, xdp, veth or vxlan", o.Decap)
	}
	if o.Recycle && o.PinDir != "" {
		return o, errors.New("datapath: Recycle and PinDir: what is pinned is another process's, too")
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// load makes programs and maps, the maps from their pins where they fit.
func (s *Switch) load() error {
	if found, err := s.takeRecycled(); err != nil {
		return err
	} else if found {
		return s.fillDrops()
	}
	spec, err := s.spec()
	if err != nil {
		return err
	}
	pinned, err := s.pinnedMaps(spec)
	if err != nil {
		return err
	}
	defer closeAll(pinned)
	if err := s.loadMaps(spec, pinned); err != nil {
		return err
	}
	if s.whole, err = s.migrate(); err != nil { // before the verifier takes its time
		return err
	}
	for _, name := range floodPrograms { // loadFlooding loads them
		delete(spec.Programs, name)
	}
	if s.programs, err = loadPrograms(spec, s.maps); err != nil {
		return err
	}
	return s.fillDrops()
}

// loadMaps makes the maps that are not pinned.
func (s *Switch) loadMaps(spec *ebpf.CollectionSpec, pinned map[string]*ebpf.Map) error {
	only := spec.Copy()
	clear(only.Programs)
	c, err := ebpf.NewCollectionWithOptions(only, ebpf.CollectionOptions{MapReplacements: pinned})
	if err != nil {
		return err
	}
	s.maps = c.Maps
	for name := range spec.Maps {
		if _, ok := pinned[name]; !ok && pinnable(name) {
			s.made = append(s.made, name)
		}
	}
	return nil
}

// loadPrograms loads the programs of spec over tables, several at once: it is the verifier
// that takes the time, and it uses one processor for each.
func loadPrograms(spec *ebpf.CollectionSpec, tables map[string]*ebpf.Map) (map[string]*ebpf.Program, error) {
	var (
		out  = map[string]*ebpf.Program{}
		errs []error
		mu   sync.Mutex
		wg   sync.WaitGroup
	)
	for name := range spec.Programs {
		wg.Go(func() {
			p, err := loadProgram(spec, name, tables)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, err)
				return
			}
			out[name] = p
		})
	}
	wg.Wait()
	if len(errs) == 0 {
		return out, nil
	}
	for _, p := range out {
		p.Close()
	}
	return nil, errors.Join(errs...)
}

func loadProgram(spec *ebpf.CollectionSpec, name string, tables map[string]*ebpf.Map) (*ebpf.Program, error) {
	only := spec.Copy()
	only.Programs = map[string]*ebpf.ProgramSpec{name: only.Programs[name]}
	c, err := ebpf.NewCollectionWithOptions(only, ebpf.CollectionOptions{MapReplacements: tables})
	var refused *ebpf.VerifierError
	if errors.As(err, &refused) {
		return nil, fmt.Errorf("%w: %+v", err, refused)
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.DetachProgram(name), nil
}

// spec is the committed object with sizes and settings filled in.
func (s *Switch) spec() (*ebpf.CollectionSpec, error) {
	spec, err := loadVswitch()
	if err != nil {
		return nil, err
	}
	for name, n := range map[string]uint32{
		"port": s.opts.MaxPorts, "local_mac": s.opts.MaxPorts, "traffic": s.opts.MaxPorts, "own": s.opts.MaxPorts,
		"isolation": s.opts.MaxRecords, "rewrite_in": s.opts.MaxRecords, "rewrite_out": s.opts.MaxRecords,
		"record": s.opts.MaxRecords, "route": s.opts.MaxRoutes, "peer": s.opts.MaxPeers + 1,
		"drop": uint32(dropRows(s.opts.MaxPorts)), "uplink": maxUplinks, "vlan_port": s.opts.MaxPorts, "vlan_mac": s.opts.MaxPorts, "vlan_member": maxUplinks, "local_pa": maxLocalPAs,
		"connection": s.opts.MaxPorts, "conn_port": s.opts.MaxPorts,
		"flood": s.opts.MaxPorts, "storm": s.opts.MaxPorts, "learn_pace": 2 * s.opts.MaxPorts, "flow_pace": s.opts.MaxPorts,
		"shape": 2 * s.opts.MaxPorts, "share": s.opts.MaxPorts, "mirror": table.MaxMirrors * s.opts.MaxPorts, "mirror_from": table.MaxMirrors * s.opts.MaxPorts,
		"path": s.maxBlocks() * pathBlock, "source": s.maxSources(),
	} {
		spec.Maps[name].MaxEntries = n
	}
	if s.opts.Rehearse {
		if err := rehearse(spec); err != nil {
			return nil, err
		}
	}
	if !s.gre {
		return spec, nil
	}
	for name, flag := range map[string]uint64{"decap_nvgre": adjRoomDecapL4GRE, "decap_vxlan": adjRoomDecapL4UDP} {
		if err := spec.Variables[name].Set(flag); err != nil {
			return nil, err
		}
	}
	return spec, nil
}

// rehearse makes the programs record what they would send to many.
func rehearse(spec *ebpf.CollectionSpec) error {
	spec.Maps["copy"].MaxEntries = maxCopies
	return spec.Variables["rehearse"].Set(uint8(1))
}

// pinnable: settings belong to the programs and are made anew with them, as is what these know of flows, and captures
// end with the process.
func pinnable(name string) bool {
	return !ofPrograms(name) && !ofFlows(name) && !strings.HasPrefix(name, "capture")
}

// ofPrograms tells the maps that each set of programs has its own of.
func ofPrograms(name string) bool { return name[0] == '.' }

func (s *Switch) mapDir() string { return filepath.Join(s.opts.PinDir, fmt.Sprintf("maps-%d", layout)) }

// pinnedMaps opens the pinned maps that the programs can go on using.
func (s *Switch) pinnedMaps(spec *ebpf.CollectionSpec) (map[string]*ebpf.Map, error) {
	found := map[string]*ebpf.Map{}
	if s.opts.PinDir == "" {
		return found, nil
	}
	for name, want := range spec.Maps {
		if !pinnable(name) {
			continue
		}
		m, err := ebpf.LoadPinnedMap(filepath.Join(s.mapDir(), name), nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			closeAll(found)
			return nil, fmt.Errorf("open pinned map %s: %w", name, err)
		}
		if want.Compatible(m) != nil {
			m.Close()
			continue
		}
		found[name] = m
	}
	return found, nil
}

func closeAll(maps map[string]*ebpf.Map) {
	for _, m := range maps {
		m.Close()
	}
}

// takeOver fills new maps from old ones, learns what the maps hold, and puts the
// new programs in the place of the old ones.
func (s *Switch) takeOver() error {
	if err := s.turning(s.recall); err != nil {
		return err
	}
	if len(s.have.Floods) > 0 {
		if err := s.loadFlooding(); err != nil {
			return err
		}
	}
	if s.opts.PinDir == "" {
		return fillTails(s.programs, s.maps)
	}
	if err := s.loadLinks(); err != nil {
		return err
	}
	if s.behind = !s.whole && len(s.links) > 0; s.behind {
		s.log.Info("the maps have a new layout; the old programs run until policy is applied")
		return s.inherit()
	}
	return s.commit()
}

// migrate copies the rows of pinned maps whose size alone has changed. It reports
// whether the new maps now hold all that the old ones did.
func (s *Switch) migrate() (bool, error) {
	if s.opts.PinDir == "" {
		return true, nil
	}
	whole := true
	slices.Sort(s.made) // so that what does not fit is always called the same
	for _, name := range s.made {
		old, err := ebpf.LoadPinnedMap(filepath.Join(s.mapDir(), name), nil)
		if errors.Is(err, fs.ErrNotExist) {
			whole = false
			continue
		}
		if err != nil {
			return false, fmt.Errorf("open pinned map %s: %w", name, err)
		}
		if err = s.roomFor(name, old); err == nil {
			err = copyRows(old, s.maps[name])
		}
		old.Close()
		if err != nil {
			return false, fmt.Errorf("move the rows of %s into a map of another size: %w", name, err)
		}
	}
	return whole, nil
}

// copyRows copies every row; both maps have the same layout.
func copyRows(from, to *ebpf.Map) error {
	if from.Type() != to.Type() || from.KeySize() != to.KeySize() || from.ValueSize() != to.ValueSize() {
		return errors.New("layouts differ; remove the pins")
	}
	switch from.Type() {
	case ebpf.RingBuf, ebpf.ProgramArray:
		return nil
	case ebpf.ArrayOfMaps:
		return copyTables(from, to)
	case ebpf.PerCPUArray: // of another size: only the counters can be
		return copyCounters(from, to)
	}
	return walk(from, func(k, v []byte) error {
		if from.Type() == ebpf.Array && allZero(v) {
			return nil
		}
		return to.Put(k, v)
	})
}

func copyCounters(from, to *ebpf.Map) error {
	for slot := range min(from.MaxEntries(), to.MaxEntries()) {
		var cpus []trafficRow
		if err := from.Lookup(slot, &cpus); err != nil {
			return err
		}
		if err := to.Put(slot, cpus); err != nil {
			return err
		}
	}
	return nil
}

func allZero(b []byte) bool {
	for _, x := range b {
		if x != 0 {
			return false
		}
	}
	return true
}

// Relearn is for when somebody else has written into the maps: the next Apply
// starts from what they hold now.
func (s *Switch) Relearn() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.turning(s.recall)
}

// recall learns from the maps what they hold, indices and slots included.
func (s *Switch) recall() error {
	held, err := readSet(s.maps)
	if err != nil {
		return err
	}
	held.set.RuleSets = s.have.RuleSets
	if held.set.RuleSets == nil {
		held.set.RuleSets = map[table.RuleSetKey]*table.RuleSet{}
	}
	s.have, s.slots, s.peers = held.set, held.slots, newPeerIndex(s.opts.MaxPeers, held.peers)
	if err := s.recallRules(held.rules); err != nil {
		return err
	}
	s.paths, s.listed = newPathBlocks(s.maxBlocks(), held.paths), map[netip.Addr]int{}
	for k := range held.set.Sources {
		s.listed[k.Peer]++
		s.peers.hold(k.Peer)
	}
	used := make(map[uint32]bool, len(held.slots))
	for _, slot := range held.slots {
		used[slot] = true
	}
	s.free = s.free[:0]
	clear(s.stale) // mend writes them all
	for slot := s.opts.MaxPorts; slot > 0; slot-- {
		if !used[slot-1] {
			s.free = append(s.free, slot-1)
		}
	}
	for _, r := range held.set.Records {
		s.peers.hold(r.PA)
	}
	for pa := range held.set.Peers {
		s.peers.hold(pa)
	}
	for _, f := range held.set.Floods {
		s.peers.hold(f.Group)
	}
	for m := range held.set.Members {
		s.peers.hold(m.PA)
	}
	return errors.Join(s.mend(held), s.recallOwn(), s.recallConnections(), s.chooseFirstPAs())
}

// commit makes the new programs and maps the pinned ones.
func (s *Switch) commit() error {
	if err := fillTails(s.programs, s.maps); err != nil {
		return err
	}
	if err := s.updateLinks(); err != nil {
		return err
	}
	if err := os.MkdirAll(s.mapDir(), 0o700); err != nil {
		return fmt.Errorf("make pin directory: %w (is a bpffs mounted there?)", err)
	}
	for _, name := range s.made {
		if err := replacePin(s.maps[name], filepath.Join(s.mapDir(), name)); err != nil {
			return fmt.Errorf("pin map %s: %w", name, err)
		}
	}
	s.made, s.behind = nil, false
	s.disinherit()
	return s.removeOldMaps()
}

// replacePin puts m where another map may be pinned, atomically.
func replacePin(m *ebpf.Map, path string) error {
	next := path + "_new" // a bpffs takes no dots
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := m.Pin(next); err != nil {
		return err
	}
	return os.Rename(next, path)
}

// removeOldMaps unpins the maps of other layouts; nothing uses them any more.
func (s *Switch) removeOldMaps() error {
	dirs, err := filepath.Glob(filepath.Join(s.opts.PinDir, "maps-*"))
	for _, d := range dirs {
		if d != s.mapDir() {
			err = errors.Join(err, os.RemoveAll(d))
		}
	}
	return err
}

// Close lets go of the switch. What is pinned stays and keeps forwarding; what is
// not is detached.
func (s *Switch) Close() error {
	err := s.closeCaptures()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.disinherit()
	for _, n := range slices.SortedFunc(maps.Keys(s.links), detachOrder) {
		err = errors.Join(err, s.links[n].Close())
	}
	clear(s.links)
	s.trace.close()
	if s.opts.Recycle && err == nil {
		s.leave()
	}
	for _, p := range s.programs {
		err = errors.Join(err, p.Close())
	}
	for _, m := range s.maps {
		err = errors.Join(err, m.Close())
	}
	return err
}

// Remove detaches and unpins everything under pinDir, and the directory itself.
func Remove(pinDir string) error {
	files, err := os.ReadDir(filepath.Join(pinDir, "links"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var names []linkName
	for _, f := range files {
		if n, ok := parseLinkName(f.Name()); ok {
			names = append(names, n)
		}
	}
	slices.SortFunc(names, detachOrder)
	for _, n := range names { // a link's last reference is its pin
		if err := os.Remove(filepath.Join(pinDir, "links", n.String())); err != nil {
			return fmt.Errorf("unpin: %w", err)
		}
	}
	if err := os.RemoveAll(pinDir); err != nil {
		return fmt.Errorf("unpin: %w", err)
	}
	return nil
}

// peerIndex gives Provider Addresses the dense numbers that records carry. A
// number is given back when the last record and the peer itself are gone.
type peerIndex struct {
	of   map[netip.Addr]uint32
	refs map[netip.Addr]int
	free []uint32
}

func newPeerIndex(most uint32, held map[netip.Addr]uint32) peerIndex {
	x := peerIndex{of: held, refs: map[netip.Addr]int{}}
	used := make(map[uint32]bool, len(held))
	for _, i := range held {
		used[i] = true
	}
	for i := most; i > 0; i-- {
		if !used[i] {
			x.free = append(x.free, i)
		}
	}
	return x
}

// hold counts one more row that names pa.
func (x *peerIndex) hold(pa netip.Addr) {
	if pa.IsValid() {
		x.refs[pa]++
	}
}

// drop counts one row less.
func (x *peerIndex) drop(pa netip.Addr) {
	if pa.IsValid() {
		x.refs[pa]--
	}
}

// index gives pa a number, the same as long as somebody holds it.
func (x *peerIndex) index(pa netip.Addr) (idx uint32, fresh bool, err error) {
	if !pa.IsValid() {
		return 0, false, nil
	}
	if i, ok := x.of[pa]; ok {
		return i, false, nil
	}
	if len(x.free) == 0 {
		return 0, false, errors.New("no peer index is left")
	}
	i := x.free[len(x.free)-1]
	x.free = x.free[:len(x.free)-1]
	x.of[pa] = i
	return i, true, nil
}

// unused lists the addresses that nobody holds.
func (x *peerIndex) unused() []netip.Addr {
	var out []netip.Addr
	for pa := range x.of {
		if x.refs[pa] <= 0 {
			out = append(out, pa)
		}
	}
	return out
}

func (x *peerIndex) release(pa netip.Addr) {
	x.free = append(x.free, x.of[pa])
	delete(x.of, pa)
	delete(x.refs, pa)
}
