package agent

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/test/stream"
)

func newStream(from, to *guest) *stream.Stream {
	from.t.Helper()
	s := stream.Start(from.t, from.ns, to.ns, to.address(true), stream.Usual)
	s.More(200)
	return s
}

// pairOfGuests is the world of most tests here: web-1 on h1, web-2 on h2.
func pairOfGuests(t *testing.T) (w *world, g1, g2 *guest) {
	t.Helper()
	w = newWorld(t, "h1", "h2")
	w.fleet.change(func() {
		w.fleet.addPort("web-1", 1, "h1")
		w.fleet.addPort("web-2", 2, "h2")
	})
	w.hosts["h1"].synced()
	w.hosts["h2"].synced()
	return w, w.hosts["h1"].plug("web-1"), w.hosts["h2"].plug("web-2")
}

// Whatever happens to agents and server, packets flow, and afterwards the kernel
// holds what policy says.
func TestNothingIsLost(t *testing.T) {
	w, g1, g2 := pairOfGuests(t)
	h1, h2 := w.hosts["h1"], w.hosts["h2"]
	events := []struct {
		name string
		do   func()
	}{
		{"agents killed and started again", func() {
			for _, h := range []*hostMachine{h1, h2} {
				h.end(syscall.SIGKILL)
			}
			// Policy moves on while nobody is there to follow it.
			w.fleet.change(func() { w.fleet.addPort("web-3", 3, "h1") })
			h1.synced()
			h2.synced()
		}},
		{"agents stopped and started again", func() {
			for _, h := range []*hostMachine{h1, h2} {
				h.end(syscall.SIGTERM)
				h.synced()
			}
		}},
		{"agents replaced by a new build", func() {
			for _, h := range []*hostMachine{h1, h2} {
				h.binary = newBuild(t, h)
				h.end(syscall.SIGTERM)
				h.synced()
			}
		}},
		{"server gone", func() {
			w.fleet.stop()
			h1.end(syscall.SIGKILL)
			h1.start()
			for _, h := range []*hostMachine{h1, h2} {
				h.poll(h.name+" knows", func() bool { return !h.status().GetConnected() })
			}
		}},
		{"server back, with other policy", func() {
			w.fleet.change(func() { w.fleet.addPort("web-4", 4, "h2") })
			w.fleet.start(w.listen())
			w.fleet.programmed("h1", w.fleet.now())
			w.fleet.programmed("h2", w.fleet.now())
		}},
	}
	for _, e := range events {
		t.Run(e.name, func(t *testing.T) {
			there, back := newStream(g1, g2), newStream(g2, g1)
			e.do()
			there.More(500)
			back.More(500)
			there.Finish()
			back.Finish()
			h1.verified()
			h2.verified()
		})
	}
}

// newBuild makes a binary that differs from the one that runs.
func newBuild(t *testing.T, h *hostMachine) string {
	t.Helper()
	from, err := os.Open(h.binary)
	must(t, err)
	defer from.Close()
	path := filepath.Join(h.dir, "weftd-next")
	to, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o700)
	must(t, err)
	_, err = io.Copy(to, from)
	must(t, err)
	_, err = to.WriteString("next")
	must(t, err)
	must(t, to.Close())
	return path
}

// With both files of the state directory damaged and no server, an agent keeps
// what the kernel holds; it says what is wrong; and the server heals it.
func TestDamagedStateHurtsNobody(t *testing.T) {
	w, g1, g2 := pairOfGuests(t)
	h1 := w.hosts["h1"]
	w.fleet.programmed("h1", w.fleet.change(func() { w.fleet.addPort("web-3", 3, "h1") }))
	ns := w.namespace("g")
	w.run(h1.ns, "ip link add tap3 type veth peer name eth0 netns "+ns)
	w.run(ns, "ip link set eth0 address 02:00:00:01:00:03 mtu 1458 up", "ip addr add 10.0.1.3/16 dev eth0")
	_, err := h1.client.Plug(t.Context(), connect.NewRequest(&weftv1.PlugRequest{Tenant: "red", Port: "web-3", Device: "tap3"}))
	must(t, err)
	adopted := &guest{world: w, ns: ns}
	s := newStream(g1, g2)
	w.fleet.stop()
	h1.end(syscall.SIGKILL)
	for _, f := range []string{goalFile, plugsFile} {
		must(t, os.WriteFile(filepath.Join(h1.dir, "state", f), []byte("WEFTGOAL but not quite"), 0o600))
	}
	h1.start()
	if failures := strings.Join(h1.status().GetFailures(), "\n"); !strings.Contains(failures, reasonCache) {
		t.Errorf("nothing is said of the cache:\n%s", failures)
	}
	s.More(500)
	adopted.ping(g2.address(true))
	w.fleet.start(w.listen())
	w.fleet.programmed("h1", w.fleet.now())
	s.More(500)
	s.Finish()
	adopted.ping(g2.address(true))
	h1.verified()
	if got := h1.plugs(); got != "web-1 on wfp1 true programmed; web-3 on tap3 true programmed" {
		t.Errorf("plugs: %s", got)
	}
	if failures := h1.status().GetFailures(); len(failures) > 0 {
		t.Errorf("still failing: %v", failures)
	}
	h1.unplug("web-1") // which the agent knows of from the kernel alone
	h1.unplug("web-3")
	w.run(h1.ns, "ip link del tap3")
}

// Rows that somebody deletes behind the agent's back are missed, put back and counted.
func TestAuditRepairsTheKernel(t *testing.T) {
	w := newWorld(t, "h1")
	h := w.hosts["h1"]
	h.extra = "audit: 1s\n"
	w.fleet.change(func() {
		w.fleet.addPort("web-1", 1, "h1")
		w.fleet.addPort("web-2", 2, "h1")
	})
	h.synced()
	g1, g2 := h.plug("web-1"), h.plug("web-2")
	pins, err := filepath.Glob(filepath.Join(h.pinDir(), "maps-*", "record"))
	if err != nil || len(pins) != 1 {
		t.Fatalf("pinned records: %v %v", pins, err)
	}
	w.vandalize(pins[0])
	h.poll("the audit has counted and repaired", func() bool {
		text := h.run(h.ns, "curl -sf http://127.0.0.1:9467/metrics")
		// Two ports of two addresses, two addresses of the router.
		return strings.Contains(text, "\nweft_agent_drift_total 6\n")
	})
	h.verified()
	g1.ping(g2.address(true))
	g1.ping(g2.address(false))

	// Rows that the agent does not write by themselves, but along with those of ports.
	w.vandalize(filepath.Join(filepath.Dir(pins[0]), "local_mac"))
	h.poll("the audit has put the MACs of the ports back", func() bool {
		v, err := h.client.LocalVerify(t.Context(), connect.NewRequest(&weftv1.LocalVerifyRequest{}))
		return err == nil && len(v.Msg.GetDifferences()) == 0
	})
}

// vandalize deletes every row of a pinned map.
func (w *world) vandalize(pin string) {
	w.t.Helper()
	var rows []struct {
		Key []string `json:"key"`
	}
	must(w.t, json.Unmarshal([]byte(w.shell("bpftool -j map dump pinned "+pin)), &rows))
	if len(rows) == 0 {
		w.t.Fatalf("%s is empty", pin)
	}
	for _, r := range rows {
		w.shell(fmt.Sprintf("bpftool map delete pinned %s key hex %s", pin, strings.ReplaceAll(strings.Join(r.Key, " "), "0x", "")))
	}
}
