package packet

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/test/twohosts"
)

// realPackets of mutated and cut real traffic in a normal run.
const realPackets = 100_000

// testdata/real is what two Linux guests said to each other over each carrier: ping, TCP, UDP, fragments,
// ARP, ND, errors. TestCorpus of test/interop writes it anew.
const realTraffic = "testdata/real"

// TestDifferentialOnRealTraffic sends real frames through the program and the oracle: as they were,
// then cut and changed.
func TestDifferentialOnRealTraffic(t *testing.T) {
	d := duel{site: newSite(t), sw: load(t)}
	seed := diffSeed(t)
	rng := rand.New(rand.NewPCG(seed, 0))
	t.Logf("seed %d", seed)
	real, changed, told, packets, most := histogram{}, histogram{}, 0, 0, realPackets
	if emulated() {
		most /= 10
	}
	for _, c := range []twohosts.Carrier{{}, {V6: true}, {Transport: model.VXLAN}, {Transport: model.VXLAN, V6: true}} {
		set := d.realPolicy(c)
		apply(t, d.sw, set)
		frames := d.realFrames(t, c)
		w := writer{rng, &world{site: d.site, set: set}, false}
		for n, ran := 0, 0; ran < most/4 && told < diffMismatches; n++ {
			in, h := frames[n%len(frames)], real
			if n >= len(frames) {
				in.frame, h = w.damage(slices.Clone(in.frame)), changed
			}
			if refusedByTestRun(in.frame) {
				continue
			}
			want := outcomeOf(oracle(d.site, set, in))
			got, err := run(d.sw, in)
			if err != nil {
				t.Fatalf("%v\n%s", err, in)
			}
			packets, ran = packets+1, ran+1
			h[want.verdict]++
			if !got.equal(want) {
				told++
				set, in := d.shrink(t, set, in)
				t.Errorf("seed %d, %s: program and oracle differ\n%s", seed, c, d.report(t, set, in))
				apply(t, d.sw, set)
			}
		}
	}
	t.Logf("%d packets; real:\n%schanged:\n%s", packets, real, changed)
	for _, v := range []model.Verdict{model.VerdictEncapsulated, model.VerdictDelivered, model.VerdictAnswered} {
		if real[v] == 0 || changed[v] == 0 {
			t.Errorf("%s of %d real and %d changed packets", v, real[v], changed[v])
		}
	}
}

// damage cuts the frame or changes it, in the outer headers or the inner.
func (w writer) damage(f []byte) []byte {
	if chance(w.Rand, 25) {
		return f[:14+w.IntN(len(f)-14)]
	}
	if chance(w.Rand, 30) && len(f) > 128 { // what is deeper than the outermost headers
		f[w.IntN(128)] ^= 1 << w.IntN(8)
	}
	return w.mutate(f, 100)
}

// realPolicy is what the host of the captures had: a guest here, the other one behind the carrier.
func (s site) realPolicy(c twohosts.Carrier) table.Set {
	const vsid, network = model.VSID(5001), model.NetworkIndex(1)
	here, there := c.PA(0), c.PA(1)
	vm, peer := model.MAC{2, 0, 0, 0, 0, 1}, model.MAC{2, 0, 0, 0, 0, 2}
	set := table.NewSet()
	set.LocalPAs[here] = struct{}{}
	set.Peers[there] = table.Peer{PA: there, IfIndex: s.uplinks[0], MTU: 1500, NextHop: uplinkNextHop, Source: s.macs[s.uplinks[0]]}
	set.Ports[s.ports[0]] = table.Port{IfIndex: s.ports[0], ID: 1, VSID: vsid, Network: network, MAC: vm, PA: here, MTU: uint16(c.MTU()), Peer: true,
		Gateway4: netip.MustParseAddr("10.0.0.1"), Gateway6: netip.MustParseAddr("fd00:a::1")}
	for _, p := range prefixes("10.0.0.0/24", "fd00:a::/64") {
		set.Routes[table.RouteKey{Network: network, Prefix: p}] = table.Route{VSID: vsid}
		set.Records[table.RecordKey{VSID: vsid, CA: host(p, 1)}] = table.Record{MAC: model.RouterMAC(vsid), Router: true, Transport: c.Transport}
		set.Records[table.RecordKey{VSID: vsid, CA: host(p, 5)}] = table.Record{MAC: vm, IfIndex: s.ports[0], Port: 1, Transport: c.Transport}
		set.Records[table.RecordKey{VSID: vsid, CA: host(p, 6)}] = table.Record{MAC: peer, PA: there, Port: 2, Transport: c.Transport}
	}
	return set
}

// realFrames reads the captures: what the guest sent, and what crossed the underlay.
func (s site) realFrames(t *testing.T, c twohosts.Carrier) (in []packetIn) {
	t.Helper()
	name := map[twohosts.Carrier]string{{}: "nvgre-over-IPv4", {V6: true}: "nvgre-over-IPv6",
		{Transport: model.VXLAN}: "vxlan-over-IPv4", {Transport: model.VXLAN, V6: true}: "vxlan-over-IPv6"}[c]
	for _, f := range readPCAP(t, "guest.pcap") {
		in = append(in, packetIn{program: datapath.FromPort, ifindex: s.ports[0], frame: f})
	}
	mac := s.macs[s.uplinks[0]]
	for _, f := range readPCAP(t, name+".pcap") {
		if f[0] == 2 && f[5] == 1 { // to the host that was captured
			copy(f, mac[:])
		}
		in = append(in, packetIn{program: datapath.FromUplink, ifindex: s.uplinks[0], frame: f})
	}
	return in
}

// readPCAP gives the frames of a little-endian pcap file.
func readPCAP(t *testing.T, name string) (frames [][]byte) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(realTraffic, name))
	if err != nil {
		t.Fatal(err)
	}
	for b = b[24:]; len(b) >= 16; {
		n := 16 + int(binary.LittleEndian.Uint32(b[8:]))
		frames = append(frames, b[16:n:n])
		b = b[n:]
	}
	return frames
}
