package lab

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

// statusWait bounds how long one daemon may take to answer.
const statusWait = 5 * time.Second

// Status writes what is where in the lab and whether it runs. healthy is false
// when a daemon of the lab is not.
func (l Lab) Status(ctx context.Context, w io.Writer) (healthy bool, err error) {
	s, err := l.readState()
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, statusWait)
	defer cancel()
	hosts := make(map[string]*weftv1.HostStatus)
	answer, serverErr := l.server().Operate().FleetStatus(ctx, connect.NewRequest(&weftv1.FleetStatusRequest{}))
	if serverErr == nil {
		for _, h := range answer.Msg.GetHosts() {
			hosts[h.GetName()] = h
		}
	}
	healthy = serverErr == nil
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NODE\tADDRESS\tSTATE\tPID\tFILES")
	fmt.Fprintf(t, "server\t%s\t%s\t%s\t%s\n", nodeOf(0), word(serverErr == nil, "answers", "does not answer"), pid(l.serverDir()), l.serverDir())
	for i, name := range s.Hosts {
		up := hosts[name].GetConnected()
		healthy = healthy && up
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", name, nodeOf(i+1), word(up, "connected", "not connected"), pid(l.hostDir(name)), l.hostDir(name))
	}
	if err := t.Flush(); err != nil || len(s.Guests) == 0 {
		return healthy, err
	}
	fmt.Fprintln(w)
	fmt.Fprintln(t, "GUEST\tHOST\tSTATE\tNAMESPACE")
	states := l.plugStates(ctx, s.Hosts)
	for _, g := range s.Guests {
		ref, _ := parsePortRef(g.Port) // came from a checked spec
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", g.Port, g.Host, cmp.Or(states[g.Port], "not plugged"), l.guestSpace(ref))
	}
	return healthy, t.Flush()
}

// plugStates asks the agents how their plugs are, by TENANT/PORT.
func (l Lab) plugStates(ctx context.Context, hosts []string) map[string]string {
	states := make(map[string]string)
	for _, name := range hosts {
		plugs, err := l.agent(name).Agent().ListPlugs(ctx, connect.NewRequest(&weftv1.ListPlugsRequest{}))
		if err != nil {
			continue // the host's own row says that it does not answer
		}
		for _, p := range plugs.Msg.GetPlugs() {
			states[p.GetTenant()+"/"+p.GetPort()] = p.GetState()
		}
	}
	return states
}

func word(yes bool, is, isNot string) string {
	if yes {
		return is
	}
	return isNot
}

// pid of the daemon whose files are in dir, as it was started.
func pid(dir string) string {
	text, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		return "-"
	}
	return strings.TrimSpace(string(text))
}
