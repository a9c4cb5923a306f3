package datapath

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Vouch says that the next hops of peers are up to date and will be kept so for a while: packets go
// there without asking the kernel's neighbour entries. Who stops to vouch has them asked again.
func (s *Switch) Vouch(while time.Duration) error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &now); err != nil {
		return fmt.Errorf("vouch for next hops: %w", err)
	}
	until := uint64(now.Nano())
	if while > 0 {
		until += uint64(while)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.maps["vouch"].Put(uint32(0), until); err != nil {
		return fmt.Errorf("vouch for next hops: %w", err)
	}
	return nil
}
