package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestLinksNoDataPlane: weft runs on any laptop, so it carries no store, no
// netlink and no eBPF.
func TestLinksNoDataPlane(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	deps := strings.Fields(string(out))
	if len(deps) < 50 {
		t.Fatalf("only %d dependencies listed: %v", len(deps), deps)
	}
	for _, d := range deps {
		for _, banned := range []string{"go.etcd.io/", "github.com/vishvananda/", "github.com/cilium/ebpf",
			"weft/internal/store", "weft/internal/netdev", "weft/internal/datapath", "weft/internal/server", "weft/internal/agent"} {
			if strings.Contains(d, banned) {
				t.Errorf("weft links %s", d)
			}
		}
	}
}
