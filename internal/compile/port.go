package compile

import (
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// port is one Port resource and where it stands.
type port struct {
	ref      model.Ref
	spec     *model.Port
	profile  *profile // nil: none
	settings model.Settings
	subnet   *subnet            // nil on a VLAN
	external *external          // nil but on a VLAN
	host     *host              // nil while it is placed nowhere
	stands   map[recordSpot]int // records that name it, by where they stand

	mirrors  map[*port]struct{} // that get copies of what it sends and gets
	watchers map[*port]struct{} // whose copies it gets

	in *network // whose member its row makes the host; nil: it has no row
	on *host    // that has its row
	id model.PortID
}

func (c *Compiler) port(ref model.Ref) *port {
	p := c.ports[ref]
	if p == nil {
		p = &port{ref: ref, stands: map[recordSpot]int{}, mirrors: map[*port]struct{}{}, watchers: map[*port]struct{}{}}
		c.ports[ref] = p
	}
	return p
}

func (c *Compiler) addPort(r *model.Port) {
	ref := r.Metadata.Ref()
	p := c.port(ref)
	p.spec = r
	if name := r.Host(); name != "" {
		p.host = c.host(name)
		p.host.placed[p] = struct{}{}
	}
	c.takeSettings(p)
	c.joinGroups(p)
	c.place(p, r)
	for _, ca := range p.recorded() {
		all := p.subnet.claim(ca)
		all.ports = append(all.ports, p)
	}
	c.touchPort(p)
}

func (c *Compiler) removePort(r *model.Port) {
	p := c.ports[r.Metadata.Ref()]
	c.touchPort(p)
	for _, ca := range p.recorded() {
		all := p.subnet.claims[ca]
		all.ports = without(all.ports, p)
		p.subnet.settleClaims(ca)
	}
	if p.subnet != nil {
		delete(p.subnet.ports, p)
	}
	if p.external != nil {
		delete(p.external.ports, p)
		c.forgetExternal(p.settings.VLAN.Network)
	}
	if p.host != nil {
		delete(p.host.placed, p)
		c.todo.hosts[p.host] = struct{}{}
	}
	c.partGroups(p)
	c.dropSettings(p)
	p.spec, p.subnet, p.external, p.host = nil, nil, nil, nil
}

// place puts a port into its subnet, or on its VLAN.
func (c *Compiler) place(p *port, r *model.Port) {
	if v := p.settings.VLAN; v != nil {
		p.external = c.external(v.Network)
		p.external.ports[p] = struct{}{}
		return
	}
	p.subnet = c.subnet(model.Ref{Tenant: p.ref.Tenant, Name: r.Spec.Subnet})
	p.subnet.ports[p] = struct{}{}
}

// touchPort asks for the port's row and for the records of its addresses.
func (c *Compiler) touchPort(p *port) {
	c.todo.ports[p] = struct{}{}
	for _, others := range []map[*port]struct{}{p.mirrors, p.watchers} {
		for x := range others {
			c.todo.ports[x] = struct{}{}
		}
	}
	for _, ca := range p.recorded() {
		c.touchRecord(p.subnet, ca)
	}
	for spot := range p.stands {
		c.todo.records[spot] = struct{}{}
	}
}

// record leads an address to the port, which is placed.
func (p *port) record(ca netip.Addr) goal.Record {
	mac, allowed := model.AllowedMAC(ca)
	if !allowed {
		mac = p.spec.Spec.MAC
	}
	return goal.Record{MAC: mac, PA: p.host.primary, Port: p.spec.ID, Trust: p.trust(), Isolation: p.settings.Isolation.ID()}
}

func (p *port) trust() goal.Trust {
	return goal.Trust{Forward: p.settings.Forwarding, DHCP: !p.settings.DHCPGuard, Router: !p.settings.RouterGuard,
		Allowed: len(p.settings.AllowedAddresses) > 0}
}

func (c *Compiler) retractPort(p *port) {
	if p.on == nil {
		return
	}
	c.dropPort(p.on, p.id)
	if p.in != nil {
		c.leave(p.in, p.on)
	}
	p.in, p.on, p.id = nil, nil, 0
}

func (c *Compiler) settlePort(p *port) {
	if p.spec != nil && p.host != nil && p.external != nil {
		c.settleVLANPort(p)
		return
	}
	if p.spec == nil || p.host == nil || p.subnet.network == nil {
		return
	}
	row := p.row()
	row.Settings.Uplink = c.uplink(p)
	if row.Check() != nil {
		return
	}
	p.in, p.on, p.id = p.subnet.network, p.host, row.ID
	c.setPort(p.on, row)
	c.join(p.in, p.on)
}

func (c *Compiler) settleVLANPort(p *port) {
	row := c.vlanRow(p)
	if row.Check() != nil {
		return
	}
	p.on, p.id = p.host, row.ID
	c.setPort(p.on, row)
}

func (p *port) row() goal.Port {
	s := p.subnet
	row := goal.Port{Ref: p.ref, ID: p.spec.ID, VSID: s.vsid, Network: s.network.index, MAC: p.spec.Spec.MAC,
		CAs: plain(p.spec.Spec.Addresses), PA: p.host.primary, Spoof: p.settings.AllowSpoofing,
		Learn: p.settings.DynamicAddressLimit, Flood: floodOf(s.spec),
		Forward: p.settings.Forwarding, External: s.network.external, ClampMSS: s.spec.Spec.MSSClamp, Settings: p.goalSettings()}
	for _, x := range s.spec.Spec.Prefixes {
		row.Prefixes = append(row.Prefixes, x.Masked())
	}
	slices.SortFunc(row.Prefixes, netip.Prefix.Compare)
	row.Prefixes = slices.Compact(row.Prefixes)
	for _, a := range s.spec.Spec.Gateway {
		switch a = a.Unmap(); {
		case a.Is4() && !row.Gateway4.IsValid():
			row.Gateway4 = a
		case a.Is6() && !row.Gateway6.IsValid():
			row.Gateway6 = a
		}
	}
	return row
}

func floodOf(s *model.VirtualSubnet) goal.Flood {
	return goal.Flood{L2: s.Spec.Flood == model.FloodL2, Group: s.Spec.MulticastAddress.Unmap(),
		Rate: s.Spec.StormLimit}
}

func (c *Compiler) setPort(h *host, row goal.Port) {
	c.dropPort(h, row.ID)
	note(c.change.host(h).ports, h.rows, row.ID)
	h.rows[row.ID] = row
	c.use(h, row)
	h.own = h.own.Add(row.Digest())
}

func (c *Compiler) dropPort(h *host, id model.PortID) {
	old, ok := h.rows[id]
	if !ok {
		return
	}
	note(c.change.host(h).ports, h.rows, id)
	h.own = h.own.Sub(old.Digest())
	delete(h.rows, id)
	c.unuse(h, old)
}

func (p *port) concern() []string {
	names := p.subnet.members()
	if p.host == nil {
		return names
	}
	at, member := slices.BinarySearch(names, p.host.name)
	if member {
		return names
	}
	return slices.Insert(slices.Clone(names), at, p.host.name)
}

// recorded gives the addresses under which a port has records.
func (p *port) recorded() []netip.Addr {
	all := p.spec.CAs()
	if p.external != nil {
		return nil
	}
	if p.settings.Learns() {
		all = append(all, model.L2OnlyCA(p.spec.Spec.MAC))
	}
	for _, a := range p.settings.AllowedAddresses {
		if !a.MAC.IsZero() {
			all = append(all, model.AllowedCA(p.spec.ID, a.MAC))
		}
	}
	return plain(all)
}

// plain gives addresses unmapped, sorted, each once.
func plain(all []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, 0, len(all))
	for _, a := range all {
		out = append(out, a.Unmap())
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// first is the placed port with the lowest ID.
func first(ports []*port) *port {
	var best *port
	for _, p := range ports {
		if p.host != nil && p.spec.ID != 0 && (best == nil || p.spec.ID < best.spec.ID) {
			best = p
		}
	}
	return best
}
