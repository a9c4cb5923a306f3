package cli

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

// diffFlows shows which flows of the last hour would be judged otherwise if the resources were applied.
func (a *app) diffFlows(ctx context.Context, request *weftv1.TryRulesRequest) error {
	operate, err := a.dial.operate()
	if err != nil {
		return err
	}
	answer, err := operate.TryRules(ctx, connect.NewRequest(request))
	if err != nil {
		a.say("the change was not tried on the flows of the last hour: %v", err)
		return nil
	}
	all := answer.Msg
	for _, host := range all.GetNotAsked() {
		a.say("not tried on the flows of host %s", host)
	}
	if len(all.GetChanges()) > 0 {
		fmt.Fprintln(a.out, "flows of the last hour that would be judged otherwise")
		t := newTable("HOST", "PORT", "DIRECTION", "PROTOCOL", "LOCAL", "REMOTE", "PACKETS", "IDLE", "BEFORE", "AFTER")
		for _, c := range all.GetChanges() {
			t.add(c.GetHost(), c.GetPort(), c.GetDirection(), flowProtocol(c), flowEnd(c, c.GetLocal(), c.GetLocalPort(), c.GetAnyLocalPort()), flowEnd(c, c.GetRemote(), c.GetRemotePort(), c.GetAnyRemotePort()),
				flowPackets(c), shortDuration(time.Duration(c.GetIdleMs())*time.Millisecond), verdictCell(c.GetBefore()), verdictCell(c.GetAfter()))
		}
		if err := t.flush(a.out); err != nil {
			return err
		}
	}
	a.saySummary(all.GetHosts())
	return nil
}

func (a *app) saySummary(hosts []*weftv1.FlowSummary) {
	var flows, changed, left, missed uint64
	for _, h := range hosts {
		flows, changed, left, missed = flows+h.GetFlows(), changed+h.GetChanged(), left+h.GetLeftOut(), missed+h.GetMissed()
		if since := time.UnixMilli(h.GetSinceUnixMs()); h.GetFlows() > 0 && a.now().Sub(since) < time.Hour {
			a.say("host %s knows flows since %s", h.GetHost(), since.UTC().Format(time.RFC3339))
		}
	}
	if len(hosts) == 0 {
		return
	}
	a.say("%d of %d flows of the last hour, at ports that the change touches, would be judged otherwise", changed, flows)
	if left > 0 {
		a.say("%d of them are not shown: use a larger --limit", left)
	}
	if missed > 0 {
		a.say("%d packets were seen there of flows that could not be kept", missed)
	}
}

func flowProtocol(c *weftv1.FlowChange) string {
	name := protocolName(c.GetProtocol())
	if name == "icmp" || name == "icmpv6" {
		return fmt.Sprintf("%s/%d/%d", name, c.GetIcmpType(), c.GetIcmpCode())
	}
	return name
}

// flowEnd is one side of a flow; a port that a client has for a while is a star.
func flowEnd(c *weftv1.FlowChange, addr string, port uint32, any bool) string {
	text := strconv.Itoa(int(port))
	if any {
		text = "*"
	}
	if name := protocolName(c.GetProtocol()); name != "tcp" && name != "udp" {
		return addr
	}
	return net.JoinHostPort(addr, text)
}

// flowPackets marks what was only counted in part.
func flowPackets(c *weftv1.FlowChange) string {
	text := strconv.FormatUint(c.GetPackets(), 10)
	if c.GetSampled() {
		text += "+"
	}
	return text
}

func verdictCell(v *weftv1.FlowVerdict) string {
	text := "allowed"
	if v.GetDenied() {
		text = "denied"
	}
	if v.GetReason() != "" {
		return text + ": " + v.GetReason()
	}
	if rule := ruleCell(v.GetList(), v.GetRule(), v.GetSource()); rule != "" {
		text += " by " + rule
	}
	return text
}
