package datapath

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/classify"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// RuleHits says how often one rule matched on this host since a set has it.
type RuleHits struct {
	Packets uint64 // a GSO packet counts once
	Bytes   uint64 // of the frames as they came
}

// ErrRules says that a rule set cannot be had; its ports keep the one they have.
type ErrRules struct {
	Key   table.RuleSetKey
	Ports []model.PortID
	Err   error
}

func (e *ErrRules) Error() string {
	return fmt.Sprintf("rule set %x: %v; its ports keep the rules they have, and new ones stay down", e.Key[:4], e.Err)
}

func (e *ErrRules) Unwrap() error { return e.Err }

const (
	blockBytes   = classify.BlockWords * 8
	ruleHashSize = 16

	membarrierGlobal = 1 // MEMBARRIER_CMD_GLOBAL: an RCU grace period
)

// extent is some blocks of the map `rule`.
type extent struct{ at, n uint32 }

// region is where a rule set is.
type region struct {
	extent
	numbers   []uint32          // of its rules' counters, each once
	numbering uint32            // changes with them
	sum       [sha256.Size]byte // of its tables
	proved    bool              // they are what the set says, and not only what an earlier process left
}

// ruleStore knows what is where in `rule`, and which number each rule has.
type ruleStore struct {
	regions map[table.RuleSetKey]region
	free    []extent // in order, never adjacent
	grave   []extent // no row leads there any more, but a program may still be there
	leaving []extent // rows may still lead there
	number  map[[ruleHashSize]byte]uint32
	hash    map[uint32][ruleHashSize]byte // number backwards
	id      map[uint32]model.RuleID
	refs    map[uint32]int // regions that have a rule
	unused  []uint32       // numbers
}

func ruleHash(id model.RuleID) [ruleHashSize]byte {
	sum := sha256.Sum256([]byte(id.List.Tenant + "\x00" + id.List.Name + "\x00" + id.Rule))
	return [ruleHashSize]byte(sum[:ruleHashSize])
}

// block is where a port's rule set begins; 0: it has none.
func (x *ruleStore) block(key table.RuleSetKey) uint32 { return x.regions[key].at }

// putRuleSets writes the sets that ports want and the map has not. Nothing refers to them yet; ports whose set
// is elsewhere now are to be written, too.
func (s *Switch) putRuleSets(want table.Set, d *delta) []error {
	users := map[table.RuleSetKey][]model.PortID{}
	for _, p := range allPorts(want) {
		for _, key := range []table.RuleSetKey{p.Inbound, p.Outbound} {
			if key != (table.RuleSetKey{}) {
				users[key] = append(users[key], p.ID)
			}
		}
	}
	var errs []error
	for _, key := range slices.SortedFunc(maps.Keys(users), compareKeys) {
		if s.rules.regions[key].proved {
			continue
		}
		set, ok := want.RuleSets[key]
		before, was := s.rules.regions[key]
		if !ok && was {
			continue // of an earlier process, and nobody says more of it yet
		}
		err := fmt.Errorf("no such set")
		if ok {
			err = s.putRuleSet(key, set)
		}
		if err != nil {
			errs = append(errs, &ErrRules{key, users[key], err})
			continue
		}
		if was && s.rules.regions[key].at != before.at {
			d.moved(want, key)
		}
	}
	return errs
}

// moved has the ports with a set written again.
func (d *delta) moved(want table.Set, key table.RuleSetKey) {
	for ifindex, p := range allPorts(want) {
		put := &d.putPorts
		if _, vlan := want.VLANPorts[ifindex]; vlan {
			put = &d.putVLANPorts
		}
		if (p.Inbound == key || p.Outbound == key) && !slices.Contains(*put, ifindex) {
			*put = append(*put, ifindex)
		}
	}
}

// allPorts are the ports of both switches, by device.
func allPorts(s table.Set) iter.Seq2[uint32, table.Port] {
	return func(yield func(uint32, table.Port) bool) {
		for ifindex, p := range s.Ports {
			if !yield(ifindex, p) {
				return
			}
		}
		for ifindex, p := range s.VLANPorts {
			if !yield(ifindex, p.Port) {
				return
			}
		}
	}
}

func compareKeys(a, b table.RuleSetKey) int { return slices.Compare(a[:], b[:]) }

func (s *Switch) putRuleSet(key table.RuleSetKey, set *table.RuleSet) error {
	t, err := classify.Compile(*set)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(wordBytes(t.Words))
	if old, ok := s.rules.regions[key]; ok { // of an earlier process
		if old.sum == sum {
			old.proved = true
			s.rules.regions[key] = old
			s.have.RuleSets[key] = set
			s.rules.nameRules(t, set)
			return nil
		}
		s.log.Warn("a rule set is not what its key says: it is written anew", "set", fmt.Sprintf("%x", key))
		s.rules.release(old)
		s.rules.leaving = append(s.rules.leaving, old.extent)
		delete(s.rules.regions, key)
	}
	r := region{sum: sum, proved: true}
	r.extent, err = s.rules.room(uint32(len(t.Words) / classify.BlockWords))
	if err != nil {
		return err
	}
	fresh, err := s.rules.take(t, set, &r)
	r.numbering = numberingOf(r.numbers)
	if err == nil {
		err = s.writeRules(key, t, set, r, fresh)
	}
	if err != nil {
		s.rules.release(r)
		s.rules.free = append(s.rules.free, r.extent)
		s.rules.merge()
		return err
	}
	s.rules.regions[key] = r
	s.have.RuleSets[key] = set
	return nil
}

// writeRules writes counters that begin with zero, and then the tables.
func (s *Switch) writeRules(key table.RuleSetKey, t *classify.Tables, set *table.RuleSet, r region, fresh []uint32) error {
	if err := s.forgetDeniedBy(fresh); err != nil { // what a packet noted late, when the number was another's already
		return fmt.Errorf("clear the drops of rules: %w", err)
	}
	zero := make([]ruleHitRow, ebpf.MustPossibleCPU())
	for _, n := range fresh {
		if err := s.maps["rule_hit"].Put(n, zero); err != nil {
			return fmt.Errorf("clear a rule's counter: %w", err)
		}
		if err := s.maps["rule_pace"].Put(n, rulePaceRow{}); err != nil {
			return fmt.Errorf("clear a rule's pace: %w", err)
		}
		if err := s.maps["rule_name"].Put(n, s.rules.hash[n]); err != nil {
			return fmt.Errorf("name a rule's counter: %w", err)
		}
	}
	words := slices.Clone(t.Words)
	for n, at := range t.Rules {
		if at.Section >= 0 {
			words[t.RuleWord(n)] |= uint64(s.rules.number[ruleHash(set.Sections[at.Section].Rules[at.Rule].ID)]) << 32
		}
	}
	words[classify.AtOwner] = uint64(len(t.Rules))<<32 | uint64(r.n)
	words[classify.AtOwner+1] = binary.NativeEndian.Uint64(key[:8])
	words[classify.AtOwner+2] = binary.NativeEndian.Uint64(key[8:])
	words[classify.AtOwner+3] = rand.Uint64()
	memory, err := s.maps["rule"].Memory()
	if err == nil {
		_, err = memory.WriteAt(wordBytes(words), int64(r.at)*blockBytes)
	}
	if err != nil {
		return fmt.Errorf("write into map rule: %w", err)
	}
	return nil
}

func wordBytes(words []uint64) []byte {
	b := make([]byte, 0, len(words)*8)
	for _, w := range words {
		b = binary.NativeEndian.AppendUint64(b, w)
	}
	return b
}

// withRules gives a port whose new rules could not be had those that it has.
func (s *Switch) withRules(p, old table.Port, had bool) (table.Port, error) {
	for _, d := range []struct {
		name string
		key  *table.RuleSetKey
		old  table.RuleSetKey
	}{{"inbound", &p.Inbound, old.Inbound}, {"outbound", &p.Outbound, old.Outbound}} {
		if r, ok := s.rules.regions[*d.key]; *d.key == (table.RuleSetKey{}) || ok && (r.proved || *d.key == d.old) {
			continue
		}
		if !had || old.ID != p.ID {
			return p, fmt.Errorf("its %s rules could not be had, and it had none before", d.name)
		}
		*d.key = d.old
	}
	return p, nil
}

// forgetRuleSets lets go of the sets that no port has.
func (s *Switch) forgetRuleSets() []error {
	if len(s.stale) > 0 {
		return nil // a row of local_mac may still lead to one
	}
	used := map[table.RuleSetKey]bool{}
	for _, p := range allPorts(s.have) {
		used[p.Inbound], used[p.Outbound] = true, true
	}
	s.rules.grave, s.rules.leaving = append(s.rules.grave, s.rules.leaving...), nil
	var errs []error
	var gone []uint32
	for key, r := range s.rules.regions {
		if used[key] {
			continue
		}
		s.rules.bury(key)
		delete(s.have.RuleSets, key)
		released := s.rules.release(r)
		gone = append(gone, released...)
		for _, n := range released {
			if err := s.maps["rule_name"].Put(n, [ruleHashSize]byte{}); err != nil {
				errs = append(errs, fmt.Errorf("forget a rule's counter: %w", err))
			}
		}
	}
	if err := s.forgetDeniedBy(gone); err != nil {
		errs = append(errs, fmt.Errorf("forget the drops of rules: %w", err))
	}
	return errs
}

// bury makes the blocks of a set wait until no program can be reading them.
func (x *ruleStore) bury(key table.RuleSetKey) {
	x.grave = append(x.grave, x.regions[key].extent)
	delete(x.regions, key)
}

// room finds n blocks.
func (x *ruleStore) room(n uint32) (extent, error) {
	if e, ok := x.cut(n); ok {
		return e, nil
	}
	if len(x.grave) > 0 {
		// Every program that was running when the last row led to these has ended after this.
		if _, _, e := unix.Syscall(unix.SYS_MEMBARRIER, membarrierGlobal, 0, 0); e != 0 {
			return extent{}, fmt.Errorf("wait for the programs that run: %w", e)
		}
		x.free = append(x.free, x.grave...)
		x.grave = nil
		x.merge()
		if e, ok := x.cut(n); ok {
			return e, nil
		}
	}
	largest := uint32(0)
	for _, e := range x.free {
		largest = max(largest, e.n)
	}
	return extent{}, fmt.Errorf("its tables take %d KiB, and of %d MiB for all rule sets no more than %d KiB are free in one piece; put fewer rules on the ports of this host", n*blockBytes>>10, ruleMapBytes>>20, largest*blockBytes>>10)
}

// cut takes n blocks of the smallest free piece that has them.
func (x *ruleStore) cut(n uint32) (extent, bool) {
	best := -1
	for i, e := range x.free {
		if e.n >= n && (best < 0 || e.n < x.free[best].n) {
			best = i
		}
	}
	if best < 0 {
		return extent{}, false
	}
	e := &x.free[best]
	out := extent{e.at, n}
	e.at, e.n = e.at+n, e.n-n
	if e.n == 0 {
		x.free = slices.Delete(x.free, best, best+1)
	}
	return out, true
}

// merge joins free pieces that meet.
func (x *ruleStore) merge() {
	slices.SortFunc(x.free, func(a, b extent) int { return int(a.at) - int(b.at) })
	out := x.free[:0]
	for _, e := range x.free {
		if len(out) > 0 && out[len(out)-1].at+out[len(out)-1].n == e.at {
			out[len(out)-1].n += e.n
			continue
		}
		out = append(out, e)
	}
	x.free = out
}

// take gives every rule of a set its number, and tells those that are new.
func (x *ruleStore) take(t *classify.Tables, set *table.RuleSet, r *region) (fresh []uint32, err error) {
	seen := map[uint32]bool{}
	for _, at := range t.Rules {
		if at.Section < 0 {
			continue
		}
		id := set.Sections[at.Section].Rules[at.Rule].ID
		hash := ruleHash(id)
		n, known := x.number[hash]
		if !known {
			if len(x.unused) == 0 {
				return nil, errors.New("no counter is left for its rules; put fewer rules on the ports of this host")
			}
			n = x.unused[0] // that nobody has had for the longest time
			x.unused = x.unused[1:]
			x.number[hash], x.hash[n] = n, hash
			fresh = append(fresh, n)
		}
		x.id[n] = id
		if !seen[n] {
			seen[n] = true
			x.refs[n]++
			r.numbers = append(r.numbers, n)
		}
	}
	return fresh, nil
}

func numberingOf(numbers []uint32) uint32 {
	h := fnv.New32a()
	for _, n := range numbers {
		h.Write(binary.NativeEndian.AppendUint32(nil, n))
	}
	return h.Sum32()
}

// nameRules learns which rules the numbers of a set found in the map are of.
func (x *ruleStore) nameRules(t *classify.Tables, set *table.RuleSet) {
	for _, at := range t.Rules {
		if at.Section < 0 {
			continue
		}
		id := set.Sections[at.Section].Rules[at.Rule].ID
		if n, known := x.number[ruleHash(id)]; known {
			x.id[n] = id
		}
	}
}

// release gives the numbers back that no other set has.
func (x *ruleStore) release(r region) (gone []uint32) {
	for _, n := range r.numbers {
		if x.refs[n]--; x.refs[n] > 0 {
			continue
		}
		delete(x.refs, n)
		delete(x.number, x.hash[n])
		delete(x.hash, n)
		delete(x.id, n)
		x.unused = append(x.unused, n)
		gone = append(gone, n)
	}
	return gone
}

// ruleMapBytes is the size of the map `rule`: RULE_WORDS of bpf/maps/rule.h.
const ruleMapBytes = 1 << 26

// recallRules learns from the maps what an earlier process has left.
func (s *Switch) recallRules(held map[table.RuleSetKey]region) error {
	x := ruleStore{regions: held, number: map[[ruleHashSize]byte]uint32{}, hash: map[uint32][ruleHashSize]byte{}, id: map[uint32]model.RuleID{}, refs: map[uint32]int{}}
	for key, r := range held {
		if old, ok := s.rules.regions[key]; ok && old.proved && old.sum == r.sum {
			r.proved = true
			held[key] = r
		}
		for _, n := range r.numbers {
			x.refs[n]++
		}
	}
	named := make([][ruleHashSize]byte, s.maps["rule_name"].MaxEntries())
	if err := readAll(s.maps["rule_name"], func(n uint32, hash [ruleHashSize]byte) error {
		named[n] = hash
		return nil
	}); err != nil {
		return err
	}
	for n := range named {
		number := uint32(n)
		switch {
		case x.refs[number] > 0:
			x.number[named[n]], x.hash[number] = number, named[n]
			if id, known := s.rules.id[number]; known && ruleHash(id) == named[n] {
				x.id[number] = id
			}
		default:
			if named[n] != [ruleHashSize]byte{} {
				if err := s.maps["rule_name"].Put(number, [ruleHashSize]byte{}); err != nil {
					return fmt.Errorf("forget a rule's counter: %w", err)
				}
			}
			x.unused = append(x.unused, number)
		}
	}
	at := uint32(1) // block 0 is no set's
	for _, key := range slices.SortedFunc(maps.Keys(held), func(a, b table.RuleSetKey) int { return int(held[a].at) - int(held[b].at) }) {
		if r := held[key]; r.at > at {
			x.grave = append(x.grave, extent{at, r.at - at})
		}
		at = held[key].at + held[key].n
	}
	x.grave = append(x.grave, extent{at, ruleMapBytes/blockBytes - at})
	if len(held) == 0 && s.rules.number == nil { // nobody has ever been there
		x.free, x.grave = x.grave, nil
	}
	s.rules = x
	for key, r := range held {
		if set, ok := s.have.RuleSets[key]; !ok || !r.proved || set == nil {
			s.have.RuleSets[key] = nil
		}
	}
	return nil
}

// readRegion reads the set that begins at a block.
func readRegion(m *ebpf.Map, at uint32) (table.RuleSetKey, region, error) {
	var key table.RuleSetKey
	memory, err := m.Memory()
	if err != nil {
		return key, region{}, fmt.Errorf("read map rule: %w", err)
	}
	head := make([]byte, (classify.AtOwner+3)*8)
	if _, err := memory.ReadAt(head, int64(at)*blockBytes); err != nil {
		return key, region{}, fmt.Errorf("read map rule: %w", err)
	}
	owner := binary.NativeEndian.Uint64(head[classify.AtOwner*8:])
	copy(key[:], head[(classify.AtOwner+1)*8:])
	r := region{extent: extent{at, uint32(owner)}}
	places := owner >> 32
	if r.n == 0 || uint64(at)+uint64(r.n) > ruleMapBytes/blockBytes {
		return key, r, fmt.Errorf("rule set at block %d: %d blocks are impossible", at, r.n)
	}
	b := make([]byte, r.n*blockBytes)
	if _, err := memory.ReadAt(b, int64(at)*blockBytes); err != nil {
		return key, r, fmt.Errorf("read map rule: %w", err)
	}
	rules := binary.NativeEndian.Uint64(b[classify.AtPlaces*8:]) >> 32
	if (rules+2*places)*8 > uint64(len(b)) {
		return key, r, fmt.Errorf("rule set at block %d: its rules are outside of it", at)
	}
	seen := map[uint32]bool{}
	for i := range places {
		word := b[(rules+2*i)*8:]
		if binary.NativeEndian.Uint64(word[8:])&classify.RuleReal == 0 {
			continue
		}
		n := uint32(binary.NativeEndian.Uint64(word) >> 32)
		if !seen[n] {
			seen[n] = true
			r.numbers = append(r.numbers, n)
		}
		binary.NativeEndian.PutUint32(word[4:], 0)
	}
	clear(b[classify.AtOwner*8 : (classify.AtOwner+4)*8])
	r.sum = sha256.Sum256(b)
	r.numbering = numberingOf(r.numbers)
	return key, r, nil
}

// RuleHits reads the counters of the rules that ports have.
func (s *Switch) RuleHits() (map[model.RuleID]RuleHits, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[model.RuleID]RuleHits, len(s.rules.id))
	for n, id := range s.rules.id {
		var cpus []ruleHitRow
		if err := s.maps["rule_hit"].Lookup(n, &cpus); err != nil {
			return nil, fmt.Errorf("read hits of rule %s: %w", id, err)
		}
		h := RuleHits{}
		for _, c := range cpus {
			h.Packets += c.Packets
			h.Bytes += c.Bytes
		}
		out[id] = h
	}
	return out, nil
}

// ruleOf is the rule that has a number; the zero RuleID if none has.
func (s *Switch) ruleOf(n uint32) model.RuleID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rules.id[n]
}
