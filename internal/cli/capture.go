package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/model"
	"github.com/weft-sdn/weft/internal/pcapng"
)

// capturePoints are the points that a filter can name.
var capturePoints = []string{"from-guest", "to-underlay", "from-underlay", "to-guest", "dropped"}

// captureOptions are the flags that are not part of the request.
type captureOptions struct {
	file     string
	count    int
	duration time.Duration
	output   output
}

func (a *app) captureCommand() *cobra.Command {
	request := weftv1.CaptureRequest{Filter: &weftv1.CaptureFilter{}}
	var o captureOptions
	f := request.Filter
	c := &cobra.Command{
		Use:   "capture TENANT/PORT... | --host HOST",
		Short: "Capture packets at the points of their way, with verdicts and drop reasons",
		Long: `Capture what the guests of ports send and get, at every point of its way through
the switch: from-guest as the guest sent it, to-underlay after encapsulation,
from-underlay before decapsulation, to-guest as it is handed over, and dropped, with
the reason. With --host, all that the switch of one host sees. Ports on several hosts
are captured at once.

-w writes pcapng, which Wireshark and tshark read, also live: every packet has its
point, verdict and reason as comment, every port and point is an interface, and what
was lost is counted in its statistics. Without -w one line per packet is printed.

A filter compares what the switch has parsed; addresses and ports are the guests',
behind outer headers as well. Packets that the guest leaves to its device to be cut or
checksummed are shown as they are. While nothing is captured the switch has no part of
this in it; while something is, packets that are too many or too fast are left out and
counted, never waited for.`,
		Example: "  weft capture red/web-1 -w - | tshark -r -\n" +
			"  weft capture red/web-1 --point dropped --count 10\n" +
			"  weft capture red/web-1 red/db-1 --proto tcp --port 443 -w /tmp/both.pcapng --duration 30s\n" +
			"  weft capture --host h1 --reason NO_RECORD",
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			request.Ports = args
			if err := a.checkCapture(&request, &o); err != nil {
				return err
			}
			return a.capture(c.Context(), &request, o)
		},
	}
	c.Flags().StringVar(&request.Host, "host", "", "all that this host's switch sees")
	c.Flags().StringSliceVar(&f.Points, "point", nil, "only these points: "+strings.Join(capturePoints, ", "))
	c.Flags().StringVar(&f.Proto, "proto", "", "only arp, icmp, tcp or udp")
	c.Flags().StringSliceVar(&f.Addresses, "ca", nil, "only from or to this Customer Address; two: between them")
	c.Flags().Uint32Var(&f.L4Port, "port", 0, "only from or to this port of tcp or udp")
	c.Flags().StringVar(&f.Reason, "reason", "", "of what is dropped, only this reason (implies --point dropped)")
	c.Flags().Uint32Var(&f.Snaplen, "snaplen", 0, "bytes of each frame (default and at most 61440)")
	c.Flags().Uint32Var(&f.Rate, "rate", 0, "most packets per second of each host, others are counted as lost (default 10000)")
	c.Flags().StringVarP(&o.file, "write", "w", "", "write pcapng to this file, - for stdout")
	c.Flags().IntVar(&o.count, "count", 0, "end after this many packets")
	c.Flags().DurationVar(&o.duration, "duration", 0, "end after this time, such as 30s")
	_ = c.RegisterFlagCompletionFunc("point", cobra.FixedCompletions(capturePoints, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("proto", cobra.FixedCompletions([]string{"arp", "icmp", "tcp", "udp"}, cobra.ShellCompDirectiveNoFileComp))
	o.output.flag(c, "text", "json")
	return c
}

// checkCapture refuses what can be known to be wrong without asking anybody.
func (a *app) checkCapture(request *weftv1.CaptureRequest, o *captureOptions) error {
	if err := o.output.check(); err != nil {
		return err
	}
	f := request.GetFilter()
	for _, p := range request.GetPorts() {
		if _, _, err := parsePort(p); err != nil {
			return err
		}
	}
	for _, p := range f.GetPoints() {
		if !slices.Contains(capturePoints, p) {
			return usagef("--point %q: write one of %s", p, strings.Join(capturePoints, ", "))
		}
	}
	for _, ca := range f.GetAddresses() {
		if _, err := netip.ParseAddr(ca); err != nil {
			return usagef("--ca %q: write an IPv4 or IPv6 address", ca)
		}
	}
	if f.Reason != "" {
		v, ok := model.VerdictByName(strings.ToUpper(f.Reason))
		if !ok || !v.Verdict.IsDrop() {
			return usagef("--reason %q: weft explain lists the reasons", f.Reason)
		}
		if len(f.Points) == 0 {
			f.Points = []string{"dropped"}
		}
	}
	switch {
	case (len(request.GetPorts()) == 0) == (request.GetHost() == "") && !a.dial.agentOnly():
		return usagef("name ports, as TENANT/PORT, or a host with --host")
	case f.GetL4Port() > 65535:
		return usagef("--port %d: there is no such port", f.GetL4Port())
	case o.count < 0 || o.duration < 0:
		return usagef("--count and --duration must be positive")
	case o.file != "" && o.output.format != "text":
		return usagef("-w writes pcapng: leave -o away")
	case o.file == "-" && isTerminal(a.out):
		return usagef("-w -: pcapng is nothing for a terminal; write | tshark -r - behind it")
	}
	return nil
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// capture shows packets until enough have come, the time is over, or whoever watches
// has seen enough.
func (a *app) capture(ctx context.Context, request *weftv1.CaptureRequest, o captureOptions) error {
	out, err := a.captureSink(o)
	if err != nil {
		return err
	}
	ctx, cancel := endAfter(ctx, o.duration)
	defer cancel()
	sum := captureSum{counts: map[captureKey]*weftv1.CaptureCount{}}
	err = a.captured(ctx, request, func(m *weftv1.CaptureResponse) error {
		if m.GetError() != "" {
			a.say("host %s: %s", m.GetFrom().GetHost(), m.GetError())
		}
		for _, p := range m.GetPackets() {
			if err := out.packet(m.GetFrom(), p); err != nil {
				return err
			}
			sum.add(m.GetFrom(), p)
			if o.count > 0 && sum.packets >= o.count {
				sum.count(m)
				return errEnough
			}
		}
		sum.count(m)
		return out.flush()
	})
	if errors.Is(err, syscall.EPIPE) {
		return nil // whoever read has gone
	}
	if err = errors.Join(err, out.close(sum)); err != nil && sum.packets == 0 {
		return err
	}
	a.say("%d packets captured, %d more matched and were lost", sum.packets, sum.lost())
	return err
}

// endAfter ends ctx after a time, for ever with 0. It is no deadline: that would go to
// the server as one, whose answer would be a failure.
func endAfter(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	if d > 0 {
		time.AfterFunc(d, cancel)
	}
	return ctx, cancel
}

var errEnough = errors.New("enough")

// captured asks the server, or the local agent where there is only that, and hands
// messages to take until that says errEnough or ctx ends.
func (a *app) captured(ctx context.Context, request *weftv1.CaptureRequest, take func(*weftv1.CaptureResponse) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := a.captureStream(ctx, request)
	if err != nil {
		return err
	}
	defer stream.Close()
	for stream.Receive() {
		if err := take(stream.Msg()); errors.Is(err, errEnough) {
			return nil
		} else if err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return stream.Err()
}

func (a *app) captureStream(ctx context.Context, request *weftv1.CaptureRequest) (*connect.ServerStreamForClient[weftv1.CaptureResponse], error) {
	if a.dial.agentOnly() {
		return a.dial.agentService().LocalCapture(ctx, connect.NewRequest(request))
	}
	operate, err := a.dial.operate()
	if err != nil {
		return nil, err
	}
	return operate.Capture(ctx, connect.NewRequest(request))
}

// captureKey is one point of one target.
type captureKey struct{ host, port, point string }

// captureSum counts what came, and what did not.
type captureSum struct {
	packets int
	written map[captureKey]uint64
	counts  map[captureKey]*weftv1.CaptureCount
}

func (s *captureSum) add(from *weftv1.CaptureTarget, p *weftv1.CapturedPacket) {
	if s.written == nil {
		s.written = map[captureKey]uint64{}
	}
	s.packets++
	s.written[captureKey{from.GetHost(), from.GetPort(), p.GetPoint()}]++
}

func (s *captureSum) count(m *weftv1.CaptureResponse) {
	for _, n := range m.GetCounts() {
		s.counts[captureKey{m.GetFrom().GetHost(), m.GetFrom().GetPort(), n.GetPoint()}] = n
	}
}

func (s *captureSum) lost() (n uint64) {
	for _, c := range s.counts {
		n += c.GetLost()
	}
	return n
}

// captureSink is where packets go.
type captureSink interface {
	packet(from *weftv1.CaptureTarget, p *weftv1.CapturedPacket) error
	flush() error
	close(sum captureSum) error
}

func (a *app) captureSink(o captureOptions) (captureSink, error) {
	if o.file == "" {
		return &captureLines{w: bufio.NewWriter(a.out), json: o.output.format == "json"}, nil
	}
	s := &captureFile{begun: time.Now(), interfaces: map[captureKey]int{}}
	out := a.out
	if o.file != "-" {
		f, err := os.OpenFile(o.file, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) // tenants' bytes
		if err != nil {
			return nil, err
		}
		out, s.file = f, f
	}
	s.buffer = bufio.NewWriterSize(out, 1<<16)
	var err error
	if s.w, err = pcapng.NewWriter(s.buffer, "weft "+a.version); err != nil {
		return nil, err
	}
	return s, s.buffer.Flush()
}

// captureLines prints a line for each packet.
type captureLines struct {
	w    *bufio.Writer
	json bool
}

func (l *captureLines) packet(from *weftv1.CaptureTarget, p *weftv1.CapturedPacket) error {
	if l.json {
		return writeJSONLine(l.w, &weftv1.CaptureResponse{From: from, Packets: []*weftv1.CapturedPacket{p}})
	}
	t := time.Unix(0, p.GetTimeUnixNano())
	_, err := fmt.Fprintf(l.w, "%s %s  %s\n", t.Format("15:04:05.000000"), p.GetSummary(), captureComment(from, p))
	return err
}

func (l *captureLines) flush() error           { return l.w.Flush() }
func (l *captureLines) close(captureSum) error { return l.w.Flush() }

// captureFile writes pcapng.
type captureFile struct {
	file       *os.File // nil: somebody else's
	buffer     *bufio.Writer
	w          *pcapng.Writer
	begun      time.Time
	interfaces map[captureKey]int
}

func (s *captureFile) packet(from *weftv1.CaptureTarget, p *weftv1.CapturedPacket) error {
	i, err := s.iface(captureKey{from.GetHost(), from.GetPort(), p.GetPoint()})
	if err != nil {
		return err
	}
	direction := pcapng.Outbound
	if p.GetDirection() == "inbound" {
		direction = pcapng.Inbound
	}
	return s.w.WritePacket(pcapng.Packet{Interface: i, Time: time.Unix(0, p.GetTimeUnixNano()), Length: int(p.GetLength()),
		Data: p.GetFrame(), Comment: captureComment(from, p), Direction: direction})
}

// pointMeans says what the frames of a point are.
var pointMeans = map[string]string{
	"from-guest": "as the guest sent it", "to-underlay": "after encapsulation", "from-underlay": "before decapsulation",
	"to-guest": "as handed to the guest", "dropped": "dropped by the switch, as it came",
}

func (s *captureFile) iface(k captureKey) (int, error) {
	if i, ok := s.interfaces[k]; ok {
		return i, nil
	}
	name := k.port
	if name == "" {
		name = k.host
	}
	i, err := s.w.AddInterface(name+" "+k.point, "host "+k.host+": "+pointMeans[k.point], 0)
	s.interfaces[k] = i
	return i, err
}

func (s *captureFile) flush() error { return s.buffer.Flush() }

// close writes what each interface saw and lost.
func (s *captureFile) close(sum captureSum) error {
	now := time.Now()
	var err error
	for k, c := range sum.counts {
		i, e := s.iface(k)
		if e == nil {
			e = s.w.WriteStatistics(pcapng.Statistics{Interface: i, Start: s.begun, End: now, Received: sum.written[k] + c.GetLost(), Dropped: c.GetLost()})
		}
		err = errors.Join(err, e)
	}
	err = errors.Join(err, s.buffer.Flush())
	if s.file != nil {
		err = errors.Join(err, s.file.Close())
	}
	return err
}

// captureComment says what the switch did with the packet, in one line.
func captureComment(from *weftv1.CaptureTarget, p *weftv1.CapturedPacket) string {
	port := p.GetPort()
	if p.GetPoint() == "to-guest" && p.GetToPort() != "" {
		port = p.GetToPort()
	}
	if port == "" {
		port = "no port"
	}
	words := []string{fmt.Sprintf("%s %s on %s: %s", p.GetPoint(), port, from.GetHost(), captureVerdict(p))}
	if p.GetVsid() != 0 {
		words = append(words, fmt.Sprintf("VSID %d", p.GetVsid()))
	}
	if v := model.Verdict(p.GetVerdict()); v.IsDrop() && p.GetPoint() == "dropped" {
		words = append(words, v.Info().Sentence)
	}
	return strings.Join(append(words, p.GetNotes()...), "; ")
}

func captureVerdict(p *weftv1.CapturedPacket) string {
	if p.GetVerdict() == 0 {
		return "verdict not known"
	}
	text := p.GetVerdictName()
	if p.GetStage() != "" && p.GetStage() != "none" {
		text += " in stage " + p.GetStage()
	}
	if p.GetOutDevice() != "" {
		text += " out of " + p.GetOutDevice()
	}
	return text
}
