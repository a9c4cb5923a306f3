// Package walk executes the walks of docs/: what they show is what the code does.
package walk

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

const page = "../../docs/packet-walk.md"

// The demo's world as far as the page needs it: tenant red on two hosts, and the
// port of tenant blue that has red/web-1's addresses.
var (
	h1, h2 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.1")

	redWeb, redDB, blueWeb = model.VSID(5001), model.VSID(5002), model.VSID(6001)

	web1 = model.MAC{2, 0, 0, 0, 0, 1}
	web2 = model.MAC{2, 0, 0, 0, 0, 2}
	db1  = model.MAC{2, 0, 0, 0, 0, 4}
)

// Devices, as the kernel numbers them: underlay, then ports.
const (
	underlayIndex = 2
	redWeb1Index  = 11 // on h1
	blueWeb1Index = 12 // on h1
	redWeb2Index  = 21 // on h2
	redDB1Index   = 22 // on h2
	blueWeb2Index = 23 // on h2
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func port(index uint32, id model.PortID, vsid model.VSID, network model.NetworkIndex, mac model.MAC, pa netip.Addr, gateway string) table.Port {
	return table.Port{IfIndex: index, ID: id, VSID: vsid, Network: network, MAC: mac, PA: pa,
		Gateway4: addr(gateway), MTU: 1458, Peer: true}
}

// rows1 is what h1 holds, rows2 what h2 holds.
func rows1() table.Set {
	s := rowsOfBoth(h1, table.Peer{PA: h2, IfIndex: underlayIndex, MTU: 1500, NextHop: model.MAC{2, 0xaa, 0, 0, 0, 1}, Source: model.MAC{2, 0xbb, 0, 0, 0, 1}})
	s.Ports[redWeb1Index] = port(redWeb1Index, 1, redWeb, 1, web1, h1, "10.0.0.1")
	s.Ports[blueWeb1Index] = port(blueWeb1Index, 5, blueWeb, 2, web1, h1, "10.0.0.1")
	place(s, redWeb, "10.0.0.5", table.Record{MAC: web1, IfIndex: redWeb1Index, Port: 1})
	place(s, redWeb, "10.0.0.6", table.Record{MAC: web2, PA: h2, Port: 2})
	place(s, redDB, "10.0.1.5", table.Record{MAC: db1, PA: h2, Port: 4})
	place(s, blueWeb, "10.0.0.5", table.Record{MAC: web1, IfIndex: blueWeb1Index, Port: 5})
	place(s, blueWeb, "10.0.0.6", table.Record{MAC: web2, PA: h2, Port: 6})
	return s
}

func rows2() table.Set {
	s := rowsOfBoth(h2, table.Peer{PA: h1, IfIndex: underlayIndex, MTU: 1500, NextHop: model.MAC{2, 0xaa, 0, 0, 0, 2}, Source: model.MAC{2, 0xbb, 0, 0, 0, 2}})
	s.Ports[redWeb2Index] = port(redWeb2Index, 2, redWeb, 1, web2, h2, "10.0.0.1")
	s.Ports[redDB1Index] = port(redDB1Index, 4, redDB, 1, db1, h2, "10.0.1.1")
	s.Ports[blueWeb2Index] = port(blueWeb2Index, 6, blueWeb, 2, web2, h2, "10.0.0.1")
	place(s, redWeb, "10.0.0.5", table.Record{MAC: web1, PA: h1, Port: 1})
	place(s, redWeb, "10.0.0.6", table.Record{MAC: web2, IfIndex: redWeb2Index, Port: 2})
	place(s, redDB, "10.0.1.5", table.Record{MAC: db1, IfIndex: redDB1Index, Port: 4})
	place(s, blueWeb, "10.0.0.5", table.Record{MAC: web1, PA: h1, Port: 5})
	place(s, blueWeb, "10.0.0.6", table.Record{MAC: web2, IfIndex: blueWeb2Index, Port: 6})
	return s
}

func rowsOfBoth(own netip.Addr, peer table.Peer) table.Set {
	s := table.NewSet()
	s.LocalPAs[own] = struct{}{}
	s.Peers[peer.PA] = peer
	for _, n := range []struct {
		network model.NetworkIndex
		vsid    model.VSID
		prefix  string
	}{{1, redWeb, "10.0.0.0/24"}, {1, redDB, "10.0.1.0/24"}, {2, blueWeb, "10.0.0.0/24"}} {
		p := netip.MustParsePrefix(n.prefix)
		s.Routes[table.RouteKey{Network: n.network, Prefix: p}] = table.Route{VSID: n.vsid}
		place(s, n.vsid, p.Addr().Next().String(), table.Record{MAC: model.RouterMAC(n.vsid), Router: true})
	}
	return s
}

func place(s table.Set, vsid model.VSID, ca string, r table.Record) {
	s.Records[table.RecordKey{VSID: vsid, CA: addr(ca)}] = r
}

// hello is the datagram "hello" from 10.0.0.5 port 40000 to port 7, as a guest sends it.
func hello(gateway model.MAC, to string) []byte {
	const l4 = wire.EthernetLen + wire.IPv4Len
	payload := []byte("hello")
	f := make([]byte, l4+8, l4+8+len(payload))
	f = append(f, payload...)
	copy(f, gateway[:])
	copy(f[6:], web1[:])
	copy(f[12:], []byte{0x08, 0x00})
	ip := wire.IPv4{HeaderLen: wire.IPv4Len, TotalLen: uint16(len(f) - wire.EthernetLen), DontFrag: true, TTL: 64,
		Proto: wire.ProtoUDP, Source: addr("10.0.0.5"), Destination: addr(to)}
	if err := ip.Encode(f[wire.EthernetLen:]); err != nil {
		panic(err)
	}
	if err := wire.SealIPv4(f[wire.EthernetLen:l4]); err != nil {
		panic(err)
	}
	// Ports 40000 and 7, length 13, checksum 0: none, as UDP over IPv4 allows.
	copy(f[l4:], []byte{40000 >> 8, 40000 & 0xff, 0, 7, 0, 13, 0, 0})
	return f
}

// stretch names a part of a frame.
type stretch struct {
	name   string
	length int
}

var (
	innerParts = []stretch{{"Ethernet", 14}, {"IPv4", 20}, {"UDP", 8}, {"payload", 5}}
	outerParts = []stretch{{"outer IPv4", 20}, {"GRE", 8}, {"inner Ethernet", 14}, {"inner IPv4", 20}, {"inner UDP", 8}, {"payload", 5}}
)

// dump writes a frame in hexadecimal, a line per part.
func dump(frame []byte, parts []stretch) string {
	var b strings.Builder
	for _, p := range parts {
		fmt.Fprintf(&b, "%-15s% x\n", p.name, frame[:p.length])
		frame = frame[p.length:]
	}
	if len(frame) > 0 {
		fmt.Fprintf(&b, "%-15s% x\n", "?", frame)
	}
	return b.String()
}

// told writes what the oracle did, stage by stage.
func told(r sim.Result) string {
	var b strings.Builder
	for _, s := range r.Steps {
		fmt.Fprintf(&b, "%-9s%s\n", s.Stage, s.Text)
	}
	fmt.Fprintf(&b, "%-9s%s, out of device %d\n", "=>", r.Verdict, r.IfIndex)
	return b.String()
}

// describe writes the rows of a Set.
func describe(s table.Set) string {
	var b strings.Builder
	for _, i := range slices.Sorted(maps.Keys(s.Ports)) {
		p := s.Ports[i]
		fmt.Fprintf(&b, "port    device %d  id %d  VSID %d  network %d  MAC %s  PA %s  gateway %s  MTU %d\n",
			i, p.ID, p.VSID, p.Network, p.MAC, p.PA, p.Gateway4, p.MTU)
	}
	var lines []string
	for k, r := range s.Records {
		line := fmt.Sprintf("record  %d %-9s MAC %s  ", k.VSID, k.CA, r.MAC)
		switch {
		case r.Router:
			line += "the router"
		case r.PA.IsValid():
			line += "PA " + r.PA.String()
		default:
			line += fmt.Sprintf("device %d", r.IfIndex)
		}
		lines = append(lines, line)
	}
	for k, r := range s.Routes {
		lines = append(lines, fmt.Sprintf("route   network %d  %s  on-link in VSID %d", k.Network, k.Prefix, r.VSID))
	}
	slices.Sort(lines)
	b.WriteString(strings.Join(lines, "\n") + "\n")
	for _, p := range s.Peers {
		fmt.Fprintf(&b, "peer    %s  device %d  MTU %d\n", p.PA, p.IfIndex, p.MTU)
	}
	for pa := range s.LocalPAs {
		fmt.Fprintf(&b, "local   %s\n", pa)
	}
	return b.String()
}

// journey is one packet from h1 to h2.
type journey struct {
	name   string
	device uint32 // where it enters on h1
	frame  []byte
}

func journeys() []journey {
	return []journey{
		{"same subnet", redWeb1Index, hello(web2, "10.0.0.6")},
		{"other subnet", redWeb1Index, hello(model.RouterMAC(redWeb), "10.0.1.5")},
		{"other tenant", blueWeb1Index, hello(web2, "10.0.0.6")},
	}
}

// received is the frame as the next host's device gets it: the kernel wrote the
// Ethernet header, the router in between took one from the outer TTL.
func received(sent []byte) []byte {
	f := bytes.Clone(sent)
	copy(f, []byte{2, 0xbb, 0, 0, 0, 2, 2, 0xaa, 0, 0, 0, 2, 0x08, 0x00})
	ip := f[wire.EthernetLen : wire.EthernetLen+wire.IPv4Len]
	ip[8]--
	if err := wire.SealIPv4(ip); err != nil {
		panic(err)
	}
	return f
}

// blocks are the walks as the oracle takes them, by the name of the page's block.
func blocks(t *testing.T) map[string]string {
	t.Helper()
	one, two := sim.Switch{Set: rows1(), Explain: true}, sim.Switch{Set: rows2(), Explain: true}
	out := map[string]string{"rows of h1": describe(one.Set), "rows of h2": describe(two.Set)}
	for _, j := range journeys() {
		out[j.name+": sent"] = dump(j.frame, innerParts)
		r := one.FromPort(j.device, j.frame)
		if r.Verdict != model.VerdictEncapsulated {
			t.Fatalf("%s: %s on h1: %+v", j.name, r.Verdict, r.Steps)
		}
		out[j.name+": on h1"] = told(r)
		out[j.name+": on the wire"] = dump(r.Frame[wire.EthernetLen:], outerParts)
		r = two.FromUplink(underlayIndex, received(r.Frame))
		if r.Verdict != model.VerdictDelivered {
			t.Fatalf("%s: %s on h2: %+v", j.name, r.Verdict, r.Steps)
		}
		out[j.name+": on h2"] = told(r)
		out[j.name+": received"] = dump(r.Frame, innerParts)
	}
	return out
}

// Every block of the page is what the code gives; no block is missing a test.
func TestPacketWalk(t *testing.T) {
	want := blocks(t)
	delete(want, "other tenant: received") // as in the first walk
	checkPage(t, page, want)
}
