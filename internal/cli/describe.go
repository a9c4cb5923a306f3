package cli

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/manifest"
)

func (a *app) describeCommand() *cobra.Command {
	var tenant string
	c := &cobra.Command{
		Use:               "describe KIND [TENANT/]NAME",
		Short:             "Show one resource, for people",
		Args:              cobra.ExactArgs(2),
		ValidArgsFunction: a.completeKindName,
		RunE: func(c *cobra.Command, args []string) error {
			kind, err := parseKind(args[0])
			if err != nil {
				return err
			}
			key, err := parseKey(kind, args[1], tenant)
			if err != nil {
				return err
			}
			policy, err := a.dial.policy()
			if err != nil {
				return err
			}
			ctx, cancel := unary(c)
			defer cancel()
			answer, err := policy.Get(ctx, connect.NewRequest(&weftv1.GetRequest{Key: key}))
			if err != nil {
				return err
			}
			return a.describe(answer.Msg.GetResource())
		},
	}
	c.Flags().StringVarP(&tenant, "tenant", "n", "", "tenant of the name")
	return c
}

// describe prints the resource as aligned fields, and its conditions as a table.
func (a *app) describe(r *weftv1.Resource) error {
	text, err := manifest.Format(r)
	if err != nil {
		return err
	}
	var document yaml.Node
	if err := yaml.Unmarshal(text, &document); err != nil {
		return fmt.Errorf("describe %s: %w", manifest.KeyString(manifest.Key(r)), err)
	}
	fmt.Fprintln(a.out, manifest.KeyString(manifest.Key(r)))
	root := document.Content[0]
	for i := 0; i+1 < len(root.Content); i += 2 {
		if section := root.Content[i]; section.Value != "kind" {
			a.describeSection(section.Value, root.Content[i+1])
		}
	}
	return a.describeConditions(manifest.Status(r).GetConditions())
}

func (a *app) describeSection(title string, n *yaml.Node) {
	var rows [][2]string
	width := 0
	flatten(n, "", func(name, value string) {
		if title == "metadata" && (name == "name" || name == "tenant") || strings.HasPrefix(name, "conditions") {
			return
		}
		rows = append(rows, [2]string{name, value})
		width = max(width, utf8.RuneCountInString(name))
	})
	if len(rows) == 0 {
		return
	}
	fmt.Fprintf(a.out, "%s\n", title)
	for _, row := range rows {
		fmt.Fprintf(a.out, "  %-*s  %s\n", width, row[0], row[1])
	}
}

// flatten visits the leaves of n as dotted names, lists of scalars as one line.
func flatten(n *yaml.Node, name string, visit func(name, value string)) {
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			inner := n.Content[i].Value
			if name != "" {
				inner = name + "." + inner
			}
			flatten(n.Content[i+1], inner, visit)
		}
	case yaml.SequenceNode:
		if len(n.Content) > 0 && n.Content[0].Kind == yaml.MappingNode {
			for i, item := range n.Content {
				flatten(item, fmt.Sprintf("%s[%d]", name, i), visit)
			}
			return
		}
		var values []string
		for _, item := range n.Content {
			values = append(values, item.Value)
		}
		visit(name, strings.Join(values, ", "))
	default:
		visit(name, n.Value)
	}
}

func (a *app) describeConditions(conditions []*weftv1.Condition) error {
	if len(conditions) == 0 {
		return nil
	}
	fmt.Fprintln(a.out, "conditions")
	t := newTable("  TYPE", "STATUS", "REASON", "GENERATION", "SINCE", "MESSAGE")
	for _, c := range conditions {
		since := ""
		if c.GetChangedAt() != nil {
			since = shortDuration(a.now().Sub(c.GetChangedAt().AsTime()))
		}
		t.add("  "+c.GetType(), c.GetStatus(), c.GetReason(), fmt.Sprint(c.GetObservedGeneration()), since, c.GetMessage())
	}
	return t.flush(a.out)
}
