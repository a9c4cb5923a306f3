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
	addresses map[string]*model.ProviderAddress // by their name
	placed    map[*port]struct{}                // ports that say they are here

	pas      []netip.Addr                  // distinct and sorted: rows
	primary  netip.Addr                    // that records name the host by
	usable   []netip.Addr                  // that packets may be sent to now
	rows     map[model.PortID]goal.Port    // rows
	routes   map[string]goal.ProviderRoute // rows, by name
	networks map[*network]struct{}         // those with a row here
	uses     map[*list]int                 // by its rows
	lists    map[model.Ref]*goal.List      // rows
	groups   map[model.Ref]*goal.Group     // rows
	own      goal.Digest                   // of pas and all rows
	digest   goal.Digest                   // of the whole Goal
}

func (c *Compiler) host(name string) *host {
	h := c.hosts[name]
	if h == nil {
		h = &host{name: name, addresses: map[string]*model.ProviderAddress{}, placed: map[*port]struct{}{},
			rows: map[model.PortID]goal.Port{}, routes: map[string]goal.ProviderRoute{}, uses: map[*list]int{}, networks: map[*network]struct{}{}}
		c.hosts[name] = h
	}
	return h
}

func (c *Compiler) forgetHost(h *host) {
	if len(h.addresses) == 0 && len(h.routes) == 0 && len(h.placed) == 0 {
		delete(c.hosts, h.name)
	}
}

// settleHost takes over the host's Provider Addresses.
func (c *Compiler) settleHost(h *host) {
	var sound []*model.ProviderAddress
	var pas []netip.Addr
	for _, r := range h.addresses {
		if a := r.Spec.Address.Unmap(); goal.CheckPA(a) == nil {
			sound, pas = append(sound, r), append(pas, a)
		}
	}
	slices.SortFunc(pas, netip.Addr.Compare)
	c.settlePAs(h, slices.Compact(pas))
	c.settlePrimary(h, model.PrimaryPA(sound))
	if usable := model.UsablePAs(sound); !slices.Equal(usable, h.usable) {
		h.usable = usable
		c.touchPeers(h.primary)
	}
}

// settlePAs takes over what is one of the host's addresses, usable or not.
func (c *Compiler) settlePAs(h *host, pas []netip.Addr) {
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
}

// settlePrimary takes over by which address records name the host. Every port of the
// host gets another one.
func (c *Compiler) settlePrimary(h *host, primary netip.Addr) {
	if primary == h.primary {
		return
	}
	c.touchPeers(h.primary)
	c.touchPeers(primary)
	if all := c.primaries[h.primary]; all != nil {
		delete(all, h)
		if len(all) == 0 {
			delete(c.primaries, h.primary)
		}
	}
	if primary.IsValid() {
		if c.primaries[primary] == nil {
			c.primaries[primary] = map[*host]struct{}{}
		}
		c.primaries[primary][h] = struct{}{}
	}
	h.primary = primary
	for p := range h.placed {
		c.touchPort(p)
	}
}

func (h *host) has(pa netip.Addr) bool { return slices.Contains(h.pas, pa) }
