// Command checkgenerated runs `make generate` in a copy of the repository and
// compares the copy with the original. What differs is stale.
//
// It knows no generator and no list of outputs, so none can be forgotten. It
// must never touch the tree that it judges.
package main

import (
	"bytes"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

func main() {
	log.SetFlags(0)
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	stale, err := run(root)
	if err != nil {
		log.Fatalf("checkgenerated: %v", err)
	}
	for _, s := range stale {
		fmt.Fprintln(os.Stderr, s)
	}
	if len(stale) > 0 {
		log.Fatal("checkgenerated: generated files are stale; run `make generate` and commit what changes")
	}
	fmt.Println("checkgenerated: generated files are fresh")
}

// run returns one line per file that generating changes.
func run(root string) ([]string, error) {
	files, err := listed(root)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "weft-generate-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for _, f := range files {
		if err := copyFile(filepath.Join(root, f), filepath.Join(dir, f)); err != nil {
			return nil, err
		}
	}
	// The copy is a repository of its own, so that git lists what generating adds.
	for _, args := range [][]string{{"git", "init", "-q"}, {"make", "-s", "generate"}} {
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	after, err := listed(dir)
	if err != nil {
		return nil, err
	}
	return compare(root, dir, files, after)
}

// listed returns the files of a work tree that git does not ignore, sorted.
func listed(dir string) ([]string, error) {
	cmd := exec.Command("git", "-c", "safe.directory=*", "ls-files", "-z", "-c", "-o", "--exclude-standard", "--deduplicate")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files in %s: %w", dir, err)
	}
	var files []string
	for _, f := range strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 }) {
		if _, err := os.Lstat(filepath.Join(dir, f)); err == nil {
			files = append(files, f)
		}
	}
	slices.Sort(files)
	return files, nil
}

func copyFile(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, info.Mode().Perm())
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// compare returns one line per file of the original that is not as the copy has it.
func compare(root, dir string, before, after []string) ([]string, error) {
	var stale []string
	foreign := false // some object was built by another compiler
	for _, f := range after {
		if !slices.Contains(before, f) {
			stale = append(stale, f+": missing")
			continue
		}
		old, err := os.ReadFile(filepath.Join(root, f))
		if err != nil {
			return nil, err
		}
		fresh, err := os.ReadFile(filepath.Join(dir, f))
		if err != nil {
			return nil, err
		}
		foreign = foreign || filepath.Ext(f) == ".stamp" && !bytes.Equal(compiler.Find(old), compiler.Find(fresh))
		if !bytes.Equal(neutral(f, old), neutral(f, fresh)) {
			stale = append(stale, f+": differs")
		}
	}
	for _, f := range before {
		if !slices.Contains(after, f) {
			stale = append(stale, f+": no longer generated")
		}
	}
	if foreign {
		stale = excuse(stale)
	}
	return stale, nil
}

// excuse takes objects off the list: another compiler makes another object, and
// whether the sources have changed is what the stamp says.
func excuse(stale []string) []string {
	return slices.DeleteFunc(stale, func(line string) bool {
		object := strings.HasSuffix(line, ".o: differs")
		if object {
			fmt.Printf("checkgenerated: %s, being built by another compiler; not judged\n", line)
		}
		return object
	})
}

var (
	// protoc is the only line of generated Go that depends on protoc's own version.
	protoc = regexp.MustCompile(`(?m)^//\s+(- )?protoc\s+.*\n`)
	// compiler is the line of a stamp that says who built the object.
	compiler = regexp.MustCompile(`(?m)^compiler .*\n`)
)

// neutral is the content of a file without what depends on the builder's machine.
func neutral(file string, content []byte) []byte {
	switch filepath.Ext(file) {
	case ".go":
		return protoc.ReplaceAll(content, nil)
	case ".stamp":
		return compiler.ReplaceAll(content, nil)
	}
	return content
}
