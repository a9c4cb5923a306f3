package agent

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// renderShare gives a Share to a port that has a minimum.
func renderShare(set table.Set, p goal.Port, d device) {
	if b := p.Settings.Bandwidth; b.HasMinimum() {
		set.Shares[d.ifindex] = table.Share{Port: p.ID, Minimum: uint64(b.Outbound.Minimum), Weight: b.Outbound.Weight}
	}
}

const (
	// A link of Ethernet carries frames of 1514 bytes in the time of 1538; and what fills it to the last bit waits in the device, in no
	// class.
	framesOfLink = 98 // per cent

	leastShare = 64_000 // bit/s
	shareBurst = 100    // of a second: 10 ms
)

// share makes the queues in which what leaves by uplinks waits, when a port has a minimum, and has the switch send it there.
func (l *loop) share(want table.Set) []failure {
	queues, out := l.uplinkQueues(want)
	ports := slices.Sorted(maps.Keys(want.Shares))
	if len(queues) == 0 {
		ports = nil
	}
	if l.shares != nil && reflect.DeepEqual(queues, l.shares) && l.sharing(queues, ports) {
		return out
	}
	l.shares = nil
	turns, err := prepareUplinks(queues)
	err = errors.Join(err, l.sw.Share(ports, turns))
	keep := map[uint32]bool{}
	for index := range queues {
		keep[index] = true
	}
	if err = errors.Join(err, netdev.KeepUplinks(keep)); err != nil {
		return append(out, l.hostFailure(reasonShare, err.Error()))
	}
	l.shares = queues
	return out
}

func prepareUplinks(queues map[uint32]netdev.Uplink) (turns []datapath.Turn, err error) {
	for _, index := range slices.Sorted(maps.Keys(queues)) {
		entry, exit, e := netdev.PrepareUplink(queues[index], datapath.ShareMajor)
		if err = errors.Join(err, e); entry != 0 {
			turns = append(turns, datapath.Turn{Uplink: index, Entry: entry, Exit: exit})
		}
	}
	return turns, err
}

// sharing tells whether the switch has its programs where they belong.
func (l *loop) sharing(queues map[uint32]netdev.Uplink, ports []uint32) bool {
	on := l.sw.Sharing()
	has := func(index uint32) bool { return slices.Contains(on, index) }
	for index := range queues {
		if !has(index) {
			return false
		}
	}
	return !slices.ContainsFunc(ports, func(index uint32) bool { return !has(index) })
}

// uplinkQueues says what the queue of each uplink gives to whom; nothing without Shares.
func (l *loop) uplinkQueues(want table.Set) (map[uint32]netdev.Uplink, []failure) {
	queues := map[uint32]netdev.Uplink{}
	if len(want.Shares) == 0 {
		return queues, nil
	}
	var out []failure
	said := l.saidOfUplinks()
	for index, name := range l.under.uplinks {
		total := said
		if total == 0 {
			total = l.under.speeds[index] / 100 * framesOfLink
		}
		if total == 0 {
			out = append(out, l.hostFailure(reasonShare, fmt.Sprintf("uplink %s does not know what its link carries: say it in spec.uplinkBandwidth of the Host", name)))
			continue
		}
		if sum, promised := minima(want.Shares), uint64(model.Promised(int64(total))); sum > promised {
			out = append(out, l.hostFailure(reasonShare, fmt.Sprintf("the minima of ports here sum up to %d bit/s, and uplink %s can promise %d: each has that much less", sum, name, promised)))
		}
		queues[index] = uplinkQueue(index, total, want.Shares, l.sw.ShareClass)
	}
	return queues, out
}

// saidOfUplinks is what policy says that each uplink carries; 0: nothing.
func (l *loop) saidOfUplinks() (said uint64) {
	for _, p := range l.last.goal.Ports {
		said = max(said, uint64(p.Settings.Uplink))
	}
	return said
}

func uplinkQueue(index uint32, total uint64, shares map[uint32]table.Share, classOf func(uint32) uint16) netdev.Uplink {
	room := func(rate uint64) netdev.Bandwidth {
		rate = max(rate, leastShare)
		burst := max(rate/8/shareBurst, twoFrames)
		return netdev.Bandwidth{Rate: rate, Burst: burst, Room: max(2*datapath.QueueRoom(table.Shape{Rate: rate}), total/8/200)}
	}
	kept := total - uint64(model.Promised(int64(total)))
	u := netdev.Uplink{Index: index, Total: room(total), Default: datapath.ShareHost,
		Classes: map[uint16]netdev.Bandwidth{datapath.ShareHost: room(kept / 2), datapath.ShareOthers: room(kept / 2)}}
	for ifindex, rate := range divide(total-kept, shares) {
		if class := classOf(ifindex); class != 0 {
			u.Classes[class] = room(rate)
		}
	}
	return u
}

// divide gives each Share its minimum, and what is left to those with a weight. Where there is not enough, all minima are cut alike.
func divide(total uint64, shares map[uint32]table.Share) map[uint32]uint64 {
	sum, weights := minima(shares), uint64(0)
	for _, s := range shares {
		weights += uint64(s.Weight)
	}
	scale := 1.0
	if sum > total {
		scale = float64(total) / float64(sum)
	}
	left := total - min(sum, total)
	out := map[uint32]uint64{}
	for ifindex, s := range shares {
		if s.Weight > 0 {
			out[ifindex] = left * uint64(s.Weight) / weights
			continue
		}
		out[ifindex] = uint64(scale * float64(s.Minimum))
	}
	return out
}

func minima(shares map[uint32]table.Share) (sum uint64) {
	for _, s := range shares {
		sum += s.Minimum
	}
	return sum
}

// shareDrops adds what the queues of uplinks have dropped; what is of no port that has a share is of no port.
func (a *Agent) shareDrops(counts []datapath.DropCount) []datapath.DropCount {
	view := a.view.Load()
	if len(view.want.Shares) == 0 {
		return counts
	}
	for index := range view.uplinks {
		drops, err := netdev.UplinkDrops(index, datapath.ShareMajor)
		if err != nil {
			continue // it is being made, or the device is gone
		}
		for ifindex, s := range view.want.Shares {
			if n := drops[a.sw.ShareClass(ifindex)]; n > 0 {
				counts = addDrops(counts, s.Port, false, n)
			}
		}
		if n := drops[datapath.ShareOthers] + drops[datapath.ShareHost]; n > 0 {
			counts = addDrops(counts, 0, false, n)
		}
	}
	return counts
}

// unshared lists what of the queues of uplinks is not as policy wants it.
func (l *loop) unshared(want table.Set) []string {
	var out []string
	queues, _ := l.uplinkQueues(want)
	if len(queues) > 0 && !l.sharing(queues, slices.Sorted(maps.Keys(want.Shares))) {
		out = append(out, "minimum bandwidth: the switch does not have all packets of uplinks wait for their turn")
	}
	for index, u := range queues {
		have, err := netdev.UplinkClasses(index, datapath.ShareMajor)
		if err != nil {
			out = append(out, fmt.Sprintf("minimum bandwidth: %v", err))
			continue
		}
		for class, b := range u.Classes {
			if rate := have[class]; rate/8 != b.Rate/8 {
				out = append(out, fmt.Sprintf("minimum bandwidth: class %x of uplink %s has %d bit/s, should have %d", class, l.under.uplinks[index], rate, b.Rate))
			}
		}
	}
	slices.Sort(out)
	return out
}
