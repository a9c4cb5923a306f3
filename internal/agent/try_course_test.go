package agent

import (
	"net/netip"
	"testing"
	"time"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// street is a Goal with a port here and another one elsewhere, in one subnet.
func street() *goal.Goal {
	g, home := goal.New(), netip.MustParsePrefix("10.0.0.0/24")
	pa, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	g.PAs[pa] = struct{}{}
	g.Ports[1] = goal.Port{ID: 1, Ref: model.Ref{Tenant: "red", Name: "web-1"}, VSID: 5001, Network: 1, MAC: model.MAC{2, 0, 0, 0, 0, 1}, PA: pa,
		CAs: []netip.Addr{netip.MustParseAddr("10.0.0.5")}, Prefixes: []netip.Prefix{home}, Gateway4: netip.MustParseAddr("10.0.0.1"), Settings: goal.PortSettings{DHCPServer: true}}
	for ca, r := range map[string]goal.Record{"10.0.0.1": {MAC: model.RouterMAC(5001), Router: true},
		"10.0.0.5": {MAC: model.MAC{2, 0, 0, 0, 0, 1}, PA: pa, Port: 1}, "10.0.0.9": {MAC: model.MAC{2, 0, 0, 0, 0, 9}, PA: other, Port: 2}} {
		g.Records[goal.RecordKey{VSID: 5001, CA: netip.MustParseAddr(ca)}] = r
	}
	for _, n := range []model.NetworkIndex{1, model.NetworkIndex(1).Direct()} {
		g.Routes[goal.RouteKey{Network: n, Prefix: home}] = goal.Route{VSID: 5001}
	}
	return g
}

// What a change of a port, or of somebody's record, means for a flow is told by the reason that its packets would be dropped for.
func TestChangesOfPortsAreTried(t *testing.T) {
	there := goal.RecordKey{VSID: 5001, CA: netip.MustParseAddr("10.0.0.9")}
	port := func(change func(*goal.Port)) func(*goal.Goal) {
		return func(g *goal.Goal) {
			p := g.Ports[1]
			change(&p)
			g.Ports[1] = p
		}
	}
	isolated := port(func(p *goal.Port) { p.Settings.Isolation.Mode = model.IsolationIsolated })
	out, in, dhcp := udpFlow(false, "10.0.0.9", 40000, 53), udpFlow(true, "10.0.0.9", 53, 40000), udpFlow(false, "10.0.0.9", 67, 68)
	for _, x := range []struct {
		name   string
		change func(*goal.Goal)
		flow   datapath.Flow
		want   model.Verdict
	}{
		{"nothing", func(*goal.Goal) {}, out, model.VerdictContinue},
		{"another address", port(func(p *goal.Port) { p.CAs = []netip.Addr{netip.MustParseAddr("10.0.0.6")} }), out, model.VerdictContinue}, // its record is there yet
		{"another MAC", port(func(p *goal.Port) { p.MAC[5] = 7 }), out, model.VerdictSpoofedMac},
		{"no record of itself", func(g *goal.Goal) {
			delete(g.Records, goal.RecordKey{VSID: 5001, CA: netip.MustParseAddr("10.0.0.5")})
		}, out, model.VerdictSpoofedCa},
		{"no record of the other", func(g *goal.Goal) { delete(g.Records, there) }, out, model.VerdictNoRecord},
		{"no route", func(g *goal.Goal) { clear(g.Routes) }, out, model.VerdictContinue}, // within the subnet none is asked
		{"isolated", isolated, out, model.VerdictIsolated},
		{"isolated, what comes in", isolated, in, model.VerdictIsolated},
		{"the other is isolated", func(g *goal.Goal) {
			r := g.Records[there]
			r.Isolation = model.Isolated
			g.Records[there] = r
		}, in, model.VerdictIsolated},
		{"guarded, another flow", port(func(p *goal.Port) { p.Settings.DHCPServer = false }), out, model.VerdictContinue},
		{"guarded", port(func(p *goal.Port) { p.Settings.DHCPServer = false }), dhcp, model.VerdictDhcpServerMessage},
	} {
		t.Run(x.name, func(t *testing.T) {
			before, after := street(), street()
			x.change(after)
			trial := trial{touched: newTouched(before, after, goal.Diff(before, after))}
			f := flow{key: keyOfFlow(x.flow.Direction == datapath.Inbound, x.flow.Query), query: x.flow.Query, last: time.Unix(1000, 0)}
			var was, is ruling
			if trial.touched.port(before.Ports[1]) {
				trial.stop(before.Ports[1], f, &was, &is)
			}
			if was.denied || is.denied != (x.want != model.VerdictContinue) || is.reason != x.want {
				t.Errorf("%+v, and then %+v, want %s", was, is, x.want)
			}
		})
	}
}

// A change of rules, or of what only limits, has nobody's packets walked.
func TestRulesTouchNothingElse(t *testing.T) {
	before, after := street(), street()
	p := after.Ports[1]
	p.Settings.Lists, p.Settings.Bandwidth = []goal.ListUse{{Level: model.LevelPort, List: "in"}}, &model.Bandwidth{}
	after.Ports[1] = p
	after.Records[goal.RecordKey{VSID: 5001, CA: netip.MustParseAddr("10.0.0.10")}] = goal.Record{MAC: model.MAC{2, 0, 0, 0, 0, 10}, Port: 3}
	if newTouched(before, after, goal.Diff(before, after)).port(before.Ports[1]) {
		t.Error("the port's flows are walked")
	}
}
