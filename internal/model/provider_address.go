package model

import "net/netip"

// ChoosePA picks which of a host's Provider Addresses, sorted and distinct, a port
// uses: always the same one for the same port and addresses, and different ones for
// different ports, which spreads load (RFC 7637 section 4.2). Invalid while the host
// has none.
func ChoosePA(pas []netip.Addr, id PortID) netip.Addr {
	if len(pas) == 0 {
		return netip.Addr{}
	}
	// Fibonacci hashing: IDs are given out in sequence, and every second port may be
	// on the same host.
	spread := uint32(id) * 0x9e3779b1 >> 16
	return pas[spread%uint32(len(pas))]
}
