package datapath

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/model"
)

// fillDrops makes the rows that count when the map is full: every reason, both
// directions, port 0.
func (s *Switch) fillDrops() error {
	for v := range 256 {
		reason := model.Verdict(v)
		if v != 0 && (!reason.IsDrop() || reason.Info().Stage == "none") {
			continue
		}
		for d := range uint8(2) {
			k := dropKey{Reason: uint8(v), Direction: d}
			err := s.maps["drop"].Update(k, dropRow{}, unix.BPF_NOEXIST)
			if err != nil && !errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("prepare drop counters: %w", err)
			}
		}
	}
	return nil
}

// Drops reads the drop counters, those that are not zero; of ACL_DENIED, one for each rule.
func (s *Switch) Drops() ([]DropCount, error) {
	var out []DropCount
	err := readAll(s.maps["drop"], func(k dropKey, r dropRow) error {
		if r.Packets != 0 {
			out = append(out, DropCount{model.Verdict(k.Reason), Direction(k.Direction), model.PortID(k.Port), r.Packets, r.Bytes, model.RuleID{}})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return s.byRule(out)
}

// forgetDrops deletes the drop counters of a port that is gone.
func (s *Switch) forgetDrops(gone map[model.PortID]bool) error {
	var keys []dropKey
	err := readAll(s.maps["drop"], func(k dropKey, _ dropRow) error {
		if k.Port != 0 && gone[model.PortID(k.Port)] {
			keys = append(keys, k)
		}
		return nil
	})
	for _, k := range keys {
		err = errors.Join(err, ignoreMissing(s.maps["drop"].Delete(k)))
	}
	if len(gone) == 0 {
		return err
	}
	return errors.Join(err, s.forgetDenied(func(k deniedKey) bool { return gone[model.PortID(k.Port)] }))
}

// Traffic reads the counters of the ports that the switch holds.
func (s *Switch) Traffic() (map[model.PortID]TrafficCount, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[model.PortID]TrafficCount, len(s.have.Ports))
	ids := map[uint32]model.PortID{}
	for ifindex, p := range s.have.Ports {
		ids[ifindex] = p.ID
	}
	for ifindex, p := range s.have.VLANPorts {
		ids[ifindex] = p.ID
	}
	for ifindex, id := range ids {
		var cpus []trafficRow
		if err := s.maps["traffic"].Lookup(s.slots[ifindex], &cpus); err != nil {
			return nil, fmt.Errorf("read traffic of port %d: %w", id, err)
		}
		t := out[id]
		for _, c := range cpus {
			t.OutPackets += c.OutPackets
			t.OutBytes += c.OutBytes
			t.InPackets += c.InPackets
			t.InBytes += c.InBytes
		}
		out[id] = t
	}
	return out, nil
}

// Events delivers dropped packets until ctx ends, then closes the channel.
// Each event goes to one reader only.
func (s *Switch) Events(ctx context.Context) (<-chan Event, error) {
	return readRing(ctx, s, "event", s.decodeEvent)
}

func (s *Switch) decodeEvent(raw []byte) (Event, bool) {
	var r eventRow
	if err := binary.Read(bytes.NewReader(raw), binary.NativeEndian, &r); err != nil || int(r.HeadLen) > len(r.Head) {
		return Event{}, false
	}
	return Event{
		Time: fromMonotonic(r.Time), Reason: model.Verdict(r.Reason), Direction: Direction(r.Direction),
		Port: model.PortID(r.Port), IfIndex: r.IfIndex, Length: r.Len, Head: bytes.Clone(r.Head[:r.HeadLen]),
		Rule: s.ruleOf(r.Rule),
	}, true
}

// fromMonotonic turns the kernel's clock into the time of day.
func fromMonotonic(ns uint64) time.Time {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return time.Now()
	}
	return time.Now().Add(time.Duration(int64(ns) - now.Nano()))
}
