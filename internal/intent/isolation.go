package intent

import (
	"github.com/weft-sdn/weft/internal/model"
)

// checkCommunity refuses the name of a community that another one of the subnet cannot be told from.
func (a *admission) checkCommunity(p *model.Port, i model.Isolation) {
	if i.Mode != model.IsolationCommunity {
		return
	}
	subnet := subnetKey(p.Metadata.Tenant, p.Spec.Subnet)
	known, ok := a.communities[subnet]
	if !ok {
		known = a.communitiesOf(subnet)
		a.communities[subnet] = known
	}
	other, taken := known[i.ID()]
	if taken && other != i.Community {
		a.fail(model.KeyOf(p), "spec.isolation.community", "%q has the same number as %q in subnet %s, by chance; choose another name", i.Community, other, p.Spec.Subnet)
	}
	known[i.ID()] = i.Community
}

// communitiesOf are the names of a subnet's communities, as they are but for what the set changes.
func (a *admission) communitiesOf(subnet model.Key) map[model.IsolationID]string {
	out := map[model.IsolationID]string{}
	for _, k := range a.childrenOf(subnet) {
		if _, inSet := a.puts[k]; inSet {
			continue
		}
		if p, ok := a.base.get(k).(*model.Port); ok {
			if i := a.settings(p).Isolation; i.Mode == model.IsolationCommunity {
				out[i.ID()] = i.Community
			}
		}
	}
	return out
}
