package agent

import (
	"cmp"

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
func render(g *goal.Goal, devices map[model.PortID]device, u underlay) table.Set {
	set := table.NewSet()
	renderSettings(&set, g)
	renderPorts(set, g, devices, u.guestMTUs(g))
	renderVLANPorts(set, g, devices, u.externals)
	renderAllowed(set, g, devices)
	renderRecords(set, g, devices)
	renderIsolations(set, g)
	renderRewrites(set, g)
	renderRoutes(set, g)
	renderForwarders(set, g, u)
	renderPAs(set, g, u)
	renderFloods(set, g, devices)
	renderMirrors(set, g, devices, u)
	renderGroups(set, u)
	return set
}

// renderSettings takes the fleet's settings, or the defaults while no server has told any.
func renderSettings(set *table.Set, g *goal.Goal) {
	set.Settings = table.Settings{VXLANPort: cmp.Or(g.Settings.VXLANPort, table.DefaultSettings.VXLANPort), Pipe: g.Settings.Pipe, DSCP: g.Settings.DSCP}
}
