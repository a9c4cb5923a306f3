package agent

import (
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
)

// stateIn is what facts say of an address.
func stateIn(f *hostv1.Facts, address netip.Addr) string {
	for _, a := range f.GetAddresses() {
		if a.GetAddress() == address.String() {
			return strings.TrimSpace(a.GetState() + " " + a.GetOwner())
		}
	}
	return "unknown"
}

// stateOf is what the server was told last of an address.
func (f *fleet) stateOf(host string, address netip.Addr) string {
	s := f.sessions[host]
	if s == nil {
		return "away"
	}
	return stateIn(s.facts, address)
}

// rogue is a machine beside the router that has an address of a host while on is set.
type rogue struct {
	*netdev.ARP
	on atomic.Bool
}

func newRogue(h *hostMachine, device, mac string, has netip.Addr) *rogue {
	h.t.Helper()
	r := &rogue{}
	h.inside(h.router, func() error {
		link, err := netdev.ByName(device)
		if err != nil {
			return err
		}
		link.MAC, _ = model.ParseMAC(mac)
		r.ARP, err = netdev.ListenARP(link)
		return err
	})
	h.t.Cleanup(func() { r.Close() })
	go func() {
		for {
			_, sender, target, err := r.Read()
			if err != nil {
				return
			}
			if r.on.Load() && sender.IsUnspecified() && target == has {
				_ = r.Announce(has)
			}
		}
	}()
	return r
}

// Another machine on the underlay has this host's address too: later, while the agent
// is away, and from the start. The server hears of it, the address is not used until
// the other gives it up, and one forged packet takes nothing away.
func TestDuplicateAddress(t *testing.T) {
	const mac = "02:00:00:00:00:99"
	w := newWorld(t, "h1", "h2")
	h := w.hosts["h1"]
	other := newRogue(h, "h1-1", mac, h.pa)
	w.fleet.change(func() {
		w.fleet.addPort("web-1", 1, "h1")
		w.fleet.addPort("web-2", 2, "h2")
	})
	h.synced()
	w.hosts["h2"].synced()
	g1, g2 := h.plug("web-1"), w.hosts["h2"].plug("web-2")
	is := func(what, want string) {
		t.Helper()
		w.fleet.until(what, func() bool { return w.fleet.stateOf("h1", h.pa) == want })
	}
	is("it is the host's alone", "Preferred")
	g1.ping(g2.address(true))
	must(t, other.Announce(h.pa)) // and does not answer when asked
	g1.ping(g2.address(true))

	other.on.Store(true)
	must(t, other.Announce(h.pa))
	is("a conflict that comes later is noticed", "Duplicate "+mac)
	w.fleet.until("the host says so", func() bool {
		for _, f := range w.fleet.sessions["h1"].ack.GetFailures() {
			if strings.Contains(f.GetMessage(), mac) && f.GetReason() == reasonDuplicate {
				return true
			}
		}
		return false
	})
	if g1.pings(g2) {
		t.Error("the host sends from an address that another has")
	}
	if h.dropped("NO_UNDERLAY_ROUTE") == 0 {
		t.Error("no drop says why")
	}

	h.end(syscall.SIGKILL)
	h.start()
	is("it is still so for the next agent", "Duplicate "+mac)
	h.end(syscall.SIGKILL)
	other.on.Store(false)
	h.start()
	is("the other has given it up", "Preferred")
	h.poll("the address is used again", func() bool { return g1.pings(g2) })
	h.verified()
}

// An address that appears on a host is Tentative first; IPv6 by the kernel's own
// detection; one whose device is down is Invalid.
func TestAddressStates(t *testing.T) {
	w := newWorld(t, "h1")
	h := w.hosts["h1"]
	h.secondLeg("198.51.100")
	h.extra = "underlay: [eth0, eth1]\n"
	second := addr("198.51.100.2")
	h.synced()
	is := func(what, want string) {
		t.Helper()
		w.fleet.until(what, func() bool { return w.fleet.stateOf("h1", second) == want })
	}
	is("it is probed and well", "Preferred")
	w.run(w.router, "ip link set h1-second down")
	is("its device has no link", "Invalid")
	w.run(w.router, "ip link set h1-second up")
	is("the link is back", "Preferred")
	var told []string
	w.fleet.mu.Lock()
	for _, f := range w.fleet.sessions["h1"].told {
		told = append(told, stateIn(f, second))
	}
	w.fleet.mu.Unlock()
	if got := strings.Join(slices.Compact(told), ", "); !strings.HasSuffix(got, "Preferred, Invalid, Tentative, Preferred") {
		t.Errorf("the server was told: %s", got)
	}
}
