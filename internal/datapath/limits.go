package datapath

import (
	"github.com/cilium/ebpf"
)

// Limits are how many rows each table has room for.
type Limits struct{ Ports, Records, Routes, Peers uint32 }

// Limits of this switch.
func (s *Switch) Limits() Limits {
	return Limits{s.opts.MaxPorts, s.opts.MaxRecords, s.opts.MaxRoutes, s.opts.MaxPeers}
}

// limitOf names the limit that a map's size follows from, its value, and the limit
// at which n rows fit.
func (s *Switch) limitOf(name string, n int) (table string, limit uint32, need int) {
	switch name {
	case "record":
		return "records", s.opts.MaxRecords, n
	case "route":
		return "routes", s.opts.MaxRoutes, n
	case "peer":
		return "peers", s.opts.MaxPeers, n - 1 // row 0 is nobody's
	case "path":
		return "peers", s.opts.MaxPeers, (n + pathBlock - 1) / pathBlock * peersPerBlock
	case "source":
		return "peers", s.opts.MaxPeers, (n + sourcesPerPeer - 1) / sourcesPerPeer
	case "drop":
		return "ports", s.opts.MaxPorts, (n - dropRows(0) + dropRowsPerPort - 1) / dropRowsPerPort
	}
	return "ports", s.opts.MaxPorts, n
}

// dropRowsPerPort is how many reasons a port is expected to meet.
const dropRowsPerPort = 4

// dropRows is the size of the map of drop counters: all reasons without a port,
// both ways, and some for each port.
func dropRows(ports uint32) int { return dropRowsPerPort*int(ports) + 256 }

// roomFor refuses a map that has shrunk below what the running switch holds in it.
func (s *Switch) roomFor(name string, old *ebpf.Map) error {
	rows, err := rowsHeld(old)
	if err == nil && name == "port" {
		// The counters of a port are found by a number that it keeps.
		err = walk(old, func(_ uint32, r portRow) error {
			rows = max(rows, int(r.Slot)+1)
			return nil
		})
	}
	if err != nil || rows <= int(s.maps[name].MaxEntries()) {
		return err
	}
	table, limit, need := s.limitOf(name, rows)
	return &ErrFull{Table: table, Map: name, Need: need, Limit: int(limit)}
}

// rowsHeld counts the rows of a map; those of an array up to the last that is not zero.
func rowsHeld(m *ebpf.Map) (int, error) {
	n := 0
	switch m.Type() {
	case ebpf.RingBuf, ebpf.PerCPUArray:
		return 0, nil
	case ebpf.Array:
		err := walk(m, func(i uint32, v []byte) error {
			if !allZero(v) {
				n = max(n, int(i)+1)
			}
			return nil
		})
		return n, err
	}
	err := walk(m, func(_, _ []byte) error { n++; return nil })
	return n, err
}
