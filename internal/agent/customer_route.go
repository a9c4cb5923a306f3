package agent

import (
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// renderRoutes copies the routes: which of them is best was decided by the server.
func renderRoutes(set table.Set, g *goal.Goal) {
	for k, r := range g.Routes {
		set.Routes[table.RouteKey(k)] = table.Route(r)
	}
}

// renderForwarders lists the remote hosts whose guests forward, which therefore send
// packets of others. A record names its subnet; whose network that is, its routes tell.
func renderForwarders(set table.Set, g *goal.Goal, u underlay) {
	networks := map[model.VSID]model.NetworkIndex{}
	for k, r := range g.Routes {
		network, _ := k.Network.IsDirect()
		networks[r.VSID] = network
	}
	for k, r := range g.Records {
		network, known := networks[k.VSID]
		if _, local := g.Ports[r.Port]; !r.Forward || local || !known || !r.PA.IsValid() {
			continue
		}
		for _, pa := range u.sourcesAt(r.PA) {
			trust := table.Trust{Forward: r.Forward}
			set.Forwarders[table.Forwarder{Network: network, PA: pa}] = trust
			set.Forwarders[table.Forwarder{Network: network, MAC: r.MAC, PA: pa}] = trust
		}
	}
}
