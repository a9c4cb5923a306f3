package datapath

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		println("these tests load eBPF programs: run them as root")
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// enterNetns moves the test into a network namespace of its own.
func enterNetns(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // never unlocked: the thread dies with the test
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Fatal("unshare:", err)
	}
	ip(t, "link", "set", "lo", "up")
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

func device(t *testing.T, name string) *net.Interface {
	t.Helper()
	i, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// pinDir mounts a bpffs.
func pinDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		t.Fatal("mount bpffs:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return filepath.Join(dir, "weft")
}

func open(t *testing.T, o Options) *Switch {
	t.Helper()
	o.Recycle = o.PinDir == ""
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// world is one host: ports a and b in subnet 5001, c in 5002 of the same network,
// one remote host 192.0.2.2 with 10.0.0.6 and 10.0.1.5, an uplink.
type world struct {
	*Switch
	t          *testing.T
	set        table.Set
	a, b, c, u *net.Interface
}

const (
	web = model.VSID(5001)
	db  = model.VSID(5002)
	red = model.NetworkIndex(7)
)

var (
	macA = model.MAC{2, 0, 0, 0, 0, 1}
	macB = model.MAC{2, 0, 0, 0, 0, 3}
	macC = model.MAC{2, 0, 0, 0, 1, 1}
	macR = model.MAC{2, 0, 0, 0, 0, 2} // remote, web
	macD = model.MAC{2, 0, 0, 0, 1, 2} // remote, db
	paL  = addr("192.0.2.1")
	paR  = addr("192.0.2.2")
)

func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }
func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func newWorld(t *testing.T, o Options) *world {
	t.Helper()
	enterNetns(t)
	for _, n := range []string{"a", "b", "c", "u"} {
		ip(t, "link", "add", "name", n, "type", "veth", "peer", "name", n+"x")
		ip(t, "link", "set", "dev", n, "up")
	}
	w := &world{Switch: open(t, o), t: t, a: device(t, "a"), b: device(t, "b"), c: device(t, "c"), u: device(t, "u")}
	w.set = w.policy()
	if err := w.Apply(w.set, true); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) policy() table.Set {
	s := table.NewSet()
	port := func(i *net.Interface, id model.PortID, v model.VSID, m model.MAC, g4, g6 string) {
		s.Ports[uint32(i.Index)] = table.Port{IfIndex: uint32(i.Index), ID: id, VSID: v, Network: red, MAC: m, PA: paL,
			Gateway4: addr(g4), Gateway6: addr(g6), MTU: 1500}
	}
	port(w.a, 1, web, macA, "10.0.0.1", "fd00:a::1")
	port(w.b, 3, web, macB, "10.0.0.1", "fd00:a::1")
	port(w.c, 4, db, macC, "10.0.1.1", "fd00:b::1")
	local := func(v model.VSID, m model.MAC, i *net.Interface, id model.PortID, cas ...string) {
		for _, ca := range cas {
			s.Records[table.RecordKey{VSID: v, CA: addr(ca)}] = table.Record{MAC: m, IfIndex: uint32(i.Index), Port: id}
		}
	}
	local(web, macA, w.a, 1, "10.0.0.5", "fd00:a::5")
	local(web, macB, w.b, 3, "10.0.0.7", "fd00:a::7")
	local(db, macC, w.c, 4, "10.0.1.7", "fd00:b::7")
	remote := func(v model.VSID, m model.MAC, cas ...string) {
		for _, ca := range cas {
			s.Records[table.RecordKey{VSID: v, CA: addr(ca)}] = table.Record{MAC: m, PA: paR}
		}
	}
	remote(web, macR, "10.0.0.6", "fd00:a::6")
	remote(db, macD, "10.0.1.5", "fd00:b::5")
	router := func(v model.VSID, cas ...string) {
		for _, ca := range cas {
			s.Records[table.RecordKey{VSID: v, CA: addr(ca)}] = table.Record{MAC: model.RouterMAC(v), Router: true}
		}
	}
	router(web, "10.0.0.1", "fd00:a::1")
	router(db, "10.0.1.1", "fd00:b::1")
	for p, v := range map[string]model.VSID{"10.0.0.0/24": web, "fd00:a::/64": web, "10.0.1.0/24": db, "fd00:b::/64": db} {
		s.Routes[table.RouteKey{Network: red, Prefix: prefix(p)}] = table.Route{VSID: v}
	}
	s.Peers[paR] = table.Peer{PA: paR, IfIndex: uint32(w.u.Index), MTU: 1500, NextHop: model.MAC{2, 9, 9, 9, 9, 2}, Source: model.MAC(w.u.HardwareAddr)}
	s.LocalPAs[paL] = struct{}{}
	return s
}

// frame builders: just enough to tell stories.

func eth(dst, src model.MAC, typ uint16, payload []byte) []byte {
	f := append(append(dst[:], src[:]...), byte(typ>>8), byte(typ))
	return append(f, payload...)
}

func sum(b []byte, seed uint32) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		seed += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	if len(b)%2 == 1 {
		seed += uint32(b[len(b)-1]) << 8
	}
	for seed>>16 != 0 {
		seed = seed&0xffff + seed>>16
	}
	return ^uint16(seed)
}

func ip4(src, dst string, proto, ttl byte, l4 []byte) []byte {
	h := make([]byte, 20)
	h[0], h[8], h[9] = 0x45, ttl, proto
	binary.BigEndian.PutUint16(h[2:], uint16(20+len(l4)))
	s, d := addr(src).As4(), addr(dst).As4()
	copy(h[12:], s[:])
	copy(h[16:], d[:])
	binary.BigEndian.PutUint16(h[10:], sum(h, 0))
	return append(h, l4...)
}

func udp(sport, dport uint16, n int) []byte {
	u := make([]byte, 8+n)
	binary.BigEndian.PutUint16(u, sport)
	binary.BigEndian.PutUint16(u[2:], dport)
	binary.BigEndian.PutUint16(u[4:], uint16(8+n))
	return u
}

func (w *world) expect(p Program, in *net.Interface, frame []byte, v model.Verdict, out *net.Interface) []byte {
	w.t.Helper()
	r, err := w.Run(p, uint32(in.Index), frame)
	if err != nil {
		w.t.Fatal(err)
	}
	index := uint32(0)
	if out != nil {
		index = uint32(out.Index)
	}
	if r.Verdict != v || r.IfIndex != index {
		w.t.Errorf("%s: %s to device %d, want %s to %d", p, r.Verdict, r.IfIndex, v, index)
	}
	return r.Frame
}

// after checks an IPv4 header's checksum and returns what follows the header.
func (w *world) after(ip []byte) []byte {
	w.t.Helper()
	if sum(ip[:20], 0) != 0 {
		w.t.Errorf("IPv4 header % x: the checksum is wrong", ip[:20])
	}
	return ip[20:]
}

func (w *world) equal(what string, got, want []byte) {
	w.t.Helper()
	if !bytes.Equal(got, want) {
		w.t.Errorf("%s:\n have % x\n want % x", what, got, want)
	}
}

// One story for each stage; test/packet tells all of them, and compares with sim.

func TestLocalNeighbourGetsTheFrameUntouched(t *testing.T) {
	w := newWorld(t, Options{})
	frame := eth(macB, macA, 0x0800, ip4("10.0.0.5", "10.0.0.7", 17, 64, udp(1, 2, 10)))
	w.equal("frame", w.expect(FromPort, w.a, frame, model.VerdictDelivered, w.b), frame)
	tagged := eth(macB, macA, 0x8100, append([]byte{0xa0, 0, 8, 0}, frame[14:]...)) // priority 5, VID 0
	w.equal("frame with a priority tag", w.expect(FromPort, w.a, tagged, model.VerdictDelivered, w.b), frame)
	tagged[15] = 7
	w.expect(FromPort, w.a, tagged, model.VerdictVlanTagged, nil)
	w.expect(FromPort, w.a, eth(macB, macA, 0x0800, ip4("10.0.0.7", "10.0.0.5", 17, 64, nil)), model.VerdictSpoofedCa, nil)
}

func TestRemoteFrameIsNVGRE(t *testing.T) {
	w := newWorld(t, Options{})
	frame := eth(macR, macA, 0x0800, ip4("10.0.0.5", "10.0.0.6", 17, 64, udp(1, 2, 10)))
	frame[15] = 0xb9 // EF and an ECN mark
	frame[24], frame[25] = 0, 0
	binary.BigEndian.PutUint16(frame[24:], sum(frame[14:34], 0))
	out := w.expect(FromPort, w.a, frame, model.VerdictEncapsulated, w.u)
	outer := []byte{0x45, 0xb9, 0, byte(len(frame) + 28), 0, 0, 0x40, 0, 64, 47, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2}
	binary.BigEndian.PutUint16(outer[10:], sum(outer, 0))
	w.equal("outer IP", out[14:34], outer)
	w.equal("GRE", out[34:41], []byte{0x20, 0, 0x65, 0x58, 0, 0x13, 0x89})
	if out[41] == 0 {
		t.Error("an IP flow has FlowID 0")
	}
	w.equal("inner frame", out[42:], frame)
}

func TestRoutedFrameCarriesTheRouter(t *testing.T) {
	w := newWorld(t, Options{})
	gateway, far := model.RouterMAC(web), model.RouterMAC(db)
	l4 := udp(1, 2, 10)
	w.equal("routed", w.expect(FromPort, w.a, eth(gateway, macA, 0x0800, ip4("10.0.0.5", "10.0.1.7", 17, 64, l4)), model.VerdictDelivered, w.c),
		eth(macC, far, 0x0800, ip4("10.0.0.5", "10.0.1.7", 17, 63, l4)))

	dying := eth(gateway, macA, 0x0800, ip4("10.0.0.5", "10.0.1.7", 17, 1, l4))
	out := w.expect(FromPort, w.a, dying, model.VerdictTtlExceeded, w.a)
	quoted := dying[14 : 14+len(dying[14:])&^3]
	icmp := append([]byte{11, 0, 0, 0, 0, 0, 0, 0}, quoted...)
	binary.BigEndian.PutUint16(icmp[2:], sum(icmp, 0))
	w.equal("time exceeded", out, eth(macA, gateway, 0x0800, ip4("10.0.0.1", "10.0.0.5", 1, 64, icmp)))

	big := eth(gateway, macA, 0x0800, ip4("10.0.0.5", "10.0.1.5", 17, 64, udp(1, 2, 1431)))
	out = w.expect(FromPort, w.a, big, model.VerdictTooBig, w.a)
	if l4 := w.after(out[14:]); l4[0] != 3 || l4[1] != 4 || binary.BigEndian.Uint16(l4[6:]) != 1458 || sum(l4, 0) != 0 || len(l4) != 8+128 {
		t.Errorf("fragmentation needed: % x", l4)
	}
}

func TestGatewayAnswers(t *testing.T) {
	w := newWorld(t, Options{})
	gateway := model.RouterMAC(web)
	everyone := model.MAC{255, 255, 255, 255, 255, 255}
	arp := func(op byte, smac model.MAC, s string, tmac model.MAC, t string) []byte {
		b := append([]byte{0, 1, 8, 0, 6, 4, 0, op}, smac[:]...)
		b = append(append(b, addr(s).AsSlice()...), tmac[:]...)
		return append(b, addr(t).AsSlice()...)
	}
	w.equal("ARP answer", w.expect(FromPort, w.a, append(eth(everyone, macA, 0x0806, arp(1, macA, "10.0.0.5", model.MAC{}, "10.0.0.1")), make([]byte, 18)...), model.VerdictAnswered, w.a),
		eth(macA, gateway, 0x0806, arp(2, gateway, "10.0.0.1", macA, "10.0.0.5")))
	probe := eth(macR, macA, 0x0806, arp(1, macA, "10.0.0.5", model.MAC{}, "10.0.0.6"))
	out := w.expect(FromPort, w.a, probe, model.VerdictEncapsulated, w.u)
	w.equal("probed neighbour's Ethernet", out[:14], eth(model.MAC{2, 9, 9, 9, 9, 2}, model.MAC(w.u.HardwareAddr), 0x0800, nil))
	w.equal("probe", out[42:], probe)

	ping := append([]byte{8, 0, 0, 0, 0, 1, 0, 2}, []byte("weft")...)
	pong := append([]byte{0, 0, 0, 0, 0, 1, 0, 2}, []byte("weft")...)
	binary.BigEndian.PutUint16(ping[2:], sum(ping, 0))
	binary.BigEndian.PutUint16(pong[2:], sum(pong, 0))
	w.equal("echo", w.expect(FromPort, w.a, eth(gateway, macA, 0x0800, ip4("10.0.0.5", "10.0.0.1", 1, 7, ping)), model.VerdictAnswered, w.a),
		eth(macA, gateway, 0x0800, ip4("10.0.0.1", "10.0.0.5", 1, 64, pong)))
	w.expect(FromPort, w.a, eth(gateway, macA, 0x0800, ip4("10.0.0.5", "10.0.0.1", 17, 7, udp(1, 53, 8))), model.VerdictRouterNoService, nil)
}

func TestUnderlayProvesItsSource(t *testing.T) {
	w := newWorld(t, Options{})
	from := func(vsid model.VSID, src model.MAC, ca string) []byte {
		return w.outerFrame(vsid, eth(macA, src, 0x0800, ip4(ca, "10.0.0.5", 17, 64, udp(1, 2, 30))))
	}
	w.equal("stripped", w.expect(FromUplink, w.u, append(from(web, macR, "10.0.0.6"), 0, 0, 0), model.VerdictDelivered, w.a),
		from(web, macR, "10.0.0.6")[42:])
	w.expect(FromUplink, w.u, from(web, model.RouterMAC(web), "10.0.1.5"), model.VerdictDelivered, w.a) // routed over there
	w.expect(FromUplink, w.u, from(web, macR, "10.0.0.7"), model.VerdictSourceNotInPolicy, nil)         // lives here
	w.expect(FromUplink, w.u, from(web, macD, "10.0.0.6"), model.VerdictSourceNotInPolicy, nil)         // another MAC
	w.expect(FromUplink, w.u, from(db, macR, "10.0.0.6"), model.VerdictNotLocal, nil)                   // another subnet
	w.expect(FromUplink, w.u, from(9, macR, "10.0.0.6"), model.VerdictVsidReserved, nil)
	w.expect(FromUplink, w.u, eth(model.MAC(w.u.HardwareAddr), macR, 0x0800, ip4("192.0.2.2", "192.0.2.1", 6, 64, make([]byte, 20))), model.VerdictPass, nil)
}

func TestHostMayNotSpeakToGuests(t *testing.T) {
	w := newWorld(t, Options{})
	frame := eth(macA, macB, 0x0800, ip4("10.0.0.7", "10.0.0.5", 17, 64, udp(1, 2, 10)))
	w.expect(ToPort, w.a, frame, model.VerdictNotFromSwitch, nil)
	r, err := w.run(ToPort, skb{IfIndex: uint32(w.a.Index), Mark: 0x77656674}, frame)
	if err != nil || r.Verdict != model.VerdictPass {
		t.Errorf("the switch's own frame: %s, %v", r.Verdict, err)
	}
}

// The largest segment counts, not the super-packet.
func TestGSOIsSizedBySegment(t *testing.T) {
	w := newWorld(t, Options{})
	tcp := make([]byte, 20+3000)
	tcp[12] = 5 << 4
	frame := eth(macB, macA, 0x0800, ip4("10.0.0.5", "10.0.0.7", 6, 64, tcp))
	for size, want := range map[uint32]model.Verdict{1460: model.VerdictDelivered, 1461: model.VerdictTooBig} {
		r, err := w.run(FromPort, skb{IfIndex: uint32(w.a.Index), GSOSize: size, GSOSegs: 3}, frame)
		if err != nil || r.Verdict != want {
			t.Errorf("segments of %d bytes: %s (%v), want %s", size, r.Verdict, err, want)
		}
	}
}
