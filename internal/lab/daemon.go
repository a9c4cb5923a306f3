package lab

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
)

// daemon is a weftd that Up has started. It outlives Up.
type daemon struct {
	what string // "server", "agent of h1"
	log  string
	gone chan struct{} // closed when the process has ended
}

// start runs weftd with args in a namespace of the lab, its output in dir/log.
func (l Lab) start(weftd, what, space, dir string, args ...string) (*daemon, error) {
	d := &daemon{what: what, log: filepath.Join(dir, "log"), gone: make(chan struct{})}
	out, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer out.Close()
	cmd := exec.Command(weftd, args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, "/"
	// A session of its own, so that Ctrl-C at lab up does not end half of it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := within(space, cmd.Start); err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	go func() {
		cmd.Wait()
		close(d.gone)
	}()
	return d, os.WriteFile(filepath.Join(dir, "pid"), fmt.Appendln(nil, cmd.Process.Pid), 0o600)
}

// died is the error of a daemon that ended though it was needed, with the end
// of its log, which is about to be removed.
func (d *daemon) died() error {
	return fmt.Errorf("the %s ended; the end of its log:\n%s", d.what, tail(d.log))
}

// crashed is how the report of a crash begins.
var crashed = regexp.MustCompile(`(?m)^(panic|fatal error): `)

// logLines is how much of a log is worth showing.
const logLines = 15

func tail(path string) []byte {
	text, err := os.ReadFile(path)
	if err != nil {
		return []byte(err.Error())
	}
	// Of a crash, what happened stands first and how it came to it follows.
	if at := crashed.FindIndex(text); at != nil {
		lines := bytes.Split(text[at[0]:], []byte("\n"))
		return bytes.Join(lines[:min(len(lines), logLines)], []byte("\n"))
	}
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-logLines):], []byte("\n"))
}

// watch gives a context that ends with an error when one of the daemons does.
func watch(ctx context.Context, daemons []*daemon) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	for _, d := range daemons {
		go func() {
			select {
			case <-d.gone:
				cancel(d.died())
			case <-ctx.Done():
			}
		}()
	}
	return ctx, func() { cancel(context.Canceled) }
}
