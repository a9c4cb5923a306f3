package agent

import (
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/model"
)

// An address is used when nobody has answered three probes, is announced then, and
// comes back from being a Duplicate when the other has given it up.
func TestClaimOfAnAddress(t *testing.T) {
	const other = "02:00:00:00:00:99"
	mac, _ := model.ParseMAC(other)
	type moment struct {
		after time.Duration // since the moment before
		heard model.MAC
		asks  bool
		says  word
		state model.AddressState
	}
	round := func(state, then model.AddressState, last word) []moment {
		return []moment{{0, model.MAC{}, false, asksForIt, state}, {199 * time.Millisecond, model.MAC{}, false, saysNothing, state},
			{time.Millisecond, model.MAC{}, false, asksForIt, state}, {200 * time.Millisecond, model.MAC{}, false, asksForIt, state},
			{200 * time.Millisecond, model.MAC{}, false, last, then}, {time.Hour, model.MAC{}, false, saysNothing, then}}
	}
	const tentative, preferred, duplicate = model.AddressTentative, model.AddressPreferred, model.AddressDuplicate
	for name, story := range map[string]struct {
		trusted bool
		moments []moment
	}{
		"nobody has it":              {false, round(tentative, preferred, announcesIt)},
		"in use before this process": {true, round(preferred, preferred, saysNothing)},
		"somebody has it, and gives it up": {false, append([]moment{
			{0, model.MAC{}, false, asksForIt, tentative}, {time.Millisecond, mac, false, saysNothing, duplicate},
			{29 * time.Second, model.MAC{}, false, saysNothing, duplicate},
			{time.Second - time.Millisecond, model.MAC{}, false, saysNothing, duplicate}, {time.Millisecond, model.MAC{}, false, asksForIt, duplicate},
			{time.Millisecond, mac, false, saysNothing, duplicate}, {29 * time.Second, mac, false, saysNothing, duplicate},
			{29 * time.Second, model.MAC{}, false, saysNothing, duplicate}, {time.Second, model.MAC{}, false, asksForIt, duplicate},
		}, round(duplicate, preferred, announcesIt)[1:]...)},
		"two who start at once":                         {false, []moment{{0, model.MAC{}, false, asksForIt, tentative}, {0, mac, true, saysNothing, duplicate}}},
		"somebody asks for it later":                    {false, append(round(tentative, preferred, announcesIt), moment{0, mac, true, saysNothing, preferred})},
		"somebody claims it later and is gone":          {false, append(append(round(tentative, preferred, announcesIt), moment{0, mac, false, asksForIt, preferred}), round(preferred, preferred, saysNothing)[1:]...)},
		"somebody claims it later and answers":          {false, append(round(tentative, preferred, announcesIt), moment{0, mac, false, asksForIt, preferred}, moment{time.Millisecond, mac, false, saysNothing, duplicate})},
		"somebody claims it while an old one is probed": {true, []moment{{0, model.MAC{}, false, asksForIt, preferred}, {0, mac, false, saysNothing, duplicate}}},
	} {
		now := time.Unix(1000, 0)
		c := newClaim(story.trusted, now)
		for i, m := range story.moments {
			now = now.Add(m.after)
			if m.heard != (model.MAC{}) {
				c.heard(now, m.heard, m.asks)
			}
			says := c.step(now)
			if says != m.says || c.state != m.state {
				t.Fatalf("%s: moment %d: says %d, is %s; want %d, %s", name, i, says, c.state, m.says, m.state)
			}
			if c.state == duplicate && c.owner != mac || c.state != duplicate && c.owner != (model.MAC{}) {
				t.Fatalf("%s: moment %d: owner %s", name, i, c.owner)
			}
		}
	}
}
