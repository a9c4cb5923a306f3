package intent

import (
	"testing"

	"github.com/weft-sdn/weft/internal/model"
)

// Two names with the same number, found by trying: c17439 and c24164.
func TestCommunitiesThatCannotBeToldApartAreRefused(t *testing.T) {
	if model.CommunityID("c17439") != model.CommunityID("c24164") {
		t.Fatal("the names have different numbers now: look for others")
	}
	community := func(name string) model.PortSettings {
		return model.PortSettings{Isolation: &model.Isolation{Mode: model.IsolationCommunity, Community: name}}
	}
	in := func(name, community, profile string) *model.Port {
		return with(port("red", name, "web"), func(p *model.Port) {
			p.Spec.Profile = profile
			if community != "" {
				p.Spec.Isolation = &model.Isolation{Mode: model.IsolationCommunity, Community: community}
			}
		})
	}
	w := newWorld(t, append(base(), profile("red", "a", community("c17439")), profile("red", "b", community("c24164")))...)
	const refusal = `spec.isolation.community: "c24164" has the same number as "c17439" in subnet web`
	w.refused(refusal, []model.Resource{in("p", "c17439", ""), in("q", "c24164", "")})
	w.apply(in("p", "", "a"), in("r", "other", ""))
	w.refused(refusal, []model.Resource{in("q", "c24164", "")})
	w.refused(refusal, []model.Resource{in("q", "", "b")})
	w.apply(in("q", "c17439", ""))
	w.change([]model.Resource{in("q", "c24164", ""), profile("red", "a", community("calm"))}) // p has another name now
	w.change([]model.Resource{in("r", "c24164", "")})
}
