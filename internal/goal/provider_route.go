package goal

import (
	"encoding/binary"
	"net/netip"
)

// ProviderRoute is a route of this host in the underlay. Those with the same prefix and
// metric are one route with several next hops. One without next hop and device says that nothing is at the prefix
// that the host's own table does not know better: a pool of addresses that stand for guests' ones.
type ProviderRoute struct {
	Prefix    netip.Prefix
	NextHop   netip.Addr // invalid: on-link, or nowhere
	Interface string     // empty: where the next hop is on-link, or nowhere
	Metric    uint32
}

// Unreachable tells whether r leads nowhere.
func (r ProviderRoute) Unreachable() bool { return !r.NextHop.IsValid() && r.Interface == "" }

// ProviderRouteRow is a ProviderRoute with its name.
type ProviderRouteRow struct {
	Name  string
	Route ProviderRoute
}

// MaxInterface is how long the name of a device can be, in bytes.
const MaxInterface = 15

// Check tells whether r may stand in a Goal: a plain prefix, a next hop of its family.
func (r ProviderRouteRow) Check() error {
	if r.Name == "" || len(r.Name) > MaxName {
		return wrong("provider route %q: a name has 1 to %d bytes", r.Name, MaxName)
	}
	hop := r.Route.NextHop
	if !plainPrefix(r.Route.Prefix) || hop.IsValid() && (!plain(hop) || hop.Is4() != r.Route.Prefix.Addr().Is4()) {
		return wrong("provider route %s: %s by %s", r.Name, r.Route.Prefix, hop)
	}
	if len(r.Route.Interface) > MaxInterface || r.Route.Unreachable() && r.Route.Metric != 0 {
		return wrong("provider route %s: device %q", r.Name, r.Route.Interface)
	}
	return nil
}

// Digest of the row.
func (r ProviderRouteRow) Digest() Digest {
	return hash(appendProviderRoute([]byte{kindProviderRoute}, r))
}

func providerRouteDigest(name string, r ProviderRoute) Digest {
	return ProviderRouteRow{name, r}.Digest()
}

func appendProviderRoute(b []byte, r ProviderRouteRow) []byte {
	b = appendText(b, r.Name)
	b = appendPrefix(b, r.Route.Prefix)
	b = appendAddr(b, r.Route.NextHop)
	b = appendText(b, r.Route.Interface)
	return binary.BigEndian.AppendUint32(b, r.Route.Metric)
}

func (r *reader) providerRoute() ProviderRouteRow {
	return ProviderRouteRow{Name: r.text(), Route: ProviderRoute{Prefix: r.prefix(), NextHop: r.addr(), Interface: r.text(), Metric: r.u32()}}
}
