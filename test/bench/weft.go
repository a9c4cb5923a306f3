package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/weft-sdn/weft/internal/datapath"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/netdev"
	"github.com/weft-sdn/weft/internal/table"
)

// The subnet that the guests share, and what fills its tables besides them: a
// switch with two records would flatter itself.
const (
	subnet    = model.VSID(0x5001)
	bystander = 1000 // records of other Customer Addresses
)

var (
	subnetPrefix = netip.MustParsePrefix("10.0.0.0/8")
	gateway      = netip.MustParseAddr("10.0.255.254")
)

// buildWeft puts a switch on each host, as an agent would: every check on.
func (s *site) buildWeft(ctx context.Context) error {
	decap := map[string]string{weft: datapath.DecapAuto, weftTCX: datapath.DecapTCX, weftXDP: datapath.DecapXDP, weftVeth: datapath.DecapVeth, weftDevice: datapath.DecapVXLAN}[s.name]
	var (
		group    errgroup.Group // what takes time is the kernel's verifier, and that on one core
		switches [2]*datapath.Switch
	)
	for i, h := range s.host {
		next, err := s.nextHop(i)
		if err != nil {
			return err
		}
		group.Go(func() error {
			return inside(h, func() (err error) {
				if switches[i], err = s.openSwitch(i, decap, next); err != nil {
					return fmt.Errorf("switch of %s: %w", h, err)
				}
				return nil
			})
		})
	}
	err := group.Wait()
	for i, sw := range switches {
		if sw == nil {
			continue
		}
		s.undo = append(s.undo, func() {
			s.tellDrops(s.host[i], sw)
			sw.Close()
		})
		s.switches = append(s.switches, sw)
	}
	return err
}

// nextHop is the MAC of what host i has at the other end of its u0.
func (s *site) nextHop(i int) (m model.MAC, err error) {
	ns, device := s.host[1-i], "u0"
	if s.underlay == "wire" {
		ns, device = s.wire, fmt.Sprintf("w%d", i)
	}
	err = inside(ns, func() error {
		far, err := net.InterfaceByName(device)
		if err == nil {
			m = model.MAC(far.HardwareAddr)
		}
		return err
	})
	return m, err
}

// recycle makes a switch of what an earlier one has left: for tests, whose figures nobody reads.
var recycle bool

func (s *site) newSwitch(decap string) (*datapath.Switch, error) {
	return datapath.Open(datapath.Options{Decap: decap, MaxRecords: uint32(max(s.records+3, 1<<18)), Recycle: recycle})
}

// openSwitch runs in the namespace of host i.
func (s *site) openSwitch(i int, decap string, next model.MAC) (*datapath.Switch, error) {
	port, err := net.InterfaceByName("p0")
	if err != nil {
		return nil, err
	}
	uplink, err := net.InterfaceByName("u0")
	if err != nil {
		return nil, err
	}
	sw, err := s.newSwitch(decap)
	if err != nil {
		return nil, err
	}
	err = errors.Join(
		sw.Apply(s.rows(i, uint32(port.Index), uint32(uplink.Index), model.MAC(uplink.HardwareAddr), next), true),
		sw.Vouch(time.Hour), // an agent does so as long as it lives
		sw.AttachPort(uint32(port.Index)),
		s.detour(sw),
		s.hear(sw),
		sw.AttachUplink(uint32(uplink.Index)))
	if err != nil {
		sw.Close()
		return nil, err
	}
	return sw, nil
}

// hear has a socket listen for VXLAN, as the agent does, so that GRO looks into it.
func (s *site) hear(sw *datapath.Switch) error {
	if s.name != weftVXLAN {
		return nil
	}
	ours := addrs(hostPA)
	devices, err := netdev.PrepareVXLAN(table.DefaultSettings.VXLANPort, ours[:1], false)
	if err != nil {
		return err
	}
	return errors.Join(sw.DiscardOn(devices), netdev.SetUp(devices[0]))
}

// detour makes what the agent makes with the first tap.
func (s *site) detour(sw *datapath.Switch) error {
	if s.ports != "tap" {
		return nil
	}
	switch sw.Detour() {
	case datapath.DecapDX2:
		dx, err := netdev.PrepareDX2(datapath.DX2Segment)
		if err != nil {
			return err
		}
		return sw.AttachDX2(dx)
	case datapath.DecapVeth:
		out, in, err := netdev.PrepareMerge()
		if err != nil {
			return err
		}
		return sw.AttachVeth(out, in)
	case datapath.DecapVXLAN:
		ours := addrs(hostPA)
		devices, err := netdev.PrepareVXLAN(table.DefaultSettings.VXLANPort, ours[:1], true)
		if err != nil {
			return err
		}
		return errors.Join(sw.AttachVXLAN(devices), netdev.SetUp(devices[0]))
	}
	return nil
}

// rows are the tables of host i.
func (s *site) rows(i int, port, uplink uint32, source, next model.MAC) table.Set {
	set := table.NewSet()
	other := 1 - i
	pas := addrs(hostPA)
	transport, mtu := model.NVGRE, uint16(nvgreMTU)
	switch s.name {
	case weftVXLAN, weftDevice:
		transport, mtu = model.VXLAN, vxlanMTU
	case weftRewrite:
		transport, mtu = model.Rewrite, underlayMTU
		s.rewrite(set, i, port)
	}
	set.Ports[port] = table.Port{
		IfIndex: port, ID: model.PortID(i + 1), VSID: subnet, Network: 1, MAC: mac(i),
		PA: pas[i], Gateway4: gateway, Transport: transport, MTU: mtu, Peer: s.ports == "veth",
	}
	far := table.Record{MAC: mac(other), PA: pas[other], Port: model.PortID(other + 1), Transport: transport}
	set.Records[table.RecordKey{VSID: subnet, CA: s.ca[i]}] = table.Record{MAC: mac(i), IfIndex: port, Port: model.PortID(i + 1), Transport: transport}
	set.Records[table.RecordKey{VSID: subnet, CA: s.ca[other]}] = far
	set.Records[table.RecordKey{VSID: subnet, CA: gateway}] = table.Record{MAC: model.RouterMAC(subnet), Router: true, Transport: transport}
	for n := range s.records { // the second guest answers to all of them, if it is told to
		set.Records[table.RecordKey{VSID: subnet, CA: recordCA(n)}] = far
	}
	set.Routes[table.RouteKey{Network: 1, Prefix: subnetPrefix}] = table.Route{VSID: subnet}
	set.Peers[pas[other]] = table.Peer{PA: pas[other], IfIndex: uplink, MTU: underlayMTU, Via: pas[other], Source: source, NextHop: next}
	set.LocalPAs[pas[i]] = struct{}{}
	if !s.rules {
		return set
	}
	_, n := filterOf(s.name)
	for _, l := range ruleLists(n) {
		if l.guest == i {
			l.put(set, port)
		}
	}
	return set
}

// rewrite gives each guest a Provider Address of its own.
func (s *site) rewrite(set table.Set, host int, port uint32) {
	for i, pa := range addrs(rewritePA) {
		set.RewriteOut[table.RecordKey{VSID: subnet, CA: s.ca[i]}] = pa
		in := table.RewriteIn{VSID: subnet, CA: s.ca[i], Network: 1, MAC: mac(i), IfIndex: port}
		if i != host {
			in.IfIndex, in.Remote = 0, true
		}
		set.RewriteIn[pa] = in
	}
}

// recordCA is the address of the n-th record besides the guests'.
func recordCA(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(64 + n>>16), byte(n >> 8), byte(n)})
}

// buildRecords is buildWeft with as many records as the name says, all of which
// lead to the second guest.
func (s *site) buildRecords(ctx context.Context) error {
	n, err := strconv.Atoi(s.name)
	if err != nil {
		return err
	}
	s.records = n
	if err := s.buildWeft(ctx); err != nil {
		return err
	}
	return sh(ctx, fmt.Sprintf(`
		ip -n %s route add 10.64.0.0/10 via %s
		ip -n %s route add local 10.64.0.0/10 dev lo`, s.guest[0], s.ca[1], s.guest[1]))
}

func mac(i int) model.MAC {
	m, err := model.ParseMAC(guestMAC[i])
	if err != nil {
		panic(err) // a constant of this program
	}
	return m
}

// switchDrops sums what the switches of the site dropped, for whatever reason.
func (s *site) switchDrops() (uint64, error) {
	var n uint64
	for _, sw := range s.switches {
		counts, err := sw.Drops()
		if err != nil {
			return 0, err
		}
		for _, c := range counts {
			n += c.Packets
		}
	}
	return n, nil
}

// tellDrops says in the log what a switch dropped and why.
func (s *site) tellDrops(host string, sw *datapath.Switch) {
	counts, err := sw.Drops()
	if err != nil {
		return
	}
	for _, c := range counts {
		if c.Packets > 0 {
			fmt.Fprintf(os.Stderr, "%-10s %s dropped %d %s: %s\n", s.cell.name(), host, c.Packets, c.Direction, c.Reason)
		}
	}
}

// decapsulation is how the switch of the receiving host strips.
func (s *site) decapsulation() string {
	if len(s.switches) < 2 {
		return ""
	}
	for _, how := range s.switches[1].Strategies() {
		return how
	}
	return ""
}
