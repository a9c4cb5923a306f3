package agent

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/datapath"
)

func TestSampleLine(t *testing.T) {
	const ethernet = "020000000002" + "020000000001"
	for name, c := range map[string]struct{ frame, want string }{
		"tcp":       {ethernet + "0800" + "4500003c000040004006" + "0000" + "0a000009" + "0a000006" + "9c400050", "10.0.0.9 > 10.0.0.6 tcp 40000>80, 74 bytes"},
		"ping6":     {ethernet + "86dd" + "6000000000083a40" + strings.Repeat("0", 30) + "09" + strings.Repeat("0", 30) + "06" + "8000", "::9 > ::6 icmpv6 type 128 code 0, 74 bytes"},
		"mld":       {ethernet + "86dd" + "6000000000240001" + "fe80" + strings.Repeat("0", 27) + "1" + "ff02" + strings.Repeat("0", 26) + "16" + "3a00050200000100" + "8f00", "fe80::1 > ff02::16 icmpv6 type 143 code 0, 74 bytes"},
		"fragment6": {ethernet + "86dd" + "6000000000100040" + strings.Repeat("0", 31) + "9" + strings.Repeat("0", 31) + "6" + "2c00000000000000" + "1100000800000001", "::9 > ::6 udp fragment, 74 bytes"},
		"fragment":  {ethernet + "0800" + "45000028000000054011" + "0000" + "0a000009" + "0a000006" + "00000000", "10.0.0.9 > 10.0.0.6 udp fragment, 74 bytes"},
		"nvgre":     {ethernet + "0800" + "45000028000000002f2f" + "0000" + "c0000201" + "c0000202" + "20006558" + "00138901", "192.0.2.1 > 192.0.2.2 gre vsid 5001, 74 bytes"},
		"arp":       {ethernet + "0806" + "0001080006040001" + "020000000001" + "0a000009" + "000000000000" + "0a000006", "arp 10.0.0.9 asks or tells about 10.0.0.6, 74 bytes"},
		"lldp":      {ethernet + "88cc" + "00", "02:00:00:00:00:01 > 02:00:00:00:00:02 ethertype 0x88cc, 74 bytes"},
		"short":     {"0200", "a frame without a header, 74 bytes"},
	} {
		head, err := hex.DecodeString(c.frame)
		if err != nil {
			t.Fatal(err)
		}
		if got := sampleLine(datapath.Event{Head: head, Length: 74}); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		for n := range head { // no prefix may make it read past its end
			sampleLine(datapath.Event{Head: head[:n]})
		}
	}
}
