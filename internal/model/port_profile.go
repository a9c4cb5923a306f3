package model

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// PortProfile is what many ports have in common. Changing it changes them.
type PortProfile struct {
	Metadata Metadata        `json:"metadata"`
	Spec     PortProfileSpec `json:"spec"`
}

// PortProfileSpec is what people say of a profile.
type PortProfileSpec struct {
	PortSettings
}

// PortSettings is what a port or a profile says of how ports are treated (hnv 5). What is nil
// is not said; Settle fills it in. Lists of a profile are never empty but nil.
type PortSettings struct {
	// AllowSpoofing turns the spoofing guard off (hnv 5.1, MacAddressSpoofing).
	AllowSpoofing *bool `json:"allowSpoofing,omitempty"`
	// DynamicAddressLimit is how many addresses may be learned, beside Addresses; 0: none (hnv 1.7).
	DynamicAddressLimit *uint32 `json:"dynamicAddressLimit,omitempty"`
	// Forwarding lets the guest send packets of others in its network, as a router or
	// firewall does that customer routes lead through.
	Forwarding       *bool            `json:"forwarding,omitempty"`
	DHCPGuard        *bool            `json:"dhcpGuard,omitempty"`
	RouterGuard      *bool            `json:"routerGuard,omitempty"`
	AllowTeaming     *bool            `json:"allowTeaming,omitempty"`
	IEEEPriorityTag  *bool            `json:"ieeePriorityTag,omitempty"`
	StormLimit       *uint32          `json:"stormLimit,omitempty"`      // packets/s; 0: the subnet's
	AllowedAddresses []AllowedAddress `json:"allowedAddresses,omitzero"` // of a port: nil: its profile's; empty: none
	Isolation        *Isolation       `json:"isolation,omitempty"`
	VLAN             *VLAN            `json:"vlan,omitempty"`
	Bandwidth        *Bandwidth       `json:"bandwidth,omitempty"`
	Mirrors          []Mirror         `json:"mirrors,omitzero"`          // the same
	AccessLists      []string         `json:"accessLists,omitzero"`      // of a port: beside those of its profile; empty: none
	ConnectionLimit  *uint32          `json:"connectionLimit,omitempty"` // 0: the switch's default
}

// Settings is how a port is treated in the end: what it says itself, else its profile, else
// the default.
type Settings struct {
	AllowSpoofing       bool
	DynamicAddressLimit uint32
	Forwarding          bool
	DHCPGuard           bool // true by default
	RouterGuard         bool // true by default
	AllowTeaming        bool
	IEEEPriorityTag     bool
	StormLimit          uint32
	AllowedAddresses    []AllowedAddress
	Isolation           Isolation
	VLAN                *VLAN
	Bandwidth           *Bandwidth
	Mirrors             []Mirror
	AccessLists         []string // the profile's, then the port's
	ConnectionLimit     uint32
}

// VMLabel is the label of a Port that names the VM whose NIC it is: among the ports of a subnet with the same, those with
// allowTeaming may use each other's MACs and addresses.
const VMLabel = "vm"

// AllowedAddress is a source that a guest may use beside its own.
type AllowedAddress struct {
	Prefix netip.Prefix `json:"prefix"`
	MAC    MAC          `json:"mac,omitzero"` // zero: the port's
}

// IsolationMode says whom a port reaches inside its subnet (hnv 5.2).
type IsolationMode string

// The modes of isolation.
const (
	IsolationNone        IsolationMode = "none" // Settle makes it the zero Isolation
	IsolationIsolated    IsolationMode = "isolated"
	IsolationCommunity   IsolationMode = "community"
	IsolationPromiscuous IsolationMode = "promiscuous"
)

// Isolation of a port inside its subnet.
type Isolation struct {
	Mode      IsolationMode `json:"mode,omitempty"`
	Community string        `json:"community,omitempty"`
}

// VLANMode is how a port takes part in a VLAN network (hnv 5.2).
type VLANMode string

// The modes of a VLAN port.
const (
	VLANUntagged VLANMode = "untagged"
	VLANAccess   VLANMode = "access"
	VLANTrunk    VLANMode = "trunk"
	VLANPrivate  VLANMode = "private"
)

// Bounds of a VLAN id (IEEE 802.1Q-2022 section 9.6).
const (
	MinVLAN = 1
	MaxVLAN = 4094
)

// VLAN places a port on a VLAN network.
type VLAN struct {
	Network string       `json:"network"`
	Mode    VLANMode     `json:"mode"`
	ID      uint16       `json:"id,omitempty"`
	Allowed []Range      `json:"allowed,omitempty"`
	Prune   []Range      `json:"prune,omitempty"`
	Native  uint16       `json:"native,omitempty"`
	Private *PrivateVLAN `json:"private,omitempty"`
}

// PrivateVLAN is a port's place in a private VLAN (RFC 5517).
type PrivateVLAN struct {
	Mode        IsolationMode `json:"mode"`
	Primary     uint16        `json:"primary,omitempty"`
	Secondary   uint16        `json:"secondary,omitempty"`
	Secondaries []uint16      `json:"secondaries,omitempty"`
}

// Bandwidth of a port, each direction as the guest sees it.
type Bandwidth struct {
	Inbound  BandwidthLimit `json:"inbound,omitzero"`
	Outbound BandwidthLimit `json:"outbound,omitzero"`
}

// BandwidthLimit bounds one direction.
type BandwidthLimit struct {
	Maximum int64  `json:"maximum,omitempty"` // bit/s; 0: none
	Burst   int64  `json:"burst,omitempty"`   // bytes
	Minimum int64  `json:"minimum,omitempty"` // bit/s
	Weight  uint32 `json:"weight,omitempty"`  // 1 to 100, instead of Minimum
}

// HasMinimum reports whether something of what the uplinks carry is the port's, whatever others send.
func (b *Bandwidth) HasMinimum() bool {
	return b != nil && (b.Outbound.Minimum > 0 || b.Outbound.Weight > 0)
}

// Promised is how much of an uplink's bandwidth minima may sum up to: a tenth is kept for what has none.
func Promised(uplink int64) int64 { return uplink - uplink/10 }

// Direction is as the guest sees it.
type Direction string

// The directions.
const (
	Both     Direction = "both"
	Inbound  Direction = "inbound"
	Outbound Direction = "outbound"
)

// Mirror copies what a port sends and receives to another port of the tenant.
type Mirror struct {
	Destination string    `json:"destination"`
	Direction   Direction `json:"direction,omitempty"`  // empty: both
	SnapLength  uint32    `json:"snapLength,omitempty"` // bytes of each frame; 0: all
	RateLimit   uint32    `json:"rateLimit,omitempty"`  // packets/s; 0: all

	Protocol string       `json:"protocol,omitempty"` // as ProtocolNumber reads; empty: all
	Prefix   netip.Prefix `json:"prefix,omitzero"`    // source or destination; invalid: all
	Port     uint16       `json:"port,omitempty"`     // source or destination, of TCP and UDP; 0: all
}

// Range is First to Last, both included: of ports, or of VLAN ids.
type Range struct{ First, Last uint16 }

// ErrRange is returned for text that is not a Range.
var ErrRange = errors.New("not a number or a range like 8000-8100, of at most 65535")

// ParseRange reads "443" or "8000-8100". It may come out upside down.
func ParseRange(s string) (Range, error) {
	first, last, isRange := strings.Cut(s, "-")
	if !isRange {
		last = first
	}
	a, err := strconv.ParseUint(first, 10, 16)
	if err != nil {
		return Range{}, fmt.Errorf("%.40q: %w", s, ErrRange)
	}
	b, err := strconv.ParseUint(last, 10, 16)
	if err != nil {
		return Range{}, fmt.Errorf("%.40q: %w", s, ErrRange)
	}
	return Range{uint16(a), uint16(b)}, nil
}

func (r Range) String() string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// MarshalText gives the form that ParseRange reads.
func (r Range) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what ParseRange does.
func (r *Range) UnmarshalText(b []byte) error {
	p, err := ParseRange(string(b))
	if err == nil {
		*r = p
	}
	return err
}

// Settle fills in what own leaves out: from the profile, which may be nil, and the defaults.
func (own PortSettings) Settle(profile *PortProfile) Settings {
	var p PortSettings
	if profile != nil {
		p = profile.Spec.PortSettings
	}
	s := Settings{
		AllowSpoofing: said(own.AllowSpoofing, p.AllowSpoofing, false), Forwarding: said(own.Forwarding, p.Forwarding, false),
		DHCPGuard: said(own.DHCPGuard, p.DHCPGuard, true), RouterGuard: said(own.RouterGuard, p.RouterGuard, true),
		AllowTeaming: said(own.AllowTeaming, p.AllowTeaming, false), IEEEPriorityTag: said(own.IEEEPriorityTag, p.IEEEPriorityTag, false),
		StormLimit:          said(own.StormLimit, p.StormLimit, 0),
		DynamicAddressLimit: said(own.DynamicAddressLimit, p.DynamicAddressLimit, 0),
		ConnectionLimit:     said(own.ConnectionLimit, p.ConnectionLimit, 0),
		Isolation:           said(own.Isolation, p.Isolation, Isolation{}),
		AllowedAddresses:    listed(own.AllowedAddresses, p.AllowedAddresses), Mirrors: listed(own.Mirrors, p.Mirrors),
		VLAN: own.VLAN, Bandwidth: own.Bandwidth,
	}
	if s.VLAN == nil {
		s.VLAN = p.VLAN
	}
	if s.Bandwidth == nil {
		s.Bandwidth = p.Bandwidth
	}
	if s.Isolation.Mode == IsolationNone {
		s.Isolation = Isolation{}
	}
	if own.AccessLists == nil || len(own.AccessLists) > 0 {
		s.AccessLists = union(p.AccessLists, own.AccessLists)
	}
	return s
}

// Learns reports whether a port with s may have addresses that policy does not know yet:
// it has a record of type L2Only.
func (s Settings) Learns() bool { return s.DynamicAddressLimit > 0 }

func said[T any](own, profile *T, otherwise T) T {
	switch {
	case own != nil:
		return *own
	case profile != nil:
		return *profile
	}
	return otherwise
}

// listed is own if something is said; an empty list says that there is none.
func listed[T any](own, profile []T) []T {
	if own == nil {
		own = profile
	}
	if len(own) == 0 {
		return nil
	}
	return own
}

// union gives each once, the first place counting.
func union(a, b []string) []string {
	var out []string
	seen := map[string]bool{}
	for _, all := range [][]string{a, b} {
		for _, s := range all {
			if !seen[s] {
				seen[s] = true
				out = append(out, s)
			}
		}
	}
	return out
}
