package agent

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// renderBandwidth gives a Shape to each direction of a port that has a maximum. What a port gets waits in its device's
// own queue, so nothing may pass that by.
func renderBandwidth(set table.Set, p goal.Port, d device) {
	b := p.Settings.Bandwidth
	if b == nil {
		return
	}
	for inbound, limit := range map[bool]model.BandwidthLimit{false: b.Outbound, true: b.Inbound} {
		if limit.Maximum > 0 {
			set.Shapes[table.ShapeKey{IfIndex: d.ifindex, Inbound: inbound}] = renderShape(p.ID, limit)
		}
	}
	if b.Inbound.Maximum > 0 {
		changePort(set, d.ifindex, func(row *table.Port) { row.Peer = false })
	}
}

// Bursts below a millisecond cannot be told from what the kernel's timers are late by.
const (
	usualBurst = 100  // of a second: 10 ms
	leastBurst = 1000 // 1 ms
	twoFrames  = 3036 // bytes
)

func renderShape(id model.PortID, l model.BandwidthLimit) table.Shape {
	perSecond := uint64(l.Maximum) / 8
	burst := cmp.Or(uint64(l.Burst), perSecond/usualBurst)
	return table.Shape{Port: id, Rate: uint64(l.Maximum), Burst: max(burst, perSecond/leastBurst, twoFrames)}
}

// shape makes the queues in which packets of limited ports wait, and puts the switch's limits in front of them. Where
// a queue cannot be made, what is too much at once is dropped, and the port's condition says so.
func (l *loop) shape(want table.Set) []failure {
	keys := slices.SortedFunc(maps.Keys(want.Shapes), compareShapes)
	stale := l.staleQueues(keys)
	err := l.sw.ShapePorts(keys)
	for _, k := range stale {
		if err == nil {
			err = netdev.UnshapeDevice(k.IfIndex, datapath.ShaperMajor)
		}
	}
	entry, more := l.shaper(slices.ContainsFunc(keys, func(k table.ShapeKey) bool { return !k.Inbound }))
	if err = errors.Join(err, more); err != nil {
		l.queues = nil
		return []failure{l.hostFailure(reasonBandwidth, err.Error())}
	}
	if l.queues == nil {
		l.queues = map[table.ShapeKey]netdev.Bandwidth{}
	}
	var out []failure
	for _, k := range keys {
		if err := l.queue(entry, k, want.Shapes[k]); err != nil {
			out = append(out, failure{model.KindPort, l.last.goal.Ports[want.Shapes[k].Port].Ref, reasonBandwidth, err.Error()})
		}
	}
	if err := l.forgetQueues(entry, want); err != nil {
		out = append(out, l.hostFailure(reasonBandwidth, err.Error()))
	}
	return out
}

func compareShapes(a, b table.ShapeKey) int {
	if c := cmp.Compare(a.IfIndex, b.IfIndex); c != 0 || a.Inbound == b.Inbound {
		return c
	}
	if a.Inbound {
		return 1
	}
	return -1
}

// staleQueues are those of devices that are not limited any more; the switch's pins remember them.
func (l *loop) staleQueues(keys []table.ShapeKey) []table.ShapeKey {
	var out []table.ShapeKey
	for _, k := range l.sw.Shaped() {
		if k.Inbound && !slices.Contains(keys, k) {
			out = append(out, k)
		}
	}
	return out
}

// shaper makes the devices by way of which what guests send waits, or removes them.
func (l *loop) shaper(needed bool) (entry uint32, err error) {
	if !needed {
		if err := l.sw.SetShaper(0, 0); err != nil {
			return 0, err
		}
		return 0, netdev.RemoveShaper()
	}
	entry, exit, err := netdev.PrepareShaper(datapath.ShaperMajor)
	if err != nil {
		return 0, errors.Join(err, l.sw.SetShaper(0, 0))
	}
	return entry, l.sw.SetShaper(entry, exit)
}

func (l *loop) queue(entry uint32, k table.ShapeKey, s table.Shape) error {
	b := netdev.Bandwidth{Rate: s.Rate, Burst: s.Burst, Room: datapath.QueueRoom(s)}
	if l.queues[k] == b {
		return nil
	}
	var err error
	if k.Inbound {
		err = netdev.ShapeDevice(k.IfIndex, datapath.ShaperMajor, b)
	} else if class := l.sw.ShaperClass(k.IfIndex); class != 0 {
		err = netdev.ShapeClass(entry, datapath.ShaperMajor, class, b)
	}
	if errors.Is(err, netdev.ErrNoDevice) {
		return nil // it went meanwhile
	}
	if err != nil {
		delete(l.queues, k)
		return err
	}
	l.queues[k] = b
	return nil
}

// forgetQueues deletes the shaper's classes of ports that are not limited any more.
func (l *loop) forgetQueues(entry uint32, want table.Set) error {
	for k := range l.queues {
		if _, ok := want.Shapes[k]; !ok {
			delete(l.queues, k)
		}
	}
	if entry == 0 {
		return nil
	}
	have, err := netdev.Bandwidths(entry, datapath.ShaperMajor)
	if err != nil {
		return err
	}
	for k := range want.Shapes {
		if !k.Inbound {
			delete(have, l.sw.ShaperClass(k.IfIndex))
		}
	}
	for class := range have {
		err = errors.Join(err, netdev.UnshapeClass(entry, datapath.ShaperMajor, class))
	}
	return err
}

// unshaped lists the queues that are not as policy wants them.
func (l *loop) unshaped(want table.Set) []string {
	var out []string
	attached := l.sw.Shaped()
	for k, s := range want.Shapes {
		if !slices.Contains(attached, k) {
			out = append(out, fmt.Sprintf("bandwidth %+v: the limit is not on the device", k))
		}
		device, class := l.queueOf(k)
		have, err := netdev.Bandwidths(device, datapath.ShaperMajor)
		switch rate, ok := have[class]; {
		case err != nil:
			out = append(out, fmt.Sprintf("bandwidth %+v: %v", k, err))
		case !ok:
			out = append(out, fmt.Sprintf("bandwidth %+v: no queue delays what is too much", k))
		case rate/8 != s.Rate/8:
			out = append(out, fmt.Sprintf("bandwidth %+v: the queue lets %d bit/s pass, should be %d", k, rate, s.Rate))
		}
	}
	slices.Sort(out)
	return out
}

// queueOf is where packets of a Shape wait.
func (a *Agent) queueOf(k table.ShapeKey) (device uint32, class uint16) {
	if k.Inbound {
		return k.IfIndex, netdev.PortClass
	}
	return netdev.ShaperIndex(), a.sw.ShaperClass(k.IfIndex)
}

// dropCounts adds what queues have dropped to what the switch has: their bytes nobody knows.
func (a *Agent) dropCounts() ([]datapath.DropCount, error) {
	counts, err := a.sw.Drops()
	if err != nil {
		return nil, fmt.Errorf("read the drop counters: %w", err)
	}
	for k, s := range a.view.Load().want.Shapes {
		device, class := a.queueOf(k)
		drops, err := netdev.QueueDrops(device, datapath.ShaperMajor)
		if err != nil || drops[class] == 0 {
			continue // it is being made, or the device is gone
		}
		counts = addDrops(counts, s.Port, k.Inbound, drops[class])
	}
	return a.shareDrops(counts), nil
}

func addDrops(counts []datapath.DropCount, id model.PortID, inbound bool, packets uint64) []datapath.DropCount {
	direction := datapath.Outbound
	if inbound {
		direction = datapath.Inbound
	}
	for i := range counts {
		if c := &counts[i]; c.Port == id && c.Direction == direction && c.Reason == model.VerdictBandwidthLimited {
			c.Packets += packets
			return counts
		}
	}
	return append(counts, datapath.DropCount{Reason: model.VerdictBandwidthLimited, Direction: direction, Port: id, Packets: packets})
}
