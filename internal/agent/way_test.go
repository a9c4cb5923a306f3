package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
)

// An address that comes later is sent from when the others can know it, but at once
// where there is no other.
func TestAnAddressSettlesBeforeItIsSentFrom(t *testing.T) {
	first, second := addr("192.0.2.1"), addr("198.51.100.1")
	u := underlay{states: map[netip.Addr]addressState{first: {state: model.AddressPreferred}}}
	since, now := map[netip.Addr]time.Time{}, time.Unix(1000, 0)
	want := map[netip.Addr]struct{}{first: {}, second: {}}
	uses := func(what string, after time.Duration, until time.Duration, addresses ...netip.Addr) {
		t.Helper()
		now = now.Add(after)
		got, next := u.findLocals(want, since, map[uint32]netdev.Link{}, now)
		if len(got) != len(addresses) || !next.IsZero() != (until != 0) || until != 0 && !next.Equal(now.Add(until)) {
			t.Fatalf("%s: uses %v, next %s", what, got, next)
		}
		for i, a := range addresses {
			if got[i].address != a {
				t.Errorf("%s: uses %v", what, got)
			}
		}
	}
	uses("the only one", 0, settleTime, first)
	u.states[second] = addressState{state: model.AddressPreferred}
	uses("another comes before the first has settled", time.Second, settleTime-time.Second, first)
	uses("the first has settled", settleTime-time.Second, time.Second, first)
	uses("both have", time.Second, 0, first, second)
	u.states[first] = addressState{state: model.AddressDuplicate}
	uses("the first is lost", 0, 0, second)
	u.states[first] = addressState{state: model.AddressPreferred}
	uses("and comes back", 0, settleTime, second)
	uses("and has settled", settleTime, 0, first, second)
}
