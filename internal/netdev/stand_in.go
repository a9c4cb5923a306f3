package netdev

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// standInProtocol marks what is ours among addresses and routes of the main table ("proto 119" in `ip -d address` and `ip route`).
const (
	standInProtocol = 119
	ifaProto        = 11 // IFA_PROTO, linux/if_addr.h
)

// StandIn is a Provider Address that stands for a guest's address and that a device answers for, in ARP and Neighbour
// Discovery: the kernel has it as an address of the device, which it never speaks from by itself.
type StandIn struct {
	IfIndex uint32
	Address netip.Addr
}

// PutStandIn has the device answer. Nobody else is asked first whether the address is free: policy has given it out.
func PutStandIn(s StandIn) error {
	req := standInRequest(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, s)
	req.AddData(nl.NewRtAttr(ifaProto, []byte{standInProtocol}))
	if s.Address.Is6() {
		req.AddData(nl.NewRtAttr(unix.IFA_FLAGS, nl.Uint32Attr(unix.IFA_F_NODAD|unix.IFA_F_NOPREFIXROUTE)))
		req.AddData(nl.NewRtAttr(unix.IFA_CACHEINFO, append(nl.Uint32Attr(0), append(nl.Uint32Attr(math.MaxUint32), make([]byte, 8)...)...)))
	}
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("answer for %s on device %d: %w", s.Address, s.IfIndex, err)
	}
	return nil
}

// DeleteStandIn has the device answer no more. An address that is gone is no error.
func DeleteStandIn(s StandIn) error {
	_, err := standInRequest(unix.RTM_DELADDR, 0, s).Execute(unix.NETLINK_ROUTE, 0)
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("stop answering for %s on device %d: %w", s.Address, s.IfIndex, err)
	}
	return nil
}

func standInRequest(kind, flags int, s StandIn) *nl.NetlinkRequest {
	req := nl.NewNetlinkRequest(kind, flags|unix.NLM_F_ACK)
	message := nl.NewIfAddrmsg(unix.AF_INET6)
	if s.Address.Is4() {
		message.Family, message.Scope = unix.AF_INET, unix.RT_SCOPE_HOST // so no packet of the host's own gets it as source
	}
	message.Prefixlen, message.Index = uint8(s.Address.BitLen()), s.IfIndex
	req.AddData(message)
	req.AddData(nl.NewRtAttr(unix.IFA_LOCAL, s.Address.AsSlice()))
	req.AddData(nl.NewRtAttr(unix.IFA_ADDRESS, s.Address.AsSlice()))
	return req
}

// StandIns lists what PutStandIn has made, in any process.
func StandIns() (map[StandIn]struct{}, error) {
	messages, err := retryDump(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfAddrmsg(unix.AF_UNSPEC))
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	})
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	out := map[StandIn]struct{}{}
	for _, b := range messages {
		if s, ok := parseStandIn(b); ok {
			out[s] = struct{}{}
		}
	}
	return out, nil
}

func parseStandIn(b []byte) (StandIn, bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return StandIn{}, false
	}
	attrs, err := nl.ParseRouteAttr(b[unix.SizeofIfAddrmsg:])
	if err != nil {
		return StandIn{}, false
	}
	s, ours := StandIn{IfIndex: nl.NativeEndian().Uint32(b[4:8])}, false
	for _, a := range attrs {
		switch a.Attr.Type {
		case ifaProto:
			ours = len(a.Value) == 1 && a.Value[0] == standInProtocol
		case unix.IFA_ADDRESS:
			ip, _ := netip.AddrFromSlice(a.Value)
			s.Address = ip.Unmap()
		}
	}
	return s, ours && s.Address.IsValid()
}

// PutUnreachable has the host's own routing table say that nothing is at a prefix, unless a longer one knows better. Without it
// a host that forwards would send what comes for the prefix back to where it came from.
func PutUnreachable(p netip.Prefix) error {
	if err := netlink.RouteReplace(unreachable(p)); err != nil {
		return fmt.Errorf("make %s unreachable: %w", p, err)
	}
	return nil
}

// DeleteUnreachable takes that back. A route that is gone is no error.
func DeleteUnreachable(p netip.Prefix) error {
	if err := netlink.RouteDel(unreachable(p)); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("make %s reachable: %w", p, err)
	}
	return nil
}

func unreachable(p netip.Prefix) *netlink.Route {
	return &netlink.Route{Table: unix.RT_TABLE_MAIN, Protocol: standInProtocol, Type: unix.RTN_UNREACHABLE, Priority: math.MaxInt32, Dst: ipNet(p)}
}

// Unreachables lists what PutUnreachable has made, in any process.
func Unreachables() (map[netip.Prefix]struct{}, error) {
	out := map[netip.Prefix]struct{}{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := retryDump(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(family, &netlink.Route{Protocol: standInProtocol, Type: unix.RTN_UNREACHABLE, Table: unix.RT_TABLE_MAIN},
				netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TYPE|netlink.RT_FILTER_TABLE)
		})
		if err != nil {
			return nil, fmt.Errorf("list unreachable routes: %w", err)
		}
		for _, r := range routes {
			out[prefixOf(r, family)] = struct{}{}
		}
	}
	return out, nil
}

// RemoveStandIns takes all of it off the host.
func RemoveStandIns() error {
	standIns, err := StandIns()
	problems := []error{err}
	for s := range standIns {
		problems = append(problems, DeleteStandIn(s))
	}
	prefixes, err := Unreachables()
	problems = append(problems, err)
	for p := range prefixes {
		problems = append(problems, DeleteUnreachable(p))
	}
	return errors.Join(problems...)
}
