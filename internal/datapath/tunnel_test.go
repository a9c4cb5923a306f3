package datapath

import (
	"fmt"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
)

// Guests build tunnels of their own, over either family; theirs go inside ours.
func TestGuestsTunnel(t *testing.T) {
	for name, tap := range map[string]bool{"veth": false, "tap": true} {
		t.Run(name, func(t *testing.T) {
			f := newFabric(t, Options{}, &guest{name: "web0", tap: tap}, &guest{name: "web1", tap: tap})
			a, b := f.guests["web0"], f.guests["web1"]
			for i, ends := range [][2]*guest{{a, b}, {b, a}} {
				g := ends[0]
				if !tap { // as whoever makes a guest's veth does: nobody could cut a tunnel in a tunnel
					if out, err := g.run(t, "ethtool", "-K", "eth0", "tx-udp_tnl-segmentation", "off", "tx-udp_tnl-csum-segmentation", "off"); err != nil {
						t.Fatalf("ethtool: %v: %s", err, out)
					}
				}
				for n, outer := range [][2]string{{g.v4.String(), ends[1].v4.String()}, {g.v6.String(), ends[1].v6.String()}} {
					dev := fmt.Sprintf("vx%d", n)
					ip(t, "-n", g.ns, "link", "add", "name", dev, "type", "vxlan", "id", "42", "dstport", fmt.Sprint(4789+n), "local", outer[0], "remote", outer[1])
					ip(t, "-n", g.ns, "addr", "add", fmt.Sprintf("172.16.%d.%d/24", n, i+1), "dev", dev)
					ip(t, "-n", g.ns, "link", "set", "dev", dev, "up")
				}
			}
			for n := range 2 {
				far := addr(fmt.Sprintf("172.16.%d.2", n))
				f.ping("web0", far)
				f.send("web0", "web1", far, 1<<20)
			}
			for _, h := range f.hosts {
				for _, v := range []model.Verdict{model.VerdictEncapFailed, model.VerdictNeighbourUnresolved} {
					if n := f.dropped(h, v); n != 0 {
						t.Errorf("%s: %d packets dropped as %s", h.ns, n, v)
					}
				}
			}
		})
	}
}
