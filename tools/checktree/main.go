// Command checktree looks at the files of the repository and not at what they
// mean: names that say nothing, words that do not belong here, links in Markdown
// that lead nowhere, and Go sources that gofmt would change.
//
// It sees exactly what git tracks. It must never rewrite a file.
package main

import (
	"bytes"
	"fmt"
	"go/format"
	"log"
	"os"
	"os/exec"
	"path"
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
	files, err := tracked(root)
	if err != nil {
		log.Fatal(err)
	}
	var findings []string
	for _, f := range files {
		findings = append(findings, checkName(f)...)
		content, err := os.ReadFile(filepath.Join(root, f))
		if os.IsNotExist(err) {
			continue // deleted but not yet committed
		}
		if err != nil {
			log.Fatal(err)
		}
		findings = append(findings, checkContent(f, content)...)
		if path.Ext(f) == ".md" {
			findings = append(findings, checkLinks(f, content, files)...)
		}
	}
	for _, f := range findings {
		fmt.Fprintln(os.Stderr, f)
	}
	if len(findings) > 0 {
		log.Fatalf("checktree: %d findings", len(findings))
	}
	fmt.Printf("checktree: %d files are in order\n", len(files))
}

// tracked lists the files of the index of root, relative to it.
func tracked(root string) ([]string, error) {
	cmd := exec.Command("git", "-c", "safe.directory=*", "ls-files", "-z")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files: %w", err)
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 }), nil
}

// empty are the names under which anything could be filed, so that nothing is found.
var empty = []string{"util", "utils", "common", "helper", "helpers", "manager", "managers", "types", "misc", "shared", "base"}

func checkName(file string) []string {
	var findings []string
	for _, part := range strings.Split(file, "/") {
		stem := strings.ToLower(strings.SplitN(part, ".", 2)[0])
		stem = strings.TrimSuffix(strings.TrimSuffix(stem, "_test"), "_linux")
		if slices.Contains(empty, stem) {
			findings = append(findings, fmt.Sprintf("%s: the name %s says nothing; name what it holds", file, part))
		}
	}
	return findings
}

// word is text that has no place in the repository, but for the paths in except.
type word struct {
	pattern *regexp.Regexp
	instead string
	except  []string
}

// words are written in pieces, or this file would be the first finding.
var words = []word{
	{regexp.MustCompile(`(?i)\bv` + `teps?\b`), "say PA", []string{"docs/glossary.md"}},
	{regexp.MustCompile(`/wo` + `rk/(main|shared|\.)`), "no path of a build machine", nil},
	{regexp.MustCompile(`(?i)\b(anth` + `ropic|clau` + `de|chat` + `gpt|open` + `ai|cop` + `ilot)\b`), "no attribution to tools", nil},
	{regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME)\b`), "finish it, or open an issue", nil},
	{regexp.MustCompile(`BEGIN (EC |RSA |)PRIV` + `ATE KEY`), "no keys", nil},
}

func checkContent(file string, content []byte) []string {
	if bytes.IndexByte(content, 0) >= 0 {
		return nil // binary: an object that checkgenerated rebuilds
	}
	var findings []string
	for _, w := range words {
		if slices.Contains(w.except, file) {
			continue
		}
		if at := w.pattern.FindIndex(content); at != nil {
			line := 1 + bytes.Count(content[:at[0]], []byte("\n"))
			findings = append(findings, fmt.Sprintf("%s:%d: %q: %s", file, line, content[at[0]:at[1]], w.instead))
		}
	}
	if path.Ext(file) == ".go" {
		formatted, err := format.Source(content)
		if err != nil {
			findings = append(findings, fmt.Sprintf("%s: %v", file, err))
		} else if !bytes.Equal(formatted, content) {
			findings = append(findings, file+": gofmt would change it")
		}
	}
	return findings
}

// link is the target of a Markdown link, without the part behind #.
var link = regexp.MustCompile(`\]\(([^)#\s]+)(#[^)]*)?\)`)

// checkLinks wants relative links to lead to tracked files, or directories of them.
func checkLinks(file string, content []byte, files []string) []string {
	var findings []string
	for _, m := range link.FindAllSubmatch(content, -1) {
		target := string(m[1])
		if strings.Contains(target, "://") {
			continue
		}
		to := target // from the root of a web site: nowhere
		if !path.IsAbs(target) {
			to = path.Join(path.Dir(file), target)
		}
		exists := func(f string) bool { return f == to || strings.HasPrefix(f, to+"/") }
		if !slices.ContainsFunc(files, exists) {
			findings = append(findings, fmt.Sprintf("%s: links to %s, which is not there", file, target))
		}
	}
	return findings
}
