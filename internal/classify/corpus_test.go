package classify_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/classify"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/test/corpus"
)

// As many rules as a port may have are compiled in a moment and take little room, ten times over.
func TestRealRulesFit(t *testing.T) {
	for i, n := range []int{10, 1_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000, 10_000} {
		began := time.Now()
		c := corpus.New(uint64(i+1), n, false, netip.MustParsePrefix("10.255.0.0/24"), netip.MustParsePrefix("fd00::/64"))
		set := table.RuleSet{Sections: []table.Section{c.Section(table.Tenant, "list", n)}}
		made := time.Since(began)
		began = time.Now()
		tables, err := classify.Compile(set)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%d rules: made in %s, compiled in %s, %d KiB, %d bytes for each", n, made, time.Since(began), len(tables.Words)/128, len(tables.Words)*8/n)
	}
}
