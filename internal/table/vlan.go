package table

// VLANPort is a device of this host where a VM NIC meets the VLAN switch: a Port without VSID, network
// and PA. Its MTU is that of the external interface.
type VLANPort struct {
	Port
	Uplink    uint32 // the external interface; 0: this host has none now
	Trunk     bool   // true: frames have tags but in the native VLAN
	Held      bool   // true: the guest has no addresses but those in Set.Allowed; false: nobody knows which it has
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
