package agent

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// Severities of findings.
const (
	severityOK   = "ok"
	severityWarn = "warn"
	severityFail = "fail"
)

// When the doctor speaks up.
const (
	maxProbed        = 512 // peers that one examination probes
	nearlyFull       = 80  // percent of a table
	almostFull       = 95
	certificateWarn  = 45 * 24 * time.Hour // renewal begins a third into 90 days: it has failed for two weeks
	certificateFail  = 7 * 24 * time.Hour
	oldestKernel     = "6.6"
	noteOnProtocol47 = "protocol 47 (GRE) itself cannot be probed by ICMP"
)

// examination collects what is found on one host.
type examination struct {
	host     string
	findings []*weftv1.Finding
}

func (e *examination) add(severity, check, action, format string, args ...any) {
	e.findings = append(e.findings, &weftv1.Finding{Host: e.host, Check: check, Severity: severity,
		Text: fmt.Sprintf(format, args...), Action: action})
}

func (e *examination) ok(check, format string, args ...any) {
	e.add(severityOK, check, "", format, args...)
}

// examine looks at everything that can keep this host's guests from talking. It
// sends echo requests to the peers and changes nothing.
func (l *loop) examine(ctx context.Context) ([]*weftv1.Finding, error) {
	e := &examination{host: l.cfg.Host}
	// The comparison comes first: it brings the view up to date, with what nobody
	// tells of, such as a new path MTU.
	if _, err := onLoop(ctx, l.Agent, func() bool { l.stale = netdev.ChangeAll; return true }); err != nil {
		return nil, err
	}
	_, differences, err := l.verify(ctx)
	if err != nil {
		return nil, err
	}
	v := l.view.Load()
	links, err := netdev.Links()
	if err != nil {
		return nil, err
	}
	e.drift(differences)
	e.failures(v.failures)
	e.kernel(v.facts.kernel)
	e.decap(v)
	e.certificate(l.server.host.Until(), time.Now())
	e.addresses(v)
	e.guests(v, links)
	e.offloads(v.uplinks, links)
	e.room(v.want, l)
	e.nextHops(v.want.Peers, v.facts.mtu)
	e.paths(ctx, v)
	e.canaries(ctx, v)
	return e.findings, ctx.Err()
}

// examined is the answer to the server: the time, and what was found unless only the
// time was asked for.
func (l *loop) examined(ctx context.Context, clock bool) (*hostv1.ExamineAnswer, error) {
	out := &hostv1.ExamineAnswer{TimeUnixNano: time.Now().UnixNano()}
	if clock {
		return out, nil
	}
	var err error
	out.Findings, err = l.examine(ctx)
	return out, err
}

func (e *examination) drift(differences []string) {
	if len(differences) == 0 {
		e.ok("drift", "the kernel holds what policy says")
		return
	}
	e.add(severityFail, "drift", "weft verify --host "+e.host+" lists them; the agent's audit repairs rows. If they come back, another program writes into the pinned maps",
		"%d rows or attachments differ from policy: %s", len(differences), differences[0])
}

func (e *examination) failures(failures []failure) {
	for _, f := range failures {
		e.add(severityFail, "policy", "weft describe "+strings.ToLower(string(f.kind))+" shows the condition; the agent goes on trying", "%s", f)
	}
}

func (e *examination) kernel(release string) {
	if !atLeast(release, oldestKernel) {
		e.add(severityFail, "kernel", "install a kernel "+oldestKernel+" or newer", "kernel %s has no tcx", release)
		return
	}
	e.ok("kernel", "%s: tcx is there", release)
}

// atLeast compares the first two numbers of kernel releases.
func atLeast(release, least string) bool {
	var a, b, c, d int
	if _, err := fmt.Sscanf(release, "%d.%d", &a, &b); err != nil {
		return false
	}
	_, _ = fmt.Sscanf(least, "%d.%d", &c, &d)
	return a > c || a == c && b >= d
}

// decap says how uplinks strip, and what keeps them from doing better.
func (e *examination) decap(v *view) {
	for _, one := range strings.Split(v.facts.decap, ",") {
		uplink, strategy, _ := strings.Cut(one, "=")
		switch {
		case uplink == "":
			e.add(severityFail, "uplink", "name the devices that lead to the other hosts under underlay: in the agent's configuration, or give the host a default route",
				"the switch is on no uplink")
		case strategy == "tcx" && hasTap(v.want):
			e.add(severityWarn, "uplink", "use a NIC whose driver has native XDP",
				"%s strips at tcx and has no better way: taps get large TCP segments cut to the MTU, several times slower", uplink)
		default:
			e.ok("uplink", "%s strips by %s: %s", uplink, strategy, whyStrategy(strategy))
		}
	}
}

func whyStrategy(strategy string) string {
	switch strategy {
	case "tcx+gre":
		return "the kernel resets the tunnel's GSO state, nothing is better"
	case "tcx+dx2":
		return "TCP for taps takes a detour, since this kernel cannot reset the tunnel's GSO state at tcx"
	case "tcx+veth":
		return "TCP for taps is cut and merged once more on a detour through a veth pair: as decap: veth asks for, or since this kernel lets nothing better be made"
	case "tcx+vxlan":
		return "TCP over VXLAN for taps is stripped by the kernel's vxlan device, as decap: vxlan asks for; taps get what comes over NVGRE cut"
	case "xdp":
		return "before GRO, since this kernel cannot reset the tunnel's GSO state at tcx"
	}
	return "good for the veth ports that are here; taps would want more"
}

// certificate judges this host's, which is renewed long before it ends.
func (e *examination) certificate(until, now time.Time) {
	left := until.Sub(now).Round(time.Hour)
	const action = "read the agent's log for why it is not renewed; a host without a valid certificate joins again with a new token (weft token create --host NAME)"
	switch {
	case until.IsZero():
		e.add(severityFail, "certificate", "give the agent a token: weft token create --host "+e.host, "this host has not joined")
	case left <= 0:
		e.add(severityFail, "certificate", action, "this host's certificate ended at %s", until.UTC().Format(time.RFC3339))
	case left < certificateFail:
		e.add(severityFail, "certificate", action, "this host's certificate ends in %s", left)
	case left < certificateWarn:
		e.add(severityWarn, "certificate", action, "this host's certificate ends in %d days and should have been renewed", int(left/(24*time.Hour)))
	default:
		e.ok("certificate", "valid for %d days", int(left/(24*time.Hour)))
	}
}

func (e *examination) addresses(v *view) {
	if len(v.facts.pas) == 0 {
		e.add(severityFail, "provider address", "give an uplink an IPv4 address, or name the right ones under providerAddresses: in the agent's configuration",
			"this host has no Provider Address: no other host reaches its ports")
		return
	}
	if len(v.goal.PAs) == 0 {
		e.add(severityFail, "provider address", "weft get provideraddresses: is the host's address there?", "policy knows no Provider Address of this host")
		return
	}
	e.ok("provider address", "%s", join(v.facts.pas))
}

func join(addrs []netip.Addr) string {
	words := make([]string, len(addrs))
	for i, a := range addrs {
		words[i] = a.String()
	}
	return strings.Join(words, ", ")
}

// guests compares what guests were given with what the uplinks carry.
func (e *examination) guests(v *view, links map[uint32]netdev.Link) {
	wrong := 0
	for index, p := range v.want.Ports {
		if link, ok := links[index]; ok && link.MTU > int(p.MTU) {
			wrong++
			e.add(severityFail, "guest mtu", "weft plug again, or raise the MTU of the underlay",
				"device %s of port %s has MTU %d, the uplinks carry %d", link.Name, v.goal.Ports[p.ID].Ref, link.MTU, p.MTU)
		}
	}
	if wrong == 0 && v.facts.mtu > 0 {
		e.ok("guest mtu", "the uplinks' %d carry what guests send with every transport of their networks", v.facts.mtu)
	}
}

func (e *examination) offloads(uplinks map[uint32]string, links map[uint32]netdev.Link) {
	for index, name := range uplinks {
		o, err := netdev.OffloadsOf(name)
		switch {
		case err != nil:
			e.add(severityWarn, "offload", "look at ethtool -k "+name, "%v", err)
		case o.LRO:
			e.add(severityFail, "offload", "ethtool -K "+name+" lro off", "%s merges packets in the NIC (LRO); what was merged so cannot be handed to guests whole", name)
		case !o.GRO && links[index].Kind != "veth": // a veth takes over what its peer never cut
			e.add(severityWarn, "offload", "ethtool -K "+name+" gro on", "%s has generic receive offload off: receiving costs several times more", name)
		default:
			e.ok("offload", "%s: nothing that hurts", name)
		}
	}
}

// room warns before a table is full: then the agent refuses the whole Goal.
func (e *examination) room(want table.Set, l *loop) {
	limits := l.sw.Limits()
	full := false
	for _, t := range []struct {
		name string
		rows int
		most uint32
	}{
		{"ports", len(want.Ports), limits.Ports}, {"records", len(want.Records), limits.Records},
		{"routes", len(want.Routes), limits.Routes}, {"peers", len(want.Peers), limits.Peers},
	} {
		percent := t.rows * 100 / int(max(t.most, 1))
		if percent < nearlyFull {
			continue
		}
		full = true
		severity := severityWarn
		if percent >= almostFull {
			severity = severityFail
		}
		e.add(severity, "room", "raise limits."+t.name+" in the agent's configuration and restart it", "table %s holds %d of %d rows", t.name, t.rows, t.most)
	}
	if !full {
		e.ok("room", "%d of %d records, %d of %d ports", len(want.Records), limits.Records, len(want.Ports), limits.Ports)
	}
}

// nextHops tells of peers that the host's own tables give no way to, or a narrow one.
func (e *examination) nextHops(peers map[netip.Addr]table.Peer, mtu int) {
	ways := 0
	for _, pa := range slices.SortedFunc(maps.Keys(peers), netip.Addr.Compare) {
		if p := peers[pa]; p.IfIndex != 0 && (!p.NextHop.IsZero() || pa.IsMulticast()) {
			ways++
		}
		switch p := peers[pa]; {
		case p.IfIndex == 0:
			e.add(severityFail, "route", "ip route get "+pa.String()+" on this host: add the route", "no route leads to Provider Address %s", pa)
		case p.NextHop.IsZero():
			e.add(severityWarn, "neighbour", "ip neigh on this host: does the next hop answer ARP?", "the next hop toward Provider Address %s has no link-layer address", pa)
		case int(p.MTU) < mtu:
			e.add(severityWarn, "route", fmt.Sprintf("raise the MTU of the underlay to %d; what the kernel learnt of the path it forgets after ten minutes, or by ip route flush cache", mtu),
				"the path to Provider Address %s carries %d bytes, the uplinks %d: guests are told with every packet that is too large", pa, p.MTU, mtu)
		}
	}
	if ways == len(peers) {
		e.ok("neighbour", "the way to each of %d Provider Addresses has a route and a next hop that answers", ways)
	}
}

// probed are the peers that an examination probes, with the size that their path is said to carry.
func probed(v *view) map[netip.Addr]int {
	targets := map[netip.Addr]int{}
	for _, pa := range slices.SortedFunc(maps.Keys(v.want.Peers), netip.Addr.Compare) {
		if p := v.want.Peers[pa]; p.IfIndex != 0 && !pa.IsMulticast() && len(targets) < maxProbed {
			targets[pa] = int(p.MTU)
		}
	}
	return targets
}

// ownPAs are the addresses of this host that policy has.
func ownPAs(v *view) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(v.facts.pas), func(pa netip.Addr) bool { _, ours := v.goal.PAs[pa]; return !ours })
}

// ofFamily keeps the targets that from can send to.
func ofFamily(targets map[netip.Addr]int, from netip.Addr) map[netip.Addr]int {
	out := maps.Clone(targets)
	maps.DeleteFunc(out, func(to netip.Addr, _ int) bool { return to.Is4() != from.Is4() })
	return out
}

// paths probes every peer from every Provider Address of this host with packets of
// the path's full size that may not be fragmented. The other direction is the
// other host's to probe.
func (e *examination) paths(ctx context.Context, v *view) {
	targets, own := probed(v), ownPAs(v)
	if len(targets) == 0 {
		e.ok("path", "there are no peers to probe")
		return
	}
	type result struct {
		got map[netip.Addr]int
		err error
	}
	results := make([]result, len(own))
	var wg sync.WaitGroup
	for i, from := range own {
		wg.Go(func() { results[i].got, results[i].err = netdev.Echo(ctx, from, ofFamily(targets, from)) })
	}
	wg.Wait()
	good, pairs := 0, 0
	for i, from := range own {
		of := ofFamily(targets, from)
		pairs += len(of)
		if err := results[i].err; err != nil {
			e.add(severityFail, "path", "is the address still on this host? ip address", "%v", err)
			continue
		}
		good += e.judge(from, of, results[i].got)
	}
	if good == pairs {
		e.ok("path", "%d of %d peers were probed and answer full-size packets with DF, from %d addresses of this host; %s", len(targets), len(v.want.Peers), len(own), noteOnProtocol47)
	}
}

// judge tells what the probes of one Provider Address found, and how many were well.
func (e *examination) judge(from netip.Addr, sizes, got map[netip.Addr]int) (good int) {
	for _, to := range slices.SortedFunc(maps.Keys(sizes), netip.Addr.Compare) {
		switch size := sizes[to]; {
		case got[to] == 0:
			e.add(severityFail, "path", "check the underlay's routes and firewalls between the two: ICMP echo and protocol 47 must pass; "+noteOnProtocol47,
				"Provider Address %s does not answer %s", to, from)
		case got[to] < size:
			e.add(severityFail, "path", fmt.Sprintf("raise the MTU of the underlay between them to %d, or tell this host: ip route add %s ... mtu %d (guests then hear what fits)", size, netip.PrefixFrom(to, to.BitLen()), got[to]),
				"packets of %d bytes from %s to %s are lost, %d bytes pass: large packets of guests vanish", size, from, to, got[to])
		default:
			good++
		}
	}
	return good
}
