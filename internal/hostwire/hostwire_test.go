package hostwire

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

var (
	pa1 = netip.MustParseAddr("192.0.2.1")
	pa2 = netip.MustParseAddr("2001:db8::2")
)

// world is a Goal of n ports and all that belongs to them; salt changes values
// and leaves keys.
func world(n, salt int) *goal.Goal {
	g := goal.New()
	g.PAs[pa1] = struct{}{}
	g.Settings = goal.Settings{VXLANPort: uint16(4789 + salt), Pipe: salt == 3, DSCP: uint8(salt / 3 * 46)}
	if salt%2 == 1 {
		g.PAs[pa2] = struct{}{}
	}
	g.Peers[goal.PeerKey{Network: 1, PA: pa1}] = goal.Peer{}
	if salt > 1 {
		g.Peers[goal.PeerKey{Network: 1, PA: pa1}] = goal.Peer{PAs: [model.MaxPAs]netip.Addr{pa1, pa2}}
		g.Peers[goal.PeerKey{Network: 2, PA: pa1}] = goal.Peer{PAs: [model.MaxPAs]netip.Addr{pa2}}
	}
	g.ProviderRoutes["east"] = goal.ProviderRoute{Prefix: netip.MustParsePrefix("198.51.100.0/24"), NextHop: pa1, Interface: "eth1", Metric: uint32(salt)}
	if salt > 0 {
		g.ProviderRoutes["west"] = goal.ProviderRoute{Prefix: netip.MustParsePrefix("::/0"), NextHop: pa2}
	}
	v4, v6 := netip.MustParsePrefix("10.0.0.0/16"), netip.MustParsePrefix("fd00:a::/64")
	g.Routes[goal.RouteKey{Network: 1, Prefix: v4}] = goal.Route{VSID: 5001}
	g.Routes[goal.RouteKey{Network: 1, Prefix: v6}] = goal.Route{VSID: 5001}
	g.Routes[goal.RouteKey{Network: 1, Prefix: netip.MustParsePrefix("0.0.0.0/0")}] = goal.Route{VSID: 5001, NextHop: netip.MustParseAddr("10.0.0.2")}
	g.Records[goal.RecordKey{VSID: 5001, CA: netip.MustParseAddr("10.0.0.1")}] = goal.Record{MAC: model.RouterMAC(5001), Router: true}
	for i := range min(n, 5) {
		ref := model.Ref{Tenant: "red", Name: fmt.Sprint("x", i)}
		g.Groups[ref] = &goal.Group{Ref: ref, Prefixes: []netip.Prefix{v4, v6}[:salt%3]}
		g.Lists[ref] = &goal.List{Ref: ref, Tier: model.TierTenant, Mode: model.ModeEnforce, Rules: append([]model.AccessRule(nil), make([]model.AccessRule, 2000*salt)...)}
	}
	for i := range n {
		id := model.PortID(i + 1)
		low := byte(i & 0xff)
		cas := []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 1 + byte(i>>8), low}),
			netip.AddrFrom16([16]byte{0xfd, 0, 0, 10, 14: 1 + byte(i>>8), 15: low})}
		mac := model.MAC{2, byte(salt), 0, 0, byte(i >> 8), low}
		g.Ports[id] = goal.Port{Ref: model.Ref{Tenant: "red", Name: fmt.Sprintf("p-%d", i)}, ID: id, VSID: 5001, Network: 1, MAC: mac,
			Flood:    goal.Flood{L2: i%2 == 0, Rate: uint32(i % 3), Group: []netip.Addr{{}, netip.MustParseAddr("239.1.1.1")}[i%2]},
			Settings: goal.PortSettings{DHCPServer: i%2 == 0, Connections: uint32(salt), Isolation: model.Isolation{Mode: model.IsolationCommunity, Community: "c"}},
			CAs:      cas, Prefixes: []netip.Prefix{v4, v6}, Gateway4: netip.MustParseAddr("10.0.0.1"), Gateway6: netip.MustParseAddr("fd00:a::1"), PA: pa1}
		for _, a := range cas {
			g.Records[goal.RecordKey{VSID: 5001, CA: a}] = goal.Record{MAC: mac, PA: pa1, Port: id, Transport: model.TransportID(salt % 3), Isolation: model.IsolationID(salt << 28)}
			if salt%3 == int(model.Rewrite) {
				r := g.Records[goal.RecordKey{VSID: 5001, CA: a}]
				r.Rewrite = a.Next()
				g.Records[goal.RecordKey{VSID: 5001, CA: a}] = r
			}
		}
	}
	return g
}

func TestEveryGoalReachesEveryOtherOverTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size, salt := rapid.SampledFrom([]int{0, 1, 3, 900}), rapid.IntRange(0, 3)
		from, to := world(size.Draw(t, "from"), salt.Draw(t, "salt")), world(size.Draw(t, "to"), salt.Draw(t, "salt"))
		snapshot := rapid.Bool().Draw(t, "snapshot")
		d := goal.Diff(from, to)
		if snapshot {
			d = goal.Diff(goal.New(), to)
		}
		r := NewReceiver(from, 6)
		parts := Updates(d, 7, to.Digest(), snapshot)
		for i, u := range parts {
			done, err := r.Receive(overTheWire(t, u))
			if err != nil {
				t.Fatal(err)
			}
			if last := i == len(parts)-1; done != last {
				t.Fatalf("part %d of %d: complete %t", i+1, len(parts), done)
			}
		}
		if !r.Goal().Equal(to) || r.Digest() != to.Digest() || r.Revision() != 7 {
			t.Fatalf("got revision %d, digest %s of %s", r.Revision(), r.Digest(), to.Digest())
		}
	})
}

func overTheWire(t interface{ Fatal(...any) }, u *hostv1.Update) *hostv1.Update {
	b, err := proto.Marshal(u)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > MaxMessage {
		t.Fatal("a part larger than a message may be", len(b))
	}
	back := &hostv1.Update{}
	if err := proto.Unmarshal(b, back); err != nil {
		t.Fatal(err)
	}
	return back
}

func TestPartsAreBoundedEvenForTheLargestRows(t *testing.T) {
	g := goal.New()
	for i := range 50 {
		p := goal.Port{Ref: model.Ref{Tenant: "red", Name: fmt.Sprint("p", i)}, ID: model.PortID(i + 1), VSID: 5001, Network: 1, MAC: model.MAC{2}}
		for j := range goal.MaxCAs {
			p.CAs = append(p.CAs, netip.AddrFrom16([16]byte{0xfd, 14: byte(j >> 8), 15: byte(j)}))
		}
		g.Ports[p.ID] = p
	}
	parts := Updates(goal.Diff(goal.New(), g), 1, g.Digest(), true)
	if len(parts) < 50*goal.MaxCAs/PartWeight {
		t.Fatalf("only %d parts", len(parts))
	}
	r := NewReceiver(goal.New(), 0)
	for _, u := range parts {
		if _, err := r.Receive(overTheWire(t, u)); err != nil {
			t.Fatal(err)
		}
	}
	if !r.Goal().Equal(g) {
		t.Fatal("not the same goal")
	}
}

func TestUpToDateHostGetsOneEmptyPart(t *testing.T) {
	g := world(2, 0)
	parts := Updates(goal.Delta{}, 9, g.Digest(), false)
	if len(parts) != 1 || Rows(parts[0]) != 0 || !parts[0].Last {
		t.Fatalf("got %v", parts)
	}
	r := NewReceiver(g, 3)
	if done, err := r.Receive(parts[0]); err != nil || !done || r.Revision() != 9 {
		t.Fatalf("complete %t, revision %d, %v", done, r.Revision(), err)
	}
}

func TestWrongDigestLeavesTheGoalAlone(t *testing.T) {
	from, to := world(2, 0), world(3, 1)
	kept := from.Clone()
	r := NewReceiver(from, 3)
	wrong := to.Digest().Add(goal.Digest{15: 1})
	for _, u := range Updates(goal.Diff(from, to), 4, wrong, false) {
		if _, err := r.Receive(u); !errors.Is(err, ErrDigest) {
			t.Fatalf("got %v", err)
		}
	}
	if !r.Goal().Equal(kept) || r.Revision() != 3 || r.Digest() != kept.Digest() {
		t.Fatal("the goal moved")
	}
	for _, u := range Updates(goal.Diff(goal.New(), to), 4, to.Digest(), true) {
		if _, err := r.Receive(u); err != nil {
			t.Fatalf("the snapshot that follows: %v", err)
		}
	}
	if !r.Goal().Equal(to) {
		t.Fatal("the snapshot did not heal")
	}
}

func TestRevisionCutShortIsForgotten(t *testing.T) {
	to := world(2000, 0)
	parts := Updates(goal.Diff(goal.New(), to), 4, to.Digest(), true)
	if len(parts) < 3 {
		t.Fatalf("%d parts", len(parts))
	}
	r := NewReceiver(goal.New(), 0)
	if done, err := r.Receive(parts[0]); done || err != nil {
		t.Fatal(done, err)
	}
	if _, err := r.Receive(&hostv1.Update{Revision: 5, Digest: parts[0].Digest, Snapshot: true}); !errors.Is(err, ErrMessage) {
		t.Fatalf("two revisions mixed: %v", err)
	}
	r.Receive(parts[0])
	r.Restart()
	for _, u := range parts {
		if _, err := r.Receive(u); err != nil {
			t.Fatal(err)
		}
	}
	if !r.Goal().Equal(to) {
		t.Fatal("not the same goal")
	}
}

func TestUnsoundRowsAreRefusedByName(t *testing.T) {
	digest := make([]byte, 16)
	ca, mac := []byte{10, 0, 0, 5}, []byte{2, 0, 0, 0, 0, 1}
	key := &hostv1.RecordKey{Vsid: 5001, Ca: ca}
	prefix := &hostv1.Prefix{Address: []byte{10, 0, 0, 0}, Bits: 24}
	port := func(f func(*hostv1.Port)) *hostv1.Update {
		p := &hostv1.Port{Tenant: "red", Name: "web-1", Id: 1, Vsid: 5001, Network: 1, Mac: mac, Cas: [][]byte{ca}, Prefixes: []*hostv1.Prefix{prefix}}
		f(p)
		return &hostv1.Update{Digest: digest, PutPorts: []*hostv1.Port{p}}
	}
	if _, err := Delta(port(func(*hostv1.Port) {})); err != nil {
		t.Fatalf("the sound port: %v", err)
	}
	many := &hostv1.Update{Digest: digest, DeletePorts: make([]uint32, PartWeight+1)}
	for want, u := range map[string]*hostv1.Update{
		"put_pas[0]":                        {Digest: digest, PutPas: [][]byte{{1, 2, 3}}},
		"delete_pas[1]":                     {Digest: digest, DeletePas: [][]byte{ca, nil}},
		"put_records[0]: message":           {Digest: digest, PutRecords: []*hostv1.Record{nil}},
		"put_records[0]: ca":                {Digest: digest, PutRecords: []*hostv1.Record{{Key: &hostv1.RecordKey{Vsid: 5001, Ca: []byte{1}}}}},
		"5 bytes, not 6":                    {Digest: digest, PutRecords: []*hostv1.Record{{Key: key, Mac: mac[:5]}}},
		"put_records[0]: pa":                {Digest: digest, PutRecords: []*hostv1.Record{{Key: key, Mac: mac, Pa: []byte{1}}}},
		"no PA and no port":                 {Digest: digest, PutRecords: []*hostv1.Record{{Key: key, Mac: mac, Router: true, Port: 1}}},
		"transport 3 is not known":          {Digest: digest, PutRecords: []*hostv1.Record{{Key: key, Mac: mac, Transport: 3}}},
		"cannot stand for it":               {Digest: digest, PutRecords: []*hostv1.Record{{Key: key, Mac: mac, Rewrite: []byte{10, 9, 0, 1}}}},
		"rewrite: ":                         {Digest: digest, PutRecords: []*hostv1.Record{{Key: key, Mac: mac, Transport: 2, Rewrite: []byte{10, 9}}}},
		"transport 256":                     {Digest: digest, PutRecords: []*hostv1.Record{{Key: key, Mac: mac, Transport: 256}}},
		"the VXLAN port is 0":               {Digest: digest, Settings: &hostv1.Settings{}},
		"DSCP 7, pipe false":                {Digest: digest, Settings: &hostv1.Settings{VxlanPort: 1, Dscp: 7}},
		"dscp 64":                           {Digest: digest, Settings: &hostv1.Settings{VxlanPort: 1, Pipe: true, Dscp: 64}},
		"vxlan_port 65536":                  {Digest: digest, Settings: &hostv1.Settings{VxlanPort: 65536}},
		"VSID out of range":                 {Digest: digest, DeleteRecords: []*hostv1.RecordKey{{Vsid: 0xffffff, Ca: ca}}},
		"put_routes[0]: message":            {Digest: digest, PutRoutes: []*hostv1.Route{{}}},
		"33 bits":                           {Digest: digest, DeleteRoutes: []*hostv1.RouteKey{{Network: 1, Prefix: &hostv1.Prefix{Address: ca, Bits: 33}}}},
		"4294967295 bits":                   {Digest: digest, DeleteRoutes: []*hostv1.RouteKey{{Network: 1, Prefix: &hostv1.Prefix{Address: ca, Bits: 1<<32 - 1}}}},
		"prefix not masked":                 {Digest: digest, DeleteRoutes: []*hostv1.RouteKey{{Network: 1, Prefix: &hostv1.Prefix{Address: ca, Bits: 24}}}},
		"next_hop":                          {Digest: digest, PutRoutes: []*hostv1.Route{{Key: &hostv1.RouteKey{Network: 1, Prefix: prefix}, Vsid: 5001, NextHop: ca[:2]}}},
		"delete_ports[0]":                   {Digest: digest, DeletePorts: []uint32{0}},
		"part of 4001 rows":                 many,
		"snapshot deletes":                  {Digest: digest, Snapshot: true, DeletePorts: []uint32{1}},
		"put_ports[0]: cas[1]":              port(func(p *hostv1.Port) { p.Cas = [][]byte{ca, {1}} }),
		"not in order":                      port(func(p *hostv1.Port) { p.Cas = [][]byte{ca, ca} }),
		"must all be set":                   port(func(p *hostv1.Port) { p.Id = 0 }),
		"must have 1 to":                    port(func(p *hostv1.Port) { p.Name = strings.Repeat("x", 300) }),
		"1025 addresses":                    port(func(p *hostv1.Port) { p.Cas = make([][]byte, 1025) }),
		"gateway 10.0.0.5 is not plain":     port(func(p *hostv1.Port) { p.Gateway6 = ca }),
		"is not IPv4":                       port(func(p *hostv1.Port) { p.Gateway4 = pa2.AsSlice() }),
		"put_ports[0]: gateway4: message":   port(func(p *hostv1.Port) { p.Gateway4 = ca[:1] }),
		"PA ::ffff:1.2.3.4 is not a plain":  port(func(p *hostv1.Port) { p.Pa = netip.MustParseAddr("::ffff:1.2.3.4").AsSlice() }),
		"put_ports[0]: prefixes[0]: prefix": port(func(p *hostv1.Port) { p.Prefixes[0] = &hostv1.Prefix{Address: []byte{1}} }),
	} {
		_, err := Delta(u)
		if !errors.Is(err, ErrMessage) || !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
	if _, err := NewReceiver(goal.New(), 0).Receive(&hostv1.Update{Last: true, Digest: digest[:15]}); !errors.Is(err, ErrMessage) {
		t.Errorf("short digest: %v", err)
	}
}

// Whatever comes, the Goal stays one that may stand, with the digest it says.
func FuzzReceive(f *testing.F) {
	to := world(2, 1)
	for _, u := range append(Updates(goal.Diff(goal.New(), to), 4, to.Digest(), true), Updates(goal.Diff(to, world(1, 0)), 5, to.Digest(), false)...) {
		b, err := proto.Marshal(u)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		u := &hostv1.Update{}
		if proto.Unmarshal(b, u) != nil {
			return
		}
		d, err := Delta(u)
		if err != nil {
			if !errors.Is(err, ErrMessage) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		from := world(2, 0)
		next := from.Clone()
		d.Apply(next)
		digest := next.Digest()
		u.Digest, u.Last = digest[:], true
		r := NewReceiver(from, 1)
		done, err := r.Receive(u)
		if err != nil {
			if !errors.Is(err, ErrDigest) && !errors.Is(err, ErrMessage) {
				t.Fatalf("untyped error %v", err)
			}
			return
		}
		if !done || r.Digest() != r.Goal().Digest() {
			t.Fatalf("complete %t, digest %s of a goal with %s", done, r.Digest(), r.Goal().Digest())
		}
		if _, _, err := goal.Decode(r.Goal().Encode(1)); err != nil {
			t.Fatalf("the goal may not stand: %v", err)
		}
	})
}
