// Package wire reads and writes the protocol headers that weft handles: Ethernet
// and 802.1Q, ARP, IPv4, IPv6 with its extension headers, ICMP, ICMPv6 with
// Neighbour Discovery, the ports of TCP and UDP, and GRE as NVGRE uses it.
//
// Invariants: a Parse function reads a prefix of the slice it is given, checks every
// length before it reads, allocates nothing and keeps no reference, except where
// a result says that it is a part of the input. Values are as the header has them, in host byte
// order; nothing is judged beyond what its error says. Encode fills exactly the
// header's length at the start of the caller's slice.
// It must never know policy, devices or verdicts, and imports model alone.
package wire

import "errors"

// What can be wrong with a header. Functions return these very values.
var (
	// ErrTruncated: the bytes end before the header does, or the slice for Encode is too short.
	ErrTruncated = errors.New("header is cut short")
	// ErrVersion: the version field is not that of the header asked for.
	ErrVersion = errors.New("wrong version")
	// ErrLength: a length field contradicts the bytes or itself.
	ErrLength = errors.New("impossible length")
	// ErrAddress: an address that this place of the header cannot hold.
	ErrAddress = errors.New("impossible address")
	// ErrHardware: ARP for something other than Ethernet and IPv4, or neither request nor reply.
	ErrHardware = errors.New("not an ARP request or reply for IPv4 over Ethernet")
	// ErrExtensions: more IPv6 extension headers than are followed, or one past the payload.
	ErrExtensions = errors.New("broken or overlong chain of extension headers")
	// ErrOption: a Neighbour Discovery option that is empty, cut short, repeated or one too many.
	ErrOption = errors.New("broken Neighbour Discovery option")
	// ErrGRE: not the GRE header of NVGRE.
	ErrGRE = errors.New("not an NVGRE header")
	// ErrVXLAN: a VXLAN header without the I flag.
	ErrVXLAN = errors.New("not a VXLAN header that names a network")
	// ErrGroup is returned for what is no whole report of multicast groups.
	ErrGroup = errors.New("not an IGMP or MLD report")
)

func be16(b []byte) uint16 { return uint16(b[0])<<8 | uint16(b[1]) }

func be32(b []byte) uint32 { return uint32(be16(b))<<16 | uint32(be16(b[2:])) }

func put16(b []byte, v uint16) { b[0], b[1] = byte(v>>8), byte(v) }

func put32(b []byte, v uint32) { put16(b, uint16(v>>16)); put16(b[2:], uint16(v)) }
