package goal

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/weft-sdn/weft/internal/model"
)

func TestListsAndGroupsHaveOneForm(t *testing.T) {
	l := &List{Ref: model.Ref{Tenant: "red", Name: "in"}, Tier: model.TierTenant, Mode: model.ModeEnforce, Rules: []model.AccessRule{
		{Name: "https", Direction: model.Inbound, Action: model.ActionAllow, Protocol: "tcp", LocalPorts: []model.Range{{First: 443, Last: 443}}, ICMPType: new(uint8(0))}}}
	whole := l.Encode()
	back, err := DecodeList(whole)
	if err != nil || !back.Equal(l) || back.Digest() != l.Digest() || back.Digest() != l.Seal().Digest() {
		t.Fatalf("%v %+v", err, back)
	}
	for _, b := range [][]byte{nil, []byte("{}"), whole[:len(whole)-1], append(whole[:len(whole):len(whole)], ' '), append([]byte(" "), whole...), make([]byte, MaxList+1),
		[]byte(`{"ref":{"Tenant":"red","Name":"in"},"tier":"tenant","mode":"enforce","rules":[{"name":"a","direction":"both","action":"deny","protocol":"ipx"}]}`),
		[]byte(`{"ref":{"Tenant":"red","Name":"in"},"tier":"tenant","mode":"enforce","rules":[{"name":"a","direction":"both","action":"deny","remote":{"prefixes":["10.0.0.1/8"]}}]}`),
		[]byte(`{"ref":{"Tenant":"red","Name":"in"},"tier":"tenant","mode":"enforce","what":1}`)} {
		if _, err := DecodeList(b); !errors.Is(err, ErrRow) {
			t.Errorf("%.80q: %v", b, err)
		}
	}
	g := &Group{Ref: model.Ref{Tenant: "red", Name: "office"}, Prefixes: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/8")}}
	whole = g.Encode()
	other, err := DecodeGroup(whole)
	if err != nil || !other.Equal(g) || other.Digest() != g.Digest() {
		t.Fatalf("%v %+v", err, other)
	}
	unsorted := &Group{Ref: g.Ref, Prefixes: []netip.Prefix{g.Prefixes[1], g.Prefixes[0]}}
	for _, b := range [][]byte{nil, whole[:len(whole)-1], append(whole[:len(whole):len(whole)], 0), unsorted.Encode(), (&Group{}).Encode()} {
		if _, err := DecodeGroup(b); !errors.Is(err, ErrRow) {
			t.Errorf("%.80q: %v", b, err)
		}
	}
}
