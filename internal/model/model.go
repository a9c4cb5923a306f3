// Package model holds the values that every part of weft speaks in: identities
// (VSID, RDID, PortID, MAC), resources as people write them, and verdicts.
//
// Invariants: values only; no I/O, no clock, no goroutine, no third-party code.
// It must never import another package of weft.
package model

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// VSID is a Virtual Subnet Identifier (RFC 7637 section 3.2): 24 bits on the wire.
type VSID uint32

// Bounds of a usable VSID. RFC 7637 reserves 0..0xFFF and 0xFFFFFF.
const (
	MinVSID VSID = 0x1000
	MaxVSID VSID = 0xFFFFFE
)

// Valid reports whether v may name a virtual subnet.
func (v VSID) Valid() bool { return v >= MinVSID && v <= MaxVSID }

func (v VSID) String() string { return strconv.FormatUint(uint64(v), 10) }

// NetworkIndex is the dense form of an RDID that the data plane carries.
// The server allocates it once per virtual network, from 1, and never reuses it
// while the network exists. 0 is no network.
type NetworkIndex uint32

// directBit marks the index of a network's direct routes: no network has it.
const directBit NetworkIndex = 1 << 31

// MaxNetworkIndex is the largest that a network can have.
const MaxNetworkIndex = directBit - 1

// Direct names the routes of a network without its customer routes: how packets reach
// a subnet when a route that leads through a guest has been followed already.
func (n NetworkIndex) Direct() NetworkIndex { return n | directBit }

// IsDirect reports whether n came from Direct, and of which network.
func (n NetworkIndex) IsDirect() (network NetworkIndex, direct bool) {
	return n &^ directBit, n&directBit != 0
}

// PortID is the dense identity of a Port, allocated by the server from 1. 0 is no port.
type PortID uint32

// MAC is a 48-bit Ethernet address in wire order.
type MAC [6]byte

// ErrMAC is returned for text that is not six hexadecimal octets.
var ErrMAC = errors.New("not a MAC address of six hexadecimal octets")

// ParseMAC reads "02:00:00:00:00:01" or the same with dashes.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	parts := strings.FieldsFunc(s, func(r rune) bool { return r == ':' || r == '-' })
	if len(parts) != 6 || len(s) != 17 {
		return MAC{}, fmt.Errorf("%q: %w", s, ErrMAC)
	}
	for i, p := range parts {
		b, err := hex.DecodeString(p)
		if err != nil || len(b) != 1 {
			return MAC{}, fmt.Errorf("%q: %w", s, ErrMAC)
		}
		m[i] = b[0]
	}
	return m, nil
}

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// IsZero reports whether no address is set.
func (m MAC) IsZero() bool { return m == MAC{} }

// IsUnicast reports whether the group bit is clear and the address is not zero.
func (m MAC) IsUnicast() bool { return m[0]&1 == 0 && !m.IsZero() }

// LinkLocal is the IPv6 address of the link that m makes (RFC 4291 appendix A).
func (m MAC) LinkLocal() netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

// MarshalText and UnmarshalText give the colon form, so that MACs read well in JSON.
func (m MAC) MarshalText() ([]byte, error) {
	if m.IsZero() {
		return nil, nil
	}
	return []byte(m.String()), nil
}

// UnmarshalText accepts what ParseMAC does, and empty text as the zero MAC.
func (m *MAC) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*m = MAC{}
		return nil
	}
	p, err := ParseMAC(string(b))
	if err == nil {
		*m = p
	}
	return err
}

// routerOUI is the prefix of the MACs under which the distributed router
// appears; ports may not use it.
var routerOUI = [3]byte{0x02, 0x77, 0x66}

// RouterMAC is the MAC of the distributed router as guests of a subnet see it:
// 02:77:66 followed by the VSID. It is the same on every host, so that a guest
// that moves keeps its gateway.
func RouterMAC(v VSID) MAC {
	return MAC{routerOUI[0], routerOUI[1], routerOUI[2], byte(v >> 16), byte(v >> 8), byte(v)}
}

// IsRouter reports whether m is in the range reserved for distributed routers.
func (m MAC) IsRouter() bool { return [3]byte(m[:3]) == routerOUI }

// As16 is the 16-byte form of an address that keys the switch's tables:
// IPv6 as it is, IPv4 as ::ffff:a.b.c.d.
func As16(a netip.Addr) [16]byte { return a.As16() }

// From16 undoes As16.
func From16(b [16]byte) netip.Addr { return netip.AddrFrom16(b).Unmap() }

// L2OnlyCA is where the L2Only record of a MAC stands among the records of its subnet:
// under a multicast address, which no packet is from and no route leads to.
func L2OnlyCA(m MAC) netip.Addr {
	a := [16]byte{0xff, 0x0f}
	copy(a[10:], m[:])
	return netip.AddrFrom16(a)
}

// AllowedCA is where the record of a MAC stands that a port may use beside its own: under a multicast
// address, too.
func AllowedCA(port PortID, m MAC) netip.Addr {
	a := [16]byte{0xff, 0x0e}
	binary.BigEndian.PutUint32(a[2:], uint32(port))
	copy(a[10:], m[:])
	return netip.AddrFrom16(a)
}

// AllowedMAC undoes AllowedCA.
func AllowedMAC(a netip.Addr) (m MAC, is bool) {
	b := a.As16()
	m = MAC(b[10:])
	return m, a.Is6() && AllowedCA(PortID(binary.BigEndian.Uint32(b[2:])), m) == a
}

// IsL2OnlyCA reports whether a is L2OnlyCA of some MAC.
func IsL2OnlyCA(a netip.Addr) bool {
	b := a.As16()
	return a.Is6() && L2OnlyCA(MAC(b[10:])) == a
}
