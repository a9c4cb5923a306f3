package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/agent"
	"github.com/weft-sdn/weft/internal/server"
)

// weftd runs a command line in this process.
func weftd(args ...string) (code int, out, words string) {
	var o, w bytes.Buffer
	code = run(context.Background(), args, &o, &w)
	return code, o.String(), w.String()
}

func TestUsageIsCode2(t *testing.T) {
	for _, line := range []string{"nope", "server extra", "agent --join https://x", "agent --token-file x", "lab up --name a-b",
		"lab exec h1", "lab exec h1 --", "lab demo", "lab up --hosts 3 -f x.yaml", "up --nope"} {
		if code, _, words := weftd(strings.Fields(line)...); code != exitUsage || !strings.HasPrefix(words, "error: ") {
			t.Errorf("%s: code %d, %q", line, code, words)
		}
	}
	for _, line := range []string{"server --config /none", "agent --config /none", "lab up -f /none", "lab up --hosts 0", "lab exec --name none h1 -- true", "lab status --name none"} {
		if code, _, words := weftd(strings.Fields(line)...); code != exitFailed || !strings.HasPrefix(words, "error: ") {
			t.Errorf("%s: code %d, %q", line, code, words)
		}
	}
}

func TestPrintConfigIsTheDefaultAndReadsBack(t *testing.T) {
	code, text, _ := weftd("server", "--print-config")
	if _, err := server.ParseConfig([]byte(text)); code != 0 || err != nil || !strings.Contains(text, "# ") {
		t.Errorf("server: code %d, %v\n%s", code, err, text)
	}
	code, text, _ = weftd("agent", "--print-config")
	if _, err := agent.ParseConfig([]byte(text)); code != 0 || err != nil || !strings.Contains(text, "# ") {
		t.Errorf("agent: code %d, %v\n%s", code, err, text)
	}
}

func TestLocalURL(t *testing.T) {
	for listening, want := range map[string]string{"[::]:7443": "https://127.0.0.1:7443", "0.0.0.0:1": "https://127.0.0.1:1",
		"192.0.2.1:7": "https://192.0.2.1:7", "[2001:db8::1]:7": "https://[2001:db8::1]:7", ":9": "https://127.0.0.1:9"} {
		if got, err := localURL(listening); got != want || err != nil {
			t.Errorf("%s: %s, %v", listening, got, err)
		}
	}
	if got, err := localURL("nonsense"); err == nil {
		t.Errorf("nonsense: %s", got)
	}
}

// machine marks the process that plays the one machine of TestUp.
const machine = "WEFTD_TEST_MACHINE"

// TestUp: one machine, one process, from nothing to a guest that pings its
// gateway; and again after a restart, without plugging anew.
func TestUp(t *testing.T) {
	if os.Getenv(machine) == "" {
		onOwnMachine(t)
		return
	}
	dir := os.Getenv(machine)
	sh(t, "mount -t proc proc /proc && mount -t tmpfs tmpfs /run && mount -t bpf bpf /sys/fs/bpf")
	sh(t, "ip link set lo up && ip link add eth0 type veth peer name wire && ip link set wire up && ip address add 192.0.2.1/24 dev eth0 && ip link set eth0 up && ip route add default via 192.0.2.254")
	sh(t, "ip netns add vm")
	manifest := filepath.Join(dir, "one.yaml")
	if err := os.WriteFile(manifest, []byte(oneGuest), 0o600); err != nil {
		t.Fatal(err)
	}

	stop := startUp(t, dir)
	sh(t, dir+"/weft apply -f "+manifest+" --wait")
	sh(t, dir+"/weft plug red/web-1 --netns vm")
	sh(t, "ip netns exec vm ping -c1 10.0.0.1 && ip netns exec vm ping -c1 fd00:a::1")
	// The server hears of the device a moment after plug has returned.
	sh(t, "timeout 20 sh -c 'until "+dir+"/weft get port red/web-1 -o yaml | grep \"mtu: 1458\"; do :; done'")
	stop()
	sh(t, "ip netns exec vm ping -c1 10.0.0.1") // while nothing runs

	stop = startUp(t, dir)
	sh(t, dir+"/weft verify && ip netns exec vm ping -c1 10.0.0.1")
	if out := sh(t, dir+"/weft status"); !strings.Contains(out, "1 of 1 hosts connected") {
		t.Errorf("status:\n%s", out)
	}
	cleanup(t, dir, false)
	stop()
	cleanup(t, dir, true)
	if out := sh(t, "find /sys/fs/bpf -mindepth 1 -path '*weft*'; ip -br link | grep weft || true; ip netns exec vm ip -br link | grep eth0 || true"); out != "" {
		t.Errorf("cleanup left:\n%s", out)
	}
}

// cleanup takes the switch off the machine, which is refused while an agent runs.
func cleanup(t *testing.T, dir string, wantDone bool) {
	t.Helper()
	config := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(config, []byte("stateDir: "+filepath.Join(dir, "data", "agent")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(dir, "weftd"), "agent", "--config", config, "--cleanup").CombinedOutput()
	if (err == nil) != wantDone {
		t.Fatalf("cleanup: %v\n%s", err, out)
	}
}

const oneGuest = `
kind: Tenant
metadata: {name: red}
---
kind: VirtualNetwork
metadata: {tenant: red, name: prod}
---
kind: VirtualSubnet
metadata: {tenant: red, name: web}
spec: {network: prod, prefixes: [10.0.0.0/24, "fd00:a::/64"]}
---
kind: Port
metadata: {tenant: red, name: web-1}
spec: {subnet: web, addresses: [10.0.0.5, "fd00:a::5"]}
`

// onOwnMachine runs this test again with network, mounts and processes of its
// own, so that weftd's default paths are free and nothing is left.
func onOwnMachine(t *testing.T) {
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", dir, ".", "../weft")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	again := exec.CommandContext(ctx, self, "-test.run=^TestUp$", "-test.v", "-test.count=1")
	again.Env = append(os.Environ(), machine+"="+dir)
	again.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS}
	if out, err := again.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// stopWait is what a service manager's patience must not be needed for.
const stopWait = 5 * time.Second

// sh runs a script that must succeed.
func sh(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("sh", "-ec", script).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	return string(out)
}

// startUp runs weftd up and waits until the host is connected; stop ends it and
// checks that it ended well.
func startUp(t *testing.T, dir string) (stop func()) {
	t.Helper()
	var log bytes.Buffer
	cmd := exec.Command(filepath.Join(dir, "weftd"), "up", "--data-dir", filepath.Join(dir, "data"))
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		out, err := exec.Command(filepath.Join(dir, "weft"), "status").CombinedOutput()
		if err == nil && bytes.Contains(out, []byte("1 of 1 hosts connected")) {
			break
		}
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			cmd.Wait()
			t.Fatalf("not up: %s\n%s", out, &log)
		}
	}
	return func() {
		t.Helper()
		asked := time.Now()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatal(fmt.Errorf("weftd up ended: %w\n%s", err, &log))
		}
		if took := time.Since(asked); took > stopWait {
			t.Errorf("weftd up took %s to end", took)
		}
	}
}
