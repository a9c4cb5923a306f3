package intent

import (
	"net/netip"
	"slices"
	"strconv"

	"github.com/weft-sdn/weft/internal/model"
)

type providerAddressRules struct{}

func (providerAddressRules) clone(r model.Resource) model.Resource {
	c := *r.(*model.ProviderAddress)
	c.Metadata = cloneMeta(c.Metadata)
	return &c
}

// inherit keeps what the host said, of the same address of the same host.
func (providerAddressRules) inherit(r, old model.Resource) {
	p := r.(*model.ProviderAddress)
	if o, ok := old.(*model.ProviderAddress); ok && o.Spec == p.Spec {
		p.State, p.Owner = o.State, o.Owner
	}
}

func (providerAddressRules) check(a *admission, r, _ model.Resource) {
	p, k := r.(*model.ProviderAddress), model.KeyOf(r)
	a.refer(k, "spec.host", hostKey(p.Spec.Host))
	if problem := addressProblem(p.Spec.Address); problem != "" {
		a.fail(k, "spec.address", "%s %s", p.Spec.Address, problem)
		return
	}
	if o := a.claim(paClaim(p.Spec.Address), r); o != nil {
		a.fail(k, "spec.address", "%s is already an address of %s; a PA is on one host only", p.Spec.Address, owner(o))
		return
	}
	a.checkOutsidePools(k, "spec.address", p.Spec.Address)
}

// owner names who has a PA, and the host of a ProviderAddress.
func owner(r model.Resource) string {
	if p, ok := r.(*model.ProviderAddress); ok {
		return name(p) + " of host " + strconv.Quote(p.Spec.Host)
	}
	return name(r)
}

// ValidPA reports whether a may be a Provider Address.
func ValidPA(a netip.Addr) bool { return addressProblem(a) == "" }

// allocate keeps an address that nobody has looked at yet from being handed out, where
// there is an agent that will look.
func (providerAddressRules) allocate(a *admission, r model.Resource) {
	p := r.(*model.ProviderAddress)
	if p.State != model.AddressUnknown {
		return
	}
	if slices.ContainsFunc(a.base.pas[p.Spec.Host], func(other *model.ProviderAddress) bool {
		return other.State != model.AddressUnknown && model.KeyOf(other) != model.KeyOf(p)
	}) {
		p.State = model.AddressTentative
	}
}

func (providerAddressRules) relate(*admission, model.Resource, model.Resource) {}

func (providerAddressRules) claims(_ func(model.Key) model.Resource, r model.Resource) []claim {
	return []claim{paClaim(r.(*model.ProviderAddress).Spec.Address)}
}

func (providerAddressRules) parents(r model.Resource) []model.Key {
	return []model.Key{hostKey(r.(*model.ProviderAddress).Spec.Host)}
}

func (providerAddressRules) sameSpec(a, b model.Resource) bool {
	return a.(*model.ProviderAddress).Spec == b.(*model.ProviderAddress).Spec
}

// ProviderAddressOf finds who has the PA a.
func (s *State) ProviderAddressOf(a netip.Addr) (*model.ProviderAddress, bool) {
	p, ok := s.claims[paClaim(a)].(*model.ProviderAddress)
	return p, ok
}

// PAsOf gives the Provider Addresses of a host, sorted by name.
func (s *State) PAsOf(host string) []*model.ProviderAddress { return slices.Clone(s.pas[host]) }

// PAOf gives the Provider Address that lookup records name a host by, or an invalid
// one while it has none.
func (s *State) PAOf(host string) netip.Addr { return model.PrimaryPA(s.pas[host]) }

// AddressReport is what a host says of one of its Provider Addresses.
type AddressReport struct {
	Address netip.Addr
	State   model.AddressState
	Owner   model.MAC // who has a Duplicate as well; zero: not known
}

// AdmitAddressStates takes over what a host says of its own Provider Addresses. What
// it says of others is no business of its, and left out.
func AdmitAddressStates(s *State, host string, reports []AddressReport) *Result {
	res := &Result{Cursors: s.cursors}
	for _, r := range reports {
		pa, ok := s.ProviderAddressOf(r.Address)
		if !ok || pa.Spec.Host != host || pa.State == r.State && pa.Owner == r.Owner {
			continue
		}
		next := providerAddressRules{}.clone(pa).(*model.ProviderAddress)
		next.State, next.Owner = r.State, r.Owner
		res.Changes = append(res.Changes, Change{Updated, model.KeyOf(pa), pa, next})
		res.Puts = append(res.Puts, next)
	}
	return res
}

func (s *State) addPA(p *model.ProviderAddress) {
	host := p.Spec.Host
	s.pas[host] = append(s.pas[host], p)
	slices.SortFunc(s.pas[host], func(a, b *model.ProviderAddress) int { return compareRefs(a.Metadata.Ref(), b.Metadata.Ref()) })
}

func (s *State) removePA(p *model.ProviderAddress) {
	host := p.Spec.Host
	s.pas[host] = slices.DeleteFunc(s.pas[host], func(q *model.ProviderAddress) bool { return q == p })
	if len(s.pas[host]) == 0 {
		delete(s.pas, host)
	}
}
