package server

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/manifest"
	"github.com/weft-sdn/weft/internal/server/convert"
)

// What people are told to begin with is admitted, one file after the other.
func TestExamplesAreAdmitted(t *testing.T) {
	state := intent.NewState()
	for i, name := range []string{"demo.yaml", "access-lists.yaml"} {
		path := filepath.Join("../../examples", name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := manifest.ParseFile(path, text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		puts, violations := convert.ReadResources(parsed)
		if len(violations) > 0 {
			t.Fatalf("%s: %v", name, violations)
		}
		res, violations := intent.Admit(state, puts, nil, allocator())
		if len(violations) > 0 {
			t.Fatalf("%s: %v", name, violations)
		}
		state.Apply(res.Puts, nil, res.Cursors, int64(i+1))
	}
}
