package agent

import (
	"fmt"
	"net/netip"
	"slices"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// traceOnVLAN sends the packet without a tag: to the port of this host that has the destination, or to somebody
// outside, whose MAC nobody here knows.
func (a *Agent) traceOnVLAN(v *view, port goal.Port, p probe) ([]*weftv1.TraceRun, error) {
	row, ok := vlanPortOf(v.want, port.ID)
	if !ok {
		return nil, fmt.Errorf("port %s is not plugged: plug it first (weft plug), its guest can send nothing", port.Ref)
	}
	to, ok := p.group(port)
	if !ok {
		to = v.vlanMAC(row.Uplink, p.destination)
	}
	sent, err := a.traceRun(v, datapath.VLANGuest, row.IfIndex, p.frame(port.MAC, to))
	return []*weftv1.TraceRun{sent.message}, err
}

func vlanPortOf(s table.Set, id model.PortID) (table.VLANPort, bool) {
	for _, p := range s.VLANPorts {
		if p.ID == id {
			return p, true
		}
	}
	return table.VLANPort{}, false
}

// vlanMAC is that of the port behind an external interface that policy says has an address; else one that no port has.
func (v *view) vlanMAC(uplink uint32, to netip.Addr) model.MAC {
	for _, p := range v.want.VLANPorts {
		if p.Uplink == uplink && slices.Contains(v.goal.Ports[p.ID].CAs, to) {
			return p.MAC
		}
	}
	return model.RouterMAC(0)
}
