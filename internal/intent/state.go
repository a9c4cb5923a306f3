// Package intent decides which changes of policy are admitted: it fills in what
// people left out, allocates identities, and checks every rule that a set of
// resources must hold to, alone and together with all that exists.
//
// Invariants: admission is a pure function of the state, the set and the
// Allocator; it changes neither. A set is admitted whole or not at all, and all
// violations are found in one go. Whatever is in a State was admitted, so its
// claims (VSIDs, addresses, identities) have one owner each.
// It must never store, send or log anything, nor read a clock or a source of
// randomness: those come in through the Allocator.
package intent

import (
	"cmp"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
)

// Cursors remember what was allocated last, so that an identity that became free
// is not given out again while a slow host may still hold it: allocation goes
// round the whole range before it comes back.
type Cursors struct {
	VSID    uint32 `json:"vsid,omitempty"`
	Network uint32 `json:"network,omitempty"`
	Port    uint32 `json:"port,omitempty"`
}

// State is all of policy at one revision, with the indexes that admission needs.
// The resources in it are shared and must not be changed. One writer or many
// readers at a time: the caller locks.
type State struct {
	revision  int64
	cursors   Cursors
	resources map[model.Kind]map[model.Ref]model.Resource
	claims    map[claim]model.Resource
	children  map[model.Key]map[model.Key]struct{}
	pas       map[string][]*model.ProviderAddress // by host, sorted by name; a host has few
}

// NewState returns the empty policy.
func NewState() *State {
	s := &State{
		resources: map[model.Kind]map[model.Ref]model.Resource{},
		claims:    map[claim]model.Resource{},
		children:  map[model.Key]map[model.Key]struct{}{},
		pas:       map[string][]*model.ProviderAddress{},
	}
	for _, k := range model.Kinds {
		s.resources[k] = map[model.Ref]model.Resource{}
	}
	return s
}

// Revision of the last change that is in s.
func (s *State) Revision() int64 { return s.revision }

// Cursors as of the last change.
func (s *State) Cursors() Cursors { return s.cursors }

// Replace makes s hold exactly resources.
func (s *State) Replace(resources []model.Resource, cursors Cursors, revision int64) {
	*s = *NewState()
	s.Apply(resources, nil, cursors, revision)
}

// Apply changes s by an admitted set.
func (s *State) Apply(puts []model.Resource, deletes []model.Key, cursors Cursors, revision int64) {
	gone := slices.Clone(deletes)
	for _, r := range puts {
		gone = append(gone, model.KeyOf(r))
	}
	slices.SortStableFunc(gone, func(a, b model.Key) int { return cmp.Compare(rank[b.Kind], rank[a.Kind]) })
	for _, k := range gone {
		s.remove(k)
	}
	for _, r := range byRank(puts) {
		s.add(r)
	}
	s.cursors, s.revision = cursors, revision
}

func (s *State) remove(k model.Key) {
	old, ok := s.resources[k.Kind][k.Ref]
	if !ok {
		return
	}
	rules := rulesOf[k.Kind]
	for _, c := range rules.claims(s.get, old) {
		if s.claims[c] == old {
			delete(s.claims, c)
		}
	}
	for _, p := range rules.parents(old) {
		delete(s.children[p], k)
		if len(s.children[p]) == 0 {
			delete(s.children, p)
		}
	}
	if pa, ok := old.(*model.ProviderAddress); ok {
		s.removePA(pa)
	}
	delete(s.resources[k.Kind], k.Ref)
}

func (s *State) add(r model.Resource) {
	k := model.KeyOf(r)
	rules, ok := rulesOf[k.Kind]
	if !ok {
		return
	}
	s.resources[k.Kind][k.Ref] = r
	if pa, ok := r.(*model.ProviderAddress); ok {
		s.addPA(pa)
	}
	for _, c := range rules.claims(s.get, r) {
		s.claims[c] = r
	}
	for _, p := range rules.parents(r) {
		if s.children[p] == nil {
			s.children[p] = map[model.Key]struct{}{}
		}
		s.children[p][k] = struct{}{}
	}
}

func (s *State) get(k model.Key) model.Resource {
	r, ok := s.resources[k.Kind][k.Ref]
	if !ok {
		return nil
	}
	return r
}

// Get finds a resource as it is stored. Derived lookup records are not among them.
func (s *State) Get(k model.Key) (model.Resource, bool) {
	r := s.get(k)
	return r, r != nil
}

// Count of the stored resources of a kind.
func (s *State) Count(kind model.Kind) int { return len(s.resources[kind]) }

// List gives the stored resources of a kind, of one tenant or (tenant "") of all,
// sorted by tenant and name.
func (s *State) List(kind model.Kind, tenant string) []model.Resource {
	out := make([]model.Resource, 0, len(s.resources[kind]))
	for ref, r := range s.resources[kind] {
		if tenant == "" || ref.Tenant == tenant {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b model.Resource) int { return compareRefs(a.Meta().Ref(), b.Meta().Ref()) })
	return out
}

// All gives every stored resource in dependency order, sorted within a kind.
func (s *State) All() []model.Resource {
	var out []model.Resource
	for _, k := range model.Kinds {
		out = append(out, s.List(k, "")...)
	}
	return out
}

// Children gives the keys of what refers directly to k, sorted.
func (s *State) Children(k model.Key) []model.Key {
	out := make([]model.Key, 0, len(s.children[k]))
	for c := range s.children[k] {
		out = append(out, c)
	}
	slices.SortFunc(out, compareKeys)
	return out
}

// rank orders kinds by dependency.
var rank = func() map[model.Kind]int {
	m := map[model.Kind]int{}
	for i, k := range model.Kinds {
		m[k] = i
	}
	return m
}()

func byRank(rs []model.Resource) []model.Resource {
	out := slices.Clone(rs)
	slices.SortStableFunc(out, func(a, b model.Resource) int { return cmp.Compare(rank[a.Kind()], rank[b.Kind()]) })
	return out
}

func compareRefs(a, b model.Ref) int {
	return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Name, b.Name))
}

func compareKeys(a, b model.Key) int {
	return cmp.Or(cmp.Compare(rank[a.Kind], rank[b.Kind]), compareRefs(a.Ref, b.Ref))
}
