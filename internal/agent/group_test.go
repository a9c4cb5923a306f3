package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// igmpReport is an IGMPv2 report, or a leave, of a guest.
func igmpReport(kind byte, group netip.Addr) []byte {
	b := make([]byte, wire.IPv4Len+8)
	written(wire.IPv4{HeaderLen: wire.IPv4Len, TotalLen: uint16(len(b)), TTL: 1, Proto: wire.ProtoIGMP, Source: addr("10.0.0.5"), Destination: group}.Encode(b))
	written(wire.SealIPv4(b))
	g := group.As4()
	b[20] = kind
	copy(b[24:], g[:])
	sum := wire.Checksum(b[20:], 0)
	b[22], b[23] = byte(sum>>8), byte(sum)
	return b
}

func listeningSet() table.Set {
	set := table.NewSet()
	set.Floods[5001] = table.Flood{L2: true}
	set.Ports[40] = table.Port{IfIndex: 40, ID: 1, VSID: 5001, Flood: true, Gateway4: addr("10.0.0.1")}
	set.Ports[41] = table.Port{IfIndex: 41, ID: 2, VSID: 5001, Flood: true}
	set.Ports[42] = table.Port{IfIndex: 42, ID: 3, VSID: 5002}
	return set
}

func TestMembershipsComeByReportsAndGoByLeavesTimeAndPorts(t *testing.T) {
	now := time.Unix(1000, 0)
	s := newSnooping(nil, now)
	say := func(device uint32, kind byte, group string) bool {
		return s.hear(datapath.GroupReport{IfIndex: device, VSID: 5001, Packet: igmpReport(kind, addr(group))}, now)
	}
	video := func(device uint32) table.GroupMember {
		return table.GroupMember{VSID: 5001, IfIndex: device, Group: addr("239.1.2.3")}
	}
	listens := func(device uint32) bool { _, ok := s.members()[video(device)]; return ok }
	if !say(40, wire.IGMPReport2, "239.1.2.3") || say(40, wire.IGMPReport2, "239.1.2.3") || !listens(40) || listens(41) {
		t.Errorf("after a report: %v", s.members())
	}
	say(41, wire.IGMPReport2, "239.1.2.3")
	if !say(40, wire.IGMPLeave, "239.1.2.3") || listens(40) || !listens(41) {
		t.Errorf("after a leave: %v", s.members())
	}
	if s.hear(datapath.GroupReport{IfIndex: 41, VSID: 5001, Packet: []byte{0x45}}, now) {
		t.Error("nonsense changed something")
	}

	now = now.Add(groupLifetime)
	if _, changed := s.tend(listeningSet(), now); changed || !listens(41) {
		t.Error("forgotten too early")
	}
	now = now.Add(time.Second)
	if _, changed := s.tend(listeningSet(), now); !changed || listens(41) {
		t.Error("not forgotten")
	}

	say(40, wire.IGMPReport2, "239.1.2.3")
	gone := listeningSet()
	delete(gone.Ports, 40)
	if _, changed := s.tend(gone, now); !changed || len(s.members()) != 0 {
		t.Errorf("a port that is gone still listens: %v", s.members())
	}
	say(40, wire.IGMPReport2, "239.1.2.3")
	quiet := listeningSet()
	delete(quiet.Floods, 5001)
	if _, changed := s.tend(quiet, now); !changed || len(s.members()) != 0 || len(s.count) != 0 {
		t.Errorf("a subnet that is not flooded has listeners: %v, %v", s.members(), s.count)
	}
}

func TestAGuestJoinsOnlySoManyGroups(t *testing.T) {
	now := time.Unix(1000, 0)
	s := newSnooping(map[table.GroupMember]struct{}{{VSID: 5001, IfIndex: 40, Group: addr("239.9.9.9")}: {}}, now)
	for i := range 1000 {
		group := netip.AddrFrom4([4]byte{239, 1, byte(i >> 8), byte(i)})
		s.hear(datapath.GroupReport{IfIndex: 40, VSID: 5001, Packet: igmpReport(wire.IGMPReport2, group)}, now)
	}
	if n := len(s.members()); n != maxGroupsOfPort {
		t.Errorf("%d groups, want %d", n, maxGroupsOfPort)
	}
	if !s.hear(datapath.GroupReport{IfIndex: 41, VSID: 5001, Packet: igmpReport(wire.IGMPReport2, addr("239.1.2.3"))}, now) {
		t.Error("another guest may not listen")
	}
}

func TestPortsOfFloodedSubnetsAreAsked(t *testing.T) {
	now := time.Unix(1000, 0)
	s := newSnooping(nil, now)
	asked := func() map[model.PortID]bool {
		out := map[model.PortID]bool{}
		ports, _ := s.tend(listeningSet(), now)
		for _, p := range ports {
			out[p.ID] = true
		}
		return out
	}
	if got := asked(); len(got) != 2 || !got[1] || !got[2] {
		t.Errorf("asked at first: %v", got)
	}
	now = now.Add(queryInterval)
	if got := asked(); len(got) != 0 {
		t.Errorf("asked before the interval is over: %v", got)
	}
	now = now.Add(time.Second)
	if got := asked(); len(got) != 2 {
		t.Errorf("asked again: %v", got)
	}
	for i, frame := range queries(listeningSet().Ports[41]) {
		eth, err := wire.ParseEthernet(frame)
		if err != nil || eth.Src != model.RouterMAC(5001) || eth.Type != []uint16{wire.TypeIPv4, wire.TypeIPv6}[i] {
			t.Errorf("query %x: %+v, %v", frame, eth, err)
		}
	}
}
