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

	const least = 3 // restarts, however long they take
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

	enough, sent := make(chan struct{}), make(chan uint32, 1)
	go func() {
		tick := time.NewTicker(500 * time.Microsecond)
		defer tick.Stop()
		for i := uint32(0); ; i++ {
			select {
			case <-enough:
				sent <- i
				return
			case <-tick.C:
				out.WriteTo(binary.BigEndian.AppendUint32(nil, i), net.UDPAddrFromAddrPort(to))
			}
		}
	}()
	got := make(chan int)
	in.SetReadDeadline(time.Now().Add(2 * time.Minute))
	go func() {
		seen, b := map[uint32]bool{}, make([]byte, 16)
		for {
			if _, _, err := in.ReadFrom(b); err != nil {
				got <- len(seen)
				return
			}
			seen[binary.BigEndian.Uint32(b)] = true
		}
	}()
	for range least {
		for _, h := range f.hosts {
			pins := h.sw.opts.PinDir
			h.sw.Close()
			inside(t, h.ns, func() { h.sw = f.openSwitch(h, Options{PinDir: pins}) })
		}
	}
	close(enough)
	datagrams := int(<-sent)
	in.SetReadDeadline(time.Now().Add(time.Second)) // for the last of them
	if n := <-got; n != datagrams || n == 0 {
		t.Errorf("%d of %d datagrams arrived across %d restarts of both hosts\n%s", n, datagrams, least, f.drops())
	}
	t.Logf("%d datagrams across %d restarts of both hosts", datagrams, least)
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
