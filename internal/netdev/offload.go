package netdev

import (
	"fmt"
	"runtime"
	"slices"
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

// ssFeatures is ETH_SS_FEATURES of linux/ethtool.h.
const (
	ssFeatures  = 4
	featureName = 32 // ETH_GSTRING_LEN: bytes of a name
)

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
	value := struct{ command, data uint32 }{command: command} // struct ethtool_value
	if err := ethtoolCall(device, unsafe.Pointer(&value)); err != nil {
		return 0, err
	}
	return value.data, nil
}

// tunnelOffloads are features by which a device says that it cuts packets inside a
// tunnel. A veth says so of itself and cuts nothing: whoever has to put what came out
// of it into a tunnel cannot cut it either.
var tunnelOffloads = []string{
	"tx-gre-segmentation", "tx-gre-csum-segmentation", "tx-ipxip4-segmentation", "tx-ipxip6-segmentation",
	"tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation", "tx-esp-segmentation", "tx-tunnel-remcsum-segmentation",
}

// noTunnelOffloads switches tunnelOffloads of a device of the calling thread's
// namespace off.
func noTunnelOffloads(device string) error { return setFeatures(device, tunnelOffloads, false) }

// setFeatures switches features of a device of the calling thread's namespace on or off. One that
// the kernel does not know is off.
func setFeatures(device string, features []string, on bool) error {
	names, err := featureNames(device)
	if err != nil {
		return err
	}
	blocks := (len(names) + 31) / 32
	// struct ethtool_sfeatures: command, number of blocks, and of each what is valid and what is requested.
	request := make([]uint32, 2+2*blocks)
	request[0], request[1] = unix.ETHTOOL_SFEATURES, uint32(blocks)
	for i, name := range names {
		if !slices.Contains(features, name) {
			continue
		}
		request[2+i/32*2] |= 1 << (i % 32)
		if on {
			request[3+i/32*2] |= 1 << (i % 32)
		}
	}
	return ethtoolCall(device, unsafe.Pointer(&request[0]))
}

// featureNames lists the features of a device in the order of their bits.
func featureNames(device string) ([]string, error) {
	// struct ethtool_sset_info with one set.
	info := struct {
		command, reserved uint32
		mask              uint64
		count             uint32
	}{command: unix.ETHTOOL_GSSET_INFO, mask: 1 << ssFeatures}
	if err := ethtoolCall(device, unsafe.Pointer(&info)); err != nil {
		return nil, err
	}
	// struct ethtool_gstrings.
	const most = 256
	strings := struct {
		command, set, count uint32
		names               [most][featureName]byte
	}{command: unix.ETHTOOL_GSTRINGS, set: ssFeatures, count: info.count}
	if info.count > most {
		return nil, fmt.Errorf("offloads of %s: %d features", device, info.count)
	}
	if err := ethtoolCall(device, unsafe.Pointer(&strings)); err != nil {
		return nil, err
	}
	var out []string
	for _, name := range strings.names[:strings.count] {
		out = append(out, unix.ByteSliceToString(name[:]))
	}
	return out, nil
}

// ethtoolCall is one SIOCETHTOOL, whose structure is at data.
func ethtoolCall(device string, data unsafe.Pointer) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("offloads of %s: %w", device, err)
	}
	defer unix.Close(fd)
	request := struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}{data: data}
	copy(request.name[:unix.IFNAMSIZ-1], device)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return fmt.Errorf("offloads of %s: %w", device, errno)
	}
	return nil
}

// onThreadIn calls f on a thread in a namespace.
func onThreadIn(ns int, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		err := unix.Setns(ns, unix.CLONE_NEWNET)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}
