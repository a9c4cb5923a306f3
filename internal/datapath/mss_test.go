package datapath

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/model"
)

// Guests with a standard MTU agree on segments that the path carries, so that none is ever told
// of one that is too big: by a checksum left to the device (veth, tap) and by one of their own (a plain tap).
func TestMSSIsClamped(t *testing.T) {
	for name, like := range map[string]guest{"veth": {}, "tap": {tap: true}, "tap that takes no offloads": {tap: true, plain: true}} {
		t.Run(name, func(t *testing.T) {
			guests := []*guest{{name: "web0", mtu: 1500, tap: like.tap, plain: like.plain}, {name: "web1", mtu: 1500, tap: like.tap}, {name: "db2", mtu: 1500}, {name: "db3", mtu: 1500}}
			f := newFabric(t, Options{}, guests...)
			f.wire()
			for _, g := range f.guests {
				g.port.MTU, g.port.ClampMSS = 1458, g.name == "web0" || g.name == "db2"
			}
			for _, h := range f.hosts {
				if err := h.sw.Apply(f.rows(h), true); err != nil {
					t.Fatal(err)
				}
			}
			for _, pair := range [][2]string{{"web0", "web1"}, {"web1", "web0"}, {"web0", "db2"}, {"db3", "web0"}} {
				for _, a := range []string{f.guests[pair[1]].v4.String(), f.guests[pair[1]].v6.String()} {
					want := 1458 - 40
					if strings.Contains(a, ":") {
						want = 1458 - 60
					}
					if mss := f.maxSegment(pair[0], pair[1], a); mss > want || mss < want-40 { // timestamps are part of it
						t.Errorf("%s to %s %s: segments of %d bytes, the path carries %d", pair[0], pair[1], a, mss, want)
					}
					f.send(pair[0], pair[1], addr(a), 1<<20)
				}
			}
			for _, h := range f.hosts {
				if n := f.dropped(h, model.VerdictTooBig); n != 0 {
					t.Errorf("%s: %d packets were too big", h.ns, n)
				}
			}
		})
	}
}

// maxSegment is what the two ends of a connection agree on.
func (f *fabric) maxSegment(from, to, at string) int {
	t := f.t
	t.Helper()
	var l net.Listener
	var c net.Conn
	var err error
	inside(t, f.guests[to].ns, func() { l, err = net.Listen("tcp", net.JoinHostPort(at, "0")) })
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	inside(t, f.guests[from].ns, func() { c, err = net.Dial("tcp", l.Addr().String()) })
	if err != nil {
		t.Fatal(fmt.Errorf("%s to %s: %w\n%s", from, to, err, f.drops()))
	}
	defer c.Close()
	mss := 0
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { mss, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return mss
}
