package netdev

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Send sends a whole Ethernet frame out of a device, with a mark that the programs on the
// device see.
func Send(device, mark uint32, frame []byte) error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("send out of %s: %w", nameOf(device), err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_MARK, int(mark)); err != nil {
		return fmt.Errorf("send out of %s: %w", nameOf(device), err)
	}
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Protocol: unix.ETH_P_ALL, Ifindex: int(device)}); err != nil {
		return fmt.Errorf("send out of %s: %w", nameOf(device), err)
	}
	return nil
}
