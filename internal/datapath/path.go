package datapath

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/weft-sdn/weft/internal/table"
)

const (
	pathBlock      = table.MaxPaths - 1 // rows of `path` that a host with several ways has
	peersPerBlock  = 4                  // not every host will have several
	sourcesPerPeer = 2
	fewBlocks      = 64
)

func (s *Switch) maxBlocks() uint32 { return max(s.opts.MaxPeers/peersPerBlock, fewBlocks) }

func (s *Switch) maxSources() uint32 {
	return max(s.opts.MaxPeers, fewBlocks*table.MaxPaths) * sourcesPerPeer
}

// pathBlocks gives hosts with several ways their rows of `path`.
type pathBlocks struct {
	of   map[netip.Addr]uint32 // first row
	free []uint32
}

func newPathBlocks(blocks uint32, held map[netip.Addr]uint32) pathBlocks {
	b := pathBlocks{of: held}
	used := map[uint32]bool{}
	for _, row := range held {
		used[row] = true
	}
	for i := blocks; i > 0; i-- {
		if row := (i - 1) * pathBlock; !used[row] {
			b.free = append(b.free, row)
		}
	}
	return b
}

// diffPaths lists the ways and sources that change. Those of a host that is wanted
// belong to it, and go with or without sweep.
func (d *delta) diffPaths(have, want table.Set, sweep bool) {
	touched := map[netip.Addr]bool{}
	d.putPaths, d.delPaths = diffRows(have.Paths, want.Paths, true)
	d.putSources, d.delSources = diffRows(have.Sources, want.Sources, true)
	keptPaths, keptSources := d.delPaths[:0], d.delSources[:0]
	for _, k := range d.delPaths {
		if _, wanted := want.Peers[k.PA]; wanted || sweep {
			keptPaths = append(keptPaths, k)
		}
	}
	for _, k := range d.delSources {
		if _, wanted := want.Peers[k.Peer]; wanted || sweep {
			keptSources = append(keptSources, k)
		}
	}
	d.delPaths, d.delSources = keptPaths, keptSources
	for _, k := range append(d.putPaths, d.delPaths...) {
		touched[k.PA] = true
	}
	for _, k := range append(d.putSources, d.delSources...) {
		touched[k.Peer] = true
	}
	for _, pa := range d.putPeers {
		delete(touched, pa)
	}
	for pa := range touched { // its row counts them
		if _, wanted := want.Peers[pa]; wanted {
			d.putPeers = append(d.putPeers, pa)
		}
	}
}

// blocksAfter counts the hosts that will have several ways.
func (s *Switch) blocksAfter(want table.Set, sweep bool) int {
	all := map[netip.Addr]bool{}
	for k := range want.Paths {
		all[k.PA] = true
	}
	for pa := range s.paths.of {
		if _, wanted := want.Peers[pa]; !wanted && !sweep {
			all[pa] = true
		}
	}
	return len(all)
}

// putPaths writes the further ways; nobody goes them until the row of the host counts
// them. What is not wanted any more is only forgotten: the row of the host, which is
// written next, does not count it.
func (s *Switch) putPaths(want table.Set, d *delta) []error {
	var errs []error
	for _, k := range d.delPaths {
		delete(s.have.Paths, k)
	}
	for _, k := range d.putPaths {
		if _, wanted := want.Peers[k.PA]; !wanted || k.N == 0 || k.N >= table.MaxPaths || want.Paths[k].PA != k.PA {
			errs = append(errs, fmt.Errorf("way %d to %s: it is of no peer, or misnumbered", k.N, k.PA))
			continue
		}
		row, err := s.pathRow(k.PA)
		if err == nil {
			p := want.Paths[k]
			err = s.maps["path"].Put(row+uint32(k.N)-1, encodePeer(k.PA, &p))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("way %d to %s: %w", k.N, k.PA, err))
			continue
		}
		s.have.Paths[k] = want.Paths[k]
	}
	return errs
}

func (s *Switch) pathRow(pa netip.Addr) (uint32, error) {
	if row, ok := s.paths.of[pa]; ok {
		return row, nil
	}
	if len(s.paths.free) == 0 {
		return 0, errors.New("no room for several ways is left")
	}
	row := s.paths.free[len(s.paths.free)-1]
	s.paths.free = s.paths.free[:len(s.paths.free)-1]
	s.paths.of[pa] = row
	return row, nil
}

// waysOf is what the row of a host says of its further ways and of its sources. Once
// the row counts none, their place is free.
func (s *Switch) waysOf(pa netip.Addr) (first, n uint32, listed bool) {
	for n < pathBlock {
		if _, ok := s.have.Paths[table.PathKey{PA: pa, N: uint8(n + 1)}]; !ok {
			break
		}
		n++
	}
	return s.paths.of[pa], n, s.listed[pa] > 0
}

func (r *peerRow) setWays(first, n uint32, listed bool) {
	if n > 0 {
		r.Path, r.Paths = first, n
	}
	r.Flags |= flag[uint16](listed, peerListed)
}

// settlePaths gives back the place of a host that has no further ways any more.
func (s *Switch) settlePaths(pa netip.Addr) {
	row, ok := s.paths.of[pa]
	if _, n, _ := s.waysOf(pa); ok && n == 0 {
		s.paths.free = append(s.paths.free, row)
		delete(s.paths.of, pa)
	}
}

func (s *Switch) putSources(keys []table.Source) []error {
	var errs []error
	for _, k := range keys {
		idx, _, err := s.peers.index(k.Peer)
		if err == nil {
			err = s.maps["source"].Put(sourceKey{idx, addr16(k.PA)}, uint32(1))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("outer source %s of peer %s: %w", k.PA, k.Peer, err))
			continue
		}
		s.have.Sources[k] = struct{}{}
		s.listed[k.Peer]++
		s.peers.hold(k.Peer)
	}
	return errs
}

// forgetSources makes the rows of hosts not count on sources that deleteSources takes away.
func (s *Switch) forgetSources(keys []table.Source) {
	for _, k := range keys {
		if s.listed[k.Peer]--; s.listed[k.Peer] == 0 {
			delete(s.listed, k.Peer)
		}
	}
}

func (s *Switch) deleteSources(keys []table.Source) []error {
	var errs []error
	for _, k := range keys {
		if err := ignoreMissing(s.maps["source"].Delete(sourceKey{s.peers.of[k.Peer], addr16(k.PA)})); err != nil {
			errs = append(errs, fmt.Errorf("outer source %s of peer %s: %w", k.PA, k.Peer, err))
			s.listed[k.Peer]++
			continue
		}
		delete(s.have.Sources, k)
		s.peers.drop(k.Peer)
	}
	return errs
}

// readPaths reads the further ways that the row of a host counts.
func (h *held) readPaths(m *ebpf.Map, pa netip.Addr, r peerRow) error {
	if r.Paths == 0 {
		return nil
	}
	h.paths[pa] = r.Path
	for n := range min(r.Paths, pathBlock) {
		var row peerRow
		if err := m.Lookup(r.Path+n, &row); err != nil {
			return fmt.Errorf("way %d to %s: %w", n+1, pa, err)
		}
		p := decodePeer(row)
		h.set.Paths[table.PathKey{PA: pa, N: uint8(n + 1)}] = p
	}
	return nil
}
