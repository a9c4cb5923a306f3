package wire

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
)

func TestDHCP(t *testing.T) {
	want := DHCP{Reply: true, XID: 0x01020304, Client: netip.MustParseAddr("0.0.0.0"), Yours: netip.MustParseAddr("10.0.0.9"),
		MAC: model.MAC{2, 0, 0, 0, 0, 1}, Type: DHCPAck, Requested: netip.MustParseAddr("10.0.0.9"), Lease: 3600}
	b := make([]byte, 300)
	n, err := want.Encode(b)
	if err != nil || n != 300 {
		t.Fatal(n, err)
	}
	if got, err := ParseDHCP(b); err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	for n := range b {
		got, err := ParseDHCP(b[:n])
		if n < 243 && err == nil {
			t.Fatalf("%d bytes are read as %+v", n, got)
		}
	}
	for at, v := range map[int]byte{0: 3, 1: 6, 2: 16, 236: 0, 240: 52} {
		bad := append([]byte(nil), b...)
		bad[at] = v
		if _, err := ParseDHCP(bad); !errors.Is(err, ErrDHCP) {
			t.Errorf("byte %d is %d: %v", at, v, err)
		}
	}
	pads := append([]byte(nil), b[:240]...)
	pads = append(pads, 0, 0, 12, 2, 'h', 'i', 53, 1, DHCPNak, 51, 9) // an option past the end is not read
	if got, err := ParseDHCP(pads); err != nil || got.Type != DHCPNak || got.Lease != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}
