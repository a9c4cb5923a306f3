package datapath

import (
	"errors"
	"fmt"
	"strings"
)

// ofFlows tells the maps of bpf/maps/known.h that hold flows: each set of programs begins with none.
func ofFlows(name string) bool { return strings.HasPrefix(name, "known_") }

// turning brackets what writes rows that flows are known by: while write runs none is known anew or sent by what is
// known, and afterwards all that was known before it is forgotten.
func (s *Switch) turning(write func() error) error {
	var turn uint64
	if err := s.maps["policy_turn"].Lookup(uint32(0), &turn); err != nil {
		return fmt.Errorf("turn of policy: %w", err)
	}
	turn |= 1 // it is odd already where a process died while it wrote
	if err := s.maps["policy_turn"].Put(uint32(0), turn); err != nil {
		return fmt.Errorf("turn of policy: %w", err)
	}
	err := write()
	if e := s.maps["policy_turn"].Put(uint32(0), turn+1); e != nil {
		err = errors.Join(err, fmt.Errorf("turn of policy: %w", e))
	}
	return err
}
