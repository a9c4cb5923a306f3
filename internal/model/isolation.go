package model

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
)

// IsolationID is whom a port of a virtual subnet reaches within the subnet, as tables and the
// packet path know it. Everything above Promiscuous is a community.
type IsolationID uint32

// The isolations that are no community with a name. None is the community of all that have no other.
const (
	NoIsolation IsolationID = iota
	Isolated
	Promiscuous
	firstCommunity
)

// CommunityID is the number of a community, by its name. Two names of a subnet may
// have the same number, once in four billion pairs: who admits names must refuse that.
func CommunityID(name string) IsolationID {
	sum := sha256.Sum256([]byte(name))
	return max(firstCommunity, IsolationID(binary.BigEndian.Uint32(sum[:])))
}

// ID is what tables know an isolation by.
func (i Isolation) ID() IsolationID {
	switch i.Mode {
	case IsolationIsolated:
		return Isolated
	case IsolationPromiscuous:
		return Promiscuous
	case IsolationCommunity:
		return CommunityID(i.Community)
	}
	return NoIsolation
}

// Apart tells whether two ports of a subnet do not reach each other (RFC 5517 section 3): promiscuous
// ones reach all, isolated ones no others, and all else reaches its own community.
func (a IsolationID) Apart(b IsolationID) bool {
	if a == Promiscuous || b == Promiscuous {
		return false
	}
	return a != b || a == Isolated
}

func (a IsolationID) String() string {
	switch a {
	case NoIsolation:
		return "none"
	case Isolated:
		return "isolated"
	case Promiscuous:
		return "promiscuous"
	}
	return fmt.Sprintf("community %08x", uint32(a))
}
