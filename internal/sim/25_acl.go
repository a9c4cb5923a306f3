package sim

import (
	"net/netip"
	"time"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// Judgement is what a rule set says of a frame.
type Judgement struct {
	Denied bool
	By     *table.RuleAt  // the rule that decided; nil: none did
	Hits   []table.RuleAt // rules that matched and were asked
	// Opener is the first stateful rule among those that decided, and Idle the smallest timeout of such; nil: there is none.
	Opener *table.RuleAt
	Idle   time.Duration
}

// Judge takes the rules one by one: docs/design/acl.md.
func Judge(set table.RuleSet, q table.Query) Judgement {
	var j Judgement
	said := false // by a tenant or basic section
	for s, section := range set.Sections {
		if section.Kind == table.Default && said {
			continue
		}
		action, at := j.ask(s, section, q)
		if at == nil || section.Audit || action == table.Pass {
			continue
		}
		j.By = at
		if action == table.Deny {
			j.Denied = true
			return j
		}
		if r := section.Rules[at.Rule]; r.Stateful {
			if j.Opener == nil || r.Idle < j.Idle {
				j.Idle = r.Idle
			}
			if j.Opener == nil {
				j.Opener = at
			}
		}
		if section.Kind == table.Administrator {
			return j
		}
		said = said || section.Kind != table.Default
	}
	return j
}

// ask finds the first rule of a section that decides.
func (j *Judgement) ask(s int, section table.Section, q table.Query) (table.RuleAction, *table.RuleAt) {
	for i := range section.Rules {
		r := &section.Rules[i]
		if !matches(r, q) {
			continue
		}
		at := table.RuleAt{Section: s, Rule: i}
		j.Hits = append(j.Hits, at)
		if r.Action != table.Count {
			return r.Action, &at
		}
	}
	return table.Pass, nil
}

func matches(r *table.Rule, q table.Query) bool {
	if !r.LocalMAC.IsZero() && r.LocalMAC != q.LocalMAC || !r.RemoteMAC.IsZero() && r.RemoteMAC != q.RemoteMAC {
		return false
	}
	if !q.IP {
		return !r.NamesIP()
	}
	return (r.AnyProtocol || r.Protocol == q.Protocol) && contains(r.Local, q.Local) && contains(r.Remote, q.Remote) && matchesUpper(r, q)
}

// contains tells whether one of the prefixes has a; no prefixes are all.
func contains(prefixes []netip.Prefix, a netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(a) {
			return true
		}
	}
	return len(prefixes) == 0
}

// matchesUpper compares ports, or type and code. What hides them may have any, of which the worst is assumed.
func matchesUpper(r *table.Rule, q table.Query) bool {
	if !r.NamesPorts() && !r.NamesType() {
		return true
	}
	hasPorts := q.Protocol == wire.ProtoTCP || q.Protocol == wire.ProtoUDP
	if q.Upper == table.NoUpper || hasPorts != r.NamesPorts() || hasPorts == r.NamesType() {
		return false
	}
	if q.Upper == table.HidesUpper {
		return r.Action == table.Deny
	}
	return within(r.LocalPorts, q.LocalPort) && within(r.RemotePorts, q.RemotePort) &&
		(r.ICMPType < 0 || r.ICMPType == int16(q.ICMPType)) && (r.ICMPCode < 0 || r.ICMPCode == int16(q.ICMPCode))
}

func within(ports []table.PortRange, port uint16) bool {
	for _, p := range ports {
		if p.First <= port && port <= p.Last {
			return true
		}
	}
	return len(ports) == 0
}

// admit20And25 judges what the sender's guest sends, once 20 lets it. A DHCP client's search, which 20 ends, may
// yet be flooded: it is judged, too.
func (w *walk) admit20And25() model.Verdict {
	v := w.admit20()
	if v != model.VerdictContinue && v != model.VerdictMulticast {
		return v
	}
	if denied := w.judge(w.port, false, w.packet, w.query(w.packet, w.packet.eth.Src, w.packet.eth.Dst)); denied != model.VerdictContinue {
		return denied
	}
	return v
}

// localACL25 judges what another port of this host is to get.
func (w *walk) localACL25() model.Verdict {
	if w.to == nil {
		return model.VerdictContinue
	}
	remote := w.packet.eth.Src
	if w.routed {
		remote = model.RouterMAC(w.hop.vsid)
	}
	return w.judgeInbound(*w.to, w.packet, remote, w.record.MAC)
}

// uplinkACL25 judges what came from another host.
func (w *walk) uplinkACL25() model.Verdict {
	if w.rewriting {
		return model.VerdictContinue // until it has its Customer Addresses back
	}
	return w.judgeInbound(w.port, w.packet, w.packet.eth.Src, w.packet.eth.Dst)
}

func (w *walk) rewrittenACL25() model.Verdict {
	if !w.rewriting {
		return model.VerdictContinue
	}
	p, _ := parseFrame(w.frame)
	return w.judgeInbound(w.port, p, p.eth.Src, p.eth.Dst)
}

// judgeInbound judges what the guest of a port of this host is to get.
func (w *walk) judgeInbound(to table.Port, p packet, remoteMAC, localMAC model.MAC) model.Verdict {
	q := w.query(p, localMAC, remoteMAC)
	q.Local, q.Remote = q.Remote, q.Local
	q.LocalPort, q.RemotePort = q.RemotePort, q.LocalPort
	v := w.judge(to, true, p, q)
	if v != model.VerdictContinue {
		w.result.Port, w.result.Inbound = to.ID, true
	}
	return v
}

// deniesCopy tells whether the rules of a port refuse its copy of a flooded frame.
func (w *walk) deniesCopy(to table.Port) bool {
	port, inbound := w.result.Port, w.result.Inbound
	v := w.judgeInbound(to, w.packet, w.packet.eth.Src, w.packet.eth.Dst)
	w.result.Port, w.result.Inbound = port, inbound // the frame itself goes on
	return v != model.VerdictContinue
}

// query is the packet in hand as its sender's rules see it.
func (w *walk) query(p packet, localMAC, remoteMAC model.MAC) table.Query {
	q := table.Query{LocalMAC: localMAC, RemoteMAC: remoteMAC}
	if p.nd || !p.isIPv4() && !p.isIPv6() {
		return q
	}
	q.IP, q.Local, q.Remote, q.Protocol = true, p.src, p.dst, p.proto
	hasPorts, hasType := p.proto == wire.ProtoTCP || p.proto == wire.ProtoUDP, p.isICMP() || p.isICMPv6()
	switch {
	case !hasPorts && !hasType:
	case p.later || p.l4Len() < 4:
		q.Upper = table.HidesUpper
	case hasPorts:
		ports, _ := wire.ParsePorts(w.frame[p.l4:]) // a first fragment has them too
		q.Upper, q.LocalPort, q.RemotePort = table.ShowsPorts, ports.Source, ports.Destination
	default:
		q.Upper, q.ICMPType, q.ICMPCode = table.ShowsType, p.icmpType, p.icmpCode
	}
	return q
}

// search asks the rules of a direction; of what they allow, it gives the timeout of the connection that begins, and what
// counts all that follows.
func (j judged) search(inbound bool, q table.Query) (model.Verdict, *time.Duration, counting) {
	set, ok := j.Set.RuleSets[j.rules()[index(inbound)]]
	if !ok {
		return model.VerdictContinue, nil, counting{} // no set, no rules
	}
	found := Judge(*set, q)
	by := counting{rules: hitsOf(set, found)}
	j.result.Hits = append(j.result.Hits, by.rules...)
	if found.By == nil {
		return j.say(model.VerdictContinue, "acl", "%s of port %d: no rule decides", j.direction(), j.port.ID), nil, by
	}
	section := set.Sections[found.By.Section]
	r := section.Rules[found.By.Rule]
	if found.Denied {
		j.result.Rule = r.ID // of a flooded frame, the last copy's
		return j.say(model.VerdictAclDenied, "acl", "%s of port %d: denied by %s of the %s section", j.direction(), j.port.ID, r.ID, section.Kind), nil, by
	}
	j.say(model.VerdictContinue, "acl", "%s of port %d: allowed, at last by %s of the %s section", j.direction(), j.port.ID, r.ID, section.Kind)
	if found.Opener == nil {
		return model.VerdictContinue, nil, by
	}
	opener := set.Sections[found.Opener.Section].Rules[found.Opener.Rule].ID
	by.opener = &opener
	return model.VerdictContinue, &found.Idle, by
}

func hitsOf(set *table.RuleSet, j Judgement) []model.RuleID {
	var out []model.RuleID
	for _, at := range j.Hits {
		out = append(out, set.Sections[at.Section].Rules[at.Rule].ID)
	}
	return out
}
