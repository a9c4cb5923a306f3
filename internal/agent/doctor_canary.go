package agent

import (
	"context"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/netdev"
)

// maxCanaries is how many peers one examination sends canaries to: they answer with ICMP
// errors, of which a host makes few.
const maxCanaries = 16

// canaries checks that checksums are computed where they are left to a device, and that
// nobody takes a wrong one for right: with datagrams between Provider Addresses, of which
// one has a wrong checksum on purpose.
//
// What guests send is not touched by the switch but for the incremental changes of
// routing and rewriting, which leave a wrong checksum wrong. So a wrong one that comes out right, or
// goes unnoticed, is the work of a device or of something in between; and with tunnels
// nobody else would notice, because the outer headers of NVGRE have no checksum.
func (e *examination) canaries(ctx context.Context, v *view) {
	targets := slices.SortedFunc(maps.Keys(probed(v)), netip.Addr.Compare)
	rand.Shuffle(len(targets), func(i, j int) { targets[i], targets[j] = targets[j], targets[i] })
	asked, judged, wrong := 0, 0, 0
	own := ownPAs(v)
	for _, from := range own {
		sample := slices.DeleteFunc(slices.Clone(targets), func(to netip.Addr) bool { return to.Is4() != from.Is4() })
		sample = sample[:min(len(sample), max(maxCanaries/len(own), 1))]
		got, err := netdev.Canaries(ctx, from, sample)
		if err != nil {
			e.add(severityWarn, "checksum", "is the address still on this host? ip address", "%v", err)
			continue
		}
		for _, to := range sample {
			asked++
			known, well := e.canary(from, to, got[to])
			judged += count(known)
			wrong += count(!well)
		}
	}
	switch {
	case asked == 0 || wrong > 0:
	case judged == 0:
		e.ok("checksum", "no peer answers datagrams to closed ports (a firewall?): whether devices handle checksums rightly is not known")
	default:
		e.ok("checksum", "%d of %d peers were asked, %d answered: checksums left to this host's devices arrive right, and a wrong one is not taken for right", asked, len(targets), judged)
	}
}

func count(b bool) int {
	if b {
		return 1
	}
	return 0
}

// canary judges what one peer answered, if it answers at all.
func (e *examination) canary(from, to netip.Addr, c netdev.Canary) (known, well bool) {
	switch {
	case c.Corrupt:
		e.add(severityFail, "checksum", "on the host of "+to.String()+": ethtool -K DEVICE rx off, and report the driver; if that does not help, find what rewrites packets between the two",
			"a datagram with a wrong checksum from %s was taken for right at %s: damaged packets of guests go unnoticed as well", from, to)
		return true, false
	case c.Software && !c.Device:
		e.add(severityFail, "checksum", "on this host: ethtool -K DEVICE tx off, and report the driver",
			"a checksum left to this host's device arrives wrong: datagrams from %s to %s are lost, those with a checksum made in software are not", from, to)
		return true, false
	}
	return c.Software, true
}
