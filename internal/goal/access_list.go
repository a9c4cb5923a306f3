package goal

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"reflect"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
)

// Group is the addresses of an AddressGroup, those of the groups in it and of the ports that
// it selects included. It never changes; another one takes its place.
type Group struct {
	Ref      model.Ref
	Prefixes []netip.Prefix // sorted and unique

	digest Digest // zero: not computed
}

// List is an AccessList as hosts need it: its rules name groups of its tenant. It never changes;
// another one takes its place.
type List struct {
	Ref     model.Ref          `json:"ref"`
	Tier    model.Tier         `json:"tier"`
	Mode    model.ListMode     `json:"mode"`
	Default model.ListDefault  `json:"default,omitzero"`
	Rules   []model.AccessRule `json:"rules,omitempty"` // without their sources

	digest Digest // zero: not computed
}

// ListUse says that a list of the port's tenant judges the port's packets.
type ListUse struct {
	Level model.Level `json:"level"`
	List  string      `json:"list"`
}

// Bounds of one row: what does not fit cannot be sent.
const (
	MaxList     = 3 << 20 // bytes of an encoded List
	MaxPrefixed = 160_000 // prefixes of a Group
)

// Seal computes the digest once for all, before others see the row.
func (g *Group) Seal() *Group {
	g.digest = g.Digest()
	return g
}

// Seal computes the digest once for all, before others see the row.
func (l *List) Seal() *List {
	l.digest = l.Digest()
	return l
}

// Digest of the row.
func (g *Group) Digest() Digest {
	if g.digest != (Digest{}) {
		return g.digest
	}
	return hash(append([]byte{kindGroup}, g.Encode()...))
}

// Digest of the row.
func (l *List) Digest() Digest {
	if l.digest != (Digest{}) {
		return l.digest
	}
	return hash(append([]byte{kindList}, l.Encode()...))
}

// Equal compares by value.
func (g *Group) Equal(h *Group) bool {
	return g == h || g.Ref == h.Ref && slices.Equal(g.Prefixes, h.Prefixes)
}

// Equal compares by value.
func (l *List) Equal(m *List) bool {
	return l == m || l.Ref == m.Ref && l.Tier == m.Tier && l.Mode == m.Mode && l.Default == m.Default && reflect.DeepEqual(l.Rules, m.Rules)
}

// Encode gives the one form of g: its name and its prefixes as in an encoded Goal.
func (g *Group) Encode() []byte {
	return appendRows(appendText(appendText(nil, g.Ref.Tenant), g.Ref.Name), g.Prefixes, appendPrefix)
}

// Encode gives the one form of l: JSON.
func (l *List) Encode() []byte { return mustJSON(l) }

// DecodeGroup reads what Encode gives, and nothing else.
func DecodeGroup(b []byte) (*Group, error) {
	r := reader{left: b}
	g := &Group{Ref: model.Ref{Tenant: r.text(), Name: r.text()}}
	for range r.count(2) {
		g.Prefixes = append(g.Prefixes, r.prefix())
	}
	if r.err != nil || len(r.left) > 0 {
		return nil, wrong("group %s: %d bytes too many, or %v", g.Ref, len(r.left), r.err)
	}
	return g.Seal(), g.Check()
}

// DecodeList reads what Encode gives, and nothing else.
func DecodeList(b []byte) (*List, error) {
	l := &List{}
	if len(b) > MaxList {
		return nil, wrong("list of %d bytes, more than %d", len(b), MaxList)
	}
	if err := strictJSON(b, l); err != nil {
		return nil, fmt.Errorf("list: %w", err)
	}
	l.digest = hash(append([]byte{kindList}, b...))
	return l, l.check()
}

// Check tells whether g may stand in a Goal.
func (g *Group) Check() error {
	if err := checkName("group", g.Ref); err != nil {
		return err
	}
	if len(g.Prefixes) > MaxPrefixed {
		return wrong("group %s has %d prefixes, more than %d", g.Ref, len(g.Prefixes), MaxPrefixed)
	}
	for i, p := range g.Prefixes {
		if !plainPrefix(p) || i > 0 && g.Prefixes[i-1].Compare(p) >= 0 {
			return wrong("group %s: prefix %s is not masked, or not in order", g.Ref, p)
		}
	}
	return nil
}

// Check tells whether l may stand in a Goal. What its rules mean is judged where they are used.
func (l *List) Check() error {
	if n := len(l.Encode()); n > MaxList {
		return wrong("list %s has %d bytes, more than %d", l.Ref, n, MaxList)
	}
	return l.check()
}

func (l *List) check() error {
	if err := checkName("list", l.Ref); err != nil {
		return err
	}
	for _, r := range l.Rules {
		for _, p := range slices.Concat(r.Remote.Prefixes, r.Local.Prefixes) {
			if !plainPrefix(p) {
				return wrong("list %s rule %s: prefix %s is not masked", l.Ref, r.Name, p)
			}
		}
		if _, _, ok := model.ProtocolNumber(r.Protocol); !ok {
			return wrong("list %s rule %s: protocol %q", l.Ref, r.Name, r.Protocol)
		}
	}
	return nil
}

func (u ListUse) check() error {
	switch u.Level {
	case model.LevelNetwork, model.LevelSubnet, model.LevelPort:
	default:
		return wrong("level %q of list %s", u.Level, u.List)
	}
	return checkName("list", model.Ref{Name: u.List})
}

func checkName(what string, r model.Ref) error {
	if r.Name == "" || len(r.Name) > MaxName || len(r.Tenant) > MaxName {
		return wrong("%s %q of tenant %q: a name must have 1 to %d bytes", what, r.Name, r.Tenant, MaxName)
	}
	return nil
}

// CheckListRef tells whether r may name a Group or a List.
func CheckListRef(r model.Ref) error { return checkName("group or list", r) }

func compareRefs(a, b model.Ref) int {
	return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Name, b.Name))
}

func mustJSON(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic("goal: a row that cannot be written: " + err.Error()) // no field can fail
	}
	return b
}

// strictJSON reads b into v if b is exactly what mustJSON gives for v.
func strictJSON(b []byte, v any) error {
	r := json.NewDecoder(bytes.NewReader(b))
	r.DisallowUnknownFields()
	if err := r.Decode(v); err != nil {
		return wrong("%v", err)
	}
	if !bytes.Equal(mustJSON(v), b) {
		return wrong("is not in its one form")
	}
	return nil
}

// summary is what a line says of a list; its digest tells two apart.
func (l *List) summary() string {
	text := fmt.Sprintf("%s %s %d rules", l.Tier, l.Mode, len(l.Rules))
	if l.Default.Inbound != "" {
		text += " inbound " + string(l.Default.Inbound)
	}
	if l.Default.Outbound != "" {
		text += " outbound " + string(l.Default.Outbound)
	}
	return text + " (" + l.Digest().String()[:8] + ")"
}

// someOf lists a few.
func someOf(all []netip.Prefix) string {
	const few = 8
	if len(all) <= few {
		return list(all)
	}
	sum := (&Group{Prefixes: all}).Digest().String()[:8]
	return fmt.Sprintf("%s and %d more (%s)", list(all[:few]), len(all)-few, sum)
}
