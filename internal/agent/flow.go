package agent

import (
	"container/list"
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// Bounds of what is remembered of flows: docs/design/flows.md.
const (
	flowMemory   = time.Hour
	mostFlows    = 1 << 17 // of a host
	mostOfOne    = 1024    // of a port
	fewestOfOne  = 32
	passingPorts = 32768 // as FLOW_PASSING of bpf/lib/observe.h
)

// flowKey is what the packets of a flow have in common.
type flowKey struct {
	inbound               bool
	local, remote         netip.Addr
	protocol              uint8
	upper                 table.Upper
	localPort, remotePort uint16 // 0: its side has it for a while only
	icmpType, icmpCode    uint8
}

// keyOfFlow is the key, as flow_ports of bpf/lib/observe.h has it.
func keyOfFlow(inbound bool, q table.Query) flowKey {
	k := flowKey{inbound: inbound, local: q.Local, remote: q.Remote, protocol: q.Protocol, upper: q.Upper}
	switch q.Upper {
	case table.ShowsType:
		k.icmpType, k.icmpCode = q.ICMPType, q.ICMPCode
	case table.ShowsPorts:
		k.localPort, k.remotePort = q.LocalPort, q.RemotePort
		if localPasses, remotePasses := q.LocalPort >= passingPorts, q.RemotePort >= passingPorts; localPasses == remotePasses {
			break
		} else if localPasses {
			k.localPort = 0
		} else {
			k.remotePort = 0
		}
	}
	return k
}

// back is the key of the answers.
func (k flowKey) back() flowKey {
	k.inbound = !k.inbound
	if k.upper == table.ShowsType {
		switch {
		case k.protocol == wire.ProtoICMP && k.icmpType == wire.ICMPEchoRequest:
			k.icmpType = wire.ICMPEchoReply
		case k.protocol == wire.ProtoICMP && k.icmpType == wire.ICMPEchoReply:
			k.icmpType = wire.ICMPEchoRequest
		case k.protocol == wire.ProtoICMPv6 && k.icmpType == wire.ICMPv6EchoRequest:
			k.icmpType = wire.ICMPv6EchoReply
		case k.protocol == wire.ProtoICMPv6 && k.icmpType == wire.ICMPv6EchoReply:
			k.icmpType = wire.ICMPv6EchoRequest
		}
	}
	return k
}

// flow is what is known of one.
type flow struct {
	key     flowKey
	query   table.Query // its last packet
	packets uint64
	last    time.Time
	sampled bool
	ids     [2]uint64 // by which the switch knows it, while it is allowed and while it is denied
}

// portFlows are the flows of a port, the one seen last in front.
type portFlows struct {
	order     *list.List // of *flow
	byKey     map[flowKey]*list.Element
	forgotten uint64 // packets of flows that others have taken the place of
}

// flowBook remembers the flows of the last hour, for those who want to try rules on them.
type flowBook struct {
	mu    sync.Mutex
	since time.Time
	ports map[model.PortID]*portFlows
}

func newFlowBook(now time.Time) *flowBook {
	return &flowBook{since: now, ports: map[model.PortID]*portFlows{}}
}

// keepFlows writes down what the switch tells of flows.
func (a *Agent) keepFlows(ctx context.Context) error {
	flows, err := a.sw.Flows(ctx)
	if err != nil {
		a.log.Error("flows cannot be read: weft diff has none to try rules on", "error", err)
		return nil
	}
	for f := range flows {
		a.flows.note(f, time.Now())
	}
	return nil
}

func (b *flowBook) note(f datapath.Flow, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	x := b.ports[f.Port].touch(b, f.Port, keyOfFlow(f.Direction == datapath.Inbound, f.Query), now)
	x.query, x.sampled, x.packets = f.Query, f.Sampled, x.packets+f.Packets
	if f.Denied {
		x.ids[1] = f.ID
	} else {
		x.ids[0] = f.ID
	}
}

// touch finds a flow or makes it, and has it as the last one seen.
func (p *portFlows) touch(b *flowBook, port model.PortID, key flowKey, now time.Time) *flow {
	if p == nil {
		p = &portFlows{list.New(), map[flowKey]*list.Element{}, 0}
		b.ports[port] = p
	}
	e := p.byKey[key]
	if e == nil {
		p.shrink(b.share()-1, now)
		e = p.order.PushFront(&flow{key: key})
		p.byKey[key] = e
	}
	p.order.MoveToFront(e)
	x := e.Value.(*flow)
	x.last = now
	return x
}

// share is how many flows a port may have.
func (b *flowBook) share() int {
	return min(mostOfOne, max(fewestOfOne, mostFlows/max(1, len(b.ports))))
}

// shrink forgets what is too old, and what is too much.
func (p *portFlows) shrink(to int, now time.Time) {
	for e := p.order.Back(); e != nil; e = p.order.Back() {
		x := e.Value.(*flow)
		old := now.Sub(x.last) > flowMemory
		if !old && p.order.Len() <= to {
			return
		}
		if !old {
			p.forgotten += x.packets
		}
		p.order.Remove(e)
		delete(p.byKey, x.key)
	}
}

// of gives copies of a port's flows of the last hour, and how many packets those had that were forgotten.
func (b *flowBook) of(port model.PortID, now time.Time) (map[flowKey]flow, uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.ports[port]
	if p == nil {
		return map[flowKey]flow{}, 0
	}
	p.shrink(mostOfOne, now)
	out := make(map[flowKey]flow, len(p.byKey))
	for key, e := range p.byKey {
		out[key] = *e.Value.(*flow)
	}
	return out, p.forgotten
}

// keepPorts forgets ports that are gone.
func (b *flowBook) keepPorts(has func(model.PortID) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for id := range b.ports {
		if !has(id) {
			delete(b.ports, id)
		}
	}
}
