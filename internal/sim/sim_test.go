package sim

import (
	"bytes"
	"net/netip"
	"reflect"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

var (
	web    = model.MAC{2, 0, 0, 0, 0, 1}
	db     = model.MAC{2, 0, 0, 0, 0, 2}
	paHere = netip.MustParseAddr("192.0.2.1")
	paFar  = netip.MustParseAddr("198.51.100.7")
)

// twoSubnets is port 1 (10.0.0.5, subnet 5001) here and 10.0.1.6 (subnet 5002) on a far host.
func twoSubnets() table.Set {
	s := table.NewSet()
	s.Ports[3] = table.Port{IfIndex: 3, ID: 1, VSID: 5001, Network: 1, MAC: web, PA: paHere,
		Gateway4: netip.MustParseAddr("10.0.0.1"), MTU: 1458}
	s.Records[table.RecordKey{VSID: 5001, CA: netip.MustParseAddr("10.0.0.5")}] = table.Record{MAC: web, IfIndex: 3, Port: 1}
	s.Records[table.RecordKey{VSID: 5002, CA: netip.MustParseAddr("10.0.1.6")}] = table.Record{MAC: db, PA: paFar, Port: 2}
	s.Routes[table.RouteKey{Network: 1, Prefix: netip.MustParsePrefix("10.0.0.0/24")}] = table.Route{VSID: 5001}
	s.Routes[table.RouteKey{Network: 1, Prefix: netip.MustParsePrefix("10.0.1.0/24")}] = table.Route{VSID: 5002}
	s.Routes[table.RouteKey{Network: 1, Prefix: netip.MustParsePrefix("10.0.0.0/8")}] = table.Route{VSID: 5001, NextHop: netip.MustParseAddr("10.0.0.9")}
	s.Routes[table.RouteKey{Network: 2, Prefix: netip.MustParsePrefix("10.0.1.6/32")}] = table.Route{VSID: 6001}
	s.Peers[paFar] = table.Peer{PA: paFar, IfIndex: 2, MTU: 1500}
	return s
}

func udp(t *testing.T) []byte {
	t.Helper()
	b := make([]byte, 14+20+8)
	ip := wire.IPv4{HeaderLen: 20, TOS: 0xb9, TotalLen: 28, TTL: 64, Proto: wire.ProtoUDP,
		Source: netip.MustParseAddr("10.0.0.5"), Destination: netip.MustParseAddr("10.0.1.6")}
	for _, err := range []error{
		wire.Ethernet{Dst: model.RouterMAC(5001), Src: web, Type: wire.TypeIPv4}.Encode(b),
		ip.Encode(b[14:]), wire.SealIPv4(b[14:34]), wire.Ports{Source: 1000, Destination: 53}.Encode(b[34:]),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return b
}

func TestARoutedPacketIsExplainedStepByStep(t *testing.T) {
	got := Switch{Set: twoSubnets(), Explain: true}.FromPort(3, udp(t))
	if got.Verdict != model.VerdictEncapsulated || got.IfIndex != 2 || got.Port != 1 || got.Inbound {
		t.Fatalf("%+v", got)
	}
	want := []Step{
		{"parse", "port 1 of subnet 5001"},
		{"parse", "IP 10.0.0.5 to 10.0.1.6, protocol 17, 28 bytes"},
		{"admit", "admitted"},
		{"route", "route 10.0.1.0/24 leads to 10.0.1.6 in subnet 5002"},
		{"lookup", "10.0.1.6 is 02:00:00:00:00:02 at 198.51.100.7"},
		{"encap", "NVGRE 192.0.2.1 to 198.51.100.7, VSID 5002, FlowID 183"},
		{"underlay", "out of device 2"},
	}
	if !reflect.DeepEqual(got.Steps, want) {
		t.Errorf("steps\n%q, want\n%q", got.Steps, want)
	}
}

func TestTheFrameOfTheCallerIsLeftAlone(t *testing.T) {
	frame := udp(t)
	before := bytes.Clone(frame)
	got := Switch{Set: twoSubnets()}.FromPort(3, frame)
	if !bytes.Equal(frame, before) {
		t.Errorf("changed to %x", frame)
	}
	if got.Steps != nil {
		t.Error("explained without being asked")
	}
}

func TestStepsNameTheStagesOfTheSchema(t *testing.T) {
	known := map[string]bool{}
	for _, v := range model.Verdicts() {
		known[v.Stage] = true
	}
	for n := range udp(t) {
		for _, s := range (Switch{Set: twoSubnets(), Explain: true}).FromPort(3, udp(t)[:n]).Steps {
			if !known[s.Stage] {
				t.Fatalf("%q is no stage", s.Stage)
			}
		}
	}
}
