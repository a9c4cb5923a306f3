package datapath

import (
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
)

// web guests at even places are on host 1, at odd ones on host 2.
func vethFabric(t *testing.T, o Options) *fabric {
	return newFabric(t, o, &guest{name: "web0"}, &guest{name: "web1"}, &guest{name: "db2"}, &guest{name: "db3"}, &guest{name: "web4"})
}

// talk lets guests reach each other in every way there is.
func (f *fabric) talk(from, to string) {
	f.t.Helper()
	g := f.guests[to]
	f.ping(from, g.v4)
	f.ping(from, g.v6)
	f.ping(from, g.v4, "-s", "1400")
	f.send(from, to, g.v4, 4<<20)
	f.send(from, to, g.v6, 4<<20)
}

func TestGuestsTalk(t *testing.T) {
	f := vethFabric(t, Options{})
	f.talk("web0", "web1") // same subnet, other host
	f.talk("web0", "db3")  // other subnet, other host
	f.talk("web0", "web4") // same subnet, same host
	f.talk("web0", "db2")  // other subnet, same host
	f.talk("db3", "web4")
	f.ping("web0", addr("10.0.0.1"))
	f.ping("web0", addr("fd00:a::1"))
	f.ping("web0", addr("10.0.1.1")) // the router is one, whatever its name
	f.ping("db3", addr("fd00:a::1"))
	for _, h := range f.hosts {
		for _, v := range []model.Verdict{model.VerdictSpoofedCa, model.VerdictSourceNotInPolicy, model.VerdictEncapFailed, model.VerdictDecapFailed, model.VerdictTooBig} {
			if n := f.dropped(h, v); n != 0 {
				t.Errorf("%s: %d packets dropped as %s", h.ns, n, v)
			}
		}
	}
	t.Log("\n" + f.drops())
}

func TestGuestHearsThatTTLRanOut(t *testing.T) {
	f := vethFabric(t, Options{})
	for to, from := range map[string]string{"10.0.1.13": "From 10.0.0.1", "fd00:b::13": "From fd00:a::1"} {
		out, err := f.guests["web0"].run(t, "ping", "-n", "-c", "1", "-W", "2", "-t", "1", to)
		if err == nil || !strings.Contains(out, from) {
			t.Errorf("ping with TTL 1 to %s: want an answer %q, have: %s%s", to, from, out, f.drops())
		}
	}
}

// A guest with a standard MTU sends what the path cannot carry, as TCP with its checksum
// left to the device: the error about it must be one that the guest believes.
func TestTCPRecoversFromTooLargeMTU(t *testing.T) {
	for name, tap := range map[string]bool{"veth": false, "tap": true} {
		t.Run(name, func(t *testing.T) {
			f := newFabric(t, Options{}, &guest{name: "web0", mtu: 1500, tap: tap}, &guest{name: "web1", mtu: 1500, tap: tap}, &guest{name: "db2", mtu: 1500}, &guest{name: "db3", mtu: 1500})
			for _, to := range []string{"web1", "db3"} {
				f.send("web0", to, f.guests[to].v4, 2<<20)
				f.send("web0", to, f.guests[to].v6, 2<<20)
			}
			if f.dropped(f.hosts[0], model.VerdictTooBig) == 0 {
				t.Error("nothing was too big: the test proves nothing")
			}
			out, err := f.guests["web0"].run(t, "ping", "-n", "-c", "1", "-W", "2", "-M", "do", "-s", "1472", f.guests["web1"].v4.String())
			if err == nil || !strings.Contains(out, "1458") && !strings.Contains(out, "too long") {
				t.Errorf("ping of 1500 bytes: want the path's MTU told, have: %s", out)
			}
		})
	}
}

func TestTapGuestsTalk(t *testing.T) {
	f := newFabric(t, Options{}, &guest{name: "web0", tap: true}, &guest{name: "web1", tap: true}, &guest{name: "db2", tap: true}, &guest{name: "db3"})
	f.talk("web0", "web1")
	f.talk("web0", "db2")
	f.talk("web0", "db3")
	f.talk("db3", "web0")
}
