package wire

import "github.com/weft-sdn/weft/internal/model"

// Lengths in bytes, and the first source port of VXLAN's entropy (RFC 7348 section 5).
const (
	UDPLen         = 8
	VXLANLen       = 8
	VXLANFirstPort = 49152
)

const vxlanVNI = 0x08 // the I flag

// UDP is RFC 768.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          Source Port          |        Destination Port       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|            Length             |            Checksum           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type UDP struct {
	Source, Destination uint16
	Length              uint16 // header and payload
	Checksum            uint16 // 0: none; not verified
}

// ParseUDP reads the first 8 bytes of b; ErrTruncated.
func ParseUDP(b []byte) (UDP, error) {
	if len(b) < UDPLen {
		return UDP{}, ErrTruncated
	}
	return UDP{Source: be16(b), Destination: be16(b[2:]), Length: be16(b[4:]), Checksum: be16(b[6:])}, nil
}

// Encode writes 8 bytes; ErrTruncated.
func (h UDP) Encode(b []byte) error {
	if len(b) < UDPLen {
		return ErrTruncated
	}
	put16(b, h.Source)
	put16(b[2:], h.Destination)
	put16(b[4:], h.Length)
	put16(b[6:], h.Checksum)
	return nil
}

// VXLAN is RFC 7348 section 5.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|R|R|R|R|I|R|R|R|            Reserved                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                VXLAN Network Identifier (VNI) |   Reserved    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type VXLAN struct {
	VSID model.VSID // 24 bits; not checked against the reserved ranges
}

// ParseVXLAN reads the first 8 bytes of b; ErrTruncated, ErrVXLAN without the I flag. Reserved bits are ignored.
func ParseVXLAN(b []byte) (VXLAN, error) {
	if len(b) < VXLANLen {
		return VXLAN{}, ErrTruncated
	}
	if b[0]&vxlanVNI == 0 {
		return VXLAN{}, ErrVXLAN
	}
	return VXLAN{VSID: model.VSID(be32(b[4:]) >> 8)}, nil
}

// Encode writes 8 bytes; ErrTruncated.
func (h VXLAN) Encode(b []byte) error {
	if len(b) < VXLANLen {
		return ErrTruncated
	}
	put32(b, vxlanVNI<<24)
	put32(b[4:], uint32(h.VSID)<<8)
	return nil
}
