package datapath

import (
	"fmt"

	"github.com/cilium/ebpf"
)

// tailCalls are the maps by which programs find what they go on with, and the programs
// in them, by index.
var tailCalls = map[string][]string{
	"flood_prog": floodPrograms,
	"walk":       {"walk_port", "walk_uplink", "look", progVLANGuest, "walk_exchanged"},
}

// isTail tells whether a program is reached from others.
func isTail(name string) bool {
	for _, programs := range tailCalls {
		for _, p := range programs {
			if p == name {
				return true
			}
		}
	}
	return false
}

// fillTails lets programs find what they go on with, as far as it is loaded. It comes before any
// of them is attached: from_port passes most it does not know at once on to walk_port.
func fillTails(programs map[string]*ebpf.Program, maps map[string]*ebpf.Map) error {
	for name, tails := range tailCalls {
		for i, p := range tails {
			var err error
			if programs[p] != nil {
				err = maps[name].Put(uint32(i), programs[p])
			} else { // one of another build may be there
				err = ignoreMissing(maps[name].Delete(uint32(i)))
			}
			if err != nil {
				return fmt.Errorf("put program %s into %s: %w", p, name, err)
			}
		}
	}
	return nil
}
