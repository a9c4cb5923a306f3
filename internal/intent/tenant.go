package intent

import "github.com/weft-sdn/weft/internal/model"

type tenantRules struct{}

func (tenantRules) clone(r model.Resource) model.Resource {
	c := *r.(*model.Tenant)
	c.Metadata = cloneMeta(c.Metadata)
	return &c
}

func (tenantRules) inherit(_, _ model.Resource) {}

func (tenantRules) check(a *admission, r, _ model.Resource) {
	a.checkText(model.KeyOf(r), "spec.description", r.(*model.Tenant).Spec.Description)
}

func (tenantRules) allocate(*admission, model.Resource) {}

func (tenantRules) relate(*admission, model.Resource, model.Resource) {}

func (tenantRules) claims(func(model.Key) model.Resource, model.Resource) []claim { return nil }

func (tenantRules) parents(model.Resource) []model.Key { return nil }

func (tenantRules) sameSpec(a, b model.Resource) bool {
	return a.(*model.Tenant).Spec == b.(*model.Tenant).Spec
}
