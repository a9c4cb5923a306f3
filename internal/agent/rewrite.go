package agent

import (
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// renderRewrites says which Provider Address stands for which Customer Address, and tells the
// ports of rewrite subnets that they are.
func renderRewrites(set table.Set, g *goal.Goal) {
	networks := networksOf(g)
	transports := map[model.VSID]model.TransportID{}
	for k, r := range g.Records {
		transports[k.VSID] = max(transports[k.VSID], r.Transport) // where one is rewritten, its subnet's is rewrite
		if !r.Rewrite.IsValid() {
			continue
		}
		key := table.RecordKey(k)
		row := set.Records[key]
		row.Exchange = r.Rewrite.Is4() != k.CA.Is4()
		set.Records[key] = row
		set.RewriteOut[key] = r.Rewrite
		set.RewriteIn[r.Rewrite] = table.RewriteIn{VSID: k.VSID, CA: k.CA, Network: networks[k.VSID], MAC: r.MAC,
			IfIndex: row.IfIndex, Remote: row.PA.IsValid(), Isolation: r.Isolation}
	}
	for ifindex, p := range set.Ports {
		p.Transport = transports[p.VSID]
		set.Ports[ifindex] = p
	}
}

// networksOf says which routing domain a subnet is in.
func networksOf(g *goal.Goal) map[model.VSID]model.NetworkIndex {
	out := map[model.VSID]model.NetworkIndex{}
	for k, r := range g.Routes {
		out[r.VSID] = k.Network
	}
	for _, p := range g.Ports {
		out[p.VSID] = p.Network
	}
	return out
}
