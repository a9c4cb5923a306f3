package acceptance

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/weft-sdn/weft/internal/lab"
	"github.com/weft-sdn/weft/test/fleet"
)

func TestMain(m *testing.M) { fleet.Main(m) }

// world is the demo's, hosts with room for few records.
type world struct {
	*fleet.Fleet
	t *testing.T
}

// records that a host of the world has room for; the demo needs 24.
const records = 64

func newWorld(t *testing.T, suffix string, agent map[string]any) *world {
	t.Helper()
	spec, err := lab.LoadSpec(filepath.Join(fleet.Root(), "examples/demo-lab.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return &world{fleet.New(t, suffix, fleet.Options{Spec: spec, Agent: agent}), t}
}

// run makes a part of the test, which fails by itself.
func (w *world) run(t *testing.T, name string, part func(w *world)) {
	t.Run(name, func(t *testing.T) {
		whole := w.Fleet.T
		defer func() { w.Fleet.T = whole }()
		w.Fleet.T = t
		part(&world{w.Fleet, t})
	})
}

// untouched runs something that must change neither policy nor any kernel.
func (w *world) untouched(what string, f func()) {
	w.t.Helper()
	w.Verified()
	policy, kernel := w.Policy(), w.Kernel()
	f()
	w.Same(what+": policy", policy, w.Policy())
	w.Same(what+": kernel", kernel, w.Kernel())
	w.Verified()
}

// refused is a result with exit code 1, nothing on stdout and all the words on stderr.
func (w *world) refused(r fleet.Result, words ...string) {
	w.t.Helper()
	if r.Code != 1 || r.Out != "" || !strings.HasPrefix(r.Words, "error: ") {
		w.t.Errorf("%s: exit code %d\n%s%s", r.Line, r.Code, r.Out, r.Words)
	}
	for _, word := range words {
		if !strings.Contains(r.Words, word) {
			w.t.Errorf("%s: does not say %q: %s", r.Line, word, r.Words)
		}
	}
}

// done is a result with exit code 0.
func (w *world) done(r fleet.Result) string {
	w.t.Helper()
	if err := r.Err(); err != nil {
		w.t.Fatal(err)
	}
	return r.Out
}

func resource(kind, name, spec string) string {
	return fmt.Sprintf("kind: %s\nmetadata: {tenant: red, name: %s}\nspec: %s\n---\n", kind, name, spec)
}

// sound is a resource that would be fine alone: a set with a fault must not leave it behind.
var sound = resource("Port", "sound", "{subnet: web, host: h1}")

// Every input that is wrong is refused with its field and what is wrong, and a
// set in which something is wrong leaves nothing.
func TestBadInput(t *testing.T) {
	w := newWorld(t, "b", map[string]any{"limits": map[string]any{"records": records}})
	w.run(t, "sets", badSets)
	w.run(t, "rules", badRules)
	w.run(t, "plugs", badPlugs)
	w.run(t, "full table", fullTable)
	w.run(t, "corrupt cache", corruptCache)
}

func badSets(w *world) {
	w.untouched("wrong sets", func() {
		for _, c := range wrong {
			w.refused(w.Apply(sound+c.set), c.field, c.words)
			w.refused(w.Weft("get", "port", "red/sound"), "does not exist")
		}
	})
}

// wrong sets, what is said to be wrong and how.
var wrong = []struct{ set, field, words string }{
	{resource("Port", "x", "{subnet: web, hots: h1}"), "spec.hots", `did you mean "host"?`},
	{"kind: Port\nmetadata: {tenant: red, name: x, owner: me}\nspec: {subnet: web}\n", "metadata.owner", "unknown field"},
	{resource("Prot", "x", "{subnet: web}"), "kind", `did you mean "Port"?`},
	{"kind: [", "document 2", "not YAML"},
	{resource("VirtualSubnet", "x", "{network: prod, vsid: 4095, prefixes: [10.9.0.0/24]}"), "VirtualSubnet red/x: spec.vsid", "4095 is outside 4096..16777214"},
	{resource("VirtualSubnet", "x", "{network: prod, vsid: 16777215, prefixes: [10.9.0.0/24]}"), "VirtualSubnet red/x: spec.vsid", "16777215 is outside 4096..16777214"},
	{resource("VirtualSubnet", "x", "{network: prod, vsid: 4294967296, prefixes: [10.9.0.0/24]}"), "spec.vsid", "whole number"},
	{resource("VirtualSubnet", "x", "{network: prod, vsid: 6001, prefixes: [10.9.0.0/24]}"), "VirtualSubnet red/x: spec.vsid", "6001 is already"},
	{resource("VirtualSubnet", "x", "{network: prod, prefixes: [10.0.0.128/25]}"), "VirtualSubnet red/x: spec.prefixes[0]", "overlaps 10.0.0.0/24 of VirtualSubnet red/web"},
	{resource("VirtualSubnet", "x", `{network: prod, prefixes: ["fd00:a::/48"]}`), "VirtualSubnet red/x: spec.prefixes[0]", "overlaps fd00:a::/64 of VirtualSubnet red/web"},
	{resource("VirtualSubnet", "x", "{network: prod, prefixes: [10.9.0.0/16]}") + resource("VirtualSubnet", "y", "{network: prod, prefixes: [10.9.9.0/24]}"), "spec.prefixes[0]", "overlaps"},
	{resource("Port", "x", "{subnet: web, addresses: [10.0.0.5]}"), "Port red/x: spec.addresses[0]", "10.0.0.5 is already an address of Port red/web-1"},
	{resource("Port", "x", "{subnet: web, addresses: [10.0.0.55]}") + resource("Port", "y", "{subnet: web, addresses: [10.0.0.55]}"), "spec.addresses[0]", "10.0.0.55 is already"},
	{resource("Port", "x", "{subnet: web, addresses: [10.0.0.66, 10.0.1.55]}"), "Port red/x: spec.addresses[1]", "10.0.1.55 is in none of the prefixes of VirtualSubnet red/web"},
	{resource("Port", "x", "{subnet: web, addresses: [10.0.0.1]}"), "Port red/x: spec.addresses[0]", "10.0.0.1 is the gateway"},
	{resource("Port", "x", `{subnet: web, addresses: ["fd00:a::1"]}`), "Port red/x: spec.addresses[0]", "fd00:a::1 is the gateway"},
	{resource("Port", "x", `{subnet: web, mac: "01:00:00:00:00:01"}`), "Port red/x: spec.mac", "unicast"},
	{resource("Port", "x", `{subnet: web, mac: "02:00:00:00:00:01"}`), "Port red/x: spec.mac", "already that of Port red/web-1"},
	{resource("Port", "x", "{subnet: web, host: h9}"), "Port red/x: spec.host", "h9 does not exist"},
	{resource("Port", "x", "{subnet: nope}"), "Port red/x: spec.subnet", "red/nope does not exist"},
	{resource("VirtualSubnet", "web", `{network: prod, vsid: 5009, prefixes: [10.0.0.0/24, "fd00:a::/64"]}`), "VirtualSubnet red/web: spec.vsid", "cannot change from 5001"},
	{resource("VirtualSubnet", "web", `{network: prod, vsid: 5001, prefixes: [10.0.0.0/24]}`), "VirtualSubnet red/web: spec.prefixes", "would no longer fit"},
}

// rules holds what the wrong sets of badRules refer to.
var rules = resource("AddressGroup", "office", "{prefixes: [10.99.0.0/16]}") +
	resource("AddressGroup", "all", "{groups: [office]}") +
	resource("AccessList", "in", "{rules: [{name: a, direction: inbound, action: deny, remote: {groups: [all]}}]}") +
	resource("PortProfile", "vm", "{accessLists: [in], dhcpGuard: true}") +
	resource("Port", "ruled", "{subnet: web, profile: vm}")

// Profiles, settings, access lists and groups that are wrong, or that are still needed.
func badRules(w *world) {
	list := func(rule string) string {
		return resource("AccessList", "x", "{rules: [{direction: inbound, action: allow, protocol: tcp, "+rule+"}]}")
	}
	w.done(w.Apply(rules))
	w.untouched("wrong rules", func() {
		for _, c := range []struct{ set, field, words string }{
			{list(`localPorts: ["90-80"]`), "AccessList red/x: spec.rules[0].localPorts[0]", "90-80 is upside down; write 80-90"},
			{list(`localPorts: ["80-70000"]`), "AccessList red/x: spec.rules[0].localPorts[0]", "of at most 65535"},
			{list(`localPorts: [443]`), "spec.rules[0].localPorts[0]", "put it in quotes"},
			{list(`icmpType: 8`), "AccessList red/x: spec.rules[0].icmpType", "goes with protocol icmp"},
			{list(`remote: {groups: [nosuch]}`), "AccessList red/x: spec.rules[0].remote.groups[0]", "AddressGroup red/nosuch does not exist"},
			{list(`remote: {prefixes: [10.0.0.0/8]}, local: {prefixes: ["fd00::/8"]}`), "AccessList red/x: spec.rules[0].remote.prefixes", "no packet has both"},
			{list(`weight: 65536`), "AccessList red/x: spec.rules[0].weight", "at most 65535"},
			{resource("AccessList", "x", "{rules: [{direction: both, action: pass}]}"), "AccessList red/x: spec.rules[0].action", "tier administrator"},
			{resource("AddressGroup", "office", "{groups: [all]}"), "AddressGroup red/office: spec.groups[0]", "office is in all is in office"},
			{resource("VirtualSubnet", "x", "{network: prod, prefixes: [10.9.0.0/24], accessLists: [nosuch]}"), "VirtualSubnet red/x: spec.accessLists[0]", "AccessList red/nosuch does not exist"},
			{resource("Port", "x", "{subnet: web, profile: nosuch}"), "Port red/x: spec.profile", "PortProfile red/nosuch does not exist"},
			{resource("Port", "x", "{subnet: web, isolation: {mode: community}}"), "Port red/x: spec.isolation.community", "is required"},
			{resource("PortProfile", "x", "{vlan: {network: lan, mode: access, id: 4096}}"), "PortProfile red/x: spec.vlan.id", "4096 is not a VLAN id; use 1 to 4094"},
			{resource("PortProfile", "x", "{vlan: {network: lan, mode: private, private: {mode: community, secondary: 101}}}"), "PortProfile red/x: spec.vlan.private.primary", "is required"},
			{resource("PortProfile", "x", "{dhcpGard: true}"), "spec.dhcpGard", `did you mean "dhcpGuard"?`},
			{resource("PortProfile", "vm", "{allowSpoofing: true, dynamicAddressLimit: 2}"), "Port red/ruled: spec.dynamicAddressLimit", "must be 0 with spec.allowSpoofing"},
			{resource("Port", "x", "{subnet: web, acl: [{action: deny, direction: both}]}"), "Port red/x: spec.acl[0]", "name one"},
		} {
			w.refused(w.Apply(sound+c.set), c.field, c.words)
		}
		w.refused(w.Weft("get", "port", "red/sound"), "does not exist")
		w.refused(w.Weft("delete", "profile", "red/vm"), "PortProfile red/vm", "is still used by Port red/ruled")
		w.refused(w.Weft("delete", "acl", "red/in"), "AccessList red/in", "is still used by PortProfile red/vm")
		w.refused(w.Weft("delete", "group", "red/office"), "AddressGroup red/office", "is still used by AddressGroup red/all")
	})
	w.done(w.OnWith(fleet.Server, rules, "weft", "delete", "-f", "-"))
}

func badPlugs(w *world) {
	w.done(w.Apply(resource("Port", "loose", "{subnet: web}"), "--wait"))
	w.Verified()
	policy, kernel := w.Policy(), w.Kernel()
	w.refused(w.On("h1", "weft", "plug", "red/loose", "--device", "nosuch"), "device nosuch", "no such device")
	w.refused(w.On("h1", "weft", "plug", "red/loose", "--netns", "nosuch"), "nosuch", "no such network namespace")
	w.refused(w.On("h1", "weft", "plug", "red/nosuch", "--netns", w.Space("red/web-1")), "Port red/nosuch", "does not exist")
	w.refused(w.On("h1", "weft", "plug", "red/web-2", "--netns", w.Space("red/web-1"), "--ifname", "other"), "red/web-2", "h2")
	w.refused(w.On("h1", "weft", "plug", "red/web-1", "--netns", w.Space("red/web-3"), "--ifname", "other"), "red/web-1", "unplug")
	w.refused(w.On("h1", "weft", "plug", "red/loose", "--device", "eth0"), "eth0")
	// A plug that fails late was placed and is taken back: revisions pass, and that is all.
	w.Poll("nothing is left of the wrong plugs", func() error {
		if was, is := withoutRevisions(policy), withoutRevisions(w.Policy()); was != is {
			return fmt.Errorf("policy was\n%s\nand is\n%s", was, is)
		}
		return nil
	})
	w.Verified()
	w.Same("kernel after wrong plugs", kernel, w.Kernel())
	w.Must("delete", "port", "red/loose")
}

var revisions = regexp.MustCompile(`(?m)^ *(revision|acknowledgedRevision|changedAt): .*\n?`)

func withoutRevisions(policy []string) string {
	return revisions.ReplaceAllString(strings.Join(policy, "\n---\n"), "")
}

// A Goal that does not fit is refused as a whole: the hosts keep what they have,
// every resource says so, and all is well when policy is smaller again.
func fullTable(w *world) {
	w.Verified()
	kernel := w.Kernel()
	var many strings.Builder
	for i := range records {
		many.WriteString(resource("Port", fmt.Sprintf("many-%d", i), "{subnet: db, host: h2}"))
	}
	r := w.Apply(many.String(), "--wait", "--timeout", "4s")
	if r.Code != 3 || !strings.Contains(r.Words, "records") {
		w.t.Errorf("a set that does not fit: exit code %d\n%s%s", r.Code, r.Out, r.Words)
	}
	if text := w.Must("describe", "port", "red/many-0"); !strings.Contains(text, "TableFull") || !strings.Contains(text, "records") {
		w.t.Errorf("the port does not say why it is not programmed:\n%s", text)
	}
	if text := w.Must("describe", "host", "h1"); !strings.Contains(text, "TableFull") {
		w.t.Errorf("the host does not say that its table is full:\n%s", text)
	}
	w.Same("kernel with a Goal that does not fit", kernel, w.Kernel())
	for _, to := range []string{"10.0.0.6", "10.0.1.5", "fd00:b::5"} {
		w.done(w.On("red/web-1", "ping", "-n", "-c1", "-W5", to))
	}
	w.done(w.OnWith(fleet.Server, many.String(), "weft", "delete", "-f", "-"))
	w.Poll("the hosts are well again", func() error {
		if text := w.Must("describe", "host", "h1"); strings.Contains(text, "TableFull") {
			return fmt.Errorf("not yet:\n%s", text)
		}
		return nil
	})
	w.Verified()
	w.Same("kernel when policy fits again", kernel, w.Kernel())
}

// A damaged cache is said so and ignored: the kernel keeps what it has until the
// server has sent policy again.
func corruptCache(w *world) {
	w.untouched("a corrupt cache", func() {
		w.Kill(fleet.Server, syscall.SIGKILL)
		w.Kill("h1", syscall.SIGKILL)
		kernel := w.Kernel()
		if err := os.WriteFile(filepath.Join(w.Files("h1"), "state", "goal"), []byte("WEFTGOAL but not quite"), 0o600); err != nil {
			w.t.Fatal(err)
		}
		w.Start("h1")
		w.Same("kernel with a corrupt cache", kernel, w.Kernel())
		w.done(w.On("red/web-1", "ping", "-n", "-c1", "-W5", "10.0.0.6"))
		log, err := os.ReadFile(filepath.Join(w.Files("h1"), "log"))
		if err != nil || !strings.Contains(string(log), "it is ignored until the server has sent it again") {
			w.t.Errorf("the log does not say that the cache is damaged: %v\n%s", err, log)
		}
		w.Start(fleet.Server)
		w.Connected()
	})
}
