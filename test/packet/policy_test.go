package packet

import (
	"encoding/binary"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// world is a random policy and what a writer of packets must know to hit it.
type world struct {
	site
	set     table.Set
	subnets []subnet
	ports   []table.Port

	localPAs, remotePAs []netip.Addr // of one family, or of both
	exchanges           bool         // Provider Addresses that stand for Customer Addresses are of the other family
	forwarders          []member     // remote
}

type subnet struct {
	vsid      model.VSID
	network   model.NetworkIndex
	transport model.TransportID
	p4, p6    netip.Prefix
	gw4, gw6  netip.Addr // invalid if it has none
	members   []member
	l2only    []model.MAC
	gateways  []member // that stand for all others
	portMAC   map[model.MAC]bool
}

// member is one record of a subnet.
type member struct {
	ca  netip.Addr
	mac model.MAC
	pa  netip.Addr // remote
	dev uint32     // local
}

// Address space that networks take their subnets from; networks overlap, and inside a network prefixes may
// contain each other.
var (
	pool4 = prefixes("10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/16", "192.168.7.0/29", "169.254.9.0/24", "172.16.0.0/12", "240.0.0.0/28")
	pool6 = prefixes("fd00:0:0:1::/64", "fd00:0:0:2::/64", "fd00::/48", "2001:db8::/32", "64:ff9b::/96", "fd00:0:0:1::5:0/125", "::100:0/104")

	localPAs4  = addrs("192.0.2.1", "192.0.2.2")
	localPAs6  = addrs("2001:db8:ff::1", "2001:db8:ff::2")
	remotePAs4 = addrs("198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4", "198.51.100.5")
	remotePAs6 = addrs("2001:db8:fe::1", "2001:db8:fe::2", "2001:db8:fe::3", "2001:db8:fe::4", "2001:db8:fe::5")

	pathMTUs = []uint16{1500, 1500, 1500, 9000, 1280, 1322, 600, 150, 90, 70, 62, 50, 42, 20, 65535}
	portMTUs = []uint16{1458, 1458, 1500, 1280, 576, 100, 65535}
)

func addrs(s ...string) []netip.Addr {
	out := make([]netip.Addr, len(s))
	for i := range s {
		out[i] = addr(s[i])
	}
	return out
}

func prefixes(s ...string) []netip.Prefix {
	out := make([]netip.Prefix, len(s))
	for i := range s {
		out[i] = netip.MustParsePrefix(s[i])
	}
	return out
}

func pick[T any](rng *rand.Rand, from []T) T { return from[rng.IntN(len(from))] }

// chance is true in percent of a hundred calls.
func chance(rng *rand.Rand, percent int) bool { return rng.IntN(100) < percent }

// host is the n-th address of a prefix, as far as it has room.
func host(p netip.Prefix, n uint32) netip.Addr {
	b := p.Masked().Addr().As16()
	if free := p.Addr().BitLen() - p.Bits(); free < 32 {
		n &= 1<<free - 1
	}
	binary.BigEndian.PutUint32(b[12:], binary.BigEndian.Uint32(b[12:])|n)
	a := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		return a.Unmap()
	}
	return a
}

// randomWorld writes a policy: overlapping tenants, and some tables that contradict each other.
func randomWorld(rng *rand.Rand, s site) *world {
	w := &world{site: s, set: table.NewSet(), localPAs: localPAs4, remotePAs: remotePAs4, exchanges: chance(rng, 40)}
	switch rng.IntN(3) {
	case 0:
		w.localPAs, w.remotePAs = localPAs6, remotePAs6
	case 1:
		w.localPAs = slices.Concat(localPAs4[:1], localPAs6[:1])
		w.remotePAs = slices.Concat(remotePAs4[:3], remotePAs6[:3])
	}
	for _, pa := range w.localPAs[:1+rng.IntN(2)] {
		w.set.LocalPAs[pa] = struct{}{}
	}
	if chance(rng, 60) {
		w.set.LocalPAs[pick(rng, groupPAs[:])] = struct{}{}
	}
	if chance(rng, 40) {
		w.set.Settings.Pipe, w.set.Settings.DSCP = true, uint8(rng.IntN(64))
	}
	w.set.Settings.VXLANPort = pick(rng, []uint16{4789, 4789, 8472, 53, 1, 65535})
	for network := range model.NetworkIndex(1 + rng.IntN(3)) {
		w.addNetwork(rng, network+1)
	}
	for _, ifindex := range s.ports {
		if chance(rng, 85) {
			w.addPort(rng, ifindex)
		}
	}
	for i := range w.subnets {
		for range 1 + rng.IntN(6) {
			w.addElsewhere(rng, &w.subnets[i])
		}
	}
	for i := range w.subnets {
		w.addGateways(rng, &w.subnets[i])
		if chance(rng, 60) {
			w.addFlood(rng, &w.subnets[i])
		}
		if chance(rng, 40) {
			w.addIsolation(rng, &w.subnets[i])
		}
	}
	for range rng.IntN(8) {
		w.addRoute(rng)
	}
	w.addDirect(rng)
	w.addRules(rng)
	w.addForwarders(rng)
	for _, pa := range w.remotePAs {
		if chance(rng, 85) {
			w.addPeer(rng, pa)
		}
	}
	return w
}

func (w *world) addNetwork(rng *rand.Rand, network model.NetworkIndex) {
	order4, order6 := rng.Perm(len(pool4)), rng.Perm(len(pool6))
	for i := range 1 + rng.IntN(3) {
		sub := subnet{vsid: w.newVSID(rng), network: network, transport: model.TransportID(rng.IntN(3)), portMAC: map[model.MAC]bool{}}
		if chance(rng, 85) {
			sub.p4 = pool4[order4[i]]
			w.addOnLink(sub, sub.p4)
			if chance(rng, 85) {
				sub.gw4 = host(sub.p4, 1)
				w.addRouter(rng, sub.vsid, sub.gw4)
			}
		}
		if chance(rng, 85) || !sub.p4.IsValid() {
			sub.p6 = pool6[order6[i]]
			w.addOnLink(sub, sub.p6)
			if chance(rng, 85) {
				sub.gw6 = host(sub.p6, 1)
				w.addRouter(rng, sub.vsid, sub.gw6)
			}
		}
		w.subnets = append(w.subnets, sub)
	}
}

func (w *world) newVSID(rng *rand.Rand) model.VSID {
	for {
		v := pick(rng, []model.VSID{model.MinVSID, model.MaxVSID, model.MinVSID + model.VSID(rng.IntN(int(model.MaxVSID-model.MinVSID)))})
		used := false
		for _, s := range w.subnets {
			used = used || s.vsid == v
		}
		if !used {
			return v
		}
	}
}

func (w *world) addOnLink(sub subnet, p netip.Prefix) {
	w.set.Routes[table.RouteKey{Network: sub.network, Prefix: p}] = table.Route{VSID: sub.vsid}
}

func (w *world) addRouter(rng *rand.Rand, vsid model.VSID, a netip.Addr) {
	r := table.Record{MAC: model.RouterMAC(vsid), Router: true}
	if chance(rng, 5) { // a router is nobody's port, whatever its record says
		r.IfIndex = pick(rng, w.site.ports[:])
	}
	w.set.Records[table.RecordKey{VSID: vsid, CA: a}] = r
}

// groupPAs are what subnets may flood to.
var groupPAs = [...]netip.Addr{addr("239.1.2.3"), addr("ff05::1:2")}

// customerGroups are what guests listen to; the switch asks for no join to those of the link.
var customerGroups = []netip.Addr{addr("239.1.2.3"), addr("224.0.1.1"), addr("224.0.0.251"), addr("ff0e::1:2:3"), addr("ff15::2"), addr("ff12::2")}

// newMAC is from a small pool, so that tenants share MACs.
func newMAC(rng *rand.Rand) model.MAC { return model.MAC{2, 0, 0, 0, 0, byte(1 + rng.IntN(40))} }

func (w *world) addPort(rng *rand.Rand, ifindex uint32) {
	sub := &w.subnets[rng.IntN(len(w.subnets))]
	mac := newMAC(rng)
	for sub.portMAC[mac] { // a port is found by (VSID, MAC)
		mac = newMAC(rng)
	}
	sub.portMAC[mac] = true
	p := table.Port{
		IfIndex: ifindex, ID: model.PortID(ifindex + 1000), VSID: sub.vsid, Network: sub.network, MAC: mac,
		PA: pick(rng, w.localPAs), MTU: pick(rng, portMTUs), Spoof: chance(rng, 15), Peer: chance(rng, 50), Forward: chance(rng, 20), ClampMSS: chance(rng, 40),
	}
	if chance(rng, 90) {
		p.Gateway4, p.Gateway6 = sub.gw4, sub.gw6
	}
	if chance(rng, 3) {
		p.PA = netip.Addr{}
	}
	p.DHCPGuard, p.RouterGuard = chance(rng, 60), chance(rng, 60)
	if chance(rng, 30) {
		p.Allowed = true
		w.addAllowed(rng, sub, ifindex)
	}
	if chance(rng, 30) {
		p.StormLimit = math.MaxUint32
	}
	p.Learn = chance(rng, 40)
	if p.Learn {
		w.addL2Only(sub, table.Record{MAC: mac, IfIndex: ifindex, Port: p.ID})
	}
	if p.Transport = sub.transport; chance(rng, 2) {
		p.Transport = model.TransportID(rng.IntN(3))
	}
	w.set.Ports[ifindex] = p
	w.ports = append(w.ports, p)
	for range 1 + rng.IntN(3) {
		w.addRecord(rng, sub, table.Record{MAC: mac, IfIndex: ifindex, Port: p.ID})
	}
}

// addAllowed lets a guest use sources that are not its own: addresses that it could have, others, and MACs.
func (w *world) addAllowed(rng *rand.Rand, sub *subnet, ifindex uint32) {
	for range 1 + rng.IntN(4) {
		a := table.Allowed{IfIndex: ifindex}
		switch p := pick(rng, []netip.Prefix{sub.p4, sub.p6, pick(rng, pool4), pick(rng, pool6)}); {
		case chance(rng, 30):
			a.MAC = newMAC(rng)
		case p.IsValid():
			ca := host(p, uint32(2+rng.IntN(40)))
			a.Prefix = netip.PrefixFrom(ca, pick(rng, []int{ca.BitLen(), ca.BitLen() - 3, p.Bits(), 0})).Masked()
		default:
			continue
		}
		w.set.Allowed[a] = struct{}{}
	}
}

// addL2Only adds a MAC whose addresses are yet to be learned.
func (w *world) addL2Only(sub *subnet, r table.Record) {
	r.Transport = sub.transport
	w.set.Records[table.RecordKey{VSID: sub.vsid, CA: model.L2OnlyCA(r.MAC)}] = r
	sub.l2only = append(sub.l2only, r.MAC)
}

// addElsewhere adds a record that is not a plugged port of the subnet.
func (w *world) addElsewhere(rng *rand.Rand, sub *subnet) {
	r := table.Record{MAC: newMAC(rng), Port: model.PortID(rng.IntN(500))}
	switch n := rng.IntN(20); {
	case n == 0: // not plugged
	case n == 1: // a device that may have no port, or one of another subnet
		r.IfIndex = pick(rng, w.site.ports[:])
	case n == 2:
		r.IfIndex = w.site.unknown
	default:
		r.PA = pick(rng, w.remotePAs)
	}
	w.addRecord(rng, sub, r)
	if chance(rng, 30) {
		w.addL2Only(sub, r)
	}
}

// addRecord gives the record an address, or one of each family.
func (w *world) addRecord(rng *rand.Rand, sub *subnet, r table.Record) {
	if r.Transport = sub.transport; chance(rng, 2) { // tables that contradict each other
		r.Transport = model.TransportID(rng.IntN(3))
	}
	for _, p := range []netip.Prefix{sub.p4, sub.p6} {
		if !p.IsValid() || chance(rng, 15) {
			continue
		}
		key := table.RecordKey{VSID: sub.vsid, CA: host(p, uint32(2+rng.IntN(40)))}
		if chance(rng, 2) { // outside the prefix
			key.CA = host(pick(rng, poolOf(p)), uint32(rng.IntN(40)))
		}
		if _, taken := w.set.Records[key]; taken {
			continue
		}
		if sub.transport == model.Rewrite && chance(rng, 15) { // of a family that its network does not rewrite
			r.Transport = model.NVGRE
		}
		w.set.Records[key] = r
		if r.Transport == model.Rewrite {
			w.addRewrite(rng, sub, key, r)
		}
		sub.members = append(sub.members, member{key.CA, r.MAC, r.PA, r.IfIndex})
	}
}

// addGateways lets one of the subnet's members, or somebody else, stand for all that policy does not know.
func (w *world) addGateways(rng *rand.Rand, sub *subnet) {
	for _, any := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		if len(sub.members) == 0 || chance(rng, 60) {
			continue
		}
		m := pick(rng, sub.members)
		if chance(rng, 10) {
			m = member{mac: newMAC(rng), pa: pick(rng, w.remotePAs)}
		}
		w.set.Records[table.RecordKey{VSID: sub.vsid, CA: any}] = table.Record{MAC: m.mac, PA: m.pa, IfIndex: m.dev, Transport: sub.transport}
		sub.gateways = append(sub.gateways, m)
	}
}

func poolOf(p netip.Prefix) []netip.Prefix {
	if p.Addr().Is4() {
		return pool4
	}
	return pool6
}

// addRoute leads some prefix somewhere, not always where it makes sense.
func (w *world) addRoute(rng *rand.Rand) {
	sub := &w.subnets[rng.IntN(len(w.subnets))]
	pool, all := pool4, netip.MustParsePrefix("0.0.0.0/0")
	if chance(rng, 50) {
		pool, all = pool6, netip.MustParsePrefix("::/0")
	}
	prefix := all
	if chance(rng, 60) {
		a := host(pick(rng, pool), rng.Uint32N(64))
		prefix = netip.PrefixFrom(a, rng.IntN(a.BitLen()+1)).Masked()
	}
	r := table.Route{VSID: sub.vsid}
	if chance(rng, 80) {
		r.NextHop = w.nextHop(rng, sub, all.Addr().Is4())
	}
	network := sub.network
	if chance(rng, 3) {
		network = pick(rng, w.subnets).network
	}
	w.set.Routes[table.RouteKey{Network: network, Prefix: prefix}] = r
}

// addDirect tells in some networks what is on-link beside what customer routes say, and
// leaves some of these to external routers.
func (w *world) addDirect(rng *rand.Rand) {
	for network := range model.NetworkIndex(3) {
		network++
		if chance(rng, 50) {
			continue
		}
		external := chance(rng, 40)
		for k, r := range maps.Clone(w.set.Routes) {
			if k.Network != network || r.NextHop.IsValid() {
				continue
			}
			if chance(rng, 95) {
				w.set.Routes[table.RouteKey{Network: network.Direct(), Prefix: k.Prefix}] = r
			}
			if external {
				delete(w.set.Routes, k)
			}
		}
		for i, p := range w.ports {
			if p.Network == network && external && chance(rng, 95) {
				p.External = true
				w.ports[i], w.set.Ports[p.IfIndex] = p, p
			}
		}
	}
}

// addForwarders lets hosts elsewhere forward and do without guards, with or without a guest of theirs.
func (w *world) addForwarders(rng *rand.Rand) {
	for _, sub := range w.subnets {
		for _, m := range sub.members {
			if !m.pa.IsValid() || chance(rng, 75) {
				continue
			}
			trust := table.Trust{Forward: chance(rng, 60), DHCP: chance(rng, 50), Router: chance(rng, 50), Allowed: chance(rng, 30)}
			if trust == (table.Trust{}) {
				continue
			}
			if chance(rng, 90) {
				w.set.Forwarders[table.Forwarder{Network: sub.network, PA: m.pa}] = trust
			}
			if chance(rng, 90) {
				w.set.Forwarders[table.Forwarder{Network: sub.network, MAC: m.mac, PA: m.pa}] = trust
				w.forwarders = append(w.forwarders, m)
			}
		}
	}
}

// nextHop is a member, the router, or nobody.
func (w *world) nextHop(rng *rand.Rand, sub *subnet, is4 bool) netip.Addr {
	var hops []netip.Addr
	for _, m := range sub.members {
		if m.ca.Is4() == is4 {
			hops = append(hops, m.ca)
		}
	}
	for _, gw := range []netip.Addr{sub.gw4, sub.gw6} {
		if gw.IsValid() && gw.Is4() == is4 {
			hops = append(hops, gw)
		}
	}
	if len(hops) == 0 || chance(rng, 5) {
		if is4 {
			return host(pool4[0], 77)
		}
		return host(pool6[0], 77)
	}
	return pick(rng, hops)
}

func (w *world) addPeer(rng *rand.Rand, pa netip.Addr) {
	p := table.Peer{PA: pa, MTU: pick(rng, pathMTUs)}
	if chance(rng, 90) {
		p.IfIndex = pick(rng, w.uplinks[:])
		p.Source = w.macs[p.IfIndex]
	}
	if chance(rng, 80) {
		p.NextHop = model.MAC{2, 0xaa, 0, 0, 0, byte(rng.IntN(256))}
	}
	if chance(rng, 50) { // another address of its family
		p.Via = pa.Next()
	}
	w.set.Peers[pa] = p
	if chance(rng, 50) {
		w.addWays(rng, pa)
	}
}

// addWays gives a host several ways, or sources, or both.
func (w *world) addWays(rng *rand.Rand, pa netip.Addr) {
	for n := range rng.IntN(table.MaxPaths) {
		p := table.Peer{PA: pa, MTU: pick(rng, pathMTUs), NextHop: model.MAC{2, 0xaa, 0, 0, 1, byte(n)}}
		p.IfIndex = pick(rng, w.uplinks[:])
		p.Source = w.macs[p.IfIndex]
		if chance(rng, 80) {
			p.Local = pick(rng, w.localPAs)
		}
		if remote := pick(rng, w.remotePAs); chance(rng, 80) && remote != pa {
			p.Remote = remote
		}
		w.set.Paths[table.PathKey{PA: pa, N: uint8(n + 1)}] = p
	}
	for range rng.IntN(3) {
		w.set.Sources[table.Source{Peer: pa, PA: pick(rng, w.remotePAs)}] = struct{}{}
	}
}

// addFlood has a subnet flooded, to most of its members and some that are none.
func (w *world) addFlood(rng *rand.Rand, sub *subnet) {
	f := table.Flood{L2: chance(rng, 70), Rate: math.MaxUint32, Transport: sub.transport}
	if sub.transport == model.Rewrite {
		f.Transport = model.NVGRE
	}
	if chance(rng, 5) {
		f.Rate = 0
	}
	if chance(rng, 20) {
		f.Group = pick(rng, append(groupPAs[:], w.remotePAs[0]))
		w.addPeer(rng, f.Group)
	}
	w.set.Floods[sub.vsid] = f
	put := func(m table.Member) {
		m.VSID = sub.vsid
		w.set.Members[m] = table.MemberInfo{L2Only: chance(rng, 40)}
	}
	for i, p := range w.ports {
		if p.VSID != sub.vsid {
			continue
		}
		if chance(rng, 95) {
			p.Flood = true
			w.ports[i], w.set.Ports[p.IfIndex] = p, p
		}
		if chance(rng, 90) {
			put(table.Member{IfIndex: p.IfIndex})
		}
		for _, group := range customerGroups {
			if chance(rng, 50) {
				w.set.Groups[table.GroupMember{VSID: sub.vsid, IfIndex: p.IfIndex, Group: group}] = struct{}{}
			}
		}
	}
	for _, m := range sub.members {
		if m.pa.IsValid() && chance(rng, 90) {
			put(table.Member{PA: m.pa})
		}
	}
	if chance(rng, 10) { // a device that may have no port, or one of another subnet
		put(table.Member{IfIndex: pick(rng, w.site.ports[:])})
	}
}
