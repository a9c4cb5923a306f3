package intent

import (
	"fmt"
	"maps"
	"net/netip"
	"regexp"
	"slices"

	"github.com/weft-sdn/weft/internal/model"
)

// rules is what admission asks of a kind; one file per resource answers.
type rules interface {
	// clone copies r deeply, with empty slices as nil.
	clone(r model.Resource) model.Resource
	// inherit carries over from old what the system wrote and what people may
	// leave out; old is nil for a new resource.
	inherit(r, old model.Resource)
	// check judges r by itself and by what it refers to, and claims what it names.
	check(a *admission, r, old model.Resource)
	// allocate fills in what is still missing. Only called if check was content.
	allocate(a *admission, r model.Resource)
	// relate checks r, or its deletion (r nil), against its neighbours when the whole set is in place.
	relate(a *admission, r, old model.Resource)
	// claims that r holds; get finds what it refers to.
	claims(get func(model.Key) model.Resource, r model.Resource) []claim
	// parents are the resources that may not go while r is there.
	parents(r model.Resource) []model.Key
	// sameSpec reports whether two resources mean the same.
	sameSpec(a, b model.Resource) bool
}

var rulesOf = map[model.Kind]rules{
	model.KindTenant:          tenantRules{},
	model.KindHost:            hostRules{},
	model.KindProviderAddress: providerAddressRules{},
	model.KindProviderRoute:   providerRouteRules{},
	model.KindExternalNetwork: externalNetworkRules{},
	model.KindVirtualNetwork:  virtualNetworkRules{},
	model.KindVirtualSubnet:   virtualSubnetRules{},
	model.KindAddressGroup:    addressGroupRules{},
	model.KindAccessList:      accessListRules{},
	model.KindPortProfile:     portProfileRules{},
	model.KindPort:            portRules{},
	model.KindCustomerRoute:   customerRouteRules{},
	model.KindLookupRecord:    lookupRecordRules{},
}

// Bounds of what people may write.
const (
	MaxSet         = 50000 // resources in one set
	maxName        = 63
	maxText        = 1024 // bytes of a description
	maxLabels      = 64
	maxLabelKey    = 128
	maxLabelValue  = 256
	maxAddresses   = 16 // CAs of one port
	maxLearned     = 64 // learned CAs of one port
	maxMACAttempts = 100

	maxRewritePrefixes = 64 // of one host
)

var namePattern = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

const nameRule = "use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"

// ValidName reports whether s may name a resource, tenant or host.
func ValidName(s string) bool { return len(s) <= maxName && namePattern.MatchString(s) }

func (a *admission) checkMeta(r model.Resource) {
	k, m := model.KeyOf(r), r.Meta()
	if !ValidName(m.Name) {
		a.fail(k, "metadata.name", "%q is not a name: %s", m.Name, nameRule)
	}
	switch {
	case k.Kind.Tenanted() && m.Tenant == "":
		a.fail(k, "metadata.tenant", "is required: a %s belongs to a tenant", k.Kind)
	case !k.Kind.Tenanted() && m.Tenant != "":
		a.fail(k, "metadata.tenant", "must be empty: a %s belongs to no tenant", k.Kind)
	case m.Tenant != "" && !ValidName(m.Tenant):
		a.fail(k, "metadata.tenant", "%q is not a name: %s", m.Tenant, nameRule)
	case k.Kind.Tenanted() && a.get(tenantKey(m.Tenant)) == nil:
		a.fail(k, "metadata.tenant", "tenant %q does not exist; apply it first or in the same set", m.Tenant)
	}
	if len(m.Labels) > maxLabels {
		a.fail(k, "metadata.labels", "has %d entries; at most %d are allowed", len(m.Labels), maxLabels)
		return
	}
	for _, l := range slices.Sorted(maps.Keys(m.Labels)) {
		if l == "" || len(l) > maxLabelKey || len(m.Labels[l]) > maxLabelValue {
			a.fail(k, "metadata.labels", "label %.40q: a key has 1 to %d bytes, a value at most %d", l, maxLabelKey, maxLabelValue)
		}
	}
}

func tenantKey(name string) model.Key {
	return model.Key{Kind: model.KindTenant, Ref: model.Ref{Name: name}}
}
func hostKey(name string) model.Key {
	return model.Key{Kind: model.KindHost, Ref: model.Ref{Name: name}}
}
func networkKey(tenant, name string) model.Key {
	return model.Key{Kind: model.KindVirtualNetwork, Ref: model.Ref{Tenant: tenant, Name: name}}
}
func subnetKey(tenant, name string) model.Key {
	return model.Key{Kind: model.KindVirtualSubnet, Ref: model.Ref{Tenant: tenant, Name: name}}
}
func profileKey(tenant, name string) model.Key {
	return model.Key{Kind: model.KindPortProfile, Ref: model.Ref{Tenant: tenant, Name: name}}
}
func portKey(tenant, name string) model.Key {
	return model.Key{Kind: model.KindPort, Ref: model.Ref{Tenant: tenant, Name: name}}
}

func (a *admission) checkText(k model.Key, field, s string) {
	if len(s) > maxText {
		a.fail(k, field, "has %d bytes; at most %d are allowed", len(s), maxText)
	}
}

// refer finds what field of k names, or says that it does not exist. Nil also
// when the target is in the set and faulty: what depends on it cannot be judged.
func (a *admission) refer(k model.Key, field string, target model.Key) model.Resource {
	if target.Name == "" {
		a.fail(k, field, "is required")
		return nil
	}
	r := a.get(target)
	if r == nil {
		hint := "apply it first or in the same set"
		if _, ok := a.deleted[target]; ok {
			hint = "it is deleted in this set"
		}
		a.fail(k, field, "%s does not exist; %s", target, hint)
		return nil
	}
	if a.bad[target] {
		return nil
	}
	return r
}

// at writes "spec.prefixes[1]".
func at(field string, i int) string { return fmt.Sprintf("%s[%d]", field, i) }

// name says who holds a claim, for messages.
func name(r model.Resource) string { return model.KeyOf(r).String() }

// orNil makes empty slices nil, so that equal means equal.
func orNil[T any](s []T) []T {
	if len(s) == 0 {
		return nil
	}
	return slices.Clone(s)
}

func cloneMeta(m model.Metadata) model.Metadata {
	m.Labels = maps.Clone(m.Labels)
	if len(m.Labels) == 0 {
		m.Labels = nil
	}
	return m
}

func isIPv4(a netip.Addr) bool { return a.Is4() }
