package intent

import (
	"encoding/binary"
	"net/netip"
)

// unusable lists what no Customer Address may be: it means something else to
// every IP stack, or cannot be told apart from the other family in the tables.
var unusable = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("127.0.0.0/8"),
	netip.MustParsePrefix("224.0.0.0/3"), // multicast, reserved, broadcast
	netip.MustParsePrefix("::/127"),      // unspecified, loopback
	netip.MustParsePrefix("::ffff:0:0/96"),
	netip.MustParsePrefix("fe80::/10"),
	netip.MustParsePrefix("ff00::/8"),
}

// addressProblem says why a cannot be an address of a guest or host, or "".
func addressProblem(a netip.Addr) string {
	switch {
	case !a.IsValid():
		return "is required"
	case a.Zone() != "":
		return "must have no zone"
	case a.Is4In6():
		return "is IPv4 inside IPv6; write it as IPv4"
	}
	for _, u := range unusable {
		if u.Contains(a) {
			return "is inside " + u.String() + ", which is not for hosts"
		}
	}
	return ""
}

// prefixProblem says why p cannot be a prefix of a subnet or route, or "".
func prefixProblem(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return "is not a prefix"
	case p.Addr().Is4In6():
		return "is IPv4 inside IPv6; write it as IPv4"
	case p.Masked() != p:
		return "has bits set beyond its length; write " + p.Masked().String()
	}
	return ""
}

// onLinkProblem says why p cannot be on-link in a subnet, or "".
func onLinkProblem(p netip.Prefix) string {
	if problem := prefixProblem(p); problem != "" {
		return problem
	}
	if p.Bits() > p.Addr().BitLen()-2 {
		return "is too small for a gateway and a guest; use at most /30 (IPv4) or /126 (IPv6)"
	}
	for _, u := range unusable {
		if u.Overlaps(p) {
			return "overlaps " + u.String() + ", which is not for hosts"
		}
	}
	return ""
}

// lastOf is the highest address of p: IPv4's directed broadcast.
func lastOf(p netip.Prefix) netip.Addr {
	if p.Addr().Is4() {
		b := p.Addr().As4()
		n := binary.BigEndian.Uint32(b[:]) | uint32(1<<(32-p.Bits())-1)
		binary.BigEndian.PutUint32(b[:], n)
		return netip.AddrFrom4(b)
	}
	b := p.Addr().As16()
	for i := p.Bits(); i < 128; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom16(b)
}

// edgeProblem says why a, inside p, belongs to nobody: the network address (in
// IPv6 the subnet-router anycast address, RFC 4291 section 2.6.1), or broadcast.
func edgeProblem(p netip.Prefix, a netip.Addr) string {
	if a == p.Addr() {
		return "is the network address of " + p.String()
	}
	if a.Is4() && a == lastOf(p) {
		return "is the broadcast address of " + p.String()
	}
	return ""
}

// prefixOf finds the prefix that contains a.
func prefixOf(prefixes []netip.Prefix, a netip.Addr) (netip.Prefix, bool) {
	for _, p := range prefixes {
		if p.Contains(a) {
			return p, true
		}
	}
	return netip.Prefix{}, false
}
