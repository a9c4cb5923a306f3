package sim

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/wire"
)

// underlay80 sends an encapsulated packet on its way; a local one goes on to deliver.
func (w *walk) underlay80() model.Verdict {
	if w.peer == nil {
		return model.VerdictContinue
	}
	outer := wire.Ethernet{Type: etherTypeOf(outerDestination(*w.peer))} // the addresses are the kernel's to fill, except for ARP
	if w.rewriting {
		outer.Type = w.packet.eth.Type
	}
	if w.exchanges {
		outer.Type = otherType(outer.Type)
	}
	if w.packet.isARP() {
		if w.peer.NextHop.IsZero() {
			return w.say(model.VerdictNeighbourUnresolved, "underlay", "no link-layer address toward %s", outerDestination(*w.peer))
		}
		outer.Src, outer.Dst = w.peer.Source, w.peer.NextHop
	}
	must(outer.Encode(w.frame))
	w.send(w.peer.IfIndex, w.frame)
	return w.say(model.VerdictEncapsulated, "underlay", "out of device %d", w.peer.IfIndex)
}

func etherTypeOf(a netip.Addr) uint16 {
	if a.Is6() {
		return wire.TypeIPv6
	}
	return wire.TypeIPv4
}
