package walk

import (
	"flag"
	"os"
	"regexp"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the blocks of the walks in docs/")

var block = regexp.MustCompile("(?s)```text ([^\n]+)\n(.*?)```\n")

// checkPage compares every block of a page with what the code gives; with
// -update it rewrites them. elsewhere names the blocks that another test checks.
func checkPage(t *testing.T, page string, want map[string]string, elsewhere ...string) {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	for _, name := range elsewhere {
		want[name] = ""
	}
	fresh := block.ReplaceAllFunc(text, func(b []byte) []byte {
		m := block.FindSubmatch(b)
		name := string(m[1])
		shown[name] = true
		code, known := want[name]
		if !known {
			t.Errorf("the page shows %q, which nothing computes", name)
		}
		if code == "" {
			return b
		}
		if got := string(m[2]); got != code && !*update {
			t.Errorf("%s: the page shows\n%sthe code gives\n%s", name, got, code)
		}
		return []byte("```text " + name + "\n" + code + "```\n")
	})
	for name := range want {
		if !shown[name] {
			t.Errorf("the page lost its block %q", name)
		}
	}
	if *update {
		if err := os.WriteFile(page, fresh, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
