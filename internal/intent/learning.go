package intent

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
)

// Who has an address that was learned: docs/design/learning.md. In short, what people
// write beats what was learned, and of two that were learned the first one stays.

func checkLearning(a *admission, p *model.Port, s model.Settings) {
	k := model.KeyOf(p)
	if s.DynamicAddressLimit > maxLearned {
		a.fail(k, "spec.dynamicAddressLimit", "is %d; at most %d addresses of a port may be learned", s.DynamicAddressLimit, maxLearned)
	}
	if s.Learns() && s.AllowSpoofing {
		a.fail(k, "spec.dynamicAddressLimit", "must be 0 with spec.allowSpoofing: of a guest that may speak for others nothing can be learned")
	}
}

// checkLearningCarried refuses ports that learn where each address needs a PA of its own
// before its first packet.
func checkLearningCarried(a *admission, k model.Key, field string, p *model.Port, s *model.VirtualSubnet) {
	if a.settings(p).Learns() && s.Spec.Transport == model.TransportRewrite {
		a.fail(k, field, "%s may learn addresses, which %s with transport %s cannot carry; set dynamicAddressLimit to 0 or use another transport",
			name(p), name(s), model.TransportRewrite)
	}
}

// claimLearned keeps of what the port p in the set has learned what is still free and
// still fits, the oldest first.
func (a *admission) claimLearned(s *model.VirtualSubnet, p *model.Port) {
	var kept []netip.Addr
	limit := int(a.settings(p).DynamicAddressLimit)
	for _, ca := range p.Learned {
		if len(kept) >= limit || caProblem(s, ca) != "" || a.claim(caClaim(s.Spec.VSID, ca), p) != nil {
			continue
		}
		kept = append(kept, ca)
	}
	p.Learned = kept
}

// claimOver takes c, the claim of ca, for r, also from a port that has only learned it.
func (a *admission) claimOver(c claim, ca netip.Addr, r model.Resource) (owner model.Resource) {
	o := a.claim(c, r)
	p, ok := o.(*model.Port)
	if !ok || o == r || !slices.Contains(p.Learned, ca) {
		return o
	}
	a.unlearn(p, ca)
	a.taken[c] = r
	return nil
}

func (a *admission) unlearn(p *model.Port, ca netip.Addr) {
	k := model.KeyOf(p)
	if put, ok := a.puts[k].(*model.Port); ok {
		put.Learned = slices.DeleteFunc(put.Learned, func(x netip.Addr) bool { return x == ca })
		return
	}
	if a.unlearned == nil {
		a.unlearned = map[model.Key][]netip.Addr{}
	}
	a.unlearned[k] = append(a.unlearned[k], ca)
}

// unlearnOutside makes the port k, which is not in the set, give up what does not fit
// into the subnet any more.
func (a *admission) unlearnOutside(s *model.VirtualSubnet, k model.Key) {
	p, ok := a.get(k).(*model.Port)
	if !ok {
		return
	}
	for _, ca := range p.Learned {
		if caProblem(s, ca) != "" {
			a.unlearn(p, ca)
		}
	}
}

// addUnlearned writes the ports that the set takes learned addresses from.
func (a *admission) addUnlearned(res *Result) {
	for _, k := range slices.SortedFunc(maps.Keys(a.unlearned), compareKeys) {
		old := a.base.get(k).(*model.Port)
		next := withLearned(old, without(old.Learned, a.unlearned[k]))
		res.Changes = append(res.Changes, Change{Updated, k, old, next})
		res.Puts = append(res.Puts, next)
	}
}

func withLearned(p *model.Port, learned []netip.Addr) *model.Port {
	next := portRules{}.clone(p).(*model.Port)
	next.Learned = orNil(learned)
	return next
}

func without(all, gone []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(all), func(ca netip.Addr) bool { return slices.Contains(gone, ca) })
}

// Refusal says why an address that a guest uses does not become its port's.
type Refusal struct {
	Address netip.Addr
	Finding model.Finding
	Message string // for people: what is in the way
}

// Seen is what an agent saw of a guest.
type Seen struct {
	Used      []netip.Addr // addresses that it uses
	Announced []netip.Addr // of those, what it told everybody
	Released  []netip.Addr // addresses that it gave up
}

// AdmitLearned judges what the agent of host saw of the guest of the port ref. Refused
// addresses change nothing.
func AdmitLearned(s *State, ref model.Ref, host string, seen Seen) (*Result, []Refusal, []Violation) {
	p, v := bindable(s, ref)
	if p == nil {
		return nil, nil, v
	}
	if p.Host() != host {
		return nil, nil, conflict(model.KeyOf(p), "", "is not on host %q", host)
	}
	subnet, ok := s.get(subnetKey(ref.Tenant, p.Spec.Subnet)).(*model.VirtualSubnet)
	if !ok {
		return nil, nil, conflict(model.KeyOf(p), "spec.subnet", "is gone")
	}
	learned, refused := without(p.Learned, seen.Released), []Refusal(nil)
	takenFrom := map[model.Key][]netip.Addr{}
	for _, ca := range seen.Used {
		if slices.Contains(learned, ca) || slices.Contains(p.Spec.Addresses, ca) {
			continue
		}
		holder := s.holder(subnet, ca)
		taken := holder != nil && subnet.Spec.Flood == model.FloodL2 && slices.Contains(seen.Announced, ca)
		if r := s.refuse(subnet, p, ca, len(learned), taken); r != nil {
			refused = append(refused, *r)
			continue
		}
		if taken {
			takenFrom[model.KeyOf(holder)] = append(takenFrom[model.KeyOf(holder)], ca)
		}
		learned = append(learned, ca)
	}
	if slices.Equal(learned, p.Learned) {
		return unchanged(s, p), refused, nil
	}
	res := unchanged(s, p)
	res.Changes = nil
	res.put(p, withLearned(p, learned))
	for _, k := range slices.SortedFunc(maps.Keys(takenFrom), compareKeys) {
		old := s.get(k).(*model.Port)
		res.put(old, withLearned(old, without(old.Learned, takenFrom[k])))
	}
	return res, refused, nil
}

func (res *Result) put(old, next *model.Port) {
	res.Changes = append(res.Changes, Change{Updated, model.KeyOf(old), old, next})
	res.Puts = append(res.Puts, next)
}

// holder is the port that has learned ca; nil if none has.
func (s *State) holder(subnet *model.VirtualSubnet, ca netip.Addr) *model.Port {
	p, ok := s.claims[caClaim(subnet.Spec.VSID, ca)].(*model.Port)
	if !ok || !slices.Contains(p.Learned, ca) {
		return nil
	}
	return p
}

// refuse says why ca cannot be learned for p, which has learned so many; nil if it can. taken:
// it may be taken from another port that has learned it.
func (s *State) refuse(subnet *model.VirtualSubnet, p *model.Port, ca netip.Addr, learned int, taken bool) *Refusal {
	if slices.Contains(subnet.Spec.Gateway, ca) {
		return &Refusal{ca, model.FindingDuplicateAddress, "it is the gateway of " + name(subnet)}
	}
	if problem := caProblem(subnet, ca); problem != "" {
		return &Refusal{ca, model.FindingForeignAddress, "it " + problem}
	}
	if o := s.claims[caClaim(subnet.Spec.VSID, ca)]; o != nil && !taken && model.KeyOf(o) != model.KeyOf(p) {
		return &Refusal{ca, model.FindingDuplicateAddress, "it is an address of " + name(o)}
	}
	if learned >= int(s.settings(p).DynamicAddressLimit) {
		return &Refusal{ca, model.FindingAddressLimit, fmt.Sprintf("the port has learned %d addresses, as many as spec.dynamicAddressLimit lets it", learned)}
	}
	return nil
}
