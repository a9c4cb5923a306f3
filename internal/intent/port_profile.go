package intent

import (
	"reflect"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
)

type portProfileRules struct{}

func (portProfileRules) clone(r model.Resource) model.Resource {
	c := *r.(*model.PortProfile)
	c.Metadata = cloneMeta(c.Metadata)
	s := &c.Spec.PortSettings
	s.AllowedAddresses, s.Mirrors, s.AccessLists = orNil(s.AllowedAddresses), orNil(s.Mirrors), orNil(s.AccessLists)
	return &c
}

func (portProfileRules) inherit(_, _ model.Resource) {}

func (portProfileRules) check(a *admission, r, old model.Resource) {
	p := r.(*model.PortProfile)
	a.checkSettings(model.KeyOf(r), p.Spec.PortSettings)
	if p.Spec.VLAN != nil {
		a.mayUse(model.KeyOf(r), p.Spec.VLAN.Network)
	}
	if old != nil && vlanNetwork(old) != vlanNetwork(r) && len(a.childrenOf(model.KeyOf(r))) > 0 {
		a.fail(model.KeyOf(r), "spec.vlan.network", "cannot change (it is %q) while ports have the profile: they would leave one switch for another", vlanNetwork(old))
	}
}

// vlanNetwork is the external network that ports of a profile are on; "": none.
func vlanNetwork(r model.Resource) string {
	if v := r.(*model.PortProfile).Spec.VLAN; v != nil {
		return v.Network
	}
	return ""
}

func (portProfileRules) allocate(*admission, model.Resource) {}

func (portProfileRules) relate(*admission, model.Resource, model.Resource) {} // its ports are in the set

func (portProfileRules) claims(func(model.Key) model.Resource, model.Resource) []claim { return nil }

// mirrorKeys are the ports that get copies.
func mirrorKeys(tenant string, all []model.Mirror) []model.Key {
	var out []model.Key
	for _, m := range all {
		out = append(out, portKey(tenant, m.Destination))
	}
	return out
}

func (portProfileRules) parents(r model.Resource) []model.Key {
	spec, tenant := r.(*model.PortProfile).Spec, r.Meta().Tenant
	out := append(append(listKeys(tenant, spec.AccessLists), mirrorKeys(tenant, spec.Mirrors)...), tenantKey(tenant))
	if spec.VLAN != nil {
		out = append(out, externalKey(spec.VLAN.Network))
	}
	return out
}

func (portProfileRules) sameSpec(a, b model.Resource) bool {
	return reflect.DeepEqual(a.(*model.PortProfile).Spec, b.(*model.PortProfile).Spec)
}

// cloneSettings copies the lists of s. What its pointers lead to nobody changes.
func cloneSettings(s model.PortSettings) model.PortSettings {
	s.AllowedAddresses, s.Mirrors, s.AccessLists = slices.Clone(s.AllowedAddresses), slices.Clone(s.Mirrors), slices.Clone(s.AccessLists)
	return s
}

// settings of a port as they will be once the set is in place.
func (a *admission) settings(p *model.Port) model.Settings { return settingsOf(a.get, p) }

func (s *State) settings(p *model.Port) model.Settings { return settingsOf(s.get, p) }

func settingsOf(get func(model.Key) model.Resource, p *model.Port) model.Settings {
	if p.Spec.Profile == "" {
		return p.Spec.Settle(nil)
	}
	profile, _ := get(profileKey(p.Metadata.Tenant, p.Spec.Profile)).(*model.PortProfile)
	return p.Spec.Settle(profile)
}

// pullProfiled takes the ports of every profile that changes into the set: what the profile now
// says is judged, and allocated for, with each of them.
func (a *admission) pullProfiled() {
	for _, k := range slices.Clone(a.order) {
		profile, ok := a.puts[k].(*model.PortProfile)
		if old := a.base.get(k); !ok || old == nil || (portProfileRules{}).sameSpec(profile, old) {
			continue
		}
		for _, c := range a.childrenOf(k) {
			if _, inSet := a.puts[c]; inSet {
				continue
			}
			if a.pulled == nil {
				a.pulled = map[model.Key]bool{}
			}
			a.pulled[c] = true
			a.takePuts([]model.Resource{a.base.get(c)})
		}
	}
}

// Bounds of settings.
const (
	maxAllowed       = 64
	maxMirrors       = 4
	maxVLANRanges    = 64
	maxConnections   = 1 << 20
	maxWeight        = 100
	bandwidthUnit    = 8       // bit/s (hnv 5.4)
	minBandwidth     = 64_000  // bit/s
	maxBandwidth     = 1e12    // bit/s
	maxBurst         = 1 << 30 // bytes
	minSnapLength    = 14
	maxSnapLength    = 65535
	maxStormLimitSet = 10_000_000
)

// checkSettings judges what a port or a profile says, by itself.
func (a *admission) checkSettings(k model.Key, s model.PortSettings) {
	if s.StormLimit != nil && *s.StormLimit > maxStormLimitSet {
		a.fail(k, "spec.stormLimit", "is %d; at most %d packets a second", *s.StormLimit, maxStormLimitSet)
	}
	if s.ConnectionLimit != nil && *s.ConnectionLimit > maxConnections {
		a.fail(k, "spec.connectionLimit", "is %d; at most %d connections of one port are followed", *s.ConnectionLimit, maxConnections)
	}
	a.checkAllowed(k, s.AllowedAddresses)
	if s.Isolation != nil {
		a.checkIsolation(k, *s.Isolation)
	}
	if s.VLAN != nil {
		a.checkVLAN(k, s.VLAN)
	}
	if s.Bandwidth != nil {
		a.checkLimit(k, "spec.bandwidth.inbound", s.Bandwidth.Inbound)
		a.checkNoMinimum(k, "spec.bandwidth.inbound", s.Bandwidth.Inbound)
		a.checkLimit(k, "spec.bandwidth.outbound", s.Bandwidth.Outbound)
	}
	a.checkMirrors(k, s.Mirrors)
	a.checkLists(k, s.AccessLists)
}

func (a *admission) checkAllowed(k model.Key, all []model.AllowedAddress) {
	if len(all) > maxAllowed {
		a.fail(k, "spec.allowedAddresses", "has %d entries; at most %d are allowed", len(all), maxAllowed)
		return
	}
	for i, x := range all {
		field := at("spec.allowedAddresses", i)
		if problem := prefixProblem(x.Prefix); problem != "" {
			a.fail(k, field+".prefix", "%s %s", x.Prefix, problem)
		}
		if !x.MAC.IsZero() && (!x.MAC.IsUnicast() || x.MAC.IsRouter()) {
			a.fail(k, field+".mac", "%s is a group address, or in the range 02:77:66:… of the distributed routers; a guest has neither", x.MAC)
		}
		if slices.Contains(all[:i], x) {
			a.fail(k, field, "is listed twice")
		}
	}
}

func (a *admission) checkIsolation(k model.Key, i model.Isolation) {
	switch i.Mode {
	case model.IsolationCommunity:
		if i.Community == "" {
			a.fail(k, "spec.isolation.community", "is required with mode community: the ports that name the same one reach each other")
		} else if !ValidName(i.Community) {
			a.fail(k, "spec.isolation.community", "%.40q is not a name: %s", i.Community, nameRule)
		}
		return
	case "", model.IsolationNone, model.IsolationIsolated, model.IsolationPromiscuous:
	default:
		a.fail(k, "spec.isolation.mode", "%.40q is not a mode; use none, isolated, community or promiscuous", i.Mode)
	}
	if i.Community != "" {
		a.fail(k, "spec.isolation.community", "goes with mode community alone")
	}
}

func (a *admission) checkVLAN(k model.Key, v *model.VLAN) {
	switch v.Mode {
	case model.VLANUntagged:
	case model.VLANAccess:
		a.checkVLANID(k, "spec.vlan.id", v.ID, "a port of mode access is in one VLAN")
	case model.VLANTrunk:
		a.checkVLANRanges(k, "spec.vlan.allowed", v.Allowed)
		a.checkVLANRanges(k, "spec.vlan.prune", v.Prune)
		if v.Native != 0 {
			a.checkVLANID(k, "spec.vlan.native", v.Native, "")
		}
	case model.VLANPrivate:
		a.checkPrivateVLAN(k, v.Private)
	default:
		a.fail(k, "spec.vlan.mode", "%.40q is not a mode; use untagged, access, trunk or private", v.Mode)
		return
	}
	for _, x := range []struct {
		field string
		set   bool
		mode  model.VLANMode
	}{{"id", v.ID != 0, model.VLANAccess}, {"allowed", len(v.Allowed) > 0, model.VLANTrunk}, {"prune", len(v.Prune) > 0, model.VLANTrunk},
		{"native", v.Native != 0, model.VLANTrunk}, {"private", v.Private != nil, model.VLANPrivate}} {
		if x.set && v.Mode != x.mode {
			a.fail(k, "spec.vlan."+x.field, "goes with mode %s alone", x.mode)
		}
	}
}

func (a *admission) checkVLANID(k model.Key, field string, id uint16, why string) {
	if id >= model.MinVLAN && id <= model.MaxVLAN {
		return
	}
	if id == 0 && why != "" {
		a.fail(k, field, "is required: %s", why)
		return
	}
	a.fail(k, field, "%d is not a VLAN id; use %d to %d", id, model.MinVLAN, model.MaxVLAN)
}

func (a *admission) checkVLANRanges(k model.Key, field string, all []model.Range) {
	if len(all) > maxVLANRanges {
		a.fail(k, field, "has %d entries; at most %d are allowed", len(all), maxVLANRanges)
		return
	}
	for i, r := range all {
		switch {
		case r.First > r.Last:
			a.fail(k, at(field, i), "%s is upside down; write %d-%d", r, r.Last, r.First)
		case r.First < model.MinVLAN || r.Last > model.MaxVLAN:
			a.fail(k, at(field, i), "%s has ids that no VLAN has; use %d to %d", r, model.MinVLAN, model.MaxVLAN)
		}
	}
}

func (a *admission) checkPrivateVLAN(k model.Key, p *model.PrivateVLAN) {
	const field = "spec.vlan.private"
	if p == nil {
		a.fail(k, field, "is required with mode private")
		return
	}
	a.checkVLANID(k, field+".primary", p.Primary, "every port of a private VLAN has the primary's id")
	switch p.Mode {
	case model.IsolationIsolated, model.IsolationCommunity:
		a.checkVLANID(k, field+".secondary", p.Secondary, "an isolated or community port has a secondary VLAN")
		if len(p.Secondaries) > 0 {
			a.fail(k, field+".secondaries", "goes with mode promiscuous alone; write secondary")
		}
	case model.IsolationPromiscuous:
		if len(p.Secondaries) == 0 {
			a.fail(k, field+".secondaries", "is required: the secondary VLANs that the promiscuous port reaches")
		}
		if p.Secondary != 0 {
			a.fail(k, field+".secondary", "goes with modes isolated and community; write secondaries")
		}
	default:
		a.fail(k, field+".mode", "%.40q is not a mode; use isolated, community or promiscuous", p.Mode)
	}
	if len(p.Secondaries) > model.MaxVLAN {
		a.fail(k, field+".secondaries", "has %d entries; there are %d VLANs", len(p.Secondaries), model.MaxVLAN)
		return
	}
	for i, id := range p.Secondaries {
		a.checkVLANID(k, at(field+".secondaries", i), id, "")
		if id == p.Primary || slices.Contains(p.Secondaries[:i], id) {
			a.fail(k, at(field+".secondaries", i), "%d is the primary, or listed twice", id)
		}
	}
	if p.Secondary != 0 && p.Secondary == p.Primary {
		a.fail(k, field+".secondary", "%d is the primary's id; a secondary VLAN has one of its own", p.Secondary)
	}
}

func (a *admission) checkLimit(k model.Key, field string, l model.BandwidthLimit) {
	for _, x := range []struct {
		name  string
		value int64
		max   int64
		unit  int64
	}{{"maximum", l.Maximum, maxBandwidth, bandwidthUnit}, {"minimum", l.Minimum, maxBandwidth, bandwidthUnit}, {"burst", l.Burst, maxBurst, 1}} {
		if x.value < 0 || x.value > x.max || x.value%x.unit != 0 {
			a.fail(k, field+"."+x.name, "%d must be a multiple of %d from 0 to %d", x.value, x.unit, x.max)
			return
		}
	}
	switch {
	case l.Weight > maxWeight:
		a.fail(k, field+".weight", "is %d; use 1 to %d", l.Weight, maxWeight)
	case l.Minimum > 0 && l.Weight > 0:
		a.fail(k, field+".weight", "does not go with minimum; say one of the two")
	case l.Maximum > 0 && l.Minimum > l.Maximum:
		a.fail(k, field+".minimum", "%d is more than the maximum %d", l.Minimum, l.Maximum)
	case l.Burst > 0 && l.Maximum == 0:
		a.fail(k, field+".burst", "goes with a maximum alone")
	case l.Maximum > 0 && l.Maximum < minBandwidth:
		a.fail(k, field+".maximum", "%d is less than the %d bit/s that can be kept", l.Maximum, minBandwidth)
	case l.Minimum > 0 && l.Minimum < minBandwidth:
		a.fail(k, field+".minimum", "%d is less than the %d bit/s that can be kept", l.Minimum, minBandwidth)
	}
}

func (a *admission) checkMirrors(k model.Key, all []model.Mirror) {
	if len(all) > maxMirrors {
		a.fail(k, "spec.mirrors", "has %d entries; at most %d are allowed", len(all), maxMirrors)
		return
	}
	for i, m := range all {
		field := at("spec.mirrors", i)
		if !ValidName(m.Destination) {
			a.fail(k, field+".destination", "%.40q is not the name of a port: %s", m.Destination, nameRule)
		} else if to := portKey(k.Tenant, m.Destination); to == k {
			a.fail(k, field+".destination", "is the port itself, which sees its packets anyway; name another port of the tenant")
		} else {
			a.refer(k, field+".destination", to)
		}
		switch m.Direction {
		case "", model.Both, model.Inbound, model.Outbound:
		default:
			a.fail(k, field+".direction", "%.40q is not a direction; use inbound, outbound or both", m.Direction)
		}
		if number, _, ok := model.ProtocolNumber(m.Protocol); !ok {
			a.fail(k, field+".protocol", "%.40q is not a protocol; use tcp, udp, icmp, icmpv6, or its number", m.Protocol)
		} else if m.Port != 0 && m.Protocol != "" && number != 6 && number != 17 {
			a.fail(k, field+".port", "goes with protocols tcp and udp alone")
		}
		if problem := prefixProblem(m.Prefix); m.Prefix.IsValid() && problem != "" {
			a.fail(k, field+".prefix", "%s %s", m.Prefix, problem)
		}
		if m.SnapLength != 0 && (m.SnapLength < minSnapLength || m.SnapLength > maxSnapLength) {
			a.fail(k, field+".snapLength", "is %d; use %d to %d bytes, or 0 for all", m.SnapLength, minSnapLength, maxSnapLength)
		}
	}
}
