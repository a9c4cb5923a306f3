// Command checkimports holds the house to its import law: Go packages import
// only packages below them, third-party code stays where it belongs, C headers
// include only what their directory may, every C header compiles alone, and
// every Go package says once what it is for.
//
// The law is the tables below and nothing else. It must never learn to make an
// exception at run time: an exception is a change of the table, in review.
package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
)

func main() {
	log.SetFlags(0)
	root := "."
	if len(os.Args) > 1 {
		root = os.Args[1]
	}
	packages, err := list(root)
	if err != nil {
		log.Fatal(err)
	}
	findings := checkGo(packages)
	findings = append(findings, checkComments(packages)...)
	c, err := checkC(root)
	if err != nil {
		log.Fatal(err)
	}
	findings = append(findings, c...)
	if _, err := exec.LookPath("clang"); err == nil {
		alone, err := checkAlone(root)
		if err != nil {
			log.Fatal(err)
		}
		findings = append(findings, alone...)
	}
	for _, f := range findings {
		fmt.Fprintln(os.Stderr, f)
	}
	if len(findings) > 0 {
		log.Fatalf("checkimports: %d findings; the law is tools/checkimports/law.go", len(findings))
	}
	fmt.Printf("checkimports: %d packages keep the law\n", len(packages))
}
