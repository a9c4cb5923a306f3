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
