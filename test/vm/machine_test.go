package vm

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/test/twohosts"
	"github.com/weft-sdn/weft/test/vm/console"
	"github.com/weft-sdn/weft/test/vm/initramfs"
)

// bootTime is far more than the seconds that a boot takes in emulation.
const bootTime = 3 * time.Minute

// machine is a running virtual machine and its serial line.
type machine struct {
	t       testing.TB
	stdin   io.Writer
	answers chan console.Answer
	asked   int
}

// start boots a machine whose NIC is the tap of the namespace and has the MTU,
// and waits for it.
func start(t testing.TB, ns, tap string, mac model.MAC, mtu int) *machine {
	t.Helper()
	k, err := getKernel()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("guest kernel %s, %d modules", k.version, len(k.modules))
	image := filepath.Join(t.TempDir(), "initramfs")
	if err := os.WriteFile(image, fileSystem(buildInit(t), k.modules), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "1", "-m", "256",
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-serial", "stdio",
		"-kernel", k.image, "-initrd", image, "-append", "console=ttyS0 quiet panic=-1",
		"-netdev", "tap,id=nic,ifname="+tap+",script=no,downscript=no,vhost=off",
		"-device", fmt.Sprintf("virtio-net-pci,netdev=nic,mac=%s,host_mtu=%d,romfile=", mac, mtu))
	return run(t, cmd, ns)
}

// fileSystem holds init as process 1, the modules, and a console for its voice.
func fileSystem(init []byte, modules map[string][]byte) []byte {
	var a initramfs.Archive
	for _, dir := range []string{"proc", "sys", "modules"} {
		a.Dir(dir)
	}
	a.Console()
	a.File("init", init)
	for name, m := range modules {
		a.File("modules/"+name+".ko", m)
	}
	return a.Bytes()
}

// buildInit compiles the machine's only program.
func buildInit(t testing.TB) []byte {
	t.Helper()
	to := filepath.Join(t.TempDir(), "init")
	cmd := exec.Command("go", "build", "-buildvcs=false", "-ldflags", "-s -w", "-o", to, "./guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the guest: %v: %s", err, out)
	}
	b, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// run starts the emulator inside the namespace and listens to its console.
func run(t testing.TB, cmd *exec.Cmd, ns string) *machine {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	// The kernel kills the emulator when the thread that started it ends, so that
	// thread lives as long: nothing is left even of a test that is killed.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		defer close(ended)
		err := twohosts.In(ns, func() error {
			started <- cmd.Start()
			return cmd.Wait()
		})
		select {
		case started <- err: // the namespace could not be entered
		default:
		}
	}()
	if err := <-started; err != nil {
		t.Fatalf("start %s: %v", cmd.Path, err)
	}
	in.Close()
	m := &machine{t: t, stdin: stdin, answers: make(chan console.Answer, 16)}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	go m.listen(out)
	if a := m.await(0, bootTime); a.Error != "" {
		t.Fatalf("the guest could not start: %s", a.Error)
	}
	return m
}

// listen sorts answers from the kernel's talk, which goes to the test's log.
func (m *machine) listen(r io.Reader) {
	defer close(m.answers)
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		text, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), console.Prefix)
		var a console.Answer
		if !ok || json.Unmarshal([]byte(text), &a) != nil {
			fmt.Fprintf(os.Stderr, "console: %s\n", lines.Text())
			continue
		}
		m.answers <- a
	}
}

func (m *machine) await(id int, patience time.Duration) console.Answer {
	m.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case a, ok := <-m.answers:
			if !ok {
				m.t.Fatal("the machine stopped")
			}
			if a.ID == id {
				return a
			}
		case <-deadline:
			m.t.Fatalf("no answer from the machine within %s", patience)
		}
	}
}

// do gives a command and returns what the machine says; an error is the machine's.
func (m *machine) do(c console.Command) (string, error) {
	m.t.Helper()
	m.asked++
	c.ID = m.asked
	b, err := json.Marshal(c)
	if err != nil {
		m.t.Fatal(err)
	}
	if _, err := m.stdin.Write(append(b, '\n')); err != nil {
		m.t.Fatalf("speak to the machine: %v", err)
	}
	a := m.await(c.ID, 2*time.Minute)
	if a.Error != "" {
		return a.Text, fmt.Errorf("%s %s: %s", c.Do, c.To, a.Error)
	}
	return a.Text, nil
}
