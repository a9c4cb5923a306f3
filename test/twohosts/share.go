package twohosts

import (
	"maps"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// Share gives guests of one host rates of its uplink, which carries total, as an agent does; all else gets what is left. With
// nobody the queue goes.
func (w *World) Share(host int, total uint64, rates map[*Guest]uint64) {
	w.t.Helper()
	h := w.Hosts[host]
	w.In(h.NS, func() error {
		rows, err := h.Switch.ReadBack()
		if err != nil {
			return err
		}
		rows.Shares = map[uint32]table.Share{}
		for g, rate := range rates {
			rows.Shares[g.IfIndex] = table.Share{Port: g.ID, Minimum: rate}
		}
		if err := h.Switch.Apply(rows, true); err != nil {
			return err
		}
		if len(rates) == 0 {
			if err := h.Switch.Share(nil, nil); err != nil {
				return err
			}
			return netdev.KeepUplinks(nil)
		}
		turn, err := w.queue(h, total, rates)
		if err != nil {
			return err
		}
		var ports []uint32
		for index := range maps.Keys(rows.Shares) {
			ports = append(ports, index)
		}
		return h.Switch.Share(ports, []datapath.Turn{turn})
	})
}

func (w *World) queue(h *Host, total uint64, rates map[*Guest]uint64) (datapath.Turn, error) {
	part := func(rate uint64) netdev.Bandwidth {
		return netdev.Bandwidth{Rate: rate, Burst: max(rate/8/100, 3036), Room: max(2*datapath.QueueRoom(table.Shape{Rate: rate}), total/8/200)}
	}
	u := netdev.Uplink{Index: h.uplink, Total: part(total), Default: datapath.ShareHost, Classes: map[uint16]netdev.Bandwidth{}}
	left := total
	for g, rate := range rates {
		u.Classes[h.Switch.ShareClass(g.IfIndex)] = part(rate)
		left -= rate
	}
	u.Classes[datapath.ShareHost], u.Classes[datapath.ShareOthers] = part(left/2), part(left/2)
	entry, exit, err := netdev.PrepareUplink(u, datapath.ShareMajor)
	return datapath.Turn{Uplink: h.uplink, Entry: entry, Exit: exit}, err
}
