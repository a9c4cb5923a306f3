package table

import (
	"github.com/weft-sdn/weft/internal/model"
)

// VLANPort is a device of this host where a VM NIC meets the VLAN switch.
type VLANPort struct {
	IfIndex   uint32 // device on the host; the key
	ID        model.PortID
	MAC       model.MAC
	Uplink    uint32 // the external interface; 0: this host has none now
	MTU       uint16 // of the external interface
	Spoof     bool   // true: the guest may speak for others
	Peer      bool   // true: veth whose other end is in another namespace
	Trunk     bool   // true: frames have tags but in the native VLAN
	Priority  bool   // true: 802.1p priorities of the guest pass
	Native    uint16 // VLAN of what the guest sends without a tag; 0: it has none there either
	StormRate uint32 // packets per second that the port may have flooded
	Sends     VLANs
	Receives  VLANs
}

// VLANs is a set of VLANs, one bit each; 0 is for frames without a tag.
type VLANs [64]uint64

// MaxVLANMembers bounds the ports behind one external interface.
const MaxVLANMembers = 256

// NewVLANs gives the set of ids.
func NewVLANs(ids ...uint16) (v VLANs) {
	for _, id := range ids {
		v.Add(id)
	}
	return v
}

// Add puts an id into v.
func (v *VLANs) Add(id uint16) { v[id>>6&63] |= 1 << (id & 63) }

// Remove takes an id out of v.
func (v *VLANs) Remove(id uint16) { v[id>>6&63] &^= 1 << (id & 63) }

// Has tells whether id is in v.
func (v VLANs) Has(id uint16) bool { return v[id>>6&63]>>(id&63)&1 != 0 }
