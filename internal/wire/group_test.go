package wire

import (
	"bytes"
	"errors"
	"net/netip"
	"slices"
	"testing"
)

// igmp is a sealed IPv4 packet with router alert, as guests send reports.
func igmp(t testing.TB, message string) []byte {
	t.Helper()
	m := unhex(t, message)
	b := make([]byte, 24+len(m))
	h := IPv4{HeaderLen: 24, TotalLen: uint16(len(b)), TTL: 1, Proto: ProtoIGMP, Source: addr("10.0.0.5"), Destination: addr("224.0.0.22")}
	if err := h.Encode(b); err != nil {
		t.Fatal(err)
	}
	copy(b[20:], []byte{0x94, 4, 0, 0})
	copy(b[24:], m)
	put16(b[26:], 0)
	put16(b[26:], Checksum(b[24:], 0))
	if err := SealIPv4(b); err != nil {
		t.Fatal(err)
	}
	return b
}

// mld is the same of IPv6, behind a hop-by-hop header.
func mld(t testing.TB, message string) []byte {
	t.Helper()
	m := unhex(t, message)
	b := make([]byte, IPv6Len+8+len(m))
	h := IPv6{PayloadLen: uint16(8 + len(m)), Next: ProtoHopByHop, HopLimit: 1, Source: addr("fe80::5"), Destination: addr("ff02::16")}
	if err := h.Encode(b); err != nil {
		t.Fatal(err)
	}
	copy(b[IPv6Len:], []byte{ProtoICMPv6, 0, 5, 2, 0, 0, 1, 0})
	copy(b[IPv6Len+8:], m)
	put16(b[IPv6Len+10:], 0)
	put16(b[IPv6Len+10:], Checksum(b[IPv6Len+8:], PseudoHeader(h.Source, h.Destination, ProtoICMPv6, len(m))))
	return b
}

func addrs(all ...string) []netip.Addr {
	var out []netip.Addr
	for _, a := range all {
		out = append(out, addr(a))
	}
	return out
}

func TestGroupReportsSayWhoListensToWhat(t *testing.T) {
	const video6 = "ff0e0000000000000000000100020003"
	for name, c := range map[string]struct {
		packet       []byte
		joined, left []netip.Addr
	}{
		"IGMPv1 report":                  {igmp(t, "12000000ef010203"), addrs("239.1.2.3"), nil},
		"IGMPv2 report":                  {igmp(t, "16000000ef010203"), addrs("239.1.2.3"), nil},
		"IGMPv2 leave":                   {igmp(t, "17000000ef010203"), nil, addrs("239.1.2.3")},
		"IGMPv3, from any source":        {igmp(t, "2200000000000001"+"04000000ef010203"), addrs("239.1.2.3"), nil},
		"IGMPv3, from no source":         {igmp(t, "2200000000000001"+"03000000ef010203"), nil, addrs("239.1.2.3")},
		"IGMPv3, from one source":        {igmp(t, "2200000000000001"+"03000001ef0102030a000009"), addrs("239.1.2.3"), nil},
		"IGMPv3, one source less":        {igmp(t, "2200000000000001"+"06000001ef0102030a000009"), nil, nil},
		"IGMPv3, current state is empty": {igmp(t, "2200000000000001"+"01000000ef010203"), nil, nil},
		"IGMPv3, two and auxiliary data": {igmp(t, "2200000000000002"+"02010000ef01020300000000"+"03000000ef010204"), addrs("239.1.2.3"), addrs("239.1.2.4")},
		"IGMPv3, a unicast group":        {igmp(t, "2200000000000001"+"040000000a000005"), nil, nil},
		"MLDv1 report":                   {mld(t, "8300000000000000"+video6), addrs("ff0e::1:2:3"), nil},
		"MLDv1 done":                     {mld(t, "8400000000000000"+video6), nil, addrs("ff0e::1:2:3")},
		"MLDv2, from any source":         {mld(t, "8f00000000000001"+"04000000"+video6), addrs("ff0e::1:2:3"), nil},
		"MLDv2, from no source":          {mld(t, "8f00000000000001"+"03000000"+video6), nil, addrs("ff0e::1:2:3")},
	} {
		r, err := ParseGroupReport(c.packet)
		if err != nil || !slices.Equal(r.Joined, c.joined) || !slices.Equal(r.Left, c.left) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
		for n := range c.packet {
			if _, err := ParseGroupReport(c.packet[:n]); err == nil {
				t.Errorf("%s, cut to %d bytes, is taken", name, n)
			}
		}
	}
}

func TestGroupReportsThatAreRefused(t *testing.T) {
	wrongSum := igmp(t, "16000000ef010203")
	wrongSum[26] ^= 1
	wrongSum6 := mld(t, "8300000000000000ff0e0000000000000000000100020003")
	wrongSum6[len(wrongSum6)-1] ^= 1
	for name, b := range map[string][]byte{
		"a query":                {},
		"another protocol":       nil,
		"a wrong checksum":       wrongSum,
		"a wrong IPv6 checksum":  wrongSum6,
		"a unicast group":        igmp(t, "160000000a000005"),
		"IGMP query":             igmp(t, "1164000000000000"),
		"MLD query":              mld(t, "820000002710000000000000000000000000000000000000"),
		"more records than told": igmp(t, "2200000000000002"+"04000000ef010203"),
		"more sources than told": igmp(t, "2200000000000001"+"0400ffffef010203"),
	} {
		if r, err := ParseGroupReport(b); err == nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestGroupQueriesAreWhatTheStandardsWant(t *testing.T) {
	q := EncodeGroupQuery(addr("10.0.0.1"), 125)
	h, err := ParseIPv4(q)
	if err != nil || h.Destination != addr("224.0.0.1") || h.TTL != 1 || Checksum(q[:24], 0) != 0 || Checksum(q[24:], 0) != 0 {
		t.Errorf("IGMP query %x: %+v, %v", q, h, err)
	}
	if want := unhex(t, "1164"); !bytes.Equal(q[24:26], want) || !bytes.Equal(q[28:], unhex(t, "00000000027d0000")) {
		t.Errorf("IGMP query %x", q[24:])
	}
	q = EncodeGroupQuery(addr("fe80::1"), 125)
	h6, err := ParseIPv6(q)
	if err != nil || h6.Destination != addr("ff02::1") || h6.HopLimit != 1 {
		t.Fatalf("MLD query %x: %+v, %v", q, h6, err)
	}
	up, err := h6.Walk(q)
	if err != nil || up.Proto != ProtoICMPv6 || q[up.Offset] != MLDQuery ||
		Checksum(q[up.Offset:], PseudoHeader(h6.Source, h6.Destination, ProtoICMPv6, len(q)-up.Offset)) != 0 {
		t.Errorf("MLD query %x: %+v, %v", q, up, err)
	}
	for _, b := range [][]byte{q, EncodeGroupQuery(addr("0.0.0.0"), 125)} {
		if _, err := ParseGroupReport(b); !errors.Is(err, ErrGroup) {
			t.Errorf("a query is taken for a report: %v", err)
		}
	}
}

// FuzzGroupReport wants no report to name what is no group, or more than a packet holds.
func FuzzGroupReport(f *testing.F) {
	f.Add(igmp(f, "2200000000000002"+"02010000ef01020300000000"+"03000000ef010204"))
	f.Add(igmp(f, "16000000ef010203"))
	f.Add(mld(f, "8f00000000000001"+"04000000"+"ff0e0000000000000000000100020003"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) >= 28 && b[0]>>4 == 4 { // no mutation finds a checksum
			at := int(b[0]&15) * 4
			if at+4 <= len(b) && int(be16(b[2:])) <= len(b) && at < int(be16(b[2:])) {
				put16(b[at+2:], 0)
				put16(b[at+2:], Checksum(b[at:be16(b[2:])], 0))
			}
		}
		r, err := ParseGroupReport(b)
		if err != nil {
			return
		}
		if len(r.Joined)+len(r.Left) > MaxGroupRecords {
			t.Fatalf("%d groups", len(r.Joined)+len(r.Left))
		}
		for _, g := range slices.Concat(r.Joined, r.Left) {
			if !g.IsMulticast() || g.Is4In6() {
				t.Fatalf("%s is no group", g)
			}
		}
	})
}
