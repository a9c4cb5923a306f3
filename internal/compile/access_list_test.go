package compile

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// A host gets the lists that judge its ports and the groups in them, and a port that comes, changes its
// label or address, or goes, changes the row of the group and nothing else of these.
func TestAGroupFollowsItsPorts(t *testing.T) {
	network := &model.VirtualNetwork{Metadata: meta("red", "prod"), Index: 1}
	subnet := func(lists ...string) *model.VirtualSubnet {
		return &model.VirtualSubnet{Metadata: meta("red", "web"), Spec: model.VirtualSubnetSpec{Network: "prod", VSID: 5001, AccessLists: lists, Prefixes: []netip.Prefix{prefix("10.0.0.0/24")}}}
	}
	port := func(id model.PortID, host, role, ca string, lists ...string) *model.Port {
		p := &model.Port{Metadata: meta("red", fmt.Sprint("p", id)), ID: id, Spec: model.PortSpec{Subnet: "web", MAC: model.MAC{2, byte(id)}, Host: host}}
		p.Spec.Addresses, p.Spec.AccessLists = append(p.Spec.Addresses, addr(ca)), lists
		p.Metadata.Labels = map[string]string{"role": role}
		return p
	}
	list := func(rules ...model.AccessRule) *model.AccessList {
		return &model.AccessList{Metadata: meta("red", "in"), Spec: model.AccessListSpec{Tier: model.TierTenant, Mode: model.ModeEnforce, Rules: rules}}
	}
	named := model.AccessRule{Name: "a", Direction: model.Inbound, Action: model.ActionAllow, Remote: model.RuleAddresses{Groups: []string{"all"}}, Source: "x.yaml:1"}
	c := Full([]model.Resource{network, subnet(), port(1, "h1", "", "10.0.0.5", "in"), port(2, "h2", "friend", "10.0.0.6"), list(named),
		&model.AddressGroup{Metadata: meta("red", "friends"), Spec: model.AddressGroupSpec{Ports: map[string]string{"role": "friend"}}},
		&model.AddressGroup{Metadata: meta("red", "all"), Spec: model.AddressGroupSpec{Groups: []string{"friends"}}}})
	members := func(host string) string {
		g := c.Goal(host)
		if g.Lists[model.Ref{Tenant: "red", Name: "in"}] == nil {
			return "no list"
		}
		return fmt.Sprint(g.Groups[model.Ref{Tenant: "red", Name: "all"}].Prefixes)
	}
	want := func(h1, h2 string) {
		t.Helper()
		if a, b := members("h1"), members("h2"); a != h1 || b != h2 {
			t.Errorf("h1 has %s, h2 has %s", a, b)
		}
	}
	only := func(d goal.Delta) {
		t.Helper()
		if len(d.PutGroups) != 1 || len(d.PutLists)+len(d.PutPorts)+len(d.DeleteLists)+len(d.DeleteGroups) != 0 {
			t.Errorf("h1 gets %v", d.Lines("+"))
		}
	}
	want("[10.0.0.6/32]", "no list")
	only(c.Apply([]model.Resource{port(3, "h2", "friend", "10.0.0.7")}, nil)["h1"])
	want("[10.0.0.6/32 10.0.0.7/32]", "no list")
	only(c.Apply([]model.Resource{port(3, "h2", "friend", "10.0.0.8")}, nil)["h1"])
	only(c.Apply([]model.Resource{port(2, "h2", "", "10.0.0.6")}, nil)["h1"])
	want("[10.0.0.8/32]", "no list")
	only(c.Apply(nil, []model.Key{{Kind: model.KindPort, Ref: model.Ref{Tenant: "red", Name: "p3"}}})["h1"])
	want("[]", "no list")

	// Where a rule stands means nothing to hosts.
	named.Source = "x.yaml:2"
	if d := c.Apply([]model.Resource{list(named)}, nil); len(d) != 0 {
		t.Errorf("a line that moved means %v", d)
	}
	// What is attached to the subnet judges its ports everywhere, and is forgotten with the last of them.
	c.Apply([]model.Resource{subnet("in")}, nil)
	want("[]", "[]")
	c.Apply([]model.Resource{port(1, "h1", "", "10.0.0.5"), subnet()}, nil)
	want("no list", "no list")
	if h := c.hosts["h1"]; len(h.lists)+len(h.groups)+len(h.uses) != 0 {
		t.Error("h1 keeps what judges none of its ports")
	}
}
