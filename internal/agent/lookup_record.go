package agent

import (
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// renderRecords leads the CAs of this host's ports to their devices and all
// others to their Provider Addresses.
func renderRecords(set table.Set, g *goal.Goal, devices map[model.PortID]device) {
	for k, r := range g.Records {
		if _, is := model.AllowedMAC(k.CA); is {
			continue // says whom to trust, and leads nowhere
		}
		set.Records[table.RecordKey(k)] = renderRecord(g, devices, r)
	}
}

func renderRecord(g *goal.Goal, devices map[model.PortID]device, r goal.Record) table.Record {
	row := table.Record{MAC: r.MAC, Router: r.Router, Port: r.Port, Transport: r.Transport, Isolation: r.Isolation}
	if r.Router {
		return row
	}
	if _, local := g.Ports[r.Port]; local {
		row.IfIndex = devices[r.Port].ifindex
		return row
	}
	row.PA = r.PA
	return row
}
