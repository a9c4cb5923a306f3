package cli

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

func (a *app) verifyCommand() *cobra.Command {
	var host string
	var o output
	c := &cobra.Command{
		Use:   "verify",
		Short: "Compare what the kernel holds with what policy says (exit code 3 when they differ)",
		Long:  "Ask every host, or one, to read the kernel back and compare it with policy.\nOn a host that knows no server, the local agent alone.",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			ctx, cancel := unary(c)
			defer cancel()
			answer, err := a.verify(ctx, host)
			if err != nil {
				return err
			}
			if done, err := o.message(a.out, answer); err != nil {
				return err
			} else if !done {
				a.printVerification(answer)
			}
			if wrong := countDrift(answer); wrong > 0 {
				return notConverged("%d of %d hosts differ from policy or do not answer", wrong, len(answer.GetHosts()))
			}
			return nil
		},
	}
	c.Flags().StringVar(&host, "host", "", "only this host")
	o.flag(c, "table", "json", "yaml")
	return c
}

// verify asks the server, or the local agent where there is only that.
func (a *app) verify(ctx context.Context, host string) (*weftv1.VerifyResponse, error) {
	if a.dial.agentOnly() {
		answer, err := a.dial.agentService().LocalVerify(ctx, connect.NewRequest(&weftv1.LocalVerifyRequest{}))
		if err != nil {
			return nil, err
		}
		return &weftv1.VerifyResponse{Hosts: []*weftv1.HostVerification{answer.Msg}}, nil
	}
	operate, err := a.dial.operate()
	if err != nil {
		return nil, err
	}
	answer, err := operate.Verify(ctx, connect.NewRequest(&weftv1.VerifyRequest{Host: host}))
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

func (a *app) printVerification(answer *weftv1.VerifyResponse) {
	for _, h := range answer.GetHosts() {
		switch {
		case !h.GetReachable():
			fmt.Fprintf(a.out, "%s does not answer\n", h.GetHost())
		case len(h.GetDifferences()) == 0:
			fmt.Fprintf(a.out, "%s holds revision %d\n", h.GetHost(), h.GetRevision())
		default:
			fmt.Fprintf(a.out, "%s differs from revision %d\n", h.GetHost(), h.GetRevision())
		}
		for _, d := range h.GetDifferences() {
			fmt.Fprintf(a.out, "  %s\n", d)
		}
	}
}

func countDrift(answer *weftv1.VerifyResponse) int {
	n := 0
	for _, h := range answer.GetHosts() {
		if !h.GetReachable() || len(h.GetDifferences()) > 0 {
			n++
		}
	}
	return n
}
