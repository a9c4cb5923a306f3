package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"github.com/weft-sdn/weft/internal/model"
)

// metric names one way of loading a site.
type metric string

const (
	tcp1  metric = "tcp1"  // one stream, sender and receiver on two cores
	tcp1c metric = "tcp1c" // one stream, everything on one core: cost per byte
	tcp4  metric = "tcp4"  // four streams, placed by the kernel
	rr1c  metric = "rr1c"  // one byte each way in turn, everything on one core: cost per packet
	crr1c metric = "crr1c" // the same with a connection for each byte
	udp   metric = "udp"   // 64 bytes of payload per datagram, one sender

	udpHot    metric = "udp-hot"    // udp to 1,000 of all addresses that the switch knows, in turn
	udpRandom metric = "udp-random" // udp to all of them, at random

	connections metric = "cps" // crr1c, by how many there are in a second
)

var (
	metrics       = []metric{tcp1, tcp1c, tcp4, rr1c, crr1c, udp}
	recordMetrics = []metric{udpHot, udpRandom}
)

const hotSet = 1000

// value is one measurement of one contender.
type value struct {
	Gbps    float64 `json:"gbps,omitempty"`
	P50     float64 `json:"p50_us,omitempty"`
	P99     float64 `json:"p99_us,omitempty"`
	Rate    float64 `json:"per_second,omitempty"` // connections
	Kpps    float64 `json:"kpps,omitempty"`
	CPU     float64 `json:"cpu_ms_per_gigabit,omitempty"` // of sender, receiver and what plays between them
	Retrans uint32  `json:"retransmits"`
	Dropped uint64  `json:"dropped"`            // by any device of the site, while measuring
	Frame   float64 `json:"wire_frame_bytes"`   // mean at the receiving underlay
	Handed  float64 `json:"handed_frame_bytes"` // mean at the receiving port
}

// main is the figure by which contenders are compared.
func (v value) main(m metric) float64 {
	switch m {
	case rr1c, crr1c:
		return v.P50
	case udp, udpHot, udpRandom:
		return v.Kpps
	case connections:
		return v.Rate
	}
	return v.Gbps
}

func (v value) line(m metric) string {
	switch m {
	case rr1c, crr1c:
		return fmt.Sprintf("%.1f/%.1f us", v.P50, v.P99)
	case udp, udpHot, udpRandom:
		return fmt.Sprintf("%.0f kpps", v.Kpps)
	case connections:
		return fmt.Sprintf("%.0f connections/s, %.1f/%.1f us, dropped %d", v.Rate, v.P50, v.P99, v.Dropped)
	}
	return fmt.Sprintf("%.2f Gb/s, retransmits %d, dropped %d, frames %.0f B on the underlay, %.0f B to the port", v.Gbps, v.Retrans, v.Dropped, v.Frame, v.Handed)
}

// warm is how many seconds pass before counting starts; the workers come up in it.
var warm = 0.3

const (
	firstCPU = 0
	oneCPU   = 1
)

const attempts = 3

// measured is measure, once more when the machine was too busy to let the workers come up.
func (s *site) measured(ctx context.Context, m metric, secs float64) (v value, err error) {
	for range attempts {
		if v, err = s.measure(ctx, m, secs); err == nil || ctx.Err() != nil {
			return v, err
		}
		fmt.Fprintf(os.Stderr, "%-10s %-10s %-6s once more: %v\n", s.cell.name(), s.name, m, err)
	}
	return v, err
}

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

// A load is what the ends of connections do: the waiting one in the second guest,
// the starting one in the first.
type load struct {
	waiting, starting string
	cpuStart, cpuWait int // -1: any
	streams           int
	spread            int // see spec
	random            bool
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
		return s.ask(ctx, "rr-answer", "rr-ask", secs)
	case crr1c, connections:
		return s.ask(ctx, "crr-answer", "crr-ask", secs)
	case udp:
		return s.datagrams(ctx, 0, false, secs)
	case udpHot:
		return s.datagrams(ctx, min(hotSet, s.records), false, secs)
	case udpRandom:
		return s.datagrams(ctx, s.records, true, secs)
	}
	return value{}, fmt.Errorf("metric %q: no such", m)
}

func (s *site) ask(ctx context.Context, waiting, starting string, secs float64) (value, error) {
	rs, err := s.pairs(ctx, load{waiting: waiting, starting: starting, cpuStart: oneCPU, cpuWait: oneCPU, streams: 1}, secs)
	if err != nil {
		return value{}, err
	}
	return value{P50: rs[0][1].P50, P99: rs[0][1].P99, Rate: float64(rs[0][1].Packets) / secs}, nil
}

func (s *site) datagrams(ctx context.Context, spread int, random bool, secs float64) (value, error) {
	rs, err := s.pairs(ctx, load{waiting: "udp-recv", starting: "udp-send", cpuStart: firstCPU, cpuWait: oneCPU, streams: 1, spread: spread, random: random}, secs)
	if err != nil {
		return value{}, err
	}
	if rs[0][0].Packets == 0 {
		return value{}, errors.New("no datagram arrived in the counted time")
	}
	return value{Kpps: float64(rs[0][0].Packets) / secs / 1e3}, nil
}

func (s *site) tcp(ctx context.Context, streams, cpuSend, cpuRecv int, secs float64) (value, error) {
	var before, after time.Duration
	var v value
	before, err := s.pumped()
	if err != nil {
		return v, err
	}
	rs, err := s.pairs(ctx, load{waiting: "tcp-recv", starting: "tcp-send", cpuStart: cpuSend, cpuWait: cpuRecv, streams: streams}, secs)
	if err != nil {
		return v, err
	}
	if after, err = s.pumped(); err != nil {
		return v, err
	}
	spent, moved := after-before, uint64(0)
	for _, r := range rs {
		v.Retrans += r[1].Retrans
		v.Gbps += float64(r[0].Bytes) * 8 / secs / 1e9
		spent += r[0].cpu + r[1].cpu
		moved += r[0].Total
	}
	if v.Gbps == 0 {
		return v, errors.New("no stream moved anything in the counted time")
	}
	v.CPU = spent.Seconds() * 1e3 / (float64(moved) * 8 / 1e9)
	return v, nil
}

// pumped is the processor time that the pumps have taken so far.
func (s *site) pumped() (total time.Duration, err error) {
	for _, p := range s.pumps {
		d, err := cpuTime(p.cmd.Process.Pid)
		if err != nil {
			return 0, err
		}
		total += d
	}
	return total, nil
}

// pairs runs the streams of a load at once. Results are of the waiting, then the starting end.
func (s *site) pairs(ctx context.Context, l load, secs float64) ([][2]result, error) {
	for i, p := range s.pumps {
		if err := place(p.cmd.Process.Pid, [2]int{l.cpuStart, l.cpuWait}[i]); err != nil {
			return nil, err
		}
	}
	running := make([][2]*process, l.streams)
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
	local, remote := s.ca[1], s.ca[1]
	if l.spread > 0 {
		local, remote = netip.IPv4Unspecified(), recordCA(0)
	}
	for i := range running {
		var err error
		running[i][0], err = start(ctx, spec{Role: l.waiting, NS: s.guest[1], CPU: l.cpuWait, Local: netip.AddrPortFrom(local, port(i)),
			Begin: begin, End: end, Poll: len(s.pumps) == 0})
		if err != nil {
			return nil, err
		}
	}
	for i := range running {
		var err error
		running[i][1], err = start(ctx, spec{Role: l.starting, NS: s.guest[0], CPU: l.cpuStart, Local: netip.AddrPortFrom(s.ca[0], 0),
			Remote: netip.AddrPortFrom(remote, port(i)), Begin: begin, End: end, Spread: l.spread, Random: l.random})
		if err != nil {
			return nil, err
		}
	}
	results := make([][2]result, l.streams)
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

// port is where the i-th stream arrives.
func port(i int) uint16 { return uint16(5001 + i) }

func seconds(f float64) time.Duration { return time.Duration(f * float64(time.Second)) }

// check proves that the site carries traffic, and that its underlay is what the
// cell says.
func (s *site) check(ctx context.Context) error {
	if s.rules {
		return s.checkRules(ctx)
	}
	v, err := s.measured(ctx, tcp1, 0.1)
	if err != nil {
		return err
	}
	if err := s.checkSizes(); err != nil {
		return err
	}
	const ethernet = 14
	if s.underlay == "wire" && v.Frame > underlayMTU+ethernet {
		return fmt.Errorf("frames of %.0f bytes crossed an underlay that cuts to %d", v.Frame, underlayMTU)
	}
	if s.underlay == "pass" && v.Frame < 4*underlayMTU && s.name != ovsGRE && s.name != ovsVXLAN {
		return fmt.Errorf("super-packets do not pass the underlay: frames of %.0f bytes on average", v.Frame)
	}
	return nil
}

// checkSizes proves that guests send what their transport carries: where packets are too big, they go by another one than the name says.
func (s *site) checkSizes() error {
	for _, sw := range s.switches {
		counts, err := sw.Drops()
		if err != nil {
			return err
		}
		for _, c := range counts {
			if c.Reason == model.VerdictTooBig {
				return fmt.Errorf("%d packets were TOO_BIG", c.Packets)
			}
		}
	}
	return nil
}
