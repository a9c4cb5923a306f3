package intent

import (
	"net/netip"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
)

func external(name string, interfaces ...model.ExternalInterface) *model.ExternalNetwork {
	return &model.ExternalNetwork{Metadata: meta("", name), Spec: model.ExternalNetworkSpec{Interfaces: interfaces, Tenants: []string{"red"}}}
}

func onVLAN(name string, v model.VLAN, change ...func(*model.Port)) *model.Port {
	v.Network = "lan"
	p := &model.Port{Metadata: meta("red", name)}
	p.Spec.VLAN = &v
	for _, c := range change {
		c(p)
	}
	return p
}

func private(mode model.IsolationMode, primary, secondary uint16, secondaries ...uint16) model.VLAN {
	return model.VLAN{Mode: model.VLANPrivate, Private: &model.PrivateVLAN{Mode: mode, Primary: primary, Secondary: secondary, Secondaries: secondaries}}
}

func access(id uint16) model.VLAN { return model.VLAN{Mode: model.VLANAccess, ID: id} }

func TestPortsOnVLANs(t *testing.T) {
	const isolated, community, promiscuous = model.IsolationIsolated, model.IsolationCommunity, model.IsolationPromiscuous
	w := newWorld(t, append(base(), external("lan", model.ExternalInterface{Interface: "eth1"}), profile("red", "trunks", model.PortSettings{
		VLAN: &model.VLAN{Network: "lan", Mode: model.VLANTrunk, Native: 7}}))...)
	w.apply(onVLAN("a", access(10)), onVLAN("t", model.VLAN{Mode: model.VLANTrunk, Allowed: []model.Range{{First: 1, Last: 4094}}}), onVLAN("u", model.VLAN{Mode: model.VLANUntagged}),
		onVLAN("i", private(isolated, 100, 101)), onVLAN("c", private(community, 100, 102)), onVLAN("p", private(promiscuous, 100, 0, 101, 102, 103)),
		onVLAN("i2", private(isolated, 100, 101)), onVLAN("c3", private(community, 100, 103)),
		with(port("red", "q", ""), func(p *model.Port) { p.Spec.Addresses = nil; p.Spec.Profile = "trunks" }))
	a := w.port("a")
	if a.ID == 0 || a.Spec.MAC.IsZero() || len(a.Spec.Addresses) > 0 {
		t.Errorf("%+v", a)
	}
	for _, c := range []struct {
		says string
		puts []model.Resource
	}{
		{"spec.subnet: does not go with spec.vlan", []model.Resource{onVLAN("x", access(10), func(p *model.Port) { p.Spec.Subnet = "web" })}},
		{"spec.subnet: is required", []model.Resource{&model.Port{Metadata: meta("red", "x")}}},
		{"spec.bandwidth.outbound.weight: does not go with spec.vlan", []model.Resource{onVLAN("x", access(10), func(p *model.Port) {
			p.Spec.Bandwidth = &model.Bandwidth{Outbound: model.BandwidthLimit{Maximum: 8_000_000, Weight: 10}}
		})}},
		{"spec.isolation: does not go with spec.vlan", []model.Resource{onVLAN("x", access(10), func(p *model.Port) { p.Spec.Isolation = &model.Isolation{Mode: isolated} })}},
		{"spec.vlan.network: guests is not for tenant red", []model.Resource{with(external("guests", model.ExternalInterface{Interface: "eth2"}), func(n *model.ExternalNetwork) { n.Spec.Tenants = nil }),
			onVLAN("x", access(10), func(p *model.Port) { p.Spec.VLAN.Network = "guests" })}},
		{"spec.vlan.network: guests is not for tenant red", []model.Resource{with(external("guests", model.ExternalInterface{Interface: "eth2"}), func(n *model.ExternalNetwork) { n.Spec.Tenants = nil }),
			profile("red", "guests", model.PortSettings{VLAN: &model.VLAN{Network: "guests", Mode: model.VLANAccess, ID: 10}})}},
		{"spec.tenants: leaves out \"red\", of whom Port", []model.Resource{with(external("lan", model.ExternalInterface{Interface: "eth1"}), func(n *model.ExternalNetwork) { n.Spec.Tenants = nil })}},
		{"spec.tenants[0]: Tenant nobody does not exist", []model.Resource{with(external("lan", model.ExternalInterface{Interface: "eth1"}), func(n *model.ExternalNetwork) { n.Spec.Tenants = []string{"nobody", "*"} })}},
		{"spec.tenants[1]: \"red\" is listed twice", []model.Resource{with(external("lan", model.ExternalInterface{Interface: "eth1"}), func(n *model.ExternalNetwork) { n.Spec.Tenants = []string{"red", "red"} })}},
		{"spec.addresses[0]: 127.0.0.1 is inside", []model.Resource{onVLAN("x", access(10), func(p *model.Port) { p.Spec.Addresses = []netip.Addr{netip.MustParseAddr("127.0.0.1")} })}},
		{"spec.addresses[1]: 10.1.0.5 is listed twice", []model.Resource{onVLAN("x", access(10), func(p *model.Port) {
			p.Spec.Addresses = []netip.Addr{netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("10.1.0.5")}
		})}},
		{"spec.vlan.private.secondary: VLAN 101 is the isolated VLAN of primary 100 already", []model.Resource{onVLAN("x", private(isolated, 100, 109))}},
		{"spec.vlan.private.secondary: VLAN 101 is the isolated VLAN of primary 100 on", []model.Resource{onVLAN("x", private(community, 100, 101))}},
		{"spec.vlan.private.secondary: VLAN 102 is the community VLAN of primary 100 on", []model.Resource{onVLAN("x", private(community, 200, 102))}},
		{"spec.vlan.private.secondary: VLAN 10 is a VLAN of kind access", []model.Resource{onVLAN("x", private(community, 100, 10))}},
		{"spec.vlan.private.primary: VLAN 10 is a VLAN of kind access", []model.Resource{onVLAN("x", private(community, 10, 110))}},
		{"spec.vlan.id: VLAN 100 is a VLAN of kind primary", []model.Resource{onVLAN("x", access(100))}},
		{"spec.vlan.id: VLAN 101 is the isolated VLAN", []model.Resource{onVLAN("x", access(101))}},
		{"spec.vlan.private.secondary: VLAN 202 is the isolated VLAN of primary 200 already", []model.Resource{onVLAN("x", private(isolated, 200, 202)), onVLAN("y", private(isolated, 200, 203))}},
		{"spec.mac: " + a.Spec.MAC.String() + " is already that of Port red/a", []model.Resource{onVLAN("x", access(20), func(p *model.Port) { p.Spec.MAC = a.Spec.MAC })}},
		{"spec.vlan.network: ExternalNetwork wan does not exist", []model.Resource{onVLAN("x", access(20), func(p *model.Port) { p.Spec.VLAN.Network = "wan" })}},
		{"spec.interfaces: has 0 entries", []model.Resource{external("dmz")}},
		{"spec.interfaces[0].interface: is required", []model.Resource{external("dmz", model.ExternalInterface{Hosts: []string{"h1"}})}},
		{"spec.interfaces[0].interface: \"a/b\" cannot be", []model.Resource{external("dmz", model.ExternalInterface{Interface: "a/b"})}},
		{"spec.vlan.network: cannot change", []model.Resource{profile("red", "trunks", model.PortSettings{})}},
	} {
		w.refused(c.says, c.puts)
	}
	// Addresses are what the guest is held to, and go when they are not said any more.
	w.apply(onVLAN("a", access(10), func(p *model.Port) { p.Spec.Addresses = []netip.Addr{netip.MustParseAddr("10.1.0.5")} }))
	w.apply(onVLAN("a", access(10)))
	if a := w.port("a"); len(a.Spec.Addresses) > 0 {
		t.Errorf("it still has %s", a.Spec.Addresses)
	}
	w.refused("ExternalNetwork lan: is still used by", nil, externalKey("lan"))
	// What nobody uses any more is free again.
	w.change([]model.Resource{onVLAN("x", access(101))}, portKey("red", "i"), portKey("red", "i2"), portKey("red", "p"))
}
