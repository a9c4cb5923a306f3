// Package twohosts builds the smallest fleet for tests: two hosts in network
// namespaces joined by one underlay link, each with a real switch of its own,
// and guests in namespaces behind veth ports or outside behind taps. There is
// no server and no agent: the rows are rendered right here, from the guests.
//
// Everything is named with the World's prefix and removed with the test. A test
// that needs this needs root, and fails without.
// It must never decide a packet's fate: that is the switch's.
package twohosts

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// Carrier is how packets cross the underlay; the zero value is NVGRE over IPv4.
type Carrier struct {
	Transport model.TransportID
	V6        bool // Provider Addresses are of IPv6
}

func (c Carrier) String() string {
	if c.V6 {
		return c.Transport.String() + " over IPv6"
	}
	return c.Transport.String() + " over IPv4"
}

// PA is the Provider Address of the i-th host.
func (c Carrier) PA(i int) netip.Addr {
	if c.V6 {
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 15: byte(i + 1)})
	}
	return netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})
}

func (c Carrier) bits() int {
	if c.V6 {
		return 64
	}
	return 24
}

// MTU is what an underlay of 1500 leaves to guests.
func (c Carrier) MTU() int { return 1500 - table.Overhead(c.Transport, c.PA(0)) }

// GuestMTU is what NVGRE over IPv4 leaves to guests.
const GuestMTU = 1500 - 42

// Subnet is one virtual subnet of a network.
type Subnet struct {
	VSID     model.VSID
	Network  model.NetworkIndex
	Prefixes []netip.Prefix // one per family; the first usable address is the gateway
}

// Gateway is the router's address in the i-th prefix.
func (s Subnet) Gateway(i int) netip.Addr { return s.Prefixes[i].Masked().Addr().Next() }

// Guest is one NIC: behind a veth in a namespace of its own, or a tap that
// somebody else opens.
type Guest struct {
	Name   string // unique in the world
	Host   int    // 0 or 1
	Subnet Subnet
	MAC    model.MAC
	CAs    []netip.Addr // in the order of the subnet's prefixes
	Tap    bool

	ID      model.PortID // set by New
	IfIndex uint32       // of the device on the host; set by New
}

// Host is one hypervisor.
type Host struct {
	NS     string
	PA     netip.Addr
	Switch *datapath.Switch

	uplink uint32
	mac    model.MAC
}

// World is the fleet.
type World struct {
	Prefix string
	Hosts  [2]*Host
	Guests []*Guest

	Carrier Carrier

	t       testing.TB
	decap   string
	foreign bool // the second host is not ours
}

// Underlay is the name of the underlay device in both hosts.
const Underlay = "underlay0"

// New builds the world, and its end with the test's. decap is how uplinks strip,
// one of datapath's.
func New(t testing.TB, prefix, decap string, guests []*Guest) *World {
	t.Helper()
	return NewOver(t, prefix, decap, Carrier{}, guests)
}

// NewOver is New with another carrier.
func NewOver(t testing.TB, prefix, decap string, c Carrier, guests []*Guest) *World {
	t.Helper()
	return build(t, &World{Prefix: prefix, Guests: guests, Carrier: c, t: t, decap: decap})
}

// NewForeign builds a world whose second host has no switch: its guests are only known
// to the first host's policy, and the test puts another implementation in its place.
func NewForeign(t testing.TB, prefix string, c Carrier, guests []*Guest) *World {
	t.Helper()
	return build(t, &World{Prefix: prefix, Guests: guests, Carrier: c, t: t, decap: datapath.DecapAuto, foreign: true})
}

func build(t testing.TB, w *World) *World {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root: makes network namespaces and loads eBPF")
	}
	w.underlay()
	for i, g := range w.Guests {
		g.ID = model.PortID(i + 1)
		if !w.foreign || g.Host == 0 {
			w.plug(g)
		}
	}
	w.open(0)
	if !w.foreign {
		w.open(1)
	}
	return w
}

// IP runs one ip command.
func (w *World) IP(format string, args ...any) {
	w.t.Helper()
	command := strings.Fields(fmt.Sprintf(format, args...))
	if out, err := exec.Command("ip", command...).CombinedOutput(); err != nil {
		w.t.Fatalf("ip %s: %v: %s", strings.Join(command, " "), err, out)
	}
}

// Namespace makes a namespace; one left by a run that was killed goes first.
func (w *World) Namespace(name string) string {
	w.t.Helper()
	ns := w.Prefix + name
	_ = exec.Command("ip", "netns", "del", ns).Run()
	w.IP("netns add %s", ns)
	w.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	w.IP("-n %s link set lo up", ns)
	return ns
}

func (w *World) underlay() {
	w.t.Helper()
	for i := range w.Hosts {
		w.Hosts[i] = &Host{
			NS:  w.Namespace(fmt.Sprintf("h%d", i+1)),
			PA:  w.Carrier.PA(i),
			mac: model.MAC{0x02, 0xee, 0, 0, 0, byte(i + 1)},
		}
	}
	a, b := w.Hosts[0], w.Hosts[1]
	w.IP("-n %s link add %s address %s type veth peer name %s address %s netns %s", a.NS, Underlay, a.mac, Underlay, b.mac, b.NS)
	for _, h := range w.Hosts {
		w.IP("-n %s addr add %s/%d dev %s %s", h.NS, h.PA, w.Carrier.bits(), Underlay, nodad(h.PA))
		w.IP("-n %s link set %s up", h.NS, Underlay)
	}
}

// GuestNS is the namespace of a veth guest.
func (w *World) GuestNS(g *Guest) string { return w.Prefix + g.Name }

// Device is the name of a guest's device on its host.
func Device(g *Guest) string { return "p-" + g.Name }

// plug makes the guest's device, and the guest around its other end.
func (w *World) plug(g *Guest) {
	w.t.Helper()
	host := w.Hosts[g.Host]
	if g.Tap {
		w.IP("-n %s tuntap add dev %s mode tap vnet_hdr", host.NS, Device(g))
	} else {
		ns := w.Namespace(g.Name)
		w.IP("-n %s link add %s type veth peer name eth0 address %s netns %s", host.NS, Device(g), g.MAC, ns)
		w.IP("-n %s link set eth0 mtu %d up", ns, w.Carrier.MTU())
		for i, ca := range g.CAs {
			w.IP("-n %s addr add %s/%d dev eth0 %s", ns, ca, g.Subnet.Prefixes[i].Bits(), nodad(ca))
			w.IP("-n %s route add default via %s", ns, g.Subnet.Gateway(i))
		}
	}
	w.In(host.NS, func() error {
		for _, knob := range []string{"disable_ipv6", "addr_gen_mode"} {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+Device(g)+"/"+knob, []byte("1"), 0); err != nil {
				return err
			}
		}
		return nil
	})
	w.IP("-n %s link set %s mtu %d up", host.NS, Device(g), w.Carrier.MTU())
	g.IfIndex = w.index(host.NS, Device(g))
}

func nodad(a netip.Addr) string {
	if a.Is6() {
		return "nodad"
	}
	return ""
}

func (w *World) index(ns, device string) uint32 {
	w.t.Helper()
	out, err := exec.Command("ip", "-n", ns, "-o", "link", "show", device).Output()
	var index uint32
	if err == nil {
		_, err = fmt.Sscanf(string(out), "%d:", &index)
	}
	if err != nil {
		w.t.Fatalf("index of %s in %s: %v", device, ns, err)
	}
	return index
}

// In runs f on a thread inside the namespace, and fails the test if f fails.
// Sockets that f makes stay in the namespace.
func (w *World) In(ns string, f func() error) {
	w.t.Helper()
	if err := In(ns, f); err != nil {
		w.t.Fatalf("in %s: %v", ns, err)
	}
}

// In runs f on a thread inside the namespace.
func In(ns string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		err := enter(ns)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func enter(ns string) error {
	fd, err := unix.Open("/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("namespace %s: %w", ns, err)
	}
	defer unix.Close(fd)
	// /proc/sys/net follows the thread into the namespace; /sys/class/net does not.
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter namespace %s: %w", ns, err)
	}
	return nil
}

// open loads and attaches the switch of one host, and fills it.
func (w *World) open(i int) {
	w.t.Helper()
	h := w.Hosts[i]
	h.uplink = w.index(h.NS, Underlay)
	w.In(h.NS, func() error {
		var err error
		if h.Switch, err = datapath.Open(datapath.Options{Decap: w.decap, Recycle: true}); err != nil {
			return err
		}
		w.t.Cleanup(func() { _ = h.Switch.Close() })
		if err := h.Switch.Apply(w.rows(i), false); err != nil {
			return err
		}
		if err := w.detour(h, i); err != nil {
			return err
		}
		if err := h.Switch.AttachUplink(h.uplink); err != nil {
			return err
		}
		for _, g := range w.Guests {
			if g.Host != i {
				continue
			}
			if err := h.Switch.AttachPort(g.IfIndex); err != nil {
				return err
			}
		}
		return nil
	})
}

// detour makes the way of stripped super-packets to taps, as an agent does.
func (w *World) detour(h *Host, i int) error {
	onTap := func(g *Guest) bool { return g.Tap && g.Host == i }
	if !slices.ContainsFunc(w.Guests, onTap) {
		return nil
	}
	switch h.Switch.Detour() {
	case datapath.DecapDX2:
		index, err := netdev.PrepareDX2(datapath.DX2Segment)
		if err != nil {
			return err
		}
		return h.Switch.AttachDX2(index)
	case datapath.DecapVeth:
		out, in, err := netdev.PrepareMerge()
		if err != nil {
			return err
		}
		return h.Switch.AttachVeth(out, in)
	case datapath.DecapVXLAN:
		devices, err := netdev.PrepareVXLAN(table.DefaultSettings.VXLANPort, []netip.Addr{h.PA}, true)
		if err != nil {
			return err
		}
		if err := h.Switch.AttachVXLAN(devices); err != nil {
			return err
		}
		return netdev.SetUp(devices[0])
	}
	return nil
}

// rows renders what host i must contain.
func (w *World) rows(i int) table.Set {
	here, there := w.Hosts[i], w.Hosts[1-i]
	s := table.NewSet()
	s.LocalPAs[here.PA] = struct{}{}
	s.Peers[there.PA] = table.Peer{PA: there.PA, IfIndex: here.uplink, MTU: 1500, NextHop: there.mac, Source: here.mac}
	for _, g := range w.Guests {
		addSubnet(s, g.Subnet)
		r := table.Record{MAC: g.MAC, Port: g.ID, Transport: w.Carrier.Transport}
		if g.Host == i {
			r.IfIndex = g.IfIndex
			s.Ports[g.IfIndex] = port(g, here.PA, w.Carrier.MTU())
		} else {
			r.PA = there.PA
		}
		for _, ca := range g.CAs {
			s.Records[table.RecordKey{VSID: g.Subnet.VSID, CA: ca}] = r
		}
	}
	return s
}

func addSubnet(s table.Set, n Subnet) {
	for i, p := range n.Prefixes {
		s.Routes[table.RouteKey{Network: n.Network, Prefix: p.Masked()}] = table.Route{VSID: n.VSID}
		s.Records[table.RecordKey{VSID: n.VSID, CA: n.Gateway(i)}] = table.Record{MAC: model.RouterMAC(n.VSID), Router: true}
	}
}

func port(g *Guest, pa netip.Addr, mtu int) table.Port {
	p := table.Port{IfIndex: g.IfIndex, ID: g.ID, VSID: g.Subnet.VSID, Network: g.Subnet.Network, MAC: g.MAC,
		PA: pa, MTU: uint16(mtu), Peer: !g.Tap}
	for i, prefix := range g.Subnet.Prefixes {
		if prefix.Addr().Is4() {
			p.Gateway4 = g.Subnet.Gateway(i)
		} else {
			p.Gateway6 = g.Subnet.Gateway(i)
		}
	}
	return p
}
