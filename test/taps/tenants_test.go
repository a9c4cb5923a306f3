package taps

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/wire"
	"github.com/weft-sdn/weft/test/twohosts"
)

// blue is another tenant, whose machines are like the first one's to the last byte.
var (
	blue = twohosts.Subnet{VSID: 5002, Network: 2, Prefixes: web.Prefixes}

	blueVM   = &twohosts.Guest{Name: "vmb", Host: 0, Subnet: blue, MAC: vm.MAC, CAs: vm.CAs, Tap: true}
	bluePeer = &twohosts.Guest{Name: "peerb", Host: 1, Subnet: blue, MAC: peer.MAC, CAs: peer.CAs}
)

const (
	inStream  = 40 // segments
	streams   = 10
	ofSegment = 500 // bytes of payload
)

// A stream of TCP segments whose even ones are one tenant's and whose odd ones another's: all that GRO
// looks at in the packets themselves says that they belong together. It must not merge any, however a host strips. That it could is
// what the same stream shows when all of it is one tenant's.
func TestGROMergesNoTwoTenants(t *testing.T) {
	// Over IPv4: there GRO merges only because the outer identification counts as the inner one does.
	nvgre, vxlan := twohosts.Carrier{}, twohosts.Carrier{Transport: model.VXLAN}
	nvgre6, vxlan6 := twohosts.Carrier{V6: true}, twohosts.Carrier{Transport: model.VXLAN, V6: true}
	for _, c := range []struct {
		decap string
		over  twohosts.Carrier
	}{{datapath.DecapTCX, nvgre}, {datapath.DecapDX2, nvgre}, {datapath.DecapXDP, nvgre}, {datapath.DecapXDP, vxlan},
		{datapath.DecapVeth, nvgre}, {datapath.DecapVeth, vxlan}, {datapath.DecapVXLAN, vxlan}, {datapath.DecapDX2, nvgre6}, {datapath.DecapVXLAN, vxlan6}} {
		t.Run(c.decap+"/"+c.over.String(), func(t *testing.T) { mergesNoTwoTenants(t, c.decap, c.over) })
	}
}

func mergesNoTwoTenants(t *testing.T, decap string, over twohosts.Carrier) {
	w := twohosts.NewOver(t, "wt-", decap, over, []*twohosts.Guest{vm, peer, blueVM, bluePeer})
	for _, h := range w.Hosts {
		ethtool(t, h, "tso off gso off tx off gro "+map[bool]string{true: "off", false: "on"}[decap == datapath.DecapVeth])
	}
	w.In(w.Hosts[0].NS, holdInGRO)
	taps := [2]int{openTap(t, w, vm), openTap(t, w, blueVM)}
	// Between namespaces a packet keeps its socket, and GRO merges none of two sockets: so both tenants share one.
	w.IP("-n %s link set eth0 netns %s name eth1", w.GuestNS(bluePeer), w.GuestNS(peer))
	w.IP("-n %s link set eth1 mtu %d up", w.GuestNS(peer), over.MTU())
	var s sender
	w.In(w.GuestNS(peer), func() (err error) {
		s, err = newSender("eth0", "eth1")
		return err
	})
	t.Cleanup(func() { unix.Close(s.fd) })
	stayOnOneCPU(t)
	defer func() { t.Logf("%v", w.Hosts[0].Switch.Strategies()) }()
	for family := range vm.CAs {
		merged := 0
		for seq, deadline := uint32(1), time.Now().Add(patience); merged == 0 && time.Now().Before(deadline); seq++ {
			s.stream(t, family, seq<<16, [2]int{0, 0})
			merged, _ = receiveStream(t, taps, [2]int{inStream, 0})
			if decap == datapath.DecapTCX { // has what was merged cut for a tap
				break
			}
		}
		if merged == 0 && decap != datapath.DecapTCX {
			t.Errorf("%s: GRO merges nothing of one tenant: this test proves nothing", vm.CAs[family])
		}
		for seq := uint32(1); seq <= streams; seq++ {
			s.stream(t, family, seq<<16, [2]int{0, 1})
			n, lost := receiveStream(t, taps, [2]int{inStream / 2, inStream / 2})
			if n != 0 || lost != 0 {
				t.Errorf("%s: %d frames have more than one segment, of a stream that has no two of one tenant in a row; %d bytes never came", vm.CAs[family], n, lost)
			}
		}
	}
}

// holdInGRO keeps packets in GRO for as long as one tick of the kernel's clock, in the namespace of the thread, as if
// a driver had handed all of them over at once.
func holdInGRO() error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil { // the thread ends with us
		return err
	}
	dir, err := os.MkdirTemp("", "sysfs")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	if err := unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts to ourselves: %w", err)
	}
	if err := unix.Mount("sysfs", dir, "sysfs", 0, ""); err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	files, err := filepath.Glob(filepath.Join(dir, "class/net/*/gro_flush_timeout"))
	if err != nil || len(files) < 3 {
		return fmt.Errorf("GRO's timeouts: %v, %v", files, err)
	}
	for _, f := range files {
		if err := os.WriteFile(f, []byte("20000000"), 0); err != nil { // ns
			return err
		}
	}
	return nil
}

func stayOnOneCPU(t *testing.T) {
	t.Helper()
	var was, one unix.CPUSet
	runtime.LockOSThread()
	one.Set(0)
	if err := unix.SchedGetaffinity(0, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.SchedSetaffinity(0, &was)
		runtime.UnlockOSThread()
	})
}

// sender sends frames with offload headers out of the NICs of both tenants.
type sender struct {
	fd   int
	nics [2]unix.SockaddrLinklayer
}

func newSender(nics ...string) (s sender, err error) {
	for i, name := range nics {
		nic, err := net.InterfaceByName(name)
		if err != nil {
			return s, err
		}
		s.nics[i].Ifindex = nic.Index
	}
	if s.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return s, err
	}
	return s, unix.SetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
}

// stream sends segments from two tenants in turn. The payload says whose each is: r is the first one's.
func (s *sender) stream(t *testing.T, family int, seq uint32, from [2]int) {
	t.Helper()
	var frames [inStream][]byte
	for i := range frames {
		payload := bytes.Repeat([]byte{"rb"[from[i%2]]}, ofSegment)
		header, frame := packet(family, seq+uint32(i*ofSegment), 0, 0, payload)
		frames[i] = append(header, frame...)
	}
	for i, f := range frames {
		if err := unix.Sendto(s.fd, f, 0, &s.nics[from[i%2]]); err != nil {
			t.Fatal(err)
		}
	}
}

// receiveStream reads so many segments from each tap, whose payload must be the tap's tenant's, and says how many
// frames held more than one, and how many bytes never came.
func receiveStream(t *testing.T, taps [2]int, segments [2]int) (merged, lost int) {
	t.Helper()
	for i, tap := range taps {
		mine := "rb"[i]
		for left := segments[i] * ofSegment; left > 0; {
			payload := readTCP(t, tap)
			if payload == nil {
				lost += left
				break
			}
			if n := bytes.Count(payload, []byte{mine}); n != len(payload) {
				t.Errorf("tap %d: %d of %d bytes are another tenant's", i, len(payload)-n, len(payload))
			}
			if len(payload) > ofSegment {
				merged++
			}
			left -= len(payload)
		}
	}
	return merged, lost
}

// readTCP is the payload of the next TCP packet, without what kernels say on their own; nil: none came.
func readTCP(t *testing.T, tap int) []byte {
	t.Helper()
	b := make([]byte, 1<<17)
	for {
		n, err := unix.Read(tap, b)
		if err == unix.EAGAIN {
			ready, err := unix.Poll([]unix.PollFd{{Fd: int32(tap), Events: unix.POLLIN}}, int((2 * time.Second).Milliseconds()))
			if err != nil && err != unix.EINTR || ready == 0 {
				return nil
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		frame := b[headerLen:n]
		network := wire.IPv4Len
		if binary.BigEndian.Uint16(frame[12:]) == wire.TypeIPv6 {
			network = wire.IPv6Len
		}
		start := wire.EthernetLen + network + 20
		if len(frame) > start && bytes.Equal(frame[:12], append(vm.MAC[:], peer.MAC[:]...)) {
			return frame[start:]
		}
	}
}
