package agent

import (
	"net/netip"
	"testing"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/wire"
)

// What a transport changes does not change the key of a packet; what tells two packets
// apart does.
func TestPacketKey(t *testing.T) {
	key := func(p probe, change func([]byte)) uint64 {
		f := p.frame(model.MAC{2, 1}, model.MAC{2, 2})
		if change != nil {
			change(f)
		}
		return packetKey(datapath.Captured{Point: datapath.FromGuest, Frame: f})
	}
	for name, to := range map[string]string{"IPv4": "10.0.0.6", "IPv6": "fd00:a::6"} {
		dst := netip.MustParseAddr(to)
		src := dst.Prev()
		for proto, p := range map[string]probe{
			"tcp":  {source: src, destination: dst, protocol: wire.ProtoTCP, sport: 1, dport: 2},
			"udp":  {source: src, destination: dst, protocol: wire.ProtoUDP, sport: 1, dport: 2, size: 100},
			"icmp": {source: src, destination: dst, protocol: wire.ProtoICMP},
		} {
			l4 := wire.EthernetLen + wire.IPv6Len
			if dst.Is4() {
				l4 = wire.EthernetLen + wire.IPv4Len
			}
			was := key(p, nil)
			if was == 0 {
				t.Fatalf("%s %s has no key", name, proto)
			}
			routed := key(p, func(f []byte) {
				f[0] ^= 1
				if dst.Is4() {
					f[14+8]--
					f[14+10] ^= 5
					f[14+15] ^= 9 // as rewriting does
				} else {
					f[14+7]--
					f[14+23] ^= 9
				}
			})
			if routed != was {
				t.Errorf("%s %s: another key after routing", name, proto)
			}
			tell := map[string]int{"tcp": 7, "udp": 8, "icmp": 7}[proto] // sequence number, payload
			if key(p, func(f []byte) { f[l4+tell] ^= 1 }) == was {
				t.Errorf("%s %s: two packets have one key", name, proto)
			}
			f := p.frame(model.MAC{2, 1}, model.MAC{2, 2})
			inner := packetKey(datapath.Captured{Point: datapath.FromUnderlay, Frame: append(make([]byte, 42), f...), Inner: 42})
			if inner != was {
				t.Errorf("%s %s: another key behind outer headers", name, proto)
			}
			for n := range f { // never beyond what there is
				packetKey(datapath.Captured{Point: datapath.ToGuest, Frame: f[:n]})
			}
		}
	}
}
