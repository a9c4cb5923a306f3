package kernels

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weft-sdn/weft/test/kernels/job"
	"github.com/weft-sdn/weft/test/vm/initramfs"
)

// tools of this machine that the tests run, and the demo; they go into the virtual
// machine with their libraries.
var tools = []string{"ip", "tc", "bridge", "ethtool", "ping", "sysctl", "cat", "sh", "ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl"}

// modules that the tests need and distributions do not build in.
var modules = []string{"veth", "tun", "bridge", "vxlan", "ip_gre", "ip6_gre", "openvswitch", "8021q", "bonding"}

// modulesIfAny are part of others in newer kernels.
var modulesIfAny = []string{"vport-gre", "vport-vxlan"}

// files of this machine that the tools read.
var files = []string{"/usr/share/openvswitch/vswitch.ovsschema"}

// outcome is what became of one job.
type outcome struct {
	output  string
	seconds float64
	failure string // "" when it ended well
}

// boot runs the jobs on the kernel, in emulation, and gives their outcomes and the
// kernel's complaints. The whole takes no longer than limit.
func boot(t *testing.T, k kernel, programs map[string]string, jobs []job.Job, limit time.Duration) (map[string]outcome, []string) {
	t.Helper()
	image, err := k.image()
	if err != nil {
		t.Fatal(err)
	}
	ram := filepath.Join(t.TempDir(), "initramfs")
	if err := os.WriteFile(ram, fileSystem(t, k, programs, jobs), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	// Without cx16: in QEMU 7.2 the flags were garbage behind cmpxchg16b, and 6.12 fell
	// within seconds. One CPU: 6.12 was tried with two only before that was known.
	cmd := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max,-cx16", "-smp", "1", "-m", "1536",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-nic", "none", "-serial", "stdio",
		"-kernel", image, "-initrd", ram, "-append", "console=ttyS0 loglevel=5 panic=-1 oops=panic")
	// The kernel kills the emulator when this thread ends: nothing is left even of a
	// test that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	c := console{outcomes: map[string]outcome{}}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := strings.TrimRight(lines.Text(), "\r")
		if strings.HasPrefix(line, job.Prefix) {
			t.Logf("%3.0f s: %s", time.Since(begin).Seconds(), line)
		}
		c.hear(line)
	}
	err = cmd.Wait()
	t.Logf("%s ran for %.0f s", k.version, time.Since(begin).Seconds())
	if err != nil || c.error != "" || len(c.outcomes) < len(jobs) {
		t.Errorf("the machine did not do all its jobs: %v %s; it was at %q, and said\n%s", err, c.error, c.running, end(c.said.String()))
	}
	return c.outcomes, c.complaints
}

// console sorts what the machine says by job.
type console struct {
	outcomes   map[string]outcome
	running    string
	said       strings.Builder // since the last mark
	complaints []string
	error      string
}

// harmless complaints of the kernel. skb_try_coalesce: where sender and receiver are in one kernel, as only in labs,
// a packet still belongs to its sender's socket when room for outer headers is made before it, and then the kernel does not count the memory of
// the larger head (pskb_expand_head): the receiver's TCP finds less counted than there is. A tap's packets have
// 64 bytes of room, and VXLAN over IPv6 needs 70.
var harmless = []string{"skb_try_coalesce"}

// complaints begin so in the kernel's log.
var complaints = []string{"WARNING: ", "BUG: ", "Oops", "Kernel panic", "INFO: rcu", "INFO: task", "watchdog: "}

func isHarmless(line string) bool {
	return slices.ContainsFunc(harmless, func(what string) bool { return strings.Contains(line, what) })
}

func (c *console) hear(line string) {
	text, ok := strings.CutPrefix(line, job.Prefix)
	var m job.Mark
	if !ok || json.Unmarshal([]byte(text), &m) != nil {
		c.said.WriteString(line + "\n")
		for _, begin := range complaints {
			if strings.HasPrefix(line, "[") && strings.Contains(line, "] "+begin) && !isHarmless(line) {
				c.complaints = append(c.complaints, line)
			}
		}
		return
	}
	switch {
	case m.Job == "":
		c.error = m.Error
	case m.Ended:
		c.outcomes[m.Job], c.running = outcome{c.said.String(), m.Seconds, m.Error}, ""
	default:
		c.running = m.Job
	}
	c.said.Reset()
}

// end is the last lines of a text.
func end(text string) string {
	const most = 60
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-most):], "\n")
}

// fileSystem is all that the machine has.
func fileSystem(t *testing.T, k kernel, programs map[string]string, jobs []job.Job) []byte {
	t.Helper()
	var a initramfs.Archive
	a.Console()
	for _, d := range []string{"proc", "sys", "tmp", "run", "etc", "var"} {
		a.Dir(d)
	}
	a.Link("var/run", "/run")
	a.Link("sbin", "bin")
	for to, from := range programs {
		a.File(to, read(t, from))
	}
	for _, from := range slices.Concat(libraries(t), files) {
		a.File(strings.TrimPrefix(from, "/"), read(t, from))
	}
	for _, name := range tools {
		a.File("bin/"+name, read(t, tool(t, name)))
	}
	names := slices.Clone(modules)
	for _, m := range modulesIfAny {
		if _, err := k.find(m + ".ko"); err == nil {
			names = append(names, m)
		}
	}
	order, err := k.modules(names...)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range order {
		a.File(fmt.Sprintf("modules/%02d-%s.ko", i, m.name), m.content)
	}
	b, err := json.Marshal(jobs)
	if err != nil {
		t.Fatal(err)
	}
	a.File(strings.TrimPrefix(job.File, "/"), b)
	return a.Bytes()
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tool(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: make test-kernels installs it", err)
	}
	return p
}

// libraries lists those that the tools are linked with, the loader among them.
func libraries(t *testing.T) []string {
	t.Helper()
	found := map[string]bool{}
	var needed []string
	for _, name := range tools {
		out, err := exec.Command("ldd", tool(t, name)).Output()
		if err != nil {
			t.Fatalf("libraries of %s: %v", name, err)
		}
		for field := range strings.FieldsSeq(string(out)) {
			if filepath.IsAbs(field) && !found[field] {
				found[field] = true
				needed = append(needed, field)
			}
		}
	}
	return needed
}
