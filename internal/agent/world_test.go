package agent

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sys/unix"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/api/weft/v1/weftv1connect"
)

// The test binary is also the agent that the tests run, so that it can be killed.
const agentEnv = "WEFT_TEST_AGENT_CONFIG"

func TestMain(m *testing.M) {
	if path := os.Getenv(agentEnv); path != "" {
		os.Exit(agentMain(path))
	}
	os.Exit(m.Run())
}

func agentMain(path string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cfg, err := LoadConfig(path)
	if err == nil {
		err = Run(ctx, cfg, slog.New(slog.NewTextHandler(os.Stderr, nil)))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// world is a routed underlay in namespaces: a router with one leg to each host,
// on which the server listens as well.
type world struct {
	t      *testing.T
	dir    string
	bpffs  string
	router string
	fleet  *fleet
	hosts  map[string]*hostMachine
	nextNS int
}

var worlds atomic.Int32

func newWorld(t *testing.T, hosts ...string) *world {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("needs root")
	}
	w := &world{t: t, dir: t.TempDir(), hosts: map[string]*hostMachine{}}
	w.bpffs = filepath.Join(w.dir, "bpf")
	must(t, os.Mkdir(w.bpffs, 0o700))
	must(t, unix.Mount("bpf", w.bpffs, "bpf", 0, "mode=0700"))
	t.Cleanup(func() { must(t, unix.Unmount(w.bpffs, unix.MNT_DETACH)) })
	w.router = w.namespace("r")
	w.run(w.router, "sysctl -qw net.ipv4.ip_forward=1")
	w.fleet = newFleet(t)
	w.fleet.start(w.listen())
	t.Cleanup(func() { w.fleet.http.Close() })
	for i, name := range hosts {
		w.addHost(name, i+1)
	}
	return w
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// namespace makes one that dies with the test.
func (w *world) namespace(kind string) string {
	w.t.Helper()
	w.nextNS++
	name := fmt.Sprintf("wa-%d-%d-%s%d", os.Getpid(), worlds.Add(1), kind, w.nextNS)
	w.shell("ip netns add " + name)
	w.t.Cleanup(func() { w.shell("ip netns del " + name) })
	w.run(name, "ip link set lo up")
	return name
}

// shell runs a command line that must succeed.
func (w *world) shell(line string) string {
	w.t.Helper()
	out, err := exec.Command("sh", "-c", line).CombinedOutput()
	if err != nil {
		w.t.Fatalf("%s: %v\n%s", line, err, out)
	}
	return string(out)
}

// run runs command lines inside a namespace.
func (w *world) run(ns string, lines ...string) string {
	w.t.Helper()
	return w.shell(fmt.Sprintf("nsenter --net=/run/netns/%s sh -ec '%s'", ns, strings.Join(lines, "\n")))
}

// inside calls f with the thread in a namespace.
func (w *world) inside(ns string, f func() error) {
	w.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends here, with its namespace
		handle, err := os.Open("/run/netns/" + ns)
		if err == nil {
			err = unix.Setns(int(handle.Fd()), unix.CLONE_NEWNET)
			handle.Close()
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	must(w.t, <-done)
}

func (w *world) listen() (l net.Listener) {
	w.t.Helper()
	w.inside(w.router, func() (err error) {
		l, err = net.Listen("tcp", ":7443")
		return err
	})
	return l
}

// hostMachine is one hypervisor: a namespace, an agent's files, perhaps an agent.
type hostMachine struct {
	*world
	name   string
	known  string // as the agent calls its host; the name but for impostors
	ns     string
	pa     netip.Addr
	dir    string
	binary string
	extra  string // configuration beyond the usual
	agent  *exec.Cmd
	ended  chan struct{}
	client weftv1connect.AgentServiceClient
}

func (w *world) addHost(name string, number int) *hostMachine {
	w.t.Helper()
	h := &hostMachine{world: w, name: name, known: name, ns: w.namespace(name), binary: must1(w.t)(os.Executable()),
		pa: netip.AddrFrom4([4]byte{192, 0, 2, byte(number*4 + 2)}), dir: filepath.Join(w.dir, name)}
	gw := h.pa.Prev()
	leg := fmt.Sprintf("%s-%d", name, number)
	w.shell(fmt.Sprintf("ip link add eth0 netns %s type veth peer name %s netns %s", h.ns, leg, w.router))
	w.run(w.router, fmt.Sprintf("ip addr add %s/30 dev %s", gw, leg), fmt.Sprintf("ip link set %s up", leg))
	w.run(h.ns, fmt.Sprintf("ip addr add %s/30 dev eth0", h.pa), "ip link set eth0 up", fmt.Sprintf("ip route add default via %s", gw))
	must(w.t, os.MkdirAll(h.dir, 0o700))
	must(w.t, os.WriteFile(filepath.Join(h.dir, "token"), []byte(w.fleet.token(name)), 0o600))
	w.fleet.change(func() { w.fleet.pas[name] = h.pa })
	socket := filepath.Join(h.dir, "agent.sock")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}, DisableKeepAlives: true}
	h.client = weftv1connect.NewAgentServiceClient(&http.Client{Transport: transport}, "http://agent")
	w.hosts[name] = h
	w.t.Cleanup(h.gone)
	return h
}

func must1(t *testing.T) func(string, error) string {
	return func(v string, err error) string {
		t.Helper()
		must(t, err)
		return v
	}
}

func (h *hostMachine) config() Config {
	cfg, err := ParseConfig([]byte(h.configText()))
	must(h.t, err)
	return cfg
}

func (h *hostMachine) pinDir() string { return filepath.Join(h.bpffs, h.name) }

func (h *hostMachine) configText() string {
	return fmt.Sprintf("host: %s\nserver: https://%s:7443\ntokenFile: %s/token\nstateDir: %s/state\nsocket: %s/agent.sock\npinDir: %s\nmetrics: 127.0.0.1:9467\n%s",
		h.known, h.pa.Prev(), h.dir, h.dir, h.dir, h.pinDir(), h.extra)
}

// start runs an agent process and waits for its socket.
func (h *hostMachine) start() {
	h.t.Helper()
	path := filepath.Join(h.dir, "agent.yaml")
	must(h.t, os.WriteFile(path, []byte(h.configText()), 0o600))
	h.agent = exec.Command("nsenter", "--net=/run/netns/"+h.ns, h.binary)
	h.agent.Env = append(os.Environ(), agentEnv+"="+path)
	log, err := os.OpenFile(filepath.Join(h.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(h.t, err)
	h.agent.Stdout, h.agent.Stderr = log, log
	must(h.t, h.agent.Start())
	log.Close()
	ended := make(chan struct{})
	h.ended = ended
	go func(c *exec.Cmd) { c.Wait(); close(ended) }(h.agent)
	h.poll("the agent of "+h.name+" answers", func() bool {
		select {
		case <-ended:
			h.t.Fatalf("the agent of %s ended", h.name)
		default:
		}
		_, err := h.client.AgentStatus(h.t.Context(), connect.NewRequest(&weftv1.AgentStatusRequest{}))
		return err == nil
	})
}

// synced starts the agent and waits until it holds the present policy.
func (h *hostMachine) synced() {
	h.t.Helper()
	h.start()
	h.fleet.programmed(h.name, h.fleet.now())
}

func (f *fleet) now() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.revision
}

// end stops the agent process with a signal and waits for its death.
func (h *hostMachine) end(signal syscall.Signal) {
	h.t.Helper()
	must(h.t, h.agent.Process.Signal(signal))
	<-h.ended
	h.agent = nil
}

// gone is the end of a host in a test: nothing may be left in it.
func (h *hostMachine) gone() {
	if h.agent != nil {
		h.agent.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		<-h.ended
	}
	log, _ := os.ReadFile(filepath.Join(h.dir, "log"))
	for _, bad := range []string{"panic:", "DATA RACE", "fatal error:"} {
		if strings.Contains(string(log), bad) {
			h.t.Errorf("%s: the agent's log has %q", h.name, bad)
		}
	}
	if h.t.Failed() {
		h.t.Logf("log of %s:\n%s", h.name, log)
	}
	h.inside(h.ns, func() error { return Cleanup(h.config()) })
	if _, err := os.Stat(h.pinDir()); !os.IsNotExist(err) {
		h.t.Errorf("%s: pins are left after cleanup: %v", h.name, err)
	}
	if links := h.links(); !slices.Equal(links, []string{"eth0", "lo"}) && !h.t.Failed() {
		h.t.Errorf("%s: devices are left after cleanup: %v", h.name, links)
	}
	if n := h.run(h.ns, "ip -d neigh show"); strings.Contains(n, "managed") {
		h.t.Errorf("%s: neighbours are left after cleanup:\n%s", h.name, n)
	}
}

func (h *hostMachine) links() []string {
	var names []string
	for _, line := range strings.Split(strings.TrimSpace(h.run(h.ns, "ip -br link")), "\n") {
		name, _, _ := strings.Cut(strings.Fields(line)[0], "@")
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// poll waits for a condition that nothing announces.
func (w *world) poll(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			w.t.Fatalf("timed out waiting until %s", what)
		}
		<-tick.C
	}
}

// guest is a namespace with one NIC plugged into a port.
type guest struct {
	*world
	ns   string
	host *hostMachine
	port string
	got  *weftv1.PlugResponse
}

// plug puts a port of tenant red into a fresh namespace.
func (h *hostMachine) plug(port string) *guest {
	h.t.Helper()
	g := &guest{world: h.world, ns: h.namespace("g"), host: h, port: port}
	got, err := h.client.Plug(h.t.Context(), connect.NewRequest(&weftv1.PlugRequest{Tenant: "red", Port: port, Netns: g.ns}))
	if err != nil {
		h.t.Fatalf("plug %s: %v", port, err)
	}
	g.got = got.Msg
	return g
}

func (h *hostMachine) unplug(port string) {
	h.t.Helper()
	_, err := h.client.Unplug(h.t.Context(), connect.NewRequest(&weftv1.UnplugRequest{Tenant: "red", Port: port}))
	if err != nil {
		h.t.Fatalf("unplug %s: %v", port, err)
	}
}

// counter reads a statistic of a device.
func (h *hostMachine) counter(device, name string) (n uint64) {
	h.t.Helper()
	var stats []struct {
		Stats64 map[string]map[string]uint64 `json:"stats64"`
	}
	must(h.t, json.Unmarshal([]byte(h.run(h.ns, "ip -j -s link show "+device)), &stats))
	side, what, _ := strings.Cut(name, "_")
	return stats[0].Stats64[side][what]
}

// dropped counts the drops of a reason.
func (h *hostMachine) dropped(reason string) (n uint64) {
	h.t.Helper()
	d, err := h.client.LocalDrops(h.t.Context(), connect.NewRequest(&weftv1.LocalDropsRequest{}))
	must(h.t, err)
	for _, row := range d.Msg.GetDrops() {
		if row.GetReasonName() == reason {
			n += row.GetPackets()
		}
	}
	return n
}

func (h *hostMachine) status() *weftv1.AgentStatusResponse {
	h.t.Helper()
	s, err := h.client.AgentStatus(h.t.Context(), connect.NewRequest(&weftv1.AgentStatusRequest{}))
	must(h.t, err)
	return s.Msg
}

func (h *hostMachine) verified() {
	h.t.Helper()
	v, err := h.client.LocalVerify(h.t.Context(), connect.NewRequest(&weftv1.LocalVerifyRequest{}))
	must(h.t, err)
	if len(v.Msg.GetDifferences()) > 0 {
		h.t.Errorf("%s: the kernel differs from policy:\n%s", h.name, strings.Join(v.Msg.GetDifferences(), "\n"))
	}
}

// address of the guest, of one family.
func (g *guest) address(v4 bool) netip.Addr {
	g.t.Helper()
	for _, a := range g.got.GetAddresses() {
		if p := netip.MustParsePrefix(a); p.Addr().Is4() == v4 {
			return p.Addr()
		}
	}
	g.t.Fatalf("%s has no such address in %v", g.port, g.got)
	return netip.Addr{}
}

// pings tries one ping.
func (g *guest) pings(to *guest) bool {
	g.t.Helper()
	return strings.Contains(g.run(g.ns, fmt.Sprintf("ping -n -c1 -W1 %s || true", to.address(true))), " 0% packet loss")
}

func (g *guest) ping(to netip.Addr) {
	g.t.Helper()
	g.run(g.ns, fmt.Sprintf("ping -n -c1 -W2 %s", to))
}
