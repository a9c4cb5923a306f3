package truth

import "slices"

// vlan is what a port on a VLAN has, as people write it and as docs/design/pipeline.md's table has it.
type vlan struct {
	spec     string
	native   int // VLAN of what it sends without a tag; 0: none, or without a tag there, too
	trunk    bool
	sends    []int // 0: without a tag
	receives []int
}

var vlans = []vlan{
	{"mode: access, id: 10", 10, false, []int{10}, []int{10}},
	{"mode: access, id: 20", 20, false, []int{20}, []int{20}},
	{"mode: untagged", 0, false, []int{0}, []int{0}},
	{"mode: trunk, allowed: [\"5-50\"], prune: [\"20-30\"], native: 10", 10, true, span(5, 19, 31, 50), span(5, 19, 31, 50)},
	{"mode: trunk, allowed: [\"10\"], native: 20", 20, true, []int{10, 20}, []int{10, 20}},
	{"mode: trunk, allowed: [\"10\", \"20\", \"100-103\"]", 0, true, span(10, 10, 20, 20, 100, 103), span(10, 10, 20, 20, 100, 103)},
	{"mode: private, private: {mode: isolated, primary: 100, secondary: 101}", 101, false, []int{101}, []int{100}},
	{"mode: private, private: {mode: community, primary: 100, secondary: 102}", 102, false, []int{102}, []int{100, 102}},
	{"mode: private, private: {mode: community, primary: 100, secondary: 103}", 103, false, []int{103}, []int{100, 103}},
	{"mode: private, private: {mode: promiscuous, primary: 100, secondaries: [101, 102, 103]}", 100, false, []int{100}, []int{100, 101, 102, 103}},
}

// span is all numbers of ranges.
func span(ends ...int) (all []int) {
	for ; len(ends) > 1; ends = ends[2:] {
		for n := ends[0]; n <= ends[1]; n++ {
			all = append(all, n)
		}
	}
	return all
}

// carries is whether what one sends with a tag (0: without) comes to the other.
func (from vlan) carries(to vlan, tag int) bool {
	if tag != 0 && !from.trunk {
		return false
	}
	of := from.of(tag)
	return slices.Contains(from.sends, of) && slices.Contains(to.receives, of)
}

// of is the VLAN of a frame with the tag.
func (from vlan) of(tag int) int {
	if tag == 0 {
		return from.native
	}
	return tag
}

// tagOf is the tag that a frame of a VLAN has at the port.
func (to vlan) tagOf(of int) int {
	if !to.trunk || of == to.native {
		return 0
	}
	return of
}

// lan is the physical network of a tenant.
func lan(tenant string) string { return "lan-" + tenant }

// tagAt is the tag that a probe has when it has come.
func (p *policy) tagAt(q probe) int {
	if places[q.From].subnet != onVLAN {
		return 0
	}
	return p.Ports[q.To].VLAN.tagOf(p.Ports[q.From].VLAN.of(q.Tag))
}
