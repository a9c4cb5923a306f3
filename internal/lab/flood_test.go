package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// wire is a guest's device: frames go out of it and come in as they are.
type wire struct {
	name string
	mac  [6]byte
	fd   int
}

// tap opens the device of a guest.
func (l Lab) tap(t *testing.T, g portRef) *wire {
	t.Helper()
	w := listen(t, l.guestSpace(g), "eth0")
	w.name = g.String()
	return w
}

// listen opens a device of a namespace.
func listen(t *testing.T, space, name string) *wire {
	t.Helper()
	w := &wire{name: name}
	err := within(space, func() error {
		device, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		copy(w.mac[:], device.HardwareAddr)
		const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
		if w.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(w.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
			return err
		}
		return unix.Bind(w.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: device.Index})
	})
	if err != nil {
		t.Fatalf("device %s of %s: %v", name, space, err)
	}
	t.Cleanup(func() { unix.Close(w.fd) })
	return w
}

// mark is a frame of which no other is like it.
func (w *wire) frame(dst [6]byte, payload []byte, mark uint32) []byte {
	f := append(append(dst[:], w.mac[:]...), payload...)
	return binary.BigEndian.AppendUint32(f, mark)
}

func (w *wire) send(t *testing.T, f []byte) {
	t.Helper()
	if _, err := unix.Write(w.fd, f); err != nil {
		t.Fatalf("%s sends: %v", w.name, err)
	}
}

// heard counts the frames that are waiting, by themselves.
func (w *wire) heard(t *testing.T, into map[string]int) {
	t.Helper()
	for {
		b := make([]byte, 2048)
		n, _, err := unix.Recvfrom(w.fd, b, 0)
		if err == unix.EAGAIN {
			return
		}
		if err != nil {
			t.Fatalf("%s listens: %v", w.name, err)
		}
		into[string(b[:n])]++
	}
}

// udp4 is the EtherType and an IPv4 packet with a datagram of 4 bytes, which follow.
func udp4(src, dst [4]byte) []byte {
	ip := []byte{0x45, 0, 0, 32, 0, 1, 0, 0, 1, 17, 0, 0, src[0], src[1], src[2], src[3], dst[0], dst[1], dst[2], dst[3]}
	sum := uint32(0)
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(ip[i])<<8 | uint32(ip[i+1])
	}
	for sum > 0xffff {
		sum = sum&0xffff + sum>>16
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum))
	return append(append([]byte{8, 0}, ip...), 0x27, 0x0f, 0x27, 0x0f, 0, 12, 0, 0)
}

// applied applies a manifest and waits until every host holds it.
func (l Lab) applied(t *testing.T, manifest string) {
	t.Helper()
	if out, code := l.in("h1", manifest, "weft", "apply", "-f", "-", "--wait"); code != 0 {
		t.Fatalf("apply: code %d\n%s", code, out)
	}
}

const floodedWeb = `kind: VirtualSubnet
metadata: {tenant: red, name: web}
spec: {network: prod, vsid: 5001, prefixes: [10.0.0.0/24, "fd00:a::/64"], flood: l2, stormLimit: %d}
`

// What one guest of a flooded subnet says to all reaches every other exactly once, on both hosts; its
// neighbour subnet and the tenant with the same addresses hear nothing. Guests answer a broadcast ping,
// and a storm is cut down.
func TestFlood(t *testing.T) {
	ctx := patience(t)
	l := newLab(t, "f")
	if err := l.Up(ctx, options(t, demoSpec(t))); err != nil {
		t.Fatal(err)
	}
	sender := l.tap(t, portRef{"red", "web-1"})
	members := []*wire{l.tap(t, portRef{"red", "web-2"}), l.tap(t, portRef{"red", "web-3"})}
	strangers := []*wire{sender, l.tap(t, portRef{"red", "db-1"}), l.tap(t, portRef{"blue", "web-1"}), l.tap(t, portRef{"blue", "web-2"}),
		l.tap(t, portRef{"blue", "web-3"}), l.tap(t, portRef{"blue", "db-1"})}
	everyone, web1 := [6]byte{255, 255, 255, 255, 255, 255}, [4]byte{10, 0, 0, 5}
	mdns := [6]byte{1, 0, 0x5e, 0, 0, 0xfb}
	gratuitous := append([]byte{8, 6, 0, 1, 8, 0, 6, 4, 0, 1}, sender.mac[:]...)
	gratuitous = append(append(append(gratuitous, web1[:]...), make([]byte, 6)...), web1[:]...)
	mark := uint32(0)
	kinds := func() [][]byte {
		mark++
		return [][]byte{
			sender.frame(everyone, udp4(web1, [4]byte{255, 255, 255, 255}), mark),
			sender.frame(everyone, udp4(web1, [4]byte{10, 0, 0, 255}), mark),
			sender.frame(mdns, udp4(web1, [4]byte{224, 0, 0, 251}), mark),
			sender.frame(everyone, gratuitous, mark),
		}
	}

	// Without flood: l2 nobody hears anything.
	before := kinds()
	for _, f := range before {
		sender.send(t, f)
	}
	l.applied(t, fmt.Sprintf(floodedWeb, 0))
	var sent [][]byte
	for range 15 {
		for _, f := range kinds() {
			sender.send(t, f)
			sent = append(sent, f)
		}
	}
	got := map[*wire]map[string]int{}
	err := poll(ctx, func() error {
		for _, w := range append(members, strangers...) {
			if got[w] == nil {
				got[w] = map[string]int{}
			}
			w.heard(t, got[w])
		}
		for _, w := range members {
			for i, f := range sent {
				if got[w][string(f)] == 0 {
					return fmt.Errorf("%s has not heard frame %d of %d", w.name, i, len(sent))
				}
			}
			// The switch asks guests for their groups: IGMP and MLD queries of the subnet's router.
			for _, group := range []string{"\x01\x00\x5e\x00\x00\x01", "\x33\x33\x00\x00\x00\x01"} {
				if !heardFrom(got[w], group+"\x02\x77\x66\x00\x13\x89") {
					return fmt.Errorf("%s was not asked for its groups", w.name)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range members {
		for i, f := range sent {
			if n := got[w][string(f)]; n != 1 {
				t.Errorf("%s heard frame %d %d times", w.name, i, n)
			}
		}
	}
	for _, w := range append(members, strangers...) {
		for _, f := range before {
			if got[w][string(f)] != 0 {
				t.Errorf("%s heard what was said before the subnet was flooded", w.name)
			}
		}
	}
	for _, w := range strangers {
		for _, f := range sent {
			if got[w][string(f)] != 0 {
				t.Errorf("%s heard %x", w.name, f)
			}
		}
	}

	l.broadcastPing(t, ctx)
	l.multicast(t, ctx, sender, members, &mark)
	l.storm(t, ctx, sender, members[0], func() []byte { return kinds()[0] })
	for _, to := range []string{"10.0.0.255", "224.0.0.251", "ff02::fb"} {
		out, code := l.in("h1", "", "weft", "trace", "red/web-1", "--to", to, "--proto", "udp")
		if code != 0 || !strings.Contains(out, "=> FLOODED") || !strings.Contains(out, "a copy into device") || !strings.Contains(out, "to Provider Address") {
			t.Errorf("trace to %s: code %d\n%s", to, code, out)
		}
	}
	if out, code := l.in("h1", "", "weft", "verify"); code != 0 {
		t.Errorf("verify: code %d\n%s", code, out)
	}
}

// heardFrom tells whether a frame that begins so was heard.
func heardFrom(frames map[string]int, head string) bool {
	for f := range frames {
		if strings.HasPrefix(f, head) {
			return true
		}
	}
	return false
}

// broadcastPing wants an answer of every other guest of the subnet, and of no one else.
func (l Lab) broadcastPing(t *testing.T, ctx context.Context) {
	t.Helper()
	for _, g := range []string{"red.web-2", "red.web-3", "red.db-1", "blue.web-1", "blue.web-2", "blue.web-3"} {
		if err := setting(l.space(g), "ipv4/icmp_echo_ignore_broadcasts", "0"); err != nil {
			t.Fatal(err)
		}
	}
	answer := regexp.MustCompile(`bytes from ([0-9.]+): icmp_seq=1 `)
	out, err := exec.CommandContext(ctx, "ip", "netns", "exec", l.space("red.web-1"), "ping", "-b", "-w", "1", "10.0.0.255").CombinedOutput()
	who := map[string]int{}
	for _, m := range answer.FindAllStringSubmatch(string(out), -1) {
		who[m[1]]++
	}
	if who["10.0.0.6"] != 1 || who["10.0.0.7"] != 1 || len(who) != 2 {
		t.Errorf("broadcast ping: %v, answers of %v\n%s", err, who, out)
	}
}

// storm wants a burst of a port cut down to its limit, and every frame accounted for.
func (l Lab) storm(t *testing.T, ctx context.Context, sender, member *wire, next func() []byte) {
	t.Helper()
	const burst = 200
	l.applied(t, fmt.Sprintf(floodedWeb, 20))
	before := l.stormDrops(t)
	sent := map[string]bool{}
	start := time.Now()
	for range burst {
		f := next()
		sent[string(f)] = true
		sender.send(t, f)
	}
	most := 4 + int(20*time.Since(start).Seconds())
	err := poll(ctx, func() error {
		if n := l.stormDrops(t) - before; n < burst-most {
			return fmt.Errorf("%d of %d frames were dropped as a storm", n, burst)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	heard := map[string]int{}
	dropped := l.stormDrops(t) - before
	err = poll(ctx, func() error {
		member.heard(t, heard)
		n := 0
		for f := range heard {
			if sent[f] {
				n++
			}
		}
		if n != burst-dropped || n == 0 {
			return fmt.Errorf("%d frames heard, %d dropped, %d sent", n, dropped, burst)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// stormDrops is how often web-1 of red met STORM_LIMITED.
func (l Lab) stormDrops(t *testing.T) int {
	t.Helper()
	out, code := l.in("h1", "", "sh", "-c", "curl -fsS http://127.0.0.1:9467/metrics | grep -E '^weft_drop_packets_total|^weft_drops_total' | grep storm_limited || true")
	if code != 0 {
		t.Fatalf("metrics: %s", out)
	}
	total := 0
	for _, line := range strings.Split(strings.TrimSpace(out), "\n") {
		if i := strings.LastIndexByte(line, ' '); i >= 0 && bytes.Contains([]byte(line), []byte(`"red"`)) {
			n := 0
			fmt.Sscan(line[i+1:], &n)
			total += n
		}
	}
	return total
}

// udp6 is udp4 for IPv6, without a checksum, which nobody here looks at.
func udp6(src, dst netip.Addr) []byte {
	b := []byte{0x86, 0xdd, 0x60, 0, 0, 0, 0, 12, 17, 8}
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	return append(b, 0x27, 0x0f, 0x27, 0x0f, 0, 12, 0, 0)
}

// multicast wants a group's traffic at the guest that has joined it, and nowhere else, for as
// long as it listens. What goes to all tells when all before it has arrived.
func (l Lab) multicast(t *testing.T, ctx context.Context, sender *wire, members []*wire, mark *uint32) {
	t.Helper()
	listener, other := members[0], members[1]
	video4, video6 := netip.MustParseAddr("239.1.2.3"), netip.MustParseAddr("ff0e::1:2:3")
	send := func(v6 bool) (video, everyone []byte) {
		*mark += 2
		web1 := [4]byte{10, 0, 0, 5}
		video = sender.frame([6]byte{1, 0, 0x5e, 1, 2, 3}, udp4(web1, video4.As4()), *mark)
		if v6 {
			video = sender.frame([6]byte{0x33, 0x33, 0, 2, 0, 3}, udp6(netip.MustParseAddr("fd00:a::5"), video6), *mark)
		}
		everyone = sender.frame([6]byte{255, 255, 255, 255, 255, 255}, udp4(web1, [4]byte{255, 255, 255, 255}), *mark+1)
		sender.send(t, video)
		sender.send(t, everyone)
		return video, everyone
	}
	// hears sends until whether the listener hears the group is as wanted.
	hears := func(v6, want bool) {
		t.Helper()
		err := poll(ctx, func() error {
			video, everyone := send(v6)
			got := map[*wire]map[string]int{listener: {}, other: {}}
			if err := poll(ctx, func() error {
				for w, heard := range got {
					if w.heard(t, heard); heard[string(everyone)] == 0 {
						return fmt.Errorf("%s has not heard what is for all", w.name)
					}
				}
				return nil
			}); err != nil {
				return err
			}
			if n := got[other][string(video)]; n != 0 {
				t.Errorf("%s has not joined and heard the group %d times", other.name, n)
			}
			if n := got[listener][string(video)]; n > 1 || (n == 1) != want {
				return fmt.Errorf("%s heard the group %d times", listener.name, n)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	for _, v6 := range []bool{false, true} {
		hears(v6, false)
		fd := l.listenTo(t, portRef{"red", "web-2"}, pickAddr(v6, video6, video4))
		hears(v6, true)
		unix.Close(fd)
		hears(v6, false)
	}
}

func pickAddr(first bool, a, b netip.Addr) netip.Addr {
	if first {
		return a
	}
	return b
}

// listenTo has the guest's kernel join a group until the socket is closed.
func (l Lab) listenTo(t *testing.T, g portRef, group netip.Addr) (fd int) {
	t.Helper()
	err := within(l.guestSpace(g), func() error {
		device, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		if group.Is4() {
			if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return err
			}
			return unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Multiaddr: group.As4(), Ifindex: int32(device.Index)})
		}
		if fd, err = unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Multiaddr: group.As16(), Interface: uint32(device.Index)})
	})
	if err != nil {
		t.Fatalf("%s joins %s: %v", g, group, err)
	}
	return fd
}
