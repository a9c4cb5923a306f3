package lab

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A maximum of a port on a VLAN holds for TCP within 5 %, for what it sends and what it gets, of an access port and of a trunk.
func TestBandwidthOnVLANs(t *testing.T) {
	const rate = 20_000_000
	ctx, l := patience(t), newLab(t, "vb")
	from, to := vlanMachines[4], vlanMachines[1]
	limit := func(m onVLAN, bandwidth string) string {
		return fmt.Sprintf("---\nkind: Port\nmetadata: {tenant: red, name: %s}\nspec: {host: %s, vlan: %s%s}\n", m.name, m.host, m.vlan, bandwidth)
	}
	spec := Spec{Hosts: HostNames(2), ProviderAddresses: []string{"ipv4"}, Manifests: []string{filepath.Join(t.TempDir(), "ports.yaml")}}
	policy := "kind: Tenant\nmetadata: {name: red}\n---\nkind: ExternalNetwork\nmetadata: {name: lan}\nspec: {interfaces: [{interface: lan0}], tenants: [red]}\n"
	if err := os.WriteFile(spec.Manifests[0], []byte(policy+limit(from, "")+limit(to, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := l.Up(ctx, options(t, spec)); err != nil {
		t.Fatal(err)
	}
	run(t, l.space("h1"), "link add lan0 type veth peer name lan0 netns "+l.space("h2"))
	run(t, l.space("h1"), "link set lan0 up")
	run(t, l.space("h2"), "link set lan0 up")
	l.plugVLAN(t, ctx, 0, from)
	l.plugVLAN(t, ctx, 1, to)
	for _, c := range []struct{ name, from, to string }{
		{"outbound", fmt.Sprintf(", bandwidth: {outbound: {maximum: %d}}", rate), ""},
		{"inbound", "", fmt.Sprintf(", bandwidth: {inbound: {maximum: %d}}", rate)},
	} {
		l.applied(t, limit(from, c.from)+limit(to, c.to))
		got := l.throughput(t, portRef{"red", from.name}, portRef{"red", to.name}, vlanAddress(1)[0].String())
		t.Logf("%s: %.1f %% of %d bit/s", c.name, 100*got/rate, rate)
		if got < 0.95*rate || got > 1.05*rate {
			t.Errorf("%s: %.0f bit/s of frames, want %d within 5 %%", c.name, got, rate)
		}
		if out, code := l.in("h1", "", "weft", "verify"); code != 0 {
			t.Errorf("verify: code %d\n%s", code, out)
		}
	}
	l.applied(t, limit(from, "")+limit(to, ""))
	for _, h := range []string{"h1", "h2"} {
		if out, _ := l.in(h, "", "ip", "link"); strings.Contains(out, "weft-sh0") {
			t.Errorf("the shaper is left on %s:\n%s", h, out)
		}
	}
}

// cubic fills the queue, and finds the rate sooner than others.
func cubic(_, _ string, c syscall.RawConn) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) { err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic") }), err)
}

// throughput is what TCP brings over, in bit/s of frames, after a second.
func (l Lab) throughput(t *testing.T, from, to portRef, address string) float64 {
	t.Helper()
	const frame, payload = 1514, 1448
	var got atomic.Uint64
	var listener net.Listener
	var c net.Conn
	at := net.JoinHostPort(address, "5201")
	err := within(l.guestSpace(to), func() (err error) {
		listener, err = net.Listen("tcp", at)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		in, err := listener.Accept()
		for b := make([]byte, 1<<16); err == nil; {
			var n int
			n, err = in.Read(b)
			got.Add(uint64(n))
		}
	}()
	err = within(l.guestSpace(from), func() (err error) {
		c, err = (&net.Dialer{Timeout: 5 * time.Second, Control: cubic}).Dial("tcp", at)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	go func() {
		for b := make([]byte, 1<<16); ; {
			if _, err := c.Write(b); err != nil {
				return
			}
		}
	}()
	<-time.After(time.Second)
	first, began := got.Load(), time.Now()
	<-time.After(3 * time.Second)
	return 8 * float64(got.Load()-first) / time.Since(began).Seconds() * frame / payload
}
