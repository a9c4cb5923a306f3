package manifest

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/model"
)

// surface is the example of the documented surface, word for word.
const surface = `
kind: Tenant
metadata: {name: red}
---
kind: VirtualNetwork            # one routing domain (RDID)
metadata: {tenant: red, name: prod}
---
kind: VirtualSubnet             # one VSID, one broadcast boundary
metadata: {tenant: red, name: web}
spec:
  network: prod
  vsid: 5001                    # optional: allocated when absent
  prefixes: [10.0.0.0/24, "fd00:a::/64"]
  gateway: [10.0.0.1, "fd00:a::1"]   # optional: first usable address
  transport: nvgre              # nvgre | vxlan | rewrite
---
kind: Port                      # where one VM NIC meets the switch
metadata: {tenant: red, name: web-1}
spec:
  subnet: web
  mac: "02:00:00:00:00:01"      # optional: allocated
  addresses: [10.0.0.5, "fd00:a::5"] # CAs; optional: allocated from the subnet
  host: h1                      # optional: bound by the first plug
`

func surfaceResources() []*weftv1.Resource {
	return []*weftv1.Resource{
		{Kind: &weftv1.Resource_Tenant{Tenant: &weftv1.Tenant{Metadata: &weftv1.Metadata{Name: "red"}}}},
		{Kind: &weftv1.Resource_VirtualNetwork{VirtualNetwork: &weftv1.VirtualNetwork{Metadata: &weftv1.Metadata{Tenant: "red", Name: "prod"}}}},
		{Kind: &weftv1.Resource_VirtualSubnet{VirtualSubnet: &weftv1.VirtualSubnet{
			Metadata: &weftv1.Metadata{Tenant: "red", Name: "web"},
			Spec: &weftv1.VirtualSubnetSpec{Network: "prod", Vsid: 5001, Prefixes: []string{"10.0.0.0/24", "fd00:a::/64"},
				Gateway: []string{"10.0.0.1", "fd00:a::1"}, Transport: "nvgre"},
		}}},
		{Kind: &weftv1.Resource_Port{Port: &weftv1.Port{
			Metadata: &weftv1.Metadata{Tenant: "red", Name: "web-1"},
			Spec:     &weftv1.PortSpec{Subnet: "web", Mac: "02:00:00:00:00:01", Addresses: []string{"10.0.0.5", "fd00:a::5"}, Host: "h1"},
		}}},
	}
}

func TestParseReadsTheDocumentedSurface(t *testing.T) {
	got, err := Parse([]byte(surface))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(surfaceResources(), got, protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestParseReadsJSON(t *testing.T) {
	const text = "{\n\t\"kind\": \"Port\",\n\t\"metadata\": {\"tenant\": \"red\", \"name\": \"web-1\", \"revision\": \"7\"},\n\t\"spec\": {\"addresses\": [\"10.0.0.5\"], \"allowSpoofing\": true}\n}\n"
	got, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []*weftv1.Resource{{Kind: &weftv1.Resource_Port{Port: &weftv1.Port{
		Metadata: &weftv1.Metadata{Tenant: "red", Name: "web-1", Revision: 7},
		Spec:     &weftv1.PortSpec{Addresses: []string{"10.0.0.5"}, AllowSpoofing: new(true)},
	}}}}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestParseNamesWhatIsWrong(t *testing.T) {
	cases := []struct{ name, text, want string }{
		{"unknown field with a near name", "kind: Port\nmetadata: {tenant: red, name: a}\nspec:\n  adresses: [10.0.0.5]\n",
			`document 1, line 4: spec.adresses: unknown field, did you mean "addresses"?`},
		{"protobuf spelling", "kind: CustomerRoute\nmetadata: {tenant: red, name: a}\nspec:\n  next_hop: 10.0.0.5\n",
			`document 1, line 4: spec.next_hop: unknown field, did you mean "nextHop"?`},
		{"unknown field without one", "kind: Port\nmetadata: {tenant: red, name: a}\nspec:\n  zzz: 1\n",
			"document 1, line 4: spec.zzz: unknown field; known here: subnet, mac, addresses, host, profile, allowSpoofing"},
		{"unknown field at the top", "kind: Tenant\nmetadata: {name: red}\nspecs: {}\n",
			`document 1, line 3: specs: unknown field, did you mean "spec"?`},
		{"second document", "kind: Tenant\nmetadata: {name: red}\n---\nkind: Tenant\nmetadata: {nam: blue}\n",
			`document 2, line 5: metadata.nam: unknown field, did you mean "name"?`},
		{"unknown kind", "kind: Prot\nmetadata: {name: red}\n",
			`document 1, line 1: kind: unknown kind "Prot", did you mean "Port"?; kinds are Tenant, Host, ProviderAddress, ProviderRoute, ExternalNetwork, AddressGroup, AccessList, VirtualNetwork, VirtualSubnet, PortProfile, Port, CustomerRoute, LookupRecord`},
		{"no kind", "metadata: {name: red}\n",
			"document 1, line 1: kind: missing: one of Tenant, Host, ProviderAddress, ProviderRoute, ExternalNetwork, AddressGroup, AccessList, VirtualNetwork, VirtualSubnet, PortProfile, Port, CustomerRoute, LookupRecord"},
		{"no name", "kind: Tenant\n", "document 1, line 1: metadata.name: missing: every resource needs a name"},
		{"number for text", "kind: Tenant\nmetadata: {name: 7}\n",
			"document 1, line 2: metadata.name: must be text, and is the number 7: put it in quotes"},
		{"text for number", "kind: VirtualSubnet\nmetadata: {name: a}\nspec: {vsid: lots}\n",
			`document 1, line 3: spec.vsid: must be a whole number, and is "lots"`},
		{"fraction", "kind: VirtualSubnet\nmetadata: {name: a}\nspec: {vsid: 5001.5}\n",
			"document 1, line 3: spec.vsid: must be a whole number, and is the number 5001.5"},
		{"negative", "kind: VirtualSubnet\nmetadata: {name: a}\nspec: {vsid: -1}\n",
			"document 1, line 3: spec.vsid: must be a whole number from 0 to 4294967295, and is the number -1"},
		{"33 bits", "kind: VirtualSubnet\nmetadata: {name: a}\nspec: {vsid: 4294967296}\n",
			"document 1, line 3: spec.vsid: must be a whole number from 0 to 4294967295, and is the number 4294967296"},
		{"65 bits", "kind: VirtualSubnet\nmetadata: {name: a}\nspec: {vsid: 36893488147419103232}\n",
			"document 1, line 3: spec.vsid: must be a whole number"},
		{"text for truth", "kind: Port\nmetadata: {name: a}\nspec: {allowSpoofing: \"yes\"}\n",
			`document 1, line 3: spec.allowSpoofing: must be true or false, and is "yes"`},
		{"one value for a list", "kind: Port\nmetadata: {name: a}\nspec:\n  addresses: 10.0.0.5\n",
			`document 1, line 4: spec.addresses: must be a list, and is "10.0.0.5"`},
		{"mapping in a list", "kind: Port\nmetadata: {name: a}\nspec:\n  addresses:\n  - 10.0.0.5\n  - {a: b}\n",
			"document 1, line 6: spec.addresses[1]: must be text, and is a mapping"},
		{"nothing in a list", "kind: Port\nmetadata: {name: a}\nspec:\n  addresses:\n  -\n",
			"document 1, line 5: spec.addresses[0]: must be text, and is empty"},
		{"list for a mapping", "kind: Port\nmetadata: {name: a}\nspec: []\n",
			"document 1, line 3: spec: must be a mapping, and is a list"},
		{"twice", "kind: Port\nmetadata: {name: a}\nspec:\n  host: h1\n  host: h2\n",
			"document 1, line 5: spec.host: is there twice"},
		{"kind twice", "kind: Port\nkind: Tenant\nmetadata: {name: a}\n", "document 1, line 2: kind: is there twice"},
		{"alias", "kind: Port\nmetadata: {name: &n a}\nspec: {host: *n}\n",
			"document 1, line 2: metadata.name: must be text, and is an anchor, which is not read: write the value out"},
		{"merge", "kind: Port\nmetadata: {name: a}\nspec:\n  <<: {host: h1}\n",
			"document 1, line 4: spec: keys must be plain text; anchors, aliases and merges are not read"},
		{"label", "kind: Tenant\nmetadata: {name: a, labels: {gold: true}}\n",
			"document 1, line 2: metadata.labels.gold: must be text, and is the truth value true: put it in quotes"},
		{"time", "kind: Tenant\nmetadata: {name: a, createdAt: yesterday}\n",
			`document 1, line 2: metadata.createdAt: must be a time such as 2026-01-31T12:00:00Z, and is "yesterday"`},
		{"syntax", "kind: Tenant\nmetadata: {name: red\n", "document 1, line "},
		{"scalar document", "hello\n", `document 1, line 1: must be a resource with kind, metadata and spec, and is "hello"`},
		{"list document", "- kind: Tenant\n", "document 1, line 1: must be a resource with kind, metadata and spec, and is a list"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			got, err := Parse([]byte(c.text))
			if err == nil {
				t.Fatalf("accepted as %v", got)
			}
			if got != nil {
				t.Errorf("resources beside an error: %v", got)
			}
			if !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("\n got %s\nwant %s", err, c.want)
			}
		})
	}
}

func TestParseReportsEveryFinding(t *testing.T) {
	_, err := Parse([]byte("kind: Port\nmetadata: {name: a}\nspec:\n  hst: h1\n  subnet: 5\n---\nkind: Nope\n"))
	found, ok := err.(Errors)
	if !ok || len(found) != 3 {
		t.Fatalf("want 3 findings, got %v", err)
	}
	if found[2].Document != 2 || found[2].Path != "kind" || found[2].Line != 7 {
		t.Errorf("third finding: %+v", found[2])
	}
}

func TestParseSkipsEmptyDocuments(t *testing.T) {
	got, err := Parse([]byte("---\n# nothing\n---\nkind: Tenant\nmetadata: {name: red}\n---\n"))
	if err != nil || len(got) != 1 {
		t.Fatalf("got %v, %v", got, err)
	}
}

func TestParseLeavesStatusToTheSystem(t *testing.T) {
	got, err := Parse([]byte("kind: Port\nmetadata: {name: a}\nstatus: {host: h9, rollout: {desired: 3}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if Status(got[0]) != nil {
		t.Errorf("status read from a manifest: %v", got[0])
	}
	if _, err := Parse([]byte("kind: Port\nmetadata: {name: a}\nstatus: {hots: h9}\n")); err == nil {
		t.Error("an unknown field in status passed")
	}
}

func TestFormatIsTidyAndReadsBack(t *testing.T) {
	r := &weftv1.Resource{Kind: &weftv1.Resource_Port{Port: &weftv1.Port{
		Metadata: &weftv1.Metadata{Tenant: "red", Name: "true", Generation: 2, Revision: 9, Labels: map[string]string{"b": "1", "a": "yes"},
			CreatedAt: timestamppb.New(time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC))},
		Spec: &weftv1.PortSpec{Subnet: "web", Mac: "02:00:00:00:00:01", Addresses: []string{"10.0.0.5", "fd00:a::5"}},
		Status: &weftv1.Status{Conditions: []*weftv1.Condition{{Type: "Accepted", Status: "True", Reason: "Valid", ObservedGeneration: 2}},
			Rollout: &weftv1.Rollout{Desired: 2, Current: 1}},
	}}}
	got, err := Format(r)
	if err != nil {
		t.Fatal(err)
	}
	const want = `kind: Port
metadata:
  tenant: red
  name: "true"
  labels:
    a: "yes"
    b: "1"
  generation: 2
  revision: 9
  createdAt: 2026-01-31T12:00:00Z
spec:
  subnet: web
  mac: "02:00:00:00:00:01"
  addresses: [10.0.0.5, "fd00:a::5"]
status:
  conditions:
    - type: Accepted
      status: "True"
      reason: Valid
      observedGeneration: 2
  rollout:
    desired: 2
    current: 1
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	back, err := Parse(got)
	if err != nil {
		t.Fatal(err)
	}
	r.GetPort().Status = nil
	if diff := cmp.Diff(r, back[0], protocmp.Transform()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestRulesKnowWhereTheyAreWritten(t *testing.T) {
	const text = `kind: AccessList
metadata: {tenant: red, name: in}
spec:
  rules:
  - name: https
    direction: inbound
    action: allow
    localPorts: ["443"]
    icmpType: 0
  - {direction: both, action: deny, source: "elsewhere:1"}
`
	got, err := ParseFile("policy/red.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	rules := got[0].GetAccessList().GetSpec().GetRules()
	if rules[0].GetSource() != "policy/red.yaml:5" || rules[1].GetSource() != "policy/red.yaml:10" || rules[0].IcmpType == nil {
		t.Errorf("%v", rules)
	}
	// What is not a file is nowhere.
	if got, err = Parse([]byte(text)); err != nil || got[0].GetAccessList().GetSpec().GetRules()[0].GetSource() != "" {
		t.Errorf("%v %v", got, err)
	}
	back, err := Format(got...)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(back)
	if diff := cmp.Diff(got, again, protocmp.Transform()); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestKindsAreTheModels(t *testing.T) {
	for i, k := range model.Kinds {
		if Kinds()[i] != string(k) {
			t.Errorf("kind %d is %s here and %s in the model", i, Kinds()[i], k)
		}
		if got := Kind(New(string(k))); got != string(k) {
			t.Errorf("New(%s) is a %q", k, got)
		}
	}
	if len(Kinds()) != len(model.Kinds) {
		t.Errorf("%d kinds here, %d in the model", len(Kinds()), len(model.Kinds))
	}
}

// FuzzParse: whatever comes in, Parse neither panics nor accepts what Format
// and Parse do not carry back unchanged.
func FuzzParse(f *testing.F) {
	f.Add([]byte(surface))
	f.Add([]byte(`{"kind":"Tenant","metadata":{"name":"red","labels":{"a":"b"}}}`))
	f.Add([]byte("kind: Port\nmetadata: {name: &a b, createdAt: 2026-01-31T12:00:00Z}\nspec: {addresses: [*a]}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		first, err := Parse(data)
		if err != nil {
			if err.Error() == "" {
				t.Fatal("an error that says nothing")
			}
			return
		}
		text, err := Format(first...)
		if err != nil {
			t.Fatalf("format: %v", err)
		}
		second, err := Parse(text)
		if err != nil {
			t.Fatalf("parse of own output: %v\n%s", err, text)
		}
		if len(first) != len(second) {
			t.Fatalf("%d resources became %d:\n%s", len(first), len(second), text)
		}
		for i := range first {
			if !proto.Equal(first[i], second[i]) {
				t.Fatalf("resource %d changed:\n%v\n%v\n%s", i, first[i], second[i], text)
			}
		}
	})
}

// An empty list of a port is not the same as none: it is kept, and written again.
func TestEmptyListsAreKept(t *testing.T) {
	const text = `kind: Port
metadata:
  tenant: red
  name: web-1
spec:
  profile: vm
  allowedAddresses: []
  mirrors: []
  accessLists: [in]
`
	got, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if none := got[0].GetPort().GetSpec().GetNone(); !cmp.Equal(none, []string{"allowedAddresses", "mirrors"}) {
		t.Errorf("empty are %q", none)
	}
	back, err := Format(got...)
	if err != nil || string(back) != text {
		t.Errorf("written as\n%s, %v", back, err)
	}
	again, err := Parse(back)
	if err != nil || !proto.Equal(again[0], got[0]) {
		t.Errorf("read again as %v, %v", again, err)
	}
	if _, err := Parse([]byte("kind: Port\nmetadata: {tenant: red, name: web-1}\nspec: {none: [mirrors]}\n")); err == nil || !strings.Contains(err.Error(), "unknown field") {
		t.Errorf("the field that manifests do not have: %v", err)
	}
	if got, err := Parse([]byte("kind: Port\nmetadata: {tenant: red, name: web-1}\nspec: {addresses: [], mirrors: null}\n")); err != nil || got[0].GetPort().GetSpec().GetNone() != nil {
		t.Errorf("what no profile has, and what is null: %v, %v", got, err)
	}
}
