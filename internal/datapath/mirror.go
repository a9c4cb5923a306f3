package datapath

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/cilium/ebpf"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

const (
	progMirrorOut    = "mirror_out"
	progMirrorIn     = "mirror_in"
	progMirrorSend   = "mirror_send"
	progMirrorUplink = "mirror_uplink"
)

const (
	mirrorOutbound = 1 << iota
	mirrorInbound
	mirrorProto
	mirrorPrefix
)

type mirrorKey struct{ IfIndex, N uint32 }

type mirrorRow struct {
	Way            peerRow
	Interval, Used uint64
	Port, To, ToID uint32
	Snap           uint32
	Flags, Rate    uint32
	Prefix, Mask   [16]byte
	L4Port         uint16
	Proto          uint8
	Zero           [5]uint8
}

type mirrorFromKey struct {
	Port uint32
	PA   [16]byte
}

func encodeMirror(m table.Mirror) mirrorRow {
	r := mirrorRow{Port: uint32(m.Port), To: m.IfIndex, ToID: uint32(m.To), Snap: m.Snap, Rate: m.Rate,
		Flags: flag[uint32](m.Outbound, mirrorOutbound) | flag[uint32](m.Inbound, mirrorInbound)}
	if m.Snap == 0 {
		r.Snap = math.MaxUint32
	}
	f := m.Filter
	r.L4Port, r.Proto = f.Port, f.Protocol
	r.Flags |= flag[uint32](f.OneProtocol, mirrorProto)
	if f.Prefix.IsValid() {
		r.Flags |= mirrorPrefix
		r.Prefix, r.Mask = model.As16(f.Prefix.Masked().Addr()), maskOf(f.Prefix)
	}
	if m.Rate != 0 {
		r.Interval = uint64(time.Second) / uint64(m.Rate)
	}
	if m.Way != (table.Peer{}) {
		r.Way = encodePeer(m.Way.PA, &m.Way)
	}
	return r
}

func decodeMirror(r mirrorRow) table.Mirror {
	m := table.Mirror{Port: model.PortID(r.Port), IfIndex: r.To, To: model.PortID(r.ToID), Snap: r.Snap, Rate: r.Rate,
		Outbound: r.Flags&mirrorOutbound != 0, Inbound: r.Flags&mirrorInbound != 0}
	if r.Snap == math.MaxUint32 {
		m.Snap = 0
	}
	m.Filter = table.MirrorFilter{OneProtocol: r.Flags&mirrorProto != 0, Protocol: r.Proto, Port: r.L4Port}
	if r.Flags&mirrorPrefix != 0 {
		m.Filter.Prefix = prefixOf(r.Prefix, r.Mask)
	}
	if r.Way != (peerRow{}) {
		m.Way = decodePeer(r.Way)
	}
	return m
}

// maskOf gives the mask of a prefix in the form of addr16.
func maskOf(p netip.Prefix) (mask [16]byte) {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	for i := range bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return mask
}

func prefixOf(address, mask [16]byte) netip.Prefix {
	ones := 0
	for _, b := range mask {
		ones += bits.OnesCount8(b)
	}
	a := model.From16(address)
	if a.Is4() {
		ones -= 96
	}
	return netip.PrefixFrom(a, ones)
}

func encodeMirrorSource(k table.MirrorSource) mirrorFromKey {
	return mirrorFromKey{uint32(k.Port), addr16(k.PA)}
}

func nameMirrorSource(k table.MirrorSource) string {
	return fmt.Sprintf("copies from %s for port %d", k.PA, k.Port)
}

func (s *Switch) putMirrors(want table.Set, d *delta) []error {
	name := func(k table.MirrorKey) string { return fmt.Sprintf("mirror %d of port %d", k.N, want.Mirrors[k].Port) }
	errs := putRows(s.have.Mirrors, want.Mirrors, d.putMirrors, name, func(k table.MirrorKey, m table.Mirror) error {
		return s.maps["mirror"].Put(mirrorKey{k.IfIndex, uint32(k.N)}, encodeMirror(m))
	})
	return append(errs, putRows(s.have.MirrorSources, want.MirrorSources, d.putFrom, nameMirrorSource, func(k table.MirrorSource, device uint32) error {
		return s.maps["mirror_from"].Put(encodeMirrorSource(k), device)
	})...)
}

func (s *Switch) deleteMirrors(d *delta) []error {
	name := func(k table.MirrorKey) string { return fmt.Sprintf("mirror %d of device %d", k.N, k.IfIndex) }
	errs := deleteRows(s.have.Mirrors, d.delMirrors, name, func(k table.MirrorKey) error { return s.maps["mirror"].Delete(mirrorKey{k.IfIndex, uint32(k.N)}) })
	return append(errs, deleteRows(s.have.MirrorSources, d.delFrom, nameMirrorSource, func(k table.MirrorSource) error {
		return s.maps["mirror_from"].Delete(encodeMirrorSource(k))
	})...)
}

// Mirroring says where the programs of mirrors are to be.
type Mirroring struct {
	Device  uint32   // of its own, by which copies go; 0: none is made
	Ports   []uint32 // devices of mirrored ports
	Uplinks []uint32 // devices by which copies of other hosts may come
}

// Mirror puts the programs of mirrors on these devices, and on no others any more. It comes after AttachPort and
// AttachUplink. Repeating it is harmless.
func (s *Switch) Mirror(m Mirroring) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := map[linkName]ebpf.AttachType{}
	for _, ifindex := range m.Ports {
		want[linkName{progMirrorOut, ifindex}] = ebpf.AttachTCXIngress
		want[linkName{progMirrorIn, ifindex}] = ebpf.AttachTCXEgress
	}
	for _, ifindex := range m.Uplinks {
		want[linkName{progMirrorUplink, ifindex}] = ebpf.AttachTCXIngress
	}
	if m.Device != 0 {
		want[linkName{progMirrorSend, m.Device}] = ebpf.AttachTCXEgress
	}
	var errs []error
	for n := range s.links {
		if _, ok := want[n]; !ok && mirrors(n) {
			errs = append(errs, s.detach(n))
		}
	}
	for n, at := range want {
		errs = append(errs, s.attach(n, at))
	}
	return errors.Join(append(errs, s.maps["mirror_device"].Put(uint32(0), m.Device))...)
}

func mirrors(n linkName) bool {
	return slices.Contains([]string{progMirrorOut, progMirrorIn, progMirrorSend, progMirrorUplink}, n.program)
}

// Mirrored lists the devices of ports that Mirror is on.
func (s *Switch) Mirrored() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []uint32
	for n := range s.links {
		if n.program == progMirrorOut {
			out = append(out, n.ifindex)
		}
	}
	slices.Sort(out)
	return out
}
