package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/goal"
)

// The files of the state directory.
const (
	goalFile  = "goal"
	plugsFile = "plugs.json"
	lockFile  = "lock"
)

// lockState makes sure that one agent alone works on a state directory. The
// kernel lets go of the lock with the process, however it ends.
func lockState(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the state directory: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("state directory %s belongs to another agent that is running: %w", dir, err)
	}
	return func() { f.Close() }, nil
}

// writeWhole replaces a file so that a crash leaves either the old or the new.
func writeWhole(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*") // 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // after the rename this finds nothing
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// readGoal reads the cached Goal. A missing file is an empty Goal; anything else
// that is wrong is an error, and the Goal is empty as well.
func readGoal(dir string) (held, error) {
	empty := held{goal: goal.New()}
	data, err := os.ReadFile(filepath.Join(dir, goalFile))
	if errors.Is(err, fs.ErrNotExist) {
		return empty, nil
	}
	if err != nil {
		return empty, fmt.Errorf("cached goal: %w", err)
	}
	g, revision, err := goal.Decode(data)
	if err != nil {
		return empty, fmt.Errorf("cached goal %s: %w; it is ignored until the server has sent it again", filepath.Join(dir, goalFile), err)
	}
	return held{goal: g, revision: revision, digest: g.Digest()}, nil
}

// keepCache writes every Goal that the loop has worked through, the newest one
// when they come faster than the disk takes them.
func (a *Agent) keepCache(ctx context.Context) error {
	written := a.held.Load().goal
	save := func() {
		v := a.view.Load()
		if v.goal == written || !v.synced {
			return
		}
		written = v.goal
		if err := writeWhole(filepath.Join(a.cfg.StateDir, goalFile), v.goal.Encode(v.revision)); err != nil {
			a.log.Error("the goal could not be cached; after a restart without a server an older one counts", "error", err)
		}
	}
	for {
		news := a.news.listen()
		save()
		select {
		case <-news:
		case <-ctx.Done():
			save()
			return nil
		}
	}
}

// plugsFormat is the version of the plugs file.
const plugsFormat = 1

type plugsOnDisk struct {
	Format int     `json:"format"`
	Plugs  []*plug `json:"plugs"`
	// Unbind names ports whose unbinding the server has not confirmed.
	Unbind []portName `json:"unbind,omitempty"`
}

func readPlugs(dir string) (plugsOnDisk, error) {
	var d plugsOnDisk
	path := filepath.Join(dir, plugsFile)
	data, err := os.ReadFile(path)
	if err != nil {
		return d, fmt.Errorf("plugs: %w", err)
	}
	if err := json.Unmarshal(data, &d); err != nil {
		return plugsOnDisk{}, fmt.Errorf("plugs %s: %w", path, err)
	}
	if d.Format != plugsFormat {
		return plugsOnDisk{}, fmt.Errorf("plugs %s: format %d, not %d", path, d.Format, plugsFormat)
	}
	return d, nil
}

func (d plugsOnDisk) write(dir string) error {
	d.Format = plugsFormat
	data, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	if err := writeWhole(filepath.Join(dir, plugsFile), data); err != nil {
		return fmt.Errorf("write down plugs: %w", err)
	}
	return nil
}
