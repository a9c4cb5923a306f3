package datapath

import (
	"errors"
	"slices"

	"github.com/cilium/ebpf"
)

const progDiscard = "discard"

// DiscardOn drops all that devices receive, and on no others any more: those that only exist so that
// a socket listens, which the host's own stack must hear nothing from. Repeating it is harmless.
func (s *Switch) DiscardOn(devices []uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for n := range s.links {
		if n.program == progDiscard && !slices.Contains(devices, n.ifindex) {
			errs = append(errs, s.detach(n))
		}
	}
	for _, ifindex := range devices {
		errs = append(errs, s.attach(linkName{progDiscard, ifindex}, ebpf.AttachTCXIngress))
	}
	return errors.Join(errs...)
}
