package netdev

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/model"
)

// neighbourProtocol is the NDA_PROTOCOL under which our entries stand, so that
// they can be told from everybody else's ("proto 119" in `ip neigh`).
const neighbourProtocol = 119

// Neighbour names an entry of the neighbour table.
type Neighbour struct {
	IfIndex uint32
	Addr    netip.Addr
}

// Managed is an entry that the kernel keeps resolved for us (NTF_EXT_MANAGED).
type Managed struct {
	Neighbour
	MAC model.MAC // zero while unresolved
}

// Manage asks the kernel to resolve a neighbour and to keep it so.
func Manage(n Neighbour) error {
	req := neighbourRequest(unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, n)
	req.AddData(nl.NewRtAttr(netlink.NDA_FLAGS_EXT, nl.Uint32Attr(netlink.NTF_EXT_MANAGED)))
	req.AddData(nl.NewRtAttr(netlink.NDA_PROTOCOL, []byte{neighbourProtocol}))
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("manage neighbour %s on device %d: %w", n.Addr, n.IfIndex, err)
	}
	return nil
}

// Unmanage removes an entry of ours. One that is gone is no error.
func Unmanage(n Neighbour) error {
	req := neighbourRequest(unix.RTM_DELNEIGH, 0, n)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove neighbour %s on device %d: %w", n.Addr, n.IfIndex, err)
	}
	return nil
}

func neighbourRequest(kind, flags int, n Neighbour) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	family := unix.AF_INET
	if n.Addr.Is6() {
		family = unix.AF_INET6
	}
	req.AddData(&netlink.Ndmsg{Family: uint8(family), Index: n.IfIndex, Flags: netlink.NTF_EXT_LEARNED})
	req.AddData(nl.NewRtAttr(netlink.NDA_DST, n.Addr.AsSlice()))
	return req
}

// ManagedNeighbours lists the entries made by Manage, by any process.
func ManagedNeighbours() (map[Neighbour]Managed, error) {
	messages, err := retryDump(dumpNeighbours)
	if err != nil {
		return nil, fmt.Errorf("list neighbours: %w", err)
	}
	out := map[Neighbour]Managed{}
	for _, b := range messages {
		if m, ok := parseManaged(b); ok {
			out[m.Neighbour] = m
		}
	}
	return out, nil
}

func dumpNeighbours() ([][]byte, error) {
	req := nl.NewNetlinkRequest(unix.RTM_GETNEIGH, unix.NLM_F_DUMP)
	req.AddData(&netlink.Ndmsg{Family: unix.AF_UNSPEC})
	return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWNEIGH)
}

func parseManaged(b []byte) (Managed, bool) {
	const header = 12 // struct ndmsg
	if len(b) < header {
		return Managed{}, false
	}
	attrs, err := nl.ParseRouteAttr(b[header:])
	if err != nil {
		return Managed{}, false
	}
	m := Managed{Neighbour: Neighbour{IfIndex: nl.NativeEndian().Uint32(b[4:8])}}
	state := nl.NativeEndian().Uint16(b[8:10])
	ours := false
	for _, a := range attrs {
		switch a.Attr.Type {
		case netlink.NDA_PROTOCOL:
			ours = len(a.Value) == 1 && a.Value[0] == neighbourProtocol
		case netlink.NDA_DST:
			ip, _ := netip.AddrFromSlice(a.Value)
			m.Addr = ip.Unmap()
		case netlink.NDA_LLADDR:
			if len(a.Value) == len(m.MAC) {
				m.MAC = model.MAC(a.Value)
			}
		}
	}
	if state&(unix.NUD_INCOMPLETE|unix.NUD_FAILED) != 0 {
		m.MAC = model.MAC{}
	}
	return m, ours && m.Addr.IsValid()
}
