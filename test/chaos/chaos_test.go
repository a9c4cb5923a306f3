package chaos

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/lab"
	"github.com/weft-sdn/weft/test/fleet"
)

func TestMain(m *testing.M) { fleet.Main(m) }

// between is how many datagrams must pass on every stream after each thing that is done, and after how many once all is.
const (
	between = 500
	after   = 1000
)

// world is the demo's, with policy in an etcd process of its own.
type world struct {
	*fleet.Fleet
	t     *testing.T
	extra int // ports made so far to see that policy is followed
}

func newWorld(t *testing.T, suffix string) *world {
	t.Helper()
	spec, err := lab.LoadSpec(filepath.Join(fleet.Root(), "examples/demo-lab.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Fleet: fleet.New(t, suffix, fleet.Options{Spec: spec, ExternalEtcd: true}), t: t}
	if status := w.Must("status"); !strings.Contains(status, "etcd.sock") {
		t.Fatalf("the server's store is not the etcd outside:\n%s", status)
	}
	return w
}

func pair(a, a4, a6, b, b4, b6 string) fleet.Pair {
	ip := netip.MustParseAddr
	return fleet.Pair{A: a, B: b, A4: ip(a4), A6: ip(a6), B4: ip(b4), B6: ip(b6)}
}

// pairs: one subnet across hosts, two subnets across hosts, one subnet on one
// host; and the other tenant, with the same addresses, at the same time.
var pairs = []fleet.Pair{
	pair("red/web-1", "10.0.0.5", "fd00:a::5", "red/web-2", "10.0.0.6", "fd00:a::6"),
	pair("red/web-1", "10.0.0.5", "fd00:a::5", "red/db-1", "10.0.1.5", "fd00:b::5"),
	pair("red/web-1", "10.0.0.5", "fd00:a::5", "red/web-3", "10.0.0.7", "fd00:a::7"),
	pair("blue/web-1", "10.0.0.5", "fd00:a::5", "blue/db-1", "10.0.1.5", "fd00:b::5"),
}

// event is something that happens to a fleet whose packets must not notice. It
// calls pass after each thing that it has done.
type event struct {
	name string
	do   func(w *world, pass func())
}

var events = []event{
	{"agents killed", func(w *world, pass func()) {
		for _, h := range w.Hosts() {
			w.Kill(h, syscall.SIGKILL)
			pass()
		}
		for _, h := range w.Hosts() {
			w.Start(h)
			pass()
		}
	}},
	{"agents stopped in order", func(w *world, pass func()) {
		for _, h := range w.Hosts() {
			w.Kill(h, syscall.SIGTERM)
			pass()
			w.Start(h)
			pass()
		}
	}},
	{"agents replaced by another build", func(w *world, pass func()) {
		next := w.nextBuild()
		for _, h := range w.Hosts() {
			before := w.programs(h)
			w.Replace(h, next)
			w.Kill(h, syscall.SIGTERM)
			w.Start(h)
			pass()
			w.Connected()
			w.replaced(h, before)
		}
	}},
	{"server killed", func(w *world, pass func()) {
		w.Kill(fleet.Server, syscall.SIGKILL)
		pass()
		w.Start(fleet.Server)
		pass()
		w.Connected()
		pass()
	}},
	{"etcd killed", func(w *world, pass func()) {
		w.Kill(fleet.Etcd, syscall.SIGKILL)
		pass()
		w.refusesChanges()
		pass()
		w.Start(fleet.Etcd)
		pass()
	}},
	{"all killed but the kernel", func(w *world, pass func()) {
		for _, d := range append([]string{fleet.Etcd}, w.Daemons()...) {
			w.Kill(d, syscall.SIGKILL)
		}
		pass()
		// The hosts come back first, and know only what they kept.
		for _, h := range w.Hosts() {
			w.Start(h)
		}
		pass()
		w.Start(fleet.Etcd)
		w.Start(fleet.Server)
		pass()
	}},
}

// Whatever dies, 1,000 packets a second per stream keep flowing and none is
// lost; afterwards every kernel holds what policy says, and policy goes on.
func TestNothingIsLost(t *testing.T) {
	w := newWorld(t, "")
	for _, e := range events {
		t.Run(e.name, func(t *testing.T) { w.suffer(t, e) })
	}
}

// For WEFT_CHAOS_TIME, everything dies in random order, and several at a time.
func TestLong(t *testing.T) {
	span, err := time.ParseDuration(os.Getenv("WEFT_CHAOS_TIME"))
	if err != nil {
		t.Skip("set WEFT_CHAOS_TIME to a duration, or run make chaos")
	}
	w := newWorld(t, "l")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for end := time.Now().Add(span); time.Now().Before(end) && !t.Failed(); {
		w.suffer(t, w.anything(random))
	}
}

// anything kills a random set of daemons and brings them back in random order.
func (w *world) anything(random *rand.Rand) event {
	all := append([]string{fleet.Etcd}, w.Daemons()...)
	random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	some := all[:1+random.IntN(len(all))]
	how := make([]syscall.Signal, len(some))
	for i, d := range some {
		how[i] = syscall.SIGKILL
		if random.IntN(3) == 0 && d != fleet.Etcd {
			how[i] = syscall.SIGTERM
		}
	}
	return event{fmt.Sprintf("%v by %v", some, how), func(w *world, pass func()) {
		for i, d := range some {
			w.Kill(d, how[i])
			pass()
		}
		random.Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
		// A server without its store answers nobody: etcd first, if both are gone.
		for _, d := range some {
			if d == fleet.Etcd {
				w.Start(d)
			}
		}
		for _, d := range some {
			if d != fleet.Etcd {
				w.Start(d)
			}
			pass()
		}
	}}
}

// suffer is one event under traffic, and what must hold after it.
func (w *world) suffer(t *testing.T, e event) {
	w.T, w.t = t, t
	traffic := w.Traffic(pairs...)
	e.do(w, func() { traffic.More(between) })
	w.Connected()
	w.storeIsBack()
	traffic.More(after)
	total := traffic.Finish()
	w.Verified()
	w.policyIsFollowed()
	t.Logf("%s: %d streams, %d datagrams, %d lost, %d doubled, longest gap %s", e.name,
		total.Streams, total.Sent, total.Lost, total.Doubled, total.Gap.Round(time.Millisecond))
}

// policyIsFollowed makes a port and a guest, which reaches the others and is
// gone again.
func (w *world) policyIsFollowed() {
	w.t.Helper()
	w.extra++
	name, space := fmt.Sprintf("extra-%d", w.extra), w.Space(fmt.Sprintf("extra%d", w.extra))
	ca := fmt.Sprintf("10.0.0.%d", 100+w.extra%100)
	w.apply("kind: Port\nmetadata: {tenant: red, name: "+name+"}\nspec: {subnet: web, addresses: ["+ca+"], host: h1}\n", "--wait")
	w.shell("ip netns add " + space)
	w.on("h1", "weft", "plug", "red/"+name, "--netns", space)
	for _, to := range []string{"10.0.0.6", "10.0.1.5", "10.0.0.7"} {
		w.shell("ip netns exec " + space + " ping -n -c1 -W5 " + to)
	}
	w.on("h1", "weft", "unplug", "red/"+name)
	w.Must("delete", "port", "red/"+name)
	w.shell("ip netns del " + space)
	w.Verified()
}

func (w *world) apply(manifest string, flags ...string) {
	w.t.Helper()
	if err := w.Apply(manifest, flags...).Err(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) on(where string, argv ...string) string {
	w.t.Helper()
	r := w.On(where, argv...)
	if err := r.Err(); err != nil {
		w.t.Fatal(err)
	}
	return r.Out
}

func (w *world) shell(line string) string {
	w.t.Helper()
	r := fleet.Run("", "sh", "-c", line)
	if err := r.Err(); err != nil {
		w.t.Fatal(err)
	}
	return r.Out
}

// refusesChanges: without its store the server says so, and changes nothing.
func (w *world) refusesChanges() {
	w.t.Helper()
	r := w.Apply("kind: Tenant\nmetadata: {name: nobody}\n")
	if r.Code != 1 || !strings.Contains(r.Words, "store") {
		w.t.Errorf("apply without a store: code %d, %q", r.Code, r.Words)
	}
}

// storeIsBack waits until the server has found its store again.
func (w *world) storeIsBack() {
	w.t.Helper()
	began := time.Now()
	w.Poll("the server finds its store", func() error {
		if status := w.Must("status"); !strings.Contains(status, "(healthy)") {
			return fmt.Errorf("not yet:\n%s", status)
		}
		return nil
	})
	if took := time.Since(began); took > time.Second {
		w.t.Logf("the server found its store after %s", took.Round(time.Millisecond))
	}
}

// nextBuild is a weftd of another version with another eBPF object: the same
// source, otherwise optimized, so that other instructions run.
func (w *world) nextBuild() string {
	w.t.Helper()
	root := fleet.Root()
	object := filepath.Join(w.Dir, "vswitch.o")
	clang := exec.Command("clang", "-Os", "-g", "-mcpu=v3", "-target", "bpfel", "-I.",
		"-idirafter", "/usr/include/x86_64-linux-gnu", "-idirafter", "/usr/include/aarch64-linux-gnu", "-c", "vswitch.bpf.c", "-o", object)
	clang.Dir = filepath.Join(root, "bpf")
	if out, err := clang.CombinedOutput(); err != nil {
		w.t.Fatalf("compile the other object: %v\n%s", err, out)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, "internal/datapath/vswitch_bpfel.o"): object}})
	if err != nil {
		w.t.Fatal(err)
	}
	path := filepath.Join(w.Dir, "overlay.json")
	if err := os.WriteFile(path, overlay, 0o600); err != nil {
		w.t.Fatal(err)
	}
	return w.Build("second", "-overlay", path)
}

// program is what is attached by a pinned link.
type program struct {
	Link, ID int
	Tag      string // hash of its instructions
}

// programs of a host's switch by the name of their pinned link.
func (w *world) programs(host string) map[string]program {
	w.t.Helper()
	pins, err := filepath.Glob(filepath.Join(w.Pins(host), "links", "*"))
	if err != nil || len(pins) < 3 {
		w.t.Fatalf("pinned links of %s: %v, %v", host, pins, err)
	}
	all := make(map[string]program)
	for _, pin := range pins {
		var link struct {
			ID      int `json:"id"`
			Program int `json:"prog_id"`
		}
		var prog struct {
			Tag string `json:"tag"`
		}
		w.parse(w.shell("bpftool -j link show pinned "+pin), &link)
		w.parse(w.shell(fmt.Sprintf("bpftool -j prog show id %d", link.Program)), &prog)
		all[filepath.Base(pin)] = program{link.ID, link.Program, prog.Tag}
	}
	return all
}

func (w *world) parse(text string, v any) {
	w.t.Helper()
	if err := json.Unmarshal([]byte(text), v); err != nil {
		w.t.Fatalf("%v: %s", err, text)
	}
}

// replaced: in every link that was there, the same link, another program is now.
func (w *world) replaced(host string, before map[string]program) {
	w.t.Helper()
	now := w.programs(host)
	if len(now) != len(before) {
		w.t.Errorf("%s: links before %v, now %v", host, before, now)
	}
	for name, old := range before {
		new := now[name]
		if new.Link != old.Link {
			w.t.Errorf("%s: %s was detached: link %d before, %d now", host, name, old.Link, new.Link)
		}
		// What is small looks the same however it is optimized.
		if new.ID == old.ID || new.Tag == old.Tag && strings.HasPrefix(name, "from_") {
			w.t.Errorf("%s: %s still runs program %+v", host, name, new)
		}
	}
	if status := w.Must("get", "hosts", "-o", "wide"); !strings.Contains(status, "second") {
		w.t.Errorf("no host says that it runs the second build:\n%s", status)
	}
	w.t.Logf("%s: %d programs replaced in their links", host, len(now))
}
