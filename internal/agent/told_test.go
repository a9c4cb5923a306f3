package agent

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/sim"
	"github.com/weft-sdn/weft/internal/table"
	"github.com/weft-sdn/weft/internal/wire"
)

// toldSet is a host with one guest in subnet 5001 and, on another host, one in it and one in 5002.
func toldSet(transport model.TransportID, local, remote netip.Addr, mtu uint16) table.Set {
	set := table.NewSet()
	set.Ports[10] = table.Port{IfIndex: 10, ID: 7, VSID: 5001, Network: 3, MAC: model.MAC{2, 0, 0, 0, 0, 1}, PA: local,
		Gateway4: addr("10.1.0.1"), Gateway6: addr("fd01::1"), MTU: 1500, Transport: transport}
	record := func(vsid model.VSID, ca string, r table.Record) {
		r.Transport = transport
		set.Records[table.RecordKey{VSID: vsid, CA: addr(ca)}] = r
	}
	for family, prefix := range []string{"10.%d.0.%d", "fd0%d::%d"} {
		for _, subnet := range []int{1, 2} {
			bits := []int{24, 64}[family]
			network := netip.PrefixFrom(addr(fmt.Sprintf(prefix, subnet, 0)), bits).Masked()
			set.Routes[table.RouteKey{Network: 3, Prefix: network}] = table.Route{VSID: model.VSID(5000 + subnet)}
			record(model.VSID(5000+subnet), fmt.Sprintf(prefix, subnet, 1), table.Record{MAC: model.RouterMAC(model.VSID(5000 + subnet)), Router: true})
			record(model.VSID(5000+subnet), fmt.Sprintf(prefix, subnet, 9), table.Record{MAC: model.MAC{2, 0, 0, 0, 0, 9}, PA: remote, Port: 9})
		}
		record(5001, fmt.Sprintf(prefix, 1, 5), table.Record{MAC: model.MAC{2, 0, 0, 0, 0, 1}, IfIndex: 10, Port: 7})
	}
	set.Peers[remote] = table.Peer{PA: remote, IfIndex: 1, MTU: mtu}
	set.LocalPAs[local] = struct{}{}
	return set
}

// datagram is a frame of the guest at 10 with so many bytes of UDP payload.
func datagram(from, to netip.Addr, router bool, payload int) []byte {
	kind, ipLen := uint16(wire.TypeIPv4), wire.IPv4Len
	if from.Is6() {
		kind, ipLen = wire.TypeIPv6, wire.IPv6Len
	}
	dst := model.MAC{2, 0, 0, 0, 0, 9}
	if router {
		dst = model.RouterMAC(5001)
	}
	frame := make([]byte, wire.EthernetLen+ipLen+wire.UDPLen+payload)
	written(wire.Ethernet{Dst: dst, Src: model.MAC{2, 0, 0, 0, 0, 1}, Type: kind}.Encode(frame))
	packet := frame[wire.EthernetLen:]
	length := uint16(wire.UDPLen + payload)
	if from.Is6() {
		written(wire.IPv6{Next: wire.ProtoUDP, HopLimit: 64, PayloadLen: length, Source: from, Destination: to}.Encode(packet))
	} else {
		written(wire.IPv4{HeaderLen: wire.IPv4Len, TTL: 64, Proto: wire.ProtoUDP, DontFrag: true, TotalLen: uint16(len(packet)), Source: from, Destination: to}.Encode(packet))
		written(wire.SealIPv4(packet[:wire.IPv4Len]))
	}
	written(wire.UDP{Source: 1000, Destination: 2000, Length: length}.Encode(packet[ipLen:]))
	return frame
}

// answer does what listenForErrors does with an error.
func answer(set table.Set, e netdev.ICMPError, most uint16) ([]byte, bool) {
	s, ok := parseSent(e.Quote, set.Settings.VXLANPort)
	if !ok {
		return nil, false
	}
	what, ok := meaningOf(e, s, most)
	if !ok {
		return nil, false
	}
	port, p, ok := senderOf(set, s)
	if !ok || port.IfIndex != 10 || !p.mayBeToldOf() {
		return nil, false
	}
	return errorFrame(port, p, what)
}

// What a guest hears of a router in the underlay is to the byte what it hears of its own when a packet does
// not fit, for every transport, family, and subnet. (A routed packet is quoted with the TTL that it had left.)
func TestUnderlayErrorsAreTheRoutersOwn(t *testing.T) {
	for _, transport := range []model.TransportID{model.NVGRE, model.VXLAN} {
		for _, pas := range [][2]string{{"192.0.2.1", "192.0.2.2"}, {"fd99::1", "fd99::2"}} {
			for _, cas := range []string{"10.1.0.5 10.1.0.9", "10.1.0.5 10.2.0.9", "fd01::5 fd01::9", "fd01::5 fd02::9"} {
				var from, to string
				fmt.Sscan(cas, &from, &to)
				name := fmt.Sprintf("%v over %s, %s to %s", transport, pas[0], from, to)
				local, remote := addr(pas[0]), addr(pas[1])
				routed := to == "10.2.0.9" || to == "fd02::9"
				frame := datagram(addr(from), addr(to), routed, 1340)
				wide, narrow := toldSet(transport, local, remote, 9000), toldSet(transport, local, remote, 1400)
				sent := sim.Switch{Set: wide}.FromPort(10, frame)
				if sent.Verdict != model.VerdictEncapsulated {
					t.Fatalf("%s: %v", name, sent.Verdict)
				}
				want := sim.Switch{Set: narrow}.FromPort(10, frame).Frame
				e := netdev.ICMPError{From: addr("203.0.113.1"), Type: 3, Code: 4, Rest: 1400, Quote: sent.Frame[14 : 14+500]}
				if local.Is6() {
					e.From, e.Type, e.Code = addr("fd99::ff"), 2, 0
				}
				got, ok := answer(wide, e, 9000)
				if !ok || want == nil {
					t.Errorf("%s: nothing is said (%t)", name, ok)
					continue
				}
				if routed { // all but the quote
					n := len(want) - maxQuote
					sum := n - wire.ICMPLen + 2
					copy(got[sum:], want[sum:sum+2])
					got, want = got[:n], want[:n]
				}
				if !bytes.Equal(got, want) {
					t.Errorf("%s:\n got %x\nwant %x", name, got, want)
				}
			}
		}
	}
}

// An error about what a guest has forwarded for another goes into that guest, for the source: it knows the way. Of two such guests
// the route back decides, and where that leads elsewhere nobody is told.
func TestForwardersAreToldForOthers(t *testing.T) {
	local, remote, source := addr("192.0.2.1"), addr("192.0.2.2"), addr("172.16.5.5")
	back := table.RouteKey{Network: 3, Prefix: netip.MustParsePrefix("172.16.0.0/16")}
	for name, c := range map[string]struct {
		change func(set table.Set, port, other table.Port)
		want   uint32
	}{
		"nobody forwards": {func(table.Set, table.Port, table.Port) {}, 0},
		"one": {func(set table.Set, port, _ table.Port) {
			port.Forward = true
			set.Ports[10] = port
		}, 10},
		"one of another routing domain": {func(set table.Set, _, other table.Port) {
			other.Forward, other.Network = true, 4
			set.Ports[11] = other
		}, 0},
		"two, and the way back by the second": {func(set table.Set, port, other table.Port) {
			port.Forward, other.Forward = true, true
			set.Ports[10], set.Ports[11] = port, other
			set.Routes[back] = table.Route{VSID: 5001, NextHop: addr("10.1.0.6")}
		}, 11},
		"two, and the way back by neither": {func(set table.Set, port, other table.Port) {
			port.Forward, other.Forward = true, true
			set.Ports[10], set.Ports[11] = port, other
			set.Routes[back] = table.Route{VSID: 5001, NextHop: addr("10.1.0.9")}
		}, 0},
	} {
		set := toldSet(model.NVGRE, local, remote, 9000)
		port := set.Ports[10]
		other := port
		other.IfIndex, other.ID, other.MAC = 11, 8, model.MAC{2, 0, 0, 0, 0, 2}
		set.Ports[11] = other
		set.Records[table.RecordKey{VSID: 5001, CA: addr("10.1.0.6")}] = table.Record{MAC: other.MAC, IfIndex: 11, Port: 8}
		forwards := port
		forwards.Forward = true
		set.Ports[10] = forwards
		frame := sim.Switch{Set: set}.FromPort(10, datagram(source, addr("10.2.0.9"), true, 1340))
		if frame.Verdict != model.VerdictEncapsulated {
			t.Fatalf("%s: %v", name, frame.Verdict)
		}
		set.Ports[10] = port
		c.change(set, port, other)
		s, ok := parseSent(frame.Frame[14:][:500], set.Settings.VXLANPort)
		if !ok {
			t.Fatalf("%s: the quote is not read", name)
		}
		got, p, ok := senderOf(set, s)
		if ok != (c.want != 0) || got.IfIndex != c.want {
			t.Errorf("%s: device %d (%t), want %d", name, got.IfIndex, ok, c.want)
			continue
		}
		if !ok {
			continue
		}
		told, ok := errorFrame(got, p, meaning{mtu: 1400, limit: 1358})
		ip, err := wire.ParseIPv4(told[wire.EthernetLen:])
		eth, _ := wire.ParseEthernet(told)
		if !ok || err != nil || ip.Destination != source || ip.Source != got.Gateway4 || eth.Dst != got.MAC {
			t.Errorf("%s: told %s by %s to %s (%v)", name, eth.Dst, ip.Source, ip.Destination, err)
		}
	}
}

// Nobody is told anything on the word of an error that quotes what was never sent, or too little.
func TestForgedUnderlayErrors(t *testing.T) {
	local, remote := addr("192.0.2.1"), addr("192.0.2.2")
	for name, c := range map[string]struct {
		transport model.TransportID
		change    func(q []byte) []byte
	}{
		"eight bytes, NVGRE":       {model.NVGRE, func(q []byte) []byte { return q[:28] }},
		"eight bytes, VXLAN":       {model.VXLAN, func(q []byte) []byte { return q[:28] }},
		"cut before the ports":     {model.NVGRE, func(q []byte) []byte { return q[:28+14+20+7] }},
		"another VSID":             {model.NVGRE, func(q []byte) []byte { q[26]++; return q }},
		"a reserved VSID":          {model.NVGRE, func(q []byte) []byte { q[24], q[25] = 0, 0; return q }},
		"GRE without a key":        {model.NVGRE, func(q []byte) []byte { q[20] = 0; return q }},
		"another protocol":         {model.NVGRE, func(q []byte) []byte { q[9] = 6; return q }},
		"a fragment":               {model.NVGRE, func(q []byte) []byte { q[6] = 0x20; return q }},
		"options":                  {model.NVGRE, func(q []byte) []byte { q[0] = 0x46; return q }},
		"another UDP port":         {model.VXLAN, func(q []byte) []byte { q[23]++; return q }},
		"a low source port":        {model.VXLAN, func(q []byte) []byte { q[20] = 0; return q }},
		"VXLAN without VNI":        {model.VXLAN, func(q []byte) []byte { q[28] = 0; return q }},
		"another MAC":              {model.NVGRE, func(q []byte) []byte { q[28+6+5]++; return q }},
		"another source":           {model.NVGRE, func(q []byte) []byte { q[28+14+15]++; return q }},
		"a source at another host": {model.NVGRE, func(q []byte) []byte { q[28+14+15] = 9; return q }},
		"routed from elsewhere": {model.NVGRE, func(q []byte) []byte {
			copy(q[28+6:], []byte{2, 0x77, 0x66, 0, 0x13, 0x89})
			q[28+14+15] = 9
			return q
		}},
		"a later fragment": {model.NVGRE, func(q []byte) []byte { q[28+14+7] = 1; return q }},
		"an ICMP error":    {model.NVGRE, func(q []byte) []byte { q[28+14+9], q[28+14+20] = 1, 3; return q }},
		"ARP":              {model.NVGRE, func(q []byte) []byte { q[28+13] = 6; return q }},
	} {
		set := toldSet(c.transport, local, remote, 9000)
		sent := sim.Switch{Set: set}.FromPort(10, datagram(addr("10.1.0.5"), addr("10.1.0.9"), false, 1340)).Frame[14:]
		e := netdev.ICMPError{From: addr("203.0.113.1"), Type: 3, Code: 4, Rest: 1400, Quote: bytes.Clone(sent[:500])}
		if _, ok := answer(set, e, 1500); !ok {
			t.Fatalf("%s: the true one is not believed", name)
		}
		e.Quote = c.change(e.Quote)
		if got, ok := answer(set, e, 1500); ok {
			t.Errorf("%s: %x", name, got)
		}
	}
}

// What an error means, and that no word makes a path narrower than the floor or wider than it is.
func TestMeaningOfErrors(t *testing.T) {
	four := sent{ends: ends{addr("192.0.2.1"), addr("192.0.2.2")}, transport: model.VXLAN}
	six := sent{ends: ends{addr("fd99::1"), addr("fd99::2")}, transport: model.NVGRE}
	quote := make([]byte, 28)
	for name, c := range map[string]struct {
		of         sent
		from       string
		kind, code uint8
		rest       uint32
		want       meaning
		ok         bool
	}{
		"too big":               {four, "203.0.113.1", 3, 4, 1400, meaning{1400, 1350, false}, true},
		"far too big":           {four, "203.0.113.1", 3, 4, 68, meaning{576, 526, false}, true},
		"not too big at all":    {four, "203.0.113.1", 3, 4, 1500, meaning{1500, 1450, false}, false},
		"a router of before":    {four, "203.0.113.1", 3, 4, 0, meaning{576, 526, false}, true},
		"no host":               {four, "203.0.113.1", 3, 1, 0, meaning{}, true},
		"no protocol there":     {four, "192.0.2.2", 3, 2, 0, meaning{}, true},
		"no port there":         {four, "192.0.2.2", 3, 3, 0, meaning{}, true},
		"a filter":              {four, "203.0.113.1", 3, 13, 0, meaning{forbidden: true}, true},
		"a loop":                {four, "203.0.113.1", 11, 0, 0, meaning{}, true},
		"of the other family":   {four, "fd99::9", 2, 0, 1400, meaning{}, false},
		"IPv6, too big":         {six, "fd99::9", 2, 0, 1400, meaning{1400, 1338, false}, true},
		"IPv6, far too big":     {six, "fd99::9", 2, 0, 68, meaning{1280, 1218, false}, true},
		"IPv6, no route":        {six, "fd99::9", 1, 0, 0, meaning{}, true},
		"IPv6, a filter":        {six, "fd99::9", 1, 1, 0, meaning{forbidden: true}, true},
		"IPv6, a filter's word": {six, "fd99::9", 1, 5, 0, meaning{forbidden: true}, true},
		"IPv6, a loop":          {six, "fd99::9", 3, 0, 0, meaning{}, true},
	} {
		e := netdev.ICMPError{From: addr(c.from), Type: c.kind, Code: c.code, Rest: c.rest, Quote: quote}
		if got, ok := meaningOf(e, c.of, 1500); ok != c.ok || ok && got != c.want {
			t.Errorf("%s: %+v, %t", name, got, ok)
		}
	}
}

// A flood of errors is passed on in part, and costs other guests nothing until all together are too much.
func TestTellingKeepsToAPace(t *testing.T) {
	var told teller
	now := time.Unix(1000, 0)
	count := func(id model.PortID, n int) (passed int) {
		for range n {
			if told.may(id, now) {
				passed++
			}
		}
		return passed
	}
	if n := count(1, 1000); n != tellBurstPort {
		t.Errorf("one port is told of %d at once", n)
	}
	if n := count(2, 1000); n != tellBurstPort {
		t.Errorf("the next is told of %d", n)
	}
	all := 2 * tellBurstPort
	for id := range model.PortID(100) {
		all += count(id+3, 10)
	}
	if all != tellBurst {
		t.Errorf("all together are told of %d at once", all)
	}
	now = now.Add(time.Second)
	if n := count(1, 1000); n != tellBurstPort {
		t.Errorf("a second later, of %d", n)
	}
}
