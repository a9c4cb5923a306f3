package netdev

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/model"
)

const tentative = unix.IFA_F_TENTATIVE

// ErrNoNamespace is returned for a namespace that cannot be opened.
var ErrNoNamespace = errors.New("no such network namespace")

// ErrExists is returned for a device whose name is taken.
var ErrExists = errors.New("a device of that name exists")

// Guest says how the far end of a veth must look inside its namespace.
type Guest struct {
	Namespace string // a name under /run/netns, or a path
	Name      string // of the device there
	MAC       model.MAC
	MTU       int
	Addresses []netip.Prefix // each with the prefix length of its subnet
	Gateways  []netip.Addr   // default routes, at most one per family
}

// CreateVeth makes a veth pair: the end named host in this namespace, marked
// with owner, and the other end in the guest's namespace, configured and up.
// The host end is left down, so that nothing passes before the switch is on it.
// When anything fails nothing is left behind.
func CreateVeth(host, owner string, g Guest) (Link, error) {
	ns, err := netns.GetFromPath(namespacePath(g.Namespace))
	if err != nil {
		return Link{}, fmt.Errorf("namespace %q: %w: %v", g.Namespace, ErrNoNamespace, err)
	}
	defer ns.Close()
	guest, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return Link{}, fmt.Errorf("namespace %q: %w", g.Namespace, err)
	}
	defer guest.Close()
	if _, err := guest.LinkByName(g.Name); err == nil {
		return Link{}, fmt.Errorf("%s in namespace %q: %w", g.Name, g.Namespace, ErrExists)
	}

	veth := &netlink.Veth{
		LinkAttrs:        netlink.NewLinkAttrs(),
		PeerName:         g.Name,
		PeerHardwareAddr: g.MAC[:],
		PeerMTU:          uint32(g.MTU),
		PeerNamespace:    netlink.NsFd(ns),
		PeerTxQLen:       -1,
	}
	veth.Name, veth.MTU = host, g.MTU
	if err := netlink.LinkAdd(veth); err != nil {
		if errors.Is(err, unix.EEXIST) {
			err = ErrExists
		}
		return Link{}, fmt.Errorf("create veth %s for %s in namespace %q: %w", host, g.Name, g.Namespace, err)
	}
	link, err := finishVeth(host, owner, guest, g)
	if err == nil {
		err = onThreadIn(int(ns), func() error { return noTunnelOffloads(g.Name) })
	}
	if err != nil {
		// The pair dies as a whole, and its addresses and routes with it.
		return Link{}, errors.Join(err, DeleteLink(host))
	}
	return link, nil
}

func finishVeth(host, owner string, guest *netlink.Handle, g Guest) (Link, error) {
	l, err := byName(host)
	if err != nil {
		return Link{}, err
	}
	if err := netlink.LinkSetAlias(l, aliasPrefix+owner); err != nil {
		return Link{}, fmt.Errorf("mark %s as ours: %w", host, err)
	}
	if err := silence(l); err != nil {
		return Link{}, err
	}
	if err := configureGuest(guest, g); err != nil {
		return Link{}, fmt.Errorf("configure %s in namespace %q: %w", g.Name, g.Namespace, err)
	}
	return ByName(host)
}

func configureGuest(h *netlink.Handle, g Guest) error {
	if lo, err := h.LinkByName("lo"); err == nil {
		if err := h.LinkSetUp(lo); err != nil {
			return fmt.Errorf("set lo up: %w", err)
		}
	}
	l, err := h.LinkByName(g.Name)
	if err != nil {
		return err
	}
	// The link-local address is written by us below, because the kernel's own
	// would sit through duplicate address detection that nobody can answer.
	if err := h.LinkSetIP6AddrGenMode(l, addrGenModeNone); err != nil {
		return fmt.Errorf("stop automatic IPv6 addresses: %w", err)
	}
	if err := h.LinkSetUp(l); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	for _, p := range guestAddresses(g) {
		if err := addAddress(h, l, p); err != nil {
			return err
		}
	}
	for _, gw := range g.Gateways {
		if err := addDefaultRoute(h, l, g, gw); err != nil {
			return err
		}
	}
	return nil
}

// guestAddresses adds the EUI-64 link-local address when the guest speaks IPv6.
func guestAddresses(g Guest) []netip.Prefix {
	for _, p := range g.Addresses {
		if p.Addr().Is6() {
			return append([]netip.Prefix{netip.PrefixFrom(LinkLocal(g.MAC), 64)}, g.Addresses...)
		}
	}
	return g.Addresses
}

// LinkLocal is the modified EUI-64 link-local address of a MAC (RFC 4291 appendix A).
func LinkLocal(m model.MAC) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80,
		8: m[0] ^ 2, 9: m[1], 10: m[2], 11: 0xff, 12: 0xfe, 13: m[3], 14: m[4], 15: m[5]})
}

func addAddress(h *netlink.Handle, l netlink.Link, p netip.Prefix) error {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	if err := h.AddrAdd(l, a); err != nil {
		return fmt.Errorf("add address %s (is its address family enabled there?): %w", p, err)
	}
	return nil
}

// laterMetric is behind the default of either family: 0 for IPv4, 1024 for IPv6.
const laterMetric = 2000

func addDefaultRoute(h *netlink.Handle, l netlink.Link, g Guest, gw netip.Addr) error {
	r := &netlink.Route{LinkIndex: l.Attrs().Index, Gw: gw.AsSlice()}
	if !onLink(g.Addresses, gw) {
		r.Flags = int(netlink.FLAG_ONLINK)
	}
	err := h.RouteAdd(r)
	if errors.Is(err, unix.EEXIST) {
		// Another NIC has the default route; ours stands behind it.
		r.Priority = laterMetric + r.LinkIndex
		err = h.RouteAdd(r)
	}
	if err != nil {
		return fmt.Errorf("add default route via %s: %w", gw, err)
	}
	return nil
}

func onLink(addresses []netip.Prefix, gw netip.Addr) bool {
	for _, p := range addresses {
		if p.Masked().Contains(gw) {
			return true
		}
	}
	return false
}

// ResizeVeth gives both ends of a veth of CreateVeth another MTU. A guest that chose a
// smaller one for itself keeps it. It errs when the guest's end is not in its
// namespace any more.
func ResizeVeth(host, namespace string, mtu int) error {
	l, err := byName(host)
	if err != nil {
		return err
	}
	ns, err := netns.GetFromPath(namespacePath(namespace))
	if err != nil {
		return fmt.Errorf("namespace %q: %w: %v", namespace, ErrNoNamespace, err)
	}
	defer ns.Close()
	guest, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("namespace %q: %w", namespace, err)
	}
	defer guest.Close()
	peer, err := guest.LinkByIndex(l.Attrs().ParentIndex)
	if err != nil || peer.Type() != "veth" || peer.Attrs().ParentIndex != l.Attrs().Index {
		return fmt.Errorf("the other end of %s is not in namespace %q: %w", host, namespace, ErrNoDevice)
	}
	follow := peer.Attrs().MTU == l.Attrs().MTU || peer.Attrs().MTU > mtu
	resizeHost := func() error { return netlink.LinkSetMTU(l, mtu) }
	resizeGuest := func() error {
		if !follow {
			return nil
		}
		return guest.LinkSetMTU(peer, mtu)
	}
	order := []func() error{resizeHost, resizeGuest} // who receives more must be ready before
	if mtu < l.Attrs().MTU {
		order = []func() error{resizeGuest, resizeHost}
	}
	for _, resize := range order {
		if err := resize(); err != nil {
			return fmt.Errorf("set MTU of veth %s to %d: %w", host, mtu, err)
		}
	}
	return nil
}

// DeleteLink removes a device, and with it its peer. A device that is already
// gone is no error.
func DeleteLink(name string) error {
	l, err := byName(name)
	if errors.Is(err, ErrNoDevice) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete device %s: %w", name, err)
	}
	return nil
}

// namespacePath accepts what `ip netns` calls a name, or any path.
func namespacePath(ns string) string {
	if strings.Contains(ns, "/") {
		return ns
	}
	return filepath.Join("/run/netns", ns)
}
