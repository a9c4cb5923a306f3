package netdev

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/weft-sdn/weft/internal/wire"
)

// What quotes too little, is something else, or has a wrong checksum is no word of a router.
func TestTooBigIsReadStrictly(t *testing.T) {
	from, to := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("198.51.100.2")
	said4 := func(mtu, total uint16, change func([]byte)) []byte {
		b := make([]byte, 8+wire.IPv4Len+8)
		b[0], b[1] = 3, 4
		binary.BigEndian.PutUint16(b[6:], mtu)
		if err := (wire.IPv4{HeaderLen: wire.IPv4Len, TotalLen: total, DontFrag: true, TTL: 64, Proto: wire.ProtoGRE, Source: from, Destination: to}).Encode(b[8:]); err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(b)
		}
		binary.BigEndian.PutUint16(b[2:], wire.Checksum(b, 0))
		return b
	}
	for name, c := range map[string]struct {
		b   []byte
		mtu int
	}{
		"what fits":             {said4(1400, 1500, nil), 1400},
		"a router of before":    {said4(0, 1500, nil), 1492},
		"one of before, again":  {said4(0, 1492, nil), 1006},
		"unreachable otherwise": {said4(1400, 1500, func(b []byte) { b[1] = 1 }), 0},
		"no IPv4":               {said4(1400, 1500, func(b []byte) { b[8] = 0x65 }), 0},
		"cut":                   {said4(1400, 1500, nil)[:27], 0},
		"empty":                 {nil, 0},
	} {
		got, ok := parseTooBig4(c.b)
		if ok != (c.mtu != 0) || ok && (got != TooBig{from, to, wire.ProtoGRE, c.mtu}) {
			t.Errorf("%s: %+v, %t", name, got, ok)
		}
	}
	wrong := said4(1400, 1500, nil)
	wrong[2] ^= 1
	if _, ok := parseTooBig4(wrong); ok {
		t.Error("a wrong checksum passes")
	}

	from6, to6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:1::2")
	b := make([]byte, 8+wire.IPv6Len)
	b[0] = 2
	binary.BigEndian.PutUint32(b[4:], 1400)
	if err := (wire.IPv6{PayloadLen: 1452, Next: wire.ProtoUDP, HopLimit: 64, Source: from6, Destination: to6}).Encode(b[8:]); err != nil {
		t.Fatal(err)
	}
	if got, ok := parseTooBig6(b); !ok || got != (TooBig{from6, to6, wire.ProtoUDP, 1400}) {
		t.Errorf("IPv6: %+v, %t", got, ok)
	}
	if _, ok := parseTooBig6(b[:47]); ok {
		t.Error("IPv6, cut, passes")
	}
}
