// Package netdev speaks to the kernel about devices: links, addresses, routes
// and neighbours of the network namespace that the process runs in, and the
// veth pairs whose other ends it puts into the namespaces of guests.
//
// Invariants: every call reads or writes the kernel at once, nothing is cached;
// an object that it made is recognisable without any file (veths by name and
// alias, neighbours by protocol number). It is the only user of netlink.
// It must never know ports, policy or eBPF, and never create or delete a tap:
// those belong to the VM manager.
package netdev

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/model"
)

// ErrNoDevice is returned for a device that is not in this namespace.
var ErrNoDevice = errors.New("no such device in the agent's network namespace")

// aliasPrefix marks the veths that we made, for sweeping after a crash.
const aliasPrefix = "weft:"

// Link is one network device of this namespace.
type Link struct {
	Index         uint32
	Name          string
	Kind          string // "veth", "tuntap", "device", as rtnetlink says
	MAC           model.MAC
	MTU           int
	Up            bool
	Running       bool // up, and its link is there (carrier)
	ARP           bool // neighbours are found by ARP and ND
	Loopback      bool
	PeerElsewhere bool   // a veth whose other end is in another namespace
	Owner         string // what was given to CreateVeth; empty if the device is not ours
}

func linkOf(l netlink.Link) Link {
	a := l.Attrs()
	out := Link{
		Index:    uint32(a.Index),
		Name:     a.Name,
		Kind:     l.Type(),
		MTU:      a.MTU,
		Up:       a.Flags&net.FlagUp != 0,
		Running:  a.RawFlags&(unix.IFF_UP|unix.IFF_RUNNING) == unix.IFF_UP|unix.IFF_RUNNING,
		ARP:      a.RawFlags&(unix.IFF_NOARP|unix.IFF_LOOPBACK) == 0 && len(a.HardwareAddr) == len(model.MAC{}),
		Loopback: a.Flags&net.FlagLoopback != 0,
	}
	if len(a.HardwareAddr) == len(out.MAC) {
		out.MAC = model.MAC(a.HardwareAddr)
	}
	out.PeerElsewhere = out.Kind == "veth" && a.NetNsID >= 0
	out.Owner, _ = strings.CutPrefix(a.Alias, aliasPrefix)
	if out.Owner == a.Alias {
		out.Owner = ""
	}
	return out
}

// ByName finds a device; ErrNoDevice if there is none.
func ByName(name string) (Link, error) {
	l, err := byName(name)
	if err != nil {
		return Link{}, err
	}
	return linkOf(l), nil
}

func byName(name string) (netlink.Link, error) {
	l, err := netlink.LinkByName(name)
	return l, linkError(name, err)
}

func byIndex(index uint32) (netlink.Link, error) {
	l, err := netlink.LinkByIndex(int(index))
	return l, linkError(fmt.Sprintf("index %d", index), err)
}

func linkError(what string, err error) error {
	var missing netlink.LinkNotFoundError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &missing):
		return fmt.Errorf("device %s: %w", what, ErrNoDevice)
	default:
		return fmt.Errorf("device %s: %w", what, err)
	}
}

// Links lists the devices of this namespace by index.
func Links() (map[uint32]Link, error) {
	all, err := retryDump(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("list devices: %w", err)
	}
	out := make(map[uint32]Link, len(all))
	for _, l := range all {
		link := linkOf(l)
		out[link.Index] = link
	}
	return out, nil
}

// Address is one address of a device.
type Address struct {
	IfIndex uint32
	Prefix  netip.Prefix // the address itself with the length of its subnet
	Lasting bool         // global scope, and no temporary address (RFC 8981)
	// State is the kernel's, which looks for duplicates of IPv6 addresses only; IPv4
	// is always Preferred here.
	State model.AddressState
}

// Addresses lists the IPv4 and IPv6 addresses of this namespace, without stand-ins.
func Addresses() ([]Address, error) {
	all, err := retryDump(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	ours, err := StandIns()
	if err != nil {
		return nil, err
	}
	out := make([]Address, 0, len(all))
	for _, a := range all {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok {
			continue
		}
		if _, standsIn := ours[StandIn{uint32(a.LinkIndex), ip.Unmap()}]; standsIn {
			continue
		}
		bits, _ := a.Mask.Size()
		out = append(out, Address{
			IfIndex: uint32(a.LinkIndex),
			Prefix:  netip.PrefixFrom(ip.Unmap(), bits),
			Lasting: netlink.Scope(a.Scope) == netlink.SCOPE_UNIVERSE && (ip.Unmap().Is4() || a.Flags&unix.IFA_F_TEMPORARY == 0),
			State:   stateOf(a.Flags),
		})
	}
	return out, nil
}

// stateOf reads the flags of an address (linux/if_addr.h).
func stateOf(flags int) model.AddressState {
	switch {
	case flags&unix.IFA_F_DADFAILED != 0:
		return model.AddressDuplicate
	case flags&tentative != 0:
		return model.AddressTentative
	case flags&unix.IFA_F_DEPRECATED != 0:
		return model.AddressDeprecated
	}
	return model.AddressPreferred
}

// retryDump repeats a listing that the kernel changed underneath.
func retryDump[T any](list func() ([]T, error)) ([]T, error) {
	for try := 0; ; try++ {
		all, err := list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || try == dumpTries {
			return all, err
		}
	}
}

// dumpTries bounds retryDump; after that the caller is told.
const dumpTries = 10
