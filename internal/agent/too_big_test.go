package agent

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// A host with a narrower device than its peers: what is larger than its guests take, their senders are told, and then keep to.
func TestSendersAreToldOfWhatArrivesTooBig(t *testing.T) {
	for _, c := range overheads {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, "h1", "h2")
			h1, h2 := w.hosts["h1"], w.hosts["h2"]
			if c.six {
				w.sixOnly()
			}
			w.run(h2.ns, "ip link set eth0 mtu 1400")
			w.fleet.change(func() {
				w.fleet.transport, w.fleet.settings = c.transport, goal.Settings{VXLANPort: 4789}
				w.fleet.addPort("web-1", 1, "h1")
				w.fleet.addPort("web-2", 2, "h2")
			})
			h1.synced()
			h2.synced()
			g1, g2 := h1.plug("web-1"), h2.plug("web-2")
			w.run(g1.ns, "ip link set eth0 mtu 1430") // of the narrower device's 1400 the kernel lets 4 bytes more pass
			takes := 1400 - c.overhead
			for _, v4 := range []bool{true, false} {
				to, headers, says := g2.address(v4), 28, fmt.Sprintf("mtu=%d", takes)
				if !v4 {
					headers = 48
				}
				g1.ping(to)
				ping := func(size int) string {
					out := w.run(g1.ns, fmt.Sprintf("ping -n -c1 -W2 -M do -s %d %s 2>&1 || true", size-headers, to))
					return strings.ReplaceAll(strings.ToLower(out), " ", "")
				}
				before := h2.dropped("TOO_BIG")
				if out := ping(takes + 1); !strings.Contains(out, says) || !strings.Contains(out, to.String()) {
					t.Errorf("IPv4 %t: one byte more is not answered with %s:\n%s", v4, says, out)
				}
				if n := h2.dropped("TOO_BIG") - before; n != 1 {
					t.Errorf("IPv4 %t: %d packets were too big", v4, n)
				}
				if out := ping(takes); !strings.Contains(out, ",0%packetloss") {
					t.Errorf("IPv4 %t: a packet that just fits:\n%s", v4, out)
				}
			}
			if text := w.run(h2.ns, "curl -sf http://127.0.0.1:9467/metrics"); !strings.Contains(text, `weft_agent_underlay_errors_total{kind="arrived_too_big"} 2`) {
				t.Errorf("no figure of what senders were told:\n%s", text)
			}
		})
	}
}

// The error is what the guest could send itself, and by the same way; nobody is told of errors, of what is not the guest's, or in the
// name of a group.
func TestTooBigFor(t *testing.T) {
	local, remote := addr("192.0.2.1"), addr("198.51.100.2")
	set := toldSet(model.NVGRE, local, remote, 1500)
	port := set.Ports[10]
	for _, c := range []struct {
		name     string
		from, to netip.Addr
		vsid     model.VSID
		told     bool
	}{
		{"IPv4", addr("10.1.0.9"), addr("10.1.0.5"), 5001, true},
		{"IPv6", addr("fd01::9"), addr("fd01::5"), 5001, true},
		{"from another subnet", addr("10.2.0.9"), addr("10.1.0.5"), 5002, true},
		{"for another guest", addr("10.1.0.9"), addr("10.1.0.6"), 5001, false},
		{"for a group", addr("10.1.0.9"), addr("224.0.1.9"), 5001, false},
		{"from nobody", addr("10.1.0.77"), addr("10.1.0.5"), 5001, false},
		{"from the guest itself", addr("10.1.0.5"), addr("10.1.0.5"), 5001, false},
	} {
		head := datagram(c.from, c.to, false, 1600)[:400]
		packet, ok := tooBigFor(set, port, head)
		if ok != c.told {
			t.Errorf("%s: told %t", c.name, ok)
		}
		if !ok {
			continue
		}
		outer, err := wire.ParseIPv4(packet)
		if err != nil || outer.Source != local || outer.Destination != remote {
			t.Fatalf("%s: %+v, %v", c.name, outer, err)
		}
		if gre, err := wire.ParseNVGRE(packet[20:]); err != nil || gre.VSID != c.vsid {
			t.Errorf("%s: %+v, %v", c.name, gre, err)
		}
		inner := packet[20+wire.NVGRELen+wire.EthernetLen:]
		p, ok := parseQuoted(wireTypeOf(c.from), inner)
		if !ok || p.src != c.to || p.dst != c.from || p.length != len(inner) {
			t.Errorf("%s: %+v", c.name, p)
		}
		if quote := inner[p.l4+wire.ICMPLen:]; !bytes.Equal(quote, head[wire.EthernetLen:][:maxQuote]) {
			t.Errorf("%s: quotes %x", c.name, quote)
		}
	}
	unknown := datagram(addr("10.1.0.9"), addr("10.1.0.5"), false, 1600)
	if packet, ok := tooBigFor(set, port, unknown[:20]); ok {
		t.Errorf("of a cut header: %x", packet)
	}
	delete(set.Peers, remote)
	if packet, ok := tooBigFor(set, port, unknown[:400]); ok {
		t.Errorf("toward nowhere: %x", packet)
	}
	if _, changed := set.Ports[10]; !changed || set.Ports[10] != port {
		t.Error("the rows that policy wants were changed")
	}
}

func wireTypeOf(a netip.Addr) uint16 {
	if a.Is4() {
		return wire.TypeIPv4
	}
	return wire.TypeIPv6
}

// The sender's host takes the error as it takes anything of that guest, by every transport.
func TestErrorsAboutWhatArrivedAreAdmitted(t *testing.T) {
	near, far := addr("192.0.2.1"), addr("198.51.100.2")
	for _, transport := range []model.TransportID{model.NVGRE, model.VXLAN} {
		here, there := toldSet(transport, near, far, 1500), toldSet(transport, far, near, 1500)
		here.Settings.VXLANPort, there.Settings.VXLANPort = 4789, 4789
		swapPlaces(there, near)
		for _, ends := range [][2]string{{"10.1.0.9", "10.1.0.5"}, {"fd01::9", "fd01::5"}} {
			packet, ok := tooBigFor(here, here.Ports[10], datagram(addr(ends[0]), addr(ends[1]), false, 1600))
			if !ok {
				t.Fatalf("%s: nobody is told", transport)
			}
			frame := append(make([]byte, wire.EthernetLen), packet...)
			written(wire.Ethernet{Type: wire.TypeIPv4}.Encode(frame))
			if r := (sim.Switch{Set: there}).FromUplink(1, frame); r.Verdict != model.VerdictDelivered || r.To != 9 {
				t.Errorf("%s, %s: %s", transport, ends[0], r.Verdict)
			}
		}
	}
}

// swapPlaces makes the rows of toldSet those of the other host: its guest is 9, and that of pa is 5.
func swapPlaces(set table.Set, pa netip.Addr) {
	p := set.Ports[10]
	p.ID, p.MAC = 9, model.MAC{2, 0, 0, 0, 0, 9}
	set.Ports[10] = p
	for k, r := range set.Records {
		switch {
		case r.Port == 9 && k.VSID == 5001:
			r.PA, r.IfIndex = netip.Addr{}, 10
		case r.Port == 7:
			r.PA, r.IfIndex = pa, 0
		}
		set.Records[k] = r
	}
}
