package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/model"
)

// ErrNoRoute is returned for a destination that no route covers.
var ErrNoRoute = errors.New("no route")

// Route is how this host reaches a destination.
type Route struct {
	IfIndex uint32
	NextHop netip.Addr // the destination itself when it is on-link
	Source  netip.Addr
	MTU     int       // path MTU: of the route if it has one, else of the device
	MAC     model.MAC // of the device
}

// RoutesTo looks up how packets get from an address of this host to a destination, by
// the provider routes, the routing table and its rules: one Route, or each next hop of one with several whose
// link is there. An invalid source stands for whichever the kernel chooses. ErrNoRoute
// when there is none, or when it leads to this host itself or into nothing.
func RoutesTo(dst, src netip.Addr) ([]Route, error) {
	options := &netlink.RouteGetOptions{Mark: providerMark}
	if src.IsValid() {
		options.SrcAddr = src.AsSlice()
	}
	// What the kernel does with a packet, with all that it knows of the path ...
	taken, err := netlink.RouteGetWithOptions(dst.AsSlice(), options)
	if err != nil {
		return nil, routeError(dst, err)
	}
	if len(taken) == 0 || taken[0].Type != unix.RTN_UNICAST || taken[0].LinkIndex == 0 {
		return nil, fmt.Errorf("to %s: %w", dst, ErrNoRoute)
	}
	// ... and the entry of the table that it follows from.
	options.FIBMatch = true
	entry, err := netlink.RouteGetWithOptions(dst.AsSlice(), options)
	if err != nil || len(entry) == 0 || len(entry[0].MultiPath) < 2 {
		one, err := routeOf(dst, taken[0], uint32(taken[0].LinkIndex), taken[0].Gw, taken[0].Via)
		return []Route{one}, err
	}
	var out []Route
	for _, hop := range entry[0].MultiPath {
		if hop.Flags&(unix.RTNH_F_DEAD|unix.RTNH_F_LINKDOWN) != 0 {
			continue
		}
		one, err := routeOf(dst, taken[0], uint32(hop.LinkIndex), hop.Gw, hop.Via)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("to %s: %w", dst, ErrNoRoute)
	}
	return out, nil
}

// routeOf is one next hop of a route.
func routeOf(dst netip.Addr, r netlink.Route, index uint32, gw net.IP, via netlink.Destination) (Route, error) {
	l, err := byIndex(index)
	if err != nil {
		return Route{}, err
	}
	link := linkOf(l)
	out := Route{IfIndex: link.Index, NextHop: dst, MTU: link.MTU, MAC: link.MAC}
	if a, ok := netip.AddrFromSlice(gw); ok {
		out.NextHop = a.Unmap()
	}
	if v, ok := via.(*netlink.Via); ok && v != nil {
		if a, ok := netip.AddrFromSlice(v.Addr); ok {
			out.NextHop = a.Unmap()
		}
	}
	if src, ok := netip.AddrFromSlice(r.Src); ok {
		out.Source = src.Unmap()
	}
	if r.MTU > 0 && r.MTU < out.MTU {
		out.MTU = r.MTU
	}
	return out, nil
}

func routeError(dst netip.Addr, err error) error {
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("to %s: %w", dst, ErrNoRoute)
	}
	return fmt.Errorf("route to %s: %w", dst, err)
}

// DefaultRouteLinks lists the devices that IPv4 default routes lead over; where there are none, those of IPv6.
func DefaultRouteLinks() ([]uint32, error) {
	links, err := defaultRouteLinks(netlink.FAMILY_V4)
	if err != nil || len(links) > 0 {
		return links, err
	}
	return defaultRouteLinks(netlink.FAMILY_V6)
}

func defaultRouteLinks(family int) ([]uint32, error) {
	routes, err := retryDump(func() ([]netlink.Route, error) { return netlink.RouteList(nil, family) })
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	var out []uint32
	for _, r := range routes {
		if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
			continue
		}
		if r.LinkIndex != 0 {
			out = append(out, uint32(r.LinkIndex))
		}
		for _, hop := range r.MultiPath {
			out = append(out, uint32(hop.LinkIndex))
		}
	}
	return out, nil
}
