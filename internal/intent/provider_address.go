package intent

import (
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
)

type providerAddressRules struct{}

func (providerAddressRules) clone(r model.Resource) model.Resource {
	c := *r.(*model.ProviderAddress)
	c.Metadata = cloneMeta(c.Metadata)
	return &c
}

func (providerAddressRules) inherit(_, _ model.Resource) {}

func (providerAddressRules) check(a *admission, r, _ model.Resource) {
	p, k := r.(*model.ProviderAddress), model.KeyOf(r)
	a.refer(k, "spec.host", hostKey(p.Spec.Host))
	if problem := providerProblem(p.Spec.Address); problem != "" {
		a.fail(k, "spec.address", "%s %s", p.Spec.Address, problem)
		return
	}
	if o := a.claim(paClaim(p.Spec.Address), r); o != nil {
		a.fail(k, "spec.address", "%s is already %s of host %q; a PA is on one host only",
			p.Spec.Address, name(o), o.(*model.ProviderAddress).Spec.Host)
	}
}

// providerProblem says why a cannot be a PA, or "".
func providerProblem(a netip.Addr) string {
	if problem := addressProblem(a); problem != "" {
		return problem
	}
	if !isIPv4(a) {
		return "is IPv6; Provider Addresses are IPv4 only so far: use an IPv4 address of the host"
	}
	return ""
}

// ValidPA reports whether a may be a Provider Address.
func ValidPA(a netip.Addr) bool { return providerProblem(a) == "" }

func (providerAddressRules) allocate(*admission, model.Resource) {}

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

// PAOf gives the Provider Address of a host: its lowest, or an invalid one while it has none.
func (s *State) PAOf(host string) netip.Addr {
	var pa netip.Addr
	for _, p := range s.pas[host] {
		if !pa.IsValid() || p.Spec.Address.Less(pa) {
			pa = p.Spec.Address
		}
	}
	return pa
}

// PAOfPort gives the Provider Address that a port is behind: of its host's addresses the
// one that compilation chooses as well. Invalid while there is none.
func (s *State) PAOfPort(p *model.Port) netip.Addr {
	all := s.pas[p.Host()]
	addresses := make([]netip.Addr, 0, len(all))
	for _, pa := range all {
		addresses = append(addresses, pa.Spec.Address)
	}
	slices.SortFunc(addresses, netip.Addr.Compare)
	return model.ChoosePA(addresses, p.ID)
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
