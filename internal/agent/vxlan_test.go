package agent

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// A subnet changes its transport, and the fleet its port, while guests talk: hosts learn of it one after the
// other, and nothing is lost. Sockets listen while there is something to hear.
func TestTransportChangesUnderTraffic(t *testing.T) {
	w, g1, g2 := pairOfGuests(t)
	h1, h2 := w.hosts["h1"], w.hosts["h2"]
	s := newStream(g1, g2)
	to := func(transport model.TransportID, port uint16) {
		t.Helper()
		revision := w.fleet.change(func() { w.fleet.transport, w.fleet.settings = transport, goal.Settings{VXLANPort: port} })
		w.fleet.programmed("h1", revision)
		w.fleet.programmed("h2", revision)
		g2.ping(g1.address(true))
		g1.ping(g2.address(false))
		h1.verified()
	}
	listens := func(h *hostMachine, port int) bool {
		return strings.Contains(w.run(h.ns, "ss -Hlun"), fmt.Sprintf(":%d ", port))
	}
	to(model.VXLAN, 4789)
	if !listens(h1, 4789) || !listens(h2, 4789) {
		t.Error("nothing listens for VXLAN, and GRO merges none of it")
	}
	if mtu := w.run(h1.ns, "ip link show wfp1"); !strings.Contains(mtu, "mtu 1450 ") {
		t.Errorf("the port's device does not leave room for VXLAN:\n%s", mtu)
	}
	to(model.NVGRE, 4789)
	if listens(h1, 4789) {
		t.Error("a socket listens for VXLAN that nobody sends")
	}
	s.Finish()
	to(model.VXLAN, 8472) // a change of the port is no change for a live fleet: packets meet hosts of both minds
	if !listens(h1, 8472) || listens(h1, 4789) {
		t.Error("the socket did not follow the port")
	}
}
