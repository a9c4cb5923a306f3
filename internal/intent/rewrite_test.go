package intent

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
)

func pooled(name string, prefixes ...string) *model.Host {
	h := host(name)
	for _, p := range prefixes {
		h.Spec.RewritePrefixes = append(h.Spec.RewritePrefixes, prefixOrNone(p))
	}
	return h
}

func rewritten(s *model.VirtualSubnet) *model.VirtualSubnet {
	s.Spec.Transport = model.TransportRewrite
	return s
}

func on(host string, p *model.Port) *model.Port {
	p.Spec.Host = host
	return p
}

// rewriteWorld is a rewrite subnet of both families and two hosts with pools.
func rewriteWorld(t *testing.T) *world {
	return newWorld(t, tenant("red"), pooled("h1", "10.9.1.0/28", "fd00:9:1::/64"), pooled("h2", "10.9.2.0/28", "fd00:9:2::/64"), host("h3"),
		network("red", "prod"), rewritten(subnet("red", "web", 5001, "10.0.0.0/24", "fd00:a::/64")))
}

func (w *world) given(name string) []netip.Addr { return w.port(name).RewriteAddresses }

func (w *world) refused(want string, puts []model.Resource, deletes ...model.Key) {
	w.t.Helper()
	_, v := w.try(puts, deletes...)
	if !slices.ContainsFunc(v, func(v Violation) bool { return strings.Contains(v.String(), want) }) {
		w.t.Fatalf("violations %v, want one with %q", v, want)
	}
}

func TestEachAddressIsGivenOneOfItsHost(t *testing.T) {
	w := rewriteWorld(t)
	w.apply(on("h1", port("red", "web-1", "web", "10.0.0.5", "fd00:a::5", "10.0.0.6")))
	got := w.given("web-1")
	if len(got) != 3 || !got[0].Is4() || !got[1].Is6() || !got[2].Is4() || got[0] == got[2] {
		t.Fatalf("given %v: want IPv4, IPv6, IPv4, all different", got)
	}
	for _, pa := range got {
		if !pooled("h1", "10.9.1.0/28", "fd00:9:1::/64").HasRewrite(pa) {
			t.Errorf("%s is not of h1", pa)
		}
	}
	if p, ca, ok := w.state.PortOfRewrite(got[1]); !ok || p.Metadata.Name != "web-1" || ca != addrOf("fd00:a::5") {
		t.Errorf("%s stands for %s of %v", got[1], ca, p)
	}
	if n := w.state.RewritesInUse("h1"); n != 3 {
		t.Errorf("%d in use on h1, want 3", n)
	}
}

func TestAnAddressStaysAsLongAsThePortDoes(t *testing.T) {
	w := rewriteWorld(t)
	w.apply(on("h1", port("red", "a", "web", "10.0.0.5")), on("h1", port("red", "b", "web", "10.0.0.6")))
	a, b := w.given("a")[0], w.given("b")[0]
	w.change(nil, portKey("red", "a"))
	w.apply(on("h1", port("red", "b", "web", "10.0.0.7", "10.0.0.6")))
	if got := w.given("b"); got[1] != b || got[0] == b {
		t.Errorf("b: %v, want its 10.0.0.6 to keep %s", got, b)
	}
	w.apply(on("h1", port("red", "z", "web", "10.0.0.20")), on("h1", port("red", "b", "web", "10.0.0.6")))
	if got := w.given("b"); got[0] != b {
		t.Errorf("b: %v, want %s still: what stands before it in a set takes nothing away", got, b)
	}
	w.apply(on("h2", port("red", "b", "web", "10.0.0.6")))
	moved := w.given("b")[0]
	if moved == b || !netip.MustParsePrefix("10.9.2.0/28").Contains(moved) {
		t.Errorf("moved to h2 with %s", moved)
	}
	w.apply(on("h1", port("red", "b", "web", "10.0.0.6")))
	if got := w.given("b")[0]; got != b {
		t.Errorf("back on h1 with %s, had %s: the same port finds the same address", got, b)
	}
	w.apply(on("h1", port("red", "a", "web", "10.0.0.5")))
	if got := w.given("a")[0]; got == a {
		t.Errorf("%s was given out again at once", a)
	}
	w.apply(port("red", "c", "web", "10.0.0.9"))
	if got := w.given("c"); len(got) != 0 {
		t.Errorf("a port on no host has %v", got)
	}
}

func TestTheFirstPlugGivesAnAddressAndTheLastTakesIt(t *testing.T) {
	w := rewriteWorld(t)
	w.apply(port("red", "web-1", "web", "10.0.0.5"))
	ref := model.Ref{Tenant: "red", Name: "web-1"}
	res, v := AdmitBinding(w.state, ref, "h2")
	if len(v) > 0 {
		t.Fatal(v)
	}
	w.store(res)
	if got := w.given("web-1"); len(got) != 1 || !netip.MustParsePrefix("10.9.2.0/28").Contains(got[0]) {
		t.Fatalf("bound to h2 with %v", got)
	}
	if res, v = AdmitUnbinding(w.state, ref, "h2"); len(v) > 0 {
		t.Fatal(v)
	}
	w.store(res)
	if got := w.given("web-1"); len(got) != 0 {
		t.Fatalf("unbound with %v", got)
	}
	if _, v = AdmitBinding(w.state, ref, "h3"); len(v) != 1 || !strings.Contains(v[0].Message, `host "h3" has no IPv4 prefix in spec.rewritePrefixes`) {
		t.Fatalf("bound to a host without a pool: %v", v)
	}
}

func TestATransportChangeTakesThePortsAlong(t *testing.T) {
	w := rewriteWorld(t)
	w.apply(subnet("red", "web", 5001, "10.0.0.0/24", "fd00:a::/64"))
	w.apply(on("h1", port("red", "web-1", "web", "10.0.0.5")), record("red", "far", "web", "10.0.0.9", "02:00:00:00:00:09", "203.0.113.9"))
	if got := w.given("web-1"); len(got) != 0 {
		t.Fatalf("in an NVGRE subnet with %v", got)
	}
	w.apply(rewritten(subnet("red", "web", 5001, "10.0.0.0/24", "fd00:a::/64")))
	if got := w.given("web-1"); len(got) != 1 {
		t.Fatalf("in a rewrite subnet with %v", got)
	}
	w.refused("is already an address of LookupRecord red/far", []model.Resource{record("red", "other", "web", "10.0.0.10", "02:00:00:00:00:0a", "203.0.113.9")})
	w.apply(subnet("red", "web", 5001, "10.0.0.0/24", "fd00:a::/64"))
	if got := w.given("web-1"); len(got) != 0 {
		t.Fatalf("back in an NVGRE subnet with %v", got)
	}
	w.apply(record("red", "other", "web", "10.0.0.10", "02:00:00:00:00:0a", "203.0.113.9"))
}

func TestPoolsAreRefused(t *testing.T) {
	w := rewriteWorld(t)
	w.apply(pa("h1-pa", "h1", "192.0.2.1"), on("h1", port("red", "web-1", "web", "10.0.0.5")))
	hosts := func(h *model.Host) []model.Resource { return []model.Resource{h} }
	w.refused("overlaps 10.9.2.0/28 of Host h2", hosts(pooled("h3", "10.9.0.0/16")))
	w.refused("overlaps 10.9.3.0/24, which stands before it", hosts(pooled("h3", "10.9.3.0/24", "10.9.3.0/28")))
	w.refused("write 10.9.3.0/24", hosts(pooled("h3", "10.9.3.7/24")))
	w.refused("which is not for hosts", hosts(pooled("h3", "224.0.0.0/8")))
	w.refused("contains 192.0.2.1, which is ProviderAddress h1-pa", hosts(pooled("h3", "192.0.2.0/24")))
	w.refused("is in spec.rewritePrefixes of Host h1", []model.Resource{pa("h2-pa", "h2", "10.9.1.3")})
	w.refused("is in spec.rewritePrefixes of Host h1", []model.Resource{record("red", "far", "web", "10.0.0.9", "02:00:00:00:00:09", "10.9.1.9")})
	w.refused("not of the family", []model.Resource{record("red", "far", "web", "fd00:a::9", "02:00:00:00:00:09", "203.0.113.9")})
	w.refused("is already an address of ProviderAddress h1-pa of host \"h1\"", []model.Resource{record("red", "far", "web", "10.0.0.9", "02:00:00:00:00:09", "192.0.2.1")})
	w.refused("no longer holds the addresses of Port red/web-1", hosts(pooled("h1", "fd00:9:1::/64")))
	w.refused(`host "h3" has no IPv4 prefix`, []model.Resource{on("h3", port("red", "web-2", "web", "10.0.0.6"))})
	w.refused("does not go with transport rewrite", []model.Resource{with(port("red", "web-3", "web"), func(p *model.Port) { p.Spec.DynamicAddressLimit = new(uint32(2)) })})
	w.apply(pooled("h1", "10.9.1.0/28", "10.9.4.0/24"))
	w.apply(pooled("h1", "10.9.4.0/24"), on("h1", port("red", "web-1", "web", "10.0.0.5"))) // with its port, which is given another
	if got := w.given("web-1")[0]; !netip.MustParsePrefix("10.9.4.0/24").Contains(got) {
		t.Errorf("given %s", got)
	}
}

func TestAnEmptyPoolNamesItself(t *testing.T) {
	w := rewriteWorld(t)
	w.apply(pooled("h1", "10.9.1.0/29"))
	for i := range 6 { // eight but for the network and the broadcast address
		w.apply(on("h1", port("red", "p"+string(rune('a'+i)), "web", netip.AddrFrom4([4]byte{10, 0, 0, byte(10 + i)}).String())))
	}
	w.refused(`none is free in the IPv4 prefixes 10.9.1.0/29 of host "h1"`, []model.Resource{on("h1", port("red", "one-more", "web", "10.0.0.50"))})
	w.change(nil, portKey("red", "pa"))
	w.apply(on("h1", port("red", "one-more", "web", "10.0.0.50")))
}

// A network that rewrites one family needs no Provider Addresses of the other; a change takes ports and records along.
func TestOneFamilyIsRewritten(t *testing.T) {
	w := rewriteWorld(t)
	only := func(f ...model.Family) model.Resource {
		return with(network("red", "prod"), func(n *model.VirtualNetwork) { n.Spec.RewriteFamilies = f })
	}
	w.apply(pooled("h3", "10.9.3.0/28"))
	both := []model.Resource{on("h3", port("red", "web-3", "web", "10.0.0.7", "fd00:a::7"))}
	w.refused(`host "h3" has no IPv6 prefix in spec.rewritePrefixes; add one that the underlay leads to that host, or in the spec of the network set rewriteOver to the family that all hosts have, or leave ipv6 out of rewriteFamilies`, both)
	w.apply(only(model.IPv4))
	w.apply(both...)
	w.apply(on("h1", port("red", "web-1", "web", "10.0.0.5", "fd00:a::5")), record("red", "far", "web", "fd00:a::9", "02:00:00:00:00:09", "192.0.2.9"))
	for _, name := range []string{"web-1", "web-3"} {
		if got := w.given(name); len(got) != 2 || !got[0].Is4() || got[1].IsValid() {
			t.Errorf("%s was given %v, want one of IPv4 alone", name, got)
		}
	}
	if n := w.state.RewritesInUse("h1"); n != 1 {
		t.Errorf("%d in use on h1, want 1", n)
	}
	w.refused("web-3", []model.Resource{only()}) // there is no IPv6 on h3
	w.change(nil, portKey("red", "web-3"))
	w.refused("family", []model.Resource{only(model.IPv6, model.IPv4), record("red", "far", "web", "fd00:a::9", "02:00:00:00:00:09", "192.0.2.9")})
	w.change(nil, model.Key{Kind: model.KindLookupRecord, Ref: model.Ref{Tenant: "red", Name: "far"}})
	kept := w.given("web-1")[0]
	w.apply(only())
	if got := w.given("web-1"); got[0] != kept || !got[1].Is6() {
		t.Errorf("given %v, want %s still and one of IPv6", got, kept)
	}
	w.apply(only(model.IPv6))
	if got := w.given("web-1"); got[0].IsValid() || !got[1].Is6() {
		t.Errorf("given %v, want one of IPv6 alone", got)
	}
}

// A network may have all its addresses rewritten over one family, whichever prefixes of the other hosts have; a change takes
// ports and records along.
func TestOneFamilyIsRewrittenOver(t *testing.T) {
	w := rewriteWorld(t)
	over := func(f model.Family) model.Resource {
		return with(network("red", "prod"), func(n *model.VirtualNetwork) { n.Spec.RewriteOver = f })
	}
	w.apply(on("h1", port("red", "web-1", "web", "10.0.0.5", "fd00:a::5")))
	kept := w.given("web-1")
	w.apply(over(model.IPv6))
	if got := w.given("web-1"); !got[0].Is6() || got[1] != kept[1] || got[0] == got[1] {
		t.Errorf("given %v, want two of IPv6, and %s still", got, kept[1])
	}
	w.apply(record("red", "far", "web", "10.0.0.9", "02:00:00:00:00:09", "2001:db8:77::9"))
	w.refused("192.0.2.9 is not of the family ipv6", []model.Resource{record("red", "far", "web", "10.0.0.9", "02:00:00:00:00:09", "192.0.2.9")})
	w.refused("2001:db8:77::9 is not of the family ipv4", []model.Resource{over("")})
	w.change(nil, model.Key{Kind: model.KindLookupRecord, Ref: model.Ref{Tenant: "red", Name: "far"}})
	w.apply(over(model.IPv4))
	if got := w.given("web-1"); !got[0].Is4() || !got[1].Is4() || got[0] == got[1] {
		t.Errorf("given %v, want two of IPv4", got)
	}
	w.apply(over(""))
	if got := w.given("web-1"); !got[0].Is4() || !got[1].Is6() {
		t.Errorf("given %v, want one of each", got)
	}
}
