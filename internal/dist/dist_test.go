package dist

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"

	hostv1 "github.com/weft-sdn/weft/api/weft/host/v1"
	"github.com/weft-sdn/weft/api/weft/host/v1/hostv1connect"
	weftv1 "github.com/weft-sdn/weft/api/weft/v1"
	"github.com/weft-sdn/weft/internal/hostwire"
	"github.com/weft-sdn/weft/internal/identity"
	"github.com/weft-sdn/weft/internal/model"
)

func TestSnapshotThenDeltas(t *testing.T) {
	f := newFleet(t)
	f.Sync(world(2, 4), 10)
	a := f.arrive("h0", "one", fresh())
	u, _ := a.update()
	want, _ := f.Goal("h0")
	if !u.GetSnapshot() || u.GetRevision() != 10 || !a.receiver.Goal().Equal(want) {
		t.Fatalf("snapshot %t of revision %d", u.GetSnapshot(), u.GetRevision())
	}
	a.ack()
	f.until("h0 is in step", func() bool { return f.inStep("h0") })

	f.Apply(put(portOn(4, "h1")), nil, 11)
	u, rows := a.update()
	if u.GetSnapshot() || u.GetRevision() != 11 || rows != 1 {
		t.Fatalf("snapshot %t of revision %d with %d rows", u.GetSnapshot(), u.GetRevision(), rows)
	}
	a.ack()
	f.Apply(nil, []model.Key{portKey(1)}, 12)
	if _, rows := a.update(); rows != 1 || len(a.receiver.Goal().Records) != 1+4 {
		t.Fatalf("%d rows, %d records", rows, len(a.receiver.Goal().Records))
	}
}

func TestNothingIsSentToHostsThatAChangeDoesNotConcern(t *testing.T) {
	f := newFleet(t)
	f.Sync(append(world(2, 2), hostNamed(7)), 10)
	idle, busy := f.arrive("h7", "idle", fresh()).follow(), f.arrive("h0", "busy", fresh()).follow()
	f.Apply(put(portOn(9, "h1")), nil, 11)
	busy.follow()
	f.status(portKey(9), "2/1/0")
	f.Apply(put(portOn(3, "h7")), nil, 12)
	if u, _ := idle.update(); u.GetRevision() != 12 {
		t.Fatalf("the idle host got revision %d first", u.GetRevision())
	}
}

func TestReconnectWithWhatIsInTheCacheCostsNothing(t *testing.T) {
	f := newFleet(t)
	f.Sync(world(2, 4), 10)
	a := f.arrive("h0", "one", fresh()).follow()
	f.until("h0 is in step", func() bool { return f.inStep("h0") })
	a.stop()
	f.until("h0 is away", func() bool { return !f.Hosts()[0].Connected })

	a = f.arrive("h0", "two", a.receiver)
	u, rows := a.update()
	if u.GetSnapshot() || rows != 0 {
		t.Fatalf("snapshot %t with %d rows", u.GetSnapshot(), rows)
	}
	if s := f.Status(portKey(0)); s.Current != 0 {
		t.Error("a new process counts as current before it has said a word")
	}
	a.ack()
	f.status(portKey(0), "2/1/0")

	a.stop()
	f.until("h0 is away", func() bool { return !f.Hosts()[0].Connected })
	f.Apply(put(portOn(8, "h0")), nil, 11)
	a = f.arrive("h0", "two", a.receiver)
	if u, _ := a.update(); !u.GetSnapshot() || u.GetRevision() != 11 {
		t.Fatalf("after a change: snapshot %t of revision %d", u.GetSnapshot(), u.GetRevision())
	}
}

func TestResyncSendsOnlyWhereTheGoalDiffers(t *testing.T) {
	f := newFleet(t)
	f.Sync(world(3, 3), 10)
	for i := range 3 {
		f.arrive(fmt.Sprint("h", i), "x", fresh()).follow()
	}
	f.status(portKey(1), "3/3/0")
	f.Sync(world(3, 3), 20)
	if s := f.status(portKey(1), "3/3/0"); s.Revision != 20 {
		t.Errorf("revision %d", s.Revision)
	}
	f.Sync(world(3, 2), 21)
	for _, h := range f.Hosts() {
		if h.Lag == 0 && h.Acknowledged == 21 && h.Sent == 10 {
			t.Errorf("%s counts as in step with what it has not got", h.Name)
		}
	}
	if s := f.Status(portKey(2)); !s.Removing || s.Desired != 3 || s.Current != 0 {
		t.Errorf("the port that is gone: %+v", s)
	}
}

// After a Sync nobody knows when a host missed what: the store may have forgotten
// the revisions between, or have been set back.
func TestAResyncIsOwedWhateverTheAgeOfWhatItBrings(t *testing.T) {
	for _, revision := range []int64{5, 12, 20} { // of the port: older than all that is known, between, the last
		f := newFleet(t)
		f.Sync(world(1, 1), 10)
		a := f.arrive("h0", "x", fresh()).follow()
		f.until("h0 is in step", func() bool { return f.inStep("h0") })
		p := portOn(3, "h0")
		p.Metadata.Revision = revision
		f.Sync(append(world(1, 1), p), 20)
		if s := f.Status(portKey(3)); s.Programmed() {
			t.Errorf("of revision %d: programmed before the host had it: %+v", revision, s)
		}
		a.follow()
		f.status(portKey(3), "1/1/0")
	}
}

// A Host that was deleted and created again while nobody watched is another one:
// whoever spoke for the first does not speak for the second.
func TestAResyncEndsTheSessionOfAHostThatWasMadeAnew(t *testing.T) {
	f := newFleet(t)
	of := func(uid string) []model.Resource {
		h := hostNamed(0)
		h.Metadata.UID = uid
		return []model.Resource{h}
	}
	f.Sync(of("first"), 10)
	a := f.dial("h0/first", "x", fresh(), 0).listen()
	if m := a.next(); m.GetWelcome() == nil {
		t.Fatalf("the first word is %v", m)
	}
	a.update()
	f.Sync(of("first"), 15)
	f.Sync(of("second"), 20)
	if err := a.refused(); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("told %v", err)
	}
	f.until("h0 is away", func() bool { return !f.Hosts()[0].Connected })
}

func TestSlowHostGetsOneMergedDelta(t *testing.T) {
	f := newFleet(t)
	f.Sync(world(2, 2), 10)
	slow, quick := f.arrive("h0", "slow", fresh()), f.arrive("h1", "quick", fresh()).follow()
	slow.update()
	for i := range 500 { // the same ten ports, to and fro
		f.Apply(put(portOn(10+i%10, fmt.Sprint("h", i%2))), nil, int64(11+i))
	}
	quick.follow()
	slow.ack()
	u, rows := slow.update()
	if want, _ := f.Goal("h0"); u.GetRevision() != 510 || !slow.receiver.Goal().Equal(want) {
		t.Fatalf("revision %d", u.GetRevision())
	}
	if rows > 20 {
		t.Errorf("%d rows for ten ports", rows)
	}
	slow.ack()
	f.until("h0 is in step", func() bool { return f.inStep("h0") })
}

func TestTooMuchForASlowHostBecomesASnapshot(t *testing.T) {
	f := newFleet(t)
	f.Sync(world(2, 2), 10)
	slow := f.arrive("h0", "slow", fresh())
	slow.update()
	var many []model.Resource
	for i := range maxPending + 1 {
		many = append(many, portOn(10+i, "h1"))
	}
	f.Apply(many, nil, 11)
	f.mu.Lock()
	held := f.hosts["h0"].pending.Rows()
	f.mu.Unlock()
	if held != 0 {
		t.Errorf("%d rows are kept for the slow host", held)
	}
	slow.ack()
	if u, _ := slow.update(); !u.GetSnapshot() || u.GetRevision() != 11 {
		t.Fatalf("snapshot %t of revision %d", u.GetSnapshot(), u.GetRevision())
	}
}

func TestHostThatDoesNotReadHoldsNobodyUpAndIsDropped(t *testing.T) {
	t.Parallel() // it waits, mostly
	f := newFleet(t, func(c *Config) { c.Heartbeat = time.Second })
	f.Sync(world(2, 20_000), 10)
	f.dial("h0", "deaf", fresh(), 64<<10)
	f.until("the deaf agent has arrived", func() bool { return f.Hosts()[0].Connected })
	quick := f.arrive("h1", "quick", fresh())
	beat, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for beat.Err() == nil {
			<-tick.C
			quick.stream.Send(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Heartbeat{Heartbeat: &hostv1.Heartbeat{}}})
		}
	}()
	quick.update()
	f.until("the deaf and silent agent is dropped", func() bool { return !f.Hosts()[0].Connected })
	if !f.Hosts()[1].Connected {
		t.Error("the agent with heartbeats was dropped as well")
	}
}

// An agent may speak and not read: then it must not keep what others wait for.
func TestAnAgentThatSpeaksAndDoesNotReadIsDropped(t *testing.T) {
	t.Parallel() // it waits, mostly
	f := newFleet(t, func(c *Config) { c.Heartbeat = time.Second })
	f.Sync(world(1, 20_000), 10)
	deaf := f.dial("h0", "deaf", fresh(), 64<<10)
	f.until("the deaf agent has arrived", func() bool { return f.Hosts()[0].Connected })
	beat, stop := context.WithCancel(t.Context())
	defer stop()
	go func() {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for beat.Err() == nil {
			<-tick.C
			deaf.say(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Heartbeat{Heartbeat: &hostv1.Heartbeat{}}})
		}
	}()
	f.until("it is dropped", func() bool { return !f.Hosts()[0].Connected })
	f.untilTurns(0)
}

// Many hosts may come back at once, without a cache: each snapshot costs memory
// until it is sent, so they take turns.
func TestLargeUpdatesTakeTurns(t *testing.T) {
	f := newFleet(t)
	f.Sync(world(maxLarge+1, 20_000), 10)
	var deaf []*agent
	for i := range maxLarge {
		deaf = append(deaf, f.dial(fmt.Sprint("h", i), "deaf", fresh(), 64<<10))
	}
	f.untilTurns(maxLarge)
	last := fmt.Sprint("h", maxLarge)
	a := f.arrive(last, "patient", fresh())
	answered := make(chan error, 1)
	go func() {
		_, err := f.Query(t.Context(), last, &hostv1.Query{Query: &hostv1.Query_Verify{Verify: &hostv1.VerifyQuery{}}})
		answered <- err
	}()
	q := a.next().GetQuery()
	if q == nil {
		t.Fatal("an update came out of turn")
	}
	a.say(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Answer{Answer: &hostv1.Answer{Id: q.GetId()}}})
	if err := <-answered; err != nil {
		t.Fatal(err)
	}
	deaf[3].stop()
	a.follow()
	// Who waits in vain does not keep its place.
	for _, d := range deaf {
		d.stop()
	}
	f.untilTurns(0)
}

func TestSilentAgentIsDropped(t *testing.T) {
	t.Parallel() // it waits, mostly
	f := newFleet(t, func(c *Config) { c.Heartbeat = time.Second })
	f.Sync(world(1, 1), 10)
	a := f.arrive("h0", "silent", fresh())
	a.update()
	if err := a.refused(); connect.CodeOf(err) != connect.CodeDeadlineExceeded {
		t.Errorf("told %v", err)
	}
	f.until("h0 is away", func() bool { return !f.Hosts()[0].Connected })
}

// Whoever calls and does not say what he wants is not waited for.
func TestACallThatIsNotFinishedIsCutOff(t *testing.T) {
	t.Parallel() // it waits, mostly
	f := newFleet(t, func(c *Config) {
		c.Heartbeat = time.Second
		c.Join = func(context.Context, *hostv1.JoinRequest) (*hostv1.JoinResponse, error) {
			t.Error("a join without a request was let in")
			return nil, nil
		}
	})
	for _, procedure := range []string{hostv1connect.HostServiceJoinProcedure, hostv1connect.HostServiceRenewProcedure, hostv1connect.HostServiceBindPortProcedure} {
		body, more := io.Pipe()
		defer more.Close()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		q, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url+procedure, body)
		if err != nil {
			t.Fatal(err)
		}
		q.Header.Set("Content-Type", "application/proto")
		q.Header.Set("X-Host", "h0")
		protocols := new(http.Protocols)
		protocols.SetUnencryptedHTTP2(true)
		client := &http.Client{Transport: &http.Transport{Protocols: protocols}}
		answer, err := client.Do(q)
		if ctx.Err() != nil {
			t.Fatalf("%s: the server waits for ever", procedure)
		}
		if err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				t.Errorf("%s: answered with %s", procedure, answer.Status)
			}
		}
	}
}

// An agent may say again what has changed, but not make the server listen all day.
func TestAFloodingAgentIsCutOff(t *testing.T) {
	f := newFleet(t)
	f.Sync(world(2, 2), 10)
	loud, other := f.arrive("h0", "loud", fresh()).follow(), f.arrive("h1", "quiet", fresh()).follow()
	for range 50 {
		loud.ack(&hostv1.Failure{Kind: "Host", Name: "h0", Reason: "NotProgrammed", Message: "this and that"})
	}
	f.until("the failure shows", func() bool { return len(f.Hosts()[0].Failures) == 1 })
	digest := loud.receiver.Digest()
	flood := &hostv1.AgentMessage{Message: &hostv1.AgentMessage_Ack{Ack: &hostv1.Ack{Revision: loud.receiver.Revision(), Digest: digest[:]}}}
	go func() {
		for loud.stream.Send(flood) == nil {
		}
	}()
	if err := loud.refused(); connect.CodeOf(err) != connect.CodeResourceExhausted {
		t.Errorf("told %v", err)
	}
	f.until("h0 is away", func() bool { return !f.Hosts()[0].Connected })
	// Acknowledgements that updates ask for are no flood, however many.
	for i := range 3 * maxUnasked {
		f.Apply(put(portOn(5+i%2, "h1")), nil, int64(11+2*i))
		f.Apply(nil, []model.Key{portKey(5 + i%2)}, int64(12+2*i))
		other.follow()
	}
	f.until("h1 is in step", func() bool { return f.inStep("h1") })
}

func TestSecondAgentOfAHostIsRefused(t *testing.T) {
	f := newFleet(t)
	f.Sync(world(1, 1), 10)
	first := f.arrive("h0", "first", fresh()).follow()
	err := f.dial("h0", "impostor", fresh(), 0).listen().refused()
	if connect.CodeOf(err) != connect.CodeAlreadyExists || !strings.Contains(err.Error(), "already has a live agent") {
		t.Fatalf("told %v", err)
	}
	f.Apply(put(portOn(5, "h0")), nil, 11)
	first.follow()

	again := f.arrive("h0", "first", first.receiver)
	if err := first.refused(); connect.CodeOf(err) != connect.CodeAborted {
		t.Errorf("the replaced session was told %v", err)
	}
	if u, _ := again.update(); u.GetSnapshot() {
		t.Error("a snapshot for an agent that had everything")
	}
	again.ack()
	f.until("h0 is in step", func() bool { return f.inStep("h0") })
}

func TestWrongDigestIsHealedByASnapshot(t *testing.T) {
	f := newFleet(t)
	f.Sync(world(1, 2), 10)
	a := f.arrive("h0", "one", fresh()).follow()
	f.Apply(put(portOn(5, "h0")), nil, 11)
	u := a.next().GetUpdate() // lost on the way: the agent keeps what it had
	digest := a.receiver.Digest()
	a.say(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Ack{Ack: &hostv1.Ack{Revision: u.GetRevision(), Digest: digest[:]}}})
	if u, _ := a.update(); !u.GetSnapshot() || u.GetRevision() != 11 {
		t.Fatalf("snapshot %t of revision %d", u.GetSnapshot(), u.GetRevision())
	}
	if s := f.Status(portKey(5)); s.Programmed() {
		t.Error("programmed before the snapshot is acknowledged")
	}
	a.ack()
	f.status(portKey(5), "1/1/0")
}

// An agent whose digest never fits must not make the server send for ever.
func TestDigestThatNeverFitsIsNotAStorm(t *testing.T) {
	f := newFleet(t)
	f.Sync(world(1, 2), 10)
	a := f.arrive("h0", "odd", fresh())
	lie := func() {
		a.say(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Ack{Ack: &hostv1.Ack{Revision: 10, Digest: make([]byte, 16)}}})
	}
	a.next()
	lie()
	a.next()
	lie()
	f.until("it is given a rest", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.hosts["h0"].wrong == 2 && f.hosts["h0"].flight == nil
	})
	select {
	case m := <-a.in:
		t.Fatalf("got %T at once", m.GetMessage())
	case err := <-a.over:
		t.Fatal(err)
	default:
	}
	f.mu.Lock()
	s := f.hosts["h0"].session
	f.mu.Unlock()
	s.forgive() // as the next heartbeat does
	a.update()
	a.ack()
	f.until("h0 is in step", func() bool { return f.inStep("h0") })
}

func TestRolloutTellsTheTruth(t *testing.T) {
	f := newFleet(t)
	f.Sync(world(3, 3), 10)
	if s := f.Status(portKey(0)); s.Desired != 3 || s.Current != 0 || s.Programmed() {
		t.Fatalf("before any agent: %+v", s)
	}
	var a [3]*agent
	for i := range a {
		a[i] = f.arrive(fmt.Sprint("h", i), "x", fresh())
		a[i].follow()
	}
	f.status(portKey(0), "3/3/0")
	f.status(hostKey(1), "1/1/0")

	f.clock.advance(time.Minute)
	f.Apply(put(portOn(7, "h1")), nil, 11)
	f.clock.advance(5 * time.Second)
	for i := range a {
		a[i].update()
	}
	a[0].ack()
	s := f.status(portKey(7), "3/1/0")
	if s.OldestLag != 5*time.Second || !slices.Equal(s.Behind, []string{"h1", "h2"}) || s.Revision != 11 {
		t.Errorf("%+v", s)
	}
	f.status(portKey(0), "3/3/0") // an older port is not behind because of a newer one

	failure := &hostv1.Failure{Kind: "Port", Tenant: "red", Name: "p7", Reason: "MapFull", Message: "the port map is full"}
	a[1].ack(failure)
	s = f.status(portKey(7), "3/1/1")
	if s.Failures[0].Host != "h1" || s.Failures[0].Reason != "MapFull" || s.Programmed() {
		t.Errorf("%+v", s)
	}
	a[2].ack()
	f.status(portKey(7), "3/2/1")
	a[1].ack()
	s = f.status(portKey(7), "3/3/0")
	if !s.Programmed() || s.OldestLag != 0 {
		t.Errorf("%+v", s)
	}
	a[2].ack(&hostv1.Failure{Kind: "Host", Name: "h2", Reason: "DatapathFailed", Message: "the switch does not load"})
	f.status(portKey(0), "3/2/1")
}

func TestRemovalCountsUntilEveryHostHasLetGo(t *testing.T) {
	f := newFleet(t)
	f.Sync(world(2, 4), 10)
	a, b := f.arrive("h0", "a", fresh()).follow(), f.arrive("h1", "b", fresh()).follow()
	f.status(portKey(0), "2/2/0")
	f.Apply(nil, []model.Key{portKey(0)}, 11)
	if s := f.Status(portKey(0)); !s.Removing || s.Desired != 2 || s.Programmed() {
		t.Fatalf("%+v", s)
	}
	a.follow()
	f.status(portKey(0), "1/0/0")
	b.follow()
	f.status(portKey(0), "0/0/0")

	// The last port of the network leaves h1: h1 must let go of it too.
	f.Apply(put(portOn(1, "h0"), portOn(3, "h0")), nil, 12)
	a.follow()
	if s := f.status(portKey(3), "2/1/0"); !slices.Equal(s.Behind, []string{"h1"}) || s.Removing {
		t.Errorf("%+v", s)
	}
	b.follow()
	f.status(portKey(3), "1/1/0")
	if n := b.receiver.Goal().Rows(); n != 1 {
		t.Errorf("h1 keeps %d rows beside its PA", n-1)
	}
}

func TestHostThatLeavesPolicyIsSentAway(t *testing.T) {
	f := newFleet(t)
	f.Sync(world(2, 2), 10)
	a := f.arrive("h1", "b", fresh()).follow()
	f.Apply(nil, []model.Key{portKey(1), {Kind: model.KindProviderAddress, Ref: model.Ref{Name: "pa1"}}, hostKey(1)}, 11)
	if err := a.refused(); connect.CodeOf(err) != connect.CodePermissionDenied {
		t.Errorf("told %v", err)
	}
	if s := f.Status(portKey(1)); s.Removing && slices.Contains(s.Behind, "h1") {
		t.Error("a removal waits for a host that is gone")
	}
	if err := f.dial("h1", "b", fresh(), 0).listen().refused(); !strings.Contains(err.Error(), "not in policy") {
		t.Errorf("told %v", err)
	}
}

func TestWhoIsRefused(t *testing.T) {
	f := newFleet(t)
	if err := f.dial("h0", "early", fresh(), 0).listen().refused(); connect.CodeOf(err) != connect.CodeUnavailable {
		t.Errorf("before the first sync: %v", err)
	}
	f.Sync(world(1, 1), 10)
	if err := f.dial("", "x", fresh(), 0).listen().refused(); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("without a certificate: %v", err)
	}
	if err := f.dial("h0", "", fresh(), 0).listen().refused(); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("without an instance: %v", err)
	}
	hello := func(m *hostv1.AgentMessage) error {
		return f.open("h0", 0, fresh(), m).listen().refused()
	}
	if err := hello(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Hello{Hello: &hostv1.Hello{Protocol: hostwire.Protocol + 1}}}); !strings.Contains(err.Error(), "upgrade") {
		t.Errorf("another protocol: %v", err)
	}
	if err := hello(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Hello{Hello: &hostv1.Hello{Protocol: hostwire.Protocol, Instance: "x", Digest: []byte{1}}}}); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("a short digest: %v", err)
	}
	if err := hello(&hostv1.AgentMessage{}); connect.CodeOf(err) != connect.CodeInvalidArgument {
		t.Errorf("no hello: %v", err)
	}
}

func TestWhatAnAgentSaysIsCutAndFitToBeShown(t *testing.T) {
	cut := strings.Repeat("x", maxText-1) + "…"
	for said, want := range map[string]string{"plain": "plain", cut: cut[:maxText-1], "a\x1b[31mb\nc\u009bd\u202e": "a [31mb c d ", "héé": "héé"} {
		if got := clip(said); got != want || !utf8.ValidString(got) {
			t.Errorf("%q became %q, want %q", said, got, want)
		}
	}
	many := &hostv1.Facts{Kernel: cut, Decap: cut, UnderlayMtu: 1500}
	for range maxAddresses + 5 {
		many.ProviderAddresses = append(many.ProviderAddresses, cut)
	}
	got := bounded(many)
	if len(got.ProviderAddresses) != maxAddresses || got.ProviderAddresses[0] != clip(cut) || got.Kernel != clip(cut) || got.Decap != clip(cut) || got.UnderlayMtu != 1500 {
		t.Errorf("facts %v", got)
	}
	if bounded(nil) != nil {
		t.Error("no facts became some")
	}
}

// A request is let in when it begins; the hello may come when the host has long been
// deleted and created again.
func TestTheHelloOfAnotherHostOfTheSameNameIsRefused(t *testing.T) {
	f := newFleet(t)
	h := hostNamed(0)
	h.Metadata.UID = "second"
	f.Sync(put(h), 10)
	if err := f.dial("h0/first", "x", fresh(), 0).listen().refused(); connect.CodeOf(err) != connect.CodePermissionDenied || !strings.Contains(err.Error(), "join again") {
		t.Errorf("told %v", err)
	}
	a := f.dial("h0/second", "x", fresh(), 0).listen()
	if m := a.next(); m.GetWelcome() == nil {
		t.Errorf("the first word is %v", m)
	}
}

func TestQuestionsReachTheHost(t *testing.T) {
	f := newFleet(t)
	f.Sync(world(1, 1), 10)
	ask := &hostv1.Query{Query: &hostv1.Query_Verify{Verify: &hostv1.VerifyQuery{}}}
	if _, err := f.Query(t.Context(), "h0", ask); !errors.Is(err, ErrAway) {
		t.Fatalf("with no agent: %v", err)
	}
	a := f.arrive("h0", "one", fresh()).follow()
	answers := make(chan error, 1)
	query := func(ctx context.Context, want string) {
		go func() {
			got, err := f.Query(ctx, "h0", ask)
			if err == nil && got.GetVerify().GetDifferences()[0] != want {
				err = fmt.Errorf("got %v", got)
			}
			answers <- err
		}()
	}
	query(t.Context(), "one row too many")
	q := a.next().GetQuery()
	if q.GetVerify() == nil || q.GetId() == 0 {
		t.Fatalf("asked %v", q)
	}
	reply := func(id uint64, said *hostv1.Answer) {
		said.Id = id
		a.say(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Answer{Answer: said}})
	}
	reply(q.GetId()+100, &hostv1.Answer{Error: "an answer to nobody"})
	reply(q.GetId(), &hostv1.Answer{Answer: &hostv1.Answer_Verify{Verify: &hostv1.VerifyAnswer{Differences: []string{"one row too many"}}}})
	if err := <-answers; err != nil {
		t.Fatal(err)
	}
	query(t.Context(), "")
	reply(a.next().GetQuery().GetId(), &hostv1.Answer{Error: "no such map"})
	if err := <-answers; err == nil || !strings.Contains(err.Error(), "no such map") {
		t.Fatalf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	query(ctx, "")
	a.next()
	cancel()
	if err := <-answers; !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	query(t.Context(), "")
	a.next()
	a.stop()
	if err := <-answers; !errors.Is(err, ErrAway) {
		t.Fatalf("got %v", err)
	}
}

func TestFactsReachTheServer(t *testing.T) {
	type said struct{ host, kernel string }
	heard := make(chan said)
	f := newFleet(t, func(c *Config) {
		c.Facts = func(ctx context.Context, host string, facts *hostv1.Facts) {
			select {
			case heard <- said{host, facts.GetKernel()}:
			case <-ctx.Done():
			}
		}
	})
	f.Sync(world(1, 1), 10)
	a := f.arrive("h0", "one", fresh())
	if got := <-heard; got != (said{"h0", "6.18"}) {
		t.Errorf("heard %v", got)
	}
	a.say(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Facts{Facts: &hostv1.Facts{Kernel: "7.3"}}})
	if got := <-heard; got != (said{"h0", "7.3"}) {
		t.Errorf("heard %v", got)
	}
	if got := f.Hosts()[0].Facts.GetKernel(); got != "7.3" {
		t.Errorf("kept %q", got)
	}
}

func TestAHostBindsOnlyForItself(t *testing.T) {
	var bound []string
	f := newFleet(t, func(c *Config) {
		c.Bind = func(_ context.Context, host identity.Principal, port model.Ref) (int64, error) {
			bound = append(bound, host.Name+" "+port.String())
			return 42, nil
		}
		c.Join = func(_ context.Context, r *hostv1.JoinRequest) (*hostv1.JoinResponse, error) {
			return &hostv1.JoinResponse{CertificatePem: []byte(r.GetHost())}, nil
		}
		c.Renew = func(_ context.Context, host identity.Principal, _ *hostv1.RenewRequest) (*hostv1.JoinResponse, error) {
			return &hostv1.JoinResponse{CertificatePem: []byte(host.Name)}, nil
		}
	})
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := hostv1connect.NewHostServiceClient(&http.Client{Transport: &http.Transport{Protocols: protocols}}, f.url)
	request := connect.NewRequest(&hostv1.BindPortRequest{Tenant: "red", Name: "p1"})
	if _, err := client.BindPort(t.Context(), request); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("without a certificate: %v", err)
	}
	request.Header().Set("X-Host", "h0")
	got, err := client.BindPort(t.Context(), request)
	if err != nil || got.Msg.GetRevision() != 42 || !slices.Equal(bound, []string{"h0 red/p1"}) {
		t.Errorf("%v, %v, bound %v", got, err, bound)
	}
	if got, err := client.Join(t.Context(), connect.NewRequest(&hostv1.JoinRequest{Host: "h5"})); err != nil || string(got.Msg.GetCertificatePem()) != "h5" {
		t.Errorf("join: %v", err)
	}
	if _, err := client.Renew(t.Context(), connect.NewRequest(&hostv1.RenewRequest{})); connect.CodeOf(err) != connect.CodeUnauthenticated {
		t.Errorf("renew without a certificate: %v", err)
	}
}

func TestPreviewSaysWhatWouldChangeAndChangesNothing(t *testing.T) {
	f := newFleet(t)
	f.Sync(world(2, 2), 10)
	a := f.arrive("h0", "one", fresh()).follow()
	before, _ := f.Goal("h0")
	got := f.Preview(put(portOn(0, "h1"), portOn(5, "h1")), []model.Key{portKey(1)})
	want := "- record 5001 10.1.0.0 02:00:00:00:00:00 -> 198.18.0.0\n" +
		"- record 5001 10.1.0.1 02:00:00:00:00:01 -> 198.18.0.1\n"
	if s := lines(got, "h0"); !strings.Contains(s, want) || !strings.Contains(s, "- port red/p0 ") || strings.Contains(s, "+ ") {
		t.Errorf("h0:\n%s", s)
	}
	if s := lines(got, "h1"); !strings.Contains(s, "+ record 5001 10.1.0.5 02:00:00:00:00:05 -> 198.18.0.1\n") ||
		!strings.Contains(s, "- record 5001 10.1.0.0 02:00:00:00:00:00 -> 198.18.0.0\n") || !strings.Contains(s, "- port red/p1 ") {
		t.Errorf("h1:\n%s", s)
	}
	after, _ := f.Goal("h0")
	if !after.Equal(before) || !f.inStep("h0") && f.Status(portKey(5)).Revision != 0 {
		t.Error("the preview left something behind")
	}
	f.Apply(put(portOn(6, "h1")), nil, 11)
	if _, rows := a.update(); rows != 1 {
		t.Errorf("%d rows after a preview and a change of one", rows)
	}
}

func TestWatchersHearOfEveryKindOfChange(t *testing.T) {
	f := newFleet(t)
	changes, stop := f.Changed()
	hear := func(what string) {
		t.Helper()
		select {
		case <-changes:
		case <-time.After(patience):
			t.Fatalf("nothing heard of %s", what)
		}
	}
	f.Sync(world(1, 1), 10)
	hear("a sync")
	f.Apply(put(portOn(1, "h0")), nil, 11)
	hear("a change")
	a := f.arrive("h0", "one", fresh())
	hear("an arrival")
	a.update()
	a.ack()
	hear("an acknowledgement")
	a.say(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Facts{Facts: &hostv1.Facts{Kernel: "7.3"}}})
	hear("facts")
	a.stop()
	hear("a departure")
	stop()
	f.Apply(put(portOn(2, "h0")), nil, 12)
	select {
	case <-changes:
		t.Error("heard after stop")
	default:
	}
}

// A host brings only the packets that it was asked for, and hears when it is enough.
func TestCapturesComeFromTheirHost(t *testing.T) {
	f := newFleet(t, func(c *Config) { c.Heartbeat = 300 * time.Millisecond })
	f.Sync(world(2, 1), 10)
	taken := make(chan string)
	over := make(chan error, 1)
	ctx, enough := context.WithCancel(t.Context())
	ask := func() {
		over <- f.Capture(ctx, "h0", &hostv1.CaptureQuery{Port: 7}, func(m *weftv1.CaptureResponse) error {
			taken <- m.GetPackets()[0].GetPoint()
			return nil
		})
	}
	go ask()
	if err := <-over; !errors.Is(err, ErrAway) {
		t.Fatalf("with no agent: %v", err)
	}
	a := f.arrive("h0", "one", fresh()).follow()
	go ask()
	q := a.next().GetQuery()
	if q.GetCapture().GetPort() != 7 || q.GetCapture().GetId() == "" {
		t.Fatalf("asked %v", q)
	}
	a.say(&hostv1.AgentMessage{Message: &hostv1.AgentMessage_Answer{Answer: &hostv1.Answer{Id: q.GetId(), Answer: &hostv1.Answer_Capture{Capture: &hostv1.CaptureAnswer{}}}}})

	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	client := hostv1connect.NewHostServiceClient(&http.Client{Transport: &http.Transport{Protocols: protocols}}, f.url)
	bring := func(host, id string) *connect.ClientStreamForClient[hostv1.CaptureUpload, hostv1.CaptureDone] {
		s := client.Capture(t.Context())
		s.RequestHeader().Set("X-Host", host)
		_ = s.Send(&hostv1.CaptureUpload{Id: id, Message: &weftv1.CaptureResponse{Packets: []*weftv1.CapturedPacket{{Point: host}}}})
		return s
	}
	for host, id := range map[string]string{"h1": q.GetCapture().GetId(), "h0": "guessed"} {
		if _, err := bring(host, id).CloseAndReceive(); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("%s brought packets for %q: %v", host, id, err)
		}
	}
	s := bring("h0", q.GetCapture().GetId())
	if got := <-taken; got != "h0" {
		t.Errorf("took what %s brought", got)
	}
	for start := time.Now(); time.Since(start) < time.Second; { // no call but these lasts so long
		if err := s.Send(&hostv1.CaptureUpload{Message: &weftv1.CaptureResponse{Packets: []*weftv1.CapturedPacket{{Point: "h0"}}}}); err != nil {
			t.Fatalf("cut off: %v", err)
		}
		<-taken
		<-time.After(10 * time.Millisecond)
	}
	enough()
	if err := <-over; err != nil {
		t.Error(err)
	}
	_ = s.Send(&hostv1.CaptureUpload{})
	if _, err := s.CloseAndReceive(); connect.CodeOf(err) != connect.CodeNotFound {
		t.Errorf("after enough: %v", err)
	}
}
