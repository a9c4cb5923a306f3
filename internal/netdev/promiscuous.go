package netdev

import (
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SetPromiscuous has a device receive frames for every MAC, or again only for its own and its groups.
func SetPromiscuous(index uint32, on bool) error {
	l, err := byIndex(index)
	if err != nil {
		return err
	}
	if l.Attrs().RawFlags&unix.IFF_PROMISC != 0 == on {
		return nil
	}
	set := netlink.SetPromiscOff
	if on {
		set = netlink.SetPromiscOn
	}
	if err := set(l); err != nil {
		return fmt.Errorf("make %s promiscuous (%t): %w", l.Attrs().Name, on, err)
	}
	return nil
}
