package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestImportLaw(t *testing.T) {
	cases := map[string]struct {
		p    pkg
		want string // part of the only finding; empty: none
	}{
		"down is right":        {pkg{ImportPath: module + "internal/compile", Imports: []string{module + "internal/goal"}}, ""},
		"up is wrong":          {pkg{ImportPath: module + "internal/goal", Imports: []string{module + "internal/sim"}}, "not below"},
		"sideways is wrong":    {pkg{ImportPath: module + "internal/dist", Imports: []string{module + "internal/agent"}}, "not below"},
		"own family is right":  {pkg{ImportPath: module + "internal/agent", Imports: []string{module + "internal/agent/session"}}, ""},
		"no place":             {pkg{ImportPath: module + "internal/stuff"}, "no place"},
		"etcd outside store":   {pkg{ImportPath: module + "internal/server", Imports: []string{"go.etcd.io/etcd/client/v3"}}, "belongs to internal/store"},
		"etcd in store":        {pkg{ImportPath: module + "internal/store", Imports: []string{"go.etcd.io/etcd/client/v3"}}, ""},
		"netlink in datapath":  {pkg{ImportPath: module + "internal/datapath", Imports: []string{"github.com/vishvananda/netlink"}}, "internal/netdev alone"},
		"protobuf in datapath": {pkg{ImportPath: module + "internal/datapath", Imports: []string{module + "api/weft/v1"}}, "alone"},
		"third party in sim":   {pkg{ImportPath: module + "internal/sim", Imports: []string{"github.com/google/uuid"}}, "third-party"},
		"os in compile":        {pkg{ImportPath: module + "internal/compile", Imports: []string{"os"}}, "pure and imports os"},
		"netip in compile":     {pkg{ImportPath: module + "internal/compile", Imports: []string{"net/netip"}}, ""},
		"weft links ebpf":      {pkg{ImportPath: module + "cmd/weft", Deps: []string{"github.com/cilium/ebpf"}}, "never reach"},
		"weftd links ebpf":     {pkg{ImportPath: module + "cmd/weftd", Deps: []string{"github.com/cilium/ebpf"}}, ""},
		"agent reaches store":  {pkg{ImportPath: module + "internal/agent/session", Deps: []string{module + "internal/store"}}, "never reach"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { wantOne(t, checkGo([]pkg{c.p}), c.want) })
	}
}

func wantOne(t *testing.T, findings []string, want string) {
	t.Helper()
	switch {
	case want == "" && len(findings) > 0:
		t.Fatalf("findings %q, want none", findings)
	case want != "" && (len(findings) != 1 || !strings.Contains(findings[0], want)):
		t.Fatalf("findings %q, want one with %q", findings, want)
	}
}

func TestPureSourceMayNotReadTheClock(t *testing.T) {
	cases := map[string]struct{ body, want string }{
		"now":       {"var x = time.Now()", "time.Now"},
		"goroutine": {"func f() { go f() }", "goroutine"},
		"duration":  {"var x = 3 * time.Second", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			src := "package p\n\nimport \"time\"\n\nvar _ time.Time\n\n" + c.body + "\n"
			if err := os.WriteFile(filepath.Join(dir, "p.go"), []byte(src), 0o600); err != nil {
				t.Fatal(err)
			}
			wantOne(t, checkPure(pkg{ImportPath: module + "internal/sim", Dir: dir, GoFiles: []string{"p.go"}}), c.want)
		})
	}
}

func TestPackageComment(t *testing.T) {
	good := "Package x holds things. " + strings.Repeat("Invariant. ", 12) + "It must never do I/O.\n"
	cases := map[string]struct {
		comments []string
		ok       bool
	}{
		"good":       {[]string{good}, true},
		"none":       {nil, false},
		"two":        {[]string{good, good}, false},
		"stub":       {[]string{"Package x does x and never y.\n"}, false},
		"no bounds":  {[]string{"Package x " + strings.Repeat("holds things. ", 20)}, false},
		"no subject": {[]string{strings.Repeat("It must never. ", 20)}, false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := judge(c.comments); (got == "") != c.ok {
				t.Fatalf("judged %q, want ok %v", got, c.ok)
			}
		})
	}
}

func TestIncludeLaw(t *testing.T) {
	files := []string{"wire/ip.h", "gen/verdict.h", "maps/port.h", "lib/ctx.h", "stage/10_parse.h", "stage/20_admit.h", "vswitch.bpf.c"}
	cases := map[string]struct{ file, src, want string }{
		"system headers":        {"wire/ip.h", "#include <linux/types.h>", ""},
		"wire includes ours":    {"wire/ip.h", `#include "../gen/verdict.h"`, "may include"},
		"wire includes wire":    {"wire/ip.h", `#include "ip.h"`, ""},
		"maps include wire":     {"maps/port.h", `#include "wire/ip.h"`, ""},
		"maps include lib":      {"maps/port.h", `#include "../lib/ctx.h"`, "may include"},
		"lib includes stage":    {"lib/ctx.h", `#include "stage/10_parse.h"`, "may include"},
		"stage includes stage":  {"stage/20_admit.h", `#include "10_parse.h"`, "may include"},
		"entry includes stage":  {"vswitch.bpf.c", `#include "stage/10_parse.h"`, ""},
		"missing header":        {"lib/ctx.h", `#include "nowhere.h"`, "not in bpf/"},
		"unknown directory":     {"misc/x.h", "", "no place"},
		"commented include":     {"wire/ip.h", `// #include "lib/ctx.h"`, ""},
		"indented, with spaces": {"wire/ip.h", `  #  include "lib/ctx.h"`, "may include"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) { wantOne(t, checkIncludes(c.file, c.src, files), c.want) })
	}
}

func TestHeaderMustCompileAlone(t *testing.T) {
	root := t.TempDir()
	write := func(name, src string) {
		t.Helper()
		p := filepath.Join(root, "bpf", name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(src), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("wire/whole.h", "#include <linux/types.h>\nstruct whole { __u32 x; };\n")
	write("wire/leans.h", "struct leans { __u32 x; };\n")
	findings, err := checkAlone(root)
	if err != nil {
		t.Fatal(err)
	}
	wantOne(t, findings, "bpf/wire/leans.h")
}
