package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// includes says which directories of bpf/ the headers of a directory may include.
// "." are the entry points; a "way" walks through several stages at once.
var includes = map[string][]string{
	"wire":  {"wire"},
	"gen":   {},
	"maps":  {"wire", "gen", "maps"},
	"lib":   {"wire", "gen", "maps", "lib"},
	"stage": {"wire", "gen", "maps", "lib"},
	"way":   {"wire", "gen", "maps", "lib", "stage", "way"},
	".":     {"wire", "gen", "maps", "lib", "stage", "way"},
}

// goesOn are the stages that other stages' work is part of: a flooded frame is a program of its
// own, which admits and encapsulates as the others do.
var goesOn = map[string][]string{"stage/55_flood.h": {"stage/20_admit.h", "stage/70_encap.h"}}

var includeLine = regexp.MustCompile(`(?m)^\s*#\s*include\s*"([^"]+)"`)

// cFiles lists the C files below root/bpf, relative to bpf; none if there is no bpf.
func cFiles(root string) ([]string, error) {
	bpf := filepath.Join(root, "bpf")
	var files []string
	err := filepath.WalkDir(bpf, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ext := filepath.Ext(p); !d.IsDir() && (ext == ".h" || ext == ".c") {
			rel, err := filepath.Rel(bpf, p)
			files = append(files, filepath.ToSlash(rel))
			return err
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return files, err
}

// checkC returns one finding per include that the law forbids.
func checkC(root string) ([]string, error) {
	files, err := cFiles(root)
	if err != nil {
		return nil, fmt.Errorf("list C files: %w", err)
	}
	var findings []string
	for _, f := range files {
		src, err := os.ReadFile(filepath.Join(root, "bpf", f))
		if err != nil {
			return nil, err
		}
		findings = append(findings, checkIncludes(f, string(src), files)...)
	}
	return findings, nil
}

// checkIncludes judges the quoted includes of one file; files are all that exist.
func checkIncludes(file, src string, files []string) []string {
	here := path.Dir(file)
	allowed, ok := includes[strings.SplitN(here, "/", 2)[0]]
	if !ok {
		return []string{fmt.Sprintf("bpf/%s: directory %s has no place in the include law", file, here)}
	}
	var findings []string
	for _, m := range includeLine.FindAllStringSubmatch(src, -1) {
		target, ok := resolve(here, m[1], files)
		if !ok {
			findings = append(findings, fmt.Sprintf("bpf/%s: includes %q, which is not in bpf/", file, m[1]))
			continue
		}
		if dir := path.Dir(target); !slices.Contains(allowed, dir) && !slices.Contains(goesOn[file], target) {
			findings = append(findings, fmt.Sprintf("bpf/%s: includes %s; %s may include %s", file, target, here, strings.Join(allowed, ", ")))
		}
	}
	return findings
}

// resolve finds an include as the compiler does with -I bpf.
func resolve(here, name string, files []string) (string, bool) {
	for _, candidate := range []string{path.Join(here, name), path.Clean(name)} {
		if slices.Contains(files, candidate) {
			return candidate, true
		}
	}
	return "", false
}

// checkAlone compiles every header by itself: a header that leans on what
// another happened to include breaks when the order changes.
func checkAlone(root string) ([]string, error) {
	files, err := cFiles(root)
	if err != nil {
		return nil, fmt.Errorf("list C files: %w", err)
	}
	var findings []string
	for _, f := range files {
		if !strings.HasSuffix(f, ".h") {
			continue
		}
		cmd := exec.Command("clang", "-target", "bpf", "-g", "-O2", "-fsyntax-only",
			"-I", "bpf", "-I", "/usr/include/"+triple(), "-x", "c", filepath.Join("bpf", f))
		cmd.Dir = root
		if out, err := cmd.CombinedOutput(); err != nil {
			findings = append(findings, fmt.Sprintf("bpf/%s: does not compile alone: %s", f, firstLine(out)))
		}
	}
	return findings, nil
}

// triple is the multiarch directory of the C library's kernel headers.
func triple() string {
	out, err := exec.Command("clang", "-print-target-triple").Output()
	if err != nil {
		return ""
	}
	return strings.Replace(strings.TrimSpace(string(out)), "-pc-", "-", 1)
}

func firstLine(b []byte) string {
	for line := range strings.Lines(string(b)) {
		if strings.Contains(line, "error:") {
			return strings.TrimSpace(line)
		}
	}
	return strings.TrimSpace(string(b))
}
