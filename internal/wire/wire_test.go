package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(s))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

var (
	alice = model.MAC{2, 0, 0, 0, 0, 1}
	bob   = model.MAC{2, 0, 0, 0, 0, 2}
)

// codec is a header in both forms, from a standard or worked out by hand from its figure.
type codec struct {
	name  string
	bytes string
	want  any
	parse func([]byte) (any, error)
	enc   func(any, []byte) error
}

var codecs = []codec{
	{"ethernet", "020000000002 020000000001 86dd",
		Ethernet{Dst: bob, Src: alice, Type: TypeIPv6},
		func(b []byte) (any, error) { return ParseEthernet(b) },
		func(h any, b []byte) error { return h.(Ethernet).Encode(b) }},
	{"vlan", "b064 0800",
		VLAN{Priority: 5, Drop: true, VID: 100, Type: TypeIPv4},
		func(b []byte) (any, error) { return ParseVLAN(b) },
		func(h any, b []byte) error { return h.(VLAN).Encode(b) }},
	{"arp", "0001 0800 06 04 0002  020000000001 0a000001  020000000002 0a000002",
		ARP{Op: ARPReply, SenderMAC: alice, Sender: addr("10.0.0.1"), TargetMAC: bob, TargetAddr: addr("10.0.0.2")},
		func(b []byte) (any, error) { return ParseARP(b) },
		func(h any, b []byte) error { return h.(ARP).Encode(b) }},
	{"ipv4", "45 b8 0014 1c46 4000 40 06 b1e6 ac100a63 ac100a0c",
		IPv4{HeaderLen: 20, TOS: 0xb8, TotalLen: 20, ID: 0x1c46, DontFrag: true, TTL: 64, Proto: 6, Checksum: 0xb1e6,
			Source: addr("172.16.10.99"), Destination: addr("172.16.10.12")},
		func(b []byte) (any, error) { return ParseIPv4(b) },
		func(h any, b []byte) error { return h.(IPv4).Encode(b) }},
	{"ipv4 fragment", "45 00 0014 0001 20b9 01 11 0000 0a000001 0a000002",
		IPv4{HeaderLen: 20, TotalLen: 20, ID: 1, MoreFrags: true, FragOffset: 185, TTL: 1, Proto: 17,
			Source: addr("10.0.0.1"), Destination: addr("10.0.0.2")},
		func(b []byte) (any, error) { return ParseIPv4(b) },
		func(h any, b []byte) error { return h.(IPv4).Encode(b) }},
	{"ipv6", "6b812345 0000 3a ff  fd000000000000000000000000000001  ff020000000000000000000000000002",
		IPv6{Class: 0xb8, Flow: 0x12345, Next: ProtoICMPv6, HopLimit: 255, Source: addr("fd00::1"), Destination: addr("ff02::2")},
		func(b []byte) (any, error) { return ParseIPv6(b) },
		func(h any, b []byte) error { return h.(IPv6).Encode(b) }},
	{"icmp", "03 04 beef 000005b2",
		ICMP{Type: ICMPUnreachable, Code: ICMPCodeFragNeeded, Checksum: 0xbeef, Rest: 1458},
		func(b []byte) (any, error) { return ParseICMP(b) },
		func(h any, b []byte) error { return h.(ICMP).Encode(b) }},
	{"neighbour advertisement", "88 00 0000 e0000000 fd000000000000000000000000000009 02 01 020000000001",
		Neighbour{Type: ICMPv6NeighbourAdv, Router: true, Solicited: true, Override: true, Target: addr("fd00::9"), MAC: alice, HasMAC: true},
		func(b []byte) (any, error) { return ParseNeighbour(b) },
		func(h any, b []byte) error { return h.(Neighbour).Encode(b) }},
	{"neighbour solicitation", "87 00 0000 00000000 fd000000000000000000000000000009",
		Neighbour{Type: ICMPv6NeighbourSol, Target: addr("fd00::9")},
		func(b []byte) (any, error) { return ParseNeighbour(b) },
		func(h any, b []byte) error { return h.(Neighbour).Encode(b) }},
	{"router solicitation", "85 00 0000 00000000",
		Neighbour{Type: ICMPv6RouterSolicit},
		func(b []byte) (any, error) { return ParseNeighbour(b) },
		func(h any, b []byte) error { return h.(Neighbour).Encode(b) }},
	{"ports", "c001 01bb", Ports{49153, 443},
		func(b []byte) (any, error) { return ParsePorts(b) },
		func(h any, b []byte) error { return h.(Ports).Encode(b) }},
	{"nvgre", "2000 6558 00138a 7f", NVGRE{VSID: 5002, FlowID: 0x7f},
		func(b []byte) (any, error) { return ParseNVGRE(b) },
		func(h any, b []byte) error { return h.(NVGRE).Encode(b) }},
}

func TestHeadersReadAndWriteTheBytesOfTheirFigures(t *testing.T) {
	for _, c := range codecs {
		t.Run(c.name, func(t *testing.T) {
			raw := unhex(t, c.bytes)
			got, err := c.parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("parsed\n%+v, want\n%+v", got, c.want)
			}
			out := bytes.Repeat([]byte{0xaa}, len(raw)+3)
			if err := c.enc(c.want, out); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(out, append(bytes.Clone(raw), 0xaa, 0xaa, 0xaa)) {
				t.Errorf("encoded\n%x, want\n%x and nothing behind it", out, raw)
			}
		})
	}
}

func TestEveryPrefixOfAHeaderIsTruncated(t *testing.T) {
	for _, c := range codecs {
		raw := unhex(t, c.bytes)
		for n := range raw {
			if _, err := c.parse(raw[:n:n]); !errors.Is(err, ErrTruncated) && !(strings.HasPrefix(c.name, "neighbour") && n > NeighbourLen && errors.Is(err, ErrOption)) && !(c.name == "neighbour advertisement" && n == NeighbourLen && err == nil) {
				t.Errorf("%s: %d of %d bytes: %v", c.name, n, len(raw), err)
			}
			if err := c.enc(c.want, make([]byte, n)); !errors.Is(err, ErrTruncated) {
				t.Errorf("%s: encoding into %d of %d bytes: %v", c.name, n, len(raw), err)
			}
		}
	}
}

func TestParsingAllocatesNothing(t *testing.T) {
	eth, v4, v6 := unhex(t, codecs[0].bytes), unhex(t, codecs[3].bytes), unhex(t, codecs[5].bytes)
	arp, na, gre := unhex(t, codecs[2].bytes), unhex(t, codecs[7].bytes), unhex(t, codecs[10].bytes)
	if n := testing.AllocsPerRun(100, func() {
		_, _ = ParseEthernet(eth)
		_, _ = ParseARP(arp)
		_, _ = ParseIPv4(v4)
		h, _ := ParseIPv6(v6)
		_, _ = h.Walk(v6)
		_, _ = ParseNeighbour(na)
		_, _ = ParseNVGRE(gre)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestRefusals(t *testing.T) {
	v4, v6 := codecs[3].bytes, codecs[5].bytes
	cases := []struct {
		name  string
		bytes string
		parse func([]byte) error
		want  error
	}{
		{"IPv4 version", "6" + v4[1:], parse4, ErrVersion},
		{"IPv4 IHL 4", "44" + v4[2:], parse4, ErrLength},
		{"IPv4 total length below IHL", strings.Replace(v4, "0014", "0013", 1), parse4, ErrLength},
		{"IPv4 total length past the bytes", strings.Replace(v4, "0014", "0015", 1), parse4, ErrLength},
		{"IPv6 version", "4" + v6[1:], parse6, ErrVersion},
		{"IPv6 payload past the bytes", strings.Replace(v6, "0000 3a", "0001 3a", 1), parse6, ErrLength},
		{"IPv6 multicast source", "60000000 0000 3a ff ff020000000000000000000000000001 fd000000000000000000000000000001", parse6, ErrAddress},
		{"IPv6 mapped source", "60000000 0000 3a ff 00000000000000000000ffff0a000001 fd000000000000000000000000000001", parse6, ErrAddress},
		{"IPv6 mapped destination", "60000000 0000 3a ff fd000000000000000000000000000001 00000000000000000000ffff0a000001", parse6, ErrAddress},
		{"ARP for token ring", "0006 0800 06 04 0001" + strings.Repeat("00", 20), parseA, ErrHardware},
		{"ARP for IPv6", "0001 86dd 06 04 0001" + strings.Repeat("00", 20), parseA, ErrHardware},
		{"ARP with long addresses", "0001 0800 08 04 0001" + strings.Repeat("00", 20), parseA, ErrHardware},
		{"RARP", "0001 0800 06 04 0003" + strings.Repeat("00", 20), parseA, ErrHardware},
		{"GRE with checksum", "a000 6558 00138a00", parseG, ErrGRE},
		{"GRE without key", "0000 6558 00138a00", parseG, ErrGRE},
		{"GRE with sequence", "3000 6558 00138a00", parseG, ErrGRE},
		{"GRE reserved bit 1", "6000 6558 00138a00", parseG, ErrGRE},
		{"GRE reserved bit 4", "2800 6558 00138a00", parseG, ErrGRE},
		{"GRE reserved bit 5", "2400 6558 00138a00", parseG, ErrGRE},
		{"GRE reserved bits 6 to 12", "23f8 6558 00138a00", parseG, nil},
		{"GRE version 1", "2001 6558 00138a00", parseG, ErrGRE},
		{"GRE of IPv4", "2000 0800 00138a00", parseG, ErrGRE},
	}
	for _, c := range cases {
		if err := c.parse(unhex(t, c.bytes)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func parse4(b []byte) error { _, err := ParseIPv4(b); return err }
func parse6(b []byte) error { _, err := ParseIPv6(b); return err }
func parseA(b []byte) error { _, err := ParseARP(b); return err }
func parseG(b []byte) error { _, err := ParseNVGRE(b); return err }

func TestWalkFollowsSixExtensionHeaders(t *testing.T) {
	const routing, destOpts = "2b", "3c"
	cases := []struct {
		name  string
		next  uint8
		chain string // extension headers and payload
		want  Upper
		err   error
	}{
		{"none", ProtoTCP, "", Upper{Proto: ProtoTCP, Offset: 40}, nil},
		{"no next header", ProtoNoNext, "", Upper{Proto: ProtoNoNext, Offset: 40}, nil},
		{"ESP ends the walk", ProtoESP, "00000000 00000000", Upper{Proto: ProtoESP, Offset: 40}, nil},
		{"hop by hop, two units", ProtoHopByHop, "11 01 000000000000 0000000000000000", Upper{Proto: ProtoUDP, Offset: 56}, nil},
		{"first fragment", ProtoFragment, "11 00 0001 00000007 ffffffffffffffff", Upper{Proto: ProtoUDP, Offset: 48, Fragment: true}, nil},
		{"first fragment of half a unit", ProtoFragment, "11 00 0001 00000007 ffffffff", Upper{}, ErrExtensions},
		{"first fragment of nothing", ProtoFragment, "11 00 0001 00000007", Upper{}, ErrExtensions},
		{"middle fragment of half a unit", ProtoFragment, "11 00 0009 00000007 ffffffff", Upper{}, ErrExtensions},
		{"last fragment of half a unit", ProtoFragment, "11 00 0008 00000007 ffffffff", Upper{Proto: ProtoUDP, Offset: 48, Fragment: true, LaterFragment: true}, nil},
		{"atomic fragment", ProtoFragment, "11 00 0000 00000007", Upper{Proto: ProtoUDP, Offset: 48}, nil},
		{"later fragment hides the rest", ProtoFragment, destOpts + "00 0008 00000007", Upper{Proto: ProtoDestOpts, Offset: 48, Fragment: true, LaterFragment: true}, nil},
		{"first fragment before options", ProtoFragment, destOpts + "00 0001 00000007 06 00 000000000000", Upper{}, ErrExtensions},
		{"atomic fragment before options", ProtoFragment, destOpts + "00 0000 00000007 06 00 000000000000", Upper{Proto: ProtoTCP, Offset: 56}, nil},
		{"six", ProtoHopByHop, strings.Repeat(destOpts+"00000000000000", 5) + "06 00 000000000000", Upper{Proto: ProtoTCP, Offset: 88}, nil},
		{"seven", ProtoHopByHop, strings.Repeat(destOpts+"00000000000000", 6) + "06 00 000000000000", Upper{}, ErrExtensions},
		{"a seventh that is announced", ProtoHopByHop, strings.Repeat(routing+"00000000000000", 6), Upper{}, ErrExtensions},
		{"cut short", ProtoRouting, "06 00 0000000000", Upper{}, ErrExtensions},
		{"length past the payload", ProtoRouting, "06 01 000000000000", Upper{}, ErrExtensions},
		{"fragment header cut short", ProtoFragment, "11 00 0000 000000", Upper{}, ErrExtensions},
	}
	for _, c := range cases {
		chain := unhex(t, c.chain)
		h := IPv6{PayloadLen: uint16(len(chain)), Next: c.next, Source: addr("fd00::1"), Destination: addr("fd00::2")}
		b := make([]byte, IPv6Len, IPv6Len+len(chain))
		if err := h.Encode(b); err != nil {
			t.Fatal(err)
		}
		got, err := h.Walk(append(b, chain...))
		if !errors.Is(err, c.err) || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v, %v", c.name, got, err, c.want, c.err)
		}
	}
}

func TestNeighbourOptions(t *testing.T) {
	const head = "87 00 0000 00000000 fd000000000000000000000000000009"
	const mac, nonce = "01 01 020000000001", "0e 01 aabbccddeeff"
	cases := []struct {
		name, options string
		hasMAC        bool
		err           error
	}{
		{"none", "", false, nil},
		{"after a nonce", nonce + mac, true, nil},
		{"target address in a solicitation is ignored", "02 02" + strings.Repeat("00", 14), false, nil},
		{"four", mac + nonce + nonce + nonce, true, nil},
		{"five", mac + nonce + nonce + nonce + nonce, false, ErrOption},
		{"empty", "0e 00 aabbccddeeff", false, ErrOption},
		{"past the end", "0e 02 aabbccddeeff", false, ErrOption},
		{"stray bytes", "0e 01 aabbccddee", false, ErrOption},
		{"long address", "01 02" + strings.Repeat("00", 14), false, ErrOption},
		{"two addresses", mac + mac, false, ErrOption},
	}
	for _, c := range cases {
		n, err := ParseNeighbour(unhex(t, head+c.options))
		if !errors.Is(err, c.err) || n.HasMAC != c.hasMAC {
			t.Errorf("%s: %+v, %v; want HasMAC %v, %v", c.name, n, err, c.hasMAC, c.err)
		}
	}
	for _, target := range []string{"ff020000000000000000000000000001", "00000000000000000000000000000000", "00000000000000000000ffff0a000001"} {
		if _, err := ParseNeighbour(unhex(t, "88000000 00000000"+target)); !errors.Is(err, ErrAddress) {
			t.Errorf("target %s: %v", target, err)
		}
	}
}

func TestChecksumOfTheStandard(t *testing.T) {
	// RFC 1071 section 3: the sum is ddf2.
	if got := Checksum(unhex(t, "0001 f203 f4f5 f6f7"), 0); got != 0xffff-0xddf2 {
		t.Errorf("%04x", got)
	}
	// The header above with TOS 0 is a well-known capture: b1e6.
	header := unhex(t, "4500 003c 1c46 4000 4006 0000 ac100a63 ac100a0c")
	if err := SealIPv4(header); err != nil || be16(header[10:]) != 0xb1e6 {
		t.Errorf("%x, %v", header, err)
	}
	if Checksum(header, 0) != 0 {
		t.Error("a sealed header does not sum to zero")
	}
	if got := Checksum([]byte{1, 2, 3}, 0); got != Checksum([]byte{1, 2, 3, 0}, 0) {
		t.Errorf("odd length: %04x", got)
	}
}

func TestUpdatedChecksumIsTheComputedOne(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		b := make([]byte, 20)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		b[0] |= 1 // a sum of nothing but zeros has two representations
		put16(b[10:], 0)
		old := Checksum(b, 0)
		at := 2 * (1 + rng.IntN(4))
		before := be16(b[at:])
		put16(b[at:], uint16(rng.Uint32()))
		if got, want := UpdateChecksum(old, before, be16(b[at:])), Checksum(b, 0); got != want {
			t.Fatalf("%x: updated %04x, computed %04x", b, got, want)
		}
	}
}

func TestSealedICMPv6SumsToZeroUnderItsPseudoHeader(t *testing.T) {
	h := IPv6{Source: addr("fd00::1"), Destination: addr("ff02::1:ff00:9")}
	n := Neighbour{Type: ICMPv6NeighbourSol, Target: addr("fd00::9"), MAC: alice, HasMAC: true}
	b := make([]byte, n.Len())
	if err := errors.Join(n.Encode(b), SealICMPv6(h, b)); err != nil {
		t.Fatal(err)
	}
	if Checksum(b, PseudoHeader(h.Source, h.Destination, ProtoICMPv6, len(b))) != 0 {
		t.Errorf("%x", b)
	}
	if be16(b[2:]) == 0 {
		t.Error("no checksum was written")
	}
}

// FuzzHeaders holds every codec to two rules over any bytes: no panic, and what was
// parsed and encoded again says the same.
func FuzzHeaders(f *testing.F) {
	for i, c := range codecs {
		f.Add(byte(i), unhex(f, c.bytes))
	}
	f.Fuzz(func(t *testing.T, which byte, b []byte) {
		c := codecs[int(which)%len(codecs)]
		h, err := c.parse(b)
		if err != nil {
			return
		}
		out := make([]byte, len(b)+IPv6Len)
		copy(out, b)
		if err := c.enc(h, out); err != nil {
			t.Fatalf("%s: %+v does not encode: %v", c.name, h, err)
		}
		if n, ok := h.(Neighbour); ok {
			out = out[:n.Len()] // its other options are gone
		} else {
			out = out[:len(b)]
		}
		again, err := c.parse(out)
		if err != nil || again != h {
			t.Fatalf("%s: %x\nparsed  %+v\nagain   %+v, %v", c.name, b, h, again, err)
		}
	})
}

// FuzzWalk holds the walk over extension headers to its bounds.
func FuzzWalk(f *testing.F) {
	f.Add(uint8(0), unhex(f, "3c00000000000000 2c00000000000000 1100000100000007 c00101bb"))
	f.Fuzz(func(t *testing.T, next uint8, chain []byte) {
		if len(chain) > 0xffff {
			return
		}
		h := IPv6{PayloadLen: uint16(len(chain)), Next: next, Source: addr("fd00::1"), Destination: addr("fd00::2")}
		b := make([]byte, IPv6Len, IPv6Len+len(chain))
		if err := h.Encode(b); err != nil {
			t.Fatal(err)
		}
		b = append(b, chain...)
		u, err := h.Walk(b)
		if err != nil {
			if !errors.Is(err, ErrExtensions) {
				t.Fatal(err)
			}
			return
		}
		if u.Offset < IPv6Len || u.Offset > len(b) {
			t.Fatalf("offset %d of %d", u.Offset, len(b))
		}
		if u.LaterFragment && !u.Fragment {
			t.Fatal("a later fragment that is no fragment")
		}
		switch u.Proto {
		case ProtoHopByHop, ProtoRouting, ProtoDestOpts, ProtoFragment:
			if !u.LaterFragment {
				t.Fatalf("the walk stopped at extension header %d", u.Proto)
			}
		}
	})
}
