package cli

import (
	"context"
	"fmt"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/api/weft/v1/weftv1connect"
	"github.com/weft-sdn/weft/internal/manifest"
)

func (a *app) diffCommand() *cobra.Command {
	var file string
	var limit uint32
	c := &cobra.Command{
		Use:   "diff -f FILE|-",
		Short: "Show what apply would change (exit code 3 when anything would)",
		Long: `Show what apply would change: resources, what that means for the hosts, and which flows of the
last hour the rules of access lists would judge otherwise, with the rule that decides before and
after. A flow is what a port has sent or got between two ends; the port that a client has for
a while is a star. PACKETS are those that were judged: of a connection the first. With a "+", the
port has no rules yet, and only some of its packets were looked at. Which flows cannot be known
is in docs/design/flows.md. Nothing is stored or changed.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
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
			return a.diff(ctx, policy, resources, limit)
		},
	}
	c.Flags().StringVarP(&file, "filename", "f", "", "manifest, or - for standard input")
	c.Flags().Uint32Var(&limit, "limit", 0, "flows of each host, at most 10000 (default 1000)")
	return c
}

func (a *app) diff(ctx context.Context, policy weftv1connect.PolicyServiceClient, resources []*weftv1.Resource, limit uint32) error {
	answer, err := policy.Apply(ctx, connect.NewRequest(&weftv1.ApplyRequest{Resources: resources, DryRun: true}))
	if err != nil {
		return err
	}
	differing := 0
	for _, change := range answer.Msg.GetChanges() {
		if change.GetAction() == "unchanged" {
			continue
		}
		differing++
		var before *weftv1.Resource
		if change.GetAction() != "created" {
			got, err := policy.Get(ctx, connect.NewRequest(&weftv1.GetRequest{Key: change.GetKey()}))
			if err != nil {
				return err
			}
			before = got.Msg.GetResource()
		}
		if err := a.printDiff(change, before); err != nil {
			return err
		}
	}
	a.printHosts(answer.Msg.GetHosts())
	if differing > 0 {
		if err := a.diffFlows(ctx, &weftv1.TryRulesRequest{Resources: resources, Limit: limit}); err != nil {
			return err
		}
		return notConverged("%d of %d resources differ", differing, len(resources))
	}
	return nil
}

func (a *app) printDiff(change *weftv1.Change, before *weftv1.Resource) error {
	old, err := written(before)
	if err != nil {
		return err
	}
	new, err := written(change.GetAfter())
	if err != nil {
		return err
	}
	fmt.Fprintf(a.out, "%s %s\n", manifest.KeyString(change.GetKey()), change.GetAction())
	for _, line := range diffLines(old, new) {
		fmt.Fprintf(a.out, "  %s\n", line)
	}
	return nil
}

// written is the part of r that people write, as lines of YAML.
func written(r *weftv1.Resource) ([]string, error) {
	if r == nil {
		return nil, nil
	}
	// A copy, because the parts of the system are cut off.
	r = proto.Clone(r).(*weftv1.Resource)
	meta := manifest.Meta(r)
	meta.Uid, meta.Generation, meta.Revision, meta.CreatedAt = "", 0, 0, nil
	text, err := manifest.Format(r)
	if err != nil {
		return nil, err
	}
	head, _, _ := strings.Cut(string(text), "\nstatus:")
	return strings.Split(strings.TrimSuffix(head, "\n"), "\n"), nil
}

// Bounds of a difference for people.
const (
	maxCompared  = 1 << 22 // pairs of lines; more than that are shown as all gone and all come
	aroundChange = 3       // kept lines around what changes
	shownKept    = 40      // kept lines in a row that are shown all
)

// diffLines is the way from old to new, the shortest unless they are very long: "- " gone, "+ " come,
// "  " kept. Long stretches that are kept are only counted.
func diffLines(old, new []string) []string {
	head := 0
	for head < len(old) && head < len(new) && old[head] == new[head] {
		head++
	}
	tail := 0
	for tail < len(old)-head && tail < len(new)-head && old[len(old)-1-tail] == new[len(new)-1-tail] {
		tail++
	}
	lines := kept(old[:head])
	a, b := old[head:len(old)-tail], new[head:len(new)-tail]
	if len(a)*len(b) > maxCompared {
		lines = append(append(lines, marked("- ", a)...), marked("+ ", b)...)
	} else {
		lines = append(lines, shortest(a, b)...)
	}
	return elide(append(lines, kept(old[len(old)-tail:])...))
}

func kept(lines []string) []string { return marked("  ", lines) }

func marked(mark string, lines []string) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = mark + l
	}
	return out
}

// elide counts the middle of long stretches that are kept.
func elide(lines []string) []string {
	var out []string
	for i := 0; i < len(lines); {
		end := i
		for end < len(lines) && strings.HasPrefix(lines[end], "  ") {
			end++
		}
		from, to := i+aroundChange, end-aroundChange
		if i == 0 {
			from = i
		}
		if end == len(lines) {
			to = end
		}
		if end-i > shownKept && to > from {
			out = append(out, lines[i:from]...)
			out = append(out, fmt.Sprintf("  … %d lines", to-from))
			i = to
		}
		out = append(out, lines[i:end]...)
		if end < len(lines) {
			out = append(out, lines[end])
			end++
		}
		i = end
	}
	return out
}

// shortest is the shortest way from old to new.
func shortest(old, new []string) []string {
	// common[i][j] is the length of the longest common subsequence of old[i:] and new[j:].
	common := make([][]int, len(old)+1)
	for i := range common {
		common[i] = make([]int, len(new)+1)
	}
	for i := len(old) - 1; i >= 0; i-- {
		for j := len(new) - 1; j >= 0; j-- {
			if old[i] == new[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	var lines []string
	i, j := 0, 0
	for i < len(old) || j < len(new) {
		switch {
		case i < len(old) && j < len(new) && old[i] == new[j]:
			lines = append(lines, "  "+old[i])
			i, j = i+1, j+1
		case j == len(new) || i < len(old) && common[i+1][j] >= common[i][j+1]:
			lines = append(lines, "- "+old[i])
			i++
		default:
			lines = append(lines, "+ "+new[j])
			j++
		}
	}
	return lines
}
