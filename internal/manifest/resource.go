package manifest

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

// kindFields are the members of Resource's oneof, in dependency order.
var kindFields = (&weftv1.Resource{}).ProtoReflect().Descriptor().Oneofs().ByName("kind").Fields()

// Kinds lists the kinds as manifests write them, in dependency order: what is
// referred to comes first.
func Kinds() []string {
	names := make([]string, kindFields.Len())
	for i := range names {
		names[i] = string(kindFields.Get(i).Message().Name())
	}
	return names
}

// New makes an empty resource of the kind, or nil for an unknown kind.
func New(kind string) *weftv1.Resource {
	for i := range kindFields.Len() {
		f := kindFields.Get(i)
		if string(f.Message().Name()) != kind {
			continue
		}
		r := &weftv1.Resource{}
		body := r.ProtoReflect().Mutable(f).Message()
		body.Mutable(body.Descriptor().Fields().ByName("metadata"))
		return r
	}
	return nil
}

// body is the Tenant, Port … inside r; nil when r holds none.
func body(r *weftv1.Resource) protoreflect.Message {
	m := r.ProtoReflect()
	f := m.WhichOneof(m.Descriptor().Oneofs().ByName("kind"))
	if f == nil {
		return nil
	}
	return m.Get(f).Message()
}

// Kind of r as manifests write it, or "" when r holds none.
func Kind(r *weftv1.Resource) string {
	if b := body(r); b != nil {
		return string(b.Descriptor().Name())
	}
	return ""
}

// Meta is the metadata of r; nil when it has none.
func Meta(r *weftv1.Resource) *weftv1.Metadata {
	m, _ := member(r, "metadata").(*weftv1.Metadata)
	return m
}

// Status is what the system says of r; nil when it says nothing.
func Status(r *weftv1.Resource) *weftv1.Status {
	s, _ := member(r, "status").(*weftv1.Status)
	return s
}

func member(r *weftv1.Resource, name protoreflect.Name) any {
	b := body(r)
	if b == nil {
		return nil
	}
	f := b.Descriptor().Fields().ByName(name)
	if f == nil || !b.Has(f) {
		return nil
	}
	return b.Get(f).Message().Interface()
}

// Key names r.
func Key(r *weftv1.Resource) *weftv1.Key {
	return &weftv1.Key{Kind: Kind(r), Tenant: Meta(r).GetTenant(), Name: Meta(r).GetName()}
}

// KeyString reads "Port red/web-1", or "Tenant red".
func KeyString(k *weftv1.Key) string {
	if k.GetTenant() == "" {
		return k.GetKind() + " " + k.GetName()
	}
	return k.GetKind() + " " + k.GetTenant() + "/" + k.GetName()
}

// Condition of r by its type; nil when there is none.
func Condition(r *weftv1.Resource, name string) *weftv1.Condition {
	for _, c := range Status(r).GetConditions() {
		if c.GetType() == name {
			return c
		}
	}
	return nil
}
