package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/netdev"
)

// Cleanup takes weft off this host: the switch with its pins, the veths that
// agents made, the detour for taps, managed neighbours, the local socket and what
// the state directory remembers of the data plane. The host's certificate stays:
// it is not of this host's kernel. It refuses while an agent runs.
func Cleanup(cfg Config) error {
	if _, err := os.Stat(cfg.StateDir); err == nil {
		unlock, err := lockState(cfg.StateDir)
		if err != nil {
			return err
		}
		defer unlock()
	}
	errs := []error{downPorts(cfg), deleteVeths(), datapath.Remove(cfg.PinDir), netdev.RemoveDX2(), unmanageAll()}
	for _, path := range []string{cfg.Socket, filepath.Join(cfg.StateDir, goalFile),
		filepath.Join(cfg.StateDir, plugsFile), filepath.Join(cfg.StateDir, lockFile)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// downPorts takes adopted devices down: without the switch their guests would
// reach the host's own stack.
func downPorts(cfg Config) error {
	disk, err := readPlugs(cfg.StateDir)
	if err != nil {
		return nil // no plugs are known, none can be taken down
	}
	var errs []error
	for _, p := range disk.Plugs {
		link, err := netdev.ByName(p.Device)
		if err != nil || p.Created {
			continue
		}
		errs = append(errs, netdev.SetDown(link.Index))
	}
	return errors.Join(errs...)
}

func deleteVeths() error {
	links, err := netdev.Links()
	if err != nil {
		return err
	}
	var errs []error
	for _, link := range links {
		if _, ours := ownerName(link.Owner); ours {
			errs = append(errs, netdev.DeleteLink(link.Name))
		}
	}
	return errors.Join(errs...)
}

func unmanageAll() error {
	managed, err := netdev.ManagedNeighbours()
	if err != nil {
		return fmt.Errorf("neighbours: %w", err)
	}
	var errs []error
	for n := range managed {
		errs = append(errs, netdev.Unmanage(n))
	}
	return errors.Join(errs...)
}
