package cli

import (
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/model"
)

func (a *app) traceCommand() *cobra.Command {
	var request weftv1.TraceRequest
	var live liveOptions
	var o output
	c := &cobra.Command{
		Use:   "trace TENANT/PORT --to IP",
		Short: "Show what becomes of a packet, stage by stage, and of its answer",
		Long: `Run a packet, as the port's guest would send it, through the loaded programs and
tables of the hosts on its way, and its answer on the way back. Each stage says what
it found, each verdict what it means. Nothing is sent, nothing is counted, and the
guests notice nothing; what the guests and the underlay would do is not tried.

-o wide also prints the frames. The exit code is 0 when the packet and its answer
arrive, and 1 otherwise.

With --live nothing is made up: the guests' own packets between the two are followed, from
host to host, and each is shown at every point of its way with what became of it.
It ends after --count packets, after --duration, or when interrupted; the exit code is
1 when one of them did not arrive, or none came.`,
		Example: "  weft trace red/web-1 --to 10.0.1.5 --proto tcp --dport 443\n  weft trace red/web-1 --to fd00:a::6 --size 1500\n  weft trace red/web-1 --to 10.0.1.5 --proto tcp --dport 443 --live",
		Args:    cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if _, _, err := parsePort(args[0]); err != nil {
				return err
			}
			if _, err := netip.ParseAddr(request.GetTo()); err != nil {
				return usagef("--to %q: write an IPv4 or IPv6 address", request.GetTo())
			}
			request.Port = args[0]
			if live.on {
				live.anyProto = !c.Flags().Changed("proto")
				return a.traceLive(c.Context(), &request, live, o)
			}
			operate, err := a.dial.operate()
			if err != nil {
				return err
			}
			ctx, cancel := unary(c)
			defer cancel()
			answer, err := operate.Trace(ctx, connect.NewRequest(&request))
			if err != nil {
				return err
			}
			if done, err := o.message(a.out, answer.Msg); err != nil {
				return err
			} else if !done {
				printTrace(a.out, answer.Msg, o.format == "wide")
			}
			return traceResult(answer.Msg)
		},
	}
	c.Flags().StringVar(&request.To, "to", "", "Customer Address that the packet is for")
	c.Flags().StringVar(&request.Proto, "proto", "icmp", "icmp, tcp or udp")
	c.Flags().Uint32Var(&request.Dport, "dport", 0, "destination port of tcp or udp (default 80)")
	c.Flags().Uint32Var(&request.Size, "size", 0, "size of the IP packet in bytes (default: headers alone)")
	c.Flags().BoolVar(&live.on, "live", false, "follow the guests' own packets")
	c.Flags().IntVar(&live.count, "count", 10, "with --live: end after this many packets")
	c.Flags().DurationVar(&live.duration, "duration", 0, "with --live: end after this time, such as 30s")
	_ = c.MarkFlagRequired("to")
	_ = c.RegisterFlagCompletionFunc("proto", cobra.FixedCompletions([]string{"icmp", "tcp", "udp"}, cobra.ShellCompDirectiveNoFileComp))
	o.flag(c, "text", "wide", "json", "yaml")
	return c
}

// traceResult is the exit code, and what is wrong in one line.
func traceResult(m *weftv1.TraceResponse) error {
	if n := countFindings(m); n > 0 {
		return fmt.Errorf("%s; but the kernel is not as policy says it should be (%d findings above)", m.GetSummary(), n)
	}
	if !m.GetDelivered() || !m.GetReturned() {
		return fmt.Errorf("%s", m.GetSummary())
	}
	return nil
}

func countFindings(m *weftv1.TraceResponse) (n int) {
	for _, r := range slices.Concat(m.GetForward(), m.GetReverse()) {
		n += len(r.GetFindings())
	}
	return n
}

func printTrace(w io.Writer, m *weftv1.TraceResponse, wide bool) {
	printRuns(w, m.GetForward(), wide)
	if len(m.GetReverse()) > 0 {
		fmt.Fprintln(w, "the way back:")
		printRuns(w, m.GetReverse(), wide)
	}
	fmt.Fprintln(w, m.GetSummary())
}

func printRuns(w io.Writer, runs []*weftv1.TraceRun, wide bool) {
	for _, r := range runs {
		fmt.Fprintf(w, "%s %s %s: %s\n", r.GetHost(), r.GetProgram(), r.GetDevice(), r.GetPacket())
		for _, s := range r.GetSteps() {
			fmt.Fprintf(w, "  %-10s %s\n", s.GetStage(), s.GetText())
		}
		printTraceRules(w, r)
		printVerdict(w, r)
		for _, f := range r.GetFindings() {
			fmt.Fprintf(w, "  !! %s\n", f)
		}
		if wide {
			printFrame(w, "in", r.GetFrameIn())
			printFrame(w, "out", r.GetFrameOut())
		}
	}
}

func printVerdict(w io.Writer, r *weftv1.TraceRun) {
	fmt.Fprintf(w, "  => %s: %s\n", r.GetVerdictName(), r.GetSentence())
	drop := model.Verdict(r.GetVerdict()).IsDrop()
	switch {
	case r.GetOutDevice() == "":
	case r.GetToPort() != "":
		fmt.Fprintf(w, "     into %s of %s\n", r.GetOutDevice(), r.GetToPort())
	case drop:
		fmt.Fprintf(w, "     the guest is told: %s\n", r.GetOutPacket())
	default:
		fmt.Fprintf(w, "     out of %s: %s\n", r.GetOutDevice(), r.GetOutPacket())
	}
	if o := r.GetOuter(); o != nil {
		tunnel := fmt.Sprintf("FlowID %d", o.GetFlowId())
		if o.GetRewritten() {
			tunnel = "rewritten, no outer headers"
		}
		if o.GetDestinationPort() != 0 {
			tunnel = fmt.Sprintf("VXLAN, UDP %d > %d", o.GetSourcePort(), o.GetDestinationPort())
		}
		fmt.Fprintf(w, "     outer: %s > %s, %d bytes, TTL %d, DSCP %d, protocol %d, VSID %d, %s\n",
			o.GetSource(), o.GetDestination(), o.GetLength(), o.GetTtl(), o.GetDscp(), o.GetProtocol(), o.GetVsid(), tunnel)
	}
	if drop && r.GetAction() != "" {
		fmt.Fprintf(w, "     what to do: %s\n", r.GetAction())
	}
}

func printFrame(w io.Writer, name string, frame []byte) {
	if len(frame) == 0 {
		return
	}
	fmt.Fprintf(w, "     frame %s:\n", name)
	for _, line := range strings.Split(strings.TrimSuffix(hex.Dump(frame), "\n"), "\n") {
		fmt.Fprintf(w, "       %s\n", line)
	}
}
