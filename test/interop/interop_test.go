package interop

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/test/twohosts"
)

const vsid = model.VSID(5001)

var (
	web = twohosts.Subnet{VSID: vsid, Network: 1, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00:a::/64")}}

	// vm is behind the switch, peer behind the other implementation.
	vmCAs   = []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00:a::5")}
	peerCAs = []netip.Addr{netip.MustParseAddr("10.0.0.6"), netip.MustParseAddr("fd00:a::6")}
	vmMAC   = model.MAC{2, 0, 0, 0, 0, 1}
	peerMAC = model.MAC{2, 0, 0, 0, 0, 2}
)

// world is one host of ours and one of somebody else.
type world struct {
	*twohosts.World
	t        testing.TB
	vm, peer *twohosts.Guest
	port     string // the peer's device on its host
	recorder *recorder
}

// foreign is somebody else's implementation on the second host: build joins world.port
// with the tunnel to the first host.
type foreign struct {
	name    string
	carrier twohosts.Carrier
	segment bool // takes frames as a wire brings them, no super-packets
	build   func(w *world)
}

var (
	nvgre4 = twohosts.Carrier{Transport: model.NVGRE}
	nvgre6 = twohosts.Carrier{Transport: model.NVGRE, V6: true}
	vxlan4 = twohosts.Carrier{Transport: model.VXLAN}
	vxlan6 = twohosts.Carrier{Transport: model.VXLAN, V6: true}
)

func TestInterop(t *testing.T) {
	for _, f := range []foreign{
		{"gretap with keys", nvgre4, false, gretap},
		{"ip6gretap with keys", nvgre6, false, gretap},
		{"vxlan device", vxlan4, false, vxlan("")},
		{"vxlan device with UDP checksums", vxlan4, false, vxlan("udpcsum")},
		{"vxlan device, IPv6", vxlan6, false, vxlan("udp6zerocsumtx udp6zerocsumrx")},
		{"vxlan device, IPv6 with UDP checksums", vxlan6, false, vxlan("noudp6zerocsumtx udp6zerocsumrx")},
		{"Open vSwitch's GRE, kernel", nvgre4, false, ovsGRE(kernelPath)},
		{"Open vSwitch's VXLAN, kernel", vxlan4, false, ovsVXLAN(kernelPath)},
		{"Open vSwitch's GRE, userspace", nvgre4, true, ovsGRE(userPath)},
		{"Open vSwitch's VXLAN, userspace", vxlan4, true, ovsVXLAN(userPath)},
	} {
		t.Run(f.name, func(t *testing.T) { interop(t, f) })
	}
}

func interop(t *testing.T, f foreign) {
	w := newWorld(t, f.carrier)
	if f.segment {
		w.knobs(w.Hosts[0].NS, twohosts.Underlay, "tso off gso off tx off")
		w.knobs(w.GuestNS(w.peer), "eth0", "tso off gso off tx off")
	}
	f.build(w)
	file := w.record(func() {
		for i := range w.vm.CAs {
			w.family(i)
		}
	})
	w.judge(file)
}

// family sends everything both ways between the i-th addresses.
func (w *world) family(i int) {
	for _, way := range []struct{ from, to *twohosts.Guest }{{w.vm, w.peer}, {w.peer, w.vm}} {
		name := fmt.Sprintf("%s to %s", way.from.CAs[i], way.to.CAs[i])
		for _, part := range []func(){
			func() { w.ping(name, way.from, way.to.CAs[i], 56) },
			func() { w.ping(name, way.from, way.to.CAs[i], w.fullSize(way.to.CAs[i])) },
			func() { w.stream(name, way.from, way.to, i) },
			func() { w.datagrams(name, way.from, way.to, i) },
		} {
			w.recorder.part()
			part()
		}
	}
}

// fullSize is the payload of an echo that fills the guest's MTU.
func (w *world) fullSize(to netip.Addr) int {
	if to.Is4() {
		return w.Carrier.MTU() - 20 - 8
	}
	return w.Carrier.MTU() - 40 - 8
}

func (w *world) ping(name string, from *twohosts.Guest, to netip.Addr, size int) {
	w.t.Helper()
	out, err := w.command(w.GuestNS(from), "ping -n -M do -c 3 -i 0.2 -W 5 -s %d %s", size, to)
	if err != nil {
		w.t.Errorf("%s: ping of %d bytes: %v\n%s", name, size, err, out)
	}
}

// amount of a stream: many super-packets, and still soon through an emulated machine.
const amount = 1 << 20

// stream moves bytes over TCP and compares their hash: super-packets where offloads are on.
func (w *world) stream(name string, from, to *twohosts.Guest, i int) {
	w.t.Helper()
	l := w.listen(to, i)
	defer l.Close()
	sums := make(chan [32]byte, 1)
	go func() { sums <- receive(l) }()
	sent := pattern(amount)
	err := twohosts.In(w.GuestNS(from), func() error {
		c, err := net.DialTimeout("tcp", l.Addr().String(), 20*time.Second)
		if err != nil {
			return err
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		if _, err := c.Write(sent); err != nil {
			return err
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, c) // until the other side has all
		return err
	})
	if err != nil {
		w.t.Errorf("%s: TCP: %v", name, err)
		return
	}
	if <-sums != sha256.Sum256(sent) {
		w.t.Errorf("%s: TCP brought other bytes than were sent", name)
	}
}

func (w *world) listen(g *twohosts.Guest, i int) net.Listener {
	w.t.Helper()
	var l net.Listener
	w.In(w.GuestNS(g), func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(g.CAs[i].String(), "0"))
		return err
	})
	return l
}

func receive(l net.Listener) (sum [32]byte) {
	c, err := l.Accept()
	if err != nil {
		return sum
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	h := sha256.New()
	if _, err := io.Copy(h, c); err != nil {
		return sum
	}
	return [32]byte(h.Sum(nil))
}

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i * i >> 5)
	}
	return b
}

// datagrams asks an echo over UDP, small and as large as fits, until it has come back.
func (w *world) datagrams(name string, from, to *twohosts.Guest, i int) {
	w.t.Helper()
	var server net.PacketConn
	w.In(w.GuestNS(to), func() (err error) {
		server, err = net.ListenPacket("udp", net.JoinHostPort(to.CAs[i].String(), "0"))
		return err
	})
	defer server.Close()
	go echo(server)
	err := twohosts.In(w.GuestNS(from), func() error {
		c, err := net.Dial("udp", server.LocalAddr().String())
		if err != nil {
			return err
		}
		defer c.Close()
		for _, size := range []int{1, 64, w.fullSize(to.CAs[i])} {
			if err := ask(c, pattern(size)); err != nil {
				return fmt.Errorf("%d bytes: %w", size, err)
			}
		}
		return nil
	})
	if err != nil {
		w.t.Errorf("%s: UDP: %v", name, err)
	}
}

func echo(c net.PacketConn) {
	b := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return
		}
		_, _ = c.WriteTo(b[:n], from)
	}
}

// ask repeats itself, as UDP must.
func ask(c net.Conn, words []byte) error {
	b := make([]byte, 1<<16)
	var err error
	for range 5 {
		if _, err = c.Write(words); err != nil {
			return err
		}
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
		var n int
		if n, err = c.Read(b); err == nil && bytes.Equal(b[:n], words) {
			return nil
		}
	}
	return fmt.Errorf("no right answer: %w", err)
}

func newWorld(t *testing.T, c twohosts.Carrier) *world {
	t.Helper()
	vm := &twohosts.Guest{Name: "vm", Host: 0, Subnet: web, MAC: vmMAC, CAs: vmCAs}
	peer := &twohosts.Guest{Name: "peer", Host: 1, Subnet: web, MAC: peerMAC, CAs: peerCAs}
	w := &world{World: twohosts.NewForeign(t, "wi-", c, []*twohosts.Guest{vm, peer}), t: t, vm: vm, peer: peer, port: "p-peer"}
	w.plugPeer()
	return w
}

// plugPeer puts the peer's guest into a namespace, and its device on the second host.
// Nobody there answers ARP for what is behind the switch.
func (w *world) plugPeer() {
	ns, host := w.Namespace(w.peer.Name), w.Hosts[1].NS
	w.IP("-n %s link add %s type veth peer name eth0 address %s netns %s", host, w.port, peerMAC, ns)
	w.IP("-n %s link set %s mtu %d up", host, w.port, w.Carrier.MTU())
	w.IP("-n %s link set eth0 mtu %d up", ns, w.Carrier.MTU())
	for i, ca := range peerCAs {
		nodad := ""
		if ca.Is6() {
			nodad = "nodad"
		}
		w.IP("-n %s addr add %s/%d dev eth0 %s", ns, ca, web.Prefixes[i].Bits(), nodad)
		w.IP("-n %s neigh add %s lladdr %s dev eth0", ns, vmCAs[i], vmMAC)
	}
}

// command runs a command in a namespace and gives all that it said.
func (w *world) command(ns, format string, args ...any) (string, error) {
	words := strings.Fields(fmt.Sprintf(format, args...))
	out, err := exec.Command("ip", append([]string{"netns", "exec", ns}, words...)...).CombinedOutput()
	return string(out), err
}

// must runs a command in a namespace.
func (w *world) must(ns, format string, args ...any) {
	w.t.Helper()
	if out, err := w.command(ns, format, args...); err != nil {
		w.t.Fatalf("in %s: %s: %v: %s", ns, fmt.Sprintf(format, args...), err, out)
	}
}

func (w *world) knobs(ns, device, knobs string) {
	w.t.Helper()
	w.must(ns, "ethtool -K %s %s", device, knobs)
}

// lacks skips the test where the kernel cannot make such a device.
func (w *world) lacks(what string, try ...string) {
	w.t.Helper()
	ns := w.Hosts[1].NS
	if out, err := exec.Command("ip", append([]string{"-n", ns}, try...)...).CombinedOutput(); err != nil {
		w.t.Skipf("this kernel has no %s: %s", what, bytes.TrimSpace(out))
	}
}

// inEmulation is set where test/kernels runs the package.
func inEmulation() bool { return os.Getenv("WEFT_EMULATED") != "" }
