package wire

import "net/netip"

// Types of IGMP messages (RFC 1112, RFC 2236, RFC 9776) and of MLD (RFC 2710, RFC 9777).
const (
	ProtoIGMP = 2

	IGMPQuery   = 0x11
	IGMPReport1 = 0x12
	IGMPReport2 = 0x16
	IGMPLeave   = 0x17
	IGMPReport3 = 0x22

	MLDQuery   = 130
	MLDReport  = 131
	MLDDone    = 132
	MLDReport2 = 143
)

// Types of group records of IGMPv3 and MLDv2 (RFC 9776 section 4.2.13).
const (
	modeIsInclude = 1 + iota
	modeIsExclude
	changeToInclude
	changeToExclude
	allowNewSources
	blockOldSources
)

// MaxGroupRecords is how many records of one report are looked at: more fit into no
// packet of 1500 bytes.
const MaxGroupRecords = 186

// GroupReport is what one report says: groups that a host listens to from now on,
// and those that it does no more. Sources are not told apart.
type GroupReport struct {
	Joined, Left []netip.Addr
}

// ParseGroupReport reads an IP packet, of either family, with an IGMP or MLD report; a
// packet that is none, or is cut, gives ErrTruncated, ErrGroup, or what ParseIPv4, ParseIPv6 and Walk give. A right checksum is asked
// of both; the receiver is no router, and looks at nothing else of the IP header.
func ParseGroupReport(packet []byte) (GroupReport, error) {
	if len(packet) > 0 && packet[0]>>4 == 6 {
		return parseMLD(packet)
	}
	h, err := ParseIPv4(packet)
	if err != nil {
		return GroupReport{}, err
	}
	if h.Proto != ProtoIGMP || h.MoreFrags || h.FragOffset != 0 {
		return GroupReport{}, ErrGroup
	}
	b := packet[h.HeaderLen:h.TotalLen]
	if len(b) < 8 {
		return GroupReport{}, ErrTruncated
	}
	if Checksum(b, 0) != 0 {
		return GroupReport{}, ErrGroup
	}
	switch b[0] {
	case IGMPReport1, IGMPReport2:
		return one(netip.AddrFrom4([4]byte(b[4:8])), true)
	case IGMPLeave:
		return one(netip.AddrFrom4([4]byte(b[4:8])), false)
	case IGMPReport3:
		return records(b[8:], int(be16(b[6:])), 4)
	}
	return GroupReport{}, ErrGroup
}

func parseMLD(packet []byte) (GroupReport, error) {
	h, err := ParseIPv6(packet)
	if err != nil {
		return GroupReport{}, err
	}
	up, err := h.Walk(packet)
	if err != nil {
		return GroupReport{}, err
	}
	if up.Proto != ProtoICMPv6 || up.Fragment {
		return GroupReport{}, ErrGroup
	}
	b := packet[up.Offset : IPv6Len+int(h.PayloadLen)]
	if len(b) < 8 {
		return GroupReport{}, ErrTruncated
	}
	if Checksum(b, PseudoHeader(h.Source, h.Destination, ProtoICMPv6, len(b))) != 0 {
		return GroupReport{}, ErrGroup
	}
	switch {
	case b[0] == MLDReport2:
		return records(b[8:], int(be16(b[6:])), 16)
	case b[0] != MLDReport && b[0] != MLDDone:
		return GroupReport{}, ErrGroup
	case len(b) < 24:
		return GroupReport{}, ErrTruncated
	}
	return one(netip.AddrFrom16([16]byte(b[8:24])), b[0] == MLDReport)
}

func one(group netip.Addr, joined bool) (GroupReport, error) {
	if !group.IsMulticast() {
		return GroupReport{}, ErrGroup
	}
	if joined {
		return GroupReport{Joined: []netip.Addr{group}}, nil
	}
	return GroupReport{Left: []netip.Addr{group}}, nil
}

// records reads n group records with addresses of size bytes: type, length of auxiliary data in
// 32-bit words, number of sources, group, sources, auxiliary data.
func records(b []byte, n, size int) (GroupReport, error) {
	var r GroupReport
	for range min(n, MaxGroupRecords) {
		if len(b) < 4+size {
			return r, ErrTruncated
		}
		sources := int(be16(b[2:]))
		length := 4 + size + sources*size + int(b[1])*4
		if length > len(b) {
			return r, ErrTruncated
		}
		group, _ := netip.AddrFromSlice(b[4 : 4+size])
		switch kind := b[0]; {
		case !group.IsMulticast():
		case kind == changeToInclude && sources == 0:
			r.Left = append(r.Left, group)
		case kind == modeIsExclude, kind == changeToExclude, sources > 0 && (kind == modeIsInclude || kind == changeToInclude || kind == allowNewSources):
			r.Joined = append(r.Joined, group)
		}
		b = b[length:]
	}
	return r, nil
}

// EncodeGroupQuery gives the IP packet of a general query: which groups does anybody listen
// to? IGMPv3 from an IPv4 source (0.0.0.0 where the querier has no address, RFC 4541 section 2.1.1), MLDv2
// from a link-local IPv6 source. interval is the querier's, in seconds, at most 127.
func EncodeGroupQuery(source netip.Addr, interval uint8) []byte {
	const robustness, tenSeconds = 2, 100
	if source.Is4() {
		const routerAlert = 4
		b := make([]byte, IPv4Len+routerAlert+12)
		h := IPv4{HeaderLen: IPv4Len + routerAlert, TotalLen: uint16(len(b)), TOS: 0xc0, TTL: 1, Proto: ProtoIGMP, Source: source,
			Destination: netip.AddrFrom4([4]byte{224, 0, 0, 1})}
		if err := h.Encode(b); err != nil {
			panic(err) // a mistake here: the buffer is long enough
		}
		b[20], b[21] = 0x94, routerAlert // RFC 2113
		q := b[h.HeaderLen:]
		q[0], q[1], q[8], q[9] = IGMPQuery, tenSeconds, robustness, interval
		put16(q[2:], Checksum(q, 0))
		if err := SealIPv4(b); err != nil {
			panic(err)
		}
		return b
	}
	const hopByHop = 8
	b := make([]byte, IPv6Len+hopByHop+28)
	h := IPv6{PayloadLen: hopByHop + 28, Next: ProtoHopByHop, HopLimit: 1, Source: source, Destination: netip.MustParseAddr("ff02::1")}
	if err := h.Encode(b); err != nil {
		panic(err)
	}
	copy(b[IPv6Len:], []byte{ProtoICMPv6, 0, 5, 2, 0, 0, 1, 0}) // router alert: MLD (RFC 2711)
	q := b[IPv6Len+hopByHop:]
	q[0] = MLDQuery
	put16(q[4:], 10000) // ms
	q[24], q[25] = robustness, interval
	put16(q[2:], Checksum(q, PseudoHeader(h.Source, h.Destination, ProtoICMPv6, len(q))))
	return b
}
