package main

import (
	"fmt"
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
)

// minComment is shorter than any comment that says purpose, invariants and
// bounds, and longer than a stub.
const minComment = 120

// checkComments wants one package comment per package that says what the
// package is, what holds, and what it must never do. Generated packages have
// no author to ask; packages of tests alone are described by their tests.
func checkComments(ps []pkg) []string {
	var findings []string
	for _, p := range ps {
		if len(p.GoFiles) == 0 || within(p.ImportPath, module+"api") {
			continue
		}
		var comments []string
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				findings = append(findings, err.Error())
				continue
			}
			if f.Doc != nil {
				comments = append(comments, f.Doc.Text())
			}
		}
		if complaint := judge(comments); complaint != "" {
			findings = append(findings, fmt.Sprintf("%s: %s", p.ImportPath, complaint))
		}
	}
	return findings
}

func judge(comments []string) string {
	if len(comments) != 1 {
		return fmt.Sprintf("has %d package comments; one is right", len(comments))
	}
	c := comments[0]
	switch {
	case !strings.HasPrefix(c, "Package ") && !strings.HasPrefix(c, "Command "):
		return "its package comment does not start with Package or Command"
	case len(c) < minComment:
		return "its package comment is a stub: say purpose, invariants, and what it must never do"
	case !strings.Contains(c, "never") && !strings.Contains(c, "no "):
		return "its package comment does not say what the package must never do"
	}
	return ""
}
