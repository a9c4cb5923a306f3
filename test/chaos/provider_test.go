package chaos

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/lab"
	"github.com/weft-sdn/weft/test/fleet"
)

// wires is a world whose hosts have, or get, a second uplink: eth1, in subnets of its own
// behind the same router.
type wires struct {
	*world
	router string
}

func newWires(t *testing.T) *wires {
	t.Helper()
	spec, err := lab.LoadSpec(filepath.Join(fleet.Root(), "examples/demo-lab.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	w := &wires{world: &world{Fleet: fleet.New(t, "p", fleet.Options{Spec: spec, Agent: map[string]any{"underlay": []string{"eth0", "eth1"}}}), t: t}}
	w.router = w.Space("_router")
	for i, h := range w.Hosts() {
		w.shell(fmt.Sprintf("ip link add s%d netns %s mtu 1500 type veth peer name eth1 netns %s", i, w.router, w.Space(h)))
		w.shell(fmt.Sprintf("ip -n %s addr add 192.168.%d.1/24 dev s%d && ip -n %s link set s%d up", w.router, i, i, w.router, i))
		w.shell(fmt.Sprintf("ip -n %s link set eth1 up", w.Space(h)))
	}
	return w
}

// ip runs `ip` with the arguments on a host.
func (w *wires) ip(host, format string, args ...any) {
	w.t.Helper()
	w.shell("ip -n " + w.Space(host) + " " + fmt.Sprintf(format, args...))
}

// second gives a host its second Provider Address, and the way to the others' second ones.
func (w *wires) second(i int, h string) {
	w.t.Helper()
	w.ip(h, "addr add 192.168.%d.2/24 dev eth1", i)
	w.ip(h, "route replace 192.168.0.0/16 via 192.168.%d.1 dev eth1", i)
}

// sends waits until a host sends over a device, or does not.
func (w *wires) sends(host, device string, does bool) {
	w.t.Helper()
	count := func() (n uint64) {
		var links []struct {
			Stats64 struct {
				TX struct{ Packets uint64 }
			}
		}
		w.parse(w.shell("ip -n "+w.Space(host)+" -j -s link show "+device), &links)
		return links[0].Stats64.TX.Packets
	}
	w.Poll(fmt.Sprintf("%s sends by %s: %t", host, device, does), func() error {
		before := count()
		<-time.After(100 * time.Millisecond)
		if n := count() - before; n > 100 != does {
			return fmt.Errorf("%d packets in 100 ms", n)
		}
		return nil
	})
}

// state waits until a Provider Address has a state, or is not there.
func (w *wires) state(address, want string) {
	w.t.Helper()
	w.Poll(address+" is "+want, func() error {
		got := "gone"
		for _, line := range strings.Split(w.Must("get", "pas"), "\n") {
			if f := strings.Fields(line); len(f) > 3 && f[2] == address {
				got = f[3]
			}
		}
		if got != want {
			return fmt.Errorf("it is %q", got)
		}
		return nil
	})
}

// What operators do to Provider Addresses and their routes costs no packet of 12,000 a
// second: neither when the new is there before the old is gone, nor when the old is just
// taken away.
func TestProviderChangesLoseNothing(t *testing.T) {
	w := newWires(t)
	for i, h := range w.Hosts() {
		w.state(fmt.Sprintf("198.18.%d.2", i+1), "Preferred")
		_ = h
	}
	for _, e := range []struct {
		name string
		do   func(pass func())
	}{
		{"a second address on each host", func(pass func()) {
			for i, h := range w.Hosts() {
				w.second(i, h)
				pass()
			}
			for i, h := range w.Hosts() {
				w.state(fmt.Sprintf("192.168.%d.2", i), "Preferred")
				w.sends(h, "eth1", true)
			}
		}},
		{"an address is taken away, and put back", func(pass func()) {
			w.ip("h1", "addr del 192.168.0.2/24 dev eth1")
			pass()
			w.state("192.168.0.2", "gone")
			w.sends("h2", "eth1", false)
			pass()
			w.second(0, "h1")
			w.state("192.168.0.2", "Preferred")
			w.sends("h2", "eth1", true)
		}},
		{"the first address is taken away, and put back", func(pass func()) {
			gateway := strings.Fields(w.shell("ip -n " + w.Space("h2") + " route show default"))[2]
			own := strings.Split(strings.Fields(w.shell("ip -n " + w.Space("h2") + " -br -4 addr show eth0"))[2], "/")[0]
			w.ip("h2", "route add default via 192.168.1.1 dev eth1 metric 900") // to the server
			w.shell("ip -n " + w.router + " route add " + own + "/32 via 192.168.1.2 metric 900")
			w.ip("h2", "addr del %s/24 dev eth0", own)
			pass()
			w.sends("h1", "eth0", false)
			pass()
			w.ip("h2", "addr add %s/24 dev eth0", own)
			w.ip("h2", "route add default via %s dev eth0", gateway)
			w.ip("h2", "route del default metric 900")
			w.shell("ip -n " + w.router + " route del " + own + "/32 metric 900")
			w.state(own, "Preferred")
			w.sends("h1", "eth0", true)
		}},
		{"a route is replaced", func(pass func()) {
			w.ip("h1", "route add 192.168.1.2/32 via 192.168.0.1 dev eth1")
			pass()
			w.ip("h1", "route del 192.168.1.2/32")
		}},
		{"a route is taken away, and another is added", func(pass func()) {
			w.ip("h1", "route del 192.168.0.0/16")
			w.ip("h1", "route add 192.168.1.0/24 via 192.168.0.1 dev eth1")
			pass()
			w.ip("h1", "route del 192.168.1.0/24")
			w.ip("h1", "route add 192.168.0.0/16 via 192.168.0.1 dev eth1")
		}},
		{"all routes are taken away for a moment", func(pass func()) {
			gateway := strings.Fields(w.shell("ip -n " + w.Space("h1") + " route show default"))[2]
			w.shell(fmt.Sprintf("ip -n %s route del default && ip -n %s route del 192.168.0.0/16 && ip -n %s route add default via %s && ip -n %s route add 192.168.0.0/16 via 192.168.0.1 dev eth1",
				w.Space("h1"), w.Space("h1"), w.Space("h1"), gateway, w.Space("h1")))
			pass()
		}},
		{"one of two next hops is taken away", func(pass func()) {
			w.shell("ip -n " + w.router + " addr add 192.168.0.3/24 dev s0")
			w.ip("h1", "route replace 192.168.0.0/16 nexthop via 192.168.0.1 dev eth1 nexthop via 192.168.0.3 dev eth1")
			pass()
			w.ip("h1", "route replace 192.168.0.0/16 via 192.168.0.3 dev eth1")
			pass()
			w.ip("h1", "route replace 192.168.0.0/16 via 192.168.0.1 dev eth1")
		}},
		{"provider routes come, share the load, change and go", func(pass func()) {
			route := func(name, hop, device string, metric int) {
				w.apply(fmt.Sprintf("kind: ProviderRoute\nmetadata: {name: %s}\nspec: {host: h1, prefix: 192.168.1.0/24, nextHop: %s, interface: %s, metric: %d}\n",
					name, hop, device, metric), "--wait")
				pass()
			}
			gateway := strings.Fields(w.shell("ip -n " + w.Space("h1") + " route show default"))[2]
			route("east", "192.168.0.1", "eth1", 5)
			route("west", gateway, "eth0", 5)
			route("east", "192.168.0.1", "eth1", 1)
			if out := w.Must("get", "providerroutes"); !strings.Contains(out, "Programmed") || strings.Contains(out, "Degraded") {
				w.t.Errorf("provider routes:\n%s", out)
			}
			w.Must("delete", "providerroute", "east")
			pass()
			w.Must("delete", "providerroute", "west")
		}},
		{"neighbours are forgotten", func(pass func()) {
			for range 50 {
				for _, h := range w.Hosts() {
					w.ip(h, "neigh flush all || true") // some come back before it is through, and it gives up
				}
			}
			pass()
		}},
		{"the record of a guest is updated", func(pass func()) {
			w.apply("kind: Port\nmetadata: {tenant: red, name: extra}\nspec: {subnet: web, addresses: [10.0.0.99], host: h1}\n", "--wait")
			pass()
			w.apply("kind: Port\nmetadata: {tenant: red, name: extra}\nspec: {subnet: web, addresses: [10.0.0.99, 10.0.0.98], host: h2}\n", "--wait")
			pass()
			w.Must("delete", "port", "red/extra")
		}},
	} {
		t.Run(e.name, func(t *testing.T) {
			w.T, w.t = t, t
			traffic := w.Traffic(pairs[0], pairs[1], pairs[3])
			e.do(func() { traffic.More(between) })
			traffic.More(after)
			total := traffic.Finish()
			if total.Lost > 0 {
				t.Logf("drops:\n%s", w.Must("drops"))
			}
			w.Verified()
			t.Logf("%s: %d streams, %d datagrams, %d lost, %d doubled, longest gap %s", e.name,
				total.Streams, total.Sent, total.Lost, total.Doubled, total.Gap.Round(time.Millisecond))
		})
	}
	w.T, w.t = t, t
}

// The link of one of two uplinks dies on either host: what was sent into it is lost until the agents know, of the
// host itself at once, of the others by way of the server. No stream is silent for long.
func TestALinkDies(t *testing.T) {
	w := newWires(t)
	for i, h := range w.Hosts() {
		w.second(i, h)
		w.state(fmt.Sprintf("192.168.%d.2", i), "Preferred")
	}
	for _, dead := range []string{"s0", "s1"} {
		traffic := w.Traffic(pairs[0], pairs[1], pairs[3])
		for _, h := range w.Hosts() {
			w.sends(h, "eth1", true)
		}
		w.shell("ip -n " + w.router + " link set " + dead + " down")
		traffic.More(after)
		total := traffic.Stop()
		t.Logf("the link of %s dies: %d of %d datagrams lost, of %d streams with 1,000 a second each, longest gap %s", dead,
			total.Lost, total.Sent, total.Streams, total.Gap.Round(time.Millisecond))
		if total.Lost == 0 || total.Gap > time.Second || total.Doubled > 0 {
			t.Errorf("%d lost, %d doubled, longest gap %s", total.Lost, total.Doubled, total.Gap)
		}
		w.shell("ip -n " + w.router + " link set " + dead + " up")
		w.state(fmt.Sprintf("192.168.%s.2", dead[1:]), "Preferred")
		w.Verified()
	}
}
