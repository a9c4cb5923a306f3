package datapath

import (
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// insert leads the subnets of the fabric through a guest that forwards, each by its halves.
func (f *fabric) insert(through string) {
	t := f.t
	t.Helper()
	g := f.guests[through]
	g.port.Forward = true
	for _, args := range [][]string{
		{"sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1", "net.ipv4.conf.all.send_redirects=0", "net.ipv4.conf.eth0.send_redirects=0"},
		{"ip", "-6", "route", "replace", "default", "via", g.port.Gateway6.String(), "dev", "eth0"},
		// As the agent does with a veth that it makes: without the detour, what came out of
		// a tunnel can be put into another only in pieces.
		{"ethtool", "-K", "eth0", "tx-gre-segmentation", "off", "tx-gre-csum-segmentation", "off", "tx-udp_tnl-segmentation", "off", "tx-udp_tnl-csum-segmentation", "off"},
	} {
		if out, err := g.run(t, args...); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	for _, h := range f.hosts {
		s := f.rows(h)
		for k, r := range s.Routes {
			if k.Network == red {
				s.Routes[table.RouteKey{Network: red.Direct(), Prefix: k.Prefix}] = r
			}
		}
		for half, hop := range map[string]string{"10.0.0.0/25": g.v4.String(), "10.0.1.0/25": g.v4.String(), "fd00:a::/65": g.v6.String(), "fd00:b::/65": g.v6.String()} {
			s.Routes[table.RouteKey{Network: red, Prefix: prefix(half)}] = table.Route{VSID: g.port.VSID, NextHop: addr(hop)}
		}
		if g.host != h {
			s.Forwarders[table.Forwarder{Network: red, PA: g.host.pa}] = table.Trust{Forward: true}
			s.Forwarders[table.Forwarder{Network: red, MAC: g.port.MAC, PA: g.host.pa}] = table.Trust{Forward: true}
		}
		if err := h.sw.Apply(s, true); err != nil {
			t.Fatal(err)
		}
	}
}

// waysToStrip are those that are told apart for packets of a carriage.
func waysToStrip(by carriage) []string {
	if by.transport == model.VXLAN {
		return []string{DecapTCX, DecapDX2, DecapXDP, DecapVeth, DecapVXLAN}
	}
	return []string{DecapTCX, DecapDX2, DecapXDP, DecapVeth}
}

// Two guests of one host talk through a third on the other, which forwards: whatever way
// its host strips packets, they can be encapsulated again, super-packets too.
func TestGuestThatForwards(t *testing.T) { guestThatForwards(t, carriage{}, true) }

func TestGuestThatForwardsByVXLAN(t *testing.T) {
	guestThatForwards(t, carriage{transport: model.VXLAN, v6: true}, false)
}

func guestThatForwards(t *testing.T, by carriage, all bool) {
	for _, decap := range waysToStrip(by) {
		for name, tap := range map[string]bool{"veth": false, "tap": true} {
			for _, wire := range []bool{false, true} {
				if !all && tap == wire {
					continue // one of each is enough to see a difference between transports
				}
				t.Run(strings.Join([]string{decap, name, map[bool]string{false: "pass", true: "wire"}[wire]}, "/"), func(t *testing.T) {
					f := newFabricBy(t, by, Options{Decap: decap}, &guest{name: "web0"}, &guest{name: "web1", tap: tap}, &guest{name: "db2"}, &guest{name: "db3"}, &guest{name: "db4", tap: true})
					f.detour()
					if wire {
						f.wire()
					}
					f.insert("web1")
					fw := f.guests["web1"].port.ID
					before := f.passed(fw)
					f.talk("web0", "db2") // a hairpin at the other host
					f.talk("db4", "web0")
					if !wire {
						f.talk("web0", "db3") // the guest behind is on the host of the one that forwards
						f.talk("db3", "web0")
					}
					if n := f.passed(fw) - before; n < 100 {
						t.Errorf("the guest that forwards has sent %d packets", n)
					}
					out, err := f.guests["web0"].run(t, "ping", "-n", "-c", "1", "-W", "2", "-s", "40", "-t", "2", f.guests["db2"].v4.String())
					if err == nil || !strings.Contains(out, "exceeded") {
						t.Errorf("a TTL that ends behind the guest: %s%s", out, f.drops())
					}
					for _, h := range f.hosts {
						for _, v := range []model.Verdict{model.VerdictEncapFailed, model.VerdictDecapFailed, model.VerdictSpoofedCa, model.VerdictSourceNotInPolicy, model.VerdictRouteToSelf} {
							if n := f.dropped(h, v); n != 0 {
								t.Errorf("%s: %d packets dropped as %s", h.ns, n, v)
							}
						}
					}
				})
			}
		}
	}
}

// detour makes the way for TCP that taps, and guests that forward, need; none where the switch wants none.
func (f *fabric) detour() {
	f.t.Helper()
	for _, h := range f.hosts {
		switch h.sw.Detour() {
		case DecapDX2:
			f.detourByDX2(h)
		case DecapVeth:
			f.detourByVeth(h)
		case DecapVXLAN:
			f.detourByVXLAN(h)
		}
	}
}

func (f *fabric) detourByDX2(h *host) {
	t := f.t
	t.Helper()
	ip(t, "-n", h.ns, "link", "add", "name", "dx0", "mtu", "65535", "type", "veth", "peer", "name", "dx1", "mtu", "65535")
	ip(t, "-n", h.ns, "link", "set", "dev", "dx1", "up")
	ip(t, "-n", h.ns, "link", "set", "dev", "dx0", "up")
	ip(t, "-n", h.ns, "-6", "route", "add", DX2Segment.String()+"/128", "encap", "seg6local", "action", "End.DX2", "oif", "dx0", "dev", "dx0")
	dx0 := deviceIn(t, h.ns, "dx0")
	inside(t, h.ns, func() {
		if err := h.sw.AttachDX2(uint32(dx0.Index)); err != nil {
			t.Error(err)
		}
	})
}

func (f *fabric) detourByVeth(h *host) {
	t := f.t
	t.Helper()
	ip(t, "-n", h.ns, "link", "add", "name", "gr0", "mtu", "65535", "numtxqueues", "2", "numrxqueues", "2", "txqueuelen", "1000",
		"type", "veth", "peer", "name", "gr1", "mtu", "65535", "numtxqueues", "2", "numrxqueues", "2")
	for _, args := range [][]string{{"ethtool", "-K", "gr0", "tso", "off"}, {"ethtool", "-K", "gr1", "gro", "on"}, {"tc", "qdisc", "replace", "dev", "gr0", "root", "mq"}} {
		if out, err := (&guest{ns: h.ns}).run(t, args...); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	ip(t, "-n", h.ns, "link", "set", "dev", "gr1", "up")
	ip(t, "-n", h.ns, "link", "set", "dev", "gr0", "up")
	out, in := deviceIn(t, h.ns, "gr0"), deviceIn(t, h.ns, "gr1")
	inside(t, h.ns, func() {
		for range 2 {
			if err := h.sw.AttachVeth(uint32(out.Index), uint32(in.Index)); err != nil {
				t.Error(err)
			}
		}
	})
}

func (f *fabric) detourByVXLAN(h *host) {
	t := f.t
	t.Helper()
	device := []string{"-n", h.ns, "link", "add", "name", "vx", "type", "vxlan", "external", "dstport", "4789", "nolearning"}
	if f.by.v6 {
		device = append(device, "local", "::", "udp6zerocsumrx")
	}
	ip(t, device...)
	vx := deviceIn(t, h.ns, "vx")
	inside(t, h.ns, func() {
		for range 2 {
			if err := h.sw.AttachVXLAN([]uint32{uint32(vx.Index)}); err != nil {
				t.Error(err)
			}
		}
	})
	ip(t, "-n", h.ns, "link", "set", "dev", "vx", "up")
}

// passed counts what a port has sent.
func (f *fabric) passed(id model.PortID) (n uint64) {
	f.t.Helper()
	for _, h := range f.hosts {
		traffic, err := h.sw.Traffic()
		if err != nil {
			f.t.Fatal(err)
		}
		n += traffic[id].OutPackets
	}
	return n
}
