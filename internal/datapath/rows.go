package datapath

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// The rows of bpf/maps, byte for byte. Integers are in host order except where
// an array of bytes says network order.

const (
	portSpoof    = 1
	portPeer     = 2
	portFlood    = 4
	portVXLAN    = 8
	portRewrite  = 16
	portLearn    = 32
	portForward  = 64
	portExternal = 128
	portMSS      = 256

	portDHCPGuard   = 512
	portRouterGuard = 1024
	portAllowed     = 1 << 20
	portTeaming     = 2048
	portPriorityTag = 4096
	portRules       = 8192
)

type portRow struct {
	IfIndex, ID, VSID, Network, Slot uint32
	MTU                              uint16
	MAC                              model.MAC
	Flags                            uint32
	PA, Gateway4, Gateway6           [16]byte // zero: none
	Isolation                        uint32
	Inbound, Outbound                uint32 // rule sets, by block; 0: none
	Version                          uint32 // of both
}

type localMACKey struct {
	VSID uint32
	MAC  model.MAC
	Zero uint16
}

// Flags of a record. The transport is recordVXLAN, recordRewrite or, without, NVGRE.
const (
	recordRouter = 1 << iota
	recordVXLAN
	recordRewrite
	recordExchange
)

const (
	recordWildcard = 1 << 31 // in the VSID of a key: the row of the unspecified address
)

type recordKey struct {
	VSID uint32
	CA   [16]byte
}

type recordRow struct {
	MAC     model.MAC
	Flags   uint16
	Peer    uint32 // index; 0: none
	IfIndex uint32
	Port    uint32
	// Isolation of the port that has the address.
	Isolation uint32
}

const (
	routeOnLink    = 1
	routeFixedBits = 64
)

type routeKey struct {
	PrefixLen       uint32
	Network, Family [4]byte // network order
	Addr            [16]byte
}

type routeRow struct {
	VSID, Flags uint32
	NextHop     [16]byte
}

const (
	peerPresent = 1 << iota
	peerListed
)

type peerRow struct {
	PA      [16]byte
	Local   [16]byte // zero: the port's
	Remote  [16]byte
	Via     [16]byte // zero: none
	IfIndex uint32
	MTU     uint16
	Flags   uint16
	NextHop model.MAC
	Source  model.MAC
	Path    uint32 // index of the first further way
	Paths   uint32
	Zero    uint32
}

const settingPipe = 1

type sourceKey struct {
	Peer uint32
	PA   [16]byte
}

type settingRow struct {
	VXLANPort   [2]byte // network order
	Flags, DSCP uint8
	Zero        [12]byte
}

type forwarderKey struct {
	Network uint32
	MAC     model.MAC
	Zero    uint16
	PA      [16]byte
}

const (
	trustForward = 1 << iota
	trustDHCP
	trustRouter
	trustAllowed
)

func encodeTrust(t table.Trust) uint32 {
	return flag[uint32](t.Forward, trustForward) | flag[uint32](t.DHCP, trustDHCP) | flag[uint32](t.Router, trustRouter) | flag[uint32](t.Allowed, trustAllowed)
}

func decodeTrust(t uint32) table.Trust {
	return table.Trust{Forward: t&trustForward != 0, DHCP: t&trustDHCP != 0, Router: t&trustRouter != 0, Allowed: t&trustAllowed != 0}
}

func encodeForwarder(f table.Forwarder) forwarderKey {
	return forwarderKey{Network: uint32(f.Network), MAC: f.MAC, PA: addr16(f.PA)}
}

func decodeForwarder(k forwarderKey) table.Forwarder {
	return table.Forwarder{Network: model.NetworkIndex(k.Network), MAC: k.MAC, PA: from16(k.PA)}
}

type uplinkRow struct {
	MAC  model.MAC
	Zero uint16
}

type trafficRow struct {
	OutPackets, OutBytes, InPackets, InBytes uint64
	Out, In                                  samplingRow
}

type samplingRow struct {
	Due      uint64
	Step, At uint32
}

type flowRow struct {
	ID, Packets                      uint64
	Remote, Local                    [2]uint64
	RemoteMAC, LocalMAC              uint64
	RemotePort, LocalPort, Port, Len uint32
	Is6, Inbound, Denied, Sampled    uint8
	Zero                             uint32
}

type flowSeenRow struct {
	ID                        uint64
	Turn, Packets, Slot, Zero uint32
}

type flowPaceRow struct{ Used, Missed uint64 }

type ruleHitRow struct {
	Packets, Bytes uint64
}

type rulePaceRow struct {
	Used, Suppressed uint64
}

type ruleLogRow struct {
	Time                                 uint64
	Remote, Local                        [2]uint64
	RemoteMAC, LocalMAC, Suppressed      uint64
	RemotePort, LocalPort, Rule, ID, Len uint32
	IP, Is6, Inbound, Zero               uint8
}

type dropKey struct {
	Reason, Direction uint8
	Zero              uint16
	Port              uint32
}

type dropRow struct {
	Packets, Bytes, LastEvent uint64
}

type eventRow struct {
	Time              uint64
	Reason, Direction uint8
	HeadLen           uint16
	Port              uint32
	IfIndex           uint32
	Len               uint32
	Rule              uint32 // number; all ones: none
	Zero              uint32
	Head              [96]byte
}

type learnRow struct {
	Time               uint64
	VSID, Port         uint32
	Verdict, Direction uint8
	HeadLen            uint16
	Zero               uint32
	Head               [400]byte
}

// addr16 is the key form of an address; the invalid address is all zero.
func addr16(a netip.Addr) [16]byte {
	if !a.IsValid() {
		return [16]byte{}
	}
	return model.As16(a)
}

func from16(b [16]byte) netip.Addr {
	if b == [16]byte{} {
		return netip.Addr{}
	}
	return model.From16(b)
}

func flag[T uint16 | uint32](on bool, bit T) T {
	if on {
		return bit
	}
	return 0
}

func (x *ruleStore) encodePort(p table.Port, slot uint32) portRow {
	return portRow{
		IfIndex: p.IfIndex, ID: uint32(p.ID), VSID: uint32(p.VSID), Network: uint32(p.Network), Slot: slot,
		MTU: p.MTU, MAC: p.MAC, Flags: flag[uint32](p.Spoof, portSpoof) | flag[uint32](p.Peer, portPeer) | flag[uint32](p.Flood, portFlood) |
			flag[uint32](p.Forward, portForward) | flag[uint32](p.External, portExternal) | flag[uint32](p.ClampMSS, portMSS) | flag[uint32](p.Learn, portLearn) |
			flag[uint32](p.DHCPGuard, portDHCPGuard) | flag[uint32](p.RouterGuard, portRouterGuard) | flag[uint32](p.Allowed, portAllowed) |
			flag[uint32](p.Inbound != p.Outbound || p.Inbound != table.RuleSetKey{}, portRules) | flag[uint32](p.Teaming, portTeaming) | flag[uint32](p.PriorityTag, portPriorityTag) |
			flag[uint32](p.Transport == model.VXLAN, portVXLAN) | flag[uint32](p.Transport == model.Rewrite, portRewrite),
		PA: addr16(p.PA), Gateway4: addr16(p.Gateway4), Gateway6: addr16(p.Gateway6), Isolation: uint32(p.Isolation),
		Inbound: x.block(p.Inbound), Outbound: x.block(p.Outbound), Version: x.rulesVersion(p),
	}
}

func decodePort(r portRow) table.Port {
	return table.Port{
		IfIndex: r.IfIndex, ID: model.PortID(r.ID), VSID: model.VSID(r.VSID), Network: model.NetworkIndex(r.Network),
		MAC: r.MAC, PA: from16(r.PA), Gateway4: from16(r.Gateway4), Gateway6: from16(r.Gateway6), MTU: r.MTU,
		Spoof: r.Flags&portSpoof != 0, Peer: r.Flags&portPeer != 0, Flood: r.Flags&portFlood != 0,
		Forward: r.Flags&portForward != 0, External: r.Flags&portExternal != 0, ClampMSS: r.Flags&portMSS != 0, Learn: r.Flags&portLearn != 0,
		DHCPGuard: r.Flags&portDHCPGuard != 0, RouterGuard: r.Flags&portRouterGuard != 0, Allowed: r.Flags&portAllowed != 0,
		Teaming: r.Flags&portTeaming != 0, PriorityTag: r.Flags&portPriorityTag != 0,
		Transport: transportOf(r.Flags&portVXLAN != 0, r.Flags&portRewrite != 0), Isolation: model.IsolationID(r.Isolation),
	}
}

func encodeRecordKey(k table.RecordKey) recordKey {
	key := recordKey{uint32(k.VSID), model.As16(k.CA)}
	if k.CA.IsUnspecified() {
		key.VSID |= recordWildcard
	}
	return key
}

func decodeRecordKey(k recordKey) table.RecordKey {
	return table.RecordKey{VSID: model.VSID(k.VSID &^ recordWildcard), CA: model.From16(k.CA)}
}

func encodeRecord(r table.Record, peer uint32) recordRow {
	return recordRow{MAC: r.MAC, Flags: flag[uint16](r.Router, recordRouter) | flag[uint16](r.Transport == model.VXLAN, recordVXLAN) | flag[uint16](r.Transport == model.Rewrite, recordRewrite) | flag[uint16](r.Exchange, recordExchange),
		Peer: peer, IfIndex: r.IfIndex, Port: uint32(r.Port), Isolation: uint32(r.Isolation)}
}

func decodeRecord(r recordRow, pa netip.Addr) table.Record {
	return table.Record{MAC: r.MAC, PA: pa, Router: r.Flags&recordRouter != 0, Exchange: r.Flags&recordExchange != 0, IfIndex: r.IfIndex, Port: model.PortID(r.Port),
		Transport: transportOf(r.Flags&recordVXLAN != 0, r.Flags&recordRewrite != 0), Isolation: model.IsolationID(r.Isolation)}
}

func transportOf(vxlan, rewrite bool) model.TransportID {
	switch {
	case rewrite:
		return model.Rewrite
	case vxlan:
		return model.VXLAN
	}
	return model.NVGRE
}

func encodeRoute(k table.RouteKey, v table.Route) (routeKey, routeRow) {
	key := encodeRouteKey(k)
	return key, routeRow{uint32(v.VSID), flag[uint32](!v.NextHop.IsValid(), routeOnLink), addr16(v.NextHop)}
}

func encodeRouteKey(k table.RouteKey) routeKey {
	a, bits, family := k.Prefix.Addr(), k.Prefix.Bits(), uint32(6)
	if a.Is4() {
		bits, family = bits+96, 4
	}
	key := routeKey{PrefixLen: uint32(routeFixedBits + bits), Addr: model.As16(a)}
	binary.BigEndian.PutUint32(key.Network[:], uint32(k.Network))
	binary.BigEndian.PutUint32(key.Family[:], family)
	return key
}

func decodeRouteKey(k routeKey) (table.RouteKey, error) {
	bits := int(k.PrefixLen) - routeFixedBits
	addr := netip.AddrFrom16(k.Addr)
	if binary.BigEndian.Uint32(k.Family[:]) == 4 {
		bits, addr = bits-96, addr.Unmap()
	}
	if bits < 0 || bits > addr.BitLen() {
		return table.RouteKey{}, fmt.Errorf("route: prefix length %d of %s makes no sense; run `weft verify`", k.PrefixLen, addr)
	}
	return table.RouteKey{
		Network: model.NetworkIndex(binary.BigEndian.Uint32(k.Network[:])),
		Prefix:  netip.PrefixFrom(addr, bits),
	}, nil
}

func decodeRoute(r routeRow) table.Route {
	v := table.Route{VSID: model.VSID(r.VSID)}
	if r.Flags&routeOnLink == 0 {
		v.NextHop = from16(r.NextHop)
	}
	return v
}

// encodePeer gives the row of a PA; p is nil when only records name it.
func encodePeer(pa netip.Addr, p *table.Peer) peerRow {
	r := peerRow{PA: addr16(pa), Remote: addr16(pa)}
	if p == nil {
		return r
	}
	if r.Local = addr16(p.Local); p.Remote.IsValid() {
		r.Remote = addr16(p.Remote)
	}
	r.IfIndex, r.MTU, r.Flags, r.NextHop, r.Source, r.Via = p.IfIndex, p.MTU, peerPresent, p.NextHop, p.Source, addr16(p.Via)
	return r
}

func decodePeer(r peerRow) table.Peer {
	p := table.Peer{PA: from16(r.PA), Local: from16(r.Local), Remote: from16(r.Remote), IfIndex: r.IfIndex, MTU: r.MTU, NextHop: r.NextHop, Source: r.Source, Via: from16(r.Via)}
	if p.Remote == p.PA {
		p.Remote = netip.Addr{}
	}
	return p
}

func encodeSettings(s table.Settings) settingRow {
	r := settingRow{DSCP: s.DSCP << 2}
	if s.Pipe {
		r.Flags = settingPipe
	}
	binary.BigEndian.PutUint16(r.VXLANPort[:], s.VXLANPort)
	return r
}

func decodeSettings(r settingRow) table.Settings {
	return table.Settings{VXLANPort: binary.BigEndian.Uint16(r.VXLANPort[:]), Pipe: r.Flags&settingPipe != 0, DSCP: r.DSCP >> 2}
}
