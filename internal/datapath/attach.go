package datapath

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/weft-sdn/weft/internal/model"
)

// linkName names an attachment, and its pin: program-ifindex.
type linkName struct {
	program string
	ifindex uint32
}

func (n linkName) String() string { return fmt.Sprintf("%s-%d", n.program, n.ifindex) }

func parseLinkName(file string) (linkName, bool) {
	program, number, ok := strings.Cut(file, "-")
	ifindex, err := strconv.ParseUint(number, 10, 32)
	return linkName{program, uint32(ifindex)}, ok && err == nil
}

// detachOrder puts uplink_xdp first: what it strips must meet from_uplink, or it
// would reach the host's own stack.
func detachOrder(a, b linkName) int {
	if x, y := a.program == progXDP, b.program == progXDP; x != y {
		if x {
			return -1
		}
		return 1
	}
	return cmp.Compare(a.String(), b.String())
}

const (
	progFromPort   = "from_port"
	progFromUplink = "from_uplink"
	progToPort     = "to_port"
	progXDP        = "uplink_xdp"
)

func (s *Switch) linkPath(n linkName) string {
	return filepath.Join(s.opts.PinDir, "links", n.String())
}

// AttachPort puts from_port and to_port on the device; repeating it is harmless.
func (s *Switch) AttachPort(ifindex uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(
		s.attach(linkName{progToPort, ifindex}, ebpf.AttachTCXEgress),
		s.attach(linkName{progFromPort, ifindex}, ebpf.AttachTCXIngress),
		s.detach(linkName{progVLANGuest, ifindex}),
	)
}

// DetachPort takes the switch off the device. What the guest sends then reaches
// the host's own stack: set the device down first.
func (s *Switch) DetachPort(ifindex uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(
		s.detach(linkName{progFromPort, ifindex}),
		s.detach(linkName{progVLANGuest, ifindex}),
		s.detach(linkName{progToPort, ifindex}),
	)
}

// AttachUplink puts from_uplink on the device, and uplink_xdp where Decap says so.
func (s *Switch) AttachUplink(ifindex uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// from_uplink comes first and goes last: it catches what uplink_xdp strips.
	if err := s.attach(linkName{progFromUplink, ifindex}, ebpf.AttachTCXIngress); err != nil {
		return err
	}
	xdp := linkName{progXDP, ifindex}
	want, err := s.wantsXDP(ifindex)
	if err != nil {
		return err
	}
	if !want || s.noXDP[ifindex] {
		return s.detach(xdp)
	}
	err = s.attachXDP(xdp)
	if err != nil && s.opts.Decap == DecapAuto {
		s.noXDP[ifindex] = true // until the switch has been off the device
		s.log.Info("uplink has no native xdp; decapsulating at tcx", "ifindex", ifindex, "error", err)
		return nil
	}
	return err
}

// wantsXDP decides how the uplink decapsulates.
func (s *Switch) wantsXDP(ifindex uint32) (bool, error) {
	if s.opts.Decap != DecapAuto || s.gre || s.detourTaken() == strategies[detours[progDX2]] {
		return s.opts.Decap == DecapXDP, nil
	}
	ifc, err := net.InterfaceByIndex(int(ifindex))
	if err != nil {
		return false, fmt.Errorf("attach uplink %d: %w", ifindex, err)
	}
	name, err := driver(ifc)
	return err == nil && name != "veth", nil // XDP copies every packet on a veth
}

func (s *Switch) attachXDP(n linkName) error {
	ifc, err := net.InterfaceByIndex(int(n.ifindex))
	if err != nil {
		return fmt.Errorf("attach %s to device %d: %w", n.program, n.ifindex, err)
	}
	if len(ifc.HardwareAddr) != 6 {
		return fmt.Errorf("attach %s to %s: not an Ethernet device", n.program, ifc.Name)
	}
	row := uplinkRow{MAC: model.MAC(ifc.HardwareAddr)}
	if err := s.maps["uplink"].Put(n.ifindex, row); err != nil {
		return fmt.Errorf("attach %s to %s: %w", n.program, ifc.Name, err)
	}
	return s.attach(n, ebpf.AttachXDP)
}

// attach links a program to a device unless it is there already.
func (s *Switch) attach(n linkName, at ebpf.AttachType) error {
	if l, ok := s.links[n]; ok {
		if device, err := linkDevice(l); err == nil && device == n.ifindex {
			return nil
		}
		if err := s.detach(n); err != nil { // the device went, and another one has its number
			return err
		}
	}
	l, err := s.newLink(n, at)
	if err != nil {
		return fmt.Errorf("attach %s to device %d: %w", n.program, n.ifindex, err)
	}
	if s.opts.PinDir != "" {
		if err := s.pinLink(n, l); err != nil {
			l.Close()
			return fmt.Errorf("pin %s of device %d: %w", n.program, n.ifindex, err)
		}
	}
	s.links[n] = l
	return nil
}

func (s *Switch) newLink(n linkName, at ebpf.AttachType) (link.Link, error) {
	if at == ebpf.AttachXDP {
		return link.AttachXDP(link.XDPOptions{Program: s.programs[n.program], Interface: int(n.ifindex), Flags: link.XDPDriverMode})
	}
	return link.AttachTCX(link.TCXOptions{
		Program: s.program(n.program), Interface: int(n.ifindex), Attach: at, Anchor: s.anchor(n),
	})
}

func (s *Switch) pinLink(n linkName, l link.Link) error {
	path := s.linkPath(n)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return l.Pin(path)
}

// detach unlinks a program; that nothing was attached is no error.
func (s *Switch) detach(n linkName) error {
	l, ok := s.links[n]
	if !ok {
		return nil
	}
	delete(s.links, n)
	if n.program == progFromUplink {
		delete(s.noXDP, n.ifindex)
	}
	var err error
	if _, ok := detours[n.program]; ok { // nothing may take the detour when nobody waits at its end
		err = s.setDetour(0, 0)
	}
	if s.opts.PinDir != "" {
		err = errors.Join(err, l.Unpin())
	}
	if err = errors.Join(err, l.Close()); err != nil {
		return fmt.Errorf("detach %s from device %d: %w", n.program, n.ifindex, err)
	}
	switch n.program {
	case progXDP:
		return ignoreMissing(s.maps["uplink"].Delete(n.ifindex))
	case progShareTurn:
		return ignoreMissing(s.maps["turn"].Delete(n.ifindex))
	}
	return nil
}

// DetachUplink undoes AttachUplink.
func (s *Switch) DetachUplink(ifindex uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(
		s.detach(linkName{progXDP, ifindex}),
		s.detach(linkName{progFromUplink, ifindex}),
	)
}

// Attached lists the devices that the switch is on, sorted. Devices that have
// vanished are forgotten.
func (s *Switch) Attached() (ports, uplinks []uint32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, l := range s.links {
		device, e := linkDevice(l)
		if e != nil || device != n.ifindex {
			err = errors.Join(err, e, s.detach(n))
			continue
		}
		switch n.program {
		case progFromPort, progVLANGuest:
			ports = append(ports, n.ifindex)
		case progFromUplink:
			uplinks = append(uplinks, n.ifindex)
		}
	}
	slices.Sort(ports)
	slices.Sort(uplinks)
	return ports, uplinks, err
}

// Strategies says for each uplink how it decapsulates: "tcx", "tcx+gre" (the
// kernel resets the tunnel's GSO state), "tcx+dx2", "tcx+veth" or "tcx+vxlan" (by way of AttachDX2 and
// the like where that matters) or "xdp".
func (s *Switch) Strategies() map[uint32]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out, detour := map[uint32]string{}, s.detourTaken()
	for n := range s.links {
		if n.program != progFromUplink {
			continue
		}
		switch _, xdp := s.links[linkName{progXDP, n.ifindex}]; {
		case xdp:
			out[n.ifindex] = "xdp"
		case detour != "":
			out[n.ifindex] = detour
		case s.gre:
			out[n.ifindex] = "tcx+gre"
		default:
			out[n.ifindex] = "tcx"
		}
	}
	return out
}

// loadLinks opens the pinned links and cleans up those whose device vanished.
func (s *Switch) loadLinks() error {
	files, err := os.ReadDir(filepath.Join(s.opts.PinDir, "links"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, f := range files {
		n, ok := parseLinkName(f.Name())
		if !ok || s.programs[n.program] == nil {
			return fmt.Errorf("pinned link %s: not ours; remove it", f.Name())
		}
		l, err := link.LoadPinnedLink(s.linkPath(n), nil)
		if err != nil {
			return fmt.Errorf("pinned link %s: %w", n, err)
		}
		s.links[n] = l
		if device, err := linkDevice(l); err != nil || device != n.ifindex {
			s.log.Info("device of a pinned link is gone", "link", n.String())
			if err := s.detach(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// PinnedPorts lists the devices that the switch pinned under pinDir is on as ports,
// with no switch open.
func PinnedPorts(pinDir string) ([]uint32, error) {
	files, err := os.ReadDir(filepath.Join(pinDir, "links"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var out []uint32
	var errs []error
	for _, f := range files {
		n, ok := parseLinkName(f.Name())
		if !ok || n.program != progFromPort && n.program != progVLANGuest {
			continue
		}
		l, err := link.LoadPinnedLink(filepath.Join(pinDir, "links", f.Name()), nil)
		if err != nil {
			errs = append(errs, fmt.Errorf("pinned link %s: %w", n, err))
			continue
		}
		device, err := linkDevice(l)
		if errs = append(errs, err, l.Close()); device == n.ifindex {
			out = append(out, device)
		}
	}
	return out, errors.Join(errs...)
}

// updateLinks replaces the program of every link, atomically each.
func (s *Switch) updateLinks() error {
	for n, l := range s.links {
		if err := l.Update(s.programs[n.program]); err != nil {
			return fmt.Errorf("replace program of %s: %w", n, err)
		}
	}
	return nil
}

// linkDevice is the device that a link is on; 0 when it has vanished.
func linkDevice(l link.Link) (uint32, error) {
	info, err := l.Info()
	if err != nil {
		return 0, err
	}
	if tcx := info.TCX(); tcx != nil {
		return tcx.Ifindex, nil
	}
	if xdp := info.XDP(); xdp != nil {
		return xdp.Ifindex, nil
	}
	return 0, fmt.Errorf("link of unexpected type %v", info.Type)
}

func ignoreMissing(err error) error {
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	return err
}
