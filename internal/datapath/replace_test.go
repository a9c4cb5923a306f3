package datapath

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/test/corpus"
)

// Of three kinds of datagrams, the first is let through by the rules of both guests, the second is denied by those
// of the one that sends, and the third by those of the one that would get it.
var kinds = [3]uint16{53, 54, 55}

// version makes the n-th version of a guest's rules. Both say the same, by rules with names and places of their own: one that
// counts every packet, and one that decides for each kind, among others that match nothing, before one that nothing
// reaches. So a packet that is judged by two versions counts in one and is decided in the other, or reaches the end.
func version(n int, inbound bool) []table.Rule {
	sizes := [2]int{100, 700}
	c := corpus.New(uint64(n), sizes[n], inbound)
	var rules []table.Rule
	for i := range sizes[n] {
		r := c.Rule(versionRule(n, inbound, "other"), i)
		r.Local, r.Remote = nil, []netip.Prefix{prefix(fmt.Sprintf("10.%d.%d.0/24", 1+i%200, i/200))} // where nobody is
		rules = append(rules, r)
	}
	everything := table.Rule{AnyProtocol: true, ICMPType: -1, ICMPCode: -1}
	count, rest := everything, everything
	count.ID, count.Action = ruleID(versionRule(n, inbound, "count")), table.Count
	rest.ID, rest.Action = ruleID(versionRule(n, inbound, "rest")), table.Deny
	rules[sizes[n]/7] = count // before those that decide
	for i, port := range kinds {
		r := everything
		r.ID, r.Protocol, r.AnyProtocol = ruleID(versionRule(n, inbound, fmt.Sprint(port))), 17, false
		if inbound {
			r.LocalPorts = []table.PortRange{{First: port, Last: port}}
		} else {
			r.RemotePorts = []table.PortRange{{First: port, Last: port}}
		}
		if i == 1 && !inbound || i == 2 && inbound {
			r.Action = table.Deny
		}
		rules[sizes[n]/5+(2-2*n+i)*sizes[n]/7] = r
	}
	return append(rules, rest)
}

func versionRule(n int, inbound bool, what string) string {
	return fmt.Sprintf("%s of version %d, inbound %v", what, n, inbound)
}

// versions are the tables of a host, once with each version of its guest's rules. Another port holds the names of all of them,
// so that no count is forgotten.
func (f *fabric) versions(h *host, judged, keeper *guest, inbound bool) (out [2]table.Set) {
	for n := range out {
		s := f.rows(h)
		give := func(g *guest, rules []table.Rule) {
			set := &table.RuleSet{Sections: []table.Section{{Kind: table.Tenant, Rules: rules}}}
			sum := sha256.Sum256(fmt.Append(nil, g.name, inbound, len(rules)))
			p, key := s.Ports[g.port.IfIndex], table.RuleSetKey(sum[:16])
			if inbound {
				p.Inbound = key
			} else {
				p.Outbound = key
			}
			s.Ports[g.port.IfIndex], s.RuleSets[key] = p, set
		}
		give(judged, version(n, inbound))
		give(keeper, append(version(0, inbound), version(1, inbound)...))
		out[n] = s
	}
	return out
}

// While the rules of two guests are replaced a hundred times a second under a hundred thousand packets a second, over real
// devices, no packet is judged by a part of one version and a part of the other, and none is lost.
func TestRulesAreReplacedUnderTraffic(t *testing.T) {
	const (
		updates = 300
		packets = 300_000
		seconds = 3
		turns   = 10 // in one of which the machine has time for all that
	)
	f := newFabric(t, Options{}, &guest{name: "web0"}, &guest{name: "web1"}, &guest{name: "web2"}, &guest{name: "web3"})
	from, to := f.guests["web0"], f.guests["web1"]
	f.ping("web0", to.v4) // nobody waits for a neighbour afterwards
	for _, g := range f.guests {
		g.sayNothing(t)
	}
	sets := [2][2]table.Set{f.versions(f.hosts[0], from, f.guests["web2"], false), f.versions(f.hosts[1], to, f.guests["web3"], true)}
	for i, h := range f.hosts {
		if err := h.sw.Apply(sets[i][0], true); err != nil {
			t.Fatal(err)
		}
	}
	out := -1
	inside(t, from.ns, func() {
		var err error
		if out, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	defer unix.Close(out)
	// The ones in a hurry hold on to their shares of the Go scheduler.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(6))

	for turn := range turns {
		var in *net.UDPConn
		inside(t, to.ns, func() { in = listenUDP(t, netip.AddrPortFrom(to.v4, kinds[0])) })
		got := make(chan error, 1)
		go func() { got <- receiveInOrder(in, packets/len(kinds)) }()
		var changed [2]time.Duration
		var all errgroup.Group
		began := time.Now()
		for i, h := range f.hosts {
			all.Go(func() (err error) {
				changed[i], err = h.replace(t, sets[i], updates, seconds*time.Second)
				return err
			})
		}
		var sent time.Duration
		inside(t, from.ns, func() { // a thread of its own, which may be in a hurry
			if err := sendKinds(t, out, to.v4, packets, packets/seconds); err != nil {
				t.Errorf("send: %v", err)
			}
			sent = time.Since(began)
		})
		if err := errors.Join(all.Wait(), <-got); err != nil {
			t.Fatal(err)
		}
		t.Logf("%.0f and %.0f versions a second under %.0f packets a second", updates/changed[0].Seconds(), updates/changed[1].Seconds(), packets/sent.Seconds())
		f.judgedWhole(uint64((turn + 1) * packets / len(kinds)))
		if slow := max(changed[0], changed[1], sent); slow < seconds*time.Second*105/100 || t.Failed() {
			return
		}
	}
	t.Errorf("in none of %d turns were there %d versions a second under %d packets", turns, updates/seconds, packets/seconds)
}

// replace applies both versions in turn, evenly over some time, and tells how long that took.
func (h *host) replace(t *testing.T, versions [2]table.Set, updates int, over time.Duration) (time.Duration, error) {
	runtime.LockOSThread() // the thread ends with this
	hurry(t)
	began := time.Now()
	for n := range updates {
		sleepUntil(began.Add(time.Duration(n) * over / time.Duration(updates)))
		if err := h.sw.Apply(versions[(n+1)%2], true); err != nil {
			return 0, err
		}
	}
	return time.Since(began), nil
}

// sleepUntil sleeps in this thread: who wakes those of the Go scheduler up is in no hurry.
func sleepUntil(t time.Time) {
	if wait := time.Until(t); wait > 0 {
		ts := unix.NsecToTimespec(wait.Nanoseconds())
		unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
	}
}

// sendKinds sends datagrams of all kinds in turn, so many a second.
func sendKinds(t *testing.T, fd int, to netip.Addr, packets, rate int) error {
	const batch = 60
	hurry(t)
	b := newBurst(to, batch)
	began := time.Now()
	for n := 0; n < packets; n += batch {
		sleepUntil(began.Add(time.Duration(n) * time.Second / time.Duration(rate)))
		if err := b.send(fd, uint64(n)); err != nil {
			return err
		}
	}
	return nil
}

// sayNothing ends what a guest's kernel sends by itself, which rules would count, too.
func (g *guest) sayNothing(t *testing.T) {
	t.Helper()
	inside(t, g.ns, func() {
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0); err != nil {
			t.Error(err)
		}
	})
}

// judgedWhole compares counts of each version, and of both, with how many datagrams of each kind were sent.
func (f *fabric) judgedWhole(each uint64) {
	t := f.t
	t.Helper()
	for i, inbound := range []bool{false, true} {
		all, err := f.hosts[i].sw.RuleHits()
		if err != nil {
			t.Fatal(err)
		}
		var sum [len(kinds)]uint64
		for n := range 2 {
			hits := func(what string) uint64 { return all[ruleID(versionRule(n, inbound, what))].Packets }
			var decided uint64
			for k, port := range kinds {
				sum[k] += hits(fmt.Sprint(port))
				decided += hits(fmt.Sprint(port))
			}
			if counted := hits("count"); counted != decided || hits("rest") != 0 || counted == 0 {
				t.Errorf("inbound %v: version %d counted %d packets, decided %d of them and let %d through to its end", inbound, n, counted, decided, hits("rest"))
			}
		}
		want := [len(kinds)]uint64{each, each, each}
		if inbound {
			want[1] = 0
		}
		if sum != want {
			t.Errorf("inbound %v: %v packets of each kind were judged, want %v", inbound, sum, want)
		}
		drops, err := f.hosts[i].sw.Drops()
		if err != nil {
			t.Fatal(err)
		}
		denied := uint64(0)
		for _, d := range drops {
			if d.Reason != model.VerdictAclDenied {
				continue
			}
			if denied += d.Packets; d.Rule == (model.RuleID{}) {
				t.Errorf("host %d dropped %d packets by rules, and names none", i, d.Packets)
			}
		}
		if denied != each {
			t.Errorf("host %d dropped %d packets by rules, want %d", i, denied, each)
		}
	}
	if t.Failed() {
		t.Log("\n" + f.drops())
	}
}

func listenUDP(t *testing.T, at netip.AddrPort) *net.UDPConn {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(at))
	if err != nil {
		t.Error(err)
		return nil
	}
	raw, err := c.SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
		}), err)
	}
	if err != nil {
		t.Error(err)
	}
	return c
}

// receiveInOrder waits for n datagrams, the numbers of which must grow: none comes twice.
func receiveInOrder(c *net.UDPConn, n int) error {
	defer c.Close()
	last := int64(-1)
	for got := range n {
		var b [8]byte
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, _, err := c.ReadFromUDPAddrPort(b[:]); err != nil {
			return fmt.Errorf("%d of %d datagrams arrived, the last one was number %d: %w", got, n, last, err)
		}
		seq := int64(binary.BigEndian.Uint64(b[:]))
		if seq <= last {
			return fmt.Errorf("datagram %d came behind %d", seq, last)
		}
		last = seq
	}
	return nil
}

// A burst is datagrams that leave by one system call, of each kind in turn, numbered.
type burst struct {
	number [][8]byte // network order
	iov    []unix.Iovec
	to     []unix.RawSockaddrInet4
	msg    []struct { // mmsghdr of sendmmsg(2)
		unix.Msghdr
		_ [8]byte
	}
}

func newBurst(to netip.Addr, n int) *burst {
	b := &burst{number: make([][8]byte, n), iov: make([]unix.Iovec, n), to: make([]unix.RawSockaddrInet4, n)}
	b.msg = make([]struct {
		unix.Msghdr
		_ [8]byte
	}, n)
	for i := range n {
		port := kinds[i%len(kinds)]
		b.to[i] = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: port<<8 | port>>8, Addr: to.As4()}
		b.iov[i] = unix.Iovec{Base: &b.number[i][0], Len: 8}
		m := &b.msg[i]
		m.Name, m.Namelen, m.Iov, m.Iovlen = (*byte)(unsafe.Pointer(&b.to[i])), unix.SizeofSockaddrInet4, &b.iov[i], 1
	}
	return b
}

func (b *burst) send(fd int, first uint64) error {
	for i := range b.number {
		binary.BigEndian.PutUint64(b.number[i][:], first+uint64(i))
	}
	for rest := b.msg; len(rest) > 0; {
		n, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&rest[0])), uintptr(len(rest)), 0, 0, 0)
		if e != 0 && e != unix.EINTR {
			return e
		}
		if e == 0 {
			rest = rest[n:]
		}
	}
	return nil
}

// hurry puts the thread before what else the machine does, which must not decide how fast packets and rules come.
func hurry(t *testing.T) {
	if err := unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_RR, Priority: 1}, 0); err != nil {
		t.Error(err)
	}
}
