package datapath

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// held is what the maps hold: the rows, and the numbers given to them.
type held struct {
	set   table.Set
	slots map[uint32]uint32     // by ifindex
	peers map[netip.Addr]uint32 // by PA
	paths map[netip.Addr]uint32 // where further ways begin, by PA
	odd   []oddRow              // that make no sense, and are not in the set
	rules map[table.RuleSetKey]region
	sets  map[uint32]table.RuleSetKey // by block
}

// oddRow is a row that nothing sensible can be read from.
type oddRow struct {
	table string
	key   any
	why   error
}

// ReadBack reads the rows that the kernel holds. Rows that contradict each other
// are errors, next to all that could be read.
func (s *Switch) ReadBack() (table.Set, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, err := readSet(s.maps)
	if err != nil {
		return table.Set{}, err
	}
	held := ruleStore{regions: h.rules}
	odd, err := held.oddLocalMACs(s.maps["local_mac"], h.set.Ports, h.slots)
	for key, r := range h.rules {
		own := s.rules.regions[key]
		if own.proved && own.sum == r.sum {
			h.set.RuleSets[key] = s.have.RuleSets[key]
			continue
		}
		if !own.proved {
			continue // of an earlier process: Apply will look
		}
		err = errors.Join(err, fmt.Errorf("rule: the tables of set %x are not what it says", key[:4]))
	}
	for _, r := range append(h.odd, odd...) {
		err = errors.Join(err, r.why)
	}
	return h.set, err
}

func readSet(maps map[string]*ebpf.Map) (held, error) {
	h := held{set: table.NewSet(), slots: map[uint32]uint32{}, peers: map[netip.Addr]uint32{}, paths: map[netip.Addr]uint32{},
		rules: map[table.RuleSetKey]region{}, sets: map[uint32]table.RuleSetKey{}}
	pas, err := h.readPeers(maps["peer"], maps["path"])
	if err != nil {
		return h, err
	}
	err = errors.Join(
		readAll(maps["setting"], func(_ uint32, r settingRow) error {
			h.set.Settings = decodeSettings(r)
			return nil
		}),
		readAll(maps["port"], func(ifindex uint32, r portRow) error {
			var storm stormRow
			if err := maps["storm"].Lookup(r.Slot, &storm); err != nil {
				return fmt.Errorf("storm limit: %w", err)
			}
			var connections connPortRow
			if err := maps["conn_port"].Lookup(r.Slot, &connections); err != nil {
				return fmt.Errorf("limit of connections: %w", err)
			}
			p := decodePort(r)
			p.Inbound, p.Outbound = h.readRules(maps["rule"], r.Inbound), h.readRules(maps["rule"], r.Outbound)
			p.StormLimit, p.Connections = storm.Limit, connections.Limit
			h.set.Ports[ifindex] = p
			h.slots[ifindex] = r.Slot
			return nil
		}),
		readAll(maps["vlan_port"], func(ifindex uint32, r vlanPortRow) error {
			p := decodeVLANPort(r)
			p.Inbound, p.Outbound = h.readRules(maps["rule"], r.Port.Inbound), h.readRules(maps["rule"], r.Port.Outbound)
			h.set.VLANPorts[ifindex] = p
			h.slots[ifindex] = r.Port.Slot
			return nil
		}),
		readAll(maps["record"], func(k recordKey, r recordRow) error {
			pa, known := pas[r.Peer]
			if r.Peer != 0 && !known {
				h.odd = append(h.odd, oddRow{"record", k, fmt.Errorf("record %v: peer %d has no address", decodeRecordKey(k), r.Peer)})
				return nil
			}
			h.set.Records[decodeRecordKey(k)] = decodeRecord(r, pa)
			return nil
		}),
		walk(maps["route"], func(k routeKey, r routeRow) error {
			key, err := decodeRouteKey(k)
			if err != nil {
				h.odd = append(h.odd, oddRow{"route", k, err})
				return nil
			}
			h.set.Routes[key] = decodeRoute(r)
			return nil
		}),
		readAll(maps["group"], func(k groupKey, _ uint32) error {
			h.set.Groups[table.GroupMember{VSID: model.VSID(k.VSID), IfIndex: k.IfIndex, Group: model.From16(k.Group)}] = struct{}{}
			return nil
		}),
		readAll(maps["flood"], func(vsid uint32, r floodRow) error { return h.readFlood(vsid, r, pas) }),
		readAll(maps["source"], func(k sourceKey, _ uint32) error {
			pa, known := pas[k.Peer]
			if !known {
				h.odd = append(h.odd, oddRow{"source", k, fmt.Errorf("source %s: peer %d has no address", from16(k.PA), k.Peer)})
				return nil
			}
			h.set.Sources[table.Source{Peer: pa, PA: from16(k.PA)}] = struct{}{}
			return nil
		}),
		readAll(maps["rewrite_out"], func(k recordKey, pa [16]byte) error {
			h.set.RewriteOut[decodeRecordKey(k)] = model.From16(pa)
			return nil
		}),
		readAll(maps["rewrite_in"], func(pa [16]byte, r rewriteInRow) error {
			h.set.RewriteIn[model.From16(pa)] = decodeRewriteIn(r)
			return nil
		}),
		readAll(maps["mirror"], func(k mirrorKey, r mirrorRow) error {
			h.set.Mirrors[table.MirrorKey{IfIndex: k.IfIndex, N: uint8(k.N)}] = decodeMirror(r)
			return nil
		}),
		readAll(maps["mirror_from"], func(k mirrorFromKey, device uint32) error {
			h.set.MirrorSources[table.MirrorSource{Port: model.PortID(k.Port), PA: from16(k.PA)}] = device
			return nil
		}),
		readAll(maps["shape"], func(k shapeKey, r shapeRow) error {
			h.set.Shapes[table.ShapeKey{IfIndex: k.IfIndex, Inbound: Direction(k.Direction) == Inbound}] = decodeShape(r)
			return nil
		}),
		readAll(maps["share"], func(ifindex uint32, r shareRow) error {
			h.set.Shares[ifindex] = table.Share{Port: model.PortID(r.Port), Minimum: r.Minimum, Weight: r.Weight}
			return nil
		}),
		readAll(maps["local_pa"], func(k [16]byte, _ uint32) error {
			h.set.LocalPAs[model.From16(k)] = struct{}{}
			return nil
		}),
		readAll(maps["isolation"], func(k localMACKey, v uint32) error {
			h.set.Isolations[table.MACKey{VSID: model.VSID(k.VSID), MAC: k.MAC}] = model.IsolationID(v)
			return nil
		}),
		walk(maps["allowed"], func(k allowedKey, _ uint32) error {
			a, err := decodeAllowed(k)
			if err != nil {
				h.odd = append(h.odd, oddRow{"allowed", k, err})
				return nil
			}
			h.set.Allowed[a] = struct{}{}
			return nil
		}),
		readAll(maps["forwarder"], func(k forwarderKey, t uint32) error {
			h.set.Forwarders[decodeForwarder(k)] = decodeTrust(t)
			return nil
		}),
	)
	return h, err
}

// readRules finds the set that a port's row leads to. What leads nowhere is no set; the port's
// row is then one that Apply writes anew.
func (h *held) readRules(m *ebpf.Map, block uint32) table.RuleSetKey {
	key, known := h.sets[block]
	if block == 0 || known {
		return key
	}
	key, r, err := readRegion(m, block)
	if err != nil {
		key = table.RuleSetKey{}
	} else {
		h.rules[key] = r
	}
	h.sets[block] = key
	return key
}

// readPeers returns the address behind each index.
func (h *held) readPeers(m, path *ebpf.Map) (map[uint32]netip.Addr, error) {
	pas := map[uint32]netip.Addr{}
	err := readAll(m, func(i uint32, r peerRow) error {
		pa := from16(r.PA)
		if i == 0 || !pa.IsValid() {
			return nil
		}
		pas[i] = pa
		h.peers[pa] = i
		if r.Flags&peerPresent != 0 {
			h.set.Peers[pa] = decodePeer(r)
		}
		return h.readPaths(path, pa, r)
	})
	return pas, err
}

// oddLocalMACs compares local_mac with the ports that it is made from.
func (x *ruleStore) oddLocalMACs(m *ebpf.Map, ports map[uint32]table.Port, slots map[uint32]uint32) ([]oddRow, error) {
	var odd []oddRow
	want := x.localMACs(ports, slots)
	err := readAll(m, func(k localMACKey, r portRow) error {
		if want[k] != r {
			odd = append(odd, oddRow{"local_mac", k, fmt.Errorf("local_mac: row of %s in subnet %d is not that of its port", k.MAC, k.VSID)})
		}
		delete(want, k)
		return nil
	})
	for k := range want {
		odd = append(odd, oddRow{"local_mac", k, fmt.Errorf("local_mac: row of %s in subnet %d is missing", k.MAC, k.VSID)})
	}
	return odd, err
}

// mend deletes rows that make no sense, such as a former process leaves that died
// between two writes, and makes versions and local_mac what the ports say. It writes no policy:
// a row that Apply has to write again is not in the set.
func (s *Switch) mend(h held) error {
	var errs []error
	for _, r := range h.odd {
		s.log.Warn("deleting a row that makes no sense", "error", r.why)
		errs = append(errs, ignoreMissing(s.maps[r.table].Delete(r.key)))
	}
	for ifindex, p := range h.set.Ports {
		errs = append(errs, s.mendVersion(ifindex, p))
	}
	for ifindex, p := range h.set.VLANPorts {
		errs = append(errs, s.mendVLANVersion(ifindex, p))
	}
	odd, err := s.rules.oddLocalMACs(s.maps["local_mac"], h.set.Ports, h.slots)
	for _, r := range odd {
		s.log.Warn("mending a row", "error", r.why)
		errs = append(errs, s.syncLocalMAC(r.key.(localMACKey)))
	}
	return errors.Join(append(errs, err)...)
}

// localMACs are the rows of local_mac that ports give; of two ports with the same
// MAC in a subnet, which policy forbids, the one with the lower ifindex counts.
func (x *ruleStore) localMACs(ports map[uint32]table.Port, slots map[uint32]uint32) map[localMACKey]portRow {
	rows := make(map[localMACKey]portRow, len(ports))
	for ifindex, p := range ports {
		k := localMACKey{VSID: uint32(p.VSID), MAC: p.MAC}
		if other, ok := rows[k]; ok && other.IfIndex < ifindex {
			continue
		}
		rows[k] = x.encodePort(p, slots[ifindex])
	}
	return rows
}
