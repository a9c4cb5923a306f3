package convert

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/intent"
	"github.com/weft-sdn/weft/internal/model"
)

// world holds one of each kind.
func world(t testing.TB) []*weftv1.Resource {
	m := &weftv1.ApplyRequest{}
	if err := protojson.Unmarshal([]byte(`{"resources":[
		{"tenant":{"metadata":{"name":"red"},"spec":{"description":"d"}}},
		{"host":{"metadata":{"name":"h1","labels":{"a":"b"}},"spec":{"uplinkBandwidth":"1000000000"}}},
		{"providerAddress":{"metadata":{"name":"pa1"},"spec":{"host":"h1","address":"192.0.2.1"}}},
		{"providerRoute":{"metadata":{"name":"h1-east"},"spec":{"host":"h1","prefix":"198.51.100.0/24","nextHop":"192.0.2.254","interface":"eth1","metric":7}}},
		{"addressGroup":{"metadata":{"tenant":"red","name":"office"},"spec":{"prefixes":["10.9.0.0/16","fd00::/8"],"ports":{"role":"web"}}}},
		{"addressGroup":{"metadata":{"tenant":"red","name":"all"},"spec":{"groups":["office"]}}},
		{"accessList":{"metadata":{"tenant":"red","name":"in"},"spec":{"tier":"administrator","mode":"audit","default":{"inbound":"deny"},"rules":[
			{"name":"https","direction":"inbound","action":"allow","log":true,"protocol":"tcp","remote":{"prefixes":["10.0.0.0/8"],"groups":["all"]},"localPorts":["443","8000-8100"],
			 "remotePorts":["1024-65535"],"weight":65535,"stateful":true,"idleTimeout":"4m15s","source":"a.yaml:7"},
			{"name":"ping","direction":"both","action":"pass","protocol":"icmp","local":{"groups":["office"]},"icmpType":8,"icmpCode":0},
			{"name":"mac","direction":"outbound","action":"meter","protocol":"any","localMAC":"02:00:00:00:00:01","remoteMAC":"ff:ff:ff:ff:ff:ff"}]}}},
		{"virtualNetwork":{"metadata":{"tenant":"red","name":"prod"},"spec":{"accessLists":["in"],"rdid":"7d3c1f9e-2b64-4c0a-9f57-0a1b2c3d4e5f"}}},
		{"virtualSubnet":{"metadata":{"tenant":"red","name":"web"},"spec":{"network":"prod","vsid":5001,"prefixes":["10.0.0.0/24","fd00:a::/64"],"gateway":["10.0.0.1"],"accessLists":["in"]}}},
		{"port":{"metadata":{"tenant":"red","name":"web-1"},"spec":{"subnet":"web","mac":"02:00:00:00:00:01","addresses":["10.0.0.5","fd00:a::5"],"host":"h1","allowSpoofing":true}}},
		{"portProfile":{"metadata":{"tenant":"red","name":"vm"},"spec":{"allowSpoofing":false,"dhcpGuard":true,"routerGuard":false,"allowTeaming":true,"ieeePriorityTag":true,
			"stormLimit":10,"dynamicAddressLimit":0,"forwarding":false,"connectionLimit":7,"allowedAddresses":[{"prefix":"10.9.0.0/16","mac":"02:00:00:00:00:05"}],
			"isolation":{"mode":"community","community":"c"},
			"bandwidth":{"outbound":{"maximum":8000000,"burst":3000,"weight":5}},"mirrors":[{"destination":"web-1","direction":"inbound","snapLength":128,"rateLimit":5,"protocol":"tcp","prefix":"10.0.0.0/24","port":443}]}}},
		{"port":{"metadata":{"tenant":"red","name":"web-2"},"spec":{"subnet":"web","profile":"vm","mac":"02:00:00:00:00:02","addresses":["10.0.0.6"],"dhcpGuard":false,"accessLists":["in"],"none":["allowedAddresses","mirrors"],
			"acl":[{"action":"deny","direction":"both","remoteAddress":"any"},{"action":"allow","direction":"inbound","localAddress":"10.0.0.6/32"},{"action":"deny","direction":"outbound","remoteMAC":"02:00:00:00:00:07"}]}}},
		{"externalNetwork":{"metadata":{"name":"lan"},"spec":{"interfaces":[{"hosts":["h1","h2"],"interface":"eth1"},{"labels":{"rack":"a"},"interface":"eth2"},{"interface":"eth3"}],"tenants":["red","*"]}}},
		{"portProfile":{"metadata":{"tenant":"red","name":"trunks"},"spec":{"vlan":{"network":"lan","mode":"trunk","allowed":["5","10-20"],"prune":["12"],"native":7}}}},
		{"port":{"metadata":{"tenant":"red","name":"lan-1"},"spec":{"mac":"02:00:00:00:00:03",
			"vlan":{"network":"lan","mode":"private","private":{"mode":"promiscuous","primary":100,"secondaries":[101,102]}}}}},
		{"customerRoute":{"metadata":{"tenant":"red","name":"out"},"spec":{"network":"prod","prefix":"0.0.0.0/0","nextHop":"10.0.0.5","metric":10}}},
		{"lookupRecord":{"metadata":{"tenant":"red","name":"box"},"spec":{"subnet":"web","customerAddress":"10.0.0.9","mac":"02:00:00:00:00:09","providerAddress":"198.51.100.1"}}}]}`), m); err != nil {
		t.Fatal(err)
	}
	return m.Resources
}

// FuzzApply feeds what a client may send, as protobuf or JSON, through reading and
// admission. Whatever comes: no crash, violations that name something, and what is
// admitted can be shown, read back and admitted again without a change.
func FuzzApply(f *testing.F) {
	for _, set := range [][]*weftv1.Resource{world(f), {{}}} {
		m := &weftv1.ApplyRequest{Resources: set}
		b, _ := proto.Marshal(m)
		j, _ := protojson.Marshal(m)
		f.Add(b, false)
		f.Add(j, true)
	}
	f.Add([]byte(`{"resources":[{"port":{"metadata":{"tenant":"red","name":"p","revision":"-1"},"spec":{"addresses":["fe80::1%x",""],"mac":"00:00:00:00:00:00"}}}]}`), true)
	f.Add([]byte(`{"resources":[{"lookupRecord":{"metadata":{"tenant":"red","name":"port:a:b"},"status":{"derived":true}}},{"host":null}]}`), true)
	existing, _ := ReadResources(world(f))
	f.Fuzz(func(t *testing.T, data []byte, isJSON bool) {
		m := &weftv1.ApplyRequest{}
		unmarshal := func(b []byte) error { return proto.Unmarshal(b, m) }
		if isJSON {
			unmarshal = func(b []byte) error { return strictJSON{}.Unmarshal(b, m) }
		}
		if unmarshal(data) != nil {
			return
		}
		puts, unread := ReadResources(m.Resources)
		for _, v := range unread {
			if v.Message == "" || (v.Field == "" && v.Key == (model.Key{})) {
				t.Fatalf("a violation that names nothing: %+v", v)
			}
		}
		state := intent.NewState()
		admitInto(t, state, existing)
		res, violations := intent.Admit(state, puts, nil, fuzzAllocator())
		for _, v := range violations {
			if v.Message == "" {
				t.Fatalf("a violation that says nothing: %+v", v)
			}
		}
		if len(violations) > 0 || len(unread) > 0 {
			return
		}
		state.Apply(res.Puts, nil, res.Cursors, 2)
		checkRoundTrip(t, state)
	})
}

func admitInto(t *testing.T, state *intent.State, set []model.Resource) {
	res, v := intent.Admit(state, set, nil, fuzzAllocator())
	if len(v) > 0 {
		t.Fatal(v)
	}
	state.Apply(res.Puts, nil, res.Cursors, 1)
}

func checkRoundTrip(t *testing.T, state *intent.State) {
	var shown []*weftv1.Resource
	for _, r := range state.All() {
		shown = append(shown, WriteResource(r, nil))
	}
	again, v := ReadResources(shown)
	if len(v) > 0 {
		t.Fatalf("what is shown cannot be read: %v", v)
	}
	res, v := intent.Admit(state, again, nil, fuzzAllocator())
	if len(v) > 0 {
		t.Fatalf("what is shown is refused: %v", v)
	}
	if len(res.Puts) > 0 {
		t.Fatalf("what is shown is something else: %v", res.Changes)
	}
}

// fuzzAllocator counts, so that a finding can be repeated.
func fuzzAllocator() intent.Allocator {
	n := 0
	return intent.Allocator{Now: time.Unix(1, 0),
		GUID: func() string { n++; return fmt.Sprintf("00000000-0000-4000-8000-%012x", n) },
		MAC:  func() model.MAC { n++; return model.MAC{2, 1, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }}
}
