package datapath

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/weft-sdn/weft/internal/table"
)

const (
	progShareOut  = "share_out"
	progShareTurn = "share_turn"
)

// Classes of the queue of an uplink: SHARE_MAJOR and SHARE_OTHERS of bpf/lib/share.h.
const (
	ShareMajor  = 0x7767
	ShareOthers = 2 // what came by some device, of no port that has a share
	ShareHost   = 3 // all else: what the host itself sends

	// Of ports: multiples, so that whoever takes a class for a priority, as queues with bands do, sees 0.
	shareStep = 16
)

type shareRow struct {
	Minimum             uint64
	Weight, Class, Port uint32
	_                   uint32
}

type turnRow struct{ To, Waited uint32 }

// Turn is how packets of an uplink wait: they are sent out of Entry, whose queue has the classes, and come out of Exit,
// the device below it.
type Turn struct{ Uplink, Entry, Exit uint32 }

func (s *Switch) putShares(want table.Set, keys []uint32) []error {
	name := func(k uint32) string { return fmt.Sprintf("share of port %d", want.Shares[k].Port) }
	return putRows(s.have.Shares, want.Shares, keys, name, func(k uint32, v table.Share) error {
		row := shareRow{Minimum: v.Minimum, Weight: v.Weight, Port: uint32(v.Port)}
		if class := s.shareClass(k); class != 0 {
			row.Class = ShareMajor<<16 | uint32(class)
		}
		return s.maps["share"].Put(k, row)
	})
}

func (s *Switch) deleteShares(keys []uint32) []error {
	name := func(k uint32) string { return fmt.Sprintf("share of device %d", k) }
	return deleteRows(s.have.Shares, keys, name, func(k uint32) error { return s.maps["share"].Delete(k) })
}

func (s *Switch) shareClass(ifindex uint32) uint16 {
	slot, ok := s.slots[ifindex]
	if class := (slot + 1) * shareStep; ok && class < 1<<16 {
		return uint16(class)
	}
	return 0
}

// ShareClass is the number of the class, in the queues of uplinks, of the port on a device; 0: it has none.
func (s *Switch) ShareClass(ifindex uint32) uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shareClass(ifindex)
}

// Share has all that leaves by uplinks wait for its turn, in the classes of these ports' devices, and nothing else any more.
// It comes after AttachPort. Repeating it is harmless.
func (s *Switch) Share(ports []uint32, turns []Turn) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows := map[uint32]turnRow{}
	for _, t := range turns {
		rows[t.Uplink], rows[t.Exit] = turnRow{To: t.Entry}, turnRow{To: t.Uplink, Waited: 1}
	}
	var errs []error
	for n := range s.links {
		if n.program == progShareTurn && s.unused(n.ifindex, rows) || n.program == progShareOut && !slices.Contains(ports, n.ifindex) {
			errs = append(errs, s.detach(n))
		}
	}
	errs = append(errs, s.putTurns(rows))
	for _, t := range turns { // from behind: nothing waits for ever
		for _, ifindex := range []uint32{t.Exit, t.Uplink} {
			errs = append(errs, s.attach(linkName{progShareTurn, ifindex}, ebpf.AttachTCXEgress))
		}
	}
	for _, ifindex := range ports {
		errs = append(errs, s.attach(linkName{progShareOut, ifindex}, ebpf.AttachTCXIngress))
	}
	return errors.Join(errs...)
}

// unused tells whether nothing takes its turn at a device any more. Where a queue ends something may still wait: its program goes with
// the device.
func (s *Switch) unused(ifindex uint32, rows map[uint32]turnRow) bool {
	if _, ok := rows[ifindex]; ok {
		return false
	}
	var have turnRow
	return s.maps["turn"].Lookup(ifindex, &have) != nil || have.Waited == 0
}

func (s *Switch) putTurns(rows map[uint32]turnRow) error {
	var errs []error
	for ifindex, row := range rows {
		var have turnRow
		if err := s.maps["turn"].Lookup(ifindex, &have); err == nil && have == row {
			continue
		}
		if err := s.maps["turn"].Put(ifindex, row); err != nil {
			errs = append(errs, fmt.Errorf("turns of device %d: %w", ifindex, err))
		}
	}
	return errors.Join(errs...)
}

// Sharing lists the devices, ports and uplinks, that Share has put programs on.
func (s *Switch) Sharing() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []uint32
	for n := range s.links {
		if n.program == progShareOut || n.program == progShareTurn {
			out = append(out, n.ifindex)
		}
	}
	return out
}
