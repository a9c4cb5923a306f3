package agent

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// device is a plugged device that is present.
type device struct {
	ifindex uint32
	veth    bool // with its other end in another namespace
}

// render joins the Goal with the devices that its ports are plugged into and
// with the underlay. It is pure: the same input gives the same Set.
func render(g *goal.Goal, devices map[model.PortID]device, u underlay, mayUse func(netip.Addr) bool) table.Set {
	set := table.NewSet()
	renderPorts(set, g, devices, u, mayUse)
	renderRecords(set, g, devices)
	renderRoutes(set, g)
	renderPAs(set, g, u)
	return set
}
