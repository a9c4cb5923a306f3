// Package goal defines what one host must contain: the Goal, its ordered delta
// and its digest.
//
// Invariants: a Goal is a set of keyed rows; two Goals with the same rows have
// the same digest, whatever the order they were built in. Deltas apply in
// dependency order and applying Diff(a, b) to a gives b.
// It must never know how rows are computed, sent or programmed.
package goal

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
)

// Port is a port that is placed on this host.
type Port struct {
	Ref      model.Ref // tenant and name
	ID       model.PortID
	VSID     model.VSID
	Network  model.NetworkIndex
	MAC      model.MAC
	CAs      []netip.Addr   // sorted
	Prefixes []netip.Prefix // of the subnet, sorted; for configuring guests
	Gateway4 netip.Addr     // invalid if none
	Gateway6 netip.Addr
	PA       netip.Addr // of this host; invalid while the host has none
	Spoof    bool       // guest may speak for others
	Learn    uint32     // how many addresses beside CAs may be learned
	Flood    Flood      // of the subnet
	Forward  bool       // guest forwards packets of others
	ClampMSS bool       // lower the MSS of TCP connections to what the path carries
	External bool       // between the subnets of the network only customer routes lead
	Settings PortSettings
	// Interface of a port on a VLAN, which has no VSID, network or PA; "" where the host has none.
	Interface string
}

// Flood says what is flooded in the subnet of a port: with L2 all broadcast and multicast, else
// only what finds L2Only ports.
type Flood struct {
	L2    bool
	Group netip.Addr // multicast PA of the subnet's hosts; invalid: each gets its own copy
	Rate  uint32     // packets per second of one port; 0: model.DefaultStormLimit
}

// RecordKey finds a Record. An unspecified CA finds the subnet's GatewayWildcard for the family,
// model.L2OnlyCA the L2Only record of a MAC, and model.AllowedCA where the guest is that may use a MAC beside its own.
type RecordKey struct {
	VSID model.VSID
	CA   netip.Addr
}

// Record is one lookup record (hnv: VSID, CA, MAC -> PA).
type Record struct {
	MAC    model.MAC
	PA     netip.Addr   // invalid for Router and for ports whose host has no PA yet
	Port   model.PortID // 0 for Router and static records
	Router bool
	// Transport of the subnet: how packets get to PA.
	Transport model.TransportID
	// Trust in the port: what may come from its host beside what it says for itself.
	Trust Trust
	// Rewrite is the PA that stands for this one CA, of either family; only of a Rewrite transport.
	Rewrite netip.Addr
	// Isolation of the port; None where no port is.
	Isolation model.IsolationID
}

// Trust is what a guest may do beside speaking for itself.
type Trust struct {
	Forward bool // packets of others in the network
	DHCP    bool // serve DHCP
	Router  bool // advertise itself as a router, and redirect
	Allowed bool // use sources that are not its own; which, its own host knows
}

// RouteKey finds a Route.
type RouteKey struct {
	Network model.NetworkIndex
	Prefix  netip.Prefix
}

// Route is the best route of a prefix: metrics are already decided.
type Route struct {
	VSID    model.VSID
	NextHop netip.Addr // invalid: on-link
}

// PeerKey finds a Peer: a host as the records of a network name it, by its primary
// Provider Address.
type PeerKey struct {
	Network model.NetworkIndex
	PA      netip.Addr
}

// Peer lists the Provider Addresses by which a host can be reached now, from the
// front, sorted; the rest is invalid. A host without a Peer is reached by the address
// that records name; one with an empty Peer cannot be reached.
type Peer struct {
	PAs [model.MaxPAs]netip.Addr
}

// List gives the addresses.
func (p Peer) List() []netip.Addr {
	for i, a := range p.PAs {
		if !a.IsValid() {
			return p.PAs[:i]
		}
	}
	return p.PAs[:]
}

// Goal is everything one host must contain.
type Goal struct {
	Ports   map[model.PortID]Port
	Records map[RecordKey]Record
	Routes  map[RouteKey]Route
	PAs     map[netip.Addr]struct{} // this host's own Provider Addresses
	Groups  map[model.Ref]*Group    // that Lists name
	Lists   map[model.Ref]*List     // that Ports name
	Peers   map[PeerKey]Peer        // other hosts whose addresses are not just the one that records name
	// ProviderRoutes of this host, by name.
	ProviderRoutes map[string]ProviderRoute
	// Settings of the fleet; the zero value as long as no server has told any.
	Settings Settings
}

// Settings are what all hosts of a fleet must agree on. They are one row of the Goal.
type Settings struct {
	VXLANPort uint16 // UDP destination port
	Pipe      bool   // outer headers have DSCP, whatever the guests' have (RFC 2983)
	DSCP      uint8  // 6 bits; 0 unless Pipe
}

// New returns an empty Goal.
func New() *Goal {
	return &Goal{
		Ports:   map[model.PortID]Port{},
		Records: map[RecordKey]Record{},
		Routes:  map[RouteKey]Route{},
		PAs:     map[netip.Addr]struct{}{},
		Groups:  map[model.Ref]*Group{},
		Lists:   map[model.Ref]*List{},
		Peers:   map[PeerKey]Peer{},

		ProviderRoutes: map[string]ProviderRoute{},
	}
}
