package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/manifest"
)

// printRules shows access lists rule by rule, with what the hosts have counted.
func (g *getter) printRules(ctx context.Context, lists []*weftv1.Resource) error {
	hits, err := g.ruleHits(ctx)
	if err != nil {
		g.say("the hosts' counters are not shown: %v", err)
	}
	t := newTable("TENANT", "LIST", "TIER", "MODE", "RULE", "DIRECTION", "ACTION", "PROTOCOL", "LOCAL", "REMOTE", "PACKETS", "BYTES", "SOURCE")
	for _, r := range lists {
		spec, ref := r.GetAccessList().GetSpec(), refOf(r)
		add := func(rule, direction, action, protocol, local, remote, source string) {
			packets, bytes := "", ""
			if h := hits[ref+" "+rule]; h != nil {
				packets, bytes = strconv.FormatUint(h.GetPackets(), 10), strconv.FormatUint(h.GetBytes(), 10)
			}
			t.add(manifest.Meta(r).GetTenant(), manifest.Meta(r).GetName(), spec.GetTier(), spec.GetMode(),
				rule, direction, action, protocol, local, remote, packets, bytes, source)
		}
		for _, rule := range spec.GetRules() {
			add(rule.GetName(), rule.GetDirection(), rule.GetAction(), ruleProtocol(rule), side(rule.GetLocal(), rule.GetLocalPorts(), rule.GetLocalMac()),
				side(rule.GetRemote(), rule.GetRemotePorts(), rule.GetRemoteMac()), rule.GetSource())
		}
		for _, d := range []struct{ direction, action string }{{"inbound", spec.GetDefault().GetInbound()}, {"outbound", spec.GetDefault().GetOutbound()}} {
			if d.action != "" {
				add("default "+d.direction, d.direction, d.action, "any", "any", "any", "")
			}
		}
	}
	return t.flush(g.out)
}

// ruleHits are the counters of the lists that were asked for, by "TENANT/LIST RULE".
func (g *getter) ruleHits(ctx context.Context) (map[string]*weftv1.RuleHit, error) {
	operate, err := g.dial.operate()
	if err != nil {
		return nil, err
	}
	request := &weftv1.RuleHitsRequest{Tenant: g.tenant}
	if len(g.names) == 1 {
		key, err := parseKey(g.kind, g.names[0], g.tenant)
		if err != nil {
			return nil, err
		}
		request.Tenant, request.List = key.GetTenant(), key.GetName()
	}
	answer, err := operate.RuleHits(ctx, connect.NewRequest(request))
	if err != nil {
		return nil, err
	}
	for _, h := range answer.Msg.GetUnreachableHosts() {
		g.say("host %s does not answer: what it counts is not shown", h)
	}
	out := map[string]*weftv1.RuleHit{}
	for _, h := range answer.Msg.GetHits() {
		out[fmt.Sprintf("%s/%s %s", h.GetTenant(), h.GetList(), h.GetRule())] = h
	}
	return out, nil
}

func ruleProtocol(r *weftv1.AccessRule) string {
	text := r.GetProtocol()
	if r.IcmpType != nil {
		text += fmt.Sprintf(" type %d", r.GetIcmpType())
	}
	if r.IcmpCode != nil {
		text += fmt.Sprintf(" code %d", r.GetIcmpCode())
	}
	return text
}

// side is one side of a rule: addresses, groups, MAC, and ports behind a colon.
func side(a *weftv1.RuleAddresses, ports []string, mac string) string {
	var parts []string
	if len(a.GetPrefixes()) > 0 {
		parts = append(parts, few(a.GetPrefixes()))
	}
	if len(a.GetGroups()) > 0 {
		parts = append(parts, "groups "+few(a.GetGroups()))
	}
	if mac != "" {
		parts = append(parts, mac)
	}
	text := first(strings.Join(parts, " "), "any")
	if len(ports) > 0 {
		text += ":" + few(ports)
	}
	return text
}

// printTraceRules names the rules of access lists that a run met, and where they were written.
func printTraceRules(w io.Writer, r *weftv1.TraceRun) {
	for _, rule := range r.GetRules() {
		text := rule.GetList() + " " + rule.GetRule()
		if rule.GetDenied() {
			text += " denies it"
		}
		if rule.GetSource() != "" {
			text += " (" + rule.GetSource() + ")"
		}
		fmt.Fprintf(w, "  %-10s %s\n", "rule", text)
	}
}
