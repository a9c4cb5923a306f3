package agent

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/weft-sdn/weft/internal/goal"
)

func TestGoalSurvivesOnDisk(t *testing.T) {
	dir := t.TempDir()
	if h, err := readGoal(dir); err != nil || h.goal.Rows() != 0 {
		t.Errorf("no file: %+v %v", h, err)
	}
	g := goal.New()
	g.PAs[addr("192.0.2.1")] = struct{}{}
	path := filepath.Join(dir, goalFile)
	if err := writeWhole(path, g.Encode(42)); err != nil {
		t.Fatal(err)
	}
	h, err := readGoal(dir)
	if err != nil || h.revision != 42 || !h.goal.Equal(g) || h.digest != g.Digest() || h.synced {
		t.Errorf("%+v %v", h, err)
	}
	if info, _ := os.Stat(path); info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 1 {
		t.Errorf("left over: %v", entries)
	}
}

func TestDamagedGoalIsRefusedWhole(t *testing.T) {
	dir := t.TempDir()
	g := goal.New()
	g.PAs[addr("192.0.2.1")] = struct{}{}
	whole := g.Encode(42)
	newer := append([]byte(nil), whole...)
	newer[9]++ // the version, behind the magic
	for name, c := range map[string]struct {
		data []byte
		want error
	}{
		"cut":     {whole[:len(whole)-1], goal.ErrCorrupt},
		"empty":   {nil, goal.ErrCorrupt},
		"garbage": {[]byte("all work and no play makes jack a dull boy, and once more: all work and no play"), goal.ErrCorrupt},
		"newer":   {newer, goal.ErrVersion},
	} {
		if err := os.WriteFile(filepath.Join(dir, goalFile), c.data, 0o600); err != nil {
			t.Fatal(err)
		}
		h, err := readGoal(dir)
		if !errors.Is(err, c.want) || h.goal.Rows() != 0 || h.revision != 0 {
			t.Errorf("%s: %+v %v", name, h, err)
		}
	}
}

func TestPlugsSurviveOnDisk(t *testing.T) {
	dir := t.TempDir()
	d := plugsOnDisk{Plugs: []*plug{{portName: portName{"red", "web-1"}, Device: "wfp1", Created: true}}, Unbind: []portName{{"red", "web-2"}}}
	if err := d.write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := readPlugs(dir)
	if err != nil || len(got.Plugs) != 1 || *got.Plugs[0] != *d.Plugs[0] || got.Unbind[0] != d.Unbind[0] {
		t.Errorf("%+v %v", got, err)
	}
	for _, text := range []string{"", "{", `{"format": 2}`} {
		if err := os.WriteFile(filepath.Join(dir, plugsFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readPlugs(dir); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestOneAgentPerStateDirectory(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(dir); err == nil {
		t.Error("the second one got the lock")
	}
	unlock()
	again, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	again()
}
