package datapath

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/weft-sdn/weft/internal/classify"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// Flow tells of a flow at a port: docs/design/flows.md.
type Flow struct {
	ID        uint64 // the same for all packets of the flow, on this host
	Port      model.PortID
	Direction Direction
	Query     table.Query // the last packet
	Denied    bool
	Sampled   bool   // the port has no rules: its packets are looked at now and then
	Packets   uint64 // since the flow was last told of
}

// FlowCounts are packets that have been seen and that no Flow has told of.
type FlowCounts struct {
	Pending map[uint64]uint64       // of flows by ID: to be told of later
	Missed  map[model.PortID]uint64 // never to be told of
}

// Flows tells of flows until ctx ends, then closes the channel. Each goes to one reader only.
func (s *Switch) Flows(ctx context.Context) (<-chan Flow, error) {
	return readRing(ctx, s, "flow", func(raw []byte) (Flow, bool) {
		var r flowRow
		if err := binary.Read(bytes.NewReader(raw), binary.NativeEndian, &r); err != nil {
			return Flow{}, false
		}
		f := Flow{ID: r.ID, Port: model.PortID(r.Port), Direction: Direction(r.Inbound), Denied: r.Denied != 0, Sampled: r.Sampled != 0, Packets: r.Packets,
			Query: table.Query{LocalMAC: macOf(r.LocalMAC), RemoteMAC: macOf(r.RemoteMAC), IP: true, Local: addrOf(r.Local, r.Is6 != 0), Remote: addrOf(r.Remote, r.Is6 != 0)}}
		classify.FromKeys(&f.Query, r.LocalPort, r.RemotePort)
		return f, true
	})
}

// FlowCounts reads what no Flow has told of.
func (s *Switch) FlowCounts() (FlowCounts, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := FlowCounts{map[uint64]uint64{}, map[model.PortID]uint64{}}
	for i := range s.maps["flow_seen"].MaxEntries() {
		var cpus []flowSeenRow
		if err := s.maps["flow_seen"].Lookup(i, &cpus); err != nil {
			return out, fmt.Errorf("read map flow_seen: %w", err)
		}
		for _, c := range cpus {
			if c.Packets > 0 {
				out.Pending[c.ID] += uint64(c.Packets)
			}
		}
	}
	for ifindex, p := range allPorts(s.have) {
		var row flowPaceRow
		if err := s.maps["flow_pace"].Lookup(s.slots[ifindex], &row); err != nil {
			return out, fmt.Errorf("read map flow_pace: %w", err)
		}
		if row.Missed > 0 {
			out.Missed[p.ID] += row.Missed
		}
	}
	return out, nil
}
