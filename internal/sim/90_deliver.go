package sim

import "github.com/weft-sdn/weft/internal/model"

func (w *walk) deliver90() model.Verdict {
	w.result.To = w.to.ID
	w.send(w.to.IfIndex, w.frame)
	return w.say(model.VerdictDelivered, "deliver", "into device %d of port %d", w.to.IfIndex, w.to.ID)
}
