package cli

import (
	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

func (a *app) unplugCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "unplug TENANT/PORT",
		Short:             "Detach the device of a port on this host",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completePort,
		RunE: func(c *cobra.Command, args []string) error {
			tenant, port, err := parsePort(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := unary(c)
			defer cancel()
			_, err = a.dial.agentService().Unplug(ctx, connect.NewRequest(&weftv1.UnplugRequest{Tenant: tenant, Port: port}))
			return err
		},
	}
}
