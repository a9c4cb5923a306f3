package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// build builds testsum.
func build(t *testing.T) (tool string) {
	t.Helper()
	tool = filepath.Join(t.TempDir(), "testsum")
	if out, err := exec.Command("go", "build", "-o", tool, ".").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	return tool
}

// module writes a module of one package with the given test file and returns
// what the tool says of it, and whether it exits 0.
func module(t *testing.T, tool, source string, flags ...string) (string, bool) {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"go.mod": "module m\n\ngo 1.24\n", "m.go": "package m\n", "m_test.go": source} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(tool, flags...)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err == nil
}

func TestLastLineAndExitCode(t *testing.T) {
	const header = "package m\n\nimport \"testing\"\n\n"
	cases := map[string]struct {
		source string
		flags  []string
		last   string
		ok     bool
		shows  string
	}{
		"all pass": {header + `func TestA(t *testing.T) { t.Run("b", func(t *testing.T) {}) }`, nil, "2 passed, 0 failed, 0 skipped", true, "ok   m"},
		"one fails and says why": {header + `func TestA(t *testing.T) { t.Fatal("because") }
func TestB(t *testing.T) {}`, nil, "1 passed, 1 failed, 0 skipped", false, "because"},
		"skip is told": {header + `func TestA(t *testing.T) { t.Skip("not today") }
func TestB(t *testing.T) {}`, nil, "1 passed, 0 failed, 1 skipped", true, "not today"},
		"build failure": {header + `func TestA(t *testing.T) { nowhere() }`, nil, "0 passed, 1 failed, 0 skipped", false, "undefined: nowhere"},
		"exit outside a test": {header + `import "os"
func TestMain(m *testing.M) { os.Exit(3) }`, nil, "0 passed, 1 failed, 0 skipped", false, "exit status 3"},
		"nothing ran":         {"package m\n", nil, "0 passed, 0 failed, 0 skipped", false, ""},
		"fuzz passes":         {header + `func FuzzA(f *testing.F) { f.Fuzz(func(t *testing.T, b []byte) {}) }`, []string{"-only-fuzz", "-fuzz", "1s"}, "1 passed, 0 failed, 0 skipped", true, "execs: "},
		"fuzz finds":          {header + `func FuzzA(f *testing.F) { f.Fuzz(func(t *testing.T, b []byte) { if len(b) > 2 { t.Fatal("found") } }) }`, []string{"-only-fuzz", "-fuzz", "20s"}, "0 passed, 1 failed, 0 skipped", false, "found"},
		"alone, and once":     {header + `func TestA(t *testing.T) {}`, []string{"-alone", ".", "./..."}, "1 passed, 0 failed, 0 skipped", true, "ok   m"},
		"nothing alone":       {header + `func TestA(t *testing.T) {}`, []string{"-alone", "./nowhere", "./..."}, "1 passed, 1 failed, 0 skipped", false, "nowhere"},
		"no such package":     {header, []string{"./nowhere"}, "0 passed, 1 failed, 0 skipped", false, "nowhere"},
		"no targets is wrong": {header + `func TestA(t *testing.T) {}`, []string{"-only-fuzz", "-fuzz", "1s"}, "0 passed, 0 failed, 0 skipped", false, ""},
	}
	tool := build(t)
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			out, ok := module(t, tool, c.source, c.flags...)
			lines := strings.Split(strings.TrimSpace(out), "\n")
			if last := lines[len(lines)-1]; last != c.last || ok != c.ok {
				t.Fatalf("last line %q, exit 0: %v; want %q, %v\n%s", last, ok, c.last, c.ok, out)
			}
			if !strings.Contains(out, c.shows) {
				t.Fatalf("output does not show %q:\n%s", c.shows, out)
			}
		})
	}
}
