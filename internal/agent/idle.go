package agent

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// An address that was learned is asked for now and then, as the guest's router would ask; one that nobody answers for is
// released. That it is silent says nothing: a server waits to be spoken to.
const (
	idleRounds   = 3 // without an answer, within the timeout
	idlePatience = time.Second
	idleAtOnce   = 16
)

// owned is an address of a port.
type owned struct {
	port model.PortID
	ca   netip.Addr
}

// askIdle asks for the addresses of ports that learn until ctx ends.
func (g *guests) askIdle(ctx context.Context) error {
	if g.cfg.LearnedTimeout == 0 {
		return nil
	}
	tick := time.NewTicker(g.cfg.LearnedTimeout / idleRounds)
	defer tick.Stop()
	missed := map[owned]int{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		missed = g.askRound(ctx, missed)
	}
}

// askRound asks for each address once and releases those that were missed too often.
func (g *guests) askRound(ctx context.Context, missed map[owned]int) map[owned]int {
	v := g.view.Load()
	all := mayBeIdle(v)
	silent := make([]bool, len(all))
	var asking errgroup.Group
	asking.SetLimit(idleAtOnce)
	for i, q := range all {
		asking.Go(func() error {
			silent[i] = !g.answersFor(ctx, q.port, q.ca)
			return nil
		})
	}
	asking.Wait()
	if ctx.Err() != nil {
		return missed
	}
	next := map[owned]int{}
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, q := range all {
		k := owned{q.port.ID, q.ca}
		switch {
		case !silent[i]:
		case missed[k]+1 < idleRounds:
			next[k] = missed[k] + 1
		default:
			g.log.Info("nobody answers for a learned address", "port", q.port.ID, "address", q.ca)
			g.release(g.guest(q.port.ID), q.ca)
		}
	}
	return next
}

// asked is an address to ask for.
type asked struct {
	port table.Port
	ca   netip.Addr
}

// mayBeIdle lists the addresses of plugged ports that learn. Which of them were learned the server knows: what is released and
// was not, stays.
func mayBeIdle(v *view) (out []asked) {
	ports := map[model.PortID]table.Port{}
	for _, p := range v.want.Ports {
		if v.goal.Ports[p.ID].Learn > 0 {
			ports[p.ID] = p
		}
	}
	if len(ports) == 0 {
		return nil
	}
	for k, r := range v.goal.Records {
		p, here := ports[r.Port]
		if here && k.VSID == p.VSID && isAddress(k) {
			out = append(out, asked{p, k.CA})
		}
	}
	return out
}

// isAddress tells whether a record is of an address that a guest has, and not of a MAC or of all that is unknown.
func isAddress(k goal.RecordKey) bool { return !k.CA.IsUnspecified() && !k.CA.IsMulticast() }

// answersFor asks a guest for an address in the name of its router. Who cannot be asked is taken at its word.
func (g *guests) answersFor(ctx context.Context, p table.Port, ca netip.Addr) bool {
	frame, ok := askFrame(p, ca)
	if !ok {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, idlePatience)
	defer cancel()
	answered, err := netdev.Ask(ctx, p.IfIndex, datapath.SwitchMark, frame, func(b []byte) bool {
		switch {
		case isARP(b):
			return addr4(b[atSender:]) == ca
		case isND(b, wire.ICMPv6NeighbourAdv):
			return addr16(b[atNDTarget:]) == ca
		}
		return false
	})
	if err != nil {
		g.log.Debug("a learned address could not be asked for", "port", p.ID, "address", ca, "error", err)
	}
	return answered || err != nil
}

// askFrame is the question: unicast, so that nobody but this guest hears it.
func askFrame(p table.Port, ca netip.Addr) ([]byte, bool) {
	router := model.RouterMAC(p.VSID)
	if ca.Is4() && !p.Gateway4.IsValid() || ca.Is6() && !p.Gateway6.IsValid() {
		return nil, false
	}
	if ca.Is4() {
		frame := make([]byte, wire.EthernetLen+wire.ARPLen)
		written(wire.Ethernet{Dst: p.MAC, Src: router, Type: wire.TypeARP}.Encode(frame))
		written(wire.ARP{Op: wire.ARPRequest, SenderMAC: router, Sender: p.Gateway4, TargetAddr: ca}.Encode(frame[wire.EthernetLen:]))
		return frame, true
	}
	ask := wire.Neighbour{Type: wire.ICMPv6NeighbourSol, Target: ca, MAC: router, HasMAC: true}
	frame := make([]byte, wire.EthernetLen+wire.IPv6Len+ask.Len())
	ip := wire.IPv6{Next: wire.ProtoICMPv6, HopLimit: 255, PayloadLen: uint16(ask.Len()), Source: p.Gateway6, Destination: ca}
	written(wire.Ethernet{Dst: p.MAC, Src: router, Type: wire.TypeIPv6}.Encode(frame))
	written(ip.Encode(frame[wire.EthernetLen:]))
	message := frame[wire.EthernetLen+wire.IPv6Len:]
	written(ask.Encode(message))
	written(wire.SealICMPv6(ip, message))
	return frame, true
}
