package datapath

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/cilium/ebpf"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// inherited is what a port's rules have let through under an older layout, by the table that the old programs still use.
type inherited struct {
	id      model.PortID
	buckets uint32
	table   *ebpf.Map
}

// inherit finds the connections that a switch of another layout follows, if their tables and the rows of ports are as they are
// here. Ports take them over when they are first applied: their next packets are judged, or go on, as after any change
// of rules.
func (s *Switch) inherit() error {
	dirs, err := filepath.Glob(filepath.Join(s.opts.PinDir, "maps-*"))
	if err != nil || len(dirs) != 1 || dirs[0] == s.mapDir() {
		return err // there is none, or it is not clear whose links are in use
	}
	old := map[string]*ebpf.Map{}
	defer closeAll(old)
	for _, name := range []string{"port", "vlan_port", "conn_port", "conn_secret", "connection"} {
		m, err := ebpf.LoadPinnedMap(filepath.Join(dirs[0], name), nil)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("connections of another layout: %w", err)
		}
		old[name] = m
		if now := s.maps[name]; m.Type() != now.Type() || m.ValueSize() != now.ValueSize() {
			return nil
		}
	}
	if err := copyRows(old["conn_secret"], s.maps["conn_secret"]); err != nil {
		return fmt.Errorf("secret of another layout: %w", err)
	}
	s.inherited = map[uint32]inherited{}
	return errors.Join(
		readAll(old["port"], func(ifindex uint32, r portRow) error { return s.inheritPort(old, ifindex, r) }),
		readAll(old["vlan_port"], func(ifindex uint32, r vlanPortRow) error { return s.inheritPort(old, ifindex, r.Port) }))
}

func (s *Switch) inheritPort(old map[string]*ebpf.Map, ifindex uint32, r portRow) error {
	var m *ebpf.Map
	var size connPortRow
	if err := old["conn_port"].Lookup(r.Slot, &size); err != nil || size.Buckets == 0 {
		return err
	}
	if err := old["connection"].Lookup(r.Slot, &m); err != nil {
		return ignoreMissing(err)
	}
	if m.ValueSize() != uint32(binary.Size(connectionBucket{})) || m.MaxEntries() != size.Buckets {
		return m.Close()
	}
	s.inherited[ifindex] = inherited{model.PortID(r.ID), size.Buckets, m}
	return nil
}

// adopt gives a port that has no table yet the one that it inherits, if that is as large as its own would be.
func (s *Switch) adopt(ifindex uint32, p table.Port, buckets uint32) (bool, error) {
	was, ok := s.inherited[ifindex]
	if !ok || was.id != p.ID || was.buckets != buckets {
		return false, nil
	}
	slot := s.slots[ifindex]
	if err := s.maps["connection"].Put(slot, was.table); err != nil {
		return false, fmt.Errorf("connections of port %d: %w", p.ID, err)
	}
	if err := s.maps["conn_port"].Put(slot, connPortRow{Buckets: buckets, Limit: p.Connections}); err != nil {
		return false, fmt.Errorf("connections of port %d: %w", p.ID, err)
	}
	s.connections[slot] = buckets
	return true, nil
}

// disinherit lets go of what no port has taken.
func (s *Switch) disinherit() {
	for _, was := range s.inherited {
		was.table.Close()
	}
	s.inherited = nil
}
