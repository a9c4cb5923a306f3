package manifest

import (
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

// YAML tells a list that is empty from one that is not there, and protobuf does not. What a profile says for its ports is overridden by
// both a list and an empty one, so messages with such lists name those that are empty on purpose in a field that manifests do
// not show.
const emptyLists = "none"

var ofProfiles = (&weftv1.PortProfileSpec{}).ProtoReflect().Descriptor().Fields()

// Hidden tells that a field of the API is none of manifests.
func Hidden(f protoreflect.FieldDescriptor) bool { return f.Name() == emptyLists && f.IsList() }

// emptyField is where a message names its lists that are empty on purpose, if f may be one.
func emptyField(m protoreflect.Message, f protoreflect.FieldDescriptor) protoreflect.FieldDescriptor {
	if !f.IsList() || Hidden(f) || ofProfiles.ByName(f.Name()) == nil {
		return nil
	}
	return m.Descriptor().Fields().ByName(emptyLists)
}

func leaveEmpty(m protoreflect.Message, f protoreflect.FieldDescriptor) {
	if names := emptyField(m, f); names != nil {
		m.Mutable(names).List().Append(protoreflect.ValueOfString(f.JSONName()))
	}
}

func isEmptied(m protoreflect.Message, f protoreflect.FieldDescriptor) bool {
	names := emptyField(m, f)
	if names == nil || m.Has(f) {
		return false
	}
	var all []string
	for i := range m.Get(names).List().Len() {
		all = append(all, m.Get(names).List().Get(i).String())
	}
	return slices.Contains(all, f.JSONName())
}
