package agent

import (
	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// detour makes the way by which stripped super-packets reach taps whole, as soon
// as there is a tap. Where it cannot be made the switch strips as well as it can
// without, and strategies show it. That of VXLAN is made with its devices, by hear.
func (l *loop) detour(want table.Set) {
	var err error
	switch by := l.sw.Detour(); {
	case by == "":
		// An earlier process may have been configured to take one.
		if err := l.sw.DetachDetour(); err != nil {
			l.log.Warn("the detour for taps stays", "error", err)
		}
		return
	case by == datapath.DecapVXLAN || !hasTap(want):
		return
	case by == datapath.DecapVeth:
		err = l.detourByVeth()
	default:
		err = l.detourByDX2()
		if err != nil && l.cfg.Decap == datapath.DecapAuto { // half as fast, and twice as fast as none
			if !l.byVeth {
				l.log.Info("no detour by segment routing; taps get super-packets by a veth pair", "error", err)
			}
			err, l.byVeth = l.detourByVeth(), true
		}
	}
	if err != nil && !l.noDetour {
		l.log.Warn("taps get super-packets cut: the kernel offers no way around", "error", err)
	}
	l.noDetour = err != nil
}

func (l *loop) detourByDX2() error {
	index, err := netdev.PrepareDX2(datapath.DX2Segment)
	if err != nil {
		return err
	}
	return l.sw.AttachDX2(index)
}

func (l *loop) detourByVeth() error {
	out, in, err := netdev.PrepareMerge()
	if err != nil {
		return err
	}
	return l.sw.AttachVeth(out, in)
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
