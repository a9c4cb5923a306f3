package agent

import (
	"maps"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

func TestPortsOfATeamChangePlaces(t *testing.T) {
	w := watchGuests(t)
	ports := w.view.Load().goal.Ports
	for id, p := range ports {
		p.Settings.Team = "vm"
		ports[id] = p
	}
	seen := func(port model.PortID, mac model.MAC, ago time.Duration) {
		w.sighted(datapath.Sighting{Time: w.clock.Add(-ago), VSID: 5001, Port: port, Head: arpClaim(mac, "10.0.0.5", "10.0.0.9")})
	}
	wants := func(what string, first, second uint32) {
		t.Helper()
		devices := map[model.PortID]device{1: {ifindex: 3}, 2: {ifindex: 4}}
		w.teams.place(ports, devices)
		if want := map[model.PortID]device{1: {ifindex: first}, 2: {ifindex: second}}; !maps.Equal(devices, want) {
			t.Errorf("%s: %v, want %v", what, devices, want)
		}
		w.teams.placed(w.clock)
	}
	seen(1, learnerMAC, 0)
	wants("it speaks as itself", 3, 4)
	seen(1, model.MAC{2, 0, 0, 0, 0, 77}, 0)
	wants("it speaks as nobody", 3, 4)
	seen(1, fixedMAC, 0)
	seen(1, fixedMAC, 0)
	wants("it speaks as its mate, twice", 4, 3)
	w.clock = w.clock.Add(time.Second)
	seen(1, fixedMAC, 2*time.Second)
	wants("what was seen before", 4, 3)
	seen(1, fixedMAC, 0)
	wants("back again", 3, 4)
	seen(1, fixedMAC, 0)
	wants("the third time", 4, 3)
	seen(1, fixedMAC, 0)
	wants("the fourth time", 3, 4)
	seen(1, fixedMAC, 0)
	wants("too often", 3, 4)
	w.clock = w.clock.Add(teamPace)
	seen(1, fixedMAC, 0)
	wants("once more", 4, 3)
	alone := ports[2]
	alone.Settings.Team = ""
	ports[2] = alone
	wants("no team any more", 3, 4)
}

func TestPlacesAreRecalled(t *testing.T) {
	ports := map[model.PortID]goal.Port{}
	for id := model.PortID(1); id <= 3; id++ {
		ports[id] = goal.Port{ID: id, VSID: 5001, Settings: goal.PortSettings{Team: "vm"}}
	}
	devices := map[model.PortID]device{1: {ifindex: 11}, 2: {ifindex: 12}, 3: {ifindex: 13}}
	have := table.NewSet()
	have.Ports[11], have.Ports[12], have.Ports[13] = table.Port{ID: 3}, table.Port{ID: 1}, table.Port{ID: 2}
	var places teams
	places.recall(have, ports, devices)
	places.place(ports, devices)
	if want := map[model.PortID]device{1: {ifindex: 12}, 2: {ifindex: 13}, 3: {ifindex: 11}}; !maps.Equal(devices, want) {
		t.Errorf("%v, want %v", devices, want)
	}
}
