package intent

import "github.com/weft-sdn/weft/internal/model"

type hostRules struct{}

func (hostRules) clone(r model.Resource) model.Resource {
	c := *r.(*model.Host)
	c.Metadata = cloneMeta(c.Metadata)
	return &c
}

func (hostRules) inherit(_, _ model.Resource) {}

func (hostRules) check(a *admission, r, _ model.Resource) {
	a.checkText(model.KeyOf(r), "spec.description", r.(*model.Host).Spec.Description)
}

func (hostRules) allocate(*admission, model.Resource) {}

func (hostRules) relate(*admission, model.Resource, model.Resource) {}

func (hostRules) claims(func(model.Key) model.Resource, model.Resource) []claim { return nil }

func (hostRules) parents(model.Resource) []model.Key { return nil }

func (hostRules) sameSpec(a, b model.Resource) bool {
	return a.(*model.Host).Spec == b.(*model.Host).Spec
}
