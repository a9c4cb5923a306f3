package intent

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
)

func profile(t, name string, s model.PortSettings) *model.PortProfile {
	return &model.PortProfile{Metadata: meta(t, name), Spec: model.PortProfileSpec{PortSettings: s}}
}

func withProfile(name string) func(*model.Port) {
	return func(p *model.Port) { p.Spec.Profile = name }
}

func TestWhatAPortSaysBeatsItsProfile(t *testing.T) {
	w := newWorld(t, append(base(), profile("red", "vm", model.PortSettings{AllowSpoofing: new(true), DHCPGuard: new(false), StormLimit: new(uint32(5))}))...)
	w.apply(with(port("red", "p", "web"), func(p *model.Port) {
		p.Spec.Profile, p.Spec.AllowSpoofing = "vm", new(false)
	}))
	s := w.state.settings(w.port("p"))
	if s.AllowSpoofing || s.DHCPGuard || !s.RouterGuard || s.StormLimit != 5 {
		t.Errorf("%+v", s)
	}
	if s := w.state.settings(w.port("web-1")); s.AllowSpoofing || !s.DHCPGuard || !s.RouterGuard {
		t.Errorf("without a profile: %+v", s)
	}
}

// A list that a port says is its own even when it is empty; one that it does not say is its profile's.
func TestAnEmptyListBeatsTheProfile(t *testing.T) {
	lists := model.PortSettings{Mirrors: []model.Mirror{{Destination: "web-1"}}, AccessLists: []string{"in"},
		AllowedAddresses: []model.AllowedAddress{{Prefix: netip.MustParsePrefix("10.9.0.0/16")}}}
	w := newWorld(t, append(base(), &model.AccessList{Metadata: meta("red", "in")}, profile("red", "vm", lists))...)
	w.apply(with(port("red", "p", "web"), withProfile("vm")))
	if s := w.state.settings(w.port("p")); len(s.Mirrors) != 1 || len(s.AccessLists) != 1 || len(s.AllowedAddresses) != 1 {
		t.Fatalf("nothing said: %+v", s)
	}
	p := with(port("red", "p", "web"), func(p *model.Port) {
		p.Spec.Profile = "vm"
		p.Spec.Mirrors, p.Spec.AccessLists, p.Spec.AllowedAddresses = []model.Mirror{}, []string{}, []model.AllowedAddress{}
	})
	if res := w.apply(p); res.Changes[0].Action != Updated {
		t.Errorf("saying that a list is empty is %s", res.Changes[0].Action)
	}
	if s := w.state.settings(w.port("p")); s.Mirrors != nil || s.AccessLists != nil || s.AllowedAddresses != nil {
		t.Errorf("empty: %+v", s)
	}
	if res := w.apply(p); res.Changes[0].Action != Unchanged {
		t.Errorf("saying it again is %s", res.Changes[0].Action)
	}
	if b, err := json.Marshal(w.port("p")); err != nil || !strings.Contains(string(b), `"mirrors":[]`) {
		t.Errorf("stored as %s, %v", b, err)
	}
}

func TestAProfileInUseStays(t *testing.T) {
	w := newWorld(t, append(base(), profile("red", "vm", model.PortSettings{}), with(port("red", "p", "web"), withProfile("vm")))...)
	w.refused("Port red/p", nil, profileKey("red", "vm"))
	w.change(nil, profileKey("red", "vm"), portKey("red", "p"))
	w.refused("PortProfile red/vm does not exist", []model.Resource{with(port("red", "p", "web"), withProfile("vm"))})
}

func TestAProfileThatChangesIsJudgedWithItsPorts(t *testing.T) {
	w := newWorld(t, append(base(), profile("red", "vm", model.PortSettings{DynamicAddressLimit: new(uint32(2))}))...)
	w.apply(with(port("red", "p", "web"), withProfile("vm")))
	if n := len(w.port("p").Spec.Addresses); n != 0 {
		t.Fatalf("%d addresses given to a port that learns", n)
	}
	w.refused("spec.dynamicAddressLimit: must be 0 with spec.allowSpoofing", []model.Resource{
		profile("red", "vm", model.PortSettings{DynamicAddressLimit: new(uint32(2)), AllowSpoofing: new(true)})})
	// A change that means nothing for what is stored of the port writes the profile alone.
	res := w.apply(profile("red", "vm", model.PortSettings{DynamicAddressLimit: new(uint32(2)), DHCPGuard: new(false)}))
	if len(res.Puts) != 1 || len(res.Changes) != 1 || res.Changes[0].Action != Updated {
		t.Errorf("%+v", res.Changes)
	}
	if w.state.settings(w.port("p")).DHCPGuard {
		t.Error("the port still has what the profile said before")
	}
	// Without the limit the port needs an address that somebody chooses.
	w.apply(profile("red", "vm", model.PortSettings{}))
	if n := len(w.port("p").Spec.Addresses); n != 2 {
		t.Errorf("%d addresses", n)
	}
}

func TestSettingsThatMakeNoSense(t *testing.T) {
	w := newWorld(t, append(base(), &model.ExternalNetwork{Metadata: meta("", "lan"), Spec: model.ExternalNetworkSpec{Tenants: []string{"red"}, Interfaces: []model.ExternalInterface{{Interface: "eth1"}}}})...)
	private := func(p model.PrivateVLAN) model.PortSettings {
		return model.PortSettings{VLAN: &model.VLAN{Network: "lan", Mode: model.VLANPrivate, Private: &p}}
	}
	trunk := func(first, last uint16) model.PortSettings {
		return model.PortSettings{VLAN: &model.VLAN{Network: "lan", Mode: model.VLANTrunk, Allowed: []model.Range{{First: first, Last: last}}}}
	}
	out := func(l model.BandwidthLimit) model.PortSettings {
		return model.PortSettings{Bandwidth: &model.Bandwidth{Outbound: l}}
	}
	for want, s := range map[string]model.PortSettings{
		"spec.isolation.community: is required":                      {Isolation: &model.Isolation{Mode: model.IsolationCommunity}},
		"spec.isolation.community: goes with mode community":         {Isolation: &model.Isolation{Community: "a"}},
		`spec.isolation.mode: "alone" is not a mode`:                 {Isolation: &model.Isolation{Mode: "alone"}},
		`spec.isolation.community: "A!" is not a name`:               {Isolation: &model.Isolation{Mode: model.IsolationCommunity, Community: "A!"}},
		`spec.vlan.mode: "" is not a mode`:                           {VLAN: &model.VLAN{Network: "lan"}},
		"spec.vlan.id: is required":                                  {VLAN: &model.VLAN{Network: "lan", Mode: model.VLANAccess}},
		"spec.vlan.id: 4096 is not a VLAN id; use 1 to 4094":         {VLAN: &model.VLAN{Network: "lan", Mode: model.VLANAccess, ID: 4096}},
		"spec.vlan.native: 4095 is not a VLAN id":                    {VLAN: &model.VLAN{Network: "lan", Mode: model.VLANTrunk, Native: 4095}},
		"spec.vlan.id: goes with mode access":                        {VLAN: &model.VLAN{Network: "lan", Mode: model.VLANTrunk, ID: 7}},
		"spec.vlan.allowed[0]: 30-20 is upside down; write 20-30":    trunk(30, 20),
		"spec.vlan.allowed[0]: 4000-4095 has ids that no VLAN has":   trunk(4000, 4095),
		"spec.vlan.private: is required":                             {VLAN: &model.VLAN{Network: "lan", Mode: model.VLANPrivate}},
		"spec.vlan.private.primary: is required":                     private(model.PrivateVLAN{Mode: model.IsolationCommunity, Secondary: 101}),
		"spec.vlan.private.secondary: is required":                   private(model.PrivateVLAN{Mode: model.IsolationIsolated, Primary: 100}),
		"spec.vlan.private.secondary: 100 is the primary's id":       private(model.PrivateVLAN{Mode: model.IsolationIsolated, Primary: 100, Secondary: 100}),
		"spec.vlan.private.secondaries: is required":                 private(model.PrivateVLAN{Mode: model.IsolationPromiscuous, Primary: 100}),
		"spec.vlan.private.secondaries[1]: 101 is the primary, or":   private(model.PrivateVLAN{Mode: model.IsolationPromiscuous, Primary: 100, Secondaries: []uint16{101, 101}}),
		"spec.vlan.private.secondaries[0]: 4096 is not a VLAN id":    private(model.PrivateVLAN{Mode: model.IsolationPromiscuous, Primary: 100, Secondaries: []uint16{4096}}),
		"spec.bandwidth.outbound.maximum: 1001 must be a multiple":   out(model.BandwidthLimit{Maximum: 1001}),
		"spec.bandwidth.outbound.maximum: -8 must be a multiple":     out(model.BandwidthLimit{Maximum: -8}),
		"spec.bandwidth.outbound.minimum: 1600 is more than":         out(model.BandwidthLimit{Maximum: 800, Minimum: 1600}),
		"spec.bandwidth.outbound.weight: does not go with minimum":   out(model.BandwidthLimit{Weight: 5, Minimum: 1600}),
		"spec.bandwidth.outbound.weight: is 101":                     out(model.BandwidthLimit{Weight: 101}),
		"spec.bandwidth.outbound.maximum: 63992 is less than":        out(model.BandwidthLimit{Maximum: 63992}),
		"spec.bandwidth.outbound.minimum: 8000 is less than":         out(model.BandwidthLimit{Minimum: 8000}),
		"spec.bandwidth.inbound.minimum: a minimum is kept where":    {Bandwidth: &model.Bandwidth{Inbound: model.BandwidthLimit{Minimum: 1e6}}},
		"spec.bandwidth.inbound.weight: a minimum is kept where":     {Bandwidth: &model.Bandwidth{Inbound: model.BandwidthLimit{Weight: 1}}},
		"spec.bandwidth.outbound.burst: goes with a maximum":         out(model.BandwidthLimit{Burst: 1500}),
		"spec.allowedAddresses[0].prefix: 10.0.0.1/24 has bits":      {AllowedAddresses: []model.AllowedAddress{{Prefix: netip.MustParsePrefix("10.0.0.1/24")}}},
		"spec.allowedAddresses[0].mac: 01:00:00:00:00:00 is a group": {AllowedAddresses: []model.AllowedAddress{{Prefix: netip.MustParsePrefix("10.0.0.0/24"), MAC: model.MAC{1}}}},
		`spec.mirrors[0].destination: "" is not the name`:            {Mirrors: []model.Mirror{{}}},
		`spec.mirrors[0].direction: "up" is not a direction`:         {Mirrors: []model.Mirror{{Destination: "web-1", Direction: "up"}}},
		"spec.mirrors[0].snapLength: is 3":                           {Mirrors: []model.Mirror{{Destination: "web-1", SnapLength: 3}}},
		"spec.mirrors[0].destination: Port red/m does not exist":     {Mirrors: []model.Mirror{{Destination: "m"}}},
		`spec.mirrors[0].protocol: "ipx" is not a protocol`:          {Mirrors: []model.Mirror{{Destination: "web-1", Protocol: "ipx"}}},
		"spec.mirrors[0].port: goes with protocols tcp and udp":      {Mirrors: []model.Mirror{{Destination: "web-1", Protocol: "icmp", Port: 7}}},
		"spec.mirrors[0].prefix: 10.0.0.1/24 has bits":               {Mirrors: []model.Mirror{{Destination: "web-1", Prefix: netip.MustParsePrefix("10.0.0.1/24")}}},
		"spec.mirrors: has 5 entries; at most 4":                     {Mirrors: make([]model.Mirror, 5)},
		"spec.connectionLimit: is 2000000":                           {ConnectionLimit: new(uint32(2000000))},
		"spec.stormLimit: is 4294967295":                             {StormLimit: new(^uint32(0))},
	} {
		for _, r := range []model.Resource{profile("red", "vm", s), with(port("red", "p", "web"), func(p *model.Port) { p.Spec.PortSettings = s })} {
			_, v := w.try([]model.Resource{r})
			if len(v) != 1 || !strings.HasPrefix(v[0].String(), model.KeyOf(r).String()+": "+want) {
				t.Errorf("%s: %v", want, v)
			}
		}
	}
}

func TestAPortThatGetsCopiesStays(t *testing.T) {
	mirrored := func(to string) func(*model.Port) {
		return func(p *model.Port) { p.Spec.Mirrors = []model.Mirror{{Destination: to}} }
	}
	w := newWorld(t, base()...)
	w.apply(port("red", "ids", "web"), with(port("red", "p", "web"), mirrored("ids")))
	w.refused("Port red/p", nil, portKey("red", "ids"))
	w.refused("spec.mirrors[0].destination: is the port itself", []model.Resource{with(port("red", "p", "web"), mirrored("p"))})
	w.apply(with(port("red", "ids", "web"), mirrored("p"))) // and the other way around
	w.apply(profile("red", "seen", model.PortSettings{Mirrors: []model.Mirror{{Destination: "ids"}}}))
	w.apply(with(port("red", "ids", "web"), withProfile("seen")))
	w.change(nil, portKey("red", "p"), portKey("red", "ids"), profileKey("red", "seen"))
}
