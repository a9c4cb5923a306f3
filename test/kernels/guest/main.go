// Command guest is process 1 of the kernels test's virtual machine: it mounts what
// a Linux machine has, loads the modules, runs the jobs of job.File one by one with
// their output on the console, and turns the machine off.
//
// It must never decide what is right: the test does.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/test/kernels/job"
)

func main() {
	if os.Getpid() != 1 {
		run()
		return
	}
	if err := start(); err != nil {
		say(job.Mark{Ended: true, Error: err.Error()})
	}
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // no ACPI: the emulator does not reboot but ends
}

// start makes the machine ready, runs itself once more for the jobs, and buries
// the orphans until that one has ended.
func start() error {
	for _, m := range []struct{ kind, at string }{
		{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"bpf", "/sys/fs/bpf"}, {"cgroup2", "/sys/fs/cgroup"},
		{"tmpfs", "/tmp"}, {"tmpfs", "/run"},
	} {
		if err := unix.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	modules, err := filepath.Glob("/modules/*.ko") // numbered in the order of their needs
	if err != nil {
		return err
	}
	for _, m := range modules {
		if err := load(m); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("load %s: %w", m, err)
		}
	}
	runner := exec.Command("/proc/self/exe")
	runner.Stdout, runner.Stderr = os.Stdout, os.Stderr
	if err := runner.Start(); err != nil {
		return err
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if pid == runner.Process.Pid || err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func load(module string) error {
	f, err := os.Open(module)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", 0)
}

func run() {
	var jobs []job.Job
	b, err := os.ReadFile(job.File)
	if err == nil {
		err = json.Unmarshal(b, &jobs)
	}
	if err != nil {
		say(job.Mark{Ended: true, Error: err.Error()})
		return
	}
	for _, j := range jobs {
		say(job.Mark{Job: j.Name})
		begin := time.Now()
		cmd := exec.Command(j.Args[0], j.Args[1:]...)
		cmd.Stdout, cmd.Stderr, cmd.Dir = os.Stdout, os.Stderr, "/"
		cmd.Env = append([]string{"PATH=/bin", "HOME=/tmp"}, j.Env...)
		m := job.Mark{Job: j.Name, Ended: true}
		if err := cmd.Run(); err != nil {
			m.Error = err.Error()
		}
		m.Seconds = time.Since(begin).Seconds()
		say(m)
	}
}

func say(m job.Mark) {
	b, _ := json.Marshal(m) // plain fields cannot fail
	fmt.Printf("\n%s%s\n", job.Prefix, b)
}
