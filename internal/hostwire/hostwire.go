// Package hostwire turns Goal rows into the messages of the stream between
// server and agent, and back.
//
// Invariants: what it reads is strict — lengths checked before anything is
// read, every row passes goal's Check, every part is bounded — and an Update
// counts as a whole or not at all. It must never know sessions or sockets.
package hostwire

import (
	"errors"
	"fmt"
	"math"
	"net/netip"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// Protocol is the version of the stream that both ends must speak.
const Protocol = 3

// Bounds of the stream.
const (
	PartWeight = 4000    // of one Update; a row weighs 1, a port also 1 per address and prefix, and what is bytes 1 per KiB
	MaxRows    = 4 << 20 // of one revision, over all its parts
	MaxMessage = 4 << 20 // bytes of one message, either way
)

const bytesPerWeight = 1 << 10

// ErrMessage is wrapped by every complaint about a message that no sound peer sends.
var ErrMessage = errors.New("message of the host stream is not valid")

// Updates cuts d into the messages that bring a host to revision, whose Goal
// then has the digest. There is at least one, even for an empty d.
func Updates(d goal.Delta, revision int64, digest goal.Digest, snapshot bool) []*hostv1.Update {
	c := cutter{revision: revision, digest: digest, snapshot: snapshot}
	if d.PutSettings != nil {
		c.room(1).Settings = fromSettings(*d.PutSettings)
	}
	for _, pa := range d.PutPAs {
		u := c.room(1)
		u.PutPas = append(u.PutPas, address(pa))
	}
	for _, r := range d.PutProviderRoutes {
		u := c.room(1)
		u.PutProviderRoutes = append(u.PutProviderRoutes, fromProviderRoute(r))
	}
	for _, p := range d.PutPeers {
		u := c.room(1)
		u.PutPeers = append(u.PutPeers, fromPeer(p))
	}
	for _, x := range d.PutGroups {
		b := x.Encode()
		u := c.room(1 + len(b)/bytesPerWeight)
		u.PutGroups = append(u.PutGroups, b)
	}
	for _, l := range d.PutLists {
		b := l.Encode()
		u := c.room(1 + len(b)/bytesPerWeight)
		u.PutLists = append(u.PutLists, b)
	}
	for _, r := range d.PutRecords {
		u := c.room(1)
		u.PutRecords = append(u.PutRecords, fromRecord(r))
	}
	for _, r := range d.PutRoutes {
		u := c.room(1)
		u.PutRoutes = append(u.PutRoutes, fromRoute(r))
	}
	for _, p := range d.PutPorts {
		w := fromPort(p)
		u := c.room(1 + len(p.CAs) + len(p.Prefixes) + len(w.Settings)/bytesPerWeight)
		u.PutPorts = append(u.PutPorts, w)
	}
	for _, id := range d.DeletePorts {
		u := c.room(1)
		u.DeletePorts = append(u.DeletePorts, uint32(id))
	}
	for _, k := range d.DeleteLists {
		u := c.room(1)
		u.DeleteLists = append(u.DeleteLists, fromRef(k))
	}
	for _, k := range d.DeleteGroups {
		u := c.room(1)
		u.DeleteGroups = append(u.DeleteGroups, fromRef(k))
	}
	for _, k := range d.DeleteRoutes {
		u := c.room(1)
		u.DeleteRoutes = append(u.DeleteRoutes, fromRouteKey(k))
	}
	for _, k := range d.DeleteRecords {
		u := c.room(1)
		u.DeleteRecords = append(u.DeleteRecords, fromRecordKey(k))
	}
	for _, k := range d.DeletePeers {
		u := c.room(1)
		u.DeletePeers = append(u.DeletePeers, fromPeerKey(k))
	}
	for _, pa := range d.DeletePAs {
		u := c.room(1)
		u.DeletePas = append(u.DeletePas, address(pa))
	}
	for _, name := range d.DeleteProviderRoutes {
		u := c.room(1)
		u.DeleteProviderRoutes = append(u.DeleteProviderRoutes, name)
	}
	c.room(0).Last = true
	return c.parts
}

// cutter opens a new part when the current one is full.
type cutter struct {
	revision int64
	digest   goal.Digest
	snapshot bool
	parts    []*hostv1.Update
	weight   int
}

func (c *cutter) room(weight int) *hostv1.Update {
	if len(c.parts) == 0 || c.weight > 0 && c.weight+weight > PartWeight {
		c.parts = append(c.parts, &hostv1.Update{Revision: c.revision, Digest: c.digest[:], Snapshot: c.snapshot})
		c.weight = 0
	}
	c.weight += weight
	return c.parts[len(c.parts)-1]
}

// Delta reads the rows of one part.
func Delta(u *hostv1.Update) (goal.Delta, error) {
	var d goal.Delta
	if n := Rows(u); n > PartWeight {
		return d, wrong("a part of %d rows; at most %d are sent", n, PartWeight)
	}
	if u.GetSnapshot() && len(u.GetDeletePorts())+len(u.GetDeleteRoutes())+len(u.GetDeleteRecords())+len(u.GetDeletePas())+len(u.GetDeletePeers())+len(u.GetDeleteProviderRoutes())+len(u.GetDeleteLists())+len(u.GetDeleteGroups()) > 0 {
		return d, wrong("a snapshot deletes rows")
	}
	var err error
	if d.PutSettings, err = toSettings(u.GetSettings()); err != nil {
		return goal.Delta{}, fmt.Errorf("settings: %w", err)
	}
	var r rows
	d.PutPAs = each(&r, "put_pas", u.GetPutPas(), toPA)
	d.PutPeers = each(&r, "put_peers", u.GetPutPeers(), toPeer)
	d.PutGroups = each(&r, "put_groups", u.GetPutGroups(), toGroup)
	d.PutLists = each(&r, "put_lists", u.GetPutLists(), toList)
	d.PutRecords = each(&r, "put_records", u.GetPutRecords(), toRecord)
	d.PutRoutes = each(&r, "put_routes", u.GetPutRoutes(), toRoute)
	d.PutPorts = each(&r, "put_ports", u.GetPutPorts(), toPort)
	d.DeletePorts = each(&r, "delete_ports", u.GetDeletePorts(), toPortID)
	d.DeleteLists = each(&r, "delete_lists", u.GetDeleteLists(), toRef)
	d.DeleteGroups = each(&r, "delete_groups", u.GetDeleteGroups(), toRef)
	d.DeleteRoutes = each(&r, "delete_routes", u.GetDeleteRoutes(), toRouteKey)
	d.DeleteRecords = each(&r, "delete_records", u.GetDeleteRecords(), toRecordKey)
	d.DeletePeers = each(&r, "delete_peers", u.GetDeletePeers(), toPeerKey)
	d.DeletePAs = each(&r, "delete_pas", u.GetDeletePas(), toPA)
	d.PutProviderRoutes = each(&r, "put_provider_routes", u.GetPutProviderRoutes(), toProviderRoute)
	d.DeleteProviderRoutes = each(&r, "delete_provider_routes", u.GetDeleteProviderRoutes(), toName)
	if r.err != nil {
		return goal.Delta{}, r.err
	}
	return d, nil
}

// Rows counts the rows of one part.
func Rows(u *hostv1.Update) int {
	return len(u.GetPutProviderRoutes()) + len(u.GetDeleteProviderRoutes()) + len(u.GetPutPeers()) + len(u.GetDeletePeers()) + len(u.GetPutPas()) + len(u.GetPutRecords()) + len(u.GetPutRoutes()) + len(u.GetPutPorts()) +
		len(u.GetPutGroups()) + len(u.GetPutLists()) + len(u.GetDeleteGroups()) + len(u.GetDeleteLists()) +
		len(u.GetDeletePas()) + len(u.GetDeleteRecords()) + len(u.GetDeleteRoutes()) + len(u.GetDeletePorts())
}

// Digest reads a digest: 16 bytes.
func Digest(b []byte) (goal.Digest, error) {
	if len(b) != len(goal.Digest{}) {
		return goal.Digest{}, wrong("a digest of %d bytes, not %d", len(b), len(goal.Digest{}))
	}
	return goal.Digest(b), nil
}

// rows keeps the first error, with the place of the row that made it.
type rows struct{ err error }

func each[W, G any](r *rows, field string, from []W, read func(W) (G, error)) []G {
	if r.err != nil || len(from) == 0 {
		return nil
	}
	out := make([]G, 0, len(from))
	for i, w := range from {
		g, err := read(w)
		if err != nil {
			r.err = fmt.Errorf("%s[%d]: %w", field, i, err)
			return nil
		}
		out = append(out, g)
	}
	return out
}

func fromRecord(r goal.RecordRow) *hostv1.Record {
	return &hostv1.Record{Key: fromRecordKey(r.Key), Mac: r.Record.MAC[:], Pa: address(r.Record.PA),
		Port: uint32(r.Record.Port), Router: r.Record.Router, Transport: uint32(r.Record.Transport), Forward: r.Record.Trust.Forward,
		ServesDhcp: r.Record.Trust.DHCP, IsRouter: r.Record.Trust.Router, UsesOthers: r.Record.Trust.Allowed,
		Rewrite: address(r.Record.Rewrite), Isolation: uint32(r.Record.Isolation)}
}

func toRecord(w *hostv1.Record) (row goal.RecordRow, err error) {
	if row.Key, err = toRecordKey(w.GetKey()); err != nil {
		return row, err
	}
	if row.Record.MAC, err = toMAC(w.GetMac()); err != nil {
		return row, err
	}
	if row.Record.PA, err = toAddress(w.GetPa()); err != nil {
		return row, fmt.Errorf("pa: %w", err)
	}
	if row.Record.Rewrite, err = toAddress(w.GetRewrite()); err != nil {
		return row, fmt.Errorf("rewrite: %w", err)
	}
	row.Record.Port, row.Record.Router = model.PortID(w.GetPort()), w.GetRouter()
	row.Record.Isolation = model.IsolationID(w.GetIsolation())
	row.Record.Trust = goal.Trust{Forward: w.GetForward(), DHCP: w.GetServesDhcp(), Router: w.GetIsRouter(), Allowed: w.GetUsesOthers()}
	if row.Record.Transport = model.TransportID(w.GetTransport()); uint32(row.Record.Transport) != w.GetTransport() {
		return row, wrong("transport %d", w.GetTransport())
	}
	return row, checked(row.Check())
}

func fromSettings(s goal.Settings) *hostv1.Settings {
	return &hostv1.Settings{VxlanPort: uint32(s.VXLANPort), Pipe: s.Pipe, Dscp: uint32(s.DSCP)}
}

// toSettings gives nil for an Update that says nothing of them.
func toSettings(w *hostv1.Settings) (*goal.Settings, error) {
	if w == nil {
		return nil, nil
	}
	if w.GetVxlanPort() > math.MaxUint16 {
		return nil, wrong("vxlan_port %d", w.GetVxlanPort())
	}
	if w.GetDscp() > goal.MaxDSCP {
		return nil, wrong("dscp %d", w.GetDscp())
	}
	s := &goal.Settings{VXLANPort: uint16(w.GetVxlanPort()), Pipe: w.GetPipe(), DSCP: uint8(w.GetDscp())}
	return s, checked(s.Check())
}

func fromRecordKey(k goal.RecordKey) *hostv1.RecordKey {
	return &hostv1.RecordKey{Vsid: uint32(k.VSID), Ca: address(k.CA)}
}

func toRecordKey(w *hostv1.RecordKey) (k goal.RecordKey, err error) {
	if k.CA, err = toAddress(w.GetCa()); err != nil {
		return k, fmt.Errorf("ca: %w", err)
	}
	k.VSID = model.VSID(w.GetVsid())
	return k, checked(k.Check())
}

func fromRoute(r goal.RouteRow) *hostv1.Route {
	return &hostv1.Route{Key: fromRouteKey(r.Key), Vsid: uint32(r.Route.VSID), NextHop: address(r.Route.NextHop)}
}

func toRoute(w *hostv1.Route) (row goal.RouteRow, err error) {
	if row.Key, err = toRouteKey(w.GetKey()); err != nil {
		return row, err
	}
	if row.Route.NextHop, err = toAddress(w.GetNextHop()); err != nil {
		return row, fmt.Errorf("next_hop: %w", err)
	}
	row.Route.VSID = model.VSID(w.GetVsid())
	return row, checked(row.Check())
}

func fromRouteKey(k goal.RouteKey) *hostv1.RouteKey {
	return &hostv1.RouteKey{Network: uint32(k.Network), Prefix: fromPrefix(k.Prefix)}
}

func toRouteKey(w *hostv1.RouteKey) (k goal.RouteKey, err error) {
	if k.Prefix, err = toPrefix(w.GetPrefix()); err != nil {
		return k, err
	}
	k.Network = model.NetworkIndex(w.GetNetwork())
	return k, checked(k.Check())
}

func fromPeer(r goal.PeerRow) *hostv1.Peer {
	w := &hostv1.Peer{Key: fromPeerKey(r.Key)}
	for _, a := range r.Peer.List() {
		w.Pas = append(w.Pas, address(a))
	}
	return w
}

func toPeer(w *hostv1.Peer) (row goal.PeerRow, err error) {
	if row.Key, err = toPeerKey(w.GetKey()); err != nil {
		return row, err
	}
	if n := len(w.GetPas()); n > len(row.Peer.PAs) {
		return row, wrong("peer %s has %d addresses", row.Key.PA, n)
	}
	for i, b := range w.GetPas() {
		if row.Peer.PAs[i], err = toPA(b); err != nil {
			return row, err
		}
	}
	return row, checked(row.Check())
}

func fromPeerKey(k goal.PeerKey) *hostv1.PeerKey {
	return &hostv1.PeerKey{Network: uint32(k.Network), Pa: address(k.PA)}
}

func toPeerKey(w *hostv1.PeerKey) (k goal.PeerKey, err error) {
	if k.PA, err = toAddress(w.GetPa()); err != nil {
		return k, fmt.Errorf("pa: %w", err)
	}
	k.Network = model.NetworkIndex(w.GetNetwork())
	return k, checked(k.Check())
}

func fromPort(p goal.Port) *hostv1.Port {
	w := &hostv1.Port{Tenant: p.Ref.Tenant, Name: p.Ref.Name, Id: uint32(p.ID), Vsid: uint32(p.VSID), Network: uint32(p.Network),
		Mac: p.MAC[:], Gateway4: address(p.Gateway4), Gateway6: address(p.Gateway6), Pa: address(p.PA), Spoof: p.Spoof, Learn: p.Learn,
		FloodL2: p.Flood.L2, FloodGroup: address(p.Flood.Group), FloodRate: p.Flood.Rate, Forward: p.Forward, External: p.External, MssClamp: p.ClampMSS, Interface: p.Interface, Settings: p.Settings.Encode()}
	for _, a := range p.CAs {
		w.Cas = append(w.Cas, address(a))
	}
	for _, x := range p.Prefixes {
		w.Prefixes = append(w.Prefixes, fromPrefix(x))
	}
	return w
}

func toPort(w *hostv1.Port) (goal.Port, error) {
	p := goal.Port{Ref: model.Ref{Tenant: w.GetTenant(), Name: w.GetName()}, ID: model.PortID(w.GetId()), VSID: model.VSID(w.GetVsid()),
		Network: model.NetworkIndex(w.GetNetwork()), Spoof: w.GetSpoof(), Learn: w.GetLearn(), Forward: w.GetForward(), External: w.GetExternal(), ClampMSS: w.GetMssClamp(), Interface: w.GetInterface()}
	if len(w.GetCas()) > goal.MaxCAs || len(w.GetPrefixes()) > goal.MaxPrefixes {
		return p, wrong("port %s has %d addresses and %d prefixes", p.Ref, len(w.GetCas()), len(w.GetPrefixes()))
	}
	var err error
	if p.MAC, err = toMAC(w.GetMac()); err != nil {
		return p, err
	}
	var r rows
	p.CAs = each(&r, "cas", w.GetCas(), toAddress)
	p.Prefixes = each(&r, "prefixes", w.GetPrefixes(), toPrefix)
	if r.err != nil {
		return p, r.err
	}
	if p.Gateway4, err = toAddress(w.GetGateway4()); err != nil {
		return p, fmt.Errorf("gateway4: %w", err)
	}
	if p.Gateway6, err = toAddress(w.GetGateway6()); err != nil {
		return p, fmt.Errorf("gateway6: %w", err)
	}
	if p.PA, err = toAddress(w.GetPa()); err != nil {
		return p, fmt.Errorf("pa: %w", err)
	}
	p.Flood = goal.Flood{L2: w.GetFloodL2(), Rate: w.GetFloodRate()}
	if p.Flood.Group, err = toAddress(w.GetFloodGroup()); err != nil {
		return p, fmt.Errorf("flood group: %w", err)
	}
	if p.Settings, err = goal.DecodePortSettings(w.GetSettings()); err != nil {
		return p, checked(err)
	}
	return p, checked(p.Check())
}

func toGroup(b []byte) (*goal.Group, error) {
	x, err := goal.DecodeGroup(b)
	return x, checked(err)
}

func toList(b []byte) (*goal.List, error) {
	l, err := goal.DecodeList(b)
	return l, checked(err)
}

func fromRef(r model.Ref) *hostv1.Name { return &hostv1.Name{Tenant: r.Tenant, Name: r.Name} }

func toRef(w *hostv1.Name) (model.Ref, error) {
	r := model.Ref{Tenant: w.GetTenant(), Name: w.GetName()}
	return r, checked(goal.CheckListRef(r))
}

func toPortID(id uint32) (model.PortID, error) {
	if id == 0 {
		return 0, wrong("port 0")
	}
	return model.PortID(id), nil
}

func toPA(b []byte) (netip.Addr, error) {
	a, err := toAddress(b)
	if err != nil {
		return a, err
	}
	return a, checked(goal.CheckPA(a))
}

func toMAC(b []byte) (model.MAC, error) {
	if len(b) != len(model.MAC{}) {
		return model.MAC{}, wrong("mac: %d bytes, not 6", len(b))
	}
	return model.MAC(b), nil
}

// address gives 4 or 16 bytes in network order, or none for an invalid address.
func address(a netip.Addr) []byte { return a.AsSlice() }

func toAddress(b []byte) (netip.Addr, error) {
	if len(b) == 0 {
		return netip.Addr{}, nil
	}
	a, ok := netip.AddrFromSlice(b)
	if !ok {
		return a, wrong("an address of %d bytes, not 4 or 16", len(b))
	}
	return a, nil
}

func fromPrefix(p netip.Prefix) *hostv1.Prefix {
	return &hostv1.Prefix{Address: address(p.Addr()), Bits: uint32(p.Bits())}
}

func toPrefix(w *hostv1.Prefix) (netip.Prefix, error) {
	a, err := toAddress(w.GetAddress())
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("prefix: %w", err)
	}
	if !a.IsValid() || w.GetBits() > uint32(a.BitLen()) {
		return netip.Prefix{}, wrong("prefix of %d bits of %s", w.GetBits(), a)
	}
	return netip.PrefixFrom(a, int(w.GetBits())), nil
}

func checked(err error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", ErrMessage, err)
	}
	return nil
}

func wrong(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMessage, fmt.Sprintf(format, args...))
}
