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

// WantsDX2 reports whether the detour would help: the kernel lacks the flag that
// resets the tunnel's GSO state, and nobody asked for another way.
func (s *Switch) WantsDX2() bool {
	return !s.gre && (s.opts.Decap == DecapAuto || s.opts.Decap == DecapDX2)
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

func (s *Switch) setDX2(ifindex uint32) error {
	if err := s.maps["dx2"].Put(uint32(0), ifindex); err != nil {
		return fmt.Errorf("send packets by way of device %d: %w", ifindex, err)
	}
	return nil
}

// hasDX2 reports whether the detour stands.
func (s *Switch) hasDX2() bool {
	for n := range s.links {
		if n.program == progDX2 {
			return true
		}
	}
	return false
}
