package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
)

// clock are the functions of package time that ask what time it is or wait.
var clock = []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}

// checkPure finds in the sources of a pure package what would make its result
// depend on anything but its arguments.
func checkPure(p pkg) []string {
	var findings []string
	for _, imp := range p.Imports {
		if strings.Contains(strings.SplitN(imp, "/", 2)[0], ".") && !strings.HasPrefix(imp, module) {
			findings = append(findings, fmt.Sprintf("%s: is pure and imports third-party %s", p.ImportPath, imp))
		}
		for _, bad := range impure {
			if imp == bad || (bad != "net" && within(imp, bad)) {
				findings = append(findings, fmt.Sprintf("%s: is pure and imports %s", p.ImportPath, imp))
			}
		}
	}
	fset := token.NewFileSet()
	for _, name := range p.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, 0)
		if err != nil {
			findings = append(findings, err.Error())
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if what := impureNode(n); what != "" {
				findings = append(findings, fmt.Sprintf("%s: is pure and uses %s", fset.Position(n.Pos()), what))
			}
			return true
		})
	}
	return findings
}

func impureNode(n ast.Node) string {
	switch n := n.(type) {
	case *ast.GoStmt:
		return "a goroutine"
	case *ast.SelectorExpr:
		x, ok := n.X.(*ast.Ident)
		if ok && x.Name == "time" && x.Obj == nil && slices.Contains(clock, n.Sel.Name) {
			return "time." + n.Sel.Name
		}
	}
	return ""
}
