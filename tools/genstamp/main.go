// Command genstamp writes down from what and by what the eBPF object was built: the
// version of clang, and a hash of the sources. Another clang makes another object of
// the same sources; by the stamp checkgenerated can tell that from a stale one.
//
// It is run by go generate, in the directory of the object, right after the build.
// It must never be run without it.
package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) < 3 {
		log.Fatal("usage: genstamp STAMP SOURCE...")
	}
	version, err := exec.Command("clang", "--version").Output()
	if err != nil {
		log.Fatalf("genstamp: clang --version: %v", err)
	}
	text, err := stamp(version, os.Args[2:])
	if err != nil {
		log.Fatalf("genstamp: %v", err)
	}
	if err := os.WriteFile(os.Args[1], text, 0o644); err != nil {
		log.Fatalf("genstamp: %v", err)
	}
}

// stamp is two lines: the first that the compiler says of itself, and the hash of
// the files, and of the C files below the directories, that are the sources.
func stamp(version []byte, sources []string) ([]byte, error) {
	h := sha256.New()
	for _, source := range sources {
		err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || path != source && !isC(path) {
				return err
			}
			content, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			fmt.Fprintf(h, "%s %d\n%s", filepath.ToSlash(path), len(content), content)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	first, _, _ := bytes.Cut(version, []byte("\n"))
	return fmt.Appendf(nil, "compiler %s\nsources %x\n", first, h.Sum(nil)), nil
}

func isC(path string) bool {
	ext := filepath.Ext(path)
	return ext == ".c" || ext == ".h"
}
