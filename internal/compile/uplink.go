package compile

import "github.com/weft-sdn/weft/internal/model"

// uplink is what policy says that each uplink of the port's host carries; 0 where it says nothing, or the port has no minimum.
func (c *Compiler) uplink(p *port) int64 {
	if !p.settings.Bandwidth.HasMinimum() {
		return 0
	}
	h, ok := c.resources[model.Key{Kind: model.KindHost, Ref: model.Ref{Name: p.host.name}}].(*model.Host)
	if !ok {
		return 0
	}
	return h.Spec.UplinkBandwidth
}
