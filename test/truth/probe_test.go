package truth

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/wire"
	"github.com/weft-sdn/weft/test/stream"
)

// guest is a NIC without a kernel behind it: nothing there answers, so that only what
// the test sends is on its way.
type guest struct {
	socket int
}

// newGuest opens the guest's eth0 in a namespace.
func newGuest(space string) (g guest, err error) {
	err = stream.In(space, func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		all := int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)))
		if g.socket, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		// Room for everything that one round sends to one guest.
		if err := unix.SetsockoptInt(g.socket, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20); err != nil {
			return err
		}
		return unix.Bind(g.socket, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: eth0.Index})
	})
	return g, err
}

func (g guest) send(frame []byte) error { return unix.Send(g.socket, frame, 0) }

// arrived gives the numbers of the frames that came in since it was last asked.
func (g guest) arrived() (ids []uint64, err error) {
	b := make([]byte, 2048)
	for {
		n, from, err := unix.Recvfrom(g.socket, b, 0)
		if errors.Is(err, unix.EAGAIN) {
			return ids, nil
		}
		if err != nil {
			return ids, err
		}
		if l, ok := from.(*unix.SockaddrLinklayer); ok && l.Pkttype != unix.PACKET_OUTGOING && n > 16 && binary.BigEndian.Uint64(b[n-16:]) == magic {
			ids = append(ids, binary.BigEndian.Uint64(b[n-8:n]))
		}
	}
}

// magic marks frames of this test; their number is behind it, at the end.
const magic = 0x77656674_74727574

// frame is the probe as its guest sends it.
func (q probe) frame(id uint64, vsid [2]model.VSID) []byte {
	from, to := places[q.From], places[q.To]
	mac := to.mac
	if from.subnet != to.subnet {
		mac = model.RouterMAC(vsid[from.subnet])
	}
	src, dst := from.ca[q.Family], to.ca[q.Family]
	proto := map[string]uint8{"tcp": 6, "udp": 17, "icmp": 1}[q.Proto]
	if q.Proto == "icmp" && q.Family == 1 {
		proto = 58
	}
	payload := q.payload(id, src, dst, proto)
	more, offset := q.Part == first, 0
	if q.Part > first {
		offset = firstLen
	}
	if q.Family == 1 {
		if q.Part != whole {
			payload, proto = append(fragmentHeader(proto, q.Sport, offset, more), payload...), 44
		}
		return q.ethernet(mac, wire.TypeIPv6, v6(wire.IPv6{Next: proto, HopLimit: 64, Source: src, Destination: dst, PayloadLen: uint16(len(payload))}, payload))
	}
	return q.ethernet(mac, wire.TypeIPv4, v4(wire.IPv4{HeaderLen: wire.IPv4Len, TotalLen: uint16(wire.IPv4Len + len(payload)), ID: q.Sport, MoreFrags: more, FragOffset: uint16(offset / 8),
		TTL: 64, Proto: proto, Source: src, Destination: dst}, payload))
}

// firstLen is how long a first fragment is: a header of UDP and the mark.
const firstLen = 8 + 16

// payload is what is behind the IP header; a later fragment has the mark alone.
func (q probe) payload(id uint64, src, dst netip.Addr, proto uint8) []byte {
	var l4 []byte
	if q.Part <= first {
		l4 = q.l4()
	}
	l4 = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(l4, magic), id)
	if q.Part == whole {
		pseudo := wire.PseudoHeader(src, dst, proto, len(l4))
		if proto == 1 {
			pseudo = 0
		}
		seal(l4, map[uint8]int{6: 16, 17: 6, 1: 2, 58: 2}[proto], wire.Checksum(l4, pseudo))
	}
	return l4
}

// fragmentHeader of IPv6 (RFC 8200 section 4.5).
func fragmentHeader(next uint8, id uint16, offset int, more bool) []byte {
	at := uint16(offset)
	if more {
		at |= 1
	}
	return []byte{next, 0, byte(at >> 8), byte(at), 0, 0, byte(id >> 8), byte(id)}
}

// l4 is the header in front of the mark, with room for its checksum.
func (q probe) l4() []byte {
	ports := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, q.Sport), q.Dport)
	switch q.Proto {
	case "udp":
		length := byte(8 + 16)
		if q.Part == first {
			length += 16
		}
		return append(ports, 0, length, 0, 0)
	case "tcp":
		flags := byte(0x02) // SYN
		if q.Reply {
			flags = 0x12
		}
		return append(ports, 0, 0, 0, 1, 0, 0, 0, 0, 5<<4, flags, 0xff, 0xff, 0, 0, 0, 0)
	}
	kind := map[bool][2]byte{false: {8, 128}, true: {0, 129}}[q.Reply][q.Family]
	return []byte{kind, 0, 0, 0, byte(q.Sport >> 8), byte(q.Sport), 0, 1}
}

func seal(b []byte, at int, checksum uint16) { binary.BigEndian.PutUint16(b[at:], checksum) }

// ethernet puts the packet into a frame, with the tag if there is one.
func (q probe) ethernet(dst model.MAC, kind uint16, packet []byte) []byte {
	b := make([]byte, wire.EthernetLen)
	must(wire.Ethernet{Dst: dst, Src: places[q.From].mac, Type: kind}.Encode(b))
	if q.Tag != 0 {
		b = slices.Insert(b, 12, 0x81, 0, byte(q.Tag>>8), byte(q.Tag))
	}
	return append(b, packet...)
}

func v4(h wire.IPv4, payload []byte) []byte {
	b := make([]byte, wire.IPv4Len)
	must(h.Encode(b))
	must(wire.SealIPv4(b))
	return append(b, payload...)
}

func v6(h wire.IPv6, payload []byte) []byte {
	b := make([]byte, wire.IPv6Len)
	must(h.Encode(b))
	return append(b, payload...)
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// probes are all that is tried of one tenant: every ordered pair that could ever speak, both families, and what
// the rules of random tell apart. Source ports and identifiers are of one round alone: connections outlive it.
func probes(round int) (all []probe) {
	const ofRound = 4
	sport := uint16(20000 + round*ofRound%40000)
	for from, a := range places {
		for to, b := range places {
			if from == to || (a.subnet == onVLAN) != (b.subnet == onVLAN) {
				continue
			}
			for family := range 2 {
				p := probe{From: from, To: to, Family: family}
				all = append(all, p.with("tcp", sport, 80), p.with("tcp", sport, 443), p.with("udp", sport, 53),
					p.with("icmp", uint16(round*len(places)+from), 0))
				all = append(all, p.with("udp", sport+1, 53).part(first), p.with("udp", sport+1, 53).part(later), p.with("udp", sport+2, 53).part(orphan))
				if a.subnet == onVLAN {
					all = append(all, p.with("udp", sport+2, 53).tagged(10), p.with("tcp", sport+3, 80).tagged(20), p.with("udp", sport+3, 53).tagged(100))
				}
			}
		}
	}
	return all
}

func (q probe) with(proto string, sport, dport uint16) probe {
	q.Proto, q.Sport, q.Dport = proto, sport, dport
	return q
}

func (q probe) part(p part) probe  { q.Part = p; return q }
func (q probe) tagged(t int) probe { q.Tag = t; return q }

// reply is the answer to a probe that has come with a tag.
func (q probe) reply(tag int) probe {
	r := probe{From: q.To, To: q.From, Family: q.Family, Proto: q.Proto, Sport: q.Dport, Dport: q.Sport, Reply: true, Tag: tag}
	if q.Proto == "icmp" {
		r.Sport, r.Dport = q.Sport, 0
	}
	return r
}

// kind of a packet: what decides about it.
func (q probe) kind() string {
	kind := []string{"whole packets", "first fragments", "later fragments", "fragments without a first"}[q.Part]
	if q.Reply {
		kind = "answers"
	}
	switch {
	case places[q.From].subnet != onVLAN:
		return kind
	case q.Tag != 0:
		return kind + " with a tag"
	}
	return kind + " on VLANs"
}

func (q probe) String() string {
	way := "to"
	if q.Reply {
		way = "answers"
	}
	what := []string{"", ", first fragment", ", later fragment", ", later fragment without a first"}[q.Part]
	if q.Tag != 0 {
		what += fmt.Sprintf(", tag %d", q.Tag)
	}
	return fmt.Sprintf("%s %s %s, IPv%d %s %d to %d%s", places[q.From].name, way, places[q.To].name, 4+2*q.Family, q.Proto, q.Sport, q.Dport, what)
}
