// Command weftd is weft's daemon, by role: server, agent, both in one process
// (up), or several hosts on one machine (lab). It reads settings, starts roles
// and ends them with the process; it must never do a role's work itself, nor
// lend one role another's packages.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "unknown"

// Exit codes, as those of weft.
const (
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, out, words io.Writer) int {
	started := false
	root := rootCommand(&started)
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(words)
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errTold):
		return exitFailed
	}
	fmt.Fprintf(words, "error: %v\n", err)
	if !started || errors.Is(err, errUsage) {
		return exitUsage
	}
	return exitFailed
}

// errUsage marks what is wrong with the command line; errTold what has been
// told already.
var (
	errUsage = errors.New("wrong usage")
	errTold  = errors.New("told")
)

func usagef(format string, args ...any) error {
	return fmt.Errorf("%w: %w", errUsage, fmt.Errorf(format, args...))
}

func rootCommand(started *bool) *cobra.Command {
	root := &cobra.Command{
		Use:               "weftd",
		Short:             "The daemon of weft, by role",
		Long:              "The daemon of weft: virtual networks for fleets of Linux hypervisors.\nweft is the command line that speaks to it.",
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              cobra.NoArgs,
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error { *started = true; return nil },
	}
	root.AddCommand(upCommand(), serverCommand(), agentCommand(), labCommand(), versionCommand())
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Show the version of weftd",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			fmt.Fprintln(c.OutOrStdout(), version)
			return nil
		},
	}
}

// newLogger writes to stderr, where the service manager or the lab collects it.
func newLogger(role string) *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, nil)).With("role", role)
}
