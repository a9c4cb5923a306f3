package manifest

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

// decoder reads one document and collects what is wrong with it.
type decoder struct {
	file     string // "": not from one
	document int
	found    Errors
}

func (d *decoder) fail(n *yaml.Node, path, format string, args ...any) {
	d.found = append(d.found, Error{d.document, n.Line, path, fmt.Sprintf(format, args...)})
}

// resource reads a document; nil when it is empty or at fault.
func (d *decoder) resource(root *yaml.Node) *weftv1.Resource {
	n := root
	if n.Kind == yaml.DocumentNode {
		if len(n.Content) == 0 {
			return nil
		}
		n = n.Content[0]
	}
	if isNull(n) {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n, "", "must be a resource with kind, metadata and spec, and is %s", shape(n))
		return nil
	}
	before := len(d.found)
	kind := d.kind(n)
	if kind == "" {
		return nil
	}
	r := New(kind)
	d.message(n, body(r), "", "kind")
	body(r).Clear(body(r).Descriptor().Fields().ByName("status"))
	if Meta(r).GetName() == "" && len(d.found) == before {
		d.fail(n, "metadata.name", "missing: every resource needs a name")
	}
	if len(d.found) > before {
		return nil
	}
	return r
}

// kind finds the value of "kind", or "" after reporting why there is none.
func (d *decoder) kind(n *yaml.Node) string {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != "kind" {
			continue
		}
		v := n.Content[i+1]
		if v.Kind != yaml.ScalarNode || v.ShortTag() != "!!str" {
			d.fail(v, "kind", "must be text, one of %s", strings.Join(Kinds(), ", "))
			return ""
		}
		if New(v.Value) == nil {
			d.fail(v, "kind", "unknown kind %q%s; kinds are %s", v.Value, didYouMean(v.Value, Kinds()), strings.Join(Kinds(), ", "))
			return ""
		}
		return v.Value
	}
	d.fail(n, "kind", "missing: one of %s", strings.Join(Kinds(), ", "))
	return ""
}

// message fills m from the mapping n. Keys in also are known and skipped.
func (d *decoder) message(n *yaml.Node, m protoreflect.Message, path string, also ...string) {
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "must be a mapping, and is %s", shape(n))
		return
	}
	fields := m.Descriptor().Fields()
	d.each(n, path, func(key, value *yaml.Node) {
		at := join(path, key.Value)
		field := fields.ByJSONName(key.Value)
		if field == nil || Hidden(field) {
			if !contains(also, key.Value) {
				d.fail(key, at, "unknown field%s", hint(key.Value, fieldNames(fields, also)))
			}
			return
		}
		d.field(value, m, field, at)
		if value.Kind == yaml.SequenceNode && len(value.Content) == 0 {
			leaveEmpty(m, field)
		}
	})
}

// each visits the pairs of a mapping and refuses keys that are not plain text or come twice.
func (d *decoder) each(n *yaml.Node, path string, visit func(key, value *yaml.Node)) {
	seen := make(map[string]bool, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" || key.Anchor != "" {
			d.fail(key, path, "keys must be plain text; anchors, aliases and merges are not read")
			continue
		}
		if seen[key.Value] {
			d.fail(key, join(path, key.Value), "is there twice")
			continue
		}
		seen[key.Value] = true
		visit(key, value)
	}
}

func (d *decoder) field(n *yaml.Node, m protoreflect.Message, f protoreflect.FieldDescriptor, path string) {
	if isNull(n) {
		return
	}
	switch {
	case f.IsMap():
		d.mapping(n, m.Mutable(f).Map(), f, path)
	case f.IsList():
		d.list(n, m.Mutable(f).List(), f, path)
	case isTimestamp(f):
		if v, ok := d.timestamp(n, path); ok {
			m.Set(f, v)
		}
	case f.Kind() == protoreflect.MessageKind:
		d.message(n, m.Mutable(f).Message(), path)
	default:
		if v, ok := d.scalar(n, f, path); ok {
			m.Set(f, v)
		}
	}
}

func (d *decoder) list(n *yaml.Node, l protoreflect.List, f protoreflect.FieldDescriptor, path string) {
	if n.Kind != yaml.SequenceNode {
		d.fail(n, path, "must be a list, and is %s", shape(n))
		return
	}
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		if f.Kind() == protoreflect.MessageKind {
			v := l.NewElement()
			d.message(item, v.Message(), at)
			d.place(item, v.Message())
			l.Append(v)
			continue
		}
		if v, ok := d.scalar(item, f, at); ok {
			l.Append(v)
		}
	}
}

// place notes where a rule of an AccessList was written.
func (d *decoder) place(n *yaml.Node, m protoreflect.Message) {
	if rule, ok := m.Interface().(*weftv1.AccessRule); ok && d.file != "" {
		rule.Source = fmt.Sprintf("%s:%d", d.file, n.Line)
	}
}

// mapping reads map<string,string>, the only map that the API has.
func (d *decoder) mapping(n *yaml.Node, m protoreflect.Map, f protoreflect.FieldDescriptor, path string) {
	if n.Kind != yaml.MappingNode {
		d.fail(n, path, "must be a mapping, and is %s", shape(n))
		return
	}
	d.each(n, path, func(key, value *yaml.Node) {
		if v, ok := d.scalar(value, f.MapValue(), join(path, key.Value)); ok {
			m.Set(protoreflect.ValueOfString(key.Value).MapKey(), v)
		}
	})
}

func (d *decoder) timestamp(n *yaml.Node, path string) (protoreflect.Value, bool) {
	t, err := time.Parse(time.RFC3339Nano, n.Value)
	if n.Kind != yaml.ScalarNode || err != nil {
		d.fail(n, path, "must be a time such as 2026-01-31T12:00:00Z, and is %s", shape(n))
		return protoreflect.Value{}, false
	}
	return protoreflect.ValueOfMessage(timestamppb.New(t).ProtoReflect()), true
}

func (d *decoder) scalar(n *yaml.Node, f protoreflect.FieldDescriptor, path string) (protoreflect.Value, bool) {
	var none protoreflect.Value
	if n.Kind != yaml.ScalarNode || n.Anchor != "" {
		d.fail(n, path, "must be %s, and is %s", wanted(f), shape(n))
		return none, false
	}
	tag := n.ShortTag()
	switch f.Kind() {
	case protoreflect.StringKind:
		// An unquoted time or date is text to everyone but YAML.
		if tag == "!!str" || tag == "!!timestamp" {
			return protoreflect.ValueOfString(n.Value), true
		}
		d.fail(n, path, "must be text, and is %s: put it in quotes", shape(n))
	case protoreflect.BoolKind:
		var v bool
		if tag == "!!bool" && n.Decode(&v) == nil {
			return protoreflect.ValueOfBool(v), true
		}
		d.fail(n, path, "must be true or false, and is %s", shape(n))
	case protoreflect.Int32Kind:
		if v, ok := d.integer(n, f, path, math.MinInt32, math.MaxInt32); ok {
			return protoreflect.ValueOfInt32(int32(v)), true
		}
	case protoreflect.Uint32Kind:
		if v, ok := d.integer(n, f, path, 0, math.MaxUint32); ok {
			return protoreflect.ValueOfUint32(uint32(v)), true
		}
	case protoreflect.Int64Kind:
		if v, ok := d.integer(n, f, path, math.MinInt64, math.MaxInt64); ok {
			return protoreflect.ValueOfInt64(v), true
		}
	default:
		panic("manifest: API field " + string(f.FullName()) + " has a type that manifests do not know")
	}
	return none, false
}

// integer reads a whole number; 64-bit ones may be quoted, as protobuf's JSON writes them.
func (d *decoder) integer(n *yaml.Node, f protoreflect.FieldDescriptor, path string, low, high int64) (int64, bool) {
	quoted := f.Kind() == protoreflect.Int64Kind && n.ShortTag() == "!!str"
	if n.ShortTag() != "!!int" && !quoted {
		d.fail(n, path, "must be %s, and is %s", wanted(f), shape(n))
		return 0, false
	}
	v, err := strconv.ParseInt(n.Value, 0, 64)
	if err != nil {
		err = n.Decode(&v) // YAML's own forms: 0o17, 1_000
	}
	if err != nil || v < low || v > high {
		d.fail(n, path, "must be a whole number from %d to %d, and is %s", low, high, shape(n))
		return 0, false
	}
	return v, true
}

func wanted(f protoreflect.FieldDescriptor) string {
	switch f.Kind() {
	case protoreflect.StringKind:
		return "text"
	case protoreflect.BoolKind:
		return "true or false"
	default:
		return "a whole number"
	}
}

// shape says what a node is, in the words of somebody who wrote it.
func shape(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias, which is not read: write the value out"
	}
	if n.Anchor != "" {
		return "an anchor, which is not read: write the value out"
	}
	value := n.Value
	if r := []rune(value); len(r) > 40 {
		value = string(r[:40]) + "…"
	}
	switch n.ShortTag() {
	case "!!null":
		return "empty"
	case "!!int", "!!float":
		return "the number " + value
	case "!!bool":
		return "the truth value " + value
	}
	return strconv.Quote(value)
}

func isNull(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null"
}

func isTimestamp(f protoreflect.FieldDescriptor) bool {
	return f.Kind() == protoreflect.MessageKind &&
		f.Message().FullName() == proto.MessageName((*timestamppb.Timestamp)(nil))
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func fieldNames(fields protoreflect.FieldDescriptors, also []string) []string {
	names := append([]string(nil), also...)
	for i := range fields.Len() {
		if f := fields.Get(i); !Hidden(f) {
			names = append(names, f.JSONName())
		}
	}
	return names
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
