package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

func TestNames(t *testing.T) {
	cases := map[string]bool{
		"internal/compile/port.go":        true,
		"internal/compile/util.go":        false,
		"internal/compile/util_test.go":   false,
		"internal/common/port.go":         false,
		"internal/server/types.go":        false,
		"internal/netdev/helpers.go":      false,
		"internal/agent/manager.go":       false,
		"docs/Common.md":                  false,
		"internal/agent/port_manager.go":  true,
		"internal/utilization/measure.go": true,
	}
	for file, ok := range cases {
		if got := checkName(file); (len(got) == 0) != ok {
			t.Errorf("%s: findings %q, want ok %v", file, got, ok)
		}
	}
}

func TestContent(t *testing.T) {
	cases := map[string]struct {
		file, content string
		findings      int
	}{
		"clean":           {"a.md", "A Provider Address.\n", 0},
		"foreign word":    {"a.md", "the remote VT" + "EP\n", 1},
		"glossary may":    {"docs/glossary.md", "not VT" + "EP\n", 0},
		"build path":      {"a.go", "package a\n\nvar p = \"/wo" + "rk/main\"\n", 1},
		"unfinished":      {"a.go", "package a // TO" + "DO\n", 1},
		"part of a word":  {"a.md", "clau" + "ded MASTODON\n", 0},
		"gofmt":           {"a.go", "package a\nvar  x int\n", 1},
		"not Go":          {"a.go", "package\n", 1},
		"binary is blind": {"a.o", "\x7fELF\x00TO" + "DO", 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := checkContent(c.file, []byte(c.content)); len(got) != c.findings {
				t.Fatalf("findings %q, want %d", got, c.findings)
			}
		})
	}
}

func TestSeesWhatGitTracks(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"tracked.md", "stray.md"} {
		if err := os.WriteFile(filepath.Join(root, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"init", "-q"}, {"add", "tracked.md"}} {
		cmd := exec.Command("git", args...)
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v: %s", args, err, out)
		}
	}
	got, err := tracked(root)
	if err != nil || !slices.Equal(got, []string{"tracked.md"}) {
		t.Fatalf("tracked %q, %v; want tracked.md alone", got, err)
	}
}

func TestLinks(t *testing.T) {
	files := []string{"README.md", "docs/a.md", "docs/adr/0001-x.md"}
	cases := map[string]int{
		"[a](a.md) [b](../README.md#top) [c](adr/) [d](https://example.com/x)": 0,
		"[gone](b.md)":          1,
		"[from the top](/a.md)": 1,
	}
	for content, want := range cases {
		if got := checkLinks("docs/a.md", []byte(content), files); len(got) != want {
			t.Errorf("%s: findings %q, want %d", content, got, want)
		}
	}
}
