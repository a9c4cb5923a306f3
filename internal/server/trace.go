package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/wire"
)

// What a traced packet is like unless somebody asks otherwise.
const (
	traceSourcePort = 49152
	traceDestPort   = 80
	maxPortNumber   = 1<<16 - 1
	maxTraceSize    = 3400             // the kernel runs tests on frames of a page, its own room included
	traceTimeout    = 40 * time.Second // the first trace of a host loads the programs again
)

// Trace follows a packet from port to port and its answer back, host by host.
func (s operateService) Trace(ctx context.Context, req *connect.Request[weftv1.TraceRequest]) (*connect.Response[weftv1.TraceResponse], error) {
	if err := s.allow(ctx, identity.VerbOperate, model.Key{}); err != nil {
		return nil, err
	}
	packet, err := tracePacket(req.Msg)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	port, err := s.portNamed(req.Msg.GetPort())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, traceTimeout)
	defer cancel()
	forth, err := s.leg(ctx, port, packet)
	if err != nil {
		return nil, err
	}
	out := &weftv1.TraceResponse{Forward: forth.runs, Delivered: forth.arrived()}
	to, ok := s.answerer(forth, packet)
	if !ok {
		v := forth.verdict()
		out.Returned, out.Summary = v == model.VerdictAnswered || v == model.VerdictFlooded, forth.summary() // many answer, or none
		return connect.NewResponse(out), nil
	}
	back, err := s.leg(ctx, to, reversed(packet, forth.source))
	if err != nil {
		return nil, err
	}
	out.Reverse = back.runs
	out.Returned = back.arrived() && back.last().GetToPort() == req.Msg.GetPort()
	out.Summary = roundTrip(out.Returned, back)
	return connect.NewResponse(out), nil
}

// tracePacket checks what was asked for.
func tracePacket(req *weftv1.TraceRequest) (*hostv1.TracePacket, error) {
	to, err := netip.ParseAddr(req.GetTo())
	if err != nil || to.Zone() != "" {
		return nil, fmt.Errorf("to: %.60q is not an IP address", req.GetTo())
	}
	protocols := map[string]uint32{"": wire.ProtoICMP, "icmp": wire.ProtoICMP, "tcp": wire.ProtoTCP, "udp": wire.ProtoUDP}
	protocol, ok := protocols[req.GetProto()]
	switch {
	case !ok:
		return nil, fmt.Errorf("proto: %.20q must be icmp, tcp or udp", req.GetProto())
	case req.GetDport() > maxPortNumber:
		return nil, fmt.Errorf("dport: %d is no port", req.GetDport())
	case req.GetDport() != 0 && protocol == wire.ProtoICMP:
		return nil, errors.New("dport: icmp has no ports; say proto tcp or udp")
	case req.GetSize() > maxTraceSize:
		return nil, fmt.Errorf("size: %d is more than the kernel takes in a test run; at most %d", req.GetSize(), maxTraceSize)
	}
	p := &hostv1.TracePacket{Destination: to.Unmap().AsSlice(), Protocol: protocol, Size: req.GetSize()}
	if protocol != wire.ProtoICMP {
		p.Sport, p.Dport = traceSourcePort, cmp.Or(req.GetDport(), traceDestPort)
	}
	return p, nil
}

// reversed is what the receiver of p sends back to its source.
func reversed(p *hostv1.TracePacket, source []byte) *hostv1.TracePacket {
	return &hostv1.TracePacket{Source: p.GetDestination(), Destination: source, Protocol: p.GetProtocol(),
		Sport: p.GetDport(), Dport: p.GetSport(), Size: p.GetSize(), Reply: true}
}

// leg is one way of a traced packet.
type leg struct {
	runs   []*weftv1.TraceRun
	source []byte // CA that it was sent from
}

func (l leg) last() *weftv1.TraceRun { return l.runs[len(l.runs)-1] }

func (l leg) verdict() model.Verdict { return model.Verdict(l.last().GetVerdict()) }

// arrived tells whether somebody got it. An answered question for a neighbour is
// never the last run.
func (l leg) arrived() bool {
	v := l.verdict()
	return v == model.VerdictDelivered || v == model.VerdictAnswered || v == model.VerdictFlooded
}

func (l leg) summary() string {
	r := l.last()
	switch v := l.verdict(); {
	case v == model.VerdictDelivered:
		return fmt.Sprintf("delivered to %s on host %s, which does not have the address itself: what it does with the packet is its own affair", r.GetToPort(), r.GetHost())
	case v == model.VerdictFlooded:
		return fmt.Sprintf("flooded by host %s: the steps of stage flood are the copies; what other hosts do with theirs is not followed", r.GetHost())
	case v == model.VerdictAnswered:
		return fmt.Sprintf("answered by the switch of host %s itself", r.GetHost())
	case v.IsDrop():
		return fmt.Sprintf("dropped on host %s, stage %s: %s", r.GetHost(), v.Info().Stage, r.GetVerdictName())
	case v == model.VerdictFlooded:
		return fmt.Sprintf("copied on host %s to the members of the subnet, of whom none is followed", r.GetHost())
	case v == model.VerdictSwitched:
		return fmt.Sprintf("sent out of the external interface of host %s: what is there is not followed", r.GetHost())
	case v == model.VerdictEncapsulated:
		return fmt.Sprintf("sent to %s, which is no Provider Address of a host in policy: it cannot be followed further", r.GetOuter().GetDestination())
	}
	return fmt.Sprintf("not delivered: on host %s the verdict is %s", r.GetHost(), r.GetVerdictName())
}

func roundTrip(returned bool, back leg) string {
	if returned {
		return "delivered, and the answer comes back"
	}
	return "delivered, but the answer does not come back: " + back.summary()
}

// leg asks the sender's host, and then the host that the frame is for.
func (s operateService) leg(ctx context.Context, from *model.Port, packet *hostv1.TracePacket) (leg, error) {
	name := from.Metadata.Ref()
	if from.Host() == "" {
		return leg{}, connect.NewError(connect.CodeFailedPrecondition, fmt.Errorf("Port %s is on no host yet; `weft plug` places it", name))
	}
	packet.Port = uint32(from.ID)
	sent, err := s.traceOn(ctx, from.Host(), &hostv1.TraceQuery{From: &hostv1.TraceQuery_Packet{Packet: packet}})
	if err != nil {
		return leg{}, err
	}
	l := leg{runs: sent.GetRuns(), source: sent.GetSource()}
	if l.verdict() != model.VerdictEncapsulated {
		return l, nil
	}
	host, ok := s.hostOf(l.last().GetOuter().GetDestination())
	if !ok {
		return l, nil
	}
	got, err := s.traceOn(ctx, host, &hostv1.TraceQuery{From: &hostv1.TraceQuery_Frame{Frame: l.last().GetFrameOut()}})
	if err != nil {
		return leg{}, err
	}
	l.runs = append(l.runs, got.GetRuns()...)
	return l, nil
}

func (s operateService) traceOn(ctx context.Context, host string, q *hostv1.TraceQuery) (*hostv1.TraceAnswer, error) {
	a, err := s.dist.Query(ctx, host, &hostv1.Query{Query: &hostv1.Query_Trace{Trace: q}})
	if err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	if len(a.GetTrace().GetRuns()) == 0 {
		return nil, connect.NewError(connect.CodeInternal, fmt.Errorf("host %q: its agent's answer is empty", host))
	}
	s.placeRules(a.GetTrace().GetRuns())
	return a.GetTrace(), nil
}

// hostOf finds the host of a Provider Address.
func (s operateService) hostOf(pa string) (host string, ok bool) {
	a, err := netip.ParseAddr(pa)
	if err != nil {
		return "", false
	}
	s.policy.read(func(st *intent.State) {
		if p, found := st.ProviderAddressOf(a); found {
			host, ok = p.Spec.Host, true
		} else if p, _, found := st.PortOfRewrite(a); found {
			host, ok = p.Host(), true
		}
	})
	return host, ok
}

// answerer is the port that the packet was for and reached.
func (s operateService) answerer(l leg, packet *hostv1.TracePacket) (*model.Port, bool) {
	if l.verdict() != model.VerdictDelivered {
		return nil, false
	}
	p, err := s.portNamed(l.last().GetToPort())
	if err != nil {
		return nil, false
	}
	to, _ := netip.AddrFromSlice(packet.GetDestination())
	return p, slices.Contains(p.CAs(), to)
}
