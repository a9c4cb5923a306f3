package sim

import "github.com/weft-sdn/weft/internal/model"

func (w *walk) deliver90() model.Verdict {
	w.result.To = w.to.ID
	w.send(w.to.IfIndex, w.frame)
	return w.say(model.VerdictDelivered, "deliver", "into device %d of port %d", w.to.IfIndex, w.to.ID)
}

// fit holds what arrived to what its port takes. (The agent tells the sender.)
func (w *walk) fit() model.Verdict {
	size, limit := w.size(), int(w.to.MTU)
	if size <= limit {
		return model.VerdictContinue
	}
	return w.say(model.VerdictTooBig, "deliver", "%d bytes, port %d takes %d", size, w.to.ID, limit)
}

func (w *walk) uplinkFit() model.Verdict {
	if w.rewriting {
		return model.VerdictContinue // it has its Customer Addresses later
	}
	return w.fit()
}

func (w *walk) rewrittenFit() model.Verdict {
	if !w.rewriting {
		return model.VerdictContinue
	}
	if v := w.fit(); v != model.VerdictContinue {
		return v
	}
	return w.clampInbound()
}
