package wire

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
)

// ARPLen is the length of an ARP packet for IPv4 over Ethernet, in bytes.
const ARPLen = 28

// ARP operations.
const (
	ARPRequest = 1
	ARPReply   = 2
)

// ARP is RFC 826 for Ethernet (hardware type 1, 6 bytes) and IPv4 (0x0800, 4 bytes).
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|       Hardware Type (1)       |    Protocol Type (0x0800)     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|    HLen (6)   |    PLen (4)   |           Operation           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                          Sender MAC                           |
//	+                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                               |        Sender Address         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   Sender Address (continued)  |                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//	|                          Target MAC                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                        Target Address                         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type ARP struct {
	Op         uint16
	SenderMAC  model.MAC
	Sender     netip.Addr // IPv4
	TargetMAC  model.MAC
	TargetAddr netip.Addr // IPv4
}

// ParseARP reads the first 28 bytes of b; ErrTruncated, ErrHardware.
func ParseARP(b []byte) (ARP, error) {
	if len(b) < ARPLen {
		return ARP{}, ErrTruncated
	}
	op := be16(b[6:])
	if be16(b) != 1 || be16(b[2:]) != TypeIPv4 || b[4] != 6 || b[5] != 4 || op != ARPRequest && op != ARPReply {
		return ARP{}, ErrHardware
	}
	return ARP{
		Op:        op,
		SenderMAC: model.MAC(b[8:14]), Sender: netip.AddrFrom4([4]byte(b[14:18])),
		TargetMAC: model.MAC(b[18:24]), TargetAddr: netip.AddrFrom4([4]byte(b[24:28])),
	}, nil
}

// Encode writes 28 bytes; ErrTruncated, and ErrAddress if an address is not IPv4.
func (h ARP) Encode(b []byte) error {
	if len(b) < ARPLen {
		return ErrTruncated
	}
	if !h.Sender.Is4() || !h.TargetAddr.Is4() {
		return ErrAddress
	}
	put16(b, 1)
	put16(b[2:], TypeIPv4)
	b[4], b[5] = 6, 4
	put16(b[6:], h.Op)
	sender, target := h.Sender.As4(), h.TargetAddr.As4()
	copy(b[8:], h.SenderMAC[:])
	copy(b[14:], sender[:])
	copy(b[18:], h.TargetMAC[:])
	copy(b[24:], target[:])
	return nil
}
