package packet

import (
	"bytes"
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// newcomer is a guest without an address that policy knows, at db's device: its MAC is known.
var newcomer = model.MAC{2, 0, 0, 0, 0, 99}

// learnAt makes the port of a device one that learns.
func learnAt(s site, dev int, mac model.MAC) func(*table.Set) {
	return func(set *table.Set) {
		p := set.Ports[s.ports[dev]]
		p.Learn, p.MAC = true, mac
		set.Ports[p.IfIndex] = p
		set.Records[table.RecordKey{VSID: p.VSID, CA: model.L2OnlyCA(mac)}] = table.Record{MAC: mac, IfIndex: p.IfIndex, Port: p.ID}
	}
}

func dhcpFrame(dst, src model.MAC, from, to netip.Addr, sport, dport uint16) []byte {
	return ipFrame(dst, src, v4(wire.IPv4{TTL: 64, Proto: wire.ProtoUDP, Source: from, Destination: to}, nil, udp(sport, dport, 300)))
}

// leaseStories tell how a DHCP server's word finds a client that has no address yet.
func leaseStories(s site) []story {
	offered := addr("10.0.0.99")
	here := func(set *table.Set) {
		learnAt(s, devDB, newcomer)(set)
		unguarded(s, devWeb)(set)
		unguarded(s, devAPI)(set)
	}
	far := func(set *table.Set) {
		unguarded(s, devWeb)(set)
		set.Records[table.RecordKey{VSID: red1, CA: model.L2OnlyCA(newcomer)}] = table.Record{MAC: newcomer, PA: paFar, Port: 99}
	}
	offer := func(to netip.Addr, sport, dport uint16) []byte {
		return dhcpFrame(newcomer, web.mac, web.v4, to, sport, dport)
	}
	refused := func(name string, in packetIn, change func(*table.Set), v model.Verdict, port model.PortID) story {
		st := drop(name, in, v, port)
		st.change = change
		return st
	}
	return []story{
		{name: "a lease for a guest here", in: s.fromPort(devWeb, offer(offered, 67, 68)), change: here, port: web.id, to: db.id,
			want: outcome{model.VerdictDelivered, s.ports[devDB], offer(offered, 67, 68)}},
		{name: "a lease for a guest far away", in: s.fromPort(devWeb, offer(offered, 67, 68)), change: far, port: web.id,
			want: outcome{model.VerdictEncapsulated, s.uplinks[0], nvgre(uplinkNextHop, s.macs[s.uplinks[0]], paHere, paFar, red1, flowOfDHCP(web.v4, offered), 0, offer(offered, 67, 68))}},
		refused("a lease for a MAC that nobody has", s.fromPort(devWeb, with(offer(offered, 67, 68), 5, 98)), here, model.VerdictNoRecord, web.id),
		refused("anything else for a guest without address", s.fromPort(devWeb, offer(offered, 67, 53)), here, model.VerdictNoRecord, web.id),
		refused("a lease across subnets", s.fromPort(devAPI, dhcpFrame(newcomer, api.mac, api.v4, offered, 67, 68)), here, model.VerdictNoRecord, api.id),
		{name: "a record comes before the client's MAC", in: s.fromPort(devWeb, offer(fw.v4, 67, 68)), change: here, port: web.id, to: fw.id,
			want: outcome{model.VerdictDelivered, s.ports[devFW], with(offer(fw.v4, 67, 68), 0, fw.mac[:]...)}},
		refused("a guest speaks from what is not learned yet", s.fromPort(devDB, ipFrame(web.mac, newcomer, dgram(offered, web.v4, 64, 4))), here, model.VerdictSpoofedCa, db.id),
	}
}

// flowOfDHCP is flowOf for the ports of DHCP.
func flowOfDHCP(src, dst netip.Addr) uint8 {
	h := uint32(67^68) ^ 17<<16
	for _, a := range [2]netip.Addr{src, dst} {
		for i, b := range a.AsSlice() {
			h ^= uint32(b) << (24 - 8*(i%4))
		}
	}
	return uint8(h * 0x9e3779b1 >> 24)
}

// TestWhatIsSighted sends frames past a port that learns and looks which ones are told of.
func TestWhatIsSighted(t *testing.T) {
	s, sw := newSite(t), load(t)
	set := street(s)
	learnAt(s, devDB, newcomer)(&set)
	unguarded(s, devWeb)(&set)
	unguarded(s, devDB)(&set)
	trustFar(mail, table.Trust{DHCP: true})(&set)
	mate := set.Ports[s.ports[devFW]]
	mate.Teaming, mate.Allowed = true, true
	set.Ports[mate.IfIndex] = mate
	set.Allowed[table.Allowed{IfIndex: mate.IfIndex, MAC: web.mac}] = struct{}{}
	set.Allowed[table.Allowed{IfIndex: mate.IfIndex, Prefix: netip.PrefixFrom(web.v4, 32)}] = struct{}{}
	apply(t, sw, set)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	sightings, err := sw.Sightings(ctx)
	if err != nil {
		t.Fatal(err)
	}
	own, foreign, other := db.v4, addr("10.0.0.99"), addr("fd00:0:0:1::99")
	group := addr("ff02::1:ff00:99")
	arpOf := func(mac model.MAC, sender, target netip.Addr) []byte {
		return frame(everyone, mac, wire.TypeARP, arp(wire.ARPRequest, mac, sender, model.MAC{}, target))
	}
	solicit := func(mac model.MAC, src, target netip.Addr) []byte {
		n := wire.Neighbour{Type: wire.ICMPv6NeighbourSol, Target: target}
		if !src.IsUnspecified() {
			n.MAC, n.HasMAC = mac, true
		}
		return ipFrame(everyone, mac, neighbour(src, group, n))
	}
	none4, none6 := addr("0.0.0.0"), addr("::")
	up := func(vsid model.VSID, inner []byte) packetIn {
		return s.fromUplink(nvgre(s.macs[s.uplinks[0]], uplinkNextHop, paFar, paHere, vsid, 7, 0, inner))
	}
	ack := dhcpFrame(newcomer, mail.mac, mail.v4, foreign, 67, 68)
	for _, c := range []struct {
		name    string
		in      packetIn
		verdict model.Verdict // NoRecord: nothing is told
		port    model.PortID
	}{
		{"gratuitous ARP for a foreign address", s.fromPort(devDB, arpOf(newcomer, foreign, foreign)), model.VerdictSpoofedArp, db.id},
		{"ARP from a foreign address", s.fromPort(devDB, arpOf(newcomer, foreign, web.v4)), model.VerdictSpoofedArp, db.id},
		{"ARP from its own address", s.fromPort(devDB, arpOf(newcomer, own, web.v4)), model.VerdictNoRecord, 0},
		{"ARP from nobody's address", s.fromPort(devDB, arpOf(newcomer, none4, foreign)), model.VerdictNoRecord, 0},
		{"a probe for a neighbour's address", s.fromPort(devDB, arpOf(newcomer, none4, web.v4)), model.VerdictAnswered, db.id},
		{"a probe by a port that does not learn", s.fromPort(devWeb, arpOf(web.mac, none4, fw.v4)), model.VerdictAnswered, web.id},
		{"gratuitous ARP by a port that does not learn", s.fromPort(devWeb, arpOf(web.mac, foreign, foreign)), model.VerdictNoRecord, 0},
		{"duplicate detection", s.fromPort(devDB, solicit(newcomer, none6, other)), model.VerdictContinue, db.id},
		{"duplicate detection of a neighbour's address", s.fromPort(devWeb, solicit(web.mac, none6, fw.v6)), model.VerdictAnswered, web.id},
		{"duplicate detection of a link-local address", s.fromPort(devDB, solicit(newcomer, none6, addr("fe80::9"))), model.VerdictNoRecord, 0},
		{"ND from a foreign address", s.fromPort(devDB, solicit(newcomer, other, web.v6)), model.VerdictSpoofedCa, db.id},
		{"an advertisement of a foreign address", s.fromPort(devDB, ipFrame(web.mac, newcomer, neighbour(db.v6, web.v6,
			wire.Neighbour{Type: wire.ICMPv6NeighbourAdv, Target: other, MAC: newcomer, HasMAC: true}))), model.VerdictSpoofedNd, db.id},
		{"another MAC", s.fromPort(devDB, arpOf(db.mac, foreign, foreign)), model.VerdictNoRecord, 0},
		{"data from a foreign address", s.fromPort(devDB, ipFrame(web.mac, newcomer, dgram(foreign, web.v4, 64, 4))), model.VerdictNoRecord, 0},
		{"DHCP discovery", s.fromPort(devDB, dhcpFrame(everyone, newcomer, none4, broadcast, 68, 67)), model.VerdictMulticast, db.id},
		{"DHCP release", s.fromPort(devDB, dhcpFrame(web.mac, newcomer, own, web.v4, 68, 67)), model.VerdictContinue, db.id},
		{"DHCP by a port that does not learn", s.fromPort(devWeb, dhcpFrame(everyone, web.mac, none4, broadcast, 68, 67)), model.VerdictNoRecord, 0},
		{"another port of its team", s.fromPort(devFW, ipFrame(db.mac, web.mac, dgram(web.v4, db.v4, 64, 4))), model.VerdictContinue, fw.id},
		{"a port that may team, as itself", s.fromPort(devFW, ipFrame(db.mac, fw.mac, dgram(fw.v4, db.v4, 64, 4))), model.VerdictNoRecord, 0},
		{"a lease from here", s.fromPort(devWeb, dhcpFrame(newcomer, web.mac, web.v4, foreign, 67, 68)), model.VerdictContinue, db.id},
		{"a lease from far away", up(red1, ack), model.VerdictContinue, db.id},
		{"a lease from a liar far away", up(red1, with(ack, 26, 10, 0, 0, 77)), model.VerdictNoRecord, 0},
		{"a lease to a port that does not learn", s.fromPort(devDB, dhcpFrame(web.mac, newcomer, own, web.v4, 67, 68)), model.VerdictNoRecord, 0},
	} {
		if _, err := run(sw, c.in); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		// What is told of comes in order: a last one that always is shows that nothing came before it.
		if c.verdict == model.VerdictNoRecord {
			continue
		}
		select {
		case got := <-sightings:
			if got.Verdict != c.verdict || got.Port != c.port || got.VSID != red1 || got.Inbound != (c.in.program == datapath.FromUplink) {
				t.Fatalf("%s: %+v", c.name, got)
			}
			frame := c.in.frame
			if c.in.program == datapath.FromUplink {
				frame = ack
			}
			if c.verdict != model.VerdictAnswered && !bytes.Equal(got.Head, frame[:min(len(frame), 400)]) {
				t.Fatalf("%s: %x, want %x", c.name, got.Head, frame)
			}
		case <-ctx.Done():
			t.Fatalf("%s: nothing is told", c.name)
		}
	}
}

// TestALoudGuestIsSightedSlowly floods claims from one port: what is told keeps to its pace, and
// another port is still heard.
func TestALoudGuestIsSightedSlowly(t *testing.T) {
	s, sw := newSite(t), load(t)
	set := street(s)
	learnAt(s, devDB, db.mac)(&set)
	learnAt(s, devWeb, web.mac)(&set)
	apply(t, sw, set)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	sightings, err := sw.Sightings(ctx)
	if err != nil {
		t.Fatal(err)
	}
	claim := func(dev int, g guest) packetIn {
		return s.fromPort(dev, frame(everyone, g.mac, wire.TypeARP, arp(wire.ARPRequest, g.mac, addr("10.0.0.99"), model.MAC{}, addr("10.0.0.99"))))
	}
	started := time.Now()
	for range 2000 {
		if _, err := run(sw, claim(devDB, db)); err != nil {
			t.Fatal(err)
		}
	}
	most := 22 + int(time.Since(started).Seconds()*20)
	if _, err := run(sw, claim(devWeb, web)); err != nil {
		t.Fatal(err)
	}
	loud := 0
	for {
		select {
		case got := <-sightings:
			if got.Port == db.id {
				loud++
				continue
			}
			if loud < 20 || loud > most {
				t.Errorf("%d of 2000 claims are told of, want 20 to %d", loud, most)
			}
			return
		case <-ctx.Done():
			t.Fatalf("the quiet port is not heard behind %d of the loud one", loud)
		}
	}
}

// TestWhatIsFloodedIsSighted sends what nobody has a record of in a subnet that floods it.
func TestWhatIsFloodedIsSighted(t *testing.T) {
	s, sw := newSite(t), load(t)
	set := street(s)
	floodRed(s, table.Flood{Rate: 1e9})(&set)
	unguarded(s, devWeb)(&set)
	apply(t, sw, set)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	sightings, err := sw.Sightings(ctx)
	if err != nil {
		t.Fatal(err)
	}
	ask := frame(everyone, web.mac, wire.TypeARP, arp(wire.ARPRequest, web.mac, web.v4, model.MAC{}, addr("10.0.0.254")))
	nack := dhcpFrame(everyone, web.mac, web.v4, broadcast, 67, 68)
	for _, c := range []struct {
		frame   []byte
		verdict model.Verdict
		port    model.PortID
	}{{ask, model.VerdictArpNoRecord, web.id}, {nack, model.VerdictContinue, 0}} {
		if got, err := run(sw, s.fromPort(devWeb, c.frame)); err != nil || got.verdict != model.VerdictFlooded {
			t.Fatalf("%s, %v", got, err)
		}
		select {
		case got := <-sightings:
			if got.Verdict != c.verdict || got.Port != c.port || got.VSID != red1 || !bytes.Equal(got.Head, c.frame) {
				t.Fatalf("%+v, want %s of port %d", got, c.verdict, c.port)
			}
		case <-ctx.Done():
			t.Fatal("nothing is told")
		}
	}
}
