package datapath

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// Apply makes the maps equal to want. It refuses with *ErrFull before writing
// anything if a table would not fit. Errors of single rows are joined; the other
// rows are still written, and the next Apply tries again. With sweep false nothing
// is deleted. What is referred to is written first and deleted last.
func (s *Switch) Apply(want table.Set, sweep bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := diff(s.have, want, sweep)
	if err := s.fits(want, d, sweep); err != nil {
		return err
	}
	if len(want.Floods) > 0 && len(s.have.Floods) == 0 {
		if err := s.readyToFlood(); err != nil {
			return err
		}
	}
	return s.turning(func() error { return s.write(want, d, sweep) })
}

// write makes the maps equal to want, which differs from them by d.
func (s *Switch) write(want table.Set, d *delta, sweep bool) error {
	lost, err := s.disown(want, sweep)
	if err != nil {
		return err
	}
	if err := s.dropConnections(want, sweep); err != nil {
		return err
	}
	errs := s.syncStale()
	if sweep {
		// Only what must make room goes first: the rest goes after what replaces it.
		errs = append(errs, s.makeRoom(d)...)
	}
	errs = append(errs, s.putSettings(want.Settings))
	errs = append(errs, s.putLocalPAs(d.putPAs)...)
	errs = append(errs, s.putForwarders(want, d.putForwarders)...)
	errs = append(errs, s.putAllowed(d.putAllowed)...)
	errs = append(errs, s.putIsolations(want, d.putIsolations)...)
	errs = append(errs, s.putPaths(want, d)...)
	errs = append(errs, s.putSources(d.putSources)...)
	s.forgetSources(d.delSources)
	errs = append(errs, s.putPeers(want, d.putPeers)...)
	errs = append(errs, s.putRecords(want, d.putRecords)...)
	errs = append(errs, s.deleteSources(d.delSources)...) // after records that a host is named otherwise in
	errs = append(errs, s.putRewrites(want, d)...)
	errs = append(errs, s.putRoutes(want, d.putRoutes)...)
	errs = append(errs, s.putFloods(want, d, sweep)...)
	errs = append(errs, s.putRuleSets(want, d)...)
	errs = append(errs, s.putPorts(want, d.putPorts)...)
	errs = append(errs, s.putVLANPorts(want.VLANPorts, d)...)
	errs = append(errs, s.putShapes(want, d.putShapes)...)
	errs = append(errs, s.putShares(want, d.putShares)...)
	errs = append(errs, s.putConnections())
	errs = append(errs, s.putMirrors(want, d)...)
	if sweep {
		errs = append(errs, s.deleteMirrors(d)...)
		errs = append(errs, s.deleteShapes(d.delShapes)...)
		errs = append(errs, s.deleteShares(d.delShares)...)
		errs = append(errs, s.deletePorts(d.delPorts)...)
		errs = append(errs, s.deleteFloods(d.delFloods)...)
		errs = append(errs, s.deleteRoutes(d.delRoutes)...)
		errs = append(errs, s.deleteRewrites(d)...)
		errs = append(errs, s.deleteRecords(d.delRecords)...)
		errs = append(errs, s.deletePeers(d.delPeers)...)
		errs = append(errs, s.deleteForwarders(d.delForwarders)...)
		errs = append(errs, s.deleteAllowed(d.delAllowed)...)
		errs = append(errs, s.deleteIsolations(d.delIsolations)...)
		errs = append(errs, s.deleteLocalPAs(d.delPAs)...)
	}
	errs = append(errs, s.forgetRuleSets()...)
	if lost || len(d.putPorts) > 0 || slices.ContainsFunc(d.putRecords, func(e recordEntry) bool { return e.value.IfIndex != 0 }) {
		errs = append(errs, s.ownUp(s.localRecords()))
	}
	if s.behind {
		errs = append(errs, s.commit())
	}
	return errors.Join(errs...)
}

// delta is what separates the maps from a Set.
type delta struct {
	putPorts, delPorts []uint32

	putVLANPorts, delVLANPorts []uint32

	putRecords             []recordEntry
	delRecords             []table.RecordKey
	putRoutes, delRoutes   []table.RouteKey
	putPeers, delPeers     []netip.Addr
	putPAs, delPAs         []netip.Addr
	putPaths, delPaths     []table.PathKey
	putSources, delSources []table.Source
	putMembers, delMembers []table.Member
	delFloods              []model.VSID

	putAllowed, delAllowed       []table.Allowed
	putForwarders, delForwarders []table.Forwarder
	putIsolations, delIsolations []table.MACKey
	putOut, delOut               []table.RecordKey // rewrites
	putIn, delIn                 []netip.Addr
	putShapes, delShapes         []table.ShapeKey
	putShares, delShares         []uint32
	putMirrors, delMirrors       []table.MirrorKey
	putFrom, delFrom             []table.MirrorSource
}

func diff(have, want table.Set, sweep bool) *delta {
	d := &delta{}
	d.putPorts, d.delPorts = diffRows(have.Ports, want.Ports, sweep)
	d.putVLANPorts, d.delVLANPorts = diffRows(have.VLANPorts, want.VLANPorts, sweep)
	d.putRecords, d.delRecords = diffEntries(have.Records, want.Records, sweep)
	d.putRoutes, d.delRoutes = diffRows(have.Routes, want.Routes, sweep)
	d.putPeers, d.delPeers = diffRows(have.Peers, want.Peers, sweep)
	d.putPAs, d.delPAs = diffRows(have.LocalPAs, want.LocalPAs, sweep)
	d.diffPaths(have, want, sweep)
	d.putMembers, d.delMembers = diffRows(have.Members, want.Members, sweep)
	_, d.delFloods = diffRows(have.Floods, want.Floods, sweep)
	d.putAllowed, d.delAllowed = diffRows(have.Allowed, want.Allowed, sweep)
	d.putForwarders, d.delForwarders = diffRows(have.Forwarders, want.Forwarders, sweep)
	d.putIsolations, d.delIsolations = diffRows(have.Isolations, want.Isolations, sweep)
	d.putOut, d.delOut = diffRows(have.RewriteOut, want.RewriteOut, sweep)
	d.putIn, d.delIn = diffRows(have.RewriteIn, want.RewriteIn, sweep)
	d.putShapes, d.delShapes = diffRows(have.Shapes, want.Shapes, sweep)
	d.putShares, d.delShares = diffRows(have.Shares, want.Shares, sweep)
	d.putMirrors, d.delMirrors = diffRows(have.Mirrors, want.Mirrors, sweep)
	d.putFrom, d.delFrom = diffRows(have.MirrorSources, want.MirrorSources, sweep)
	return d
}

// entry is a row with its key.
type entry[K, V any] struct {
	key   K
	value V
}

type recordEntry = entry[table.RecordKey, table.Record]

// diffRows lists the keys to write, and with sweep those to delete.
func diffRows[K, V comparable](have, want map[K]V, sweep bool) (put, del []K) {
	entries, del := diffEntries(have, want, sweep)
	for _, e := range entries {
		put = append(put, e.key)
	}
	return put, del
}

// diffEntries is diffRows with the rows: of a million of them, none is looked up again.
func diffEntries[K, V comparable](have, want map[K]V, sweep bool) (put []entry[K, V], del []K) {
	put = slices.Grow(put, max(0, len(want)-len(have)))
	kept := 0
	for k, v := range want {
		old, ok := have[k]
		if ok {
			kept++
		}
		if !ok || old != v {
			put = append(put, entry[K, V]{k, v})
		}
	}
	if !sweep || kept == len(have) {
		return put, nil
	}
	for k := range have {
		if _, ok := want[k]; !ok {
			del = append(del, k)
		}
	}
	return put, del
}

// fits refuses a Set that a table has no room for.
func (s *Switch) fits(want table.Set, d *delta, sweep bool) error {
	if err := errors.Join(checkFloods(want), checkVLANPorts(want)); err != nil {
		return err
	}
	for _, t := range []struct {
		name  string
		need  int
		limit uint32
	}{
		{"ports", after(s.have.Ports, want.Ports, d.putPorts, sweep) + max(len(s.have.VLANPorts), len(want.VLANPorts)), s.opts.MaxPorts},
		{"records", recordsAfter(s.have.Records, want.Records, d.putRecords, sweep), s.opts.MaxRecords},
		{"routes", after(s.have.Routes, want.Routes, d.putRoutes, sweep), s.opts.MaxRoutes},
		{"subnets that flood", max(len(s.have.Floods), len(want.Floods)), s.opts.MaxPorts},
		{"peers", s.peersAfter(want, d, sweep), s.opts.MaxPeers},
		{"peers with several ways", s.blocksAfter(want, sweep), s.maxBlocks()},
		{"outer sources", len(s.have.Sources) + len(d.putSources), s.maxSources()},
		{"allowed sources", after(s.have.Allowed, want.Allowed, d.putAllowed, sweep), maxAllowed},
		{"isolations", after(s.have.Isolations, want.Isolations, d.putIsolations, sweep), s.opts.MaxRecords},
		{"rewrites of Customer Addresses", after(s.have.RewriteOut, want.RewriteOut, d.putOut, sweep), s.opts.MaxRecords},
		{"rewrites of Provider Addresses", after(s.have.RewriteIn, want.RewriteIn, d.putIn, sweep), s.opts.MaxRecords},
	} {
		if t.need > int(t.limit) {
			return &ErrFull{Table: t.name, Need: t.need, Limit: int(t.limit)}
		}
	}
	if n := after(s.have.Forwarders, want.Forwarders, d.putForwarders, sweep); n > maxForwarders {
		return fmt.Errorf("forwarders: %d rows do not fit into %d, two for each host with guests that forward or have no guards, and each such guest of a network", n, maxForwarders)
	}
	if n := after(s.have.LocalPAs, want.LocalPAs, d.putPAs, sweep); n > maxLocalPAs {
		return fmt.Errorf("local provider addresses: %d are more than the %d that a host can have", n, maxLocalPAs)
	}
	return nil
}

// after counts the rows that a table will have.
func after[K, V comparable](have, want map[K]V, put []K, sweep bool) int {
	if sweep {
		return len(want)
	}
	n := len(have)
	for _, k := range put {
		if _, ok := have[k]; !ok {
			n++
		}
	}
	return n
}

func recordsAfter(have, want map[table.RecordKey]table.Record, put []recordEntry, sweep bool) int {
	if sweep {
		return len(want)
	}
	n := len(have)
	for _, e := range put {
		if _, ok := have[e.key]; !ok {
			n++
		}
	}
	return n
}

// peersAfter counts the Provider Addresses that need an index.
func (s *Switch) peersAfter(want table.Set, d *delta, sweep bool) int {
	fresh := map[netip.Addr]bool{}
	note := func(pa netip.Addr) {
		if _, ok := s.peers.of[pa]; !ok && pa.IsValid() {
			fresh[pa] = true
		}
	}
	for _, pa := range d.putPeers {
		note(pa)
	}
	var last netip.Addr
	for i := range d.putRecords {
		if pa := d.putRecords[i].value.PA; pa != last {
			note(pa)
			last = pa
		}
	}
	for _, m := range d.putMembers {
		note(m.PA)
	}
	for _, f := range want.Floods {
		note(f.Group)
	}
	n := len(s.peers.of) + len(fresh)
	if !sweep || n <= int(s.opts.MaxPeers) {
		return n
	}
	all := map[netip.Addr]bool{} // it is tight: count exactly what remains
	for pa := range want.Peers {
		all[pa] = true
	}
	for _, r := range want.Records {
		if r.PA.IsValid() {
			all[r.PA] = true
		}
	}
	for m := range want.Members {
		if m.PA.IsValid() {
			all[m.PA] = true
		}
	}
	for _, f := range want.Floods {
		if f.Group.IsValid() {
			all[f.Group] = true
		}
	}
	return len(all)
}

// makeRoom deletes stale rows of tables that could not hold old and new at once.
func (s *Switch) makeRoom(d *delta) []error {
	var errs []error
	if len(s.have.Ports)+len(d.putPorts) > int(s.opts.MaxPorts) {
		errs = append(errs, s.deletePorts(d.delPorts)...)
		d.delPorts = nil
	}
	if len(s.have.Routes)+len(d.putRoutes) > int(s.opts.MaxRoutes) {
		errs = append(errs, s.deleteRoutes(d.delRoutes)...)
		d.delRoutes = nil
	}
	tight := len(d.putPeers)+len(d.putRecords) > len(s.peers.free)
	if tight || len(s.have.Records)+len(d.putRecords) > int(s.opts.MaxRecords) {
		errs = append(errs, s.deleteRecords(d.delRecords)...)
		d.delRecords = nil
	}
	if tight {
		errs = append(errs, s.deleteFloods(d.delFloods)...)
		d.delFloods = nil
		errs = append(errs, s.deletePeers(d.delPeers)...)
		d.delPeers = nil
	}
	if len(s.have.Allowed)+len(d.putAllowed) > maxAllowed {
		errs = append(errs, s.deleteAllowed(d.delAllowed)...)
		d.delAllowed = nil
	}
	if len(s.have.Forwarders)+len(d.putForwarders) > maxForwarders {
		errs = append(errs, s.deleteForwarders(d.delForwarders)...)
		d.delForwarders = nil
	}
	if len(s.have.Isolations)+len(d.putIsolations) > int(s.opts.MaxRecords) {
		errs = append(errs, s.deleteIsolations(d.delIsolations)...)
		d.delIsolations = nil
	}
	errs = append(errs, s.makeRewriteRoom(d)...)
	if len(s.have.LocalPAs)+len(d.putPAs) > maxLocalPAs {
		errs = append(errs, s.deleteLocalPAs(d.delPAs)...)
		d.delPAs = nil
	}
	return errs
}

func (s *Switch) putSettings(want table.Settings) error {
	if want == s.have.Settings {
		return nil
	}
	if err := s.maps["setting"].Put(uint32(0), encodeSettings(want)); err != nil {
		return fmt.Errorf("settings: %w", err)
	}
	s.have.Settings = want
	return nil
}

// putRows writes rows that depend on no other table, and notes in have what the map then holds. name is
// what people are told where a row cannot be written.
func putRows[K comparable, V any](have, want map[K]V, keys []K, name func(K) string, put func(K, V) error) []error {
	var errs []error
	for _, k := range keys {
		v := want[k]
		if err := put(k, v); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name(k), err))
			continue
		}
		have[k] = v
	}
	return errs
}

// deleteRows undoes putRows; a row that is not there is no error.
func deleteRows[K comparable, V any](have map[K]V, keys []K, name func(K) string, del func(K) error) []error {
	var errs []error
	for _, k := range keys {
		if err := ignoreMissing(del(k)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name(k), err))
			continue
		}
		delete(have, k)
	}
	return errs
}

func nameLocalPA(pa netip.Addr) string { return fmt.Sprintf("local provider address %s", pa) }

func (s *Switch) putLocalPAs(keys []netip.Addr) []error {
	errs := putRows(s.have.LocalPAs, nil, keys, nameLocalPA, func(pa netip.Addr, _ struct{}) error {
		return s.maps["local_pa"].Put(addr16(pa), uint32(1))
	})
	return append(errs, s.chooseFirstPAs())
}

func (s *Switch) deleteLocalPAs(keys []netip.Addr) []error {
	errs := deleteRows(s.have.LocalPAs, keys, nameLocalPA, func(pa netip.Addr) error { return s.maps["local_pa"].Delete(addr16(pa)) })
	return append(errs, s.chooseFirstPAs())
}

// chooseFirstPAs makes first_pa the lowest local PA of each family.
func (s *Switch) chooseFirstPAs() error {
	var first [2]netip.Addr
	for pa := range s.have.LocalPAs {
		if f := &first[family(pa)]; !f.IsValid() || pa.Less(*f) {
			*f = pa
		}
	}
	var errs []error
	for i, pa := range first {
		if err := s.maps["first_pa"].Put(uint32(i), addr16(pa)); err != nil {
			errs = append(errs, fmt.Errorf("first provider address %s: %w", pa, err))
		}
	}
	return errors.Join(errs...)
}

func nameForwarder(k table.Forwarder) string {
	return fmt.Sprintf("forwarder %s of network %d", k.PA, k.Network)
}

func (s *Switch) putForwarders(want table.Set, keys []table.Forwarder) []error {
	return putRows(s.have.Forwarders, want.Forwarders, keys, nameForwarder, func(k table.Forwarder, t table.Trust) error {
		return s.maps["forwarder"].Put(encodeForwarder(k), encodeTrust(t))
	})
}

func (s *Switch) deleteForwarders(keys []table.Forwarder) []error {
	return deleteRows(s.have.Forwarders, keys, nameForwarder, func(k table.Forwarder) error { return s.maps["forwarder"].Delete(encodeForwarder(k)) })
}

func (s *Switch) putPeers(want table.Set, keys []netip.Addr) []error {
	var errs []error
	for _, pa := range keys {
		p := want.Peers[pa]
		if err := s.putPeer(pa, &p); err != nil {
			errs = append(errs, err)
			continue
		}
		if _, ok := s.have.Peers[pa]; !ok {
			s.peers.hold(pa)
		}
		s.have.Peers[pa] = p
	}
	return errs
}

func (s *Switch) putPeer(pa netip.Addr, p *table.Peer) error {
	idx, _, err := s.peers.index(pa)
	if err == nil {
		row := encodePeer(pa, p)
		if p != nil {
			row.setWays(s.waysOf(pa))
		}
		err = s.maps["peer"].Put(idx, row)
	}
	if err != nil {
		return fmt.Errorf("peer %s: %w", pa, err)
	}
	s.settlePaths(pa)
	return nil
}

// deletePeers takes the way to peers away; the indices that no record uses go free.
func (s *Switch) deletePeers(keys []netip.Addr) []error {
	var errs []error
	for _, pa := range keys {
		if err := s.putPeer(pa, nil); err != nil {
			errs = append(errs, err)
			continue
		}
		delete(s.have.Peers, pa)
		s.peers.drop(pa)
	}
	for _, pa := range s.peers.unused() {
		if err := s.maps["peer"].Put(s.peers.of[pa], peerRow{}); err != nil {
			errs = append(errs, fmt.Errorf("peer %s: %w", pa, err))
			continue
		}
		s.peers.release(pa)
	}
	return errs
}

// putRecords takes care with time: a host starts with up to a million of them.
func (s *Switch) putRecords(want table.Set, put []recordEntry) []error {
	var errs []error
	placed := put[:0]
	var last netip.Addr
	for i := range put {
		e := &put[i]
		if pa := e.value.PA; i == 0 || pa != last {
			if _, err := s.recordPeer(pa); err != nil {
				errs = append(errs, fmt.Errorf("record %s in subnet %s: %w", e.key.CA, e.key.VSID, err))
				continue
			}
			last = pa
		}
		placed = append(placed, *e)
	}
	known := make(chan map[table.RecordKey]table.Record, 1)
	whole := len(s.have.Records) == 0 && len(placed) == len(want.Records)
	if whole { // while the kernel works
		go func() { known <- maps.Clone(want.Records) }()
	}
	failed := putAll(s.maps["record"], len(placed), func(i int) (recordKey, recordRow) {
		e := &placed[i]
		return encodeRecordKey(e.key), encodeRecord(e.value, s.peers.of[e.value.PA])
	}, func(i int) string {
		return fmt.Sprintf("record %s in subnet %s", placed[i].key.CA, placed[i].key.VSID)
	})
	bad := map[int]bool{}
	for _, f := range failed {
		bad[f.i] = true
		errs = append(errs, f.err)
	}
	for i := range placed {
		e := &placed[i]
		if bad[i] {
			continue
		}
		s.peers.hold(e.value.PA)
		if !whole {
			s.peers.drop(s.have.Records[e.key].PA)
			s.have.Records[e.key] = e.value
		}
	}
	if whole {
		s.have.Records = <-known
		for i := range bad {
			delete(s.have.Records, placed[i].key)
		}
	}
	return errs
}

// recordPeer gives a record's PA its index, and an index its row: a PA without a
// Peer has no way to it, but its records still prove where a source lives.
func (s *Switch) recordPeer(pa netip.Addr) (uint32, error) {
	if pa.Is4In6() {
		return 0, fmt.Errorf("provider address %s is IPv4 inside IPv6", pa)
	}
	idx, fresh, err := s.peers.index(pa)
	if err != nil || !fresh {
		return idx, err
	}
	return idx, s.maps["peer"].Put(idx, encodePeer(pa, nil))
}

func (s *Switch) deleteRecords(keys []table.RecordKey) []error {
	var errs []error
	for _, k := range keys {
		if err := ignoreMissing(s.maps["record"].Delete(encodeRecordKey(k))); err != nil {
			errs = append(errs, fmt.Errorf("record %s in subnet %s: %w", k.CA, k.VSID, err))
			continue
		}
		s.peers.drop(s.have.Records[k].PA)
		delete(s.have.Records, k)
	}
	return errs
}

func nameRoute(k table.RouteKey) string {
	return fmt.Sprintf("route %s of network %d", k.Prefix, k.Network)
}

func (s *Switch) putRoutes(want table.Set, keys []table.RouteKey) []error {
	return putRows(s.have.Routes, want.Routes, keys, nameRoute, func(k table.RouteKey, r table.Route) error {
		if !k.Prefix.IsValid() || k.Prefix != k.Prefix.Masked() {
			return errors.New("prefix has host bits")
		}
		key, row := encodeRoute(k, r)
		return s.maps["route"].Put(key, row)
	})
}

func (s *Switch) deleteRoutes(keys []table.RouteKey) []error {
	return deleteRows(s.have.Routes, keys, nameRoute, func(k table.RouteKey) error { return s.maps["route"].Delete(encodeRouteKey(k)) })
}

func (s *Switch) putPorts(want table.Set, keys []uint32) []error {
	var errs []error
	for _, ifindex := range keys {
		if err := s.putPort(ifindex, want.Ports[ifindex]); err != nil {
			errs = append(errs, fmt.Errorf("port %d on device %d: %w", want.Ports[ifindex].ID, ifindex, err))
		}
	}
	return errs
}

func (s *Switch) putPort(ifindex uint32, p table.Port) error {
	if p.IfIndex != ifindex {
		return fmt.Errorf("the row says device %d", p.IfIndex)
	}
	old, had := s.have.Ports[ifindex]
	p, err := s.withRules(p, old, had)
	if err != nil {
		return err
	}
	slot, err := s.slot(ifindex, p.ID)
	if err != nil {
		return err
	}
	if err := errors.Join(s.putStorm(slot, p), s.putLimit(slot, p)); err != nil {
		return err
	}
	if err := s.maps["port"].Put(ifindex, s.rules.encodePort(p, slot)); err != nil {
		return err
	}
	s.have.Ports[ifindex] = p
	err = s.syncLocalMAC(localMACKey{VSID: uint32(p.VSID), MAC: p.MAC})
	if had && (old.VSID != p.VSID || old.MAC != p.MAC) {
		err = errors.Join(err, s.syncLocalMAC(localMACKey{VSID: uint32(old.VSID), MAC: old.MAC}))
	}
	return err
}

// syncStale repeats what an earlier Apply could not write into local_mac: no
// difference of the ports tells of it.
func (s *Switch) syncStale() []error {
	var errs []error
	for _, k := range slices.Collect(maps.Keys(s.stale)) {
		if err := s.syncLocalMAC(k); err != nil {
			errs = append(errs, fmt.Errorf("%s in subnet %d: %w", k.MAC, k.VSID, err))
		}
	}
	return errs
}

// slot gives the device's port its counters, zero when another port had them.
func (s *Switch) slot(ifindex uint32, id model.PortID) (uint32, error) {
	slot, ok := s.slots[ifindex]
	if ok && (s.have.Ports[ifindex].ID == id || s.have.VLANPorts[ifindex].ID == id) {
		return slot, nil
	}
	if !ok {
		if len(s.free) == 0 {
			return 0, errors.New("no traffic counter is left")
		}
		slot = s.free[len(s.free)-1]
	}
	if err := s.maps["traffic"].Put(slot, make([]trafficRow, ebpf.MustPossibleCPU())); err != nil {
		return 0, fmt.Errorf("clear counters: %w", err)
	}
	if err := s.maps["flow_pace"].Put(slot, flowPaceRow{}); err != nil {
		return 0, fmt.Errorf("clear the pace of flows: %w", err)
	}
	if !ok {
		s.free = s.free[:len(s.free)-1]
		s.slots[ifindex] = slot
	}
	return slot, nil
}

// syncLocalMAC makes the row of a MAC what the ports say, and remembers it when it
// cannot.
func (s *Switch) syncLocalMAC(k localMACKey) error {
	err := s.putLocalMAC(k)
	if err != nil {
		s.stale[k] = struct{}{}
		return err
	}
	delete(s.stale, k)
	return nil
}

func (s *Switch) putLocalMAC(k localMACKey) error {
	var best uint32 // ifindex
	for ifindex, p := range s.have.Ports {
		if uint32(p.VSID) == k.VSID && p.MAC == k.MAC && (best == 0 || ifindex < best) {
			best = ifindex
		}
	}
	if best == 0 {
		return ignoreMissing(s.maps["local_mac"].Delete(k))
	}
	return s.maps["local_mac"].Put(k, s.rules.encodePort(s.have.Ports[best], s.slots[best]))
}

func (s *Switch) deletePorts(keys []uint32) []error {
	if len(keys) == 0 {
		return nil
	}
	var errs []error
	gone := map[model.PortID]bool{}
	for _, ifindex := range keys {
		p := s.have.Ports[ifindex]
		if err := ignoreMissing(s.maps["port"].Delete(ifindex)); err != nil {
			errs = append(errs, fmt.Errorf("port %d on device %d: %w", p.ID, ifindex, err))
			continue
		}
		delete(s.have.Ports, ifindex)
		errs = append(errs, s.syncLocalMAC(localMACKey{VSID: uint32(p.VSID), MAC: p.MAC}))
		if _, other := s.have.VLANPorts[ifindex]; !other {
			s.free = append(s.free, s.slots[ifindex])
			delete(s.slots, ifindex)
		}
		gone[p.ID] = true
	}
	for p := range maps.Values(s.have.Ports) { // it may only have changed its device
		delete(gone, p.ID)
	}
	return append(errs, s.forgetDrops(gone))
}
