package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
)

// Types of DHCP messages (RFC 2132 section 9.6).
const (
	DHCPDiscover = 1
	DHCPOffer    = 2
	DHCPRequest  = 3
	DHCPDecline  = 4
	DHCPAck      = 5
	DHCPNak      = 6
	DHCPRelease  = 7
)

// UDP ports of DHCP over IPv4.
const (
	DHCPServerPort = 67
	DHCPClientPort = 68
)

const (
	dhcpFixed  = 236
	dhcpCookie = 0x63825363

	dhcpOptPad       = 0
	dhcpOptRequested = 50
	dhcpOptLease     = 51
	dhcpOptType      = 53
	dhcpOptEnd       = 255
)

// ErrDHCP is returned for what is not a DHCP message over Ethernet.
var ErrDHCP = errors.New("not a DHCP message")

// DHCP is what a DHCP message over IPv4 says of addresses (RFC 2131 section 2).
type DHCP struct {
	Reply     bool   // from a server
	XID       uint32 // of the exchange
	Client    netip.Addr
	Yours     netip.Addr // that the server gives
	MAC       model.MAC  // of the client
	Type      uint8
	Requested netip.Addr // by the client; invalid: not said
	Lease     uint32     // seconds; 0: not said
}

// ParseDHCP reads a message, which begins behind the UDP header and may be cut: the
// options that are there count. A message without its type is BOOTP, and an error.
func ParseDHCP(b []byte) (DHCP, error) {
	var d DHCP
	if len(b) < dhcpFixed+4 {
		return d, fmt.Errorf("DHCP: %w", ErrTruncated)
	}
	if b[0] != 1 && b[0] != 2 || b[1] != 1 || b[2] != 6 || binary.BigEndian.Uint32(b[dhcpFixed:]) != dhcpCookie {
		return d, ErrDHCP
	}
	d.Reply, d.XID = b[0] == 2, binary.BigEndian.Uint32(b[4:])
	d.Client, d.Yours, d.MAC = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), model.MAC(b[28:34])
	for o := b[dhcpFixed+4:]; len(o) > 0 && o[0] != dhcpOptEnd; {
		if o[0] == dhcpOptPad {
			o = o[1:]
			continue
		}
		if len(o) < 2 || len(o) < 2+int(o[1]) {
			break
		}
		d.option(o[0], o[2:2+int(o[1])])
		o = o[2+int(o[1]):]
	}
	if d.Type == 0 {
		return d, ErrDHCP
	}
	return d, nil
}

func (d *DHCP) option(code byte, v []byte) {
	switch {
	case code == dhcpOptType && len(v) == 1:
		d.Type = v[0]
	case code == dhcpOptRequested && len(v) == 4:
		d.Requested = netip.AddrFrom4([4]byte(v))
	case code == dhcpOptLease && len(v) == 4:
		d.Lease = binary.BigEndian.Uint32(v)
	}
}

// Encode writes the message, options included, and gives its length; b must have room
// for 300 bytes.
func (d DHCP) Encode(b []byte) (int, error) {
	const room = 300 // what BOOTP relays and old clients expect at least (RFC 1542 section 2.1)
	if len(b) < room {
		return 0, fmt.Errorf("DHCP: %w", ErrTruncated)
	}
	clear(b[:room])
	b[0], b[1], b[2] = 1, 1, 6
	if d.Reply {
		b[0] = 2
	}
	binary.BigEndian.PutUint32(b[4:], d.XID)
	for at, a := range map[int]netip.Addr{12: d.Client, 16: d.Yours} {
		if a.Is4() {
			copy(b[at:], a.AsSlice())
		}
	}
	copy(b[28:], d.MAC[:])
	binary.BigEndian.PutUint32(b[dhcpFixed:], dhcpCookie)
	o := append(b[:dhcpFixed+4], dhcpOptType, 1, d.Type)
	if d.Requested.Is4() {
		o = append(append(o, dhcpOptRequested, 4), d.Requested.AsSlice()...)
	}
	if d.Lease > 0 {
		o = binary.BigEndian.AppendUint32(append(o, dhcpOptLease, 4), d.Lease)
	}
	_ = append(o, dhcpOptEnd)
	return room, nil
}
