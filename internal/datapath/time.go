package datapath

import (
	"fmt"
	"time"
)

// Time runs a program over a frame repeat times and returns the mean of one run.
// The frame comes from the loopback device (ifindex 1), and the runs go on with
// what earlier ones made of it: with repeat above 1 the program must leave it as it is.
func (s *Switch) Time(p Program, frame []byte, repeat int) (time.Duration, error) {
	prog, ok := s.programs[p.String()]
	if !ok {
		return 0, fmt.Errorf("time: no such program: %s", p)
	}
	_, d, err := prog.Benchmark(frame, repeat, nil)
	if err != nil {
		return 0, fmt.Errorf("time %s: %w", p, err)
	}
	return d, nil
}

// Memory is how many bytes of kernel memory a map takes.
func (s *Switch) Memory(name string) (uint64, error) {
	m, ok := s.maps[name]
	if !ok {
		return 0, fmt.Errorf("memory: no such map: %s", name)
	}
	info, err := m.Info()
	if err != nil {
		return 0, fmt.Errorf("memory of %s: %w", name, err)
	}
	bytes, ok := info.Memlock()
	if !ok {
		return 0, fmt.Errorf("memory of %s: the kernel does not say", name)
	}
	return bytes, nil
}
