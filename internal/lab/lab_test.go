package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

// weftd is the program under test, built once.
var weftd string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		if os.Geteuid() != 0 {
			fmt.Fprintln(os.Stderr, "the lab makes network namespaces and loads eBPF: run its tests as root")
			return 1
		}
		dir, err := os.MkdirTemp("", "weft-lab-test")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if out, err := exec.Command("go", "build", "-o", dir, "github.com/weft-sdn/weft/cmd/weftd", "github.com/weft-sdn/weft/cmd/weft").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build weftd: %v\n%s", err, out)
			return 1
		}
		weftd = filepath.Join(dir, "weftd")
		return m.Run()
	}())
}

// newLab is a lab that no other run of the tests has, and that is removed at the end.
func newLab(t *testing.T, suffix string) Lab {
	t.Helper()
	l, err := New("t" + strconv.Itoa(os.Getpid()) + suffix)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := l.Down(context.Background()); err != nil {
			t.Errorf("down: %v", err)
		}
		l.wantNothing(t)
	})
	return l
}

func options(t *testing.T, s Spec) Options {
	return Options{Spec: s, Weftd: weftd, Say: func(format string, args ...any) { t.Logf(format, args...) }}
}

func demoSpec(t *testing.T) Spec {
	t.Helper()
	s, err := LoadSpec("../../examples/demo-lab.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func patience(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// left lists what there is of a lab: namespaces, pins, files, processes and
// devices of the machine's own namespace.
func (l Lab) left(t *testing.T) []string {
	t.Helper()
	found, err := l.spaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, root := range []string{l.dir(), l.pins()} {
		filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err == nil {
				found = append(found, path)
			}
			return nil
		})
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && bytes.Contains(line, []byte(l.dir()+"/")) {
			found = append(found, "process "+e.Name()+": "+string(bytes.ReplaceAll(line, []byte{0}, []byte{' '})))
		}
	}
	devices, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		if regexp.MustCompile(`^(n[0-9]+|wfp[0-9]+)$`).MatchString(d.Name) {
			found = append(found, "device "+d.Name)
		}
	}
	return found
}

func (l Lab) wantNothing(t *testing.T) {
	t.Helper()
	if found := l.left(t); len(found) > 0 {
		t.Errorf("left of lab %s:\n%s", l.name, strings.Join(found, "\n"))
	}
}

// daemons lists the processes of the lab.
func (l Lab) daemons(t *testing.T) []int {
	t.Helper()
	spaces, err := l.spaces()
	if err != nil {
		t.Fatal(err)
	}
	pids, err := processes(spaces)
	if err != nil {
		t.Fatal(err)
	}
	return pids
}

// in runs weftd lab exec.
func (l Lab) in(where, stdin string, command ...string) (out string, code int) {
	args := append([]string{"lab", "exec", "--name", l.name, where, "--"}, command...)
	cmd := exec.Command(weftd, args...)
	cmd.Stdin = strings.NewReader(stdin)
	text, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(text), exit.ExitCode()
	}
	return string(text), 0
}

// Two labs with the same world are up at once, and in each the truth table
// holds; then one goes, and the other does not notice.
func TestTwoLabsAtOnce(t *testing.T) {
	ctx := patience(t)
	labs := []Lab{newLab(t, "a"), newLab(t, "b")}
	var group errgroup.Group
	for _, l := range labs {
		group.Go(func() error { return l.Up(ctx, options(t, demoSpec(t))) })
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	for _, l := range labs {
		var table bytes.Buffer
		holds, err := l.Demo(ctx, &table)
		if err != nil || !holds {
			t.Errorf("demo of lab %s: holds %v, %v\n%s", l.name, holds, err, &table)
		}
		// 24 pairs inside the networks, 32 across; with one guest gone, 6 of its
		// twin's and 7 of its own network's askers.
		if rows := strings.Count(table.String(), "  ok\n"); rows != 24+32+13 {
			t.Errorf("%d rows hold\n%s", rows, &table)
		}
	}
	a, b := labs[0], labs[1]

	for _, where := range []string{"h1", "h2", "server", "router", "red/web-1", "blue/db-1"} {
		if out, code := a.in(where, "hello", "sh", "-c", "cat; exit 7"); code != 7 || out != "hello" {
			t.Errorf("exec in %s: code %d, %q", where, code, out)
		}
	}
	if out, code := a.in("red/web-1", "", "ping", "-c1", "10.0.0.6"); code != 0 {
		t.Errorf("ping: code %d\n%s", code, out)
	}
	if out, code := a.in("red/web-1", "", "ping", "-c1", "-W1", "10.0.0.99"); code != 1 {
		t.Errorf("ping of nobody: code %d\n%s", code, out)
	}
	if out, code := a.in("h2", "", "weft", "get", "ports", "-n", "blue", "-o", "name"); code != 0 || strings.Count(out, "Port blue/") != 4 {
		t.Errorf("weft on a host: code %d\n%s", code, out)
	}
	if out, code := a.in("h2", "", "weft", "verify"); code != 0 {
		t.Errorf("verify: code %d\n%s", code, out)
	}
	if out, code := a.in("h9", "", "true"); code != exitFailed || !strings.Contains(out, `has no "h9"; there are: h1 h2 server router red/web-1`) {
		t.Errorf("exec nowhere: code %d, %q", code, out)
	}
	if out, code := a.in("h1", "", "no-such-command"); code != exitFailed || !strings.Contains(out, "no-such-command") {
		t.Errorf("exec nothing: code %d, %q", code, out)
	}

	err := a.Up(ctx, options(t, demoSpec(t)))
	if err == nil || !strings.Contains(err.Error(), "is up already") {
		t.Errorf("up over a lab that is up: %v", err)
	}
	if found, err := a.Down(ctx); !found || err != nil {
		t.Errorf("down: %v %v", found, err)
	}
	a.wantNothing(t)
	var status bytes.Buffer
	if healthy, err := b.Status(ctx, &status); !healthy || err != nil {
		t.Errorf("the other lab: healthy %v, %v\n%s", healthy, err, &status)
	}
	if n := strings.Count(status.String(), " programmed "); n != 8 {
		t.Errorf("%d guests of the other lab are programmed\n%s", n, &status)
	}

	// The table can fail: a guest that nobody reaches makes its rows WRONG.
	_, err = b.agent("h2").Agent().Unplug(ctx, connect.NewRequest(&weftv1.UnplugRequest{Tenant: "blue", Port: "web-2"}))
	if err != nil {
		t.Fatal(err)
	}
	var table bytes.Buffer
	holds, err := b.Demo(ctx, &table)
	if holds || err != nil || !regexp.MustCompile(`blue/web-1 +blue/web-2 .* nobody +nobody +WRONG\n`).MatchString(table.String()) {
		t.Errorf("a broken world: holds %v, %v\n%s", holds, err, &table)
	}
}

// A guest that hears from another network makes its row wrong, whatever was answered.
func TestALeakIsWrong(t *testing.T) {
	red := &guest{portRef: portRef{"red", "a"}, network: "red/n", addresses: [2]netip.Addr{netip.MustParseAddr("10.0.0.5")}}
	blue := &guest{portRef: portRef{"blue", "a"}, network: "blue/n", addresses: [2]netip.Addr{netip.MustParseAddr("10.0.0.6")},
		responder: &responder{name: "blue/a", marks: []string{"red/a to blue/a IPv4", "red/ab to blue/a IPv4"}}}
	if marks := blue.responder.heard("red/a"); len(marks) != 1 {
		t.Errorf("heard %q", marks)
	}
	r := row{from: red, to: blue, expected: nobody, observed: [2]string{nobody}}
	if !r.holds() {
		t.Error("nobody expected, nobody observed, and yet wrong")
	}
	r.leaked = blue.responder.heard("red/a")
	var table bytes.Buffer
	if wrong := printRows(&table, "", []row{r}); wrong != 1 || !strings.Contains(table.String(), "WRONG red/a to blue/a IPv4") {
		t.Errorf("%d wrong\n%s", wrong, &table)
	}
}

// A host's agent that is gone shows in the status.
func TestStatusNoticesADeadAgent(t *testing.T) {
	ctx := patience(t)
	l := newLab(t, "s")
	if err := l.Up(ctx, options(t, Spec{Hosts: HostNames(1)})); err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(pid(l.hostDir("h1")))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err = poll(ctx, func() error {
		var status bytes.Buffer
		if healthy, err := l.Status(ctx, &status); err != nil || healthy {
			return fmt.Errorf("healthy %v, %v", healthy, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	// From inside the lab, down finds what it stands on as well.
	if out, code := l.in("h1", "", weftd, "lab", "down", "--name", l.name); code != 0 {
		t.Errorf("down from inside: code %d\n%s", code, out)
	}
	l.wantNothing(t)
}

// Whoever ran lab up, or all of the lab's daemons, may be killed: the next up
// and the next down find everything.
func TestCrashedLab(t *testing.T) {
	ctx := patience(t)
	l := newLab(t, "c")
	if err := l.Up(ctx, options(t, Spec{Hosts: HostNames(2)})); err != nil {
		t.Fatal(err)
	}
	pids := l.daemons(t)
	if len(pids) != 3 {
		t.Fatalf("%d daemons", len(pids))
	}
	for _, pid := range pids {
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(l.stateFile()); err != nil {
		t.Fatal(err)
	}
	if err := l.Up(ctx, options(t, Spec{Hosts: HostNames(2)})); err != nil {
		t.Fatal(err)
	}
	if again := l.daemons(t); len(again) != 3 || slices.ContainsFunc(again, func(p int) bool { return slices.Contains(pids, p) }) {
		t.Errorf("daemons %v after %v", again, pids)
	}
	// Without any file, down goes by names alone.
	if err := os.RemoveAll(l.dir()); err != nil {
		t.Fatal(err)
	}
	if found, err := l.Down(ctx); !found || err != nil {
		t.Errorf("down: %v %v", found, err)
	}
	l.wantNothing(t)
	if found, err := l.Down(ctx); found || err != nil {
		t.Errorf("second down: %v %v", found, err)
	}
}

func TestFailedUpLeavesNothing(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.yaml")
	if err := os.WriteFile(bad, []byte("kind: Port\nmetadata: {tenant: red, name: web-1}\nspec: {subnet: nowhere}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dies := filepath.Join(t.TempDir(), "dies")
	if err := os.WriteFile(dies, []byte("#!/bin/sh\necho cannot go on\nexit 3\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	hosts := HostNames(1)
	cases := []struct {
		name string
		o    Options
		want string
	}{
		{"manifest that the server refuses", options(t, Spec{Hosts: hosts, Manifests: []string{bad}}), `tenant "red" does not exist`},
		{"manifest that is not there", options(t, Spec{Hosts: hosts, Manifests: []string{bad + "x"}}), "no such file"},
		{"guest without a port", options(t, Spec{Hosts: hosts, Guests: []GuestSpec{{Port: "red/web-1"}}}), "guest red/web-1"},
		{"server that dies", Options{Spec: Spec{Hosts: hosts}, Weftd: dies, Say: t.Logf}, "the server ended; the end of its log:\ncannot go on"},
	}
	for i, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			l := newLab(t, "f"+strconv.Itoa(i))
			err := l.Up(patience(t), c.o)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
			l.wantNothing(t)
		})
	}
}

// Ctrl-C in the middle of lab up.
func TestInterruptedUpLeavesNothing(t *testing.T) {
	l := newLab(t, "i")
	ctx, cancel := context.WithCancel(patience(t))
	o := options(t, Spec{Hosts: HostNames(2)})
	o.Say = func(format string, args ...any) {
		if strings.Contains(fmt.Sprintf(format, args...), "routed underlay") {
			cancel()
		}
	}
	if err := l.Up(ctx, o); !errors.Is(err, context.Canceled) && (err == nil || !strings.Contains(err.Error(), "canceled")) {
		t.Errorf("error %v", err)
	}
	l.wantNothing(t)
}

// While one program builds the lab, no other builds or removes it.
func TestLockedLab(t *testing.T) {
	l := newLab(t, "l")
	if err := os.MkdirAll(l.dir(), 0o711); err != nil {
		t.Fatal(err)
	}
	unlock, err := l.lock()
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Up(patience(t), options(t, Spec{Hosts: HostNames(1)})); err == nil || !strings.Contains(err.Error(), "by another program") {
		t.Errorf("up: %v", err)
	}
	if _, err := l.Down(patience(t)); err == nil || !strings.Contains(err.Error(), "by another program") {
		t.Errorf("down: %v", err)
	}
	unlock()
}

func TestSpecNamesWhatIsWrong(t *testing.T) {
	cases := []struct{ text, want string }{
		{"host: [a]\n", "field host not found"},
		{"hosts: [h1, h1]\n", "host h1 is there twice"},
		{"hosts: [H1]\n", `host "H1": write lower-case letters`},
		{"hosts: [_server]\n", `host "_server"`},
		{"guests: [web-1]\n", `guest "web-1": write TENANT/PORT`},
		{"guests: [red/a, red/a]\n", "guest red/a is there twice"},
		{"guests: [{port: red/a, host: h9}]\n", "guest red/a: no host h9 in this lab"},
		{"guests: [{prt: red/a}]\n", `unknown field "prt"`},
	}
	for _, c := range cases {
		path := filepath.Join(t.TempDir(), "lab.yaml")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadSpec(path); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.text, err, c.want)
		}
	}
	for _, name := range []string{"", "a-b", "A", "../x", "thirteenchars"} {
		if _, err := New(name); err == nil {
			t.Errorf("a lab may be called %q", name)
		}
	}
	s := demoSpec(t)
	if len(s.Hosts) != 2 || len(s.Guests) != 8 || s.Manifests[0] != filepath.Clean("../../examples/demo.yaml") {
		t.Errorf("the demo's lab: %+v", s)
	}
}

func TestAddressesOfTheUnderlayAreDistinct(t *testing.T) {
	seen := make(map[string]bool)
	for i := range maxHosts + 1 {
		for _, a := range []string{gatewayOf(i).String(), nodeOf(i).String()} {
			if seen[a] || !strings.HasPrefix(a, "198.1") {
				t.Fatalf("address %s of subnet %d", a, i)
			}
			seen[a] = true
		}
	}
}

// exitFailed is weftd's code for what is not a mistake of usage.
const exitFailed = 1
