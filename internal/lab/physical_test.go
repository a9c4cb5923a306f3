package lab

import (
	"encoding/binary"
	"net"
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// physicalSwitch is a switch with VLANs (IEEE 802.1Q, independent learning) between devices of one namespace: not every
// kernel has a bridge that filters VLANs. It knows nothing of private VLANs and of second tags.
type physicalSwitch struct {
	ports   []*physicalPort
	learned map[[8]byte]*physicalPort // by VLAN and MAC
}

// physicalPort is a device of the switch, with its VLANs.
type physicalPort struct {
	fd               int
	pvid             uint16 // of what comes without a tag; 0: nothing does
	tagged, untagged []uint16
}

func (p *physicalPort) has(vid uint16) bool {
	return slices.Contains(p.tagged, vid) || slices.Contains(p.untagged, vid)
}

// newPhysicalPort opens a device.
func newPhysicalPort(t *testing.T, space, name string, pvid uint16, tagged, untagged []uint16) *physicalPort {
	t.Helper()
	p := &physicalPort{pvid: pvid, tagged: tagged, untagged: untagged}
	err := within(space, func() error {
		device, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
		if p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		for _, option := range []int{unix.PACKET_IGNORE_OUTGOING, unix.PACKET_AUXDATA} {
			if err := unix.SetsockoptInt(p.fd, unix.SOL_PACKET, option, 1); err != nil {
				return err
			}
		}
		if err := unix.SetsockoptPacketMreq(p.fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(device.Index), Type: unix.PACKET_MR_PROMISC}); err != nil {
			return err
		}
		return unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: device.Index})
	})
	if err != nil {
		t.Fatalf("port %s of the physical switch: %v", name, err)
	}
	return p
}

// start forwards frames until the test is over.
func (s *physicalSwitch) start(t *testing.T) {
	s.learned = map[[8]byte]*physicalPort{}
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				s.round()
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		for _, p := range s.ports {
			unix.Close(p.fd)
		}
	})
}

// round waits for frames, but not for long, and forwards those that there are.
func (s *physicalSwitch) round() {
	var fds []unix.PollFd
	for _, p := range s.ports {
		fds = append(fds, unix.PollFd{Fd: int32(p.fd), Events: unix.POLLIN})
	}
	if n, err := unix.Poll(fds, 100); n <= 0 || err != nil {
		return
	}
	for i, p := range s.ports {
		if fds[i].Revents == 0 {
			continue
		}
		for f, vid, tagged := p.receive(); f != nil; f, vid, tagged = p.receive() {
			s.forward(p, f, vid, tagged)
		}
	}
}

// receive gives a frame without its outer tag, which the kernel has taken off, and what that said.
func (p *physicalPort) receive() (f []byte, vid uint16, tagged bool) {
	b, oob := make([]byte, 2048), make([]byte, 128)
	n, oobn, _, _, err := unix.Recvmsg(p.fd, b, oob, 0)
	if err != nil || n < 14 {
		return nil, 0, false
	}
	messages, _ := unix.ParseSocketControlMessage(oob[:oobn])
	for _, m := range messages {
		if m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= int(unsafe.Sizeof(unix.TpacketAuxdata{})) {
			aux := (*unix.TpacketAuxdata)(unsafe.Pointer(&m.Data[0]))
			if aux.Status&unix.TP_STATUS_VLAN_VALID != 0 {
				return b[:n], aux.Vlan_tci & 0xfff, true
			}
		}
	}
	return b[:n], 0, false
}

func (s *physicalSwitch) forward(from *physicalPort, f []byte, vid uint16, tagged bool) {
	if !tagged || vid == 0 {
		vid = from.pvid
	}
	if vid == 0 || !from.has(vid) && vid != from.pvid {
		return
	}
	key := func(mac []byte) (k [8]byte) {
		binary.BigEndian.PutUint16(k[:], vid)
		copy(k[2:], mac)
		return k
	}
	s.learned[key(f[6:12])] = from
	if to := s.learned[key(f[:6])]; to != nil && f[0]&1 == 0 {
		to.send(from, f, vid)
		return
	}
	for _, to := range s.ports {
		to.send(from, f, vid)
	}
}

func (p *physicalPort) send(from *physicalPort, f []byte, vid uint16) {
	switch {
	case p == from:
		return
	case slices.Contains(p.untagged, vid):
		unix.Write(p.fd, f)
	case slices.Contains(p.tagged, vid):
		unix.Write(p.fd, slices.Concat(f[:12], []byte{0x81, 0, byte(vid >> 8), byte(vid)}, f[12:]))
	}
}
