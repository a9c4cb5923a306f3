package cli

import (
	"fmt"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

func (a *app) statusCommand() *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:   "status",
		Short: "Show the server, the hosts, and who is behind policy",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			operate, err := a.dial.operate()
			if err != nil {
				return err
			}
			ctx, cancel := unary(c)
			defer cancel()
			answer, err := operate.FleetStatus(ctx, connect.NewRequest(&weftv1.FleetStatusRequest{}))
			if err != nil {
				return err
			}
			if done, err := o.message(a.out, answer.Msg); done || err != nil {
				return err
			}
			return a.printStatus(answer.Msg)
		},
	}
	o.flag(c, "table", "json", "yaml")
	return c
}

func (a *app) printStatus(s *weftv1.FleetStatusResponse) error {
	connected := 0
	for _, h := range s.GetHosts() {
		if h.GetConnected() {
			connected++
		}
	}
	fmt.Fprintf(a.out, "server %s, store %s, revision %d, %d of %d hosts connected\n",
		s.GetVersion(), s.GetStore(), s.GetRevision(), connected, len(s.GetHosts()))
	if len(s.GetHosts()) == 0 {
		return nil
	}
	t := newTable("HOST", "CONNECTED", "SENT", "ACKNOWLEDGED", "LAG", "PORTS", "RECORDS", "PAS", "DECAP", "VERSION")
	for _, h := range s.GetHosts() {
		t.add(h.GetName(), yesNo(h.GetConnected()), strconv.FormatInt(h.GetSentRevision(), 10), strconv.FormatInt(h.GetAcknowledgedRevision(), 10),
			h.GetLag(), strconv.Itoa(int(h.GetPorts())), strconv.Itoa(int(h.GetRecords())),
			strings.Join(h.GetProviderAddresses(), ","), h.GetDecap(), h.GetAgentVersion())
	}
	if err := t.flush(a.out); err != nil {
		return err
	}
	for _, h := range s.GetHosts() {
		for _, f := range h.GetFailures() {
			fmt.Fprintf(a.out, "%s: %s\n", h.GetName(), f)
		}
	}
	return nil
}
