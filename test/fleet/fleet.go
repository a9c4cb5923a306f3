// Package fleet is a lab that a test may hurt: real hosts, agents and a real
// server, with a real etcd of its own when wanted, whose processes the test
// kills, starts again and replaces, and which it asks through the real weft.
//
// Invariants: everything carries a name that no other run has, and is gone with
// the test; a fleet that is left untidy fails the test that made it.
//
// It must never reach into a daemon: what it knows it knows from what people can
// ask, from packets and from the kernel.
package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/client"
	"github.com/weft-sdn/weft/internal/lab"
	"github.com/weft-sdn/weft/internal/store/etcdtest"
)

// etcdEnv makes this very test binary an etcd, with its data in the directory
// that it names.
const etcdEnv = "WEFT_TEST_ETCD"

// bin holds the weft and weftd that are tested, built once per test binary.
var bin string

// Main is TestMain of a package that uses fleets.
func Main(m *testing.M) {
	if dir := os.Getenv(etcdEnv); dir != "" {
		fmt.Fprintln(os.Stderr, etcdtest.Serve(dir))
		os.Exit(1)
	}
	os.Exit(func() int {
		if os.Geteuid() != 0 {
			fmt.Fprintln(os.Stderr, "hosts are network namespaces with eBPF: run as root")
			return 1
		}
		dir, err := os.MkdirTemp("", "weft-fleet")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := build(dir, "first", "./cmd/weft", "./cmd/weftd"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		// For those who are not root: they may run weft, whatever that gets them.
		if err := os.Chmod(dir, 0o755); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		bin = dir
		return m.Run()
	}())
}

// build puts programs with a version stamp into dir.
func build(dir, version string, args ...string) error {
	cmd := exec.Command("go", append([]string{"build", "-buildvcs=false", "-ldflags", "-X main.version=" + version, "-o", dir}, args...)...)
	cmd.Dir = Root()
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", args, err, out)
	}
	return nil
}

// Root is the top of the source tree.
func Root() string {
	dir, err := os.Getwd()
	for err == nil && dir != "/" {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	return "."
}

// Wait bounds how long anything of a fleet may take on a busy machine.
const Wait = 60 * time.Second

const lookAgain = 20 * time.Millisecond

// Options of New.
type Options struct {
	Spec         lab.Spec
	ExternalEtcd bool           // policy is in an etcd process of the fleet's own
	Agent        map[string]any // settings of every agent over the lab's
}

// Fleet is a lab with what a test needs to hurt it.
type Fleet struct {
	T    testing.TB
	Name string
	Dir  string // for files of the test

	hosts []string
	weftd map[string]string // program by daemon
	pids  map[string]int    // by daemon; 0 when it is dead
	etcd  string            // directory of its data
}

// Names of the daemons that are no host's agent.
const (
	Server = "server"
	Etcd   = "etcd"
)

// New brings a fleet up; it goes with the test.
func New(t testing.TB, suffix string, o Options) *Fleet {
	t.Helper()
	f := &Fleet{T: t, Name: "f" + strconv.Itoa(os.Getpid()) + suffix, Dir: t.TempDir(), hosts: o.Spec.Hosts,
		weftd: map[string]string{}, pids: map[string]int{}}
	l, err := lab.New(f.Name)
	f.must(err)
	t.Cleanup(func() {
		if t.Failed() {
			f.tellLogs()
		}
		if _, err := l.Down(context.Background()); err != nil {
			t.Errorf("down: %v", err)
		}
		f.wantNothing()
	})
	server := map[string]any{}
	if o.ExternalEtcd {
		f.etcd = t.TempDir()
		f.Start(Etcd)
		t.Cleanup(func() { f.Kill(Etcd, syscall.SIGKILL) })
		at := etcdtest.At(f.etcd)
		server["store"] = map[string]any{"endpoints": []string{at.String()}}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*Wait)
	defer cancel()
	f.must(l.Up(ctx, lab.Options{Spec: o.Spec, Weftd: filepath.Join(bin, "weftd"), Server: server, Agent: o.Agent,
		Say: func(format string, args ...any) { t.Logf(format, args...) }}))
	for _, d := range f.Daemons() {
		f.weftd[d] = filepath.Join(bin, "weftd")
		f.pids[d] = f.pidOf(d)
	}
	return f
}

func (f *Fleet) must(err error) {
	f.T.Helper()
	if err != nil {
		f.T.Fatal(err)
	}
}

// Daemons are the server and the agents, by the names of their hosts.
func (f *Fleet) Daemons() []string { return append([]string{Server}, f.hosts...) }

// Hosts by name.
func (f *Fleet) Hosts() []string { return f.hosts }

// Files is the directory of a daemon's settings, log and state.
func (f *Fleet) Files(daemon string) string {
	if daemon == Server {
		return filepath.Join("/run/weft/lab", f.Name, "server")
	}
	return filepath.Join("/run/weft/lab", f.Name, "hosts", daemon)
}

// Pins is where a host's switch is pinned.
func (f *Fleet) Pins(host string) string {
	return filepath.Join("/sys/fs/bpf/weft/lab-"+f.Name, host)
}

// Space is the network namespace of a host or of guest TENANT/PORT.
func (f *Fleet) Space(where string) string {
	return "weft-" + f.Name + "-" + strings.ReplaceAll(where, "/", ".")
}

func (f *Fleet) pidOf(daemon string) int {
	f.T.Helper()
	text, err := os.ReadFile(filepath.Join(f.Files(daemon), "pid"))
	f.must(err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	f.must(err)
	return pid
}

// Kill sends a daemon a signal and waits for its end. A dead one is left in peace.
func (f *Fleet) Kill(daemon string, signal syscall.Signal) {
	f.T.Helper()
	pid := f.pids[daemon]
	if pid == 0 {
		return
	}
	f.must(syscall.Kill(pid, signal))
	f.Poll("the end of "+daemon, func() error {
		if syscall.Kill(pid, 0) == nil {
			return fmt.Errorf("process %d is there", pid)
		}
		return nil
	})
	f.pids[daemon] = 0
}

// Start starts a daemon that was killed, and waits until it answers.
func (f *Fleet) Start(daemon string) {
	f.T.Helper()
	var cmd *exec.Cmd
	log := filepath.Join(f.etcd, "log")
	answers := func() error { _, err := os.Stat(etcdSocket(f.etcd)); return err }
	if daemon == Etcd {
		self, err := os.Executable()
		f.must(err)
		os.Remove(etcdSocket(f.etcd)) // of the last one
		cmd = exec.Command(self)
		cmd.Env = append(os.Environ(), etcdEnv+"="+f.etcd)
	} else {
		role := "agent"
		if daemon == Server {
			role = "server"
		}
		log = filepath.Join(f.Files(daemon), "log")
		cmd = exec.Command(filepath.Join(bin, "weftd"), "lab", "exec", "--name", f.Name, daemon, "--",
			f.weftd[daemon], role, "--config", filepath.Join(f.Files(daemon), "config.yaml"))
		answers = func() error {
			if role == "agent" {
				return f.agentAnswers(daemon)
			}
			return f.Weft("get", "hosts").Err()
		}
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	f.must(err)
	defer out.Close()
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	f.must(cmd.Start())
	gone := make(chan struct{})
	go func() { cmd.Wait(); close(gone) }()
	f.pids[daemon] = cmd.Process.Pid
	f.Poll(daemon+" answers", func() error {
		select {
		case <-gone:
			text, _ := os.ReadFile(log)
			f.T.Fatalf("%s ended:\n%s", daemon, text)
		default:
		}
		return answers()
	})
}

func etcdSocket(dir string) string { at := etcdtest.At(dir); return at.Path }

// agentAnswers asks an agent, past the server.
func (f *Fleet) agentAnswers(host string) error {
	agent := client.Unix(filepath.Join(f.Files(host), "agent.sock"))
	defer agent.Close()
	_, err := agent.Agent().AgentStatus(context.Background(), connect.NewRequest(&weftv1.AgentStatusRequest{}))
	return err
}

// Replace makes the daemon's next start run another program.
func (f *Fleet) Replace(daemon, weftd string) { f.weftd[daemon] = weftd }

// Build builds another weftd with a version stamp; args are more flags of go build.
func (f *Fleet) Build(version string, args ...string) (weftd string) {
	f.T.Helper()
	dir := filepath.Join(f.Dir, version)
	f.must(os.MkdirAll(dir, 0o700))
	f.must(build(dir+"/", version, append(args, "./cmd/weftd")...))
	return filepath.Join(dir, "weftd")
}

// Result is how a command ended.
type Result struct {
	Line       string // what was run
	Code       int
	Out, Words string // stdout, stderr
}

// Err is nil when the command succeeded.
func (r Result) Err() error {
	if r.Code == 0 {
		return nil
	}
	return fmt.Errorf("%s: exit code %d\n%s%s", r.Line, r.Code, r.Out, r.Words)
}

// Run runs a command as it is.
func Run(stdin string, argv ...string) Result {
	var out, words bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &out, &words
	err := cmd.Run()
	r := Result{Line: strings.Join(argv, " "), Out: out.String(), Words: words.String()}
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		r.Code = exit.ExitCode()
	case err != nil:
		r.Code, r.Words = -1, err.Error()
	}
	return r
}

// On runs a command on a host or in a guest.
func (f *Fleet) On(where string, argv ...string) Result {
	return f.OnWith(where, "", argv...)
}

// OnWith is On with an input.
func (f *Fleet) OnWith(where, stdin string, argv ...string) Result {
	r := Run(stdin, append([]string{filepath.Join(bin, "weftd"), "lab", "exec", "--name", f.Name, where, "--"}, argv...)...)
	r.Line = where + ": " + strings.Join(argv, " ")
	return r
}

// Program is the path of weft or weftd.
func Program(name string) string { return filepath.Join(bin, name) }

// Weft runs weft beside the server.
func (f *Fleet) Weft(args ...string) Result {
	return f.On(Server, append([]string{"weft"}, args...)...)
}

// Must runs weft, which must succeed, and gives what it prints.
func (f *Fleet) Must(args ...string) string {
	f.T.Helper()
	r := f.Weft(args...)
	f.must(r.Err())
	return r.Out
}

// Apply applies manifests.
func (f *Fleet) Apply(manifests string, flags ...string) Result {
	return f.OnWith(Server, manifests, append([]string{"weft", "apply", "-f", "-"}, flags...)...)
}

// Poll waits for what nothing announces.
func (f *Fleet) Poll(what string, try func() error) {
	f.T.Helper()
	deadline := time.Now().Add(Wait)
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			f.T.Fatalf("waited for: %s: %v", what, err)
		}
		<-tick.C
	}
}

// Connected waits until the server has every agent's session.
func (f *Fleet) Connected() {
	f.T.Helper()
	want := fmt.Sprintf("%d of %d hosts connected", len(f.hosts), len(f.hosts))
	f.Poll(want, func() error {
		r := f.Weft("status")
		if r.Code != 0 || !strings.Contains(r.Out, want) {
			return fmt.Errorf("code %d: %s%s", r.Code, r.Out, r.Words)
		}
		return nil
	})
}

// Verified waits until all hosts hold the present revision, and fails the test
// if any kernel holds something else.
func (f *Fleet) Verified() {
	f.T.Helper()
	f.Poll("every host holds the present policy", func() error {
		r := f.Weft("verify")
		// A difference is never waited for: it is what this looks for.
		if r.Code == 3 && !strings.Contains(r.Out+r.Words, "revision") {
			f.T.Fatal(r.Err())
		}
		return r.Err()
	})
}

// tellLogs shows the end of every log.
func (f *Fleet) tellLogs() {
	for _, d := range f.Daemons() {
		text, _ := os.ReadFile(filepath.Join(f.Files(d), "log"))
		f.T.Logf("end of the log of %s:\n%s", d, text[max(0, len(text)-4000):])
	}
}

// wantNothing fails the test if anything of the fleet is left.
func (f *Fleet) wantNothing() {
	spaces, err := filepath.Glob("/run/netns/weft-" + f.Name + "-*")
	if err != nil || len(spaces) > 0 {
		f.T.Errorf("namespaces are left: %s, %v", spaces, err)
	}
	for _, path := range []string{filepath.Join("/run/weft/lab", f.Name), "/sys/fs/bpf/weft/lab-" + f.Name} {
		if _, err := os.Lstat(path); err == nil {
			f.T.Errorf("%s is left", path)
		}
	}
}
