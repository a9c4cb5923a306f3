package agent

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// maxTraceSize is what the kernel takes in a test run, and room for outer headers.
const maxTraceSize = 3400

// trace runs a packet through the switch without a mark.
func (a *Agent) trace(q *hostv1.TraceQuery) (*hostv1.TraceAnswer, error) {
	v := a.view.Load()
	if frame := q.GetFrame(); frame != nil {
		run, err := a.traceArrival(v, frame)
		if err != nil {
			return nil, err
		}
		return &hostv1.TraceAnswer{Runs: []*weftv1.TraceRun{run.message}}, nil
	}
	port, ok := v.goal.Ports[model.PortID(q.GetPacket().GetPort())]
	if !ok {
		return nil, errors.New("the policy that this host holds does not have the port here (yet)")
	}
	p, err := readProbe(q.GetPacket(), port, v.addressesOf(port))
	if err != nil {
		return nil, err
	}
	traceFrom := a.traceProbe
	if port.Settings.VLAN != nil {
		traceFrom = a.traceOnVLAN
	}
	runs, err := traceFrom(v, port, p)
	return &hostv1.TraceAnswer{Runs: runs, Source: p.source.AsSlice()}, err
}

// addressesOf a port are those of policy, and then those that were learned.
func (v *view) addressesOf(p goal.Port) []netip.Addr {
	var learned []netip.Addr
	for k, r := range v.goal.Records {
		if r.Port == p.ID && k.VSID == p.VSID && !k.CA.IsUnspecified() && !k.CA.IsMulticast() && !slices.Contains(p.CAs, k.CA) {
			learned = append(learned, k.CA)
		}
	}
	slices.SortFunc(learned, netip.Addr.Compare)
	return append(slices.Clone(p.CAs), learned...)
}

// readProbe checks what the server asks for.
func readProbe(m *hostv1.TracePacket, port goal.Port, cas []netip.Addr) (probe, error) {
	to, ok := netip.AddrFromSlice(m.GetDestination())
	known := slices.Contains([]uint32{wire.ProtoICMP, wire.ProtoTCP, wire.ProtoUDP}, m.GetProtocol())
	if !ok || to.Is4In6() || !known || m.GetSize() > maxTraceSize || m.GetSport() > 65535 || m.GetDport() > 65535 {
		return probe{}, errors.New("the server asks for a packet that this agent cannot make; are the versions alike?")
	}
	p := probe{destination: to, protocol: uint8(m.GetProtocol()), sport: uint16(m.GetSport()), dport: uint16(m.GetDport()),
		size: int(m.GetSize()), reply: m.GetReply()}
	p.source, _ = netip.AddrFromSlice(m.GetSource())
	if i := slices.IndexFunc(cas, func(ca netip.Addr) bool { return ca.Is4() == to.Is4() }); !p.source.IsValid() && i >= 0 {
		p.source = cas[i]
	}
	if !p.source.IsValid() || p.source.Is4() != to.Is4() {
		return p, fmt.Errorf("port %s has no address of the family of %s", port.Ref, to)
	}
	return p, nil
}

// traceProbe asks for the neighbour as the guest would, and then sends the packet.
func (a *Agent) traceProbe(v *view, port goal.Port, p probe) ([]*weftv1.TraceRun, error) {
	ifindex, ok := deviceOf(v.want, port.ID)
	if !ok {
		return nil, fmt.Errorf("port %s is not plugged: plug it first (weft plug), its guest can send nothing", port.Ref)
	}
	if group, ok := p.group(port); ok {
		sent, err := a.traceRun(v, datapath.FromPort, ifindex, p.frame(port.MAC, group))
		return []*weftv1.TraceRun{sent.message}, err
	}
	neighbour, err := p.neighbour(port)
	if err != nil {
		return nil, err
	}
	asked, err := a.traceRun(v, datapath.FromPort, ifindex, question(port, p.source, neighbour))
	if err != nil || asked.verdict != model.VerdictAnswered {
		return []*weftv1.TraceRun{asked.message}, err
	}
	sent, err := a.traceRun(v, datapath.FromPort, ifindex, p.frame(port.MAC, answeredMAC(asked.frame)))
	return []*weftv1.TraceRun{asked.message, sent.message}, err
}

func deviceOf(s table.Set, id model.PortID) (uint32, bool) {
	for index, p := range s.Ports {
		if p.ID == id {
			return index, true
		}
	}
	return 0, false
}

// traceArrival receives a frame from the underlay on the uplink that has its
// destination, as the kernel would hand it over: to the device's own MAC.
func (a *Agent) traceArrival(v *view, frame []byte) (traced, error) {
	outer, err := readOuterIP(after(frame, wire.EthernetLen))
	if err != nil {
		return traced{}, fmt.Errorf("frame from the underlay: %w", err)
	}
	uplink, err := uplinkOf(v, outer.destination)
	if err != nil {
		return traced{}, err
	}
	frame = bytes.Clone(frame)
	written(wire.Ethernet{Dst: uplink.MAC, Src: model.MAC{2}, Type: outer.etherType}.Encode(frame))
	return a.traceRun(v, datapath.FromUplink, uplink.Index, frame)
}

// uplinkOf finds the uplink with an address, or any when a device that is no
// uplink has it: the underlay may route to a loopback.
func uplinkOf(v *view, pa netip.Addr) (netdev.Link, error) {
	addresses, err := netdev.Addresses()
	if err != nil {
		return netdev.Link{}, err
	}
	links, err := netdev.Links()
	if err != nil {
		return netdev.Link{}, err
	}
	own, has := v.want.RewriteIn[pa]
	has, index := has && !own.Remote, uint32(0) // the underlay leads it here, no device has it
	for _, a := range addresses {
		if a.Prefix.Addr() != pa {
			continue
		}
		has = true
		if _, up := v.uplinks[a.IfIndex]; up {
			index = a.IfIndex
		}
	}
	for i := range v.uplinks {
		if index == 0 {
			index = i
		}
	}
	link, ok := links[index]
	switch {
	case !has:
		return link, fmt.Errorf("%s is no address of this host (any more): the underlay brings nothing for it here", pa)
	case !ok:
		return link, errors.New("this host has no uplink")
	}
	return link, nil
}

// traced is one run, for people and for the next step.
type traced struct {
	verdict model.Verdict
	frame   []byte
	message *weftv1.TraceRun
}

// traceRun runs the kernel's program, has the oracle tell why, and compares them.
func (a *Agent) traceRun(v *view, program datapath.Program, ifindex uint32, frame []byte) (traced, error) {
	got, err := a.sw.Trace(program, ifindex, frame)
	if err != nil {
		return traced{}, err
	}
	told, findings, err := a.tell(v, program, ifindex, frame, got)
	if err != nil {
		return traced{}, err
	}
	info := got.Verdict.Info()
	m := &weftv1.TraceRun{Host: a.cfg.Host, Program: program.String(), Device: deviceName(ifindex), Packet: packetLine(frame),
		Verdict: uint32(got.Verdict), VerdictName: info.Name, Sentence: info.Sentence, Action: info.Action, Findings: findings, FrameIn: frame}
	for _, s := range told.Steps {
		m.Steps = append(m.Steps, &weftv1.TraceStep{Stage: s.Stage, Text: s.Text})
	}
	for _, id := range told.Hits {
		m.Rules = append(m.Rules, &weftv1.TraceRule{List: id.List.String(), Rule: id.Rule, Denied: id == told.Rule})
	}
	if got.IfIndex == 0 {
		return traced{verdict: got.Verdict, message: m}, nil
	}
	m.OutDevice, m.OutPacket, m.FrameOut = deviceName(got.IfIndex), packetLine(got.Frame), got.Frame
	if got.Verdict == model.VerdictEncapsulated {
		m.Outer = outerOf(v.want, got.Frame)
	}
	if p, ok := v.want.Ports[got.IfIndex]; ok && got.Verdict == model.VerdictDelivered {
		m.ToPort = v.goal.Ports[p.ID].Ref.String()
	}
	if p, ok := v.want.VLANPorts[got.IfIndex]; ok && got.Verdict == model.VerdictDelivered {
		m.ToPort = v.goal.Ports[p.ID].Ref.String()
	}
	return traced{got.Verdict, got.Frame, m}, nil
}

func packetLine(frame []byte) string {
	return fmt.Sprintf("%s, %d bytes", describeFrame(frame), len(frame))
}

func deviceName(ifindex uint32) string {
	links, err := netdev.Links()
	if l, ok := links[ifindex]; err == nil && ok {
		return l.Name
	}
	return fmt.Sprintf("device %d", ifindex)
}

func after(b []byte, n int) []byte { return b[min(n, len(b)):] }

// tell explains the kernel's result by policy's rows; where these lead elsewhere, by
// the rows that the kernel holds, and that is a finding. Where not even those
// explain it, the program or the oracle is wrong.
func (a *Agent) tell(v *view, program datapath.Program, ifindex uint32, frame []byte, got datapath.RunResult) (sim.Result, []string, error) {
	want := v.want
	want.Groups = a.sw.Groups() // guests say which, not policy
	byPolicy := simulate(want, program, ifindex, frame)
	if agree(byPolicy, got) {
		return byPolicy, nil, nil
	}
	have, err := a.sw.ReadBack()
	if err != nil {
		return byPolicy, nil, fmt.Errorf("read the switch: %w", err)
	}
	byKernel := simulate(have, program, ifindex, frame)
	if agree(byKernel, got) {
		return byKernel, []string{fmt.Sprintf("DRIFT: the kernel's rows are not what policy says; by policy the verdict would be %s%s. See weft verify --host %s",
			byPolicy.Verdict, leaving(byPolicy), a.cfg.Host)}, nil
	}
	return byKernel, []string{fmt.Sprintf("BUG: the program in the kernel says %s, and by its own rows it should say %s%s; the steps are not to be trusted. Please report this with weft trace -o json and weft verify",
		got.Verdict, byKernel.Verdict, leaving(byKernel))}, nil
}

func leaving(r sim.Result) string {
	if r.IfIndex == 0 {
		return ""
	}
	return " out of " + deviceName(r.IfIndex)
}

func simulate(s table.Set, program datapath.Program, ifindex uint32, frame []byte) sim.Result {
	sw := sim.Switch{Set: s, Explain: true}
	switch program {
	case datapath.FromUplink:
		return sw.FromUplink(ifindex, frame)
	case datapath.VLANGuest:
		return sw.FromVLANGuest(ifindex, frame)
	case datapath.VLANUplink:
		return sw.FromVLANUplink(ifindex, frame)
	}
	return sw.FromPort(ifindex, frame)
}

// agree compares the two but for the 14 bytes before an encapsulated packet, which
// the kernel writes later.
func agree(r sim.Result, got datapath.RunResult) bool {
	if r.Verdict != got.Verdict || r.IfIndex != got.IfIndex {
		return false
	}
	switch {
	case got.Verdict == model.VerdictFlooded:
		return slices.EqualFunc(r.Copies, got.Copies, func(c sim.Copy, d datapath.Copy) bool {
			return c.IfIndex == d.IfIndex && bytes.Equal(c.Frame, d.Frame)
		})
	case got.IfIndex == 0:
		return true
	case got.Verdict == model.VerdictEncapsulated:
		return bytes.Equal(after(r.Frame, wire.EthernetLen), after(got.Frame, wire.EthernetLen))
	}
	return bytes.Equal(r.Frame, got.Frame)
}
