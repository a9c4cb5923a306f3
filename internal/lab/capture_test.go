package lab

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// weft runs the lab's own command line, with the lab's server.
func (l Lab) weft(ctx context.Context, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, filepath.Join(filepath.Dir(weftd), "weft"), args...)
	c.Env = append(c.Environ(), "WEFT_SERVER="+filepath.Join(l.dir(), "server.sock"))
	return c
}

// tshark reads weft capture live, from a pipe, while guests of two hosts talk and
// are refused: every point shows up with its verdict, and nothing is malformed.
func TestCaptureIsReadLive(t *testing.T) {
	ctx := patience(t)
	l := newLab(t, "c")
	if err := l.Up(ctx, options(t, demoSpec(t))); err != nil {
		t.Fatal(err)
	}
	capture := l.weft(ctx, "capture", "red/web-1", "red/db-1", "-w", "-")
	read := exec.CommandContext(ctx, "tshark", "-l", "-r", "-", "-T", "fields", "-E", "separator=|",
		"-e", "frame.interface_name", "-e", "_ws.malformed", "-e", "_ws.col.Protocol", "-e", "frame.comment")
	pipe, err := capture.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var words bytes.Buffer
	capture.Stderr, read.Stdin = &words, pipe
	lines, err := read.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := capture.Start(); err != nil {
		t.Fatal(err)
	}
	if err := read.Start(); err != nil {
		t.Fatal(err)
	}
	pipe.Close() // tshark alone holds it now
	got := make(chan string)
	go func() {
		defer close(got)
		for s := bufio.NewScanner(lines); s.Scan(); {
			got <- s.Text()
		}
	}()
	want := map[string]*regexp.Regexp{
		"sent":        regexp.MustCompile(`^red/web-1 from-guest\|\|ICMP\|from-guest red/web-1 on h1: ENCAPSULATED out of`),
		"on the wire": regexp.MustCompile(`^red/web-1 to-underlay\|\|ICMP\|to-underlay red/web-1 on h1: ENCAPSULATED out of .*VSID 5002`),
		"arrived":     regexp.MustCompile(`^red/db-1 from-underlay\|\|ICMP\|from-underlay red/db-1 on h2: DELIVERED`),
		"handed over": regexp.MustCompile(`^red/db-1 to-guest\|\|ICMP\|to-guest red/db-1 on h2: DELIVERED`),
		"dropped":     regexp.MustCompile(`^red/web-1 dropped\|\|ICMP\|dropped red/web-1 on h1: NO_ROUTE in stage route`),
	}
	for deadline := time.After(time.Minute); len(want) > 0; {
		l.in("red/web-1", "", "sh", "-c", "ping -c1 -W1 10.0.1.5; ping -c1 -W1 172.16.0.1") // again and again: the capture begins when it begins
		for more := true; more && len(want) > 0; {
			select {
			case line, open := <-got:
				if !open {
					t.Fatalf("tshark ended; weft said %s", &words)
				}
				if f := strings.Split(line, "|"); f[1] != "" {
					t.Errorf("malformed: %s", line)
				}
				for name, re := range want {
					if re.MatchString(line) {
						delete(want, name)
					}
				}
			case <-time.After(200 * time.Millisecond):
				more = false
			case <-deadline:
				t.Fatalf("not seen: %v; weft said %s", want, &words)
			}
		}
	}
	// Whoever reads goes, and weft with it.
	_ = read.Process.Kill()
	_ = read.Wait()
	l.in("red/web-1", "", "ping", "-c1", "-W1", "10.0.1.5")
	if err := capture.Wait(); err != nil && err.Error() != "signal: broken pipe" {
		t.Errorf("weft capture after its reader has gone: %v: %s", err, &words)
	}
	followLive(ctx, t, l)
	if out, err := l.weft(ctx, "verify").CombinedOutput(); err != nil {
		t.Errorf("verify after captures: %v\n%s", err, out)
	}
}

// followLive: real packets are followed from host to host, both ways, and what is
// dropped is told with its reason.
func followLive(ctx context.Context, t *testing.T, l Lab) {
	for _, c := range []struct {
		to   string
		code int
		want []string
	}{
		{"10.0.1.5", 0, []string{`=> handed to red/db-1 on h2`, `=> handed to red/web-1 on h1`, `h2 +from-underlay +DELIVERED`, `route +route 10.0.1.0/24 leads to 10.0.1.5`}},
		{"172.16.0.1", 1, []string{`=> dropped on h1 in stage route: NO_ROUTE`}},
	} {
		stop, cancel := context.WithCancel(ctx)
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			for stop.Err() == nil {
				l.in("red/web-1", "", "ping", "-c1", "-W1", c.to)
			}
		}()
		out, err := l.weft(ctx, "trace", "red/web-1", "--to", c.to, "--live", "--count", "4", "--duration", "30s").CombinedOutput()
		code := 0
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			code = exit.ExitCode()
		}
		for _, w := range c.want {
			if !regexp.MustCompile(w).Match(out) || code != c.code {
				t.Errorf("trace --live to %s: code %d, want %d and %q in\n%s", c.to, code, c.code, w, out)
			}
		}
		cancel()
		<-stopped
	}
}
