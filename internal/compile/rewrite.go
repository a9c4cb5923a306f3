package compile

import (
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
)

// transport carries what is for ca. A family that the network does not rewrite goes by NVGRE, and so does what
// is copied to all in a rewrite subnet that floods: there the router's record says so, for hosts to leave room in
// the MTU of guests.
func (s *subnet) transport(ca netip.Addr) model.TransportID {
	id := s.spec.Spec.Transport.ID()
	if id != model.Rewrite {
		return id
	}
	families := s.home.rewriteFamilies
	if len(families) > 0 && !slices.Contains(families, model.FamilyOf(ca)) {
		return model.NVGRE
	}
	if s.spec.Spec.Flood == model.FloodL2 && s.isGateway(ca) {
		return model.NVGRE
	}
	return id
}

func (s *subnet) isGateway(ca netip.Addr) bool {
	return slices.ContainsFunc(s.spec.Spec.Gateway, func(a netip.Addr) bool { return a.Unmap() == ca })
}

// rewrite is the Provider Address that stands for a Customer Address, in a rewrite subnet.
func (s *subnet) rewrite(ca netip.Addr) netip.Addr {
	all := s.claims[ca]
	if all == nil || s.transport(ca) != model.Rewrite {
		return netip.Addr{}
	}
	if p := first(all.ports); p != nil {
		return p.rewrite(ca)
	}
	if r := firstStatic(all.statics); r != nil && r.Rewrite {
		return r.Spec.ProviderAddress.Unmap()
	}
	return netip.Addr{}
}

func (p *port) rewrite(ca netip.Addr) netip.Addr {
	for i, a := range p.spec.Spec.Addresses {
		if a.Unmap() == ca && i < len(p.spec.RewriteAddresses) {
			return p.spec.RewriteAddresses[i].Unmap()
		}
	}
	return netip.Addr{}
}
