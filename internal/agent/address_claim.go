package agent

import (
	"time"

	"github.com/weft-sdn/weft/internal/model"
)

// The times of address conflict detection. RFC 5227 section 1.1 has 3 probes over up
// to 7 seconds, for machines that come up thousands at a time. A Provider Address is on
// a data centre's switch, and mostly in use by the host itself already (ADR 0018).
const (
	probeCount     = 3
	probeInterval  = 200 * time.Millisecond
	duplicateAgain = 30 * time.Second // how long a Duplicate waits for the next probes
)

// claim is one IPv4 address of this host, by RFC 5227. It is a state machine without
// a clock or a socket: step says what to send, heard what was heard.
type claim struct {
	state   model.AddressState // Tentative, Preferred or Duplicate
	owner   model.MAC          // of a Duplicate
	probing bool
	left    int       // probes still to be sent
	next    time.Time // of the next step; zero: none until something is heard
}

// newClaim is of an address that has appeared. One that is trusted was in use by an
// earlier process, and stays so while it is probed.
func newClaim(trusted bool, now time.Time) *claim {
	c := &claim{state: model.AddressTentative}
	if trusted {
		c.state = model.AddressPreferred
	}
	c.probe(now)
	return c
}

func (c *claim) probe(now time.Time) { c.probing, c.left, c.next = true, probeCount, now }

// word is what to send about an address.
type word uint8

const (
	saysNothing word = iota
	asksForIt        // an ARP probe
	announcesIt      // an ARP announcement
)

// step does what is due.
func (c *claim) step(now time.Time) word {
	switch {
	case c.next.IsZero() || now.Before(c.next):
		return saysNothing
	case c.probing && c.left > 0:
		c.left--
		c.next = now.Add(probeInterval)
		return asksForIt
	case c.probing: // and nobody has answered
		was := c.state
		*c = claim{state: model.AddressPreferred}
		if was == model.AddressPreferred {
			return saysNothing
		}
		return announcesIt
	}
	c.probe(now) // a Duplicate that may have been given up
	return c.step(now)
}

// heard is another machine that speaks as the address; asks: one that probes for it
// itself. While we probe, both settle it (section 2.1.1). Afterwards the host's kernel
// answers those who ask, and a voice is only a reason to probe again: nobody may take
// an address from us by one packet.
func (c *claim) heard(now time.Time, mac model.MAC, asks bool) {
	switch {
	case c.probing:
		*c = claim{state: model.AddressDuplicate, owner: mac, next: now.Add(duplicateAgain)}
	case asks:
	case c.state == model.AddressDuplicate:
		c.owner, c.next = mac, now.Add(duplicateAgain)
	default:
		c.probe(now)
	}
}
