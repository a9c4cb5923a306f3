package agent

import (
	"net/netip"
	"reflect"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// course is what a Goal means for packets of its ports, but for rules, and as far as the way to another host.
type course struct{ set table.Set }

// newCourse renders a Goal as if each port's device had the number of the port, and there were a way to every host.
func newCourse(g *goal.Goal) *course {
	devices := map[model.PortID]device{}
	for id := range g.Ports {
		devices[id] = device{ifindex: uint32(id)}
	}
	c := &course{render(g, devices, underlay{})}
	for _, r := range c.set.Records {
		if r.PA.IsValid() {
			c.set.Peers[r.PA] = table.Peer{PA: r.PA, IfIndex: 1, MTU: ethernetMTU}
		}
	}
	return c
}

// early are the stages that ask no device and no route of the underlay.
var early = map[string]bool{"parse": true, "admit": true, "route": true, "lookup": true, "isolate": true}

// stops says why a packet of a flow gets no further; VerdictContinue: nothing here stops it.
func (c *course) stops(p goal.Port, f flow, frame []byte) model.Verdict {
	if f.key.inbound {
		return c.stopsInbound(p, f.key.remote)
	}
	if v := (sim.Switch{Set: c.set}).FromPort(uint32(p.ID), frame).Verdict; v.IsDrop() && early[v.Info().Stage] {
		return v
	}
	return model.VerdictContinue
}

// stopsInbound knows less: of what comes from elsewhere, its sender's host tells.
func (c *course) stopsInbound(p goal.Port, from netip.Addr) model.Verdict {
	port := c.set.Ports[uint32(p.ID)]
	if r, ok := c.set.Records[table.RecordKey{VSID: port.VSID, CA: from}]; ok && !r.Router && r.Isolation.Apart(port.Isolation) {
		return model.VerdictIsolated
	}
	return model.VerdictContinue
}

// frameOf makes a packet with the headers of a flow that the guest sends; nil for what no flow's headers say enough of: to a group, and
// to where no record leads.
func (c *course) frameOf(p goal.Port, f flow) []byte {
	made := probe{source: f.key.local, destination: f.key.remote, protocol: f.key.protocol, sport: f.query.LocalPort, dport: f.query.RemotePort,
		reply: f.key.upper == table.ShowsType && (f.key.icmpType == wire.ICMPEchoReply || f.key.icmpType == wire.ICMPv6EchoReply)}
	if _, group := made.group(p); group || f.key.inbound {
		return nil
	}
	next, err := made.neighbour(p)
	if err != nil {
		return nil
	}
	r, ok := c.set.Records[table.RecordKey{VSID: p.VSID, CA: next}]
	if !ok {
		return nil
	}
	return made.frame(p.MAC, r.MAC)
}

// touched tells which ports a change means more for than other rules: those that are treated otherwise, and all of
// networks in which somebody's record or a route goes or changes.
type touched struct {
	before, after *goal.Goal
	networks      map[model.NetworkIndex]bool
}

func newTouched(before, after *goal.Goal, d goal.Delta) touched {
	t := touched{before, after, map[model.NetworkIndex]bool{}}
	subnets := map[model.VSID]bool{}
	for _, k := range d.DeleteRecords {
		subnets[k.VSID] = true
	}
	for _, row := range d.PutRecords {
		if old, ok := before.Records[row.Key]; ok && old.Isolation != row.Record.Isolation {
			subnets[row.Key.VSID] = true
		}
	}
	for k, r := range before.Routes {
		if network, _ := k.Network.IsDirect(); subnets[r.VSID] || after.Routes[k] != r {
			t.networks[network] = true
		}
	}
	return t
}

func (t touched) port(p goal.Port) bool {
	return p.Settings.VLAN == nil && (t.networks[p.Network] || !reflect.DeepEqual(unruled(p), unruled(t.after.Ports[p.ID])))
}

// unruled is a port without what no single packet shows: rules, and what only limits or copies.
func unruled(p goal.Port) goal.Port {
	s := &p.Settings
	s.Lists, s.ACL, s.Bandwidth, s.Uplink, s.Mirrors, s.Watched, s.StormLimit, s.Connections = nil, nil, nil, 0, nil, nil, 0, 0
	return p
}
