// Package convert turns resources of the API into those of the model and back.
//
// Invariants: strict: text that is not what its field holds, and fields that this
// build does not know, are violations with the field's path. What is written can be
// read back to the same. It must never judge what the values mean together (package
// intent does), nor know of the store or the hosts.
package convert

import (
	"fmt"
	"net/netip"

	"google.golang.org/protobuf/reflect/protoreflect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
)

// reader turns one resource of the API into ours and collects what it cannot read.
// What only the system writes (status, uid, generation, time of creation) is ignored,
// so that what was read can be written back.
type reader struct {
	key        model.Key
	violations []intent.Violation
}

// ReadResources turns a request's resources into ours, or says what is wrong with them.
func ReadResources(in []*weftv1.Resource) ([]model.Resource, []intent.Violation) {
	var out []model.Resource
	var violations []intent.Violation
	for i, p := range in {
		r, v := readOne(p)
		if r == nil && len(v) == 0 {
			v = []intent.Violation{{Field: fmt.Sprintf("resources[%d]", i), Message: "holds no kind that this server knows"}}
		}
		violations = append(violations, v...)
		if r != nil {
			out = append(out, r)
		}
	}
	return out, violations
}

func readOne(p *weftv1.Resource) (model.Resource, []intent.Violation) {
	var rd reader
	r := rd.resource(p)
	if r == nil {
		return nil, rd.violations
	}
	if field := unknownField(p.ProtoReflect(), ""); field != "" {
		rd.fail(field, "holds fields that this server does not know; upgrade the server or use an older client")
	}
	return r, rd.violations
}

func (rd *reader) resource(p *weftv1.Resource) model.Resource {
	switch k := p.GetKind().(type) {
	case *weftv1.Resource_Tenant:
		m := rd.meta(model.KindTenant, k.Tenant.GetMetadata())
		return &model.Tenant{Metadata: m, Spec: model.TenantSpec{Description: k.Tenant.GetSpec().GetDescription()}}
	case *weftv1.Resource_Host:
		m := rd.meta(model.KindHost, k.Host.GetMetadata())
		r := &model.Host{Metadata: m, Spec: model.HostSpec{Description: k.Host.GetSpec().GetDescription()}}
		r.Spec.UplinkBandwidth = k.Host.GetSpec().GetUplinkBandwidth()
		for i, t := range k.Host.GetSpec().GetRewritePrefixes() {
			r.Spec.RewritePrefixes = append(r.Spec.RewritePrefixes, rd.prefix(index("spec.rewritePrefixes", i), t))
		}
		return r
	case *weftv1.Resource_ProviderAddress:
		m, s := rd.meta(model.KindProviderAddress, k.ProviderAddress.GetMetadata()), k.ProviderAddress.GetSpec()
		return &model.ProviderAddress{Metadata: m, Spec: model.ProviderAddressSpec{
			Host: s.GetHost(), Address: rd.addr("spec.address", s.GetAddress())}}
	case *weftv1.Resource_ProviderRoute:
		m, s := rd.meta(model.KindProviderRoute, k.ProviderRoute.GetMetadata()), k.ProviderRoute.GetSpec()
		return &model.ProviderRoute{Metadata: m, Spec: model.ProviderRouteSpec{Host: s.GetHost(), Prefix: rd.prefix("spec.prefix", s.GetPrefix()),
			NextHop: rd.addr("spec.nextHop", s.GetNextHop()), Interface: s.GetInterface(), Metric: s.GetMetric()}}
	case *weftv1.Resource_VirtualNetwork:
		m := rd.meta(model.KindVirtualNetwork, k.VirtualNetwork.GetMetadata())
		return &model.VirtualNetwork{Metadata: m, Spec: model.VirtualNetworkSpec{
			RDID: k.VirtualNetwork.GetSpec().GetRdid(), UseExternalRouter: k.VirtualNetwork.GetSpec().GetUseExternalRouter(),
			AccessLists: k.VirtualNetwork.GetSpec().GetAccessLists(), RewriteFamilies: families(k.VirtualNetwork.GetSpec().GetRewriteFamilies()),
			RewriteOver: model.Family(k.VirtualNetwork.GetSpec().GetRewriteOver())}}
	case *weftv1.Resource_VirtualSubnet:
		return rd.virtualSubnet(k.VirtualSubnet)
	case *weftv1.Resource_AddressGroup:
		return rd.addressGroup(k.AddressGroup)
	case *weftv1.Resource_AccessList:
		return rd.accessList(k.AccessList)
	case *weftv1.Resource_ExternalNetwork:
		r := &model.ExternalNetwork{Metadata: rd.meta(model.KindExternalNetwork, k.ExternalNetwork.GetMetadata())}
		r.Spec.Tenants = k.ExternalNetwork.GetSpec().GetTenants()
		for _, i := range k.ExternalNetwork.GetSpec().GetInterfaces() {
			r.Spec.Interfaces = append(r.Spec.Interfaces, model.ExternalInterface{Hosts: i.GetHosts(), Labels: i.GetLabels(), Interface: i.GetInterface()})
		}
		return r
	case *weftv1.Resource_PortProfile:
		m := rd.meta(model.KindPortProfile, k.PortProfile.GetMetadata())
		return &model.PortProfile{Metadata: m, Spec: model.PortProfileSpec{PortSettings: rd.portSettings(k.PortProfile.GetSpec())}}
	case *weftv1.Resource_Port:
		return rd.port(k.Port)
	case *weftv1.Resource_CustomerRoute:
		m, s := rd.meta(model.KindCustomerRoute, k.CustomerRoute.GetMetadata()), k.CustomerRoute.GetSpec()
		return &model.CustomerRoute{Metadata: m, Spec: model.CustomerRouteSpec{
			Network: s.GetNetwork(), Prefix: rd.prefix("spec.prefix", s.GetPrefix()),
			NextHop: rd.addr("spec.nextHop", s.GetNextHop()), Metric: s.GetMetric()}}
	case *weftv1.Resource_LookupRecord:
		m, s := rd.meta(model.KindLookupRecord, k.LookupRecord.GetMetadata()), k.LookupRecord.GetSpec()
		r := &model.LookupRecord{Metadata: m, Derived: k.LookupRecord.GetStatus().GetDerived()}
		if r.Derived {
			return r // refused by admission, whatever is in it
		}
		r.Spec = model.LookupRecordSpec{Type: model.RecordType(s.GetType()), Subnet: s.GetSubnet(),
			CustomerAddress: rd.addr("spec.customerAddress", s.GetCustomerAddress()), Port: s.GetPort(),
			MAC: rd.mac("spec.mac", s.GetMac()), ProviderAddress: rd.addr("spec.providerAddress", s.GetProviderAddress())}
		return r
	}
	return nil
}

func (rd *reader) virtualSubnet(p *weftv1.VirtualSubnet) model.Resource {
	r, s := &model.VirtualSubnet{Metadata: rd.meta(model.KindVirtualSubnet, p.GetMetadata())}, p.GetSpec()
	r.Spec.Network, r.Spec.VSID, r.Spec.Transport = s.GetNetwork(), model.VSID(s.GetVsid()), model.Transport(s.GetTransport())
	r.Spec.Flood, r.Spec.StormLimit, r.Spec.MSSClamp = model.Flood(s.GetFlood()), s.GetStormLimit(), s.GetMssClamp()
	r.Spec.AccessLists = s.GetAccessLists()
	r.Spec.MulticastAddress = rd.addr("spec.multicastAddress", s.GetMulticastAddress())
	for i, t := range s.GetPrefixes() {
		r.Spec.Prefixes = append(r.Spec.Prefixes, rd.prefix(index("spec.prefixes", i), t))
	}
	for i, t := range s.GetGateway() {
		r.Spec.Gateway = append(r.Spec.Gateway, rd.required(index("spec.gateway", i), t))
	}
	return r
}

func (rd *reader) port(p *weftv1.Port) model.Resource {
	r, s := &model.Port{Metadata: rd.meta(model.KindPort, p.GetMetadata())}, p.GetSpec()
	r.Spec = model.PortSpec{Subnet: s.GetSubnet(), MAC: rd.mac("spec.mac", s.GetMac()), Host: s.GetHost(), Profile: s.GetProfile()}
	settings := &weftv1.PortProfileSpec{}
	copyFields(s.ProtoReflect(), settings.ProtoReflect())
	r.Spec.PortSettings, r.Spec.ACL = rd.portSettings(settings), rd.basicRules(s.GetAcl())
	for i, t := range s.GetAddresses() {
		r.Spec.Addresses = append(r.Spec.Addresses, rd.required(index("spec.addresses", i), t))
	}
	return r
}

func (rd *reader) fail(field, format string, args ...any) {
	rd.violations = append(rd.violations, intent.Violation{Key: rd.key, Field: field, Message: fmt.Sprintf(format, args...)})
}

func (rd *reader) meta(kind model.Kind, m *weftv1.Metadata) model.Metadata {
	rd.key = model.Key{Kind: kind, Ref: model.Ref{Tenant: m.GetTenant(), Name: m.GetName()}}
	if m == nil {
		rd.fail("metadata", "is required")
	}
	if m.GetRevision() < 0 {
		rd.fail("metadata.revision", "must not be negative")
	}
	return model.Metadata{Tenant: m.GetTenant(), Name: m.GetName(), Labels: m.GetLabels(), Revision: m.GetRevision()}
}

// addr reads an address; empty text is the invalid address, which admission refuses
// by its own words where one is required.
func (rd *reader) addr(field, text string) netip.Addr {
	if text == "" {
		return netip.Addr{}
	}
	return rd.required(field, text)
}

func (rd *reader) required(field, text string) netip.Addr {
	a, err := netip.ParseAddr(text)
	if err != nil {
		rd.fail(field, "%.60q is not an IP address", text)
	}
	return a
}

func (rd *reader) prefix(field, text string) netip.Prefix {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		rd.fail(field, "%.60q is not a prefix like 10.0.0.0/24", text)
	}
	return p
}

func (rd *reader) mac(field, text string) model.MAC {
	if text == "" {
		return model.MAC{}
	}
	m, err := model.ParseMAC(text)
	if err != nil || m.IsZero() {
		rd.fail(field, "%.40q is not a MAC address like 02:00:00:00:00:01", text)
	}
	return m
}

func index(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

// ReadKey turns a key of the API into ours.
func ReadKey(k *weftv1.Key) model.Key {
	return model.Key{Kind: model.Kind(k.GetKind()), Ref: model.Ref{Tenant: k.GetTenant(), Name: k.GetName()}}
}

var resourceName = (&weftv1.Resource{}).ProtoReflect().Descriptor().FullName()

// unknownField gives the path of the first message inside m that carries fields
// which this build does not know, or "".
func unknownField(m protoreflect.Message, path string) string {
	if len(m.GetUnknown()) > 0 {
		return orWord(path, string(m.Descriptor().Name()))
	}
	found := ""
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if f.Message() == nil || f.IsMap() {
			return true
		}
		if f.IsList() {
			if f.Message().FullName() == resourceName {
				return true // ReadResources says it of each
			}
			for i := 0; i < v.List().Len() && found == ""; i++ {
				found = unknownField(v.List().Get(i).Message(), index(joinPath(path, f.JSONName()), i))
			}
			return found == ""
		}
		if f.ContainingOneof() != nil {
			found = unknownField(v.Message(), path)
		} else {
			found = unknownField(v.Message(), joinPath(path, f.JSONName()))
		}
		return found == ""
	})
	return found
}

func joinPath(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func orWord(s, word string) string {
	if s == "" {
		return word
	}
	return s
}

func families(in []string) (out []model.Family) {
	for _, f := range in {
		out = append(out, model.Family(f))
	}
	return out
}
