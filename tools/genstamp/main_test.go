package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStampFollowsTheSourcesAndTheCompiler(t *testing.T) {
	t.Chdir(t.TempDir())
	write := func(name, content string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	take := func(version string) string {
		t.Helper()
		s, err := stamp([]byte(version), []string{"bpf", "gen.go"})
		if err != nil {
			t.Fatal(err)
		}
		return string(s)
	}
	write("bpf/a.c", "1")
	write("bpf/lib/b.h", "2")
	write("gen.go", "3")
	first := take("clang version 14\nmore")
	if !strings.HasPrefix(first, "compiler clang version 14\nsources ") {
		t.Fatalf("stamp %q", first)
	}
	write("bpf/README.md", "not a source")
	if take("clang version 14\n") != first {
		t.Error("what is no source changes the stamp")
	}
	if take("clang version 19\n") == first {
		t.Error("another compiler has the same stamp")
	}
	write("bpf/lib/b.h", "changed")
	if take("clang version 14\n") == first {
		t.Error("a changed header has the same stamp")
	}
	write("bpf/lib/b.h", "2")
	write("gen.go", "changed")
	if take("clang version 14\n") == first {
		t.Error("changed flags have the same stamp")
	}
	if _, err := stamp(nil, []string{"nowhere"}); err == nil {
		t.Error("sources that are not there have a stamp")
	}
}
