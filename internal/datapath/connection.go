package datapath

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// The tables of bpf/maps/connection.h.
const (
	connWays      = 12
	connHalf      = 4 // of them are for what is half open
	connInbound   = 1 // the direction that opened it
	connUsed      = 1 << 63
	connFragment  = 1 << 62
	connIs6       = 1 << 60
	connSlack     = 1 << 27 // ns
	fewestBuckets = 16      // 13 KB; for the fragments of a port whose rules are not stateful
	mostBuckets   = 1 << 14
)

// DefaultConnections and MaxConnections bound what is followed of one port.
const (
	DefaultConnections = 2048
	MaxConnections     = mostBuckets * (connWays - connHalf) / 2
)

type connectionRow struct {
	Key           [5]uint64
	Seen          uint64
	Rule, Version uint32
	Idle          uint16
	State         uint8    // connInbound and others
	Others        [5]uint8 // numbers of rules that count it beside
}

type connectionBucket struct {
	Busy uint32
	Zero [3]uint32
	Tag  [connWays]uint32
	Way  [connWays]connectionRow
}

type connPortRow struct {
	Buckets, Limit uint32    // Limit is table.Port's, and stands for it without a table, too
	Lost           [2]uint64 // half open, confirmed
}

type connSecretRow struct {
	Factor [6]uint64
	Now    uint64
}

// Connection is what the switch remembers of packets that the rules of a port allowed.
type Connection struct {
	Local, Remote         netip.Addr // local is the guest
	Protocol              uint8
	LocalPort, RemotePort uint16        // of TCP and UDP; the identifier of an echo is the local port
	Inbound               bool          // who opened it
	Confirmed             bool          // the opener has sent again after an answer
	Quiet, Timeout        time.Duration // since the last packet, to an eighth of a second, and how long it may be
	Rule                  model.RuleID  // that opened it; zero if Stale
	Stale                 bool          // the port's rules have changed since: its next packet is judged again
}

// ConnectionCount says how many connections of a port are followed.
type ConnectionCount struct {
	HalfOpen, Confirmed         int
	LostHalfOpen, LostConfirmed uint64 // that gave way to others though they were not idle for too long
	Limit                       int    // of confirmed ones; buckets are hashed, and a few are lost before
}

// bucketsFor is how many buckets a port has. At its limit half of the ways are in use, so that less than one in
// a hundred finds its bucket full.
func bucketsFor(p table.Port, stateful func(table.RuleSetKey) bool) uint32 {
	if p.Inbound == (table.RuleSetKey{}) && p.Outbound == (table.RuleSetKey{}) {
		return 0
	}
	if !stateful(p.Inbound) && !stateful(p.Outbound) {
		return fewestBuckets
	}
	limit := p.Connections
	if limit == 0 {
		limit = DefaultConnections
	}
	return 1 << bits.Len32(max(fewestBuckets, min(limit, MaxConnections)*2/(connWays-connHalf))-1)
}

func hasStateful(set *table.RuleSet) bool {
	return set != nil && slices.ContainsFunc(set.Sections, func(s table.Section) bool {
		return !s.Audit && slices.ContainsFunc(s.Rules, func(r table.Rule) bool { return r.Stateful })
	})
}

// rulesVersion changes with the rule sets of a port: keys are made of what they say. With the numbers of their rules, which
// connections remember, and which are others where a set has been away for a while. And with the port, so that what
// a packet notes late, when its port's slot is another's already, means nothing there.
func (x *ruleStore) rulesVersion(p table.Port) uint32 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%x %x %d %x %x", p.Outbound, p.Inbound, p.ID, x.regions[p.Outbound].numbering, x.regions[p.Inbound].numbering))
	return binary.NativeEndian.Uint32(sum[:])
}

// mendVersion is for rows of ports that an older release has written: it reckoned their version otherwise.
func (s *Switch) mendVersion(ifindex uint32, p table.Port) error {
	var row portRow
	if err := s.maps["port"].Lookup(ifindex, &row); err != nil {
		return err
	}
	version := s.rules.rulesVersion(p)
	if row.Version == version {
		return nil
	}
	row.Version = version
	return s.maps["port"].Put(ifindex, row)
}

func (s *Switch) mendVLANVersion(ifindex uint32, p table.VLANPort) error {
	var row vlanPortRow
	if err := s.maps["vlan_port"].Lookup(ifindex, &row); err != nil {
		return err
	}
	version := s.rules.rulesVersion(p.Port)
	if row.Port.Version == version {
		return nil
	}
	row.Port.Version = version
	return s.maps["vlan_port"].Put(ifindex, row)
}

// dropConnections takes the tables away of ports that will not be what they are.
func (s *Switch) dropConnections(want table.Set, sweep bool) error {
	ids := map[uint32]model.PortID{}
	for ifindex, p := range allPorts(want) {
		ids[ifindex] = p.ID
	}
	gone := map[uint32]uint32{}
	for ifindex, was := range allPorts(s.have) {
		id, ok := ids[ifindex]
		if slot := s.slots[ifindex]; s.connections[slot] != 0 && (!ok && sweep || ok && id != was.ID) {
			gone[slot] = 0
		}
	}
	return s.setConnections(gone)
}

// putLimit writes down how many connections policy wants to be followed. Another limit is another table, mostly, whose counts begin anew.
func (s *Switch) putLimit(slot uint32, p table.Port) error {
	var row connPortRow
	err := s.maps["conn_port"].Lookup(slot, &row)
	if err == nil && row.Limit != p.Connections {
		row.Limit = p.Connections
		err = s.maps["conn_port"].Put(slot, row)
	}
	if err != nil {
		return fmt.Errorf("limit of connections: %w", err)
	}
	return nil
}

// putConnections gives each port the table that its rules need. One of another size starts anew.
func (s *Switch) putConnections() error {
	known := map[table.RuleSetKey]bool{}
	stateful := func(key table.RuleSetKey) bool {
		is, ok := known[key]
		if !ok {
			is = hasStateful(s.have.RuleSets[key])
			known[key] = is
		}
		return is
	}
	var errs []error
	tables := map[uint32]uint32{}
	for ifindex, p := range allPorts(s.have) {
		slot := s.slots[ifindex]
		buckets, has := bucketsFor(p, stateful), s.connections[slot]
		if buckets == has || buckets == fewestBuckets && has != 0 {
			continue // what rules opened that were stateful is judged by those that are not
		}
		if adopted, err := s.adopt(ifindex, p, buckets); err != nil || adopted {
			errs = append(errs, err)
			continue
		}
		tables[slot] = buckets
	}
	return errors.Join(append(errs, s.setConnections(tables))...)
}

// setConnections gives slots tables of so many buckets, or none, and tables that are empty. It sets many at
// once: after each the kernel waits until no program runs that may have seen the one before.
func (s *Switch) setConnections(tables map[uint32]uint32) error {
	var (
		errs  []error
		mu    sync.Mutex
		wg    sync.WaitGroup
		limit = make(chan struct{}, 32)
	)
	for slot, buckets := range tables {
		limit <- struct{}{}
		mu.Lock()
		was := s.connections[slot]
		mu.Unlock()
		wg.Go(func() {
			err := s.setTable(slot, was, buckets)
			<-limit
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				errs = append(errs, fmt.Errorf("connections of slot %d: %w", slot, err))
			case buckets == 0:
				delete(s.connections, slot)
			default:
				s.connections[slot] = buckets
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (s *Switch) setTable(slot, was, buckets uint32) error {
	putSize := func() error {
		var row connPortRow
		err := s.maps["conn_port"].Lookup(slot, &row)
		return errors.Join(err, s.maps["conn_port"].Put(slot, connPortRow{Buckets: buckets, Limit: row.Limit}))
	}
	if buckets == 0 {
		if err := ignoreMissing(s.maps["connection"].Delete(slot)); err != nil {
			return err
		}
		return putSize()
	}
	if buckets == was {
		return errors.Join(s.emptyTable(slot), putSize())
	}
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "conn_table", Type: ebpf.Array, Flags: unix.BPF_F_INNER_MAP, KeySize: 4,
		ValueSize: uint32(binary.Size(connectionBucket{})), MaxEntries: buckets})
	if err != nil {
		return err
	}
	defer m.Close()
	// A program that runs meanwhile must not look behind the end of the smaller one.
	if buckets < was {
		if err := putSize(); err != nil {
			return err
		}
		return s.maps["connection"].Put(slot, m)
	}
	if err := s.maps["connection"].Put(slot, m); err != nil {
		return err
	}
	return putSize()
}

func (s *Switch) emptyTable(slot uint32) error {
	var m *ebpf.Map
	if err := s.maps["connection"].Lookup(slot, &m); err != nil {
		return err
	}
	defer m.Close()
	return blank("connection", m)
}

// recallConnections learns which slots have tables, and takes those of nobody away.
func (s *Switch) recallConnections() error {
	s.connections = map[uint32]uint32{}
	used := map[uint32]bool{}
	for _, slot := range s.slots {
		used[slot] = true
	}
	stale := map[uint32]uint32{}
	err := readAll(s.maps["conn_port"], func(slot uint32, row connPortRow) error {
		if row.Buckets == 0 {
			return nil
		}
		s.connections[slot] = row.Buckets
		if !used[slot] {
			stale[slot] = 0
		}
		return nil
	})
	return errors.Join(err, s.setConnections(stale), s.keepSecret())
}

// keepSecret makes up by what connections are hashed, once: pinned tables outlive the process.
func (s *Switch) keepSecret() error {
	var row connSecretRow
	if err := s.maps["conn_secret"].Lookup(uint32(0), &row); err != nil || row.Factor[0] != 0 {
		return err
	}
	if err := binary.Read(rand.Reader, binary.NativeEndian, &row.Factor); err != nil {
		return err
	}
	for i := range row.Factor {
		row.Factor[i] |= 1
	}
	return s.maps["conn_secret"].Put(uint32(0), row)
}

// copyTables lets a map of maps have the tables of another one.
func copyTables(from, to *ebpf.Map) error {
	for slot := range min(from.MaxEntries(), to.MaxEntries()) {
		var m *ebpf.Map
		if err := from.Lookup(slot, &m); errors.Is(err, ebpf.ErrKeyNotExist) {
			continue
		} else if err != nil {
			return err
		}
		err := to.Put(slot, m)
		m.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Connections lists what is followed of a port, and counts it; false: nothing is.
func (s *Switch) Connections(id model.PortID) ([]Connection, ConnectionCount, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ifindex, p := range allPorts(s.have) {
		if p.ID == id {
			all, n, err := s.connectionsAt(s.slots[ifindex], p)
			return all, n, s.connections[s.slots[ifindex]] != 0, err
		}
	}
	return nil, ConnectionCount{}, false, nil
}

func (s *Switch) connectionsAt(slot uint32, p table.Port) ([]Connection, ConnectionCount, error) {
	buckets := s.connections[slot]
	if buckets == 0 {
		return nil, ConnectionCount{}, nil
	}
	var row connPortRow
	var m *ebpf.Map
	if err := errors.Join(s.maps["conn_port"].Lookup(slot, &row), s.maps["connection"].Lookup(slot, &m)); err != nil {
		return nil, ConnectionCount{}, err
	}
	defer m.Close()
	now, err := s.connectionNow()
	if err != nil {
		return nil, ConnectionCount{}, err
	}
	n := ConnectionCount{LostHalfOpen: row.Lost[0], LostConfirmed: row.Lost[1], Limit: int(buckets) * (connWays - connHalf) / 2}
	var all []Connection
	openers := map[uint32]bool{}
	for _, key := range []table.RuleSetKey{p.Inbound, p.Outbound} {
		for _, number := range s.rules.regions[key].numbers {
			openers[number] = true
		}
	}
	version := s.rules.rulesVersion(p)
	err = readAll(m, func(_ uint32, b connectionBucket) error {
		for i, tag := range b.Tag {
			c, ok := decodeConnection(b.Way[i], now)
			if tag == 0 || !ok {
				continue
			}
			if c.Confirmed = i >= connHalf; c.Confirmed {
				n.Confirmed++
			} else {
				n.HalfOpen++
			}
			rule := b.Way[i].Rule
			if c.Stale = b.Way[i].Version != version; !c.Stale && openers[rule] { // else the number may be another's by now
				c.Rule = s.rules.id[rule]
			}
			all = append(all, c)
		}
		return nil
	})
	return all, n, err
}

// decodeConnection leaves out fragments and what has been idle for too long.
func decodeConnection(r connectionRow, now uint64) (Connection, bool) {
	w := r.Key[4]
	c := Connection{Protocol: uint8(w >> 32), LocalPort: uint16(w >> 16), RemotePort: uint16(w), Inbound: r.State&connInbound != 0,
		Quiet: time.Duration(now - r.Seen), Timeout: time.Duration(r.Idle) * time.Second}
	c.Local, c.Remote = connectionAddr(r.Key[0:2], w&connIs6 != 0), connectionAddr(r.Key[2:4], w&connIs6 != 0)
	return c, w&connFragment == 0 && c.Quiet <= c.Timeout+connSlack
}

func connectionAddr(w []uint64, is6 bool) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], w[0])
	binary.BigEndian.PutUint64(b[8:], w[1])
	if !is6 {
		return netip.AddrFrom4([4]byte(b[12:]))
	}
	return netip.AddrFrom16(b)
}

// connectionNow is the clock of the programs.
func (s *Switch) connectionNow() (uint64, error) {
	var row connSecretRow
	if err := s.maps["conn_secret"].Lookup(uint32(0), &row); err != nil || row.Now != 0 {
		return row.Now, err
	}
	var t unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &t)
	return uint64(t.Nano()), err
}

// SetClock makes it some time of day for connections, for a Switch that rehearses: now counts from any
// moment in the past and is not 0.
func (s *Switch) SetClock(now time.Duration) error {
	if !s.opts.Rehearse {
		return errors.New("set clock: only where programs rehearse")
	}
	var row connSecretRow
	if err := s.maps["conn_secret"].Lookup(uint32(0), &row); err != nil {
		return err
	}
	row.Now = uint64(now)
	return s.maps["conn_secret"].Put(uint32(0), row)
}

// ForgetConnections ends all connections: what has no rule that allows it is denied from now on. It is for
// tests: no packet may be under way.
func (s *Switch) ForgetConnections() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.turning(func() error { return s.setConnections(maps.Clone(s.connections)) })
}
