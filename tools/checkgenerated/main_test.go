package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A repository in miniature: out.txt is generated from in.txt.
func repository(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	files["Makefile"] = "generate:\n\t@cp in.txt out.txt\n"
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(root, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(root, ".git"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"HEAD": "ref: refs/heads/main\n", "config": "[core]\n\trepositoryformatversion = 0\n"} {
		if err := os.WriteFile(filepath.Join(root, ".git", name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"objects", "refs"} {
		if err := os.Mkdir(filepath.Join(root, ".git", d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestFresh(t *testing.T) {
	root := repository(t, map[string]string{"in.txt": "1\n", "out.txt": "1\n"})
	if stale, err := run(root); err != nil || len(stale) > 0 {
		t.Fatalf("stale %q, %v; want none", stale, err)
	}
}

func TestStaleAndMissing(t *testing.T) {
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"stale":   {map[string]string{"in.txt": "2\n", "out.txt": "1\n"}, "out.txt: differs"},
		"missing": {map[string]string{"in.txt": "2\n"}, "out.txt: missing"},
	} {
		t.Run(name, func(t *testing.T) {
			root := repository(t, c.files)
			stale, err := run(root)
			if err != nil || !slices.Equal(stale, []string{c.want}) {
				t.Fatalf("stale %q, %v; want %q", stale, err, c.want)
			}
			if b, _ := os.ReadFile(filepath.Join(root, "out.txt")); string(b) != c.files["out.txt"] {
				t.Fatalf("the judged tree was changed: out.txt is %q", b)
			}
		})
	}
}

func TestBrokenGeneratorIsAnError(t *testing.T) {
	root := repository(t, map[string]string{})
	if _, err := run(root); err == nil || !strings.Contains(err.Error(), "make") {
		t.Fatalf("error %v, want one that names make", err)
	}
}

func TestVersionOfProtocAloneIsNoDifference(t *testing.T) {
	a := []byte("// versions:\n// \tprotoc-gen-go v1\n// \tprotoc        v3.21\npackage x\n")
	b := []byte("// versions:\n// \tprotoc-gen-go v1\n// \tprotoc        v5.29\npackage x\n")
	if string(neutral(a)) != string(neutral(b)) {
		t.Fatal("two versions of protoc differ")
	}
	c := []byte("// versions:\n// \tprotoc-gen-go v2\n// \tprotoc        v3.21\npackage x\n")
	if string(neutral(a)) == string(neutral(c)) {
		t.Fatal("two versions of protoc-gen-go are the same")
	}
}

func TestAnotherCompilerIsNamed(t *testing.T) {
	hint := compilerHint([]byte("x clang version 14.0.6"), []byte("y clang version 19.1.7"))
	if !strings.Contains(hint, "clang 14") || !strings.Contains(hint, "clang 19") {
		t.Fatalf("hint %q names not both", hint)
	}
	if hint := compilerHint([]byte("x clang version 14.0.6"), []byte("y clang version 14.0.6")); hint != "" {
		t.Fatalf("hint %q for one compiler", hint)
	}
}
