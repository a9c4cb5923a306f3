package server

import (
	"strings"
	"testing"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/model"
)

func TestATraceThatCannotBeMadeSaysWhy(t *testing.T) {
	r := start(t, t.TempDir(), nil)
	r.apply(t, world()...)
	r.apply(t, portOf("red", "spare", "web", ""))
	ask := func(m *weftv1.TraceRequest) error {
		_, err := r.operate.Trace(t.Context(), connect.NewRequest(m))
		return err
	}
	for _, c := range []struct {
		request *weftv1.TraceRequest
		code    connect.Code
		text    string
	}{
		{&weftv1.TraceRequest{Port: "red/web-1", To: "10.0.0.300"}, connect.CodeInvalidArgument, "is not an IP address"},
		{&weftv1.TraceRequest{Port: "red/web-1", To: "fe80::1%eth0"}, connect.CodeInvalidArgument, "is not an IP address"},
		{&weftv1.TraceRequest{Port: "red/web-1", To: "10.0.0.6", Proto: "gre"}, connect.CodeInvalidArgument, "must be icmp, tcp or udp"},
		{&weftv1.TraceRequest{Port: "red/web-1", To: "10.0.0.6", Size: 3401}, connect.CodeInvalidArgument, "at most 3400"},
		{&weftv1.TraceRequest{Port: "red", To: "10.0.0.6"}, connect.CodeInvalidArgument, "is not TENANT/PORT"},
		{&weftv1.TraceRequest{Port: "red/none", To: "10.0.0.6"}, connect.CodeNotFound, "does not exist"},
		{&weftv1.TraceRequest{Port: "red/spare", To: "10.0.0.6"}, connect.CodeFailedPrecondition, "is on no host yet"},
		{&weftv1.TraceRequest{Port: "red/web-1", To: "10.0.0.6"}, connect.CodeFailedPrecondition, "not connected"},
	} {
		if err := ask(c.request); connect.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%v: %v", c.request, err)
		}
	}
	attach(t, r, joined(t, r, "h1"), facts("192.0.2.1"))
	eventually(t, "h1 gives an answer to another question", func() bool {
		err := ask(&weftv1.TraceRequest{Port: "red/web-1", To: "10.0.0.6"})
		return connect.CodeOf(err) == connect.CodeInternal && strings.Contains(err.Error(), "answer is empty")
	})
}

// The last run decides what a leg came to.
func TestWhatALegCameTo(t *testing.T) {
	for v, want := range map[model.Verdict]string{
		model.VerdictDelivered:    "delivered to red/fw on host h2, which does not have the address itself",
		model.VerdictAnswered:     "answered by the switch of host h2",
		model.VerdictEncapsulated: "sent to 203.0.113.9, which is no Provider Address of a host",
		model.VerdictNoRoute:      "dropped on host h2, stage route: NO_ROUTE",
		model.VerdictPass:         "not delivered",
	} {
		l := leg{runs: []*weftv1.TraceRun{{}, {Host: "h2", Verdict: uint32(v), VerdictName: v.String(), ToPort: "red/fw",
			Outer: &weftv1.TraceOuter{Destination: "203.0.113.9"}}}}
		if got := l.summary(); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %s", v, got)
		}
		if arrived := v == model.VerdictDelivered || v == model.VerdictAnswered; l.arrived() != arrived {
			t.Errorf("%s: arrived %v", v, l.arrived())
		}
	}
}
