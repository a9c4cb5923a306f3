package convert

import (
	"fmt"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// strictJSON refuses fields that the API does not know; connect's own codec drops them.
type strictJSON struct{ name string }

// strictBinary refuses requests with fields that the API does not know: one may be what
// a newer client calls a dry run. Resources are left to ReadResources, which says where.
type strictBinary struct{}

// StrictCodecs replaces the codecs of connect, JSON's under both its names.
func StrictCodecs() []connect.HandlerOption {
	return []connect.HandlerOption{connect.WithCodec(strictJSON{"json"}), connect.WithCodec(strictJSON{"json; charset=utf-8"}), connect.WithCodec(strictBinary{})}
}

func (strictBinary) Name() string { return "proto" }

func (strictBinary) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("encode %T: not a protobuf message", v)
	}
	return proto.Marshal(m)
}

func (strictBinary) Unmarshal(data []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("decode %T: not a protobuf message", v)
	}
	if err := proto.Unmarshal(data, m); err != nil {
		return err
	}
	if field := unknownField(m.ProtoReflect(), ""); field != "" {
		return fmt.Errorf("%s: holds fields that this server does not know; upgrade the server or use an older client", field)
	}
	return nil
}

func (c strictJSON) Name() string { return c.name }

func (strictJSON) Marshal(v any) ([]byte, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("encode %T: not a protobuf message", v)
	}
	return protojson.Marshal(m)
}

func (strictJSON) Unmarshal(data []byte, v any) error {
	m, ok := v.(proto.Message)
	if !ok {
		return fmt.Errorf("decode %T: not a protobuf message", v)
	}
	if len(data) == 0 {
		return nil
	}
	return protojson.Unmarshal(data, m)
}
