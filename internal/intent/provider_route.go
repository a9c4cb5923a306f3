package intent

import (
	"strings"

	"github.com/weft-sdn/weft/internal/model"
)

type providerRouteRules struct{}

func (providerRouteRules) clone(r model.Resource) model.Resource {
	c := *r.(*model.ProviderRoute)
	c.Metadata = cloneMeta(c.Metadata)
	return &c
}

func (providerRouteRules) inherit(_, _ model.Resource) {}

func (providerRouteRules) check(a *admission, r, _ model.Resource) {
	p, k := r.(*model.ProviderRoute), model.KeyOf(r)
	a.refer(k, "spec.host", hostKey(p.Spec.Host))
	if problem := providerPrefixProblem(p); problem != "" {
		a.fail(k, "spec.prefix", "%s %s", p.Spec.Prefix, problem)
	}
	if problem := interfaceProblem(p.Spec.Interface); problem != "" {
		a.fail(k, "spec.interface", "%q %s", p.Spec.Interface, problem)
	}
	if !p.Spec.NextHop.IsValid() {
		if p.Spec.Interface == "" {
			a.fail(k, "spec.nextHop", "is required where interface does not say where the prefix is on-link")
		}
		return
	}
	if problem := addressProblem(p.Spec.NextHop); problem != "" {
		a.fail(k, "spec.nextHop", "%s %s", p.Spec.NextHop, problem)
		return
	}
	if p.Spec.Prefix.IsValid() && isIPv4(p.Spec.Prefix.Addr()) != isIPv4(p.Spec.NextHop) {
		a.fail(k, "spec.nextHop", "%s is not of the family of %s", p.Spec.NextHop, p.Spec.Prefix)
	}
}

func providerPrefixProblem(p *model.ProviderRoute) string {
	if problem := prefixProblem(p.Spec.Prefix); problem != "" {
		return problem
	}
	for _, u := range unusable {
		if u.Contains(p.Spec.Prefix.Addr()) && u.Bits() <= p.Spec.Prefix.Bits() {
			return "is inside " + u.String() + ", where no host is"
		}
	}
	return ""
}

// maxInterface is how long the name of a Linux device can be, in bytes.
const maxInterface = 15

func interfaceProblem(name string) string {
	switch {
	case len(name) > maxInterface:
		return "is longer than the name of a device can be"
	case name == "." || name == ".." || strings.ContainsAny(name, "/: \t\n"):
		return "cannot be the name of a device"
	}
	return ""
}

func (providerRouteRules) allocate(*admission, model.Resource) {}

func (providerRouteRules) relate(*admission, model.Resource, model.Resource) {}

func (providerRouteRules) claims(_ func(model.Key) model.Resource, _ model.Resource) []claim {
	return nil
}

func (providerRouteRules) parents(r model.Resource) []model.Key {
	return []model.Key{hostKey(r.(*model.ProviderRoute).Spec.Host)}
}

func (providerRouteRules) sameSpec(a, b model.Resource) bool {
	return a.(*model.ProviderRoute).Spec == b.(*model.ProviderRoute).Spec
}
