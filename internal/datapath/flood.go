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

// The programs that flood, in the order of bpf/maps/flood.h.
var floodPrograms = []string{"flood_port", "flood_uplink"}

// loadFlooding loads the programs that flood, unless they are there: few hosts need them, and
// the verifier walks them longer than most.
func (s *Switch) loadFlooding() error {
	if s.programs[floodPrograms[0]] != nil {
		return nil
	}
	if s.capture.on {
		if err := s.loadShowing(slices.Clone(floodPrograms)); err != nil {
			return fmt.Errorf("load the programs that flood and show packets: %w", err)
		}
	}
	spec, err := s.spec()
	if err != nil {
		return err
	}
	maps.DeleteFunc(spec.Programs, func(name string, _ *ebpf.ProgramSpec) bool { return !slices.Contains(floodPrograms, name) })
	programs, err := loadPrograms(spec, s.maps)
	if err != nil {
		return fmt.Errorf("load the programs that flood: %w", err)
	}
	maps.Copy(s.programs, programs)
	return nil
}

// readyToFlood has these programs in place before the first row that needs them.
func (s *Switch) readyToFlood() error {
	if err := s.loadFlooding(); err != nil || s.behind { // the next commit puts them in place
		return err
	}
	return s.fillTails()
}

const (
	floodL2      = 1
	floodVXLAN   = 2
	memberL2Only = 1
	maxCopyFrame = 4096
	// A copy for each member and a frame of 4 KiB each.
	maxCopies = table.MaxFloodPorts + table.MaxFloodHosts
)

type memberRow struct {
	At    uint32 // ifindex, or index of a peer
	Flags uint32
}

type floodRow struct {
	VSID, Flags, Rate, Group, Locals, Hosts uint32
	Local                                   [table.MaxFloodPorts]memberRow
	Host                                    [table.MaxFloodHosts]memberRow
}

type copyRow struct {
	IfIndex, Len uint32
	Frame        [maxCopyFrame]byte
}

// membersOf gives the members of each subnet, ports by device and hosts by address.
func membersOf(s table.Set) map[model.VSID][]table.Member {
	out := map[model.VSID][]table.Member{}
	for m := range s.Members {
		out[m.VSID] = append(out[m.VSID], m)
	}
	for _, members := range out {
		slices.SortFunc(members, compareMembers)
	}
	return out
}

func compareMembers(a, b table.Member) int {
	if a.PA != b.PA {
		return a.PA.Compare(b.PA)
	}
	return int(a.IfIndex) - int(b.IfIndex)
}

// checkFloods refuses members that no row can hold.
func checkFloods(s table.Set) error {
	for vsid, members := range membersOf(s) {
		hosts := 0
		for _, m := range members {
			if m.PA.IsValid() {
				hosts++
			}
		}
		if hosts > table.MaxFloodHosts {
			return &ErrFull{Table: fmt.Sprintf("hosts that subnet %s floods to", vsid), Need: hosts, Limit: table.MaxFloodHosts}
		}
		if ports := len(members) - hosts; ports > table.MaxFloodPorts {
			return &ErrFull{Table: fmt.Sprintf("ports that subnet %s floods to", vsid), Need: ports, Limit: table.MaxFloodPorts}
		}
	}
	return nil
}

// floodsToPut lists the subnets whose row changes, by themselves or by their members.
func floodsToPut(have, want table.Set, d *delta) []model.VSID {
	dirty := map[model.VSID]bool{}
	put, _ := diffRows(have.Floods, want.Floods, false)
	for _, v := range put {
		dirty[v] = true
	}
	for _, m := range d.putMembers {
		dirty[m.VSID] = true
	}
	for _, m := range d.delMembers {
		dirty[m.VSID] = true
	}
	return slices.Sorted(maps.Keys(dirty))
}

// putFloods writes whole rows: a subnet with all its members; without sweep those that it
// has stay, as far as there is room.
func (s *Switch) putFloods(want table.Set, d *delta, sweep bool) []error {
	var errs []error
	dirty := floodsToPut(s.have, want, d)
	if len(dirty) == 0 {
		return nil
	}
	if !sweep {
		want.Members = s.allMembers(want)
	}
	members := membersOf(want)
	for _, vsid := range dirty {
		f, ok := want.Floods[vsid]
		if !ok {
			continue // members of a subnet that floods nothing are nobody's
		}
		if err := s.putFlood(vsid, f, members[vsid], want); err != nil {
			errs = append(errs, fmt.Errorf("flood of subnet %s: %w", vsid, err))
		}
	}
	return errs
}

// allMembers are those that are wanted and those that there are.
func (s *Switch) allMembers(want table.Set) map[table.Member]table.MemberInfo {
	all := maps.Clone(s.have.Members)
	maps.Copy(all, want.Members)
	if checkFloods(table.Set{Members: all}) != nil {
		return want.Members
	}
	return all
}

func (s *Switch) putFlood(vsid model.VSID, f table.Flood, members []table.Member, want table.Set) error {
	row := floodRow{VSID: uint32(vsid), Flags: flag[uint32](f.L2, floodL2) | flag[uint32](f.Transport == model.VXLAN, floodVXLAN), Rate: f.Rate}
	var err error
	if row.Group, err = s.recordPeer(f.Group); err != nil {
		return err
	}
	for _, m := range members {
		flags := flag[uint32](want.Members[m].L2Only, memberL2Only)
		if !m.PA.IsValid() {
			row.Local[row.Locals] = memberRow{m.IfIndex, flags}
			row.Locals++
			continue
		}
		idx, err := s.recordPeer(m.PA)
		if err != nil {
			return err
		}
		row.Host[row.Hosts] = memberRow{idx, flags}
		row.Hosts++
	}
	if err := s.maps["flood"].Put(uint32(vsid), row); err != nil {
		return err
	}
	s.noteFlood(vsid, f, members, want)
	return nil
}

// noteFlood remembers what the row of a subnet now holds, and whose indices it uses.
func (s *Switch) noteFlood(vsid model.VSID, f table.Flood, members []table.Member, want table.Set) {
	s.peers.hold(f.Group)
	for _, m := range members {
		s.peers.hold(m.PA)
	}
	s.forgetFlood(vsid)
	s.have.Floods[vsid] = f
	for _, m := range members {
		s.have.Members[m] = want.Members[m]
	}
}

func (s *Switch) forgetFlood(vsid model.VSID) {
	s.peers.drop(s.have.Floods[vsid].Group)
	delete(s.have.Floods, vsid)
	for m := range s.have.Members {
		if m.VSID == vsid {
			s.peers.drop(m.PA)
			delete(s.have.Members, m)
		}
	}
}

func (s *Switch) deleteFloods(keys []model.VSID) []error {
	var errs []error
	for _, vsid := range keys {
		if err := ignoreMissing(s.maps["flood"].Delete(uint32(vsid))); err != nil {
			errs = append(errs, fmt.Errorf("flood of subnet %s: %w", vsid, err))
			continue
		}
		s.forgetFlood(vsid)
	}
	return errs
}

// readFlood decodes a row; pas are the addresses behind the indices.
func (h *held) readFlood(vsid uint32, r floodRow, pas map[uint32]netip.Addr) error {
	odd := func(why error) error {
		h.odd = append(h.odd, oddRow{"flood", vsid, fmt.Errorf("flood of subnet %d: %w", vsid, why)})
		return nil
	}
	if r.VSID != vsid || r.Locals > table.MaxFloodPorts || r.Hosts > table.MaxFloodHosts {
		return odd(errors.New("the row makes no sense"))
	}
	group, known := pas[r.Group]
	if r.Group != 0 && !known {
		return odd(fmt.Errorf("peer %d has no address", r.Group))
	}
	found := map[table.Member]table.MemberInfo{}
	for _, m := range r.Local[:r.Locals] {
		found[table.Member{VSID: model.VSID(vsid), IfIndex: m.At}] = table.MemberInfo{L2Only: m.Flags&memberL2Only != 0}
	}
	for _, m := range r.Host[:r.Hosts] {
		pa, known := pas[m.At]
		if !known {
			return odd(fmt.Errorf("peer %d has no address", m.At))
		}
		found[table.Member{VSID: model.VSID(vsid), PA: pa}] = table.MemberInfo{L2Only: m.Flags&memberL2Only != 0}
	}
	f := table.Flood{L2: r.Flags&floodL2 != 0, Rate: r.Rate, Group: group}
	if r.Flags&floodVXLAN != 0 {
		f.Transport = model.VXLAN
	}
	h.set.Floods[model.VSID(vsid)] = f
	maps.Copy(h.set.Members, found)
	return nil
}

// readCopies reads what a run of a program has recorded.
func readCopies(m *ebpf.Map, n uint32) ([]Copy, error) {
	if n == 0 {
		return nil, nil // and the map is there only with programs that flood
	}
	var out []Copy
	for i := range min(n, m.MaxEntries()) {
		var r copyRow
		if err := m.Lookup(i, &r); err != nil {
			return nil, fmt.Errorf("read copy %d: %w", i, err)
		}
		out = append(out, Copy{r.IfIndex, slices.Clone(r.Frame[:min(r.Len, maxCopyFrame)])})
	}
	return out, nil
}
