package compile

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func meta(tenant, name string) model.Metadata {
	return model.Metadata{Tenant: tenant, Name: name}
}

// expected is the same rules again in slow and obvious code: the oracle.
func expected(resources map[model.Key]model.Resource, host string) *goal.Goal {
	g := goal.New()
	pasOf := func(host string) []*model.ProviderAddress {
		var pas []*model.ProviderAddress
		for _, r := range resources {
			if pa, ok := r.(*model.ProviderAddress); ok && pa.Spec.Host == host {
				pas = append(pas, pa)
			}
		}
		// The oldest first, then the lowest.
		slices.SortFunc(pas, func(a, b *model.ProviderAddress) int {
			if !a.Metadata.CreatedAt.Equal(b.Metadata.CreatedAt) {
				return a.Metadata.CreatedAt.Compare(b.Metadata.CreatedAt)
			}
			return a.Spec.Address.Compare(b.Spec.Address)
		})
		return pas
	}
	for _, r := range resources {
		if r, ok := r.(*model.ProviderRoute); ok && r.Spec.Host == host {
			hop, sound := r.Spec.NextHop, r.Spec.NextHop.IsValid() || r.Spec.Interface != ""
			if sound && (!hop.IsValid() || hop.Is4() == r.Spec.Prefix.Addr().Is4()) { // admission refuses others
				g.ProviderRoutes[r.Metadata.Name] = goal.ProviderRoute{Prefix: r.Spec.Prefix, NextHop: hop, Interface: r.Spec.Interface, Metric: r.Spec.Metric}
			}
		}
	}
	if h, ok := resources[model.Key{Kind: model.KindHost, Ref: model.Ref{Name: host}}].(*model.Host); ok {
		for _, p := range h.Spec.RewritePrefixes {
			g.ProviderRoutes["rewrite:"+p.String()] = goal.ProviderRoute{Prefix: p}
		}
	}
	primaryOf := func(host string) netip.Addr {
		for _, pa := range pasOf(host) {
			return pa.Spec.Address
		}
		return netip.Addr{}
	}
	paOf := func(p *model.Port) netip.Addr { return primaryOf(p.Host()) }
	subnetOf := func(tenant, name string) (*model.VirtualSubnet, *model.VirtualNetwork) {
		s, _ := resources[model.Key{Kind: model.KindVirtualSubnet, Ref: model.Ref{Tenant: tenant, Name: name}}].(*model.VirtualSubnet)
		if s == nil {
			return nil, nil
		}
		n, _ := resources[model.Key{Kind: model.KindVirtualNetwork, Ref: model.Ref{Tenant: tenant, Name: s.Spec.Network}}].(*model.VirtualNetwork)
		return s, n
	}
	settle := func(p *model.Port) model.Settings {
		profile, _ := resources[model.Key{Kind: model.KindPortProfile, Ref: model.Ref{Tenant: p.Metadata.Tenant, Name: p.Spec.Profile}}].(*model.PortProfile)
		return p.Spec.Settle(profile)
	}
	for _, pa := range pasOf(host) {
		g.PAs[pa.Spec.Address] = struct{}{}
	}
	settled := func(row *goal.Port, p *model.Port) {
		row.Settings.DHCPServer, row.Settings.Router, row.Settings.StormLimit = !settle(p).DHCPGuard, !settle(p).RouterGuard, settle(p).StormLimit
		row.Settings.Bandwidth = settle(p).Bandwidth
		if h, ok := resources[model.Key{Kind: model.KindHost, Ref: model.Ref{Name: host}}].(*model.Host); ok && settle(p).VLAN == nil && settle(p).Bandwidth.HasMinimum() {
			row.Settings.Uplink = h.Spec.UplinkBandwidth
		}
		row.Settings.Isolation, row.Settings.Allowed = settle(p).Isolation, settle(p).AllowedAddresses
		for _, l := range settle(p).AccessLists {
			row.Settings.Lists = append(row.Settings.Lists, goal.ListUse{Level: "port", List: l})
		}
		row.Settings.ACL = p.Spec.ACL
		for _, m := range settle(p).Mirrors {
			to, ok := resources[model.Key{Kind: model.KindPort, Ref: model.Ref{Tenant: p.Metadata.Tenant, Name: m.Destination}}].(*model.Port)
			if ok && to != p {
				row.Settings.Mirrors = append(row.Settings.Mirrors, goal.Mirror{To: to.ID, PA: paOf(to), Outbound: true, Inbound: m.Direction == "", Rate: m.RateLimit, Port: m.Port})
			}
		}
		for _, r := range resources {
			from, ok := r.(*model.Port)
			if !ok || from == p || from.Metadata.Tenant != p.Metadata.Tenant || from.Host() == host || !paOf(from).IsValid() {
				continue
			}
			if slices.ContainsFunc(settle(from).Mirrors, func(m model.Mirror) bool { return m.Destination == p.Metadata.Name }) {
				row.Settings.Watched = append(row.Settings.Watched, paOf(from))
			}
		}
		slices.SortFunc(row.Settings.Watched, netip.Addr.Compare)
		row.Settings.Watched = slices.Compact(row.Settings.Watched)
		expectLists(g, resources, *row)
		slices.SortFunc(row.CAs, netip.Addr.Compare)
	}
	local := map[*model.VirtualNetwork]bool{}
	for _, r := range resources {
		p, ok := r.(*model.Port)
		if !ok || p.Host() != host {
			continue
		}
		if v := settle(p).VLAN; v != nil {
			row := goal.Port{Ref: p.Metadata.Ref(), ID: p.ID, MAC: p.Spec.MAC, CAs: slices.Clone(p.Spec.Addresses), Spoof: settle(p).AllowSpoofing,
				Settings: goal.PortSettings{VLAN: v}}
			settled(&row, p)
			if e, ok := resources[model.Key{Kind: model.KindExternalNetwork, Ref: model.Ref{Name: v.Network}}].(*model.ExternalNetwork); ok {
				rack := ""
				if h, ok := resources[model.Key{Kind: model.KindHost, Ref: model.Ref{Name: host}}].(*model.Host); ok {
					rack = h.Metadata.Labels["rack"]
				}
				for _, i := range e.Spec.Interfaces {
					if row.Interface == "" && (slices.Contains(i.Hosts, host) || i.Labels["rack"] != "" && i.Labels["rack"] == rack || len(i.Hosts)+len(i.Labels) == 0) {
						row.Interface = i.Interface
					}
				}
			}
			g.Ports[p.ID] = row
			continue
		}
		s, n := subnetOf(p.Metadata.Tenant, p.Spec.Subnet)
		if n == nil {
			continue
		}
		local[n] = true
		row := goal.Port{Ref: p.Metadata.Ref(), ID: p.ID, VSID: s.Spec.VSID, Network: n.Index, MAC: p.Spec.MAC,
			CAs: slices.Clone(p.Spec.Addresses), Prefixes: slices.Clone(s.Spec.Prefixes), PA: paOf(p), Spoof: settle(p).AllowSpoofing, Learn: settle(p).DynamicAddressLimit,
			Flood:   goal.Flood{L2: s.Spec.Flood == model.FloodL2, Group: s.Spec.MulticastAddress, Rate: s.Spec.StormLimit},
			Forward: settle(p).Forwarding, External: n.Spec.UseExternalRouter, ClampMSS: s.Spec.MSSClamp}
		for _, l := range n.Spec.AccessLists {
			row.Settings.Lists = append(row.Settings.Lists, goal.ListUse{Level: "network", List: l})
		}
		for _, l := range s.Spec.AccessLists {
			row.Settings.Lists = append(row.Settings.Lists, goal.ListUse{Level: "subnet", List: l})
		}
		settled(&row, p)
		slices.SortFunc(row.Prefixes, netip.Prefix.Compare)
		for _, a := range s.Spec.Gateway {
			if a.Is4() {
				row.Gateway4 = a
			} else {
				row.Gateway6 = a
			}
		}
		g.Ports[p.ID] = row
	}
	for n := range local {
		subnets := map[string]*model.VirtualSubnet{}
		for _, r := range resources {
			if s, ok := r.(*model.VirtualSubnet); ok && s.Metadata.Tenant == n.Metadata.Tenant && s.Spec.Network == n.Metadata.Name {
				subnets[s.Metadata.Name] = s
			}
		}
		for _, r := range resources { // static records first: ports overwrite them
			if l, ok := r.(*model.LookupRecord); ok && l.Metadata.Tenant == n.Metadata.Tenant && subnets[l.Spec.Subnet] != nil {
				k := goal.RecordKey{VSID: subnets[l.Spec.Subnet].Spec.VSID, CA: l.Spec.CustomerAddress}
				rival := false
				for _, o := range resources {
					if o, ok := o.(*model.LookupRecord); ok && o.Metadata.Tenant == l.Metadata.Tenant && o.Spec.Subnet == l.Spec.Subnet &&
						o.Spec.CustomerAddress == l.Spec.CustomerAddress && o.Metadata.Name < l.Metadata.Name {
						rival = true
					}
				}
				p, _ := resources[model.Key{Kind: model.KindPort, Ref: model.Ref{Tenant: l.Metadata.Tenant, Name: l.Spec.Port}}].(*model.Port)
				switch {
				case rival:
				case l.Spec.Port == "":
					g.Records[k] = goal.Record{MAC: l.Spec.MAC, PA: l.Spec.ProviderAddress, Transport: transport(n, subnets[l.Spec.Subnet], l.Spec.CustomerAddress, false)}
					if l.Rewrite && transport(n, subnets[l.Spec.Subnet], l.Spec.CustomerAddress, false) == model.Rewrite {
						g.Records[k] = withRewrite(g.Records[k], l.Spec.ProviderAddress)
					}
				case p != nil && p.Spec.Subnet == l.Spec.Subnet && p.Host() != "" && settle(p).VLAN == nil:
					g.Records[k] = goal.Record{MAC: p.Spec.MAC, PA: paOf(p), Port: p.ID, Transport: transport(n, subnets[l.Spec.Subnet], l.Spec.CustomerAddress, false), Trust: trust(settle(p)), Isolation: settle(p).Isolation.ID()}
				}
			}
		}
		for _, r := range resources {
			p, ok := r.(*model.Port)
			if !ok || p.Metadata.Tenant != n.Metadata.Tenant || subnets[p.Spec.Subnet] == nil || p.Host() == "" || settle(p).VLAN != nil {
				continue
			}
			cas := append(slices.Clone(p.Spec.Addresses), p.Learned...)
			if settle(p).DynamicAddressLimit > 0 {
				cas = append(cas, model.L2OnlyCA(p.Spec.MAC))
			}
			for _, x := range settle(p).AllowedAddresses {
				if !x.MAC.IsZero() {
					cas = append(cas, model.AllowedCA(p.ID, x.MAC))
				}
			}
			for i, ca := range cas {
				k := goal.RecordKey{VSID: subnets[p.Spec.Subnet].Spec.VSID, CA: ca}
				if old := g.Records[k]; old.Port == 0 || old.Port > p.ID {
					mac := p.Spec.MAC
					if m, is := model.AllowedMAC(ca); is {
						mac = m
					}
					g.Records[k] = goal.Record{MAC: mac, PA: paOf(p), Port: p.ID, Transport: transport(n, subnets[p.Spec.Subnet], ca, false), Trust: trust(settle(p)), Isolation: settle(p).Isolation.ID()}
					if transport(n, subnets[p.Spec.Subnet], ca, false) == model.Rewrite && i < len(p.RewriteAddresses) {
						g.Records[k] = withRewrite(g.Records[k], p.RewriteAddresses[i])
					}
				}
			}
		}
		metric := map[netip.Prefix]string{}
		led := n.Spec.UseExternalRouter // some route leads through a guest, or may
		for _, r := range resources {
			c, ok := r.(*model.CustomerRoute)
			if !ok || c.Metadata.Tenant != n.Metadata.Tenant || c.Spec.Network != n.Metadata.Name {
				continue
			}
			led = true
			for _, s := range subnets {
				for _, p := range s.Spec.Prefixes {
					rank := fmt.Sprintf("%010d %s", c.Spec.Metric, c.Metadata.Name)
					if best, taken := metric[c.Spec.Prefix]; p.Contains(c.Spec.NextHop) && (!taken || rank < best) {
						metric[c.Spec.Prefix] = rank
						g.Routes[goal.RouteKey{Network: n.Index, Prefix: c.Spec.Prefix}] = goal.Route{VSID: s.Spec.VSID, NextHop: c.Spec.NextHop}
					}
				}
			}
		}
		for _, s := range subnets {
			for _, a := range s.Spec.Gateway {
				g.Records[goal.RecordKey{VSID: s.Spec.VSID, CA: a}] = goal.Record{MAC: model.RouterMAC(s.Spec.VSID), Router: true, Transport: transport(n, s, a, true)}
			}
			for _, p := range s.Spec.Prefixes {
				if !n.Spec.UseExternalRouter {
					g.Routes[goal.RouteKey{Network: n.Index, Prefix: p}] = goal.Route{VSID: s.Spec.VSID}
				}
				if led {
					g.Routes[goal.RouteKey{Network: n.Index.Direct(), Prefix: p}] = goal.Route{VSID: s.Spec.VSID}
				}
			}
		}
		for k, r := range g.Records {
			if !r.PA.IsValid() || !slices.ContainsFunc(slices.Collect(maps.Values(subnets)), func(s *model.VirtualSubnet) bool { return s.Spec.VSID == k.VSID }) {
				continue
			}
			for _, h := range hosts { // the first that has the address as its primary
				if primaryOf(h) != r.PA {
					continue
				}
				var usable []netip.Addr
				for _, pa := range pasOf(h) {
					if (pa.State == "" || pa.State == "Preferred") && !slices.Contains(usable, pa.Spec.Address) {
						usable = append(usable, pa.Spec.Address)
					}
				}
				slices.SortFunc(usable, netip.Addr.Compare)
				if len(usable) != 1 || usable[0] != r.PA {
					var peer goal.Peer
					copy(peer.PAs[:], usable)
					g.Peers[goal.PeerKey{Network: n.Index, PA: r.PA}] = peer
				}
				break
			}
		}
	}
	return g
}

// expectLists adds what judges the packets of a port.
func expectLists(g *goal.Goal, resources map[model.Key]model.Resource, p goal.Port) {
	tenant := p.Ref.Tenant
	var members func(name string, seen map[string]bool) []netip.Prefix
	members = func(name string, seen map[string]bool) (out []netip.Prefix) {
		x, ok := resources[model.Key{Kind: model.KindAddressGroup, Ref: model.Ref{Tenant: tenant, Name: name}}].(*model.AddressGroup)
		if !ok || seen[name] {
			return nil
		}
		seen[name] = true
		out = append(out, x.Spec.Prefixes...)
		for _, inner := range x.Spec.Groups {
			out = append(out, members(inner, seen)...)
		}
		for _, r := range resources {
			if p, ok := r.(*model.Port); ok && p.Metadata.Tenant == tenant && len(x.Spec.Ports) > 0 && p.Metadata.Labels["role"] == x.Spec.Ports["role"] {
				for _, ca := range append(slices.Clone(p.Spec.Addresses), p.Learned...) {
					out = append(out, netip.PrefixFrom(ca, ca.BitLen()))
				}
			}
		}
		return out
	}
	for _, u := range p.Settings.Lists {
		l, ok := resources[model.Key{Kind: model.KindAccessList, Ref: model.Ref{Tenant: tenant, Name: u.List}}].(*model.AccessList)
		if !ok {
			continue
		}
		g.Lists[l.Metadata.Ref()] = &goal.List{Ref: l.Metadata.Ref(), Tier: l.Spec.Tier, Mode: l.Spec.Mode, Default: l.Spec.Default, Rules: l.Spec.Rules}
		for _, r := range l.Spec.Rules {
			for _, name := range append(slices.Clone(r.Remote.Groups), r.Local.Groups...) {
				ref := model.Ref{Tenant: tenant, Name: name}
				if _, ok := resources[model.Key{Kind: model.KindAddressGroup, Ref: ref}]; !ok {
					continue
				}
				all := members(name, map[string]bool{})
				slices.SortFunc(all, netip.Prefix.Compare)
				g.Groups[ref] = &goal.Group{Ref: ref, Prefixes: slices.Compact(all)}
			}
		}
	}
}

func transport(n *model.VirtualNetwork, s *model.VirtualSubnet, ca netip.Addr, router bool) model.TransportID {
	switch {
	case s.Spec.Transport == model.TransportVXLAN:
		return model.VXLAN
	case s.Spec.Transport == model.TransportRewrite && n.Rewrites(ca) && !(router && s.Spec.Flood == model.FloodL2):
		return model.Rewrite
	}
	return model.NVGRE
}

func withRewrite(r goal.Record, pa netip.Addr) goal.Record {
	r.Rewrite = pa
	return r
}

var (
	tenants = []string{"red", "blue"}
	nets    = []string{"prod", "test"}
	subs    = []string{"web", "db", "mgmt"}
	hosts   = []string{"h1", "h2", "h3"}
	groups  = []string{"office", "all", "peers"}
	lists   = []string{"in", "out", "base"}
)

// draw makes a resource, or a change to one: everything from a small world, so
// that sequences meet the same things again and again.
func draw(t *rapid.T) model.Resource {
	pick := func(of ...string) string { return rapid.SampledFrom(of).Draw(t, "pick") }
	number := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "n") }
	tenant := pick(tenants...)
	switch number(21) {
	case 19:
		r := &model.ExternalNetwork{Metadata: meta("", pick("lan", "dmz"))}
		for range number(3) {
			r.Spec.Interfaces = append(r.Spec.Interfaces, model.ExternalInterface{Interface: pick("eth1", "eth2"), Hosts: [][]string{nil, {"h1"}, {"h2", "h3"}}[number(3)],
				Labels: []map[string]string{nil, {"rack": "a"}}[number(2)]})
		}
		return r
	case 20:
		return &model.Host{Metadata: model.Metadata{Name: pick(hosts...), Labels: []map[string]string{nil, {"rack": "a"}, {"rack": "b"}}[number(3)]},
			Spec: model.HostSpec{UplinkBandwidth: int64(1e9 * number(3)), RewritePrefixes: [][]netip.Prefix{nil, {prefix("172.31.0.0/16")}, {prefix("172.31.0.0/16"), prefix("fd00:9::/64")}}[number(3)]}}
	case 0:
		return &model.VirtualNetwork{Metadata: meta(tenant, pick(nets...)), Index: model.NetworkIndex(1 + number(6)),
			Spec: model.VirtualNetworkSpec{UseExternalRouter: number(3) == 0, AccessLists: someLists(t),
				RewriteFamilies: [][]model.Family{nil, nil, {model.IPv4}, {model.IPv6}, {model.IPv6, model.IPv4}}[number(5)],
				RewriteOver:     []model.Family{"", model.IPv6}[number(2)]}}
	case 1, 2:
		i := number(3)
		r := &model.VirtualSubnet{Metadata: meta(tenant, subs[i]), Spec: model.VirtualSubnetSpec{
			Network: pick(nets...), VSID: model.VSID(5001 + number(8)),
			Prefixes:  []netip.Prefix{prefix(fmt.Sprintf("10.0.%d.0/24", i)), prefix(fmt.Sprintf("fd00:%d::/64", i))},
			Transport: model.Transport(pick("", "nvgre", "vxlan", "rewrite", "rewrite")),
			Gateway:   []netip.Addr{addr(fmt.Sprintf("10.0.%d.%d", i, 1+number(6))), addr(fmt.Sprintf("fd00:%d::1", i))}}}
		r.Spec.Prefixes, r.Spec.Gateway = r.Spec.Prefixes[:1+number(2)], r.Spec.Gateway[:number(3)]
		r.Spec.AccessLists = someLists(t)
		r.Spec.Flood, r.Spec.StormLimit = model.Flood(pick("", "l3", "l2", "l2")), uint32(number(3))
		if number(3) == 0 {
			r.Spec.MulticastAddress = addr("239.1.1.1")
		}
		return r
	case 15:
		hop := pick("192.0.2.1", "192.0.2.2", "")
		r := &model.ProviderRoute{Metadata: meta("", fmt.Sprint("route", number(3))), Spec: model.ProviderRouteSpec{Host: pick(hosts...),
			Prefix: prefix(pick("198.51.100.0/24", "0.0.0.0/0", "fd00::/16")), Interface: pick("", "eth1"), Metric: uint32(number(2))}}
		if hop != "" {
			r.Spec.NextHop = addr(hop)
		}
		return r
	case 3, 4:
		i := number(5)
		m := meta("", fmt.Sprint("pa", i))
		m.CreatedAt = time.Unix(int64(number(3)), 0)
		return &model.ProviderAddress{Metadata: m, State: model.AddressState(pick("", "Preferred", "Duplicate", "Invalid")),
			Spec: model.ProviderAddressSpec{Host: pick(hosts...), Address: addr(pick(fmt.Sprintf("192.0.2.%d", i), fmt.Sprintf("2001:db8::%d", i)))}}
	case 5, 6:
		prefixes := []string{"0.0.0.0/0", "10.9.0.0/16", "10.0.1.0/24", "::/0"}
		hops := []string{"10.0.0.5", "10.0.1.6", "10.0.2.5", "fd00:0::5", "172.16.0.1"}
		return &model.CustomerRoute{Metadata: meta(tenant, fmt.Sprint("route", number(4))), Spec: model.CustomerRouteSpec{
			Network: pick(nets...), Prefix: prefix(pick(prefixes...)), NextHop: addr(pick(hops...)), Metric: uint32(number(2))}}
	case 9, 10:
		r := &model.AddressGroup{Metadata: meta(tenant, pick(groups...))}
		r.Spec.Prefixes = []netip.Prefix{prefix("10.1.0.0/16"), prefix("10.0.0.0/24")}[:number(3)]
		if number(2) == 0 {
			r.Spec.Ports = map[string]string{"role": pick("web", "db")}
		}
		r.Spec.Groups = [][]string{nil, nil, {pick(groups...)}, groups[:2]}[number(4)]
		return r
	case 11, 12:
		r := &model.AccessList{Metadata: meta(tenant, pick(lists...)), Spec: model.AccessListSpec{Tier: model.TierTenant, Mode: model.ModeEnforce,
			Default: model.ListDefault{Inbound: []model.RuleAction{"", model.ActionDeny}[number(2)]}}}
		for i := range number(3) {
			rule := model.AccessRule{Name: fmt.Sprint("r", i), Direction: model.Inbound, Action: model.ActionAllow, Protocol: "tcp",
				LocalPorts: []model.Range{{First: 1, Last: uint16(1 + number(2))}}}
			rule.Remote.Groups = [][]string{nil, {pick(groups...)}, groups}[number(3)]
			if number(3) == 0 {
				rule.Local.Groups = []string{pick(groups...)}
			}
			r.Spec.Rules = append(r.Spec.Rules, rule)
		}
		return r
	case 8:
		return &model.PortProfile{Metadata: meta(tenant, pick("strict", "loose")), Spec: model.PortProfileSpec{PortSettings: drawSettings(t)}}
	case 7:
		i := number(3)
		if number(2) == 0 {
			return &model.LookupRecord{Metadata: meta(tenant, fmt.Sprint("record", number(3))), Spec: model.LookupRecordSpec{
				Type: model.RecordGatewayWildcard, Subnet: subs[i], CustomerAddress: addr(pick("0.0.0.0", "::")), Port: fmt.Sprint("port", number(6))}}
		}
		return &model.LookupRecord{Metadata: meta(tenant, fmt.Sprint("record", number(3))), Rewrite: number(2) == 0, Spec: model.LookupRecordSpec{
			Subnet: subs[i], CustomerAddress: addr(fmt.Sprintf("10.0.%d.%d", i, 5+number(3))), MAC: model.MAC{2, 9, 9, 9, 9, byte(number(3))},
			ProviderAddress: addr(fmt.Sprintf("192.0.2.%d", number(6)))}}
	default:
		i := number(3)
		r := &model.Port{Metadata: meta(tenant, fmt.Sprint("port", number(6))), ID: model.PortID(1 + number(16)),
			Spec: model.PortSpec{Subnet: subs[i], MAC: model.MAC{2, 0, 0, 0, 0, byte(1 + number(4))}, Host: pick("", "h1", "h2", "h3"),
				Profile: pick("", "", "strict", "loose"), PortSettings: drawSettings(t)}}
		for _, a := range []string{"10.0.%d.6", "10.0.%d.5", "fd00:%d::5"}[:number(4)] {
			r.Spec.Addresses = append(r.Spec.Addresses, addr(fmt.Sprintf(a, i)))
		}
		for _, ca := range r.Spec.Addresses[:len(r.Spec.Addresses)*number(2)] {
			pa := addr(fmt.Sprintf("172.31.%d.%d", r.ID, number(200)))
			if ca.Is6() {
				pa = addr(fmt.Sprintf("fd00:9::%d", r.ID))
			}
			r.RewriteAddresses = append(r.RewriteAddresses, pa)
		}
		r.Metadata.Labels = []map[string]string{nil, {"role": "web"}, {"role": "db"}}[number(3)]
		if number(4) == 0 {
			r.Spec.ACL = []model.BasicRule{{Action: model.ActionDeny, Direction: model.Inbound, Remote: []netip.Prefix{prefix(pick("10.0.0.0/8", "::/0"))}}}
		}
		if r.Spec.Host == "" {
			r.BoundHost = pick("", "h1", "h2")
		}
		if number(3) == 0 {
			r.Learned = []netip.Addr{addr(fmt.Sprintf("10.0.%d.%d", i, 6+number(3)))}
		}
		return r
	}
}

// someLists is often empty, and may name what does not exist.
func someLists(t *rapid.T) []string {
	i := rapid.IntRange(0, 5).Draw(t, "lists")
	return [][]string{nil, nil, nil, lists[:1], lists[1:], {"base", "in"}}[i]
}

// drawSettings leaves most things unsaid.
func drawSettings(t *rapid.T) (s model.PortSettings) {
	number := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, "setting") }
	truth := func() *bool {
		if i := number(5); i < 2 {
			return new(i == 0)
		}
		return nil
	}
	s.AllowSpoofing, s.Forwarding, s.DHCPGuard, s.RouterGuard = truth(), truth(), truth(), truth()
	s.AccessLists = someLists(t)
	if number(3) == 0 {
		s.DynamicAddressLimit = new(uint32(number(3)))
	}
	if number(4) == 0 {
		s.StormLimit, s.Isolation = new(uint32(number(3))), &model.Isolation{Mode: model.IsolationMode([]string{"none", "isolated", "promiscuous"}[number(3)])}
	}
	if number(5) == 0 {
		s.VLAN = &model.VLAN{Network: []string{"lan", "dmz"}[number(2)], Mode: model.VLANAccess, ID: uint16(10 + number(2))}
	}
	if number(4) == 0 {
		s.Bandwidth = &model.Bandwidth{Outbound: model.BandwidthLimit{Maximum: int64(8e6 * number(2)), Weight: uint32(number(3))}}
	}
	if number(6) == 0 {
		s.Mirrors, s.AccessLists, s.AllowedAddresses = []model.Mirror{}, []string{}, []model.AllowedAddress{}
	}
	for range number(3) {
		s.Mirrors = append(s.Mirrors, model.Mirror{Destination: fmt.Sprint("port", number(6)), Direction: []model.Direction{"", model.Outbound}[number(2)], RateLimit: uint32(number(2)), Port: uint16(number(2))})
	}
	if number(4) == 0 {
		s.AllowedAddresses = []model.AllowedAddress{{Prefix: prefix("10.9.0.0/16"), MAC: model.MAC{2, byte(number(2))}}}
	}
	return s
}

// admitted tells whether the identities that the server hands out are unique.
func admitted(resources map[model.Key]model.Resource) bool {
	seen := map[string]bool{}
	for _, r := range resources {
		identity := ""
		switch r := r.(type) {
		case *model.VirtualNetwork:
			identity = fmt.Sprint("index ", r.Index)
		case *model.VirtualSubnet:
			identity = fmt.Sprint("vsid ", r.Spec.VSID)
		case *model.Port:
			identity = fmt.Sprint("id ", r.ID)
		}
		if identity != "" && seen[identity] {
			return false
		}
		seen[identity] = true
	}
	return true
}

// transaction draws one that leaves the identities unique; sometimes two
// resources trade theirs in it.
func transaction(t *rapid.T, resources map[model.Key]model.Resource) (puts []model.Resource, deletes []model.Key, after map[model.Key]model.Resource) {
	after = maps.Clone(resources)
	try := func(key model.Key, r model.Resource) {
		next := maps.Clone(after)
		delete(next, key)
		if r != nil {
			next[key] = r
		}
		if !admitted(next) {
			return
		}
		after = next
	}
	for range rapid.IntRange(1, 4).Draw(t, "changes") {
		r := draw(t)
		if key := model.KeyOf(r); rapid.IntRange(0, 3).Draw(t, "delete") == 0 {
			try(key, nil)
		} else {
			try(key, r)
		}
	}
	if rapid.IntRange(0, 5).Draw(t, "trade") == 0 {
		trade(t, after)
	}
	for key, r := range after {
		if resources[key] != r {
			puts = append(puts, r)
		}
	}
	for key := range resources {
		if after[key] == nil {
			deletes = append(deletes, key)
		}
	}
	return puts, deletes, after
}

func trade(t *rapid.T, resources map[model.Key]model.Resource) {
	var subnets []*model.VirtualSubnet
	for _, r := range resources {
		if s, ok := r.(*model.VirtualSubnet); ok {
			subnets = append(subnets, s)
		}
	}
	if len(subnets) < 2 {
		return
	}
	slices.SortFunc(subnets, func(a, b *model.VirtualSubnet) int { return int(a.Spec.VSID) - int(b.Spec.VSID) })
	i := rapid.IntRange(0, len(subnets)-2).Draw(t, "which")
	a, b := *subnets[i], *subnets[i+1]
	a.Spec.VSID, b.Spec.VSID = b.Spec.VSID, a.Spec.VSID
	resources[model.KeyOf(&a)], resources[model.KeyOf(&b)] = &a, &b
}

func TestIncrementalIsFullIsTheRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := New()
		resources := map[model.Key]model.Resource{}
		held := map[string]*goal.Goal{}
		for _, h := range hosts {
			held[h] = goal.New()
		}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			puts, deletes, after := transaction(t, resources)
			resources = after
			deltas := c.Apply(puts, deletes)
			full := Full(slices.Collect(maps.Values(resources)))
			for _, h := range hosts {
				want := expected(resources, h)
				if got := full.Goal(h); !got.Equal(want) {
					t.Fatalf("%s: full compile differs from the rules:\n%q", h, describe(want, got))
				}
				if got := c.Goal(h); !got.Equal(want) {
					t.Fatalf("%s: incremental compile differs from the rules:\n%q", h, describe(want, got))
				}
				if d := want.Digest(); c.Digest(h) != d || full.Digest(h) != d {
					t.Fatalf("%s: digest %s, full %s, of the goal %s", h, c.Digest(h), full.Digest(h), d)
				}
				delta := deltas[h]
				if got := delta.Digest(held[h], held[h].Digest()); got != want.Digest() {
					t.Fatalf("%s: the digest after the delta is %s, not %s", h, got, want.Digest())
				}
				once(t, delta)
				if !has(held[h], delta) {
					t.Fatalf("%s: rows are deleted that the host never had", h)
				}
				delta.Apply(held[h])
				if !held[h].Equal(want) {
					t.Fatalf("%s: following the deltas leads elsewhere:\n%q", h, describe(want, held[h]))
				}
				for key := range resources {
					if got, want := c.Concern(key), full.Concern(key); !slices.Equal(got, want) {
						t.Fatalf("%s concerns %v, and %v in the full compile", key, got, want)
					}
				}
				if ports, records := c.Rows(h); ports != len(want.Ports) || records != len(want.Records) {
					t.Fatalf("%s: %d ports and %d records counted", h, ports, records)
				}
			}
		}
		var all []model.Key
		for key := range resources {
			all = append(all, key)
		}
		c.Apply(nil, all)
		if len(c.networks)+len(c.hosts)+len(c.ports)+len(c.profiles)+len(c.lists)+len(c.groups)+len(c.tenants)+len(c.primaries)+len(c.named)+len(c.resources) != 0 {
			t.Fatalf("left behind: %d networks, %d hosts, %d ports", len(c.networks), len(c.hosts), len(c.ports))
		}
	})
}

func describe(want, got *goal.Goal) []string {
	extra, missing := goal.Difference(want, got)
	return append(extra, missing...)
}

func once(t *rapid.T, d goal.Delta) {
	var p goal.Pending
	p.Add(d)
	if p.Rows() != d.Rows() {
		t.Fatalf("a key stands twice in %+v", d)
	}
}

// has reports whether g holds every row that d deletes.
func has(g *goal.Goal, d goal.Delta) bool {
	rows := g.Rows()
	left := g.Clone()
	goal.Delta{DeletePorts: d.DeletePorts, DeleteRoutes: d.DeleteRoutes, DeleteRecords: d.DeleteRecords, DeletePAs: d.DeletePAs,
		DeleteLists: d.DeleteLists, DeleteGroups: d.DeleteGroups}.Apply(left)
	return rows-left.Rows() == len(d.DeletePorts)+len(d.DeleteRoutes)+len(d.DeleteRecords)+len(d.DeletePAs)+len(d.DeleteLists)+len(d.DeleteGroups)
}

// demo is the world of the first five minutes: two tenants, alike to the last byte.
func demo() []model.Resource {
	var out []model.Resource
	for i, h := range []string{"h1", "h2"} {
		out = append(out, &model.Host{Metadata: meta("", h)}, &model.ProviderAddress{Metadata: meta("", h+"-pa"),
			Spec: model.ProviderAddressSpec{Host: h, Address: addr(fmt.Sprintf("192.0.2.%d", i+1))}})
	}
	for i, tenant := range tenants {
		out = append(out, &model.Tenant{Metadata: meta("", tenant)}, &model.VirtualNetwork{Metadata: meta(tenant, "prod"), Index: model.NetworkIndex(i + 1)},
			&model.VirtualSubnet{Metadata: meta(tenant, "web"), Spec: model.VirtualSubnetSpec{Network: "prod", VSID: model.VSID(5001 + 1000*i),
				Prefixes: []netip.Prefix{prefix("10.0.0.0/24"), prefix("fd00:a::/64")}, Gateway: []netip.Addr{addr("10.0.0.1"), addr("fd00:a::1")}}},
			&model.VirtualSubnet{Metadata: meta(tenant, "db"), Spec: model.VirtualSubnetSpec{Network: "prod", VSID: model.VSID(5002 + 1000*i),
				Prefixes: []netip.Prefix{prefix("10.0.1.0/24"), prefix("fd00:b::/64")}, Gateway: []netip.Addr{addr("10.0.1.1"), addr("fd00:b::1")}}})
		for j, p := range []struct{ name, subnet, v4, v6, host string }{
			{"web-1", "web", "10.0.0.5", "fd00:a::5", "h1"}, {"web-2", "web", "10.0.0.6", "fd00:a::6", "h2"},
			{"web-3", "web", "10.0.0.7", "fd00:a::7", "h1"}, {"db-1", "db", "10.0.1.5", "fd00:b::5", "h2"}} {
			out = append(out, &model.Port{Metadata: meta(tenant, p.name), ID: model.PortID(1 + 4*i + j), Spec: model.PortSpec{Subnet: p.subnet,
				MAC: model.MAC{2, 0, 0, 0, 0, byte(j + 1)}, Addresses: []netip.Addr{addr(p.v4), addr(p.v6)}, Host: p.host}})
		}
	}
	return out
}

func TestTenantsWithTheSameAddressesShareNothing(t *testing.T) {
	c := Full(demo())
	g := c.Goal("h1")
	if len(g.Ports) != 4 || len(g.Records) != 2*(8+4) || len(g.Routes) != 2*4 || len(g.PAs) != 1 {
		t.Fatalf("%d ports, %d records, %d routes, %d PAs", len(g.Ports), len(g.Records), len(g.Routes), len(g.PAs))
	}
	red, blue := g.Records[goal.RecordKey{VSID: 5001, CA: addr("10.0.0.6")}], g.Records[goal.RecordKey{VSID: 6001, CA: addr("10.0.0.6")}]
	if red.PA != addr("192.0.2.2") || blue.PA != red.PA || red.Port == blue.Port || red.MAC != blue.MAC {
		t.Fatalf("red %+v, blue %+v", red, blue)
	}
}

func TestHostGetsOnlyTheNetworksOfItsPorts(t *testing.T) {
	c := Full(demo())
	if ports, records := c.Rows("h9"); ports != 0 || records != 0 || c.Goal("h9").Rows() != 0 {
		t.Fatal("a host without ports has rows")
	}
	deltas := c.Apply([]model.Resource{move(c, "blue", "web-1", "h3")}, nil)
	if got := slices.Sorted(maps.Keys(deltas)); !slices.Equal(got, []string{"h1", "h2", "h3"}) {
		t.Fatalf("changed %v", got)
	}
	for k := range c.Goal("h3").Records {
		if k.VSID != 6001 && k.VSID != 6002 {
			t.Errorf("h3 has a record of VSID %d", k.VSID)
		}
	}
	if r := c.Goal("h1").Records[goal.RecordKey{VSID: 6001, CA: addr("10.0.0.5")}]; r.PA.IsValid() {
		t.Errorf("a port on a host without PA has %s", r.PA)
	}
	deltas = c.Apply([]model.Resource{&model.ProviderAddress{Metadata: meta("", "h3-pa"),
		Spec: model.ProviderAddressSpec{Host: "h3", Address: addr("192.0.2.3")}}}, nil)
	if want := []goal.RecordRow{
		{Key: goal.RecordKey{VSID: 6001, CA: addr("10.0.0.5")}, Record: goal.Record{MAC: model.MAC{2, 0, 0, 0, 0, 1}, PA: addr("192.0.2.3"), Port: 5}},
		{Key: goal.RecordKey{VSID: 6001, CA: addr("fd00:a::5")}, Record: goal.Record{MAC: model.MAC{2, 0, 0, 0, 0, 1}, PA: addr("192.0.2.3"), Port: 5}},
	}; !slices.Equal(deltas["h2"].PutRecords, want) || deltas["h2"].Rows() != 2 {
		t.Fatalf("h2 gets %+v", deltas["h2"])
	}
	deltas = c.Apply([]model.Resource{move(c, "blue", "web-1", ""), move(c, "blue", "web-3", "h2")}, nil)
	for k := range c.Goal("h1").Records {
		if k.VSID >= 6000 {
			t.Errorf("h1 lost blue's last port and keeps %d %s", k.VSID, k.CA)
		}
	}
	if n := len(c.Goal("h3").Records); n != 0 || len(deltas["h3"].DeleteRecords) != 12 {
		t.Errorf("h3 keeps %d records", n)
	}
}

func move(c *Compiler, tenant, name, host string) *model.Port {
	r, _ := c.Resource(model.Key{Kind: model.KindPort, Ref: model.Ref{Tenant: tenant, Name: name}})
	p := *r.(*model.Port)
	p.Spec.Host = host
	return &p
}

// Records name a host by its oldest address, whatever becomes of the others; where it
// can be reached now is said once per network.
func TestAddressesComeAndGo(t *testing.T) {
	c := Full(demo())
	pa := func(name, address string, state model.AddressState) *model.ProviderAddress {
		r := &model.ProviderAddress{Metadata: meta("", name), State: state, Spec: model.ProviderAddressSpec{Host: "h2", Address: addr(address)}}
		if name == "h2-pb" {
			r.Metadata.CreatedAt = time.Unix(1, 0)
		}
		return r
	}
	old, _ := c.Resource(model.Key{Kind: model.KindProviderAddress, Ref: model.Ref{Name: "h2-pa"}})
	primary := old.(*model.ProviderAddress).Spec.Address
	for _, step := range []struct {
		name   string
		puts   []model.Resource
		usable []string // of h2 as h1 is told; nil: nothing is said
	}{
		{"a lower address that is being probed", []model.Resource{pa("h2-pb", "192.0.2.0", model.AddressTentative)}, nil},
		{"it may be used", []model.Resource{pa("h2-pb", "192.0.2.0", model.AddressPreferred)}, []string{"192.0.2.0", primary.String()}},
		{"somebody else has the first", []model.Resource{pa("h2-pa", primary.String(), model.AddressDuplicate)}, []string{"192.0.2.0"}},
		{"and the device of the second is down", []model.Resource{pa("h2-pb", "192.0.2.0", model.AddressInvalid)}, []string{}},
		{"the first is well again", []model.Resource{pa("h2-pa", primary.String(), model.AddressPreferred)}, nil},
	} {
		deltas := c.Apply(step.puts, nil)
		for h, d := range deltas {
			if len(d.PutRecords)+len(d.DeleteRecords)+len(d.PutPorts) > 0 {
				t.Errorf("%s: %s gets %+v", step.name, h, d)
			}
		}
		for k, r := range c.Goal("h1").Records {
			if p, remote := c.Goal("h2").Ports[r.Port]; remote && r.PA != primary {
				t.Errorf("%s: %s of port %s is at %s, not %s", step.name, k.CA, p.Ref, r.PA, primary)
			}
		}
		var told []string
		for k, p := range c.Goal("h1").Peers {
			if k.PA != primary {
				t.Errorf("%s: a row for %s", step.name, k.PA)
			}
			told = []string{}
			for _, a := range p.List() {
				told = append(told, a.String())
			}
		}
		if !slices.Equal(told, step.usable) || (told == nil) != (step.usable == nil) {
			t.Errorf("%s: h1 is told %q, want %q", step.name, told, step.usable)
		}
	}
}

func TestWhomAResourceConcerns(t *testing.T) {
	c := Full(append(demo(), &model.CustomerRoute{Metadata: meta("red", "out"),
		Spec: model.CustomerRouteSpec{Network: "prod", Prefix: prefix("0.0.0.0/0"), NextHop: addr("10.0.0.5")}},
		&model.ProviderAddress{Metadata: meta("", "h3-pa"), Spec: model.ProviderAddressSpec{Host: "h3", Address: addr("192.0.2.3")}},
		&model.LookupRecord{Metadata: meta("red", "box"), Spec: model.LookupRecordSpec{Subnet: "db", CustomerAddress: addr("10.0.1.9"),
			MAC: model.MAC{2, 9}, ProviderAddress: addr("192.0.2.3")}},
		&model.ProviderRoute{Metadata: meta("", "east"), Spec: model.ProviderRouteSpec{Host: "h2", Prefix: prefix("198.51.100.0/24"), Interface: "eth1"}},
		&model.Host{Metadata: meta("", "h3")}))
	c.Apply([]model.Resource{move(c, "blue", "web-1", ""), move(c, "blue", "web-3", "")}, nil)
	for _, want := range []struct {
		kind         model.Kind
		tenant, name string
		hosts        []string
	}{
		{model.KindTenant, "", "red", nil},
		{model.KindHost, "", "h1", []string{"h1"}},
		{model.KindVirtualNetwork, "red", "prod", []string{"h1", "h2"}},
		{model.KindVirtualNetwork, "blue", "prod", []string{"h2"}},
		{model.KindVirtualSubnet, "blue", "web", []string{"h2"}},
		{model.KindPort, "red", "web-1", []string{"h1", "h2"}},
		{model.KindPort, "blue", "web-1", []string{"h2"}},
		{model.KindCustomerRoute, "red", "out", []string{"h1", "h2"}},
		{model.KindLookupRecord, "red", "box", []string{"h1", "h2"}},
		{model.KindProviderAddress, "", "h1-pa", []string{"h1", "h2"}},
		{model.KindProviderRoute, "", "east", []string{"h2"}},
		{model.KindProviderAddress, "", "h3-pa", []string{"h1", "h2", "h3"}},
		{model.KindPort, "red", "no-such", nil},
	} {
		key := model.Key{Kind: want.kind, Ref: model.Ref{Tenant: want.tenant, Name: want.name}}
		if got := c.Concern(key); !slices.Equal(got, want.hosts) {
			t.Errorf("%s concerns %v, not %v", key, got, want.hosts)
		}
	}
}

func TestTheBestRouteOfAPrefixWins(t *testing.T) {
	c := Full(demo())
	route := func(name, to, via string, metric uint32) *model.CustomerRoute {
		return &model.CustomerRoute{Metadata: meta("red", name), Spec: model.CustomerRouteSpec{Network: "prod", Prefix: prefix(to), NextHop: addr(via), Metric: metric}}
	}
	holds := func(to string, want goal.Route) {
		t.Helper()
		got, ok := c.Goal("h1").Routes[goal.RouteKey{Network: 1, Prefix: prefix(to)}]
		if got != want || ok != (want != goal.Route{}) {
			t.Errorf("%s leads to %+v, not %+v", to, got, want)
		}
	}
	c.Apply([]model.Resource{route("a", "0.0.0.0/0", "10.0.0.5", 20)}, nil)
	holds("0.0.0.0/0", goal.Route{VSID: 5001, NextHop: addr("10.0.0.5")})
	c.Apply([]model.Resource{route("z", "0.0.0.0/0", "10.0.1.5", 10)}, nil)
	holds("0.0.0.0/0", goal.Route{VSID: 5002, NextHop: addr("10.0.1.5")})
	c.Apply([]model.Resource{route("m", "0.0.0.0/0", "10.0.0.6", 10)}, nil)
	holds("0.0.0.0/0", goal.Route{VSID: 5001, NextHop: addr("10.0.0.6")})
	c.Apply(nil, []model.Key{model.KeyOf(route("m", "0.0.0.0/0", "10.0.0.6", 10)), model.KeyOf(route("z", "0.0.0.0/0", "10.0.1.5", 10))})
	holds("0.0.0.0/0", goal.Route{VSID: 5001, NextHop: addr("10.0.0.5")})

	c.Apply([]model.Resource{route("b", "10.0.1.0/24", "10.0.0.5", 0), route("c", "10.9.0.0/16", "172.16.0.1", 0)}, nil)
	holds("10.0.1.0/24", goal.Route{VSID: 5002})
	holds("10.9.0.0/16", goal.Route{})
}

func TestRowsThatNoGoalMayContainAreLeftOut(t *testing.T) {
	c := Full(demo())
	before := c.Goal("h2")
	bad := move(c, "red", "web-1", "h1")
	bad.Metadata.Name, bad.ID, bad.Spec.MAC, bad.Spec.Addresses = "bad", 99, model.MAC{1}, []netip.Addr{addr("10.0.0.99")}
	if deltas := c.Apply([]model.Resource{bad}, nil); len(deltas) != 0 || !c.Goal("h2").Equal(before) {
		t.Fatalf("a port with a group MAC gives %v", deltas)
	}
}

func trust(s model.Settings) goal.Trust {
	return goal.Trust{Forward: s.Forwarding, DHCP: !s.DHCPGuard, Router: !s.RouterGuard, Allowed: len(s.AllowedAddresses) > 0}
}
