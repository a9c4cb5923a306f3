package agent

import (
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/table"
)

// renderRoutes copies the routes: which of them is best was decided by the server.
func renderRoutes(set table.Set, g *goal.Goal) {
	for k, r := range g.Routes {
		set.Routes[table.RouteKey(k)] = table.Route(r)
	}
}
