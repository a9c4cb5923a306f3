package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/manifest"
	"github.com/weft-sdn/weft/internal/model"
)

// column of a table of resources.
type column struct {
	header string
	wide   bool // only with -o wide
	value  func(r *weftv1.Resource, now time.Time) string
}

// text makes a column of what does not depend on the time.
func text(header string, value func(r *weftv1.Resource) string) column {
	return column{header: header, value: func(r *weftv1.Resource, _ time.Time) string { return value(r) }}
}

func wide(header string, value func(r *weftv1.Resource) string) column {
	c := text(header, value)
	c.wide = true
	return c
}

var (
	tenantColumn = text("TENANT", func(r *weftv1.Resource) string { return manifest.Meta(r).GetTenant() })
	nameColumn   = text("NAME", func(r *weftv1.Resource) string { return manifest.Meta(r).GetName() })
	stateColumn  = text("STATE", state)
	uidColumn    = wide("UID", func(r *weftv1.Resource) string { return manifest.Meta(r).GetUid() })
	revColumn    = wide("REVISION", func(r *weftv1.Resource) string {
		return strconv.FormatInt(manifest.Meta(r).GetRevision(), 10)
	})
	ageColumn = column{header: "AGE", value: age}
)

// kindColumns are the columns between the name and the state.
var kindColumns = map[model.Kind][]column{
	model.KindTenant: {
		text("DESCRIPTION", func(r *weftv1.Resource) string { return r.GetTenant().GetSpec().GetDescription() }),
	},
	model.KindHost: {
		text("CONNECTED", func(r *weftv1.Resource) string { return yesNo(r.GetHost().GetStatus().GetConnected()) }),
		text("PAS", func(r *weftv1.Resource) string {
			return strings.Join(r.GetHost().GetStatus().GetProviderAddresses(), ",")
		}),
		text("VERSION", func(r *weftv1.Resource) string { return r.GetHost().GetStatus().GetAgentVersion() }),
		wide("UPLINK", func(r *weftv1.Resource) string { return bitRate(r.GetHost().GetSpec().GetUplinkBandwidth()) }),
		wide("REWRITE", func(r *weftv1.Resource) string { return strings.Join(r.GetHost().GetSpec().GetRewritePrefixes(), ",") }),
		wide("ACKNOWLEDGED", func(r *weftv1.Resource) string {
			return strconv.FormatInt(r.GetHost().GetStatus().GetAcknowledgedRevision(), 10)
		}),
	},
	model.KindProviderAddress: {
		text("HOST", func(r *weftv1.Resource) string { return r.GetProviderAddress().GetSpec().GetHost() }),
		text("ADDRESS", func(r *weftv1.Resource) string { return r.GetProviderAddress().GetSpec().GetAddress() }),
		text("DAD", func(r *weftv1.Resource) string { return r.GetProviderAddress().GetStatus().GetAddressState() }),
	},
	model.KindProviderRoute: {
		text("HOST", func(r *weftv1.Resource) string { return r.GetProviderRoute().GetSpec().GetHost() }),
		text("PREFIX", func(r *weftv1.Resource) string { return r.GetProviderRoute().GetSpec().GetPrefix() }),
		text("NEXT-HOP", func(r *weftv1.Resource) string { return r.GetProviderRoute().GetSpec().GetNextHop() }),
		text("INTERFACE", func(r *weftv1.Resource) string { return r.GetProviderRoute().GetSpec().GetInterface() }),
		text("METRIC", func(r *weftv1.Resource) string {
			return strconv.FormatUint(uint64(r.GetProviderRoute().GetSpec().GetMetric()), 10)
		}),
	},
	model.KindAddressGroup: {
		text("PREFIXES", func(r *weftv1.Resource) string { return few(r.GetAddressGroup().GetSpec().GetPrefixes()) }),
		text("PORTS", func(r *weftv1.Resource) string { return labels(r.GetAddressGroup().GetSpec().GetPorts()) }),
		text("GROUPS", func(r *weftv1.Resource) string { return few(r.GetAddressGroup().GetSpec().GetGroups()) }),
	},
	model.KindAccessList: {
		text("TIER", func(r *weftv1.Resource) string { return r.GetAccessList().GetSpec().GetTier() }),
		text("MODE", func(r *weftv1.Resource) string { return r.GetAccessList().GetSpec().GetMode() }),
		text("RULES", func(r *weftv1.Resource) string {
			return strconv.Itoa(len(r.GetAccessList().GetSpec().GetRules()))
		}),
		text("INBOUND", func(r *weftv1.Resource) string { return r.GetAccessList().GetSpec().GetDefault().GetInbound() }),
		text("OUTBOUND", func(r *weftv1.Resource) string { return r.GetAccessList().GetSpec().GetDefault().GetOutbound() }),
	},
	model.KindVirtualNetwork: {
		text("RDID", func(r *weftv1.Resource) string { return r.GetVirtualNetwork().GetSpec().GetRdid() }),
		wide("LISTS", func(r *weftv1.Resource) string {
			return strings.Join(r.GetVirtualNetwork().GetSpec().GetAccessLists(), ",")
		}),
		wide("INDEX", func(r *weftv1.Resource) string { return count(r.GetVirtualNetwork().GetStatus().GetIndex()) }),
	},
	model.KindVirtualSubnet: {
		text("NETWORK", func(r *weftv1.Resource) string { return r.GetVirtualSubnet().GetSpec().GetNetwork() }),
		text("VSID", func(r *weftv1.Resource) string { return count(r.GetVirtualSubnet().GetSpec().GetVsid()) }),
		text("PREFIXES", func(r *weftv1.Resource) string {
			return strings.Join(r.GetVirtualSubnet().GetSpec().GetPrefixes(), ",")
		}),
		wide("GATEWAY", func(r *weftv1.Resource) string {
			return strings.Join(r.GetVirtualSubnet().GetSpec().GetGateway(), ",")
		}),
		wide("TRANSPORT", func(r *weftv1.Resource) string { return r.GetVirtualSubnet().GetSpec().GetTransport() }),
		wide("LISTS", func(r *weftv1.Resource) string {
			return strings.Join(r.GetVirtualSubnet().GetSpec().GetAccessLists(), ",")
		}),
		wide("FLOOD", func(r *weftv1.Resource) string { return r.GetVirtualSubnet().GetSpec().GetFlood() }),
	},
	model.KindExternalNetwork: {
		text("INTERFACES", func(r *weftv1.Resource) string { return interfacesOf(r.GetExternalNetwork().GetSpec()) }),
		text("TENANTS", func(r *weftv1.Resource) string {
			return strings.Join(r.GetExternalNetwork().GetSpec().GetTenants(), ",")
		}),
	},
	model.KindPortProfile: {
		text("SETTINGS", func(r *weftv1.Resource) string { return settingNames(r.GetPortProfile().GetSpec()) }),
	},
	model.KindPort: {
		text("SUBNET", func(r *weftv1.Resource) string { return wherePort(r.GetPort().GetSpec()) }),
		text("ADDRESSES", func(r *weftv1.Resource) string {
			return strings.Join(slices.Concat(r.GetPort().GetSpec().GetAddresses(), r.GetPort().GetStatus().GetLearned()), ",")
		}),
		text("HOST", func(r *weftv1.Resource) string {
			return first(r.GetPort().GetStatus().GetHost(), r.GetPort().GetSpec().GetHost())
		}),
		wide("REWRITE", func(r *weftv1.Resource) string {
			return strings.Join(r.GetPort().GetStatus().GetRewriteAddresses(), ",")
		}),
		wide("LISTS", func(r *weftv1.Resource) string { return strings.Join(r.GetPort().GetSpec().GetAccessLists(), ",") }),
		wide("PROFILE", func(r *weftv1.Resource) string { return r.GetPort().GetSpec().GetProfile() }),
		wide("MAC", func(r *weftv1.Resource) string { return r.GetPort().GetSpec().GetMac() }),
		wide("MTU", func(r *weftv1.Resource) string { return count(r.GetPort().GetStatus().GetMtu()) }),
		wide("ID", func(r *weftv1.Resource) string { return count(r.GetPort().GetStatus().GetIndex()) }),
	},
	model.KindCustomerRoute: {
		text("NETWORK", func(r *weftv1.Resource) string { return r.GetCustomerRoute().GetSpec().GetNetwork() }),
		text("PREFIX", func(r *weftv1.Resource) string { return r.GetCustomerRoute().GetSpec().GetPrefix() }),
		text("NEXT-HOP", func(r *weftv1.Resource) string { return r.GetCustomerRoute().GetSpec().GetNextHop() }),
		text("METRIC", func(r *weftv1.Resource) string {
			return strconv.FormatUint(uint64(r.GetCustomerRoute().GetSpec().GetMetric()), 10)
		}),
	},
	model.KindLookupRecord: {
		text("SUBNET", func(r *weftv1.Resource) string { return r.GetLookupRecord().GetSpec().GetSubnet() }),
		text("CA", func(r *weftv1.Resource) string { return r.GetLookupRecord().GetSpec().GetCustomerAddress() }),
		text("MAC", func(r *weftv1.Resource) string { return r.GetLookupRecord().GetSpec().GetMac() }),
		text("PA", func(r *weftv1.Resource) string { return r.GetLookupRecord().GetSpec().GetProviderAddress() }),
		text("TYPE", func(r *weftv1.Resource) string { return r.GetLookupRecord().GetSpec().GetType() }),
		wide("RULE", func(r *weftv1.Resource) string { return r.GetLookupRecord().GetStatus().GetRule() }),
		text("ORIGIN", func(r *weftv1.Resource) string {
			if r.GetLookupRecord().GetStatus().GetDerived() {
				return "derived"
			}
			return "written"
		}),
	},
}

// few names the first ones, and counts the others.
func few(all []string) string {
	const shown = 3
	if len(all) <= shown {
		return strings.Join(all, ",")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(all[:shown], ","), len(all)-shown)
}

func labels(of map[string]string) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(of)) {
		out = append(out, k+"="+of[k])
	}
	return strings.Join(out, ",")
}

// settingNames lists what a profile says, true and false ones with their value.
// interfacesOf writes "eth1 (h1,h2) bond0 (rack=a) eth0".
func interfacesOf(s *weftv1.ExternalNetworkSpec) string {
	var out []string
	for _, i := range s.GetInterfaces() {
		whose := slices.Clone(i.GetHosts())
		for _, k := range slices.Sorted(maps.Keys(i.GetLabels())) {
			whose = append(whose, k+"="+i.GetLabels()[k])
		}
		text := i.GetInterface()
		if len(whose) > 0 {
			text += " (" + strings.Join(whose, ",") + ")"
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

// wherePort names the subnet of a port, or the external network and how it is on it.
func wherePort(s *weftv1.PortSpec) string {
	if v := s.GetVlan(); v != nil {
		return v.GetNetwork() + " " + v.GetMode()
	}
	return s.GetSubnet()
}

func settingNames(s *weftv1.PortProfileSpec) string {
	var out []string
	fields := s.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !s.ProtoReflect().Has(f) || manifest.Hidden(f) {
			continue
		}
		name := f.JSONName()
		if !f.IsList() && f.Message() == nil {
			name += "=" + s.ProtoReflect().Get(f).String()
		}
		out = append(out, name)
	}
	return strings.Join(out, ",")
}

// columnsOf a kind, with those of -o wide when asked.
func columnsOf(kind model.Kind, withWide bool) []column {
	var all []column
	if kind.Tenanted() {
		all = append(all, tenantColumn)
	}
	all = append(all, nameColumn)
	all = append(all, kindColumns[kind]...)
	all = append(all, stateColumn, uidColumn, revColumn, ageColumn)
	var shown []column
	for _, c := range all {
		if withWide || !c.wide {
			shown = append(shown, c)
		}
	}
	return shown
}

func headers(columns []column) []string {
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.header
	}
	return names
}

// state sums the conditions up in a word or two.
func state(r *weftv1.Resource) string {
	if c := manifest.Condition(r, "Accepted"); c.GetStatus() == "False" {
		return c.GetReason()
	}
	if c := manifest.Condition(r, "Degraded"); c.GetStatus() == "True" {
		return "Degraded:" + c.GetReason()
	}
	c := manifest.Condition(r, "Programmed")
	switch {
	case c == nil && manifest.Condition(r, "Accepted") == nil:
		return ""
	case c == nil, c.GetReason() == "NothingToProgram":
		return "Accepted"
	case c.GetReason() == "NotPlugged":
		return "NotPlugged"
	case c.GetStatus() == "True":
		return "Programmed"
	}
	rollout := manifest.Status(r).GetRollout()
	if rollout == nil {
		return first(c.GetReason(), "Pending")
	}
	return fmt.Sprintf("%s(%d/%d)", first(c.GetReason(), "Pending"), rollout.GetCurrent(), rollout.GetDesired())
}

func age(r *weftv1.Resource, now time.Time) string {
	created := manifest.Meta(r).GetCreatedAt()
	if created == nil {
		return ""
	}
	return shortDuration(now.Sub(created.AsTime()))
}

// shortDuration is the largest unit that is not zero.
func shortDuration(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "s"
	case d < time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + "d"
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// count is a number, or nothing when it is not set.
func count(n uint32) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(n), 10)
}

// bitRate in bit/s; nothing where nothing is said.
func bitRate(b int64) string {
	if b == 0 {
		return ""
	}
	return strconv.FormatInt(b, 10)
}
