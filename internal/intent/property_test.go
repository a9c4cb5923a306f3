package intent

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weft-sdn/weft/internal/model"
)

// Random sets over few names and addresses, so that they collide all the time.
var (
	genTenant = rapid.SampledFrom([]string{"red", "blue"})
	genName   = rapid.SampledFrom([]string{"a", "a", "a", "b", "c"})
	genPrefix = rapid.SampledFrom([]string{"10.0.0.0/24", "10.0.0.0/28", "10.0.1.0/29", "10.0.0.0/16", "fd00:a::/64", "fd00:a::/120", "10.0.0.1/24", "224.0.0.0/8"})
	genCA     = rapid.SampledFrom([]string{"10.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.9", "10.0.0.15", "10.0.1.2", "10.0.1.7", "fd00:a::1", "fd00:a::2", "fd00:a::3"})
	genMAC    = rapid.SampledFrom([]model.MAC{{}, {}, {}, {}, {2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}, {3, 0, 0, 0, 0, 1}, model.RouterMAC(4096)})
	genKinds  = append(slices.Clone(model.Kinds), model.KindPort, model.KindPort, model.KindVirtualSubnet, model.KindCustomerRoute, model.KindLookupRecord)
	genHost   = rapid.SampledFrom([]string{"", "h1", "h2"})
)

func genResource(t *rapid.T) model.Resource {
	tn, n := genTenant.Draw(t, "tenant"), genName.Draw(t, "name")
	switch rapid.SampledFrom(genKinds).Draw(t, "kind") {
	case model.KindTenant:
		return tenant(tn)
	case model.KindHost:
		h := rapid.SampledFrom([]string{"h1", "h2"}).Draw(t, "host")
		return pooled(h, rapid.SampledFrom([][]string{{}, {"10.9.0.0/29", "fd00:9::/64"}, {"10.9." + h[1:] + ".0/29"}, {"10.9." + h[1:] + ".0/24", "fd00:9:" + h[1:] + "::/64"}}).Draw(t, "pool")...)
	case model.KindProviderAddress:
		return pa(n, genHost.Draw(t, "host"), rapid.SampledFrom([]string{"192.0.2.1", "192.0.2.2", "127.0.0.1"}).Draw(t, "pa"))
	case model.KindProviderRoute:
		return &model.ProviderRoute{Metadata: meta("", n), Spec: model.ProviderRouteSpec{Host: genHost.Draw(t, "host"), Metric: 1,
			Prefix: netip.MustParsePrefix("198.51.100.0/24"), NextHop: netip.MustParseAddr(rapid.SampledFrom([]string{"192.0.2.1", "fd00::1"}).Draw(t, "hop"))}}
	case model.KindVirtualNetwork:
		v := network(tn, n)
		v.Spec.RewriteFamilies = rapid.SampledFrom([][]model.Family{nil, {model.IPv4}, {model.IPv6}}).Draw(t, "families")
		v.Spec.RewriteOver = rapid.SampledFrom([]model.Family{"", "", model.IPv4, model.IPv6}).Draw(t, "over")
		return v
	case model.KindVirtualSubnet:
		s := subnet(tn, n, rapid.SampledFrom([]model.VSID{0, 0, 5000, 5001, 4095}).Draw(t, "vsid"), rapid.SliceOfN(genPrefix, 1, 2).Draw(t, "prefixes")...)
		s.Spec.Network = genName.Draw(t, "network")
		s.Spec.Flood = rapid.SampledFrom([]model.Flood{"", model.FloodL2}).Draw(t, "flood")
		s.Spec.Transport = rapid.SampledFrom([]model.Transport{"", "", model.TransportNVGRE, model.TransportRewrite}).Draw(t, "transport")
		if rapid.Bool().Draw(t, "has gateway") {
			gateways(s, genCA.Draw(t, "gateway"))
		}
		return s
	case model.KindAddressGroup:
		g := &model.AddressGroup{Metadata: meta(tn, n)}
		g.Spec.Groups = rapid.SliceOfN(genName, 0, 2).Draw(t, "groups")
		return g
	case model.KindAccessList:
		l := &model.AccessList{Metadata: meta(tn, n)}
		for range rapid.IntRange(0, 2).Draw(t, "rules") {
			r := rule(rapid.SampledFrom([]model.RuleAction{model.ActionAllow, model.ActionPass}).Draw(t, "action"))
			r.Remote.Groups = rapid.SliceOfN(genName, 0, 2).Draw(t, "groups")
			l.Spec.Rules = append(l.Spec.Rules, r)
		}
		return l
	case model.KindExternalNetwork:
		return &model.ExternalNetwork{Metadata: meta("", n), Spec: model.ExternalNetworkSpec{Tenants: []string{model.AnyTenant}, Interfaces: []model.ExternalInterface{{Interface: "eth1"}}}}
	case model.KindPortProfile:
		p := &model.PortProfile{Metadata: meta(tn, n)}
		p.Spec.AccessLists = rapid.SliceOfN(genName, 0, 1).Draw(t, "lists")
		if limit := rapid.SampledFrom([]uint32{0, 1, 2, 99}).Draw(t, "limit"); limit != 99 {
			p.Spec.DynamicAddressLimit = &limit
		}
		return p
	case model.KindPort:
		p := port(tn, n, genName.Draw(t, "subnet"), rapid.SliceOfN(genCA, 0, rapid.SampledFrom([]int{0, 1, 1, 2}).Draw(t, "n")).Draw(t, "cas")...)
		if limit := rapid.SampledFrom([]uint32{0, 0, 1, 2, 99}).Draw(t, "limit"); limit != 99 {
			p.Spec.DynamicAddressLimit = &limit
		}
		p.Spec.Profile = rapid.SampledFrom([]string{"", "", "a", "b"}).Draw(t, "profile")
		p.Spec.MAC, p.Spec.Host = genMAC.Draw(t, "mac"), genHost.Draw(t, "host")
		return p
	case model.KindCustomerRoute:
		r := route(tn, n, rapid.SampledFrom([]string{"0.0.0.0/0", "10.0.0.0/24", "172.16.0.0/12"}).Draw(t, "prefix"), genCA.Draw(t, "hop"), rapid.Uint32Range(0, 1).Draw(t, "metric"))
		r.Spec.Network = genName.Draw(t, "network")
		return r
	}
	if rapid.IntRange(0, 2).Draw(t, "wildcard") == 0 {
		return wildcard(tn, n, genName.Draw(t, "subnet"), rapid.SampledFrom([]string{"0.0.0.0", "::"}).Draw(t, "family"), genName.Draw(t, "port"))
	}
	return record(tn, n, genName.Draw(t, "subnet"), genCA.Draw(t, "ca"), genMAC.Draw(t, "mac").String(), "192.0.2.9")
}

func TestWhateverIsAdmittedKeepsEveryInvariant(t *testing.T) {
	tried, admitted := 0, map[model.Kind]int{}
	rapid.Check(t, func(rt *rapid.T) {
		set := []model.Resource{tenant("red"), tenant("blue"), host("h1"), host("h2")}
		for _, tn := range []string{"red", "blue"} {
			s := subnet(tn, "a", 0, "10.0.0.0/24", "fd00:a::/64")
			s.Spec.Network = "a"
			set = append(set, network(tn, "a"), network(tn, "b"), s)
		}
		w := newWorld(t, set...)
		for range rapid.IntRange(20, 60).Draw(rt, "sets") {
			tried++
			for _, r := range step(rt, w) {
				admitted[r.Kind()]++
			}
			checkInvariants(rt, w.state)
		}
	})
	if testing.Short() { // that few sets need not hold one of each kind
		return
	}
	// Refusing everything would keep every invariant, too.
	t.Logf("%d sets tried; resources admitted: %v", tried, admitted)
	for _, k := range model.Kinds {
		if admitted[k] == 0 && k != model.KindTenant && !testing.Short() { // a few sets may miss a kind
			t.Errorf("no %s was ever admitted", k)
		}
	}
}

// step tries one random set, stores it if it is admitted, and gives what was stored.
func step(rt *rapid.T, w *world) []model.Resource {
	if rapid.IntRange(0, 4).Draw(rt, "bind") == 0 {
		ref := model.Ref{Tenant: genTenant.Draw(rt, "tenant"), Name: genName.Draw(rt, "name")}
		judge := rapid.SampledFrom([]func(*State, model.Ref, string) (*Result, []Violation){AdmitBinding, AdmitUnbinding}).Draw(rt, "which")
		res, v := judge(w.state, ref, genHost.Draw(rt, "host"))
		if len(v) > 0 {
			return nil
		}
		w.store(res)
		return res.Puts
	}
	if rapid.IntRange(0, 3).Draw(rt, "learn") == 0 {
		ref := model.Ref{Tenant: genTenant.Draw(rt, "tenant"), Name: genName.Draw(rt, "name")}
		addrs := func(what string) (out []netip.Addr) {
			for _, a := range rapid.SliceOfN(genCA, 0, 2).Draw(rt, what) {
				out = append(out, addrOf(a))
			}
			return out
		}
		res, _, v := AdmitLearned(w.state, ref, genHost.Draw(rt, "host"), Seen{Used: addrs("used"), Announced: addrs("announced"), Released: addrs("released")})
		if len(v) > 0 {
			return nil
		}
		w.store(res)
		return res.Puts
	}
	puts := rapid.SliceOfN(rapid.Custom(genResource), 1, rapid.SampledFrom([]int{1, 1, 2, 4}).Draw(rt, "size")).Draw(rt, "puts")
	var deletes []model.Key
	if existing := w.state.All(); len(existing) > 0 && rapid.IntRange(0, 3).Draw(rt, "delete") == 0 {
		for _, r := range rapid.SliceOfN(rapid.SampledFrom(existing), 0, 3).Draw(rt, "deletes") {
			deletes = append(deletes, model.KeyOf(r))
		}
	}
	res, v := w.try(puts, deletes...)
	backwards := slices.Clone(puts)
	slices.Reverse(backwards)
	_, rv := w.try(backwards, deletes...)
	if (len(v) == 0) != (len(rv) == 0) {
		rt.Fatalf("the order inside a set decides: %v against %v", v, rv)
	}
	if len(v) > 0 {
		return nil
	}
	w.store(res)
	return res.Puts
}

// checkInvariants is written without any of admission's own indexes.
func checkInvariants(rt *rapid.T, s *State) {
	unique := map[string]model.Key{}
	one := func(what string, k model.Key) {
		if other, ok := unique[what]; ok {
			rt.Fatalf("%s is held by %s and %s", what, other, k)
		}
		unique[what] = k
	}
	must := func(ok bool, k model.Key, what string, args ...any) {
		if !ok {
			rt.Fatalf("%s: %s", k, fmt.Sprintf(what, args...))
		}
	}
	find := func(from, target model.Key) model.Resource {
		r, ok := s.Get(target)
		must(ok, from, "refers to %s, which is not there", target)
		return r
	}
	for _, r := range s.All() {
		k := model.KeyOf(r)
		must(r.Meta().UID != "" && r.Meta().Generation > 0, k, "metadata %+v", *r.Meta())
		if k.Kind.Tenanted() {
			find(k, tenantKey(k.Tenant))
		}
		switch r := r.(type) {
		case *model.ProviderAddress:
			find(k, hostKey(r.Spec.Host))
			must(r.Spec.Address.Is4() && !r.Spec.Address.IsLoopback(), k, "address %s", r.Spec.Address)
			one("PA "+r.Spec.Address.String(), k)
		case *model.ProviderRoute:
			find(k, hostKey(r.Spec.Host))
			must(r.Spec.NextHop.Is4(), k, "next hop %s", r.Spec.NextHop)
		case *model.VirtualNetwork:
			one("RDID "+r.Spec.RDID, k)
			one(fmt.Sprint("network index ", r.Index), k)
			must(r.Index > 0, k, "no index")
		case *model.VirtualSubnet:
			find(k, networkKey(k.Tenant, r.Spec.Network))
			one("VSID "+r.Spec.VSID.String(), k)
			must(r.Spec.VSID.Valid() && len(r.Spec.Prefixes) == len(r.Spec.Gateway), k, "%+v", r.Spec)
			for i, p := range r.Spec.Prefixes {
				must(p == p.Masked() && p.Contains(r.Spec.Gateway[i]) && r.Spec.Gateway[i] != p.Addr(), k, "%+v", r.Spec)
				one(fmt.Sprint("CA ", r.Spec.VSID, r.Spec.Gateway[i]), k)
				for _, o := range s.List(model.KindVirtualSubnet, k.Tenant) {
					other := o.(*model.VirtualSubnet)
					if other == r || other.Spec.Network != r.Spec.Network {
						continue
					}
					for _, q := range other.Spec.Prefixes {
						must(!p.Overlaps(q), k, "%s overlaps %s of %s", p, q, model.KeyOf(o))
					}
				}
			}
		case *model.Port:
			sub := find(k, subnetKey(k.Tenant, r.Spec.Subnet)).(*model.VirtualSubnet)
			one(fmt.Sprint("port id ", r.ID), k)
			must(r.ID > 0 && (len(r.Spec.Addresses) > 0 || s.settings(r).Learns()), k, "%+v", *r)
			must(len(r.Learned) <= int(s.settings(r).DynamicAddressLimit), k, "learned %v", r.Learned)
			must(r.Spec.MAC.IsUnicast() && !r.Spec.MAC.IsRouter(), k, "MAC %s", r.Spec.MAC)
			one(fmt.Sprint("MAC ", k.Tenant, sub.Spec.Network, r.Spec.MAC), k)
			must(r.Spec.Host == "" || r.BoundHost == "", k, "two hosts")
			if r.Host() != "" {
				find(k, hostKey(r.Host()))
			}
			for _, ca := range r.CAs() {
				checkCA(must, k, sub, ca)
				one(fmt.Sprint("CA ", sub.Spec.VSID, ca), k)
			}
			given := 0
			if sub.Spec.Transport == model.TransportRewrite && r.Host() != "" {
				given = len(r.Spec.Addresses)
			}
			home := find(k, networkKey(k.Tenant, sub.Spec.Network)).(*model.VirtualNetwork)
			must(len(r.RewriteAddresses) == given, k, "given %v in a subnet with %s, host %q", r.RewriteAddresses, sub.Spec.Transport, r.Host())
			for i, pa := range r.RewriteAddresses {
				if must(pa.IsValid() == home.Rewrites(r.Spec.Addresses[i]), k, "%s stands for %s, the network rewrites %v", pa, r.Spec.Addresses[i], home.Spec.RewriteFamilies); !pa.IsValid() {
					continue
				}
				one("PA "+pa.String(), k)
				must(model.FamilyOf(pa) == home.RewriteFamily(r.Spec.Addresses[i]) && find(k, hostKey(r.Host())).(*model.Host).HasRewrite(pa), k, "%s stands for %s", pa, r.Spec.Addresses[i])
			}
			if r.Spec.Profile != "" {
				find(k, profileKey(k.Tenant, r.Spec.Profile))
			}
		case *model.PortProfile:
			for _, l := range r.Spec.AccessLists {
				find(k, listKey(k.Tenant, l))
			}
		case *model.AccessList:
			for _, g := range r.Spec.GroupNames() {
				find(k, groupKey(k.Tenant, g))
			}
		case *model.AddressGroup:
			for _, g := range r.Spec.Groups {
				inner := find(k, groupKey(k.Tenant, g)).(*model.AddressGroup)
				must(g != k.Name && !slices.Contains(inner.Spec.Groups, k.Name), k, "is in itself")
			}
		case *model.LookupRecord:
			sub := find(k, subnetKey(k.Tenant, r.Spec.Subnet)).(*model.VirtualSubnet)
			if r.Spec.Type == model.RecordGatewayWildcard {
				p := find(k, portKey(k.Tenant, r.Spec.Port)).(*model.Port)
				must(r.Spec.CustomerAddress.IsUnspecified() && p.Spec.Subnet == r.Spec.Subnet, k, "%+v", r.Spec)
			} else {
				checkCA(must, k, sub, r.Spec.CustomerAddress)
			}
			one(fmt.Sprint("CA ", sub.Spec.VSID, r.Spec.CustomerAddress), k)
			home := find(k, networkKey(k.Tenant, sub.Spec.Network)).(*model.VirtualNetwork)
			must(r.Rewrite == (r.Spec.Type != model.RecordGatewayWildcard && sub.Spec.Transport == model.TransportRewrite && home.Rewrites(r.Spec.CustomerAddress)), k, "rewrite is %v", r.Rewrite)
			if r.Rewrite {
				one("PA "+r.Spec.ProviderAddress.String(), k)
			}
		case *model.CustomerRoute:
			find(k, networkKey(k.Tenant, r.Spec.Network))
			one(fmt.Sprint("route ", k.Tenant, r.Spec.Network, r.Spec.Prefix, r.Spec.Metric), k)
			inside := 0
			for _, o := range s.List(model.KindVirtualSubnet, k.Tenant) {
				sub := o.(*model.VirtualSubnet)
				if sub.Spec.Network != r.Spec.Network {
					continue
				}
				for i, p := range sub.Spec.Prefixes {
					must(p != r.Spec.Prefix, k, "equals an on-link prefix")
					if p.Contains(r.Spec.NextHop) {
						inside++
						must(r.Spec.NextHop != sub.Spec.Gateway[i], k, "next hop is the router")
					}
				}
			}
			must(inside == 1, k, "next hop %s lies in %d subnets", r.Spec.NextHop, inside)
		}
	}
	// The indexes are those of a state that is built anew.
	fresh := NewState()
	fresh.Replace(s.All(), s.Cursors(), s.Revision())
	if !maps.Equal(fresh.claims, s.claims) {
		rt.Fatalf("claims\n%v\nare not those of a fresh state\n%v", s.claims, fresh.claims)
	}
	if !maps.EqualFunc(fresh.children, s.children, func(a, b map[model.Key]struct{}) bool { return maps.Equal(a, b) }) {
		rt.Fatalf("children\n%v\nare not those of a fresh state\n%v", s.children, fresh.children)
	}
	if !maps.EqualFunc(fresh.pas, s.pas, func(a, b []*model.ProviderAddress) bool { return slices.Equal(a, b) }) {
		rt.Fatalf("provider addresses\n%v\nare not those of a fresh state\n%v", s.pas, fresh.pas)
	}
	// What is there can be written again and changes nothing.
	res, v := Admit(s, s.All(), nil, testAllocator())
	if len(v) > 0 {
		rt.Fatalf("what exists is refused: %v", v)
	}
	if len(res.Puts) > 0 {
		rt.Fatalf("what exists is changed: %v", res.Puts[0])
	}
}

func checkCA(must func(bool, model.Key, string, ...any), k model.Key, s *model.VirtualSubnet, ca netip.Addr) {
	inside := slices.ContainsFunc(s.Spec.Prefixes, func(p netip.Prefix) bool { return p.Contains(ca) && p.Addr() != ca })
	must(inside && !slices.Contains(s.Spec.Gateway, ca), k, "CA %s in %v", ca, s.Spec.Prefixes)
}

func TestAHundredThousandPorts(t *testing.T) {
	w := newWorld(t, base()...)
	const subnets, perSubnet = 50, 2000
	began := time.Now()
	for i := range subnets {
		set := []model.Resource{subnet("blue", fmt.Sprintf("s%d", i), 0, fmt.Sprintf("10.%d.0.0/16", i+1))}
		for j := range perSubnet {
			set = append(set, with(port("blue", fmt.Sprintf("p%d-%d", i, j), fmt.Sprintf("s%d", i)), func(p *model.Port) { p.Spec.Host = "h1" }))
		}
		w.apply(set...)
	}
	all := time.Since(began)
	began = time.Now()
	for i := range 100 {
		w.apply(port("blue", fmt.Sprintf("one-%d", i), "s0"))
	}
	t.Logf("%d ports admitted in %v (allocation included); one more takes %v", subnets*perSubnet, all, time.Since(began)/100)
	began = time.Now()
	n := len(w.state.AllDerived(""))
	t.Logf("%d derived records listed in %v", n, time.Since(began))
	if got := w.state.Count(model.KindPort); got != subnets*perSubnet+101 {
		t.Fatalf("%d ports", got)
	}
}
