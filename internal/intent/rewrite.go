package intent

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
)

// In a rewrite subnet every Customer Address has a Provider Address of its own, out of
// the rewritePrefixes of the host where its port is (hnv 1.4), of the family that the network says: one for all of its
// ports, because a packet has one IP header. Ports carry what they were
// given; a static LookupRecord names its own.

// keepRewrites claims what p has been given and may keep, before anything is given anew: a port
// that does not move is never renumbered. What it may not keep becomes invalid.
func (a *admission) keepRewrites(p *model.Port, s *model.VirtualSubnet) {
	h, ok := a.get(hostKey(p.Host())).(*model.Host)
	if !ok || s.Spec.Transport != model.TransportRewrite {
		p.RewriteAddresses = nil
		return
	}
	given := make([]netip.Addr, len(p.Spec.Addresses))
	for i, pa := range p.RewriteAddresses[:min(len(given), len(p.RewriteAddresses))] {
		if a.rewriteFamily(s, p.Spec.Addresses[i]) == model.FamilyOf(pa) && h.HasRewrite(pa) && a.claim(paClaim(pa), p) == nil {
			given[i] = pa
		}
	}
	p.RewriteAddresses = given
}

// allocateRewrites gives each address of p a Provider Address that has none yet.
func (a *admission) allocateRewrites(p *model.Port, s *model.VirtualSubnet) {
	k := hostKey(p.Host())
	h, ok := a.get(k).(*model.Host)
	if !ok || a.bad[k] || s.Spec.Transport != model.TransportRewrite {
		return
	}
	given := append(p.RewriteAddresses, make([]netip.Addr, len(p.Spec.Addresses)-len(p.RewriteAddresses))...)
	for i, ca := range p.Spec.Addresses {
		family := a.rewriteFamily(s, ca)
		if given[i].IsValid() || family == "" {
			continue
		}
		if given[i], ok = a.freeRewrite(h, family, uint64(p.ID)+uint64(i)); !ok {
			a.failPool(p, h, ca, family)
			return
		}
		a.claim(paClaim(given[i]), p)
	}
	p.RewriteAddresses = given
}

// rewriteFamily is that of the Provider Address which the Customer Address ca of s has of its own; empty: it has none.
func (a *admission) rewriteFamily(s *model.VirtualSubnet, ca netip.Addr) model.Family {
	n, ok := a.get(networkKey(s.Metadata.Tenant, s.Spec.Network)).(*model.VirtualNetwork)
	if s.Spec.Transport != model.TransportRewrite || !ok || !n.Rewrites(ca) {
		return ""
	}
	return n.RewriteFamily(ca)
}

// checkFamilies checks what the network's rewrite subnets rewrite.
func checkFamilies(a *admission, n *model.VirtualNetwork) {
	for i, f := range n.Spec.RewriteFamilies {
		switch {
		case f != model.IPv4 && f != model.IPv6:
			a.fail(model.KeyOf(n), at("spec.rewriteFamilies", i), "%.40q is not a family; use ipv4 or ipv6", f)
		case slices.Contains(n.Spec.RewriteFamilies[:i], f):
			a.fail(model.KeyOf(n), at("spec.rewriteFamilies", i), "%s is there twice", f)
		}
	}
	if f := n.Spec.RewriteOver; f != "" && f != model.IPv4 && f != model.IPv6 {
		a.fail(model.KeyOf(n), "spec.rewriteOver", "%.40q is not a family; use ipv4 or ipv6, or leave it out to rewrite each over its own", f)
	}
}

// rewritesOf is what old was given for the addresses cas, in their order; invalid where it was given none.
func rewritesOf(cas []netip.Addr, old *model.Port) []netip.Addr {
	if len(old.RewriteAddresses) == 0 {
		return nil
	}
	out := make([]netip.Addr, len(cas))
	for i, ca := range cas {
		if j := slices.Index(old.Spec.Addresses, ca); j >= 0 && j < len(old.RewriteAddresses) {
			out[i] = old.RewriteAddresses[j]
		}
	}
	return out
}

// claimRewrite takes the Provider Address of a static record in a rewrite subnet, which stands for
// that one Customer Address.
func (a *admission) claimRewrite(s *model.VirtualSubnet, l *model.LookupRecord) {
	family := a.rewriteFamily(s, l.Spec.CustomerAddress)
	if l.Rewrite = family != ""; !l.Rewrite {
		return
	}
	k, pa := model.KeyOf(l), l.Spec.ProviderAddress
	if !pa.IsValid() || model.FamilyOf(pa) != family {
		a.fail(k, "spec.providerAddress", "%s is not of the family %s, by which the network rewrites %s", pa, family, l.Spec.CustomerAddress)
		return
	}
	if o := a.claim(paClaim(pa), l); o != nil {
		a.fail(k, "spec.providerAddress", "%s is already an address of %s; in a rewrite subnet each Customer Address has a Provider Address of its own", pa, owner(o))
		return
	}
	a.checkOutsidePools(k, "spec.providerAddress", pa)
}

// freeRewrite finds a free address of the family in the pool of h. The search begins at a place
// that the port's ID gives: the same port finds the same address again, and one that became free is
// not given out at once while a slow host may still hold it, because IDs go round.
func (a *admission) freeRewrite(h *model.Host, family model.Family, start uint64) (netip.Addr, bool) {
	pool := poolOf(h, family)
	size := pool.size()
	for n := range min(size, maxPoolSearch) {
		pa := pool.at((start + n) % size)
		if pool.usable(pa) && a.owner(paClaim(pa)) == nil {
			return pa, true
		}
	}
	return netip.Addr{}, false
}

func (a *admission) failPool(p *model.Port, h *model.Host, ca netip.Addr, family model.Family) {
	k, written := model.KeyOf(p), "IPv6"
	if family == model.IPv4 {
		written = "IPv4"
	}
	if len(poolOf(h, family)) == 0 {
		a.fail(k, "spec.addresses", "%s is in a rewrite subnet and needs a Provider Address of its own, and host %q has no %s prefix in spec.rewritePrefixes; add one that the underlay leads to that host, or in the spec of the network set rewriteOver to the family that all hosts have, or leave %s out of rewriteFamilies to have it carried by NVGRE",
			ca, h.Metadata.Name, written, model.FamilyOf(ca))
		return
	}
	a.fail(k, "spec.addresses", "%s is in a rewrite subnet and needs a Provider Address of its own, and none is free in the %s prefixes %s of host %q; add a prefix to its spec.rewritePrefixes, or move or delete ports",
		ca, written, poolOf(h, family), h.Metadata.Name)
}

// pullRewritten takes into the set what a change of a subnet's transport, or of the families that a network
// rewrites, or rewrites over, changes: ports and records, unless they are in the set anyway.
func (a *admission) pullRewritten() {
	for _, k := range slices.Clone(a.order) {
		switch r := a.puts[k].(type) {
		case *model.VirtualSubnet:
			old, ok := a.base.get(k).(*model.VirtualSubnet)
			if ok && (old.Spec.Transport == model.TransportRewrite) != (r.Spec.Transport == model.TransportRewrite) {
				a.pullChildren(k)
			}
		case *model.VirtualNetwork:
			old, ok := a.base.get(k).(*model.VirtualNetwork)
			if !ok || slices.Equal(old.Spec.RewriteFamilies, r.Spec.RewriteFamilies) && old.Spec.RewriteOver == r.Spec.RewriteOver {
				continue
			}
			for _, c := range a.childrenOf(k) {
				if s, ok := a.get(c).(*model.VirtualSubnet); ok && s.Spec.Transport == model.TransportRewrite {
					a.pullChildren(c)
				}
			}
		}
	}
}

func (a *admission) pullChildren(k model.Key) {
	for _, c := range a.childrenOf(k) {
		if _, inSet := a.puts[c]; !inSet {
			a.takePuts([]model.Resource{a.base.get(c)})
		}
	}
}

// checkPool holds a host's pool against those of other hosts and against Provider Addresses.
func (a *admission) checkPool(h *model.Host) {
	k := model.KeyOf(h)
	for _, o := range a.pools() {
		for i, p := range h.Spec.RewritePrefixes {
			if q, ok := overlapOf(p, o.Spec.RewritePrefixes); ok && o.Metadata.Name != h.Metadata.Name {
				a.fail(k, at("spec.rewritePrefixes", i), "%s overlaps %s of %s; the underlay leads an address to one host only", p, q, name(o))
			}
		}
	}
	for _, pa := range a.providerAddresses() {
		for i, p := range h.Spec.RewritePrefixes {
			if p.Contains(pa.Spec.Address) {
				a.fail(k, at("spec.rewritePrefixes", i), "%s contains %s, which is %s; leave the hosts' own addresses out of it", p, pa.Spec.Address, name(pa))
			}
		}
	}
}

// checkOutsidePools refuses a Provider Address that some host gives to Customer Addresses.
func (a *admission) checkOutsidePools(k model.Key, field string, pa netip.Addr) {
	for _, h := range a.pools() {
		if h.HasRewrite(pa) {
			a.fail(k, field, "%s is in spec.rewritePrefixes of %s, out of which Customer Addresses are given theirs", pa, name(h))
			return
		}
	}
}

// checkGivenOut refuses to shrink a pool below what the ports that are not in the set hold.
func (a *admission) checkGivenOut(h *model.Host) {
	var left []model.Key
	for _, c := range a.childrenOf(model.KeyOf(h)) {
		p, ok := a.get(c).(*model.Port)
		if _, inSet := a.puts[c]; !ok || inSet {
			continue
		}
		if slices.ContainsFunc(p.RewriteAddresses, func(pa netip.Addr) bool { return pa.IsValid() && !h.HasRewrite(pa) }) {
			left = append(left, c)
		}
	}
	if len(left) > 0 {
		a.failFor(Conflict, model.KeyOf(h), "spec.rewritePrefixes", "no longer holds the addresses of %s; move or delete them first, or keep the prefixes", nameKeys(left))
	}
}

// pools lists the hosts with rewrite prefixes once the set is in place.
func (a *admission) pools() []*model.Host {
	if a.poolsKnown == nil {
		a.poolsKnown = []*model.Host{}
		for _, r := range a.everyOf(model.KindHost) {
			if h := r.(*model.Host); len(h.Spec.RewritePrefixes) > 0 {
				a.poolsKnown = append(a.poolsKnown, h)
			}
		}
	}
	return a.poolsKnown
}

func (a *admission) providerAddresses() []*model.ProviderAddress {
	var out []*model.ProviderAddress
	for _, r := range a.everyOf(model.KindProviderAddress) {
		out = append(out, r.(*model.ProviderAddress))
	}
	return out
}

// everyOf lists the resources of a kind once the set is in place, sorted.
func (a *admission) everyOf(kind model.Kind) []model.Resource {
	var out []model.Resource
	for ref, r := range a.base.resources[kind] {
		k := model.Key{Kind: kind, Ref: ref}
		_, replaced := a.puts[k]
		if _, gone := a.deleted[k]; !replaced && !gone {
			out = append(out, r)
		}
	}
	for k, r := range a.puts {
		if k.Kind == kind {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(x, y model.Resource) int { return compareKeys(model.KeyOf(x), model.KeyOf(y)) })
	return out
}

func overlapOf(p netip.Prefix, others []netip.Prefix) (netip.Prefix, bool) {
	for _, o := range others {
		if p.IsValid() && o.IsValid() && p.Overlaps(o) {
			return o, true
		}
	}
	return netip.Prefix{}, false
}

// pool is the prefixes of one family, as one row of addresses.
type pool []netip.Prefix

// A pool counts as no larger than this, and a search in it looks at no more.
const (
	maxPoolBits   = 32
	maxPoolSearch = 1 << 17
)

func poolOf(h *model.Host, family model.Family) pool {
	var out pool
	for _, p := range h.Spec.RewritePrefixes {
		if p.IsValid() && model.FamilyOf(p.Addr()) == family {
			out = append(out, p)
		}
	}
	return out
}

func sizeOf(p netip.Prefix) uint64 { return 1 << min(maxPoolBits, p.Addr().BitLen()-p.Bits()) }

func (p pool) size() uint64 {
	n := uint64(0)
	for _, x := range p {
		n += sizeOf(x)
	}
	return n
}

// at is the n-th address of the pool, n below its size.
func (p pool) at(n uint64) netip.Addr {
	for _, x := range p {
		if n >= sizeOf(x) {
			n -= sizeOf(x)
			continue
		}
		b := x.Addr().As16()
		binary.BigEndian.PutUint64(b[8:], binary.BigEndian.Uint64(b[8:])+n)
		if x.Addr().Is4() {
			return netip.AddrFrom16(b).Unmap()
		}
		return netip.AddrFrom16(b)
	}
	return netip.Addr{}
}

// usable leaves out what routers and hosts on a link take for the network or for everybody.
func (p pool) usable(a netip.Addr) bool {
	for _, x := range p {
		if x.Contains(a) {
			return x.Bits() >= x.Addr().BitLen()-1 || edgeProblem(x, a) == ""
		}
	}
	return false
}

func (p pool) String() string {
	text := ""
	for i, x := range p {
		if i > 0 {
			text += ", "
		}
		text += x.String()
	}
	return text
}

// RewritesInUse counts the addresses that were given out of a host's pool.
func (s *State) RewritesInUse(host string) int {
	n := 0
	for c := range s.children[hostKey(host)] {
		if p, ok := s.get(c).(*model.Port); ok {
			for _, pa := range p.RewriteAddresses {
				if pa.IsValid() {
					n++
				}
			}
		}
	}
	return n
}

// PortOfRewrite finds the port and the Customer Address that the Provider Address pa stands for.
func (s *State) PortOfRewrite(pa netip.Addr) (*model.Port, netip.Addr, bool) {
	p, ok := s.claims[paClaim(pa)].(*model.Port)
	if !ok {
		return nil, netip.Addr{}, false
	}
	i := slices.Index(p.RewriteAddresses, pa)
	if i < 0 || i >= len(p.Spec.Addresses) {
		return nil, netip.Addr{}, false
	}
	return p, p.Spec.Addresses[i], true
}
