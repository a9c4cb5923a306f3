package datapath

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

const (
	progShapeOut   = "shape_out"
	progShapeIn    = "shape_in"
	progFromShaper = "from_shaper"
)

const (
	// ShaperMajor is the number of the shaper's queue: a port's class there is ShaperMajor:ShaperClass.
	ShaperMajor = 0x7766
	shapeShift  = 20 // SHAPE_SHIFT of bpf/lib/shape.h

	// What waits longer is dropped: long enough for TCP to fill a pipe, short enough for others to talk.
	shapeWait = 25 * time.Millisecond
	// But of slow ports a super-packet and a half find room.
	shapeLeast = 96 << 10 // bytes

	// What is let through is a little more than what the queue behind lets pass, or TCP would never feel the queue
	// and be policed instead. The queue then fills slowly, and drops what is too much for it.
	shapeAbove = 200 // one of so many
)

// QueueRoom is how many bytes may wait for a Shape, in the kernel's queue behind it.
func QueueRoom(s table.Shape) uint64 { return waiting(s.Rate) + waiting(s.Rate)/8 }

func waiting(rate uint64) uint64 {
	return max(rate/8/uint64(time.Second/shapeWait), shapeLeast)
}

type shapeKey struct{ IfIndex, Direction uint32 }

type shapeRow struct {
	Cost, Limit, Used uint64
	Rate, Burst       uint64
	Port, Class       uint32
}

type shaperRow struct{ Entry, Exit uint32 }

func encodeShapeKey(k table.ShapeKey) shapeKey {
	if k.Inbound {
		return shapeKey{k.IfIndex, uint32(Inbound)}
	}
	return shapeKey{k.IfIndex, uint32(Outbound)}
}

func encodeShape(s table.Shape, class uint32) shapeRow {
	perByte := 8 * uint64(time.Second)
	room := waiting(s.Rate) + s.Burst
	return shapeRow{
		Cost: (perByte << shapeShift) / (s.Rate + s.Rate/shapeAbove), Limit: uint64(float64(room) * float64(perByte) / float64(s.Rate)),
		Rate: s.Rate, Burst: s.Burst, Port: uint32(s.Port), Class: class,
	}
}

func decodeShape(r shapeRow) table.Shape {
	return table.Shape{Port: model.PortID(r.Port), Rate: r.Rate, Burst: r.Burst}
}

func (s *Switch) putShapes(want table.Set, keys []table.ShapeKey) []error {
	name := func(k table.ShapeKey) string { return fmt.Sprintf("bandwidth of port %d", want.Shapes[k].Port) }
	return putRows(s.have.Shapes, want.Shapes, keys, name, func(k table.ShapeKey, v table.Shape) error {
		if err := checkShape(v); err != nil {
			return err
		}
		return s.maps["shape"].Put(encodeShapeKey(k), encodeShape(v, s.shaperClass(k)))
	})
}

func checkShape(v table.Shape) error {
	if v.Rate < table.MinRate || v.Rate > table.MaxRate {
		return fmt.Errorf("rate of %d bit/s is outside %d to %d", v.Rate, uint64(table.MinRate), uint64(table.MaxRate))
	}
	return nil
}

// shaperClass is the class of the shaper that the packets of a port wait in: 0 is none.
func (s *Switch) shaperClass(k table.ShapeKey) uint32 {
	slot, ok := s.slots[k.IfIndex]
	if !ok || k.Inbound || slot >= 1<<16-2 {
		return 0
	}
	return ShaperMajor<<16 | (slot + 1)
}

// ShaperClass is the number of the class of the shaper that the port on a device has; 0: it has none.
func (s *Switch) ShaperClass(ifindex uint32) uint16 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return uint16(s.shaperClass(table.ShapeKey{IfIndex: ifindex}))
}

func (s *Switch) deleteShapes(keys []table.ShapeKey) []error {
	name := func(k table.ShapeKey) string { return fmt.Sprintf("bandwidth of device %d", k.IfIndex) }
	return deleteRows(s.have.Shapes, keys, name, func(k table.ShapeKey) error { return s.maps["shape"].Delete(encodeShapeKey(k)) })
}

// SetShaper names the devices by way of which packets of guests wait: they are sent out of entry, and
// when their turn has come entry hands them to exit, at whose egress they go on as if they just came from
// their port. With 0, 0 nothing waits any more, and what is too much at once is dropped.
func (s *Switch) SetShaper(entry, exit uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if exit != 0 {
		if err := s.attach(linkName{progFromShaper, exit}, ebpf.AttachTCXEgress); err != nil {
			return err
		}
	}
	var have shaperRow
	if err := s.maps["shaper"].Lookup(uint32(0), &have); err != nil {
		return fmt.Errorf("read the shaper's devices: %w", err)
	}
	if want := (shaperRow{entry, exit}); want != have {
		if err := s.maps["shaper"].Put(uint32(0), want); err != nil {
			return fmt.Errorf("set the shaper's devices: %w", err)
		}
	}
	var errs []error
	for n := range s.links {
		if n.program == progFromShaper && n.ifindex != exit {
			errs = append(errs, s.detach(n))
		}
	}
	return errors.Join(errs...)
}

// ShapePorts limits what the Shapes of the last Apply say of these devices, and of no others any more. It
// comes after AttachPort. Repeating it is harmless.
func (s *Switch) ShapePorts(keys []table.ShapeKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for n := range s.links {
		inbound := n.program == progShapeIn
		if (inbound || n.program == progShapeOut) && !slices.Contains(keys, table.ShapeKey{IfIndex: n.ifindex, Inbound: inbound}) {
			errs = append(errs, s.detach(n))
		}
	}
	for _, k := range keys {
		n, at := linkName{progShapeOut, k.IfIndex}, ebpf.AttachTCXIngress
		if k.Inbound {
			n, at = linkName{progShapeIn, k.IfIndex}, ebpf.AttachTCXEgress
		}
		errs = append(errs, s.attach(n, at))
	}
	return errors.Join(errs...)
}

// Shaped lists what ShapePorts has attached.
func (s *Switch) Shaped() []table.ShapeKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []table.ShapeKey
	for n := range s.links {
		if n.program == progShapeIn || n.program == progShapeOut {
			out = append(out, table.ShapeKey{IfIndex: n.ifindex, Inbound: n.program == progShapeIn})
		}
	}
	return out
}

// anchor is where among the programs of a device one goes: shape_out and share_out right before from_port or vlan_guest, which
// end every walk, shape_in behind to_port, which alone knows whose frame it is, and what mirrors before all.
func (s *Switch) anchor(n linkName) link.Anchor {
	beside := func(programs ...string) (link.Link, bool) {
		for _, p := range programs {
			if l, ok := s.links[linkName{p, n.ifindex}]; ok {
				return l, true
			}
		}
		return nil, false
	}
	switch n.program {
	case progShapeIn:
		return link.Tail()
	case progShapeOut, progShareOut:
		if walk, ok := beside(progFromPort, progVLANGuest); ok {
			return link.BeforeLink(walk)
		}
	case progFromPort, progVLANGuest: // the port was in a subnet, or on a VLAN, and was limited or mirrored there
		if before, ok := beside(progShapeOut, progShareOut, progMirrorOut); ok {
			return link.AfterLink(before)
		}
	}
	return link.Head()
}
