package wire

// ICMPLen is the length of the header that ICMP and ICMPv6 messages share, in bytes.
const ICMPLen = 8

// ICMP types and codes (RFC 792, RFC 1191) and ICMPv6 ones (RFC 4443).
const (
	ICMPEchoReply        = 0
	ICMPUnreachable      = 3
	ICMPEchoRequest      = 8
	ICMPTimeExceeded     = 11
	ICMPParameter        = 12
	ICMPTimestamp        = 13
	ICMPTimestampReply   = 14
	ICMPCodeFragNeeded   = 4 // of ICMPUnreachable
	ICMPv6Unreachable    = 1
	ICMPv6PacketTooBig   = 2
	ICMPv6TimeExceeded   = 3
	ICMPv6EchoRequest    = 128
	ICMPv6EchoReply      = 129
	ICMPv6FirstNotAnErr  = 128 // types below are errors, RFC 4443 2.1
	ICMPv6RouterSolicit  = 133
	ICMPv6RouterAdvert   = 134
	ICMPv6NeighbourSol   = 135
	ICMPv6NeighbourAdv   = 136
	ICMPv6Redirect       = 137
	icmpv6FirstND        = ICMPv6RouterSolicit
	icmpv6LastND         = ICMPv6Redirect
	ndOptionSourceMAC    = 1
	ndOptionTargetMAC    = 2
	maxNDOptions         = 4
	neighbourMessageLen  = 24
	ndLinkLayerOptionLen = 8
)

// ICMP is the head of a message of RFC 792 or RFC 4443: type, code, checksum and
// four bytes that each type uses in its own way.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Type      |     Code      |           Checksum            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|    unused, identifier and sequence, or an MTU, by the type    |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type ICMP struct {
	Type, Code uint8
	Checksum   uint16 // as in the header; not verified
	Rest       uint32
}

// ParseICMP reads the first 8 bytes of b; ErrTruncated.
func ParseICMP(b []byte) (ICMP, error) {
	if len(b) < ICMPLen {
		return ICMP{}, ErrTruncated
	}
	return ICMP{Type: b[0], Code: b[1], Checksum: be16(b[2:]), Rest: be32(b[4:])}, nil
}

// Encode writes 8 bytes; ErrTruncated.
func (h ICMP) Encode(b []byte) error {
	if len(b) < ICMPLen {
		return ErrTruncated
	}
	b[0], b[1] = h.Type, h.Code
	put16(b[2:], h.Checksum)
	put32(b[4:], h.Rest)
	return nil
}

// SealICMP writes the checksum of the ICMP message b, all of it.
func SealICMP(b []byte) error {
	if len(b) < ICMPLen {
		return ErrTruncated
	}
	put16(b[2:], 0)
	put16(b[2:], Checksum(b, 0))
	return nil
}

// SealICMPv6 writes the checksum of the ICMPv6 message b, all of it, as sent with
// the addresses of h (RFC 4443 section 2.3).
func SealICMPv6(h IPv6, b []byte) error {
	if len(b) < ICMPLen {
		return ErrTruncated
	}
	put16(b[2:], 0)
	put16(b[2:], Checksum(b, PseudoHeader(h.Source, h.Destination, ProtoICMPv6, len(b))))
	return nil
}
