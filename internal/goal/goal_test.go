package goal

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/weft-sdn/weft/internal/model"
)

// Goals are drawn from few keys and few values, so that two of them share rows,
// differ in the value of others and lack the rest.
func drawGoal(t *rapid.T, label string) *Goal {
	g := New()
	pas := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::1")}
	cas := []netip.Addr{netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.0.0.6"), netip.MustParseAddr("fd00:a::5")}
	prefixes := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00:a::/64"), netip.MustParsePrefix("0.0.0.0/0")}
	number := func(n int) int { return rapid.IntRange(0, n-1).Draw(t, label) }
	mac := func() model.MAC { return model.MAC{2, 0, 0, 0, 0, byte(1 + number(3))} }
	optional := func(from []netip.Addr) netip.Addr {
		if i := number(len(from) + 1); i < len(from) {
			return from[i]
		}
		return netip.Addr{}
	}
	if g.Settings.VXLANPort = uint16(number(3)); g.Settings.VXLANPort > 1 { // 0: nobody has told
		g.Settings.Pipe, g.Settings.DSCP = true, uint8(number(4))
	}
	for range number(4) {
		g.PAs[pas[number(3)]] = struct{}{}
	}
	for range number(6) {
		k := RecordKey{model.VSID(5001 + number(2)), cas[number(3)]}
		g.Records[k] = Record{MAC: mac(), PA: optional(pas), Port: model.PortID(number(3)), Transport: model.TransportID(number(3)), Trust: Trust{Forward: number(3) == 0, DHCP: number(3) == 0, Router: number(3) == 0, Allowed: number(3) == 0}, Isolation: model.IsolationID(number(4))}
		if r := g.Records[k]; r.Transport == model.Rewrite && number(2) == 0 {
			r.Rewrite = pas[number(3)]
			if r.Rewrite.Is4() != k.CA.Is4() {
				r.Rewrite = k.CA.Next()
			}
			g.Records[k] = r
		}
		if number(4) == 0 {
			g.Records[k] = Record{MAC: model.RouterMAC(k.VSID), Router: true}
		}
	}
	for range number(5) {
		g.Routes[RouteKey{model.NetworkIndex(1 + number(2)), prefixes[number(3)]}] = Route{model.VSID(5001 + number(2)), optional(cas)}
	}
	for range number(4) {
		r := ProviderRoute{Prefix: prefixes[number(3)], Interface: "eth1", Metric: uint32(number(3))}
		if hop := optional(cas); hop.IsValid() && hop.Is4() == r.Prefix.Addr().Is4() {
			r.NextHop = hop
		}
		g.ProviderRoutes[string(rune('a'+number(3)))] = r
	}
	for range number(4) {
		var p Peer
		copy(p.PAs[:], pas[number(4):])
		g.Peers[PeerKey{model.NetworkIndex(1 + number(2)), pas[number(3)]}] = p
	}
	for range number(3) {
		x := &Group{Ref: model.Ref{Tenant: "red", Name: string(rune('a' + number(3)))}, Prefixes: prefixes[:number(2)]}
		if len(x.Prefixes) == 0 {
			x.Prefixes = nil
		}
		g.Groups[x.Ref] = x
	}
	for range number(3) {
		l := &List{Ref: model.Ref{Tenant: "red", Name: string(rune('a' + number(3)))}, Tier: model.TierTenant, Mode: model.ModeAudit}
		for i := range number(3) {
			l.Rules = append(l.Rules, model.AccessRule{Name: string(rune('a' + i)), Direction: model.Both, Action: model.ActionDeny,
				Remote: model.RuleAddresses{Prefixes: []netip.Prefix{prefixes[number(3)]}}, RemotePorts: []model.Range{{First: 1, Last: 2}}})
		}
		g.Lists[l.Ref] = l
	}
	for range number(4) {
		p := Port{Ref: model.Ref{Tenant: "red", Name: string(rune('a' + number(3)))}, ID: model.PortID(1 + number(3)), VSID: 5001,
			Network: 1, MAC: mac(), PA: optional(pas), Gateway4: optional(cas[:2]), Gateway6: optional(cas[2:]), Spoof: number(2) == 1, Learn: uint32(number(3)),
			Flood:   Flood{L2: number(2) == 1, Rate: uint32(number(3)), Group: optional([]netip.Addr{netip.MustParseAddr("239.1.1.1"), netip.MustParseAddr("ff05::1")})},
			Forward: number(2) == 1, External: number(2) == 1, ClampMSS: number(2) == 1}
		p.Settings = PortSettings{DHCPServer: number(2) == 1, Router: number(2) == 1, StormLimit: uint32(number(3)), Isolation: model.Isolation{Mode: []model.IsolationMode{"", "isolated"}[number(2)]}}
		if number(3) == 0 {
			p.Settings.Allowed = []model.AllowedAddress{{Prefix: prefixes[number(3)], MAC: mac()}}
			p.Settings.Bandwidth = &model.Bandwidth{Outbound: model.BandwidthLimit{Maximum: 8 * int64(number(3))}}
			p.Settings.Mirrors = []Mirror{{To: 7, Outbound: true, Snap: uint32(64 + number(2))}}
		}
		p.CAs = append(p.CAs, cas[:number(4)]...)
		p.Prefixes = append(p.Prefixes, prefixes[:2][:number(3)]...)
		if number(4) == 0 {
			p = Port{Ref: p.Ref, ID: p.ID, MAC: p.MAC, Spoof: p.Spoof, Settings: p.Settings, Interface: []string{"", "eth1"}[number(2)]}
			p.Settings.VLAN = &model.VLAN{Network: "n", Mode: model.VLANTrunk, Allowed: []model.Range{{First: 1, Last: uint16(1 + number(3))}}}
		}
		g.Ports[p.ID] = p
	}
	return g
}

func TestApplyingTheDifferenceGivesTheOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawGoal(t, "a"), drawGoal(t, "b")
		kept := a.Clone()
		d := Diff(a, b)
		digest := d.Digest(a, a.Digest())
		if !a.Equal(kept) {
			t.Fatal("looking at the difference changed the goal")
		}
		if digest != b.Digest() {
			t.Fatalf("carried digest %s, full digest %s", digest, b.Digest())
		}
		d.Apply(a)
		if !a.Equal(b) {
			t.Fatalf("got %+v\nwant %+v", a, b)
		}
		if (a.Digest() == kept.Digest()) != d.Empty() {
			t.Fatalf("digests equal: %t, difference empty: %t", a.Digest() == kept.Digest(), d.Empty())
		}
	})
}

func TestPendingDeltasMergeToOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		first := drawGoal(t, "first")
		last, keys := first, 0
		var p Pending
		for range rapid.IntRange(0, 4).Draw(t, "steps") {
			next := drawGoal(t, "next")
			d := Diff(last, next)
			keys += d.Rows()
			p.Add(d)
			last = next
		}
		if p.Rows() > keys {
			t.Fatalf("%d keys pending of %d changed", p.Rows(), keys)
		}
		d := p.Take()
		if p.Rows() != 0 {
			t.Fatal("taken, and still pending")
		}
		got := first.Clone()
		d.Apply(got)
		if !got.Equal(last) {
			t.Fatalf("got %+v\nwant %+v", got, last)
		}
	})
}

func TestCloneSharesNothing(t *testing.T) {
	g := New()
	g.Ports[1] = Port{ID: 1, CAs: []netip.Addr{netip.MustParseAddr("10.0.0.5")}}
	c := g.Clone()
	c.Ports[1].CAs[0] = netip.MustParseAddr("10.0.0.6")
	c.PAs[netip.MustParseAddr("192.0.2.1")] = struct{}{}
	c.ProviderRoutes["a"] = ProviderRoute{}
	if g.Ports[1].CAs[0] != netip.MustParseAddr("10.0.0.5") || len(g.PAs) != 0 || len(g.ProviderRoutes) != 0 {
		t.Fatal("the clone reaches into the original")
	}
}

func TestEncodedGoalComesBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := drawGoal(t, "g")
		revision := rapid.Int64().Draw(t, "revision")
		b := g.Encode(revision)
		back, r, err := Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if r != revision || !back.Equal(g) || back.Digest() != g.Digest() {
			t.Fatalf("revision %d of %d, got %+v\nwant %+v", r, revision, back, g)
		}
		if !slices.Equal(b, back.Encode(revision)) {
			t.Fatal("the same goal gives other bytes")
		}
	})
}

func TestDamagedGoalIsRefused(t *testing.T) {
	g := sample()
	whole := g.Encode(42)
	for n := range whole {
		if _, _, err := Decode(whole[:n]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
	for i := range whole {
		b := slices.Clone(whole)
		b[i] ^= 0x10
		if _, _, err := Decode(b); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Fatalf("byte %d changed: %v", i, err)
		}
	}
	if _, _, err := Decode(append(slices.Clone(whole), 0)); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("one byte more: %v", err)
	}
	other := slices.Clone(whole)
	other[len(magic)+1] = version + 1
	if _, _, err := Decode(other); !errors.Is(err, ErrVersion) {
		t.Fatalf("next version: %v", err)
	}
}

// A right checksum over wrong rows: what a fuzzer would hardly find.
func TestSealedNonsenseIsRefused(t *testing.T) {
	count := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	settings := appendSettings(nil, Settings{VXLANPort: 4789})
	pa := appendAddr(nil, netip.MustParseAddr("192.0.2.1"))
	record := appendRecord(nil, RecordRow{RecordKey{5001, netip.MustParseAddr("10.0.0.5")}, Record{MAC: model.MAC{2}}})
	route := appendRoute(nil, RouteRow{RouteKey{1, netip.MustParsePrefix("10.0.0.0/24")}, Route{VSID: 5001}})
	peer := func(last ...byte) []byte {
		b := appendAddr(binary.BigEndian.AppendUint32(nil, 1), netip.MustParseAddr("192.0.2.1"))
		b = append(b, count(uint32(len(last)))...)
		for _, n := range last {
			b = append(b, 4, 192, 0, 2, n)
		}
		return b
	}
	for name, rows := range map[string][][]byte{
		"count beyond the end":     {count(1 << 31), count(0), count(0), count(0), count(0)},
		"mapped PA":                {count(1), {16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 1, 2, 3, 4}, count(0), count(0), count(0), count(0)},
		"no PA":                    {count(1), {0}, count(0), count(0), count(0), count(0)},
		"address of 5 bytes":       {count(1), {5, 1, 2, 3, 4, 5}, count(0), count(0), count(0), count(0)},
		"record twice":             {count(0), count(2), record, record, count(0), count(0), count(0)},
		"route unmasked":           {count(0), count(0), count(1), []byte("\x00\x00\x00\x01\x04\x0a\x00\x00\x05\x18\x00\x00\x13\x89\x00"), count(0), count(0)},
		"route of 33 bits":         {count(0), count(0), count(1), []byte("\x00\x00\x00\x01\x04\x0a\x00\x00\x00\x21\x00\x00\x13\x89\x00"), count(0), count(0)},
		"rows behind the last":     {pa, count(0), count(0), count(0), count(0), count(0), count(0)},
		"truth value of 2":         {count(0), count(1), append(slices.Clone(record[:len(record)-8]), 2, 0, 0, 0, 0, 0, 0, 0), count(0), count(0), count(0)},
		"an unknown transport":     {count(0), count(1), append(slices.Clone(record[:len(record)-7]), 200, 0, 0, 0, 0, 0, 0), count(0), count(0), count(0)},
		"route twice":              {count(0), count(0), count(2), route, route, count(0), count(0)},
		"peer twice":               {count(0), count(0), count(0), count(0), count(2), peer(1), peer(1)},
		"peer out of order":        {count(0), count(0), count(0), count(0), count(1), peer(2, 1)},
		"nine addresses":           {count(0), count(0), count(0), count(0), count(1), peer(1, 2, 3, 4, 5, 6, 7, 8, 9)},
		"NVGRE that rewrites":      {count(0), count(1), append(slices.Clone(record[:len(record)-5]), 4, 10, 9, 0, 1, 0, 0, 0, 0), count(0), count(0), count(0)},
		"settings in another form": {count(0), count(0), count(0), count(1), portWith(`{"router": true}`), count(0)},
		"settings nobody knows":    {count(0), count(0), count(0), count(1), portWith(`{"x":true}`), count(0)},
		"nothing but a counter":    {count(0)},
	} {
		if _, _, err := Decode(seal(slices.Concat(settings, slices.Concat(rows...), count(0), count(0), count(0)))); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, rows := range map[string][]byte{
		"provider route twice":        slices.Concat(count(2), way("a"), way("a")),
		"provider route without name": slices.Concat(count(1), way("")),
		"metric of what is nowhere":   slices.Concat(count(1), appendProviderRoute(nil, ProviderRouteRow{"a", ProviderRoute{Prefix: netip.MustParsePrefix("::/0"), Metric: 1}})),
	} {
		if _, _, err := Decode(seal(slices.Concat(settings, count(0), count(0), count(0), count(0), count(0), rows, count(0), count(0)))); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := Decode(seal(slices.Concat(settings[:1], count(0)))); !errors.Is(err, ErrCorrupt) {
		t.Errorf("half of the settings: %v", err)
	}
	good := slices.Concat(settings, count(1), pa, count(1), record, count(1), route, count(1), portWith(`{"router":true}`), count(1), peer(1), count(1), way("a"),
		count(1), appendBytes(nil, (&Group{Ref: model.Ref{Tenant: "red", Name: "g"}}).Encode()), count(1), appendBytes(nil, (&List{Ref: model.Ref{Tenant: "red", Name: "l"}}).Encode()))
	if _, _, err := Decode(seal(good)); err != nil {
		t.Errorf("the well-formed one: %v", err)
	}
}

// way is a provider route of that name.
func way(name string) []byte {
	return appendProviderRoute(nil, ProviderRouteRow{name, ProviderRoute{Prefix: netip.MustParsePrefix("::/0"), Interface: "eth0"}})
}

func portWith(settings string) []byte {
	b := appendPort(nil, Port{Ref: model.Ref{Tenant: "red", Name: "p"}, ID: 1, VSID: 5001, Network: 1, MAC: model.MAC{2}})
	return appendText(appendBytes(b[:len(b)-6], []byte(settings)), "")
}

func seal(rows []byte) []byte {
	b := binary.BigEndian.AppendUint16([]byte(magic), version)
	b = binary.BigEndian.AppendUint64(b, 7)
	b = binary.BigEndian.AppendUint64(b, uint64(len(rows)))
	b = append(b, rows...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// The fuzzer's bytes are sealed, so that they get past the checksum.
func FuzzDecode(f *testing.F) {
	whole := sample().Encode(42)
	f.Add(whole[headSize : len(whole)-sha256.Size])
	f.Add([]byte{})
	f.Add([]byte{0, 0, 0, 1, 4, 192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, rows []byte) {
		g, revision, err := Decode(seal(rows))
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		back, r, err := Decode(g.Encode(revision))
		if err != nil || r != revision || !back.Equal(g) {
			t.Fatalf("what was decoded does not come back: %v", err)
		}
		for _, p := range g.Ports {
			if err := p.Check(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func sample() *Goal {
	g := New()
	pa := netip.MustParseAddr("192.0.2.1")
	v4, v6 := netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("fd00:a::5")
	mac := model.MAC{2, 0, 0, 0, 0, 1}
	g.PAs[pa] = struct{}{}
	g.Records[RecordKey{5001, v4}] = Record{MAC: mac, PA: pa, Port: 1}
	g.Records[RecordKey{5001, netip.MustParseAddr("10.0.0.1")}] = Record{MAC: model.RouterMAC(5001), Router: true}
	g.Peers[PeerKey{1, pa}] = Peer{[model.MaxPAs]netip.Addr{pa, netip.MustParseAddr("192.0.2.2")}}
	g.Routes[RouteKey{1, netip.MustParsePrefix("10.0.0.0/24")}] = Route{VSID: 5001}
	g.Routes[RouteKey{1, netip.MustParsePrefix("0.0.0.0/0")}] = Route{VSID: 5001, NextHop: v4}
	g.Ports[1] = Port{Ref: model.Ref{Tenant: "red", Name: "web-1"}, ID: 1, VSID: 5001, Network: 1, MAC: mac,
		CAs: []netip.Addr{v4, v6}, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00:a::/64")},
		Gateway4: netip.MustParseAddr("10.0.0.1"), Gateway6: netip.MustParseAddr("fd00:a::1"), PA: pa}
	return g
}

func TestLinesReadAsPeopleDo(t *testing.T) {
	from, to := New(), sample()
	added, removed := Difference(from, to)
	want := []string{
		"+ pa 192.0.2.1",
		"+ peer 1 192.0.2.1 at 192.0.2.1,192.0.2.2",
		"+ record 5001 10.0.0.1 02:77:66:00:13:89 -> router",
		"+ record 5001 10.0.0.5 02:00:00:00:00:01 -> 192.0.2.1",
		"+ route 1 0.0.0.0/0 -> 5001 via 10.0.0.5",
		"+ route 1 10.0.0.0/24 -> 5001 on-link",
		"+ port red/web-1 id 1 vsid 5001 network 1 02:00:00:00:00:01 10.0.0.5,fd00:a::5 prefixes 10.0.0.0/24,fd00:a::/64 gateway 10.0.0.1,fd00:a::1 at 192.0.2.1",
	}
	if !slices.Equal(added, want) || len(removed) != 0 {
		t.Fatalf("added %q\nwant  %q\nremoved %q", added, want, removed)
	}

	moved := to.Clone()
	key := RecordKey{5001, netip.MustParseAddr("10.0.0.5")}
	record := moved.Records[key]
	record.PA = netip.MustParseAddr("192.0.2.2")
	moved.Records[key] = record
	added, removed = Difference(to, moved)
	if !slices.Equal(added, []string{"+ record 5001 10.0.0.5 02:00:00:00:00:01 -> 192.0.2.2"}) ||
		!slices.Equal(removed, []string{"- record 5001 10.0.0.5 02:00:00:00:00:01 -> 192.0.2.1"}) {
		t.Fatalf("a moved record: added %q removed %q", added, removed)
	}
}

func TestDigestIgnoresOrderAndSeesEveryField(t *testing.T) {
	if (New().Digest() != Digest{}) {
		t.Fatal("the empty goal has a digest")
	}
	g := sample()
	seen := map[Digest]string{g.Digest(): "unchanged"}
	change := func(what string, f func(p *Port)) {
		h := g.Clone()
		p := h.Ports[1]
		f(&p)
		h.Ports[1] = p
		if other, twice := seen[h.Digest()]; twice {
			t.Errorf("%s has the digest of %s", what, other)
		}
		seen[h.Digest()] = what
	}
	change("tenant", func(p *Port) { p.Ref.Tenant = "blue" })
	change("border of the name", func(p *Port) { p.Ref = model.Ref{Tenant: "redw", Name: "eb-1"} })
	change("VSID", func(p *Port) { p.VSID++ })
	change("network", func(p *Port) { p.Network++ })
	change("MAC", func(p *Port) { p.MAC[5]++ })
	change("fewer CAs", func(p *Port) { p.CAs = p.CAs[:1] })
	change("fewer prefixes", func(p *Port) { p.Prefixes = p.Prefixes[:1] })
	change("no gateway 4", func(p *Port) { p.Gateway4 = netip.Addr{} })
	change("no gateway 6", func(p *Port) { p.Gateway6 = netip.Addr{} })
	change("no PA", func(p *Port) { p.PA = netip.Addr{} })
	change("spoof", func(p *Port) { p.Spoof = true })
	change("learn", func(p *Port) { p.Learn = 3 })
	change("flood", func(p *Port) { p.Flood.L2 = true })
	change("storm limit", func(p *Port) { p.Flood.Rate = 1 })
	change("multicast PA", func(p *Port) { p.Flood.Group = netip.MustParseAddr("239.1.1.1") })
	change("forward", func(p *Port) { p.Forward = true })
	change("external", func(p *Port) { p.External = true })
	change("interface", func(p *Port) { p.Interface = "eth1" })
	change("mss", func(p *Port) { p.ClampMSS = true })
}
