package packet

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
)

// histogram counts outcomes.
type histogram map[model.Verdict]int

func (h histogram) String() string {
	var b strings.Builder
	for _, v := range model.Verdicts() {
		if n := h[v.Verdict]; n > 0 {
			fmt.Fprintf(&b, "%9d %s\n", n, v.Name)
		}
	}
	return b.String()
}

// check wants every verdict that can be met, and traffic that mostly goes through.
func (h histogram) check(t *testing.T) {
	t.Helper()
	total, good := 0, 0
	for v, n := range h {
		total += n
		if !v.IsDrop() {
			good += n
		}
	}
	if emulated() {
		return // too few of them
	}
	for _, v := range model.Verdicts() {
		if _, live := liveOnly[v.Verdict]; !live && v.Stage != "vlan" && h[v.Verdict] == 0 {
			t.Errorf("no packet met %s: the generator is too tame", v.Name)
		}
	}
	if good*10 < total*3 {
		t.Errorf("%d of %d packets went through: the generator is too wild", good, total)
	}
}

func TestTheGeneratorMeetsEveryVerdict(t *testing.T) {
	s := newSite(t)
	h := histogram{}
	for i := range uint64(100) {
		rng := rand.New(rand.NewPCG(1, i))
		w := writer{rng, randomWorld(rng, s), false}
		for range 500 {
			h[oracle(s, w.set, w.packet()).Verdict]++
		}
	}
	t.Logf("50000 packets:\n%s", h)
	h.check(t)
}
