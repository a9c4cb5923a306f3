package datapath

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
)

// Taps of a host whose kernel cannot reset the tunnel's GSO state get TCP by way of
// End.DX2. Where the host's stack swallows it, they get it all the same, in pieces.
func TestTapGuestsTalkByDetour(t *testing.T) {
	for name, c := range map[string]struct {
		broken   bool
		strategy string
	}{"whole": {false, "tcx+dx2"}, "swallowed": {true, "tcx"}} {
		t.Run(name, func(t *testing.T) {
			f := newFabric(t, Options{Decap: DecapDX2}, &guest{name: "web0", tap: true}, &guest{name: "web1", tap: true}, &guest{name: "db2"}, &guest{name: "db3", tap: true})
			for _, h := range f.hosts {
				ip(t, "-n", h.ns, "link", "add", "name", "dx0", "mtu", "65535", "type", "veth", "peer", "name", "dx1", "mtu", "65535")
				sysctl(t, h.ns, "net.ipv6.conf.all.forwarding", "1")
				ip(t, "-n", h.ns, "link", "add", "name", "away", "type", "veth", "peer", "name", "awayx")
				ip(t, "-n", h.ns, "link", "set", "dev", "awayx", "up")
				ip(t, "-n", h.ns, "link", "set", "dev", "away", "up")
				ip(t, "-n", h.ns, "-6", "neigh", "add", "fe80::1", "lladdr", "02:00:00:00:00:aa", "dev", "away")
				ip(t, "-n", h.ns, "-6", "route", "add", "default", "via", "fe80::1", "dev", "away")
				ip(t, "-n", h.ns, "link", "set", "dev", "dx1", "up")
				ip(t, "-n", h.ns, "link", "set", "dev", "dx0", "up")
				if !c.broken {
					ip(t, "-n", h.ns, "-6", "route", "add", DX2Segment.String()+"/128", "encap", "seg6local", "action", "End.DX2", "oif", "dx0", "dev", "dx0")
				}
				dx0 := deviceIn(t, h.ns, "dx0")
				inside(t, h.ns, func() {
					for range 2 {
						if err := h.sw.AttachDX2(uint32(dx0.Index)); err != nil {
							t.Error(err)
						}
					}
				})
			}
			f.talk("web0", "web1")
			f.talk("web1", "db2")
			f.talk("web0", "db3")
			for _, h := range f.hosts {
				out, err := exec.Command("ip", "netns", "exec", h.ns, "cat", "/proc/net/snmp6").Output()
				sent := strings.Join(strings.Fields(string(out)), " ")
				// An ICMP error would carry the packet that it is about.
				if err != nil || !strings.Contains(sent, "Ip6OutForwDatagrams 0 ") || !strings.Contains(sent, "Icmp6OutTimeExcds 0 ") ||
					!strings.Contains(sent, "Icmp6OutDestUnreachs 0 ") {
					t.Errorf("%s: a tenant's packet left through the host's own routes (%v):\n%s", h.ns, err, out)
				}
				if got := h.sw.Strategies()[uint32(h.uplink.Index)]; got != c.strategy {
					t.Errorf("%s decapsulates by %s, want %s", h.ns, got, c.strategy)
				}
				if n := f.dropped(h, model.VerdictDecapFailed); n != 0 {
					t.Errorf("%s: %d packets dropped as DECAP_FAILED", h.ns, n)
				}
			}
		})
	}
}
