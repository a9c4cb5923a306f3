package lab

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// minimumPolicy: an uplink of 100 Mb/s, of which a tenth is kept for what has no minimum.
const minimumPolicy = `kind: Tenant
metadata: {name: red}
---
kind: VirtualNetwork
metadata: {tenant: red, name: prod}
---
kind: VirtualSubnet
metadata: {tenant: red, name: web}
spec: {network: prod, prefixes: [10.0.0.0/24]}
---
kind: PortProfile
metadata: {tenant: red, name: silver}
spec: {bandwidth: {outbound: {minimum: 30000000}}}
---
kind: Port
metadata: {tenant: red, name: gold}
spec: {subnet: web, host: h1, addresses: [10.0.0.5], bandwidth: {outbound: {weight: 100}}}
---
kind: Port
metadata: {tenant: red, name: silver}
spec: {subnet: web, host: h1, addresses: [10.0.0.6], profile: silver}
---
kind: Port
metadata: {tenant: red, name: none}
spec: {subnet: web, host: h1, addresses: [10.0.0.7]}
---
kind: Port
metadata: {tenant: red, name: sink}
spec: {subnet: web, host: h2, addresses: [10.0.0.8]}
`

// TestMinimum has guests fight for the uplink of their host, which policy says carries 100 Mb/s: each has what a manifest promises it,
// within 5 %, and together they fill it. More than there is cannot be promised.
func TestMinimum(t *testing.T) {
	spec := Spec{Hosts: HostNames(2), Manifests: []string{filepath.Join(t.TempDir(), "minimum.yaml")},
		Guests: []GuestSpec{{Port: "red/gold"}, {Port: "red/silver"}, {Port: "red/none"}, {Port: "red/sink"}}}
	if err := os.WriteFile(spec.Manifests[0], []byte(minimumPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	l, ctx := newLab(t, "min"), patience(t)
	if err := l.Up(ctx, options(t, spec)); err != nil {
		t.Fatal(err)
	}
	l.applied(t, "kind: Host\nmetadata: {name: h1}\nspec: {uplinkBandwidth: 100000000}\n")
	if out, code := l.in("h1", "", "weft", "verify"); code != 0 {
		t.Errorf("verify: code %d\n%s", code, out)
	}

	const carried = 1500 - 42 - 20 - 32 // of 1514 bytes on the uplink are the guest's
	least := map[string]float64{"gold": 60e6, "silver": 30e6, "none": 0}
	kept := false
	for range 3 { // guests that get no processor send less than they are promised
		sum := 0.0
		kept = true
		for name, payload := range l.fight(t, least) {
			got := payload * 1514 / carried
			t.Logf("%s: %.1f Mb/s, promised %.0f", name, got/1e6, least[name]/1e6)
			sum += got
			kept = kept && got >= 0.95*least[name]
		}
		if kept = kept && sum > 95e6 && sum < 105e6; kept {
			break
		}
	}
	if !kept {
		t.Error("somebody has less than is promised, or all together have less or more than there is")
	}

	out, code := l.in("h1", "kind: PortProfile\nmetadata: {tenant: red, name: silver}\nspec: {bandwidth: {outbound: {minimum: 90000008}}}\n", "weft", "apply", "-f", "-")
	if code == 0 || !strings.Contains(out, "sum up to 90000008 bit/s") || !strings.Contains(out, "spec.bandwidth.outbound.minimum") {
		t.Errorf("more than the host can promise: code %d\n%s", code, out)
	}
}

// fight has guests send to the sink by TCP at once, and measures what arrives of each, in bit/s of payload.
func (l Lab) fight(t *testing.T, guests map[string]float64) map[string]float64 {
	t.Helper()
	got, sink := map[string]*atomic.Uint64{}, l.guestSpace(portRef{"red", "sink"})
	for name := range guests {
		count := &atomic.Uint64{}
		got[name] = count
		var listener net.Listener
		if err := within(sink, func() (err error) {
			listener, err = net.Listen("tcp4", "10.0.0.8:0")
			return err
		}); err != nil {
			t.Fatal(err)
		}
		defer listener.Close()
		go func() {
			if c, err := listener.Accept(); err == nil {
				_, _ = io.Copy(countingWriter{count}, c)
			}
		}()
		var c net.Conn
		if err := within(l.guestSpace(portRef{"red", name}), func() (err error) {
			c, err = net.DialTimeout("tcp4", listener.Addr().String(), 5*time.Second)
			return err
		}); err != nil {
			t.Fatal(fmt.Errorf("%s: %w", name, err))
		}
		defer c.Close()
		go func() {
			for b := bytes.Repeat([]byte{'w'}, 1<<16); ; {
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}()
	}
	<-time.After(time.Second) // slow start
	before, began := map[string]uint64{}, time.Now()
	for name, n := range got {
		before[name] = n.Load()
	}
	<-time.After(3 * time.Second)
	out := map[string]float64{}
	for name, n := range got {
		out[name] = 8 * float64(n.Load()-before[name]) / time.Since(began).Seconds()
	}
	return out
}

type countingWriter struct{ n *atomic.Uint64 }

func (w countingWriter) Write(b []byte) (int, error) {
	w.n.Add(uint64(len(b)))
	return len(b), nil
}
