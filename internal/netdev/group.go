package netdev

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// JoinGroup has the devices receive what is sent to a multicast group, and tells the
// underlay's switches and routers so (IGMP, MLD), until the socket is closed.
func JoinGroup(group netip.Addr, devices []uint32) (io.Closer, error) {
	family := unix.AF_INET6
	if group.Is4() {
		family = unix.AF_INET
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("join %s: %w", group, err)
	}
	for _, index := range devices {
		if group.Is4() {
			err = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(index)})
		} else {
			err = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: index})
		}
		if err != nil {
			unix.Close(fd)
			return nil, fmt.Errorf("join %s on device %s: %w", group, nameOf(index), err)
		}
	}
	return os.NewFile(uintptr(fd), group.String()), nil
}

func nameOf(index uint32) string {
	if d, err := net.InterfaceByIndex(int(index)); err == nil {
		return d.Name
	}
	return fmt.Sprint(index)
}
