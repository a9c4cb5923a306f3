package agent

import (
	"maps"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// arrivedTooBig tells the sender, on another host, of a packet that was larger than the port here takes (ADR 48).
func (g *guests) arrivedTooBig(s datapath.Sighting) {
	set := g.view.Load().want
	index, ok := deviceOf(set, s.Port)
	if !ok {
		return
	}
	packet, ok := tooBigFor(set, set.Ports[index], s.Head)
	if !ok {
		g.counts.told("untold_arrived_too_big")
		return
	}
	if !g.teller.may(s.Port, time.Now()) {
		return
	}
	if err := netdev.SendIP(packet); err != nil {
		g.log.Debug("a sender could not be told of a packet that was too big", "port", s.Port, "error", err)
		return
	}
	g.counts.told("arrived_too_big")
}

// tooBigFor is the packet of the underlay with the ICMP error about frame, whose head is given: from whom frame was for, to
// whom it is from, as if the guest said it and no rules of its own kept it from saying so. None where the guest could not send to
// there, or nobody may be told, or it is on this host.
func tooBigFor(set table.Set, port table.Port, head []byte) ([]byte, bool) {
	eth, err := wire.ParseEthernet(head)
	if err != nil {
		return nil, false
	}
	p, ok := parseQuoted(eth.Type, head[wire.EthernetLen:])
	if !ok || !p.mayBeToldOf() || p.dst.IsMulticast() {
		return nil, false
	}
	said := errorFrom(p.dst, p, meaning{mtu: int(port.MTU), limit: int(port.MTU)})
	frame := make([]byte, wire.EthernetLen, wire.EthernetLen+len(said))
	written(wire.Ethernet{Dst: model.RouterMAC(port.VSID), Src: port.MAC, Type: eth.Type}.Encode(frame))
	port.Spoof, port.Outbound = false, table.RuleSetKey{}
	set.Ports = maps.Clone(set.Ports)
	set.Ports[port.IfIndex] = port
	r := sim.Switch{Set: set}.FromPort(port.IfIndex, append(frame, said...))
	if r.Verdict != model.VerdictEncapsulated {
		return nil, false
	}
	return r.Frame[wire.EthernetLen:], true
}
