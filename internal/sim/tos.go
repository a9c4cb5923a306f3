package sim

import (
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/wire"
)

// Explicit congestion notification (RFC 3168 section 5).
const (
	notECT = 0
	ect1   = 1
	ect0   = 2
	ce     = 3
)

// tos is the packet's DSCP and ECN; ARP has 0.
func (p *packet) tos() uint8 {
	switch {
	case p.isIPv4():
		return p.v4.TOS
	case p.isIPv6():
		return p.v6.Class
	}
	return 0
}

// outerTOS is that of the outer header: the packet's, or the fleet's DSCP with the packet's ECN.
func (w *walk) outerTOS() uint8 {
	if w.Set.Settings.Pipe {
		return w.Set.Settings.DSCP<<2 | w.packet.tos()&3
	}
	return w.packet.tos()
}

// arriveTOS carries over to the packet what the underlay made of the outer header.
func (w *walk) arriveTOS() model.Verdict {
	if w.rewriting {
		return model.VerdictContinue // its own header is all that there was
	}
	p := &w.packet
	if p.isARP() {
		return model.VerdictContinue
	}
	ecn, ok := arrivedECN(p.tos()&3, w.outer.tos&3)
	if !ok {
		return w.say(model.VerdictOuterCongestion, "admit", "congestion is marked on a packet that knows no such marks")
	}
	dscp := w.outer.tos &^ 3
	if w.Set.Settings.Pipe {
		dscp = p.tos() &^ 3
	}
	w.setTOS(dscp | ecn)
	return model.VerdictContinue
}

// arrivedECN is figure 4 of RFC 6040, of what was inside and outside; false: drop.
func arrivedECN(inner, outer uint8) (uint8, bool) {
	return [4][4]uint8{
		notECT: {notECT: notECT, ect0: notECT, ect1: notECT, ce: notECT},
		ect0:   {notECT: ect0, ect0: ect0, ect1: ect1, ce: ce},
		ect1:   {notECT: ect1, ect0: ect1, ect1: ect1, ce: ce},
		ce:     {notECT: ce, ect0: ce, ect1: ce, ce: ce},
	}[inner][outer], inner != notECT || outer != ce
}

// setTOS changes DSCP and ECN in the frame and keeps an IPv4 checksum right.
func (w *walk) setTOS(tos uint8) {
	ip := w.frame[l3:]
	if w.packet.isIPv6() {
		ip[0], ip[1] = ip[0]&0xf0|tos>>4, tos<<4|ip[1]&0xf
		return
	}
	old := word(ip)
	ip[1] = tos
	if word(ip) != old {
		putWord(ip[10:], wire.UpdateChecksum(word(ip[10:]), old, word(ip)))
	}
}
