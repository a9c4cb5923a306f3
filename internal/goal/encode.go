package goal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
)

// The encoded Goal, all integers big endian:
//
//	magic 8 | version u16 | revision u64 | length of the rows u64 |
//	settings | count u32 and rows, for PAs, Records, Routes, Ports, Peers, ProviderRoutes, Groups, Lists | SHA-256 of all before
//
// An address is its length (0, 4 or 16) in one byte and its bytes.
const (
	magic      = "WEFTGOAL"
	version    = 6
	headSize   = len(magic) + 2 + 8 + 8
	maxEncoded = 1 << 30
)

var (
	// ErrCorrupt is returned for bytes that Encode did not write, or that were cut or changed since.
	ErrCorrupt = errors.New("encoded goal is corrupt")
	// ErrVersion is returned for a Goal that another version of weft encoded.
	ErrVersion = errors.New("encoded goal has another version")
)

// Encode writes g and the revision it belongs to for a disk cache. The same
// Goal always gives the same bytes.
func (g *Goal) Encode(revision int64) []byte {
	all := Diff(New(), g)
	b := binary.BigEndian.AppendUint16([]byte(magic), version)
	b = binary.BigEndian.AppendUint64(b, uint64(revision))
	b = binary.BigEndian.AppendUint64(b, 0)
	b = appendSettings(b, g.Settings)
	b = appendRows(b, all.PutPAs, appendAddr)
	b = appendRows(b, all.PutRecords, appendRecord)
	b = appendRows(b, all.PutRoutes, appendRoute)
	b = appendRows(b, all.PutPorts, appendPort)
	b = appendRows(b, all.PutPeers, appendPeer)
	b = appendRows(b, all.PutProviderRoutes, appendProviderRoute)
	b = appendRows(b, all.PutGroups, func(b []byte, x *Group) []byte { return appendBytes(b, x.Encode()) })
	b = appendRows(b, all.PutLists, func(b []byte, l *List) []byte { return appendBytes(b, l.Encode()) })
	binary.BigEndian.PutUint64(b[headSize-8:], uint64(len(b)-headSize))
	sum := sha256.Sum256(b)
	return append(b, sum[:]...)
}

// Decode reads what Encode wrote and gives the Goal and its revision. It
// returns ErrCorrupt or ErrVersion, never a part of a Goal, and takes no more
// memory than a small multiple of b.
func Decode(b []byte) (*Goal, int64, error) {
	if len(b) < headSize+sha256.Size || len(b) > maxEncoded || string(b[:len(magic)]) != magic {
		return nil, 0, fmt.Errorf("%w: %d bytes do not begin as a goal", ErrCorrupt, len(b))
	}
	if v := binary.BigEndian.Uint16(b[len(magic):]); v != version {
		return nil, 0, fmt.Errorf("%w: %d, not %d", ErrVersion, v, version)
	}
	body, sum := b[:len(b)-sha256.Size], b[len(b)-sha256.Size:]
	if n := binary.BigEndian.Uint64(b[headSize-8:]); n != uint64(len(body)-headSize) {
		return nil, 0, fmt.Errorf("%w: rows of %d bytes where %d are announced", ErrCorrupt, len(body)-headSize, n)
	}
	if want := sha256.Sum256(body); !bytes.Equal(want[:], sum) {
		return nil, 0, fmt.Errorf("%w: checksum does not fit", ErrCorrupt)
	}
	g, err := decodeRows(body[headSize:])
	if err != nil {
		return nil, 0, err
	}
	return g, int64(binary.BigEndian.Uint64(b[len(magic)+2:])), nil
}

func decodeRows(b []byte) (*Goal, error) {
	g := New()
	r := reader{left: b}
	g.Settings = r.settings()
	if g.Settings != (Settings{}) {
		r.check(g.Settings.Check())
	}
	for range r.count(2) {
		pa := r.addr()
		r.check(CheckPA(pa))
		g.PAs[pa] = struct{}{}
	}
	for range r.count(17) {
		row := r.record()
		r.check(row.Check())
		_, twice := g.Records[row.Key]
		r.once(twice)
		g.Records[row.Key] = row.Record
	}
	for range r.count(11) {
		row := r.route()
		r.check(row.Check())
		_, twice := g.Routes[row.Key]
		r.once(twice)
		g.Routes[row.Key] = row.Route
	}
	for range r.count(32) {
		p := r.port()
		r.check(p.Check())
		_, twice := g.Ports[p.ID]
		r.once(twice)
		g.Ports[p.ID] = p
	}
	for range r.count(9) {
		row := r.peer()
		r.check(row.Check())
		_, twice := g.Peers[row.Key]
		r.once(twice)
		g.Peers[row.Key] = row.Peer
	}
	for range r.count(13) {
		row := r.providerRoute()
		r.check(row.Check())
		_, twice := g.ProviderRoutes[row.Name]
		r.once(twice)
		g.ProviderRoutes[row.Name] = row.Route
	}
	for range r.count(4) {
		x, err := DecodeGroup(r.bytes())
		if r.check(err); r.err == nil {
			r.once(g.Groups[x.Ref] != nil)
			g.Groups[x.Ref] = x
		}
	}
	for range r.count(4) {
		l, err := DecodeList(r.bytes())
		if r.check(err); r.err == nil {
			r.once(g.Lists[l.Ref] != nil)
			g.Lists[l.Ref] = l
		}
	}
	if r.err == nil && len(r.left) > 0 {
		r.fail("%d bytes behind the last row", len(r.left))
	}
	if r.err != nil {
		return nil, r.err
	}
	return g, nil
}

func appendRows[T any](b []byte, rows []T, one func([]byte, T) []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(rows)))
	for _, r := range rows {
		b = one(b, r)
	}
	return b
}

func appendAddr(b []byte, a netip.Addr) []byte {
	switch {
	case !a.IsValid():
		return append(b, 0)
	case a.Is4():
		raw := a.As4()
		return append(append(b, 4), raw[:]...)
	}
	raw := a.As16()
	return append(append(b, 16), raw[:]...)
}

func appendPrefix(b []byte, p netip.Prefix) []byte {
	return append(appendAddr(b, p.Addr()), byte(p.Bits()))
}

func appendText(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...)
}

func appendBytes(b, more []byte) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(more))), more...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

func appendTrust(b []byte, t Trust) []byte {
	var bits byte
	for i, may := range [4]bool{t.Forward, t.DHCP, t.Router, t.Allowed} {
		if may {
			bits |= 1 << i
		}
	}
	return append(b, bits)
}

func appendRecord(b []byte, r RecordRow) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(r.Key.VSID))
	b = appendAddr(b, r.Key.CA)
	b = append(b, r.Record.MAC[:]...)
	b = appendAddr(b, r.Record.PA)
	b = binary.BigEndian.AppendUint32(b, uint32(r.Record.Port))
	b = appendBool(b, r.Record.Router)
	b = append(b, byte(r.Record.Transport))
	b = appendTrust(b, r.Record.Trust)
	b = appendAddr(b, r.Record.Rewrite)
	return binary.BigEndian.AppendUint32(b, uint32(r.Record.Isolation))
}

func appendSettings(b []byte, s Settings) []byte {
	b = binary.BigEndian.AppendUint16(b, s.VXLANPort)
	return append(appendBool(b, s.Pipe), s.DSCP)
}

func appendRoute(b []byte, r RouteRow) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(r.Key.Network))
	b = appendPrefix(b, r.Key.Prefix)
	b = binary.BigEndian.AppendUint32(b, uint32(r.Route.VSID))
	return appendAddr(b, r.Route.NextHop)
}

func appendPeer(b []byte, r PeerRow) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(r.Key.Network))
	b = appendAddr(b, r.Key.PA)
	return appendRows(b, r.Peer.List(), appendAddr)
}

func appendPort(b []byte, p Port) []byte {
	b = appendText(b, p.Ref.Tenant)
	b = appendText(b, p.Ref.Name)
	b = binary.BigEndian.AppendUint32(b, uint32(p.ID))
	b = binary.BigEndian.AppendUint32(b, uint32(p.VSID))
	b = binary.BigEndian.AppendUint32(b, uint32(p.Network))
	b = append(b, p.MAC[:]...)
	b = appendRows(b, p.CAs, appendAddr)
	b = appendRows(b, p.Prefixes, appendPrefix)
	b = appendAddr(b, p.Gateway4)
	b = appendAddr(b, p.Gateway6)
	b = appendAddr(b, p.PA)
	b = binary.BigEndian.AppendUint32(b, p.Learn)
	b = appendBool(b, p.Spoof)
	b = appendBool(b, p.Flood.L2)
	b = appendAddr(b, p.Flood.Group)
	b = binary.BigEndian.AppendUint32(b, p.Flood.Rate)
	b = appendBool(b, p.Forward)
	b = appendBool(b, p.External)
	b = appendBool(b, p.ClampMSS)
	b = appendBytes(b, p.Settings.Encode())
	return appendText(b, p.Interface)
}

// reader takes bytes off the front; after the first error it gives zeros.
type reader struct {
	left []byte
	err  error
}

func (r *reader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
	}
}

func (r *reader) check(err error) {
	if r.err == nil && err != nil {
		r.err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
}

func (r *reader) once(twice bool) {
	if twice {
		r.fail("a row stands twice")
	}
}

var zeros [16]byte

func (r *reader) take(n int) []byte {
	if r.err == nil && len(r.left) < n {
		r.fail("%d bytes where %d are needed", len(r.left), n)
	}
	if r.err != nil {
		return zeros[:min(n, len(zeros))]
	}
	b := r.left[:n]
	r.left = r.left[n:]
	return b
}

// count reads a number of rows of at least size bytes each: a count that the
// rest cannot hold is refused before anything is made.
func (r *reader) count(size int) int {
	n := uint64(r.u32())
	if n*uint64(size) > uint64(len(r.left)) {
		r.fail("%d rows announced in %d bytes", n, len(r.left))
		return 0
	}
	return int(n)
}

func (r *reader) u32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }

func (r *reader) text() string {
	n := int(binary.BigEndian.Uint16(r.take(2)))
	if r.err != nil || n > len(r.left) {
		r.fail("a name of %d bytes", n)
		return ""
	}
	return string(r.take(n))
}

func (r *reader) bytes() []byte {
	n := r.count(1)
	if r.err != nil {
		return nil
	}
	return r.take(n)
}

func (r *reader) u16() uint16 { return binary.BigEndian.Uint16(r.take(2)) }

func (r *reader) settings() Settings {
	return Settings{VXLANPort: r.u16(), Pipe: r.bool(), DSCP: r.take(1)[0]}
}

func (r *reader) mac() model.MAC { return model.MAC(r.take(6)) }

func (r *reader) bool() bool {
	b := r.take(1)[0]
	if b > 1 {
		r.fail("a truth value of %d", b)
	}
	return b == 1
}

func (r *reader) addr() netip.Addr {
	switch n := r.take(1)[0]; n {
	case 0:
		return netip.Addr{}
	case 4:
		return netip.AddrFrom4([4]byte(r.take(4)))
	case 16:
		return netip.AddrFrom16([16]byte(r.take(16)))
	default:
		r.fail("an address of %d bytes", n)
		return netip.Addr{}
	}
}

func (r *reader) prefix() netip.Prefix { return netip.PrefixFrom(r.addr(), int(r.take(1)[0])) }

func (r *reader) trust() Trust {
	bits := r.take(1)[0]
	if bits > 15 {
		r.fail("trust %d", bits)
	}
	return Trust{Forward: bits&1 != 0, DHCP: bits&2 != 0, Router: bits&4 != 0, Allowed: bits&8 != 0}
}

func (r *reader) record() RecordRow {
	return RecordRow{
		Key: RecordKey{VSID: model.VSID(r.u32()), CA: r.addr()},
		Record: Record{MAC: r.mac(), PA: r.addr(), Port: model.PortID(r.u32()), Router: r.bool(),
			Transport: model.TransportID(r.take(1)[0]), Trust: r.trust(), Rewrite: r.addr(), Isolation: model.IsolationID(r.u32())},
	}
}

func (r *reader) route() RouteRow {
	return RouteRow{
		Key:   RouteKey{Network: model.NetworkIndex(r.u32()), Prefix: r.prefix()},
		Route: Route{VSID: model.VSID(r.u32()), NextHop: r.addr()},
	}
}

func (r *reader) peer() PeerRow {
	row := PeerRow{Key: PeerKey{Network: model.NetworkIndex(r.u32()), PA: r.addr()}}
	n := r.count(1)
	if n > len(row.Peer.PAs) {
		r.fail("%d addresses of one peer", n)
		return row
	}
	for i := range n {
		row.Peer.PAs[i] = r.addr()
	}
	return row
}

func (r *reader) port() Port {
	p := Port{Ref: model.Ref{Tenant: r.text(), Name: r.text()}, ID: model.PortID(r.u32()),
		VSID: model.VSID(r.u32()), Network: model.NetworkIndex(r.u32()), MAC: r.mac()}
	for range r.count(1) {
		p.CAs = append(p.CAs, r.addr())
	}
	for range r.count(2) {
		p.Prefixes = append(p.Prefixes, r.prefix())
	}
	p.Gateway4, p.Gateway6, p.PA = r.addr(), r.addr(), r.addr()
	p.Learn = r.u32()
	p.Spoof = r.bool()
	p.Flood = Flood{L2: r.bool(), Group: r.addr(), Rate: r.u32()}
	p.Forward, p.External, p.ClampMSS = r.bool(), r.bool(), r.bool()
	settings, err := DecodePortSettings(r.bytes())
	r.check(err)
	p.Settings = settings
	p.Interface = r.text()
	return p
}
