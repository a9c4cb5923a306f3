package datapath

import (
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"
)

// DX2Segment is the segment to which decap sends what takes the detour of
// bpf/lib/dx2.h. Its route must be the seg6local action End.DX2 out of the device
// that AttachDX2 is given.
var DX2Segment = netip.MustParseAddr("fd77:6566:7400::1")

const progDX2 = "from_dx2"

// WantsDX2 reports whether the detour is asked for, or would help: the kernel lacks the
// flags that reset the tunnel's GSO state, and nobody asked for another way.
func (s *Switch) WantsDX2() bool {
	return s.opts.Decap == DecapDX2 || s.opts.Decap == DecapAuto && !s.gre
}

// AttachDX2 puts from_dx2 on the egress of the device and from then on sends TCP
// for ports that are not veth peers by way of it; repeating it is harmless. It
// comes before AttachUplink, which then needs no uplink_xdp.
func (s *Switch) AttachDX2(ifindex uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.links {
		if n.program == progDX2 && n.ifindex != ifindex {
			if err := s.detach(n); err != nil {
				return err
			}
		}
	}
	if err := s.attach(linkName{progDX2, ifindex}, ebpf.AttachTCXEgress); err != nil {
		return err
	}
	return s.setDX2(ifindex)
}

// DetachDX2 undoes AttachDX2.
func (s *Switch) DetachDX2() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.links {
		if n.program == progDX2 {
			return s.detach(n)
		}
	}
	return nil
}

// dx2Row is a row of bpf/maps/dx2.h, one for each CPU.
type dx2Row struct {
	IfIndex uint32
	Lost    uint32 // in a row
	Proven  uint32 // 1: one came back
	Zero    uint32
}

// broken reports whether the CPU has given the detour up.
func (r dx2Row) broken() bool {
	return r.Lost >= dx2MaxLost || r.Proven == 0 && r.Lost > 0
}

// dx2MaxLost is DX2_MAX_LOST of bpf/maps/dx2.h.
const dx2MaxLost = 256

// setDX2 names the device of the detour; a detour that broke stays broken until
// it is given another device.
func (s *Switch) setDX2(ifindex uint32) error {
	cpus, err := s.readDX2()
	if err != nil {
		return err
	}
	if cpus[0].IfIndex == ifindex {
		return nil
	}
	for i := range cpus {
		cpus[i] = dx2Row{IfIndex: ifindex}
	}
	if err := s.maps["dx2"].Put(uint32(0), cpus); err != nil {
		return fmt.Errorf("send packets by way of device %d: %w", ifindex, err)
	}
	return nil
}

func (s *Switch) readDX2() ([]dx2Row, error) {
	var cpus []dx2Row
	if err := s.maps["dx2"].Lookup(uint32(0), &cpus); err != nil {
		return nil, fmt.Errorf("read the state of the detour: %w", err)
	}
	return cpus, nil
}

// hasDX2 reports whether the detour stands and packets come back from it.
func (s *Switch) hasDX2() bool {
	cpus, err := s.readDX2()
	if err != nil || cpus[0].IfIndex == 0 {
		return false
	}
	for _, c := range cpus {
		if c.broken() {
			return false
		}
	}
	return true
}
