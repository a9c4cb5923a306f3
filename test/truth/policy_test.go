package truth

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/weft-sdn/weft/internal/model"
)

// place is where a guest of every case is; all cases have the same ten.
type place struct {
	name   string
	subnet int // 0 or 1, or onVLAN
	host   string
	label  string // role
	mac    model.MAC
	ca     [2]netip.Addr // IPv4, IPv6
}

var places = []place{
	newPlace(0, 1, "h1", "web"), newPlace(0, 2, "h1", "db"), newPlace(0, 3, "h2", "web"),
	newPlace(1, 1, "h1", "db"), newPlace(1, 2, "h2", "web"), newPlace(1, 3, "h2", "db"),
	newPlace(onVLAN, 1, "h1", "web"), newPlace(onVLAN, 2, "h1", "db"), newPlace(onVLAN, 3, "h2", "web"), newPlace(onVLAN, 4, "h2", "db"),
}

// onVLAN is the subnet of places on a physical network, whom no router joins with the others.
const onVLAN = 2

var subnets = [2]string{"a", "b"}

func newPlace(subnet, n byte, host, label string) place {
	s := "abc"[subnet : subnet+1]
	return place{name: fmt.Sprintf("%s%d", s, n), subnet: int(subnet), host: host, label: label,
		mac: model.MAC{2, 0, 0, 0, subnet + 1, n},
		ca:  [2]netip.Addr{netip.AddrFrom4([4]byte{10, 0, subnet, 4 + n}), netip.MustParseAddr(fmt.Sprintf("fd00:%s::%d", s, 4+n))}}
}

// policy is a case: all that decides who may speak to whom in one tenant.
type policy struct {
	Groups   []group
	Lists    []list
	Profiles []profile
	Ports    []port // one for each place
	Subnet   [2][]string
	Network  []string
}

// port is what a place has of its own.
type port struct {
	Profile   string
	Lists     []string
	Isolation string // "" none, "isolated", "promiscuous", or the name of a community
	VLAN      vlan   // of a place on a VLAN, instead
	Basic     []basic
}

type profile struct {
	Name  string
	Lists []string
}

type basic struct {
	Action, Direction, Field, Value string
}

type group struct {
	Name     string
	Prefixes []string
	Role     string // label of ports that are members
	Groups   []string
}

type list struct {
	Name, Tier, Mode  string
	Inbound, Outbound string // defaults; "" none
	Rules             []rule
}

type rule struct {
	Name, Direction, Action, Protocol string
	Remote, Local                     []string // prefixes
	RemoteGroups                      []string
	LocalPorts, RemotePorts           []string
	Weight                            int
	Stateful                          bool
}

func pick[T any](r *rand.Rand, of ...T) T { return of[r.IntN(len(of))] }

// some gives each of them with a chance of one in n.
func some(r *rand.Rand, n int, of []string) (out []string) {
	for _, s := range of {
		if r.IntN(n) == 0 {
			out = append(out, s)
		}
	}
	return out
}

// random is a policy with enough of everything that most packets meet a rule.
func random(r *rand.Rand) *policy {
	p := &policy{Ports: make([]port, len(places))}
	groups := []string{}
	for i := range r.IntN(3) {
		g := group{Name: fmt.Sprintf("g%d", i), Prefixes: some(r, 3, prefixes), Role: pick(r, "", "", "web", "db"), Groups: some(r, 2, groups)}
		if len(g.Prefixes) == 0 && g.Role == "" {
			g.Role = "web"
		}
		p.Groups = append(p.Groups, g)
		groups = append(groups, g.Name)
	}
	lists := []string{}
	for i := range 1 + r.IntN(4) {
		l := list{Name: fmt.Sprintf("l%d", i), Tier: pick(r, "tenant", "tenant", "tenant", "administrator", "default"),
			Mode: pick(r, "enforce", "enforce", "enforce", "audit"), Inbound: pick(r, "", "", "deny", "allow"), Outbound: pick(r, "", "", "allow", "deny")}
		for n := range r.IntN(6) {
			l.Rules = append(l.Rules, randomRule(r, fmt.Sprintf("r%d", n), l.Tier, groups))
		}
		p.Lists = append(p.Lists, l)
		lists = append(lists, l.Name)
	}
	profiles := []string{""}
	for i := range r.IntN(3) {
		p.Profiles = append(p.Profiles, profile{fmt.Sprintf("p%d", i), some(r, 3, lists)})
		profiles = append(profiles, p.Profiles[i].Name)
	}
	near := []vlan{pick(r, vlans...), pick(r, vlans...), pick(r, vlans...)} // so that some meet
	for i := range p.Ports {
		q := port{Profile: pick(r, profiles...), Lists: some(r, 4, lists), Isolation: pick(r, "", "", "", "", "isolated", "promiscuous", "red", "blue")}
		if r.IntN(4) == 0 {
			q.Basic = append(q.Basic, randomBasic(r))
		}
		if places[i].subnet == onVLAN {
			q.Isolation, q.VLAN = "", pick(r, near...)
		}
		p.Ports[i] = q
	}
	p.Subnet = [2][]string{some(r, 6, lists), some(r, 6, lists)}
	p.Network = some(r, 8, lists)
	return p
}

var prefixes = []string{"10.0.0.0/24", "10.0.1.0/24", "10.0.0.4/30", "10.0.1.6/32", "10.0.0.0/16", "fd00:a::/64", "fd00:b::/64", "fd00:a::6/127", "fd00::/16", "10.0.2.0/24", "10.0.2.6/31", "fd00:c::/64", "0.0.0.0/0", "::/0"}

func randomRule(r *rand.Rand, name, tier string, groups []string) rule {
	q := rule{Name: name, Direction: pick(r, "inbound", "outbound", "both"), Action: pick(r, "allow", "allow", "deny", "deny", "meter"),
		Protocol: pick(r, "any", "any", "tcp", "udp", "icmp", "icmpv6"), Weight: r.IntN(4) * 10, Stateful: r.IntN(2) == 0}
	if tier == "administrator" && r.IntN(3) == 0 {
		q.Action = "pass"
	}
	if q.Action != "allow" {
		q.Stateful = false
	}
	// A rule of both families would have to have both on both sides.
	family := map[string]string{"icmp": ".", "icmpv6": ":"}[q.Protocol]
	if family == "" {
		family = pick(r, ".", ":")
	}
	if r.IntN(2) == 0 {
		q.Remote = some(r, 4, of(family, prefixes))
	}
	if r.IntN(5) == 0 {
		q.Local = some(r, 4, of(family, prefixes))
	}
	if r.IntN(3) == 0 {
		q.RemoteGroups = some(r, 2, groups)
	}
	if q.Protocol == "tcp" || q.Protocol == "udp" {
		q.LocalPorts = some(r, 5, []string{"80", "53", "70-90", "20000-65535"})
		q.RemotePorts = some(r, 5, []string{"80", "53", "70-90", "443"})
	}
	return q
}

// of keeps the prefixes of a family, by the mark of its notation.
func of(mark string, all []string) (out []string) {
	for _, p := range all {
		if strings.Contains(p, mark) {
			out = append(out, p)
		}
	}
	return out
}

func randomBasic(r *rand.Rand) basic {
	b := basic{Action: pick(r, "allow", "deny", "deny", "meter"), Direction: pick(r, "inbound", "outbound", "both")}
	if r.IntN(4) == 0 && b.Action != "meter" {
		b.Field, b.Value = "remoteMAC", pick(r, places...).mac.String()
		return b
	}
	b.Field, b.Value = pick(r, "remoteAddress", "localAddress"), pick(r, prefixes...)
	return b
}

// manifest is the policy as people write it.
func (p *policy) manifest(tenant string) string {
	var b strings.Builder
	doc := func(kind, name string, spec fields) {
		fmt.Fprintf(&b, "---\nkind: %s\nmetadata: {tenant: %s, name: %s}\nspec: %s\n", kind, tenant, name, spec)
	}
	for _, g := range p.Groups {
		spec := fields{}.names("prefixes", g.Prefixes).names("groups", g.Groups)
		if g.Role != "" {
			spec = spec.add("ports", "{role: "+g.Role+"}")
		}
		doc("AddressGroup", g.Name, spec)
	}
	for _, l := range p.Lists {
		rules := make([]string, len(l.Rules))
		for i, r := range l.Rules {
			rules[i] = r.fields().String()
		}
		doc("AccessList", l.Name, fields{}.add("tier", l.Tier).add("mode", l.Mode).
			add("default", fields{}.add("inbound", l.Inbound).add("outbound", l.Outbound).String()).add("rules", "["+strings.Join(rules, ", ")+"]"))
	}
	for _, q := range p.Profiles {
		doc("PortProfile", q.Name, fields{}.names("accessLists", q.Lists))
	}
	doc("VirtualNetwork", "prod", fields{}.names("accessLists", p.Network))
	for i, s := range subnets {
		doc("VirtualSubnet", s, fields{}.add("network", "prod").names("prefixes", []string{fmt.Sprintf("10.0.%d.0/24", i), fmt.Sprintf("fd00:%s::/64", s)}).
			add("transport", []string{"nvgre", "vxlan"}[i]).names("accessLists", p.Subnet[i]))
	}
	for i, at := range places {
		if at.subnet == onVLAN && p.Ports[i].VLAN.spec == "" {
			continue
		}
		// Labels are what groups find ports by.
		fmt.Fprintf(&b, "---\nkind: Port\nmetadata: {tenant: %s, name: %s, labels: {role: %s}}\nspec: %s\n", tenant, at.name, at.label, p.Ports[i].fields(tenant, at))
	}
	return b.String()
}

func (q port) fields(tenant string, at place) fields {
	f := fields{}
	if at.subnet == onVLAN {
		f = f.add("vlan", "{network: "+lan(tenant)+", "+q.VLAN.spec+"}")
	} else {
		f = f.add("subnet", subnets[at.subnet])
	}
	f = f.add("mac", strconv.Quote(at.mac.String())).
		names("addresses", []string{at.ca[0].String(), at.ca[1].String()}).add("host", at.host).names("accessLists", q.Lists).add("profile", q.Profile)
	switch q.Isolation {
	case "":
	case "isolated", "promiscuous":
		f = f.add("isolation", "{mode: "+q.Isolation+"}")
	default:
		f = f.add("isolation", "{mode: community, community: "+q.Isolation+"}")
	}
	var entries []string
	for _, e := range q.Basic {
		entries = append(entries, fields{}.add("action", e.Action).add("direction", e.Direction).add(e.Field, strconv.Quote(e.Value)).String())
	}
	if entries != nil {
		f = f.add("acl", "["+strings.Join(entries, ", ")+"]")
	}
	return f
}

func (r rule) fields() fields {
	f := fields{}.add("name", r.Name).add("direction", r.Direction).add("action", r.Action).add("protocol", r.Protocol).add("weight", strconv.Itoa(r.Weight)).
		names("localPorts", r.LocalPorts).names("remotePorts", r.RemotePorts)
	if len(r.Local) > 0 {
		f = f.add("local", fields{}.names("prefixes", r.Local).String())
	}
	if len(r.Remote)+len(r.RemoteGroups) > 0 {
		f = f.add("remote", fields{}.names("prefixes", r.Remote).names("groups", r.RemoteGroups).String())
	}
	if r.Stateful {
		f = f.add("stateful", "true")
	}
	return f
}

// fields are a YAML flow mapping; what is empty is left out.
type fields []string

func (f fields) add(name, value string) fields {
	if value == "" {
		return f
	}
	return append(f, name+": "+value)
}

func (f fields) names(name string, of []string) fields {
	if len(of) == 0 {
		return f
	}
	quoted := make([]string, len(of))
	for i, s := range of {
		quoted[i] = strconv.Quote(s)
	}
	return f.add(name, "["+strings.Join(quoted, ", ")+"]")
}

func (f fields) String() string { return "{" + strings.Join(f, ", ") + "}" }

// smaller gives policies that lack one thing of p each, the largest things first.
func (p *policy) smaller() (out []*policy) {
	without := func(change func(*policy)) {
		q := p.clone()
		change(q)
		out = append(out, q)
	}
	for i := range p.Lists {
		without(func(q *policy) { q.unname(q.Lists[i].Name); q.Lists = slices.Delete(q.Lists, i, i+1) })
	}
	for i := range p.Profiles {
		without(func(q *policy) { q.unname(q.Profiles[i].Name); q.Profiles = slices.Delete(q.Profiles, i, i+1) })
	}
	for i := range p.Groups {
		without(func(q *policy) { q.unname(q.Groups[i].Name); q.Groups = slices.Delete(q.Groups, i, i+1) })
	}
	for i := range p.Ports {
		if p.Ports[i].Isolation != "" {
			without(func(q *policy) { q.Ports[i].Isolation = "" })
		}
		if v := p.Ports[i].VLAN; v.spec != "" && v.spec != vlans[0].spec {
			without(func(q *policy) { q.Ports[i].VLAN = vlans[0] })
		}
		for n := range p.Ports[i].Basic {
			without(func(q *policy) { q.Ports[i].Basic = slices.Delete(q.Ports[i].Basic, n, n+1) })
		}
		for n := range p.Ports[i].Lists {
			without(func(q *policy) { q.Ports[i].Lists = slices.Delete(q.Ports[i].Lists, n, n+1) })
		}
	}
	for i := range p.Lists {
		for n := range p.Lists[i].Rules {
			without(func(q *policy) { q.Lists[i].Rules = slices.Delete(q.Lists[i].Rules, n, n+1) })
		}
		if p.Lists[i].Inbound != "" {
			without(func(q *policy) { q.Lists[i].Inbound = "" })
		}
		if p.Lists[i].Outbound != "" {
			without(func(q *policy) { q.Lists[i].Outbound = "" })
		}
	}
	return out
}

// unname removes a name wherever it is referred to.
func (p *policy) unname(name string) {
	drop := func(of []string) []string {
		return slices.DeleteFunc(of, func(s string) bool { return s == name })
	}
	p.Network = drop(p.Network)
	for i := range p.Subnet {
		p.Subnet[i] = drop(p.Subnet[i])
	}
	for i := range p.Profiles {
		p.Profiles[i].Lists = drop(p.Profiles[i].Lists)
	}
	for i := range p.Groups {
		p.Groups[i].Groups = drop(p.Groups[i].Groups)
	}
	for i := range p.Lists {
		for n := range p.Lists[i].Rules {
			p.Lists[i].Rules[n].RemoteGroups = drop(p.Lists[i].Rules[n].RemoteGroups)
		}
	}
	for i := range p.Ports {
		p.Ports[i].Lists = drop(p.Ports[i].Lists)
		if p.Ports[i].Profile == name {
			p.Ports[i].Profile = ""
		}
	}
}

// clone is a copy that shares nothing.
func (p *policy) clone() *policy {
	q := &policy{Groups: slices.Clone(p.Groups), Lists: slices.Clone(p.Lists), Profiles: slices.Clone(p.Profiles), Ports: slices.Clone(p.Ports), Network: slices.Clone(p.Network)}
	for i := range q.Groups {
		q.Groups[i].Groups = slices.Clone(q.Groups[i].Groups)
	}
	for i := range q.Lists {
		q.Lists[i].Rules = slices.Clone(q.Lists[i].Rules)
		for n := range q.Lists[i].Rules {
			q.Lists[i].Rules[n].RemoteGroups = slices.Clone(q.Lists[i].Rules[n].RemoteGroups)
		}
	}
	for i := range q.Profiles {
		q.Profiles[i].Lists = slices.Clone(q.Profiles[i].Lists)
	}
	for i := range q.Ports {
		q.Ports[i].Lists = slices.Clone(q.Ports[i].Lists)
		q.Ports[i].Basic = slices.Clone(q.Ports[i].Basic)
	}
	for i := range q.Subnet {
		q.Subnet[i] = slices.Clone(p.Subnet[i])
	}
	return q
}
