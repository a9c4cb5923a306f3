package agent

import (
	"cmp"
	"maps"
	"sync"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// A guest that teams its ports goes on at another one, with the MAC and the addresses of the one that failed. Then
// the two ports change devices: what is for the MAC comes to where it speaks, under its own port's rules, limits and
// connections.

// How often a port may change places: so many times at once, and in the long run.
const (
	teamBurst = 4
	teamPace  = 5 * time.Second
)

// teams are the ports that have changed places.
type teams struct {
	mu      sync.Mutex
	places  map[model.PortID]model.PortID // a port, and the one on whose device it is; absent: on its own
	paces   map[model.PortID]*pace
	pending bool      // the kernel does not hold the latest change yet
	shown   bool      // but the pass that is going on knows of it
	since   time.Time // the kernel holds it; what was seen before tells nothing
}

// exchange has two ports change places, because of what was seen at a time, and reports whether they do.
func (t *teams) exchange(p, q model.PortID, seen, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pending || seen.Before(t.since) {
		return false
	}
	if t.paces == nil {
		t.places, t.paces = map[model.PortID]model.PortID{}, map[model.PortID]*pace{}
	}
	if t.paces[p] == nil {
		t.paces[p] = &pace{}
	}
	if !t.paces[p].may(teamBurst, teamPace, now) {
		return false
	}
	t.places[p], t.places[q] = t.of(q), t.of(p)
	t.pending = true
	return true
}

// of is the port on whose device p is.
func (t *teams) of(p model.PortID) model.PortID {
	if at, moved := t.places[p]; moved {
		return at
	}
	return p
}

// place puts ports that have changed places on each other's devices. Where one is no teammate any more or has lost
// its device, all are on their own again: what a guest says next tells where it is.
func (t *teams) place(ports map[model.PortID]goal.Port, devices map[model.PortID]device) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.shown = t.pending
	maps.DeleteFunc(t.paces, func(p model.PortID, _ *pace) bool { _, here := devices[p]; return !here })
	own := maps.Clone(devices)
	for p, at := range t.places {
		_, here := own[p]
		_, there := own[at]
		if !here || !there || p != at && !teammates(ports[p], ports[at]) {
			clear(t.places)
			maps.Copy(devices, own)
			return
		}
		devices[p] = own[at]
	}
}

// placed says that the kernel holds what place gave.
func (t *teams) placed(now time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.shown {
		t.pending, t.shown, t.since = false, false, now
	}
}

// recall takes the places that an earlier process has left in the kernel.
func (t *teams) recall(have table.Set, ports map[model.PortID]goal.Port, devices map[model.PortID]device) {
	own := make(map[uint32]model.PortID, len(devices))
	for id, d := range devices {
		own[d.ifindex] = id
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.places = map[model.PortID]model.PortID{}
	for ifindex, at := range own {
		held := cmp.Or(have.Ports[ifindex].ID, have.VLANPorts[ifindex].ID)
		if held != at && held != 0 && teammates(ports[held], ports[at]) {
			t.places[held] = at
		}
	}
}

// moved takes a frame that a port has sent as another one of its team.
func (g *guests) moved(p goal.Port, s datapath.Sighting) bool {
	if p.Settings.Team == "" || s.Inbound || s.Verdict != model.VerdictContinue || len(s.Head) < 12 || model.MAC(s.Head[6:12]) == p.MAC {
		return false
	}
	for id, mate := range g.view.Load().goal.Ports {
		if mate.MAC == model.MAC(s.Head[6:12]) && teammates(p, mate) && g.teams.exchange(p.ID, id, s.Time, g.now()) {
			g.log.Info("a guest has moved a MAC to another port of its team", "mac", mate.MAC, "of", mate.Ref, "to", p.Ref)
			g.Agent.work.post(func() {})
		}
	}
	return true
}
