package cli

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/manifest"
	"github.com/weft-sdn/weft/internal/server"
)

// realServer runs a server with its store in this process and points the
// command line at its local socket.
func realServer(t *testing.T) (server.Config, server.Addresses) {
	t.Helper()
	dir := t.TempDir()
	cfg, err := server.ParseConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg.DataDir, cfg.Socket = filepath.Join(dir, "data"), filepath.Join(dir, "s")
	cfg.Listen.API, cfg.Listen.Hosts, cfg.Metrics = "127.0.0.1:0", "127.0.0.1:0", ""
	ready := make(chan server.Addresses, 1)
	cfg.Ready = func(a server.Addresses) { ready <- a }
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx, cfg, slog.New(slog.NewTextHandler(io.Discard, nil))) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("server: %v", err)
		}
	})
	t.Setenv("WEFT_SERVER", cfg.Socket)
	t.Setenv("WEFT_CONTEXT", "")
	t.Setenv("XDG_CONFIG_HOME", dir)
	select {
	case a := <-ready:
		return cfg, a
	case err := <-done:
		done <- err
		t.Fatalf("server: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the server is not ready")
	}
	panic("unreachable")
}

func TestAgainstARealServer(t *testing.T) {
	realServer(t)
	const demo = "../../examples/demo.yaml"

	if r := weft(t, "", "apply", "-f", demo, "--dry-run"); r.code != ExitDone || strings.Count(r.out, " created (dry run)\n") != 18 {
		t.Errorf("dry run: %+v", r)
	}
	weft(t, "", "get", "tenants").want(t, ExitDone, "", "no Tenant\n")
	if r := weft(t, "", "diff", "-f", demo); r.code != ExitNotConverged || !strings.Contains(r.err, "18 of 18 resources differ") {
		t.Errorf("diff before: %+v", r)
	}
	if r := weft(t, "", "apply", "-f", demo); r.code != ExitDone || strings.Count(r.out, " created\n") != 18 {
		t.Errorf("apply: %+v", r)
	}
	if r := weft(t, "", "apply", "-f", demo); r.code != ExitDone || strings.Count(r.out, " unchanged\n") != 18 {
		t.Errorf("apply again: %+v", r)
	}
	weft(t, "", "diff", "-f", demo).want(t, ExitDone, "", "")
	weft(t, "", "get", "ports", "-n", "red", "-o", "name").want(t, ExitDone, "Port red/db-1\nPort red/web-1\nPort red/web-2\nPort red/web-3\n", "")

	// What get prints, apply takes; nothing has changed by that.
	all := weft(t, "", "get", "ports", "-A", "-o", "yaml")
	if back, err := manifest.Parse([]byte(all.out)); err != nil || len(back) != 8 {
		t.Errorf("get -o yaml: %d resources, %v", len(back), err)
	}
	if r := weft(t, all.out, "apply", "-f", "-"); r.code != ExitDone || strings.Count(r.out, " unchanged\n") != 8 {
		t.Errorf("get -o yaml | apply -f -: %+v", r)
	}

	// No agent is connected: nobody acknowledges.
	if r := weft(t, "", "apply", "-f", demo, "--wait", "--timeout", "300ms"); r.code != ExitNotConverged || !strings.Contains(r.err, "Port red/web-1: Programmed is False") {
		t.Errorf("wait without agents: %+v", r)
	}
	// Tenants concern no host, so there is nothing to wait for.
	if r := weft(t, "kind: Tenant\nmetadata: {name: green}\n", "apply", "-f", "-", "--wait", "--timeout", "20s"); r.code != ExitDone {
		t.Errorf("wait for a tenant: %+v", r)
	}

	const wrong = `
kind: Port
metadata: {tenant: red, name: web-9}
spec: {subnet: web, addresses: [10.9.9.9]}
---
kind: VirtualSubnet
metadata: {tenant: red, name: low}
spec: {network: prod, vsid: 4095, prefixes: [10.7.0.0/24]}
`
	r := weft(t, wrong, "apply", "-f", "-")
	if r.code != ExitFailed || strings.Count(r.err, "error: ") != 2 ||
		!strings.Contains(r.err, "error: Port red/web-9: spec.addresses[0]: ") || !strings.Contains(r.err, "error: VirtualSubnet red/low: spec.vsid: ") {
		t.Errorf("violations: %+v", r)
	}
	if r := weft(t, "", "get", "port", "red/web-9"); r.code != ExitFailed || !strings.Contains(r.err, "web-9") {
		t.Errorf("get of nothing: %+v", r)
	}
	if r := weft(t, "", "delete", "subnet", "red/web"); r.code != ExitFailed || !strings.Contains(r.err, "web-1") {
		t.Errorf("delete with dependants: %+v", r)
	}
	weft(t, "", "delete", "port", "red/web-3").want(t, ExitDone, "Port red/web-3 deleted\n", "")

	if r := weft(t, "", "lookup", "5001", "10.0.0.6"); r.code != ExitDone || !strings.Contains(r.out, "red/web-2") {
		t.Errorf("lookup: %+v", r)
	}
	if r := weft(t, "", "lookup", "5001", "10.0.0.7"); r.code != ExitFailed {
		t.Errorf("lookup of nothing: %+v", r)
	}
	if r := weft(t, "", "status"); r.code != ExitDone || !strings.Contains(r.out, "0 of 2 hosts connected") {
		t.Errorf("status: %+v", r)
	}
	if r := weft(t, "", "verify"); r.code != ExitNotConverged || !strings.Contains(r.out, "h1 does not answer") {
		t.Errorf("verify: %+v", r)
	}
	if r := weft(t, "", "describe", "network", "red/prod"); r.code != ExitDone || !strings.Contains(r.out, "rdid") || !strings.Contains(r.out, "Accepted") {
		t.Errorf("describe: %+v", r)
	}
	if r := weft(t, "", "token", "create", "h1"); r.code != ExitDone || !strings.HasPrefix(r.out, "weft1.") || strings.Count(r.out, "\n") != 1 {
		t.Errorf("token: %+v", r)
	}
	weft(t, "", "delete", "-f", demo).wantFailure(t, "web-3")
	weft(t, "", "apply", "-f", demo)
	if r := weft(t, "", "delete", "-f", demo); r.code != ExitDone || strings.Count(r.out, " deleted\n") != 18 {
		t.Errorf("delete -f: %+v", r)
	}
}

func (r result) wantFailure(t *testing.T, words string) {
	t.Helper()
	if r.code != ExitFailed || !strings.Contains(r.err, words) {
		t.Errorf("%+v, want a failure that says %q", r, words)
	}
}

// A watch sees what is there, and then what changes, until it is interrupted.
func TestWatchARealServer(t *testing.T) {
	realServer(t)
	weft(t, "kind: Tenant\nmetadata: {name: red}\n", "apply", "-f", "-")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, in := io.Pipe()
	code := make(chan int, 1)
	go func() {
		a := &app{in: strings.NewReader(""), out: in, err: io.Discard, now: time.Now}
		code <- run(ctx, a, []string{"get", "tenants", "-w"})
		in.Close()
	}()
	seen, chunk := "", make([]byte, 4096)
	until := func(words string) {
		t.Helper()
		for !strings.Contains(seen, words) {
			n, err := out.Read(chunk)
			if err != nil {
				t.Fatalf("the watch ended: %v\n%s", err, seen)
			}
			seen += string(chunk[:n])
		}
	}
	until("present   red")
	weft(t, "kind: Tenant\nmetadata: {name: blue}\n", "apply", "-f", "-")
	until("changed   blue")
	weft(t, "", "delete", "tenant", "red")
	until("gone      red")
	cancel()
	go io.Copy(io.Discard, out)
	if c := <-code; c != ExitDone {
		t.Errorf("exit code %d after an interruption", c)
	}
}

// Over the network, the context file that the server writes for its first
// administrator is all that a client needs.
func TestOverTheNetwork(t *testing.T) {
	cfg, at := realServer(t)
	t.Setenv("WEFT_SERVER", "")
	admin := findContext(t, cfg.DataDir)
	if r := weft(t, "", "status", "--context", admin, "--server", at.API); r.code != ExitDone || !strings.Contains(r.out, "0 of 0 hosts connected") {
		t.Errorf("with a certificate: %+v", r)
	}
	if r := weft(t, "", "status", "--server", at.API); r.code != ExitFailed || !strings.Contains(r.err, "mutual TLS") {
		t.Errorf("without one: %+v", r)
	}
	// The face for hosts lets no administrator in.
	if r := weft(t, "", "status", "--context", admin, "--server", at.Hosts); r.code != ExitFailed {
		t.Errorf("at the hosts' face: %+v", r)
	}
}

func findContext(t *testing.T, dir string) string {
	t.Helper()
	var found string
	filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "context.yaml") {
			found = path
		}
		return nil
	})
	if found == "" {
		t.Fatal("the server wrote no context file")
	}
	return found
}
