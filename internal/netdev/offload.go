package netdev

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offloads are the receive offloads of a device that matter to the switch.
type Offloads struct {
	GRO bool // generic receive offload: packets merged by the kernel, which can be cut again
	LRO bool // large receive offload: merged by the NIC, which cannot
}

// flagLRO is ETH_FLAG_LRO of struct ethtool_value.
const flagLRO = 1 << 15

// OffloadsOf reads the offloads of a device by name.
func OffloadsOf(device string) (Offloads, error) {
	gro, err := ethtool(device, unix.ETHTOOL_GGRO)
	if err != nil {
		return Offloads{}, err
	}
	flags, err := ethtool(device, unix.ETHTOOL_GFLAGS)
	return Offloads{GRO: gro != 0, LRO: flags&flagLRO != 0}, err
}

// ethtool asks one question of SIOCETHTOOL that a single word answers.
func ethtool(device string, command uint32) (uint32, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("offloads of %s: %w", device, err)
	}
	defer unix.Close(fd)
	value := struct{ command, data uint32 }{command: command} // struct ethtool_value
	request := struct {                                       // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return 0, fmt.Errorf("offloads of %s: %w", device, errno)
	}
	return value.data, nil
}
