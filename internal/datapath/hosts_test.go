package datapath

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// fabric is two hosts on a routed underlay, in namespaces, each with a switch:
// what comes out of here has crossed real devices, GSO and checksum offload.
type fabric struct {
	t      *testing.T
	by     carriage
	hosts  [2]*host
	guests map[string]*guest
}

type host struct {
	ns     string
	pa     netip.Addr
	uplink *net.Interface
	router model.MAC // of the underlay, on this host's side
	sw     *Switch
}

// guest is a VM: a namespace whose eth0 is a veth or, behind a pump, a tap.
type guest struct {
	name, ns string
	host     *host
	port     table.Port
	v4, v6   netip.Addr
	tap      bool
	plain    bool // a tap guest that sends with offloads and receives without
	mtu      int
	as       int  // number that gives its addresses and MAC, as seen from 1; 0: its own
	blue     bool // of another tenant, with the same addresses
}

const underlayMTU = 1500

// carriage is how guests' packets cross the underlay.
type carriage struct {
	transport model.TransportID
	v6        bool // the underlay is IPv6
	mixed     bool // the subnet of db guests uses the other transport
	bond      bool // the uplinks are two links each, of which one is used at a time
	vlan      bool // the Provider Addresses are on VLAN 7
}

var carriages = []carriage{{transport: model.NVGRE}, {transport: model.NVGRE, v6: true}, {transport: model.VXLAN}, {transport: model.VXLAN, v6: true}}

// of is the transport of a subnet.
func (c carriage) of(v model.VSID) model.TransportID {
	if c.mixed && v%1000 == db%1000 {
		return model.VXLAN - c.transport
	}
	return c.transport
}

func (c carriage) String() string {
	text := c.transport.String() + " over IPv4"
	if c.v6 {
		text = c.transport.String() + " over IPv6"
	}
	if c.vlan {
		text += " on a VLAN"
	}
	if c.bond {
		text += " over a bond"
	}
	return text
}

// pas of the two hosts, and the underlay router's address beside each.
func (c carriage) pas() (pas, routers [2]string, bits string) {
	if c.v6 {
		return [2]string{"2001:db8:1::1", "2001:db8:2::1"}, [2]string{"2001:db8:1::fe", "2001:db8:2::fe"}, "/64"
	}
	return [2]string{"192.0.2.1", "198.51.100.1"}, [2]string{"192.0.2.254", "198.51.100.254"}, "/24"
}

// guestMTU is what an underlay of 1500 leaves to guests.
func (c carriage) guestMTU() int {
	pas, _, _ := c.pas()
	return underlayMTU - max(table.Overhead(c.of(web), addr(pas[0])), table.Overhead(c.of(db), addr(pas[0])))
}

// onEach runs a test once for every carriage.
func onEach(t *testing.T, f func(t *testing.T, by carriage)) {
	t.Helper()
	for _, by := range carriages {
		t.Run(by.String(), func(t *testing.T) { f(t, by) })
	}
}

func namespace(t *testing.T, name string) string {
	t.Helper()
	ns := fmt.Sprintf("wdp%d-%s", os.Getpid(), name)
	ip(t, "netns", "add", ns)
	t.Cleanup(func() { ip(t, "netns", "delete", ns) })
	sysctl(t, ns, "net.ipv6.conf.default.accept_dad", "0") // while that goes on, nobody forwards IPv6
	ip(t, "-n", ns, "link", "set", "dev", "lo", "up")
	return ns
}

// inside runs f on a thread in the namespace.
func inside(t *testing.T, ns string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done) // the thread is never unlocked and ends here
		runtime.LockOSThread()
		fd, err := unix.Open("/run/netns/"+ns, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

func sysctl(t *testing.T, ns, key, value string) {
	t.Helper()
	if out, err := exec.Command("ip", "netns", "exec", ns, "sysctl", "-qw", key+"="+value).CombinedOutput(); err != nil {
		t.Fatalf("sysctl %s: %v: %s", key, err, out)
	}
}

// newFabric builds hosts, a router between them, switches, and guests, all in
// subnet web (10.0.0.0/24) or db (10.0.1.0/24) of one network.
func newFabric(t *testing.T, o Options, guests ...*guest) *fabric {
	t.Helper()
	return newFabricBy(t, carriage{}, o, guests...)
}

func newFabricBy(t *testing.T, by carriage, o Options, guests ...*guest) *fabric {
	t.Helper()
	f := &fabric{t: t, by: by, guests: map[string]*guest{}}
	router := namespace(t, "rt")
	sysctl(t, router, "net.ipv4.ip_forward", "1")
	sysctl(t, router, "net.ipv6.conf.all.forwarding", "1")
	pas, routers, bits := by.pas()
	for i, pa := range pas {
		h := &host{ns: namespace(t, fmt.Sprintf("h%d", i+1)), pa: addr(pa)}
		gw := routers[i]
		dev, u := by.wire(t, h.ns, router, i)
		ip(t, append([]string{"-n", router, "addr", "add", gw + bits, "dev", u}, nodad(by)...)...)
		ip(t, append([]string{"-n", h.ns, "addr", "add", pa + bits, "dev", dev}, nodad(by)...)...)
		ip(t, "-n", h.ns, "route", "add", "default", "via", gw)
		h.uplink = deviceIn(t, h.ns, dev)
		h.router = model.MAC(deviceIn(t, router, u).HardwareAddr)
		f.hosts[i] = h
	}
	for i, g := range guests {
		f.addGuest(i, g)
	}
	for _, h := range f.hosts {
		inside(t, h.ns, func() { h.sw = f.openSwitch(h, o) })
		if t.Failed() {
			t.FailNow()
		}
	}
	return f
}

// wire connects host i with the router, and gives the devices that the addresses go on.
func (c carriage) wire(t *testing.T, host, router string, i int) (uplink, side string) {
	t.Helper()
	uplink, side = "u0", fmt.Sprintf("u%d", i)
	mtu := fmt.Sprint(underlayMTU)
	if c.bond {
		ip(t, "-n", host, "link", "add", "name", uplink, "type", "bond", "mode", "active-backup", "miimon", "10")
		ip(t, "-n", router, "link", "add", "name", side, "type", "bridge")
		for leg := range 2 {
			near, far := fmt.Sprintf("leg%d", leg), fmt.Sprintf("far%d-%d", i, leg)
			ip(t, "-n", host, "link", "add", "name", near, "mtu", mtu, "type", "veth", "peer", "name", far, "netns", router)
			ip(t, "-n", router, "link", "set", "dev", far, "mtu", mtu, "master", side, "up")
			ip(t, "-n", host, "link", "set", "dev", near, "master", uplink)
			ip(t, "-n", host, "link", "set", "dev", near, "up")
		}
	} else {
		ip(t, "-n", host, "link", "add", "name", uplink, "mtu", mtu, "type", "veth", "peer", "name", side, "netns", router)
	}
	ip(t, "-n", router, "link", "set", "dev", side, "mtu", mtu, "up")
	ip(t, "-n", host, "link", "set", "dev", uplink, "mtu", mtu, "up")
	if !c.vlan {
		return uplink, side
	}
	for _, end := range []struct{ ns, dev string }{{host, uplink}, {router, side}} {
		ip(t, "-n", end.ns, "link", "add", "link", end.dev, "name", end.dev+".7", "type", "vlan", "id", "7")
		ip(t, "-n", end.ns, "link", "set", "dev", end.dev+".7", "up")
	}
	return uplink + ".7", side + ".7"
}

func nodad(by carriage) []string {
	if by.v6 {
		return []string{"nodad"}
	}
	return nil
}

func deviceIn(t *testing.T, ns, name string) (i *net.Interface) {
	t.Helper()
	inside(t, ns, func() {
		var err error
		if i, err = net.InterfaceByName(name); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return i
}

// addGuest makes guest number i: "web" guests live in 10.0.0.0/24, "db" in 10.0.1.0/24.
func (f *fabric) addGuest(i int, g *guest) {
	t := f.t
	t.Helper()
	vsid, third, group := web, 0, "a"
	if strings.HasPrefix(g.name, "db") {
		vsid, third, group = db, 1, "b"
	}
	network, n := red, i
	if g.blue {
		vsid, network = vsid+1000, red+1
	}
	if g.as != 0 {
		n = g.as - 1
	}
	mac := model.MAC{2, 0, 0, 0, byte(third), byte(n + 1)}
	g.ns, g.host = namespace(t, g.name), f.hosts[i%2]
	g.v4, g.v6 = addr(fmt.Sprintf("10.0.%d.%d", third, 10+n)), addr(fmt.Sprintf("fd00:%s::%d", group, 10+n))
	if g.mtu == 0 {
		g.mtu = f.by.guestMTU()
	}
	dev := fmt.Sprintf("p%d", i)
	if g.tap {
		f.startTap(g, dev)
	} else {
		ip(t, "-n", g.host.ns, "link", "add", "name", dev, "type", "veth", "peer", "name", "eth0", "netns", g.ns)
	}
	ip(t, "-n", g.host.ns, "link", "set", "dev", dev, "mtu", "1500", "up")
	ip(t, "-n", g.ns, "link", "set", "dev", "eth0", "address", mac.String(), "mtu", fmt.Sprint(g.mtu), "up")
	ip(t, "-n", g.ns, "addr", "add", g.v4.String()+"/24", "dev", "eth0")
	ip(t, "-n", g.ns, "-6", "addr", "add", g.v6.String()+"/64", "dev", "eth0", "nodad")
	gw4, gw6 := fmt.Sprintf("10.0.%d.1", third), fmt.Sprintf("fd00:%s::1", group)
	ip(t, "-n", g.ns, "route", "add", "default", "via", gw4)
	ip(t, "-n", g.ns, "-6", "route", "add", "default", "via", gw6)
	g.port = table.Port{IfIndex: uint32(deviceIn(t, g.host.ns, dev).Index), ID: model.PortID(i + 1), VSID: vsid, Network: network,
		MAC: mac, PA: g.host.pa, Gateway4: addr(gw4), Gateway6: addr(gw6), MTU: 1500, Peer: !g.tap}
	f.guests[g.name] = g
}

// rows are the tables of a host.
func (f *fabric) rows(h *host) table.Set {
	s := table.NewSet()
	for _, g := range f.guests {
		r := table.Record{MAC: g.port.MAC, Port: g.port.ID, Transport: f.by.of(g.port.VSID)}
		if g.host == h {
			s.Ports[g.port.IfIndex] = g.port
			r.IfIndex = g.port.IfIndex
		} else {
			r.PA = g.host.pa
			s.Peers[g.host.pa] = table.Peer{PA: g.host.pa, IfIndex: uint32(h.uplink.Index), MTU: underlayMTU,
				NextHop: h.router, Source: model.MAC(h.uplink.HardwareAddr)}
		}
		s.Records[table.RecordKey{VSID: g.port.VSID, CA: g.v4}] = r
		s.Records[table.RecordKey{VSID: g.port.VSID, CA: g.v6}] = r
	}
	for _, tenant := range []struct {
		network model.NetworkIndex
		shift   model.VSID
	}{{red, 0}, {red + 1, 1000}} {
		for v, n := range map[model.VSID][4]string{web: {"10.0.0.1", "fd00:a::1", "10.0.0.0/24", "fd00:a::/64"}, db: {"10.0.1.1", "fd00:b::1", "10.0.1.0/24", "fd00:b::/64"}} {
			for i := range 2 {
				v := v + tenant.shift
				s.Records[table.RecordKey{VSID: v, CA: addr(n[i])}] = table.Record{MAC: model.RouterMAC(v), Router: true}
				s.Routes[table.RouteKey{Network: tenant.network, Prefix: prefix(n[i+2])}] = table.Route{VSID: v}
			}
		}
	}
	s.LocalPAs[h.pa] = struct{}{}
	return s
}

func (f *fabric) openSwitch(h *host, o Options) *Switch {
	t := f.t
	o.Recycle = o.PinDir == ""
	sw, err := Open(o)
	if err != nil {
		t.Errorf("open: %v", err)
		return nil
	}
	t.Cleanup(func() { sw.Close() })
	if err := sw.Apply(f.rows(h), true); err != nil {
		t.Errorf("apply: %v", err)
	}
	for _, g := range f.guests {
		if g.host == h {
			if err := sw.AttachPort(g.port.IfIndex); err != nil {
				t.Error(err)
			}
		}
	}
	if err := sw.AttachUplink(uint32(h.uplink.Index)); err != nil {
		t.Error(err)
	}
	return sw
}

// run runs a command in the guest.
func (g *guest) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command("ip", append([]string{"netns", "exec", g.ns}, args...)...).CombinedOutput()
	return string(out), err
}

// wire makes the underlay what real NICs are: packets cross it cut to the MTU, and
// the receiver merges them again.
func (f *fabric) wire() {
	f.t.Helper()
	router := strings.TrimSuffix(f.hosts[0].ns, "h1") + "rt"
	for ns, devs := range map[string][]string{f.hosts[0].ns: {"u0"}, f.hosts[1].ns: {"u0"}, router: {"u0", "u1"}} {
		for _, dev := range devs {
			out, err := exec.Command("ip", "netns", "exec", ns, "ethtool", "-K", dev, "tso", "off", "gso", "off", "gro", "on").CombinedOutput()
			if err != nil {
				f.t.Fatalf("ethtool: %v: %s", err, out)
			}
		}
	}
}

func (f *fabric) ping(from string, to netip.Addr, args ...string) {
	f.t.Helper()
	args = append([]string{"ping", "-n", "-c", "3", "-i", "0.002", "-W", "2"}, append(args, to.String())...)
	if out, err := f.guests[from].run(f.t, args...); err != nil {
		f.t.Errorf("%s: %v: %v\n%s%s", from, args, err, out, f.drops())
	}
}

// send moves n random bytes from one guest to another over TCP, both ways.
func (f *fabric) send(from, to string, at netip.Addr, n int) {
	f.t.Helper()
	f.sendPorts(from, to, netip.AddrPortFrom(at, 0), 0, n)
}

// sendPorts is send with the ports chosen; 0: any.
func (f *fabric) sendPorts(from, to string, at netip.AddrPort, sport, n int) {
	f.t.Helper()
	var (
		l   net.Listener
		c   net.Conn
		err error
	)
	inside(f.t, f.guests[to].ns, func() { l, err = net.Listen("tcp", at.String()) })
	if err != nil {
		f.t.Fatal(err)
	}
	defer l.Close()
	echoed := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			echoed <- err
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(20 * time.Second))
		_, err = io.Copy(c, c)
		echoed <- err
	}()
	inside(f.t, f.guests[from].ns, func() {
		d := net.Dialer{Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{Port: sport}}
		c, err = d.Dial("tcp", l.Addr().String())
	})
	if err != nil {
		f.t.Errorf("%s to %s: %v\n%s", from, to, err, f.drops())
		return
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	sent := make([]byte, n)
	rand.Read(sent)
	go func() {
		c.Write(sent)
		c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || sha256.Sum256(got) != sha256.Sum256(sent) {
		f.t.Errorf("%s to %s: %d of %d bytes came back: %v\n%s", from, to, len(got), n, err, f.drops())
		return
	}
	if err := <-echoed; err != nil {
		f.t.Error(err)
	}
}

func (f *fabric) drops() string {
	var b bytes.Buffer
	for _, h := range f.hosts {
		counts, err := h.sw.Drops()
		if err != nil {
			f.t.Error(err)
		}
		for _, d := range counts {
			fmt.Fprintf(&b, "%s: %s %s port %d: %d\n", h.ns, d.Direction, d.Reason, d.Port, d.Packets)
		}
	}
	return b.String()
}

func (f *fabric) dropped(h *host, v model.Verdict) (n uint64) {
	f.t.Helper()
	counts, err := h.sw.Drops()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, d := range counts {
		if d.Reason == v {
			n += d.Packets
		}
	}
	return n
}

// startTap makes a tap port, and a pump that plays QEMU: it moves frames with their
// virtio headers to a second tap, whose kernel is the guest's.
func (f *fabric) startTap(g *guest, dev string) {
	t := f.t
	t.Helper()
	port, guest := openTap(t, g.host.ns, dev, !g.plain), openTap(t, g.ns, "eth0", true)
	stop, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{}, 2)
	for _, way := range [][2]int{{port, guest}, {guest, port}} {
		go func() {
			pump(way[0], way[1], stop)
			done <- struct{}{}
		}()
	}
	t.Cleanup(func() {
		unix.Write(stop, []byte{1, 0, 0, 0, 0, 0, 0, 0})
		<-done
		<-done
		for _, fd := range []int{port, guest, stop} {
			unix.Close(fd)
		}
	})
}

func openTap(t *testing.T, ns, name string, offloads bool) (fd int) {
	t.Helper()
	inside(t, ns, func() {
		var err error
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			t.Error(err)
			return
		}
		req, _ := unix.NewIfreq(name)
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			t.Error(err)
		}
		flags := 0
		if offloads {
			flags = 1 | 2 | 4 // checksum, TSO4, TSO6
		}
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, flags); err != nil {
			t.Error(err)
		}
	})
	return fd
}

func pump(from, to, stop int) {
	b := make([]byte, 1<<17)
	for {
		n, err := unix.Read(from, b)
		if err == nil {
			unix.Write(to, b[:n]) // a full or absent guest loses frames, as on a wire
			continue
		}
		fds := []unix.PollFd{{Fd: int32(from), Events: unix.POLLIN}, {Fd: int32(stop), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return
		}
		if fds[1].Revents != 0 {
			return
		}
	}
}
