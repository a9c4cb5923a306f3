// Package kernels proves that the switch loads and works on kernels that people
// have: it boots them in emulation (QEMU without KVM) and runs the switch's own
// tests, those of the packet path and the demo in there, as root of a machine that
// has nothing else.
//
// What the verifier walks on each kernel is compared with verifier.json. The short
// form, which is part of `make test`, is for the oldest kernel alone;
// `make test-kernels` does all.
// It must never use this machine's network namespaces, devices or apt sources.
package kernels

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/weft-sdn/weft/test/interop"
	"github.com/weft-sdn/weft/test/kernels/job"
)

// What `make test-kernels` sets.
const (
	envAll    = "WEFT_KERNELS"        // not empty: all kernels as the archive has them now, and all jobs
	envRecord = "WEFT_KERNELS_RECORD" // not empty: write verifier.json instead of comparing with it
)

// targets are the kernels, and how an uplink strips on them where it may choose.
var targets = []struct{ suite, strategy string }{
	{oldSuite, "tcx+dx2"},
	{newSuite, "tcx+gre"},
}

func TestOldKernel(t *testing.T) {
	if all() {
		t.Skip("TestKernels does more")
	}
	k, err := getKernel(oldSuite, false)
	if errors.Is(err, errNoMirror) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	programs := build(t, "internal/datapath", "test/packet")
	jobs := []job.Job{
		test("datapath", "^Test(VerifierBudget|AttachIsIdempotentAndForgetsTheDead)$", ""),
		test("packet", "^TestStoriesInTheProgram$", ""),
	}
	judge(t, k, programs, jobs, 9*time.Minute)
}

func TestKernels(t *testing.T) {
	if !all() {
		t.Skip("only with " + envAll + "=1, which make test-kernels sets")
	}
	programs := build(t, "internal/datapath", "test/packet", "test/taps", "test/interop", "cmd/weftd", "cmd/weft")
	for _, target := range targets {
		t.Run(target.suite, func(t *testing.T) {
			t.Parallel() // each machine has one processor
			k, err := getKernel(target.suite, true)
			if err != nil {
				t.Fatal(err)
			}
			jobs := []job.Job{
				test("taps", ".", "", "WEFT_STRATEGY="+target.strategy),
				test("datapath", "^Test(VerifierBudget|AttachIsIdempotentAndForgetsTheDead|GuestsTalk|TapGuestsTalk|XDPStripsBeforeGRO)$", ""),
				{Name: "uplinks", Args: []string{"/tests/datapath", "-test.v", "-test.timeout", "30m", "-test.run", "^TestBondsAndVLANs$"}, Env: []string{"WEFT_EMULATED=1"}},
				{Name: "forwarding", Args: []string{"/tests/datapath", "-test.v", "-test.timeout", "30m", "-test.run", forwarding}, Env: []string{"WEFT_EMULATED=1"}},
				test("packet", ".", "", "WEFT_EMULATED=1"),
				test("interop", ".", "", "WEFT_EMULATED=1"),
				{Name: "demo", Args: []string{"/bin/weftd", "lab", "demo", "-f", "/examples/demo-lab.yaml"}},
			}
			judge(t, k, programs, jobs, 75*time.Minute)
		})
	}
}

// forwarding is a guest that forwards, on a tap, and a hairpin, by each way to strip.
const forwarding = "^TestGuestThatForwards(ByVXLAN)?$/^(tcx|dx2|veth|vxlan)$/^tap$/^pass$"

func all() bool { return os.Getenv(envAll) != "" }

// test is a job that runs the tests of a package.
func test(name, run, skip string, env ...string) job.Job {
	args := []string{"/tests/" + name, "-test.v", "-test.timeout", "30m", "-test.run", run}
	if skip != "" {
		args = append(args, "-test.skip", skip)
	}
	return job.Job{Name: name, Args: args, Env: env}
}

// root of the repository, seen from the directory of a test.
const root = "../.."

// build compiles commands and the tests of packages, without libraries, and says
// where they go.
func build(t *testing.T, packages ...string) map[string]string {
	t.Helper()
	programs := map[string]string{"init": compile(t, "./guest", "build")}
	for _, p := range packages {
		name := filepath.Base(p)
		if strings.HasPrefix(p, "cmd/") {
			programs["bin/"+name] = compile(t, filepath.Join(root, p), "build")
			continue
		}
		programs["tests/"+name] = compile(t, "./"+filepath.Join(root, p), "test", "-c")
	}
	for _, f := range []string{"demo.yaml", "demo-lab.yaml"} {
		programs["examples/"+f] = filepath.Join(root, "examples", f)
	}
	captured, err := filepath.Glob(filepath.Join(root, "test/packet/testdata/real/*.pcap"))
	if err != nil || len(captured) == 0 {
		t.Fatalf("no real traffic for the packet tests: %v", err)
	}
	for _, f := range captured {
		programs["testdata/real/"+filepath.Base(f)] = f // tests run in the root directory
	}
	return programs
}

func compile(t *testing.T, pkg string, how ...string) string {
	t.Helper()
	if !strings.HasPrefix(pkg, ".") {
		pkg = "./" + pkg
	}
	to := filepath.Join(t.TempDir(), "program")
	cmd := exec.Command("go", append(how, "-buildvcs=false", "-ldflags", "-s -w", "-o", to, pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v: %s", pkg, err, out)
	}
	return to
}

// judge boots the kernel and says what became of each job.
func judge(t *testing.T, k kernel, programs map[string]string, jobs []job.Job, limit time.Duration) {
	t.Logf("kernel %s", k.version)
	outcomes, complaints := boot(t, k, programs, jobs, limit)
	for _, line := range complaints {
		t.Errorf("the kernel complains: %s", line)
	}
	for _, j := range jobs {
		t.Run(j.Name, func(t *testing.T) {
			o, ok := outcomes[j.Name]
			if !ok {
				t.Fatal("was not run to its end")
			}
			t.Logf("%.0f s%s", o.seconds, tally(o.output))
			if o.failure != "" {
				t.Errorf("%s\n%s", o.failure, reasons(o.output))
			}
			if strings.HasPrefix(j.Args[0], "/tests/") && !strings.Contains(o.output, "--- PASS: ") {
				t.Errorf("no test passed:\n%s", end(o.output))
			}
			captures(t, o.output)
			if j.Name == "demo" {
				t.Log("\n" + end(o.output))
			}
		})
	}
	t.Run("verifier", func(t *testing.T) { verifier(t, k, outcomes["datapath"].output) })
}

// captures lets tshark look at what a job captured on an underlay.
func captures(t *testing.T, output string) {
	for line := range strings.Lines(output) {
		text, ok := strings.CutPrefix(strings.TrimSpace(line), interop.CapturePrefix)
		if !ok {
			continue
		}
		name, encoded, _ := strings.Cut(text, " ")
		pcap, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		report, err := interop.Examine(pcap)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		t.Logf("%s: tshark reads %d tunnelled frames", name, report.Tunnelled)
		if len(report.Malformed) > 0 || report.Tunnelled < 40 {
			t.Errorf("%s: %d tunnelled frames, malformed: %s", name, report.Tunnelled, strings.Join(report.Malformed, "\n"))
		}
	}
}

var verdict = regexp.MustCompile(`(?m)^ *--- (PASS|FAIL|SKIP): (.*)$`)

// tally counts the tests of an output, and names those that were skipped.
func tally(output string) string {
	n, skipped := map[string]int{}, ""
	for _, m := range verdict.FindAllStringSubmatch(output, -1) {
		n[m[1]]++
		if m[1] == "SKIP" {
			skipped += "; skipped " + m[2]
		}
	}
	if len(n) == 0 {
		return ""
	}
	return fmt.Sprintf(", %d tests passed, %d failed%s", n["PASS"], n["FAIL"], skipped)
}

// reasons are the lines of an output that belong to what failed: those around its
// verdict, from the one before to the next, or all at the end when nobody says what failed.
func reasons(output string) string {
	const most = 150
	var lines, since []string // since the last verdict
	failed := false
	for line := range strings.Lines(output) {
		if m := verdict.FindStringSubmatch(line); m != nil {
			if failed = m[1] == "FAIL"; failed {
				lines = append(lines, since[max(0, len(since)-most/3):]...)
			}
			since = nil
		} else if strings.HasPrefix(line, "=== ") {
			continue
		} else if !failed {
			since = append(since, line)
		}
		if failed {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 {
		return end(output)
	}
	return strings.Join(lines[:min(len(lines), most)], "")
}

// figures are the instructions that the verifier walks, by program.
type figures map[string]int

var walked = regexp.MustCompile(`(?m)^ *\S+\.go:\d+: (\w+) +(\d+) instructions processed`)

// verifierFile holds figures by the series of a kernel.
const verifierFile = "verifier.json"

// verifier compares what the verifier walked with what it walked when the file was
// written: a tenth more is a decision, not an accident.
func verifier(t *testing.T, k kernel, output string) {
	now := figures{}
	for _, m := range walked.FindAllStringSubmatch(output, -1) {
		now[m[1]], _ = strconv.Atoi(m[2]) // digits
	}
	if len(now) == 0 {
		t.Fatal("the machine told no figures")
	}
	t.Logf("%s: %v", k.series(), now)
	recorded := map[string]figures{}
	b, err := os.ReadFile(verifierFile)
	if err == nil {
		err = json.Unmarshal(b, &recorded)
	}
	if os.Getenv(envRecord) != "" {
		recorded[k.series()] = now
		if b, err = json.MarshalIndent(recorded, "", "  "); err == nil {
			err = os.WriteFile(verifierFile, append(b, '\n'), 0o644)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range grown(recorded[k.series()], now) {
		t.Errorf("%s; if that is meant, record it: %s=1 make test-kernels", p, envRecord)
	}
}

// grown names the programs for which the verifier walks more than a tenth above the
// record, and those of which there is none.
func grown(recorded, now figures) (findings []string) {
	for _, p := range slices.Sorted(maps.Keys(now)) {
		was, ok := recorded[p]
		if !ok {
			findings = append(findings, fmt.Sprintf("%s: %d instructions and no record of before", p, now[p]))
		} else if now[p]*10 > was*11 {
			findings = append(findings, fmt.Sprintf("%s: %d instructions, more than a tenth above the %d of before", p, now[p], was))
		}
	}
	return findings
}

func TestReasonsAreThoseOfWhatFailed(t *testing.T) {
	got := reasons("=== RUN   TestA\n    a.go:1: fine\n--- PASS: TestA (0.1s)\n=== RUN   TestB\n    b.go:2: why\n--- FAIL: TestB (0.2s)\n    b.go:3: more\n--- PASS: TestC (0.1s)\nPASS\n")
	if want := "    b.go:2: why\n--- FAIL: TestB (0.2s)\n    b.go:3: more\n"; got != want {
		t.Fatalf("%q, want %q", got, want)
	}
}

func TestGrowthOfATenthIsAllowed(t *testing.T) {
	got := grown(figures{"same": 100, "more": 100, "much": 100}, figures{"same": 100, "more": 110, "much": 111, "new": 1})
	if len(got) != 2 || !strings.HasPrefix(got[0], "much: 111") || !strings.HasPrefix(got[1], "new: 1 ") {
		t.Fatalf("findings %q, want one of much and one of new", got)
	}
}
