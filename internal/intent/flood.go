package intent

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
)

// maxStormLimit is more than a port can send, in packets per second.
const maxStormLimit = 100_000_000

// checkFlood checks what a subnet floods, and how.
func checkFlood(a *admission, s *model.VirtualSubnet) {
	k := model.KeyOf(s)
	switch s.Spec.Flood {
	case model.FloodL3, model.FloodL2:
	default:
		a.fail(k, "spec.flood", "%.40q is not a way to flood; use l3 or l2", s.Spec.Flood)
	}
	if s.Spec.StormLimit > maxStormLimit {
		a.fail(k, "spec.stormLimit", "%d is more than %d packets per second", s.Spec.StormLimit, maxStormLimit)
	}
	group := s.Spec.MulticastAddress
	if !group.IsValid() {
		return
	}
	if problem := groupProblem(group); problem != "" {
		a.fail(k, "spec.multicastAddress", "%s %s", group, problem)
	}
	if s.Spec.Flood != model.FloodL2 {
		a.fail(k, "spec.multicastAddress", "is of no use without flood: l2")
	}
}

// groupProblem says why a cannot be a PA that hosts listen to together, or "".
func groupProblem(a netip.Addr) string {
	switch {
	case a.Zone() != "" || a.Is4In6():
		return "must be plain, neither with a zone nor IPv4-mapped"
	case !a.IsMulticast():
		return "is no multicast address; use one of 239.0.0.0/8 or ff05::/16"
	case a.IsLinkLocalMulticast() || a.IsInterfaceLocalMulticast():
		return "is never routed; use one of 239.0.0.0/8 or ff05::/16"
	}
	return ""
}
