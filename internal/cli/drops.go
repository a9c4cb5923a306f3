package cli

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

// dropsInterval is how often drops -w asks.
const dropsInterval = 2 * time.Second

func (a *app) dropsCommand() *cobra.Command {
	var request weftv1.DropsRequest
	var watch bool
	var o output
	c := &cobra.Command{
		Use:   "drops",
		Short: "Show what is being dropped, why, by which stage and rule",
		Long:  "Show the counted drops of the fleet, of one host or of one port. weft explain REASON says what a reason means.\nOf ACL_DENIED there is a row for each rule; packets of rules that are gone have none.\nOn a host that knows no server, the local agent's own.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if request.Port != "" {
				if _, _, err := parsePort(request.Port); err != nil {
					return err
				}
			}
			ask := func() (*weftv1.DropsResponse, error) {
				ctx, cancel := unary(c)
				defer cancel()
				return a.drops(ctx, &request)
			}
			if watch {
				return a.watchDrops(c.Context(), ask, o)
			}
			answer, err := ask()
			if err != nil {
				return err
			}
			if done, err := o.message(a.out, answer); done || err != nil {
				return err
			}
			a.sayUnreachable(answer)
			if len(answer.GetDrops()) == 0 {
				a.say("no drops")
				return nil
			}
			t := newDropTable()
			for _, d := range answer.GetDrops() {
				t.add(dropCells(d)...)
			}
			return t.flush(a.out)
		},
	}
	c.Flags().StringVar(&request.Host, "host", "", "only this host's")
	c.Flags().StringVar(&request.Port, "port", "", "only this port's: TENANT/PORT")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on showing what is dropped")
	o.flag(c, "table", "json", "yaml")
	return c
}

// drops asks the server, or the local agent where there is only that.
func (a *app) drops(ctx context.Context, request *weftv1.DropsRequest) (*weftv1.DropsResponse, error) {
	if a.dial.agentOnly() {
		answer, err := a.dial.agentService().LocalDrops(ctx, connect.NewRequest(&weftv1.LocalDropsRequest{}))
		if err != nil {
			return nil, err
		}
		return only(answer.Msg, request), nil
	}
	operate, err := a.dial.operate()
	if err != nil {
		return nil, err
	}
	answer, err := operate.Drops(ctx, connect.NewRequest(request))
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

// only keeps what was asked for of an agent's answer, which has everything.
func only(all *weftv1.DropsResponse, request *weftv1.DropsRequest) *weftv1.DropsResponse {
	kept := &weftv1.DropsResponse{}
	for _, d := range all.GetDrops() {
		if (request.GetPort() == "" || d.GetPort() == request.GetPort()) && (request.GetHost() == "" || d.GetHost() == request.GetHost()) {
			kept.Drops = append(kept.Drops, d)
		}
	}
	return kept
}

// watchDrops prints what is counted, and then every counter that grew, with its growth.
func (a *app) watchDrops(ctx context.Context, ask func() (*weftv1.DropsResponse, error), o output) error {
	t := newDropTable()
	seen := make(map[string]*weftv1.Drop)
	tick := time.NewTicker(dropsInterval)
	defer tick.Stop()
	for {
		answer, err := ask()
		switch {
		case ctx.Err() != nil:
			return nil // interrupted by whoever watched
		case err != nil:
			return err
		}
		a.sayUnreachable(answer)
		for _, d := range answer.GetDrops() {
			grown := growth(d, seen)
			if grown == nil {
				continue
			}
			if o.format == "json" {
				if err := writeJSONLine(a.out, grown); err != nil {
					return err
				}
				continue
			}
			t.add(dropCells(grown)...)
		}
		if o.format != "json" && (len(t.rows) > 0 || !t.headed) {
			if err := t.flush(a.out); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// growth is d with what came since it was seen last; nil when nothing did.
func growth(d *weftv1.Drop, seen map[string]*weftv1.Drop) *weftv1.Drop {
	key := fmt.Sprintf("%s %s %s %d %s %s", d.GetHost(), d.GetPort(), d.GetDirection(), d.GetReason(), d.GetList(), d.GetRule())
	before := seen[key]
	seen[key] = d
	switch {
	case before == nil || d.GetPackets() < before.GetPackets(): // new, or counted from zero again
		return d
	case d.GetPackets() == before.GetPackets():
		return nil
	}
	return &weftv1.Drop{Host: d.GetHost(), Port: d.GetPort(), Direction: d.GetDirection(), Reason: d.GetReason(),
		ReasonName: d.GetReasonName(), Stage: d.GetStage(), Class: d.GetClass(), Last: d.GetLast(), List: d.GetList(), Rule: d.GetRule(), Source: d.GetSource(),
		Packets: d.GetPackets() - before.GetPackets(), Bytes: d.GetBytes() - before.GetBytes()}
}

func newDropTable() *table {
	return newTable("HOST", "PORT", "DIRECTION", "REASON", "STAGE", "CLASS", "PACKETS", "BYTES", "RULE", "LAST")
}

func dropCells(d *weftv1.Drop) []string {
	return []string{d.GetHost(), d.GetPort(), d.GetDirection(), d.GetReasonName(), d.GetStage(), d.GetClass(),
		strconv.FormatUint(d.GetPackets(), 10), strconv.FormatUint(d.GetBytes(), 10), ruleCell(d.GetList(), d.GetRule(), d.GetSource()), d.GetLast()}
}

// ruleCell names a rule, and where it was written.
func ruleCell(list, rule, source string) string {
	switch {
	case rule == "":
		return ""
	case source == "":
		return list + " " + rule
	}
	return fmt.Sprintf("%s %s (%s)", list, rule, source)
}

func (a *app) sayUnreachable(answer *weftv1.DropsResponse) {
	for _, h := range answer.GetUnreachableHosts() {
		a.say("host %s does not answer: its drops are not shown", h)
	}
}
