// Package table defines the rows of the switch: everything that one run of the
// packet path may read. The agent renders them from a Goal and the devices at
// hand, datapath writes them into eBPF maps, sim interprets them, and verify
// compares them with what the kernel holds.
//
// Invariants: rows are plain comparable values; a Set is complete in itself.
// It must never know maps, links or resources.
package table

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
)

// Port is one device of this host where a VM NIC meets the switch.
type Port struct {
	IfIndex  uint32             // device on the host; the key
	ID       model.PortID       // identity in policy, for counters
	VSID     model.VSID         // the only source of a packet's VSID
	Network  model.NetworkIndex // routing domain
	MAC      model.MAC
	PA       netip.Addr // outer source of what this port sends
	Gateway4 netip.Addr // the router's address in the subnet; invalid if none
	Gateway6 netip.Addr
	MTU      uint16 // largest IP packet the port takes, in bytes
	Spoof    bool   // true: the guest may speak for others (guard off)
	Forward  bool   // true: the guest forwards what others send; no source is foreign to it
	ClampMSS bool   // true: the MSS of its TCP connections is lowered to what the path carries
	External bool   // true: nothing but customer routes leads out of the port's subnet
	Peer     bool   // true: veth whose other end is in another namespace
	Learn    bool   // true: the guest may have addresses that policy does not know yet
	Flood    bool   // true: something is flooded in the subnet; Set.Floods says what
	// Transport of the subnet.
	Transport model.TransportID

	DHCPGuard   bool              // true: the guest may not answer as a DHCP server
	RouterGuard bool              // true: the guest may not announce itself as a router
	Teaming     bool              // true: the guest may send with the MAC of another port of its VM
	PriorityTag bool              // true: 802.1p priorities of the guest pass
	Allowed     bool              // true: Set.Allowed has sources of the guest beside its own
	StormLimit  uint32            // packets per second; 0: the subnet's
	Isolation   model.IsolationID // whom the port reaches within the subnet
	Connections uint32            // how many are followed; 0: the switch's default

	Inbound, Outbound RuleSetKey // of Set.RuleSets; zero: everything is allowed
}

// RecordKey finds a Record: a Customer Address in a subnet. The unspecified address finds
// the gateway that stands for every address of the family that the subnet has no Record of,
// and model.L2OnlyCA the place of a MAC whose addresses are yet to be learned.
type RecordKey struct {
	VSID model.VSID
	CA   netip.Addr // never IPv4-mapped IPv6
}

// Record says where a Customer Address is.
type Record struct {
	MAC     model.MAC
	Router  bool       // the distributed router's own address
	PA      netip.Addr // remote Provider Address; invalid when local or Router
	IfIndex uint32     // local device; 0 when remote, Router, or not plugged
	Port    model.PortID
	// Transport of the subnet: how packets get to PA.
	Transport model.TransportID
	// Exchange: the Provider Address that stands for it is of the other family.
	Exchange bool
	// Isolation of the port that has the address.
	Isolation model.IsolationID
}

// RouteKey finds a Route by longest prefix within a routing domain.
type RouteKey struct {
	Network model.NetworkIndex
	Prefix  netip.Prefix // masked
}

// Route leads a prefix to a subnet. An invalid NextHop is on-link: the next hop
// is the destination itself.
type Route struct {
	VSID    model.VSID
	NextHop netip.Addr
}

// MaxPaths bounds the ways to one remote host.
const MaxPaths = 8

// Peer says how to reach a remote host. Of a host with several ways it is the first;
// Set.Paths has the others, and each flow takes one of them.
type Peer struct {
	PA      netip.Addr // that records name the host by; the key
	Local   netip.Addr // outer source; invalid: the port's PA
	Remote  netip.Addr // outer destination, of the family of Local; invalid: PA
	IfIndex uint32     // underlay device; 0: no route now
	MTU     uint16     // outer IP MTU toward it
	Via     netip.Addr // next hop on that device, of PA's family; invalid: the kernel looks the route up, packet by packet
	NextHop model.MAC  // link-layer next hop for non-IP frames; zero: unresolved
	Source  model.MAC  // MAC of the underlay device
}

// PathKey finds a further way to the host of a Peer. N counts from 1, without gaps.
type PathKey struct {
	PA netip.Addr // of the Peer
	N  uint8      // less than MaxPaths
}

// Source is an outer source that packets of the host of a Peer may have. Where a Peer
// has none, it is the PA of the Peer.
type Source struct {
	Peer, PA netip.Addr
}

// Flood says what is flooded in a subnet. Broadcast and multicast of an L2 subnet reach
// every member. In any other only members with an L2Only port get what they need to be found.
type Flood struct {
	L2    bool
	Rate  uint32     // packets per second that one port may have flooded
	Group netip.Addr // multicast PA of all hosts with members; invalid: each host gets its own copy
	// Transport of the subnet.
	Transport model.TransportID
}

// Member is somebody who gets copies of what a subnet floods: a port of this host, by its
// device, or another host, by a PA of its own.
type Member struct {
	VSID    model.VSID
	IfIndex uint32     // 0: another host
	PA      netip.Addr // invalid: a port of this host
}

// MemberInfo is what a copy may depend on.
type MemberInfo struct {
	L2Only bool // the port, or a port of that host, has addresses that are yet to be learned
}

// GroupMember is a port of this host that listens to a multicast group of its subnet.
type GroupMember struct {
	VSID    model.VSID
	IfIndex uint32
	Group   netip.Addr
}

// Bounds of the members of one subnet.
const (
	MaxFloodPorts = 256
	MaxFloodHosts = 128
)

// Allowed is a source that a guest of this host may use beside its own: addresses, or a MAC. Each goes with
// each.
type Allowed struct {
	IfIndex uint32
	Prefix  netip.Prefix // masked; invalid: a MAC
	MAC     model.MAC
}

// Forwarder finds a remote host with a guest that may do more than speak for itself. Once without MAC, for what that host has routed, and once
// with the guest's, for what stayed in its subnet.
type Forwarder struct {
	Network model.NetworkIndex
	MAC     model.MAC // zero: the distributed router's
	PA      netip.Addr
}

// Trust is what a guest may do beside speaking for itself.
type Trust struct {
	Forward bool // what others send, so that any source of the network may come from there
	DHCP    bool // serve DHCP: its port has no such guard
	Router  bool // advertise itself as a router, and redirect
	Allowed bool // use sources that are not its own; which, its own host knows
}

// RewriteIn says whom a Provider Address stands for that belongs to one Customer Address alone.
type RewriteIn struct {
	VSID    model.VSID
	CA      netip.Addr // of the same family as the PA
	Network model.NetworkIndex
	MAC     model.MAC
	IfIndex uint32 // local device; 0 when remote, or not plugged
	Remote  bool   // on another host
	// Isolation of the port that has the address.
	Isolation model.IsolationID
}

// MACKey finds a port of a subnet by its MAC.
type MACKey struct {
	VSID model.VSID
	MAC  model.MAC
}

// ShapeKey finds a Shape: one direction of the port on a device, as its guest sees it.
type ShapeKey struct {
	IfIndex uint32
	Inbound bool
}

// Shape limits what a port sends or gets.
type Shape struct {
	Port  model.PortID
	Rate  uint64 // bit/s of frames, without preamble and checksum; at least MinRate
	Burst uint64 // bytes that may pass at once
}

// Share is what a port has of each uplink, whatever others send: so much, or its part of what is left of it.
type Share struct {
	Port    model.PortID
	Minimum uint64 // bit/s of outer frames, or
	Weight  uint32 // among those that have one
}

// Bounds of the rate of a Shape, in bit/s.
const (
	MinRate = 64_000
	MaxRate = 1_000_000_000_000
)

// Set is all the rows of one host.
type Set struct {
	Ports    map[uint32]Port
	Records  map[RecordKey]Record
	Routes   map[RouteKey]Route
	Peers    map[netip.Addr]Peer
	Paths    map[PathKey]Peer // PA is the key's
	Sources  map[Source]struct{}
	LocalPAs map[netip.Addr]struct{} // outer destinations that are ours
	Floods   map[model.VSID]Flood
	Members  map[Member]MemberInfo // of subnets in Floods
	// Groups are learned from what guests say, and not rendered: datapath.SetGroups writes them.
	Groups   map[GroupMember]struct{}
	Settings Settings

	Allowed    map[Allowed]struct{}
	Forwarders map[Forwarder]Trust
	RewriteOut map[RecordKey]netip.Addr // the PA that stands for a CA in the underlay
	RewriteIn  map[netip.Addr]RewriteIn // by PA
	VLANPorts  map[uint32]VLANPort
	// RuleSets are those that Ports name. A RuleSet never changes, so Sets share them.
	RuleSets map[RuleSetKey]*RuleSet
	// Isolations of ports on other hosts, for frames whose source has no Record; None has no row.
	Isolations map[MACKey]model.IsolationID
	Shapes     map[ShapeKey]Shape // of ports whose bandwidth is limited
	Shares     map[uint32]Share   // of ports that have a minimum, by device
	Mirrors    map[MirrorKey]Mirror
	// MirrorSources of ports of this host that get copies, and their devices.
	MirrorSources map[MirrorSource]uint32
}

// Settings are what all hosts of a fleet agree on.
type Settings struct {
	VXLANPort uint16 // UDP destination port
	Pipe      bool   // outer headers have DSCP, whatever the guests' have (RFC 2983)
	DSCP      uint8  // 6 bits; 0 unless Pipe
}

// DefaultSettings hold until a server tells others.
var DefaultSettings = Settings{VXLANPort: 4789}

// NewSet returns an empty Set, ready for writing.
func NewSet() Set {
	return Set{
		Ports:    map[uint32]Port{},
		Records:  map[RecordKey]Record{},
		Routes:   map[RouteKey]Route{},
		Peers:    map[netip.Addr]Peer{},
		Paths:    map[PathKey]Peer{},
		Sources:  map[Source]struct{}{},
		LocalPAs: map[netip.Addr]struct{}{},
		Floods:   map[model.VSID]Flood{},
		Members:  map[Member]MemberInfo{},
		Groups:   map[GroupMember]struct{}{},
		Settings: DefaultSettings,

		Allowed:    map[Allowed]struct{}{},
		Forwarders: map[Forwarder]Trust{},
		RewriteOut: map[RecordKey]netip.Addr{},
		RewriteIn:  map[netip.Addr]RewriteIn{},
		RuleSets:   map[RuleSetKey]*RuleSet{},
		VLANPorts:  map[uint32]VLANPort{},
		Isolations: map[MACKey]model.IsolationID{},
		Shapes:     map[ShapeKey]Shape{},
		Shares:     map[uint32]Share{},
		Mirrors:    map[MirrorKey]Mirror{},

		MirrorSources: map[MirrorSource]uint32{},
	}
}

// ExchangeOverhead is what IPv4 may grow by that is rewritten to IPv6: the header, and a Fragment header of 8.
const ExchangeOverhead = 20 + 8

// RewriteOverhead is what rewriting ca to pa takes from the underlay's IP MTU. (What it gains the other way around is not used.)
func RewriteOverhead(ca, pa netip.Addr) int {
	if ca.Is4() && pa.Is6() {
		return ExchangeOverhead
	}
	return 0
}

// Overhead is what a transport to the Provider Address pa takes from the underlay's IP MTU: IPv4 20 or
// IPv6 40, GRE 8 (RFC 7637 section 3) or UDP and VXLAN 16 (RFC 7348 section 5), inner Ethernet 14.
// Rewriting takes nothing, but see RewriteOverhead.
func Overhead(t model.TransportID, pa netip.Addr) int {
	if t == model.Rewrite {
		return 0
	}
	n := 20 + 14
	if pa.Is6() {
		n = 40 + 14
	}
	if t == model.VXLAN {
		return n + 16
	}
	return n + 8
}
