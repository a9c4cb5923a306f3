package netdev

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// onlyAnswers lets ARP and Neighbour Advertisements through.
var onlyAnswers = []unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: 12},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_ARP, Jt: 5},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IPV6, Jf: 5},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 14 + 6},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_ICMPV6, Jf: 3},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: 14 + 40},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 136, Jf: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 128},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

// Ask sends a whole Ethernet frame out of a device, with a mark as Send does, and waits for a frame that answers it:
// ARP or a Neighbour Advertisement, as the other side has sent it and before any program on the device. It gives up when
// ctx ends: false.
func Ask(ctx context.Context, device, mark uint32, frame []byte, answers func(frame []byte) bool) (bool, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return false, fmt.Errorf("ask out of %s: %w", nameOf(device), err)
	}
	defer unix.Close(fd)
	program := unix.SockFprog{Len: uint16(len(onlyAnswers)), Filter: &onlyAnswers[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &program); err != nil {
		return false, fmt.Errorf("ask out of %s: %w", nameOf(device), err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return false, fmt.Errorf("ask out of %s: %w", nameOf(device), err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: swap16(unix.ETH_P_ALL), Ifindex: int(device)}); err != nil {
		return false, fmt.Errorf("ask out of %s: %w", nameOf(device), err)
	}
	if err := Send(device, mark, frame); err != nil {
		return false, err
	}
	const look = 100 * time.Millisecond // how long after its end ctx is noticed
	var b [128]byte
	for ctx.Err() == nil {
		if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(look/time.Millisecond)); err != nil && err != unix.EINTR {
			return false, fmt.Errorf("ask out of %s: %w", nameOf(device), err)
		}
		for n, _, err := unix.Recvfrom(fd, b[:], 0); err == nil; n, _, err = unix.Recvfrom(fd, b[:], 0) {
			if answers(b[:n]) {
				return true, nil
			}
		}
	}
	return false, nil
}
