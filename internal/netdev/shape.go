package netdev

import (
	"errors"
	"fmt"
	"math"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// The shaper: what is sent out of the first waits in its queue and then leaves by the one below, whose egress
// belongs to the switch. The third is only there because a veth has two ends; nothing crosses it.
const (
	shaperDevice = "weft-sh0"
	shaperBelow  = "weft-sh1"
	shaperPeer   = "weft-sh2"
	shaperMTU    = 65535
)

// PortClass is the only class of the queue of a port's own device.
const PortClass = 1

// Bandwidth is what one class of a queue lets pass.
type Bandwidth struct {
	Rate  uint64 // bit/s
	Burst uint64 // bytes
	Room  uint64 // bytes that may wait
}

// PrepareShaper makes the shaper's devices and returns their indices. It may be called again and again.
func PrepareShaper(major uint16) (entry, exit uint32, err error) {
	top, err := byName(shaperDevice)
	if errors.Is(err, ErrNoDevice) {
		top, err = deviceNames{shaperDevice, shaperBelow, shaperPeer}.create()
	}
	if err != nil {
		return 0, 0, err
	}
	below, err := byName(shaperBelow)
	if err != nil {
		return 0, 0, err
	}
	if err := rootQueue(top, major, 0); err != nil {
		return 0, 0, err
	}
	return uint32(top.Attrs().Index), uint32(below.Attrs().Index), nil
}

// create makes a macvlan over a veth, all three up and silent.
func (n deviceNames) create() (netlink.Link, error) {
	if err := DeleteLink(n.below); err != nil { // a former process died half-way
		return nil, err
	}
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: n.peer, PeerMTU: shaperMTU, PeerTxQLen: -1}
	veth.Name, veth.MTU = n.below, shaperMTU
	if err := netlink.LinkAdd(veth); err != nil {
		return nil, fmt.Errorf("create veth %s: %w", n.below, err)
	}
	below, err := byName(n.below)
	if err == nil {
		top := &netlink.Macvlan{LinkAttrs: netlink.NewLinkAttrs(), Mode: netlink.MACVLAN_MODE_PRIVATE}
		top.Name, top.ParentIndex, top.MTU, top.TxQLen = n.top, below.Attrs().Index, shaperMTU, 1000
		if err = netlink.LinkAdd(top); err != nil {
			err = fmt.Errorf("create macvlan %s: %w", n.top, err)
		}
	}
	for _, name := range []string{n.peer, n.below, n.top} {
		if err == nil {
			err = silentUp(name)
		}
	}
	if err != nil {
		return nil, errors.Join(err, DeleteLink(n.below))
	}
	return byName(n.top)
}

func silentUp(name string) error {
	l, err := byName(name)
	if err != nil {
		return err
	}
	if err := silence(l); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(l); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// RemoveShaper undoes PrepareShaper. It is no error when there is nothing to undo.
func RemoveShaper() error { return DeleteLink(shaperBelow) } // the others go with it

// ShapeClass gives packets of one class of the shaper a bandwidth.
func ShapeClass(entry uint32, major, class uint16, b Bandwidth) error {
	l, err := byIndex(entry)
	if err != nil {
		return err
	}
	return queueClass(l, major, class, b)
}

// UnshapeClass takes a class from the shaper; what waits in it is lost.
func UnshapeClass(entry uint32, major, class uint16) error {
	c := netlink.NewHtbClass(netlink.ClassAttrs{LinkIndex: int(entry), Parent: netlink.HANDLE_ROOT, Handle: netlink.MakeHandle(major, class)}, netlink.HtbClassAttrs{Rate: 8})
	if err := netlink.ClassDel(c); err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("delete class %x:%x of device %d: %w", major, class, entry, err)
	}
	return nil
}

// ShapeDevice gives all that is sent out of a device a bandwidth.
func ShapeDevice(index uint32, major uint16, b Bandwidth) error {
	l, err := byIndex(index)
	if err != nil {
		return err
	}
	if err := rootQueue(l, major, PortClass); err != nil {
		return err
	}
	return queueClass(l, major, PortClass, b)
}

// UnshapeDevice undoes ShapeDevice; the device gets the queue that the kernel gives to new ones. A device
// that has another queue, or is gone, is left as it is.
func UnshapeDevice(index uint32, major uint16) error {
	l, err := byIndex(index)
	if errors.Is(err, ErrNoDevice) {
		return nil
	}
	if err != nil {
		return err
	}
	have, err := rootOf(l)
	if err != nil || have == nil || have.Attrs().Handle != netlink.MakeHandle(major, 0) {
		return err
	}
	if err := netlink.QdiscDel(have); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("delete queue of %s: %w", l.Attrs().Name, err)
	}
	return nil
}

// QueueDrops reads how many packets found no room, by class; a super-packet counts once.
func QueueDrops(index uint32, major uint16) (map[uint16]uint64, error) {
	l, err := byIndex(index)
	if err != nil {
		return nil, err
	}
	queues, err := netlink.QdiscList(l)
	if err != nil {
		return nil, fmt.Errorf("read queues of %s: %w", l.Attrs().Name, err)
	}
	out := map[uint16]uint64{}
	for _, q := range queues {
		a := q.Attrs()
		if upper, class := netlink.MajorMinor(a.Parent); upper == major && a.Statistics != nil && a.Statistics.Queue != nil {
			out[class] = uint64(a.Statistics.Queue.Drops)
		}
	}
	return out, nil
}

// ShaperIndex is the index of the device that PrepareShaper gives as entry; 0 when there is none.
func ShaperIndex() uint32 {
	l, err := byName(shaperDevice)
	if err != nil {
		return 0
	}
	return uint32(l.Attrs().Index)
}

// Bandwidths reads what the classes of a device's queue let pass, by class; none where the queue is not ours.
func Bandwidths(index uint32, major uint16) (map[uint16]uint64, error) {
	l, err := byIndex(index)
	if err != nil {
		return nil, err
	}
	classes, err := netlink.ClassList(l, 0)
	if err != nil {
		return nil, fmt.Errorf("read classes of %s: %w", l.Attrs().Name, err)
	}
	out := map[uint16]uint64{}
	for _, c := range classes {
		h, ok := c.(*netlink.HtbClass)
		if upper, lower := netlink.MajorMinor(c.Attrs().Handle); ok && upper == major {
			out[lower] = h.Rate * 8
		}
	}
	return out, nil
}

func rootOf(l netlink.Link) (netlink.Qdisc, error) {
	all, err := netlink.QdiscList(l)
	if err != nil {
		return nil, fmt.Errorf("read queues of %s: %w", l.Attrs().Name, err)
	}
	for _, q := range all {
		if q.Attrs().Parent == netlink.HANDLE_ROOT {
			return q, nil
		}
	}
	return nil, nil
}

// rootQueue makes a hierarchical token bucket the queue of a device, where it is not yet.
func rootQueue(l netlink.Link, major, class uint16) error {
	have, err := rootOf(l)
	if err != nil {
		return err
	}
	handle := netlink.MakeHandle(major, 0)
	if have != nil && have.Type() == "htb" && have.Attrs().Handle == handle {
		return nil
	}
	q := netlink.NewHtb(netlink.QdiscAttrs{LinkIndex: l.Attrs().Index, Handle: handle, Parent: netlink.HANDLE_ROOT})
	q.Defcls = uint32(class)
	if err := netlink.QdiscReplace(q); err != nil {
		return fmt.Errorf("make the queue of %s: %w (does the kernel have sch_htb?)", l.Attrs().Name, err)
	}
	return nil
}

// queueClass makes or changes a class. A change loses nothing that waits.
func queueClass(l netlink.Link, major, class uint16, b Bandwidth) error {
	name, index := l.Attrs().Name, l.Attrs().Index
	c := netlink.NewHtbClass(netlink.ClassAttrs{LinkIndex: index, Parent: netlink.MakeHandle(major, 0), Handle: netlink.MakeHandle(major, class)},
		netlink.HtbClassAttrs{Rate: b.Rate, Buffer: uint32(min(b.Burst, math.MaxUint32)), Ceil: b.Rate, Cbuffer: uint32(min(b.Burst, math.MaxUint32)), Quantum: 60_000})
	if err := netlink.ClassReplace(c); err != nil {
		return fmt.Errorf("make class %x:%x of %s: %w", major, class, name, err)
	}
	return leafQueue(l, netlink.MakeHandle(major, class), netlink.MakeHandle(class, 0), b.Room)
}

// leafQueue makes or changes the first-in, first-out queue of a class, bounded in bytes; netlink's own kinds have none.
func leafQueue(l netlink.Link, parent, handle uint32, limit uint64) error {
	req := nl.NewNetlinkRequest(unix.RTM_NEWQDISC, unix.NLM_F_CREATE|unix.NLM_F_REPLACE|unix.NLM_F_ACK)
	req.AddData(&nl.TcMsg{Family: nl.FAMILY_ALL, Ifindex: int32(l.Attrs().Index), Handle: handle, Parent: parent})
	req.AddData(nl.NewRtAttr(nl.TCA_KIND, nl.ZeroTerminated("bfifo")))
	req.AddData(nl.NewRtAttr(nl.TCA_OPTIONS, nl.Uint32Attr(uint32(min(limit, math.MaxUint32)))))
	if _, err := req.Execute(unix.NETLINK_ROUTE, 0); err != nil {
		return fmt.Errorf("make the queue of class %x of %s: %w", parent, l.Attrs().Name, err)
	}
	return nil
}
