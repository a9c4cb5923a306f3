// Package compile turns resources into the Goal of every host: only what that
// host needs, which is every virtual network that has a port there.
//
// Invariants: pure — no clock, randomness, goroutine, logging or I/O; the
// incremental result is the full one, always. Resources are taken as admitted:
// VSIDs, network indices and port IDs are unique, and what a name refers to
// exists or comes later. What is incomplete is left out until it is complete;
// a row that no Goal may contain (goal's Check) is left out for good.
// It must never know sessions, sockets or the store.
//
// Rows are kept once per network and not once per host: a change in a network
// costs the rows it changes, and one shared Delta for the hosts of the network.
package compile

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// Compiler holds all resources and what follows from them. Resources given to
// it must not change afterwards. It may be used from one goroutine at a time.
type Compiler struct {
	resources map[model.Key]model.Resource

	hosts     map[string]*host
	networks  map[model.Ref]*network
	subnets   map[model.Ref]*subnet
	tenants   map[string]*tenant
	groups    map[model.Ref]*group
	lists     map[model.Ref]*list
	profiles  map[model.Ref]*profile
	externals map[string]*external
	ports     map[model.Ref]*port
	primaries map[netip.Addr]map[*host]struct{}    // hosts by the address that records name
	named     map[netip.Addr]map[*network]struct{} // networks whose records name an address

	settings goal.Settings
	todo     *todo
	change   *change
}

// New returns a Compiler without resources.
func New() *Compiler {
	return &Compiler{
		resources: map[model.Key]model.Resource{},
		hosts:     map[string]*host{},
		networks:  map[model.Ref]*network{},
		subnets:   map[model.Ref]*subnet{},
		tenants:   map[string]*tenant{},
		groups:    map[model.Ref]*group{},
		lists:     map[model.Ref]*list{},
		profiles:  map[model.Ref]*profile{},
		externals: map[string]*external{},
		ports:     map[model.Ref]*port{},
		primaries: map[netip.Addr]map[*host]struct{}{},
		named:     map[netip.Addr]map[*network]struct{}{},
	}
}

// Full compiles resources from nothing.
func Full(resources []model.Resource) *Compiler {
	c := New()
	c.take(resources, nil)
	return c
}

// With gives every Goal the settings of the fleet. They are known before anything else and stay.
func (c *Compiler) With(s goal.Settings) *Compiler {
	c.settings = s
	return c
}

// Apply takes a transaction — deletes, then puts — and returns what it means
// for each host whose Goal changes. The Deltas share memory: do not write to them.
func (c *Compiler) Apply(puts []model.Resource, deletes []model.Key) map[string]goal.Delta {
	return c.take(puts, deletes).deltas()
}

// take brings the rows up to date and returns the change.
func (c *Compiler) take(puts []model.Resource, deletes []model.Key) *change {
	c.todo, c.change = newTodo(), newChange()
	for _, key := range deletes {
		if old, ok := c.resources[key]; ok {
			delete(c.resources, key)
			c.remove(old)
		}
	}
	for _, r := range puts {
		if old, ok := c.resources[model.KeyOf(r)]; ok {
			c.remove(old)
		}
		c.resources[model.KeyOf(r)] = r
		c.add(r)
	}
	c.settle()
	c.change.settleDigests()
	return c.change
}

func (c *Compiler) add(r model.Resource) {
	switch r := r.(type) {
	case *model.ProviderAddress:
		c.addProviderAddress(r)
	case *model.ProviderRoute:
		c.addProviderRoute(r)
	case *model.VirtualNetwork:
		c.addVirtualNetwork(r)
	case *model.VirtualSubnet:
		c.addVirtualSubnet(r)
	case *model.AddressGroup:
		c.addAddressGroup(r)
	case *model.AccessList:
		c.addAccessList(r)
	case *model.Host:
		c.touchHost(r)
		c.addPools(r)
	case *model.ExternalNetwork:
		c.addExternalNetwork(r)
	case *model.PortProfile:
		c.addPortProfile(r)
	case *model.Port:
		c.addPort(r)
	case *model.CustomerRoute:
		c.addCustomerRoute(r)
	case *model.LookupRecord:
		c.addLookupRecord(r)
	}
}

func (c *Compiler) remove(r model.Resource) {
	switch r := r.(type) {
	case *model.ProviderAddress:
		c.removeProviderAddress(r)
	case *model.ProviderRoute:
		c.removeProviderRoute(r)
	case *model.VirtualNetwork:
		c.removeVirtualNetwork(r)
	case *model.VirtualSubnet:
		c.removeVirtualSubnet(r)
	case *model.AddressGroup:
		c.removeAddressGroup(r)
	case *model.AccessList:
		c.removeAccessList(r)
	case *model.Host:
		c.touchHost(r)
		c.removePools(r)
	case *model.ExternalNetwork:
		c.removeExternalNetwork(r)
	case *model.PortProfile:
		c.removePortProfile(r)
	case *model.Port:
		c.removePort(r)
	case *model.CustomerRoute:
		c.removeCustomerRoute(r)
	case *model.LookupRecord:
		c.removeLookupRecord(r)
	}
}

// todo is what a transaction has touched and settle must look at again.
type todo struct {
	hosts    map[*host]struct{}      // Provider Addresses
	networks map[*network]struct{}   // every route
	subnets  map[*subnet]struct{}    // every record and port
	groups   map[*group]bool         // whether anybody speaks of them; true: the row, too
	lists    map[*list]struct{}      // whether anybody speaks of them
	judged   map[*host]struct{}      // lists and groups of a host
	profiles map[*profile]struct{}   // whether anybody speaks of them
	ports    map[*port]struct{}      // row of the port's own host
	records  map[recordSpot]struct{} // one Customer Address
	routes   map[routeSpot]struct{}  // one prefix
	peers    map[peerSpot]struct{}   // one host that records name
}

func newTodo() *todo {
	return &todo{map[*host]struct{}{}, map[*network]struct{}{}, map[*subnet]struct{}{},
		map[*group]bool{}, map[*list]struct{}{}, map[*host]struct{}{}, map[*profile]struct{}{}, map[*port]struct{}{}, map[recordSpot]struct{}{}, map[routeSpot]struct{}{}, map[peerSpot]struct{}{}}
}

// settle computes again what todo names, from the outside in. Old rows go
// before new ones come, so that a VSID or an ID may change hands in one transaction.
func (c *Compiler) settle() {
	for h := range c.todo.hosts {
		c.settleHost(h)
	}
	for s := range c.todo.subnets {
		c.retractSubnet(s)
	}
	for n := range c.todo.networks {
		c.retractRoutes(n)
	}
	for s := range c.todo.subnets {
		c.settleSubnet(s)
	}
	for n := range c.todo.networks {
		n.indexPrefixes()
	}
	for p := range c.todo.ports {
		c.retractPort(p)
	}
	for p := range c.todo.ports {
		c.settlePort(p)
	}
	for g, row := range c.todo.groups {
		if row {
			c.settleGroup(g)
		}
	}
	for h := range c.todo.judged {
		c.settleJudged(h)
	}
	for spot := range c.todo.records {
		c.settleRecord(spot)
	}
	for spot := range c.todo.peers {
		c.settlePeer(spot)
	}
	for n := range c.todo.networks {
		c.touchRoutes(n)
	}
	for spot := range c.todo.routes {
		c.settleRoute(spot)
	}
	c.forget()
}

// forget drops what neither stands in a resource nor is referred to by one.
func (c *Compiler) forget() {
	for g := range c.todo.groups {
		c.forgetGroup(g)
	}
	for l := range c.todo.lists {
		c.forgetList(l)
	}
	for p := range c.todo.profiles {
		c.forgetProfile(p)
	}
	for p := range c.todo.ports {
		if p.spec == nil && len(p.stands) == 0 && len(p.watchers) == 0 {
			delete(c.ports, p.ref)
		}
	}
	for s := range c.todo.subnets {
		c.forgetSubnet(s)
	}
	for spot := range c.todo.records {
		c.forgetSubnet(spot.subnet)
	}
	for n := range c.todo.networks {
		c.forgetNetwork(n)
	}
	for spot := range c.todo.routes {
		c.forgetNetwork(spot.network)
	}
	for h := range c.todo.hosts {
		c.forgetHost(h)
	}
}

// Hosts names every host that has a Provider Address, a provider route or a port, sorted.
func (c *Compiler) Hosts() []string { return slices.Sorted(maps.Keys(c.hosts)) }

// Resource finds a resource as it was last applied.
func (c *Compiler) Resource(key model.Key) (model.Resource, bool) {
	r, ok := c.resources[key]
	return r, ok
}

// Resources lists all resources, in no order.
func (c *Compiler) Resources() []model.Resource { return slices.Collect(maps.Values(c.resources)) }

// Goal of a host, made anew for the caller; its ports' slices are shared and
// must not be written to. A host that nobody speaks of has the empty Goal.
func (c *Compiler) Goal(name string) *goal.Goal {
	g := goal.New()
	g.Settings = c.settings
	h := c.hosts[name]
	if h == nil {
		return g
	}
	for _, pa := range h.pas {
		g.PAs[pa] = struct{}{}
	}
	maps.Copy(g.ProviderRoutes, h.routes)
	for id, p := range h.rows {
		g.Ports[id] = p
	}
	maps.Copy(g.Lists, h.lists)
	maps.Copy(g.Groups, h.groups)
	for n := range h.networks {
		maps.Copy(g.Records, n.records)
		maps.Copy(g.Routes, n.table)
		maps.Copy(g.Peers, n.peers)
	}
	return g
}

// Digest of a host's Goal, without making the Goal.
func (c *Compiler) Digest(name string) goal.Digest {
	if h := c.hosts[name]; h != nil {
		return h.digest.Add(c.settings.Digest())
	}
	return c.settings.Digest()
}

// Rows counts the ports and records of a host's Goal.
func (c *Compiler) Rows(name string) (ports, records int) {
	h := c.hosts[name]
	if h == nil {
		return 0, 0
	}
	for n := range h.networks {
		records += len(n.records)
	}
	return len(h.rows), records
}

// Concern names the hosts that must know of a resource, sorted: for a port the
// hosts of its network and its own; for a profile those of its ports; for an
// access list or an address group the hosts with ports that they judge; for a network, subnet, customer route or
// lookup record the hosts of the network; for a Provider Address the hosts whose
// Goal mentions it; for a provider route its host; for a host itself. The slice is shared: do not write to it.
func (c *Compiler) Concern(key model.Key) []string {
	switch r := c.resources[key].(type) {
	case *model.Host:
		return []string{r.Metadata.Name}
	case *model.ProviderAddress:
		return c.concernProviderAddress(r)
	case *model.ProviderRoute:
		return []string{r.Spec.Host}
	case *model.VirtualNetwork:
		return c.networks[key.Ref].members()
	case *model.VirtualSubnet:
		return c.subnets[key.Ref].members()
	case *model.AddressGroup:
		return c.groups[key.Ref].concern()
	case *model.AccessList:
		return c.lists[key.Ref].concern()
	case *model.ExternalNetwork:
		return c.externals[key.Name].concern()
	case *model.PortProfile:
		return c.profiles[key.Ref].concern()
	case *model.Port:
		return c.ports[key.Ref].concern()
	case *model.CustomerRoute:
		return c.networks[model.Ref{Tenant: key.Tenant, Name: r.Spec.Network}].members()
	case *model.LookupRecord:
		return c.subnets[staticSubnet(r)].members()
	}
	return nil
}
