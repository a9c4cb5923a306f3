// Package classify makes flat tables of a table.RuleSet in which the rules that a packet
// matches are found at a cost that hardly grows with their number: docs/adr/0040-classifier.md.
// The tables are words of 64 bits without pointers; bpf/lib/classify.h walks them in the
// kernel as Lookup does here.
//
// Invariants: the answer is that of the rules taken one by one; the same RuleSet gives the
// same words. It must never decide what rules mean beyond docs/design/acl.md.
package classify

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// What one RuleSet can have.
const (
	MaxSections = 16
	MaxRules    = 1 << 17
	MaxCounts   = 64      // rules that count, in all sections: each that matches costs
	MaxWords    = 1 << 23 // of its tables
	maxKeys     = 1 << 20 // of a tree
	MaxIdle     = 0xffff * time.Second
)

// BlockWords is the size of the pieces that tables are made of: a cache line.
const BlockWords = 8

// Layout of the tables, in words from their start. Offsets in them count words.
const (
	layout = 2

	atHead    = 0 // layout, number of sections<<8, flags<<16, number of aggregate words<<32
	AtPlaces  = 1 // chunks, rules<<32
	atFree    = 2 // by dimension: which aggregate words have a chunk that does not name it
	atTrees   = 8 // by tree: keys | number of keys<<32, rows | height<<32
	atKinds   = 24
	atUnnamed = 26 // where, by aggregate word, eight words are: which chunks do not name a dimension (6), frames, counts
	headWords = 32

	// AtOwner is where whoever stores the tables has four words of a head to himself. In the last is a mark that no
	// other set has had.
	AtOwner = 28
)

// Flags of a head.
const (
	hasCounts = 1 << iota // some rules count
	hasFrames             // some rules judge frames other than IP
	namesMACs
)

const (
	sectionAudit = 0x80 // beside the kind, in atKinds

	countsWord = 7 // of the eight at atUnnamed
	framesWord = 6
)

// A dimension is what of a packet one part of a rule looks at. Each packet is in one class of each.
const (
	dimRemote = iota
	dimLocal
	dimLocalPort  // and protocol
	dimRemotePort // and protocol, ICMP type, code
	dimLocalMAC
	dimRemoteMAC
	dims
)

// Trees find the class: by keys of 32 bits, then by keys of 128.
const (
	treeRemote4 = iota
	treeLocal4
	treeLocalPort
	treeRemotePort
	treeRemote6
	treeLocal6
	treeLocalMAC
	treeRemoteMAC
	trees

	wideTrees = treeRemote6
)

var dimOf = [trees]int{dimRemote, dimLocal, dimLocalPort, dimRemotePort, dimRemote, dimLocal, dimLocalMAC, dimRemoteMAC}

// Keys of the port trees: what is shown, protocol, and port or type and code.
const (
	keyShown  = 0 << 24
	keyHidden = 1 << 24
	keyOpaque = 2 << 24 // of a protocol without ports and types
)

// Flags of a rule's second word: action, then these, the section<<8, seconds idle<<16.
const (
	ruleLog      = 1 << 2
	ruleStateful = 1 << 3
	RuleReal     = 1 << 4 // it is a rule: the last chunk of a pattern is not full
)

const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

// Tables are a RuleSet, compiled.
type Tables struct {
	Words []uint64 // whole blocks
	// Rules says which rule the n-th of the tables is. RuleWord finds its words.
	Rules []table.RuleAt
}

// RuleWord is where the words of the n-th rule are. The upper half of the first is
// for whoever counts: the number of the rule's counter.
func (t *Tables) RuleWord(n int) int { return int(t.Words[AtPlaces]>>32) + 2*n }

// key is an address, a MAC, or protocol and port: a number of 128 bits.
type key struct{ hi, lo uint64 }

func (a key) compare(b key) int {
	switch {
	case a.hi != b.hi && a.hi < b.hi, a.hi == b.hi && a.lo < b.lo:
		return -1
	case a == b:
		return 0
	}
	return 1
}

// next is the key after a; none after the last.
func (a key) next() (key, bool) {
	lo, carry := bits.Add64(a.lo, 1, 0)
	hi, over := bits.Add64(a.hi, 0, carry)
	return key{hi, lo}, over == 0
}

// span is all keys from one to another, both included.
type span struct{ first, last key }

// pattern is what rules of one chunk have in common.
type pattern struct {
	section int
	dims    uint8 // that they name
	counts  bool
	frames  bool
}

// Compile makes the tables, or says what of the rules does not fit.
func Compile(set table.RuleSet) (*Tables, error) {
	c := &compiler{set: set}
	if err := c.check(); err != nil {
		return nil, err
	}
	c.place()
	c.words = make([]uint64, headWords)
	c.putHead()
	for t := range trees {
		if err := c.putTree(t); err != nil {
			return nil, err
		}
	}
	for len(c.words)%BlockWords != 0 {
		c.words = append(c.words, 0)
	}
	return &Tables{Words: c.words, Rules: c.rules}, nil
}

type compiler struct {
	set    table.RuleSet
	chunks []chunk
	rules  []table.RuleAt // by bit; Section -1: no rule
	words  []uint64
}

// chunk is up to 64 rules of one pattern, in the order of their section.
type chunk struct {
	pattern
	rules []table.RuleAt
	first int // position of the first rule in the set
}

func (c *compiler) check() error {
	if n := len(c.set.Sections); n > MaxSections {
		return fmt.Errorf("rule set: %d sections, at most %d can be", n, MaxSections)
	}
	n, counts := 0, 0
	for _, s := range c.set.Sections {
		n += len(s.Rules)
		for i := range s.Rules {
			r := &s.Rules[i]
			if r.Action == table.Count {
				counts++
			}
			if r.ICMPType > 255 || r.ICMPCode > 255 {
				return fmt.Errorf("rule %s: ICMP type %d, code %d: at most 255 can be", r.ID, r.ICMPType, r.ICMPCode)
			}
			if slices.ContainsFunc(slices.Concat(r.Local, r.Remote), func(p netip.Prefix) bool { return !p.IsValid() }) {
				return fmt.Errorf("rule %s: a prefix that is none", r.ID)
			}
		}
	}
	if n > MaxRules {
		return fmt.Errorf("rule set: %d rules, at most %d can be", n, MaxRules)
	}
	if counts > MaxCounts {
		return fmt.Errorf("rule set: %d rules that count, at most %d can be", counts, MaxCounts)
	}
	return nil
}

// place gives every rule its chunk and bit. Rules about the same services share chunks: a packet of one
// service then has none of the chunks of the others to look at, and its class few words.
func (c *compiler) place() {
	position := 0
	for s := range c.set.Sections {
		rules := c.set.Sections[s].Rules
		of := map[pattern][]int{}
		for i := range rules {
			p := patternOf(s, &rules[i])
			of[p] = append(of[p], i)
		}
		var chunks []chunk
		for p, all := range of {
			for part := range slices.Chunk(c.byService(rules, all), 64) {
				slices.Sort(part)
				k := chunk{pattern: p, first: position + part[0]}
				for _, i := range part {
					k.rules = append(k.rules, table.RuleAt{Section: s, Rule: i})
				}
				chunks = append(chunks, k)
			}
		}
		slices.SortFunc(chunks, func(a, b chunk) int { return cmp.Or(int(a.dims)-int(b.dims), a.first-b.first) })
		c.chunks = append(c.chunks, chunks...)
		position += len(rules)
	}
	for _, k := range c.chunks {
		for bit := range 64 {
			at := table.RuleAt{Section: -1}
			if bit < len(k.rules) {
				at = k.rules[bit]
			}
			c.rules = append(c.rules, at)
		}
	}
}

// byService orders rules of one pattern so that those with the same ports are together.
func (c *compiler) byService(rules []table.Rule, all []int) []int {
	services := make(map[int]string, len(all))
	for _, i := range all {
		var b []byte
		for _, tree := range []int{treeLocalPort, treeRemotePort} {
			for _, s := range spansOf(tree, &rules[i]) {
				b = binary.BigEndian.AppendUint32(b, uint32(s.first.lo))
				b = binary.BigEndian.AppendUint32(b, uint32(s.last.lo))
			}
		}
		services[i] = string(b)
	}
	slices.SortStableFunc(all, func(a, b int) int { return cmp.Compare(services[a], services[b]) })
	return all
}

func patternOf(section int, r *table.Rule) pattern {
	p := pattern{section: section, counts: r.Action == table.Count, frames: !r.NamesIP()}
	name := func(yes bool, dim int) {
		if yes {
			p.dims |= 1 << dim
		}
	}
	name(len(r.Remote) > 0, dimRemote)
	name(len(r.Local) > 0, dimLocal)
	name(len(r.LocalPorts) > 0, dimLocalPort)
	name(len(r.RemotePorts) > 0 || r.NamesType(), dimRemotePort)
	name(!r.AnyProtocol && !r.NamesPorts() && !r.NamesType(), dimRemotePort)
	name(!r.LocalMAC.IsZero(), dimLocalMAC)
	name(!r.RemoteMAC.IsZero(), dimRemoteMAC)
	return p
}

func (c *compiler) aggregates() int { return (len(c.chunks) + 63) / 64 }

func (c *compiler) putHead() {
	flags, kinds := uint64(0), [16]byte{}
	for i, s := range c.set.Sections {
		kinds[i] = byte(s.Kind)
		if s.Audit {
			kinds[i] |= sectionAudit
		}
	}
	unnamed := len(c.words)
	c.words = append(c.words, make([]uint64, 8*c.aggregates())...)
	for i, k := range c.chunks {
		at, bit := unnamed+i/64*8, uint64(1)<<(i%64)
		for d := range dims {
			if k.dims&(1<<d) == 0 {
				c.words[at+d] |= bit
				c.words[atFree+d] |= 1 << (i / 64)
			}
		}
		if k.frames {
			c.words[at+framesWord] |= bit
			flags |= hasFrames
		}
		if k.counts {
			c.words[at+countsWord] |= bit
			flags |= hasCounts
		}
		if k.dims&(1<<dimLocalMAC|1<<dimRemoteMAC) != 0 {
			flags |= namesMACs
		}
	}
	chunks := len(c.words)
	for _, k := range c.chunks {
		c.words = append(c.words, uint64(k.section)|uint64(k.dims)<<8|uint64(k.first)<<32)
	}
	c.align(2)
	rules := len(c.words)
	c.putRules()
	c.words[atHead] = layout | uint64(len(c.set.Sections))<<8 | flags<<16 | uint64(c.aggregates())<<32
	c.words[AtPlaces] = uint64(chunks) | uint64(rules)<<32
	c.words[atKinds] = binary.LittleEndian.Uint64(kinds[:8])
	c.words[atKinds+1] = binary.LittleEndian.Uint64(kinds[8:])
	c.words[atUnnamed] = uint64(unnamed)
}

func (c *compiler) putRules() {
	firsts := make([]int, len(c.set.Sections)+1)
	for i, s := range c.set.Sections {
		firsts[i+1] = firsts[i] + len(s.Rules)
	}
	for _, at := range c.rules {
		if at.Section < 0 {
			c.words = append(c.words, 0, 0)
			continue
		}
		r := &c.set.Sections[at.Section].Rules[at.Rule]
		flags := uint64(r.Action) | RuleReal
		if r.Log {
			flags |= ruleLog
		}
		if r.Stateful {
			flags |= ruleStateful
		}
		idle := uint64((min(r.Idle, MaxIdle) + time.Second - 1) / time.Second)
		c.words = append(c.words, uint64(firsts[at.Section]+at.Rule), flags|uint64(at.Section)<<8|idle<<16)
	}
}

// align makes the next word one whose place is a multiple of n.
func (c *compiler) align(n int) {
	for len(c.words)%n != 0 {
		c.words = append(c.words, 0)
	}
}

// edge is where rules begin or cease to match.
type edge struct {
	at  key
	bit int32 // of the rule; negative, its complement: it ceases
}

// putTree makes the tree and the rows of its classes.
func (c *compiler) putTree(tree int) error {
	edges := c.edges(tree)
	if len(edges) == 0 {
		return nil
	}
	slices.SortFunc(edges, func(a, b edge) int { return a.at.compare(b.at) })
	keys, rows, err := c.classes(edges)
	if err != nil {
		return err
	}
	if tree < wideTrees {
		keys, rows = inPairs(keys, rows)
	}
	c.align(BlockWords)
	at := len(c.words)
	height := 0
	if tree < wideTrees {
		height = c.putNarrow(keys)
	} else {
		height = c.putWide(keys)
	}
	c.words[atTrees+2*tree] = uint64(at) | uint64(len(keys))<<32
	c.words[atTrees+2*tree+1] = uint64(len(c.words)) | uint64(height)<<32
	for i, row := range rows {
		if i%2 == 0 {
			c.words = append(c.words, 0)
		}
		c.words[len(c.words)-1] |= uint64(row) << (32 * (i % 2))
	}
	return c.fits()
}

// inPairs halves keys, so that the highest bit of 32 is free: of each class of halves there are two rows, of the even keys
// and of the odd ones.
func inPairs(keys []key, rows []uint32) (halves []key, both []uint32) {
	put := func(half uint64, even, odd uint32) {
		n := len(halves)
		if n > 0 && halves[n-1].lo == half {
			n-- // it has begun with the key before
		}
		halves, both = append(halves[:n], key{0, half}), append(both[:2*n], even, odd)
	}
	for i, k := range keys {
		half := k.lo >> 1
		if k.lo&1 == 0 {
			put(half, rows[i], rows[i])
			continue
		}
		put(half, rows[i-1], rows[i]) // the first key is 0
		if half < 1<<31-1 {
			put(half+1, rows[i], rows[i])
		}
	}
	return halves, both
}

func (c *compiler) fits() error {
	if len(c.words) > MaxWords {
		return fmt.Errorf("rule set: its tables take more than %d MiB: too many of its rules overlap", MaxWords*8>>20)
	}
	return nil
}

// edges lists where on the keys of a tree rules begin and cease.
func (c *compiler) edges(tree int) []edge {
	var out []edge
	for bit, at := range c.rules {
		if at.Section < 0 || c.chunks[bit/64].dims&(1<<dimOf[tree]) == 0 {
			continue
		}
		for _, s := range union(spansOf(tree, &c.set.Sections[at.Section].Rules[at.Rule])) {
			out = append(out, edge{s.first, int32(bit)})
			end, ok := s.last.next()
			if tree < wideTrees {
				ok = end.lo <= 0xffffffff
			}
			if ok {
				out = append(out, edge{end, ^int32(bit)})
			}
		}
	}
	return out
}

// union makes spans disjoint, so that a rule begins and ceases once where some of them meet.
func union(spans []span) []span {
	if len(spans) < 2 {
		return spans
	}
	slices.SortFunc(spans, func(a, b span) int { return a.first.compare(b.first) })
	out := spans[:1]
	for _, s := range spans[1:] {
		last := &out[len(out)-1]
		if end, ok := last.last.next(); !ok || s.first.compare(end) <= 0 {
			if s.last.compare(last.last) > 0 {
				last.last = s.last
			}
			continue
		}
		out = append(out, s)
	}
	return out
}

// classes walks along the keys: where the matching rules change, a class begins. Classes
// with the same rules share a row.
func (c *compiler) classes(edges []edge) (keys []key, rows []uint32, err error) {
	m := newMatching(len(c.chunks))
	known := map[string]uint32{}
	put := func(at key) error {
		row := c.putRow(m, known)
		if len(rows) > 0 && rows[len(rows)-1] == row {
			return nil
		}
		keys, rows = append(keys, at), append(rows, row)
		if len(keys) > maxKeys {
			return fmt.Errorf("rule set: more than %d ranges of one kind", maxKeys)
		}
		return c.fits()
	}
	if edges[0].at != (key{}) {
		if err := put(key{}); err != nil {
			return nil, nil, err
		}
	}
	for i, e := range edges {
		m.turn(e.bit)
		if i+1 < len(edges) && edges[i+1].at == e.at {
			continue
		}
		if err := put(e.at); err != nil {
			return nil, nil, err
		}
	}
	return keys, rows, nil
}

// matching is the rules that match at one key, as bits in three levels.
type matching struct {
	top   uint64
	agg   []uint64
	words []uint64
	buf   []byte // of a row
	part  []byte // of its words
}

func newMatching(chunks int) *matching {
	return &matching{agg: make([]uint64, (chunks+63)/64), words: make([]uint64, chunks)}
}

// turn makes a rule match, or with the complement of its bit cease to.
func (m *matching) turn(bit int32) {
	if bit < 0 {
		bit = ^bit
		m.words[bit/64] &^= 1 << (bit % 64)
	} else {
		m.words[bit/64] |= 1 << (bit % 64)
	}
	set(&m.agg[bit/4096], uint(bit/64%64), m.words[bit/64] != 0)
	set(&m.top, uint(bit/4096), m.agg[bit/4096] != 0)
}

func set(w *uint64, bit uint, on bool) {
	*w &^= 1 << bit
	if on {
		*w |= 1 << bit
	}
}

// putRow writes the row of m unless it is there already: the top word and, two to a word, where for each bit of it an
// aggregate word is, with its words behind. These are shared as well.
func (c *compiler) putRow(m *matching, known map[string]uint32) uint32 {
	row := binary.LittleEndian.AppendUint64(m.buf[:0], m.top)
	for a := range eachBit(m.top) {
		part := binary.LittleEndian.AppendUint64(m.part[:0], m.agg[a])
		for k := range eachBit(m.agg[a]) {
			part = binary.LittleEndian.AppendUint64(part, m.words[a*64+k])
		}
		m.part = part
		row = binary.LittleEndian.AppendUint32(row, c.putOnce(part, known))
	}
	for len(row)%8 != 0 {
		row = append(row, 0)
	}
	m.buf = row
	return c.putOnce(row, known)
}

// putOnce writes words, in whose place others like them may do.
func (c *compiler) putOnce(b []byte, known map[string]uint32) uint32 {
	if at, ok := known[string(b)]; ok {
		return at
	}
	at := uint32(len(c.words))
	for i := 0; i < len(b); i += 8 {
		c.words = append(c.words, binary.LittleEndian.Uint64(b[i:]))
	}
	known[string(b)] = at
	return at
}

// eachBit yields the places of the bits that are set, the lowest first.
func eachBit(w uint64) func(func(int) bool) {
	return func(yield func(int) bool) {
		for ; w != 0; w &= w - 1 {
			if !yield(bits.TrailingZeros64(w)) {
				return
			}
		}
	}
}

// putNarrow writes keys of 31 bits, sixteen to a block, below a tree of every sixteenth.
func (c *compiler) putNarrow(keys []key) (height int) {
	height = levels(len(keys), 4)
	for level := height - 1; level >= 0; level-- {
		n := 0
		for i := 0; i < len(keys); i += 1 << (4 * level) {
			if n%2 == 0 {
				c.words = append(c.words, keys[i].lo|noHalf<<32)
			} else {
				w := &c.words[len(c.words)-1]
				*w = *w&0xffffffff | keys[i].lo<<32
			}
			n++
		}
		c.pad(noHalf | noHalf<<32)
	}
	return height
}

const noHalf = 1 << 31 // is larger than any

// putWide writes keys of 128 bits, four to a block, below a tree of every fourth.
func (c *compiler) putWide(keys []key) (height int) {
	height = levels(len(keys), 2)
	for level := height - 1; level >= 0; level-- {
		for i := 0; i < len(keys); i += 1 << (2 * level) {
			c.words = append(c.words, keys[i].hi, keys[i].lo)
		}
		c.pad(^uint64(0))
	}
	return height
}

// pad fills a block with words of keys that are larger than any, or the largest.
func (c *compiler) pad(largest uint64) {
	for len(c.words)%BlockWords != 0 {
		c.words = append(c.words, largest)
	}
}

// levels is the height of a tree of n keys, 1<<shift to a block.
func levels(n, shift int) int {
	h := 1
	for n > 1<<(shift*h) {
		h++
	}
	return h
}

// spansOf is what of a tree's keys a rule matches.
func spansOf(tree int, r *table.Rule) []span {
	switch tree {
	case treeRemote4, treeRemote6:
		return prefixSpans(r.Remote, tree == treeRemote4)
	case treeLocal4, treeLocal6:
		return prefixSpans(r.Local, tree == treeLocal4)
	case treeLocalPort:
		return portSpans(r, r.LocalPorts)
	case treeRemotePort:
		return remotePortSpans(r)
	case treeLocalMAC:
		return []span{{macKey(r.LocalMAC), macKey(r.LocalMAC)}}
	}
	return []span{{macKey(r.RemoteMAC), macKey(r.RemoteMAC)}}
}

func macKey(m model.MAC) key {
	var b [8]byte
	copy(b[2:], m[:])
	return key{0, binary.BigEndian.Uint64(b[:])}
}

func addrKey(a netip.Addr) key {
	if a.Is4() {
		b := a.As4()
		return key{0, uint64(binary.BigEndian.Uint32(b[:]))}
	}
	b := a.As16()
	return key{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:])}
}

func prefixSpans(prefixes []netip.Prefix, is4 bool) []span {
	var out []span
	for _, p := range prefixes {
		if p.Addr().Is4() != is4 {
			continue
		}
		first := addrKey(p.Masked().Addr())
		host := p.Addr().BitLen() - p.Bits()
		last := first
		if host >= 64 {
			last.hi |= 1<<(host-64) - 1
			last.lo = ^uint64(0)
		} else {
			last.lo |= 1<<host - 1
		}
		out = append(out, span{first, last})
	}
	return out
}

func numbers(first, last uint64) span { return span{key{0, first}, key{0, last}} }

// portSpans are the ports of the protocols that have some; and for a rule that denies, packets that hide theirs.
func portSpans(r *table.Rule, ports []table.PortRange) []span {
	var out []span
	for _, proto := range protocolsOf(r) {
		for _, p := range ports {
			if p.First <= p.Last {
				out = append(out, numbers(keyShown|proto<<16|uint64(p.First), keyShown|proto<<16|uint64(p.Last)))
			}
		}
		out = appendHidden(out, r, proto)
	}
	return out
}

func appendHidden(out []span, r *table.Rule, proto uint64) []span {
	if r.Action != table.Deny {
		return out
	}
	return append(out, numbers(keyHidden|proto<<16, keyHidden|proto<<16))
}

// protocolsOf are those that a rule which names ports, or a type, can match.
func protocolsOf(r *table.Rule) []uint64 {
	var all []uint64
	switch {
	case r.NamesPorts() && r.NamesType():
	case r.NamesPorts():
		all = []uint64{protoTCP, protoUDP}
	default:
		all = []uint64{protoICMP, protoICMPv6}
	}
	return slices.DeleteFunc(all, func(p uint64) bool { return !r.AnyProtocol && uint64(r.Protocol) != p })
}

func remotePortSpans(r *table.Rule) []span {
	if len(r.RemotePorts) > 0 {
		return portSpans(r, r.RemotePorts)
	}
	if !r.NamesType() {
		p := uint64(r.Protocol) << 16
		return []span{numbers(keyShown|p, keyShown|p|0xffff), numbers(keyHidden|p, keyHidden|p), numbers(keyOpaque|p, keyOpaque|p)}
	}
	var out []span
	for _, proto := range protocolsOf(r) {
		base := keyShown | proto<<16
		switch {
		case r.ICMPCode < 0:
			out = append(out, numbers(base|uint64(r.ICMPType)<<8, base|uint64(r.ICMPType)<<8|0xff))
		case r.ICMPType < 0:
			for t := range uint64(256) {
				out = append(out, numbers(base|t<<8|uint64(r.ICMPCode), base|t<<8|uint64(r.ICMPCode)))
			}
		default:
			k := base | uint64(r.ICMPType)<<8 | uint64(r.ICMPCode)
			out = append(out, numbers(k, k))
		}
		out = appendHidden(out, r, proto)
	}
	return out
}
