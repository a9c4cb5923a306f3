package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// The devices whose sockets make the kernel's GRO look into VXLAN, one for each family.
// They carry nothing: their network is the one VNI that RFC 7637 reserves and no subnet has. Or they
// strip what packets of all networks have in front, and somebody else hands these on.
const (
	vxlanDevice4 = "weft-vx4"
	vxlanDevice6 = "weft-vx6"
	vxlanNoVNI   = 0xffffff
)

// PrepareVXLAN makes the devices that listen on the UDP port over the families of
// addresses, and removes those of other ports or families; all says that they receive every VNI. New ones
// are down and listen only when SetUp is told their index, so that somebody may be put in front of them before.
func PrepareVXLAN(port uint16, addresses []netip.Addr, all bool) ([]uint32, error) {
	var out []uint32
	var problems []error
	for name, v6 := range map[string]bool{vxlanDevice4: false, vxlanDevice6: true} {
		index, err := prepareVXLAN(name, v6, port, addresses, all)
		if index != 0 {
			out = append(out, index)
		}
		problems = append(problems, err)
	}
	return out, errors.Join(problems...)
}

func prepareVXLAN(name string, v6 bool, port uint16, addresses []netip.Addr, all bool) (uint32, error) {
	wanted := false
	for _, a := range addresses {
		wanted = wanted || a.Is6() == v6
	}
	l, err := byName(name)
	if err != nil && !errors.Is(err, ErrNoDevice) {
		return 0, err
	}
	if err == nil {
		if have, ok := l.(*netlink.Vxlan); ok && wanted && have.Port == int(port) && have.FlowBased == all {
			return uint32(have.Index), nil
		}
		if err := DeleteLink(name); err != nil {
			return 0, err
		}
	}
	if !wanted {
		return 0, nil
	}
	return createVXLAN(name, v6, port, all)
}

func createVXLAN(name string, v6 bool, port uint16, all bool) (uint32, error) {
	l := &netlink.Vxlan{LinkAttrs: netlink.NewLinkAttrs(), VxlanId: vxlanNoVNI, Port: int(port), UDP6ZeroCSumRx: v6, UDP6ZeroCSumTx: v6}
	if l.Name = name; all {
		l.VxlanId, l.FlowBased = 0, true
	}
	if v6 {
		l.SrcAddr = net.IPv6unspecified // says the family
	}
	if err := netlink.LinkAdd(l); err != nil {
		return 0, fmt.Errorf("create vxlan device %s: %w", name, err)
	}
	made, err := byName(name)
	if err == nil {
		err = silenceNew(made)
	}
	if err != nil {
		return 0, errors.Join(err, DeleteLink(name))
	}
	return uint32(made.Attrs().Index), nil
}

// silenceNew keeps a device from saying anything of its own once it is up.
func silenceNew(l netlink.Link) error {
	if err := netlink.LinkSetARPOff(l); err != nil {
		return fmt.Errorf("stop ARP of %s: %w", l.Attrs().Name, err)
	}
	return silence(l)
}

// SetUp takes a device up.
func SetUp(index uint32) error {
	l, err := byIndex(index)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", l.Attrs().Name, err)
	}
	return nil
}

// RemoveVXLAN undoes PrepareVXLAN. It is no error when there is nothing to undo.
func RemoveVXLAN() error { return errors.Join(DeleteLink(vxlanDevice4), DeleteLink(vxlanDevice6)) }
