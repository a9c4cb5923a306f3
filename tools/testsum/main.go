// Command testsum runs `go test` over packages, nothing cached, then every fuzz
// target that they have for a while, and ends with one line: "N passed, N failed,
// N skipped".
//
// A failure shows its whole output, a success one line per package. A package
// that does not build, panics or times out counts as a failure even when no
// test of it failed. It must never exit 0 when something failed or nothing ran.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	fuzz := flag.Duration("fuzz", 0, "after the tests, fuzz each target for this long")
	only := flag.Bool("only-fuzz", false, "fuzz, and run nothing else")
	parallel := flag.String("p", "2", "packages tested at once")
	alone := flag.String("alone", "", "pattern of packages that are tested one at a time, after the others: they measure or time")
	timeout := flag.Duration("timeout", 12*time.Minute, "time that one package may take")
	flag.Parse()
	packages := flag.Args()
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	s := &sum{out: os.Stdout, output: map[test][]string{}}
	if !*only {
		s.goTest(append([]string{"-vet=off", "-count=1", "-p", *parallel, "-timeout", timeout.String()}, packages...))
	}
	if *alone != "" {
		if !*only {
			s.goTest([]string{"-vet=off", "-count=1", "-p", "1", "-timeout", timeout.String(), *alone})
		}
		packages = append(packages, *alone)
	}
	if *fuzz > 0 {
		if err := s.fuzzAll(packages, *fuzz); err != nil {
			s.complain("fuzz targets", err)
		}
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", s.passed, s.failed, s.skipped)
	if s.failed > 0 || s.passed == 0 {
		os.Exit(1)
	}
}

// event is one line of `go test -json` (see `go doc test2json`).
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// test names a test; with an empty name, its package.
type test struct{ pkg, name string }

// sum counts events and keeps the output of what has not passed yet.
type sum struct {
	out                     io.Writer
	passed, failed, skipped int
	output                  map[test][]string
	failedIn                map[string]int // tests that failed, by package
	progress                string         // what a fuzz target last said of itself
}

// goTest runs `go test -json args` and counts what happens.
func (s *sum) goTest(args []string) {
	cmd := exec.Command("go", append([]string{"test", "-json"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.complain("go test", err)
		return
	}
	before := s.failed
	s.read(pipe)
	err = cmd.Wait()
	if err != nil && s.failed == before { // it failed, and no event said why
		s.complain("go "+strings.Join(cmd.Args[1:], " "), fmt.Errorf("%w\n%s", err, stderr.Bytes()))
	}
}

func (s *sum) complain(what string, err error) {
	s.failed++
	fmt.Fprintf(s.out, "FAIL %s: %v\n", what, err)
}

// read consumes events until the end of r. A line that is no event is shown.
func (s *sum) read(r io.Reader) {
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var e event
			if json.Unmarshal(line, &e) != nil {
				fmt.Fprintf(s.out, "%s", line)
			} else {
				s.add(e)
			}
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.complain("reading go test", err)
			}
			return
		}
	}
}

func (s *sum) add(e event) {
	t := test{e.Package, e.Test}
	switch e.Action {
	case "output":
		if strings.HasPrefix(e.Output, "fuzz: elapsed: ") {
			s.progress = e.Output
		}
		s.output[t] = append(s.output[t], e.Output)
	case "build-output":
		t = test{pkg: e.ImportPath}
		s.output[t] = append(s.output[t], e.Output)
	case "pass":
		s.pass(t, e)
	case "skip":
		s.skip(t)
	case "fail":
		s.fail(t, e)
	}
}

func (s *sum) pass(t test, e event) {
	delete(s.output, t)
	if t.name == "" {
		fmt.Fprintf(s.out, "ok   %s %.1fs\n", t.pkg, e.Elapsed)
		return
	}
	s.passed++
}

func (s *sum) skip(t test) {
	if t.name != "" { // a package without tests is not a skipped test
		s.skipped++
		fmt.Fprintf(s.out, "SKIP %s %s\n%s", t.pkg, t.name, strings.Join(s.output[t], ""))
	}
	delete(s.output, t)
}

func (s *sum) fail(t test, e event) {
	if s.failedIn == nil {
		s.failedIn = map[string]int{}
	}
	defer delete(s.output, t)
	if t.name != "" {
		s.failed++
		s.failedIn[t.pkg]++
		fmt.Fprintf(s.out, "FAIL %s %s\n%s", t.pkg, t.name, strings.Join(s.output[t], ""))
		return
	}
	fmt.Fprintf(s.out, "FAIL %s %.1fs\n", t.pkg, e.Elapsed)
	if s.failedIn[t.pkg] > 0 {
		return
	}
	s.failed++ // the package itself: build, panic outside a test, timeout
	fmt.Fprint(s.out, strings.Join(s.output[test{pkg: e.FailedBuild}], ""), strings.Join(s.output[t], ""))
	for unfinished, lines := range s.output {
		if unfinished.pkg == t.pkg && unfinished.name != "" {
			fmt.Fprintf(s.out, "unfinished: %s\n%s", unfinished.name, strings.Join(lines, ""))
		}
	}
}

// fuzzAll fuzzes every target of packages for d, one after the other.
func (s *sum) fuzzAll(packages []string, d time.Duration) error {
	list, err := exec.Command("go", append([]string{"test", "-vet=off", "-json", "-list", "^Fuzz"}, packages...)...).Output()
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	for _, t := range targets(list) {
		fmt.Fprintf(s.out, "fuzz %s %s for %s\n", t.pkg, t.name, d)
		s.progress = ""
		s.goTest([]string{"-vet=off", "-run", "^$", "-fuzz", "^" + t.name + "$", "-fuzztime", d.String(), "-timeout", "0", t.pkg})
		fmt.Fprint(s.out, s.progress)
	}
	return nil
}

// targets reads the output of `go test -json -list`.
func targets(list []byte) []test {
	var ts []test
	for line := range bytes.Lines(list) {
		var e event
		if json.Unmarshal(line, &e) != nil || e.Action != "output" {
			continue
		}
		if name := strings.TrimSpace(e.Output); strings.HasPrefix(name, "Fuzz") {
			ts = append(ts, test{e.Package, name})
		}
	}
	return ts
}
