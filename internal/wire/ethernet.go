package wire

import "github.com/weft-sdn/weft/internal/model"

// EtherTypes.
const (
	TypeIPv4 = 0x0800
	TypeARP  = 0x0806
	TypeVLAN = 0x8100 // 802.1Q C-tag
	TypeQinQ = 0x88a8 // 802.1ad S-tag
	TypeIPv6 = 0x86dd
)

// Lengths in bytes.
const (
	EthernetLen = 14
	VLANLen     = 4
)

// Ethernet is the MAC header, IEEE 802.3 section 3.1.1, without tag and FCS.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                        Destination MAC                        |
//	+                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                               |                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//	|                          Source MAC                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|           EtherType           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Ethernet struct {
	Dst, Src model.MAC
	Type     uint16
}

// ParseEthernet reads the first 14 bytes of b; ErrTruncated.
func ParseEthernet(b []byte) (Ethernet, error) {
	if len(b) < EthernetLen {
		return Ethernet{}, ErrTruncated
	}
	return Ethernet{Dst: model.MAC(b[0:6]), Src: model.MAC(b[6:12]), Type: be16(b[12:])}, nil
}

// Encode writes 14 bytes; ErrTruncated.
func (h Ethernet) Encode(b []byte) error {
	if len(b) < EthernetLen {
		return ErrTruncated
	}
	copy(b, h.Dst[:])
	copy(b[6:], h.Src[:])
	put16(b[12:], h.Type)
	return nil
}

// VLAN is what follows an EtherType of 0x8100 or 0x88a8, IEEE 802.1Q section 9.6.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| PCP |D|          VID          |           EtherType           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type VLAN struct {
	Priority uint8 // 3 bits
	Drop     bool  // drop eligible
	VID      uint16
	Type     uint16 // EtherType of what follows
}

// ParseVLAN reads the 4 bytes after the EtherType that announces a tag; ErrTruncated.
func ParseVLAN(b []byte) (VLAN, error) {
	if len(b) < VLANLen {
		return VLAN{}, ErrTruncated
	}
	t := be16(b)
	return VLAN{Priority: uint8(t >> 13), Drop: t&0x1000 != 0, VID: t & 0xfff, Type: be16(b[2:])}, nil
}

// Encode writes 4 bytes; ErrTruncated.
func (h VLAN) Encode(b []byte) error {
	if len(b) < VLANLen {
		return ErrTruncated
	}
	t := uint16(h.Priority&7)<<13 | h.VID&0xfff
	if h.Drop {
		t |= 0x1000
	}
	put16(b, t)
	put16(b[2:], h.Type)
	return nil
}

// IsTag reports whether an EtherType announces a VLAN tag.
func IsTag(etherType uint16) bool { return etherType == TypeVLAN || etherType == TypeQinQ }
