package agent

import (
	"encoding/binary"
	"io"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// watchedGuests is two ports of one subnet, of which the first learns, and a clock.
type watchedGuests struct {
	*guests
	t     *testing.T
	clock time.Time
}

var (
	learnerMAC = model.MAC{2, 0, 0, 0, 0, 0x11}
	fixedMAC   = model.MAC{2, 0, 0, 0, 0, 1}
)

func watchGuests(t *testing.T) *watchedGuests {
	a := &Agent{log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	w := &watchedGuests{guests: newGuests(a), t: t, clock: time.Unix(1_700_000_000, 0)}
	w.now = func() time.Time { return w.clock }
	g := goal.New()
	prefixes := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00:a::/64")}
	g.Ports[1] = goal.Port{Ref: model.Ref{Tenant: "red", Name: "learner"}, ID: 1, VSID: 5001, MAC: learnerMAC, Prefixes: prefixes, Gateway4: addr("10.0.0.1"), Learn: 2}
	g.Ports[2] = goal.Port{Ref: model.Ref{Tenant: "red", Name: "fixed"}, ID: 2, VSID: 5001, MAC: fixedMAC, Prefixes: prefixes, Gateway4: addr("10.0.0.1"), CAs: []netip.Addr{addr("10.0.0.5")}}
	g.Records[goal.RecordKey{VSID: 5001, CA: addr("10.0.0.5")}] = goal.Record{MAC: fixedMAC, Port: 2}
	g.Records[goal.RecordKey{VSID: 5001, CA: addr("10.0.0.9")}] = goal.Record{MAC: model.MAC{2, 0, 0, 0, 0, 9}, Port: 9}
	g.Records[goal.RecordKey{VSID: 5001, CA: addr("10.0.0.1")}] = goal.Record{Router: true}
	a.view.Store(&view{held: held{goal: g}, want: table.Set{Ports: map[uint32]table.Port{3: {ID: 1}, 4: {ID: 2}}}})
	return w
}

func arpClaim(mac model.MAC, sender, target string) []byte {
	b := make([]byte, wire.EthernetLen+wire.ARPLen)
	_ = wire.Ethernet{Dst: model.MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, Src: mac, Type: wire.TypeARP}.Encode(b)
	_ = wire.ARP{Op: wire.ARPRequest, SenderMAC: mac, Sender: addr(sender), TargetAddr: addr(target)}.Encode(b[14:])
	return b
}

func dhcpFrame(t *testing.T, m wire.DHCP) []byte {
	b := make([]byte, 14+20+8+300)
	sport, dport := uint16(wire.DHCPClientPort), uint16(wire.DHCPServerPort)
	if m.Reply {
		sport, dport = dport, sport
	}
	_ = wire.Ethernet{Type: wire.TypeIPv4}.Encode(b)
	_ = wire.IPv4{HeaderLen: 20, TotalLen: uint16(len(b) - 14), TTL: 64, Proto: wire.ProtoUDP, Source: addr("0.0.0.0"), Destination: addr("255.255.255.255")}.Encode(b[14:])
	binary.BigEndian.PutUint16(b[34:], sport)
	binary.BigEndian.PutUint16(b[36:], dport)
	if _, err := m.Encode(b[42:]); err != nil {
		t.Fatal(err)
	}
	return b
}

func (w *watchedGuests) sees(verdict model.Verdict, port model.PortID, frame []byte, inbound bool) {
	w.sighted(datapath.Sighting{VSID: 5001, Port: port, Verdict: verdict, Inbound: inbound, Head: frame})
}

// reports wants exactly that to be told to the server now.
func (w *watchedGuests) reports(used, released string) {
	w.t.Helper()
	u, r := "", ""
	for _, one := range w.takeReports() {
		u, r = addrsText(one.used), addrsText(one.released)
	}
	if u != used || r != released {
		w.t.Fatalf("told: used %q, released %q; want %q and %q", u, r, used, released)
	}
}

func addrsText(all []netip.Addr) string {
	var out []string
	for _, a := range all {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}

func (w *watchedGuests) says(want ...string) {
	w.t.Helper()
	var got []string
	for _, f := range *w.said.Load() {
		got = append(got, f.String())
	}
	if len(got) != len(want) || !slices.EqualFunc(got, want, strings.Contains) {
		w.t.Fatalf("findings %q, want %q", got, want)
	}
}

func TestClaimsAreAskedOnceAndInPace(t *testing.T) {
	w := watchGuests(t)
	claim := func(a string) { w.sees(model.VerdictSpoofedArp, 1, arpClaim(learnerMAC, a, a), false) }
	claim("10.0.0.21")
	claim("10.0.0.21")
	w.reports("10.0.0.21", "")
	claim("10.0.0.21")
	w.reports("", "") // not again so soon
	w.clock = w.clock.Add(askAgain)
	claim("10.0.0.21")
	w.reports("10.0.0.21", "")
	// A guest that tries them all gets no further than its pace.
	for i := range 250 {
		claim(netip.AddrFrom4([4]byte{10, 0, 0, byte(i + 2)}).String())
	}
	n := 0
	for _, r := range w.takeReports() {
		n += len(r.used)
	}
	if n == 0 || n > askBurst {
		t.Errorf("%d addresses are asked for at once", n)
	}
	// A port that does not learn asks for nothing.
	w.sees(model.VerdictSpoofedArp, 2, arpClaim(fixedMAC, "10.0.0.22", "10.0.0.22"), false)
	w.reports("", "")
}

func TestWhatTheServerDidNotHearIsToldAgain(t *testing.T) {
	w := watchGuests(t)
	w.sees(model.VerdictSpoofedArp, 1, arpClaim(learnerMAC, "10.0.0.21", "10.0.0.21"), false)
	r := w.takeReports()[0]
	w.told(r, nil, connect.NewError(connect.CodeUnavailable, io.EOF))
	w.reports("10.0.0.21", "")
	w.told(r, []*hostv1.Refusal{{Address: addr("10.0.0.21").AsSlice(), Finding: "DuplicateAddress", Message: "it is an address of Port red/x"}}, nil)
	w.reports("", "")
	w.says("Port red/learner: DuplicateAddress: the guest uses 10.0.0.21: it is an address of Port red/x")
}

func TestLeases(t *testing.T) {
	w := watchGuests(t)
	request := func(xid uint32) {
		w.sees(model.VerdictMulticast, 1, dhcpFrame(t, wire.DHCP{XID: xid, MAC: learnerMAC, Type: wire.DHCPRequest, Client: addr("0.0.0.0")}), false)
	}
	ack := func(kind uint8, xid uint32, mac model.MAC, yours string, port model.PortID) {
		w.sees(model.VerdictContinue, port, dhcpFrame(t, wire.DHCP{Reply: true, XID: xid, MAC: mac, Type: kind, Yours: addr(yours), Lease: 600}), true)
	}
	ack(wire.DHCPAck, 7, learnerMAC, "10.0.0.30", 1)
	w.reports("", "") // nobody asked
	request(7)
	ack(wire.DHCPOffer, 7, learnerMAC, "10.0.0.30", 1)
	ack(wire.DHCPAck, 8, learnerMAC, "10.0.0.30", 1)
	ack(wire.DHCPAck, 7, fixedMAC, "10.0.0.30", 1)
	w.reports("", "") // an offer, another exchange, another client
	ack(wire.DHCPAck, 7, learnerMAC, "10.0.0.30", 0)
	w.reports("10.0.0.30", "") // flooded: found by its MAC
	request(9)
	ack(wire.DHCPAck, 9, learnerMAC, "10.0.0.31", 1)
	w.reports("10.0.0.31", "10.0.0.30") // another lease takes the place of the first
	w.clock = w.clock.Add(599 * time.Second)
	w.tick()
	w.reports("", "")
	w.clock = w.clock.Add(2 * time.Second)
	w.tick()
	w.reports("", "10.0.0.31") // its time is over
	request(10)
	ack(wire.DHCPAck, 10, learnerMAC, "10.0.0.32", 1)
	w.reports("10.0.0.32", "")
	w.sees(model.VerdictContinue, 1, dhcpFrame(t, wire.DHCP{XID: 11, MAC: learnerMAC, Type: wire.DHCPRelease, Client: addr("10.0.0.32")}), false)
	w.reports("", "10.0.0.32")
	request(12)
	w.clock = w.clock.Add(askTimeout + time.Second)
	ack(wire.DHCPAck, 12, learnerMAC, "10.0.0.33", 1)
	w.reports("", "") // too late
	request(13)
	ack(wire.DHCPAck, 13, learnerMAC, "10.0.0.34", 1)
	w.reports("10.0.0.34", "")
	request(14)
	ack(wire.DHCPNak, 14, learnerMAC, "0.0.0.0", 1)
	w.reports("", "10.0.0.34")
}

func TestFindingsComeAndGo(t *testing.T) {
	w := watchGuests(t)
	drop := func(reason model.Verdict, frame []byte) {
		w.dropped(datapath.Event{Reason: reason, Direction: datapath.Outbound, Port: 2, Head: frame})
	}
	drop(model.VerdictSpoofedArp, arpClaim(fixedMAC, "10.0.0.9", "10.0.0.9"))
	w.says("Port red/fixed: DuplicateAddress: the guest uses 10.0.0.9, which is an address of 02:00:00:00:00:09")
	drop(model.VerdictSpoofedArp, arpClaim(fixedMAC, "10.0.0.1", "10.0.0.1"))
	w.says("the guest uses 10.0.0.1, which is the gateway of its subnet") // one of a kind
	w.clock = w.clock.Add(findingLife)
	w.tick()
	w.says("10.0.0.1")
	w.clock = w.clock.Add(time.Second)
	w.tick()
	w.says()

	// What happens once is the guest's start; what goes on is a finding.
	drop(model.VerdictSpoofedArp, arpClaim(fixedMAC, "169.254.7.7", "10.0.0.5"))
	w.says()
	w.clock = w.clock.Add(findingPatience)
	drop(model.VerdictSpoofedArp, arpClaim(fixedMAC, "169.254.7.7", "10.0.0.5"))
	w.says("waits for a DHCP server")
	drop(model.VerdictArpNoRecord, arpClaim(fixedMAC, "10.0.0.5", "10.0.0.254"))
	drop(model.VerdictArpNoRecord, arpClaim(fixedMAC, "10.0.0.5", "10.0.0.77")) // somebody who is gone
	w.clock = w.clock.Add(findingPatience)
	w.sees(model.VerdictArpNoRecord, 2, arpClaim(fixedMAC, "10.0.0.5", "10.0.0.254"), false) // and where it is flooded
	w.says("ForeignAddress", "WrongGateway: the guest looks for 10.0.0.254")
	// The port gets the address: the finding about it is over at once.
	w.sees(model.VerdictAnswered, 2, arpClaim(model.MAC{2, 0, 0, 0, 0, 9}, "10.0.0.9", "0.0.0.0"), false)
	w.says("DuplicateAddress: the guest wants to use 10.0.0.9", "ForeignAddress", "WrongGateway")
	w.view.Load().goal.Records[goal.RecordKey{VSID: 5001, CA: addr("10.0.0.9")}] = goal.Record{MAC: fixedMAC, Port: 2}
	w.tick()
	w.says("ForeignAddress", "WrongGateway")
	// And when the guest is unplugged, all are.
	delete(w.view.Load().want.Ports, 4)
	w.tick()
	w.says()
	if len(w.known) != 0 {
		t.Errorf("%d guests are remembered", len(w.known))
	}
}

// No frame, however cut, may make the agent read past its end.
func TestCutSightings(t *testing.T) {
	w := watchGuests(t)
	for _, f := range [][]byte{arpClaim(learnerMAC, "10.0.0.21", "10.0.0.21"), dhcpFrame(t, wire.DHCP{MAC: learnerMAC, Type: wire.DHCPRequest}),
		append([]byte{12: 0x86, 13: 0xdd, 20: 58, 54: 135}, make([]byte, 40)...)} {
		for n := range len(f) {
			for _, v := range []model.Verdict{model.VerdictContinue, model.VerdictSpoofedArp, model.VerdictSpoofedNd, model.VerdictSpoofedCa, model.VerdictSpoofedMac, model.VerdictArpNoRecord, model.VerdictNdNoRecord, model.VerdictAnswered} {
				w.sees(v, 1, f[:n], false)
				w.dropped(datapath.Event{Reason: v, Direction: datapath.Outbound, Port: 2, Head: f[:n]})
			}
		}
	}
}
