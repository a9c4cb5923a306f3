package classify

import (
	"math/bits"

	"github.com/weft-sdn/weft/internal/table"
)

// Outcome is what a RuleSet says of a packet.
type Outcome struct {
	Denied bool
	By     int   // the rule that decided; -1: none did
	Hits   []int // rules that matched and were asked, those that count last
}

const none = ^uint64(0)

// Lookup judges a packet, step by step as bpf/lib/classify.h does.
func (t *Tables) Lookup(q table.Query) Outcome {
	w := walk{t: t.Words, ip: q.IP}
	w.classes(q)
	for i := range w.best {
		w.best[i] = none
	}
	w.each(false, func(section int, rule, position uint64) {
		w.best[section] = min(w.best[section], position<<32|rule)
	})
	out := w.judge()
	if w.t[atHead]>>16&hasCounts != 0 {
		w.each(true, func(section int, rule, position uint64) {
			if w.asked>>section&1 != 0 && position < w.best[section]>>32 {
				out.Hits = append(out.Hits, int(rule))
			}
		})
	}
	return out
}

// walk is one look at the tables.
type walk struct {
	t     []uint64
	ip    bool
	row   [dims]uint64 // of the packet's class; 0: no rule that names the dimension matches
	best  [MaxSections]uint64
	asked uint64 // sections
}

// classes finds the packet's class in each dimension.
func (w *walk) classes(q table.Query) {
	if w.t[atHead]>>16&namesMACs != 0 {
		w.row[dimLocalMAC] = w.wide(treeLocalMAC, macKey(q.LocalMAC))
		w.row[dimRemoteMAC] = w.wide(treeRemoteMAC, macKey(q.RemoteMAC))
	}
	if !q.IP {
		return
	}
	if q.Remote.Is4() {
		w.row[dimRemote] = w.narrow(treeRemote4, addrKey(q.Remote).lo)
		w.row[dimLocal] = w.narrow(treeLocal4, addrKey(q.Local).lo)
	} else {
		w.row[dimRemote] = w.wide(treeRemote6, addrKey(q.Remote))
		w.row[dimLocal] = w.wide(treeLocal6, addrKey(q.Local))
	}
	local, remote := portKeys(q)
	w.row[dimLocalPort] = w.narrow(treeLocalPort, local)
	w.row[dimRemotePort] = w.narrow(treeRemotePort, remote)
}

func portKeys(q table.Query) (local, remote uint64) {
	proto := uint64(q.Protocol) << 16
	switch q.Upper {
	case table.ShowsPorts:
		return keyShown | proto | uint64(q.LocalPort), keyShown | proto | uint64(q.RemotePort)
	case table.ShowsType:
		return keyShown | proto, keyShown | proto | uint64(q.ICMPType)<<8 | uint64(q.ICMPCode)
	case table.HidesUpper:
		return keyHidden | proto, keyHidden | proto
	}
	return keyOpaque | proto, keyOpaque | proto
}

// narrow searches a tree with sixteen halves of keys of 32 bits to a block: of two in a word at once, each with a bit above it
// from which nothing is borrowed if it is no larger.
func (w *walk) narrow(tree int, k uint64) uint64 {
	at, n := w.t[atTrees+2*tree]&0xffffffff, w.t[atTrees+2*tree]>>32
	if n == 0 {
		return 0
	}
	i, both := uint64(0), (k>>1|1<<31)*(1<<32|1)
	for level := int(w.t[atTrees+2*tree+1]>>32) - 1; level >= 0; level-- {
		less := uint64(0)
		for _, two := range w.t[at+i*BlockWords:][:BlockWords] {
			less += (both - two) >> 31 & (1<<32 | 1)
		}
		i = i*16 + uint64(uint32(less)) + less>>32 - 1
		at += ((n-1)>>(4*level+4) + 1) * BlockWords
	}
	return w.rowAt(tree, 2*i+k&1)
}

// wide searches a tree with four keys of 128 bits to a block.
func (w *walk) wide(tree int, k key) uint64 {
	at, n := w.t[atTrees+2*tree]&0xffffffff, w.t[atTrees+2*tree]>>32
	if n == 0 {
		return 0
	}
	i := uint64(0)
	for level := int(w.t[atTrees+2*tree+1]>>32) - 1; level >= 0; level-- {
		less, block := uint64(0), w.t[at+i*BlockWords:][:BlockWords]
		for j := 0; j < BlockWords; j += 2 {
			if (key{block[j], block[j+1]}).compare(k) <= 0 {
				less++
			}
		}
		last := (n - 1) >> (2 * level)
		i = min(i*4+less-1, last)
		at += (last>>2 + 1) * BlockWords
	}
	return w.rowAt(tree, i)
}

func (w *walk) rowAt(tree int, i uint64) uint64 {
	return half(w.t[w.t[atTrees+2*tree+1]&0xffffffff:], i)
}

// half is the i-th half of words.
func half(words []uint64, i uint64) uint64 { return words[i/2] >> (32 * (i % 2)) & 0xffffffff }

// each visits the matching rules: of those that decide, the first of each chunk, and not those that
// come after what their section has found already; of those that count, all.
func (w *walk) each(counts bool, visit func(section int, rule, position uint64)) {
	tops := w.t[atHead] >> 32
	candidates := uint64(1)<<tops - 1
	if tops == 64 {
		candidates = none
	}
	var top [dims]uint64
	for d, row := range w.row {
		if row != 0 {
			top[d] = w.t[row]
		}
		candidates &= top[d] | w.t[atFree+d]
	}
	for a := range eachBit(candidates) {
		w.aggregate(a, top, counts, visit)
	}
}

// aggregate visits the rules below the bit a of the top words.
func (w *walk) aggregate(a int, top [dims]uint64, counts bool, visit func(section int, rule, position uint64)) {
	unnamed := w.t[w.t[atUnnamed]+uint64(a)*8:][:8]
	var agg, words [dims]uint64
	chunks := unnamed[countsWord] ^ none
	if counts {
		chunks = unnamed[countsWord]
	}
	if !w.ip {
		chunks &= unnamed[framesWord]
	}
	for d, row := range w.row {
		if top[d]>>a&1 != 0 {
			part := half(w.t[row+1:], uint64(bits.OnesCount64(top[d]&(1<<a-1))))
			agg[d], words[d] = w.t[part], part+1
		}
		chunks &= agg[d] | unnamed[d]
	}
	for k := range eachBit(chunks) {
		chunk := uint64(a*64 + k)
		of := w.t[w.t[AtPlaces]&0xffffffff+chunk]
		section := int(of & 0xff)
		if !counts && w.best[section]>>32 <= of>>32 {
			continue
		}
		match := none
		for d := range dims {
			if of>>(8+d)&1 != 0 {
				match &= w.t[words[d]+uint64(bits.OnesCount64(agg[d]&(1<<k-1)))]
			}
		}
		for bit := range eachBit(match) {
			rule := chunk*64 + uint64(bit)
			if at := w.ruleWord(rule); w.real(rule) {
				visit(section, rule, w.t[at]&0xffffffff)
			}
			if !counts {
				break
			}
		}
	}
}

func (w *walk) ruleWord(rule uint64) uint64 { return w.t[AtPlaces]>>32 + 2*rule }

// real tells rules from the rest of the last chunk, of which a chunk that names nothing matches all.
func (w *walk) real(rule uint64) bool { return w.t[w.ruleWord(rule)+1]&RuleReal != 0 }

// judge asks the sections in turn.
func (w *walk) judge() Outcome {
	out := Outcome{By: -1}
	sections := int(w.t[atHead] >> 8 & 0xff)
	said := false // by a tenant or basic section
	for s := range sections {
		kind := w.t[atKinds+s/8] >> (8 * (s % 8)) & 0xff
		of := table.SectionKind(kind &^ sectionAudit)
		if of == table.Default && said {
			continue
		}
		w.asked |= 1 << s
		if w.best[s] == none {
			continue
		}
		rule := int(w.best[s] & 0xffffffff)
		out.Hits = append(out.Hits, rule)
		if kind&sectionAudit != 0 {
			continue
		}
		action := table.RuleAction(w.t[w.ruleWord(uint64(rule))+1] & 3)
		if action == table.Pass {
			continue
		}
		out.By = rule
		if action == table.Deny {
			out.Denied = true
			return out
		}
		if of == table.Administrator {
			return out
		}
		said = said || of != table.Default
	}
	return out
}

// FromKeys puts what the keys of the port trees say into a query: portKeys backwards.
func FromKeys(q *table.Query, local, remote uint32) {
	q.Protocol = uint8(remote >> 16)
	switch kind := remote >> 24 << 24; {
	case kind == keyHidden:
		q.Upper = table.HidesUpper
	case kind != keyShown:
	case q.Protocol == protoICMP || q.Protocol == protoICMPv6:
		q.Upper, q.ICMPType, q.ICMPCode = table.ShowsType, uint8(remote>>8), uint8(remote)
	default:
		q.Upper, q.LocalPort, q.RemotePort = table.ShowsPorts, uint16(local), uint16(remote)
	}
}
