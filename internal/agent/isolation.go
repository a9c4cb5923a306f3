package agent

import (
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// renderIsolations says by MAC whom ports of other hosts reach within their subnet.
func renderIsolations(set table.Set, g *goal.Goal) {
	for k, r := range g.Records {
		if _, local := g.Ports[r.Port]; !local && r.Isolation != model.NoIsolation {
			set.Isolations[table.MACKey{VSID: k.VSID, MAC: r.MAC}] = r.Isolation
		}
	}
}
