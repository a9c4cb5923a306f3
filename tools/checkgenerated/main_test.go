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
	if string(neutral("x.pb.go", a)) != string(neutral("x.pb.go", b)) {
		t.Fatal("two versions of protoc differ")
	}
	c := []byte("// versions:\n// \tprotoc-gen-go v2\n// \tprotoc        v3.21\npackage x\n")
	if string(neutral("x.pb.go", a)) == string(neutral("x.pb.go", c)) {
		t.Fatal("two versions of protoc-gen-go are the same")
	}
}

// Objects and stamps as two machines with different compilers make them.
func TestAnotherCompilerIsNoDifferenceButOtherSourcesAre(t *testing.T) {
	cases := map[string]struct {
		compiler, sources string
		stale             []string
	}{
		"another compiler":             {"clang 19", "a", nil},
		"another compiler and sources": {"clang 19", "b", []string{"x.stamp: differs"}},
		"the same compiler":            {"clang 14", "a", []string{"x.o: differs"}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			root, dir := t.TempDir(), t.TempDir()
			for path, content := range map[string]string{
				root + "/x.o": "object of 14", dir + "/x.o": "object of this machine",
				root + "/x.stamp": "compiler clang 14\nsources a\n", dir + "/x.stamp": "compiler " + c.compiler + "\nsources " + c.sources + "\n",
			} {
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			files := []string{"x.o", "x.stamp"}
			if stale, err := compare(root, dir, files, files); err != nil || !slices.Equal(stale, c.stale) {
				t.Fatalf("stale %q, %v; want %q", stale, err, c.stale)
			}
		})
	}
}
