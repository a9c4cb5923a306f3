package netdev

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// SendIP sends a whole IP packet, of either family, as the host's routes lead to its destination. It fails on what is
// too short for its header.
func SendIP(packet []byte) error {
	family, option, level, to, err := rawIP(packet)
	if err != nil {
		return fmt.Errorf("send IP packet: %w", err)
	}
	fd, err := unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("send IP packet: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		return fmt.Errorf("send IP packet: %w", err)
	}
	if err := unix.Sendto(fd, packet, 0, to); err != nil {
		return fmt.Errorf("send IP packet: %w", err)
	}
	return nil
}

func rawIP(packet []byte) (family, option, level int, to unix.Sockaddr, err error) {
	switch {
	case len(packet) >= 40 && packet[0]>>4 == 6:
		return unix.AF_INET6, unix.IPV6_HDRINCL, unix.SOL_IPV6, &unix.SockaddrInet6{Addr: [16]byte(packet[24:40])}, nil
	case len(packet) >= 20 && packet[0]>>4 == 4:
		return unix.AF_INET, unix.IP_HDRINCL, unix.SOL_IP, &unix.SockaddrInet4{Addr: [4]byte(packet[16:20])}, nil
	}
	return 0, 0, 0, nil, fmt.Errorf("%d bytes are none", len(packet))
}
