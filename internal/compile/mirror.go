package compile

import (
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// takeMirrors notes whose rows follow from where a port is: those of the ports that get its copies.
func (c *Compiler) takeMirrors(p *port) {
	for _, m := range p.settings.Mirrors {
		to := c.port(model.Ref{Tenant: p.ref.Tenant, Name: m.Destination})
		if to == p {
			continue // its profile mirrors to it
		}
		p.mirrors[to] = struct{}{}
		to.watchers[p] = struct{}{}
		c.todo.ports[to] = struct{}{}
	}
}

func (c *Compiler) dropMirrors(p *port) {
	for to := range p.mirrors {
		delete(to.watchers, p)
		c.todo.ports[to] = struct{}{}
	}
	clear(p.mirrors)
}

// goalMirrors are a port's mirrors to ports that there are.
func (p *port) goalMirrors() []goal.Mirror {
	var out []goal.Mirror
	for _, m := range p.settings.Mirrors {
		for to := range p.mirrors {
			if to.ref.Name != m.Destination || to.spec == nil {
				continue
			}
			x := goal.Mirror{To: to.spec.ID, Outbound: m.Direction != model.Inbound, Inbound: m.Direction != model.Outbound, Snap: m.SnapLength, Rate: m.RateLimit}
			if number, any, ok := model.ProtocolNumber(m.Protocol); ok && !any {
				x.Protocol = &number
			}
			x.Prefix, x.Port = m.Prefix, m.Port
			if to.host != nil {
				x.PA = to.host.primary
			}
			out = append(out, x)
		}
	}
	return out
}

// watchedFrom are the addresses of the other hosts that copies for a port come from.
func (p *port) watchedFrom() []netip.Addr {
	var out []netip.Addr
	for x := range p.watchers {
		if x.host != nil && x.host != p.host && x.host.primary.IsValid() {
			out = append(out, x.host.primary)
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}
