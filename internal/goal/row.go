package goal

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
)

// RecordRow is a Record with its key.
type RecordRow struct {
	Key    RecordKey
	Record Record
}

// PeerRow is a Peer with its key.
type PeerRow struct {
	Key  PeerKey
	Peer Peer
}

// RouteRow is a Route with its key.
type RouteRow struct {
	Key   RouteKey
	Route Route
}

// Bounds of what one row may carry. Both ends of the host stream and the disk
// cache refuse more.
const (
	MaxCAs      = 1024 // Customer Addresses of one port
	MaxPrefixes = 16   // prefixes of one subnet
	MaxName     = 253  // bytes of a tenant's or a port's name
	MaxDSCP     = 63   // six bits
)

// ErrRow is wrapped by every complaint about a row that no Goal may contain.
var ErrRow = errors.New("row is not valid")

// Check tells whether p may stand in a Goal: identities set, addresses plain
// (neither IPv4-mapped nor with a zone), CAs and prefixes sorted and unique.
func (p Port) Check() error {
	if p.Ref.Name == "" || len(p.Ref.Name) > MaxName || len(p.Ref.Tenant) > MaxName {
		return wrong("port %d: name %q of tenant %q must have 1 to %d bytes", p.ID, p.Ref.Name, p.Ref.Tenant, MaxName)
	}
	if p.Settings.VLAN != nil {
		return p.checkVLAN()
	}
	if p.Interface != "" {
		return wrong("port %s: interface %s, and it is in a subnet", p.Ref, p.Interface)
	}
	if p.ID == 0 || !p.VSID.Valid() || p.Network == 0 || !p.MAC.IsUnicast() {
		return wrong("port %s: id %d, vsid %d, network %d and MAC %s must all be set", p.Ref, p.ID, p.VSID, p.Network, p.MAC)
	}
	if len(p.CAs) > MaxCAs || len(p.Prefixes) > MaxPrefixes {
		return wrong("port %s: %d addresses and %d prefixes are more than %d and %d", p.Ref, len(p.CAs), len(p.Prefixes), MaxCAs, MaxPrefixes)
	}
	for i, a := range p.CAs {
		if !plain(a) || i > 0 && !p.CAs[i-1].Less(a) {
			return wrong("port %s: address %s is not plain, or not in order", p.Ref, a)
		}
	}
	for i, x := range p.Prefixes {
		if !plainPrefix(x) || i > 0 && p.Prefixes[i-1].Compare(x) >= 0 {
			return wrong("port %s: prefix %s is not masked, or not in order", p.Ref, x)
		}
	}
	if p.Gateway4.IsValid() && !p.Gateway4.Is4() {
		return wrong("port %s: gateway %s is not IPv4", p.Ref, p.Gateway4)
	}
	if p.Gateway6.IsValid() && (!p.Gateway6.Is6() || !plain(p.Gateway6)) {
		return wrong("port %s: gateway %s is not plain IPv6", p.Ref, p.Gateway6)
	}
	if g := p.Flood.Group; g.IsValid() && (!plain(g) || !g.IsMulticast()) {
		return wrong("port %s: %s is no multicast PA", p.Ref, g)
	}
	if err := p.Settings.Check(); err != nil {
		return fmt.Errorf("port %s: %w", p.Ref, err)
	}
	return checkOptional(p.PA, "port "+p.Ref.String()+": PA")
}

// maxInterface is how long the name of a Linux device can be, in bytes.
const maxInterface = 15

// checkVLAN is Check for a port on a VLAN.
func (p Port) checkVLAN() error {
	if p.ID == 0 || !p.MAC.IsUnicast() || len(p.Interface) > maxInterface {
		return wrong("port %s: id %d and MAC %s must be set, and interface %q short", p.Ref, p.ID, p.MAC, p.Interface)
	}
	if p.VSID != 0 || p.Network != 0 || len(p.Prefixes) > 0 || p.Gateway4.IsValid() || p.Gateway6.IsValid() || p.PA.IsValid() || p.Learn > 0 || p.Forward {
		return wrong("port %s: it is on a VLAN, and has what only ports in a subnet have", p.Ref)
	}
	return p.Settings.Check()
}

// Check tells whether r may stand in a Goal. A Router record has neither PA nor port.
func (r RecordRow) Check() error {
	if err := r.Key.Check(); err != nil {
		return err
	}
	if !r.Record.MAC.IsUnicast() {
		return wrong("record %d %s: MAC %s is not unicast", r.Key.VSID, r.Key.CA, r.Record.MAC)
	}
	if r.Record.Router && r.Key.CA.IsUnspecified() {
		return wrong("record %d %s: a router has an address", r.Key.VSID, r.Key.CA)
	}
	if r.Record.Router && (r.Record.PA.IsValid() || r.Record.Port != 0) {
		return wrong("record %d %s: a router has no PA and no port", r.Key.VSID, r.Key.CA)
	}
	if !r.Record.Transport.Valid() {
		return wrong("record %d %s: %s is not known", r.Key.VSID, r.Key.CA, r.Record.Transport)
	}
	if err := r.checkRewrite(); err != nil {
		return err
	}
	return checkOptional(r.Record.PA, fmt.Sprintf("record %d %s: PA", r.Key.VSID, r.Key.CA))
}

func (r RecordRow) checkRewrite() error {
	pa := r.Record.Rewrite
	if !pa.IsValid() {
		return nil
	}
	if r.Record.Router || r.Record.Transport != model.Rewrite || !plain(pa) {
		return wrong("record %d %s: %s cannot stand for it, by %s", r.Key.VSID, r.Key.CA, pa, r.Record.Transport)
	}
	return nil
}

// Check tells whether s may stand in a Goal.
func (s Settings) Check() error {
	if s.VXLANPort == 0 {
		return wrong("settings: the VXLAN port is 0")
	}
	if s.DSCP > MaxDSCP || s.DSCP != 0 && !s.Pipe {
		return wrong("settings: DSCP %d, pipe %t", s.DSCP, s.Pipe)
	}
	return nil
}

// Check tells whether k may find a Record.
func (k RecordKey) Check() error {
	if !k.VSID.Valid() || !plain(k.CA) {
		return wrong("record %d %s: VSID out of range or address not plain", k.VSID, k.CA)
	}
	return nil
}

// Check tells whether r may stand in a Goal.
func (r RouteRow) Check() error {
	if err := r.Key.Check(); err != nil {
		return err
	}
	if !r.Route.VSID.Valid() {
		return wrong("route %d %s: VSID %d out of range", r.Key.Network, r.Key.Prefix, r.Route.VSID)
	}
	return checkOptional(r.Route.NextHop, fmt.Sprintf("route %d %s: next hop", r.Key.Network, r.Key.Prefix))
}

// Check tells whether k may find a Route.
func (k RouteKey) Check() error {
	if k.Network == 0 || !plainPrefix(k.Prefix) {
		return wrong("route %d %s: network not set or prefix not masked", k.Network, k.Prefix)
	}
	return nil
}

// Check tells whether r may stand in a Goal: addresses plain, sorted and unique, none
// behind an invalid one.
func (r PeerRow) Check() error {
	if err := r.Key.Check(); err != nil {
		return err
	}
	all := r.Peer.List()
	for i, a := range all {
		if !plain(a) || i > 0 && !all[i-1].Less(a) {
			return wrong("peer %d %s: address %s is not plain, or not in order", r.Key.Network, r.Key.PA, a)
		}
	}
	for _, a := range r.Peer.PAs[len(all):] {
		if a.IsValid() {
			return wrong("peer %d %s: address %s behind a gap", r.Key.Network, r.Key.PA, a)
		}
	}
	return nil
}

// Check tells whether k may find a Peer.
func (k PeerKey) Check() error {
	if k.Network == 0 || !plain(k.PA) {
		return wrong("peer %d %s: network not set or address not plain", k.Network, k.PA)
	}
	return nil
}

// CheckPA tells whether a may be a Provider Address of a host.
func CheckPA(a netip.Addr) error {
	if !plain(a) {
		return wrong("PA %s is not a plain address", a)
	}
	return nil
}

func checkOptional(a netip.Addr, what string) error {
	if a.IsValid() && !plain(a) {
		return wrong("%s %s is not a plain address", what, a)
	}
	return nil
}

func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrRow, fmt.Sprintf(format, args...))
}

func plain(a netip.Addr) bool { return a.IsValid() && !a.Is4In6() && a.Zone() == "" }

func plainPrefix(p netip.Prefix) bool { return p.IsValid() && plain(p.Addr()) && p == p.Masked() }

// Equal compares ports by value.
func (p Port) Equal(q Port) bool {
	return p.Ref == q.Ref && p.ID == q.ID && p.VSID == q.VSID && p.Network == q.Network && p.MAC == q.MAC &&
		p.Gateway4 == q.Gateway4 && p.Gateway6 == q.Gateway6 && p.PA == q.PA && p.Spoof == q.Spoof && p.Learn == q.Learn && p.Flood == q.Flood &&
		p.Forward == q.Forward && p.External == q.External && p.ClampMSS == q.ClampMSS && p.Interface == q.Interface &&
		slices.Equal(p.CAs, q.CAs) && slices.Equal(p.Prefixes, q.Prefixes) && p.Settings.Equal(q.Settings)
}

// Compare orders record keys by VSID, then CA.
func (k RecordKey) Compare(l RecordKey) int {
	if k.VSID != l.VSID {
		return int(k.VSID) - int(l.VSID)
	}
	return k.CA.Compare(l.CA)
}

// Compare orders route keys by network, then prefix.
func (k RouteKey) Compare(l RouteKey) int {
	if k.Network != l.Network {
		return order(k.Network, l.Network)
	}
	return k.Prefix.Compare(l.Prefix)
}

// Compare orders peer keys by network, then address.
func (k PeerKey) Compare(l PeerKey) int {
	if k.Network != l.Network {
		return order(k.Network, l.Network)
	}
	return k.PA.Compare(l.PA)
}

func order(a, b model.NetworkIndex) int {
	if a < b {
		return -1
	}
	return 1
}
