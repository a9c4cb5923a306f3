package main

import (
	"go/format"
	"strings"
	"testing"
)

var stages = []stage{{10, "parse", "Find the headers."}}

func drop(number int, name string) verdict {
	return verdict{number, name, "parse", "malformed", "It is broken.", "Mend it."}
}

func TestSchemaThatMakesTwoThingsOneIsRefused(t *testing.T) {
	cases := map[string]struct {
		vs   []verdict
		want string
	}{
		"good":              {[]verdict{drop(16, "A"), drop(17, "B")}, ""},
		"same number":       {[]verdict{drop(16, "A"), drop(16, "B")}, "twice"},
		"same name":         {[]verdict{drop(16, "A"), drop(17, "A")}, "twice"},
		"beyond a byte":     {[]verdict{drop(256, "A")}, "0..255"},
		"drop below 16":     {[]verdict{drop(15, "A")}, "from 16"},
		"terminal above 15": {[]verdict{{16, "A", "parse", "terminal", "s", "a"}}, "below 16"},
		"no such stage":     {[]verdict{{16, "A", "dance", "quiet", "s", "a"}}, "stage"},
		"no such class":     {[]verdict{{16, "A", "parse", "odd", "s", "a"}}, "class"},
		"no action":         {[]verdict{{16, "A", "parse", "quiet", "s", ""}}, "missing"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			err := check(c.vs, stages)
			switch {
			case c.want == "" && err != nil:
				t.Fatalf("refused: %v", err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestOutputsSayTheSame(t *testing.T) {
	vs := []verdict{{2, "PASSED", "none", "terminal", "Through.", "Nothing."}, drop(16, "FRAME_TRUNCATED")}
	src, err := format.Source(goSource(vs))
	if err != nil {
		t.Fatalf("the Go source does not parse: %v", err)
	}
	for what, c := range map[string]struct{ text, want string }{
		"C":  {string(header(vs)), "V_FRAME_TRUNCATED = 16,"},
		"Go": {string(src), "VerdictFrameTruncated Verdict = 16"},
		"md": {string(reference(vs, stages)), "| `FRAME_TRUNCATED` | 16 | malformed | It is broken. | Mend it. |"},
	} {
		if !strings.Contains(c.text, c.want) {
			t.Errorf("%s lacks %q:\n%s", what, c.want, c.text)
		}
	}
	if strings.Contains(string(reference(vs, stages)), "PASSED") {
		t.Error("a terminal verdict stands among the drop reasons")
	}
}
