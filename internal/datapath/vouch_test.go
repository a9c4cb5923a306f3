package datapath

import (
	"testing"
	"time"
)

// While somebody vouches for the rows, packets go to the next hop that these name, whatever the
// kernel's neighbours say; afterwards the kernel finds it.
func TestVouchedNextHops(t *testing.T) {
	for _, by := range []carriage{carriages[0], carriages[3]} {
		t.Run(by.String(), func(t *testing.T) {
			f := newFabricBy(t, by, Options{}, &guest{name: "web0"}, &guest{name: "web1"})
			h, to := f.hosts[0], f.guests["web1"]
			_, routers, _ := by.pas()
			reaches := func() bool {
				_, err := f.guests["web0"].run(t, "ping", "-n", "-c", "1", "-W", "1", to.v4.String())
				return err == nil
			}
			vouch := func(while time.Duration) {
				t.Helper()
				if err := h.sw.Vouch(while); err != nil {
					t.Fatal(err)
				}
			}
			f.ping("web0", to.v4)
			ip(t, "-n", h.ns, "neigh", "replace", routers[0], "lladdr", "02:00:00:00:00:99", "nud", "permanent", "dev", h.uplink.Name)
			if reaches() {
				t.Error("the kernel has a wrong next hop, and nobody vouches for another: something else found the way")
			}
			vouch(time.Hour)
			f.ping("web0", to.v4)
			f.ping("web0", to.v6, "-s", "1400")
			f.send("web0", "web1", to.v4, 1<<20)
			vouch(0)
			if reaches() {
				t.Error("nobody vouches any more, and the row is followed still")
			}
			ip(t, "-n", h.ns, "neigh", "del", routers[0], "dev", h.uplink.Name)
			f.ping("web0", to.v4)
		})
	}
}
