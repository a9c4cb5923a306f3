package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// downWait bounds how long removing a lab may take.
const downWait = 60 * time.Second

// Down removes the lab. That it is not there, or only in part, is no error.
// found says whether there was anything.
func (l Lab) Down(ctx context.Context) (found bool, err error) {
	spaces, err := l.spaces()
	if err != nil {
		return false, err
	}
	if len(spaces) == 0 && !exists(l.dir()) && !exists(l.pins()) {
		return false, nil
	}
	if exists(l.dir()) {
		unlock, err := l.lock()
		if err != nil {
			return true, err
		}
		defer unlock()
	}
	ctx, cancel := context.WithTimeout(ctx, downWait)
	defer cancel()
	return true, l.remove(ctx)
}

// lock keeps two programs from building or removing the same lab at once. The
// lock is on the directory itself, so that no file is left of it.
func (l Lab) lock() (unlock func(), err error) {
	dir, err := os.Open(l.dir())
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		dir.Close()
		return nil, fmt.Errorf("lab %s is being built or removed by another program", l.name)
	}
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("lab %s: lock: %w", l.name, err)
	}
	return func() { dir.Close() }, nil
}

// remove ends the lab's processes, and then removes its pins, namespaces and
// files. It goes on after a failure, and tells all of them.
func (l Lab) remove(ctx context.Context) error {
	spaces, err := l.spaces()
	if err != nil {
		return err
	}
	errs := []error{endProcesses(ctx, spaces)}
	errs = append(errs, os.RemoveAll(l.pins()))
	for _, s := range spaces {
		errs = append(errs, batch(ctx, "", []string{"netns delete " + s}))
	}
	errs = append(errs, os.RemoveAll(l.dir()))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lab %s is not removed: %w", l.name, err)
	}
	// What other labs and daemons still use is not empty, and stays.
	os.Remove(filesRoot)
	os.Remove(filepath.Dir(filesRoot))
	os.Remove(filepath.Dir(l.pins()))
	return nil
}

// endProcesses kills everything in the namespaces: nothing there is worth a
// graceful end, because all that it holds is removed next. New processes may
// appear while it looks, so it looks until there is none.
func endProcesses(ctx context.Context, spaces []string) error {
	tick := time.NewTicker(lookAgain)
	defer tick.Stop()
	killed := make(map[int]bool)
	for {
		pids, err := processes(spaces)
		if err != nil {
			return err
		}
		if len(pids) == 0 {
			awaitReaped(ctx, killed)
			return nil
		}
		for _, pid := range pids {
			killed[pid] = true
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("end process %d: %w", pid, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("processes %v do not end: %w", pids, ctx.Err())
		case <-tick.C:
		}
	}
}

// reapWait is how long a dead process may stay in the process table.
const reapWait = 5 * time.Second

// awaitReaped waits until the dead are out of the process table, where their
// parent leaves them for a moment: who counts processes must find none. A parent
// that never looks is not the lab's fault.
func awaitReaped(ctx context.Context, pids map[int]bool) {
	ctx, cancel := context.WithTimeout(ctx, reapWait)
	defer cancel()
	_ = poll(ctx, func() error {
		for pid := range pids {
			if unix.Kill(pid, 0) == nil {
				return fmt.Errorf("process %d is not reaped", pid)
			}
		}
		return nil
	})
}
