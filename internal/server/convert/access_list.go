package convert

import (
	"math"
	"net/netip"
	"slices"
	"time"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/model"
)

func (rd *reader) addressGroup(p *weftv1.AddressGroup) model.Resource {
	r, s := &model.AddressGroup{Metadata: rd.meta(model.KindAddressGroup, p.GetMetadata())}, p.GetSpec()
	r.Spec = model.AddressGroupSpec{Prefixes: rd.prefixes("spec.prefixes", s.GetPrefixes()), Ports: s.GetPorts(), Groups: s.GetGroups()}
	return r
}

func (rd *reader) accessList(p *weftv1.AccessList) model.Resource {
	r, s := &model.AccessList{Metadata: rd.meta(model.KindAccessList, p.GetMetadata())}, p.GetSpec()
	r.Spec = model.AccessListSpec{Tier: model.Tier(s.GetTier()), Mode: model.ListMode(s.GetMode()), Default: model.ListDefault{
		Inbound: model.RuleAction(s.GetDefault().GetInbound()), Outbound: model.RuleAction(s.GetDefault().GetOutbound())}}
	for i, rule := range s.GetRules() {
		r.Spec.Rules = append(r.Spec.Rules, rd.accessRule(index("spec.rules", i), rule))
	}
	return r
}

func (rd *reader) accessRule(at string, p *weftv1.AccessRule) model.AccessRule {
	r := model.AccessRule{Name: p.GetName(), Direction: model.Direction(p.GetDirection()), Action: model.RuleAction(p.GetAction()),
		Log: p.GetLog(), Protocol: p.GetProtocol(), Remote: rd.ruleAddresses(at+".remote", p.GetRemote()), Local: rd.ruleAddresses(at+".local", p.GetLocal()),
		LocalPorts: rd.ranges(at+".localPorts", p.GetLocalPorts()), RemotePorts: rd.ranges(at+".remotePorts", p.GetRemotePorts()),
		ICMPType: rd.octet(at+".icmpType", p.IcmpType), ICMPCode: rd.octet(at+".icmpCode", p.IcmpCode),
		LocalMAC: rd.mac(at+".localMAC", p.GetLocalMac()), RemoteMAC: rd.mac(at+".remoteMAC", p.GetRemoteMac()),
		Weight: uint16(p.GetWeight()), Stateful: p.GetStateful(), Source: p.GetSource()}
	if p.GetWeight() > math.MaxUint16 {
		rd.fail(at+".weight", "is %d; at most %d", p.GetWeight(), math.MaxUint16)
	}
	if text := p.GetIdleTimeout(); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			rd.fail(at+".idleTimeout", "%.40q is not a duration like 255s or 10m", text)
		}
		r.IdleTimeout = d
	}
	return r
}

func (rd *reader) ruleAddresses(at string, p *weftv1.RuleAddresses) model.RuleAddresses {
	return model.RuleAddresses{Prefixes: rd.prefixes(at+".prefixes", p.GetPrefixes()), Groups: p.GetGroups()}
}

func (rd *reader) octet(field string, v *uint32) *uint8 {
	if v == nil {
		return nil
	}
	if *v > math.MaxUint8 {
		rd.fail(field, "is %d; at most %d", *v, math.MaxUint8)
	}
	return new(uint8(*v))
}

func (rd *reader) prefixes(field string, in []string) []netip.Prefix {
	var out []netip.Prefix
	for i, text := range in {
		out = append(out, rd.prefix(index(field, i), text))
	}
	return out
}

func (rd *reader) basicRules(in []*weftv1.PortAcl) []model.BasicRule {
	var out []model.BasicRule
	for i, p := range in {
		at := index("spec.acl", i)
		out = append(out, model.BasicRule{Action: model.RuleAction(p.GetAction()), Direction: model.Direction(p.GetDirection()),
			Remote: rd.basicAddress(at+".remoteAddress", p.GetRemoteAddress()), Local: rd.basicAddress(at+".localAddress", p.GetLocalAddress()),
			RemoteMAC: rd.mac(at+".remoteMAC", p.GetRemoteMac()), LocalMAC: rd.mac(at+".localMAC", p.GetLocalMac())})
	}
	return out
}

const anyAddress = "any"

// basicAddress reads an address, a prefix or "any".
func (rd *reader) basicAddress(field, text string) []netip.Prefix {
	switch text {
	case "":
		return nil
	case anyAddress:
		return slices.Clone(model.AnyAddress)
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return []netip.Prefix{netip.PrefixFrom(a, a.BitLen())}
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		rd.fail(field, "%.60q is not an address, a prefix like 10.0.0.0/24, or any", text)
	}
	return []netip.Prefix{p}
}

func writeAccessListSpec(s model.AccessListSpec) *weftv1.AccessListSpec {
	out := &weftv1.AccessListSpec{Tier: string(s.Tier), Mode: string(s.Mode)}
	if s.Default != (model.ListDefault{}) {
		out.Default = &weftv1.ListDefault{Inbound: string(s.Default.Inbound), Outbound: string(s.Default.Outbound)}
	}
	for _, r := range s.Rules {
		out.Rules = append(out.Rules, writeRule(r))
	}
	return out
}

func writeRule(r model.AccessRule) *weftv1.AccessRule {
	out := &weftv1.AccessRule{Name: r.Name, Direction: string(r.Direction), Action: string(r.Action), Log: r.Log, Protocol: r.Protocol,
		Remote: writeAddresses(r.Remote), Local: writeAddresses(r.Local), LocalPorts: writeAll(r.LocalPorts), RemotePorts: writeAll(r.RemotePorts),
		LocalMac: writeMAC(r.LocalMAC), RemoteMac: writeMAC(r.RemoteMAC), Weight: uint32(r.Weight), Stateful: r.Stateful, Source: r.Source}
	if r.ICMPType != nil {
		out.IcmpType = new(uint32(*r.ICMPType))
	}
	if r.ICMPCode != nil {
		out.IcmpCode = new(uint32(*r.ICMPCode))
	}
	if r.IdleTimeout != 0 {
		out.IdleTimeout = r.IdleTimeout.String()
	}
	return out
}

func writeAddresses(a model.RuleAddresses) *weftv1.RuleAddresses {
	if len(a.Prefixes)+len(a.Groups) == 0 {
		return nil
	}
	return &weftv1.RuleAddresses{Prefixes: writeAll(a.Prefixes), Groups: a.Groups}
}

func writeBasicRules(all []model.BasicRule) []*weftv1.PortAcl {
	var out []*weftv1.PortAcl
	for _, r := range all {
		out = append(out, &weftv1.PortAcl{Action: string(r.Action), Direction: string(r.Direction), RemoteAddress: writeBasicAddress(r.Remote),
			LocalAddress: writeBasicAddress(r.Local), RemoteMac: writeMAC(r.RemoteMAC), LocalMac: writeMAC(r.LocalMAC)})
	}
	return out
}

func writeBasicAddress(p []netip.Prefix) string {
	switch len(p) {
	case 0:
		return ""
	case 1:
		return p[0].String()
	}
	return anyAddress
}
