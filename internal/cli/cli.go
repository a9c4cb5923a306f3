// Package cli is weft, the command line: a client of the server's and the
// agent's API and nothing else.
//
// Invariants: data goes to stdout and words to stderr; the exit code is 0 done,
// 1 failed, 2 wrong usage, 3 not converged or drift; -o json is the API's
// message. It never prompts.
//
// It must never link etcd, netlink or eBPF, so that weft runs on any laptop.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	ExitDone         = 0
	ExitFailed       = 1
	ExitUsage        = 2
	ExitNotConverged = 3
)

// requestTimeout bounds a call that does not stream.
const requestTimeout = 60 * time.Second

// app is what every command shares.
type app struct {
	version  string
	in       io.Reader
	out, err io.Writer
	now      func() time.Time
	dial     dialer
	started  bool // a command's own code has begun: what fails now is not usage
}

// Main runs weft with args (without the program's name) and returns the exit code.
func Main(ctx context.Context, version string, args []string, in io.Reader, out, err io.Writer) int {
	return run(ctx, &app{version: version, in: in, out: out, err: err, now: time.Now}, args)
}

func run(ctx context.Context, a *app, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	failure := root.ExecuteContext(ctx)
	if failure == nil {
		return ExitDone
	}
	a.report(failure)
	var coded exitError
	switch {
	case errors.As(failure, &coded):
		return coded.code
	case !a.started:
		return ExitUsage
	}
	return ExitFailed
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "weft",
		Short: "Virtual networks for fleets of Linux hypervisors",
		Long: `weft is the command line of weft: virtual networks for fleets of Linux hypervisors.

It finds the server by --server, WEFT_SERVER, the context file (--context,
WEFT_CONTEXT, or weft/context.yaml in the user's configuration directory), or the
local socket /run/weft/server.sock; the agent of this host by --agent, WEFT_AGENT,
or /run/weft/agent.sock.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not converged or drift.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		// Without it, cobra takes "weft" alone for done and prints no error for typing mistakes.
		RunE:              func(c *cobra.Command, _ []string) error { return c.Help() },
		PersistentPreRunE: func(*cobra.Command, []string) error { a.started = true; return nil },
	}
	flags := root.PersistentFlags()
	flags.StringVar(&a.dial.server, "server", "", "server: https://HOST:PORT, or the path of its local socket")
	flags.StringVar(&a.dial.agent, "agent", "", "path of the local agent's socket")
	flags.StringVar(&a.dial.context, "context", "", "context file: server, ca, certificate, key")
	root.AddCommand(
		a.applyCommand(), a.deleteCommand(), a.getCommand(), a.describeCommand(), a.diffCommand(),
		a.plugCommand(), a.unplugCommand(),
		a.statusCommand(), a.traceCommand(), a.captureCommand(), a.dropsCommand(), a.verifyCommand(), a.doctorCommand(), a.lookupCommand(),
		a.explainCommand(), a.tokenCommand(), a.versionCommand(),
	)
	return root
}

// say writes one line of words, never data.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.err, format+"\n", args...) }

// unary bounds a call that does not stream.
func unary(c *cobra.Command) (context.Context, context.CancelFunc) {
	return context.WithTimeout(c.Context(), requestTimeout)
}
