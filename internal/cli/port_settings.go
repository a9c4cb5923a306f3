package cli

// settingDocs are the fields that a PortProfile and a Port both have.
var settingDocs = map[string]string{
	"allowSpoofing":       "Turns the spoofing guard off: the guest may send with source MACs and addresses that are not the port's. Default false.",
	"dynamicAddressLimit": "How many addresses the switch may learn from what the guest says (ARP, ND, DHCP), beside spec.addresses; 0, the default: none. With a limit and no addresses none are allocated: the port is L2Only until its guest has one.",
	"forwarding":          "The guest forwards packets of others, as a firewall or router does that CustomerRoutes lead through: it may send with any source address of its network. Its MAC stays held to the port's. Default false.",
	"dhcpGuard":           "Drops what only DHCP servers send, of both families, when the guest sends it. Default true.",
	"routerGuard":         "Drops router advertisements and redirects, of both families, that the guest sends. Default true.",
	"allowTeaming":        "The guest may send with the MAC and addresses of another port of its VM (NIC teaming inside the guest): one of the same subnet and host with the same label vm, and allowTeaming. Default false.",
	"ieeePriorityTag":     "Priorities (802.1p) that the guest puts on its frames are those of its packets in the host's queues; otherwise these are 0. Default false.",
	"stormLimit":          "How many broadcast and multicast packets a second the port may send; 0, the default: what the subnet says.",

	"allowedAddresses":        "Sources that the guest may use beside its own addresses. To reach them takes a CustomerRoute, or dynamicAddressLimit. [] of a port: none, whatever its profile says.",
	"allowedAddresses.prefix": "Addresses that the guest may send from.",
	"allowedAddresses.mac":    "A source MAC that the guest may use beside the port's.",

	"isolation":           "Whom the port reaches inside its subnet.",
	"isolation.mode":      "none (the default): everybody; isolated: promiscuous ports alone; community: those and the ports of the same community; promiscuous: everybody.",
	"isolation.community": "With mode community: its name. Ports that name the same one reach each other.",

	"vlan":                     "Places the port on a VLAN network instead of a virtual subnet.",
	"vlan.network":             "Name of the VLAN network.",
	"vlan.mode":                "untagged, access (one VLAN, which the guest does not see), trunk (the guest tags) or private.",
	"vlan.id":                  "Mode access: the VLAN, 1 to 4094.",
	"vlan.allowed":             "Mode trunk: the VLANs that the guest may use, such as \"10\" or \"20-30\".",
	"vlan.prune":               "Mode trunk: VLANs taken out of allowed.",
	"vlan.native":              "Mode trunk: the VLAN of frames without a tag.",
	"vlan.private":             "Mode private: the port's place in a private VLAN (RFC 5517).",
	"vlan.private.mode":        "isolated (reaches promiscuous ports alone), community (and ports of the same secondary VLAN) or promiscuous (reaches every port of its secondaries).",
	"vlan.private.primary":     "The primary VLAN, 1 to 4094.",
	"vlan.private.secondary":   "Modes isolated and community: the secondary VLAN. A primary has one isolated VLAN.",
	"vlan.private.secondaries": "Mode promiscuous: the secondary VLANs that the port reaches.",

	"bandwidth":                  "Bounds what the port receives and sends.",
	"bandwidth.inbound":          "What the guest receives.",
	"bandwidth.inbound.maximum":  "Bits per second of frames, a multiple of 8, at least 64000; 0, the default: as much as there is.",
	"bandwidth.inbound.burst":    "Bytes that may come at once above the maximum; default 10 ms of it.",
	"bandwidth.inbound.minimum":  "Refused: packets wait where they are sent, so a minimum is outbound.",
	"bandwidth.inbound.weight":   "Refused, as the minimum.",
	"bandwidth.outbound":         "What the guest sends.",
	"bandwidth.outbound.maximum": "Bits per second of frames, a multiple of 8, at least 64000; 0, the default: as much as there is.",
	"bandwidth.outbound.burst":   "Bytes that may come at once above the maximum; default 10 ms of it.",
	"bandwidth.outbound.minimum": "Bits per second of each uplink of its host that the port has when others want more than there is; what it does not take is theirs. Frames as they leave the uplink, at least 64000. A host promises nine tenths of its spec.uplinkBandwidth.",
	"bandwidth.outbound.weight":  "1 to 100, instead of minimum: the port's part, among all ports of the host with a weight, of what the host can promise and minima leave.",

	"mirrors":             "Copies of the port's packets for other ports. The guest cannot see it. [] of a port: none, whatever its profile says.",
	"mirrors.destination": "Name of the Port, in the same tenant, that gets the copies.",
	"mirrors.direction":   "inbound, outbound or both (the default), as the guest sees it.",
	"mirrors.snapLength":  "How many bytes of each frame are copied; 0, the default: all.",
	"mirrors.protocol":    "Copies packets of one IP protocol alone: tcp, udp, icmp, icmpv6, or its number.",
	"mirrors.prefix":      "Copies packets from or to these addresses alone.",
	"mirrors.port":        "Copies TCP and UDP packets from or to this port alone.",
	"mirrors.rateLimit":   "How many packets a second are copied; 0, the default: all.",

	"accessLists":     "Names of AccessLists, in the same tenant, that judge the port's packets. A port has its own and those of its profile; [] of a port: none.",
	"connectionLimit": "How many connections of the port are followed; 0, the default: as many as the switch gives each port.",
}

// withSettings documents the settings for both kinds that have them.
func withSettings(docs map[string]string) map[string]string {
	for field, text := range settingDocs {
		docs["PortProfile.spec."+field] = text
		docs["Port.spec."+field] = text
	}
	return docs
}
