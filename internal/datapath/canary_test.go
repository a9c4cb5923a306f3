package datapath

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/wire"
)

// The canary: a datagram with a wrong checksum inside the tunnel arrives as wrong as it
// was, and the guest's kernel drops it. Nothing on the way makes it good or says that it
// need not be looked at, for veth and tap guests, whole and cut underlays, strip where it may.
func TestAWrongChecksumStaysWrong(t *testing.T) {
	for name, c := range map[string]struct {
		decap     string
		tap, wire bool
		by        carriage
	}{
		"veth": {decap: DecapTCX, by: carriages[1]}, "tap": {decap: DecapTCX, tap: true},
		"tap, cut": {decap: DecapTCX, tap: true, wire: true, by: carriages[2]}, "xdp": {decap: DecapXDP, wire: true},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := &guest{name: "web-a", tap: c.tap}, &guest{name: "web-b", tap: c.tap}
			f := newFabricBy(t, c.by, Options{Decap: c.decap}, a, b)
			if c.wire {
				f.wire()
			}
			f.ping("web-a", b.v4, "-c", "1")
			shown := startCapture(t, f.hosts[1], CaptureFilter{Points: []CapturePoint{ToGuest}, Protocols: []uint8{wire.ProtoUDP}, L4Port: 4242})
			var to net.PacketConn
			inside(t, b.ns, func() {
				var err error
				if to, err = net.ListenPacket("udp4", netip.AddrPortFrom(b.v4, 4242).String()); err != nil {
					t.Error(err)
				}
			})
			var from net.PacketConn
			inside(t, a.ns, func() {
				var err error
				if from, err = net.ListenPacket("ip4:udp", a.v4.String()); err != nil {
					t.Error(err)
				}
			})
			if t.Failed() {
				return
			}
			defer to.Close()
			defer from.Close()
			for _, d := range []struct {
				word  string
				wrong uint16
			}{{"wrong", 0x5a5a}, {"right", 0}} {
				if _, err := from.WriteTo(datagram(a.v4, b.v4, d.word, d.wrong), &net.IPAddr{IP: b.v4.AsSlice()}); err != nil {
					t.Fatal(err)
				}
			}
			buffer := make([]byte, 100)
			to.SetReadDeadline(time.Now().Add(10 * time.Second))
			if n, _, err := to.ReadFrom(buffer); err != nil || string(buffer[:n]) != "right" {
				t.Errorf("the guest got %q first: %v", buffer[:n], err)
			}
			got := shown.until(t, atLeast(ToGuest, 2))
			for i, wrong := range []bool{true, false} {
				ip := got[i].Frame[14:]
				segment := ip[wire.IPv4Len:][:8+5]
				sum := wire.Checksum(segment, wire.PseudoHeader(a.v4, b.v4, wire.ProtoUDP, len(segment)))
				if (sum != 0) != wrong || got[i].ChecksumPending {
					t.Errorf("datagram %d was handed over with a sum of %#x, pending %v", i, sum, got[i].ChecksumPending)
				}
			}
		})
	}
}

func datagram(from, to netip.Addr, word string, wrong uint16) []byte {
	b := append(make([]byte, 8), word...)
	binary.BigEndian.PutUint16(b, 4241)
	binary.BigEndian.PutUint16(b[2:], 4242)
	binary.BigEndian.PutUint16(b[4:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[6:], wire.Checksum(b, wire.PseudoHeader(from, to, wire.ProtoUDP, len(b)))^wrong)
	return b
}
