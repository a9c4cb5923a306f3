package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// addrGenModeNone is IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const addrGenModeNone = 1

// PreparePort makes a device on the host side fit to be a port: up, of the
// given MTU, and silent: the host's own stack neither answers ARP nor runs IPv6
// there. The MTU of a tap is left to its VM manager unless it is larger.
func PreparePort(index uint32, mtu int) error {
	l, err := byIndex(index)
	if err != nil {
		return err
	}
	if err := silence(l); err != nil {
		return err
	}
	a := l.Attrs()
	if a.MTU > mtu || (l.Type() == "veth" && a.MTU != mtu) {
		if err := netlink.LinkSetMTU(l, mtu); err != nil {
			return fmt.Errorf("set MTU of %s to %d: %w", a.Name, mtu, err)
		}
	}
	if a.Flags&net.FlagUp != 0 {
		return nil
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", a.Name, err)
	}
	return nil
}

// SetDown takes a device down.
func SetDown(index uint32) error {
	l, err := byIndex(index)
	if err != nil {
		return err
	}
	err = netlink.LinkSetDown(l)
	if errors.Is(err, unix.ENODEV) { // it went meanwhile
		return fmt.Errorf("device %s: %w", l.Attrs().Name, ErrNoDevice)
	}
	if err != nil {
		return fmt.Errorf("set %s down: %w", l.Attrs().Name, err)
	}
	return nil
}

// silence keeps the host's stack off a port: what the host sent into it would
// be dropped as NOT_FROM_SWITCH and only spoil the counters.
func silence(l netlink.Link) error {
	name := l.Attrs().Name
	if err := netlink.LinkSetIP6AddrGenMode(l, addrGenModeNone); err != nil {
		return fmt.Errorf("stop automatic IPv6 addresses of %s: %w", name, err)
	}
	if err := disableIPv6(name); err != nil {
		return err
	}
	if err := netlink.LinkSetARPOff(l); err != nil {
		return fmt.Errorf("switch ARP of %s off: %w", name, err)
	}
	return nil
}

func disableIPv6(name string) error {
	path := "/proc/sys/net/ipv6/conf/" + name + "/disable_ipv6"
	err := os.WriteFile(path, []byte("1"), 0)
	if os.IsNotExist(err) {
		return nil // this kernel or namespace has no IPv6 at all
	}
	if err != nil {
		return fmt.Errorf("switch IPv6 of %s off: %w", name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
