package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

// Exec becomes the command, run on a host of the lab or in a guest: where is a
// host's name, "server", "router", or TENANT/PORT. The command inherits
// terminal, input and environment, with WEFT_SERVER and WEFT_AGENT set, and its
// exit code is ours. Exec returns only when it fails.
func (l Lab) Exec(where string, argv []string) error {
	s, err := l.readState()
	if err != nil {
		return err
	}
	space, host, err := l.find(s, where)
	if err != nil {
		return err
	}
	if err := l.setEnvironment(host); err != nil {
		return err
	}
	program, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	// The thread that executes becomes the process, in the namespace it is in.
	runtime.LockOSThread()
	return enter(space, func() error {
		if err := syscall.Exec(program, argv, os.Environ()); err != nil {
			return fmt.Errorf("run %s: %w", program, err)
		}
		return nil
	})
}

// setEnvironment points weft at this lab, and lets it be found where weftd is.
func (l Lab) setEnvironment(host string) error {
	set := map[string]string{"WEFT_SERVER": l.serverSocket()}
	if host != "" {
		set["WEFT_AGENT"] = l.agentSocket(host)
	}
	if self, err := os.Executable(); err == nil {
		set["PATH"] = filepath.Dir(self) + string(os.PathListSeparator) + os.Getenv("PATH")
	}
	for name, value := range set {
		if err := os.Setenv(name, value); err != nil {
			return err
		}
	}
	return nil
}

// find gives the namespace of a place, and the host whose agent is there.
func (l Lab) find(s state, where string) (space, host string, err error) {
	if slices.Contains(s.Hosts, where) {
		return l.space(where), where, nil
	}
	switch where {
	case "server":
		return l.space(serverSpace), "", nil
	case "router":
		return l.space(routerSpace), "", nil
	}
	var guests []string
	for _, g := range s.Guests {
		if g.Port == where {
			ref, err := parsePortRef(where)
			return l.guestSpace(ref), "", err
		}
		guests = append(guests, g.Port)
	}
	return "", "", fmt.Errorf("lab %s has no %q; there are: %s", l.name, where,
		strings.Join(append(append(slices.Clone(s.Hosts), "server", "router"), guests...), " "))
}
