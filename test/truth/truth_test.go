// Package truth compares what people wrote with what packets do: random ports, profiles,
// VLANs, private VLANs, access lists and groups, an oracle that reads them as docs/design/acl.md
// does, and real packets, whole and in fragments, with and without tags, between all guests of a real fleet.
//
// Invariants: the oracle shares no code with what it checks; a policy that fails is made
// as small as it can be before it is shown.
package truth

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/lab"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/test/fleet"
)

func TestMain(m *testing.M) { fleet.Main(m) }

// tenants are tried at once, alike to the last address.
const tenants = 5

// cases is how many policies a run tries; more with WEFT_TRUTH_CASES.
func cases(t *testing.T) int {
	text := os.Getenv("WEFT_TRUTH_CASES")
	if text == "" {
		return 300
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("WEFT_TRUTH_CASES=%s: want a number", text)
	}
	return n
}

func seed(t *testing.T) uint64 {
	n := rand.Uint64()
	if text := os.Getenv("WEFT_TRUTH_SEED"); text != "" {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatalf("WEFT_TRUTH_SEED=%s: want a number", text)
		}
	}
	t.Logf("WEFT_TRUTH_SEED=%d", n)
	return n
}

// world is the fleet with its guests' NICs.
type world struct {
	*fleet.Fleet
	t      *testing.T
	guests [tenants][]guest
	vsid   [tenants][2]model.VSID
	marks  [2]guest
	round  int
	sent   int
	tally  map[string]*[2]int // of each kind of packet: how many were to be dropped, and to arrive
}

func TestPolicyIsWhatPacketsDo(t *testing.T) {
	w := newWorld(t)
	r := rand.New(rand.NewPCG(seed(t), 0))
	for done := 0; done < cases(t); done += tenants {
		var all [tenants]*policy
		for i := range all {
			all[i] = random(r)
		}
		wrong, err := w.try(all[:])
		if err != nil {
			t.Fatal(err)
		}
		for i, bad := range wrong {
			if len(bad) > 0 {
				w.shrink(all[i], bad)
			}
		}
	}
	w.Verified()
	t.Logf("%d policies, %d packets", w.round*tenants, w.sent)
	for kind, n := range w.tally {
		t.Logf("%s: %d dropped, %d arrived", kind, n[0], n[1])
		if n[0] == 0 || n[1] == 0 {
			t.Errorf("%s: all had one fate", kind)
		}
	}
}

// shrink takes away what is not needed for the mistake, and fails the test with what is left.
func (w *world) shrink(p *policy, bad []string) {
	w.t.Helper()
	for tries := 0; tries < 100; {
		smaller := false
		for _, q := range p.smaller() {
			if tries++; tries > 100 {
				break
			}
			wrong, err := w.try([]*policy{q})
			if err == nil && len(wrong[0]) > 0 {
				p, bad, smaller = q, wrong[0], true
				break
			}
		}
		if !smaller {
			break
		}
	}
	w.t.Fatalf("%s\nwith:\n%s", strings.Join(bad[:min(len(bad), 8)], "\n"), p.manifest("red"))
}

// try applies a policy to each tenant and sends every probe. wrong has the mistakes by tenant.
func (w *world) try(all []*policy) (wrong [][]string, err error) {
	w.round++
	var manifests strings.Builder
	for i, p := range all {
		manifests.WriteString(p.manifest(tenant(i)))
	}
	if err := w.Apply(manifests.String(), "--wait").Err(); err != nil {
		return nil, fmt.Errorf("%w\nof:\n%s", err, manifests.String())
	}
	wrong = make([][]string, len(all))
	open := make([]connections, len(all))
	asked := make([][]probe, len(all))
	for i := range all {
		open[i], asked[i] = connections{}, probes(w.round)
	}
	for range 2 { // the probes, then answers to those that came
		came, err := w.send(asked)
		if err != nil {
			return nil, err
		}
		for i, p := range all {
			var answers []probe
			for n, q := range asked[i] {
				want, got := p.tried(q, open[i]), came[i][n]
				w.count(q.kind(), want)
				if want != got {
					wrong[i] = append(wrong[i], fmt.Sprintf("%s: arrived %v, policy says %v", q, got, want))
				}
				if got && !q.Reply && q.Part == whole {
					answers = append(answers, q.reply(p.tagAt(q)))
				}
			}
			asked[i] = answers
		}
	}
	return wrong, nil
}

func (w *world) count(kind string, arrives bool) {
	if w.tally == nil {
		w.tally = map[string]*[2]int{}
	}
	if w.tally[kind] == nil {
		w.tally[kind] = &[2]int{}
	}
	if arrives {
		w.tally[kind][1]++
		return
	}
	w.tally[kind][0]++
}

// send sends all probes and tells which arrived where they should.
func (w *world) send(asked [][]probe) (came [][]bool, err error) {
	type target struct{ tenant, n int }
	targets := []target{}
	came = make([][]bool, len(asked))
	for i, probes := range asked {
		came[i] = make([]bool, len(probes))
		for n, q := range probes {
			if err := w.guests[i][q.From].send(q.frame(uint64(len(targets)), w.vsid[i])); err != nil {
				return nil, fmt.Errorf("%s: %w", q, err)
			}
			targets = append(targets, target{i, n})
		}
	}
	w.sent += len(targets)
	w.settle()
	for i := range asked {
		for at, g := range w.guests[i] {
			ids, err := g.arrived()
			if err != nil {
				return nil, err
			}
			for _, id := range ids {
				if id >= uint64(len(targets)) {
					return nil, fmt.Errorf("a packet of an earlier round came late")
				}
				t := targets[id]
				if t.tenant != i || asked[i][t.n].To != at {
					return nil, fmt.Errorf("%s of tenant %d came to tenant %d, %s", asked[t.tenant][t.n], t.tenant, i, places[at].name)
				}
				if came[i][t.n] {
					return nil, fmt.Errorf("%s came twice", asked[i][t.n])
				}
				came[i][t.n] = true
			}
		}
	}
	return came, nil
}

// settle waits until all that was sent has arrived or been dropped. All is sent by one
// processor, whose queue keeps the order, and the mark has the longest way of all.
func (w *world) settle() {
	for i, to := range []int{1, 0} {
		q := probe{From: []int{0, 2}[i], To: []int{2, 0}[i], Proto: "udp", Sport: 9, Dport: 9}
		must(w.marks[i].send(q.frame(uint64(w.round), w.vsid[0])))
		w.Poll("the mark", func() error {
			ids, err := w.marks[to].arrived()
			if err == nil && len(ids) == 0 {
				err = fmt.Errorf("it has not come")
			}
			return err
		})
	}
}

func tenant(i int) string { return fmt.Sprintf("t%d", i) }

const markers = "marks"

func newWorld(t *testing.T) *world {
	t.Helper()
	spec := lab.Spec{Hosts: []string{"h1", "h2"}, Manifests: []string{filepath.Join(t.TempDir(), "policy.yaml")}}
	var manifest strings.Builder
	empty := &policy{Ports: make([]port, len(places))}
	for i, at := range places {
		if at.subnet == onVLAN {
			empty.Ports[i].VLAN = vlans[0]
		}
	}
	for i := range tenants {
		fmt.Fprintf(&manifest, "---\nkind: Tenant\nmetadata: {name: %[1]s}\n---\nkind: ExternalNetwork\nmetadata: {name: %[2]s}\nspec: {interfaces: [{interface: wire%[3]d}], tenants: [%[1]s]}\n%[4]s",
			tenant(i), lan(tenant(i)), i, empty.manifest(tenant(i)))
		for _, at := range places {
			spec.Guests = append(spec.Guests, lab.GuestSpec{Port: tenant(i) + "/" + at.name})
		}
	}
	fmt.Fprintf(&manifest, "---\nkind: Tenant\nmetadata: {name: %s}\n%s", markers, (&policy{Ports: make([]port, len(places))}).manifest(markers))
	for _, i := range []int{0, 2} {
		spec.Guests = append(spec.Guests, lab.GuestSpec{Port: markers + "/" + places[i].name})
	}
	if err := os.WriteFile(spec.Manifests[0], []byte(manifest.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	w := &world{Fleet: fleet.New(t, "t", fleet.Options{Spec: spec}), t: t}
	for i := range tenants {
		w.wire(i)
		for s, name := range subnets {
			w.vsid[i][s] = w.vsidOf(tenant(i), name)
		}
		for _, at := range places {
			w.guests[i] = append(w.guests[i], w.open(tenant(i)+"/"+at.name))
		}
	}
	for i, at := range []int{0, 2} {
		w.marks[i] = w.open(markers + "/" + places[at].name)
	}
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	var one unix.CPUSet
	one.Set(0)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Fatal(err)
	}
	return w
}

// wire connects the hosts by a cable that carries all VLANs of a tenant's physical network.
func (w *world) wire(i int) {
	w.t.Helper()
	for _, c := range [][2]string{{"h1", fmt.Sprintf("ip link add wire%d type veth peer name wire%[1]d netns %s", i, w.Space("h2"))},
		{"h1", fmt.Sprintf("ip link set wire%d up", i)}, {"h2", fmt.Sprintf("ip link set wire%d up", i)}} {
		if err := w.On(c[0], strings.Fields(c[1])...).Err(); err != nil {
			w.t.Fatal(err)
		}
	}
}

// open takes a guest's NIC away from its kernel.
func (w *world) open(port string) guest {
	w.t.Helper()
	if err := w.On(port, "sh", "-ec", "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=1; ip addr flush dev eth0").Err(); err != nil {
		w.t.Fatal(err)
	}
	g, err := newGuest(w.Space(port))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { unix.Close(g.socket) })
	_, err = g.arrived()
	must(err)
	return g
}

func (w *world) vsidOf(tenant, subnet string) model.VSID {
	w.t.Helper()
	var answer struct {
		Spec struct {
			VSID model.VSID `yaml:"vsid"`
		}
	}
	if err := yaml.Unmarshal([]byte(w.Must("get", "subnet", subnet, "-n", tenant, "-o", "yaml")), &answer); err != nil {
		w.t.Fatal(err)
	}
	return answer.Spec.VSID
}
