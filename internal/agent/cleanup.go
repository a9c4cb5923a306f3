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
// agents made, the detour for taps, the sockets for VXLAN, managed neighbours, provider routes, addresses that stand for guests' ones, the local socket and what
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
	errs := []error{downPorts(cfg), deleteVeths(), datapath.Remove(cfg.PinDir), netdev.RemoveDX2(), netdev.RemoveMerge(), netdev.RemoveVXLAN(), netdev.RemoveProviderRoutes(), netdev.RemoveStandIns(), netdev.RemoveShaper(), netdev.KeepUplinks(nil), netdev.RemoveMirror(), unmanageAll()}
	for _, path := range []string{cfg.Socket, filepath.Join(cfg.StateDir, goalFile),
		filepath.Join(cfg.StateDir, plugsFile), filepath.Join(cfg.StateDir, lockFile)} {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// downPorts takes down what the switch is on: without it guests would reach the
// host's own stack. The pins say which devices these are; the plugs file is not asked,
// it may be damaged.
func downPorts(cfg Config) error {
	ports, err := datapath.PinnedPorts(cfg.PinDir)
	errs := []error{err}
	for _, index := range ports {
		if err := netdev.SetDown(index); !errors.Is(err, netdev.ErrNoDevice) {
			errs = append(errs, err)
		}
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
