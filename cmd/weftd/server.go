package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/weft-sdn/weft/internal/server"
)

func serverCommand() *cobra.Command {
	var file string
	var print bool
	c := &cobra.Command{
		Use:   "server [--config FILE]",
		Short: "Run the server: API, policy and store",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if print {
				fmt.Fprint(c.OutOrStdout(), server.DefaultConfig())
				return nil
			}
			cfg, err := serverConfig(file)
			if err != nil {
				return err
			}
			return runServer(c.Context(), cfg)
		},
	}
	c.Flags().StringVar(&file, "config", "", "configuration file; without it, the defaults")
	c.Flags().BoolVar(&print, "print-config", false, "print the default configuration, annotated, and do nothing")
	return c
}

// serverConfig reads a file, or gives the defaults without one.
func serverConfig(file string) (server.Config, error) {
	if file == "" {
		return server.ParseConfig(nil)
	}
	return server.LoadConfig(file)
}

func runServer(ctx context.Context, cfg server.Config) error {
	cfg.Version = version
	return server.Run(ctx, cfg, newLogger("server"))
}
