package netdev

import (
	"errors"
	"fmt"
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

// RouteTo looks a destination up. ErrNoRoute when there is none, or when it
// leads to this host itself or into nothing.
func RouteTo(dst netip.Addr) (Route, error) {
	found, err := netlink.RouteGet(dst.AsSlice())
	if err != nil {
		return Route{}, routeError(dst, err)
	}
	if len(found) == 0 || found[0].Type != unix.RTN_UNICAST || found[0].LinkIndex == 0 {
		return Route{}, fmt.Errorf("to %s: %w", dst, ErrNoRoute)
	}
	r := found[0]
	l, err := byIndex(uint32(r.LinkIndex))
	if err != nil {
		return Route{}, err
	}
	link := linkOf(l)
	out := Route{IfIndex: link.Index, NextHop: dst, MTU: link.MTU, MAC: link.MAC}
	if gw, ok := netip.AddrFromSlice(r.Gw); ok {
		out.NextHop = gw.Unmap()
	}
	if via, ok := r.Via.(*netlink.Via); ok {
		if gw, ok := netip.AddrFromSlice(via.Addr); ok {
			out.NextHop = gw.Unmap()
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
