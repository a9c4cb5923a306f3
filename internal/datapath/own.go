package datapath

import (
	"fmt"
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// ownRow says which addresses a port surely has: a shortcut past `record`, which it
// must never contradict. A row is cleared before the record behind it changes.
type ownRow struct {
	IfIndex, VSID uint32
	CA            [2][16]byte // IPv4, IPv6; zero: none
}

// family is the place of an address in a row.
func family(ca netip.Addr) int {
	if ca.Is4() {
		return 0
	}
	return 1
}

// owns reports whether a record gives its address to a port's guest; a wildcard gives none.
func owns(p table.Port, k table.RecordKey, r table.Record) bool {
	return !k.CA.IsUnspecified() && r.IfIndex != 0 && r.IfIndex == p.IfIndex && !r.Router && k.VSID == p.VSID
}

// holds reports whether everything that a row says is so, where find looks a record up.
func (r ownRow) holds(p table.Port, find func(table.RecordKey) (table.Record, bool)) bool {
	if r.IfIndex != p.IfIndex || r.VSID != uint32(p.VSID) {
		return false
	}
	for _, b := range r.CA {
		ca := from16(b)
		if !ca.IsValid() {
			continue
		}
		k := table.RecordKey{VSID: p.VSID, CA: ca}
		if rec, ok := find(k); !ok || !owns(p, k, rec) {
			return false
		}
	}
	return true
}

// disown clears the rows that will not be true when want is in the maps. It reports
// whether a port that stays has lost one.
func (s *Switch) disown(want table.Set, sweep bool) (lost bool, err error) {
	find := func(k table.RecordKey) (table.Record, bool) {
		r, ok := want.Records[k]
		if !ok && !sweep {
			r, ok = s.have.Records[k]
		}
		return r, ok
	}
	for ifindex, row := range s.own {
		p, ok := want.Ports[ifindex]
		if !ok && !sweep {
			p = s.have.Ports[ifindex]
		}
		if row.holds(p, find) {
			continue
		}
		if err := s.maps["own"].Put(s.slots[ifindex], ownRow{}); err != nil {
			return lost, fmt.Errorf("own addresses of device %d: %w", ifindex, err)
		}
		delete(s.own, ifindex)
		lost = lost || p.IfIndex != 0
	}
	return lost, nil
}

// localRecords lists the records of this host's ports.
func (s *Switch) localRecords() []table.RecordKey {
	var local []table.RecordKey
	for k, r := range s.have.Records {
		if r.IfIndex != 0 {
			local = append(local, k)
		}
	}
	return local
}

// ownUp enters what the records of keys, as the maps hold them, give to ports.
func (s *Switch) ownUp(keys []table.RecordKey) error {
	changed := map[uint32]ownRow{}
	for _, k := range keys {
		r := s.have.Records[k]
		p, ok := s.have.Ports[r.IfIndex]
		if !ok || !owns(p, k, r) {
			continue
		}
		row, ok := changed[r.IfIndex]
		if !ok {
			row = s.own[r.IfIndex]
		}
		if row.CA[family(k.CA)] != ([16]byte{}) {
			continue
		}
		row.IfIndex, row.VSID = r.IfIndex, uint32(k.VSID)
		row.CA[family(k.CA)] = model.As16(k.CA)
		changed[r.IfIndex] = row
	}
	for ifindex, row := range changed {
		if err := s.maps["own"].Put(s.slots[ifindex], row); err != nil {
			return fmt.Errorf("own addresses of device %d: %w", ifindex, err)
		}
		s.own[ifindex] = row
	}
	return nil
}

// recallOwn keeps the rows that are true, clears the others, and fills what is missing.
func (s *Switch) recallOwn() error {
	s.own = map[uint32]ownRow{}
	byslot := make(map[uint32]uint32, len(s.slots))
	for ifindex, slot := range s.slots {
		byslot[slot] = ifindex
	}
	find := func(k table.RecordKey) (table.Record, bool) { r, ok := s.have.Records[k]; return r, ok }
	var stale []uint32
	err := readAll(s.maps["own"], func(slot uint32, row ownRow) error {
		ifindex, used := byslot[slot]
		switch {
		case row == ownRow{}:
		case used && row.holds(s.have.Ports[ifindex], find):
			s.own[ifindex] = row
		default:
			stale = append(stale, slot)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, slot := range stale {
		if err := s.maps["own"].Put(slot, ownRow{}); err != nil {
			return fmt.Errorf("own addresses in slot %d: %w", slot, err)
		}
	}
	return s.ownUp(s.localRecords())
}
