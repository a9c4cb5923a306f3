package datapath

import (
	"encoding/binary"
	"fmt"
	"net"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

const (
	adjRoomMAC         = 1
	adjRoomFixedGSO    = 1 << 0
	adjRoomNoCsumReset = 1 << 5
	adjRoomDecapL4GRE  = 1 << 9  // since Linux 7.3; resets the tunnel's GSO state
	adjRoomDecapL4UDP  = 1 << 10 // the same for VXLAN
)

// probeDecapL4 tries whether the kernel knows the flags that make tcx
// decapsulation leave plain GSO packets behind.
func probeDecapL4() (bool, error) {
	gre, err := probeDecap(adjRoomDecapL4GRE, 47)
	if err != nil || !gre {
		return false, err
	}
	return probeDecap(adjRoomDecapL4UDP, 17)
}

func probeDecap(flag int64, proto byte) (bool, error) {
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "weft_probe", Type: ebpf.SchedCLS, License: "Dual BSD/GPL",
		Instructions: asm.Instructions{
			asm.Mov.Imm(asm.R2, -42),
			asm.Mov.Imm(asm.R3, adjRoomMAC),
			asm.LoadImm(asm.R4, adjRoomFixedGSO|adjRoomNoCsumReset|flag, asm.DWord),
			asm.FnSkbAdjustRoom.Call(),
			asm.Return(),
		},
	})
	if err != nil {
		return false, fmt.Errorf("probe decapsulation: %w", err)
	}
	defer prog.Close()
	frame := make([]byte, 14+20+8+14+28)
	binary.BigEndian.PutUint16(frame[12:], 0x0800)
	frame[14], frame[22], frame[23] = 0x45, 64, proto
	binary.BigEndian.PutUint16(frame[16:], uint16(len(frame)-14))
	ret, err := prog.Run(&ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256)})
	if err != nil {
		return false, fmt.Errorf("probe decapsulation: %w", err)
	}
	return ret == 0, nil
}

// driver names the driver of a device.
func driver(ifc *net.Interface) (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("ask the driver of %s: %w", ifc.Name, err)
	}
	defer unix.Close(fd)
	info, err := unix.IoctlGetEthtoolDrvinfo(fd, ifc.Name)
	if err != nil {
		return "", fmt.Errorf("ask the driver of %s: %w", ifc.Name, err)
	}
	return unix.ByteSliceToString(info.Driver[:]), nil
}
