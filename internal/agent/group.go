package agent

import (
	"context"
	"net/netip"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// The querier's times (RFC 9776 section 8): a guest that answers none of two queries is
// taken to listen no more.
const (
	queryInterval   = 125 * time.Second
	groupLifetime   = 2*queryInterval + 10*time.Second
	groupTick       = 5 * time.Second
	maxGroupsOfPort = 128 // a guest is an attacker
	maxReportsAtOne = 256
)

// snooping is which multicast groups the ports of this host listen to. Only one
// goroutine has it.
type snooping struct {
	until map[table.GroupMember]time.Time
	count map[uint32]int       // groups of a device
	query map[uint32]time.Time // of a device, when the next is due
}

// newSnooping starts from what the switch goes by: guests are asked again before it ends.
func newSnooping(known map[table.GroupMember]struct{}, now time.Time) *snooping {
	s := &snooping{until: map[table.GroupMember]time.Time{}, count: map[uint32]int{}, query: map[uint32]time.Time{}}
	for m := range known {
		s.until[m] = now.Add(groupLifetime)
		s.count[m.IfIndex]++
	}
	return s
}

// hear takes a report; it tells whether the memberships are others now. Leaving is at once: behind a port
// is one guest, and if others are behind that, the next query brings them back.
func (s *snooping) hear(r datapath.GroupReport, now time.Time) bool {
	said, err := wire.ParseGroupReport(r.Packet)
	if err != nil {
		return false
	}
	changed := false
	for _, g := range said.Left {
		changed = s.leave(table.GroupMember{VSID: r.VSID, IfIndex: r.IfIndex, Group: g}) || changed
	}
	for _, g := range said.Joined {
		m := table.GroupMember{VSID: r.VSID, IfIndex: r.IfIndex, Group: g}
		_, known := s.until[m]
		if !known && s.count[r.IfIndex] >= maxGroupsOfPort {
			continue
		}
		if !known {
			s.count[r.IfIndex]++
			changed = true
		}
		s.until[m] = now.Add(groupLifetime)
	}
	return changed
}

func (s *snooping) leave(m table.GroupMember) bool {
	if _, known := s.until[m]; !known {
		return false
	}
	delete(s.until, m)
	if s.count[m.IfIndex]--; s.count[m.IfIndex] == 0 {
		delete(s.count, m.IfIndex)
	}
	return true
}

// tend forgets who has not answered and who is gone, and lists the ports to be asked now.
func (s *snooping) tend(want table.Set, now time.Time) (ask []table.Port, changed bool) {
	for m, until := range s.until {
		if p, ok := want.Ports[m.IfIndex]; !ok || p.VSID != m.VSID || !want.Floods[m.VSID].L2 || now.After(until) {
			changed = s.leave(m) || changed
		}
	}
	for index := range s.query {
		if p, ok := want.Ports[index]; !ok || !want.Floods[p.VSID].L2 {
			delete(s.query, index)
		}
	}
	for index, p := range want.Ports {
		if due, known := s.query[index]; want.Floods[p.VSID].L2 && (!known || now.After(due)) {
			s.query[index] = now.Add(queryInterval)
			ask = append(ask, p)
		}
	}
	return ask, changed
}

func (s *snooping) members() map[table.GroupMember]struct{} {
	out := make(map[table.GroupMember]struct{}, len(s.until))
	for m := range s.until {
		out[m] = struct{}{}
	}
	return out
}

// snoop keeps the switch knowing who listens to which multicast group of an L2 subnet, and is the
// querier of all of them.
func (a *Agent) snoop(ctx context.Context) error {
	reports, err := a.sw.GroupReports(ctx)
	if err != nil {
		a.log.Error("guests' reports of multicast groups cannot be read", "error", err)
		return nil
	}
	if _, err := a.firstView(ctx); err != nil {
		return err
	}
	s, tick := newSnooping(a.sw.Groups(), time.Now()), time.NewTicker(groupTick)
	defer tick.Stop()
	changed := false
	for {
		news := a.news.listen()
		ask, gone := s.tend(a.view.Load().want, time.Now())
		if changed || gone {
			if err := a.sw.SetGroups(s.members()); err != nil {
				a.log.Error("multicast groups of ports", "error", err)
			}
		}
		a.query(ask)
		changed = false
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-news:
		case <-tick.C:
		case r, ok := <-reports:
			if !ok {
				return ctx.Err()
			}
			changed = s.hear(r, time.Now())
			changed = s.hearMore(reports) || changed
		}
	}
}

// hearMore takes reports that are there already, so that many cost one write.
func (s *snooping) hearMore(reports <-chan datapath.GroupReport) bool {
	changed := false
	for range maxReportsAtOne {
		select {
		case r, ok := <-reports:
			if !ok {
				return changed
			}
			changed = s.hear(r, time.Now()) || changed
		default:
			return changed
		}
	}
	return changed
}

// query asks guests which groups they listen to.
func (a *Agent) query(ports []table.Port) {
	for _, p := range ports {
		for _, frame := range queries(p) {
			if err := netdev.Send(p.IfIndex, datapath.SwitchMark, frame); err != nil {
				a.log.Warn("a guest could not be asked for its multicast groups", "port", p.ID, "error", err)
			}
		}
	}
}

// queries are IGMP's and MLD's, from the router of the subnet.
func queries(p table.Port) [][]byte {
	router := model.RouterMAC(p.VSID)
	source4 := p.Gateway4
	if !source4.IsValid() {
		source4 = netip.IPv4Unspecified()
	}
	// The router's link-local address, by its MAC (RFC 4291 appendix A).
	source6 := netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 8: router[0] ^ 2, 9: router[1], 10: router[2], 11: 0xff, 12: 0xfe, 13: router[3], 14: router[4], 15: router[5]})
	var out [][]byte
	for _, q := range []struct {
		dst    model.MAC
		kind   uint16
		source netip.Addr
	}{
		{model.MAC{0x01, 0x00, 0x5e, 0, 0, 1}, wire.TypeIPv4, source4},
		{model.MAC{0x33, 0x33, 0, 0, 0, 1}, wire.TypeIPv6, source6},
	} {
		packet := wire.EncodeGroupQuery(q.source, uint8(queryInterval/time.Second))
		frame := make([]byte, wire.EthernetLen+len(packet))
		written(wire.Ethernet{Dst: q.dst, Src: router, Type: q.kind}.Encode(frame))
		copy(frame[wire.EthernetLen:], packet)
		out = append(out, frame)
	}
	return out
}
