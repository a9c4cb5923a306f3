package chaos

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/weft-sdn/weft/internal/lab"
	"github.com/weft-sdn/weft/test/fleet"
)

// An agent is killed in the middle of `weft capture`. Packets pass all the while, the next agent puts the usual programs back, and
// those of the capture are gone from the kernel.
func TestACaptureDiesWithItsAgent(t *testing.T) {
	spec, err := lab.LoadSpec(filepath.Join(fleet.Root(), "examples/demo-lab.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	w := &world{Fleet: fleet.New(t, "c", fleet.Options{Spec: spec}), t: t}
	usual := w.linked("h1")
	capture := exec.Command(fleet.Program("weftd"), "lab", "exec", "--name", w.Name, fleet.Server, "--", "weft", "capture", "--host", "h1", "-w", os.DevNull)
	if err := capture.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { capture.Process.Kill(); capture.Wait() })
	var capturing map[ebpf.ProgramID]bool
	w.Poll("h1 runs the programs of a capture", func() error {
		capturing = w.linked("h1")
		for id := range usual {
			if capturing[id] && w.captures(id) {
				return fmt.Errorf("program %d is still there", id)
			}
		}
		return nil
	})
	traffic := w.Traffic(pairs...)
	traffic.More(after)
	w.Kill("h1", syscall.SIGKILL)
	traffic.More(after)
	left := 0
	for id := range capturing {
		if !usual[id] && there(t, id) {
			left++
		}
	}
	if left == 0 {
		t.Error("nothing is left of the capture: this test tests nothing")
	}
	w.Start("h1")
	w.Poll("what the dead agent left is gone", func() error {
		for id := range capturing {
			if !usual[id] && there(t, id) {
				return fmt.Errorf("program %d of the capture is still loaded", id)
			}
		}
		return nil
	})
	traffic.More(after)
	if total := traffic.Finish(); total.Lost > 0 {
		t.Errorf("%d of %d lost", total.Lost, total.Sent)
	}
	w.Connected()
	w.Verified()
}

// linked are the programs on the pinned links of a host.
func (w *world) linked(host string) map[ebpf.ProgramID]bool {
	w.t.Helper()
	pins, err := filepath.Glob(filepath.Join(w.Pins(host), "links", "*"))
	if err != nil || len(pins) == 0 {
		w.t.Fatalf("links of %s: %v, %v", host, pins, err)
	}
	out := map[ebpf.ProgramID]bool{}
	for _, pin := range pins {
		l, err := link.LoadPinnedLink(pin, nil)
		if err != nil {
			w.t.Fatal(err)
		}
		info, err := l.Info()
		l.Close()
		if err != nil {
			w.t.Fatal(err)
		}
		out[info.Program] = true
	}
	return out
}

// captures tells whether a program is one of those that a capture replaces.
func (w *world) captures(id ebpf.ProgramID) bool {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return false
	}
	defer p.Close()
	info, err := p.Info()
	return err == nil && (info.Name == "from_port" || info.Name == "from_uplink")
}

// there tells whether the kernel has a program.
func there(t *testing.T, id ebpf.ProgramID) bool {
	t.Helper()
	p, err := ebpf.NewProgramFromID(id)
	if errors.Is(err, os.ErrNotExist) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	p.Close()
	return true
}
