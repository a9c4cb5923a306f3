package compile

import (
	"slices"

	"github.com/weft-sdn/weft/internal/model"
)

func (c *Compiler) addProviderAddress(r *model.ProviderAddress) {
	h := c.host(r.Spec.Host)
	h.addresses[r.Metadata.Name] = r.Spec.Address.Unmap()
	c.todo.hosts[h] = struct{}{}
}

func (c *Compiler) removeProviderAddress(r *model.ProviderAddress) {
	h := c.host(r.Spec.Host)
	delete(h.addresses, r.Metadata.Name)
	c.todo.hosts[h] = struct{}{}
}

// concernProviderAddress names the hosts whose Goal mentions the address: its
// own, and those of networks with a port or a static record behind it.
func (c *Compiler) concernProviderAddress(r *model.ProviderAddress) []string {
	h := c.hosts[r.Spec.Host]
	names := []string{h.name}
	for n := range h.networks {
		if h.speaks(n, r) {
			names = append(names, n.members()...)
		}
	}
	for s := range c.statics[r.Spec.Address.Unmap()] {
		names = append(names, s.members()...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// speaks reports whether a port of n on this host uses the address.
func (h *host) speaks(n *network, r *model.ProviderAddress) bool {
	for p := range h.placed {
		if p.in == n && h.pa(p.spec.ID) == r.Spec.Address.Unmap() {
			return true
		}
	}
	return false
}
