package datapath

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cilium/ebpf"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

const (
	progVLANGuest  = "vlan_guest"
	progVLANUplink = "vlan_uplink"
)

type vlanPortRow struct {
	Port            portRow
	Uplink, Storm   uint32
	Native, Trunk   uint16
	Held            uint32
	Sends, Receives table.VLANs
}

type vlanMemberRow struct {
	Uplink, N uint32
	IfIndex   [table.MaxVLANMembers]uint32
}

func (x *ruleStore) encodeVLANPort(p table.VLANPort, slot uint32) vlanPortRow {
	return vlanPortRow{Port: x.encodePort(p.Port, slot), Uplink: p.Uplink, Storm: p.StormRate, Native: p.Native,
		Trunk: flag[uint16](p.Trunk, 1), Held: flag[uint32](p.Held, 1), Sends: p.Sends, Receives: p.Receives}
}

func decodeVLANPort(r vlanPortRow) table.VLANPort {
	return table.VLANPort{Port: decodePort(r.Port), Uplink: r.Uplink, Trunk: r.Trunk != 0, Held: r.Held != 0, Native: r.Native,
		StormRate: r.Storm, Sends: r.Sends, Receives: r.Receives}
}

// vlanMembers are the devices behind each external interface, in order.
func vlanMembers(ports map[uint32]table.VLANPort) map[uint32][]uint32 {
	out := map[uint32][]uint32{}
	for ifindex, p := range ports {
		out[p.Uplink] = append(out[p.Uplink], ifindex)
	}
	for _, all := range out {
		slices.Sort(all)
	}
	return out
}

// vlanMACs are the rows of vlan_mac that ports give; of two ports with the same MAC, which policy
// forbids, the one with the lower ifindex counts.
func vlanMACs(ports map[uint32]table.VLANPort) map[localMACKey]uint32 {
	out := map[localMACKey]uint32{}
	for ifindex, p := range ports {
		k := localMACKey{VSID: p.Uplink, MAC: p.MAC}
		if other, ok := out[k]; !ok || ifindex < other {
			out[k] = ifindex
		}
	}
	return out
}

func checkVLANPorts(s table.Set) error {
	for uplink, all := range vlanMembers(s.VLANPorts) {
		if len(all) > table.MaxVLANMembers {
			return &ErrFull{Table: fmt.Sprintf("ports on external interface %d", uplink), Need: len(all), Limit: table.MaxVLANMembers}
		}
	}
	return nil
}

// putVLANPorts writes the rows of ports and, when any has changed, all that is made from them.
func (s *Switch) putVLANPorts(want map[uint32]table.VLANPort, d *delta) []error {
	if len(d.putVLANPorts)+len(d.delVLANPorts) == 0 {
		return nil
	}
	var errs []error
	for _, ifindex := range d.putVLANPorts {
		if err := s.putVLANPort(ifindex, want[ifindex]); err != nil {
			errs = append(errs, fmt.Errorf("port of device %d: %w", ifindex, err))
		}
	}
	gone := map[model.PortID]bool{}
	for _, ifindex := range d.delVLANPorts {
		gone[s.have.VLANPorts[ifindex].ID] = true
		if err := ignoreMissing(s.maps["vlan_port"].Delete(ifindex)); err != nil {
			errs = append(errs, fmt.Errorf("port of device %d: %w", ifindex, err))
			continue
		}
		delete(s.have.VLANPorts, ifindex)
		if _, other := s.have.Ports[ifindex]; !other {
			s.free = append(s.free, s.slots[ifindex])
			delete(s.slots, ifindex)
		}
	}
	for p := range maps.Values(s.have.VLANPorts) { // it may only have changed its device
		delete(gone, p.ID)
	}
	if len(gone) > 0 {
		errs = append(errs, s.forgetDrops(gone))
	}
	return append(errs, s.syncVLANs())
}

func (s *Switch) putVLANPort(ifindex uint32, p table.VLANPort) error {
	old, had := s.have.VLANPorts[ifindex]
	kept, err := s.withRules(p.Port, old.Port, had)
	if err != nil {
		return err
	}
	p.Port = kept
	slot, err := s.slot(ifindex, p.ID)
	if err != nil {
		return err
	}
	if err := s.maps["vlan_port"].Put(ifindex, s.rules.encodeVLANPort(p, slot)); err != nil {
		return err
	}
	s.have.VLANPorts[ifindex] = p
	return nil
}

// syncVLANs makes vlan_mac and vlan_member what the ports say.
func (s *Switch) syncVLANs() error {
	macs, members := vlanMACs(s.have.VLANPorts), map[uint32]vlanMemberRow{}
	for uplink, all := range vlanMembers(s.have.VLANPorts) {
		row := vlanMemberRow{Uplink: uplink}
		row.N = uint32(copy(row.IfIndex[:], all))
		members[uplink] = row
	}
	return errors.Join(syncRows(s.maps["vlan_mac"], macs), syncRows(s.maps["vlan_member"], members))
}

// syncRows makes a map hold want, and nothing else.
func syncRows[K, V comparable](m *ebpf.Map, want map[K]V) error {
	var errs []error
	left := maps.Clone(want)
	var gone []K
	err := walk(m, func(k K, v V) error {
		w, ok := want[k]
		if !ok {
			gone = append(gone, k)
		}
		if ok && w == v {
			delete(left, k)
		}
		return nil
	})
	errs = append(errs, err)
	for _, k := range gone {
		errs = append(errs, ignoreMissing(m.Delete(k)))
	}
	for k, v := range left {
		errs = append(errs, m.Put(k, v))
	}
	return errors.Join(errs...)
}

// AttachVLANPort puts the VLAN switch on the device of a port; repeating it is harmless.
func (s *Switch) AttachVLANPort(ifindex uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(
		s.attach(linkName{progToPort, ifindex}, ebpf.AttachTCXEgress),
		s.attach(linkName{progVLANGuest, ifindex}, ebpf.AttachTCXIngress),
		s.detach(linkName{progFromPort, ifindex}),
	)
}

// AttachVLANUplink puts the VLAN switch on an external interface; repeating it is harmless.
func (s *Switch) AttachVLANUplink(ifindex uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.attach(linkName{progVLANUplink, ifindex}, ebpf.AttachTCXIngress)
}

// DetachVLANUplink undoes AttachVLANUplink.
func (s *Switch) DetachVLANUplink(ifindex uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.detach(linkName{progVLANUplink, ifindex})
}

// AttachedVLANs lists the ports and external interfaces that the VLAN switch is on, sorted.
func (s *Switch) AttachedVLANs() (ports, uplinks []uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.links {
		switch n.program {
		case progVLANGuest:
			ports = append(ports, n.ifindex)
		case progVLANUplink:
			uplinks = append(uplinks, n.ifindex)
		}
	}
	slices.Sort(ports)
	slices.Sort(uplinks)
	return ports, uplinks
}
