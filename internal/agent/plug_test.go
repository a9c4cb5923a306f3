package agent

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// kernel reads what is pinned for the host, with no agent in between.
func (h *hostMachine) kernel() (rows table.Set, ports []uint32) {
	h.t.Helper()
	h.inside(h.ns, func() error {
		sw, err := datapath.Open(datapath.Options{PinDir: h.pinDir()})
		if err != nil {
			return err
		}
		defer sw.Close()
		if rows, err = sw.ReadBack(); err != nil {
			return err
		}
		ports, _, err = sw.Attached()
		return err
	})
	return rows, ports
}

func (h *hostMachine) pins() []string {
	h.t.Helper()
	var out []string
	must(h.t, filepath.WalkDir(h.pinDir(), func(path string, _ os.DirEntry, err error) error {
		out = append(out, path)
		return err
	}))
	return out
}

// Ports come and go in random order, four callers at once, and leave nothing. (test/acceptance has 200, on two
// hosts and through the command line.)
func TestPlugsLeaveNothing(t *testing.T) {
	const ports = 60
	w := newWorld(t, "h1")
	h := w.hosts["h1"]
	w.fleet.change(func() {
		for id := 1; id <= ports; id++ {
			w.fleet.addPort(fmt.Sprintf("p%d", id), id, "h1")
		}
	})
	h.synced()
	ns := w.namespace("g")
	pins, links := h.pins(), h.links()

	var wait sync.WaitGroup
	for worker := range 4 {
		wait.Go(func() {
			var mine []int
			for id := worker + 1; id <= ports; id += 4 {
				mine = append(mine, id)
			}
			random := rand.New(rand.NewPCG(1, uint64(worker)))
			plugged := map[int]bool{}
			// Every port at least once each way, in random order.
			for _, n := range random.Perm(len(mine) * 2) {
				id := mine[n%len(mine)]
				h.toggle(ns, id, plugged[id])
				plugged[id] = !plugged[id]
			}
			for id, on := range plugged {
				if on {
					h.toggle(ns, id, true)
				}
			}
		})
	}
	wait.Wait()
	if t.Failed() {
		return
	}
	if got := h.pins(); !slices.Equal(got, pins) {
		t.Errorf("pins before %v, after %v", pins, got)
	}
	if got := h.links(); !slices.Equal(got, links) {
		t.Errorf("devices before %v, after %v", links, got)
	}
	if inside := w.run(ns, "ip -br link"); strings.Contains(inside, "eth") {
		t.Errorf("left in the guests' namespace:\n%s", inside)
	}
	h.verified()
	h.end(syscall.SIGTERM)
	rows, attached := h.kernel()
	if len(rows.Ports) > 0 || len(attached) > 0 {
		t.Errorf("left in the kernel: ports %v, attached %v", rows.Ports, attached)
	}
	for k, r := range rows.Records {
		if r.IfIndex != 0 {
			t.Errorf("record %v still leads to device %d", k, r.IfIndex)
		}
	}
}

func (h *hostMachine) toggle(ns string, id int, plugged bool) {
	name := fmt.Sprintf("p%d", id)
	var err error
	if plugged {
		_, err = h.client.Unplug(h.t.Context(), connect.NewRequest(&weftv1.UnplugRequest{Tenant: "red", Port: name}))
	} else {
		_, err = h.client.Plug(h.t.Context(), connect.NewRequest(&weftv1.PlugRequest{Tenant: "red", Port: name, Netns: ns, Ifname: fmt.Sprintf("eth%d", id)}))
	}
	if err != nil {
		h.t.Errorf("%s, plugged %v: %v", name, plugged, err)
	}
}

// Every wrong plug is refused in words, and changes nothing.
func TestWrongPlugs(t *testing.T) {
	w := newWorld(t, "h1", "h2")
	h := w.hosts["h1"]
	w.fleet.change(func() {
		w.fleet.addPort("web-1", 1, "h1")
		w.fleet.addPort("web-2", 2, "h2")
		w.fleet.addPort("web-3", 3, "h1")
		w.fleet.addPort("web-4", 4, "")
	})
	h.synced()
	w.run(h.ns, "ip link add tap7 type veth peer name far7", "ip tuntap add tun7 mode tun")
	h.plug("web-1")
	_, err := h.client.Plug(t.Context(), connect.NewRequest(&weftv1.PlugRequest{Tenant: "red", Port: "web-3", Device: "tap7"}))
	must(t, err)
	ns := w.namespace("g")
	before, plugs := h.links(), h.plugs()

	check := func(r *weftv1.PlugRequest, code connect.Code, words string) {
		t.Helper()
		r.Tenant = "red"
		_, err := h.client.Plug(t.Context(), connect.NewRequest(r))
		if connect.CodeOf(err) != code || !strings.Contains(fmt.Sprint(err), words) {
			t.Errorf("%v: %v; want code %v and %q", r, err, code, words)
		}
		if after := h.links(); !slices.Equal(after, before) {
			t.Errorf("%v: devices before %v, after %v", r, before, after)
		}
		if after := h.plugs(); after != plugs {
			t.Errorf("%v: plugs before %s, after %s", r, plugs, after)
		}
	}
	check(&weftv1.PlugRequest{Port: "web-4"}, connect.CodeInvalidArgument, "either device or netns")
	check(&weftv1.PlugRequest{Port: "web-4", Device: "tap7", Netns: ns}, connect.CodeInvalidArgument, "either device or netns")
	check(&weftv1.PlugRequest{Port: "web-4", Device: "nosuch"}, connect.CodeNotFound, "device nosuch: no such device")
	check(&weftv1.PlugRequest{Port: "web-4", Netns: "nosuch"}, connect.CodeNotFound, "no such network namespace")
	check(&weftv1.PlugRequest{Port: "web-4", Netns: ns, Ifname: "lo"}, connect.CodeAlreadyExists, "exists")
	check(&weftv1.PlugRequest{Port: "web-4", Device: "tap7"}, connect.CodeAlreadyExists, "red/web-3 is on tap7")
	check(&weftv1.PlugRequest{Port: "web-4", Device: "lo"}, connect.CodeFailedPrecondition, "only taps and veths")
	check(&weftv1.PlugRequest{Port: "web-4", Device: "tun7"}, connect.CodeFailedPrecondition, "make it a tap")
	check(&weftv1.PlugRequest{Port: "web-4", Netns: strings.Repeat("x", maxRequest)}, connect.CodeResourceExhausted, "max")
	check(&weftv1.PlugRequest{Port: "web-4", Device: "eth0"}, connect.CodeFailedPrecondition, "leads to the other hosts")
	check(&weftv1.PlugRequest{Port: "web-1", Netns: ns}, connect.CodeAlreadyExists, "unplug it first")
	check(&weftv1.PlugRequest{Port: "web-2", Netns: ns}, connect.CodeFailedPrecondition, "is on host h2")
	check(&weftv1.PlugRequest{Port: "web-9", Netns: ns}, connect.CodeNotFound, "no port red/web-9")
	w.fleet.until("failed plugs have given web-4 back", func() bool {
		for ref, p := range w.fleet.ports {
			if ref.Name == "web-4" {
				return p.host == ""
			}
		}
		return false
	})

	w.fleet.stop()
	h.poll("the agent knows that the server is gone", func() bool { return !h.status().GetConnected() })
	check(&weftv1.PlugRequest{Port: "web-4", Netns: ns}, connect.CodeUnavailable, "server is unreachable")
	// What policy placed here can still be plugged.
	h.unplug("web-1")
	h.plug("web-1").ping(addr(gatewayV4))
	w.run(h.ns, "ip link del tap7", "ip link del tun7")
}

func (h *hostMachine) plugs() string {
	h.t.Helper()
	l, err := h.client.ListPlugs(h.t.Context(), connect.NewRequest(&weftv1.ListPlugsRequest{}))
	must(h.t, err)
	var out []string
	for _, p := range l.Msg.GetPlugs() {
		out = append(out, fmt.Sprint(p.GetPort(), " on ", p.GetDevice(), " ", p.GetPresent(), " ", p.GetState()))
	}
	return strings.Join(out, "; ")
}

// A device that a VM manager deletes and makes again is attached again.
func TestDeviceComesBack(t *testing.T) {
	w, g1, g2 := pairOfGuests(t)
	h := w.hosts["h1"]
	w.fleet.change(func() { w.fleet.addPort("web-3", 3, "h1") })
	ns := w.namespace("g")
	make3 := func() {
		w.run(h.ns, "ip link add tap3 type veth peer name eth0 netns "+ns)
		w.run(ns, "ip link set eth0 address 02:00:00:01:00:03 mtu 1458 up", "ip addr add 10.0.1.3/16 dev eth0")
	}
	make3()
	_, err := h.client.Plug(t.Context(), connect.NewRequest(&weftv1.PlugRequest{Tenant: "red", Port: "web-3", Device: "tap3"}))
	must(t, err)
	g3 := &guest{world: w, ns: ns}
	s := newStream(g1, g2) // which nobody may disturb
	for range 3 {
		g3.ping(g2.address(true))
		w.run(h.ns, "ip link del tap3")
		h.poll("the device is missed", func() bool { return strings.Contains(h.plugs(), "web-3 on tap3 false device absent") })
		h.verified()
		make3()
		h.poll("the device is found", func() bool { return strings.Contains(h.plugs(), "web-3 on tap3 true programmed") })
		h.verified()
	}
	g3.ping(g2.address(true))
	s.Finish()
	h.unplug("web-3")
	if !strings.Contains(w.run(h.ns, "ip -br link show tap3"), "DOWN") {
		t.Error("an unplugged device is left up, with the switch off it")
	}
	w.run(h.ns, "ip link del tap3")
}

// The agent must find devices that were recreated while it was dead.
func TestDeviceComesBackWhileNobodyLooks(t *testing.T) {
	w := newWorld(t, "h1")
	h := w.hosts["h1"]
	w.fleet.change(func() { w.fleet.addPort("web-1", 1, "h1") })
	h.synced()
	ns := w.namespace("g")
	make1 := func() {
		w.run(h.ns, "ip link add tap1 type veth peer name eth0 netns "+ns)
		w.run(ns, "ip link set eth0 address 02:00:00:01:00:01 mtu 1458 up", "ip addr add 10.0.1.1/16 dev eth0")
	}
	make1()
	_, err := h.client.Plug(t.Context(), connect.NewRequest(&weftv1.PlugRequest{Tenant: "red", Port: "web-1", Device: "tap1"}))
	must(t, err)
	h.end(syscall.SIGKILL)
	w.fleet.stop() // so that nothing is swept for the server's sake
	w.run(h.ns, "ip link del tap1")
	make1()
	h.start()
	h.poll("the device is found", func() bool { return strings.Contains(h.plugs(), "web-1 on tap1 true programmed") })
	(&guest{world: w, ns: ns}).ping(addr(gatewayV4))
	h.end(syscall.SIGTERM)
	rows, attached := h.kernel()
	if len(rows.Ports) != 1 || len(attached) != 1 {
		t.Errorf("rows of ports %v, attached %v; want one of each", rows.Ports, attached)
	}
	h.start()
	h.unplug("web-1")
	w.run(h.ns, "ip link del tap1")
}

// An agent of a name that is taken is refused, and disturbs nobody.
func TestSecondAgentOfOneName(t *testing.T) {
	w, g1, g2 := pairOfGuests(t)
	impostor := w.addHost("h3", 3)
	real := w.hosts["h1"]
	must(t, os.MkdirAll(filepath.Join(impostor.dir, "state"), 0o700))
	for _, f := range []string{"host.pem", "ca.pem"} {
		b, err := os.ReadFile(filepath.Join(real.dir, "state", f))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(impostor.dir, "state", f), b, 0o600))
	}
	s := newStream(g1, g2)
	must(t, os.Remove(filepath.Join(impostor.dir, "token")))
	impostor.known = "h1"
	impostor.start()
	impostor.poll("the second agent says that it is refused", func() bool {
		return strings.Contains(strings.Join(impostor.status().GetFailures(), "\n"), "an agent of host h1 is connected already")
	})
	if st := impostor.status(); st.GetConnected() || st.GetPorts() != 0 {
		t.Errorf("the second agent got %v", st)
	}
	if !real.status().GetConnected() {
		t.Error("the first agent lost its session")
	}
	s.Finish()
}

// A Goal that does not fit is refused as a whole, with a condition; what is
// there keeps forwarding; and when policy shrinks again all is well.
func TestFullMap(t *testing.T) {
	w, g1, g2 := pairOfGuests(t)
	h := w.hosts["h1"]
	h.end(syscall.SIGTERM)
	h.extra = "limits: {records: 64}\n"
	h.synced()
	s := newStream(g1, g2)
	w.fleet.change(func() {
		for id := 100; id < 150; id++ {
			w.fleet.addPort(fmt.Sprintf("x%d", id), id, "h2")
		}
		w.fleet.addPort("web-3", 3, "h1")
	})
	w.fleet.until("h1 says that its table is full", func() bool {
		for _, f := range w.fleet.sessions["h1"].ack.GetFailures() {
			if f.GetReason() == reasonTableFull && f.GetKind() == "Host" && strings.Contains(f.GetMessage(), "records") {
				return true
			}
		}
		return false
	})
	_, err := h.client.Plug(t.Context(), connect.NewRequest(&weftv1.PlugRequest{Tenant: "red", Port: "web-3", Netns: w.namespace("g")}))
	if connect.CodeOf(err) != connect.CodeFailedPrecondition || !strings.Contains(err.Error(), "records") {
		t.Errorf("a plug that cannot be programmed: %v", err)
	}
	if links := h.links(); !slices.Equal(links, []string{"eth0", "lo", "wfp1"}) {
		t.Errorf("devices: %v", links)
	}
	s.More(500)
	revision := w.fleet.change(func() {
		for ref := range w.fleet.ports {
			if strings.HasPrefix(ref.Name, "x") {
				delete(w.fleet.ports, ref)
			}
		}
	})
	w.fleet.programmed("h1", revision)
	h.plug("web-3").ping(g2.address(true))
	s.Finish()
	h.verified()
}

// What the guests do is seen in drops and metrics.
func TestDropsAndMetricsTell(t *testing.T) {
	w, g1, g2 := pairOfGuests(t)
	h := w.hosts["h1"]
	g1.ping(g2.address(true))
	// An address that is not the port's: SPOOFED_CA.
	w.run(g1.ns, "ip addr add 10.0.9.9/32 dev lo", "ping -n -c3 -i0.002 -W1 -I 10.0.9.9 "+g2.address(true).String()+" || true")
	h.poll("the drops are told", func() bool {
		d, err := h.client.LocalDrops(t.Context(), connect.NewRequest(&weftv1.LocalDropsRequest{}))
		must(t, err)
		for _, row := range d.Msg.GetDrops() {
			if row.GetReasonName() == "SPOOFED_CA" {
				return row.GetPort() == "red/web-1" && row.GetPackets() == 3 && row.GetDirection() == "outbound" &&
					row.GetLast() == "10.0.9.9 > "+g2.address(true).String()+" icmp type 8 code 0, 98 bytes"
			}
		}
		return false
	})
	text := w.run(h.ns, "curl -sf http://127.0.0.1:9467/metrics")
	for _, want := range []string{
		`weft_drops_total{direction="outbound",port="web-1",reason="spoofed_ca",tenant="red"} 3`,
		`weft_agent_connected 1`, fmt.Sprintf("weft_agent_revision %d", w.fleet.now()),
		`weft_table_rows{table="ports"} 1`, `weft_table_limit{table="records"} 262144`,
		`weft_port_packets_total{direction="outbound",port="web-1",tenant="red"}`, "weft_agent_reconcile_seconds_count",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

// A real tap, as a VM manager makes it: adopted, never created, never deleted.
func TestTapIsAdopted(t *testing.T) {
	w := newWorld(t, "h1")
	h := w.hosts["h1"]
	w.fleet.change(func() { w.fleet.addPort("web-1", 1, "h1") })
	h.synced()
	w.run(h.ns, "ip tuntap add tap0 mode tap vnet_hdr")
	got, err := h.client.Plug(t.Context(), connect.NewRequest(&weftv1.PlugRequest{Tenant: "red", Port: "web-1", Device: "tap0"}))
	must(t, err)
	if got.Msg.GetDevice() != "tap0" || !slices.Equal(got.Msg.GetAddresses(), []string{"10.0.1.1/16", "fd00:a::1:1/64"}) {
		t.Errorf("the VM manager was told %v", got.Msg)
	}
	if link := w.run(h.ns, "ip link show tap0"); !strings.Contains(link, "NOARP") || !strings.Contains(link, ",UP") || !strings.Contains(link, "mtu 1458 ") {
		t.Errorf("the tap is not ready:\n%s", link)
	}
	h.verified()
	h.unplug("web-1")
	// The pair of the detour for taps stays until cleanup.
	links := slices.DeleteFunc(h.links(), func(name string) bool { return strings.HasPrefix(name, "weft-dx") })
	if !slices.Equal(links, []string{"eth0", "lo", "tap0"}) {
		t.Errorf("devices after unplug: %v", links)
	}
	w.run(h.ns, "ip link del tap0")
}

// Killed anywhere in the middle of a plug, an agent leaves either the whole of it
// or nothing: what ListPlugs names works, and there is no other device.
func TestKilledWhilePlugging(t *testing.T) {
	w := newWorld(t, "h1")
	h := w.hosts["h1"]
	const ports = 24
	w.fleet.change(func() {
		for id := 1; id <= ports; id++ {
			w.fleet.addPort(fmt.Sprintf("p%d", id), id, "")
		}
	})
	ns := w.namespace("g")
	random := rand.New(rand.NewPCG(2, 2))
	for round := range 8 {
		h.synced()
		ended := make(chan struct{})
		plugged := make(chan struct{}, ports)
		go func() {
			defer close(ended)
			for id := 1; id <= ports; id++ {
				_, err := h.client.Plug(t.Context(), connect.NewRequest(&weftv1.PlugRequest{Tenant: "red",
					Port: fmt.Sprintf("p%d", id), Netns: ns, Ifname: fmt.Sprintf("eth%d", id)}))
				plugged <- struct{}{}
				if connect.CodeOf(err) == connect.CodeUnavailable {
					return
				}
			}
		}()
		for range 1 + random.IntN(4) {
			<-plugged
		}
		w.spin(random.IntN(250000))
		h.end(syscall.SIGKILL)
		<-ended

		h.synced()
		h.verified()
		want := []string{"eth0", "lo"}
		l, err := h.client.ListPlugs(t.Context(), connect.NewRequest(&weftv1.ListPlugsRequest{}))
		must(t, err)
		for _, p := range l.Msg.GetPlugs() {
			if !p.GetPresent() || p.GetState() != "programmed" {
				t.Errorf("round %d: %v", round, p)
			}
			want = append(want, p.GetDevice())
		}
		slices.Sort(want)
		if got := h.links(); !slices.Equal(got, want) {
			t.Errorf("round %d: devices %v, want %v", round, got, want)
		}
		for _, p := range l.Msg.GetPlugs() {
			h.unplug(p.GetPort())
		}
		w.fleet.until("every port is free again", func() bool {
			for _, p := range w.fleet.ports {
				if p.host != "" {
					return false
				}
			}
			return true
		})
		t.Logf("round %d: %d plugs survived", round, len(l.Msg.GetPlugs()))
		h.end(syscall.SIGTERM)
	}
}

// Undoing a half plug writes the plugs down, and an agent may be killed right after that:
// the others must be in the file.
func TestUndoingAPlugForgetsNoOther(t *testing.T) {
	w := newWorld(t, "h1")
	h := w.hosts["h1"]
	w.fleet.change(func() { w.fleet.addPort("web-1", 1, "h1") })
	h.synced()
	g := h.plug("web-1")
	h.end(syscall.SIGKILL)
	w.fleet.stop() // with a server the plugs would be written again
	path := filepath.Join(h.dir, "state", plugsFile)
	text, err := os.ReadFile(path)
	must(t, err)
	const half = `"plugs": [{"tenant": "red", "port": "half", "device": "wfp9", "created": true, "pending": true},`
	must(t, os.WriteFile(path, []byte(strings.Replace(string(text), `"plugs": [`, half, 1)), 0o600))
	for range 2 {
		h.start()
		if got := h.plugs(); got != "web-1 on wfp1 true programmed" {
			t.Errorf("plugs: %s", got)
		}
		h.end(syscall.SIGKILL)
	}
	h.start()
	g.ping(addr(gatewayV4))
}

// spin passes some time, a fraction of a microsecond per turn, in which the agent works.
func (w *world) spin(turns int) {
	for range turns {
		w.fleet.now()
		runtime.Gosched()
	}
}

// A port that policy takes away while its device is plugged: the guest is cut
// off, the switch stays on the device, and unplug still works.
func TestPolicyGoesBeforeTheDevice(t *testing.T) {
	w := newWorld(t, "h1")
	h := w.hosts["h1"]
	w.fleet.change(func() { w.fleet.addPort("web-1", 1, "h1") })
	h.synced()
	ns := w.namespace("g")
	w.run(h.ns, "ip link add tap1 type veth peer name eth0 netns "+ns)
	w.run(ns, "ip link set eth0 address 02:00:00:01:00:01 mtu 1458 up", "ip addr add 10.0.1.1/16 dev eth0")
	_, err := h.client.Plug(t.Context(), connect.NewRequest(&weftv1.PlugRequest{Tenant: "red", Port: "web-1", Device: "tap1"}))
	must(t, err)
	(&guest{world: w, ns: ns}).ping(addr(gatewayV4))
	revision := w.fleet.change(func() { clear(w.fleet.ports) })
	w.fleet.programmed("h1", revision)
	if got := h.plugs(); got != "web-1 on tap1 true no policy for this port on this host" {
		t.Errorf("plugs: %s", got)
	}
	w.run(ns, "ping -n -c1 -W1 "+gatewayV4+" && exit 1 || true")
	h.poll("the guest's frames are dropped for want of a port", func() bool { return h.dropped("PORT_UNKNOWN") > 0 })
	h.verified()
	h.unplug("web-1")
	w.run(h.ns, "ip link show tap1 | grep -q DOWN")
	h.end(syscall.SIGTERM)
	if rows, attached := h.kernel(); len(rows.Ports) > 0 || len(attached) > 0 {
		t.Errorf("left: rows %v, attached %v", rows.Ports, attached)
	}
	w.run(h.ns, "ip link del tap1")
}

// A port whose policy changed with its binding is plugged as that policy says, not as
// this host remembers it.
func TestPlugWaitsForTheRevisionOfItsBinding(t *testing.T) {
	w := newWorld(t, "h1")
	h := w.hosts["h1"]
	w.fleet.change(func() { w.fleet.addPort("web-1", 1, "h1") })
	h.synced()
	w.fleet.hold(true)
	w.fleet.change(func() { // another address, and h1 must ask for it again
		w.fleet.addPort("web-1", 1, "")
		w.fleet.ports[model.Ref{Tenant: "red", Name: "web-1"}].port.CAs = []netip.Addr{netip.MustParseAddr("10.0.9.9")}
	})
	done := make(chan *guest)
	go func() { done <- h.plug("web-1") }()
	w.fleet.until("h1 has bound the port", func() bool { return w.fleet.ports[model.Ref{Tenant: "red", Name: "web-1"}].host == "h1" })
	select {
	case g := <-done:
		t.Fatalf("the plug was done before its policy had come: %v", g.got)
	case <-time.After(300 * time.Millisecond):
	}
	w.fleet.hold(false)
	g := <-done
	if got := g.got.GetAddresses(); !slices.Equal(got, []string{"10.0.9.9/16"}) {
		t.Errorf("the guest has %v", got)
	}
	h.verified()
}

// Cleanup asks the kernel what the switch is on: a damaged plugs file hides no tap.
func TestCleanupWithDamagedPlugs(t *testing.T) {
	w := newWorld(t, "h1")
	h := w.hosts["h1"]
	w.fleet.change(func() { w.fleet.addPort("web-1", 1, "h1") })
	h.synced()
	w.run(h.ns, "ip tuntap add tap0 mode tap vnet_hdr")
	_, err := h.client.Plug(t.Context(), connect.NewRequest(&weftv1.PlugRequest{Tenant: "red", Port: "web-1", Device: "tap0"}))
	must(t, err)
	h.end(syscall.SIGTERM)
	must(t, os.WriteFile(filepath.Join(h.dir, "state", plugsFile), []byte("{"), 0o600))
	h.inside(h.ns, func() error { return Cleanup(h.config()) })
	if link := h.run(h.ns, "ip link show tap0"); strings.Contains(link, ",UP") {
		t.Errorf("the tap is still up:\n%s", link)
	}
	if programs := h.run(h.ns, "bpftool net show dev tap0"); strings.Contains(programs, "from_port") {
		t.Errorf("a program of ours is still on the tap:\n%s", programs)
	}
	w.run(h.ns, "ip link del tap0")
}
