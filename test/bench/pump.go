package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A pump is the guest of a tap port. QEMU and vhost read frames with their
// virtio header from the host's tap and hand them to the guest's driver; the
// pump hands them to a second tap, whose kernel stack is the guest. The host's
// side cannot tell the difference: same device, same flags, same offloads.

const (
	tunOffloads = 0x01 | 0x02 | 0x04 | 0x20 | 0x40 // TUN_F_CSUM, TSO4, TSO6, USO4, USO6 of linux/if_tun.h
	vnetHeader  = 12                               // of virtio 1.0, as vhost uses it
	largest     = vnetHeader + 14 + 65536
)

// pump moves frames between the port s.Device in s.HostNS and eth0 in s.NS, until killed.
func pump(s spec) error {
	if err := enter(s.HostNS); err != nil {
		return err
	}
	port, err := openTap(s.Device)
	if err != nil {
		return err
	}
	if err := enter(s.NS); err != nil {
		return err
	}
	guest, err := openTap("eth0")
	if err != nil {
		return err
	}
	ready()
	done := make(chan error, 2)
	go func() { done <- move(port, guest) }()
	go func() { done <- move(guest, port) }()
	return <-done
}

// openTap makes a tap device in the thread's namespace and returns its queue.
func openTap(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("/dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		return -1, err
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	return fd, errors.Join(
		unix.IoctlIfreq(fd, unix.TUNSETIFF, req),
		unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, vnetHeader),
		unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, tunOffloads),
	)
}

// move copies frames one way. A tap that is not up refuses frames with EIO: as
// on a wire, they are lost.
func move(from, to int) error {
	runtime.LockOSThread()
	if err := hurry(); err != nil {
		return err
	}
	b := make([]byte, largest)
	for {
		n, err := read(from, b)
		if err != nil {
			return fmt.Errorf("reading a frame: %w", err)
		}
		if _, err := write(to, b[:n]); err != nil && err != unix.EIO && err != unix.EINVAL {
			return fmt.Errorf("writing a frame of %d: %w", n, err)
		}
	}
}

// cpuTime is the processor time that a running process has taken, in steps of 10 ms.
func cpuTime(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	user, err := strconv.Atoi(f[11])
	system, err2 := strconv.Atoi(f[12])
	return time.Duration(user+system) * 10 * time.Millisecond, errors.Join(err, err2)
}

// place pins all threads of a pump to one CPU, or frees them with -1.
func place(pid, cpu int) error {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", pid))
	if err != nil || len(tasks) == 0 {
		return fmt.Errorf("pump %d has no threads: %w", pid, os.ErrNotExist)
	}
	var set unix.CPUSet
	for i := range runtime.NumCPU() {
		if cpu < 0 || cpu == i {
			set.Set(i)
		}
	}
	for _, t := range tasks {
		tid, err := strconv.Atoi(filepath.Base(t))
		if err != nil {
			return err
		}
		if err := unix.SchedSetaffinity(tid, &set); err != nil {
			return fmt.Errorf("placing the pump on cpu %d: %w", cpu, err)
		}
	}
	return nil
}
