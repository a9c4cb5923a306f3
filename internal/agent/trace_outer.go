package agent

import (
	"net/netip"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// outerIP is the IP header that the switch puts around a frame.
type outerIP struct {
	etherType           uint16
	source, destination netip.Addr
	length              int // of the whole packet, in bytes
	ttl, class, proto   uint8
	flow                uint32 // label of IPv6
	payload             []byte
}

func readOuterIP(b []byte) (outerIP, error) {
	if len(b) > 0 && b[0]>>4 == 6 {
		ip, err := wire.ParseIPv6(b)
		return outerIP{wire.TypeIPv6, ip.Source, ip.Destination, wire.IPv6Len + int(ip.PayloadLen),
			ip.HopLimit, ip.Class, ip.Next, ip.Flow, after(b, wire.IPv6Len)}, err
	}
	ip, err := wire.ParseIPv4(b)
	return outerIP{wire.TypeIPv4, ip.Source, ip.Destination, int(ip.TotalLen), ip.TTL, ip.TOS, ip.Proto, 0, after(b, ip.HeaderLen)}, err
}

// outerOf reads the headers of a frame that the switch made; nil if they are none of its transports'.
func outerOf(s table.Set, frame []byte) *weftv1.TraceOuter {
	ip, err := readOuterIP(after(frame, wire.EthernetLen))
	if err != nil {
		return nil
	}
	out := &weftv1.TraceOuter{Source: ip.source.String(), Destination: ip.destination.String(), Length: uint32(ip.length),
		Ttl: uint32(ip.ttl), Dscp: uint32(ip.class >> 2), Protocol: uint32(ip.proto), FlowLabel: ip.flow}
	if own, ok := s.RewriteIn[ip.destination]; ok {
		out.Rewritten, out.Vsid = true, uint32(own.VSID)
		return out
	}
	if ip.proto == wire.ProtoUDP {
		udp, err := wire.ParseUDP(ip.payload)
		vxlan, bad := wire.ParseVXLAN(after(ip.payload, wire.UDPLen))
		if err != nil || bad != nil {
			return nil
		}
		out.Vsid, out.SourcePort, out.DestinationPort = uint32(vxlan.VSID), uint32(udp.Source), uint32(udp.Destination)
		return out
	}
	gre, err := wire.ParseNVGRE(ip.payload)
	if err != nil {
		return nil
	}
	out.Vsid, out.FlowId = uint32(gre.VSID), uint32(gre.FlowID)
	return out
}
