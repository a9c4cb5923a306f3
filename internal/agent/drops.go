package agent

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
)

// dropRow is one drop counter with the last packet sampled.
type dropRow struct {
	count datapath.DropCount
	last  string
}

func (r dropRow) message() *hostv1.DropRow {
	return &hostv1.DropRow{Port: uint32(r.count.Port), Reason: uint32(r.count.Reason), Inbound: r.count.Direction == datapath.Inbound,
		Packets: r.count.Packets, Bytes: r.count.Bytes, Last: r.last,
		List: listName(r.count.Rule), Rule: r.count.Rule.Rule}
}

// listName is TENANT/NAME of a rule's list; empty for no rule.
func listName(id model.RuleID) string {
	if id == (model.RuleID{}) {
		return ""
	}
	return id.List.String()
}

// drops reads the counters of one port, or of all with 0, sorted by port and reason.
func (a *Agent) drops(port model.PortID) ([]dropRow, error) {
	counts, err := a.dropCounts()
	if err != nil {
		return nil, err
	}
	var out []dropRow
	for _, c := range counts {
		if port == 0 || c.Port == port {
			out = append(out, dropRow{c, a.samples.last(sampleKey{c.Port, c.Reason, c.Rule})})
		}
	}
	slices.SortFunc(out, func(x, y dropRow) int {
		return cmp.Or(cmp.Compare(x.count.Port, y.count.Port), cmp.Compare(x.count.Reason, y.count.Reason),
			cmp.Compare(x.count.Direction, y.count.Direction), cmp.Compare(x.count.Rule.String(), y.count.Rule.String()))
	})
	return out, nil
}

// portNames names the ports of this host by id.
func (v *view) portNames() map[model.PortID]string {
	out := make(map[model.PortID]string, len(v.goal.Ports))
	for id, p := range v.goal.Ports {
		out[id] = p.Ref.String()
	}
	return out
}

// readEvents keeps the last dropped packet of each port, reason and rule. The switch
// delivers to one reader, and this is it.
func (a *Agent) readEvents(ctx context.Context) error {
	events, err := a.sw.Events(ctx)
	if err != nil {
		a.log.Error("drops are counted, but no samples of them can be read", "error", err)
		return nil
	}
	for e := range events {
		a.samples.keep(sampleKey{e.Port, e.Reason, e.Rule}, sampleLine(e))
		a.guests.dropped(e)
	}
	return nil
}

type sampleKey struct {
	port   model.PortID
	reason model.Verdict
	rule   model.RuleID // of ACL_DENIED
}

// samples is bounded by maxSamples against ports and rules that come and go.
type samples struct {
	mu    sync.Mutex
	lines map[sampleKey]string
}

const maxSamples = 65536

func (s *samples) keep(key sampleKey, line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lines == nil || len(s.lines) >= maxSamples {
		s.lines = map[sampleKey]string{}
	}
	s.lines[key] = line
}

func (s *samples) last(key sampleKey) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lines[key]
}

// sampleLine describes a frame of which only the first bytes are known:
// "10.0.0.9 > 10.0.0.6 tcp 40000>80, 74 bytes".
func sampleLine(e datapath.Event) string {
	return fmt.Sprintf("%s, %d bytes", describeFrame(e.Head), e.Length)
}

// The field offsets of describeFrame: Ethernet, IPv4 (RFC 791), IPv6 (RFC 8200),
// ARP (RFC 826), GRE key (RFC 2890). The codecs of wire want whole headers with
// lengths that agree, which a dropped and cut frame need not have.
func describeFrame(b []byte) string {
	const ethernet = 14
	if len(b) < ethernet {
		return "a frame without a header"
	}
	kind, body := binary.BigEndian.Uint16(b[12:14]), b[ethernet:]
	switch {
	case kind == 0x0806 && len(body) >= 28:
		return fmt.Sprintf("arp %s asks or tells about %s", addr4(body[14:]), addr4(body[24:]))
	case kind == 0x0800 && len(body) >= 20:
		header := int(body[0]&0xf) * 4
		fragment := binary.BigEndian.Uint16(body[6:8])&0x1fff != 0
		return fmt.Sprintf("%s > %s %s", addr4(body[12:]), addr4(body[16:]), describeUpper(body[9], fragment, from(body, header)))
	case kind == 0x86dd && len(body) >= 40:
		src, dst := netip.AddrFrom16([16]byte(body[8:24])), netip.AddrFrom16([16]byte(body[24:40]))
		return fmt.Sprintf("%s > %s %s", src, dst, describeUpper6(body[6], from(body, 40)))
	}
	return fmt.Sprintf("%s > %s ethertype %#04x", model.MAC(b[6:12]), model.MAC(b[:6]), kind)
}

// describeUpper6 looks behind extension headers (RFC 8200 section 4), as far as
// the sample goes.
func describeUpper6(next uint8, b []byte) string {
	for (next == 0 || next == 43 || next == 60) && len(b) >= 2 {
		next, b = b[0], from(b, 8*(int(b[1])+1))
	}
	if next != 44 || len(b) < 4 {
		return describeUpper(next, false, b)
	}
	later := binary.BigEndian.Uint16(b[2:])&^7 != 0
	return describeUpper(b[0], later, from(b, 8))
}

func describeUpper(proto uint8, fragment bool, b []byte) string {
	name, known := map[uint8]string{1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 58: "icmpv6"}[proto]
	if !known {
		name = fmt.Sprintf("protocol %d", proto)
	}
	switch {
	case fragment:
		return name + " fragment"
	case (proto == 6 || proto == 17) && len(b) >= 4:
		return fmt.Sprintf("%s %d>%d", name, binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:]))
	case (proto == 1 || proto == 58) && len(b) >= 2:
		return fmt.Sprintf("%s type %d code %d", name, b[0], b[1])
	case proto == 47 && len(b) >= 8:
		return fmt.Sprintf("%s vsid %d", name, binary.BigEndian.Uint32(b[4:])>>8)
	}
	return name
}

func addr4(b []byte) netip.Addr { return netip.AddrFrom4([4]byte(b[:4])) }

func from(b []byte, n int) []byte { return b[min(n, len(b)):] }
