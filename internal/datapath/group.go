package datapath

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// MaxGroups is how many memberships of its ports a switch holds.
const MaxGroups = 32768

// SwitchMark is what a frame carries that may be sent into a port's device (bpf/lib/config.h).
const SwitchMark = 0x77656674

type groupKey struct {
	VSID, IfIndex uint32
	Group         [16]byte
}

// GroupReport is what a guest said of the groups that it listens to: the IP packet, as far
// as 1500 bytes.
type GroupReport struct {
	IfIndex uint32
	VSID    model.VSID
	Packet  []byte
}

// SetGroups makes want the memberships that the switch goes by; Apply leaves them alone.
func (s *Switch) SetGroups(want map[table.GroupMember]struct{}) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(want) > MaxGroups {
		return &ErrFull{Table: "multicast groups", Need: len(want), Limit: MaxGroups}
	}
	put, del := diffRows(s.have.Groups, want, true)
	name := func(m table.GroupMember) string { return fmt.Sprintf("group %s of device %d", m.Group, m.IfIndex) }
	errs := deleteRows(s.have.Groups, del, name, func(m table.GroupMember) error { return s.maps["group"].Delete(encodeGroup(m)) })
	errs = append(errs, putRows(s.have.Groups, nil, put, name, func(m table.GroupMember, _ struct{}) error {
		return s.maps["group"].Put(encodeGroup(m), uint32(1))
	})...)
	return errors.Join(errs...)
}

// Groups are the memberships that the switch goes by.
func (s *Switch) Groups() map[table.GroupMember]struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.have.Groups)
}

func encodeGroup(m table.GroupMember) groupKey {
	return groupKey{uint32(m.VSID), m.IfIndex, addr16(m.Group)}
}

// GroupReports delivers what guests say of groups until ctx ends, then closes the channel.
// Each report goes to one reader only.
func (s *Switch) GroupReports(ctx context.Context) (<-chan GroupReport, error) {
	return readRing(ctx, s, "group_report", decodeReport)
}

func decodeReport(raw []byte) (GroupReport, bool) {
	const head = 12
	if len(raw) < head {
		return GroupReport{}, false
	}
	n := binary.NativeEndian.Uint32(raw[8:])
	if n == 0 || int(n) > len(raw)-head {
		return GroupReport{}, false
	}
	return GroupReport{IfIndex: binary.NativeEndian.Uint32(raw), VSID: model.VSID(binary.NativeEndian.Uint32(raw[4:])),
		Packet: append([]byte(nil), raw[head:head+n]...)}, true
}
