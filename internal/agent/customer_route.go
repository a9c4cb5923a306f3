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

// renderForwarders lists the remote hosts with guests that may do more than speak for themselves. A record names its subnet; whose network that is, its routes tell.
func renderForwarders(set table.Set, g *goal.Goal, u underlay) {
	networks := map[model.VSID]model.NetworkIndex{}
	for k, r := range g.Routes {
		network, _ := k.Network.IsDirect()
		networks[r.VSID] = network
	}
	for k, r := range g.Records {
		network, known := networks[k.VSID]
		if _, local := g.Ports[r.Port]; r.Trust == (goal.Trust{}) || local || !known || !r.PA.IsValid() {
			continue
		}
		for _, pa := range u.sourcesAt(r.PA) {
			trust(set, table.Forwarder{Network: network, PA: pa}, r.Trust)
			trust(set, table.Forwarder{Network: network, MAC: r.MAC, PA: pa}, r.Trust)
		}
	}
}

// trust adds to what one host, or one guest there, may do: several records speak of the same.
func trust(set table.Set, f table.Forwarder, more goal.Trust) {
	t := set.Forwarders[f]
	set.Forwarders[f] = table.Trust{Forward: t.Forward || more.Forward, DHCP: t.DHCP || more.DHCP, Router: t.Router || more.Router,
		Allowed: t.Allowed || more.Allowed}
}
