package table

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
)

// MaxMirrors bounds the mirrors of one port.
const MaxMirrors = 4

// MirrorKey finds a Mirror: those of the port on a device are numbered from 0, without gaps.
type MirrorKey struct {
	IfIndex uint32
	N       uint8 // less than MaxMirrors
}

// Mirror copies what a port sends and gets to another port.
type Mirror struct {
	Port              model.PortID // that is mirrored
	Outbound, Inbound bool         // what the guest sends, what it gets
	Snap              uint32       // bytes of each frame; 0: all
	Rate              uint32       // copies a second; 0: all
	Filter            MirrorFilter
	To                model.PortID // that gets the copies
	IfIndex           uint32       // its device here; 0: it is on another host, or not plugged
	Way               Peer         // to its host, with Local and NextHop; the zero Peer: it is here, or there is none
}

// MirrorFilter says which IP packets are copied; the zero value: all frames.
type MirrorFilter struct {
	Prefix      netip.Prefix // source or destination; invalid: any
	OneProtocol bool         // Protocol alone
	Protocol    uint8
	Port        uint16 // source or destination, of TCP and UDP; 0: any
}

// MirrorSource is an outer source that copies for a port of this host may have.
type MirrorSource struct {
	Port model.PortID // that gets them
	PA   netip.Addr
}
