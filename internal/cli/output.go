package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/weft-sdn/weft/internal/manifest"
)

// output is the flag -o of one command.
type output struct {
	format  string
	allowed []string
}

// flag adds -o with the formats that the command has; the first is the default.
func (o *output) flag(c *cobra.Command, allowed ...string) {
	o.allowed = allowed
	c.Flags().StringVarP(&o.format, "output", "o", allowed[0], "output: "+strings.Join(allowed, "|"))
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(allowed, cobra.ShellCompDirectiveNoFileComp))
}

func (o *output) check() error {
	if slices.Contains(o.allowed, o.format) {
		return nil
	}
	return usagef("-o %s: this command has %s", o.format, strings.Join(o.allowed, ", "))
}

// message prints m when the format is json or yaml, and says whether it did.
func (o *output) message(w io.Writer, m proto.Message) (bool, error) {
	switch o.format {
	case "json":
		return true, writeJSON(w, m)
	case "yaml":
		text, err := manifest.FormatMessage(m)
		if err != nil {
			return true, err
		}
		_, err = w.Write(text)
		return true, err
	}
	return false, nil
}

// writeJSON prints a message of the API, in protobuf's JSON.
func writeJSON(w io.Writer, m proto.Message) error {
	text, err := protojson.MarshalOptions{Multiline: true, Indent: "  "}.Marshal(m)
	if err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	_, err = fmt.Fprintln(w, string(text))
	return err
}

// writeJSONLine prints a message on one line, for streams.
func writeJSONLine(w io.Writer, m proto.Message) error {
	text, err := protojson.Marshal(m)
	if err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}
	_, err = fmt.Fprintln(w, string(text))
	return err
}

// table prints rows under a header. Columns keep their widths from one flush to
// the next, so that a watch stays readable.
type table struct {
	header []string
	rows   [][]string
	widths []int
	headed bool
}

func newTable(header ...string) *table {
	return &table{header: header, widths: make([]int, len(header))}
}

// add takes one row; an empty cell is printed as "-", so that columns can be cut by words.
func (t *table) add(cells ...string) {
	for i, c := range cells {
		if c == "" {
			cells[i] = "-"
		}
	}
	t.rows = append(t.rows, cells)
}

// flush prints the header, once, and the rows added since the last flush.
func (t *table) flush(w io.Writer) error {
	lines := t.rows
	if !t.headed {
		lines = append([][]string{t.header}, lines...)
	}
	for _, cells := range lines {
		for i, c := range cells {
			t.widths[i] = max(t.widths[i], utf8.RuneCountInString(c))
		}
	}
	for _, cells := range lines {
		if _, err := fmt.Fprintln(w, t.line(cells)); err != nil {
			return err
		}
	}
	t.rows, t.headed = nil, true
	return nil
}

func (t *table) line(cells []string) string {
	var b strings.Builder
	for i, c := range cells {
		b.WriteString(c)
		b.WriteString(strings.Repeat(" ", t.widths[i]-utf8.RuneCountInString(c)+3))
	}
	return strings.TrimRight(b.String(), " ")
}
