package compile

import (
	"github.com/weft-sdn/weft/internal/goal"
	"github.com/weft-sdn/weft/internal/model"
)

// external is one ExternalNetwork and the ports on its VLANs.
type external struct {
	spec  *model.ExternalNetwork // nil while it is only referred to
	ports map[*port]struct{}
}

func (c *Compiler) external(name string) *external {
	e := c.externals[name]
	if e == nil {
		e = &external{ports: map[*port]struct{}{}}
		c.externals[name] = e
	}
	return e
}

func (c *Compiler) addExternalNetwork(r *model.ExternalNetwork) {
	c.changeExternal(r.Metadata.Name, r)
}

func (c *Compiler) removeExternalNetwork(r *model.ExternalNetwork) {
	c.changeExternal(r.Metadata.Name, nil)
}

func (c *Compiler) changeExternal(name string, spec *model.ExternalNetwork) {
	e := c.external(name)
	e.spec = spec
	for p := range e.ports {
		c.todo.ports[p] = struct{}{}
	}
	c.forgetExternal(name)
}

func (c *Compiler) forgetExternal(name string) {
	if e := c.externals[name]; e != nil && e.spec == nil && len(e.ports) == 0 {
		delete(c.externals, name)
	}
}

// touchHost has the ports on VLANs looked at again, as the host's labels may say another interface, and those with a minimum.
func (c *Compiler) touchHost(r *model.Host) {
	h := c.hosts[r.Metadata.Name]
	if h == nil {
		return
	}
	for p := range h.placed {
		if p.external != nil || p.settings.Bandwidth.HasMinimum() {
			c.todo.ports[p] = struct{}{}
		}
	}
}

// vlanRow is the row of a port on a VLAN. Settings that mean nothing there were refused.
func (c *Compiler) vlanRow(p *port) goal.Port {
	row := goal.Port{Ref: p.ref, ID: p.spec.ID, MAC: p.spec.Spec.MAC, CAs: plain(p.spec.Spec.Addresses), Spoof: p.settings.AllowSpoofing, Settings: p.goalSettings()}
	if p.external.spec == nil {
		return row
	}
	var labels map[string]string
	if h, ok := c.resources[model.Key{Kind: model.KindHost, Ref: model.Ref{Name: p.host.name}}]; ok {
		labels = h.Meta().Labels
	}
	row.Interface = p.external.spec.Spec.InterfaceOf(p.host.name, labels)
	return row
}

// concern names the hosts of the network's ports, sorted.
func (e *external) concern() []string {
	if e == nil {
		return nil
	}
	return hostsOf(e.ports)
}
