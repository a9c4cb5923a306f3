package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
)

// DX2Segment is the segment to which decap sends what takes the detour of
// bpf/lib/dx2.h. Its route must be the seg6local action End.DX2 out of the device
// that AttachDX2 is given.
var DX2Segment = netip.MustParseAddr("fd77:6566:7400::1")

// The programs at the ends of detours.
const (
	progDX2       = "from_dx2"
	progFromGRO   = "from_gro"
	progFromVXLAN = "from_vxlan"
)

// detours are the ways that TCP may take which is stripped at tcx, by the program at the end, and
// how the switch calls them: enum detour_by of bpf/maps/detour.h.
var detours = map[string]uint32{progDX2: 0, progFromGRO: 1, progFromVXLAN: 2}

// strategies are what Strategies calls them.
var strategies = []string{"tcx+dx2", "tcx+veth", "tcx+vxlan"}

// Detour says which detour for taps is asked for, or would help: DecapDX2, DecapVeth,
// DecapVXLAN, or "" for none. Where the kernel has the flags that reset the tunnel's GSO state, DecapDX2
// means those, and by itself the switch wants none.
func (s *Switch) Detour() string {
	switch s.opts.Decap {
	case DecapVeth, DecapVXLAN:
		return s.opts.Decap
	case DecapAuto, DecapDX2:
		// Kernels that have the flags drop super-packets on the way through End.DX2.
		if !s.gre {
			return DecapDX2
		}
	}
	return ""
}

// AttachDX2 puts from_dx2 on the egress of the device and from then on sends TCP
// for ports that are not veth peers by way of it; repeating it is harmless. It
// comes before AttachUplink, which then needs no uplink_xdp. A host has one detour: this, or
// AttachVeth, or AttachVXLAN, undoes the others.
func (s *Switch) AttachDX2(ifindex uint32) error {
	return s.attachDetour(progDX2, ebpf.AttachTCXEgress, ifindex, ifindex)
}

// AttachVeth is AttachDX2 for the detour through a veth pair: packets go out of the first device,
// which must not take super-packets (no TSO), and come in by the second, whose GRO must be on. It
// serves 131,072 ports; those beyond get pieces.
func (s *Switch) AttachVeth(out, in uint32) error {
	return s.attachDetour(progFromGRO, ebpf.AttachTCXIngress, out, in)
}

// AttachVXLAN is AttachDX2 for the detour of VXLAN through vxlan devices of the kernel,
// which take every VNI ("external"). Nothing else that they receive goes any further.
func (s *Switch) AttachVXLAN(devices []uint32) error {
	if len(devices) == 0 {
		return s.DetachDetour()
	}
	return s.attachDetour(progFromVXLAN, ebpf.AttachTCXIngress, devices[0], devices...)
}

// attachDetour makes the only detour of the host one that leads by the device named, and ends at others.
func (s *Switch) attachDetour(program string, at ebpf.AttachType, by uint32, ends ...uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.links {
		if _, ok := detours[n.program]; ok && (n.program != program || !slices.Contains(ends, n.ifindex)) {
			if err := s.detach(n); err != nil {
				return err
			}
		}
	}
	for _, ifindex := range ends {
		if err := s.attach(linkName{program, ifindex}, at); err != nil {
			return err
		}
	}
	return s.setDetour(by, detours[program])
}

// DetachDetour undoes AttachDX2, AttachVeth and AttachVXLAN.
func (s *Switch) DetachDetour() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for n := range s.links {
		if _, ok := detours[n.program]; ok {
			errs = append(errs, s.detach(n))
		}
	}
	return errors.Join(errs...)
}

// detourRow is a row of bpf/maps/detour.h, one for each CPU.
type detourRow struct {
	IfIndex uint32
	Lost    uint32 // in a row
	Proven  uint32 // 1: one came back
	By      uint32 // an enum detour_by
}

// broken reports whether the CPU has given the detour up.
func (r detourRow) broken() bool {
	return r.Lost >= detourMaxLost || r.Proven == 0 && r.Lost > 0
}

// detourMaxLost is DETOUR_MAX_LOST of bpf/maps/detour.h.
const detourMaxLost = 256

// setDetour names the device of the detour; a detour that broke stays broken until
// it is given another device.
func (s *Switch) setDetour(ifindex, by uint32) error {
	cpus, err := s.readDetour()
	if err != nil {
		return err
	}
	if cpus[0].IfIndex == ifindex && cpus[0].By == by {
		return nil
	}
	for i := range cpus {
		cpus[i] = detourRow{IfIndex: ifindex, By: by}
	}
	if err := s.maps["detour"].Put(uint32(0), cpus); err != nil {
		return fmt.Errorf("send packets by way of device %d: %w", ifindex, err)
	}
	return nil
}

func (s *Switch) readDetour() ([]detourRow, error) {
	var cpus []detourRow
	if err := s.maps["detour"].Lookup(uint32(0), &cpus); err != nil {
		return nil, fmt.Errorf("read the state of the detour: %w", err)
	}
	return cpus, nil
}

// detourTaken is the strategy of the detour that stands and from which packets come back; "": there is none.
func (s *Switch) detourTaken() string {
	cpus, err := s.readDetour()
	if err != nil || cpus[0].IfIndex == 0 || int(cpus[0].By) >= len(strategies) {
		return ""
	}
	for _, c := range cpus {
		if c.broken() {
			return ""
		}
	}
	return strategies[cpus[0].By]
}
