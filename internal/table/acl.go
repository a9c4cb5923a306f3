package table

import (
	"net/netip"
	"time"

	"github.com/weft-sdn/weft/internal/model"
)

// RuleSetKey names a RuleSet by its content; zero is none. Ports with equal rules share a set.
type RuleSetKey [16]byte

// RuleSet judges the packets of ports in one direction: docs/design/acl.md. It never
// changes; another set takes its place.
type RuleSet struct {
	Sections []Section
}

// SectionKind says what a section's answer means.
type SectionKind uint8

// Kinds of sections, in the order in which a RuleSet has them.
const (
	Administrator SectionKind = iota // Allow ends the search
	Tenant                           // must not deny; at most one for each level
	BasicMAC                         // must not deny
	BasicIP                          // must not deny
	Default                          // is asked when no Tenant or Basic section has decided
)

func (k SectionKind) String() string {
	switch k {
	case Administrator:
		return "administrator"
	case Tenant:
		return "tenant"
	case BasicMAC:
		return "basic MAC"
	case BasicIP:
		return "basic IP"
	case Default:
		return "default"
	}
	return "unknown"
}

// Section is a part of a RuleSet within which the first rule that decides ends the search.
type Section struct {
	Kind  SectionKind
	Audit bool // counts and logs, decides nothing
	Rules []Rule
}

// RuleAction is what a matching rule does.
type RuleAction uint8

// Actions of a rule. All but Count decide.
const (
	Allow RuleAction = iota
	Deny
	Pass
	Count
)

// Rule is one rule of a Section. What is empty or zero matches everything.
type Rule struct {
	ID     model.RuleID // for counters, drops and traces; stable while the list keeps the rule
	Action RuleAction
	Log    bool

	Protocol                uint8 // IP protocol number; see AnyProtocol
	AnyProtocol             bool  // Protocol is not looked at (0 is a protocol of IPv6)
	Local, Remote           []netip.Prefix
	LocalPorts, RemotePorts []PortRange // of TCP and UDP
	ICMPType, ICMPCode      int16       // -1: any
	LocalMAC, RemoteMAC     model.MAC   // zero: any

	Stateful bool
	Idle     time.Duration // of a connection that the rule opened
}

// PortRange is First to Last, both included.
type PortRange struct {
	First, Last uint16
}

// Query is a frame as a RuleSet sees it: local is the guest's side, remote the other.
type Query struct {
	LocalMAC, RemoteMAC model.MAC
	IP                  bool // an IP packet, and not Neighbour Discovery; else only the MACs count
	Local, Remote       netip.Addr
	Protocol            uint8
	Upper               Upper
	LocalPort           uint16 // of ShowsPorts
	RemotePort          uint16
	ICMPType, ICMPCode  uint8 // of ShowsType
}

// Upper says what a packet shows of the header above IP.
type Upper uint8

// What a packet shows of the header above IP.
const (
	NoUpper    Upper = iota // a protocol without ports and types that rules could name
	ShowsPorts              // TCP, UDP
	ShowsType               // ICMP over IPv4, ICMPv6 over IPv6
	HidesUpper              // one of these four whose header is in another fragment, or cut short
)

// NamesIP tells whether the rule speaks of IP packets alone: of anything of IP, or of nothing at all.
func (r *Rule) NamesIP() bool {
	return !r.NamesMAC() || !r.AnyProtocol || len(r.Local)+len(r.Remote)+len(r.LocalPorts)+len(r.RemotePorts) > 0 || r.NamesType()
}

// NamesMAC tells whether the rule speaks of a MAC.
func (r *Rule) NamesMAC() bool { return !r.LocalMAC.IsZero() || !r.RemoteMAC.IsZero() }

// NamesPorts tells whether the rule speaks of ports.
func (r *Rule) NamesPorts() bool { return len(r.LocalPorts)+len(r.RemotePorts) > 0 }

// NamesType tells whether the rule speaks of a type or code of ICMP.
func (r *Rule) NamesType() bool { return r.ICMPType >= 0 || r.ICMPCode >= 0 }

// RuleAt is the place of a rule in a RuleSet.
type RuleAt struct{ Section, Rule int }
