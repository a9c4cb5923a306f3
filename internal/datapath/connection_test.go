package datapath

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

func aclRules(key byte, action table.RuleAction, idle time.Duration) (table.RuleSetKey, *table.RuleSet) {
	r := table.Rule{ID: model.RuleID{List: model.Ref{Tenant: "red", Name: "acl"}, Rule: string(rune('a' + key))}, Action: action,
		AnyProtocol: true, ICMPType: -1, ICMPCode: -1, Stateful: idle > 0, Idle: idle}
	return table.RuleSetKey{key}, &table.RuleSet{Sections: []table.Section{{Kind: table.Tenant, Rules: []table.Rule{r}}}}
}

// TestConnectionsOutliveFloodsAndRestarts has two guests talk, of whom neither may begin with a word but one, floods the
// tables of both with real packets that nobody answers, and restarts both switches.
func TestConnectionsOutliveFloodsAndRestarts(t *testing.T) {
	f := newFabric(t, Options{}, &guest{name: "web0"}, &guest{name: "web1"})
	opens, all := aclRules(1, table.Allow, 5*time.Minute)
	denies, none := aclRules(2, table.Deny, 0)
	for i, h := range f.hosts {
		set := f.rows(h)
		set.RuleSets[opens], set.RuleSets[denies] = all, none
		for ifindex, p := range set.Ports {
			if p.Outbound, p.Inbound = opens, denies; i == 1 {
				p.Outbound, p.Inbound = denies, opens
			}
			set.Ports[ifindex] = p
		}
		h.sw.Close()
		pins := pinDir(t)
		inside(t, h.ns, func() {
			h.sw = f.openSwitch(h, Options{PinDir: pins})
			if err := h.sw.Apply(set, true); err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(func() { h.sw.Close() })
	}
	if t.Failed() {
		t.FailNow()
	}
	to := netip.AddrPortFrom(f.guests["web1"].v4, 4000)
	var server net.PacketConn
	var flood net.PacketConn
	var err error
	inside(t, f.guests["web1"].ns, func() { server, err = net.ListenPacket("udp", to.String()) })
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		b := make([]byte, 64)
		for {
			n, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			server.WriteTo(b[:n], from)
		}
	}()
	clients := make([]net.Conn, 200)
	inside(t, f.guests["web0"].ns, func() {
		for i := range clients {
			if clients[i], err = net.Dial("udp", to.String()); err != nil {
				return
			}
		}
		flood, err = net.ListenPacket("udp", "10.0.0.10:0")
	})
	if err != nil {
		t.Fatal(err)
	}
	f.ping("web0", f.guests["web1"].v4)
	answered := func(when string) {
		t.Helper()
		b := make([]byte, 64)
		for i, c := range clients {
			c.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := c.Write([]byte{byte(i)}); err != nil {
				t.Fatalf("%s: connection %d: %v", when, i, err)
			}
			if n, err := c.Read(b); err != nil || n != 1 || b[0] != byte(i) {
				t.Fatalf("%s: connection %d: %d bytes, %v\n%s", when, i, n, err, f.drops())
			}
		}
	}
	answered("at first")
	answered("once more") // which confirms them
	counts := func() (n [2]ConnectionCount) {
		t.Helper()
		for i, name := range []string{"web0", "web1"} {
			g := f.guests[name]
			_, c, ok, err := g.host.sw.Connections(g.port.ID)
			if err != nil || !ok {
				t.Fatalf("connections of %s: %v %v", name, ok, err)
			}
			n[i] = c
		}
		return n
	}
	for i := range 20_000 {
		if _, err := flood.WriteTo([]byte("x"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Addr(), uint16(5000+i)))); err != nil {
			t.Fatal(err)
		}
	}
	for i, n := range counts() {
		t.Logf("after a flood: %+v", n)
		if n.LostConfirmed != 0 || n.Confirmed < len(clients) || n.LostHalfOpen == 0 {
			t.Errorf("web%d: %+v", i, n)
		}
	}
	answered("after a flood")
	for _, h := range f.hosts {
		pins := h.sw.opts.PinDir
		h.sw.Close()
		inside(t, h.ns, func() {
			if h.sw, err = Open(Options{PinDir: pins}); err != nil {
				t.Fatal(err)
			}
		})
	}
	answered("after a restart")
	if n := counts(); n[0].Confirmed < len(clients) || n[1].Confirmed < len(clients) {
		t.Errorf("after a restart: %+v", n)
	}
	// Nobody has asked web1 to speak of itself.
	before := f.dropped(f.hosts[1], model.VerdictAclDenied)
	if _, err := server.WriteTo([]byte("hello"), flood.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(10 * time.Second); f.dropped(f.hosts[1], model.VerdictAclDenied) == before; {
		if time.Now().After(until) {
			t.Fatal("what nobody has asked for was let through")
		}
	}
}
