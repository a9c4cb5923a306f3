package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// metric names one way of loading a site.
type metric string

const (
	tcp1  metric = "tcp1"  // one stream, sender and receiver on two cores
	tcp1c metric = "tcp1c" // one stream, everything on one core: cost per byte
	tcp4  metric = "tcp4"  // four streams, placed by the kernel
	rr1c  metric = "rr1c"  // one byte each way in turn, everything on one core: cost per packet
	udp   metric = "udp"   // 64 bytes of payload per datagram, one sender
)

var metrics = []metric{tcp1, tcp1c, tcp4, rr1c, udp}

// value is one measurement of one contender.
type value struct {
	Gbps    float64 `json:"gbps,omitempty"`
	P50     float64 `json:"p50_us,omitempty"`
	P99     float64 `json:"p99_us,omitempty"`
	Kpps    float64 `json:"kpps,omitempty"`
	Retrans uint32  `json:"retransmits"`
	Dropped uint64  `json:"dropped"`            // by any device of the site, while measuring
	Frame   float64 `json:"wire_frame_bytes"`   // mean at the receiving underlay
	Handed  float64 `json:"handed_frame_bytes"` // mean at the receiving port
}

// main is the figure by which contenders are compared.
func (v value) main(m metric) float64 {
	switch m {
	case rr1c:
		return v.P50
	case udp:
		return v.Kpps
	}
	return v.Gbps
}

func (v value) line(m metric) string {
	switch m {
	case rr1c:
		return fmt.Sprintf("%.1f/%.1f us", v.P50, v.P99)
	case udp:
		return fmt.Sprintf("%.0f kpps", v.Kpps)
	}
	return fmt.Sprintf("%.2f Gb/s, retransmits %d, dropped %d, frames %.0f B on the underlay, %.0f B to the port", v.Gbps, v.Retrans, v.Dropped, v.Frame, v.Handed)
}

const (
	warm     = 0.3 // seconds before counting starts; the workers come up in it
	firstCPU = 0
	oneCPU   = 1
)

// measure loads the site once.
func (s *site) measure(ctx context.Context, m metric, secs float64) (value, error) {
	ctx, cancel := context.WithTimeout(ctx, seconds(secs+warm+3*patience))
	defer cancel()
	before, err := s.snapshot(ctx)
	if err != nil {
		return value{}, err
	}
	v, err := s.load(ctx, m, secs)
	if err != nil {
		return value{}, err
	}
	after, err := s.snapshot(ctx)
	if err != nil {
		return value{}, err
	}
	v.Dropped = after.dropped - before.dropped
	v.Frame = after.wire.since(before.wire).mean()
	v.Handed = after.port.since(before.port).mean()
	return v, nil
}

func (s *site) load(ctx context.Context, m metric, secs float64) (value, error) {
	switch m {
	case tcp1:
		return s.tcp(ctx, 1, firstCPU, oneCPU, secs)
	case tcp1c:
		return s.tcp(ctx, 1, oneCPU, oneCPU, secs)
	case tcp4:
		return s.tcp(ctx, 4, -1, -1, secs)
	case rr1c:
		_, r, err := s.pair(ctx, "rr-answer", "rr-ask", oneCPU, oneCPU, secs)
		return value{P50: r.P50, P99: r.P99}, err
	case udp:
		r, _, err := s.pair(ctx, "udp-recv", "udp-send", firstCPU, oneCPU, secs)
		if err == nil && r.Packets == 0 {
			err = errors.New("no datagram arrived in the counted time")
		}
		return value{Kpps: float64(r.Packets) / secs / 1e3}, err
	}
	return value{}, fmt.Errorf("metric %q: no such", m)
}

// pair runs one waiting and one starting end; the first is in the second guest.
func (s *site) pair(ctx context.Context, waiting, starting string, cpuStart, cpuWait int, secs float64) (atWait, atStart result, err error) {
	rs, err := s.pairs(ctx, 1, waiting, starting, cpuStart, cpuWait, secs)
	if err != nil {
		return result{}, result{}, err
	}
	return rs[0][0], rs[0][1], nil
}

// pairs runs n pairs at once. Results are of the waiting, then the starting end.
func (s *site) pairs(ctx context.Context, n int, waiting, starting string, cpuStart, cpuWait int, secs float64) ([][2]result, error) {
	for i, p := range s.pumps {
		if err := place(p.cmd.Process.Pid, [2]int{cpuStart, cpuWait}[i]); err != nil {
			return nil, err
		}
	}
	running := make([][2]*process, n)
	begin := time.Now().Add(seconds(warm))
	end := begin.Add(seconds(secs))
	defer func() {
		for _, pp := range running {
			for _, p := range pp {
				if p != nil && p.cmd.ProcessState == nil {
					p.stop()
				}
			}
		}
	}()
	for i := range n {
		at := netip.AddrPortFrom(s.ca[1], uint16(5001+i))
		var err error
		if running[i][0], err = start(ctx, spec{Role: waiting, NS: s.guest[1], CPU: cpuWait, Local: at, Begin: begin, End: end, Poll: len(s.pumps) == 0}); err != nil {
			return nil, err
		}
	}
	for i := range n {
		from, at := netip.AddrPortFrom(s.ca[0], 0), netip.AddrPortFrom(s.ca[1], uint16(5001+i))
		var err error
		if running[i][1], err = start(ctx, spec{Role: starting, NS: s.guest[0], CPU: cpuStart, Local: from, Remote: at, Begin: begin, End: end}); err != nil {
			return nil, err
		}
	}
	results := make([][2]result, n)
	for i, pp := range running {
		var errWait, errStart error
		results[i][1], errStart = pp[1].finish()
		results[i][0], errWait = pp[0].finish()
		if err := errors.Join(errStart, errWait); err != nil {
			return nil, err
		}
	}
	return results, nil
}

func seconds(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }

func (s *site) tcp(ctx context.Context, streams, cpuSend, cpuRecv int, secs float64) (value, error) {
	rs, err := s.pairs(ctx, streams, "tcp-recv", "tcp-send", cpuSend, cpuRecv, secs)
	if err != nil {
		return value{}, err
	}
	var v value
	for _, r := range rs {
		v.Retrans += r[1].Retrans
		v.Gbps += float64(r[0].Bytes) * 8 / secs / 1e9
	}
	if v.Gbps == 0 {
		return v, errors.New("no stream moved anything in the counted time")
	}
	return v, nil
}

// check proves that the site carries traffic, and that its underlay is what the
// cell says.
func (s *site) check(ctx context.Context) error {
	v, err := s.measure(ctx, tcp1, 0.2)
	if err != nil {
		return err
	}
	const ethernet = 14
	if s.underlay == "wire" && v.Frame > underlayMTU+ethernet {
		return fmt.Errorf("frames of %.0f bytes crossed an underlay that cuts to %d", v.Frame, underlayMTU)
	}
	if s.underlay == "pass" && v.Frame < 4*underlayMTU {
		return fmt.Errorf("super-packets do not pass the underlay: frames of %.0f bytes on average", v.Frame)
	}
	return nil
}
