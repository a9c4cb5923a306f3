package wire

import "net/netip"

// IPv6Len is the length of the fixed IPv6 header, in bytes.
const IPv6Len = 40

// MaxExtensions is how many IPv6 extension headers Walk follows.
const MaxExtensions = 6

// IPv6 is RFC 8200 section 3.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Version| Traffic Class |              Flow Label               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|        Payload Length         |  Next Header  |   Hop Limit   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                                                               |
//	+                        Source Address                         +
//	|                          (128 bits)                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                                                               |
//	+                      Destination Address                      +
//	|                          (128 bits)                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type IPv6 struct {
	Class       uint8
	Flow        uint32 // 20 bits
	PayloadLen  uint16 // what follows the fixed header, extension headers included
	Next        uint8
	HopLimit    uint8
	Source      netip.Addr
	Destination netip.Addr
}

// ParseIPv6 reads the fixed header at the start of b, where b is all there is of
// the packet; it may be longer (padding). ErrTruncated for less than 40 bytes, ErrVersion, ErrLength
// for a payload past b, ErrAddress for a multicast source (RFC 4291 2.7) and for
// addresses in ::ffff:0:0/96, which mean IPv4 wherever they are looked up.
func ParseIPv6(b []byte) (IPv6, error) {
	if len(b) < IPv6Len {
		return IPv6{}, ErrTruncated
	}
	word := be32(b)
	if word>>28 != 6 {
		return IPv6{}, ErrVersion
	}
	h := IPv6{
		Class: uint8(word >> 20), Flow: word & 0xfffff, PayloadLen: be16(b[4:]), Next: b[6], HopLimit: b[7],
		Source: netip.AddrFrom16([16]byte(b[8:24])), Destination: netip.AddrFrom16([16]byte(b[24:40])),
	}
	if IPv6Len+int(h.PayloadLen) > len(b) {
		return IPv6{}, ErrLength
	}
	if h.Source.IsMulticast() || h.Source.Is4In6() || h.Destination.Is4In6() {
		return IPv6{}, ErrAddress
	}
	return h, nil
}

// Encode writes 40 bytes; ErrTruncated, and ErrAddress if an address is not IPv6.
func (h IPv6) Encode(b []byte) error {
	if len(b) < IPv6Len {
		return ErrTruncated
	}
	if !h.Source.Is6() || !h.Destination.Is6() {
		return ErrAddress
	}
	put32(b, 6<<28|uint32(h.Class)<<20|h.Flow&0xfffff)
	put16(b[4:], h.PayloadLen)
	b[6], b[7] = h.Next, h.HopLimit
	src, dst := h.Source.As16(), h.Destination.As16()
	copy(b[8:], src[:])
	copy(b[24:], dst[:])
	return nil
}

// Upper is where the extension headers of an IPv6 packet lead.
type Upper struct {
	Proto         uint8 // protocol of what follows the last header followed
	Offset        int   // of what follows, in bytes from the start of the fixed header
	Fragment      bool  // a part of a larger packet
	LaterFragment bool  // a part other than the first: no upper-layer header is here
}

// Walk follows the extension headers of the packet b, whose fixed header is h and
// whose length ParseIPv6 has checked: Hop-by-Hop, Routing, Destination Options
// (RFC 8200 sections 4.3, 4.4, 4.6) and Fragment (4.5).
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Next Header  |  Hdr Ext Len  |  length 8 * (Hdr Ext Len + 1) |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Next Header  |   Reserved    |     Fragment Offset     |Res|M|
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                        Identification                         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// ErrExtensions: a seventh, one that reaches past the payload, and of a fragment one behind its Fragment header, or a part that
// is not the last and not of whole 8 bytes. An overlapping fragment could otherwise change what is found (RFC 7112, RFC 1858).
func (h IPv6) Walk(b []byte) (Upper, error) {
	end := IPv6Len + int(h.PayloadLen)
	if end > len(b) {
		return Upper{}, ErrLength
	}
	u := Upper{Proto: h.Next, Offset: IPv6Len}
	for n := 0; ; n++ {
		switch u.Proto {
		case ProtoHopByHop, ProtoRouting, ProtoDestOpts, ProtoFragment:
		default:
			return u, nil
		}
		if n == MaxExtensions || u.Offset+protoExtension > end {
			return Upper{}, ErrExtensions
		}
		if u.Fragment {
			return Upper{}, ErrExtensions
		}
		x := b[u.Offset:]
		if u.Proto == ProtoFragment {
			word := be16(x[2:])
			u.Proto, u.Offset = x[0], u.Offset+8
			if part := end - u.Offset; word&1 != 0 && (part == 0 || part%8 != 0) {
				return Upper{}, ErrExtensions
			}
			u.LaterFragment = word>>3 != 0
			u.Fragment = u.Fragment || word&1 != 0 || u.LaterFragment
			if u.LaterFragment {
				return u, nil
			}
			continue
		}
		u.Proto, u.Offset = x[0], u.Offset+protoExtension*(int(x[1])+1)
		if u.Offset > end {
			return Upper{}, ErrExtensions
		}
	}
}
