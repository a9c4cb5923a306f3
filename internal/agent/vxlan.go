package agent

import (
	"errors"
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// hear has a socket listen on the port of VXLAN, without which GRO merges none of its packets: that
// costs a third of what one core receives. The switch takes what comes before the socket does.
// Where somebody else listens there already, GRO merges as well. The socket may be that of devices which
// also strip: the detour of DecapVXLAN.
func (l *loop) hear(want table.Set) {
	var addresses []netip.Addr
	if usesVXLAN(want) {
		addresses = slices.Collect(maps.Keys(want.LocalPAs))
	}
	strip := l.sw.Detour() == datapath.DecapVXLAN
	devices, err := netdev.PrepareVXLAN(want.Settings.VXLANPort, addresses, strip)
	if err == nil && strip {
		err = errors.Join(l.sw.DiscardOn(nil), l.sw.AttachVXLAN(devices))
	} else if err == nil {
		err = l.sw.DiscardOn(devices)
	}
	for _, index := range devices {
		if err == nil {
			err = netdev.SetUp(index)
		}
	}
	if err != nil && !l.noListener {
		l.log.Warn("VXLAN may be slow: no socket of ours listens for it", "port", want.Settings.VXLANPort, "error", err)
	}
	l.noListener = err != nil
}

// usesVXLAN reports whether another host may send VXLAN to this one.
func usesVXLAN(s table.Set) bool {
	for _, r := range s.Records {
		if r.Transport == model.VXLAN && r.PA.IsValid() {
			return true
		}
	}
	return false
}
