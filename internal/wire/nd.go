package wire

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
)

// NeighbourLen is the length of a Neighbour Solicitation or Advertisement without options, in bytes.
const NeighbourLen = neighbourMessageLen

// Neighbour is a Neighbour Solicitation (type 135) or Advertisement (136), RFC 4861
// sections 4.3 and 4.4, and the link-layer address that it claims (4.6.1); or what a Router
// Solicitation (133, section 4.1) claims.
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Type      |   Code (0)    |           Checksum            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|R|S|O|                        Reserved                         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                                                               |
//	+                        Target Address                         +
//	|                          (128 bits)                           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	| Option: type  |  length / 8   |  address: 6 bytes for 1 and 2 |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
type Neighbour struct {
	Type                        uint8      // 133, 135 or 136
	Router, Solicited, Override bool       // of an Advertisement: R, S, O
	Target                      netip.Addr // a Router Solicitation has none
	MAC                         model.MAC  // claimed: source of a Solicitation, target of an Advertisement
	HasMAC                      bool
}

// ParseNeighbour reads the whole message b: the fixed part and at most four
// options, which must end where b does. ErrTruncated, ErrAddress for a target that is
// multicast, unspecified or IPv4-mapped, ErrOption.
func ParseNeighbour(b []byte) (Neighbour, error) {
	if len(b) < 8 {
		return Neighbour{}, ErrTruncated
	}
	n, options := Neighbour{Type: b[0]}, b[8:]
	if n.Type != ICMPv6RouterSolicit {
		if len(b) < NeighbourLen {
			return Neighbour{}, ErrTruncated
		}
		n.Router, n.Solicited, n.Override = b[4]&0x80 != 0, b[4]&0x40 != 0, b[4]&0x20 != 0
		n.Target, options = netip.AddrFrom16([16]byte(b[8:24])), b[NeighbourLen:]
		if n.Target.IsMulticast() || n.Target.IsUnspecified() || n.Target.Is4In6() {
			return Neighbour{}, ErrAddress
		}
	}
	mac := byte(ndOptionSourceMAC)
	if n.Type == ICMPv6NeighbourAdv {
		mac = ndOptionTargetMAC
	}
	for i := 0; len(options) > 0; i++ {
		if i == maxNDOptions || len(options) < protoExtension {
			return Neighbour{}, ErrOption
		}
		size := int(options[1]) * protoExtension
		if size == 0 || size > len(options) {
			return Neighbour{}, ErrOption
		}
		if options[0] == mac {
			if n.HasMAC || size != ndLinkLayerOptionLen {
				return Neighbour{}, ErrOption
			}
			n.MAC, n.HasMAC = model.MAC(options[2:8]), true
		}
		options = options[size:]
	}
	return n, nil
}

// fixed is where the options begin: of a solicitation of routers, which has no target, behind the header (RFC 4861 section 4.1).
func (n Neighbour) fixed() int {
	if n.Type == ICMPv6RouterSolicit {
		return NeighbourLen - 16
	}
	return NeighbourLen
}

// Len of n as Encode writes it, in bytes: 24, of a router solicitation 8, and 8 more with a MAC.
func (n Neighbour) Len() int {
	if n.HasMAC {
		return n.fixed() + ndLinkLayerOptionLen
	}
	return n.fixed()
}

// Encode writes Len bytes with a zero checksum (SealICMPv6 sets it); ErrTruncated,
// and ErrAddress if there should be a target and it is not IPv6.
func (n Neighbour) Encode(b []byte) error {
	if len(b) < n.Len() {
		return ErrTruncated
	}
	clear(b[:n.Len()])
	b[0] = n.Type
	if n.Type != ICMPv6RouterSolicit {
		if !n.Target.Is6() {
			return ErrAddress
		}
		for i, flag := range [3]bool{n.Router, n.Solicited, n.Override} {
			if flag {
				b[4] |= 0x80 >> i
			}
		}
		target := n.Target.As16()
		copy(b[8:], target[:])
	}
	if !n.HasMAC {
		return nil
	}
	option := b[n.fixed():]
	option[0], option[1] = ndOptionSourceMAC, 1
	if n.Type == ICMPv6NeighbourAdv {
		option[0] = ndOptionTargetMAC
	}
	copy(option[2:], n.MAC[:])
	return nil
}

// IsND reports whether an ICMPv6 type belongs to Neighbour Discovery (RFC 4861).
func IsND(icmpType uint8) bool { return icmpType >= icmpv6FirstND && icmpType <= icmpv6LastND }

// MinND is the least length of a Neighbour Discovery message of a type, in bytes,
// checksum header included (RFC 4861 section 4); 0 for other types.
func MinND(icmpType uint8) int {
	switch icmpType {
	case ICMPv6RouterSolicit:
		return 8
	case ICMPv6RouterAdvert:
		return 16
	case ICMPv6NeighbourSol, ICMPv6NeighbourAdv:
		return NeighbourLen
	case ICMPv6Redirect:
		return 40
	}
	return 0
}
