package intent

import "github.com/weft-sdn/weft/internal/model"

// A minimum is kept at the uplinks of the host where the port is, whose bandwidth its Host may say: then
// no more is promised than there is. Where it does not, the agent knows what its links carry, and says so.

// checkNoMinimum refuses what nobody can keep: packets on their way to a port wait where they were sent.
func (a *admission) checkNoMinimum(k model.Key, field string, l model.BandwidthLimit) {
	const why = "a minimum is kept where packets leave a host: say it outbound, of the ports that send, or a maximum here"
	switch {
	case l.Minimum > 0:
		a.fail(k, field+".minimum", why)
	case l.Weight > 0:
		a.fail(k, field+".weight", why)
	}
}

func (a *admission) checkUplink(h *model.Host) {
	if b := h.Spec.UplinkBandwidth; b < 0 || b > maxBandwidth || b%bandwidthUnit != 0 || b > 0 && b < minUplink {
		a.fail(model.KeyOf(h), "spec.uplinkBandwidth", "%d must be a multiple of %d from %d to %d, or 0: what its device says", b, bandwidthUnit, minUplink, int64(maxBandwidth))
	}
}

// minUplink leaves ten times what can be kept.
const minUplink = 10 * minBandwidth

// checkMinimum holds what p is promised, with all others on its host, against what there is.
func (a *admission) checkMinimum(p *model.Port) {
	s := a.settings(p)
	if !s.Bandwidth.HasMinimum() {
		return
	}
	if s.VLAN != nil {
		a.fail(model.KeyOf(p), "spec.bandwidth.outbound", "a port on a VLAN has no minimum: it does not leave by the uplinks of virtual networks; say a maximum for those that take too much")
		return
	}
	h, ok := a.get(hostKey(p.Host())).(*model.Host)
	if !ok || s.Bandwidth.Outbound.Minimum == 0 {
		return
	}
	sum, promised := a.minimaOf(h.Metadata.Name), model.Promised(h.Spec.UplinkBandwidth)
	if h.Spec.UplinkBandwidth == 0 || sum <= promised {
		return
	}
	a.failFor(Conflict, model.KeyOf(p), "spec.bandwidth.outbound.minimum",
		"the minima of the ports on host %s sum up to %d bit/s, and of its uplinks' %d it can promise %d: ask for less, say a weight, or place the port elsewhere",
		h.Metadata.Name, sum, h.Spec.UplinkBandwidth, promised)
}

// checkPromises is for a Host that takes back what it was said to have.
func (a *admission) checkPromises(h *model.Host) {
	promised := model.Promised(h.Spec.UplinkBandwidth)
	if h.Spec.UplinkBandwidth == 0 {
		return
	}
	if sum := a.minimaOf(h.Metadata.Name); sum > promised {
		a.failFor(Conflict, model.KeyOf(h), "spec.uplinkBandwidth", "of %d the host can promise %d, and the minima of its ports sum up to %d bit/s: lower those first, or in the same set",
			h.Spec.UplinkBandwidth, promised, sum)
	}
}

// minimaOf sums up what the ports of a host are promised once the set is in place.
func (a *admission) minimaOf(host string) (sum int64) {
	if sum, ok := a.minima[host]; ok {
		return sum
	}
	for _, k := range a.childrenOf(hostKey(host)) {
		p, ok := a.get(k).(*model.Port)
		if !ok || p.Host() != host {
			continue
		}
		if b := a.settings(p).Bandwidth; b != nil {
			sum += b.Outbound.Minimum
		}
	}
	if a.minima == nil {
		a.minima = map[string]int64{}
	}
	a.minima[host] = sum
	return sum
}
