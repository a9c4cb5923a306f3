package cli

import (
	"net/netip"
	"strconv"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/model"
)

func (a *app) lookupCommand() *cobra.Command {
	var o output
	c := &cobra.Command{
		Use:   "lookup VSID CA",
		Short: "Show what policy holds for a Customer Address in a subnet",
		Args:  cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			vsid, err := strconv.ParseUint(args[0], 10, 32)
			if err != nil || !model.VSID(vsid).Valid() {
				return usagef("VSID %q: write a number from %d to %d", args[0], model.MinVSID, model.MaxVSID)
			}
			ca, err := netip.ParseAddr(args[1])
			if err != nil {
				return usagef("CA %q: write an IPv4 or IPv6 address", args[1])
			}
			operate, err := a.dial.operate()
			if err != nil {
				return err
			}
			ctx, cancel := unary(c)
			defer cancel()
			answer, err := operate.Lookup(ctx, connect.NewRequest(&weftv1.LookupRequest{Vsid: uint32(vsid), Ca: ca.String()}))
			if err != nil {
				return err
			}
			if done, err := o.message(a.out, answer.Msg); done || err != nil {
				return err
			}
			m := answer.Msg
			t := newTable("TENANT", "NETWORK", "SUBNET", "KIND", "PORT", "MAC", "HOST", "PA", "REWRITE")
			t.add(m.GetTenant(), m.GetNetwork(), m.GetSubnet(), m.GetKind(), m.GetPort(), m.GetMac(), m.GetHost(), m.GetPa(), m.GetRewrite())
			return t.flush(a.out)
		},
	}
	o.flag(c, "table", "json", "yaml")
	return c
}
