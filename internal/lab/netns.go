package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// within runs f on a thread that is in the named network namespace, and in no
// other namespace than before: the mounts, bpffs among them, stay the machine's
// own. Sockets that f opens and processes that it starts are of that namespace.
func within(space string, f func() error) error {
	runtime.LockOSThread()
	home, err := os.Open(ownNet)
	if err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("own network namespace: %w", err)
	}
	defer home.Close()
	err = enter(space, f)
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// Still locked: no other goroutine may wake up in the wrong namespace.
		return errors.Join(err, fmt.Errorf("leave namespace %s: %w", space, back))
	}
	runtime.UnlockOSThread()
	return err
}

// ownNet is the namespace of the calling thread. The process's own would be that
// of its first thread, which may be within another one at the moment.
const ownNet = "/proc/thread-self/ns/net"

// enter puts the calling thread, which must be locked, into a namespace for f.
func enter(space string, f func() error) error {
	file, err := os.Open(filepath.Join(netnsRoot, space))
	if err != nil {
		return fmt.Errorf("namespace %s: %w", space, err)
	}
	err = unix.Setns(int(file.Fd()), unix.CLONE_NEWNET)
	file.Close()
	if err != nil {
		return fmt.Errorf("enter namespace %s: %w", space, err)
	}
	return f()
}

// batch runs lines of iproute2's ip, all or up to the first that fails; inside
// a namespace unless space is "".
func batch(ctx context.Context, space string, lines []string) error {
	args := []string{"-batch", "-"}
	if space != "" {
		args = append([]string{"-n", space}, args...)
	}
	cmd := exec.CommandContext(ctx, "ip", args...)
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	var words bytes.Buffer
	cmd.Stderr = &words
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(words.String()))
	}
	return nil
}

// spaces lists the namespaces of the lab by their full names.
func (l Lab) spaces() ([]string, error) {
	entries, err := os.ReadDir(netnsRoot)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), l.prefix()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// inode identifies a namespace.
type inode struct{ dev, ino uint64 }

func inodeOf(path string) (inode, error) {
	var s unix.Stat_t
	if err := unix.Stat(path, &s); err != nil {
		return inode{}, err
	}
	return inode{uint64(s.Dev), s.Ino}, nil
}

// processes lists the pids that live in any of the namespaces, but for our own
// pid: we may have been started from inside the lab.
func processes(spaces []string) ([]int, error) {
	// Whatever a file in /run/netns says: the machine's own namespace is no lab's.
	// Where even root may not look at it, the names alone must do.
	machine, _ := inodeOf("/proc/1/ns/net")
	theirs := make(map[inode]bool)
	for _, s := range spaces {
		// A file left over in /run/netns that is no namespace is on another
		// filesystem, and matches no process.
		if id, err := inodeOf(filepath.Join(netnsRoot, s)); err == nil && id != machine {
			theirs[id] = true
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		// Processes come and go: one that cannot be read is not there any more,
		// and a dead one that nobody has reaped is in no namespace.
		if id, err := inodeOf(filepath.Join("/proc", e.Name(), "ns/net")); err == nil && theirs[id] {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// setting writes a network setting of a namespace: "ipv4/ip_forward".
func setting(space, name, value string) error {
	return within(space, func() error {
		return os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0)
	})
}
