package sim

import (
	"net/netip"

	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/table"
)

// isolate65 keeps the sender from ports of the subnet that it is not to reach.
func (w *walk) isolate65() model.Verdict {
	to := w.record.Isolation
	if w.hop.vsid == w.port.VSID && w.port.Isolation.Apart(to) {
		return w.apart(w.port.Isolation, to)
	}
	if !w.port.Forward && !w.port.Spoof {
		return model.VerdictContinue
	}
	source := w.packet.src
	if w.packet.isARP() {
		source = w.packet.arp.Sender
	}
	if from, ok := w.rec(w.hop.vsid, source); ok && !from.Router && from.Isolation.Apart(to) {
		return w.apart(from.Isolation, to)
	}
	return model.VerdictContinue
}

func (w *walk) apart(from, to model.IsolationID) model.Verdict {
	return w.say(model.VerdictIsolated, "isolate", "a port that is %s does not reach one that is %s", from, to)
}

// hides tells whether r is of the port's own subnet and not for it to reach.
func (w *walk) hides(r table.Record) bool { return !r.Router && w.port.Isolation.Apart(r.Isolation) }

// isolationOf is that of whoever, on another host, a frame in a subnet comes from.
func (w *walk) isolationOf(vsid model.VSID, source netip.Addr, mac model.MAC) model.IsolationID {
	if r, ok := w.rec(vsid, source); ok {
		return r.Isolation
	}
	return w.Set.Isolations[table.MACKey{VSID: vsid, MAC: mac}]
}

// uplinkIsolate65 holds what has come from another host to the same.
func (w *walk) uplinkIsolate65() model.Verdict {
	if w.rewriting {
		return model.VerdictContinue // rewrite knows who sent it
	}
	p := &w.packet
	source := p.src
	if p.isARP() {
		source = p.arp.Sender
	}
	if _, known := w.rec(w.outer.vsid, source); !known && p.eth.Src == model.RouterMAC(w.outer.vsid) {
		return model.VerdictContinue // routed: it is from another subnet
	}
	if from := w.isolationOf(w.outer.vsid, source, p.eth.Src); from.Apart(w.to.Isolation) {
		return w.apart(from, w.to.Isolation)
	}
	return model.VerdictContinue
}
