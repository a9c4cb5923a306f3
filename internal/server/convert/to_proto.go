package convert

import (
	"net/netip"

	"google.golang.org/protobuf/types/known/timestamppb"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
)

// WriteResource turns a resource of ours into one of the API, with a status that may be nil.
func WriteResource(r model.Resource, status *weftv1.Status) *weftv1.Resource {
	m := writeMeta(r.Meta())
	switch r := r.(type) {
	case *model.Tenant:
		return &weftv1.Resource{Kind: &weftv1.Resource_Tenant{Tenant: &weftv1.Tenant{Metadata: m, Status: status,
			Spec: &weftv1.TenantSpec{Description: r.Spec.Description}}}}
	case *model.Host:
		return &weftv1.Resource{Kind: &weftv1.Resource_Host{Host: &weftv1.Host{Metadata: m, Status: status,
			Spec: &weftv1.HostSpec{Description: r.Spec.Description, RewritePrefixes: writeAll(r.Spec.RewritePrefixes), UplinkBandwidth: r.Spec.UplinkBandwidth}}}}
	case *model.ProviderAddress:
		return &weftv1.Resource{Kind: &weftv1.Resource_ProviderAddress{ProviderAddress: &weftv1.ProviderAddress{Metadata: m, Status: status,
			Spec: &weftv1.ProviderAddressSpec{Host: r.Spec.Host, Address: Addr(r.Spec.Address)}}}}
	case *model.ProviderRoute:
		return &weftv1.Resource{Kind: &weftv1.Resource_ProviderRoute{ProviderRoute: &weftv1.ProviderRoute{Metadata: m, Status: status,
			Spec: &weftv1.ProviderRouteSpec{Host: r.Spec.Host, Prefix: r.Spec.Prefix.String(), NextHop: Addr(r.Spec.NextHop),
				Interface: r.Spec.Interface, Metric: r.Spec.Metric}}}}
	case *model.VirtualNetwork:
		return &weftv1.Resource{Kind: &weftv1.Resource_VirtualNetwork{VirtualNetwork: &weftv1.VirtualNetwork{Metadata: m, Status: status,
			Spec: &weftv1.VirtualNetworkSpec{Rdid: r.Spec.RDID, UseExternalRouter: r.Spec.UseExternalRouter, AccessLists: r.Spec.AccessLists, RewriteFamilies: familyNames(r.Spec.RewriteFamilies),
				RewriteOver: string(r.Spec.RewriteOver)}}}}
	case *model.VirtualSubnet:
		return &weftv1.Resource{Kind: &weftv1.Resource_VirtualSubnet{VirtualSubnet: &weftv1.VirtualSubnet{Metadata: m, Status: status,
			Spec: &weftv1.VirtualSubnetSpec{Network: r.Spec.Network, Vsid: uint32(r.Spec.VSID), Prefixes: writeAll(r.Spec.Prefixes),
				Gateway: writeAll(r.Spec.Gateway), Transport: string(r.Spec.Transport),
				Flood: string(r.Spec.Flood), MulticastAddress: Addr(r.Spec.MulticastAddress), StormLimit: r.Spec.StormLimit, MssClamp: r.Spec.MSSClamp,
				AccessLists: r.Spec.AccessLists}}}}
	case *model.AddressGroup:
		return &weftv1.Resource{Kind: &weftv1.Resource_AddressGroup{AddressGroup: &weftv1.AddressGroup{Metadata: m, Status: status,
			Spec: &weftv1.AddressGroupSpec{Prefixes: writeAll(r.Spec.Prefixes), Ports: r.Spec.Ports, Groups: r.Spec.Groups}}}}
	case *model.AccessList:
		return &weftv1.Resource{Kind: &weftv1.Resource_AccessList{AccessList: &weftv1.AccessList{Metadata: m, Status: status,
			Spec: writeAccessListSpec(r.Spec)}}}
	case *model.ExternalNetwork:
		spec := &weftv1.ExternalNetworkSpec{Tenants: r.Spec.Tenants}
		for _, i := range r.Spec.Interfaces {
			spec.Interfaces = append(spec.Interfaces, &weftv1.ExternalInterface{Hosts: i.Hosts, Labels: i.Labels, Interface: i.Interface})
		}
		return &weftv1.Resource{Kind: &weftv1.Resource_ExternalNetwork{ExternalNetwork: &weftv1.ExternalNetwork{Metadata: m, Status: status, Spec: spec}}}
	case *model.PortProfile:
		return &weftv1.Resource{Kind: &weftv1.Resource_PortProfile{PortProfile: &weftv1.PortProfile{Metadata: m, Status: status,
			Spec: writePortSettings(r.Spec.PortSettings)}}}
	case *model.Port:
		spec := &weftv1.PortSpec{Subnet: r.Spec.Subnet, Mac: writeMAC(r.Spec.MAC), Addresses: writeAll(r.Spec.Addresses), Host: r.Spec.Host, Profile: r.Spec.Profile,
			Acl: writeBasicRules(r.Spec.ACL)}
		copyFields(writePortSettings(r.Spec.PortSettings).ProtoReflect(), spec.ProtoReflect())
		return &weftv1.Resource{Kind: &weftv1.Resource_Port{Port: &weftv1.Port{Metadata: m, Status: status, Spec: spec}}}
	case *model.CustomerRoute:
		return &weftv1.Resource{Kind: &weftv1.Resource_CustomerRoute{CustomerRoute: &weftv1.CustomerRoute{Metadata: m, Status: status,
			Spec: &weftv1.CustomerRouteSpec{Network: r.Spec.Network, Prefix: r.Spec.Prefix.String(),
				NextHop: Addr(r.Spec.NextHop), Metric: r.Spec.Metric}}}}
	case *model.LookupRecord:
		return &weftv1.Resource{Kind: &weftv1.Resource_LookupRecord{LookupRecord: &weftv1.LookupRecord{Metadata: m, Status: status,
			Spec: &weftv1.LookupRecordSpec{Type: string(r.Spec.Type), Port: r.Spec.Port, Subnet: r.Spec.Subnet, CustomerAddress: Addr(r.Spec.CustomerAddress),
				Mac: writeMAC(r.Spec.MAC), ProviderAddress: Addr(r.Spec.ProviderAddress)}}}}
	}
	return nil
}

func writeMeta(m *model.Metadata) *weftv1.Metadata {
	out := &weftv1.Metadata{Tenant: m.Tenant, Name: m.Name, Uid: m.UID, Labels: m.Labels, Generation: m.Generation, Revision: m.Revision}
	if !m.CreatedAt.IsZero() {
		out.CreatedAt = timestamppb.New(m.CreatedAt)
	}
	return out
}

// Addr is an address as text; the invalid one is empty.
func Addr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func writeMAC(m model.MAC) string {
	if m.IsZero() {
		return ""
	}
	return m.String()
}

func writeAll[T interface{ String() string }](in []T) []string {
	out := make([]string, 0, len(in))
	for _, v := range in {
		out = append(out, v.String())
	}
	return out
}

func familyNames(in []model.Family) (out []string) {
	for _, f := range in {
		out = append(out, string(f))
	}
	return out
}

// WriteKey turns a key of ours into one of the API.
func WriteKey(k model.Key) *weftv1.Key {
	return &weftv1.Key{Kind: string(k.Kind), Tenant: k.Tenant, Name: k.Name}
}

// WriteViolations turns admission's violations into the detail of an error.
func WriteViolations(in []intent.Violation) *weftv1.Violations {
	out := &weftv1.Violations{}
	for _, v := range in {
		p := &weftv1.Violation{Field: v.Field, Message: v.Message}
		if v.Key != (model.Key{}) {
			p.Key = WriteKey(v.Key)
		}
		out.Violations = append(out.Violations, p)
	}
	return out
}
