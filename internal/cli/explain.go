package cli

import (
	"fmt"
	"sort"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weft-sdn/weft/internal/manifest"
	"github.com/weft-sdn/weft/internal/model"
)

func (a *app) explainCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "explain [REASON | FIELD]",
		Short: "Say what a drop reason or a field means, and what to do",
		Long: `Say what a drop reason (SPOOFED_CA), a field (port.spec.addresses) or all fields
of a kind (port) mean. Without an argument, list the reasons.`,
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return explainable(), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return a.listReasons()
			}
			return a.explain(args[0])
		},
	}
}

func (a *app) explain(word string) error {
	if v, ok := model.VerdictByName(strings.ReplaceAll(word, "-", "_")); ok {
		fmt.Fprintf(a.out, "%s (%d), stage %s, class %s\n  %s\n  %s\n", v.Name, v.Verdict, v.Stage, v.Class, v.Sentence, v.Action)
		return nil
	}
	if f, ok := model.FindingByName(word); ok {
		fmt.Fprintf(a.out, "%s, a reason of the condition GuestConfigured\n  %s\n  %s\n", f.Finding, f.Sentence, f.Action)
		return nil
	}
	if kind, err := parseKind(word); err == nil {
		return a.explainFields(fieldPaths(string(kind)))
	}
	head, rest, dotted := strings.Cut(word, ".")
	if kind, err := parseKind(head); err == nil && dotted {
		word = string(kind) + "." + rest
	}
	if fields := findFields(word); len(fields) > 0 {
		return a.explainFields(fields)
	}
	hint := ""
	if s := manifest.Suggest(word, explainable()); s != "" {
		hint = ", did you mean " + s + "?"
	}
	return fmt.Errorf("nothing is known about %q%s", word, hint)
}

func (a *app) explainFields(paths []string) error {
	for _, p := range paths {
		fmt.Fprintf(a.out, "%s\n  %s\n", p, fieldDocs[p])
	}
	return nil
}

func (a *app) listReasons() error {
	t := newTable("REASON", "STAGE", "CLASS", "WHAT HAPPENED")
	for _, v := range model.Verdicts() {
		if v.Verdict.IsDrop() {
			t.add(v.Name, v.Stage, v.Class, v.Sentence)
		}
	}
	return t.flush(a.out)
}

// explainable lists every word that explain knows in full.
func explainable() []string {
	var words []string
	for _, v := range model.Verdicts() {
		words = append(words, v.Name)
	}
	for _, f := range model.Findings() {
		words = append(words, string(f.Finding))
	}
	fields := make([]string, 0, len(fieldDocs))
	for path := range fieldDocs {
		fields = append(fields, path)
	}
	sort.Strings(fields)
	return append(words, fields...)
}
