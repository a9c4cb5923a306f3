// Package corpus makes rule sets of the shape that rule sets have: many rules about few services, from prefixes
// that nest and repeat, as ClassBench describes sets of access lists (Taylor and Turner, 2007). The same seed gives
// the same rules. It must never look at a clock or at chance that no seed decides.
package corpus

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// Corpus makes rules for one port.
type Corpus struct {
	*rand.Rand
	Inbound bool // services are the guest's own; else those of others
	nets    []netip.Prefix
	local   []netip.Prefix
}

// New makes a corpus of about n rules; local are prefixes that the guest has addresses in.
func New(seed uint64, n int, inbound bool, local ...netip.Prefix) *Corpus {
	c := &Corpus{Rand: rand.New(rand.NewPCG(seed, uint64(n))), Inbound: inbound, local: local}
	for range 4 + n/50 {
		c.nets = append(c.nets, c.net())
	}
	return c
}

func oneOf[T any](c *Corpus, from []T) T { return from[c.IntN(len(from))] }

// net is one site's prefix.
func (c *Corpus) net() netip.Prefix {
	if c.IntN(100) < 20 {
		b := [16]byte{0x20, 0x01, 0x0d, 0xb8}
		binary.BigEndian.PutUint32(b[4:], c.Uint32N(1<<12)<<20|c.Uint32N(256)<<8)
		return netip.PrefixFrom(netip.AddrFrom16(b), oneOf(c, []int{48, 56, 64, 64})).Masked()
	}
	b := oneOf(c, [][4]byte{{10}, {10}, {10}, {172, 16}, {192, 168}, {100, 64}, {byte(11 + c.IntN(150)), byte(c.IntN(256))}})
	b[2], b[3] = byte(c.IntN(256)), byte(c.IntN(256))
	if b[0] == 10 {
		b[1] = byte(c.IntN(256))
	}
	return netip.PrefixFrom(netip.AddrFrom4(b), oneOf(c, []int{16, 20, 22, 24, 24, 24, 26})).Masked()
}

// prefix is a site, a part of it, or a single host.
func (c *Corpus) prefix() netip.Prefix {
	p := oneOf(c, c.nets)
	switch n := c.IntN(100); {
	case n < 25:
		return p
	case n < 45:
		return netip.PrefixFrom(c.Host(p), min(p.Addr().BitLen(), p.Bits()+2+c.IntN(6))).Masked()
	}
	return netip.PrefixFrom(c.Host(p), p.Addr().BitLen())
}

// Host is an address of a prefix.
func (c *Corpus) Host(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := range b {
		keep := byte(0)
		if free := (i+1)*8 - p.Bits(); free > 0 {
			keep = byte(1<<min(free, 8) - 1)
		}
		b[i] |= byte(c.Uint32()) & keep
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

var services = []uint16{22, 25, 53, 80, 110, 123, 143, 161, 389, 443, 443, 443, 445, 514, 636, 873, 993, 1433, 1521, 2049, 3306, 3389, 5432, 5671, 6379, 8080, 8443, 9090, 9200, 27017}

func (c *Corpus) ports() []table.PortRange {
	switch n := c.IntN(100); {
	case n < 70:
		p := oneOf(c, services)
		return []table.PortRange{{First: p, Last: p}}
	case n < 80:
		p := uint16(1024 + c.IntN(40000))
		return []table.PortRange{{First: p, Last: p + uint16(c.IntN(200))}}
	case n < 88:
		return []table.PortRange{{First: 1024, Last: 65535}}
	}
	a, b := oneOf(c, services), oneOf(c, services)
	return []table.PortRange{{First: a, Last: a}, {First: b, Last: b}}
}

// Rule is the n-th rule of a list.
func (c *Corpus) Rule(list string, n int) table.Rule {
	r := table.Rule{ID: model.RuleID{List: model.Ref{Tenant: "corpus", Name: list}, Rule: fmt.Sprintf("rule-%d", n)}, ICMPType: -1, ICMPCode: -1}
	if c.IntN(100) < 30 {
		r.Action = table.Deny
	}
	if c.IntN(100) < 92 {
		r.Remote = append(r.Remote, c.prefix())
		for c.IntN(100) < 25 {
			r.Remote = append(r.Remote, c.prefix())
		}
	}
	if len(c.local) > 0 && c.IntN(100) < 30 {
		p := oneOf(c, c.local)
		r.Local = append(r.Local, netip.PrefixFrom(c.Host(p), p.Addr().BitLen()-c.IntN(5)).Masked())
	}
	switch n := c.IntN(100); {
	case n < 6:
		r.AnyProtocol = true
	case n < 10:
		r.Protocol, r.ICMPType = 1, 8
	case n < 32:
		r.Protocol = 17
	default:
		r.Protocol = 6
	}
	if r.Protocol == 6 || r.Protocol == 17 {
		if c.Inbound {
			r.LocalPorts = c.ports()
		} else {
			r.RemotePorts = c.ports()
		}
	}
	return r
}

// Section is a list of n rules; the last one matches all that the others do not.
func (c *Corpus) Section(kind table.SectionKind, list string, n int) table.Section {
	s := table.Section{Kind: kind}
	for i := range n - 1 {
		s.Rules = append(s.Rules, c.Rule(list, i))
	}
	last := table.Rule{ID: model.RuleID{List: model.Ref{Tenant: "corpus", Name: list}, Rule: "default"}, AnyProtocol: true, ICMPType: -1, ICMPCode: -1}
	s.Rules = append(s.Rules, last)
	return s
}
