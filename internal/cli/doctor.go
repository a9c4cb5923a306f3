package cli

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

func (a *app) doctorCommand() *cobra.Command {
	var host string
	var o output
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Examine hosts, underlay and server, and say what to do",
		Long: `Let every host, or one, examine itself: kernel, uplinks, MTU, offloads, certificate,
tables, next hops, and the path to every peer with full-size packets that may not be
fragmented. Without --host the server examines itself as well. On a host that knows
no server, the local agent alone.

The exit code is 1 when something fails; warnings alone leave it 0.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			ctx, cancel := unary(c)
			defer cancel()
			answer, err := a.doctor(ctx, host)
			if err != nil {
				return err
			}
			if done, err := o.message(a.out, answer); err != nil {
				return err
			} else if !done {
				if err := a.printFindings(answer); err != nil {
					return err
				}
			}
			if n := countSeverity(answer, "fail"); n > 0 {
				return fmt.Errorf("%d findings fail, %d warn", n, countSeverity(answer, "warn"))
			}
			return nil
		},
	}
	c.Flags().StringVar(&host, "host", "", "only this host")
	o.flag(c, "table", "json", "yaml")
	return c
}

// doctor asks the server, or the local agent where there is only that.
func (a *app) doctor(ctx context.Context, host string) (*weftv1.DoctorResponse, error) {
	if a.dial.agentOnly() {
		answer, err := a.dial.agentService().LocalDoctor(ctx, connect.NewRequest(&weftv1.LocalDoctorRequest{}))
		if err != nil {
			return nil, err
		}
		return answer.Msg, nil
	}
	operate, err := a.dial.operate()
	if err != nil {
		return nil, err
	}
	answer, err := operate.Doctor(ctx, connect.NewRequest(&weftv1.DoctorRequest{Host: host}))
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

// printFindings prints the table, and then what to do about what is not well.
func (a *app) printFindings(m *weftv1.DoctorResponse) error {
	t := newTable("SEVERITY", "HOST", "CHECK", "FINDING")
	for _, f := range m.GetFindings() {
		t.add(f.GetSeverity(), f.GetHost(), f.GetCheck(), f.GetText())
	}
	if err := t.flush(a.out); err != nil {
		return err
	}
	headed := false
	for _, f := range m.GetFindings() {
		if f.GetAction() == "" {
			continue
		}
		if !headed {
			fmt.Fprintln(a.out, "\nWhat to do:")
			headed = true
		}
		where := f.GetHost()
		if where == "" {
			where = "server"
		}
		fmt.Fprintf(a.out, "  %s, %s: %s\n", where, f.GetCheck(), f.GetAction())
	}
	return nil
}

func countSeverity(m *weftv1.DoctorResponse, severity string) (n int) {
	for _, f := range m.GetFindings() {
		if f.GetSeverity() == severity {
			n++
		}
	}
	return n
}
