package datapath

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/model"
)

// An agent that restarts costs no packet: while datagrams cross both hosts, both
// switches are closed and opened again, over and over.
func TestRestartLosesNothing(t *testing.T) {
	f := newFabric(t, Options{}, &guest{name: "web0"}, &guest{name: "web1"})
	for _, h := range f.hosts {
		h.sw.Close()
		pins := pinDir(t)
		inside(t, h.ns, func() { h.sw = f.openSwitch(h, Options{PinDir: pins}) })
	}
	if t.Failed() {
		t.FailNow()
	}
	f.ping("web0", f.guests["web1"].v4) // neighbours are resolved from here on

	const datagrams = 3000
	to := netip.AddrPortFrom(f.guests["web1"].v4, 4000)
	var in, out net.PacketConn
	var err error
	inside(t, f.guests["web1"].ns, func() { in, err = net.ListenPacket("udp", to.String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	inside(t, f.guests["web0"].ns, func() { out, err = net.ListenPacket("udp", "10.0.0.10:0") })
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()

	sent := make(chan struct{})
	go func() {
		defer close(sent)
		tick := time.NewTicker(500 * time.Microsecond)
		defer tick.Stop()
		for i := range uint32(datagrams) {
			<-tick.C
			out.WriteTo(binary.BigEndian.AppendUint32(nil, i), net.UDPAddrFromAddrPort(to))
		}
	}()
	got := make(chan map[uint32]bool)
	go func() {
		seen, b := map[uint32]bool{}, make([]byte, 16)
		in.SetReadDeadline(time.Now().Add(30 * time.Second))
		for len(seen) < datagrams {
			if _, _, err := in.ReadFrom(b); err != nil {
				break
			}
			seen[binary.BigEndian.Uint32(b)] = true
		}
		got <- seen
	}()
	restarts := 0
	for running := true; running; restarts++ {
		for _, h := range f.hosts {
			pins := h.sw.opts.PinDir
			h.sw.Close()
			inside(t, h.ns, func() { h.sw = f.openSwitch(h, Options{PinDir: pins}) })
		}
		select {
		case <-sent:
			running = false
			in.SetReadDeadline(time.Now().Add(time.Second))
		default:
		}
	}
	if n := len(<-got); n != datagrams || restarts < 3 {
		t.Errorf("%d of %d datagrams arrived across %d restarts of both hosts\n%s", n, datagrams, restarts, f.drops())
	}
	t.Logf("%d restarts of both hosts", restarts)
	for _, h := range f.hosts {
		if err := Remove(h.sw.opts.PinDir); err != nil {
			t.Error(err)
		}
	}
}

// What XDP strips must be what tcx would have: the same guests, the same talk.
func TestXDPStripsBeforeGRO(t *testing.T) {
	f := newFabric(t, Options{Decap: DecapXDP}, &guest{name: "web0"}, &guest{name: "web1", tap: true}, &guest{name: "db2", tap: true}, &guest{name: "db3"})
	for _, h := range f.hosts {
		if got := h.sw.Strategies()[uint32(h.uplink.Index)]; got != "xdp" {
			t.Errorf("%s decapsulates at %s, want xdp", h.ns, got)
		}
	}
	f.talk("web0", "web1")
	f.talk("web1", "db2")
	f.talk("db2", "db3")
	f.talk("db3", "web0")
	for _, h := range f.hosts {
		for _, v := range []model.Verdict{model.VerdictSourceNotInPolicy, model.VerdictNotLocal, model.VerdictOuterMalformed, model.VerdictEncapFailed} {
			if n := f.dropped(h, v); n != 0 {
				t.Errorf("%s: %d packets dropped as %s", h.ns, n, v)
			}
		}
	}
	t.Log("\n" + f.drops())
}
