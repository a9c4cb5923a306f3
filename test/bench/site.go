package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"slices"
	"strings"

	"github.com/weft-sdn/weft/internal/datapath"
)

// A cell is one setting in which all contenders are compared.
type cell struct {
	ports      string // "veth" or "tap": how a guest meets its host
	underlay   string // "pass": super-packets cross it whole; "wire": cut to frames of its MTU
	tables     bool   // contenders differ only in how many records the switch holds
	rules      bool   // contenders filter; without an underlay, between guests of one host
	contenders []string
	metrics    []metric
}

func (c cell) name() string {
	switch {
	case c.tables:
		return records
	case c.local():
		return rulesLocal
	case c.rules:
		return rulesOverlay
	}
	return c.ports + "/" + c.underlay
}

func (c cell) local() bool { return c.underlay == "" }

// The contenders. weft is NVGRE. It chooses its decapsulation by itself; the last are told.
const (
	bare        = "bare"        // from host to host over the underlay alone
	routed      = "routed"      // guest, host, host, guest by plain routing
	vxlan       = "vxlan"       // Linux bridge and kernel vxlan device
	vxlanPlain  = "vxlan-plain" // the same, whose bridge does not call the hooks of IP (br_netfilter)
	ovsGRE      = "ovs-gre"
	ovsVXLAN    = "ovs-vxlan" // Open vSwitch without its kernel module
	weft        = "weft"
	weftVXLAN   = "weft-vxlan"
	weftRewrite = "weft-rewrite"
	weftTCX     = "weft-tcx"
	weftXDP     = "weft-xdp"
	weftVeth    = "weft-veth"
	weftDevice  = "weft-vxlan-device" // VXLAN, stripped by the kernel's device
)

// records is the cell whose contenders are called by how many records they have.
const records = "records"

// everyCell lists the cells in the order in which they are measured.
var everyCell = []cell{
	{ports: "veth", underlay: "pass", contenders: []string{bare, routed, vxlan, vxlanPlain, ovsGRE, ovsVXLAN, weft, weftVXLAN, weftRewrite}, metrics: metrics},
	// With XDP on it an underlay passes no super-packets: only on a wire it is worth to be told so.
	{ports: "veth", underlay: "wire", contenders: []string{bare, routed, vxlan, weft, weftVXLAN, weftRewrite, weftXDP}, metrics: metrics},
	// What has no guest has no taps: bare is in the cells above.
	{ports: "tap", underlay: "pass", contenders: []string{routed, vxlan, weft, weftVXLAN, weftRewrite, weftVeth, weftDevice}, metrics: metrics},
	{ports: "tap", underlay: "wire", contenders: []string{routed, vxlan, weft, weftVXLAN, weftRewrite, weftTCX, weftXDP, weftVeth, weftDevice}, metrics: metrics},
	{ports: "veth", underlay: "pass", tables: true, contenders: []string{"1", "1000", "100000", "1000000"}, metrics: recordMetrics},
	{ports: "veth", rules: true, contenders: filterNames(byWeft, byNFT, byNFTMap, byNFTRouted), metrics: []metric{connections}},
	{ports: "veth", underlay: "pass", rules: true, contenders: filterNames(byWeft, byNFT, byNFTMap), metrics: []metric{connections}},
}

func selectCells(o options) ([]cell, error) {
	var cells []cell
	for name := range strings.SplitSeq(o.cells, ",") {
		i := slices.IndexFunc(everyCell, func(c cell) bool { return c.name() == name })
		if i < 0 {
			return nil, fmt.Errorf("cells: %q is not one of %s", name, cellNames())
		}
		c := everyCell[i]
		c.contenders, c.metrics = nil, nil
		for _, k := range everyCell[i].contenders {
			if selected(o.only, k) {
				c.contenders = append(c.contenders, k)
			}
		}
		for _, m := range everyCell[i].metrics {
			if selected(o.metrics, string(m)) {
				c.metrics = append(c.metrics, m)
			}
		}
		if len(c.contenders) == 0 || len(c.metrics) == 0 {
			return nil, errors.New("nothing to measure: see -contenders and -metrics")
		}
		cells = append(cells, c)
	}
	return cells, nil
}

func cellNames() string {
	var names []string
	for _, c := range everyCell {
		names = append(names, c.name())
	}
	return strings.Join(names, ",")
}

const (
	underlayMTU = 1500
	vxlanMTU    = underlayMTU - 50
	nvgreMTU    = underlayMTU - 42
)

var (
	hostPA = [2]string{"192.0.2.1", "192.0.2.2"}
	// Guests of one subnet, or of one subnet per host when there is no virtualization.
	flatCA    = [2]string{"10.0.0.1", "10.0.0.2"}
	routedCA  = [2]string{"10.1.0.2", "10.2.0.2"}
	routedGW  = [2]string{"10.1.0.1", "10.2.0.1"}
	rewritePA = [2]string{"198.51.100.1", "198.51.100.2"} // of the guests, where packets are rewritten
	guestMAC  = [2]string{"02:00:00:00:00:01", "02:00:00:00:00:02"}
)

// A site is one contender, set up: two hosts with an underlay u0 between them,
// and on each a guest behind port p0.
type site struct {
	cell
	name     string
	records  int       // of other addresses; bystander, unless the name says how many
	host     [2]string // namespaces
	wire     string    // the namespace between them, if any
	guest    [2]string // the namespace in which traffic starts or ends; bare: the host
	ca       [2]netip.Addr
	pumps    []*process // what forwards in user space, for each host
	switches []*datapath.Switch
	undo     []func()
}

// build sets a contender up. The site is returned also with an error, to be closed.
func build(ctx context.Context, c cell, name string) (*site, error) {
	id := prefix + c.ports + "-" + c.underlay + "-" + name + "-"
	s := &site{cell: c, name: name, records: bystander, wire: id + "w", host: [2]string{id + "h1", id + "h2"}, guest: [2]string{id + "g1", id + "g2"}}
	if c.local() {
		s.host[1] = s.host[0]
	}
	if err := s.underlayLink(ctx); err != nil {
		return s, err
	}
	if name == bare {
		s.guest, s.ca = s.host, addrs(hostPA)
		return s, nil
	}
	mtu, cas := underlayMTU, flatCA
	by, _ := filterOf(name)
	switch by {
	case routed:
		cas = routedCA
	case vxlan, vxlanPlain, weftVXLAN, weftDevice, ovsVXLAN, byNFT, byNFTMap:
		mtu = vxlanMTU
	case weftRewrite:
		mtu = underlayMTU
	default:
		mtu = nvgreMTU
	}
	s.ca = addrs(cas)
	for i := range 2 {
		if err := s.addGuest(ctx, i, cas[i], mtu); err != nil {
			return s, err
		}
	}
	switch name {
	case routed:
		return s, s.buildRouted(ctx)
	case vxlan:
		return s, s.buildVXLAN(ctx, "1")
	case vxlanPlain:
		return s, s.buildVXLAN(ctx, "0")
	case ovsGRE, ovsVXLAN:
		return s, s.buildOVS(ctx)
	}
	switch {
	case c.tables:
		return s, s.buildRecords(ctx)
	case c.local():
		return s, s.buildLocal(ctx)
	case c.rules:
		return s, s.buildOverlay(ctx)
	}
	return s, s.buildWeft(ctx)
}

func addrs(text [2]string) [2]netip.Addr {
	return [2]netip.Addr{netip.MustParseAddr(text[0]), netip.MustParseAddr(text[1])}
}

// underlayLink makes the hosts and what is between their u0.
func (s *site) underlayLink(ctx context.Context) error {
	if s.local() { // one host, and nothing under it
		return sh(ctx, fmt.Sprintf("ip netns add %[1]s\nip -n %[1]s link set lo up", s.host[0]))
	}
	if err := sh(ctx, fmt.Sprintf("ip netns add %s\nip netns add %s", s.host[0], s.host[1])); err != nil {
		return err
	}
	if err := s.connect(ctx); err != nil {
		return err
	}
	for i, h := range s.host {
		err := sh(ctx, fmt.Sprintf(`
			ip -n %[1]s addr add %[2]s/24 dev u0
			ip -n %[1]s link set u0 up
			ip -n %[1]s link set lo up`, h, hostPA[i]))
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *site) connect(ctx context.Context) error {
	if s.underlay == "wire" {
		return s.connectByWire(ctx)
	}
	return sh(ctx, fmt.Sprintf("ip -n %[1]s link add u0 mtu %[3]d type veth peer name u0 netns %[2]s mtu %[3]d",
		s.host[0], s.host[1], underlayMTU))
}

// connectByWire puts a router between the hosts that takes super-packets and
// hands on frames of the MTU. A veth alone would do nearly so; but it hands the
// sender's socket along with the frame, which no wire does and which keeps GRO
// from merging the frame that has it.
func (s *site) connectByWire(ctx context.Context) error {
	if err := sh(ctx, "ip netns add "+s.wire); err != nil {
		return err
	}
	for _, key := range []string{"net/ipv4/ip_forward", "net/ipv4/conf/all/proxy_arp"} {
		if err := setSysctl(s.wire, key, "1"); err != nil {
			return err
		}
	}
	for i, h := range s.host {
		w := fmt.Sprintf("w%d", i)
		// A veth aggregates on receive only what its peer sent without TSO. With a
		// queue in front of it, it holds the sender back as a NIC does; without, a
		// full ring drops.
		err := sh(ctx, fmt.Sprintf(`
			ip -n %[1]s link add u0 mtu %[4]d type veth peer name %[3]s netns %[2]s mtu %[4]d
			ip netns exec %[2]s ethtool -K %[3]s tso off gso off tx-udp-segmentation off
			ip netns exec %[1]s ethtool -K u0 gro on
			tc -n %[2]s qdisc add dev %[3]s root pfifo limit 10000
			ip -n %[2]s addr add 192.0.2.254/32 dev %[3]s
			ip -n %[2]s link set %[3]s up
			ip -n %[2]s route add %[5]s/32 dev %[3]s
			ip -n %[2]s route add %[6]s/32 via %[5]s dev %[3]s onlink
			ip -n %[2]s route add %[7]s/32 via %[5]s dev %[3]s onlink`,
			h, s.wire, w, underlayMTU, hostPA[i], routedCA[i], rewritePA[i]))
		if err != nil {
			return err
		}
		if err := setSysctl(s.wire, "net/ipv4/neigh/"+w+"/proxy_delay", "0"); err != nil {
			return err
		}
	}
	return nil
}

// device is the port of the i-th guest on its host.
func (s *site) device(i int) string {
	if s.local() {
		return fmt.Sprintf("p%d", i)
	}
	return "p0"
}

// addGuest gives host i a port and behind it a guest with eth0.
func (s *site) addGuest(ctx context.Context, i int, ca string, mtu int) error {
	h, g, p := s.host[i], s.guest[i], s.device(i)
	if err := sh(ctx, "ip netns add "+g); err != nil {
		return err
	}
	// What IPv6 says of itself is not part of the load.
	if err := setSysctl(g, "net/ipv6/conf/all/disable_ipv6", "1"); err != nil {
		return err
	}
	if err := s.plug(ctx, h, g, p); err != nil {
		return err
	}
	if err := setSysctl(h, "net/ipv6/conf/"+p+"/disable_ipv6", "1"); err != nil { // as the agent does
		return err
	}
	return sh(ctx, fmt.Sprintf(`
		ip -n %[2]s link set eth0 address %[3]s mtu %[4]d
		ip -n %[1]s link set %[6]s mtu %[4]d
		ip -n %[1]s link set %[6]s up
		ip -n %[2]s link set lo up
		ip -n %[2]s link set eth0 up
		ip -n %[2]s addr add %[5]s/24 dev eth0`, h, g, guestMAC[i], mtu, ca, p))
}

func (s *site) plug(ctx context.Context, h, g, p string) error {
	if s.ports == "veth" {
		return sh(ctx, "ip -n "+h+" link add "+p+" type veth peer name eth0 netns "+g)
	}
	running, err := start(ctx, spec{Role: "pump", CPU: -1, HostNS: h, NS: g, Device: p})
	if err != nil {
		return err
	}
	s.pumps = append(s.pumps, running)
	return nil
}

func (s *site) buildRouted(ctx context.Context) error {
	for i := range 2 {
		if err := setSysctl(s.host[i], "net/ipv4/ip_forward", "1"); err != nil {
			return err
		}
		other := 1 - i
		err := sh(ctx, fmt.Sprintf(`
			ip -n %[1]s addr add %[3]s/24 dev p0
			ip -n %[1]s route add %[4]s/32 via %[5]s
			ip -n %[2]s route add default via %[3]s`,
			s.host[i], s.guest[i], routedGW[i], routedCA[other], hostPA[other]))
		if err != nil {
			return err
		}
	}
	return nil
}

// buildVXLAN makes the bridge with the hooks of IP in it, or without. They are on where nobody says otherwise and the kernel
// has them built in, as this one has; where they are a module (Debian), what loads it is mostly a container runtime.
func (s *site) buildVXLAN(ctx context.Context, hooks string) error {
	for i := range 2 {
		err := sh(ctx, fmt.Sprintf(`
			ip -n %[1]s link add br0 type bridge
			ip -n %[1]s link add vx0 mtu %[2]d type vxlan id 5000 local %[3]s remote %[4]s dstport 4789 dev u0
			ip -n %[1]s link set vx0 master br0 up
			ip -n %[1]s link set p0 master br0
			ip -n %[1]s link set br0 up`,
			s.host[i], vxlanMTU, hostPA[i], hostPA[1-i]))
		if err != nil {
			return err
		}
		if err := setSysctl(s.host[i], "net/bridge/bridge-nf-call-iptables", hooks); err != nil {
			return err
		}
	}
	return nil
}

// close takes the site down; the kernel ends what lives in its namespaces.
func (s *site) close() {
	for _, f := range s.undo {
		f()
	}
	for _, p := range s.pumps {
		p.stop()
	}
	for _, ns := range []string{s.guest[0], s.guest[1], s.host[0], s.host[1], s.wire} {
		exec.Command("ip", "netns", "del", ns).Run()
	}
}

// counters are what a device has seen.
type counters struct {
	Packets, Bytes, Dropped uint64
}

type linkStats struct {
	Name  string `json:"ifname"`
	Stats struct {
		RX, TX counters
	} `json:"stats64"`
}

// links reads the counters of all devices of a namespace.
func links(ctx context.Context, ns string) (map[string]linkStats, error) {
	out, err := exec.CommandContext(ctx, "ip", "-n", ns, "-s", "-j", "link").Output()
	if err != nil {
		return nil, fmt.Errorf("reading the counters of %s: %w", ns, err)
	}
	var all []linkStats
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, err
	}
	byName := map[string]linkStats{}
	for _, l := range all {
		byName[l.Name] = l
	}
	return byName, nil
}

// snapshot is what the devices counted up to now.
type snapshot struct {
	wire    counters // frames that arrived at the second host's underlay
	port    counters // frames that the second host gave to its port
	dropped uint64   // frames that any device or switch of the site dropped
}

func (s *site) snapshot(ctx context.Context) (snapshot, error) {
	var n snapshot
	namespaces := slices.Compact(slices.Clone(s.host[:]))
	if s.name != bare {
		namespaces = append(namespaces, s.guest[:]...)
	}
	for _, ns := range namespaces {
		all, err := links(ctx, ns)
		if err != nil {
			return n, err
		}
		for _, l := range all {
			n.dropped += l.Stats.RX.Dropped + l.Stats.TX.Dropped
		}
		if ns == s.host[1] {
			n.wire, n.port = all["u0"].Stats.RX, all["p0"].Stats.TX
		}
	}
	refused, err := s.switchDrops()
	n.dropped += refused
	return n, err
}

func (a counters) since(b counters) counters {
	return counters{a.Packets - b.Packets, a.Bytes - b.Bytes, a.Dropped - b.Dropped}
}

// mean is the average size of a frame in bytes.
func (a counters) mean() float64 {
	if a.Packets == 0 {
		return 0
	}
	return float64(a.Bytes) / float64(a.Packets)
}
