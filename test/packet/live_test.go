package packet

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// Live tests send real frames through real devices, where the kernel does what a test
// run leaves out: it takes a tag off before the program runs, tells whose frame it is, lets frames be
// cut anywhere, and carries out redirections. Expectations are the oracle's all the same.

var patience = 5 * time.Second // for the kernel to be done with a frame

// wires is a site whose devices carry frames: their other ends are in a namespace of
// their own, as guests are, and read by packet sockets.
type wires struct {
	site
	sw     *datapath.Switch
	far    map[uint32]int // packet socket on the other end of a device
	near   map[uint32]int // packet socket on the device itself, as the host's own stack would send
	order  []uint32       // devices
	names  map[uint32]string
	header int // length of the offload header that the sockets give, if any
}

var wiresMade int

func newWires(t *testing.T, decap string) *wires {
	t.Helper()
	quiet(t)
	wiresMade++ // the devices of those before go away in their own time
	near, far := fmt.Sprintf("wn%d-", wiresMade), fmt.Sprintf("wf%d-", wiresMade)
	w := &wires{site: newSiteNamed(t, near, far), far: map[uint32]int{}, near: map[uint32]int{}, names: map[uint32]string{}}
	w.order = append(append(append(w.order, w.ports[:]...), w.uplinks[:]...), w.unknown)
	for i, ifindex := range w.order {
		name := near + strconv.Itoa(i)
		ip(t, "link", "set", name, "mtu", mtuOf(i), "up")
		w.near[ifindex], w.names[ifindex] = packetSocket(t, name), name
	}
	w.moveFar(t, far)
	ip(t, "link", "set", "lo", "up") // without it the kernel knows no gateway
	for i := range uplinkDevices {
		name := near + strconv.Itoa(portDevices+i)
		for _, prefix := range []string{"198.51.100.0/24", ownPools[0].String()} {
			ip(t, "route", "add", prefix, "via", "192.0.2.254", "dev", name, "onlink", "metric", strconv.Itoa(int(w.uplinks[i])))
		}
		ip(t, "neigh", "add", "192.0.2.254", "lladdr", uplinkNextHop.String(), "dev", name, "nud", "permanent")
		sysctl6(t, name, "addr_gen_mode", "1") // without an address the device has nothing to say of its own
		sysctl6(t, name, "disable_ipv6", "0")
		for _, prefix := range []string{"2001:db8:fe::/64", "2001:db8:2::/64", ownPools[1].String()} {
			ip(t, "route", "add", prefix, "via", "fe80::fe", "dev", name, "onlink", "metric", strconv.Itoa(int(w.uplinks[i])))
		}
		ip(t, "neigh", "add", "fe80::fe", "lladdr", uplinkNextHop.String(), "dev", name, "nud", "permanent")
	}
	w.sw = loadWith(t, decap)
	for _, ifindex := range append(w.ports[:], w.unknown) {
		if err := w.sw.AttachPort(ifindex); err != nil {
			t.Fatal(err)
		}
	}
	for _, ifindex := range w.uplinks {
		if err := w.sw.AttachUplink(ifindex); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// mtuOf is for jumbo frames on ports; uplinks keep to what XDP takes.
func mtuOf(device int) string {
	if device >= portDevices && device < portDevices+uplinkDevices {
		return "3400"
	}
	return "20000"
}

func ip(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %v: %v: %s", args, err, out)
	}
}

// quiet keeps the kernel from sending anything of its own in the namespace of the calling thread.
func quiet(t *testing.T) {
	t.Helper()
	sysctl6(t, "all", "disable_ipv6", "1")
	sysctl6(t, "default", "disable_ipv6", "1")
}

func sysctl6(t *testing.T, device, name, value string) {
	t.Helper()
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+device+"/"+name, []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

// moveFar moves the other ends into a namespace that lives as long as the sockets in it.
func (w *wires) moveFar(t *testing.T, far string) {
	t.Helper()
	ready, moved, done := make(chan string), make(chan bool), make(chan map[uint32]int)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		defer close(done)
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			t.Errorf("a namespace for the other ends: %v", err)
		}
		ready <- fmt.Sprintf("/proc/%d/task/%d/ns/net", os.Getpid(), unix.Gettid())
		if !<-moved {
			return
		}
		quiet(t)
		sockets := map[uint32]int{}
		for i, ifindex := range w.order {
			name := far + strconv.Itoa(i)
			if out, err := exec.Command("ip", "link", "set", name, "mtu", mtuOf(i), "up").CombinedOutput(); err != nil {
				t.Errorf("ip link set %s up: %v: %s", name, err, out)
				return
			}
			sockets[ifindex] = packetSocket(t, name)
		}
		done <- sockets
	}()
	ns := <-ready
	for i := range w.order {
		ip(t, "link", "set", far+strconv.Itoa(i), "netns", ns)
	}
	moved <- true
	w.far = <-done
	if len(w.far) != devices {
		t.Fatal("the other ends are not up")
	}
}

// packetSocket sends into and reads from a device of the calling thread's namespace.
func packetSocket(t *testing.T, name string) int {
	t.Helper()
	const all = unix.ETH_P_ALL<<8 | unix.ETH_P_ALL>>8 // in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all&0xffff)
	if err != nil {
		t.Errorf("packet socket: %v", err)
		return -1
	}
	t.Cleanup(func() { unix.Close(fd) })
	ifr, err := unix.NewIfreq(name)
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.SIOCGIFINDEX, ifr)
	}
	for _, option := range []struct{ level, name, value int }{
		{unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1},
		{unix.SOL_PACKET, unix.PACKET_AUXDATA, 1},
		{unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16 << 20},
	} {
		if err == nil {
			err = unix.SetsockoptInt(fd, option.level, option.name, option.value)
		}
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all & 0xffff, Ifindex: int(ifr.Uint32())})
	}
	if err != nil {
		t.Errorf("packet socket on %s: %v", name, err)
	}
	return fd
}

// send lets the guest, the underlay or the host's own stack send the frame.
func (w *wires) send(t *testing.T, in packetIn) {
	t.Helper()
	fd := w.far[in.ifindex]
	if in.program == datapath.ToPort {
		fd = w.near[in.ifindex]
	}
	_, err := unix.Write(fd, in.frame)
	if in.program == datapath.ToPort && err == unix.ENOBUFS {
		err = nil // this is how the kernel tells the sender that to_port dropped it
	}
	if err != nil {
		t.Fatalf("sending %s: %v", in, err)
	}
}

// receive reads what has arrived at the other end of a device, waiting for the next frame as long as told.
// A VLAN tag in the metadata is put back where the wire would have it.
func (w *wires) receive(t *testing.T, ifindex uint32, wait time.Duration) []byte {
	t.Helper()
	fd := w.far[ifindex]
	for {
		b, oob := make([]byte, 1<<16), make([]byte, 64)
		n, oobn, _, _, err := unix.Recvmsg(fd, b, oob, 0)
		if err == unix.EAGAIN {
			ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(wait.Milliseconds()))
			if err != nil && err != unix.EINTR {
				t.Fatal(err)
			}
			if ready == 0 {
				return nil
			}
			continue
		}
		if err != nil {
			t.Fatalf("reading from the other end of device %d: %v", ifindex, err)
		}
		if f := withTag(t, b[:n], oob[:oobn]); !w.noise(ifindex, f[w.header:]) {
			return f
		}
	}
}

func withTag(t *testing.T, f, oob []byte) []byte {
	t.Helper()
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil || len(messages) != 1 || len(messages[0].Data) < 20 {
		t.Fatalf("no metadata with a frame: %v", err)
	}
	aux := messages[0].Data // struct tpacket_auxdata
	if aux[0]&unix.TP_STATUS_VLAN_VALID == 0 {
		return f
	}
	return tagged(f, uint16(aux[19])<<8|uint16(aux[18]), uint16(aux[17])<<8|uint16(aux[16]))
}

// noise is what the host's own stack sends into the underlay about frames that were passed to it.
func (w *wires) noise(ifindex uint32, f []byte) bool {
	if ifindex != w.uplinks[0] && ifindex != w.uplinks[1] || isRewritten(f) {
		return false
	}
	if len(f) < 54 {
		return true
	}
	proto := f[23]
	if f[12] == 0x86 && f[13] == 0xdd {
		proto = f[20]
	} else if f[12] != 8 || f[13] != 0 {
		return true
	}
	return proto != wire.ProtoGRE && proto != wire.ProtoUDP
}

// predict is the oracle's word for a frame on a device, and the length that the kernel counts there.
func (w *wires) predict(set table.Set, in packetIn) (sim.Result, packetIn) {
	r := oracle(w.site, set, in)
	if r.Verdict == model.VerdictEncapsulated && (isRewritten(r.Frame) || innerType(r.Frame) != wire.TypeARP) {
		must(wire.Ethernet{Dst: uplinkNextHop, Src: w.macs[r.IfIndex], Type: etherTypeOf(r.Frame[14:])}.Encode(r.Frame))
	}
	counted := in
	if in.program == datapath.FromPort && wire.IsTag(uint16(in.frame[12])<<8|uint16(in.frame[13])) {
		counted.frame = in.frame[4:] // the tag is metadata by then
	}
	return r, counted
}

// untrailed is a frame of the underlay without what trails the outer packet. XDP takes that off
// with the outer headers, so what is dropped later counts without it.
func untrailed(f []byte) []byte {
	header, end := 34, 0
	switch {
	case len(f) >= 34 && f[12] == 8 && f[13] == 0:
		end = wire.EthernetLen + (int(f[16])<<8 | int(f[17]))
	case len(f) >= 54 && f[12] == 0x86 && f[13] == 0xdd:
		header, end = 54, 54+(int(f[18])<<8|int(f[19]))
	default:
		return f
	}
	return f[:min(len(f), max(header, end))]
}

// fragment6 tells whether the frame is IPv6 with a Fragment header next, which GRO merges with nothing.
func fragment6(f []byte) bool {
	return len(f) > 20 && f[12] == 0x86 && f[13] == 0xdd && f[20] == wire.ProtoFragment
}

// lostBeforeUs tells whether the kernel itself drops the frame before any program: a tag
// with less than an EtherType and two bytes behind it (skb_vlan_untag).
func lostBeforeUs(in packetIn) bool {
	return wire.IsTag(uint16(in.frame[12])<<8|uint16(in.frame[13])) && len(in.frame) < 20
}

// lostBehindUs tells whether the kernel sends the packet to a neighbour that nobody is: to IGMP over IPv4 it takes no route, but
// believes every destination to be on the link (ip_route_output_key_hash_rcu).
func (w *wires) lostBehindUs(set table.Set, in packetIn) bool {
	const igmp = 2
	f := oracle(w.site, set, in).Frame
	return isRewritten(f) && f[14]>>4 == 4 && f[23] == igmp
}

// exchange sends the frames and compares all counters and all frames that come out with the oracle's.
func (w *wires) exchange(t *testing.T, set table.Set, frames []packetIn) (h histogram, differences []string) {
	t.Helper()
	h = histogram{}
	counters := count(t, w.sw)
	expected := map[uint32]map[string]int{}
	expect := func(ifindex uint32, frame []byte) {
		if expected[ifindex] == nil {
			expected[ifindex] = map[string]int{}
		}
		expected[ifindex][string(frame)]++
	}
	for _, in := range frames {
		r, counted := w.predict(set, in)
		h[r.Verdict]++
		counters.add(counted, r)
		if r.IfIndex != 0 {
			expect(r.IfIndex, r.Frame)
		}
		for _, c := range r.Copies {
			expect(c.IfIndex, c.Frame)
		}
		w.send(t, in)
	}
	differences = w.settle(t, counters)
	for _, ifindex := range w.order {
		differences = append(differences, w.collect(t, ifindex, expected[ifindex])...)
	}
	return h, differences
}

// settle waits until the switch has counted as wanted, and tells what still differs when patience ends.
func (w *wires) settle(t *testing.T, want counters) []string {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		differences := want.differences(count(t, w.sw))
		if len(differences) == 0 || time.Now().After(deadline) {
			return differences
		}
	}
}

// collect reads the frames expected at the other end of a device, and those that are not.
func (w *wires) collect(t *testing.T, ifindex uint32, expected map[string]int) []string {
	t.Helper()
	var differences []string
	left := 0
	for _, n := range expected {
		left += n
	}
	for {
		wait := time.Duration(0)
		if left > 0 {
			wait = patience
		}
		f := w.receive(t, ifindex, wait)
		if f == nil {
			break
		}
		left--
		if expected == nil {
			expected = map[string]int{}
		}
		if expected[string(f)]--; expected[string(f)] < 0 {
			differences = append(differences, fmt.Sprintf("device %d: a frame that should not be: %x", ifindex, f))
		}
	}
	for f, n := range expected {
		if n > 0 {
			differences = append(differences, fmt.Sprintf("device %d: missing %d times: %x", ifindex, n, f))
		}
	}
	return differences
}

// decaps are the ways to strip the outer headers that every kernel allows on a veth.
var decaps = []string{datapath.DecapTCX, datapath.DecapXDP}

func TestStoriesOnDevices(t *testing.T) {
	for _, decap := range decaps {
		t.Run(decap, func(t *testing.T) {
			w := newWires(t, decap)
			for _, st := range stories(w.site) {
				if st.in.gsoSize != 0 || lostBeforeUs(st.in) || onVLAN(st.in) { // nothing on these devices gives a gso_size
					continue
				}
				t.Run(st.name, func(t *testing.T) {
					set := st.policy(w.site)
					apply(t, w.sw, set)
					_, differences := w.exchange(t, set, []packetIn{st.in})
					for _, d := range differences {
						t.Error(d)
					}
				})
			}
		})
	}
}

const (
	livePolicies         = 60
	livePacketsPerPolicy = 150
)

// TestDifferentialOnDevices is TestDifferential over real devices, with every way to decapsulate.
func TestDifferentialOnDevices(t *testing.T) {
	seed := diffSeed(t)
	for _, decap := range decaps {
		t.Run(decap, func(t *testing.T) {
			t.Logf("seed %d", seed)
			w, total := newWires(t, decap), histogram{}
			for policy := range uint64(livePolicies) {
				rng := rand.New(rand.NewPCG(seed, policy))
				writer := writer{rng, randomWorld(rng, w.site), true}
				for pa, p := range writer.set.Peers {
					p.Via = netip.Addr{} // the kernel knows the way here
					writer.set.Peers[pa] = p
				}
				apply(t, w.sw, writer.set)
				var frames []packetIn
				for len(frames) < livePacketsPerPolicy {
					in := writer.packet()
					if in.program == datapath.FromUplink && decap == datapath.DecapXDP {
						in.frame = untrailed(in.frame)
					}
					if !lostBeforeUs(in) && !w.lostBehindUs(writer.set, in) {
						frames = append(frames, in)
					}
				}
				h, differences := w.exchange(t, writer.set, frames)
				for v, n := range h {
					total[v] += n
				}
				if len(differences) > 0 {
					w.blame(t, writer.set, frames)
					t.Fatalf("policy %d: %d differences, the first: %s", policy, len(differences), differences[0])
				}
			}
			t.Logf("%d packets:\n%s", livePolicies*livePacketsPerPolicy, total)
		})
	}
}

// blame sends the frames one by one and tells of the first that differs.
func (w *wires) blame(t *testing.T, set table.Set, frames []packetIn) {
	t.Helper()
	for _, in := range frames {
		if _, differences := w.exchange(t, set, []packetIn{in}); len(differences) > 0 {
			t.Errorf("%s\noracle %s\n%q", in, outcomeOf(oracle(w.site, set, in)), differences)
			return
		}
	}
	t.Error("no frame differs alone")
}

// TestAFrameTooLargeForTheKernelToEncapsulate meets ENCAP_FAILED on a device: the kernel makes no room in a
// frame above 16 KB that is not to be cut (bpf_skb_adjust_room, SKB_MAX_ALLOC).
func TestAFrameTooLargeForTheKernelToEncapsulate(t *testing.T) {
	w := newWires(t, datapath.DecapTCX)
	set := street(w.site)
	far := set.Peers[paFar]
	far.MTU = 65535
	set.Peers[paFar] = far
	apply(t, w.sw, set)
	in := w.fromPort(devWeb, ipFrame(router1, web.mac, dgram(web.v4, mail.v4, 64, 17000)))
	want := count(t, w.sw)
	want.add(in, sim.Result{Verdict: model.VerdictEncapFailed, Port: web.id})
	w.send(t, in)
	for _, d := range w.settle(t, want) {
		t.Error(d)
	}
}
