package model

import "slices"

// ExternalNetwork is a physical network of VLANs that hosts are connected to.
type ExternalNetwork struct {
	Metadata Metadata            `json:"metadata"`
	Spec     ExternalNetworkSpec `json:"spec"`
}

// ExternalNetworkSpec is what people say of an external network.
type ExternalNetworkSpec struct {
	Interfaces []ExternalInterface `json:"interfaces"`
	Tenants    []string            `json:"tenants,omitempty"` // whose ports may be on it; AnyTenant: everybody's
}

// ExternalInterface is the device by which some hosts are connected: those named, those with all of the labels, or,
// where it says neither, all.
type ExternalInterface struct {
	Hosts     []string          `json:"hosts,omitempty"`
	Labels    map[string]string `json:"labels,omitempty"`
	Interface string            `json:"interface"`
}

// AnyTenant among the tenants of an external network is every tenant.
const AnyTenant = "*"

// Lets tells whether ports of a tenant may be on the network.
func (s ExternalNetworkSpec) Lets(tenant string) bool {
	return slices.Contains(s.Tenants, tenant) || slices.Contains(s.Tenants, AnyTenant)
}

// InterfaceOf gives the device of a host with the labels: of the first that is for it; "" where none is.
func (s ExternalNetworkSpec) InterfaceOf(host string, labels map[string]string) string {
	for _, i := range s.Interfaces {
		if i.isFor(host, labels) {
			return i.Interface
		}
	}
	return ""
}

func (i ExternalInterface) isFor(host string, labels map[string]string) bool {
	if len(i.Hosts) == 0 && len(i.Labels) == 0 || slices.Contains(i.Hosts, host) {
		return true
	}
	for k, v := range i.Labels {
		if labels[k] != v {
			return false
		}
	}
	return len(i.Labels) > 0
}
