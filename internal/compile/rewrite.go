package compile

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
)

// rewrite is the Provider Address that stands for a Customer Address, in a rewrite subnet.
func (s *subnet) rewrite(ca netip.Addr) netip.Addr {
	all := s.claims[ca]
	if all == nil || s.spec.Spec.Transport != model.TransportRewrite {
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
