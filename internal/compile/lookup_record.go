package compile

import (
	"github.com/weft-sdn/weft/internal/goal"
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
	if r.Spec.Port != "" {
		c.portOf(r).stands[recordSpot{s, ca}]++
	}
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
	if r.Spec.Port == "" {
		return
	}
	p, spot := c.portOf(r), recordSpot{s, ca}
	if p.stands[spot]--; p.stands[spot] == 0 {
		delete(p.stands, spot)
	}
	c.todo.ports[p] = struct{}{}
}

// portOf is the port that a record names.
func (c *Compiler) portOf(r *model.LookupRecord) *port {
	return c.port(model.Ref{Tenant: r.Metadata.Tenant, Name: r.Spec.Port})
}

// staticRecord is the row of a written record; none while the port that it names is nowhere.
func (c *Compiler) staticRecord(s *subnet, r *model.LookupRecord) (goal.Record, bool) {
	if r.Spec.Port == "" {
		return goal.Record{MAC: r.Spec.MAC, PA: r.Spec.ProviderAddress.Unmap()}, true
	}
	p := c.portOf(r)
	if p.spec == nil || p.subnet != s || p.host == nil || p.spec.ID == 0 {
		return goal.Record{}, false
	}
	return p.record(r.Spec.CustomerAddress), true
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
