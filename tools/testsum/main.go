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
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	log.SetFlags(0)
	fuzz := flag.Duration("fuzz", 0, "after the tests, fuzz each target for this long")
	only := flag.Bool("only-fuzz", false, "fuzz, and run nothing else")
	parallel := flag.String("p", "2", "packages tested at once")
	alone := flag.String("alone", "", "patterns of packages, with commas between, that are tested one at a time, after the others: they measure or time")
	timeout := flag.Duration("timeout", 12*time.Minute, "time that one package may take")
	flag.Parse()
	packages := flag.Args()
	if len(packages) == 0 {
		packages = []string{"./..."}
	}
	s := &sum{out: os.Stdout, output: map[test][]string{}}
	if !*only {
		together, single := packages, []string(nil)
		if *alone != "" {
			single = s.list(strings.Split(*alone, ","))
			together = without(s.list(packages), single)
		}
		for _, group := range []struct {
			parallel string
			packages []string
		}{{*parallel, together}, {"1", single}} {
			if len(group.packages) > 0 {
				s.goTest(append([]string{"-vet=off", "-count=1", "-p", group.parallel, "-timeout", timeout.String()}, group.packages...))
			}
		}
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

// list gives the packages that patterns match, in their order: the first are tested first.
func (s *sum) list(patterns []string) []string {
	out, err := exec.Command("go", append([]string{"list", "--"}, patterns...)...).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%w\n%s", err, exit.Stderr)
	}
	if err != nil {
		s.complain("go list", err)
	}
	return strings.Fields(string(out))
}

func without(all, some []string) []string {
	return slices.DeleteFunc(all, func(p string) bool { return slices.Contains(some, p) })
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
	list, err := exec.Command("go", append([]string{"list", "-json=Dir,ImportPath,TestGoFiles,XTestGoFiles", "--"}, packages...)...).Output()
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	found, err := targets(list)
	if err != nil {
		return err
	}
	for _, t := range found {
		fmt.Fprintf(s.out, "fuzz %s %s for %s\n", t.pkg, t.name, d)
		s.progress = ""
		s.goTest([]string{"-vet=off", "-run", "^$", "-fuzz", "^" + t.name + "$", "-fuzztime", d.String(), "-timeout", "0", t.pkg})
		fmt.Fprint(s.out, s.progress)
	}
	return nil
}

var fuzzTarget = regexp.MustCompile(`(?m)^func (Fuzz\w*)\(`)

// targets finds those of the packages that `go list -json` has printed. They are read from the source:
// `go test -list` would link the tests of every package first.
func targets(list []byte) ([]test, error) {
	var ts []test
	for packages := json.NewDecoder(bytes.NewReader(list)); packages.More(); {
		var p struct {
			Dir, ImportPath           string
			TestGoFiles, XTestGoFiles []string
		}
		if err := packages.Decode(&p); err != nil {
			return nil, fmt.Errorf("list: %w", err)
		}
		for _, file := range slices.Concat(p.TestGoFiles, p.XTestGoFiles) {
			text, err := os.ReadFile(filepath.Join(p.Dir, file))
			if err != nil {
				return nil, err
			}
			for _, m := range fuzzTarget.FindAllSubmatch(text, -1) {
				ts = append(ts, test{p.ImportPath, string(m[1])})
			}
		}
	}
	return ts, nil
}
