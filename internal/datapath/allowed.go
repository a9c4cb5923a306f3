package datapath

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// maxAllowed rows of all ports together, as in bpf/maps/allowed.h.
const maxAllowed = 1 << 16

const (
	allowedFixedBits = 64
	allowedMAC       = 2 // in the place of a family
)

type allowedKey struct {
	PrefixLen       uint32
	IfIndex, Family [4]byte // network order
	Addr            [16]byte
}

func encodeAllowed(a table.Allowed) allowedKey {
	k := allowedKey{PrefixLen: allowedFixedBits + 128}
	binary.BigEndian.PutUint32(k.IfIndex[:], a.IfIndex)
	if !a.Prefix.IsValid() {
		k.Family[3] = allowedMAC
		copy(k.Addr[10:], a.MAC[:])
		return k
	}
	k.Family[3], k.PrefixLen = 6, allowedFixedBits+uint32(a.Prefix.Bits())
	if a.Prefix.Addr().Is4() {
		k.Family[3], k.PrefixLen = 4, k.PrefixLen+96
	}
	k.Addr = model.As16(a.Prefix.Addr())
	return k
}

func decodeAllowed(k allowedKey) (table.Allowed, error) {
	a, bits := table.Allowed{IfIndex: binary.BigEndian.Uint32(k.IfIndex[:])}, int(k.PrefixLen)-allowedFixedBits
	addr := netip.AddrFrom16(k.Addr)
	switch k.Family[3] {
	case allowedMAC:
		a.MAC = model.MAC(k.Addr[10:])
		return a, nil
	case 4:
		addr, bits = addr.Unmap(), bits-96
	}
	if a.Prefix = netip.PrefixFrom(addr, bits); !a.Prefix.IsValid() {
		return a, fmt.Errorf("allowed: prefix length %d of %s makes no sense; run `weft verify`", k.PrefixLen, addr)
	}
	return a, nil
}

func nameAllowed(k table.Allowed) string {
	return fmt.Sprintf("source %s%s of device %d", k.Prefix, k.MAC, k.IfIndex)
}

func (s *Switch) putAllowed(keys []table.Allowed) []error {
	return putRows(s.have.Allowed, nil, keys, nameAllowed, func(k table.Allowed, _ struct{}) error {
		return s.maps["allowed"].Put(encodeAllowed(k), uint32(1))
	})
}

func (s *Switch) deleteAllowed(keys []table.Allowed) []error {
	return deleteRows(s.have.Allowed, keys, nameAllowed, func(k table.Allowed) error { return s.maps["allowed"].Delete(encodeAllowed(k)) })
}

type stormRow struct {
	Used        uint64
	Limit, Zero uint32
}

// putStorm gives a port's own limit of what it may have flooded.
func (s *Switch) putStorm(slot uint32, p table.Port) error {
	if err := s.maps["storm"].Put(slot, stormRow{Limit: p.StormLimit}); err != nil {
		return fmt.Errorf("storm limit: %w", err)
	}
	return nil
}
