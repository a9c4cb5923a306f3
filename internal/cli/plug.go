package cli

import (
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

func (a *app) plugCommand() *cobra.Command {
	var request weftv1.PlugRequest
	var o output
	c := &cobra.Command{
		Use:   "plug TENANT/PORT (--device DEVICE | --netns NAME [--ifname IFNAME])",
		Short: "Attach a device on this host to a port",
		Long: `Attach an existing tap or veth on this host to a port (--device), or make a veth,
put its end into a network namespace and configure it (--netns). Returns when the
port is programmed, and prints how the guest should be configured.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: a.completePort,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			var err error
			if request.Tenant, request.Port, err = parsePort(args[0]); err != nil {
				return err
			}
			if (request.Device == "") == (request.Netns == "") {
				return usagef("say either --device or --netns")
			}
			if request.Device != "" && request.Ifname != "" {
				return usagef("--ifname names the guest's end of the veth that --netns makes; --device has its name already")
			}
			ctx, cancel := unary(c)
			defer cancel()
			answer, err := a.dial.agentService().Plug(ctx, connect.NewRequest(&request))
			if err != nil {
				return err
			}
			if done, err := o.message(a.out, answer.Msg); done || err != nil {
				return err
			}
			return a.printPlug(answer.Msg)
		},
	}
	c.Flags().StringVar(&request.Device, "device", "", "an existing tap or veth on this host")
	c.Flags().StringVar(&request.Netns, "netns", "", "network namespace: a name of `ip netns`, or a path")
	c.Flags().StringVar(&request.Ifname, "ifname", "", "name of the interface in the namespace (default eth0)")
	o.flag(c, "table", "json", "yaml")
	return c
}

func (a *app) printPlug(p *weftv1.PlugResponse) error {
	t := newTable("DEVICE", "MAC", "ADDRESSES", "GATEWAYS", "MTU")
	t.add(p.GetDevice(), p.GetMac(), strings.Join(p.GetAddresses(), ","), strings.Join(p.GetGateways(), ","), fmt.Sprint(p.GetMtu()))
	return t.flush(a.out)
}
