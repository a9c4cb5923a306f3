package cli

import (
	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/manifest"
)

func (a *app) deleteCommand() *cobra.Command {
	var file, tenant string
	var dryRun bool
	var o output
	c := &cobra.Command{
		Use:               "delete -f FILE|- | KIND [TENANT/]NAME...",
		Short:             "Remove resources, all or none",
		Long:              "Remove the named resources, or those of a manifest, as one transaction. What still depends on them is named, and nothing is removed then.",
		ValidArgsFunction: a.completeKindName,
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			items, err := a.deleteItems(file, args, tenant)
			if err != nil {
				return err
			}
			policy, err := a.dial.policy()
			if err != nil {
				return err
			}
			ctx, cancel := unary(c)
			defer cancel()
			answer, err := policy.Delete(ctx, connect.NewRequest(&weftv1.DeleteRequest{Items: items, DryRun: dryRun}))
			if err != nil {
				return err
			}
			if done, err := o.message(a.out, answer.Msg); done || err != nil {
				return err
			}
			a.printChanges(answer.Msg.GetChanges(), answer.Msg.GetHosts(), dryRun)
			return nil
		},
	}
	c.Flags().StringVarP(&file, "filename", "f", "", "manifest, or - for standard input")
	c.Flags().StringVarP(&tenant, "tenant", "n", "", "tenant of the names")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "show what would be removed, and remove nothing")
	o.flag(c, "table", "json", "yaml")
	return c
}

// deleteItems come from a manifest or from KIND NAME….
func (a *app) deleteItems(file string, args []string, tenant string) ([]*weftv1.DeleteRequest_Item, error) {
	if file == "" && len(args) < 2 {
		return nil, usagef("say what to delete: -f FILE, or KIND NAME")
	}
	if file != "" && len(args) > 0 {
		return nil, usagef("-f FILE says what to delete; leave KIND NAME out")
	}
	var items []*weftv1.DeleteRequest_Item
	if file != "" {
		resources, err := a.readManifest(file)
		if err != nil {
			return nil, err
		}
		for _, r := range resources {
			items = append(items, &weftv1.DeleteRequest_Item{Key: manifest.Key(r), Revision: manifest.Meta(r).GetRevision()})
		}
		return items, nil
	}
	kind, err := parseKind(args[0])
	if err != nil {
		return nil, err
	}
	for _, name := range args[1:] {
		key, err := parseKey(kind, name, tenant)
		if err != nil {
			return nil, err
		}
		items = append(items, &weftv1.DeleteRequest_Item{Key: key})
	}
	return items, nil
}
