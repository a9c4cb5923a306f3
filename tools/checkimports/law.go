package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
)

const module = "github.com/weft-sdn/weft/"

// rank orders the directories of the module. A package imports only packages of
// a lower rank, and those inside its own directory. The tens are the levels of
// the architecture; the units order what depends on a neighbour of its level.
var rank = map[string]int{
	"internal/model": 0, "internal/pcapng": 0, "internal/wire": 1, "internal/table": 1,
	"internal/goal":   10,
	"internal/intent": 11, "internal/compile": 11, "internal/sim": 11, "internal/classify": 11,
	"api":            12, // below what converts it, above what may never know it
	"internal/store": 20, "internal/datapath": 20, "internal/netdev": 20, "internal/observe": 20,
	"internal/identity": 20, "internal/hostwire": 21,
	"internal/manifest": 30,
	"internal/dist":     31, "internal/agent": 31,
	"internal/server": 32, "internal/client": 32,
	"internal/cli": 40, "internal/lab": 40,
	"cmd":  50,
	"test": 60, "tools": 60, "examples": 60,
}

// pure packages use the standard library without clock, chance, environment,
// goroutine, logging or I/O, and no third-party code.
var pure = []string{"internal/model", "internal/table", "internal/goal", "internal/intent", "internal/compile", "internal/sim", "internal/classify"}

// impure are the standard packages that a pure package may not import. time is
// missing on purpose: its types are values; calls of its clock are found by name.
var impure = []string{"os", "io/fs", "log", "math/rand", "crypto/rand", "net", "net/http", "sync", "syscall", "context", "testing"}

// owners says which directories may import a third-party module directly.
var owners = []struct {
	prefix string
	dirs   []string
}{
	{"go.etcd.io/", []string{"internal/store"}},
	{"github.com/cilium/ebpf", []string{"internal/datapath", "test/fleet"}},
	{"github.com/vishvananda/netlink", []string{"internal/netdev"}},
	{"google.golang.org/protobuf", []string{"api", "internal/server", "internal/dist", "internal/agent", "internal/cli", "internal/lab", "internal/client", "internal/hostwire", "internal/manifest"}},
	{module + "api/", []string{"api", "internal/server", "internal/dist", "internal/agent", "internal/cli", "internal/lab", "internal/client", "internal/hostwire", "internal/manifest"}},
}

// unreachable says what a directory may not link, directly or through others.
var unreachable = []struct{ dir, prefix string }{
	{"internal/agent", module + "internal/store"},
	{"internal/agent", "go.etcd.io/"},
	{"internal/server", module + "internal/datapath"},
	{"internal/server", "github.com/cilium/ebpf"},
	{"internal/dist", module + "internal/datapath"},
	{"internal/client", "go.etcd.io/"},
	{"internal/cli", "go.etcd.io/"},
	{"cmd/weft", "go.etcd.io/"},
	{"cmd/weft", "github.com/cilium/ebpf"},
	{"cmd/weft", "github.com/vishvananda/netlink"},
}

// pkg is what `go list -json` says of a package that the law asks about.
type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
	Standard   bool
}

// list returns the packages of the module below root.
func list(root string) ([]pkg, error) {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,GoFiles,Imports,Deps,Standard", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, stderr.String())
	}
	var ps []pkg
	d := json.NewDecoder(bytes.NewReader(out))
	for {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return ps, nil
		}
		if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		ps = append(ps, p)
	}
}

// place finds the directory of the law that an import path belongs to; false
// for one that has no place.
func place(path string) (string, bool) {
	rel := strings.TrimPrefix(path, module)
	for {
		if _, ok := rank[rel]; ok {
			return rel, true
		}
		i := strings.LastIndexByte(rel, '/')
		if i < 0 {
			return "", false
		}
		rel = rel[:i]
	}
}

// within reports whether path is prefix or lies below it.
func within(path, prefix string) bool {
	prefix = strings.TrimSuffix(prefix, "/")
	return path == prefix || strings.HasPrefix(path, prefix+"/")
}

// checkGo returns one finding per broken import.
func checkGo(ps []pkg) []string {
	var findings []string
	for _, p := range ps {
		here, ok := place(p.ImportPath)
		if !ok {
			findings = append(findings, p.ImportPath+": has no place in the import law; give it a rank")
			continue
		}
		for _, imp := range p.Imports {
			findings = append(findings, checkImport(p.ImportPath, here, imp)...)
		}
		if slices.Contains(pure, here) {
			findings = append(findings, checkPure(p)...)
		}
		findings = append(findings, checkDeps(p)...)
	}
	return findings
}

func checkImport(path, here, imp string) []string {
	var findings []string
	if strings.HasPrefix(imp, module) {
		there, ok := place(imp)
		if ok && there != here && rank[there] >= rank[here] {
			findings = append(findings, fmt.Sprintf("%s: imports %s, which is not below it", path, imp))
		}
	}
	if rank[here] >= rank["cmd"] {
		return findings // tests and tools may use anything; cmd/weft is held by what it links
	}
	for _, o := range owners {
		if within(imp, o.prefix) && !slices.Contains(o.dirs, here) {
			findings = append(findings, fmt.Sprintf("%s: imports %s, which belongs to %s alone", path, imp, strings.Join(o.dirs, ", ")))
		}
	}
	return findings
}

func checkDeps(p pkg) []string {
	var findings []string
	for _, u := range unreachable {
		if !within(p.ImportPath, module+u.dir) {
			continue
		}
		for _, d := range p.Deps {
			if within(d, u.prefix) {
				findings = append(findings, fmt.Sprintf("%s: links %s, which it must never reach", p.ImportPath, d))
				break
			}
		}
	}
	return findings
}
