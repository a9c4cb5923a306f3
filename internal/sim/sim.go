// Package sim is the switch again, in slow and obvious Go: docs/design/pipeline.md
// interpreted over the rows of a table.Set. Tests compare the loaded program with
// it, and what-if traces are told by its steps.
//
// Invariants: the result follows from the Set, the frame and the Connections alone; only the Connections change. The code was
// written from the page, not from bpf/, and must stay so: an oracle that copies the
// program finds nothing. Files are named after the stages of schema/pipeline.yaml.
// It must never read a clock, do I/O or be made fast at the price of being obvious.
package sim

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// Switch is one host's switch.
type Switch struct {
	Set table.Set
	// Devices are the MACs of underlay devices by index: the kernel hands a frame for another
	// MAC to the switch as somebody else's. A device that is missing takes every frame as its own.
	Devices map[uint32]model.MAC
	// Connections are what earlier packets left, and packets change; nil: packets are judged by rules alone.
	Connections *Connections
	Now         time.Duration // since any moment in the past, the same for all packets
	// Explain asks for Result.Steps.
	Explain bool
}

// Step is one sentence about what a stage found.
type Step struct {
	Stage string // of schema/pipeline.yaml
	Text  string
}

// Result is what becomes of a frame.
type Result struct {
	Verdict model.Verdict
	// IfIndex and Frame are what leaves the switch: the frame delivered, encapsulated or
	// answered, or the ICMP error that a drop is told with; a PASS has the frame as it came and no
	// IfIndex. Both are zero when nothing leaves. The first 14 bytes of an encapsulated IP packet are
	// the kernel's to write and mean nothing here.
	IfIndex uint32
	Frame   []byte
	// Port is whose packet this is, for the counters: the sender's, or from the underlay the receiver's; 0 when none is known.
	Port model.PortID
	// To is the port that a DELIVERED frame is handed to.
	To model.PortID
	// Copies are what leaves of a FLOODED frame: for ports by device, then for hosts by PA.
	Copies []Copy
	// Lost are the reasons for which copies of it were not made; each counts as a drop.
	Lost []model.Verdict
	// Denied are the ports that get no copy because their own rules say so; each counts as its drop.
	Denied   []model.PortID
	DeniedBy []model.RuleID // their rules
	// Inbound is the direction as the VM sees it.
	Inbound bool
	// Rule is the one that a packet is ACL_DENIED by.
	Rule model.RuleID
	// Hits are the rules that matched, in the order in which they were asked.
	Hits []model.RuleID
	// Steps tells how it came to this, if asked.
	Steps []Step
}

// FromPort is a frame from the guest behind the device ifindex.
func (s Switch) FromPort(ifindex uint32, frame []byte) Result {
	return s.FromPortGSO(ifindex, frame, 0)
}

// FromPortGSO is FromPort for a packet that the guest leaves to be cut into segments of
// gsoSize bytes of payload each; 0: it is sent as it is.
func (s Switch) FromPortGSO(ifindex uint32, frame []byte, gsoSize uint16) Result {
	w := newWalk(s, ifindex, frame)
	w.gsoSize = int(gsoSize)
	return w.finish(w.flood55(w.through(
		(*walk).parse10,
		(*walk).admit20And25,
		(*walk).respond30,
		(*walk).route50,
		(*walk).lookup60,
		(*walk).isolate65,
		(*walk).localACL25,
		(*walk).encap70,
		(*walk).rewrite75,
		(*walk).underlay80,
		(*walk).deliver90,
	)))
}

// FromUplink is a frame from the underlay, received by the device ifindex.
func (s Switch) FromUplink(ifindex uint32, frame []byte) Result {
	return s.FromUplinkGSO(ifindex, frame, 0)
}

// FromUplinkGSO is FromUplink for packets that were merged on receive: gsoSize is the payload of each of the guest's.
func (s Switch) FromUplinkGSO(ifindex uint32, frame []byte, gsoSize uint16) Result {
	w := newWalk(s, ifindex, frame)
	w.gsoSize = int(gsoSize)
	w.result.Inbound = true
	return w.finish(w.through(
		(*walk).uplinkParse10,
		(*walk).uplinkFlood55,
		(*walk).uplinkLookup60,
		(*walk).uplinkAdmit20,
		(*walk).uplinkIsolate65,
		(*walk).uplinkACL25,
		(*walk).uplinkFit,
		(*walk).clampInbound,
		(*walk).arriveTOS,
		(*walk).uplinkRewrite75,
		(*walk).rewrittenACL25,
		(*walk).rewrittenFit,
		(*walk).deliver90,
	))
}

// ToPort is a frame that the host sends into the device ifindex of a port; marked tells
// whether it carries the switch's own mark.
func (s Switch) ToPort(ifindex uint32, frame []byte, marked bool) Result {
	w := newWalk(s, ifindex, frame)
	w.result.Inbound = true
	w.result.Port = s.Set.Ports[ifindex].ID
	if marked {
		return w.finish(w.say(model.VerdictPass, "deliver", "carries the switch's mark"))
	}
	return w.finish(w.say(model.VerdictNotFromSwitch, "deliver", "does not carry the switch's mark"))
}

// walk is one frame on its way.
type walk struct {
	Switch
	ifindex uint32
	frame   []byte // a copy, to be changed; without a priority tag after stage 10
	gsoSize int    // payload of each segment that the packet will be cut into; 0: it will not be cut
	outer   outer  // of a frame from the underlay
	port    table.Port
	packet  packet
	hop     *hop         // where it goes next, since stage 50
	record  table.Record // of the hop, since stage 60
	peer    *table.Peer  // toward record.PA, if that is remote
	to      *table.Port  // the local port to deliver to
	routed  bool         // the hop is in another subnet than the port

	transport model.TransportID // toward the peer
	rewriting bool              // no outer headers, addresses are replaced: toward the peer, or from one
	exchanges bool              // toward the peer: by addresses of the other family
	result    Result
}

// hop is a Customer Address in the subnet where it is to be looked up.
type hop struct {
	vsid  model.VSID
	ca    netip.Addr
	byMAC netip.Addr // where the L2Only record of the frame's destination stands, if that counts
}

func newWalk(s Switch, ifindex uint32, frame []byte) *walk {
	return &walk{Switch: s, ifindex: ifindex, frame: append([]byte(nil), frame...)}
}

// through takes the stages in turn until one decides.
func (w *walk) through(stages ...func(*walk) model.Verdict) model.Verdict {
	for _, stage := range stages {
		if v := stage(w); v != model.VerdictContinue {
			return v
		}
	}
	return model.VerdictContinue // never: deliver90 decides
}

func (w *walk) finish(v model.Verdict) Result {
	w.result.Verdict = v
	if v == model.VerdictPass {
		w.result.Frame = w.frame
	}
	return w.result
}

// send is what leaves the switch by the device ifindex.
func (w *walk) send(ifindex uint32, frame []byte) {
	w.result.IfIndex, w.result.Frame = ifindex, frame
}

// say adds a step to the explanation and returns v.
func (w *walk) say(v model.Verdict, stage, format string, args ...any) model.Verdict {
	if w.Explain {
		w.result.Steps = append(w.result.Steps, Step{stage, fmt.Sprintf(format, args...)})
	}
	return v
}

// rec finds the record of a Customer Address in a subnet. No address, which packets can
// speak of too, has none: its row is the gateway's.
func (w *walk) rec(vsid model.VSID, ca netip.Addr) (table.Record, bool) {
	if ca.IsUnspecified() {
		return table.Record{}, false
	}
	r, ok := w.Set.Records[table.RecordKey{VSID: vsid, CA: ca}]
	return r, ok
}

// wild finds the gateway that stands for all addresses of a family that a subnet has no record of.
func (w *walk) wild(vsid model.VSID, is4 bool) (table.Record, bool) {
	ca := netip.IPv6Unspecified()
	if is4 {
		ca = netip.IPv4Unspecified()
	}
	r, ok := w.Set.Records[table.RecordKey{VSID: vsid, CA: ca}]
	return r, ok
}

// at finds what stands for the next hop: its record, or else the gateway of its subnet.
func (w *walk) at(h *hop) (table.Record, bool) {
	if r, ok := w.rec(h.vsid, h.ca); ok {
		return r, true
	}
	if r, ok := w.rec(h.vsid, h.byMAC); ok && h.byMAC.IsValid() {
		return r, true
	}
	return w.wild(h.vsid, h.ca.Is4())
}

// outside tells whether a, as a source in a subnet of the network, is nobody that policy knows.
func (w *walk) outside(network model.NetworkIndex, vsid model.VSID, a netip.Addr) bool {
	if _, known := w.rec(vsid, a); known || !usable(a) {
		return false
	}
	_, route, ok := w.longestPrefix(network, a)
	if !ok {
		return true
	}
	_, known := w.rec(route.VSID, a)
	return !known
}

// usable tells whether a host anywhere can send from a.
func usable(a netip.Addr) bool {
	if a.Is4() {
		first := a.As4()[0]
		return first != 0 && first != 127 && first < 224
	}
	return !a.IsUnspecified() && a != loopback6 && !a.IsMulticast() && !a.IsLinkLocalUnicast()
}

// own tells whether a is a Customer Address of the sending port itself.
func (w *walk) own(a netip.Addr) bool {
	r, ok := w.rec(w.port.VSID, a)
	return ok && !r.Router && r.IfIndex == w.port.IfIndex
}

// direct finds the subnet of a routing domain that an address is on-link in, whatever
// customer routes say.
func (w *walk) direct(network model.NetworkIndex, a netip.Addr) (netip.Prefix, table.Route, bool) {
	return w.longestPrefix(network.Direct(), a)
}

// longestPrefix finds the route of a routing domain that covers a most closely.
func (w *walk) longestPrefix(network model.NetworkIndex, a netip.Addr) (netip.Prefix, table.Route, bool) {
	var best table.RouteKey
	found := false
	for key := range w.Set.Routes {
		if key.Network != network || !key.Prefix.Contains(a) {
			continue
		}
		if !found || key.Prefix.Bits() > best.Prefix.Bits() {
			best, found = key, true
		}
	}
	return best.Prefix, w.Set.Routes[best], found
}
