package intent

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weft-sdn/weft/internal/model"
)

// Allocator supplies what purity forbids: time and randomness.
type Allocator struct {
	Now  time.Time
	GUID func() string    // a fresh random GUID, canonical lower case
	MAC  func() model.MAC // a random candidate; uniqueness is admission's business
}

// Deletion asks for a resource to go; Revision, if not 0, must be current.
type Deletion struct {
	model.Key
	Revision int64
}

// Reason sorts violations into what the caller can do about them.
type Reason uint8

// The reasons.
const (
	Invalid  Reason = iota // the set is wrong, whatever else exists
	Conflict               // it contradicts what exists: a stale revision, dependants
	Missing                // what is to be deleted does not exist
)

// Violation is one broken rule. Field is a path as in manifests,
// "spec.prefixes[1]", or "" when the whole resource is meant.
type Violation struct {
	Key     model.Key
	Field   string
	Message string // what is wrong and what to do
	Reason  Reason
}

func (v Violation) String() string {
	if v.Field == "" {
		return fmt.Sprintf("%s: %s", v.Key, v.Message)
	}
	return fmt.Sprintf("%s: %s: %s", v.Key, v.Field, v.Message)
}

// Action says what becomes of a resource.
type Action string

// The actions.
const (
	Created   Action = "created"
	Updated   Action = "updated"
	Unchanged Action = "unchanged"
	Deleted   Action = "deleted"
)

// Change is the outcome for one resource of the set, in the set's order.
// Before is nil when created, After when deleted.
type Change struct {
	Action        Action
	Key           model.Key
	Before, After model.Resource
}

// Result is an admitted set. Puts are in dependency order and leave out what did not change.
type Result struct {
	Changes []Change
	Puts    []model.Resource
	Deletes []model.Key
	Cursors Cursors
}

// maxViolations bounds an answer; a set that breaks more rules is not read to the end.
const maxViolations = 100

// admission is a State with a set laid over it.
type admission struct {
	base    *State
	alloc   Allocator
	cursors Cursors

	order    []model.Key // puts, as given
	puts     map[model.Key]model.Resource
	deleted  map[model.Key]struct{}
	children map[model.Key][]model.Key // of the puts
	taken    map[claim]model.Resource  // by the puts
	bad      map[model.Key]bool
	hints    map[claim]netip.Addr // where the search for a free CA goes on

	pulled    map[model.Key]bool         // ports that are in the set because their profile is
	unlearned map[model.Key][]netip.Addr // ports that are not in the set and give up what they had learned

	communities map[model.Key]map[model.IsolationID]string // by subnet: names by number
	vlans       map[string]*vlanPlan                       // by external network

	violations []Violation
	overflow   int

	overlapsDone map[model.Key]bool // networks already searched
	rooms        map[string]*room   // by tenant
	minima       map[string]int64   // sums by host; nil: not looked at yet
	poolsKnown   []*model.Host      // those with rewrite prefixes; nil: not looked for yet
}

// Admit judges a set of changes as one transaction. With violations there is no result.
func Admit(s *State, puts []model.Resource, deletes []Deletion, alloc Allocator) (*Result, []Violation) {
	if n := len(puts) + len(deletes); n > MaxSet {
		return nil, []Violation{{Message: fmt.Sprintf("the set has %d resources; at most %d are allowed: split it", n, MaxSet)}}
	}
	a := newAdmission(s, alloc)
	a.takeDeletes(deletes)
	a.takePuts(puts)
	a.pullRewritten()
	a.pullProfiled()
	for _, kind := range model.Kinds {
		a.admitKind(kind)
	}
	a.relate()
	if len(a.violations) > 0 {
		return nil, a.report()
	}
	return a.result(deletes), nil
}

func newAdmission(s *State, alloc Allocator) *admission {
	return &admission{
		base: s, alloc: alloc, cursors: s.cursors,
		puts: map[model.Key]model.Resource{}, deleted: map[model.Key]struct{}{},
		children: map[model.Key][]model.Key{}, taken: map[claim]model.Resource{},
		bad: map[model.Key]bool{}, hints: map[claim]netip.Addr{},
		communities: map[model.Key]map[model.IsolationID]string{}, vlans: map[string]*vlanPlan{},
	}
}

func (a *admission) fail(k model.Key, field, format string, args ...any) {
	a.failFor(Invalid, k, field, format, args...)
}

func (a *admission) failFor(reason Reason, k model.Key, field, format string, args ...any) {
	a.bad[k] = true
	if len(a.violations) >= maxViolations {
		a.overflow++
		return
	}
	a.violations = append(a.violations, Violation{k, field, fmt.Sprintf(format, args...), reason})
}

func (a *admission) report() []Violation {
	if a.overflow > 0 {
		a.violations = append(a.violations, Violation{Message: fmt.Sprintf("and %d more violations", a.overflow)})
	}
	return a.violations
}

// get sees the set over the state; deleted is absent.
func (a *admission) get(k model.Key) model.Resource {
	if r, ok := a.puts[k]; ok {
		return r
	}
	if _, ok := a.deleted[k]; ok {
		return nil
	}
	return a.base.get(k)
}

// claim takes c for r, or says who has it. What a changed resource held before is free.
func (a *admission) claim(c claim, r model.Resource) (owner model.Resource) {
	if o := a.owner(c); o != nil {
		return o
	}
	a.taken[c] = r
	return nil
}

func (a *admission) owner(c claim) model.Resource {
	if o, ok := a.taken[c]; ok {
		return o
	}
	o, ok := a.base.claims[c]
	if !ok {
		return nil
	}
	k := model.KeyOf(o)
	if _, ok := a.puts[k]; ok {
		return nil
	}
	if _, ok := a.deleted[k]; ok {
		return nil
	}
	return o
}

// childrenOf gives what refers to k once the set is in place, sorted.
func (a *admission) childrenOf(k model.Key) []model.Key {
	out := slices.Clone(a.children[k])
	for c := range a.base.children[k] {
		_, replaced := a.puts[c]
		_, gone := a.deleted[c]
		if !replaced && !gone {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, compareKeys)
	return out
}

func (a *admission) takeDeletes(deletes []Deletion) {
	for _, d := range deletes {
		if _, ok := a.deleted[d.Key]; ok {
			a.fail(d.Key, "", "is named twice in the set")
			continue
		}
		old := a.base.get(d.Key)
		if old == nil {
			a.missing(d.Key)
			continue
		}
		if d.Revision != 0 && d.Revision != old.Meta().Revision {
			a.stale(d.Key, d.Revision, old)
		}
		a.deleted[d.Key] = struct{}{}
	}
}

func (a *admission) missing(k model.Key) {
	if _, ok := rulesOf[k.Kind]; !ok {
		a.fail(k, "kind", "%q is not a kind; the kinds are %s", k.Kind, kindNames())
		return
	}
	if k.Kind == model.KindLookupRecord && isDerivedName(k.Name) {
		a.failDerived(k)
		return
	}
	a.failFor(Missing, k, "", "does not exist")
}

func (a *admission) failDerived(k model.Key) {
	a.fail(k, "", "is derived and read-only; change the port or subnet that it follows from")
}

func (a *admission) stale(k model.Key, revision int64, old model.Resource) {
	if old == nil {
		a.failFor(Conflict, k, "metadata.revision", "is %d, but the resource does not exist any more; leave the revision out to create it", revision)
		return
	}
	a.failFor(Conflict, k, "metadata.revision", "is %d, but the resource was changed since (now %d); read it again and repeat the change", revision, old.Meta().Revision)
}

func kindNames() string {
	var names []string
	for _, k := range model.Kinds {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

func (a *admission) takePuts(puts []model.Resource) {
	for _, in := range puts {
		k := model.KeyOf(in)
		rules, ok := rulesOf[k.Kind]
		if !ok {
			a.fail(k, "kind", "%q is not a kind; the kinds are %s", k.Kind, kindNames())
			continue
		}
		if l, ok := in.(*model.LookupRecord); ok && (l.Derived || isDerivedName(l.Metadata.Name)) {
			a.failDerived(k)
			continue
		}
		if _, ok := a.puts[k]; ok {
			a.fail(k, "", "is named twice in the set")
			continue
		}
		if _, ok := a.deleted[k]; ok {
			a.fail(k, "", "is both written and deleted in the set")
			continue
		}
		old := a.base.get(k)
		r := rules.clone(in)
		m := r.Meta()
		if m.Revision != 0 && (old == nil || m.Revision != old.Meta().Revision) {
			a.stale(k, m.Revision, old)
		}
		m.UID, m.Generation, m.Revision, m.CreatedAt = "", 0, 0, a.alloc.Now
		if old != nil {
			o := old.Meta()
			m.UID, m.Generation, m.Revision, m.CreatedAt = o.UID, o.Generation, o.Revision, o.CreatedAt
		}
		rules.inherit(r, old)
		a.puts[k] = r
		a.order = append(a.order, k)
		for _, p := range rules.parents(r) {
			a.children[p] = append(a.children[p], k)
		}
	}
}

// admitKind checks all of a kind before it allocates for any: what people wrote
// goes before what we choose.
func (a *admission) admitKind(kind model.Kind) {
	rules := rulesOf[kind]
	for _, k := range a.order {
		if k.Kind == kind {
			a.checkMeta(a.puts[k])
			rules.check(a, a.puts[k], a.base.get(k))
		}
	}
	for _, k := range a.order {
		if k.Kind == kind && !a.bad[k] {
			rules.allocate(a, a.puts[k])
		}
	}
}

func (a *admission) relate() {
	for _, k := range a.order {
		if !a.bad[k] {
			rulesOf[k.Kind].relate(a, a.puts[k], a.base.get(k))
		}
	}
	gone := make([]model.Key, 0, len(a.deleted))
	for k := range a.deleted {
		gone = append(gone, k)
	}
	slices.SortFunc(gone, compareKeys)
	for _, k := range gone {
		a.checkDependants(k)
		rulesOf[k.Kind].relate(a, nil, a.base.get(k))
	}
}

// maxNamed bounds how many dependants a message names.
const maxNamed = 10

func (a *admission) checkDependants(k model.Key) {
	if left := a.childrenOf(k); len(left) > 0 {
		a.failFor(Conflict, k, "", "is still used by %s; delete them first or in the same set", nameKeys(left))
	}
}

func nameKeys(keys []model.Key) string {
	var names []string
	for _, k := range keys[:min(len(keys), maxNamed)] {
		names = append(names, k.String())
	}
	s := strings.Join(names, ", ")
	if n := len(keys) - maxNamed; n > 0 {
		s += fmt.Sprintf(" and %d more", n)
	}
	return s
}

func (a *admission) result(deletes []Deletion) *Result {
	res := &Result{Cursors: a.cursors}
	for _, k := range a.order {
		r, old := a.puts[k], a.base.get(k)
		c := Change{Created, k, old, r}
		switch {
		case old == nil:
			r.Meta().UID, r.Meta().Generation = a.alloc.GUID(), 1
		case !rulesOf[k.Kind].sameSpec(r, old):
			c.Action = Updated
			r.Meta().Generation++
		case !sameLabels(r.Meta().Labels, old.Meta().Labels), !sameSources(r, old):
			c.Action = Updated
		default:
			c.Action, c.After = Unchanged, old
		}
		if c.Action == Unchanged && a.pulled[k] {
			continue
		}
		res.Changes = append(res.Changes, c)
		if c.Action != Unchanged {
			res.Puts = append(res.Puts, r)
		}
	}
	a.addUnlearned(res)
	for _, d := range deletes {
		res.Changes = append(res.Changes, Change{Deleted, d.Key, a.base.get(d.Key), nil})
		res.Deletes = append(res.Deletes, d.Key)
	}
	slices.SortStableFunc(res.Puts, func(x, y model.Resource) int { return cmp.Compare(rank[x.Kind()], rank[y.Kind()]) })
	return res
}

func sameLabels(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if w, ok := b[k]; !ok || w != v {
			return false
		}
	}
	return true
}

// next finds a free number in [lo, hi] after cursor, round the range at most once.
func next(cursor *uint32, lo, hi uint32, free func(uint32) bool) (uint32, bool) {
	n := max(*cursor, lo-1)
	for range uint64(hi-lo) + 1 {
		if n >= hi {
			n = lo - 1
		}
		n++
		if free(n) {
			*cursor = n
			return n, true
		}
	}
	return 0, false
}
