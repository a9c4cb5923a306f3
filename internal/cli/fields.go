package cli

import (
	"sort"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weft-sdn/weft/internal/manifest"
)

// fieldDocs says what each field of a resource means: KIND.spec.FIELD, and for
// what all kinds share metadata.FIELD and status.FIELD. A test compares it with
// the API.
var fieldDocs = withSettings(map[string]string{
	"Tenant.spec.description": "Free text for people.",

	"Host.spec.description":     "Free text for people.",
	"Host.spec.uplinkBandwidth": "Bits per second that each uplink carries, of frames as they leave it, for ports with a minimum; 0, the default: 98 % of what the device says of its link. Nine tenths of it can be promised.",
	"Host.spec.rewritePrefixes": "Prefixes that the underlay leads to this host; out of them each Customer Address of a rewrite subnet's port here is given a Provider Address of its own. Disjoint from those of other hosts and from all ProviderAddresses.",

	"ProviderAddress.spec.host":    "The host whose interface carries the address.",
	"ProviderAddress.spec.address": "Provider Address (PA): an address of the host on the physical network, to which other hosts send encapsulated packets. Unique in the fleet.",

	"ExternalNetwork.spec.interfaces":           "How hosts are connected to the physical network of VLANs; of a host, the first entry counts that is for it.",
	"ExternalNetwork.spec.tenants":              "Tenants whose ports may be on the network; \"*\": every tenant's. Without an entry nobody's.",
	"ExternalNetwork.spec.interfaces.hosts":     "Names of hosts that the entry is for.",
	"ExternalNetwork.spec.interfaces.labels":    "Labels of hosts that the entry is for; a host must have all of them. With neither hosts nor labels it is for every host.",
	"ExternalNetwork.spec.interfaces.interface": "Network interface of those hosts. Frames of VLANs go in and out of it; what is for no port stays the host's own.",

	"ProviderRoute.spec.host":      "The host that the route is for.",
	"ProviderRoute.spec.prefix":    "Provider Addresses of other hosts that the route leads to; the longest prefix wins.",
	"ProviderRoute.spec.nextHop":   "Router of the physical network that such packets are handed to. Empty: the prefix is on-link on the interface. Several routes of one host with the same prefix and metric share the load.",
	"ProviderRoute.spec.interface": "Network interface of the host. Empty: the one where the next hop is on-link.",
	"ProviderRoute.spec.metric":    "Among routes with the same prefix, the lowest metric wins.",

	"AddressGroup.spec.prefixes": "Addresses of the group.",
	"AddressGroup.spec.ports":    "Labels: the addresses, learned ones too, of all ports of the tenant that have every one of them. They follow the ports as these come, change and go.",
	"AddressGroup.spec.groups":   "Names of AddressGroups, in the same tenant, whose addresses are in this one as well.",

	"AccessList.spec.tier":                  "administrator (asked first; what it allows or denies is final), tenant (the default: every level must allow) or default (asked where no other list decides).",
	"AccessList.spec.mode":                  "enforce (the default), or audit: its rules count and log, and drop nothing.",
	"AccessList.spec.default":               "What becomes of packets that no rule of the list decides; when absent, the list says nothing of them.",
	"AccessList.spec.default.inbound":       "allow or deny what the guest would receive.",
	"AccessList.spec.default.outbound":      "allow or deny what the guest sends.",
	"AccessList.spec.rules":                 "The rules; of those that match, the first that decides wins: larger weight first, then the order here.",
	"AccessList.spec.rules.name":            "Name of the rule in counters, drops and traces, unique in the list; rule-N when absent, N being its place.",
	"AccessList.spec.rules.direction":       "inbound, outbound or both, as the guest sees it.",
	"AccessList.spec.rules.action":          "allow, deny, meter (counts, and the search goes on), or pass (the next tier decides; of tier administrator alone).",
	"AccessList.spec.rules.log":             "Matching flows are logged. Default false.",
	"AccessList.spec.rules.protocol":        "any (the default), tcp, udp, icmp, icmpv6, or a number from 0 to 255.",
	"AccessList.spec.rules.remote":          "Addresses of the other side; any when absent.",
	"AccessList.spec.rules.remote.prefixes": "Such as 10.0.0.0/24 or fd00:a::/64.",
	"AccessList.spec.rules.remote.groups":   "Names of AddressGroups in the same tenant.",
	"AccessList.spec.rules.local":           "Addresses of the guest's side; any when absent.",
	"AccessList.spec.rules.local.prefixes":  "Such as 10.0.0.5/32.",
	"AccessList.spec.rules.local.groups":    "Names of AddressGroups in the same tenant.",
	"AccessList.spec.rules.localPorts":      "Ports of the guest's side, such as \"443\" or \"8000-8100\"; with protocol tcp or udp.",
	"AccessList.spec.rules.remotePorts":     "Ports of the other side, the same.",
	"AccessList.spec.rules.icmpType":        "Type of the message, 0 to 255; with protocol icmp or icmpv6.",
	"AccessList.spec.rules.icmpCode":        "Code of the message, with icmpType.",
	"AccessList.spec.rules.localMAC":        "MAC of the guest's side.",
	"AccessList.spec.rules.remoteMAC":       "MAC of the other side as the guest sees it: behind the router, the router's.",
	"AccessList.spec.rules.weight":          "0 to 65535, 0 when absent; larger first.",
	"AccessList.spec.rules.stateful":        "What the rule allows makes a connection, whose packets of both directions pass. Default false.",
	"AccessList.spec.rules.idleTimeout":     "How long such a connection lasts without a packet; 255s when absent.",
	"AccessList.spec.rules.source":          "Where the rule was written, as file:line; filled in by weft apply.",

	"VirtualNetwork.spec.accessLists": "Names of AccessLists, in the same tenant, that judge the packets of every port of the network.",
	"VirtualSubnet.spec.accessLists":  "Names of AccessLists, in the same tenant, that judge the packets of every port of the subnet.",

	"Port.spec.acl":               "Basic access list of this port; of entries with an address, the longest prefix wins. What no entry names is allowed.",
	"Port.spec.acl.action":        "allow, deny, or meter (of addresses alone).",
	"Port.spec.acl.direction":     "inbound, outbound or both, as the guest sees it.",
	"Port.spec.acl.remoteAddress": "Address, prefix or any of the other side. An entry has one of these four.",
	"Port.spec.acl.localAddress":  "Address, prefix or any of the guest's side.",
	"Port.spec.acl.remoteMAC":     "MAC of the other side.",
	"Port.spec.acl.localMAC":      "MAC of the guest's side.",

	"VirtualNetwork.spec.rdid": "Routing Domain ID: a GUID that names the routing domain everywhere. Allocated when absent; cannot change.",

	"VirtualNetwork.spec.useExternalRouter": "Between subnets, packets go to the routers that CustomerRoutes name, guests of the network, and not by the distributed router. Default false.",
	"VirtualNetwork.spec.rewriteFamilies":   "Families whose addresses the network's rewrite subnets rewrite: [ipv4], [ipv6], or both when absent. Those of the other family go by NVGRE over any Provider Address, so hosts need no rewritePrefixes of it, and guests' MTU leaves room for it.",

	"VirtualNetwork.spec.rewriteOver": "Family of the Provider Addresses that the network's rewrite subnets use for addresses of either family: ipv4 or ipv6; absent: each over its own. Where the two differ the IP header is exchanged; IPv4 over IPv6 takes 28 bytes of guests' MTU.",
	"VirtualSubnet.spec.network":      "Name of the VirtualNetwork, in the same tenant, that the subnet belongs to. Subnets of one network reach each other through its distributed router.",
	"VirtualSubnet.spec.vsid":         "Virtual Subnet ID on the wire, 4096 to 16777214 (RFC 7637), unique in the fleet. Allocated when absent.",
	"VirtualSubnet.spec.prefixes":     "Address ranges of the subnet, at most one of IPv4 and one of IPv6; disjoint inside the network, free to repeat in another.",
	"VirtualSubnet.spec.gateway":      "Addresses of the distributed router in the subnet, one per prefix. The first usable address of each prefix when absent. They answer ARP, Neighbour Discovery and ping.",
	"VirtualSubnet.spec.mssClamp":     "Lowers the largest segment (MSS) that TCP connections of the subnet's guests agree on to what the path carries, both ways. For guests whose MTU is larger than the port's and that do not hear ICMP. Default false.",
	"VirtualSubnet.spec.transport":    "How packets cross the physical network: nvgre (the default), vxlan or rewrite (no outer headers: each address has a Provider Address of its own out of Host.spec.rewritePrefixes; what flood: l2 copies goes by NVGRE).",

	"VirtualSubnet.spec.flood":            "What reaches every port: l3 (the default) floods nothing, ARP and Neighbour Discovery are answered from policy; l2 floods broadcast, multicast, gratuitous ARP and unsolicited advertisements.",
	"VirtualSubnet.spec.multicastAddress": "With flood: l2, a multicast address of the physical network that all hosts of the subnet listen to, so that one copy reaches them all; subnets may share it. When absent, the sender's host makes a copy for each host.",
	"VirtualSubnet.spec.stormLimit":       "How many packets a second one port may have flooded; 1000 when absent.",

	"Port.spec.subnet":    "Name of the VirtualSubnet, in the same tenant, that the port is in.",
	"Port.spec.mac":       "MAC of the VM's NIC, unicast and not of the range 02:77:66 that routers use. Allocated when absent.",
	"Port.spec.addresses": "Customer Addresses (CA) of the VM's NIC, inside the subnet's prefixes and unique in it. Allocated when absent. On a VLAN none are allocated: those that are written, and allowedAddresses, are all that the guest may send from; without any, it may use every address, and ARP and ND are held to its MAC alone.",
	"Port.spec.profile":   "Name of the PortProfile, in the same tenant, that says what the port leaves out. What the port says itself wins.",
	"Port.spec.host":      "Host where the port is. When absent, the host of the first plug.",

	"CustomerRoute.spec.network": "Name of the VirtualNetwork, in the same tenant, whose router follows the route.",
	"CustomerRoute.spec.prefix":  "Destinations that the route leads to; the longest prefix wins.",
	"CustomerRoute.spec.nextHop": "Customer Address, inside a subnet of the network, to which such packets are handed.",
	"CustomerRoute.spec.metric":  "Among routes with the same prefix, the lowest metric wins.",

	"LookupRecord.spec.type":            "Static (one address), or GatewayWildcard (a gateway that stands for every address that policy does not know; customerAddress 0.0.0.0 or ::). Dynamic (learned) and L2Only (addresses still to be learned) are written by the system.",
	"LookupRecord.spec.port":            "GatewayWildcard: Name of the gateway's Port in the same subnet, instead of mac and providerAddress.",
	"LookupRecord.spec.subnet":          "Name of the VirtualSubnet, in the same tenant, that the address is in.",
	"LookupRecord.spec.customerAddress": "Customer Address (CA) that the record places.",
	"LookupRecord.spec.mac":             "MAC under which the address answers.",
	"LookupRecord.spec.providerAddress": "Provider Address (PA) behind which the address is.",

	"metadata.tenant":     "Tenant that owns the resource; empty for Tenant, Host, ProviderAddress, ProviderRoute and ExternalNetwork.",
	"metadata.name":       "Name, unique for its kind in its tenant. References go by it.",
	"metadata.uid":        "Written by the system: identity that a later resource with the same name does not share.",
	"metadata.labels":     "Free keys and values, for people and their programs.",
	"metadata.generation": "Written by the system: counts the changes of the spec.",
	"metadata.revision":   "Written by the system: the store's revision of the last change. Given back with apply or delete, the change is refused unless it is still the current one.",
	"metadata.createdAt":  "Written by the system: when the resource was created.",

	"status.conditions":                    "Facts about the resource: Accepted, Programmed and Degraded.",
	"status.conditions.type":               "Accepted (valid and stored), Programmed (every host concerned has acknowledged it), or Degraded (something is wrong though it is programmed).",
	"status.conditions.status":             "True, False or Unknown.",
	"status.conditions.reason":             "Why, as one stable word for programs.",
	"status.conditions.message":            "Why, for people.",
	"status.conditions.observedGeneration": "The generation of the spec that the condition speaks of.",
	"status.conditions.changedAt":          "When the condition last changed.",
	"status.rollout":                       "Counts of the hosts that the resource concerns.",
	"status.rollout.desired":               "Hosts that must hold the resource.",
	"status.rollout.current":               "Hosts that have acknowledged the newest revision of it.",
	"status.rollout.failing":               "Hosts that said they could not program it.",
	"status.rollout.oldestLag":             "How long the host that is furthest behind has been so.",
	"status.host":                          "Port: the host where it is.",
	"status.mtu":                           "Port: the largest IP packet that its guest should send, in bytes.",
	"status.connected":                     "Host: whether its agent has a session with the server.",
	"status.agentVersion":                  "Host: version of its agent.",
	"status.acknowledgedRevision":          "Host: the newest policy revision that its kernel holds.",
	"status.providerAddresses":             "Host: its addresses on the physical network, as its agent sees them.",
	"status.addressState":                  "ProviderAddress: what duplicate address detection says: Invalid (not on the host, or its device is down), Tentative, Duplicate, Deprecated or Preferred. Only a Preferred one is used.",
	"status.duplicateOwner":                "ProviderAddress: MAC of the other machine that has a Duplicate.",
	"status.index":                         "VirtualNetwork, Port: the dense number by which the data plane knows it.",
	"status.rewriteAddresses":              "Port of a rewrite subnet: the Provider Addresses that stand for spec.addresses in the underlay, one each and in their order; none for those of a family that the network does not rewrite.",
	"status.rewriteInUse":                  "Host: how many addresses of its rewritePrefixes are given to ports.",
	"status.rule":                          "LookupRecord: Encap (its PA is a host's) or Rewrite (its PA stands for this one address).",
	"status.learned":                       "Port: addresses that were learned from the guest, the oldest first.",
	"status.derived":                       "LookupRecord: true when it follows from a port, false when somebody wrote it.",
})

// fieldPaths lists every field that a kind's resources have, as keys of fieldDocs.
func fieldPaths(kind string) []string {
	r := manifest.New(kind).ProtoReflect()
	body := r.Get(r.WhichOneof(r.Descriptor().Oneofs().ByName("kind"))).Message().Descriptor()
	var paths []string
	paths = append(paths, leaves(kind+".spec", body.Fields().ByName("spec").Message())...)
	paths = append(paths, leaves("metadata", body.Fields().ByName("metadata").Message())...)
	return append(paths, leaves("status", body.Fields().ByName("status").Message())...)
}

// leaves lists the fields of a message of ours below path, and those inside them.
func leaves(path string, m protoreflect.MessageDescriptor) []string {
	var paths []string
	for i := range m.Fields().Len() {
		f := m.Fields().Get(i)
		if manifest.Hidden(f) {
			continue
		}
		at := path + "." + f.JSONName()
		paths = append(paths, at)
		if f.Kind() == protoreflect.MessageKind && !f.IsMap() && f.Message().ParentFile().Package() == m.ParentFile().Package() {
			paths = append(paths, leaves(at, f.Message())...)
		}
	}
	return paths
}

// findFields lists the documented fields that word may mean: a whole path, a
// path without its kind or section, or a kind alone; in any case.
func findFields(word string) []string {
	var found []string
	for path := range fieldDocs {
		p, w := strings.ToLower(path), strings.ToLower(word)
		// port.addresses is port.spec.addresses to most people.
		short := strings.Replace(p, ".spec.", ".", 1)
		if p == w || short == w || strings.HasSuffix(p, "."+w) || strings.HasPrefix(p, w+".") || withoutKind(w) == p {
			found = append(found, path)
		}
	}
	sort.Strings(found)
	return found
}

// withoutKind cuts the kind off "port.metadata.name", which all kinds share.
func withoutKind(word string) string {
	_, rest, _ := strings.Cut(word, ".")
	return rest
}
