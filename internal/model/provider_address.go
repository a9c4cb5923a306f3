package model

import (
	"cmp"
	"net/netip"
	"slices"
)

// HasRewrite reports whether pa is in the host's rewrite prefixes.
func (h *Host) HasRewrite(pa netip.Addr) bool {
	for _, p := range h.Spec.RewritePrefixes {
		if p.Contains(pa) {
			return true
		}
	}
	return false
}

// AddressState is what duplicate address detection knows of a Provider Address
// (hnv 1.2: AddressState).
type AddressState string

// The states.
const (
	AddressUnknown    AddressState = ""           // nobody has said: the host has not joined, or is not weft's
	AddressInvalid    AddressState = "Invalid"    // not on the host, or its device is down
	AddressTentative  AddressState = "Tentative"  // being probed
	AddressDuplicate  AddressState = "Duplicate"  // somebody else has it too
	AddressDeprecated AddressState = "Deprecated" // IPv6: its lifetime is over (RFC 4862 section 5.5.4)
	AddressPreferred  AddressState = "Preferred"
)

// Usable reports whether packets may be sent to and from an address in state s.
func (s AddressState) Usable() bool { return s == AddressPreferred || s == AddressUnknown }

// Known reports whether s is one of the states that a host may report.
func (s AddressState) Known() bool {
	return slices.Contains([]AddressState{AddressInvalid, AddressTentative, AddressDuplicate, AddressDeprecated, AddressPreferred}, s)
}

// MaxPAs bounds how many Provider Addresses of one host are used at a time.
const MaxPAs = 8

// PrimaryPA is the address by which lookup records name a host: the one of its oldest
// ProviderAddress, of equally old ones the lowest. It does not depend on states, so that
// records change neither when an address is added nor when one cannot be used for a
// while. Invalid while the host has none.
func PrimaryPA(pas []*ProviderAddress) netip.Addr {
	if len(pas) == 0 {
		return netip.Addr{}
	}
	return slices.MinFunc(pas, func(a, b *ProviderAddress) int {
		return cmp.Or(a.Metadata.CreatedAt.Compare(b.Metadata.CreatedAt), a.Spec.Address.Unmap().Compare(b.Spec.Address.Unmap()))
	}).Spec.Address.Unmap()
}

// UsablePAs are the addresses that packets may be sent to, sorted and distinct, at
// most MaxPAs of them.
func UsablePAs(pas []*ProviderAddress) []netip.Addr {
	var out []netip.Addr
	for _, pa := range pas {
		if pa.State.Usable() {
			out = append(out, pa.Spec.Address.Unmap())
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	out = slices.Compact(out)
	return out[:min(len(out), MaxPAs)]
}
