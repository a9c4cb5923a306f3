package cli

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"connectrpc.com/connect"

	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/model"
)

func (f *answers) Trace(context.Context, *connect.Request[weftv1.TraceRequest]) (*connect.Response[weftv1.TraceResponse], error) {
	return reply(&weftv1.TraceResponse{Summary: "delivered, and the answer comes back", Forward: []*weftv1.TraceRun{{ToPort: "red/db-1"}}}, nil)
}

// story makes the messages of two hosts about packets: host, point, walk, key, verdict.
type told struct {
	host, point string
	walk, key   uint64
	verdict     model.Verdict
}

func (s told) message(micros int64) *weftv1.CaptureResponse {
	port := map[string]string{"h1": "red/web-1", "h2": "red/db-1"}[s.host]
	p := &weftv1.CapturedPacket{TimeUnixNano: noon.UnixNano() + micros*1000, Point: s.point, Direction: "outbound", Port: port, Walk: s.walk, PacketKey: s.key,
		Verdict: uint32(s.verdict), VerdictName: s.verdict.String(), Length: 98, Summary: fmt.Sprintf("packet %d", s.key)}
	if s.verdict.IsDrop() {
		p.Stage = s.verdict.Info().Stage
	}
	return &weftv1.CaptureResponse{From: &weftv1.CaptureTarget{Host: s.host, Port: port}, Packets: []*weftv1.CapturedPacket{p}}
}

func follow(t *testing.T, sights ...told) (*follower, []*journey) {
	t.Helper()
	f := newFollower(&weftv1.CaptureRequest{Ports: []string{"red/web-1", "red/db-1"}})
	now := noon
	f.hear(&weftv1.CaptureResponse{From: &weftv1.CaptureTarget{Host: "h1", Port: "red/web-1"}}, now)
	f.hear(told{"h2", "from-underlay", 99, 99, model.VerdictDelivered}.message(0), now) // h2 begins in the middle of something
	now = now.Add(liveSilence)
	for i, s := range sights {
		f.hear(s.message(int64(i)), now)
	}
	if early := f.settled(now.Add(liveSilence / 2)); len(early) != 0 {
		t.Errorf("%d journeys were told before they were over", len(early))
	}
	return f, f.settled(now.Add(2 * liveSilence))
}

// Packets of one flow are told apart, and each is followed from host to host, in
// whatever order the hosts speak.
func TestJourneysAreJoined(t *testing.T) {
	f, got := follow(t,
		told{"h2", "from-underlay", 7, 1, model.VerdictDelivered},
		told{"h2", "to-guest", 7, 1, model.VerdictDelivered},
		told{"h1", "from-guest", 7, 1, model.VerdictEncapsulated}, // the same number of a walk, on another host
		told{"h1", "to-underlay", 7, 0, model.VerdictEncapsulated},
		told{"h1", "from-guest", 8, 2, model.VerdictEncapsulated},
		told{"h1", "to-underlay", 8, 0, model.VerdictEncapsulated},
		told{"h1", "from-guest", 9, 3, model.VerdictTooBig},
		told{"h1", "dropped", 9, 3, model.VerdictTooBig},
		told{"h1", "from-guest", 10, 4, model.VerdictAnswered},
		told{"h1", "to-guest", 10, 5, model.VerdictAnswered},
		told{"h1", "from-guest", 11, 1, model.VerdictEncapsulated}, // sent again, and lost
		told{"h1", "to-underlay", 11, 0, model.VerdictEncapsulated},
	)
	want := []struct {
		points  int
		arrived bool
		text    string
	}{
		{4, true, "handed to red/db-1 on h2"},
		{2, false, "left h1 and did not come in"},
		{2, false, "dropped on h1 in stage encap: TOO_BIG"},
		{2, true, "answered by the switch of h1"},
		{2, false, "left h1 and did not come in"},
	}
	if len(got) != len(want) {
		t.Fatalf("%d journeys, want %d", len(got), len(want))
	}
	for i, w := range want {
		text, arrived := f.outcome(got[i])
		if len(got[i].seen) != w.points || arrived != w.arrived || len(text) < len(w.text) || text[:len(w.text)] != w.text {
			t.Errorf("journey %d: %d points, arrived %v, %q; want %v", i, len(got[i].seen), arrived, text, w)
		}
	}
	if len(f.byKey)+len(f.byWalk) > 0 {
		t.Errorf("%d keys and %d walks are kept for ever", len(f.byKey), len(f.byWalk))
	}
}

func TestLiveTraceAsksForBothEnds(t *testing.T) {
	f := &answers{get: func(*weftv1.Key) (*weftv1.Resource, error) { return port("web-1", "True"), nil }}
	serve(t, f)
	r := weft(t, "", "trace", "red/web-1", "--to", "10.0.1.5", "--proto", "tcp", "--dport", "443", "--live", "--duration", "1s")
	r.want(t, 1, "", "policy says: delivered, and the answer comes back\nerror: the guest and 10.0.1.5 said nothing to each other meanwhile that matches\n")
	if q := f.asked; len(q.GetPorts()) != 2 || q.GetPorts()[1] != "red/db-1" || q.GetFilter().GetL4Port() != 443 || q.GetFilter().GetProto() != "tcp" ||
		len(q.GetFilter().GetAddresses()) != 2 || !q.GetFilter().GetExplain() {
		t.Errorf("asked %v", q)
	}
	for args, want := range map[string]int{"--live --count 0": 2, "--live --size 9": 2, "--live -o yaml": 2} {
		if r := weft(t, "", append([]string{"trace", "red/web-1", "--to", "10.0.1.5"}, strings.Fields(args)...)...); r.code != want {
			t.Errorf("%s: code %d: %s", args, r.code, r.err)
		}
	}
}
