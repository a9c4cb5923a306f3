package model

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// Kind names a resource type, as people write it.
type Kind string

// The kinds, in dependency order: what is referred to comes first.
const (
	KindTenant          Kind = "Tenant"
	KindHost            Kind = "Host"
	KindProviderAddress Kind = "ProviderAddress"
	KindProviderRoute   Kind = "ProviderRoute"
	KindExternalNetwork Kind = "ExternalNetwork"
	KindAddressGroup    Kind = "AddressGroup"
	KindAccessList      Kind = "AccessList"
	KindVirtualNetwork  Kind = "VirtualNetwork"
	KindVirtualSubnet   Kind = "VirtualSubnet"
	KindPortProfile     Kind = "PortProfile"
	KindPort            Kind = "Port"
	KindCustomerRoute   Kind = "CustomerRoute"
	KindLookupRecord    Kind = "LookupRecord"
)

// Kinds lists every kind in dependency order.
var Kinds = []Kind{KindTenant, KindHost, KindProviderAddress, KindProviderRoute, KindExternalNetwork, KindAddressGroup, KindAccessList, KindVirtualNetwork,
	KindVirtualSubnet, KindPortProfile, KindPort, KindCustomerRoute, KindLookupRecord}

// Tenanted reports whether resources of the kind live inside a tenant.
func (k Kind) Tenanted() bool {
	return k != KindTenant && k != KindHost && k != KindProviderAddress && k != KindProviderRoute && k != KindExternalNetwork
}

// Ref names a tenanted resource: "red/web-1". Tenant is empty for the others.
type Ref struct{ Tenant, Name string }

func (r Ref) String() string {
	if r.Tenant == "" {
		return r.Name
	}
	return r.Tenant + "/" + r.Name
}

// Key identifies any resource.
type Key struct {
	Kind Kind
	Ref
}

func (k Key) String() string { return string(k.Kind) + " " + k.Ref.String() }

// Metadata is common to all resources. Generation counts changes of the spec;
// Revision is the store's revision of the last change (0: not stored).
type Metadata struct {
	Tenant     string            `json:"tenant,omitempty"`
	Name       string            `json:"name"`
	UID        string            `json:"uid,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Generation int64             `json:"generation,omitempty"`
	Revision   int64             `json:"revision,omitempty"`
	CreatedAt  time.Time         `json:"createdAt,omitzero"`
}

// Ref of the resource that carries m.
func (m Metadata) Ref() Ref { return Ref{m.Tenant, m.Name} }

// Resource is any of the kinds below, always handled by pointer.
type Resource interface {
	Kind() Kind
	Meta() *Metadata
}

// KeyOf identifies r.
func KeyOf(r Resource) Key { return Key{r.Kind(), r.Meta().Ref()} }

// Transport carries a subnet's packets between hosts.
type Transport string

// The transports.
const (
	TransportNVGRE   Transport = "nvgre"
	TransportVXLAN   Transport = "vxlan"
	TransportRewrite Transport = "rewrite"
)

// Family is a family of IP addresses.
type Family string

// The families.
const (
	IPv4 Family = "ipv4"
	IPv6 Family = "ipv6"
)

// FamilyOf tells the family of a, which is not IPv4-mapped.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// TransportID is the dense form of a Transport, which rows carry.
type TransportID uint8

// The transports as rows carry them.
const (
	NVGRE TransportID = iota
	VXLAN
	Rewrite
)

var transportNames = [...]Transport{TransportNVGRE, TransportVXLAN, TransportRewrite}

// ID is the dense form of t; an unknown transport is NVGRE, which is the default.
func (t Transport) ID() TransportID {
	return TransportID(max(0, slices.Index(transportNames[:], t)))
}

// Valid reports whether id names a transport.
func (id TransportID) Valid() bool { return int(id) < len(transportNames) }

func (id TransportID) String() string {
	if !id.Valid() {
		return fmt.Sprintf("transport %d", uint8(id))
	}
	return string(transportNames[id])
}

// Flood says what a subnet floods.
type Flood string

// The ways to flood. FloodL3 floods nothing but what finds L2Only ports; in an L2 subnet
// broadcast and multicast reach every port.
const (
	FloodL3 Flood = "l3"
	FloodL2 Flood = "l2"
)

// DefaultStormLimit is how many packets a second one port may have flooded when policy does not say.
const DefaultStormLimit = 1000

// Tenant owns virtual networks and everything in them.
type Tenant struct {
	Metadata Metadata   `json:"metadata"`
	Spec     TenantSpec `json:"spec"`
}

// TenantSpec is what people say of a tenant.
type TenantSpec struct {
	Description string `json:"description,omitempty"`
}

// VirtualNetwork is one routing domain.
type VirtualNetwork struct {
	Metadata Metadata           `json:"metadata"`
	Spec     VirtualNetworkSpec `json:"spec"`
	// Index is allocated by the server and carried by the data plane.
	Index NetworkIndex `json:"index,omitempty"`
}

// VirtualNetworkSpec is what people say of a virtual network.
type VirtualNetworkSpec struct {
	RDID string `json:"rdid,omitempty"` // GUID; allocated when empty
	// UseExternalRouter leaves traffic between subnets to the routers that customer routes
	// name (hnv 1.2, NetVirtualizationGlobal): on-link routes lead no guest out of its subnet.
	UseExternalRouter bool `json:"useExternalRouter,omitempty"`
	// AccessLists judge the packets of every port of the network.
	AccessLists []string `json:"accessLists,omitempty"`
	// RewriteFamilies are those whose Customer Addresses the network's rewrite subnets rewrite; none: both. What is of
	// another family goes by NVGRE, so it needs no Provider Addresses of its own family.
	RewriteFamilies []Family `json:"rewriteFamilies,omitempty"`
	// RewriteOver is the family of the Provider Addresses that stand for Customer Addresses of either; empty: each for its own.
	RewriteOver Family `json:"rewriteOver,omitempty"`
}

// Rewrites tells whether rewrite subnets of n rewrite addresses of the family of ca.
func (n *VirtualNetwork) Rewrites(ca netip.Addr) bool {
	return len(n.Spec.RewriteFamilies) == 0 || slices.Contains(n.Spec.RewriteFamilies, FamilyOf(ca))
}

// RewriteFamily is that of the Provider Address which stands for ca in rewrite subnets of n.
func (n *VirtualNetwork) RewriteFamily(ca netip.Addr) Family {
	return cmp.Or(n.Spec.RewriteOver, FamilyOf(ca))
}

// VirtualSubnet is one broadcast boundary of a virtual network.
type VirtualSubnet struct {
	Metadata Metadata          `json:"metadata"`
	Spec     VirtualSubnetSpec `json:"spec"`
}

// VirtualSubnetSpec is what people say of a virtual subnet.
type VirtualSubnetSpec struct {
	Network   string         `json:"network"`
	VSID      VSID           `json:"vsid,omitempty"` // allocated when 0
	Prefixes  []netip.Prefix `json:"prefixes"`       // disjoint inside the network; at most one per family
	Gateway   []netip.Addr   `json:"gateway,omitempty"`
	Transport Transport      `json:"transport,omitempty"`
	Flood     Flood          `json:"flood,omitempty"`
	// MSSClamp lowers the MSS that TCP connections of the subnet begin with to what the path carries.
	MSSClamp bool `json:"mssClamp,omitempty"`
	// MulticastAddress is a PA of multicast range that all hosts of the subnet listen to; invalid:
	// each host gets a copy of its own.
	MulticastAddress netip.Addr `json:"multicastAddress,omitzero"`
	StormLimit       uint32     `json:"stormLimit,omitempty"` // packets per second of one port; 0: DefaultStormLimit
	// AccessLists judge the packets of every port of the subnet.
	AccessLists []string `json:"accessLists,omitempty"`
}

// Port is where one VM NIC meets the switch.
type Port struct {
	Metadata Metadata `json:"metadata"`
	Spec     PortSpec `json:"spec"`
	// ID is allocated by the server and carried by the data plane.
	ID PortID `json:"id,omitempty"`
	// BoundHost is the host of the first plug, when Spec.Host does not say.
	BoundHost string `json:"boundHost,omitempty"`
	// Learned are the addresses that the guest was seen to use, the oldest first.
	Learned []netip.Addr `json:"learned,omitempty"`
	// RewriteAddresses are the Provider Addresses that stand for Spec.Addresses in the underlay,
	// one each and in their order, while the port is on a host and in a rewrite subnet; invalid for those of a family
	// that the network does not rewrite.
	// Allocated by the server out of the host's RewritePrefixes.
	RewriteAddresses []netip.Addr `json:"rewriteAddresses,omitempty"`
}

// PortSpec is what people say of a port.
type PortSpec struct {
	Subnet    string       `json:"subnet"`
	MAC       MAC          `json:"mac,omitzero"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	Host      string       `json:"host,omitempty"`
	Profile   string       `json:"profile,omitempty"` // what PortSettings leaves out; empty: the defaults
	PortSettings
	// ACL is the basic access list of this port (hnv 5.3).
	ACL []BasicRule `json:"acl,omitempty"`
}

// RewriteOf is the Provider Address that stands for ca in the underlay; invalid when none does.
func (p *Port) RewriteOf(ca netip.Addr) netip.Addr {
	if i := slices.Index(p.Spec.Addresses, ca); i >= 0 && i < len(p.RewriteAddresses) {
		return p.RewriteAddresses[i]
	}
	return netip.Addr{}
}

// CAs gives all addresses of the port: those of its spec, and what was learned.
func (p *Port) CAs() []netip.Addr {
	return append(slices.Clone(p.Spec.Addresses), p.Learned...)
}

// Host is the host where the port is, or "".
func (p *Port) Host() string {
	if p.Spec.Host != "" {
		return p.Spec.Host
	}
	return p.BoundHost
}

// Host is one hypervisor.
type Host struct {
	Metadata Metadata `json:"metadata"`
	Spec     HostSpec `json:"spec"`
}

// HostSpec is what people say of a host.
type HostSpec struct {
	Description string `json:"description,omitempty"`
	// RewritePrefixes are led to the host by the underlay, and given out one address per
	// Customer Address of the rewrite subnets' ports there.
	RewritePrefixes []netip.Prefix `json:"rewritePrefixes,omitempty"`
	// UplinkBandwidth is what each uplink carries, in bit/s; 0: what its device says.
	UplinkBandwidth int64 `json:"uplinkBandwidth,omitempty"`
}

// ProviderAddress is one address of a host on the physical network.
type ProviderAddress struct {
	Metadata Metadata            `json:"metadata"`
	Spec     ProviderAddressSpec `json:"spec"`
	// State is what the host said last, Owner who has a Duplicate as well.
	State AddressState `json:"state,omitempty"`
	Owner MAC          `json:"owner,omitzero"`
}

// ProviderAddressSpec is what people say of a PA.
type ProviderAddressSpec struct {
	Host    string     `json:"host"`
	Address netip.Addr `json:"address"`
}

// ProviderRoute leads packets between hosts to a prefix of the underlay, from one host
// (hnv 1.2). Several with the same prefix and metric share the load.
type ProviderRoute struct {
	Metadata Metadata          `json:"metadata"`
	Spec     ProviderRouteSpec `json:"spec"`
}

// ProviderRouteSpec is what people say of a provider route.
type ProviderRouteSpec struct {
	Host    string       `json:"host"`
	Prefix  netip.Prefix `json:"prefix"`
	NextHop netip.Addr   `json:"nextHop,omitzero"` // invalid: on-link
	// Interface is a device of the host; empty: where the next hop is on-link.
	Interface string `json:"interface,omitempty"`
	Metric    uint32 `json:"metric,omitempty"` // the lowest wins
}

// CustomerRoute leads a prefix of a virtual network to a next hop (hnv 1.2).
type CustomerRoute struct {
	Metadata Metadata          `json:"metadata"`
	Spec     CustomerRouteSpec `json:"spec"`
}

// CustomerRouteSpec is what people say of a customer route.
type CustomerRouteSpec struct {
	Network string       `json:"network"`
	Prefix  netip.Prefix `json:"prefix"`
	NextHop netip.Addr   `json:"nextHop"` // a CA inside a subnet of the network
	Metric  uint32       `json:"metric,omitempty"`
}

// RecordType says where a lookup record comes from and what it stands for (hnv 1.2).
type RecordType string

// The types. An unspecified CA (0.0.0.0, ::) stands for its whole family.
const (
	// RecordStatic was written by people, or follows from a port or a gateway.
	RecordStatic RecordType = "Static"
	// RecordDynamic was learned from what a guest and its DHCP server said.
	RecordDynamic RecordType = "Dynamic"
	// RecordL2Only knows a MAC whose addresses are still to be learned; the CA is unspecified.
	RecordL2Only RecordType = "L2Only"
	// RecordGatewayWildcard stands for every address that policy does not know; the CA is unspecified.
	RecordGatewayWildcard RecordType = "GatewayWildcard"
)

// LookupRecord places a CA that no Port places, or says what stands for all that no
// record places (hnv 1.2). Records that follow from ports are derived and read-only.
type LookupRecord struct {
	Metadata Metadata         `json:"metadata"`
	Spec     LookupRecordSpec `json:"spec"`
	Derived  bool             `json:"derived,omitempty"`
	// Rewrite is the rule of hnv 1.4, written by the server in rewrite subnets: the Provider
	// Address stands for this one Customer Address. Without, the PA is a host's, and packets to
	// it are encapsulated.
	Rewrite bool `json:"rewrite,omitempty"`
}

// LookupRecordSpec is what people say of a record.
type LookupRecordSpec struct {
	Type            RecordType `json:"type,omitempty"`
	Subnet          string     `json:"subnet"`
	CustomerAddress netip.Addr `json:"customerAddress"`
	MAC             MAC        `json:"mac,omitzero"`
	ProviderAddress netip.Addr `json:"providerAddress,omitzero"`
	// Port names a port of the subnet that is meant instead of a MAC and a PA.
	Port string `json:"port,omitempty"`
}

func (*Tenant) Kind() Kind          { return KindTenant }
func (*VirtualNetwork) Kind() Kind  { return KindVirtualNetwork }
func (*VirtualSubnet) Kind() Kind   { return KindVirtualSubnet }
func (*AddressGroup) Kind() Kind    { return KindAddressGroup }
func (*AccessList) Kind() Kind      { return KindAccessList }
func (*ExternalNetwork) Kind() Kind { return KindExternalNetwork }
func (*PortProfile) Kind() Kind     { return KindPortProfile }
func (*Port) Kind() Kind            { return KindPort }
func (*Host) Kind() Kind            { return KindHost }
func (*ProviderAddress) Kind() Kind { return KindProviderAddress }
func (*ProviderRoute) Kind() Kind   { return KindProviderRoute }
func (*CustomerRoute) Kind() Kind   { return KindCustomerRoute }
func (*LookupRecord) Kind() Kind    { return KindLookupRecord }

func (r *Tenant) Meta() *Metadata          { return &r.Metadata }
func (r *VirtualNetwork) Meta() *Metadata  { return &r.Metadata }
func (r *VirtualSubnet) Meta() *Metadata   { return &r.Metadata }
func (r *AddressGroup) Meta() *Metadata    { return &r.Metadata }
func (r *AccessList) Meta() *Metadata      { return &r.Metadata }
func (r *ExternalNetwork) Meta() *Metadata { return &r.Metadata }
func (r *PortProfile) Meta() *Metadata     { return &r.Metadata }
func (r *Port) Meta() *Metadata            { return &r.Metadata }
func (r *Host) Meta() *Metadata            { return &r.Metadata }
func (r *ProviderAddress) Meta() *Metadata { return &r.Metadata }
func (r *ProviderRoute) Meta() *Metadata   { return &r.Metadata }
func (r *CustomerRoute) Meta() *Metadata   { return &r.Metadata }
func (r *LookupRecord) Meta() *Metadata    { return &r.Metadata }
