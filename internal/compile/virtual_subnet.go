package compile

import (
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// subnet is one VSID and everything that claims an address in it.
type subnet struct {
	ref    model.Ref
	spec   *model.VirtualSubnet // nil while it is only referred to
	home   *network             // that spec names
	ports  map[*port]struct{}
	claims map[netip.Addr]*claims

	// What its rows were made under; nil network: it has no rows.
	network *network
	vsid    model.VSID
	rows    map[netip.Addr]struct{} // Customer Addresses that have a record
}

// claims are all that want a Customer Address. The router comes before any
// port, a port before a static record, the lowest ID or name first: admission
// lets only one through, but the result must be the same in any order.
type claims struct {
	ports   []*port
	statics []*model.LookupRecord
}

// recordSpot is a place where a record may stand.
type recordSpot struct {
	subnet *subnet
	ca     netip.Addr
}

func (c *Compiler) subnet(ref model.Ref) *subnet {
	s := c.subnets[ref]
	if s == nil {
		s = &subnet{ref: ref, ports: map[*port]struct{}{}, claims: map[netip.Addr]*claims{}, rows: map[netip.Addr]struct{}{}}
		c.subnets[ref] = s
	}
	return s
}

func (c *Compiler) forgetSubnet(s *subnet) {
	if s.spec == nil && len(s.ports) == 0 && len(s.claims) == 0 {
		delete(c.subnets, s.ref)
	}
}

// members names the hosts of the subnet's network, sorted.
func (s *subnet) members() []string {
	if s == nil {
		return nil
	}
	return s.home.members()
}

func (c *Compiler) addVirtualSubnet(r *model.VirtualSubnet) {
	s := c.subnet(r.Metadata.Ref())
	s.spec = r
	s.home = c.network(model.Ref{Tenant: r.Metadata.Tenant, Name: r.Spec.Network})
	s.home.subnets[s] = struct{}{}
	c.todo.subnets[s] = struct{}{}
	c.todo.networks[s.home] = struct{}{}
}

func (c *Compiler) removeVirtualSubnet(r *model.VirtualSubnet) {
	s := c.subnet(r.Metadata.Ref())
	delete(s.home.subnets, s)
	c.todo.subnets[s] = struct{}{}
	c.todo.networks[s.home] = struct{}{}
	s.spec, s.home = nil, nil
}

// retractSubnet takes back all records; settleSubnet makes them anew.
func (c *Compiler) retractSubnet(s *subnet) {
	for ca := range s.rows {
		c.dropRecord(s.network, goal.RecordKey{VSID: s.vsid, CA: ca})
	}
	clear(s.rows)
	s.network, s.vsid = nil, 0
}

func (c *Compiler) settleSubnet(s *subnet) {
	if s.spec != nil && s.spec.Spec.VSID.Valid() && s.home.index != 0 {
		s.network, s.vsid = s.home, s.spec.Spec.VSID
		for _, a := range s.spec.Spec.Gateway {
			c.touchRecord(s, a.Unmap())
		}
	}
	for ca := range s.claims {
		c.touchRecord(s, ca)
	}
	for p := range s.ports {
		c.todo.ports[p] = struct{}{}
	}
}

func (c *Compiler) touchRecord(s *subnet, ca netip.Addr) {
	c.todo.records[recordSpot{s, ca}] = struct{}{}
}

func (c *Compiler) settleRecord(spot recordSpot) {
	s := spot.subnet
	if s.network == nil {
		return
	}
	key := goal.RecordKey{VSID: s.vsid, CA: spot.ca}
	c.dropRecord(s.network, key)
	delete(s.rows, spot.ca)
	record, ok := c.record(s, spot.ca)
	record.Transport = s.transport(spot.ca)
	if !record.Router {
		record.Rewrite = s.rewrite(spot.ca)
	}
	row := goal.RecordRow{Key: key, Record: record}
	if !ok || row.Check() != nil {
		return
	}
	c.setRecord(s.network, row)
	s.rows[spot.ca] = struct{}{}
}

// record decides between the claims of an address.
func (c *Compiler) record(s *subnet, ca netip.Addr) (goal.Record, bool) {
	if s.isGateway(ca) {
		return goal.Record{MAC: model.RouterMAC(s.vsid), Router: true}, true
	}
	all := s.claims[ca]
	if all == nil {
		return goal.Record{}, false
	}
	if p := first(all.ports); p != nil {
		return p.record(ca), true
	}
	if r := firstStatic(all.statics); r != nil {
		return c.staticRecord(s, r)
	}
	return goal.Record{}, false
}

func (s *subnet) claim(ca netip.Addr) *claims {
	all := s.claims[ca]
	if all == nil {
		all = &claims{}
		s.claims[ca] = all
	}
	return all
}

// settleClaims drops what nobody claims any more.
func (s *subnet) settleClaims(ca netip.Addr) {
	if all := s.claims[ca]; all != nil && len(all.ports) == 0 && len(all.statics) == 0 {
		delete(s.claims, ca)
	}
}

func without[T comparable](all []T, x T) []T {
	return slices.DeleteFunc(all, func(y T) bool { return y == x })
}
