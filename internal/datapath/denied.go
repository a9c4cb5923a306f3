package datapath

import (
	"errors"

	"github.com/weft-sdn/weft/internal/model"
)

// The map `denied` says which rules drops by ACL_DENIED are by; `drop` has all of them.

type deniedKey struct{ Port, Rule, Direction uint32 }

type deniedRow struct{ Packets, Bytes uint64 }

// portDrops are a port's drops by rules in one direction.
type portDrops struct {
	port      model.PortID
	direction Direction
}

// byRule splits what rules have dropped by rule. The sum stays what `drop` says: what is by rules that are gone, or
// found no row, has no rule. counts were read before: a packet is counted there first.
func (s *Switch) byRule(counts []DropCount) ([]DropCount, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := map[portDrops]*DropCount{}
	var out []DropCount
	for i := range counts {
		if c := &counts[i]; c.Reason == model.VerdictAclDenied {
			rest[portDrops{c.Port, c.Direction}] = c
			continue
		}
		out = append(out, counts[i])
	}
	if len(rest) == 0 {
		return out, nil
	}
	err := readAll(s.maps["denied"], func(k deniedKey, r deniedRow) error {
		id, known := s.rules.id[k.Rule]
		of := rest[portDrops{model.PortID(k.Port), Direction(k.Direction)}]
		if of == nil {
			of = rest[portDrops{0, Direction(k.Direction)}] // `drop` was full
		}
		if !known || of == nil || r.Packets == 0 {
			return nil
		}
		out = append(out, DropCount{Reason: model.VerdictAclDenied, Direction: Direction(k.Direction), Port: model.PortID(k.Port), Packets: r.Packets, Bytes: r.Bytes, Rule: id})
		of.Packets -= min(of.Packets, r.Packets)
		of.Bytes -= min(of.Bytes, r.Bytes)
		return nil
	})
	for _, c := range rest {
		if c.Packets != 0 {
			out = append(out, *c)
		}
	}
	return out, err
}

// forgetDenied deletes the rows of ports, or of numbers of rules, that are gone.
func (s *Switch) forgetDenied(gone func(deniedKey) bool) error {
	var keys []deniedKey
	err := readAll(s.maps["denied"], func(k deniedKey, _ deniedRow) error {
		if gone(k) {
			keys = append(keys, k)
		}
		return nil
	})
	for _, k := range keys {
		err = errors.Join(err, ignoreMissing(s.maps["denied"].Delete(k)))
	}
	return err
}

func (s *Switch) forgetDeniedBy(numbers []uint32) error {
	if len(numbers) == 0 {
		return nil
	}
	of := make(map[uint32]bool, len(numbers))
	for _, n := range numbers {
		of[n] = true
	}
	return s.forgetDenied(func(k deniedKey) bool { return of[k.Rule] })
}
