package compile

import (
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// host is what is known of one hypervisor. A Host resource adds nothing to it.
type host struct {
	name      string
	addresses map[string]netip.Addr // of ProviderAddress resources, by their name
	placed    map[*port]struct{}    // ports that say they are here

	pas      []netip.Addr               // distinct and sorted: rows
	rows     map[model.PortID]goal.Port // rows
	networks map[*network]struct{}      // those with a row here
	own      goal.Digest                // of pas and rows
	digest   goal.Digest                // of the whole Goal
}

func (c *Compiler) host(name string) *host {
	h := c.hosts[name]
	if h == nil {
		h = &host{name: name, addresses: map[string]netip.Addr{}, placed: map[*port]struct{}{},
			rows: map[model.PortID]goal.Port{}, networks: map[*network]struct{}{}}
		c.hosts[name] = h
	}
	return h
}

func (c *Compiler) forgetHost(h *host) {
	if len(h.addresses) == 0 && len(h.placed) == 0 {
		delete(c.hosts, h.name)
	}
}

// settleHost takes over the host's Provider Addresses. Every port of the host
// may get another one.
func (c *Compiler) settleHost(h *host) {
	var pas []netip.Addr
	for _, a := range h.addresses {
		if goal.CheckPA(a) == nil {
			pas = append(pas, a)
		}
	}
	slices.SortFunc(pas, netip.Addr.Compare)
	pas = slices.Compact(pas)
	if slices.Equal(pas, h.pas) {
		return
	}
	before := c.change.host(h)
	for _, a := range h.pas {
		before.pas[a] = true
		h.own = h.own.Sub(goal.DigestPA(a))
	}
	for _, a := range pas {
		before.pas[a] = before.pas[a]
		h.own = h.own.Add(goal.DigestPA(a))
	}
	h.pas = pas
	for p := range h.placed {
		c.touchPort(p)
	}
}

func (h *host) has(pa netip.Addr) bool { return slices.Contains(h.pas, pa) }

// pa is the Provider Address that a port of this host uses.
func (h *host) pa(id model.PortID) netip.Addr { return model.ChoosePA(h.pas, id) }
