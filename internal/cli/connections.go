package cli

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

// connectionsCommand is get of what is no resource: it is of the hosts, and gone soon.
func (a *app) connectionsCommand() *cobra.Command {
	var request weftv1.ConnectionsRequest
	var o output
	c := &cobra.Command{
		Use:     "connections",
		Aliases: []string{"connection", "conns"},
		Short:   "Show the connections that rules have opened, and which rule",
		Long: `Show the connections that hosts follow, those used last first: of one port, a tenant, a
host or the fleet. LOCAL is the guest. OPENED says who sent the first packet, STATE whether the
other side has answered; IDLE is the time since the last packet and TIMEOUT how long it may be. A
connection that is "stale" was opened under other rules: its next packet is judged again.
-o wide shows how many each port has, of how many, and how many have given way to others.`,
		Example: "  weft get connections -p red/web-1\n  weft get connections -n red --limit 50",
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if request.Port != "" {
				if _, _, err := parsePort(request.Port); err != nil {
					return err
				}
			}
			operate, err := a.dial.operate()
			if err != nil {
				return err
			}
			ctx, cancel := unary(c)
			defer cancel()
			answer, err := operate.Connections(ctx, connect.NewRequest(&request))
			if err != nil {
				return err
			}
			if done, err := o.message(a.out, answer.Msg); done || err != nil {
				return err
			}
			return a.printConnections(answer.Msg, o.format == "wide")
		},
	}
	c.Flags().StringVarP(&request.Port, "port", "p", "", "only this port's: TENANT/PORT")
	c.Flags().StringVarP(&request.Tenant, "tenant", "n", "", "only this tenant's")
	c.Flags().StringVar(&request.Host, "host", "", "only this host's")
	c.Flags().Uint32Var(&request.Limit, "limit", 0, "rows of each host, at most 10000 (default 1000)")
	o.flag(c, "table", "wide", "json", "yaml")
	return c
}

func (a *app) printConnections(all *weftv1.ConnectionsResponse, counts bool) error {
	for _, h := range all.GetUnreachableHosts() {
		a.say("host %s does not answer: its connections are not shown", h)
	}
	if len(all.GetConnections()) == 0 {
		a.say("no connections")
	}
	t := newTable("HOST", "PORT", "OPENED", "PROTOCOL", "LOCAL", "REMOTE", "STATE", "IDLE", "TIMEOUT", "RULE")
	for _, c := range all.GetConnections() {
		t.add(c.GetHost(), c.GetPort(), c.GetDirection(), protocolName(c.GetProtocol()), endCell(c, c.GetLocal(), c.GetLocalPort()), endCell(c, c.GetRemote(), c.GetRemotePort()),
			connectionState(c), shortDuration(time.Duration(c.GetIdleMs())*time.Millisecond), shortDuration(time.Duration(c.GetTimeoutMs())*time.Millisecond),
			ruleCell(c.GetList(), c.GetRule(), c.GetSource()))
	}
	if len(t.rows) > 0 {
		if err := t.flush(a.out); err != nil {
			return err
		}
	}
	if n := all.GetLeftOut(); n > 0 {
		a.say("%d more are not shown: ask for one port, or with a larger --limit", n)
	}
	if !counts {
		return nil
	}
	t = newTable("HOST", "PORT", "CONFIRMED", "LIMIT", "HALF-OPEN", "LOST", "LOST-HALF-OPEN")
	for _, p := range all.GetPorts() {
		t.add(p.GetHost(), p.GetPort(), strconv.Itoa(int(p.GetConfirmed())), strconv.Itoa(int(p.GetLimit())), strconv.Itoa(int(p.GetHalfOpen())),
			strconv.FormatUint(p.GetLostConfirmed(), 10), strconv.FormatUint(p.GetLostHalfOpen(), 10))
	}
	return t.flush(a.out)
}

func connectionState(c *weftv1.Connection) string {
	state := "half-open"
	if c.GetConfirmed() {
		state = "confirmed"
	}
	if c.GetStale() {
		state += ",stale"
	}
	return state
}

// Protocols that people know by name (IANA).
var protocolNames = map[uint32]string{1: "icmp", 6: "tcp", 17: "udp", 47: "gre", 50: "esp", 58: "icmpv6", 132: "sctp"}

func protocolName(n uint32) string {
	if name, ok := protocolNames[n]; ok {
		return name
	}
	return strconv.Itoa(int(n))
}

// endCell is one side of a connection; an echo has an identifier instead of ports.
func endCell(c *weftv1.Connection, addr string, port uint32) string {
	switch name := protocolName(c.GetProtocol()); {
	case name == "tcp" || name == "udp":
		return net.JoinHostPort(addr, strconv.Itoa(int(port)))
	case (name == "icmp" || name == "icmpv6") && port != 0:
		return fmt.Sprintf("%s id %d", addr, port)
	}
	return addr
}
