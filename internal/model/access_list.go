package model

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"
)

// AddressGroup is a set of addresses that AccessLists name.
type AddressGroup struct {
	Metadata Metadata         `json:"metadata"`
	Spec     AddressGroupSpec `json:"spec"`
}

// AddressGroupSpec is what people say of a group. All that any of the fields says is in it.
type AddressGroupSpec struct {
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
	// Ports is a selector: the addresses of the tenant's ports that have all these labels.
	Ports  map[string]string `json:"ports,omitempty"`
	Groups []string          `json:"groups,omitempty"` // of the tenant
}

// Selects reports whether the addresses of a port with labels are in the group.
func (s AddressGroupSpec) Selects(labels map[string]string) bool {
	if len(s.Ports) == 0 {
		return false
	}
	for k, v := range s.Ports {
		if w, ok := labels[k]; !ok || w != v {
			return false
		}
	}
	return true
}

// AccessList is rules that judge the packets of ports: docs/design/acl.md.
type AccessList struct {
	Metadata Metadata       `json:"metadata"`
	Spec     AccessListSpec `json:"spec"`
}

// Tier says who is asked first.
type Tier string

// The tiers, in the order in which they are asked.
const (
	TierAdministrator Tier = "administrator"
	TierTenant        Tier = "tenant"
	TierDefault       Tier = "default"
)

// ListMode says whether what a list says happens.
type ListMode string

// The modes. A list in audit mode counts and logs, and decides nothing.
const (
	ModeEnforce ListMode = "enforce"
	ModeAudit   ListMode = "audit"
)

// RuleAction is what a rule says of a packet.
type RuleAction string

// The actions.
const (
	ActionAllow RuleAction = "allow"
	ActionDeny  RuleAction = "deny"
	ActionPass  RuleAction = "pass"  // the next tier decides
	ActionMeter RuleAction = "meter" // counts, and the search goes on
)

// AccessListSpec is what people say of a list.
type AccessListSpec struct {
	Tier    Tier         `json:"tier"`
	Mode    ListMode     `json:"mode"`
	Default ListDefault  `json:"default,omitzero"`
	Rules   []AccessRule `json:"rules,omitempty"`
}

// ListDefault says what becomes of what no rule of the list decides; empty: the list says nothing.
type ListDefault struct {
	Inbound  RuleAction `json:"inbound,omitempty"`
	Outbound RuleAction `json:"outbound,omitempty"`
}

// Of a direction.
func (d ListDefault) Of(dir Direction) RuleAction {
	if dir == Inbound {
		return d.Inbound
	}
	return d.Outbound
}

// AccessRule is one rule. What is empty matches everything.
type AccessRule struct {
	Name        string        `json:"name"`
	Direction   Direction     `json:"direction"`
	Action      RuleAction    `json:"action"`
	Log         bool          `json:"log,omitempty"`
	Protocol    string        `json:"protocol,omitempty"` // see ProtocolNumber
	Remote      RuleAddresses `json:"remote,omitzero"`
	Local       RuleAddresses `json:"local,omitzero"`
	LocalPorts  []Range       `json:"localPorts,omitempty"`
	RemotePorts []Range       `json:"remotePorts,omitempty"`
	ICMPType    *uint8        `json:"icmpType,omitempty"`
	ICMPCode    *uint8        `json:"icmpCode,omitempty"`
	LocalMAC    MAC           `json:"localMAC,omitzero"`
	RemoteMAC   MAC           `json:"remoteMAC,omitzero"`
	Weight      uint16        `json:"weight,omitempty"` // larger first
	Stateful    bool          `json:"stateful,omitempty"`
	IdleTimeout time.Duration `json:"idleTimeout,omitempty"`
	Source      string        `json:"source,omitempty"` // "file:line"; means nothing for packets
}

// DefaultIdleTimeout of a connection that a stateful rule allowed (hnv 5.3).
const DefaultIdleTimeout = 255 * time.Second

// Judges reports whether the rule is asked in a direction.
func (r AccessRule) Judges(d Direction) bool { return r.Direction == Both || r.Direction == d }

// RuleAddresses are prefixes, and those of groups.
type RuleAddresses struct {
	Prefixes []netip.Prefix `json:"prefixes,omitempty"`
	Groups   []string       `json:"groups,omitempty"`
}

// GroupNames gives every group that the rules of the list name, sorted.
func (s AccessListSpec) GroupNames() []string {
	names := map[string]struct{}{}
	for _, r := range s.Rules {
		for _, of := range [][]string{r.Remote.Groups, r.Local.Groups} {
			for _, g := range of {
				names[g] = struct{}{}
			}
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// Level is what an AccessList is attached to. Every level must allow.
type Level string

// The levels, the widest first.
const (
	LevelNetwork Level = "network"
	LevelSubnet  Level = "subnet"
	LevelPort    Level = "port" // with its profile
)

// BasicRule is an entry of a port's basic access list: one of the four is set. Of addresses
// the longest prefix wins.
type BasicRule struct {
	Action    RuleAction     `json:"action"`
	Direction Direction      `json:"direction"`
	Remote    []netip.Prefix `json:"remoteAddress,omitempty"` // one, or both of AnyAddress
	Local     []netip.Prefix `json:"localAddress,omitempty"`
	RemoteMAC MAC            `json:"remoteMAC,omitzero"`
	LocalMAC  MAC            `json:"localMAC,omitzero"`
}

// AnyAddress is every address of both families.
var AnyAddress = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// Protocol numbers that rules name by words.
const (
	ProtocolICMP   = 1
	ProtocolTCP    = 6
	ProtocolUDP    = 17
	ProtocolICMPv6 = 58
)

// AnyProtocol is the word for it.
const AnyProtocol = "any"

var protocols = map[string]uint8{"tcp": ProtocolTCP, "udp": ProtocolUDP, "icmp": ProtocolICMP, "icmpv6": ProtocolICMPv6}

// ProtocolNumber reads the protocol of a rule: a word, or 0 to 255. any is true for "any"
// and for nothing.
func ProtocolNumber(s string) (number uint8, any, ok bool) {
	if s == "" || s == AnyProtocol {
		return 0, true, true
	}
	if n, known := protocols[s]; known {
		return n, false, true
	}
	n, err := strconv.ParseUint(s, 10, 8)
	return uint8(n), false, err == nil && s == strconv.Itoa(int(n))
}
