package manifest

import (
	"bytes"
	"fmt"
	"sort"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

// Format writes resources as YAML documents with kind, metadata, spec and
// status, in the order of the API's fields, and nothing that is not set.
func Format(resources ...*weftv1.Resource) ([]byte, error) {
	if len(resources) == 0 {
		return nil, nil
	}
	var out bytes.Buffer
	w := yaml.NewEncoder(&out)
	w.SetIndent(2)
	for _, r := range resources {
		b := body(r)
		if b == nil {
			return nil, fmt.Errorf("resource of a kind that this version does not know")
		}
		n := mappingOf(b)
		n.Content = append([]*yaml.Node{text("kind"), text(Kind(r))}, n.Content...)
		if err := w.Encode(n); err != nil {
			return nil, fmt.Errorf("write %s: %w", KeyString(Key(r)), err)
		}
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return out.Bytes(), nil
}

// FormatMessage writes any message of the API as one YAML document.
func FormatMessage(m protoreflect.ProtoMessage) ([]byte, error) {
	var out bytes.Buffer
	w := yaml.NewEncoder(&out)
	w.SetIndent(2)
	if err := w.Encode(mappingOf(m.ProtoReflect())); err != nil {
		return nil, fmt.Errorf("write %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return out.Bytes(), w.Close()
}

func mappingOf(m protoreflect.Message) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if isEmptied(m, f) {
			n.Content = append(n.Content, text(f.JSONName()), &yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle})
			continue
		}
		if !m.Has(f) || Hidden(f) {
			continue
		}
		n.Content = append(n.Content, text(f.JSONName()), valueOf(m.Get(f), f))
	}
	return n
}

func valueOf(v protoreflect.Value, f protoreflect.FieldDescriptor) *yaml.Node {
	switch {
	case f.IsMap():
		return mapOf(v.Map())
	case f.IsList():
		n := &yaml.Node{Kind: yaml.SequenceNode}
		for i := range v.List().Len() {
			n.Content = append(n.Content, single(v.List().Get(i), f))
		}
		if f.Kind() != protoreflect.MessageKind {
			n.Style = yaml.FlowStyle
		}
		return n
	}
	return single(v, f)
}

func single(v protoreflect.Value, f protoreflect.FieldDescriptor) *yaml.Node {
	switch {
	case isTimestamp(f):
		t, _ := v.Message().Interface().(*timestamppb.Timestamp)
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!timestamp", Value: t.AsTime().Format("2006-01-02T15:04:05.999999999Z07:00")}
	case f.Kind() == protoreflect.MessageKind:
		return mappingOf(v.Message())
	case f.Kind() == protoreflect.StringKind:
		return text(v.String())
	case f.Kind() == protoreflect.BoolKind:
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!bool", Value: strconv.FormatBool(v.Bool())}
	case f.Kind() == protoreflect.EnumKind:
		return text(string(f.Enum().Values().ByNumber(v.Enum()).Name()))
	}
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!int", Value: v.String()}
}

// mapOf writes map<string,string> in the order of its keys.
func mapOf(m protoreflect.Map) *yaml.Node {
	keys := make([]string, 0, m.Len())
	m.Range(func(k protoreflect.MapKey, _ protoreflect.Value) bool {
		keys = append(keys, k.String())
		return true
	})
	sort.Strings(keys)
	n := &yaml.Node{Kind: yaml.MappingNode}
	for _, k := range keys {
		n.Content = append(n.Content, text(k), text(m.Get(protoreflect.ValueOfString(k).MapKey()).String()))
	}
	return n
}

// elsewhereBool are words that readers of YAML 1.1 take for truth values, and ours does not.
var elsewhereBool = map[string]bool{"y": true, "yes": true, "on": true, "n": true, "no": true, "off": true}

// text is a string that YAML must read as one, whatever it looks like.
func text(s string) *yaml.Node {
	n := &yaml.Node{}
	n.SetString(s)
	if n.Tag == "!!str" && n.Style == 0 && (strings.Contains(s, ":") || elsewhereBool[strings.ToLower(s)]) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}
