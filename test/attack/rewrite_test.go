package attack

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/lab"
	"github.com/weft-sdn/weft/internal/wire"
	"github.com/weft-sdn/weft/test/fleet"
	"github.com/weft-sdn/weft/test/stream"
)

// The same people where every address has a Provider Address of its own, which anybody in the underlay can write to; mallory has alice's
// address in another tenant's network, and h3, where she is, is not to be trusted.
var rewritePolicy = strings.NewReplacer("flood: l2, stormLimit: 300", "transport: rewrite").Replace(policy) + `---
kind: Tenant
metadata: {name: blue}
---
kind: VirtualNetwork
metadata: {tenant: blue, name: prod}
---
kind: VirtualSubnet
metadata: {tenant: blue, name: web}
spec: {network: prod, vsid: 6001, prefixes: [10.0.0.0/24, "fd00:a::/64"], transport: rewrite}
---
kind: Port
metadata: {tenant: blue, name: mallory}
spec: {subnet: web, mac: "02:00:00:00:00:05", addresses: [10.0.0.5, "fd00:a::5"], host: h3}
`

// TestAttacksOnRewriting has evil, and the host h3, write to addresses of the underlay that stand for guests.
func TestAttacksOnRewriting(t *testing.T) {
	manifest := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(manifest, []byte(rewritePolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &field{fleet.New(t, "w", fleet.Options{Spec: lab.Spec{Hosts: []string{"h1", "h2", "h3"}, Manifests: []string{manifest},
		Guests: []lab.GuestSpec{{Port: alice}, {Port: bob}, {Port: evil}, {Port: "blue/mallory"}}}})}
	f.Verified()
	aliceAt, bobAt, evilAt, malloryAt := f.standsAt(alice), f.standsAt(bob), f.standsAt(evil), f.standsAt("blue/mallory")
	own := f.address("h3")
	hello := datagram(4000, 53, 8)
	packet := func(src, dst netip.Addr, proto uint8, payload []byte) []byte {
		return v4(wire.IPv4{Proto: proto, Source: src, Destination: dst}, payload)
	}
	policy, carried := []string{"SOURCE_NOT_IN_POLICY"}, []string{"REWRITE_NOT_CARRIED"}
	attacks := []attack{
		{name: "a guest writes to another's Provider Address", from: evil, frames: [][]byte{fromEvil(bobAt, protoUDP, hello)}, reasons: []string{"NO_ROUTE"}},
		{name: "a guest writes in the name of a neighbour's Provider Address", from: evil, frames: [][]byte{ipFrame(aliceAt, addr("10.0.0.6"), protoUDP, hello)}, reasons: []string{"SPOOFED_CA"}},
		{name: "a guest speaks to the underlay's routers by options", from: evil, frames: [][]byte{frame(bobMAC, evilMAC, wire.TypeIPv4, withOptions(packet(evil4, addr("10.0.0.6"), protoUDP, hello)))}, reasons: carried},
		{name: "a host writes to a guest", from: "h3", against: forging(packet(own, aliceAt, protoUDP, hello)), reasons: policy, port: alice},
		{name: "a host writes in the name of another tenant's guest", from: "h3", against: forging(packet(malloryAt, aliceAt, protoUDP, hello)), reasons: policy, port: alice},
		{name: "a host writes in the name of a guest of the one it writes to", from: "h3", against: forging(packet(evilAt, aliceAt, protoUDP, hello)), reasons: policy, port: alice},
		{name: "a host tells a guest that another tenant's is unreachable", from: "h3", against: forging(packet(own, aliceAt, wire.ProtoICMP, unreachable(packet(aliceAt, malloryAt, protoUDP, hello)))), reasons: policy, port: alice},
		{name: "a host redirects a guest", from: "h3", against: forging(packet(own, aliceAt, wire.ProtoICMP, redirect4(5)[wire.EthernetLen+wire.IPv4Len:])), reasons: append(carried, policy...), port: alice},
		{name: "a host speaks by options", from: "h3", against: forging(withOptions(packet(malloryAt, aliceAt, protoUDP, hello))), reasons: carried, port: alice},
	}
	for i := range attacks {
		attacks[i].least = 10
	}
	f.withstands(t, attacks)
	f.Verified()
}

var standing = regexp.MustCompile(`"rewriteAddresses":\s*\[\s*"([0-9.]+)"`)

// standsAt is the Provider Address that stands for a guest's IPv4 address.
func (f *field) standsAt(port string) netip.Addr {
	f.T.Helper()
	tenant, name, _ := strings.Cut(port, "/")
	m := standing.FindStringSubmatch(f.Must("get", "port", name, "-n", tenant, "-o", "json"))
	if m == nil {
		f.T.Fatalf("%s has no Provider Address of its own", port)
	}
	return addr(m[1])
}

// withOptions has an IPv4 packet ask for its route to be recorded.
func withOptions(packet []byte) []byte {
	b := append(append(append([]byte{}, packet[:wire.IPv4Len]...), 7, 7, 4, 0, 0, 0, 0, 0), packet[wire.IPv4Len:]...)
	b[0], b[3] = 0x47, b[3]+8
	b[10], b[11] = 0, 0
	sum := wire.Checksum(b[:wire.IPv4Len+8], 0)
	b[10], b[11] = byte(sum>>8), byte(sum)
	return b
}

// unreachable is an ICMP error about a packet.
func unreachable(about []byte) []byte {
	b := append(make([]byte, 8), about...)
	must(wire.ICMP{Type: 3, Code: 1}.Encode(b))
	must(wire.SealICMP(b))
	return b
}

// forging is forge against a field.
func forging(packet []byte) func(*field) (stop func()) {
	return func(f *field) func() { return f.forge(packet) }
}

// forge has h3 send an IP packet, with whatever source it names, again and again until it is stopped.
func (f *field) forge(packet []byte) (stop func()) {
	f.T.Helper()
	var fd int
	if err := stream.In(f.Space("h3"), func() (err error) {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		return err
	}); err != nil {
		f.T.Fatal(err)
	}
	send := sendTo(fd, netip.AddrFrom4([4]byte(packet[16:20])), 0)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				return
			case <-tick.C:
			}
			if err := send(packet); err != nil {
				f.T.Errorf("h3: %v", err)
				return
			}
		}
	}()
	return func() { close(quit); <-done; unix.Close(fd) }
}
