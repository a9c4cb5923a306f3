package wire

import "net/netip"

// Checksum is the Internet checksum (RFC 1071) of b, ready for the header, on top
// of a partial sum such as PseudoHeader gives. An odd last byte counts as the high
// half of a word.
func Checksum(b []byte, partial uint32) uint16 {
	sum := uint64(partial)
	for ; len(b) >= 2; b = b[2:] {
		sum += uint64(be16(b))
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// PseudoHeader is the partial sum that TCP, UDP and ICMPv6 add for their addresses,
// protocol and length in bytes (RFC 9293 section 3.1, RFC 8200 section 8.1). Both
// addresses are of one family.
func PseudoHeader(src, dst netip.Addr, proto uint8, length int) uint32 {
	sum := uint32(proto) + uint32(length)>>16 + uint32(length)&0xffff
	for _, a := range [2]netip.Addr{src, dst} {
		if a.Is4() {
			b := a.As4()
			sum += uint32(be16(b[:])) + uint32(be16(b[2:]))
			continue
		}
		b := a.As16()
		for i := 0; i < 16; i += 2 {
			sum += uint32(be16(b[i:]))
		}
	}
	return sum
}

// UpdateChecksum is the checksum after one 16-bit word under it changed from old to
// new (RFC 1624, equation 3).
func UpdateChecksum(checksum, old, new uint16) uint16 {
	sum := uint32(^checksum) + uint32(^old) + uint32(new)
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	return ^uint16(sum)
}
