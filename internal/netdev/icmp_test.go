package netdev

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/weft-sdn/weft/internal/wire"
)

// What fits is said by the router, or guessed by its silence; other errors say nothing of it.
func TestTooBigIsReadStrictly(t *testing.T) {
	from, router := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("203.0.113.1")
	said := func(kind, code byte, mtu, total uint16) []byte {
		b := make([]byte, wire.ICMPLen+wire.IPv4Len+8)
		b[0], b[1] = kind, code
		binary.BigEndian.PutUint16(b[6:], mtu)
		if err := (wire.IPv4{HeaderLen: wire.IPv4Len, TotalLen: total, DontFrag: true, TTL: 64, Proto: wire.ProtoGRE, Source: from, Destination: from}).Encode(b[8:]); err != nil {
			t.Fatal(err)
		}
		binary.BigEndian.PutUint16(b[2:], wire.Checksum(b, 0))
		return b
	}
	for name, c := range map[string]struct {
		b   []byte
		mtu int
	}{
		"what fits":             {said(3, 4, 1400, 1500), 1400},
		"a router of before":    {said(3, 4, 0, 1500), 1492},
		"one of before, again":  {said(3, 4, 0, 1492), 1006},
		"unreachable otherwise": {said(3, 1, 1400, 1500), 0},
		"time exceeded":         {said(11, 4, 1400, 1500), 0},
	} {
		e, ok := parseICMPError(router, c.b)
		if !ok || e.TooBig() != c.mtu || e.From != router || !bytes.Equal(e.Quote, c.b[8:]) {
			t.Errorf("%s: %+v, %t, %d", name, e, ok, e.TooBig())
		}
	}
	wrong := said(3, 4, 1400, 1500)
	wrong[2] ^= 1
	for name, b := range map[string][]byte{"nothing": nil, "cut": wrong[:7], "a wrong checksum": wrong} {
		if _, ok := parseICMPError(router, b); ok {
			t.Errorf("%s passes", name)
		}
	}
	six := netip.MustParseAddr("2001:db8::1")
	if e, ok := parseICMPError(six, []byte{2, 0, 0, 0, 0, 0, 5, 120}); !ok || e.TooBig() != 1400 || len(e.Quote) != 0 {
		t.Errorf("IPv6: %+v, %t", e, ok)
	}
	if e, ok := parseICMPError(six, []byte{1, 0, 0, 0, 0, 0, 5, 120}); !ok || e.TooBig() != 0 {
		t.Errorf("IPv6, unreachable: %+v, %t", e, ok)
	}
}

// What follows the quoted packet is no part of it (RFC 4884).
func TestExtensionsAreNoQuote(t *testing.T) {
	four, six := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	message := func(kind byte, at int, units byte) []byte {
		b := make([]byte, wire.ICMPLen+128+20)
		b[0], b[at] = kind, units
		binary.BigEndian.PutUint16(b[2:], wire.Checksum(b, 0))
		return b
	}
	for name, c := range map[string]struct {
		from netip.Addr
		b    []byte
		want int
	}{
		"IPv4":                  {four, message(3, 5, 32), 128},
		"IPv4, none":            {four, message(3, 5, 0), 148},
		"IPv4, more than there": {four, message(11, 5, 255), 148},
		"IPv6":                  {six, message(1, 4, 16), 128},
		"IPv6, an MTU":          {six, message(2, 4, 16), 148},
	} {
		if e, ok := parseICMPError(c.from, c.b); !ok || len(e.Quote) != c.want {
			t.Errorf("%s: %d bytes, %t", name, len(e.Quote), ok)
		}
	}
}
