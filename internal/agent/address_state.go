package agent

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
)

// addressState is what is known of one Provider Address of this host.
type addressState struct {
	state model.AddressState
	owner model.MAC // of a Duplicate; zero: not known
}

// place is an address on a device.
type place struct {
	ifindex uint32
	address netip.Addr
}

// ear hears ARP on one device.
type ear struct {
	*netdev.ARP
	wanted atomic.Pointer[map[netip.Addr]bool] // addresses whose conflicts matter
	ours   atomic.Pointer[map[model.MAC]bool]  // of all devices of this host
}

// voice is a machine that was heard to claim an address.
type voice struct {
	mac  model.MAC
	asks bool
}

// checkAddresses finds the state of every Provider Address: of those that the uplinks
// have and of those that policy gives this host. The kernel looks for duplicates of
// IPv6 addresses, weft for those of IPv4. It sends what is due and never waits.
func (l *loop) checkAddresses(u *underlay, want map[netip.Addr]struct{}, now time.Time) []failure {
	var failures []failure
	states, claims := map[netip.Addr]addressState{}, map[place]*claim{}
	for _, pa := range u.watched(want) {
		at, there := u.placeOf(pa, l.links)
		link := l.links[at.ifindex]
		switch {
		case !there || !link.Running:
			states[pa] = addressState{state: model.AddressInvalid}
		case pa.Is6():
			states[pa] = addressState{state: u.kernelState(at)}
		case !link.ARP:
			states[pa] = addressState{state: model.AddressPreferred}
		default:
			c := l.claims[at]
			if c == nil {
				_, known := want[pa]
				c = newClaim(known && l.last.goal == nil, now)
			}
			claims[at] = c
			if err := l.listenFor(at.ifindex); err != nil {
				failures = append(failures, l.hostFailure(reasonUnderlay, fmt.Sprintf("%s cannot be checked for duplicates, and is not used: %v", pa, err)))
				c.state = model.AddressTentative
			} else {
				l.speak(at, c.step(now))
			}
			states[pa] = addressState{c.state, c.owner}
		}
		if s := states[pa]; s.state == model.AddressDuplicate {
			failures = append(failures, l.hostFailure(reasonDuplicate, duplicateText(pa, s.owner)))
		}
	}
	l.claims, u.states = claims, states
	l.tellEars()
	return failures
}

func duplicateText(pa netip.Addr, owner model.MAC) string {
	if owner.IsZero() {
		return fmt.Sprintf("another machine has %s as well; the address is not used", pa)
	}
	return fmt.Sprintf("the machine with MAC %s has %s as well; the address is not used", owner, pa)
}

func (u *underlay) watched(want map[netip.Addr]struct{}) []netip.Addr {
	all := append(slices.Collect(maps.Keys(want)), u.pas...)
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// placeOf finds the device that has an address; of several one that is running.
func (u *underlay) placeOf(pa netip.Addr, links map[uint32]netdev.Link) (at place, there bool) {
	for _, a := range u.addresses {
		if a.Prefix.Addr() != pa || there && links[at.ifindex].Running {
			continue
		}
		at, there = place{a.IfIndex, pa}, true
	}
	return at, there
}

func (u *underlay) kernelState(at place) model.AddressState {
	for _, a := range u.addresses {
		if a.IfIndex == at.ifindex && a.Prefix.Addr() == at.address {
			return a.State
		}
	}
	return model.AddressInvalid
}

// probing tells whether the first probes of an address are still under way.
func (l *loop) probing() bool {
	for _, c := range l.claims {
		if c.probing {
			return true
		}
	}
	return false
}

func (l *loop) speak(at place, w word) {
	var err error
	switch w {
	case asksForIt:
		err = l.ears[at.ifindex].Probe(at.address)
	case announcesIt:
		err = l.ears[at.ifindex].Announce(at.address)
	}
	if err != nil {
		l.log.Warn("address conflict detection", "error", err)
	}
}

// nextStep is when a claim has something to do; zero: never.
func (l *loop) nextStep() time.Time {
	var next time.Time
	for _, c := range l.claims {
		if !c.next.IsZero() {
			next = earlier(next, c.next)
		}
	}
	return next
}

// listenFor makes sure that somebody hears ARP on a device.
func (l *loop) listenFor(index uint32) error {
	link := l.links[index]
	if e := l.ears[index]; e != nil && e.Device() == link.MAC {
		return nil
	} else if e != nil { // the device has another MAC now
		e.Close()
		delete(l.ears, index)
	}
	arp, err := netdev.ListenARP(link)
	if err != nil {
		return err
	}
	e := &ear{ARP: arp}
	e.ours.Store(&map[model.MAC]bool{})
	e.wanted.Store(&map[netip.Addr]bool{})
	l.ears[index] = e
	go l.listen(index, e)
	return nil
}

// listen tells the loop of others that claim our addresses until the ear is closed.
// However many speak, one message at a time is under way.
func (l *loop) listen(index uint32, e *ear) {
	var mu sync.Mutex
	pending := map[netip.Addr]voice{}
	for {
		mac, sender, target, err := e.Read()
		if err != nil {
			return
		}
		asks := sender.IsUnspecified()
		if asks {
			sender = target
		}
		if (*e.ours.Load())[mac] || !(*e.wanted.Load())[sender] {
			continue
		}
		mu.Lock()
		if old, more := pending[sender]; !more || old.asks {
			pending[sender] = voice{mac, asks}
		}
		first := len(pending) == 1
		mu.Unlock()
		if !first {
			continue
		}
		l.work.post(func() {
			mu.Lock()
			heard := pending
			pending = map[netip.Addr]voice{}
			mu.Unlock()
			for a, v := range heard {
				if c := l.claims[place{index, a}]; c != nil {
					c.heard(time.Now(), v.mac, v.asks)
				}
			}
		})
	}
}

func (l *loop) stopListening() {
	for _, e := range l.ears {
		e.Close()
	}
}

// tellEars says which addresses matter, and closes ears that none needs.
func (l *loop) tellEars() {
	ours := map[model.MAC]bool{}
	for _, link := range l.links {
		ours[link.MAC] = true
	}
	for index, e := range l.ears {
		wanted := map[netip.Addr]bool{}
		for at := range l.claims {
			if at.ifindex == index {
				wanted[at.address] = true
			}
		}
		e.ours.Store(&ours)
		e.wanted.Store(&wanted)
		if len(wanted) == 0 {
			e.Close()
			delete(l.ears, index)
		}
	}
}
