package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/api/weft/v1/weftv1connect"
	"github.com/weft-sdn/weft/internal/client"
	"github.com/weft-sdn/weft/internal/manifest"
)

func (a *app) applyCommand() *cobra.Command {
	var file string
	var dryRun, wait bool
	var timeout time.Duration
	var o output
	c := &cobra.Command{
		Use:   "apply -f FILE|-",
		Short: "Create or change resources, all or none",
		Long: `Create or change the resources of a manifest as one transaction.

--dry-run shows what would change, on which hosts, and changes nothing.
--wait returns when every host concerned has acknowledged (exit code 3 when it
has not in time).`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if dryRun && wait {
				return usagef("--dry-run programs nothing that --wait could wait for")
			}
			resources, err := a.readManifest(file)
			if err != nil {
				return err
			}
			policy, err := a.dial.policy()
			if err != nil {
				return err
			}
			ctx, cancel := unary(c)
			defer cancel()
			answer, err := policy.Apply(ctx, connect.NewRequest(&weftv1.ApplyRequest{Resources: resources, DryRun: dryRun}))
			if err != nil {
				return err
			}
			if done, err := o.message(a.out, answer.Msg); err != nil {
				return err
			} else if !done {
				a.printChanges(answer.Msg.GetChanges(), answer.Msg.GetHosts(), dryRun)
			}
			if !wait {
				return nil
			}
			return a.waitProgrammed(c.Context(), policy, answer.Msg.GetChanges(), timeout)
		},
	}
	c.Flags().StringVarP(&file, "filename", "f", "", "manifest, or - for standard input")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "show what would change, and change nothing")
	c.Flags().BoolVar(&wait, "wait", false, "return when every host concerned has acknowledged")
	c.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long --wait waits")
	o.flag(c, "table", "json", "yaml")
	return c
}

// readManifest reads a file, or standard input for "-".
func (a *app) readManifest(file string) ([]*weftv1.Resource, error) {
	if file == "" {
		return nil, usagef("say which manifest: -f FILE, or -f - for standard input")
	}
	var r io.Reader = a.in
	source := ""
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r, source = f, file
	}
	resources, err := manifest.ReadFile(source, r)
	if err != nil {
		return nil, err
	}
	if len(resources) == 0 {
		return nil, fmt.Errorf("%s holds no resource", file)
	}
	return resources, nil
}

// printChanges writes one line per resource, and what it means per host when
// nothing was stored.
func (a *app) printChanges(changes []*weftv1.Change, hosts []*weftv1.HostDifference, dryRun bool) {
	suffix := ""
	if dryRun {
		suffix = " (dry run)"
	}
	for _, c := range changes {
		fmt.Fprintf(a.out, "%s %s%s\n", manifest.KeyString(c.GetKey()), c.GetAction(), suffix)
	}
	if dryRun {
		a.printHosts(hosts)
	}
}

// printHosts writes the lines that a change adds to and removes from each host.
func (a *app) printHosts(hosts []*weftv1.HostDifference) {
	for _, h := range hosts {
		if len(h.GetAdded())+len(h.GetRemoved()) == 0 {
			continue
		}
		fmt.Fprintf(a.out, "host %s\n", h.GetHost())
		for _, l := range h.GetRemoved() {
			fmt.Fprintf(a.out, "  %s\n", signed("-", l))
		}
		for _, l := range h.GetAdded() {
			fmt.Fprintf(a.out, "  %s\n", signed("+", l))
		}
	}
}

// signed puts the sign before a line that does not carry it yet.
func signed(sign, line string) string {
	if len(line) > 1 && line[:1] == sign && line[1] == ' ' {
		return line
	}
	return sign + " " + line
}

// waitProgrammed waits until the hosts have acknowledged the changes.
func (a *app) waitProgrammed(ctx context.Context, policy weftv1connect.PolicyServiceClient, changes []*weftv1.Change, timeout time.Duration) error {
	a.say("waiting for the hosts to acknowledge")
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := client.WaitProgrammed(ctx, policy, changes)
	var late *client.NotProgrammed
	if !errors.As(err, &late) {
		return err
	}
	for _, m := range late.Missing {
		a.say("%s", m)
	}
	return notConverged("%w after %s", late, timeout)
}
