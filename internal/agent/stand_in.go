package agent

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// standIn has the kernel answer ARP and Neighbour Discovery for the Provider Addresses that stand for guests of this host, where
// they are on a link with others, and lead nowhere what comes for the rest of its pools. Both outlive the agent. What is no
// longer wanted goes when the server has been heard.
func (l *loop) standIn(want table.Set, h held) []failure {
	standIns, nowhere := standInsOf(want, l.under), nowhereOf(h.goal, l.under)
	if !l.standsIn && len(standIns) == 0 && len(nowhere) == 0 {
		return nil
	}
	var errs []error
	errs = append(errs, settle(standIns, h.synced, netdev.StandIns, netdev.PutStandIn, netdev.DeleteStandIn)...)
	errs = append(errs, settle(nowhere, h.synced, netdev.Unreachables, netdev.PutUnreachable, netdev.DeleteUnreachable)...)
	l.standsIn = len(errs) > 0 || !h.synced || len(standIns) > 0 || len(nowhere) > 0
	var out []failure
	for _, err := range errs {
		out = append(out, l.hostFailure(reasonUnderlay, err.Error()))
	}
	return out
}

// settle makes what the kernel has what is wanted, new things first.
func settle[K comparable](want map[K]struct{}, sweep bool, list func() (map[K]struct{}, error), put, drop func(K) error) []error {
	have, err := list()
	if err != nil {
		return []error{err}
	}
	var errs []error
	for k := range want {
		if _, there := have[k]; there {
			continue
		}
		if err := put(k); err != nil {
			errs = append(errs, err)
		}
	}
	for k := range have {
		if _, wanted := want[k]; wanted || !sweep {
			continue
		}
		if err := drop(k); err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// standInsOf are the Provider Addresses of guests here that are on-link on an uplink.
func standInsOf(want table.Set, u underlay) map[netdev.StandIn]struct{} {
	out := map[netdev.StandIn]struct{}{}
	for pa, row := range want.RewriteIn {
		if row.Remote || row.IfIndex == 0 {
			continue
		}
		for _, a := range u.addresses {
			if _, up := u.uplinks[a.IfIndex]; up && a.Prefix.Masked().Contains(pa) {
				out[netdev.StandIn{IfIndex: a.IfIndex, Address: pa}] = struct{}{}
			}
		}
	}
	return out
}

// nowhereOf are the pools of this host but for those on a link: there nobody answers for what is not given out, and
// somebody else may have an address among them.
func nowhereOf(g *goal.Goal, u underlay) map[netip.Prefix]struct{} {
	out := map[netip.Prefix]struct{}{}
	for _, r := range g.ProviderRoutes {
		if r.Unreachable() && !u.onLink(r.Prefix) {
			out[r.Prefix] = struct{}{}
		}
	}
	return out
}

func (u underlay) onLink(p netip.Prefix) bool {
	for _, a := range u.addresses {
		if a.Prefix.Overlaps(p) {
			return true
		}
	}
	return false
}
