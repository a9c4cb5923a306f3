package netdev

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/wire"
)

// ARP hears all ARP that a device receives, and sends what address conflict detection
// needs (RFC 5227). It needs CAP_NET_RAW. What the switch takes off the device never
// comes here: it is no ARP of this host.
type ARP struct {
	socket *os.File
	device Link
}

// ListenARP opens a device, which must be Ethernet.
func ListenARP(device Link) (*ARP, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("arp on %s: %w", device.Name, err)
	}
	// Bound with protocol 0 before, a socket would hear every device for a moment.
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: swap16(unix.ETH_P_ARP), Ifindex: int(device.Index)}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("arp on %s: %w", device.Name, err)
	}
	return &ARP{socket: os.NewFile(uintptr(fd), "arp "+device.Name), device: device}, nil
}

func swap16(v uint16) uint16 { return v<<8 | v>>8 }

// Device is the MAC that Probe and Announce speak for.
func (a *ARP) Device() model.MAC { return a.device.MAC }

// Close ends a Read.
func (a *ARP) Close() error { return a.socket.Close() }

// Read waits for the next ARP packet and says who speaks: the sender's MAC and
// address as the packet has them, which is what conflicts are judged by. The address
// of an RFC 5227 probe is 0.0.0.0; target is what it asks for.
func (a *ARP) Read() (mac model.MAC, sender, target netip.Addr, err error) {
	var b [64]byte
	for {
		n, err := a.socket.Read(b[:])
		if errors.Is(err, unix.ENETDOWN) {
			continue // the device went down; it may come up again
		}
		if err != nil {
			return mac, sender, target, err
		}
		if p, err := wire.ParseARP(b[:n]); err == nil {
			return p.SenderMAC, p.Sender, p.TargetAddr, nil
		}
	}
}

// Probe asks whether anybody has an address, without saying that we want it (RFC 5227
// section 2.1.1: the sender's address is zero). It never waits.
func (a *ARP) Probe(address netip.Addr) error {
	return a.send(wire.ARP{Op: wire.ARPRequest, SenderMAC: a.device.MAC, Sender: netip.IPv4Unspecified(), TargetAddr: address})
}

// Announce says that we have an address (RFC 5227 section 2.3).
func (a *ARP) Announce(address netip.Addr) error {
	return a.send(wire.ARP{Op: wire.ARPRequest, SenderMAC: a.device.MAC, Sender: address, TargetAddr: address})
}

func (a *ARP) send(p wire.ARP) error {
	b := make([]byte, wire.ARPLen)
	if err := p.Encode(b); err != nil {
		return err
	}
	raw, err := a.socket.SyscallConn()
	if err != nil {
		return err
	}
	everybody := [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	to := &unix.SockaddrLinklayer{Protocol: swap16(unix.ETH_P_ARP), Ifindex: int(a.device.Index), Halen: 6, Addr: everybody}
	var sent error
	err = raw.Control(func(fd uintptr) { sent = unix.Sendto(int(fd), b, unix.MSG_DONTWAIT, to) })
	if err = errors.Join(err, sent); err != nil {
		return fmt.Errorf("arp for %s on %s: %w", p.TargetAddr, a.device.Name, err)
	}
	return nil
}
