package sim

import (
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/wire"
)

// TCP as far as the MSS option needs it (RFC 9293 section 3.1).
const (
	tcpLen       = 20
	tcpSYN       = 2
	optionEnd    = 0
	optionNOP    = 1
	optionMSS    = 2
	optionMSSLen = 4
	mostOptions  = 8 // that are looked at
)

// clampOutbound lowers the MSS of a connection that begins to what the path carries.
func (w *walk) clampOutbound() {
	if w.port.ClampMSS || w.to != nil && w.to.ClampMSS {
		w.clampMSS(min(w.pathMTU(), int(w.port.MTU)))
	}
}

// clampInbound lowers it to what the port takes.
func (w *walk) clampInbound() model.Verdict {
	if w.port.ClampMSS {
		w.clampMSS(int(w.port.MTU))
	}
	return model.VerdictContinue
}

func (w *walk) clampMSS(limit int) {
	p := &w.packet
	if p.isARP() || p.proto != wire.ProtoTCP || p.fragment || p.l4Len() < tcpLen {
		return
	}
	tcp := w.frame[p.l4 : p.l4+p.l4Len()]
	end := int(tcp[12]>>4) * 4
	if tcp[13]&tcpSYN == 0 || end > len(tcp) {
		return
	}
	at := tcpLen
	for range mostOptions {
		if at+2 > end || tcp[at] == optionEnd {
			return
		}
		if tcp[at] == optionNOP {
			at++
			continue
		}
		size := int(tcp[at+1])
		if size < 2 || at+size > end {
			return
		}
		if tcp[at] == optionMSS {
			if size == optionMSSLen {
				w.lowerMSS(tcp, at+2, limit)
			}
			return
		}
		at += size
	}
}

// lowerMSS writes a smaller MSS, and updates the checksum: one that was wrong stays wrong.
func (w *walk) lowerMSS(tcp []byte, at, limit int) {
	most := limit - wire.IPv4Len - tcpLen
	if w.packet.isIPv6() {
		most = limit - wire.IPv6Len - tcpLen
	}
	if most <= 0 || int(word(tcp[at:])) <= most {
		return
	}
	even := at &^ 1
	var before [4]byte // the words that it stands in
	copy(before[:], tcp[even:])
	putWord(tcp[at:], uint16(most))
	sum := word(tcp[16:])
	for i := 0; i < 4 && even+i+1 < len(tcp); i += 2 {
		sum = wire.UpdateChecksum(sum, word(before[i:]), word(tcp[even+i:]))
	}
	putWord(tcp[16:], sum)
	w.say(model.VerdictContinue, "encap", "the connection's MSS is lowered to %d", most)
}
