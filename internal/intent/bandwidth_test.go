package intent

import (
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
)

func minimum(bits int64) model.PortSettings {
	return model.PortSettings{Bandwidth: &model.Bandwidth{Outbound: model.BandwidthLimit{Minimum: bits}}}
}

func minimumOn(host string, s model.PortSettings) func(*model.Port) {
	return func(p *model.Port) { p.Spec.Host, p.Spec.PortSettings = host, s }
}

func uplink(bits int64) *model.Host {
	return with(host("h1"), func(h *model.Host) { h.Spec.UplinkBandwidth = bits })
}

// No more is promised than nine tenths of what a Host says that its uplinks carry, however it comes to be: by a port, its profile,
// its place, or the Host.
func TestMinimaFitTheUplink(t *testing.T) {
	w := newWorld(t, append(base(), profile("red", "gold", minimum(4e8)))...)
	w.apply(uplink(1e9))
	gold := func(p *model.Port) { p.Spec.Host, p.Spec.Profile = "h1", "gold" }
	w.apply(with(port("red", "a", "web"), minimumOn("h1", minimum(5e8))), with(port("red", "b", "web"), gold))
	const sum = "sum up to 900000008 bit/s, and of its uplinks' 1000000000 it can promise 900000000"
	w.refused(sum, []model.Resource{with(port("red", "a", "web"), minimumOn("h1", minimum(5e8+8)))})
	w.refused(sum, []model.Resource{profile("red", "gold", minimum(4e8+8))})
	w.refused("spec.uplinkBandwidth: of 999999992 the host can promise 899999993, and the minima of its ports sum up to 900000000", []model.Resource{uplink(1e9 - 8)})
	w.apply(with(port("red", "c", "web"), minimumOn("", minimum(1e6))))
	w.refused("sum up to 901000000", []model.Resource{with(port("red", "c", "web"), minimumOn("h1", minimum(1e6)))})
	_, v := AdmitBinding(w.state, model.Ref{Tenant: "red", Name: "c"}, "h1")
	if len(v) != 1 || v[0].Reason != Conflict || !strings.Contains(v[0].Message, "sum up to 901000000") {
		t.Errorf("plugged: %v", v)
	}
	// A weight promises nothing that could be too much, and what nobody knows the agent judges.
	w.apply(with(port("red", "c", "web"), minimumOn("h1", model.PortSettings{Bandwidth: &model.Bandwidth{Outbound: model.BandwidthLimit{Weight: 100}}})))
	w.apply(uplink(0))
	w.apply(with(port("red", "a", "web"), minimumOn("h1", minimum(1e12))))
	w.refused("spec.uplinkBandwidth: 8 must be a multiple of 8 from 640000", []model.Resource{uplink(8)})
}

func TestAPortOnAVLANHasNoMinimum(t *testing.T) {
	w := newWorld(t, append(base(), &model.ExternalNetwork{Metadata: meta("", "lan"), Spec: model.ExternalNetworkSpec{Tenants: []string{"red"}, Interfaces: []model.ExternalInterface{{Interface: "eth1"}}}})...)
	w.refused("Port red/v: spec.bandwidth", []model.Resource{with(port("red", "v", ""), func(p *model.Port) {
		p.Spec.PortSettings = minimum(1e6)
		p.Spec.VLAN = &model.VLAN{Network: "lan", Mode: model.VLANAccess, ID: 7}
	})})
}
