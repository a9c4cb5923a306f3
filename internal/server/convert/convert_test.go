package convert

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

func TestWhatIsReadIsWrittenTheSame(t *testing.T) {
	for _, p := range world(t) {
		rs, v := ReadResources([]*weftv1.Resource{p})
		if len(v) > 0 {
			t.Fatal(v)
		}
		if back := WriteResource(rs[0], nil); !proto.Equal(clean(p), clean(back)) {
			t.Errorf("%v became %v", p, back)
		}
	}
}

// clean makes an absent spec an empty one.
func clean(p *weftv1.Resource) proto.Message {
	p = proto.CloneOf(p)
	p.ProtoReflect().Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		m := v.Message()
		m.Mutable(m.Descriptor().Fields().ByName("spec"))
		return true
	})
	return p
}

func TestWhatCannotBeReadIsNamedByItsPath(t *testing.T) {
	for text, want := range map[string]string{
		`{"providerAddress":{"metadata":{"name":"p"},"spec":{"host":"h","address":"1.2.3"}}}`:             "spec.address",
		`{"virtualSubnet":{"metadata":{"tenant":"t","name":"s"},"spec":{"prefixes":["10.0.0.0/8","x"]}}}`: "spec.prefixes[1]",
		`{"virtualSubnet":{"metadata":{"tenant":"t","name":"s"},"spec":{"gateway":["10.0.0.0/8"]}}}`:      "spec.gateway[0]",
		`{"port":{"metadata":{"tenant":"t","name":"p"},"spec":{"addresses":[""]}}}`:                       "spec.addresses[0]",
		`{"port":{"metadata":{"tenant":"t","name":"p"},"spec":{"mac":"02:00"}}}`:                          "spec.mac",
		`{"port":{"metadata":{"tenant":"t","name":"p"},"spec":{"mac":"00:00:00:00:00:00"}}}`:              "spec.mac",
		`{"port":{"metadata":{"tenant":"t","name":"p","revision":"-1"}}}`:                                 "metadata.revision",
		`{"port":{}}`: "metadata",
		`{"addressGroup":{"metadata":{"tenant":"t","name":"g"},"spec":{"prefixes":["10.0.0.0/8","x"]}}}`:                                             "spec.prefixes[1]",
		`{"accessList":{"metadata":{"tenant":"t","name":"l"},"spec":{"rules":[{},{"localPorts":["80","80-x"],"weight":65536,"icmpType":256}]}}}`:     "spec.rules[1].localPorts[1] spec.rules[1].icmpType spec.rules[1].weight",
		`{"accessList":{"metadata":{"tenant":"t","name":"l"},"spec":{"rules":[{"remote":{"prefixes":["a"]},"localMAC":"2","idleTimeout":"long"}]}}}`: "spec.rules[0].remote.prefixes[0] spec.rules[0].localMAC spec.rules[0].idleTimeout",
		`{"port":{"metadata":{"tenant":"t","name":"p"},"spec":{"acl":[{"remoteAddress":"10.0.0.5"},{"remoteAddress":"all"}]}}}`:                      "spec.acl[1].remoteAddress",
		`{"portProfile":{"metadata":{"tenant":"t","name":"p"},"spec":{"vlan":{"id":65536,"allowed":["1-2-3"]},"allowedAddresses":[{}]}}}`:            "spec.allowedAddresses[0].prefix spec.vlan.id spec.vlan.allowed[0]",
		`{"customerRoute":{"metadata":{"tenant":"t","name":"p"},"spec":{"prefix":"10.0.0.0","nextHop":"y"}}}`:                                        "spec.prefix spec.nextHop",
		`{"port":{"metadata":{"tenant":"t","name":"p"},"spec":{"none":["vlan","mirrors"],"mirrors":[{"destination":"x"}]}}}`:                         "spec.none[0] spec.none[1]",
		`{}`: "resources[0]",
	} {
		p := &weftv1.Resource{}
		if err := protojson.Unmarshal([]byte(text), p); err != nil {
			t.Fatal(err)
		}
		_, v := ReadResources([]*weftv1.Resource{p})
		var fields []string
		for _, one := range v {
			fields = append(fields, one.Field)
		}
		if strings.Join(fields, " ") != want {
			t.Errorf("%s: %v, want %s", text, v, want)
		}
	}
}

func TestFieldsThatThisBuildDoesNotKnowAreRefused(t *testing.T) {
	p := world(t)[11]
	p.GetPort().Spec.ProtoReflect().SetUnknown([]byte{0xf8, 0x7f, 0x01})
	_, v := ReadResources([]*weftv1.Resource{p})
	if len(v) != 1 || v[0].Field != "spec" {
		t.Errorf("binary: %v", v)
	}
	l := world(t)[6]
	l.GetAccessList().Spec.Rules[1].ProtoReflect().SetUnknown([]byte{0xf8, 0x7f, 0x01})
	if _, v := ReadResources([]*weftv1.Resource{l}); len(v) != 1 || v[0].Field != "spec.rules[1]" {
		t.Errorf("in a list: %v", v)
	}
	request, _ := proto.Marshal(&weftv1.ApplyRequest{})
	err := strictBinary{}.Unmarshal(append(request, 0xf8, 0x7f, 0x01), &weftv1.ApplyRequest{})
	if err == nil || !strings.Contains(err.Error(), "ApplyRequest: holds fields that this server does not know") {
		t.Errorf("binary request: %v", err)
	}
	whole, _ := proto.Marshal(&weftv1.ApplyRequest{Resources: []*weftv1.Resource{p}, DryRun: true})
	if err := (strictBinary{}).Unmarshal(whole, &weftv1.ApplyRequest{}); err != nil {
		t.Errorf("resources say it themselves: %v", err)
	}
	err = strictJSON{}.Unmarshal([]byte(`{"resources":[{"port":{"metadata":{"name":"x"},"sepc":{}}}]}`), &weftv1.ApplyRequest{})
	if err == nil || !strings.Contains(fmt.Sprint(err), "sepc") {
		t.Errorf("JSON: %v", err)
	}
}
