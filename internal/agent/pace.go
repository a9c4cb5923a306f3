package agent

import "time"

// pace lets so many things pass at once, and in the long run one each interval: the
// generic cell rate algorithm.
type pace struct {
	paid time.Time // until when it is used up
}

func (p *pace) may(burst int, interval time.Duration, now time.Time) bool {
	if p.paid.Before(now) {
		p.paid = now
	}
	if p.paid.Sub(now) > time.Duration(burst-1)*interval {
		return false
	}
	p.paid = p.paid.Add(interval)
	return true
}
