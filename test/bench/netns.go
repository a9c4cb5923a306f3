package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	prefix   = "wb-"
	netnsDir = "/run/netns"
	lockFile = "/run/weft-bench.lock"
)

// exclusive refuses a second bench on this machine: each would spoil the other's
// figures and sweep its namespaces.
func exclusive() (func(), error) {
	f, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("another bench holds %s: wait for it to end: %w", lockFile, err)
	}
	return func() { f.Close() }, nil
}

// sweep removes every namespace of this or of a killed earlier run.
func sweep() {
	stale, _ := filepath.Glob(filepath.Join(netnsDir, prefix+"*"))
	for _, path := range stale {
		if err := exec.Command("ip", "netns", "del", filepath.Base(path)).Run(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: namespace %s stays: %v\n", path, err)
		}
	}
}

// sh runs a script of one command per line, words split at spaces.
func sh(ctx context.Context, script string) error {
	for line := range strings.Lines(script) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		out, err := exec.CommandContext(ctx, words[0], words[1:]...).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", strings.Join(words, " "), err, out)
		}
	}
	return nil
}

// inside runs f on a thread that is in the named network namespace. What f
// starts (processes, goroutines) must not rely on it.
func inside(name string, f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := enter(name); err != nil {
		runtime.UnlockOSThread()
		return err
	}
	err = f()
	// A thread that cannot come back stays locked, and ends with its goroutine.
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return fmt.Errorf("leaving namespace %s: %w", name, back)
	}
	runtime.UnlockOSThread()
	return err
}

// enter moves the calling thread into the named network namespace.
func enter(name string) error {
	ns, err := os.Open(filepath.Join(netnsDir, name))
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering namespace %s: %w", name, err)
	}
	return nil
}

// setSysctl writes a sysctl of the named namespace, such as "net/ipv4/ip_forward".
func setSysctl(name, key, value string) error {
	return inside(name, func() error {
		return os.WriteFile("/proc/sys/"+key, []byte(value), 0o644)
	})
}
