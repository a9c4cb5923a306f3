package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
)

// The pair that decapsulation takes its detour through; nothing ever crosses it.
const (
	dx2Device = "weft-dx0"
	dx2Peer   = "weft-dx1"
	dx2MTU    = 65535 // super-packets go out of it whole
)

// PrepareDX2 makes the device out of which the kernel sends what is addressed to
// segment, stripped of its IPv6 header (seg6local End.DX2), and returns its index.
// It may be called again and again. It fails where the kernel has no segment
// routing or IPv6 is off.
func PrepareDX2(segment netip.Addr) (uint32, error) {
	l, err := byName(dx2Device)
	if errors.Is(err, ErrNoDevice) {
		l, err = createDX2()
	}
	if err != nil {
		return 0, err
	}
	encap := &netlink.SEG6LocalEncap{Action: nl.SEG6_LOCAL_ACTION_END_DX2, Oif: l.Attrs().Index}
	encap.Flags[nl.SEG6_LOCAL_ACTION], encap.Flags[nl.SEG6_LOCAL_OIF] = true, true
	route := &netlink.Route{
		Dst:       &net.IPNet{IP: segment.AsSlice(), Mask: net.CIDRMask(128, 128)},
		LinkIndex: l.Attrs().Index, Encap: encap,
	}
	if err := netlink.RouteReplace(route); err != nil {
		return 0, fmt.Errorf("route segment %s into %s: %w", segment, dx2Device, err)
	}
	return uint32(l.Attrs().Index), nil
}

func createDX2() (netlink.Link, error) {
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: dx2Peer, PeerMTU: dx2MTU, PeerTxQLen: -1}
	veth.Name, veth.MTU = dx2Device, dx2MTU
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("create veth %s: %w", dx2Device, err)
	}
	for _, name := range []string{dx2Peer, dx2Device} {
		if err := quietUp(name); err != nil {
			return nil, errors.Join(err, DeleteLink(dx2Device))
		}
	}
	return byName(dx2Device)
}

// quietUp sets a device up that shall say nothing by itself.
func quietUp(name string) error {
	l, err := byName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetIP6AddrGenMode(l, addrGenModeNone); err != nil {
		return fmt.Errorf("stop automatic IPv6 addresses of %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// RemoveDX2 undoes PrepareDX2: the route goes with its device. It is no error
// when there is nothing to undo.
func RemoveDX2() error { return DeleteLink(dx2Device) }
