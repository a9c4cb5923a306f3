package agent

import (
	"net/netip"
	"sync"
	"time"
)

// What a path carries is believed for so long (RFC 1191 section 6.3, RFC 8201 section 4),
// and nobody is believed who says that it carries less than that.
const (
	learnedTime = 10 * time.Minute
	leastMTU4   = 576
	leastMTU6   = 1280
	maxHeard    = 1024 // messages that wait for the loop; more are left out
)

// ends of a path: outer source and destination.
type ends struct{ local, remote netip.Addr }

// narrow is what was learned of a path.
type narrow struct {
	mtu   int
	until time.Time
}

// collectNarrow gives a function that any goroutine may call: what it is told, the loop learns.
func (l *loop) collectNarrow() func(ends, int) {
	var mu sync.Mutex
	pending := map[ends]int{}
	return func(e ends, mtu int) {
		mu.Lock()
		defer mu.Unlock()
		first := len(pending) == 0
		if len(pending) < maxHeard {
			pending[e] = mtu
		}
		if !first {
			return
		}
		l.work.post(func() {
			mu.Lock()
			heard := pending
			pending = map[ends]int{}
			mu.Unlock()
			for e, mtu := range heard {
				l.learnMTU(e, mtu, time.Now())
			}
		})
	}
}

// learnMTU takes a router's word, if it speaks of a way that there is, and says that
// it is narrower than was thought. A forged word costs throughput, down to the floor, and for
// ten minutes: more no word can do.
func (l *loop) learnMTU(e ends, mtu int, now time.Time) {
	floor := leastMTU4
	if e.remote.Is6() {
		floor = leastMTU6
	}
	mtu = max(mtu, floor)
	for _, all := range l.under.ways {
		for _, w := range all.list {
			if w.row.Local != e.local || w.row.Remote != e.remote || mtu >= int(w.row.MTU) {
				continue
			}
			if old, known := l.narrow[e]; known && old.mtu <= mtu && old.until.After(now) {
				return
			}
			l.narrow[e] = narrow{mtu, now.Add(learnedTime)}
			l.due = now // look again
			l.log.Info("the path to another host is narrower than its device", "from", e.local, "to", e.remote, "mtu", mtu)
			return
		}
	}
}

// narrowest applies what was learned to a path, and forgets what is too old. It gives
// the time when it will be; zero: never.
func (l *loop) narrowest(now time.Time) (mtu func(ends, uint16) uint16, until time.Time) {
	for e, n := range l.narrow {
		if !n.until.After(now) {
			delete(l.narrow, e)
			continue
		}
		until = earlier(until, n.until)
	}
	return func(e ends, most uint16) uint16 {
		if n, known := l.narrow[e]; known {
			return min(most, uint16(n.mtu))
		}
		return most
	}, until
}
