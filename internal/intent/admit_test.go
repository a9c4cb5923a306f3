package intent

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/model"
)

// testAllocator is deterministic: GUIDs and MACs count up.
func testAllocator() Allocator {
	var n uint64
	guid := func() string {
		n++
		return fmt.Sprintf("00000000-0000-4000-8000-%012x", n)
	}
	mac := func() model.MAC {
		n++
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], n)
		return model.MAC{2, b[3], b[4], b[5], b[6], b[7]}
	}
	return Allocator{Now: time.Unix(1_700_000_000, 0).UTC(), GUID: guid, MAC: mac}
}

// world is a state under test and its store of revisions.
type world struct {
	t     testing.TB
	state *State
	alloc Allocator
	rev   int64
}

func newWorld(t testing.TB, puts ...model.Resource) *world {
	w := &world{t: t, state: NewState(), alloc: testAllocator()}
	if len(puts) > 0 {
		w.apply(puts...)
	}
	return w
}

// try judges without storing.
func (w *world) try(puts []model.Resource, deletes ...model.Key) (*Result, []Violation) {
	var ds []Deletion
	for _, k := range deletes {
		ds = append(ds, Deletion{Key: k})
	}
	return Admit(w.state, puts, ds, w.alloc)
}

func (w *world) apply(puts ...model.Resource) *Result {
	w.t.Helper()
	return w.change(puts)
}

func (w *world) change(puts []model.Resource, deletes ...model.Key) *Result {
	w.t.Helper()
	res, v := w.try(puts, deletes...)
	if len(v) > 0 {
		w.t.Fatalf("refused: %v", v)
	}
	w.store(res)
	return res
}

// store does what the store and the server do with an admitted set.
func (w *world) store(res *Result) {
	w.rev++
	for _, r := range res.Puts {
		r.Meta().Revision = w.rev
	}
	w.state.Apply(res.Puts, res.Deletes, res.Cursors, w.rev)
}

func (w *world) port(name string) *model.Port {
	w.t.Helper()
	r, ok := w.state.Get(portKey("red", name))
	if !ok {
		w.t.Fatalf("no port %s", name)
	}
	return r.(*model.Port)
}

func meta(tenant, name string) model.Metadata { return model.Metadata{Tenant: tenant, Name: name} }

func tenant(name string) *model.Tenant { return &model.Tenant{Metadata: meta("", name)} }
func host(name string) *model.Host     { return &model.Host{Metadata: meta("", name)} }
func providerRoute(name, host, prefix, hop, device string) *model.ProviderRoute {
	r := &model.ProviderRoute{Metadata: meta("", name), Spec: model.ProviderRouteSpec{Host: host, Prefix: netip.MustParsePrefix(prefix), Interface: device}}
	if hop != "" {
		r.Spec.NextHop = addrOf(hop)
	}
	return r
}

func pa(name, host, addr string) *model.ProviderAddress {
	return &model.ProviderAddress{Metadata: meta("", name), Spec: model.ProviderAddressSpec{Host: host, Address: addrOf(addr)}}
}
func network(t, name string) *model.VirtualNetwork {
	return &model.VirtualNetwork{Metadata: meta(t, name)}
}
func subnet(t, name string, vsid model.VSID, prefixes ...string) *model.VirtualSubnet {
	s := &model.VirtualSubnet{Metadata: meta(t, name), Spec: model.VirtualSubnetSpec{Network: "prod", VSID: vsid}}
	for _, p := range prefixes {
		s.Spec.Prefixes = append(s.Spec.Prefixes, netip.MustParsePrefix(p))
	}
	return s
}
func port(t, name, subnet string, cas ...string) *model.Port {
	p := &model.Port{Metadata: meta(t, name), Spec: model.PortSpec{Subnet: subnet}}
	for _, ca := range cas {
		p.Spec.Addresses = append(p.Spec.Addresses, netip.MustParseAddr(ca))
	}
	return p
}
func route(t, name, prefix, hop string, metric uint32) *model.CustomerRoute {
	return &model.CustomerRoute{Metadata: meta(t, name), Spec: model.CustomerRouteSpec{Network: "prod", Prefix: prefixOrNone(prefix), NextHop: addrOf(hop), Metric: metric}}
}
func record(t, name, subnet, ca, mac, pa string) *model.LookupRecord {
	m, _ := model.ParseMAC(mac)
	return &model.LookupRecord{Metadata: meta(t, name), Spec: model.LookupRecordSpec{Subnet: subnet, CustomerAddress: addrOf(ca), MAC: m, ProviderAddress: addrOf(pa)}}
}
func learner(t, name, subnet string, limit uint32) *model.Port {
	p := port(t, name, subnet)
	p.Spec.DynamicAddressLimit, p.Spec.Host = &limit, "h1"
	return p
}
func wildcard(t, name, subnet, ca, port string) *model.LookupRecord {
	return &model.LookupRecord{Metadata: meta(t, name), Spec: model.LookupRecordSpec{Type: model.RecordGatewayWildcard, Subnet: subnet, CustomerAddress: addrOf(ca), Port: port}}
}
func as(t model.RecordType, r *model.LookupRecord) *model.LookupRecord {
	r.Spec.Type = t
	return r
}
func addrOf(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}
func prefixOrNone(s string) netip.Prefix {
	if s == "" {
		return netip.Prefix{}
	}
	return netip.MustParsePrefix(s)
}

// with changes a resource in place, so that cases read as one expression.
func with[T model.Resource](r T, change func(T)) T {
	change(r)
	return r
}

// base is a small fleet: tenant red as in the demo.
func base() []model.Resource {
	return []model.Resource{
		tenant("red"), tenant("blue"), host("h1"), host("h2"), pa("pa1", "h1", "192.0.2.1"),
		network("red", "prod"), network("blue", "prod"),
		subnet("red", "web", 5001, "10.0.0.0/24", "fd00:a::/64"), subnet("red", "db", 5002, "10.0.1.0/24", "fd00:b::/64"),
		subnet("blue", "web", 6001, "10.0.0.0/24"),
		with(port("red", "web-1", "web", "10.0.0.5", "fd00:a::5"), func(p *model.Port) { p.Spec.MAC, p.Spec.Host = model.MAC{2, 0, 0, 0, 0, 1}, "h1" }),
		route("red", "out", "0.0.0.0/0", "10.0.0.9", 10),
		record("red", "old-box", "web", "10.0.0.77", "02:00:00:00:00:77", "198.51.100.7"),
	}
}

func TestRules(t *testing.T) {
	many := func(n int) []netip.Addr {
		var out []netip.Addr
		a := netip.MustParseAddr("10.0.0.20")
		for range n {
			out, a = append(out, a), a.Next()
		}
		return out
	}
	del := func(kind model.Kind, tenant, name string) model.Key {
		return model.Key{Kind: kind, Ref: model.Ref{Tenant: tenant, Name: name}}
	}
	cases := []struct {
		name    string
		puts    []model.Resource
		deletes []model.Key
		key     string // of the violation; "" if the set is admitted
		field   string
		says    string // part of the message
	}{
		// Names and places.
		{name: "a name in capitals", puts: []model.Resource{tenant("Red")}, key: "Tenant Red", field: "metadata.name", says: "a-z"},
		{name: "an empty name", puts: []model.Resource{tenant("")}, key: "Tenant ", field: "metadata.name", says: "not a name"},
		{name: "a name of 63", puts: []model.Resource{tenant(strings.Repeat("a", 63))}},
		{name: "a name of 64", puts: []model.Resource{tenant(strings.Repeat("a", 64))}, key: "Tenant " + strings.Repeat("a", 64), field: "metadata.name", says: "1 to 63"},
		{name: "a name that ends in a dash", puts: []model.Resource{host("h-")}, key: "Host h-", field: "metadata.name", says: "not a name"},
		{name: "a name with a slash", puts: []model.Resource{host("a/b")}, key: "Host a/b", field: "metadata.name", says: "not a name"},
		{name: "a network without tenant", puts: []model.Resource{network("", "n")}, key: "VirtualNetwork n", field: "metadata.tenant", says: "is required"},
		{name: "a host with tenant", puts: []model.Resource{&model.Host{Metadata: meta("red", "h3")}}, key: "Host red/h3", field: "metadata.tenant", says: "must be empty"},
		{name: "an unknown tenant", puts: []model.Resource{network("green", "n")}, key: "VirtualNetwork green/n", field: "metadata.tenant", says: "does not exist"},
		{name: "too many labels", puts: []model.Resource{with(tenant("t"), func(r *model.Tenant) {
			r.Metadata.Labels = map[string]string{}
			for i := range 65 {
				r.Metadata.Labels[fmt.Sprint(i)] = ""
			}
		})}, key: "Tenant t", field: "metadata.labels", says: "at most 64"},
		{name: "a long label", puts: []model.Resource{with(tenant("t"), func(r *model.Tenant) { r.Metadata.Labels = map[string]string{"a": strings.Repeat("x", 257)} })}, key: "Tenant t", field: "metadata.labels", says: "at most 256"},
		{name: "a long description", puts: []model.Resource{with(tenant("t"), func(r *model.Tenant) { r.Spec.Description = strings.Repeat("x", 1025) })}, key: "Tenant t", field: "spec.description", says: "at most 1024"},
		{name: "the same twice", puts: []model.Resource{tenant("t"), tenant("t")}, key: "Tenant t", says: "named twice"},
		{name: "written and deleted", puts: []model.Resource{host("h2")}, deletes: []model.Key{del(model.KindHost, "", "h2")}, key: "Host h2", says: "both written and deleted"},

		// Revisions.
		{name: "a stale revision", puts: []model.Resource{with(tenant("red"), func(r *model.Tenant) { r.Metadata.Revision = 99 })}, key: "Tenant red", field: "metadata.revision", says: "was changed since"},
		{name: "a revision of what is gone", puts: []model.Resource{with(tenant("gone"), func(r *model.Tenant) { r.Metadata.Revision = 1 })}, key: "Tenant gone", field: "metadata.revision", says: "does not exist any more"},
		{name: "the current revision", puts: []model.Resource{with(tenant("red"), func(r *model.Tenant) { r.Metadata.Revision = 1 })}},

		// Virtual networks.
		{name: "an RDID that is no GUID", puts: []model.Resource{with(network("red", "n"), func(r *model.VirtualNetwork) { r.Spec.RDID = "7" })}, key: "VirtualNetwork red/n", field: "spec.rdid", says: "not a GUID"},
		{name: "an RDID in capitals", puts: []model.Resource{with(network("red", "n"), func(r *model.VirtualNetwork) { r.Spec.RDID = "AAAAAAAA-0000-4000-8000-00000000000F" })}},
		{name: "an RDID of another network", puts: []model.Resource{
			with(network("red", "n"), func(r *model.VirtualNetwork) { r.Spec.RDID = "aaaaaaaa-0000-4000-8000-000000000000" }),
			with(network("blue", "n"), func(r *model.VirtualNetwork) { r.Spec.RDID = "aaaaaaaa-0000-4000-8000-000000000000" })}, key: "VirtualNetwork blue/n", field: "spec.rdid", says: "VirtualNetwork red/n"},
		{name: "another RDID", puts: []model.Resource{with(network("red", "prod"), func(r *model.VirtualNetwork) { r.Spec.RDID = "aaaaaaaa-0000-4000-8000-000000000000" })}, key: "VirtualNetwork red/prod", field: "spec.rdid", says: "cannot change"},

		// Virtual subnets.
		{name: "VSID 4095", puts: []model.Resource{subnet("red", "s", 4095, "10.9.0.0/24")}, key: "VirtualSubnet red/s", field: "spec.vsid", says: "outside 4096..16777214"},
		{name: "VSID 4096", puts: []model.Resource{subnet("red", "s", 4096, "10.9.0.0/24")}},
		{name: "VSID 16777214", puts: []model.Resource{subnet("red", "s", 16777214, "10.9.0.0/24")}},
		{name: "VSID 16777215", puts: []model.Resource{subnet("red", "s", 16777215, "10.9.0.0/24")}, key: "VirtualSubnet red/s", field: "spec.vsid", says: "outside 4096..16777214"},
		{name: "a VSID of another tenant", puts: []model.Resource{subnet("blue", "s", 5001, "10.9.0.0/24")}, key: "VirtualSubnet blue/s", field: "spec.vsid", says: "VirtualSubnet red/web"},
		{name: "another VSID under ports", puts: []model.Resource{subnet("red", "web", 7000, "10.0.0.0/24", "fd00:a::/64")}, key: "VirtualSubnet red/web", field: "spec.vsid", says: "Port red/web-1"},
		{name: "another VSID where nobody is", puts: []model.Resource{subnet("red", "db", 7000, "10.0.1.0/24", "fd00:b::/64")}},
		{name: "no prefix", puts: []model.Resource{subnet("red", "s", 0)}, key: "VirtualSubnet red/s", field: "spec.prefixes", says: "is required"},
		{name: "a prefix with host bits", puts: []model.Resource{subnet("red", "s", 0, "10.9.0.1/24")}, key: "VirtualSubnet red/s", field: "spec.prefixes[0]", says: "10.9.0.0/24"},
		{name: "two IPv4 prefixes", puts: []model.Resource{subnet("red", "s", 0, "10.9.0.0/24", "10.8.0.0/24")}, key: "VirtualSubnet red/s", field: "spec.prefixes[1]", says: "second prefix of its family"},
		{name: "a multicast prefix", puts: []model.Resource{subnet("red", "s", 0, "224.1.0.0/16")}, key: "VirtualSubnet red/s", field: "spec.prefixes[0]", says: "not for hosts"},
		{name: "a link-local prefix", puts: []model.Resource{subnet("red", "s", 0, "fe80::/64")}, key: "VirtualSubnet red/s", field: "spec.prefixes[0]", says: "not for hosts"},
		{name: "the whole internet", puts: []model.Resource{subnet("red", "s", 0, "0.0.0.0/0")}, key: "VirtualSubnet red/s", field: "spec.prefixes[0]", says: "not for hosts"},
		{name: "a prefix of v4-mapped addresses", puts: []model.Resource{subnet("red", "s", 0, "::ffff:0:0/96")}, key: "VirtualSubnet red/s", field: "spec.prefixes[0]", says: "IPv4"},
		{name: "a /31", puts: []model.Resource{subnet("red", "s", 0, "10.9.0.0/31")}, key: "VirtualSubnet red/s", field: "spec.prefixes[0]", says: "/30"},
		{name: "a /30", puts: []model.Resource{subnet("red", "s", 0, "10.9.0.0/30")}},
		{name: "a prefix inside another subnet's", puts: []model.Resource{subnet("red", "s", 0, "10.0.0.128/25")}, key: "VirtualSubnet red/s", field: "spec.prefixes[0]", says: "overlaps 10.0.0.0/24 of VirtualSubnet red/web"},
		{name: "a prefix around others", puts: []model.Resource{subnet("red", "s", 0, "10.0.0.0/16")}, key: "VirtualSubnet red/s", field: "spec.prefixes[0]", says: "overlaps"},
		{name: "overlap inside the set", puts: []model.Resource{subnet("red", "s", 0, "10.9.0.0/24"), subnet("red", "u", 0, "10.9.0.0/25")}, key: "VirtualSubnet red/u", field: "spec.prefixes[0]", says: "VirtualSubnet red/s"},
		{name: "the same prefix in another tenant", puts: []model.Resource{subnet("blue", "s", 0, "10.0.1.0/24")}},
		{name: "the same prefix in another network of the tenant", puts: []model.Resource{network("red", "test"), with(subnet("red", "s", 0, "10.0.0.0/24"), func(s *model.VirtualSubnet) { s.Spec.Network = "test" })}},
		{name: "an unknown way to flood", puts: []model.Resource{with(subnet("red", "s", 0, "10.9.0.0/24"), func(s *model.VirtualSubnet) { s.Spec.Flood = "l4" })}, key: "VirtualSubnet red/s", field: "spec.flood", says: "not a way to flood"},
		{name: "flooding by rewrite", puts: []model.Resource{with(subnet("red", "s", 0, "10.9.0.0/24"), func(s *model.VirtualSubnet) { s.Spec.Flood, s.Spec.Transport = "l2", "rewrite" })}},
		{name: "an unknown family", puts: []model.Resource{with(network("red", "prod"), func(n *model.VirtualNetwork) { n.Spec.RewriteFamilies = []model.Family{"ipv4", "ip"} })}, key: "VirtualNetwork red/prod", field: "spec.rewriteFamilies[1]", says: "not a family"},
		{name: "rewritten over an unknown family", puts: []model.Resource{with(network("red", "prod"), func(n *model.VirtualNetwork) { n.Spec.RewriteOver = "ip" })}, key: "VirtualNetwork red/prod", field: "spec.rewriteOver", says: "not a family"},
		{name: "a family twice", puts: []model.Resource{with(network("red", "prod"), func(n *model.VirtualNetwork) { n.Spec.RewriteFamilies = []model.Family{"ipv4", "ipv4"} })}, key: "VirtualNetwork red/prod", field: "spec.rewriteFamilies[1]", says: "there twice"},
		{name: "a storm limit beyond reason", puts: []model.Resource{with(subnet("red", "s", 0, "10.9.0.0/24"), func(s *model.VirtualSubnet) { s.Spec.StormLimit = 1 << 31 })}, key: "VirtualSubnet red/s", field: "spec.stormLimit", says: "packets per second"},
		{name: "a multicast PA that is none", puts: []model.Resource{with(subnet("red", "s", 0, "10.9.0.0/24"), func(s *model.VirtualSubnet) {
			s.Spec.Flood, s.Spec.MulticastAddress = "l2", netip.MustParseAddr("192.0.2.9")
		})}, key: "VirtualSubnet red/s", field: "spec.multicastAddress", says: "no multicast address"},
		{name: "a multicast PA that no router carries", puts: []model.Resource{with(subnet("red", "s", 0, "10.9.0.0/24"), func(s *model.VirtualSubnet) {
			s.Spec.Flood, s.Spec.MulticastAddress = "l2", netip.MustParseAddr("224.0.0.9")
		})}, key: "VirtualSubnet red/s", field: "spec.multicastAddress", says: "never routed"},
		{name: "a multicast PA without flooding", puts: []model.Resource{with(subnet("red", "s", 0, "10.9.0.0/24"), func(s *model.VirtualSubnet) {
			s.Spec.MulticastAddress = netip.MustParseAddr("239.1.1.1")
		})}, key: "VirtualSubnet red/s", field: "spec.multicastAddress", says: "of no use"},
		{name: "an unknown transport", puts: []model.Resource{with(subnet("red", "s", 0, "10.9.0.0/24"), func(s *model.VirtualSubnet) { s.Spec.Transport = "gre" })}, key: "VirtualSubnet red/s", field: "spec.transport", says: "not a transport"},
		{name: "an unknown network", puts: []model.Resource{with(subnet("red", "s", 0, "10.9.0.0/24"), func(s *model.VirtualSubnet) { s.Spec.Network = "x" })}, key: "VirtualSubnet red/s", field: "spec.network", says: "does not exist"},
		{name: "no network", puts: []model.Resource{with(subnet("red", "s", 0, "10.9.0.0/24"), func(s *model.VirtualSubnet) { s.Spec.Network = "" })}, key: "VirtualSubnet red/s", field: "spec.network", says: "is required"},
		{name: "another network", puts: []model.Resource{network("red", "test"), with(subnet("red", "db", 5002, "10.0.1.0/24", "fd00:b::/64"), func(s *model.VirtualSubnet) { s.Spec.Network = "test" })}, key: "VirtualSubnet red/db", field: "spec.network", says: "cannot change"},
		{name: "a gateway outside", puts: []model.Resource{gateways(subnet("red", "s", 0, "10.9.0.0/24"), "10.8.0.1")}, key: "VirtualSubnet red/s", field: "spec.gateway[0]", says: "none of the subnet's prefixes"},
		{name: "the network address as gateway", puts: []model.Resource{gateways(subnet("red", "s", 0, "10.9.0.0/24"), "10.9.0.0")}, key: "VirtualSubnet red/s", field: "spec.gateway[0]", says: "network address"},
		{name: "the broadcast address as gateway", puts: []model.Resource{gateways(subnet("red", "s", 0, "10.9.0.0/24"), "10.9.0.255")}, key: "VirtualSubnet red/s", field: "spec.gateway[0]", says: "broadcast address"},
		{name: "two gateways in a prefix", puts: []model.Resource{gateways(subnet("red", "s", 0, "10.9.0.0/24"), "10.9.0.1", "10.9.0.2")}, key: "VirtualSubnet red/s", field: "spec.gateway[1]", says: "second gateway"},
		{name: "a gateway that a port has", puts: []model.Resource{gateways(subnet("red", "web", 0, "10.0.0.0/24", "fd00:a::/64"), "10.0.0.5")}, key: "VirtualSubnet red/web", field: "spec.gateway[0]", says: "Port red/web-1"},
		{name: "a prefix that leaves ports outside", puts: []model.Resource{subnet("red", "web", 0, "10.7.0.0/24", "fd00:a::/64")}, key: "VirtualSubnet red/web", field: "spec.prefixes", says: "Port red/web-1 would no longer fit"},
		{name: "a prefix that leaves a next hop outside", puts: []model.Resource{subnet("red", "web", 0, "10.0.0.0/29", "fd00:a::/64")}, key: "VirtualSubnet red/web", field: "spec.prefixes", says: "CustomerRoute red/out would no longer hold"},
		{name: "a new subnet equal to a route", puts: []model.Resource{route("red", "r", "10.5.0.0/16", "10.0.0.9", 0), subnet("red", "s", 0, "10.5.0.0/16")}, key: "CustomerRoute red/r", field: "spec.prefix", says: "on-link"},

		// Ports.
		{name: "an unknown subnet", puts: []model.Resource{port("red", "p", "x")}, key: "Port red/p", field: "spec.subnet", says: "does not exist"},
		{name: "another subnet", puts: []model.Resource{port("red", "web-1", "db", "10.0.1.5")}, key: "Port red/web-1", field: "spec.subnet", says: "cannot change"},
		{name: "an unknown host", puts: []model.Resource{with(port("red", "p", "web"), func(p *model.Port) { p.Spec.Host = "h9" })}, key: "Port red/p", field: "spec.host", says: "Host h9 does not exist"},
		{name: "a CA outside", puts: []model.Resource{port("red", "p", "web", "10.0.1.5")}, key: "Port red/p", field: "spec.addresses[0]", says: "none of the prefixes"},
		{name: "the gateway as CA", puts: []model.Resource{port("red", "p", "web", "10.0.0.1")}, key: "Port red/p", field: "spec.addresses[0]", says: "gateway"},
		{name: "the IPv6 gateway as CA", puts: []model.Resource{port("red", "p", "web", "10.0.0.8", "fd00:a::1")}, key: "Port red/p", field: "spec.addresses[1]", says: "gateway"},
		{name: "the network address as CA", puts: []model.Resource{port("red", "p", "web", "10.0.0.0")}, key: "Port red/p", field: "spec.addresses[0]", says: "network address"},
		{name: "the broadcast address as CA", puts: []model.Resource{port("red", "p", "web", "10.0.0.255")}, key: "Port red/p", field: "spec.addresses[0]", says: "broadcast"},
		{name: "the highest IPv6 address as CA", puts: []model.Resource{port("red", "p", "web", "fd00:a::ffff:ffff:ffff:ffff")}},
		{name: "a CA of another port", puts: []model.Resource{port("red", "p", "web", "10.0.0.5")}, key: "Port red/p", field: "spec.addresses[0]", says: "Port red/web-1"},
		{name: "a CA of another port of the set", puts: []model.Resource{port("red", "p", "web", "10.0.0.6"), port("red", "q", "web", "10.0.0.6")}, key: "Port red/q", field: "spec.addresses[0]", says: "Port red/p"},
		{name: "a CA twice", puts: []model.Resource{port("red", "p", "web", "10.0.0.6", "10.0.0.6")}, key: "Port red/p", field: "spec.addresses[1]", says: "listed twice"},
		{name: "a CA of a static record", puts: []model.Resource{port("red", "p", "web", "10.0.0.77")}, key: "Port red/p", field: "spec.addresses[0]", says: "LookupRecord red/old-box"},
		{name: "the same CA and MAC in another tenant", puts: []model.Resource{with(port("blue", "web-1", "web", "10.0.0.5"), func(p *model.Port) { p.Spec.MAC = model.MAC{2, 0, 0, 0, 0, 1} })}},
		{name: "two ports that swap their CAs", puts: []model.Resource{port("red", "web-1", "web", "10.0.0.6"), port("red", "p", "web", "10.0.0.5")}},
		{name: "a CA of a port that goes", puts: []model.Resource{port("red", "p", "web", "10.0.0.5")}, deletes: []model.Key{portKey("red", "web-1")}},
		{name: "too many CAs", puts: []model.Resource{with(port("red", "p", "web"), func(p *model.Port) { p.Spec.Addresses = many(17) })}, key: "Port red/p", field: "spec.addresses", says: "at most 16"},
		{name: "sixteen CAs", puts: []model.Resource{with(port("red", "p", "web"), func(p *model.Port) { p.Spec.Addresses = many(16) })}},
		{name: "a group MAC", puts: []model.Resource{with(port("red", "p", "web"), func(p *model.Port) { p.Spec.MAC = model.MAC{3, 0, 0, 0, 0, 1} })}, key: "Port red/p", field: "spec.mac", says: "group address"},
		{name: "a router's MAC", puts: []model.Resource{with(port("red", "p", "web"), func(p *model.Port) { p.Spec.MAC = model.RouterMAC(5001) })}, key: "Port red/p", field: "spec.mac", says: "distributed routers"},
		{name: "a MAC of another port of the network", puts: []model.Resource{with(port("red", "p", "db"), func(p *model.Port) { p.Spec.MAC = model.MAC{2, 0, 0, 0, 0, 1} })}, key: "Port red/p", field: "spec.mac", says: "Port red/web-1"},
		{name: "a CA with a zone", puts: []model.Resource{with(port("red", "p", "web"), func(p *model.Port) { p.Spec.Addresses = []netip.Addr{netip.MustParseAddr("fd00:a::7%eth0")} })}, key: "Port red/p", field: "spec.addresses[0]", says: "zone"},
		{name: "a v4-mapped CA", puts: []model.Resource{port("red", "p", "web", "::ffff:10.0.0.8")}, key: "Port red/p", field: "spec.addresses[0]", says: "write it as IPv4"},

		// Provider Addresses.
		{name: "a PA on an unknown host", puts: []model.Resource{pa("p", "h9", "192.0.2.9")}, key: "ProviderAddress p", field: "spec.host", says: "does not exist"},
		{name: "a PA of another host", puts: []model.Resource{pa("p", "h2", "192.0.2.1")}, key: "ProviderAddress p", field: "spec.address", says: `ProviderAddress pa1 of host "h1"`},
		{name: "a link-local PA", puts: []model.Resource{pa("p", "h2", "fe80::1")}, key: "ProviderAddress p", field: "spec.address", says: "not for hosts"},
		{name: "a multicast PA", puts: []model.Resource{pa("p", "h2", "239.1.1.1")}, key: "ProviderAddress p", field: "spec.address", says: "not for hosts"},
		{name: "a loopback PA", puts: []model.Resource{pa("p", "h2", "127.0.0.1")}, key: "ProviderAddress p", field: "spec.address", says: "not for hosts"},
		{name: "no PA", puts: []model.Resource{pa("p", "h2", "")}, key: "ProviderAddress p", field: "spec.address", says: "is required"},
		{name: "a PA that moves", puts: []model.Resource{pa("pa1", "h2", "192.0.2.1")}},

		// Provider routes.
		{name: "a provider route on an unknown host", puts: []model.Resource{providerRoute("r", "h9", "198.51.100.0/24", "192.0.2.9", "")}, key: "ProviderRoute r", field: "spec.host", says: "does not exist"},
		{name: "a provider route in a tenant", puts: []model.Resource{with(providerRoute("r", "h1", "198.51.100.0/24", "192.0.2.9", ""), func(r *model.ProviderRoute) { r.Metadata.Tenant = "red" })}, key: "ProviderRoute red/r", field: "metadata.tenant", says: "must be empty"},
		{name: "a provider route with host bits", puts: []model.Resource{providerRoute("r", "h1", "198.51.100.1/24", "192.0.2.9", "")}, key: "ProviderRoute r", field: "spec.prefix", says: "198.51.100.0/24"},
		{name: "a provider route to multicast", puts: []model.Resource{providerRoute("r", "h1", "239.0.0.0/8", "192.0.2.9", "")}, key: "ProviderRoute r", field: "spec.prefix", says: "where no host is"},
		{name: "a provider route of two families", puts: []model.Resource{providerRoute("r", "h1", "198.51.100.0/24", "fd00::1", "")}, key: "ProviderRoute r", field: "spec.nextHop", says: "not of the family"},
		{name: "a provider route by nobody", puts: []model.Resource{providerRoute("r", "h1", "198.51.100.0/24", "", "")}, key: "ProviderRoute r", field: "spec.nextHop", says: "is required"},
		{name: "a provider route by a multicast address", puts: []model.Resource{providerRoute("r", "h1", "198.51.100.0/24", "239.1.1.1", "")}, key: "ProviderRoute r", field: "spec.nextHop", says: "not for hosts"},
		{name: "a provider route over no device name", puts: []model.Resource{providerRoute("r", "h1", "198.51.100.0/24", "", "eth/1")}, key: "ProviderRoute r", field: "spec.interface", says: "name of a device"},
		{name: "a provider route over a long name", puts: []model.Resource{providerRoute("r", "h1", "198.51.100.0/24", "", "sixteen-letters-")}, key: "ProviderRoute r", field: "spec.interface", says: "longer"},
		{name: "a provider route, on-link", puts: []model.Resource{providerRoute("r", "h1", "198.51.100.0/24", "", "eth1")}},
		{name: "two next hops of a provider route", puts: []model.Resource{providerRoute("r", "h1", "::/0", "fd00::1", ""), providerRoute("s", "h1", "::/0", "fd00::2", "eth1")}},

		// Customer routes.
		{name: "a route with host bits", puts: []model.Resource{route("red", "r", "172.16.0.1/12", "10.0.0.9", 0)}, key: "CustomerRoute red/r", field: "spec.prefix", says: "172.16.0.0/12"},
		{name: "a route without prefix", puts: []model.Resource{route("red", "r", "", "10.0.0.9", 0)}, key: "CustomerRoute red/r", field: "spec.prefix", says: "not a prefix"},
		{name: "a route equal to an on-link prefix", puts: []model.Resource{route("red", "r", "10.0.1.0/24", "10.0.0.9", 0)}, key: "CustomerRoute red/r", field: "spec.prefix", says: "on-link in VirtualSubnet red/db"},
		{name: "a route inside an on-link prefix", puts: []model.Resource{route("red", "r", "10.0.1.128/25", "10.0.0.9", 0)}},
		{name: "a route of multicast", puts: []model.Resource{route("red", "r", "224.0.0.0/4", "10.0.0.9", 0)}, key: "CustomerRoute red/r", field: "spec.prefix", says: "never routed"},
		{name: "an IPv6 default route", puts: []model.Resource{route("red", "r", "::/0", "fd00:b::9", 0)}},
		{name: "no next hop", puts: []model.Resource{route("red", "r", "172.16.0.0/12", "", 0)}, key: "CustomerRoute red/r", field: "spec.nextHop", says: "is required"},
		{name: "a next hop outside", puts: []model.Resource{route("red", "r", "172.16.0.0/12", "10.3.0.9", 0)}, key: "CustomerRoute red/r", field: "spec.nextHop", says: "in no subnet of network"},
		{name: "the router as next hop", puts: []model.Resource{route("red", "r", "172.16.0.0/12", "10.0.0.1", 0)}, key: "CustomerRoute red/r", field: "spec.nextHop", says: "the router of"},
		{name: "broadcast as next hop", puts: []model.Resource{route("red", "r", "172.16.0.0/12", "10.0.0.255", 0)}, key: "CustomerRoute red/r", field: "spec.nextHop", says: "broadcast"},
		{name: "a next hop of the other family", puts: []model.Resource{route("red", "r", "172.16.0.0/12", "fd00:a::9", 0)}, key: "CustomerRoute red/r", field: "spec.nextHop", says: "family"},
		{name: "the same prefix and metric", puts: []model.Resource{route("red", "r", "0.0.0.0/0", "10.0.0.8", 10)}, key: "CustomerRoute red/r", field: "spec.prefix", says: "another metric"},
		{name: "the same prefix, another metric", puts: []model.Resource{route("red", "r", "0.0.0.0/0", "10.0.0.8", 11)}},
		{name: "a route of an unknown network", puts: []model.Resource{with(route("red", "r", "172.16.0.0/12", "10.0.0.9", 0), func(r *model.CustomerRoute) { r.Spec.Network = "x" })}, key: "CustomerRoute red/r", field: "spec.network", says: "does not exist"},
		{name: "a route that changes networks", puts: []model.Resource{network("red", "n2"), with(route("red", "out", "0.0.0.0/0", "10.0.0.9", 10), func(r *model.CustomerRoute) { r.Spec.Network = "n2" })}, key: "CustomerRoute red/out", field: "spec.network", says: "cannot change"},

		// Lookup records.
		{name: "a record of a port's CA", puts: []model.Resource{record("red", "l", "web", "10.0.0.5", "02:00:00:00:00:99", "192.0.2.9")}, key: "LookupRecord red/l", field: "spec.customerAddress", says: "Port red/web-1"},
		{name: "a record of the gateway", puts: []model.Resource{record("red", "l", "web", "10.0.0.1", "02:00:00:00:00:99", "192.0.2.9")}, key: "LookupRecord red/l", field: "spec.customerAddress", says: "gateway"},
		{name: "a record without MAC", puts: []model.Resource{record("red", "l", "web", "10.0.0.88", "", "192.0.2.9")}, key: "LookupRecord red/l", field: "spec.mac", says: "is required"},
		{name: "a record with a router's MAC", puts: []model.Resource{record("red", "l", "web", "10.0.0.88", "02:77:66:00:13:89", "192.0.2.9")}, key: "LookupRecord red/l", field: "spec.mac", says: "distributed routers"},
		{name: "a record without PA", puts: []model.Resource{record("red", "l", "web", "10.0.0.88", "02:00:00:00:00:99", "")}, key: "LookupRecord red/l", field: "spec.providerAddress", says: "is required"},
		{name: "a record with a link-local PA", puts: []model.Resource{record("red", "l", "web", "10.0.0.88", "02:00:00:00:00:99", "fe80::1")}, key: "LookupRecord red/l", field: "spec.providerAddress", says: "not for hosts"},
		{name: "a record under a derived name", puts: []model.Resource{record("red", "port:web-1:10.0.0.5", "web", "10.0.0.88", "02:00:00:00:00:99", "192.0.2.9")}, key: "LookupRecord red/port:web-1:10.0.0.5", says: "derived and read-only"},
		{name: "a record in another subnet", puts: []model.Resource{record("red", "old-box", "db", "10.0.1.77", "02:00:00:00:00:77", "198.51.100.7")}, key: "LookupRecord red/old-box", field: "spec.subnet", says: "cannot change"},

		// Learning.
		{name: "a port that may learn", puts: []model.Resource{learner("red", "l", "web", 2)}},
		{name: "a port that may learn without end", puts: []model.Resource{learner("red", "l", "web", 65)}, key: "Port red/l", field: "spec.dynamicAddressLimit", says: "at most 64"},
		{name: "a port that may learn and spoof", puts: []model.Resource{with(learner("red", "l", "web", 1), func(p *model.Port) { p.Spec.AllowSpoofing = new(true) })}, key: "Port red/l", field: "spec.dynamicAddressLimit", says: "allowSpoofing"},

		// Gateways that stand for all others.
		{name: "a wildcard by port", puts: []model.Resource{wildcard("red", "w", "web", "::", "web-1")}},
		{name: "a wildcard by MAC and PA", puts: []model.Resource{as(model.RecordGatewayWildcard, record("red", "w", "web", "0.0.0.0", "02:00:00:00:00:99", "192.0.2.9"))}},
		{name: "one of each family", puts: []model.Resource{wildcard("red", "w4", "web", "0.0.0.0", "web-1"), wildcard("red", "w6", "web", "::", "web-1")}},
		{name: "two wildcards", puts: []model.Resource{wildcard("red", "w", "web", "::", "web-1"), wildcard("red", "x", "web", "::", "web-1")}, key: "LookupRecord red/x", field: "spec.customerAddress", says: "already the gateway"},
		{name: "a wildcard with an address", puts: []model.Resource{wildcard("red", "w", "web", "10.0.0.9", "web-1")}, key: "LookupRecord red/w", field: "spec.customerAddress", says: "must be 0.0.0.0"},
		{name: "a wildcard without an address", puts: []model.Resource{wildcard("red", "w", "web", "", "web-1")}, key: "LookupRecord red/w", field: "spec.customerAddress", says: "must be 0.0.0.0"},
		{name: "a wildcard at a port of another subnet", puts: []model.Resource{wildcard("red", "w", "db", "::", "web-1")}, key: "LookupRecord red/w", field: "spec.port", says: `is in subnet "web"`},
		{name: "a wildcard at no port", puts: []model.Resource{wildcard("red", "w", "web", "::", "gone")}, key: "LookupRecord red/w", field: "spec.port", says: "does not exist"},
		{name: "a wildcard at a port and a MAC", puts: []model.Resource{with(wildcard("red", "w", "web", "::", "web-1"), func(l *model.LookupRecord) { l.Spec.MAC = model.MAC{2} })}, key: "LookupRecord red/w", field: "spec.mac", says: "that of the port"},
		{name: "a wildcard at a port and a PA", puts: []model.Resource{with(wildcard("red", "w", "web", "::", "web-1"), func(l *model.LookupRecord) { l.Spec.ProviderAddress = addrOf("192.0.2.9") })}, key: "LookupRecord red/w", field: "spec.providerAddress", says: "that of the port's host"},
		{name: "a wildcard without anything", puts: []model.Resource{wildcard("red", "w", "web", "::", "")}, key: "LookupRecord red/w", field: "spec.mac", says: "is required"},
		{name: "a static record at a port", puts: []model.Resource{as(model.RecordStatic, wildcard("red", "w", "web", "10.0.0.88", "web-1"))}, key: "LookupRecord red/w", field: "spec.port", says: "spec.addresses"},
		{name: "a static record of all addresses", puts: []model.Resource{record("red", "w", "web", "0.0.0.0", "02:00:00:00:00:99", "192.0.2.9")}, key: "LookupRecord red/w", field: "spec.customerAddress", says: "not for hosts"},
		{name: "a written dynamic record", puts: []model.Resource{as(model.RecordDynamic, record("red", "w", "web", "10.0.0.88", "02:00:00:00:00:99", "192.0.2.9"))}, key: "LookupRecord red/w", field: "spec.type", says: "follow from ports"},
		{name: "a record of no type", puts: []model.Resource{as("Sticky", record("red", "w", "web", "10.0.0.88", "02:00:00:00:00:99", "192.0.2.9"))}, key: "LookupRecord red/w", field: "spec.type", says: "not a type"},

		// Deletion.
		{name: "delete what is not there", deletes: []model.Key{del(model.KindHost, "", "h9")}, key: "Host h9", says: "does not exist"},
		{name: "delete twice", deletes: []model.Key{del(model.KindHost, "", "h2"), del(model.KindHost, "", "h2")}, key: "Host h2", says: "named twice"},
		{name: "delete an unknown kind", deletes: []model.Key{del("Thing", "", "x")}, key: "Thing x", field: "kind", says: "not a kind"},
		{name: "delete a derived record", deletes: []model.Key{del(model.KindLookupRecord, "red", "gateway:web:10.0.0.1")}, key: "LookupRecord red/gateway:web:10.0.0.1", says: "derived"},
		{name: "delete a tenant with networks", deletes: []model.Key{del(model.KindTenant, "", "blue")}, key: "Tenant blue", says: "VirtualNetwork blue/prod"},
		{name: "delete a network with subnets", deletes: []model.Key{del(model.KindVirtualNetwork, "blue", "prod")}, key: "VirtualNetwork blue/prod", says: "VirtualSubnet blue/web"},
		{name: "delete a subnet with ports", deletes: []model.Key{del(model.KindVirtualSubnet, "red", "web")}, key: "VirtualSubnet red/web", says: "Port red/web-1"},
		{name: "delete a host with ports", deletes: []model.Key{del(model.KindHost, "", "h1")}, key: "Host h1", says: "ProviderAddress pa1, Port red/web-1"},
		{name: "delete a subnet under a next hop", puts: []model.Resource{route("red", "r2", "172.16.0.0/12", "10.0.1.9", 0)}, deletes: []model.Key{del(model.KindVirtualSubnet, "red", "db")}, key: "CustomerRoute red/r2", field: "spec.nextHop", says: "in no subnet"},
		{name: "delete a tenant and all it has", deletes: []model.Key{del(model.KindTenant, "", "blue"), del(model.KindVirtualNetwork, "blue", "prod"), del(model.KindVirtualSubnet, "blue", "web")}},
		{name: "refer to what goes", puts: []model.Resource{port("blue", "p", "web")}, deletes: []model.Key{del(model.KindVirtualSubnet, "blue", "web")}, key: "Port blue/p", field: "spec.subnet", says: "deleted in this set"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, base()...)
			_, violations := w.try(c.puts, c.deletes...)
			if c.key == "" {
				if len(violations) > 0 {
					t.Fatalf("refused: %v", violations)
				}
				return
			}
			found := slices.ContainsFunc(violations, func(v Violation) bool {
				return v.Key.String() == c.key && v.Field == c.field && strings.Contains(v.Message, c.says)
			})
			if !found {
				t.Fatalf("want %q %q …%s…, got %v", c.key, c.field, c.says, violations)
			}
		})
	}
}

func gateways(s *model.VirtualSubnet, gateways ...string) *model.VirtualSubnet {
	for _, g := range gateways {
		s.Spec.Gateway = append(s.Spec.Gateway, netip.MustParseAddr(g))
	}
	return s
}

func TestAllViolationsOfASetAreNamedButNotWithoutEnd(t *testing.T) {
	w := newWorld(t, base()...)
	_, v := w.try([]model.Resource{subnet("red", "s", 4095, "10.9.0.1/24", "fe80::/64"), port("red", "p", "x")})
	if len(v) != 4 {
		t.Fatalf("%d violations: %v", len(v), v)
	}
	var bad []model.Resource
	for i := range 500 {
		bad = append(bad, port("red", fmt.Sprintf("p%d", i), "x"))
	}
	_, v = w.try(bad)
	if len(v) != maxViolations+1 || !strings.Contains(v[maxViolations].Message, "400 more") {
		t.Fatalf("%d violations, last %v", len(v), v[len(v)-1])
	}
}

func TestDefaultsAndAllocation(t *testing.T) {
	w := newWorld(t, base()...)
	w.apply(gateways(subnet("red", "s", 0, "fd00:c::/64", "10.9.0.0/29"), "10.9.0.2"))
	r, _ := w.state.Get(subnetKey("red", "s"))
	s := r.(*model.VirtualSubnet)
	if s.Spec.VSID != 4096 || s.Spec.Transport != model.TransportNVGRE || fmt.Sprint(s.Spec.Gateway) != "[fd00:c::1 10.9.0.2]" {
		t.Fatalf("%+v", s.Spec)
	}
	// Lowest free, past the network's and the gateway's address, until none is left.
	for i, want := range []string{"10.9.0.1", "10.9.0.3", "10.9.0.4", "10.9.0.5", "10.9.0.6"} {
		w.apply(port("red", fmt.Sprintf("p%d", i), "s"))
		p := w.port(fmt.Sprintf("p%d", i))
		if p.Spec.Addresses[1] != netip.MustParseAddr(want) || p.Spec.Addresses[0] != netip.MustParseAddr(fmt.Sprintf("fd00:c::%d", i+2)) || p.Spec.MAC.IsZero() || p.ID == 0 {
			t.Fatalf("port %d: %+v", i, p)
		}
	}
	_, v := w.try([]model.Resource{port("red", "p9", "s")})
	if len(v) != 1 || v[0].Field != "spec.addresses" || !strings.Contains(v[0].Message, "no address of 10.9.0.0/29 is free") {
		t.Fatalf("full subnet: %v", v)
	}
	// In one set, what people wrote goes before what is chosen.
	w.change([]model.Resource{port("red", "auto", "db"), port("red", "fixed", "db", "10.0.1.2", "fd00:b::2")})
	if a := w.port("auto").Spec.Addresses[0]; a != netip.MustParseAddr("10.0.1.3") {
		t.Fatalf("auto has %s", a)
	}
}

func TestWhatWasAllocatedStaysWhenTheManifestIsAppliedAgain(t *testing.T) {
	manifest := []model.Resource{network("red", "n"), with(subnet("red", "s", 0, "10.9.0.0/24"), func(s *model.VirtualSubnet) { s.Spec.Network = "n" }), port("red", "p", "s")}
	w := newWorld(t, base()...)
	w.apply(manifest...)
	for _, c := range w.apply(manifest...).Changes {
		if c.Action != Unchanged {
			t.Errorf("%s: %s", c.Key, c.Action)
		}
	}
	before := *w.port("p")
	w.apply(with(port("red", "p", "s"), func(p *model.Port) { p.Spec.AllowSpoofing = new(true) }))
	after := w.port("p")
	if after.Spec.MAC != before.Spec.MAC || !slices.Equal(after.Spec.Addresses, before.Spec.Addresses) || after.ID != before.ID || after.Metadata.UID != before.Metadata.UID {
		t.Errorf("before %+v\nafter %+v", before, *after)
	}
	if after.Metadata.Generation != before.Metadata.Generation+1 {
		t.Errorf("generation %d after %d", after.Metadata.Generation, before.Metadata.Generation)
	}
	w.apply(with(port("red", "p", "s"), func(p *model.Port) {
		p.Spec.AllowSpoofing = new(true)
		p.Metadata.Labels = map[string]string{"a": "b"}
	}))
	if g := w.port("p").Metadata.Generation; g != after.Metadata.Generation {
		t.Error("a label counted as a change of the spec")
	}
}

func TestAFreedIdentityIsNotGivenOutAtOnce(t *testing.T) {
	w := newWorld(t, base()...)
	w.apply(subnet("red", "s", 0, "10.9.0.0/24"), port("red", "a", "web"))
	id := w.port("a").ID
	w.change(nil, portKey("red", "a"), subnetKey("red", "s"))
	w.apply(subnet("red", "s2", 0, "10.9.0.0/24"), port("red", "b", "web"))
	if w.port("b").ID == id {
		t.Error("the port id was reused at once")
	}
	if r, _ := w.state.Get(subnetKey("red", "s2")); r.(*model.VirtualSubnet).Spec.VSID != 4097 {
		t.Errorf("VSID %s", r.(*model.VirtualSubnet).Spec.VSID)
	}
	// At the end of the range, allocation goes on from its beginning.
	cursors := w.state.Cursors()
	cursors.VSID = uint32(model.MaxVSID)
	w.state.Apply(nil, nil, cursors, w.rev)
	w.apply(subnet("red", "s3", 0, "10.8.0.0/24"))
	if r, _ := w.state.Get(subnetKey("red", "s3")); r.(*model.VirtualSubnet).Spec.VSID != 4096 {
		t.Errorf("VSID %s", r.(*model.VirtualSubnet).Spec.VSID)
	}
}

func TestBinding(t *testing.T) {
	w := newWorld(t, append(base(), port("red", "free", "web"))...)
	ref := model.Ref{Tenant: "red", Name: "free"}
	fixed := model.Ref{Tenant: "red", Name: "web-1"}
	must := func(res *Result, v []Violation) *Result {
		t.Helper()
		if len(v) > 0 {
			t.Fatal(v)
		}
		w.store(res)
		return res
	}
	refused := func(says string, reason Reason) func(*Result, []Violation) {
		return func(_ *Result, v []Violation) {
			t.Helper()
			if len(v) != 1 || v[0].Reason != reason || !strings.Contains(v[0].String(), says) {
				t.Fatalf("want %q, got %v", says, v)
			}
		}
	}
	if res := must(AdmitBinding(w.state, fixed, "h1")); len(res.Puts) != 0 {
		t.Error("spec.host says h1 already")
	}
	refused("change spec.host", Conflict)(AdmitBinding(w.state, fixed, "h2"))
	refused("does not exist", Missing)(AdmitBinding(w.state, model.Ref{Tenant: "red", Name: "none"}, "h1"))
	refused("host \"h9\" does not exist", Conflict)(AdmitBinding(w.state, ref, "h9"))
	must(AdmitBinding(w.state, ref, "h1"))
	if w.port("free").Host() != "h1" {
		t.Fatal("not bound")
	}
	refused("unplug the port there", Conflict)(AdmitBinding(w.state, ref, "h2"))
	if res, v := AdmitUnbinding(w.state, ref, "h2"); res != nil || len(v) != 1 || v[0].Reason != Conflict || !strings.Contains(v[0].Message, `on host "h1"`) {
		t.Errorf("unbinding by the wrong host: %v %v", res, v)
	}
	if _, v := w.try(nil, hostKey("h1")); len(v) == 0 || !strings.Contains(v[0].Message, "Port red/free") {
		t.Errorf("a bound port does not hold its host: %v", v)
	}
	// Migration: spec.host decides; taking it away again leaves the port there.
	w.apply(with(port("red", "free", "web"), func(p *model.Port) { p.Spec.Host = "h2" }))
	if p := w.port("free"); p.Host() != "h2" || p.BoundHost != "" {
		t.Errorf("%+v", p)
	}
	w.apply(port("red", "free", "web"))
	if p := w.port("free"); p.Host() != "h2" || p.BoundHost != "h2" {
		t.Errorf("%+v", p)
	}
	must(AdmitUnbinding(w.state, ref, "h2"))
	if w.port("free").Host() != "" {
		t.Error("still bound")
	}
	if res := must(AdmitUnbinding(w.state, ref, "h1")); len(res.Puts) != 0 {
		t.Error("a port that is nowhere was changed")
	}
}

func TestDerivedRecordsFollowPortsGatewaysAndPAs(t *testing.T) {
	w := newWorld(t, base()...)
	all := w.state.AllDerived("red")
	if len(all) != 6 {
		t.Fatalf("%d records", len(all))
	}
	l, ok := w.state.DerivedByName(model.Ref{Tenant: "red", Name: "port:web-1:fd00:a::5"})
	if !ok || l.Spec.ProviderAddress != netip.MustParseAddr("192.0.2.1") || l.Spec.MAC != (model.MAC{2, 0, 0, 0, 0, 1}) || !l.Derived {
		t.Fatalf("%+v %v", l, ok)
	}
	g, ok := w.state.DerivedByName(model.Ref{Tenant: "red", Name: "gateway:web:10.0.0.1"})
	if !ok || g.Spec.MAC != model.RouterMAC(5001) || g.Spec.ProviderAddress.IsValid() {
		t.Fatalf("%+v %v", g, ok)
	}
	if _, ok := w.state.DerivedByName(model.Ref{Tenant: "red", Name: "port:web-1:10.0.0.6"}); ok {
		t.Error("a record that follows from nothing")
	}
	for _, name := range []string{"", ":", "port:", "gateway::", "port:web-1"} {
		if _, ok := w.state.DerivedByName(model.Ref{Tenant: "red", Name: name}); ok {
			t.Errorf("%q is a record", name)
		}
	}
}

func TestAWildcardFollowsItsPortAndComesAfterEveryAddress(t *testing.T) {
	w := newWorld(t, append(base(), wildcard("red", "out", "web", "0.0.0.0", "web-1"))...)
	if r, ok := w.state.Lookup(5001, addrOf("10.0.0.200")); !ok || model.KeyOf(r).String() != "LookupRecord red/out" {
		t.Fatalf("nobody's address is found as %v", r)
	}
	if r, _ := w.state.Lookup(5001, w.port("web-1").Spec.Addresses[0]); model.KeyOf(r).String() != "Port red/web-1" {
		t.Fatalf("the port's address is found as %v", r)
	}
	if r, ok := w.state.Lookup(5001, addrOf("fd00:a::99")); ok {
		t.Fatalf("the other family is found as %v", r)
	}
	r, _ := w.state.Get(model.Key{Kind: model.KindLookupRecord, Ref: model.Ref{Tenant: "red", Name: "out"}})
	if mac, pa := w.state.PlaceOf(r.(*model.LookupRecord)); mac != w.port("web-1").Spec.MAC || pa != w.state.PAOf(w.port("web-1").Host()) {
		t.Fatalf("it is at %s, %s", mac, pa)
	}
	_, v := w.try(nil, portKey("red", "web-1"))
	if len(v) == 0 || !strings.Contains(v[0].Message, "LookupRecord red/out") {
		t.Fatalf("its port can be deleted: %v", v)
	}
}

func TestAdmissionChangesNeitherStateNorInput(t *testing.T) {
	w := newWorld(t, base()...)
	in := port("red", "p", "web")
	before := fmt.Sprintf("%+v", *w.port("web-1"))
	w.try([]model.Resource{in, with(port("red", "web-1", "web"), func(p *model.Port) { p.Spec.Host = "h2" })})
	if in.ID != 0 || !in.Spec.MAC.IsZero() || in.Spec.Addresses != nil || in.Metadata.UID != "" {
		t.Errorf("the input became %+v", in)
	}
	if after := fmt.Sprintf("%+v", *w.port("web-1")); after != before {
		t.Errorf("the state became %s", after)
	}
}

func TestASetThatIsTooLargeIsRefused(t *testing.T) {
	_, v := Admit(NewState(), make([]model.Resource, MaxSet+1), nil, testAllocator())
	if len(v) != 1 || !strings.Contains(v[0].Message, "split it") {
		t.Fatal(v)
	}
}
