package agent

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/api/weft/host/v1/hostv1connect"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// Sizes and times of captures.
const (
	captureRate     = 10_000           // packets per second, unless somebody asks for more
	captureMessage  = 1 << 20          // bytes of frames in one message, about
	captureBeat     = time.Second      // a message at least this often, so that both ends know of each other
	capturePatience = 30 * time.Second // with a client that does not read
)

var (
	errCapture = errors.New("capture")
	errStalled = errors.New("whoever asked for the capture does not read")
)

// captureFilter reads what was asked for.
func captureFilter(m *weftv1.CaptureFilter) (datapath.CaptureFilter, error) {
	f := datapath.CaptureFilter{Snaplen: int(m.GetSnaplen()), Rate: int(cmp.Or(m.GetRate(), captureRate))}
	for _, name := range m.GetPoints() {
		p, ok := datapath.ParseCapturePoint(name)
		if !ok {
			return f, fmt.Errorf("%w: points: %.30q must be from-guest, from-underlay, to-guest, to-underlay or dropped", errCapture, name)
		}
		f.Points = append(f.Points, p)
	}
	switch m.GetProto() {
	case "":
	case "arp":
		f.EtherType = wire.TypeARP
	case "icmp":
		f.Protocols = []uint8{wire.ProtoICMP, wire.ProtoICMPv6}
	case "tcp":
		f.Protocols = []uint8{wire.ProtoTCP}
	case "udp":
		f.Protocols = []uint8{wire.ProtoUDP}
	default:
		return f, fmt.Errorf("%w: proto: %.30q must be arp, icmp, tcp or udp", errCapture, m.GetProto())
	}
	for _, text := range m.GetAddresses() {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return f, fmt.Errorf("%w: addresses: %.60q is not an IP address", errCapture, text)
		}
		f.Addresses = append(f.Addresses, a)
	}
	if m.GetL4Port() > 65535 {
		return f, fmt.Errorf("%w: l4_port: %d is no port", errCapture, m.GetL4Port())
	}
	f.L4Port = uint16(m.GetL4Port())
	if m.GetReason() == "" {
		return f, nil
	}
	v, ok := model.VerdictByName(strings.ToUpper(m.GetReason()))
	if !ok || !v.Verdict.IsDrop() {
		return f, fmt.Errorf("%w: reason: %.60q is no drop reason; weft explain lists them", errCapture, m.GetReason())
	}
	f.Reason = v.Verdict
	return f, nil
}

// capturing is one capture, on its way to whoever asked.
type capturing struct {
	*Agent
	capture *datapath.Capture
	explain bool
	from    *weftv1.CaptureTarget
	send    func(*weftv1.CaptureResponse) error

	devices map[uint32]string
	asked   time.Time // when the devices were listed
	sent    map[string]uint64
}

// startCapture has the switch show packets of a port, or all with 0.
func (a *Agent) startCapture(port model.PortID, f *weftv1.CaptureFilter) (*capturing, error) {
	filter, err := captureFilter(f)
	if err != nil {
		return nil, err
	}
	filter.Port = port
	c := &capturing{Agent: a, explain: f.GetExplain(), from: &weftv1.CaptureTarget{Host: a.cfg.Host}, sent: map[string]uint64{}}
	if port != 0 {
		p, ok := a.view.Load().goal.Ports[port]
		if !ok {
			return nil, errors.New("the policy that this host holds does not have the port here (yet)")
		}
		c.from.Port = p.Ref.String()
	}
	c.capture, err = a.sw.Capture(filter)
	return c, err
}

// run sends until ctx ends or nobody takes any more.
func (c *capturing) run(ctx context.Context) error {
	defer func() {
		if err := c.capture.Close(); err != nil {
			c.log.Error("a capture could not be ended cleanly", "error", err)
		}
	}()
	var packets []datapath.Captured // none at first: that it is on
	for {
		err := c.pass(packets)
		if err != nil {
			return err
		}
		if packets, err = c.capture.Next(ctx, captureBeat); err != nil {
			return nil
		}
	}
}

// pass sends packets in messages of bearable size, the counts with each.
func (c *capturing) pass(packets []datapath.Captured) error {
	for {
		m, size := &weftv1.CaptureResponse{From: c.from}, 0
		for len(packets) > 0 && size < captureMessage {
			m.Packets = append(m.Packets, c.message(packets[0]))
			size += len(packets[0].Frame)
			packets = packets[1:]
		}
		counts, err := c.counts(m.Packets)
		if err != nil {
			return err
		}
		m.Counts = counts
		if err := c.sendPatiently(m); err != nil {
			return err
		}
		if len(packets) == 0 {
			return nil
		}
	}
}

// sendPatiently frees the switch of a capture whose reader is stuck, even though
// sending itself cannot be interrupted.
func (c *capturing) sendPatiently(m *weftv1.CaptureResponse) error {
	stalled := time.AfterFunc(capturePatience, func() {
		c.log.Warn("a capture is ended: nobody reads it", "port", c.from.GetPort())
		c.capture.Close()
	})
	err := c.send(m)
	if !stalled.Stop() {
		return errStalled
	}
	return err
}

// counts are as of the message: what was sent with it and before, and what was lost.
func (c *capturing) counts(packets []*weftv1.CapturedPacket) ([]*weftv1.CaptureCount, error) {
	for _, p := range packets {
		c.sent[p.GetPoint()]++
	}
	counts, err := c.capture.Count()
	if err != nil {
		return nil, err
	}
	var out []*weftv1.CaptureCount
	for _, n := range counts {
		point := n.Point.String()
		if seen := c.sent[point] + n.Lost(); seen > 0 {
			out = append(out, &weftv1.CaptureCount{Point: point, Seen: seen, Lost: n.Lost()})
		}
	}
	return out, nil
}

func (c *capturing) message(p datapath.Captured) *weftv1.CapturedPacket {
	v := c.view.Load()
	name := func(id model.PortID) string {
		if port, ok := v.goal.Ports[id]; ok {
			return port.Ref.String()
		}
		return ""
	}
	m := &weftv1.CapturedPacket{TimeUnixNano: p.Time.UnixNano(), Point: p.Point.String(), Direction: p.Direction.String(),
		Port: name(p.Port), ToPort: name(p.ToPort), Verdict: uint32(p.Verdict), Device: c.device(p.IfIndex), OutDevice: c.device(p.Out),
		Vsid: uint32(p.VSID), Length: uint32(p.Length), Frame: p.Frame, GsoSize: uint32(p.GSOSize), Walk: p.Walk, Notes: captureNotes(p), PacketKey: packetKey(p),
		Summary: describeFrame(p.Frame)}
	if p.VLANAside {
		m.Frame, m.Length = tagged(p), m.Length+wire.VLANLen
		m.Summary += fmt.Sprintf(", VLAN %d", p.Tag&0xfff)
	}
	m.Summary += fmt.Sprintf(", %d bytes", m.Length)
	if p.Verdict != 0 {
		m.VerdictName = p.Verdict.Info().Name
	}
	if p.Verdict.IsDrop() {
		m.Stage = p.Verdict.Info().Stage
	}
	if c.explain {
		m.Steps = captureSteps(v, p)
	}
	return m
}

// device names a device; new ones are looked up, though not all the time.
func (c *capturing) device(index uint32) string {
	if index == 0 {
		return ""
	}
	if name, ok := c.devices[index]; ok {
		return name
	}
	if time.Since(c.asked) > time.Second {
		c.asked = time.Now()
		if links, err := netdev.Links(); err == nil {
			c.devices = make(map[uint32]string, len(links))
			for i, l := range links {
				c.devices[i] = l.Name
			}
		}
	}
	if name, ok := c.devices[index]; ok {
		return name
	}
	return fmt.Sprintf("device %d", index)
}

func captureNotes(p datapath.Captured) (out []string) {
	if p.Error {
		out = append(out, "ICMP error by the switch, about a packet that it dropped")
	}
	if p.GSOSize > 0 {
		out = append(out, fmt.Sprintf("super-packet: a device cuts it into %d segments of %d bytes of payload", p.GSOSegs, p.GSOSize))
	}
	if p.ChecksumPending {
		out = append(out, "checksum left to the device: what the frame has is not one")
	}
	if p.Stripped {
		out = append(out, "outer headers were removed by XDP, before GRO: this is the inner frame")
	}
	if p.NoLinkLayer {
		out = append(out, "the kernel writes the Ethernet addresses after this point")
	}
	return out
}

// captureSteps has the oracle tell why, of packets as they came.
func captureSteps(v *view, p datapath.Captured) (out []*weftv1.TraceStep) {
	program := datapath.FromPort
	switch {
	case p.Stripped || p.GSOSize > 0 || len(p.Frame) < p.Length: // not what the program saw
		return nil
	case p.Point == datapath.FromUnderlay:
		program = datapath.FromUplink
	case p.Point != datapath.FromGuest:
		return nil
	}
	told := simulate(v.want, onVLAN(v.want, p, program), p.IfIndex, tagged(p))
	if told.Verdict != p.Verdict {
		return []*weftv1.TraceStep{{Stage: "oracle", Text: fmt.Sprintf("by policy's rows of now the verdict would be %s: policy has changed since, or weft verify finds drift", told.Verdict)}}
	}
	for _, s := range told.Steps {
		out = append(out, &weftv1.TraceStep{Stage: s.Stage, Text: s.Text})
	}
	return out
}

// onVLAN is the program that has seen the packet, if that was the VLAN switch's.
func onVLAN(s table.Set, p datapath.Captured, other datapath.Program) datapath.Program {
	if _, ok := vlanPortOf(s, p.Port); !ok {
		return other
	}
	if p.Point == datapath.FromUnderlay {
		return datapath.VLANUplink
	}
	return datapath.VLANGuest
}

// tagged is the frame with the tag that the kernel keeps beside it.
func tagged(p datapath.Captured) []byte {
	const macs = 12
	if !p.VLANAside || len(p.Frame) < macs {
		return p.Frame
	}
	tag := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, wire.TypeVLAN), p.Tag)
	return slices.Concat(p.Frame[:macs], tag, p.Frame[macs:])
}

// upload starts a capture and brings its packets to the server, until the server has
// enough or the session ends.
func (c *conversation) upload(ctx context.Context, q *hostv1.CaptureQuery) error {
	capture, err := c.startCapture(model.PortID(q.GetPort()), q.GetFilter())
	if err != nil {
		return err
	}
	c.mu.Lock()
	client := c.client
	c.mu.Unlock()
	go capture.uploadTo(ctx, client, q.GetId())
	return nil
}

func (c *capturing) uploadTo(ctx context.Context, client hostv1connect.HostServiceClient, id string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream := client.Capture(ctx)
	c.send = func(m *weftv1.CaptureResponse) error { return stream.Send(&hostv1.CaptureUpload{Id: id, Message: m}) }
	err := c.run(ctx)
	cancel()
	_, _ = stream.CloseAndReceive() // what the server says is that it has enough
	if err != nil && !errors.Is(err, io.EOF) {
		c.log.Warn("capture ended", "port", c.from.GetPort(), "error", err)
	}
}

// LocalCapture shows packets of this host to somebody on it.
func (s service) LocalCapture(ctx context.Context, r *connect.Request[weftv1.CaptureRequest], out *connect.ServerStream[weftv1.CaptureResponse]) error {
	v, err := s.agent.firstView(ctx)
	if err != nil {
		return coded(err)
	}
	if h := r.Msg.GetHost(); h != "" && h != s.agent.cfg.Host {
		return coded(fmt.Errorf("%w: this is host %s, not %.60q", errCapture, s.agent.cfg.Host, h))
	}
	port := model.PortID(0)
	switch len(r.Msg.GetPorts()) {
	case 0:
	case 1:
		tenant, name, _ := strings.Cut(r.Msg.GetPorts()[0], "/")
		p := v.port(model.Ref{Tenant: tenant, Name: name})
		if p == nil {
			return coded(fmt.Errorf("%w: port %.80q is not on this host", errNotPlugged, r.Msg.GetPorts()[0]))
		}
		port = p.ID
	default:
		return coded(fmt.Errorf("%w: the agent alone captures one port at a time, or all", errCapture))
	}
	c, err := s.agent.startCapture(port, r.Msg.GetFilter())
	if err != nil {
		return coded(err)
	}
	c.send = out.Send
	return c.run(ctx)
}
