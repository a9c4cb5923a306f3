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
	"github.com/weft-sdn/weft/internal/manifest"
	"github.com/weft-sdn/weft/internal/model"
)

// waitInterval is how often --wait looks at what is not yet programmed.
const waitInterval = 200 * time.Millisecond

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
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	resources, err := manifest.Read(r)
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

// waitProgrammed waits until every changed resource is programmed in the
// generation that was applied.
func (a *app) waitProgrammed(ctx context.Context, policy weftv1connect.PolicyServiceClient, changes []*weftv1.Change, timeout time.Duration) error {
	wanted := make(map[string]int64)
	kinds := make(map[model.Kind]bool)
	for _, c := range changes {
		wanted[manifest.KeyString(c.GetKey())] = manifest.Meta(c.GetAfter()).GetGeneration()
		kinds[model.Kind(c.GetKey().GetKind())] = true
	}
	a.say("waiting for the hosts to acknowledge")
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tick := time.NewTicker(waitInterval)
	defer tick.Stop()
	var missing []string
	for {
		now, err := unprogrammed(ctx, policy, kinds, wanted)
		switch {
		case err == nil && len(now) == 0:
			return nil
		case err == nil:
			missing = now
		case ctx.Err() == nil:
			return err
		}
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			for _, m := range missing {
				a.say("%s", m)
			}
			return notConverged("%d of %d resources not programmed after %s", len(missing), len(wanted), timeout)
		case <-tick.C:
		}
	}
}

// unprogrammed lists what is not yet programmed, with the reason.
func unprogrammed(ctx context.Context, policy weftv1connect.PolicyServiceClient, kinds map[model.Kind]bool, wanted map[string]int64) ([]string, error) {
	var missing []string
	for _, kind := range model.Kinds {
		if !kinds[kind] {
			continue
		}
		all, err := list(ctx, policy, kind, "")
		if err != nil {
			return nil, err
		}
		for _, r := range all.GetResources() {
			key := manifest.KeyString(manifest.Key(r))
			generation, ok := wanted[key]
			if !ok {
				continue
			}
			if why := notProgrammed(r, generation); why != "" {
				missing = append(missing, key+": "+why)
			}
		}
	}
	return missing, nil
}

// notProgrammed says why r is not programmed in the generation, or "".
func notProgrammed(r *weftv1.Resource, generation int64) string {
	c := condition(r, "Programmed")
	switch {
	case c == nil:
		return "nothing is known yet"
	case c.GetObservedGeneration() < generation:
		return "the change has not been looked at yet"
	case c.GetStatus() != "True":
		return fmt.Sprintf("Programmed is %s: %s: %s", c.GetStatus(), c.GetReason(), c.GetMessage())
	}
	return ""
}

// condition of r by its type; nil when there is none.
func condition(r *weftv1.Resource, name string) *weftv1.Condition {
	for _, c := range manifest.Status(r).GetConditions() {
		if c.GetType() == name {
			return c
		}
	}
	return nil
}
