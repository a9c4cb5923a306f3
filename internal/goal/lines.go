package goal

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/weft-sdn/weft/internal/model"
)

// Lines describes every row that d puts, one line each, in the order of d, with
// mark in front: "+ record 5001 10.0.0.5 02:00:00:00:00:01 -> 192.0.2.1".
func (d Delta) Lines(mark string) []string {
	out := make([]string, 0, len(d.PutPAs)+len(d.PutPeers)+len(d.PutRecords)+len(d.PutRoutes)+len(d.PutPorts))
	if s := d.PutSettings; s != nil && *s != (Settings{}) {
		dscp := "uniform"
		if s.Pipe {
			dscp = fmt.Sprint(s.DSCP)
		}
		out = append(out, fmt.Sprintf("%s settings vxlan port %d dscp %s", mark, s.VXLANPort, dscp))
	}
	for _, pa := range d.PutPAs {
		out = append(out, fmt.Sprintf("%s pa %s", mark, pa))
	}
	for _, r := range d.PutProviderRoutes {
		line := fmt.Sprintf("%s provider route %s %s", mark, r.Name, r.Route.Prefix)
		if r.Route.NextHop.IsValid() {
			line += " via " + r.Route.NextHop.String()
		}
		if r.Route.Interface != "" {
			line += " dev " + r.Route.Interface
		}
		out = append(out, fmt.Sprintf("%s metric %d", line, r.Route.Metric))
	}
	for _, p := range d.PutPeers {
		out = append(out, fmt.Sprintf("%s peer %d %s at %s", mark, p.Key.Network, p.Key.PA, list(p.Peer.List())))
	}
	for _, x := range d.PutGroups {
		out = append(out, fmt.Sprintf("%s group %s %s", mark, x.Ref, someOf(x.Prefixes)))
	}
	for _, l := range d.PutLists {
		out = append(out, fmt.Sprintf("%s list %s %s", mark, l.Ref, l.summary()))
	}
	for _, r := range d.PutRecords {
		out = append(out, fmt.Sprintf("%s record %d %s %s -> %s", mark, r.Key.VSID, standsFor(r.Key.CA), r.Record.MAC, place(r.Record)))
	}
	for _, r := range d.PutRoutes {
		out = append(out, fmt.Sprintf("%s %s %s -> %d %s", mark, domain(r.Key.Network), r.Key.Prefix, r.Route.VSID, hop(r.Route)))
	}
	for _, p := range d.PutPorts {
		out = append(out, fmt.Sprintf("%s port %s id %d vsid %d network %d %s %s%s", mark, p.Ref, p.ID, p.VSID, p.Network, p.MAC, list(p.CAs), traits(p)))
	}
	return out
}

// Difference describes what changes between two Goals. A row that changes is
// both removed as it was and added as it becomes.
func Difference(from, to *Goal) (added, removed []string) {
	return Diff(from, to).Lines("+"), Diff(to, from).Lines("-")
}

func standsFor(ca netip.Addr) string {
	if model.IsL2OnlyCA(ca) {
		return "l2only"
	}
	if _, is := model.AllowedMAC(ca); is {
		return "allowed"
	}
	return ca.String()
}

func place(r Record) string {
	switch {
	case r.Router:
		return "router"
	case !r.PA.IsValid():
		return "nowhere yet"
	}
	text := r.PA.String()
	if r.Rewrite.IsValid() {
		text += " as " + r.Rewrite.String()
	}
	if r.Transport != model.NVGRE {
		text += " by " + r.Transport.String()
	}
	for _, t := range []struct {
		may  bool
		what string
	}{{r.Trust.Forward, " forwards"}, {r.Trust.DHCP, " serves dhcp"}, {r.Trust.Router, " is a router"}, {r.Trust.Allowed, " uses other sources"}} {
		if t.may {
			text += t.what
		}
	}
	if r.Isolation != model.NoIsolation {
		text += " " + r.Isolation.String()
	}
	return text
}

// domain says whose route it is.
func domain(n model.NetworkIndex) string {
	if of, direct := n.IsDirect(); direct {
		return fmt.Sprintf("direct route %d", of)
	}
	return fmt.Sprintf("route %d", n)
}

func hop(r Route) string {
	if !r.NextHop.IsValid() {
		return "on-link"
	}
	return "via " + r.NextHop.String()
}

// traits names what the rest of the line leaves out, so that two different
// ports never read alike.
func traits(p Port) string {
	var b strings.Builder
	fmt.Fprintf(&b, " prefixes %s", list(p.Prefixes))
	if p.Gateway4.IsValid() || p.Gateway6.IsValid() {
		fmt.Fprintf(&b, " gateway %s", list(valid(p.Gateway4, p.Gateway6)))
	}
	if p.PA.IsValid() {
		fmt.Fprintf(&b, " at %s", p.PA)
	}
	if p.Spoof {
		b.WriteString(" may spoof")
	}
	if p.Learn > 0 {
		fmt.Fprintf(&b, " may learn %d", p.Learn)
	}
	if p.Flood.L2 {
		b.WriteString(" floods")
	}
	if p.Flood.Group.IsValid() {
		fmt.Fprintf(&b, " to %s", p.Flood.Group)
	}
	if p.Flood.Rate != 0 {
		fmt.Fprintf(&b, " storm limit %d", p.Flood.Rate)
	}
	if p.Forward {
		b.WriteString(" forwards")
	}
	if p.External {
		b.WriteString(" external router")
	}
	if p.ClampMSS {
		b.WriteString(" clamps MSS")
	}
	if p.Interface != "" {
		b.WriteString(" on " + p.Interface)
	}
	if text := p.Settings.String(); text != "" {
		b.WriteString(" settings " + text)
	}
	return b.String()
}

func valid(addrs ...netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if a.IsValid() {
			out = append(out, a)
		}
	}
	return out
}

func list[T fmt.Stringer](items []T) string {
	if len(items) == 0 {
		return "-"
	}
	words := make([]string, len(items))
	for i, x := range items {
		words[i] = x.String()
	}
	return strings.Join(words, ",")
}
