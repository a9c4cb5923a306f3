package packet

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// story is one packet and everything that must come of it.
type story struct {
	name   string
	in     packetIn
	change func(*table.Set) // of the street, before the packet
	want   outcome
	port   model.PortID // whom the packet counts for
	to     model.PortID // whom it was handed to, if DELIVERED
	made   []sim.Copy   // of a flooded frame
	lost   []model.Verdict
	denied []model.PortID // that get no copy because of their rules

	inbound bool // the drop is the receiver's, though another port sent it
}

// fromPort starts a story at a guest's device.
func (s site) fromPort(dev int, f []byte) packetIn {
	return packetIn{program: datapath.FromPort, ifindex: s.ports[dev], frame: f}
}

// fromUplink starts a story at the first uplink.
func (s site) fromUplink(f []byte) packetIn {
	return packetIn{program: datapath.FromUplink, ifindex: s.uplinks[0], frame: f}
}

// liveOnly are the verdicts that no test run of the program can reach, and where they are met.
var liveOnly = map[model.Verdict]string{
	model.VerdictContinue:   "is never an outcome",
	model.VerdictCopyFailed: "needs a device that goes away: internal/datapath, TestACopyIsLost",

	model.VerdictMirrorLimited:     "is of programs of its own: internal/lab, TestMirrors",
	model.VerdictMirrorFailed:      "likewise",
	model.VerdictMirrorNotInPolicy: "likewise: internal/agent, TestMirrorsCopyToAnyHost",
	model.VerdictBandwidthLimited:  "is of programs of its own: test/bandwidth",
}

func TestEveryVerdictHasAStory(t *testing.T) {
	told := map[model.Verdict]bool{}
	for _, st := range stories(newSite(t)) {
		told[st.want.verdict] = true
	}
	for _, v := range model.Verdicts() {
		_, live := liveOnly[v.Verdict]
		switch {
		case told[v.Verdict] && live:
			t.Errorf("%s has a story: take it off the list of what only the live kernel does", v.Name)
		case !told[v.Verdict] && !live:
			t.Errorf("%s has no story", v.Name)
		}
	}
}

func TestStoriesInTheOracle(t *testing.T) {
	site := newSite(t)
	for _, st := range stories(site) {
		t.Run(st.name, func(t *testing.T) {
			set := st.policy(site)
			got := oracle(site, set, st.in)
			if o := outcomeOf(got); !o.equal(st.want) {
				t.Fatalf("%s\ngot  %s\nwant %s", st.in, o, st.want)
			}
			if got.Port != st.port || got.To != st.to || got.Inbound != (st.inbound || st.in.inbound()) {
				t.Errorf("counts for port %d to %d, inbound %v; want %d to %d", got.Port, got.To, got.Inbound, st.port, st.to)
			}
			if !slices.Equal(got.Denied, st.denied) {
				t.Errorf("copies are denied to %v, want %v", got.Denied, st.denied)
			}
			if !slices.Equal(got.Lost, st.lost) {
				t.Errorf("lost copies %v, want %v", got.Lost, st.lost)
			}
		})
	}
}

func (st story) policy(s site) table.Set {
	set := street(s)
	if st.change != nil {
		st.change(&set)
	}
	return set
}

// told is the ICMP error about the packet p (from its IP header on), as the guest's gateway sends it.
func told(to guest, vsid model.VSID, gate, dst netip.Addr, kind, code uint8, rest uint32, p []byte) []byte {
	quote := p[:min(len(p), 128)&^3]
	if gate.Is4() {
		return frame(to.mac, model.RouterMAC(vsid), wire.TypeIPv4,
			v4(wire.IPv4{TTL: 64, Proto: wire.ProtoICMP, Source: gate, Destination: dst}, nil, icmp(kind, code, rest, quote)))
	}
	return frame(to.mac, model.RouterMAC(vsid), wire.TypeIPv6,
		icmp6(wire.IPv6{HopLimit: 64, Source: gate, Destination: dst}, kind, code, rest, quote))
}

// with returns a copy of b with the bytes at offset replaced.
func with(b []byte, offset int, change ...byte) []byte {
	out := bytes.Clone(b)
	copy(out[offset:], change)
	return out
}

// resealed is with for a frame whose first IPv4 header is checksummed again.
func resealed(b []byte, offset int, change ...byte) []byte {
	out := with(b, offset, change...)
	must(wire.SealIPv4(out[14:34]))
	return out
}
