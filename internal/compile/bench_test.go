package compile

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
)

// fleet has networks of two subnets and perNetwork dual-stack ports each; port
// i of a network is on the next host.
func fleet(hosts, networks, perNetwork int) []model.Resource {
	var out []model.Resource
	for h := range hosts {
		out = append(out, &model.ProviderAddress{Metadata: meta("", fmt.Sprint("pa", h)), Spec: model.ProviderAddressSpec{
			Host: fmt.Sprint("h", h), Address: netip.AddrFrom4([4]byte{198, 18, byte(h >> 8), byte(h)})}})
	}
	id := 0
	for n := range networks {
		tenant := fmt.Sprint("t", n)
		out = append(out, &model.VirtualNetwork{Metadata: meta(tenant, "prod"), Index: model.NetworkIndex(n + 1)})
		for s := range 2 {
			out = append(out, &model.VirtualSubnet{Metadata: meta(tenant, fmt.Sprint("s", s)), Spec: model.VirtualSubnetSpec{
				Network: "prod", VSID: model.VSID(5001 + 2*n + s),
				Prefixes: []netip.Prefix{prefix(fmt.Sprintf("10.%d.0.0/16", s)), prefix(fmt.Sprintf("fd00:%d::/64", s))},
				Gateway:  []netip.Addr{addr(fmt.Sprintf("10.%d.0.1", s)), addr(fmt.Sprintf("fd00:%d::1", s))}}})
		}
		for p := range perNetwork {
			id++
			s, low := byte(p%2), [2]byte{byte(p>>8) + 1, byte(p)}
			out = append(out, &model.Port{Metadata: meta(tenant, fmt.Sprint("p", p)), ID: model.PortID(id), Spec: model.PortSpec{
				Subnet: fmt.Sprint("s", s), MAC: model.MAC{2, 0, byte(id >> 16), byte(id >> 8), byte(id)}, Host: fmt.Sprint("h", (n*perNetwork+p)%hosts),
				Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, s, low[0], low[1]}), netip.AddrFrom16([16]byte{0xfd, 0, 0, s, 14: low[0], 15: low[1]})}}})
		}
	}
	return out
}

func BenchmarkFull100kPortsOn1000Hosts(b *testing.B) {
	resources := fleet(1000, 1000, 100)
	for b.Loop() {
		Full(resources)
	}
}

// One port moves to and fro in a network that is on `hosts` hosts.
func BenchmarkOnePortInANetworkOnHosts(b *testing.B) {
	for _, hosts := range []int{10, 100, 1000} {
		b.Run(fmt.Sprint(hosts), func(b *testing.B) {
			c := Full(fleet(hosts, 10, 2000))
			there, back := move(c, "t1", "p7", "h1"), move(c, "t1", "p7", "h2")
			c.Apply([]model.Resource{back}, nil)
			for i := 0; b.Loop(); i++ {
				puts := []model.Resource{there}
				if i%2 == 1 {
					puts[0] = back
				}
				if n := len(c.Apply(puts, nil)); n != hosts {
					b.Fatalf("%d hosts changed", n)
				}
			}
		})
	}
}

func BenchmarkGoalOf10kRecords(b *testing.B) {
	c := Full(fleet(100, 100, 100))
	for b.Loop() {
		if n := len(c.Goal("h1").Records); n < 10000 {
			b.Fatal(n)
		}
	}
}
