package cli

import (
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

func (a *app) tokenCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "token",
		Short: "Let hosts in",
		Args:  cobra.NoArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.tokenCreateCommand())
	return c
}

func (a *app) tokenCreateCommand() *cobra.Command {
	var ttl time.Duration
	var o output
	c := &cobra.Command{
		Use:   "create HOST",
		Short: "Make a single-use token that lets one agent join as HOST",
		Long:  "Make a single-use token that lets one agent join as HOST, and print it.\nKeep it in a file that only root reads: weftd agent --join URL --token-file FILE.",
		Args:  cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if ttl < time.Second {
				return usagef("--ttl %s: at least one second", ttl)
			}
			operate, err := a.dial.operate()
			if err != nil {
				return err
			}
			ctx, cancel := unary(c)
			defer cancel()
			answer, err := operate.CreateToken(ctx, connect.NewRequest(&weftv1.CreateTokenRequest{Host: args[0], TtlSeconds: int64(ttl / time.Second)}))
			if err != nil {
				return err
			}
			if done, err := o.message(a.out, answer.Msg); done || err != nil {
				return err
			}
			a.say("expires %s", answer.Msg.GetExpires())
			fmt.Fprintln(a.out, answer.Msg.GetToken())
			return nil
		},
	}
	c.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long the token may wait for its agent")
	o.flag(c, "table", "json", "yaml")
	return c
}
