package wire

import "net/netip"

// IPv4Len is the length of an IPv4 header without options, in bytes.
const IPv4Len = 20

// IP protocol numbers, which are also the next headers of IPv6.
const (
	ProtoHopByHop  = 0
	ProtoICMP      = 1
	ProtoTCP       = 6
	ProtoUDP       = 17
	ProtoRouting   = 43
	ProtoFragment  = 44
	ProtoGRE       = 47
	ProtoESP       = 50
	ProtoICMPv6    = 58
	ProtoNoNext    = 59
	ProtoDestOpts  = 60
	protoExtension = 8 // unit of the lengths of extension headers and ND options
)

// IPv4 is RFC 791 section 3.1. Options are not decoded.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Version|  IHL  |    DSCP   |ECN|         Total Length          |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|        Identification         |0|D|M|     Fragment Offset     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|      TTL      |    Protocol   |        Header Checksum        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                        Source Address                         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                      Destination Address                      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type IPv4 struct {
	HeaderLen   int    // bytes, 20 to 60
	TOS         uint8  // DSCP and ECN
	TotalLen    uint16 // header and payload
	ID          uint16
	DontFrag    bool
	MoreFrags   bool
	FragOffset  uint16 // in units of 8 bytes
	TTL         uint8
	Proto       uint8
	Checksum    uint16 // as in the header; not verified
	Source      netip.Addr
	Destination netip.Addr
}

// ParseIPv4 reads the header at the start of b, where b is all there is of the packet;
// it may be longer (padding). ErrTruncated for less than 20 bytes, ErrVersion,
// ErrLength for an IHL or total length that cannot be.
func ParseIPv4(b []byte) (IPv4, error) {
	if len(b) < IPv4Len {
		return IPv4{}, ErrTruncated
	}
	if b[0]>>4 != 4 {
		return IPv4{}, ErrVersion
	}
	frag := be16(b[6:])
	h := IPv4{
		HeaderLen: int(b[0]&15) * 4, TOS: b[1], TotalLen: be16(b[2:]), ID: be16(b[4:]),
		DontFrag: frag&0x4000 != 0, MoreFrags: frag&0x2000 != 0, FragOffset: frag & 0x1fff,
		TTL: b[8], Proto: b[9], Checksum: be16(b[10:]),
		Source: netip.AddrFrom4([4]byte(b[12:16])), Destination: netip.AddrFrom4([4]byte(b[16:20])),
	}
	if h.HeaderLen < IPv4Len || int(h.TotalLen) < h.HeaderLen || int(h.TotalLen) > len(b) {
		return IPv4{}, ErrLength
	}
	return h, nil
}

// Encode writes the 20 fixed bytes, HeaderLen/4 as IHL and Checksum as it stands (SealIPv4
// sets the right one); ErrTruncated, and ErrAddress if an address is not IPv4.
func (h IPv4) Encode(b []byte) error {
	if len(b) < IPv4Len {
		return ErrTruncated
	}
	if !h.Source.Is4() || !h.Destination.Is4() {
		return ErrAddress
	}
	frag := h.FragOffset & 0x1fff
	if h.DontFrag {
		frag |= 0x4000
	}
	if h.MoreFrags {
		frag |= 0x2000
	}
	b[0], b[1] = 4<<4|byte(h.HeaderLen/4)&15, h.TOS
	put16(b[2:], h.TotalLen)
	put16(b[4:], h.ID)
	put16(b[6:], frag)
	b[8], b[9] = h.TTL, h.Proto
	put16(b[10:], h.Checksum)
	src, dst := h.Source.As4(), h.Destination.As4()
	copy(b[12:], src[:])
	copy(b[16:], dst[:])
	return nil
}

// SealIPv4 computes the checksum of the header b, whole with its options, and
// writes it into it.
func SealIPv4(b []byte) error {
	if len(b) < IPv4Len {
		return ErrTruncated
	}
	put16(b[10:], 0)
	put16(b[10:], Checksum(b, 0))
	return nil
}
