package goal

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
)

// Delta leads from one Goal to another. Its fields stand in dependency order:
// what is referred to is put first and deleted last, so that a switch that
// follows the order never routes into a record that it does not have.
// No key is both put and deleted. Readers must not change the slices: one Delta
// is shared by all hosts that it concerns.
type Delta struct {
	PutSettings       *Settings // nil: as they were
	PutPAs            []netip.Addr
	PutPeers          []PeerRow
	PutProviderRoutes []ProviderRouteRow
	PutGroups         []*Group
	PutLists          []*List
	PutRecords        []RecordRow
	PutRoutes         []RouteRow
	PutPorts          []Port

	DeletePorts          []model.PortID
	DeleteLists          []model.Ref
	DeleteGroups         []model.Ref
	DeleteRoutes         []RouteKey
	DeleteRecords        []RecordKey
	DeletePeers          []PeerKey
	DeletePAs            []netip.Addr
	DeleteProviderRoutes []string
}

// Diff gives the Delta that leads from one Goal to another, every list sorted.
func Diff(from, to *Goal) Delta {
	var d Delta
	if from.Settings != to.Settings {
		d.PutSettings = &to.Settings
	}
	for pa := range to.PAs {
		if _, ok := from.PAs[pa]; !ok {
			d.PutPAs = append(d.PutPAs, pa)
		}
	}
	for name, r := range to.ProviderRoutes {
		if old, ok := from.ProviderRoutes[name]; !ok || old != r {
			d.PutProviderRoutes = append(d.PutProviderRoutes, ProviderRouteRow{name, r})
		}
	}
	for k, p := range to.Peers {
		if old, ok := from.Peers[k]; !ok || old != p {
			d.PutPeers = append(d.PutPeers, PeerRow{k, p})
		}
	}
	for k, x := range to.Groups {
		if old, ok := from.Groups[k]; !ok || !old.Equal(x) {
			d.PutGroups = append(d.PutGroups, x)
		}
	}
	for k, l := range to.Lists {
		if old, ok := from.Lists[k]; !ok || !old.Equal(l) {
			d.PutLists = append(d.PutLists, l)
		}
	}
	for k, r := range to.Records {
		if old, ok := from.Records[k]; !ok || old != r {
			d.PutRecords = append(d.PutRecords, RecordRow{k, r})
		}
	}
	for k, r := range to.Routes {
		if old, ok := from.Routes[k]; !ok || old != r {
			d.PutRoutes = append(d.PutRoutes, RouteRow{k, r})
		}
	}
	for id, p := range to.Ports {
		if old, ok := from.Ports[id]; !ok || !old.Equal(p) {
			d.PutPorts = append(d.PutPorts, p)
		}
	}
	d.DeletePorts = missing(from.Ports, to.Ports)
	d.DeleteLists = missing(from.Lists, to.Lists)
	d.DeleteGroups = missing(from.Groups, to.Groups)
	d.DeleteRoutes = missing(from.Routes, to.Routes)
	d.DeleteRecords = missing(from.Records, to.Records)
	d.DeletePeers = missing(from.Peers, to.Peers)
	d.DeletePAs = missing(from.PAs, to.PAs)
	d.DeleteProviderRoutes = missing(from.ProviderRoutes, to.ProviderRoutes)
	d.Sort()
	return d
}

func missing[K comparable, V any](from, to map[K]V) []K {
	var out []K
	for k := range from {
		if _, ok := to[k]; !ok {
			out = append(out, k)
		}
	}
	return out
}

// Sort orders every list by key, in place.
func (d *Delta) Sort() {
	slices.SortFunc(d.PutPAs, netip.Addr.Compare)
	slices.SortFunc(d.PutPeers, func(a, b PeerRow) int { return a.Key.Compare(b.Key) })
	slices.SortFunc(d.PutGroups, func(a, b *Group) int { return compareRefs(a.Ref, b.Ref) })
	slices.SortFunc(d.PutLists, func(a, b *List) int { return compareRefs(a.Ref, b.Ref) })
	slices.SortFunc(d.PutRecords, func(a, b RecordRow) int { return a.Key.Compare(b.Key) })
	slices.SortFunc(d.PutRoutes, func(a, b RouteRow) int { return a.Key.Compare(b.Key) })
	slices.SortFunc(d.PutPorts, func(a, b Port) int { return cmp.Compare(a.ID, b.ID) })
	slices.Sort(d.DeletePorts)
	slices.SortFunc(d.DeleteLists, compareRefs)
	slices.SortFunc(d.DeleteGroups, compareRefs)
	slices.SortFunc(d.DeleteRoutes, RouteKey.Compare)
	slices.SortFunc(d.DeleteRecords, RecordKey.Compare)
	slices.SortFunc(d.DeletePeers, PeerKey.Compare)
	slices.SortFunc(d.DeletePAs, netip.Addr.Compare)
	slices.SortFunc(d.PutProviderRoutes, func(a, b ProviderRouteRow) int { return cmp.Compare(a.Name, b.Name) })
	slices.Sort(d.DeleteProviderRoutes)
}

// Apply changes g as d says.
func (d Delta) Apply(g *Goal) {
	if d.PutSettings != nil {
		g.Settings = *d.PutSettings
	}
	for _, pa := range d.PutPAs {
		g.PAs[pa] = struct{}{}
	}
	for _, r := range d.PutProviderRoutes {
		g.ProviderRoutes[r.Name] = r.Route
	}
	for _, p := range d.PutPeers {
		g.Peers[p.Key] = p.Peer
	}
	for _, x := range d.PutGroups {
		g.Groups[x.Ref] = x
	}
	for _, l := range d.PutLists {
		g.Lists[l.Ref] = l
	}
	for _, r := range d.PutRecords {
		g.Records[r.Key] = r.Record
	}
	for _, r := range d.PutRoutes {
		g.Routes[r.Key] = r.Route
	}
	for _, p := range d.PutPorts {
		g.Ports[p.ID] = p
	}
	for _, id := range d.DeletePorts {
		delete(g.Ports, id)
	}
	for _, k := range d.DeleteLists {
		delete(g.Lists, k)
	}
	for _, k := range d.DeleteGroups {
		delete(g.Groups, k)
	}
	for _, k := range d.DeleteRoutes {
		delete(g.Routes, k)
	}
	for _, k := range d.DeleteRecords {
		delete(g.Records, k)
	}
	for _, k := range d.DeletePeers {
		delete(g.Peers, k)
	}
	for _, pa := range d.DeletePAs {
		delete(g.PAs, pa)
	}
	for _, name := range d.DeleteProviderRoutes {
		delete(g.ProviderRoutes, name)
	}
}

// Rows counts puts and deletes.
func (d Delta) Rows() int {
	n := 0
	if d.PutSettings != nil {
		n = 1
	}
	return n + len(d.PutPAs) + len(d.PutPeers) + len(d.PutRecords) + len(d.PutRoutes) + len(d.PutPorts) +
		len(d.DeletePorts) + len(d.DeleteRoutes) + len(d.DeleteRecords) + len(d.DeletePeers) + len(d.DeletePAs) +
		len(d.PutProviderRoutes) + len(d.DeleteProviderRoutes) +
		len(d.PutGroups) + len(d.PutLists) + len(d.DeleteGroups) + len(d.DeleteLists)
}

// Empty reports whether d changes nothing.
func (d Delta) Empty() bool { return d.Rows() == 0 }

// Clone copies g; the copy shares nothing that either may change.
func (g *Goal) Clone() *Goal {
	c := &Goal{
		Ports:   make(map[model.PortID]Port, len(g.Ports)),
		Records: maps.Clone(g.Records),
		Routes:  maps.Clone(g.Routes),
		PAs:     maps.Clone(g.PAs),
		Peers:   maps.Clone(g.Peers),
		Groups:  maps.Clone(g.Groups),
		Lists:   maps.Clone(g.Lists),

		ProviderRoutes: maps.Clone(g.ProviderRoutes),

		Settings: g.Settings,
	}
	for id, p := range g.Ports {
		p.CAs, p.Prefixes = slices.Clone(p.CAs), slices.Clone(p.Prefixes)
		c.Ports[id] = p
	}
	return c
}

// Equal compares Goals by value.
func (g *Goal) Equal(h *Goal) bool {
	return maps.EqualFunc(g.Ports, h.Ports, Port.Equal) && maps.Equal(g.Records, h.Records) &&
		maps.Equal(g.Routes, h.Routes) && maps.Equal(g.PAs, h.PAs) && maps.Equal(g.Peers, h.Peers) &&
		maps.Equal(g.ProviderRoutes, h.ProviderRoutes) &&
		maps.EqualFunc(g.Groups, h.Groups, (*Group).Equal) && maps.EqualFunc(g.Lists, h.Lists, (*List).Equal) && g.Settings == h.Settings
}

// Rows counts all rows of g but its settings.
func (g *Goal) Rows() int {
	return len(g.Ports) + len(g.Records) + len(g.Routes) + len(g.PAs) + len(g.Peers) + len(g.ProviderRoutes) + len(g.Groups) + len(g.Lists)
}

// Pending gathers Deltas that a slow host has not been sent yet: later ones
// overwrite earlier ones key by key, so it never grows beyond the keys touched.
type Pending struct {
	ports   map[model.PortID]*Port
	records map[RecordKey]*Record
	routes  map[RouteKey]*Route
	pas     map[netip.Addr]bool
	peers   map[PeerKey]*Peer
	groups  map[model.Ref]*Group
	lists   map[model.Ref]*List

	providerRoutes map[string]*ProviderRoute

	settings *Settings
}

// Add appends d to what is pending.
func (p *Pending) Add(d Delta) {
	if p.ports == nil {
		*p = Pending{ports: map[model.PortID]*Port{}, records: map[RecordKey]*Record{}, routes: map[RouteKey]*Route{}, pas: map[netip.Addr]bool{}, peers: map[PeerKey]*Peer{},
			providerRoutes: map[string]*ProviderRoute{}, groups: map[model.Ref]*Group{}, lists: map[model.Ref]*List{}}
	}
	if d.PutSettings != nil {
		p.settings = d.PutSettings
	}
	for _, pa := range d.PutPAs {
		p.pas[pa] = true
	}
	for i := range d.PutProviderRoutes {
		p.providerRoutes[d.PutProviderRoutes[i].Name] = &d.PutProviderRoutes[i].Route
	}
	for i := range d.PutPeers {
		p.peers[d.PutPeers[i].Key] = &d.PutPeers[i].Peer
	}
	for _, x := range d.PutGroups {
		p.groups[x.Ref] = x
	}
	for _, l := range d.PutLists {
		p.lists[l.Ref] = l
	}
	for i := range d.PutRecords {
		p.records[d.PutRecords[i].Key] = &d.PutRecords[i].Record
	}
	for i := range d.PutRoutes {
		p.routes[d.PutRoutes[i].Key] = &d.PutRoutes[i].Route
	}
	for i := range d.PutPorts {
		p.ports[d.PutPorts[i].ID] = &d.PutPorts[i]
	}
	for _, id := range d.DeletePorts {
		p.ports[id] = nil
	}
	for _, k := range d.DeleteLists {
		p.lists[k] = nil
	}
	for _, k := range d.DeleteGroups {
		p.groups[k] = nil
	}
	for _, k := range d.DeleteRoutes {
		p.routes[k] = nil
	}
	for _, k := range d.DeleteRecords {
		p.records[k] = nil
	}
	for _, k := range d.DeletePeers {
		p.peers[k] = nil
	}
	for _, pa := range d.DeletePAs {
		p.pas[pa] = false
	}
	for _, name := range d.DeleteProviderRoutes {
		p.providerRoutes[name] = nil
	}
}

// Rows counts the keys touched.
func (p *Pending) Rows() int {
	n := len(p.ports) + len(p.records) + len(p.routes) + len(p.pas) + len(p.peers) + len(p.providerRoutes) + len(p.groups) + len(p.lists)
	if p.settings != nil {
		n++
	}
	return n
}

// Take gives everything pending as one sorted Delta and empties p.
func (p *Pending) Take() Delta {
	d := Delta{PutSettings: p.settings}
	for pa, put := range p.pas {
		if put {
			d.PutPAs = append(d.PutPAs, pa)
			continue
		}
		d.DeletePAs = append(d.DeletePAs, pa)
	}
	for name, r := range p.providerRoutes {
		if r == nil {
			d.DeleteProviderRoutes = append(d.DeleteProviderRoutes, name)
			continue
		}
		d.PutProviderRoutes = append(d.PutProviderRoutes, ProviderRouteRow{name, *r})
	}
	for k, peer := range p.peers {
		if peer == nil {
			d.DeletePeers = append(d.DeletePeers, k)
			continue
		}
		d.PutPeers = append(d.PutPeers, PeerRow{k, *peer})
	}
	for k, x := range p.groups {
		if x == nil {
			d.DeleteGroups = append(d.DeleteGroups, k)
			continue
		}
		d.PutGroups = append(d.PutGroups, x)
	}
	for k, l := range p.lists {
		if l == nil {
			d.DeleteLists = append(d.DeleteLists, k)
			continue
		}
		d.PutLists = append(d.PutLists, l)
	}
	for k, r := range p.records {
		if r == nil {
			d.DeleteRecords = append(d.DeleteRecords, k)
			continue
		}
		d.PutRecords = append(d.PutRecords, RecordRow{k, *r})
	}
	for k, r := range p.routes {
		if r == nil {
			d.DeleteRoutes = append(d.DeleteRoutes, k)
			continue
		}
		d.PutRoutes = append(d.PutRoutes, RouteRow{k, *r})
	}
	for id, port := range p.ports {
		if port == nil {
			d.DeletePorts = append(d.DeletePorts, id)
			continue
		}
		d.PutPorts = append(d.PutPorts, *port)
	}
	*p = Pending{}
	d.Sort()
	return d
}
