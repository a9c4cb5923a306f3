package agent

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// How long a finding stands after it was last seen, and how long what may be a guest that
// only starts must go on before it is one.
const (
	findingLife     = 5 * time.Minute
	findingPatience = time.Second
	guestTick       = time.Second
)

// guests watches what the guests of this host say: it learns addresses, and finds where a
// guest and policy disagree. docs/design/learning.md has the rules.
type guests struct {
	*Agent
	now  func() time.Time
	work chan struct{} // of one: the server is to be told something

	mu    sync.Mutex
	known map[model.PortID]*watched
	said  atomic.Pointer[[]failure] // findings that are to be seen, sorted
}

// watched is what was seen of one guest; its size is bounded, whatever the guest does.
type watched struct {
	findings map[model.Finding]*finding

	asked map[netip.Addr]time.Time // the server, when last
	asks  pace                     // of asking

	used, announced, released []netip.Addr // still to be told

	xid    uint32 // of the last DHCP request
	asking time.Time
	leases map[netip.Addr]time.Time // and when they end
}

type finding struct {
	about       netip.Addr // may be invalid
	message     string
	first, last time.Time
}

func newGuests(a *Agent) *guests {
	g := &guests{Agent: a, now: time.Now, work: make(chan struct{}, 1), known: map[model.PortID]*watched{}}
	g.said.Store(&[]failure{})
	return g
}

// watch follows the guests until ctx ends.
func (g *guests) watch(ctx context.Context) error {
	sightings, err := g.sw.Sightings(ctx)
	if err != nil {
		g.log.Error("nothing is learned from guests", "error", err)
		return nil
	}
	tick := time.NewTicker(guestTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case s, ok := <-sightings:
			if !ok {
				return nil
			}
			g.sighted(s)
		case <-tick.C:
			g.tick()
		}
	}
}

// guest of a port, made when it is new. g.mu is held.
func (g *guests) guest(id model.PortID) *watched {
	w := g.known[id]
	if w == nil {
		w = &watched{findings: map[model.Finding]*finding{}, asked: map[netip.Addr]time.Time{}, leases: map[netip.Addr]time.Time{}}
		g.known[id] = w
	}
	return w
}

// dropped takes the sample of a dropped packet.
func (g *guests) dropped(e datapath.Event) {
	p, ok := g.view.Load().goal.Ports[e.Port]
	if !ok || e.Direction != datapath.Outbound {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	b := e.Head
	switch e.Reason {
	case model.VerdictSpoofedMac:
		if len(b) >= 12 {
			g.find(p.ID, model.FindingForeignMAC, netip.Addr{}, fmt.Sprintf("the guest speaks as %s, its port has %s", model.MAC(b[6:12]), p.MAC))
		}
	case model.VerdictSpoofedArp, model.VerdictSpoofedNd, model.VerdictSpoofedCa:
		if ca, ok := speakerOf(b, e.Reason); ok {
			g.speaks(p, ca)
		}
	case model.VerdictArpNoRecord, model.VerdictNdNoRecord:
		if ca, ok := targetOf(b); ok {
			g.looksFor(p, ca)
		}
	}
}

// speakerOf is the address that the frame is from.
func speakerOf(b []byte, v model.Verdict) (netip.Addr, bool) {
	if ca, ok := claimOf(b, v); ok {
		return ca, true
	}
	switch {
	case kindOf(b) == 0x0800 && len(b) >= 14+20:
		return addr4(b[14+12:]), true
	case kindOf(b) == 0x86dd && len(b) >= 14+40 && v == model.VerdictSpoofedCa:
		return addr16(b[atSource6:]), true
	}
	return netip.Addr{}, false
}

// targetOf is the address that the frame looks for.
func targetOf(b []byte) (netip.Addr, bool) {
	switch {
	case isARP(b):
		return addr4(b[atTarget:]), true
	case isND(b, 135):
		return addr16(b[atNDTarget:]), true
	}
	return netip.Addr{}, false
}

// speaks is for a guest that speaks from an address that its port does not have.
func (g *guests) speaks(p goal.Port, ca netip.Addr) {
	r, held := g.view.Load().goal.Records[goal.RecordKey{VSID: p.VSID, CA: ca}]
	_, inside := prefixOf(p.Prefixes, ca)
	switch {
	case ca.IsUnspecified() || ca.IsMulticast() || ca.Is6() && ca.IsLinkLocalUnicast():
	case held && r.Port != p.ID:
		g.find(p.ID, model.FindingDuplicateAddress, ca, fmt.Sprintf("the guest uses %s, which is %s", ca, g.owner(r)))
	case held:
	case ca.IsLinkLocalUnicast():
		g.find(p.ID, model.FindingForeignAddress, ca, fmt.Sprintf("the guest gave itself %s: it waits for a DHCP server that does not answer; its port has %s", ca, addressList(p)))
	case !inside:
		g.find(p.ID, model.FindingForeignAddress, ca, fmt.Sprintf("the guest speaks from %s, which is outside its subnet; its port has %s", ca, addressList(p)))
	case p.Learn == 0:
		g.find(p.ID, model.FindingForeignAddress, ca, fmt.Sprintf("the guest speaks from %s, its port has %s", ca, addressList(p)))
	}
}

// looksFor is for a guest that asks on its link for an address that nobody has.
func (g *guests) looksFor(p goal.Port, ca netip.Addr) {
	if ca.IsLinkLocalUnicast() || ca.IsMulticast() || ca.IsUnspecified() {
		return
	}
	gateway := p.Gateway4
	if ca.Is6() {
		gateway = p.Gateway6
	}
	prefix, inside := prefixOf(p.Prefixes, ca)
	switch {
	case !inside:
		g.find(p.ID, model.FindingWrongPrefix, ca, fmt.Sprintf("the guest looks for %s on its link, which is outside its subnet (%s, gateway %s)", ca, prefixList(p.Prefixes), gateway))
	case looksLikeRouter(prefix, ca):
		g.find(p.ID, model.FindingWrongGateway, ca, fmt.Sprintf("the guest looks for %s, which nobody has and many use for a router; the gateway of its subnet is %s", ca, gateway))
	}
}

// looksLikeRouter tells whether people like to put a router there: at the first or the last
// address of a prefix.
func looksLikeRouter(p netip.Prefix, ca netip.Addr) bool {
	if ca == p.Masked().Addr().Next() {
		return true
	}
	return ca.Is4() && p.Contains(ca.Next()) && !p.Contains(ca.Next().Next())
}

// defended is for a guest that wanted to know whether an address is free, and was told that it is not.
func (g *guests) defended(p goal.Port, ca netip.Addr) {
	r, held := g.view.Load().goal.Records[goal.RecordKey{VSID: p.VSID, CA: ca}]
	if held && r.Port != p.ID {
		g.find(p.ID, model.FindingDuplicateAddress, ca, fmt.Sprintf("the guest wants to use %s, which is %s", ca, g.owner(r)))
	}
}

func (g *guests) owner(r goal.Record) string {
	if r.Router {
		return "the gateway of its subnet"
	}
	if p, here := g.view.Load().goal.Ports[r.Port]; here {
		return "an address of port " + p.Ref.String()
	}
	return "an address of " + r.MAC.String()
}

// find remembers a finding; a newer one of the same kind takes its place. g.mu is held.
func (g *guests) find(id model.PortID, kind model.Finding, about netip.Addr, message string) {
	w, now := g.guest(id), g.now()
	f := w.findings[kind]
	if f == nil {
		f = &finding{first: now}
		w.findings[kind] = f
	}
	f.about, f.message, f.last = about, message, now
	g.publishFindings(now)
}

// stands tells whether a finding is to be seen. What a guest does once that only starts, or
// that has just been given another address, is none.
func (f *finding) stands(kind model.Finding) bool {
	if kind == model.FindingDuplicateAddress || kind == model.FindingAddressLimit {
		return true
	}
	return f.last.Sub(f.first) >= findingPatience
}

// tick forgets what is over.
func (g *guests) tick() {
	h := g.view.Load().goal
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	for id, w := range g.known {
		p, here := h.Ports[id]
		if !here || !g.plugged(id) {
			delete(g.known, id)
			continue
		}
		g.expire(w, now)
		for kind, f := range w.findings {
			r, held := h.Records[goal.RecordKey{VSID: p.VSID, CA: f.about}]
			if now.Sub(f.last) > findingLife || held && r.Port == id {
				delete(w.findings, kind)
			}
		}
	}
	g.publishFindings(now)
}

func (g *guests) plugged(id model.PortID) bool {
	for _, p := range g.view.Load().want.Ports {
		if p.ID == id {
			return true
		}
	}
	return false
}

// publishFindings tells the session what has changed. g.mu is held.
func (g *guests) publishFindings(now time.Time) {
	ports := g.view.Load().goal.Ports
	said := []failure{}
	for id, w := range g.known {
		for _, kind := range slices.Sorted(maps.Keys(w.findings)) {
			if f := w.findings[kind]; f.stands(kind) && ports[id].ID == id {
				said = append(said, failure{model.KindPort, ports[id].Ref, string(kind), f.message})
			}
		}
	}
	slices.SortFunc(said, func(a, b failure) int { return cmp.Compare(a.String(), b.String()) })
	if slices.Equal(said, *g.said.Load()) {
		return
	}
	g.said.Store(&said)
	g.news.ring()
}

func prefixOf(prefixes []netip.Prefix, a netip.Addr) (netip.Prefix, bool) {
	i := slices.IndexFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
	if i < 0 {
		return netip.Prefix{}, false
	}
	return prefixes[i], true
}

func prefixList(prefixes []netip.Prefix) string {
	out := make([]string, len(prefixes))
	for i, p := range prefixes {
		out[i] = p.String()
	}
	return strings.Join(out, ", ")
}

func addressList(p goal.Port) string {
	if len(p.CAs) == 0 {
		return "no address but what is learned"
	}
	out := make([]string, len(p.CAs))
	for i, a := range p.CAs {
		out[i] = a.String()
	}
	return strings.Join(out, ", ")
}
