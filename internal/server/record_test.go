package server

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/compile"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
)

// A host's facts may add to policy; they must not write over what is there, whatever
// names its resources have, and an address said twice is one.
func TestFactsWriteOverNothing(t *testing.T) {
	pa := func(name, host, addr string) model.Resource {
		return &model.ProviderAddress{Metadata: model.Metadata{Name: name}, Spec: model.ProviderAddressSpec{Host: host, Address: netip.MustParseAddr(addr)}}
	}
	host := func(name string) model.Resource { return &model.Host{Metadata: model.Metadata{Name: name}} }
	st := intent.NewState()
	res, violations := intent.Admit(st, []model.Resource{host("h1"), host("h2"),
		pa("h1-192-0-2-1", "h2", "192.0.2.50"), pa("pa-192-0-2-1", "h2", "192.0.2.51")}, nil, allocator())
	if len(violations) > 0 {
		t.Fatal(violations)
	}
	st.Apply(res.Puts, nil, res.Cursors, 1)
	said := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("192.0.2.9")}
	puts, deletes, problems := reconcilePAs(st, "h1", said)
	if len(puts) != 1 || puts[0].Meta().Name != "h1-192-0-2-9" || len(deletes) != 0 || len(problems) != 1 || !strings.Contains(problems[0], "192.0.2.1") {
		t.Errorf("puts %v, deletes %v, problems %q", puts, deletes, problems)
	}
	if _, violations := intent.Admit(st, puts, deletes, allocator()); len(violations) > 0 {
		t.Error(violations)
	}
}

// IPv6 addresses have no place in names as they are.
func TestFactsNameIPv6Addresses(t *testing.T) {
	st := intent.NewState()
	res, violations := intent.Admit(st, []model.Resource{&model.Host{Metadata: model.Metadata{Name: "h1"}}}, nil, allocator())
	if len(violations) > 0 {
		t.Fatal(violations)
	}
	st.Apply(res.Puts, nil, res.Cursors, 1)
	said := []netip.Addr{netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8:0:1::"), netip.MustParseAddr("2001:db8:1:2:3:4:5:6")}
	puts, _, problems := reconcilePAs(st, "h1", said)
	if len(puts) != 3 || len(problems) != 0 {
		t.Fatalf("puts %v, problems %q", puts, problems)
	}
	if _, violations := intent.Admit(st, puts, nil, allocator()); len(violations) > 0 {
		t.Error(violations)
	}
}

// What people are shown of a CA must be what the hosts are told, also when a host has
// several Provider Addresses.
func TestRecordsAreShownAsHostsGetThem(t *testing.T) {
	set := []model.Resource{
		&model.Tenant{Metadata: model.Metadata{Name: "red"}},
		&model.Host{Metadata: model.Metadata{Name: "h1"}},
		&model.VirtualNetwork{Metadata: model.Metadata{Tenant: "red", Name: "prod"}},
		&model.VirtualSubnet{Metadata: model.Metadata{Tenant: "red", Name: "web"},
			Spec: model.VirtualSubnetSpec{Network: "prod", Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}},
	}
	for i := range 3 {
		set = append(set, &model.ProviderAddress{Metadata: model.Metadata{Name: fmt.Sprint("pa-", i)},
			Spec: model.ProviderAddressSpec{Host: "h1", Address: netip.AddrFrom4([4]byte{192, 0, 2, byte(9 - i)})}})
	}
	for i := range 12 {
		set = append(set, &model.Port{Metadata: model.Metadata{Tenant: "red", Name: fmt.Sprint("p", i)}, Spec: model.PortSpec{Subnet: "web", Host: "h1"}})
	}
	st := intent.NewState()
	res, violations := intent.Admit(st, set, nil, allocator())
	if len(violations) > 0 {
		t.Fatal(violations)
	}
	st.Apply(res.Puts, nil, res.Cursors, 1)
	g := compile.Full(st.All()).Goal("h1")
	used := map[netip.Addr]bool{}
	for _, l := range st.AllDerived("") {
		s, _ := st.Get(model.Key{Kind: model.KindVirtualSubnet, Ref: model.Ref{Tenant: "red", Name: "web"}})
		vsid, ca := s.(*model.VirtualSubnet).Spec.VSID, l.Spec.CustomerAddress
		got, ok := g.Records[goal.RecordKey{VSID: vsid, CA: ca}]
		if !ok || got.PA != l.Spec.ProviderAddress || got.MAC != l.Spec.MAC {
			t.Errorf("%s: shown %+v, sent %+v", l.Metadata.Name, l.Spec, got)
		}
		found, err := lookup(st, vsid, ca)
		if err != nil || (got.PA.IsValid() && found.Pa != got.PA.String()) {
			t.Errorf("lookup of %s: %v, %v; sent %+v", ca, found, err, got)
		}
		used[got.PA] = got.PA.IsValid()
	}
	if !used[netip.MustParseAddr("192.0.2.7")] || len(used) != 2 { // and the gateway's, that has none
		t.Errorf("records name the host by %v", used)
	}
}
