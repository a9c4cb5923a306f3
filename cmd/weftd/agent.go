package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weft-sdn/weft/internal/agent"
)

func agentCommand() *cobra.Command {
	var file, join, token string
	var print, cleanup bool
	c := &cobra.Command{
		Use:   "agent [--config FILE] [--join URL --token-file FILE | --cleanup]",
		Short: "Run this host's share: the switch",
		Long: `Run the agent of this host.

To join a fleet the first time, make a token on the server (weft token create
HOST), bring it to this host in a file that only root reads, and say --join and
--token-file, or server and tokenFile in the configuration.

The switch goes on forwarding when the agent stops. To take weft off a host, stop
the agent and say --cleanup: guests lose their network, the certificate stays.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if print {
				fmt.Fprint(c.OutOrStdout(), agent.DefaultConfig())
				return nil
			}
			if (join == "") != (token == "") {
				return usagef("--join and --token-file go together")
			}
			cfg, err := agentConfig(file)
			if err != nil {
				return err
			}
			if cleanup {
				return agent.Cleanup(cfg)
			}
			if join != "" {
				cfg.Server, cfg.TokenFile = join, token
			}
			return runAgent(c.Context(), cfg)
		},
	}
	c.Flags().StringVar(&file, "config", "", "configuration file; without it, the defaults")
	c.Flags().StringVar(&join, "join", "", "server to join: https://HOST:PORT")
	c.Flags().StringVar(&token, "token-file", "", "file with the join token")
	c.Flags().BoolVar(&cleanup, "cleanup", false, "take the switch and all that agents made off this host; refused while an agent runs")
	c.MarkFlagsMutuallyExclusive("cleanup", "join")
	c.Flags().BoolVar(&print, "print-config", false, "print the default configuration, annotated, and do nothing")
	return c
}

// agentConfig reads a file, or gives the defaults without one.
func agentConfig(file string) (agent.Config, error) {
	if file == "" {
		return agent.ParseConfig(nil)
	}
	return agent.LoadConfig(file)
}

func runAgent(ctx context.Context, cfg agent.Config) error {
	agent.Version = version
	return agent.Run(ctx, cfg, newLogger("agent"))
}
