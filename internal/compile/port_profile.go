package compile

import (
	"maps"
	"slices"

	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// profile is one PortProfile and who names it.
type profile struct {
	ref   model.Ref
	spec  *model.PortProfile // nil while it is only referred to
	ports map[*port]struct{}
}

func (c *Compiler) profile(ref model.Ref) *profile {
	p := c.profiles[ref]
	if p == nil {
		p = &profile{ref: ref, ports: map[*port]struct{}{}}
		c.profiles[ref] = p
	}
	return p
}

func (c *Compiler) addPortProfile(r *model.PortProfile) {
	p := c.profile(r.Metadata.Ref())
	c.again(p, func() { p.spec = r })
}

func (c *Compiler) removePortProfile(r *model.PortProfile) {
	p := c.profile(r.Metadata.Ref())
	c.again(p, func() { p.spec = nil })
}

// again takes the ports of a profile out and puts them in again when it has changed.
func (c *Compiler) again(p *profile, change func()) {
	c.todo.profiles[p] = struct{}{}
	var specs []*model.Port
	for x := range p.ports {
		specs = append(specs, x.spec)
	}
	for _, r := range specs {
		c.removePort(r)
	}
	change()
	for _, r := range specs {
		c.addPort(r)
	}
}

func (c *Compiler) forgetProfile(p *profile) {
	if p.spec == nil && len(p.ports) == 0 {
		delete(c.profiles, p.ref)
	}
}

// takeSettings decides how a port is treated; dropSettings forgets it.
func (c *Compiler) takeSettings(p *port) {
	var spec *model.PortProfile
	if p.spec.Spec.Profile != "" {
		p.profile = c.profile(model.Ref{Tenant: p.ref.Tenant, Name: p.spec.Spec.Profile})
		p.profile.ports[p] = struct{}{}
		spec = p.profile.spec
	}
	p.settings = p.spec.Spec.Settle(spec)
	c.takeMirrors(p)
}

func (c *Compiler) dropSettings(p *port) {
	c.dropMirrors(p)
	if p.profile != nil {
		delete(p.profile.ports, p)
		c.todo.profiles[p.profile] = struct{}{}
	}
	p.profile, p.settings = nil, model.Settings{}
}

// goalSettings are those that are no fields of a goal.Port.
func (p *port) goalSettings() goal.PortSettings {
	s := p.settings
	team := ""
	if s.AllowTeaming {
		team = p.spec.Metadata.Labels[model.VMLabel]
	}
	return goal.PortSettings{Team: team, DHCPServer: !s.DHCPGuard, Router: !s.RouterGuard, Teaming: s.AllowTeaming, PriorityTag: s.IEEEPriorityTag,
		StormLimit: s.StormLimit, Connections: s.ConnectionLimit, Allowed: s.AllowedAddresses, Isolation: s.Isolation,
		VLAN: s.VLAN, Bandwidth: s.Bandwidth, Mirrors: p.goalMirrors(), Watched: p.watchedFrom(), Lists: p.uses(), ACL: p.spec.Spec.ACL}
}

// concern names the hosts of the profile's ports, sorted.
func (p *profile) concern() []string {
	if p == nil {
		return nil
	}
	return hostsOf(p.ports)
}

// hostsOf names the hosts of ports, sorted.
func hostsOf(ports map[*port]struct{}) []string {
	hosts := map[string]struct{}{}
	for p := range ports {
		if p.host != nil {
			hosts[p.host.name] = struct{}{}
		}
	}
	return slices.Sorted(maps.Keys(hosts))
}
