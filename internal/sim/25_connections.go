package sim

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// Connections is what a switch remembers of packets that it allowed. It is never full here: what
// a full one loses depends on how it is kept.
type Connections struct {
	ports map[connectionPort]map[connectionKey]*connection
}

// Time that a connection is kept longer than its idle timeout, at most: the switch does not write
// down each packet. And what later fragments have to come in.
const (
	idleSlack    = 1 << 27 * time.Nanosecond
	fragmentIdle = 30 * time.Second
)

type connectionPort struct {
	ifindex uint32
	id      model.PortID
}

// connectionKey is the same for both directions, but that of a fragment, which has an inbound and an id.
type connectionKey struct {
	local, remote         netip.Addr
	proto                 uint8
	localPort, remotePort uint16
	fragment, inbound     bool
	id                    uint32
}

type connection struct {
	inbound bool // the direction that opened it
	seen    time.Duration
	idle    time.Duration
	rules   [2]table.RuleSetKey // of the port, when it was judged
	by      counting
}

// counting are the rules that count a packet, and what follows it.
type counting struct {
	rules  []model.RuleID
	opener *model.RuleID // the first stateful one that allowed it
}

// remembered is how many rules a switch remembers of a connection. Where there are more each packet is judged, and what
// cannot be, fragments and errors, counts for the opener alone.
const remembered = 3

func (c counting) many() bool { return len(c.rules) > remembered }

func (c counting) followed() []model.RuleID {
	switch {
	case !c.many():
		return c.rules
	case c.opener != nil:
		return []model.RuleID{*c.opener}
	}
	return nil
}

// of gives what is remembered of a port.
func (c *Connections) of(port table.Port) map[connectionKey]*connection {
	k := connectionPort{port.IfIndex, port.ID}
	if c.ports == nil {
		c.ports = map[connectionPort]map[connectionKey]*connection{}
	}
	if c.ports[k] == nil {
		c.ports[k] = map[connectionKey]*connection{}
	}
	return c.ports[k]
}

// judged is a packet at the rules of a port.
type judged struct {
	*walk
	port    table.Port
	inbound bool
	p       packet
	q       table.Query
}

func (j judged) rules() [2]table.RuleSetKey {
	return [2]table.RuleSetKey{j.port.Outbound, j.port.Inbound}
}

func (j judged) direction() string {
	if j.inbound {
		return "inbound"
	}
	return "outbound"
}

// find looks among what the port remembers, and forgets what has been idle for too long.
func (j judged) find(k connectionKey) *connection {
	all := j.Connections.of(j.port)
	c := all[k]
	if c != nil && j.Now-c.seen > c.idle+idleSlack {
		delete(all, k)
		return nil
	}
	return c
}

// judge takes a packet through the connections and the rules of a port.
func (w *walk) judge(port table.Port, inbound bool, p packet, q table.Query) model.Verdict {
	j := judged{w, port, inbound, p, q}
	if j.rules() == [2]table.RuleSetKey{} {
		return model.VerdictContinue
	}
	if w.Connections == nil || !q.IP {
		v, _, _ := j.search(inbound, q)
		return v
	}
	k, ok := j.key()
	v, belongs, by := model.VerdictContinue, false, counting{}
	if ok {
		v, belongs, by = j.belongs(k)
	}
	if v == model.VerdictContinue && !belongs {
		belongs = j.follows()
	}
	if v == model.VerdictContinue && !belongs {
		var idle *time.Duration
		if v, idle, by = j.search(inbound, q); idle != nil && ok {
			j.Connections.of(port)[k] = &connection{inbound: inbound, seen: w.Now, idle: *idle, rules: j.rules(), by: by}
			w.say(v, "acl", "a connection begins")
		}
	}
	if v == model.VerdictContinue && p.fragment && !p.later && j.rules()[index(inbound)] != (table.RuleSetKey{}) {
		j.Connections.of(port)[j.fragmentKey()] = &connection{inbound: inbound, seen: w.Now, idle: fragmentIdle, rules: j.rules(), by: by}
	}
	return v
}

func index(inbound bool) int {
	if inbound {
		return 1
	}
	return 0
}

// belongs tells whether the packet is of a connection that the rules still allow. If they no longer do, the packet is
// judged for itself, unless it just has been.
func (j judged) belongs(k connectionKey) (model.Verdict, bool, counting) {
	c := j.find(k)
	if c == nil {
		return model.VerdictContinue, false, counting{}
	}
	if c.rules != j.rules() || c.by.many() {
		v, idle, by := j.search(c.inbound, j.asOpener())
		if idle == nil {
			delete(j.Connections.of(j.port), k)
			if c.inbound != j.inbound || v != model.VerdictContinue && !j.opens() {
				return model.VerdictContinue, false, by
			}
			return v, v == model.VerdictContinue, by
		}
		c.idle, c.rules, c.by = *idle, j.rules(), by
	} else {
		j.result.Hits = append(j.result.Hits, c.by.rules...)
	}
	if j.Now-c.seen >= idleSlack {
		c.seen = j.Now
	}
	return j.say(model.VerdictContinue, "acl", "%s of port %d: belongs to a connection", j.direction(), j.port.ID), true, c.by
}

// asOpener is the query as it was when the connection began.
func (j judged) asOpener() table.Query {
	q := j.q
	if q.Upper == table.ShowsType {
		q.ICMPType, q.ICMPCode = wire.ICMPEchoRequest, 0
		if j.p.isICMPv6() {
			q.ICMPType = wire.ICMPv6EchoRequest
		}
	}
	return q
}

// opens tells whether asOpener is the packet's own query.
func (j judged) opens() bool {
	own, asked := j.q, j.asOpener()
	return own.ICMPType == asked.ICMPType && own.ICMPCode == asked.ICMPCode
}

// follows tells whether the packet is let through by what came before it: a later fragment by its
// first, an ICMP error by the connection that it is about.
func (j judged) follows() bool {
	k, ok := j.quoted()
	if j.p.later {
		k, ok = j.fragmentKey(), true
	}
	if !ok {
		return false
	}
	c := j.find(k)
	if c == nil || c.rules != j.rules() {
		return false
	}
	j.say(model.VerdictContinue, "acl", "%s of port %d: follows what was allowed", j.direction(), j.port.ID)
	j.result.Hits = append(j.result.Hits, c.by.followed()...)
	return true
}

// key is that of the connection which the packet belongs to or may begin.
func (j judged) key() (connectionKey, bool) {
	k := connectionKey{local: j.q.Local, remote: j.q.Remote, proto: j.p.proto}
	switch {
	case j.p.isICMP() || j.p.isICMPv6():
		if j.p.later || j.p.l4Len() < wire.ICMPLen || !isEcho(j.p.isIPv4(), j.p.icmpType) {
			return k, false
		}
		k.localPort = word(j.frame[j.p.l4+4:])
		return k, true
	case j.p.proto == wire.ProtoTCP || j.p.proto == wire.ProtoUDP:
		k.localPort, k.remotePort = j.q.LocalPort, j.q.RemotePort
		return k, j.q.Upper == table.ShowsPorts
	}
	return k, true
}

func isEcho(is4 bool, icmpType uint8) bool {
	if is4 {
		return icmpType == wire.ICMPEchoRequest || icmpType == wire.ICMPEchoReply
	}
	return icmpType == wire.ICMPv6EchoRequest || icmpType == wire.ICMPv6EchoReply
}

// fragmentKey is what all fragments of a packet have in common.
func (j judged) fragmentKey() connectionKey {
	k := connectionKey{local: j.q.Local, remote: j.q.Remote, proto: j.p.proto, fragment: true, inbound: j.inbound}
	if j.p.isIPv4() {
		k.id = uint32(word(j.frame[l3+4:]))
		return k
	}
	next, at := j.frame[l3+6], l3+wire.IPv6Len
	for next != wire.ProtoFragment {
		next, at = j.frame[at], at+8*(int(j.frame[at+1])+1)
	}
	k.id = binary.BigEndian.Uint32(j.frame[at+4:])
	return k
}

// quoted is the connection of the packet that an ICMP error is about.
func (j judged) quoted() (connectionKey, bool) {
	if !j.p.isICMPError() {
		return connectionKey{}, false
	}
	b := j.frame[j.p.l4+wire.ICMPLen : l3+j.p.length]
	var src, dst netip.Addr
	var proto uint8
	var upper int
	if j.p.isIPv4() {
		if len(b) < wire.IPv4Len || b[0]>>4 != 4 || b[0]&15 < 5 || word(b[6:])&0x1fff != 0 {
			return connectionKey{}, false
		}
		src, dst, proto, upper = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), b[9], int(b[0]&15)*4
	} else {
		if len(b) < wire.IPv6Len || b[0]>>4 != 6 {
			return connectionKey{}, false
		}
		src, dst, proto, upper = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40])), b[6], wire.IPv6Len
	}
	local, remote := dst, src // the guest tells the sender
	if j.inbound {
		local, remote = src, dst // the guest is told
	}
	if local != j.q.Local || len(b) < upper+8 {
		return connectionKey{}, false
	}
	k := connectionKey{local: local, remote: remote, proto: proto}
	b = b[upper:]
	switch {
	case proto == wire.ProtoTCP || proto == wire.ProtoUDP:
		k.localPort, k.remotePort = word(b[2:]), word(b)
		if j.inbound {
			k.localPort, k.remotePort = k.remotePort, k.localPort
		}
	case proto == wire.ProtoICMP && j.p.isIPv4() || proto == wire.ProtoICMPv6 && j.p.isIPv6():
		if !isEcho(j.p.isIPv4(), b[0]) {
			return connectionKey{}, false
		}
		k.localPort = word(b[4:])
	}
	return k, true
}
