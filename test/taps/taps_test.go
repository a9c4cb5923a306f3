// Package taps asks whether a tap gets a super-packet of another host whole, its
// offload header intact: what a real VM's receive speed hangs on. The kernel decides
// how; WEFT_STRATEGY says how it must (as in datapath's Strategies) where a test
// machine's kernel is known.
package taps

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/wire"
	"github.com/weft-sdn/weft/test/twohosts"
)

var (
	web = twohosts.Subnet{VSID: 5001, Network: 1, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00:a::/64")}}

	vm   = &twohosts.Guest{Name: "vm", Host: 0, Subnet: web, MAC: model.MAC{2, 0, 0, 0, 0, 1}, CAs: addresses("10.0.0.5", "fd00:a::5"), Tap: true}
	peer = &twohosts.Guest{Name: "peer", Host: 1, Subnet: web, MAC: model.MAC{2, 0, 0, 0, 0, 2}, CAs: addresses("10.0.0.6", "fd00:a::6")}
)

func addresses(ss ...string) (as []netip.Addr) {
	for _, s := range ss {
		as = append(as, netip.MustParseAddr(s))
	}
	return as
}

// Values of struct virtio_net_hdr.
const (
	needsChecksum = 1
	gsoTCP4       = 1
	gsoTCP6       = 4
	headerLen     = 10
)

const (
	segments = 6
	patience = 10 * time.Second
	tries    = 20 // in a row that must all be whole
)

func TestATapGetsSuperPacketsWhole(t *testing.T) {
	tapGetsWhole(t, datapath.DecapAuto, twohosts.Carrier{}, os.Getenv("WEFT_STRATEGY"))
}

// The ways that nobody takes by himself, by force.
func TestATapGetsSuperPacketsWholeByForce(t *testing.T) {
	vxlan := twohosts.Carrier{Transport: model.VXLAN}
	for _, c := range []struct {
		decap string
		over  twohosts.Carrier
	}{{datapath.DecapDX2, twohosts.Carrier{}}, {datapath.DecapVeth, twohosts.Carrier{}}, {datapath.DecapVeth, vxlan}, {datapath.DecapVXLAN, vxlan},
		{datapath.DecapVXLAN, twohosts.Carrier{Transport: model.VXLAN, V6: true}}} {
		strategy := "tcx+" + c.decap
		if has := os.Getenv("WEFT_STRATEGY"); c.decap == datapath.DecapDX2 && has != "" {
			strategy = has // a kernel that has better
		}
		t.Run(c.decap+"/"+c.over.String(), func(t *testing.T) { tapGetsWhole(t, c.decap, c.over, strategy) })
	}
}

func tapGetsWhole(t *testing.T, decap string, over twohosts.Carrier, strategy string) {
	w := twohosts.NewOver(t, "wt-", decap, over, []*twohosts.Guest{vm, peer})
	tap := openTap(t, w, vm)
	for name, c := range map[string]struct {
		knobs string
		most  int // pieces
	}{
		"whole on the underlay": {"tso on gso on tx on gro on", 1},
		// What comes in segments is whole as far as GRO merges it: not always with the last.
		"cut on the underlay": {"tso off gso off tx off gro on", 2},
	} {
		if decap == datapath.DecapVeth { // GRO merges all, whatever came
			c.most = 2
		}
		if strategy == datapath.DecapTCX { // a kernel that has no better way
			c.most = segments
		}
		t.Run(name, func(t *testing.T) {
			for _, h := range w.Hosts {
				ethtool(t, h, c.knobs)
			}
			for i := range vm.CAs {
				if err := twohosts.In(w.GuestNS(peer), func() error { return superPackets(t, tap, i, over.MTU(), c.most) }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, have := range w.Hosts[0].Switch.Strategies() {
		t.Logf("uplinks strip by %s", have)
		if strategy != "" && have != strategy {
			t.Errorf("uplinks strip by %s, want %s", have, strategy)
		}
	}
	for _, h := range w.Hosts {
		counts, err := h.Switch.Drops()
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range counts {
			if d.Reason.Info().Class != "quiet" {
				t.Errorf("%s dropped %d packets: %s, port %d %s", h.NS, d.Packets, d.Reason, d.Port, d.Direction)
			}
		}
	}
}

func ethtool(t *testing.T, h *twohosts.Host, knobs string) {
	t.Helper()
	args := append([]string{"netns", "exec", h.NS, "ethtool", "-K", twohosts.Underlay}, strings.Fields(knobs)...)
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ethtool %s: %v: %s", knobs, err, out)
	}
}

// superPackets sends one until it arrives in at most so many pieces, as the detour
// must prove itself first, and then some more, all of which must. It runs on one CPU, for which alone
// the proof counts.
func superPackets(t *testing.T, tap, family, mtu, most int) error {
	runtime.LockOSThread()
	var cpus unix.CPUSet
	cpus.Set(0)
	if err := unix.SchedSetaffinity(0, &cpus); err != nil {
		return fmt.Errorf("stay on one CPU: %w", err)
	}
	fd, err := packetSocket()
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	inRow := 0
	for deadline := time.Now().Add(patience); inRow < tries; {
		header, frame := superPacket(family, mtu)
		if _, err := unix.Write(fd, append(header, frame...)); err != nil {
			return fmt.Errorf("%s: send: %w", vm.CAs[family], err)
		}
		if n := receive(t, tap, header, frame); n == 0 || n > most {
			if inRow > 0 || time.Now().After(deadline) {
				return fmt.Errorf("%s: after %d whole super-packets one came in %d pieces", vm.CAs[family], inRow, n)
			}
			continue
		}
		inRow++
	}
	return nil
}

// superPacket is TCP of several segments and its struct virtio_net_hdr. Its
// checksum is that of the pseudo header, as a guest leaves it to its device.
func superPacket(family, mtu int) (header, frame []byte) {
	network, kind := wire.IPv4Len, gsoTCP4
	if vm.CAs[family].Is6() {
		network, kind = wire.IPv6Len, gsoTCP6
	}
	mss := mtu - network - 20
	payload := make([]byte, segments*mss)
	for i := range payload {
		payload[i] = byte(i * i >> 3)
	}
	return packet(family, 1, kind, mss, payload)
}

// packet is TCP from peer to vm, and its struct virtio_net_hdr.
func packet(family int, seq uint32, kind, mss int, payload []byte) (header, frame []byte) {
	src, dst := peer.CAs[family], vm.CAs[family]
	network, etherType := wire.IPv4Len, uint16(wire.TypeIPv4)
	if dst.Is6() {
		network, etherType = wire.IPv6Len, wire.TypeIPv6
	}
	tcp := append([]byte{0x1f, 0x90, 0x1b, 0x5f, 0, 0, 0, 0, 0, 0, 0, 1, 5 << 4, 0x10, 1, 0, 0, 0, 0, 0}, payload...)
	binary.BigEndian.PutUint32(tcp[4:], seq)
	binary.BigEndian.PutUint16(tcp[16:], ^wire.Checksum(nil, wire.PseudoHeader(src, dst, wire.ProtoTCP, len(tcp))))
	frame = make([]byte, wire.EthernetLen+network, wire.EthernetLen+network+len(tcp))
	err := wire.Ethernet{Dst: vm.MAC, Src: peer.MAC, Type: etherType}.Encode(frame)
	ip := frame[wire.EthernetLen:]
	if err == nil && dst.Is4() {
		h := wire.IPv4{HeaderLen: network, TotalLen: uint16(network + len(tcp)), ID: uint16(seq / ofSegment), DontFrag: true, TTL: 64, Proto: wire.ProtoTCP, Source: src, Destination: dst}
		if err = h.Encode(ip); err == nil {
			err = wire.SealIPv4(ip)
		}
	} else if err == nil {
		err = wire.IPv6{PayloadLen: uint16(len(tcp)), HopLimit: 64, Next: wire.ProtoTCP, Source: src, Destination: dst}.Encode(ip)
	}
	if err != nil {
		panic(err)
	}
	start := wire.EthernetLen + network
	header = []byte{needsChecksum, byte(kind)}
	for _, v := range []int{start + 20, mss, start, 16} {
		header = binary.NativeEndian.AppendUint16(header, uint16(v))
	}
	return header, append(frame, tcp...)
}

// receive reads from the tap until all of the frame's payload has come, and says in
// how many pieces; 0: never. One piece must be right to the last byte, as must be
// the kind and the size of the segments.
func receive(t *testing.T, tap int, header, frame []byte) (pieces int) {
	t.Helper()
	start := int(binary.NativeEndian.Uint16(header[6:])) + 20
	for left := len(frame) - start; left > 0; {
		b := make([]byte, 1<<17)
		n, err := unix.Read(tap, b)
		if err == unix.EAGAIN {
			ready, err := unix.Poll([]unix.PollFd{{Fd: int32(tap), Events: unix.POLLIN}}, int((2 * time.Second).Milliseconds()))
			if err != nil && err != unix.EINTR || ready == 0 {
				t.Logf("%d bytes of a super-packet are missing after %d pieces (%v)", left, pieces, err)
				return 0
			}
			continue
		}
		if err != nil {
			t.Errorf("read from the tap: %v", err)
			return 0
		}
		got := b[headerLen:n]
		if len(got) < start || !bytes.Equal(got[:14], frame[:14]) || got[start-20] != frame[start-20] {
			continue // what kernels say on their own
		}
		pieces++
		left -= len(got) - start
		if len(got) == len(frame) {
			// The checksum may have been finished on the way, and merged packets have an ID of their own.
			payload := bytes.Equal(got[start:], frame[start:])
			if b[1]&0x7f != header[1] || !bytes.Equal(b[4:6], header[4:6]) || !payload {
				t.Errorf("arrived with header %x and payload right: %v; sent with %x", b[:headerLen], payload, header)
			}
		}
	}
	return pieces
}

// openTap opens the machine's end of its tap, taking what virtio drivers take.
func openTap(t *testing.T, w *twohosts.World, g *twohosts.Guest) (fd int) {
	t.Helper()
	w.In(w.Hosts[0].NS, func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		request, err := unix.NewIfreq(twohosts.Device(g))
		if err != nil {
			return err
		}
		request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			return err
		}
		return unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, unix.TUN_F_CSUM|unix.TUN_F_TSO4|unix.TUN_F_TSO6)
	})
	return fd
}

// packetSocket sends frames with offload headers out of the peer's NIC.
func packetSocket() (int, error) {
	nic, err := net.InterfaceByName("eth0")
	if err != nil {
		return -1, err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: nic.Index})
	}
	return fd, err
}
