package agent

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/wire"
)

// Learning: who has an address is the server's to say. The agent asks, for ports of this
// host alone, and not more often than a guest can have a reason for.
const (
	askAgain   = 5 * time.Second  // the same address of the same port
	announce   = time.Second      // the same, when the guest tells everybody
	askBurst   = 16               // new addresses of a port at once
	askPace    = 5 * time.Second  // between new addresses of a port in the long run
	askTimeout = 60 * time.Second // from a DHCP request to its answer
	askRetry   = time.Second      // after the server did not answer
	maxAsked   = 256              // addresses of a port that are remembered
	maxUntold  = 64               // of these, while the server is away
)

// sighted takes a frame that speaks of addresses.
func (g *guests) sighted(s datapath.Sighting) {
	if s.Verdict == model.VerdictTooBig {
		g.arrivedTooBig(s)
		return
	}
	p, ok := g.portOf(s)
	if !ok || g.moved(p, s) {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if m, is := dhcpOf(s.Head); is {
		g.leased(p, m, s.Inbound || m.Reply)
		return
	}
	if s.Verdict == model.VerdictArpNoRecord || s.Verdict == model.VerdictNdNoRecord {
		if ca, ok := targetOf(s.Head); ok {
			g.looksFor(p, ca)
		}
		return
	}
	ca, ok := claimOf(s.Head, s.Verdict)
	switch {
	case !ok:
	case s.Verdict == model.VerdictAnswered:
		g.defended(p, ca)
	default:
		g.claimed(p, ca, isAnnouncement(s.Head))
	}
}

// isAnnouncement tells whether a frame tells everybody where an address is: gratuitous ARP
// (RFC 5227), or an advertisement that nobody asked for.
func isAnnouncement(b []byte) bool {
	if isARP(b) {
		return addr4(b[atSender:]) == addr4(b[atTarget:])
	}
	return isND(b, wire.ICMPv6NeighbourAdv) && addr16(b[atDest6:]).IsMulticast()
}

// portOf finds the port that a sighting is about.
func (g *guests) portOf(s datapath.Sighting) (goal.Port, bool) {
	ports := g.view.Load().goal.Ports
	if p, ok := ports[s.Port]; ok {
		return p, true
	}
	m, ok := dhcpOf(s.Head)
	if !ok || !m.Reply || s.Port != 0 {
		return goal.Port{}, false
	}
	for _, p := range ports {
		if p.VSID == s.VSID && p.MAC == m.MAC && p.Learn > 0 {
			return p, true
		}
	}
	return goal.Port{}, false
}

// claimed has the server asked whether the port may have ca.
func (g *guests) claimed(p goal.Port, ca netip.Addr, announced bool) {
	h := g.view.Load().goal
	if r, ok := h.Records[goal.RecordKey{VSID: p.VSID, CA: ca}]; ok && r.Port == p.ID || p.Learn == 0 {
		return
	}
	w, now, again := g.guest(p.ID), g.now(), askAgain
	if announced {
		again = announce
	}
	if at, asked := w.asked[ca]; asked && now.Sub(at) < again {
		return
	}
	if slices.Contains(w.used, ca) || len(w.used) >= maxUntold || !w.mayAsk(now) {
		return
	}
	if len(w.asked) >= maxAsked {
		clear(w.asked)
	}
	w.asked[ca] = now
	w.used, w.released = append(w.used, ca), removed(w.released, ca)
	if announced {
		w.announced = append(w.announced, ca)
	}
	g.stir()
}

// mayAsk keeps a guest from making the server work.
func (w *watched) mayAsk(now time.Time) bool {
	return w.asks.may(askBurst, askPace, now)
}

// leased follows an exchange of a guest with its DHCP server.
func (g *guests) leased(p goal.Port, m wire.DHCP, toPort bool) {
	if m.MAC != p.MAC || p.Learn == 0 || m.Reply != toPort {
		return
	}
	w, now := g.guest(p.ID), g.now()
	switch m.Type {
	case wire.DHCPRequest:
		w.xid, w.asking = m.XID, now
	case wire.DHCPRelease:
		g.release(w, m.Client)
	case wire.DHCPDecline:
		g.release(w, m.Requested)
	case wire.DHCPAck, wire.DHCPNak:
		if m.XID != w.xid || now.Sub(w.asking) > askTimeout {
			return // nobody asked for it
		}
		for ca := range w.leases {
			if ca != m.Yours {
				g.release(w, ca)
			}
		}
		if m.Type == wire.DHCPAck && !m.Yours.IsUnspecified() {
			w.leases[m.Yours] = now.Add(time.Duration(m.Lease) * time.Second)
			g.claimed(p, m.Yours, false)
		}
	}
}

func (g *guests) release(w *watched, ca netip.Addr) {
	if !ca.IsValid() || ca.IsUnspecified() {
		return
	}
	delete(w.leases, ca)
	delete(w.asked, ca)
	if !slices.Contains(w.released, ca) && len(w.released) < maxAsked {
		w.used, w.released = removed(w.used, ca), append(w.released, ca)
		g.stir()
	}
}

func removed(all []netip.Addr, ca netip.Addr) []netip.Addr {
	return slices.DeleteFunc(all, func(x netip.Addr) bool { return x == ca })
}

// expire releases leases whose time is over. A lease without an end has none.
func (g *guests) expire(w *watched, now time.Time) {
	for ca, until := range w.leases {
		if now.After(until) {
			g.release(w, ca)
		}
	}
}

// report is what the server is still to be told of a port.
type report struct {
	id  model.PortID
	ref model.Ref

	used, announced, released []netip.Addr
}

// tell brings reports to the server, until ctx ends.
func (g *guests) tell(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-g.work:
		}
		for _, r := range g.takeReports() {
			refused, err := g.server.reportAddresses(ctx, r)
			g.told(r, refused, err)
		}
	}
}

func (g *guests) stir() {
	select {
	case g.work <- struct{}{}:
	default:
	}
}

func (g *guests) takeReports() []report {
	ports := g.view.Load().goal.Ports
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []report
	for id, w := range g.known {
		p, here := ports[id]
		if !here || len(w.used)+len(w.released) == 0 {
			continue
		}
		out = append(out, report{id, p.Ref, w.used, w.announced, w.released})
		w.used, w.announced, w.released = nil, nil, nil
	}
	return out
}

// told takes the server's answer, or keeps the report for later.
func (g *guests) told(r report, refused []*hostv1.Refusal, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w := g.guest(r.id)
	switch code := connect.CodeOf(err); {
	case err == nil:
	case errors.Is(err, errUnreachable), code == connect.CodeUnavailable, code == connect.CodeDeadlineExceeded:
		w.used, w.announced, w.released = append(r.used, w.used...), append(r.announced, w.announced...), append(r.released, w.released...)
		time.AfterFunc(askRetry, g.stir)
		return
	default:
		g.log.Warn("the server refuses to hear what was learned of a port", "port", r.ref, "error", err)
		return
	}
	for _, f := range refused {
		if ca, ok := netip.AddrFromSlice(f.GetAddress()); ok {
			g.find(r.id, model.Finding(f.GetFinding()), ca, fmt.Sprintf("the guest uses %s: %s", ca, f.GetMessage()))
		}
	}
}

// reportAddresses tells the server what was seen of a port's guest.
func (s *server) reportAddresses(ctx context.Context, r report) ([]*hostv1.Refusal, error) {
	s.mu.Lock()
	client, why := s.client, s.why
	s.mu.Unlock()
	if client == nil {
		return nil, fmt.Errorf("%w (%w)", errUnreachable, why)
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	m := &hostv1.ReportAddressesRequest{Tenant: r.ref.Tenant, Name: r.ref.Name}
	m.Used, m.Announced, m.Released = octets(r.used), octets(r.announced), octets(r.released)
	answer, err := client.ReportAddresses(ctx, connect.NewRequest(m))
	if err != nil {
		return nil, plain(err)
	}
	return answer.Msg.GetRefused(), nil
}

func octets(all []netip.Addr) [][]byte {
	var out [][]byte
	for _, ca := range all {
		out = append(out, ca.AsSlice())
	}
	return out
}

// The field offsets of what follows: Ethernet, ARP (RFC 826), IPv4 (RFC 791), IPv6 (RFC 8200) with
// Neighbour Discovery right behind it (RFC 4861). The switch has checked that headers are whole.
const (
	atSender   = 14 + 14
	atTarget   = 14 + 24
	atSource6  = 14 + 8
	atDest6    = 14 + 24
	atND       = 14 + 40
	atNDTarget = atND + 8
	endND      = atNDTarget + 16
)

func kindOf(b []byte) uint16 {
	if len(b) < 14 {
		return 0
	}
	return binary.BigEndian.Uint16(b[12:])
}

func isARP(b []byte) bool { return kindOf(b) == wire.TypeARP && len(b) >= 14+28 }

func isND(b []byte, kind byte) bool {
	return kindOf(b) == wire.TypeIPv6 && len(b) >= endND && b[14+6] == wire.ProtoICMPv6 && b[atND] == kind
}

func addr16(b []byte) netip.Addr { return netip.AddrFrom16([16]byte(b[:16])) }

// claimOf is the address that the frame claims for its sender; of an answer, the one that
// was asked for.
func claimOf(b []byte, v model.Verdict) (netip.Addr, bool) {
	switch {
	case isARP(b):
		ca := addr4(b[atSender:])
		return ca, !ca.IsUnspecified()
	case isND(b, wire.ICMPv6NeighbourAdv):
		return addr16(b[atNDTarget:]), true
	case isND(b, wire.ICMPv6NeighbourSol) && v != model.VerdictSpoofedNd:
		if src := addr16(b[atSource6:]); !src.IsUnspecified() {
			return src, true
		}
		return addr16(b[atNDTarget:]), true
	}
	return netip.Addr{}, false
}

// dhcpOf reads a DHCP message over IPv4.
func dhcpOf(b []byte) (wire.DHCP, bool) {
	if kindOf(b) != wire.TypeIPv4 || len(b) < 14+20 || b[14+9] != wire.ProtoUDP {
		return wire.DHCP{}, false
	}
	udp := from(b, 14+int(b[14]&15)*4)
	if len(udp) < 8 {
		return wire.DHCP{}, false
	}
	from, to := binary.BigEndian.Uint16(udp), binary.BigEndian.Uint16(udp[2:])
	m, err := wire.ParseDHCP(udp[8:])
	asks, replies := from == wire.DHCPClientPort && to == wire.DHCPServerPort, from == wire.DHCPServerPort && to == wire.DHCPClientPort
	return m, err == nil && (asks && !m.Reply || replies && m.Reply)
}
