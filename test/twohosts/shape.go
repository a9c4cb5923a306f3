package twohosts

import (
	"maps"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// Limit gives a guest's port a bandwidth, both ways, and makes the queues as an agent does. A rate of 0 is
// no limit.
func (w *World) Limit(g *Guest, outbound, inbound table.Shape) {
	w.t.Helper()
	h := w.Hosts[g.Host]
	w.In(h.NS, func() error {
		rows, err := h.Switch.ReadBack()
		if err != nil {
			return err
		}
		rows = w.limited(rows, g, outbound, inbound)
		if err := h.Switch.Apply(rows, true); err != nil {
			return err
		}
		entry, exit, err := netdev.PrepareShaper(datapath.ShaperMajor)
		if err != nil {
			return err
		}
		if err := h.Switch.SetShaper(entry, exit); err != nil {
			return err
		}
		var keys []table.ShapeKey
		for k, s := range rows.Shapes {
			keys = append(keys, k)
			b := netdev.Bandwidth{Rate: s.Rate, Burst: s.Burst, Room: datapath.QueueRoom(s)}
			if k.Inbound {
				err = netdev.ShapeDevice(k.IfIndex, datapath.ShaperMajor, b)
			} else {
				err = netdev.ShapeClass(entry, datapath.ShaperMajor, h.Switch.ShaperClass(k.IfIndex), b)
			}
			if err != nil {
				return err
			}
		}
		if inbound.Rate == 0 {
			if err := netdev.UnshapeDevice(g.IfIndex, datapath.ShaperMajor); err != nil {
				return err
			}
		}
		return h.Switch.ShapePorts(keys)
	})
}

func (w *World) limited(rows table.Set, g *Guest, outbound, inbound table.Shape) table.Set {
	rows.Shapes = maps.Clone(rows.Shapes)
	outbound.Port, inbound.Port = g.ID, g.ID
	for k, s := range map[table.ShapeKey]table.Shape{{IfIndex: g.IfIndex}: outbound, {IfIndex: g.IfIndex, Inbound: true}: inbound} {
		delete(rows.Shapes, k)
		if s.Rate != 0 {
			rows.Shapes[k] = s
		}
	}
	p := rows.Ports[g.IfIndex]
	p.Peer = !g.Tap && inbound.Rate == 0 // what waits in a device's queue goes through the device
	rows.Ports[g.IfIndex] = p
	return rows
}
