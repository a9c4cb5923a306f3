package netdev

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The queue of an uplink is on a macvlan of its own, over a veth, as the shaper's: the uplink's own queues stay whose they
// are, and nothing is lost while this one comes and goes. The names end with the uplink's index.
const (
	shareDevice = "weft-ul"
	shareBelow  = "weft-um"
	sharePeer   = "weft-un"

	shareRoot    = 1 // the class above all others
	usualQuantum = 64 << 10
	mostQuantum  = 1 << 20
)

// Uplink is a queue before an uplink: what leaves it at most, and what its classes have of that. The class Default takes all that names none.
type Uplink struct {
	Index   uint32
	Total   Bandwidth
	Classes map[uint16]Bandwidth
	Default uint16
}

// PrepareUplink makes the queue of an uplink, or changes it, and returns the indices of its device and of the one below. A change
// loses nothing that waits; classes that go are empty first.
func PrepareUplink(u Uplink, major uint16) (entry, exit uint32, err error) {
	names := uplinkNames(u.Index)
	top, err := byName(names.top)
	if errors.Is(err, ErrNoDevice) {
		top, err = names.create()
	}
	if err != nil {
		return 0, 0, err
	}
	below, err := byName(names.below)
	if err != nil {
		return 0, 0, err
	}
	if err := rootQueue(top, major, u.Default); err != nil {
		return 0, 0, err
	}
	if err := u.putClasses(top, major); err != nil {
		return 0, 0, err
	}
	return uint32(top.Attrs().Index), uint32(below.Attrs().Index), u.pruneClasses(top, major)
}

// putClasses: when there is enough, all have what they want; when not, each has its rate first, and the rest goes round by quantum.
func (u Uplink) putClasses(l netlink.Link, major uint16) error {
	root := netlink.MakeHandle(major, shareRoot)
	if err := putClass(l, netlink.MakeHandle(major, 0), root, u.Total, u.Total, usualQuantum); err != nil {
		return err
	}
	var most uint64
	for _, b := range u.Classes {
		most = max(most, b.Rate)
	}
	for class, b := range u.Classes {
		quantum := max(usualQuantum, b.Rate*mostQuantum/max(most, 1))
		handle := netlink.MakeHandle(major, class)
		if err := putClass(l, root, handle, b, u.Total, uint32(quantum)); err != nil {
			return err
		}
		if err := leafQueue(l, handle, netlink.MakeHandle(class, 0), b.Room); err != nil {
			return err
		}
	}
	return nil
}

func putClass(l netlink.Link, parent, handle uint32, least, most Bandwidth, quantum uint32) error {
	c := netlink.NewHtbClass(netlink.ClassAttrs{LinkIndex: l.Attrs().Index, Parent: parent, Handle: handle},
		netlink.HtbClassAttrs{Rate: least.Rate, Buffer: uint32(min(least.Burst, math.MaxUint32)), Ceil: most.Rate, Cbuffer: uint32(min(most.Burst, math.MaxUint32)), Quantum: quantum})
	if err := netlink.ClassReplace(c); err != nil {
		return fmt.Errorf("make class %x of %s: %w", handle, l.Attrs().Name, err)
	}
	return nil
}

// pruneClasses deletes the classes that are not wanted any more, once what waits there is out.
func (u Uplink) pruneClasses(l netlink.Link, major uint16) error {
	have, err := Bandwidths(uint32(l.Attrs().Index), major)
	if err != nil {
		return err
	}
	for class := range have {
		if _, wanted := u.Classes[class]; wanted || class == shareRoot {
			continue
		}
		handle := netlink.MakeHandle(major, class)
		all := Bandwidth{Rate: u.Total.Rate, Burst: u.Total.Burst}
		err = errors.Join(err, putClass(l, netlink.MakeHandle(major, shareRoot), handle, all, all, usualQuantum),
			drained(l, func(c netlink.Qdisc) bool { return c.Attrs().Parent == handle }),
			unlessGone(netlink.ClassDel(netlink.NewHtbClass(netlink.ClassAttrs{LinkIndex: l.Attrs().Index, Parent: netlink.HANDLE_ROOT, Handle: handle}, netlink.HtbClassAttrs{Rate: 8}))))
	}
	return err
}

func unlessGone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Bounds of waiting for a queue to run empty.
const (
	drainTime = 300 * time.Millisecond
	drainPace = 5 * time.Millisecond
)

// drained waits until nothing waits in some queues of a device; what does not leave in time is lost.
func drained(l netlink.Link, which func(netlink.Qdisc) bool) error {
	for began := time.Now(); time.Since(began) < drainTime; time.Sleep(drainPace) {
		all, err := netlink.QdiscList(l)
		if err != nil {
			return fmt.Errorf("read queues of %s: %w", l.Attrs().Name, err)
		}
		waiting := uint32(0)
		for _, q := range all {
			if s := q.Attrs().Statistics; which(q) && s != nil && s.Queue != nil {
				waiting += s.Queue.Qlen
			}
		}
		if waiting == 0 {
			return nil
		}
	}
	return nil
}

// KeepUplinks removes the queues of all uplinks but those with these indices, once what waits there is out.
func KeepUplinks(keep map[uint32]bool) error {
	all, err := retryDump(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("list devices: %w", err)
	}
	var errs []error
	for _, l := range all {
		if index, ok := uplinkOf(l.Attrs().Name); ok && !keep[index] {
			errs = append(errs, removeUplink(index))
		}
	}
	return errors.Join(errs...)
}

func uplinkOf(name string) (index uint32, ok bool) {
	digits, ok := strings.CutPrefix(name, shareBelow)
	if !ok {
		return 0, false
	}
	_, err := fmt.Sscanf(digits, "%d", &index)
	return index, err == nil
}

func removeUplink(index uint32) error {
	names := uplinkNames(index)
	if top, err := byName(names.top); err == nil {
		if err := drained(top, func(netlink.Qdisc) bool { return true }); err != nil {
			return err
		}
	}
	return DeleteLink(names.below) // the others go with it
}

// UplinkClasses reads what the classes of an uplink's queue have; none where there is no queue.
func UplinkClasses(index uint32, major uint16) (map[uint16]uint64, error) {
	l, err := byName(uplinkNames(index).top)
	if errors.Is(err, ErrNoDevice) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out, err := Bandwidths(uint32(l.Attrs().Index), major)
	delete(out, shareRoot)
	return out, err
}

// UplinkDrops reads how many packets found no room in an uplink's queue, by class; a super-packet counts once.
func UplinkDrops(index uint32, major uint16) (map[uint16]uint64, error) {
	l, err := byName(uplinkNames(index).top)
	if err != nil {
		return nil, err
	}
	return QueueDrops(uint32(l.Attrs().Index), major)
}

// Speed is what a device says that its link carries, in bit/s; 0 when it does not know.
func Speed(device string) uint64 {
	// struct ethtool_cmd.
	request := struct {
		command, supported, advertising uint32
		low                             uint16
		duplex, port, phy, transceiver  uint8
		autoneg, mdio                   uint8
		maxTx, maxRx                    uint32
		high                            uint16
		mdix, mdixControl               uint8
		partner, reserved1, reserved2   uint32
	}{command: unix.ETHTOOL_GSET}
	if err := ethtoolCall(device, unsafe.Pointer(&request)); err != nil {
		return 0
	}
	megabits := uint32(request.high)<<16 | uint32(request.low)
	if megabits == math.MaxUint32 || megabits == math.MaxUint16 {
		return 0
	}
	return uint64(megabits) * 1e6
}

type deviceNames struct{ top, below, peer string }

func uplinkNames(index uint32) deviceNames {
	return deviceNames{fmt.Sprint(shareDevice, index), fmt.Sprint(shareBelow, index), fmt.Sprint(sharePeer, index)}
}
