package lab

import (
	"regexp"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/encoding/protojson"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
)

// trace runs weft trace in the lab, from a host's shell.
func (l Lab) trace(t *testing.T, args ...string) (*weftv1.TraceResponse, int) {
	t.Helper()
	out, code := l.in("h1", "", append([]string{"weft", "trace", "-o", "json"}, args...)...)
	end := strings.LastIndex(out, "\n}") + 2
	if end < 2 {
		t.Fatalf("trace %v: code %d\n%s", args, code, out)
	}
	m := &weftv1.TraceResponse{}
	if err := protojson.Unmarshal([]byte(out[:end]), m); err != nil {
		t.Fatalf("trace %v: %v\n%s", args, err, out)
	}
	for _, r := range append(m.GetForward(), m.GetReverse()...) {
		if len(r.GetSteps()) == 0 || r.GetSentence() == "" {
			t.Errorf("trace %v: a run without a reason: %v", args, r)
		}
	}
	return m, code
}

// way is the hosts, programs and verdicts of a leg.
func way(runs []*weftv1.TraceRun) string {
	var words []string
	for _, r := range runs {
		words = append(words, r.GetHost()+" "+r.GetProgram()+" "+r.GetVerdictName())
	}
	return strings.Join(words, ", ")
}

// tallies is all that the hosts count, but for what guests say unasked.
func (l Lab) tallies(t *testing.T) string {
	t.Helper()
	all := ""
	for _, h := range []string{"h1", "h2"} {
		counted, code := l.in(h, "", "sh", "-c", "curl -fsS http://127.0.0.1:9467/metrics | grep -E '^weft_(drop|port)_(packets|bytes)_total' | grep -Ev 'multicast|nd_quiet'")
		if code != 0 {
			t.Fatalf("metrics of %s: %s", h, counted)
		}
		all += counted
	}
	return all
}

const (
	asked    = "h1 from_port ANSWERED, "
	far      = asked + "h1 from_port ENCAPSULATED, h2 from_uplink DELIVERED"
	farBack  = "h2 from_port ANSWERED, h2 from_port ENCAPSULATED, h1 from_uplink DELIVERED"
	near     = asked + "h1 from_port DELIVERED"
	nearBack = near
)

func TestTrace(t *testing.T) {
	ctx := patience(t)
	l := newLab(t, "t")
	if err := l.Up(ctx, options(t, demoSpec(t))); err != nil {
		t.Fatal(err)
	}
	before := l.tallies(t)
	for _, c := range []struct {
		args, forward, reverse string
		code                   int
	}{
		{"--to 10.0.0.7", near, nearBack, 0},
		{"--to fd00:a::7 --proto udp", near, nearBack, 0},
		{"--to 10.0.0.6", far, farBack, 0},
		{"--to fd00:a::6 --proto tcp --dport 443", far, farBack, 0},
		{"--to 10.0.1.5 --proto tcp", far, farBack, 0}, // another subnet
		{"--to fd00:b::5 --proto udp --size 900", far, farBack, 0},
		{"--to 10.0.0.6 --size 1458", far, farBack, 0},
		{"--to 10.0.0.6 --size 1459", asked + "h1 from_port TOO_BIG", "", 1},
		{"--to 10.0.0.1", asked + "h1 from_port ANSWERED", "", 0}, // the router
		{"--to fd00:b::1", asked + "h1 from_port ANSWERED", "", 0},
		{"--to 10.0.0.1 --proto tcp", asked + "h1 from_port ROUTER_NO_SERVICE", "", 1},
		{"--to 10.0.0.99", "h1 from_port ARP_NO_RECORD", "", 1},
		{"--to fd00:a::99", "h1 from_port ND_NO_RECORD", "", 1},
		{"--to 10.0.1.99", asked + "h1 from_port NO_RECORD", "", 1},
		{"--to 198.51.100.1", asked + "h1 from_port NO_ROUTE", "", 1},
		{"--to 224.0.0.5", "h1 from_port MULTICAST", "", 1},
	} {
		m, code := l.trace(t, append([]string{"red/web-1"}, strings.Fields(c.args)...)...)
		if forward, reverse := way(m.GetForward()), way(m.GetReverse()); forward != c.forward || reverse != c.reverse || code != c.code {
			t.Errorf("%s: code %d, want %d, %s\n have %s | %s\n want %s | %s", c.args, code, c.code, m.GetSummary(), forward, reverse, c.forward, c.reverse)
		}
		if n := findingsOf(m); n != "" {
			t.Errorf("%s: %s", c.args, n)
		}
	}
	if after := l.tallies(t); after != before {
		t.Errorf("traces were counted:\nbefore %s\nafter  %s", before, after)
	}
	l.in("red/web-1", "", "ping", "-c1", "10.0.0.6")
	if after := l.tallies(t); after == before {
		t.Error("not even a real packet is counted")
	}

	m, _ := l.trace(t, "red/web-1", "--to", "10.0.0.6", "--size", "200")
	if o := m.GetForward()[1].GetOuter(); o.GetVsid() != 5001 || o.GetProtocol() != 47 || o.GetLength() != 200+42 || o.GetTtl() != 64 || o.GetFlowId() == 0 {
		t.Errorf("outer headers: %v", o)
	}
	if n := len(m.GetForward()[1].GetFrameOut()); n != 14+42+200 {
		t.Errorf("%d bytes on the wire", n)
	}
	if got := m.GetForward()[2].GetToPort() + " " + m.GetReverse()[2].GetToPort(); got != "red/web-2 red/web-1" {
		t.Errorf("delivered to %s", got)
	}
	out, code := l.in("h2", "", "weft", "trace", "red/web-1", "--to", "10.0.0.6", "-o", "wide")
	if code != 0 || !regexp.MustCompile(`(?s)outer: .* VSID 5001.*00000000  .*the way back:.*delivered, and the answer comes back`).MatchString(out) {
		t.Errorf("for people: code %d\n%s", code, out)
	}
	for args, want := range map[string]string{
		"red/web-9 --to 10.0.0.6":                           "Port red/web-9 does not exist",
		"red/web-1 --to 10.0.0.6 --size 4000":               "at most 3400",
		"red/web-1 --to 10.0.0.6 --dport 80":                "icmp has no ports",
		"red/web-1 --to 10.0.0.6 --proto sctp":              "must be icmp, tcp or udp",
		"red/web-1 --to 10.0.0.6 --proto tcp --dport 70000": "70000 is no port",
	} {
		if out, code := l.in("h1", "", append([]string{"weft", "trace"}, strings.Fields(args)...)...); code != exitFailed || !strings.Contains(out, want) {
			t.Errorf("trace %s: code %d, %s", args, code, out)
		}
	}
	l.traceOfTrouble(t)
}

func findingsOf(m *weftv1.TraceResponse) string {
	var all []string
	for _, r := range append(m.GetForward(), m.GetReverse()...) {
		all = append(all, r.GetFindings()...)
	}
	return strings.Join(all, "\n")
}

// traceOfTrouble breaks the lab, one thing after the other.
func (l Lab) traceOfTrouble(t *testing.T) {
	t.Helper()
	// Somebody deletes what the receiver's kernel knows of the sender.
	pins := l.pins() + "/h2"
	out, code := l.in("h2", "", "sh", "-c", `set -e; map=$(ls `+pins+`/maps-*/record)
bpftool map delete pinned $map key hex 89 13 00 00 00 00 00 00 00 00 00 00 00 00 ff ff 0a 00 00 05`)
	if code != 0 {
		t.Fatalf("delete a record: %s", out)
	}
	m, code := l.trace(t, "red/web-1", "--to", "10.0.0.6")
	if got := way(m.GetForward()); code != 1 || got != asked+"h1 from_port ENCAPSULATED, h2 from_uplink SOURCE_NOT_IN_POLICY" || !strings.HasPrefix(findingsOf(m), "DRIFT: ") {
		t.Errorf("drift: code %d, %s, %q", code, got, findingsOf(m))
	}
	// The receiver is unplugged on its host: the sender cannot know.
	if _, err := l.agent("h2").Agent().Unplug(t.Context(), connect.NewRequest(&weftv1.UnplugRequest{Tenant: "red", Port: "db-1"})); err != nil {
		t.Fatal(err)
	}
	m, code = l.trace(t, "red/web-1", "--to", "10.0.1.5")
	if got := way(m.GetForward()); code != 1 || got != asked+"h1 from_port ENCAPSULATED, h2 from_uplink NOT_LOCAL" {
		t.Errorf("unplugged: code %d, %s", code, got)
	}
	if out, code := l.in("h1", "", "weft", "trace", "red/db-1", "--to", "10.0.0.5"); code != exitFailed || !strings.Contains(out, "plug it first") {
		t.Errorf("from an unplugged port: code %d, %s", code, out)
	}
}
