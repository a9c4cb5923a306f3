package agent

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/wire"
)

// sent is a packet of the switch, as an ICMP error quotes it.
type sent struct {
	ends
	transport model.TransportID
	vsid      model.VSID // 0: not quoted that far
	frame     []byte     // the guest's, as far as it is quoted
}

// leastSourcePort is where the UDP source ports of VXLAN begin.
const leastSourcePort = 49152

// parseSent reads what the switch would have sent: an outer packet of one piece, with the key or the
// ports that its transport writes. Eight bytes of the transport are quoted at least (RFC 792).
func parseSent(quote []byte, vxlanPort uint16) (sent, bool) {
	e, proto, rest, ok := parseQuotedOuter(quote)
	if !ok {
		return sent{}, false
	}
	switch proto {
	case wire.ProtoGRE:
		h, err := wire.ParseNVGRE(rest)
		if err != nil || !h.VSID.Valid() {
			return sent{}, false
		}
		return sent{e, model.NVGRE, h.VSID, rest[wire.NVGRELen:]}, true
	case wire.ProtoUDP:
		udp, err := wire.ParseUDP(rest)
		if err != nil || udp.Destination != vxlanPort || udp.Source < leastSourcePort {
			return sent{}, false
		}
		rest = rest[wire.UDPLen:]
		if len(rest) < wire.VXLANLen {
			return sent{ends: e, transport: model.VXLAN}, true
		}
		h, err := wire.ParseVXLAN(rest)
		if err != nil || !h.VSID.Valid() {
			return sent{}, false
		}
		return sent{e, model.VXLAN, h.VSID, rest[wire.VXLANLen:]}, true
	}
	return sent{}, false
}

// parseQuotedOuter reads an IP header of the form that the switch writes, of a packet that may be cut.
func parseQuotedOuter(b []byte) (e ends, proto uint8, rest []byte, ok bool) {
	if len(b) < wire.IPv4Len {
		return e, 0, nil, false
	}
	const ihl5, moreFragments, offset = 0x45, 0x20, 0x1f
	if b[0] == ihl5 {
		whole := b[6]&(moreFragments|offset) == 0 && b[7] == 0
		e = ends{netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20]))}
		return e, b[9], b[wire.IPv4Len:], whole
	}
	if b[0]>>4 != 6 || len(b) < wire.IPv6Len {
		return e, 0, nil, false
	}
	e = ends{netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))}
	return e, b[6], b[wire.IPv6Len:], true
}
