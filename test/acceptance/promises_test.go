package acceptance

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/api/weft/host/v1/hostv1connect"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/test/fleet"
	"github.com/weft-sdn/weft/test/stream"
)

// serverAt is where the lab's server is in its underlay.
const serverAt = "198.18.0.2"

// What people and hosts may rely on, in one fleet.
func TestPromises(t *testing.T) {
	w := newWorld(t, "p", nil)
	w.run(t, "the same again is unchanged", sameAgain)
	w.run(t, "a dry run stores nothing", dryRun)
	w.run(t, "dependants are named", dependants)
	w.run(t, "access lists judge", listsJudge)
	w.run(t, "flows are tried", flowsAreTried)
	w.run(t, "drops and connections name their rules", rulesAreNamed)
	w.run(t, "edits do not overwrite each other", conflict)
	w.run(t, "a token is good once", tokenOnce)
	w.run(t, "a second agent of one name", secondAgent)
	w.run(t, "a host speaks for itself alone", hostAlone)
	w.run(t, "sockets are for administrators", strangers)
	w.run(t, "a watch survives the server", watchSurvives)
}

func demo(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(fleet.Root(), "examples/demo.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func sameAgain(w *world) {
	w.untouched("the same set again", func() {
		out := w.done(w.Apply(demo(w.t), "--wait"))
		if n := strings.Count(out, " unchanged\n"); n != 18 || strings.Count(out, "\n") != n {
			w.t.Errorf("%d of 18 unchanged:\n%s", n, out)
		}
	})
}

func dryRun(w *world) {
	w.untouched("a dry run", func() {
		out := w.done(w.Apply(resource("Port", "dry", "{subnet: db, addresses: [10.0.1.77], host: h2}"), "--dry-run"))
		want := regexp.MustCompile(`(?s)^Port red/dry created \(dry run\)\nhost h1\n.*\+ record 5002 10\.0\.1\.77 .*-> 198\.18\.2\.2\nhost h2\n.*\+ port red/dry .*$`)
		if !want.MatchString(out) {
			w.t.Errorf("dry run says\n%s", out)
		}
	})
}

func dependants(w *world) {
	w.untouched("deleting what is used", func() {
		w.refused(w.Weft("delete", "subnet", "red/db"), "VirtualSubnet red/db", "Port red/db-1")
		w.refused(w.Weft("delete", "network", "red/prod"), "VirtualNetwork red/prod", "VirtualSubnet red/web", "VirtualSubnet red/db")
		w.refused(w.Weft("delete", "tenant", "red"), "Tenant red", "VirtualNetwork red/prod")
		w.refused(w.Weft("delete", "host", "h2"), "Host h2", "Port red/web-2", "Port blue/db-1")
		w.refused(w.Weft("delete", "port", "red/nosuch"), "Port red/nosuch", "does not exist")
	})
}

// listed lets those with a label ping red/web-2, and nobody else do anything. The rule stands in line 11.
const listed = `kind: AddressGroup
metadata: {tenant: red, name: friends}
spec: {ports: {role: friend}}
---
kind: AccessList
metadata: {tenant: red, name: web-in}
spec:
  mode: enforce
  default: {inbound: deny}
  rules:
  - name: friends
    direction: inbound
    action: allow
    protocol: icmp
    remote: {groups: [friends]}
---
kind: Port
metadata: {tenant: red, name: web-2}
spec: {subnet: web, host: h2, accessLists: [web-in]}
`

// An access list drops, counts, and is named wherever its rules matter; groups follow labels; audit drops nothing.
func listsJudge(w *world) {
	file := filepath.Join(w.t.TempDir(), "policy.yaml")
	apply := func(text string) {
		w.t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
		w.Must("apply", "-f", file, "--wait")
	}
	ping := func() int { return w.On("red/web-1", "ping", "-n", "-c1", "-W2", "10.0.0.6").Code }
	says := func(r fleet.Result, words ...string) {
		w.t.Helper()
		for _, word := range words {
			if !strings.Contains(r.Out, word) {
				w.t.Errorf("%s: does not say %q:\n%s%s", r.Line, word, r.Out, r.Words)
			}
		}
	}
	hits := func(rule string) (n int) {
		for line := range strings.Lines(w.Must("get", "acl", "red/web-in", "-o", "wide")) {
			if strings.Contains(line, " "+rule+" ") {
				fields := strings.Fields(line)
				n, _ = strconv.Atoi(fields[len(fields)-3])
			}
		}
		return n
	}
	apply(listed)
	if ping() == 0 {
		w.t.Error("a ping came through that no rule allows")
	}
	if n := hits("default inbound"); n != 1 {
		w.t.Errorf("the default has counted %d packets, not 1", n)
	}
	says(w.Weft("drops", "--port", "red/web-2"), "ACL_DENIED", "red/web-in default inbound")
	says(w.Weft("trace", "red/web-1", "--to", "10.0.0.6"), "red/web-in default inbound denies it")

	apply("kind: Port\nmetadata: {tenant: red, name: web-1, labels: {role: friend}}\nspec: {subnet: web, host: h1}\n")
	if ping() != 0 {
		w.t.Error("the ping of a friend is dropped")
	}
	if n := hits("friends"); n != 1 {
		w.t.Errorf("the rule has counted %d packets, not 1", n)
	}
	says(w.Weft("trace", "red/web-1", "--to", "10.0.0.6"), "red/web-in friends ("+file+":11)", "the answer comes back")
	says(w.Weft("get", "acl", "red/web-in", "-o", "wide"), file+":11")

	w.done(w.Apply("kind: Port\nmetadata: {tenant: red, name: web-1}\nspec: {subnet: web, host: h1}\n", "--wait"))
	if ping() == 0 {
		w.t.Error("a former friend's ping comes through")
	}
	apply(strings.Replace(listed, "enforce", "audit", 1))
	before := hits("default inbound")
	if ping() != 0 {
		w.t.Error("a list in audit drops")
	}
	if n := hits("default inbound") - before; n != 1 {
		w.t.Errorf("a list in audit has counted %d packets, not 1", n)
	}
	w.Verified()
	w.done(w.Apply(demo(w.t), "--wait"))
	w.Must("delete", "acl", "red/web-in")
	w.Must("delete", "group", "red/friends")
	w.Verified()
}

// Two people read one resource; who writes last is told that it has changed.
func conflict(w *world) {
	w.done(w.Apply(resource("Port", "shared", "{subnet: web}")))
	read := w.Must("get", "port", "red/shared", "-o", "yaml")
	first := strings.Replace(read, "name: shared\n", "name: shared\n  labels: {by: first}\n", 1)
	second := strings.Replace(read, "name: shared\n", "name: shared\n  labels: {by: second}\n", 1)
	if first == read {
		w.t.Fatalf("nothing to edit in\n%s", read)
	}
	w.done(w.Apply(first))
	w.untouched("an edit of what was changed since", func() {
		w.refused(w.Apply(second), "Port red/shared: metadata.revision", "changed since")
	})
	if now := w.Must("get", "port", "red/shared", "-o", "yaml"); !strings.Contains(now, "by: first") {
		w.t.Errorf("the first edit is lost:\n%s", now)
	}
	w.Must("delete", "port", "red/shared")
}

// agent runs one more agent beside the server, until stop. It says what its log has.
func (w *world) agent(name, token string) (log func() string, stop func()) {
	w.t.Helper()
	dir := w.t.TempDir()
	write := func(file, text string) string {
		path := filepath.Join(dir, file)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
		return path
	}
	write("token", token)
	config := write("config.yaml", fmt.Sprintf("host: %s\nserver: https://%s:7443\ntokenFile: %s/token\nstateDir: %s/state\nsocket: %s/s\npinDir: %s\nunderlay: eth0\nmetrics: \"\"\n",
		name, serverAt, dir, dir, dir, w.Pins("extra")))
	out, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command(fleet.Program("weftd"), "lab", "exec", "--name", w.Name, "server", "--", fleet.Program("weftd"), "agent", "--config", config)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	out.Close()
	gone := make(chan struct{})
	go func() { cmd.Wait(); close(gone) }()
	stop = sync.OnceFunc(func() {
		cmd.Process.Signal(syscall.SIGTERM) // it may have ended by itself
		<-gone
	})
	w.t.Cleanup(stop)
	return func() string { text, _ := os.ReadFile(out.Name()); return string(text) }, stop
}

func (w *world) logged(log func() string, words string) {
	w.t.Helper()
	w.Poll("the agent says "+words, func() error {
		if text := log(); !strings.Contains(text, words) {
			return fmt.Errorf("it says\n%s", text)
		}
		return nil
	})
}

func tokenOnce(w *world) {
	token := w.Must("token", "create", "h7")
	log, stop := w.agent("h7", token)
	w.logged(log, "joined the fleet")
	stop()
	log, stop = w.agent("h7", token)
	w.logged(log, "the token is not valid")
	if text := log(); strings.Contains(text, "joined the fleet") {
		w.t.Errorf("a token let two in:\n%s", text)
	}
	stop()
	w.done(w.OnWith(fleet.Server, "kind: Host\nmetadata: {name: h7}\n---\n"+w.Must("get", "pa", "h7-198-18-0-2", "-o", "yaml"), "weft", "delete", "-f", "-"))
}

// An agent that joins under a name that is in use gets no session while the
// first lives, and the first does not notice.
func secondAgent(w *world) {
	token := w.Must("token", "create", "h1")
	w.untouched("a second agent", func() {
		log, stop := w.agent("h1", token)
		defer stop()
		w.logged(log, "already has a live agent")
		if strings.Contains(log(), "session with the server stands") {
			w.t.Errorf("the second agent got a session:\n%s", log())
		}
		w.Connected()
		w.done(w.On("red/web-1", "ping", "-n", "-c1", "-W5", "10.0.0.6"))
	})
}

// With a host's certificate nobody gets into the API of people, and no other
// host's ports can be moved.
func hostAlone(w *world) {
	state := filepath.Join(w.Files("h1"), "state")
	dir := w.t.TempDir()
	path := filepath.Join(dir, "context.yaml")
	text := fmt.Sprintf("server: https://%s:7442\nca: %s/ca.pem\ncertificate: %s/host.pem\nkey: %s/host.pem\n", serverAt, state, state, state)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	h, err := identity.OpenHost(state)
	if err != nil {
		w.t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: h.TLS(), ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = stream.In(w.Space("h1"), func() error { c, err = (&net.Dialer{}).DialContext(ctx, network, address); return err })
			return c, err
		}}
	defer transport.CloseIdleConnections()
	asHost := hostv1connect.NewHostServiceClient(&http.Client{Transport: transport}, "https://"+serverAt+":7443")
	w.untouched("a host that reaches for more", func() {
		for _, line := range []string{"get ports -A", "status", "delete port red/web-2", "token create h2"} {
			argv := append([]string{"env", "-u", "WEFT_SERVER", fleet.Program("weft"), "--context", path}, strings.Fields(line)...)
			w.refused(w.On("h1", argv...))
		}
		mine := connect.NewRequest(&hostv1.BindPortRequest{Tenant: "red", Name: "web-1"})
		if _, err := asHost.BindPort(w.t.Context(), mine); err != nil {
			w.t.Errorf("h1 cannot bind its own port: %v", err)
		}
		theirs := &hostv1.BindPortRequest{Tenant: "red", Name: "web-2"}
		if _, err := asHost.BindPort(w.t.Context(), connect.NewRequest(theirs)); err == nil {
			w.t.Error("h1 bound a port of h2")
		}
		_, err := asHost.UnbindPort(w.t.Context(), connect.NewRequest(theirs))
		w.t.Logf("h1 unbinds a port of h2: %v", err) // whatever it says: nothing has changed
	})
}

// Who is neither root nor in the group opens no socket.
func strangers(w *world) {
	server, agent := filepath.Join("/run/weft/lab", w.Name, "server.sock"), filepath.Join(w.Files("h1"), "agent.sock")
	w.untouched("a stranger", func() {
		for _, line := range []string{"--server " + server + " get tenants", "--server " + server + " delete port red/web-1",
			"--agent " + agent + " unplug red/web-1"} {
			argv := append([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", fleet.Program("weft")}, strings.Fields(line)...)
			w.refused(fleet.Run("", argv...), "permission")
		}
	})
	for _, socket := range []string{server, agent} {
		info, err := os.Stat(socket)
		if err != nil || info.Mode().Perm() != 0o660 {
			w.t.Errorf("%s: %v, %v", socket, info.Mode(), err)
		}
	}
}

// lockedBuffer is written by a command and read by a test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// weft get -w goes on by itself when the server was killed and is back.
func watchSurvives(w *world) {
	var out, words lockedBuffer
	watch := exec.Command(fleet.Program("weft"), "--server", filepath.Join("/run/weft/lab", w.Name, "server.sock"), "get", "tenants", "-w")
	watch.Stdout, watch.Stderr = &out, &words
	if err := watch.Start(); err != nil {
		w.t.Fatal(err)
	}
	sees := func(line string) {
		w.t.Helper()
		w.Poll("the watch shows "+line, func() error {
			if !regexp.MustCompile(`(?m)^` + line + `\b`).MatchString(out.String()) {
				return fmt.Errorf("it shows\n%s%s", &out, &words)
			}
			return nil
		})
	}
	sees(`present +red`)
	w.done(w.Apply("kind: Tenant\nmetadata: {name: before}\n"))
	sees(`changed +before`)
	w.Kill(fleet.Server, syscall.SIGKILL)
	w.Start(fleet.Server)
	w.done(w.Apply("kind: Tenant\nmetadata: {name: after}\n"))
	sees(`changed +after`)
	w.Must("delete", "tenant", "before")
	sees(`gone +before`)
	w.Must("delete", "tenant", "after")
	if n := strings.Count(out.String(), "after"); n > 3 {
		w.t.Errorf("after is shown %d times:\n%s", n, &out)
	}
	watch.Process.Signal(os.Interrupt)
	if err := watch.Wait(); err != nil {
		w.t.Errorf("the watch ended with %v\n%s", err, &words)
	}
	w.Connected()
}

// 200 ports plugged and unplugged in random order, on two hosts and through the
// command line, leave no pin, row, device or binding.
func TestPlugsLeaveNothing(t *testing.T) {
	const ports, workers = 200, 6
	w := newWorld(t, "q", nil)
	w.Verified()
	before := w.Kernel()
	var set strings.Builder
	for i := range ports {
		set.WriteString(resource("Port", fmt.Sprintf("p%d", i), fmt.Sprintf("{subnet: %s}", []string{"web", "db"}[i%2])))
	}
	w.done(w.Apply(set.String()))
	spaces := map[string]string{}
	for _, h := range w.Hosts() {
		spaces[h] = w.Space("many-" + h)
		w.done(fleet.Run("", "ip", "netns", "add", spaces[h]))
	}
	work := make(chan int)
	var wait sync.WaitGroup
	for range workers {
		wait.Go(func() {
			for i := range work {
				w.comeAndGo(i, spaces)
			}
		})
	}
	for _, i := range rand.Perm(ports) {
		work <- i
	}
	close(work)
	wait.Wait()
	for _, l := range strings.Split(w.Must("get", "ports", "-n", "red"), "\n") {
		if f := strings.Fields(l); len(f) > 4 && strings.HasPrefix(f[1], "p") && strings.HasPrefix(f[4], "h") {
			t.Errorf("still bound: %s", l)
		}
	}
	w.done(w.OnWith(fleet.Server, set.String(), "weft", "delete", "-f", "-"))
	w.Verified()
	for _, space := range spaces {
		w.done(fleet.Run("", "ip", "netns", "del", space))
	}
	w.Same("kernel before and after "+fmt.Sprint(ports)+" ports", before, w.Kernel())
}

// comeAndGo plugs a port on one host and unplugs it, and sometimes again on the
// other. It runs beside others of its kind.
func (w *world) comeAndGo(i int, spaces map[string]string) {
	ref, ifname := fmt.Sprintf("red/p%d", i), fmt.Sprintf("e%d", i)
	for turn := range 1 + i%2 {
		host := w.Hosts()[(i/2+turn)%len(w.Hosts())]
		socket := filepath.Join(w.Files(host), "agent.sock")
		for _, r := range []fleet.Result{
			fleet.Run("", fleet.Program("weft"), "--agent", socket, "plug", ref, "--netns", spaces[host], "--ifname", ifname),
			fleet.Run("", fleet.Program("weft"), "--agent", socket, "unplug", ref),
		} {
			if err := r.Err(); err != nil {
				w.t.Error(err)
			}
		}
	}
}
