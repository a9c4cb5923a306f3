package goal

import (
	"fmt"
	"net/netip"
	"reflect"

	"github.com/weft-sdn/weft/internal/model"
)

// PortSettings is how a port is treated, its profile and the defaults filled in: what of it is not
// a field of Port. On the disk, on the wire and under the digest it has one form, Encode's, so that
// a setting is added here and in package model and nowhere between. The zero value is the default, and safe.
type PortSettings struct {
	DHCPServer  bool                   `json:"dhcpServer,omitempty"`  // may answer as one: no DHCP guard
	Router      bool                   `json:"router,omitempty"`      // may announce itself as one: no router guard
	Teaming     bool                   `json:"teaming,omitempty"`     // may send with the MAC of another port of its VM
	PriorityTag bool                   `json:"priorityTag,omitempty"` // 802.1p priorities pass
	Team        string                 `json:"team,omitempty"`        // of ports whose MACs and CAs are each other's; with Teaming
	StormLimit  uint32                 `json:"stormLimit,omitempty"`  // packets/s; 0: the subnet's
	Connections uint32                 `json:"connections,omitempty"` // 0: the switch's default
	Allowed     []model.AllowedAddress `json:"allowed,omitempty"`     // sources beside CAs
	Isolation   model.Isolation        `json:"isolation,omitzero"`
	VLAN        *model.VLAN            `json:"vlan,omitempty"`
	Bandwidth   *model.Bandwidth       `json:"bandwidth,omitempty"`
	Uplink      int64                  `json:"uplink,omitempty"` // bit/s that each uplink of the host carries, where policy says so; of ports with a minimum
	Mirrors     []Mirror               `json:"mirrors,omitempty"`
	Watched     []netip.Addr           `json:"watched,omitempty"` // PAs of the other hosts with ports that are mirrored to this one, sorted
	Lists       []ListUse              `json:"lists,omitempty"`   // that judge its packets, the widest level first
	ACL         []model.BasicRule      `json:"acl,omitempty"`
}

// Mirror copies what the port sends and gets to another port.
type Mirror struct {
	To       model.PortID `json:"to"`
	PA       netip.Addr   `json:"pa,omitzero"` // of its host; invalid: it is placed nowhere
	Outbound bool         `json:"outbound,omitempty"`
	Inbound  bool         `json:"inbound,omitempty"`
	Snap     uint32       `json:"snap,omitempty"` // bytes of each frame; 0: all
	Rate     uint32       `json:"rate,omitempty"` // copies a second; 0: all

	Protocol *uint8       `json:"protocol,omitempty"` // nil: any
	Prefix   netip.Prefix `json:"prefix,omitzero"`    // source or destination, masked; invalid: any
	Port     uint16       `json:"port,omitempty"`     // source or destination, of TCP and UDP; 0: any
}

// MaxSettings bounds the encoded settings of one port, in bytes.
const MaxSettings = 1 << 18

// Equal compares by value. Empty lists are nil.
func (s PortSettings) Equal(t PortSettings) bool { return reflect.DeepEqual(s, t) }

// Encode gives the one form of s: JSON, nothing where nothing is said.
func (s PortSettings) Encode() []byte {
	if reflect.ValueOf(s).IsZero() {
		return nil
	}
	return mustJSON(s)
}

// DecodePortSettings reads what Encode gives, and nothing else: neither fields that this build does not
// know nor any other form of the same.
func DecodePortSettings(b []byte) (PortSettings, error) {
	var s PortSettings
	if len(b) == 0 {
		return s, nil
	}
	if len(b) > MaxSettings {
		return s, wrong("settings of %d bytes, more than %d", len(b), MaxSettings)
	}
	if err := strictJSON(b, &s); err != nil {
		return PortSettings{}, fmt.Errorf("settings: %w", err)
	}
	if s.Encode() == nil {
		return s, wrong("settings: nothing is said, in %d bytes", len(b))
	}
	return s, nil
}

// String is the encoded form; empty when all is off.
func (s PortSettings) String() string { return string(s.Encode()) }

// Check tells whether s may stand in a Goal.
func (s PortSettings) Check() error {
	if n := len(s.Encode()); n > MaxSettings {
		return wrong("settings of %d bytes, more than %d", n, MaxSettings)
	}
	for _, a := range s.Allowed {
		if !plainPrefix(a.Prefix) {
			return wrong("allowed address %s is not masked", a.Prefix)
		}
	}
	for _, u := range s.Lists {
		if err := u.check(); err != nil {
			return err
		}
	}
	switch s.Isolation.Mode {
	case "", model.IsolationIsolated, model.IsolationCommunity, model.IsolationPromiscuous:
	default:
		return wrong("isolation %q", s.Isolation.Mode)
	}
	return nil
}
