package convert

import (
	"math"

	"google.golang.org/protobuf/reflect/protoreflect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/model"
)

// copyFields copies every field that both messages have: a port's settings and a profile's are
// the same fields in two messages.
func copyFields(from, to protoreflect.Message) {
	fields := to.Descriptor().Fields()
	from.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if same := fields.ByName(f.Name()); same != nil {
			to.Set(same, v)
		}
		return true
	})
}

func (rd *reader) portSettings(s *weftv1.PortProfileSpec) model.PortSettings {
	if s == nil {
		return model.PortSettings{}
	}
	out := model.PortSettings{AllowSpoofing: s.AllowSpoofing, DynamicAddressLimit: s.DynamicAddressLimit, Forwarding: s.Forwarding,
		DHCPGuard: s.DhcpGuard, RouterGuard: s.RouterGuard, AllowTeaming: s.AllowTeaming, IEEEPriorityTag: s.IeeePriorityTag,
		StormLimit: s.StormLimit, ConnectionLimit: s.ConnectionLimit, AccessLists: s.GetAccessLists()}
	for i, a := range s.GetAllowedAddresses() {
		at := index("spec.allowedAddresses", i)
		out.AllowedAddresses = append(out.AllowedAddresses, model.AllowedAddress{
			Prefix: rd.prefix(at+".prefix", a.GetPrefix()), MAC: rd.mac(at+".mac", a.GetMac())})
	}
	if i := s.GetIsolation(); i != nil {
		out.Isolation = &model.Isolation{Mode: model.IsolationMode(i.GetMode()), Community: i.GetCommunity()}
	}
	if v := s.GetVlan(); v != nil {
		out.VLAN = rd.vlan(v)
	}
	if b := s.GetBandwidth(); b != nil {
		out.Bandwidth = &model.Bandwidth{Inbound: readLimit(b.GetInbound()), Outbound: readLimit(b.GetOutbound())}
	}
	for i, m := range s.GetMirrors() {
		out.Mirrors = append(out.Mirrors, rd.mirror(index("spec.mirrors", i), m))
	}
	rd.leaveEmpty(s.GetNone(), &out)
	return out
}

// leaveEmpty makes lists that are named as empty on purpose empty, and not nil.
func (rd *reader) leaveEmpty(names []string, s *model.PortSettings) {
	for i, name := range names {
		filled := false
		switch name {
		case "allowedAddresses":
			filled = len(s.AllowedAddresses) > 0
			s.AllowedAddresses = append([]model.AllowedAddress{}, s.AllowedAddresses...)
		case "mirrors":
			filled = len(s.Mirrors) > 0
			s.Mirrors = append([]model.Mirror{}, s.Mirrors...)
		case "accessLists":
			filled = len(s.AccessLists) > 0
			s.AccessLists = append([]string{}, s.AccessLists...)
		default:
			rd.fail(index("spec.none", i), "%.40q is not a list that a profile has; use allowedAddresses, mirrors or accessLists", name)
		}
		if filled {
			rd.fail(index("spec.none", i), "%s is not empty", name)
		}
	}
}

// emptied names the lists that are empty on purpose.
func emptied(s model.PortSettings) (names []string) {
	for _, l := range []struct {
		name  string
		empty bool
	}{
		{"allowedAddresses", s.AllowedAddresses != nil && len(s.AllowedAddresses) == 0},
		{"mirrors", s.Mirrors != nil && len(s.Mirrors) == 0},
		{"accessLists", s.AccessLists != nil && len(s.AccessLists) == 0},
	} {
		if l.empty {
			names = append(names, l.name)
		}
	}
	return names
}

func (rd *reader) mirror(at string, m *weftv1.Mirror) model.Mirror {
	out := model.Mirror{Destination: m.GetDestination(), Direction: model.Direction(m.GetDirection()), SnapLength: m.GetSnapLength(), RateLimit: m.GetRateLimit(),
		Protocol: m.GetProtocol(), Port: uint16(m.GetPort())}
	if m.GetPrefix() != "" {
		out.Prefix = rd.prefix(at+".prefix", m.GetPrefix())
	}
	if m.GetPort() > math.MaxUint16 {
		rd.fail(at+".port", "%d is not a port; use 1 to 65535", m.GetPort())
	}
	return out
}

func writeMirror(m model.Mirror) *weftv1.Mirror {
	out := &weftv1.Mirror{Destination: m.Destination, Direction: string(m.Direction), SnapLength: m.SnapLength, RateLimit: m.RateLimit,
		Protocol: m.Protocol, Port: uint32(m.Port)}
	if m.Prefix.IsValid() {
		out.Prefix = m.Prefix.String()
	}
	return out
}

func readLimit(l *weftv1.BandwidthLimit) model.BandwidthLimit {
	return model.BandwidthLimit{Maximum: l.GetMaximum(), Burst: l.GetBurst(), Minimum: l.GetMinimum(), Weight: l.GetWeight()}
}

func (rd *reader) vlan(v *weftv1.Vlan) *model.VLAN {
	out := &model.VLAN{Network: v.GetNetwork(), Mode: model.VLANMode(v.GetMode()), ID: rd.vlanID("spec.vlan.id", v.GetId()),
		Native: rd.vlanID("spec.vlan.native", v.GetNative()), Allowed: rd.ranges("spec.vlan.allowed", v.GetAllowed()), Prune: rd.ranges("spec.vlan.prune", v.GetPrune())}
	if p := v.GetPrivate(); p != nil {
		out.Private = &model.PrivateVLAN{Mode: model.IsolationMode(p.GetMode()),
			Primary: rd.vlanID("spec.vlan.private.primary", p.GetPrimary()), Secondary: rd.vlanID("spec.vlan.private.secondary", p.GetSecondary())}
		for i, id := range p.GetSecondaries() {
			out.Private.Secondaries = append(out.Private.Secondaries, rd.vlanID(index("spec.vlan.private.secondaries", i), id))
		}
	}
	return out
}

// vlanID only makes id fit; admission says which ids there are.
func (rd *reader) vlanID(field string, id uint32) uint16 {
	if id > math.MaxUint16 {
		rd.fail(field, "%d is not a VLAN id; use %d to %d", id, model.MinVLAN, model.MaxVLAN)
	}
	return uint16(id)
}

func (rd *reader) ranges(field string, in []string) []model.Range {
	var out []model.Range
	for i, text := range in {
		r, err := model.ParseRange(text)
		if err != nil {
			rd.fail(index(field, i), "%v", err)
		}
		out = append(out, r)
	}
	return out
}

func writePortSettings(s model.PortSettings) *weftv1.PortProfileSpec {
	out := &weftv1.PortProfileSpec{AllowSpoofing: s.AllowSpoofing, DynamicAddressLimit: s.DynamicAddressLimit, Forwarding: s.Forwarding,
		DhcpGuard: s.DHCPGuard, RouterGuard: s.RouterGuard, AllowTeaming: s.AllowTeaming, IeeePriorityTag: s.IEEEPriorityTag,
		StormLimit: s.StormLimit, ConnectionLimit: s.ConnectionLimit, AccessLists: s.AccessLists, None: emptied(s)}
	for _, a := range s.AllowedAddresses {
		out.AllowedAddresses = append(out.AllowedAddresses, &weftv1.AllowedAddress{Prefix: a.Prefix.String(), Mac: writeMAC(a.MAC)})
	}
	if i := s.Isolation; i != nil {
		out.Isolation = &weftv1.Isolation{Mode: string(i.Mode), Community: i.Community}
	}
	if v := s.VLAN; v != nil {
		out.Vlan = &weftv1.Vlan{Network: v.Network, Mode: string(v.Mode), Id: uint32(v.ID), Native: uint32(v.Native), Allowed: writeAll(v.Allowed), Prune: writeAll(v.Prune)}
		if p := v.Private; p != nil {
			out.Vlan.Private = &weftv1.PrivateVlan{Mode: string(p.Mode), Primary: uint32(p.Primary), Secondary: uint32(p.Secondary)}
			for _, id := range p.Secondaries {
				out.Vlan.Private.Secondaries = append(out.Vlan.Private.Secondaries, uint32(id))
			}
		}
	}
	if b := s.Bandwidth; b != nil {
		out.Bandwidth = &weftv1.Bandwidth{Inbound: writeLimit(b.Inbound), Outbound: writeLimit(b.Outbound)}
	}
	for _, m := range s.Mirrors {
		out.Mirrors = append(out.Mirrors, writeMirror(m))
	}
	return out
}

// writeLimit leaves out what limits nothing.
func writeLimit(l model.BandwidthLimit) *weftv1.BandwidthLimit {
	if l == (model.BandwidthLimit{}) {
		return nil
	}
	return &weftv1.BandwidthLimit{Maximum: l.Maximum, Burst: l.Burst, Minimum: l.Minimum, Weight: l.Weight}
}
