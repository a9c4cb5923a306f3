package datapath

import (
	"context"
	"errors"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

var errNotYet = errors.New("not built yet")

// Switch is a loaded switch. Its methods may be called from several goroutines.
type Switch struct{}

// Open loads the switch. With a PinDir it takes over the pinned maps and links of
// an earlier process: programs in use are replaced atomically, and where a map's
// layout or size has changed only after the new map holds the rows (which then is
// at the end of the first Apply).
func Open(o Options) (*Switch, error) { return nil, errNotYet }

// Apply makes the maps equal to want. It refuses with *ErrFull before writing
// anything if a table would not fit. Errors of single rows are joined; the other
// rows are still written. With sweep false nothing is deleted.
func (s *Switch) Apply(want table.Set, sweep bool) error { return errNotYet }

// ReadBack reads the rows that the kernel holds.
func (s *Switch) ReadBack() (table.Set, error) { return table.Set{}, errNotYet }

// AttachPort puts from_port and to_port on the device; repeating it is harmless.
func (s *Switch) AttachPort(ifindex uint32) error { return errNotYet }

// DetachPort takes the switch off the device. What the guest sends then reaches
// the host's own stack: set the device down first.
func (s *Switch) DetachPort(ifindex uint32) error { return errNotYet }

// AttachUplink puts from_uplink on the device, and uplink_xdp where Decap says so.
func (s *Switch) AttachUplink(ifindex uint32) error { return errNotYet }

// DetachUplink undoes AttachUplink.
func (s *Switch) DetachUplink(ifindex uint32) error { return errNotYet }

// Attached lists the devices that the switch is on, sorted.
func (s *Switch) Attached() (ports, uplinks []uint32, err error) { return nil, nil, errNotYet }

// Drops reads the drop counters.
func (s *Switch) Drops() ([]DropCount, error) { return nil, errNotYet }

// Traffic reads the counters of the ports that the switch holds.
func (s *Switch) Traffic() (map[model.PortID]TrafficCount, error) { return nil, errNotYet }

// Events delivers dropped packets until ctx ends, then closes the channel.
// Only one reader at a time gets them.
func (s *Switch) Events(ctx context.Context) (<-chan Event, error) { return nil, errNotYet }

// Strategies says for each uplink how it decapsulates: "tcx", "tcx+gre" (the
// kernel resets the tunnel's GSO state) or "xdp".
func (s *Switch) Strategies() map[uint32]string { return nil }

// Run runs a program once over a frame, as if it came from the device (which must
// exist): nothing is sent, but counters count.
func (s *Switch) Run(p Program, ifindex uint32, frame []byte) (RunResult, error) {
	return RunResult{}, errNotYet
}

// Close lets go of the switch. What is pinned stays and keeps forwarding.
func (s *Switch) Close() error { return nil }

// Remove detaches and unpins everything under pinDir, and the directory itself.
func Remove(pinDir string) error { return errNotYet }
