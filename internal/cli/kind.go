package cli

import (
	"strings"

	"github.com/spf13/cobra"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/manifest"
	"github.com/weft-sdn/weft/internal/model"
)

// shortKinds are what people type beside the kind's own name.
var shortKinds = map[string]model.Kind{
	"pa": model.KindProviderAddress, "network": model.KindVirtualNetwork, "vnet": model.KindVirtualNetwork,
	"external": model.KindExternalNetwork, "subnet": model.KindVirtualSubnet, "profile": model.KindPortProfile,
	"group": model.KindAddressGroup, "acl": model.KindAccessList, "list": model.KindAccessList, "route": model.KindCustomerRoute, "record": model.KindLookupRecord,
}

// parseKind reads a kind in any case, singular or plural, long or short.
func parseKind(word string) (model.Kind, error) {
	names := make(map[string]model.Kind)
	for _, k := range model.Kinds {
		names[strings.ToLower(string(k))] = k
	}
	for short, k := range shortKinds {
		names[short] = k
	}
	w := strings.ToLower(strings.ReplaceAll(word, "-", ""))
	for _, form := range []string{w, strings.TrimSuffix(w, "s"), strings.TrimSuffix(w, "es")} {
		if k, ok := names[form]; ok {
			return k, nil
		}
	}
	hint := ""
	if s := manifest.Suggest(word, kindWords()); s != "" {
		hint = ", did you mean " + s + "?"
	}
	return "", usagef("unknown kind %q%s; kinds are %s", word, hint, strings.Join(kindWords(), ", "))
}

// kindWords are the words that completion offers: short where there is a short one.
func kindWords() []string {
	return []string{"tenants", "hosts", "pas", "providerroutes", "externals", "groups", "acls", "networks", "subnets", "profiles", "ports", "routes", "records"}
}

// parseKey reads KIND and [TENANT/]NAME, with the tenant of -n.
func parseKey(kind model.Kind, name, tenant string) (*weftv1.Key, error) {
	inName, rest, qualified := strings.Cut(name, "/")
	switch {
	case !kind.Tenanted() && (qualified || tenant != ""):
		return nil, usagef("a %s is in no tenant: give its name alone", kind)
	case qualified && tenant != "" && tenant != inName:
		return nil, usagef("%s is in tenant %s, and -n says %s", name, inName, tenant)
	case qualified:
		tenant, name = inName, rest
	case kind.Tenanted() && tenant == "":
		return nil, usagef("a %s is in a tenant: write TENANT/%s or -n TENANT", kind, name)
	}
	if name == "" {
		return nil, usagef("a %s needs a name", kind)
	}
	return &weftv1.Key{Kind: string(kind), Tenant: tenant, Name: name}, nil
}

// parsePort reads TENANT/PORT.
func parsePort(word string) (tenant, port string, err error) {
	tenant, port, ok := strings.Cut(word, "/")
	if !ok || tenant == "" || port == "" {
		return "", "", usagef("%q: write TENANT/PORT", word)
	}
	return tenant, port, nil
}

// completeKindName offers kinds first and then names of that kind.
func (a *app) completeKindName(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	if len(args) == 0 {
		return kindWords(), none
	}
	kind, err := parseKind(args[0])
	if err != nil {
		return nil, none
	}
	return a.names(c, kind), none
}

// completePort offers TENANT/PORT.
func (a *app) completePort(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.names(c, model.KindPort), cobra.ShellCompDirectiveNoFileComp
}

func (a *app) names(c *cobra.Command, kind model.Kind) []string {
	ctx, cancel := unary(c)
	defer cancel()
	policy, err := a.dial.policy()
	if err != nil {
		return nil
	}
	list, err := list(ctx, policy, kind, "")
	if err != nil {
		return nil
	}
	var names []string
	for _, r := range list.GetResources() {
		names = append(names, refOf(r))
	}
	return names
}

// refOf is "red/web-1", or "h1" for what is in no tenant.
func refOf(r *weftv1.Resource) string {
	m := manifest.Meta(r)
	return model.Ref{Tenant: m.GetTenant(), Name: m.GetName()}.String()
}
