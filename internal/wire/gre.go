package wire

import "github.com/weft-sdn/weft/internal/model"

// NVGRELen is the length of the GRE header with a key, in bytes.
const NVGRELen = 8

const (
	greKey       = 0x2000
	greMustMatch = 0xfc07 // C, reserved 1, K, S, reserved 4 and 5, version: RFC 2784 2.3, RFC 2890 2
	greTEB       = 0x6558 // transparent Ethernet bridging
)

// NVGRE is the GRE header of RFC 7637 section 3.2.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|0| |1|0|   Reserved0     | Ver |   Protocol Type (0x6558)      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|            Virtual Subnet ID (VSID)           |    FlowID     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type NVGRE struct {
	VSID   model.VSID // 24 bits; not checked against the reserved ranges
	FlowID uint8
}

// ParseNVGRE reads the first 8 bytes of b; ErrTruncated, ErrGRE.
func ParseNVGRE(b []byte) (NVGRE, error) {
	if len(b) < NVGRELen {
		return NVGRE{}, ErrTruncated
	}
	if be16(b)&greMustMatch != greKey || be16(b[2:]) != greTEB {
		return NVGRE{}, ErrGRE
	}
	key := be32(b[4:])
	return NVGRE{VSID: model.VSID(key >> 8), FlowID: uint8(key)}, nil
}

// Encode writes 8 bytes; ErrTruncated.
func (h NVGRE) Encode(b []byte) error {
	if len(b) < NVGRELen {
		return ErrTruncated
	}
	put16(b, greKey)
	put16(b[2:], greTEB)
	put32(b[4:], uint32(h.VSID)<<8|uint32(h.FlowID))
	return nil
}
