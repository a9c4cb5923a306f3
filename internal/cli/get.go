package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/api/weft/v1/weftv1connect"
	"github.com/weft-sdn/weft/internal/manifest"
	"github.com/weft-sdn/weft/internal/model"
)

// getter is one invocation of get.
type getter struct {
	*app
	output
	kind   model.Kind
	tenant string
	names  []string
}

func (a *app) getCommand() *cobra.Command {
	g := &getter{app: a}
	var all, watch bool
	c := &cobra.Command{
		Use:   "get KIND [[TENANT/]NAME...]",
		Short: "Show resources",
		Long: `Show resources of a kind: one tenant's with -n, all with -A or without either.

Kinds: tenants, hosts, pas (ProviderAddress), providerroutes, externals
(ExternalNetwork), groups (AddressGroup), acls (AccessList), networks (VirtualNetwork), subnets (VirtualSubnet), profiles (PortProfile), ports,
routes (CustomerRoute), records (LookupRecord); in any case, singular or plural.
-o wide of acls shows every rule with the packets that it matched, on all hosts, and all
of the connections that it opened. connections, which
are no resources, has flags of its own: weft get connections -h.
-o yaml can be given back to weft apply; -o name prints KIND TENANT/NAME.`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: a.completeKindName,
		RunE: func(c *cobra.Command, args []string) error {
			if err := g.check(); err != nil {
				return err
			}
			kind, err := parseKind(args[0])
			if err != nil {
				return err
			}
			if all && g.tenant != "" {
				return usagef("-n and -A contradict each other")
			}
			if g.tenant != "" && !kind.Tenanted() {
				return usagef("a %s is in no tenant: leave -n out", kind)
			}
			g.kind, g.names = kind, args[1:]
			policy, err := a.dial.policy()
			if err != nil {
				return err
			}
			switch {
			case watch && len(g.names) > 1:
				return usagef("-w watches one name or all")
			case watch:
				return g.watch(c.Context(), policy)
			case len(g.names) > 0:
				return g.some(c, policy)
			}
			return g.list(c, policy)
		},
	}
	c.AddCommand(a.connectionsCommand())
	c.Flags().StringVarP(&g.tenant, "tenant", "n", "", "only this tenant's")
	c.Flags().BoolVarP(&all, "all-tenants", "A", false, "every tenant's")
	c.Flags().BoolVarP(&watch, "watch", "w", false, "go on showing what changes")
	g.flag(c, "table", "wide", "json", "yaml", "name")
	return c
}

func list(ctx context.Context, policy weftv1connect.PolicyServiceClient, kind model.Kind, tenant string) (*weftv1.ListResponse, error) {
	answer, err := policy.List(ctx, connect.NewRequest(&weftv1.ListRequest{Kind: string(kind), Tenant: tenant}))
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

func (g *getter) list(c *cobra.Command, policy weftv1connect.PolicyServiceClient) error {
	ctx, cancel := unary(c)
	defer cancel()
	all, err := list(ctx, policy, g.kind, g.tenant)
	if err != nil {
		return err
	}
	if g.format == "json" {
		return writeJSON(g.out, all)
	}
	if len(all.GetResources()) == 0 {
		g.say("no %s", g.kind)
		return nil
	}
	return g.show(ctx, all.GetResources())
}

// some shows the named ones.
func (g *getter) some(c *cobra.Command, policy weftv1connect.PolicyServiceClient) error {
	ctx, cancel := unary(c)
	defer cancel()
	var found []*weftv1.Resource
	for _, name := range g.names {
		key, err := parseKey(g.kind, name, g.tenant)
		if err != nil {
			return err
		}
		answer, err := policy.Get(ctx, connect.NewRequest(&weftv1.GetRequest{Key: key}))
		if err != nil {
			return err
		}
		found = append(found, answer.Msg.GetResource())
	}
	if g.format != "json" {
		return g.show(ctx, found)
	}
	if len(found) == 1 {
		return writeJSON(g.out, found[0])
	}
	return writeJSON(g.out, &weftv1.ListResponse{Resources: found})
}

// show is print for what does not change meanwhile: counters are asked for.
func (g *getter) show(ctx context.Context, resources []*weftv1.Resource) error {
	if g.kind == model.KindAccessList && g.format == "wide" {
		return g.printRules(ctx, resources)
	}
	return g.print(resources)
}

func (g *getter) print(resources []*weftv1.Resource) error {
	switch g.format {
	case "yaml":
		text, err := manifest.Format(resources...)
		if err != nil {
			return err
		}
		_, err = g.out.Write(text)
		return err
	case "name":
		for _, r := range resources {
			fmt.Fprintln(g.out, manifest.KeyString(manifest.Key(r)))
		}
		return nil
	}
	columns := columnsOf(g.kind, g.format == "wide")
	t := newTable(headers(columns)...)
	for _, r := range resources {
		t.add(g.cells(columns, r)...)
	}
	return t.flush(g.out)
}

func (g *getter) cells(columns []column, r *weftv1.Resource) []string {
	cells := make([]string, len(columns))
	for i, c := range columns {
		cells[i] = c.value(r, g.now())
	}
	return cells
}

// watch prints what is there and then every change until somebody interrupts
// it. A server that goes away and comes back is waited for.
func (g *getter) watch(ctx context.Context, policy weftv1connect.PolicyServiceClient) error {
	w := &watcher{getter: g, columns: columnsOf(g.kind, g.format == "wide")}
	w.table = newTable(append([]string{"EVENT"}, headers(w.columns)...)...)
	if len(g.names) == 1 {
		var err error
		if w.only, err = parseKey(g.kind, g.names[0], g.tenant); err != nil {
			return err
		}
	}
	for away := false; ; {
		before := w.seen
		err := w.follow(ctx, policy)
		if err == nil || ctx.Err() != nil {
			return nil // interrupted by whoever watched
		}
		if w.seen == 0 || !passing(err) {
			return err
		}
		if away = away && w.seen == before; !away {
			g.say("the server is away; the watch goes on when it is back")
			away = true
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(tryAgain):
		}
	}
}

// tryAgain is how long a watch waits before it looks for its server again.
const tryAgain = 500 * time.Millisecond

// passing reports whether an error may be gone the next time.
func passing(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeInternal, connect.CodeUnknown, connect.CodeCanceled, connect.CodeAborted:
		var answer *connect.Error
		return errors.As(err, &answer)
	}
	return false
}

// watcher is a watch over one stream after another.
type watcher struct {
	*getter
	only     *weftv1.Key // nil: all
	columns  []column
	table    *table
	seen     int64 // revision up to which all was shown; 0: none
	snapshot bool
}

// follow shows one stream's events, from where the last one ended.
func (w *watcher) follow(ctx context.Context, policy weftv1connect.PolicyServiceClient) error {
	request := &weftv1.WatchRequest{Kind: string(w.kind), Tenant: first(w.only.GetTenant(), w.tenant), FromRevision: w.seen}
	stream, err := policy.Watch(ctx, connect.NewRequest(request))
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		event := stream.Msg()
		switch event.GetType() {
		case weftv1.WatchResponse_SNAPSHOT_BEGIN:
			w.snapshot = true
		case weftv1.WatchResponse_SYNCED:
			w.snapshot = false
		}
		// What ends half way through a snapshot is begun again.
		if !w.snapshot {
			w.seen = max(w.seen, event.GetRevision())
		}
		if w.only != nil && !concerns(event, w.only.GetName()) {
			continue
		}
		if err := w.printEvent(event, w.snapshot, w.table, w.columns); err != nil {
			return err
		}
	}
	return stream.Err()
}

// concerns reports whether an event is about the name, or about the stream itself.
func concerns(event *weftv1.WatchResponse, name string) bool {
	switch event.GetType() {
	case weftv1.WatchResponse_PUT:
		return manifest.Meta(event.GetResource()).GetName() == name
	case weftv1.WatchResponse_DELETED:
		return event.GetKey().GetName() == name
	}
	return true
}

func (g *getter) printEvent(event *weftv1.WatchResponse, snapshot bool, t *table, columns []column) error {
	if g.format == "json" {
		return writeJSONLine(g.out, event)
	}
	switch event.GetType() {
	case weftv1.WatchResponse_PUT:
		if g.format == "yaml" || g.format == "name" {
			return g.printDocument(event.GetResource())
		}
		name := "changed"
		if snapshot {
			name = "present"
		}
		t.add(append([]string{name}, g.cells(columns, event.GetResource())...)...)
	case weftv1.WatchResponse_DELETED:
		if g.format == "yaml" || g.format == "name" {
			g.say("%s is gone", manifest.KeyString(event.GetKey()))
			return nil
		}
		t.add(append([]string{"gone"}, goneCells(columns, event.GetKey())...)...)
	}
	// A snapshot is printed as one table, so that its columns line up.
	if snapshot || g.format == "yaml" || g.format == "name" {
		return nil
	}
	return t.flush(g.out)
}

// printDocument prints one document of a stream of documents.
func (g *getter) printDocument(r *weftv1.Resource) error {
	if g.format == "yaml" {
		fmt.Fprintln(g.out, "---")
	}
	return g.print([]*weftv1.Resource{r})
}

// goneCells names what is gone, in the columns that name things.
func goneCells(columns []column, key *weftv1.Key) []string {
	cells := make([]string, len(columns))
	for i, c := range columns {
		switch c.header {
		case "TENANT":
			cells[i] = key.GetTenant()
		case "NAME":
			cells[i] = key.GetName()
		}
	}
	return cells
}
