package intent

import (
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
)

type hostRules struct{}

func (hostRules) clone(r model.Resource) model.Resource {
	c := *r.(*model.Host)
	c.Metadata = cloneMeta(c.Metadata)
	c.Spec.RewritePrefixes = orNil(c.Spec.RewritePrefixes)
	return &c
}

func (hostRules) inherit(_, _ model.Resource) {}

func (hostRules) check(a *admission, r, _ model.Resource) {
	h, k := r.(*model.Host), model.KeyOf(r)
	a.checkText(k, "spec.description", h.Spec.Description)
	a.checkUplink(h)
	if n := len(h.Spec.RewritePrefixes); n > maxRewritePrefixes {
		a.fail(k, "spec.rewritePrefixes", "has %d entries; at most %d are allowed", n, maxRewritePrefixes)
		return
	}
	for i, p := range h.Spec.RewritePrefixes {
		if problem := rewritePrefixProblem(p, h.Spec.RewritePrefixes[:i]); problem != "" {
			a.fail(k, at("spec.rewritePrefixes", i), "%s %s", p, problem)
		}
	}
}

func (hostRules) allocate(*admission, model.Resource) {}

// relate holds the host's pool against all other addresses of the underlay, and what was
// given out of it against what it is now.
func (hostRules) relate(a *admission, r, old model.Resource) {
	if r == nil {
		return
	}
	h := r.(*model.Host)
	a.checkPromises(h)
	if old != nil && slices.Equal(h.Spec.RewritePrefixes, old.(*model.Host).Spec.RewritePrefixes) {
		return
	}
	a.checkPool(h)
	a.checkGivenOut(h)
}

func (hostRules) claims(func(model.Key) model.Resource, model.Resource) []claim { return nil }

func (hostRules) parents(model.Resource) []model.Key { return nil }

func (hostRules) sameSpec(x, y model.Resource) bool {
	a, b := x.(*model.Host).Spec, y.(*model.Host).Spec
	return a.Description == b.Description && a.UplinkBandwidth == b.UplinkBandwidth && slices.Equal(a.RewritePrefixes, b.RewritePrefixes)
}

func rewritePrefixProblem(p netip.Prefix, others []netip.Prefix) string {
	if problem := prefixProblem(p); problem != "" {
		return problem
	}
	for _, u := range unusable {
		if u.Overlaps(p) {
			return "overlaps " + u.String() + ", which is not for hosts"
		}
	}
	for _, o := range others {
		if o.IsValid() && o.Overlaps(p) {
			return "overlaps " + o.String() + ", which stands before it"
		}
	}
	return ""
}
