package agent

import (
	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// detour makes the way by which stripped super-packets reach taps whole, as soon
// as there is a tap. Where it cannot be made the switch strips as well as it can
// without, and strategies show it.
func (l *loop) detour(want table.Set) {
	if !l.sw.WantsDX2() {
		// An earlier process may have been configured to take it.
		if err := l.sw.DetachDX2(); err != nil {
			l.log.Warn("the detour for taps stays", "error", err)
		}
		return
	}
	if !hasTap(want) {
		return
	}
	index, err := netdev.PrepareDX2(datapath.DX2Segment)
	if err == nil {
		err = l.sw.AttachDX2(index)
	}
	if err != nil && !l.noDetour {
		l.log.Warn("taps get super-packets cut: the kernel offers no way around", "error", err)
	}
	l.noDetour = err != nil
}

// hasTap reports whether a port's device is anything but a veth.
func hasTap(s table.Set) bool {
	for _, p := range s.Ports {
		if !p.Peer {
			return true
		}
	}
	return false
}
