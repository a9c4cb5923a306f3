package compile

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
)

// Derived records follow from ports; only written ones count here.
func (c *Compiler) addLookupRecord(r *model.LookupRecord) {
	if r.Derived {
		return
	}
	s, ca := c.subnet(staticSubnet(r)), r.Spec.CustomerAddress.Unmap()
	all := s.claim(ca)
	all.statics = append(all.statics, r)
	c.touchRecord(s, ca)
	c.mention(r.Spec.ProviderAddress.Unmap(), s, 1)
}

func (c *Compiler) removeLookupRecord(r *model.LookupRecord) {
	if r.Derived {
		return
	}
	s, ca := c.subnet(staticSubnet(r)), r.Spec.CustomerAddress.Unmap()
	all := s.claims[ca]
	all.statics = without(all.statics, r)
	s.settleClaims(ca)
	c.touchRecord(s, ca)
	c.mention(r.Spec.ProviderAddress.Unmap(), s, -1)
}

// mention counts the static records of a subnet behind a Provider Address.
func (c *Compiler) mention(pa netip.Addr, s *subnet, by int) {
	if c.statics[pa] == nil {
		c.statics[pa] = map[*subnet]int{}
	}
	if c.statics[pa][s] += by; c.statics[pa][s] == 0 {
		delete(c.statics[pa], s)
	}
	if len(c.statics[pa]) == 0 {
		delete(c.statics, pa)
	}
}

func staticSubnet(r *model.LookupRecord) model.Ref {
	return model.Ref{Tenant: r.Metadata.Tenant, Name: r.Spec.Subnet}
}

// firstStatic is the record with the first name.
func firstStatic(all []*model.LookupRecord) *model.LookupRecord {
	var best *model.LookupRecord
	for _, r := range all {
		if best == nil || r.Metadata.Name < best.Metadata.Name {
			best = r
		}
	}
	return best
}
